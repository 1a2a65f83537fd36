//! The table of sections and keys: for each key its type, default, allowed values and help text.

use std::net::SocketAddr;
use std::path::PathBuf;

use toml::Spanned;

use super::address_types::{Listen, ListenAddress, NetworkOrFile, NetworkSource, UdpAddress};
use super::cluster_types::{ClusterName, ClusterUrl, PasswordLocation};
use super::list_file::parse_network;
use super::toml_value::TomlValue;
use super::value_types::{
    AbsolutePath, AnnouncePath, Boolean, InvalidValue, ListOf, OrEmpty, PagePath, ValueType,
    keyword, number, seconds, text,
};
use crate::cluster::settings::PasswordFile;
use crate::cluster::url::StoreUrl;
use crate::log;
use crate::protocol::udp::InvalidConnectionIds;

/// Generates a struct for each section of the table below, and [`Config`], which holds them all.
///
/// It also generates two functions: `set_key` sets a key, and `describe` lists all keys. The doc comment of a key or
/// section is its help text in the sample configuration.
macro_rules! sections {
    ($(
        $(#[doc = $about:literal])+
        [$section:ident] $Section:ident {
            $(
                $(#[doc = $help:literal])+
                $key:ident: $Type:ty = $default:expr, $value_type:expr;
            )+
        }
    )+) => {
        $(
            $(#[doc = $about])+
            #[derive(Clone, PartialEq, Debug)]
            pub struct $Section {
                $(
                    $(#[doc = $help])+
                    pub $key: $Type,
                )+
            }

            impl Default for $Section {
                fn default() -> Self {
                    Self { $($key: $default,)+ }
                }
            }
        )+

        /// The whole configuration. Every value is within its range.
        #[derive(Clone, PartialEq, Debug, Default)]
        pub struct Config {
            $(
                $(#[doc = $about])+
                pub $section: $Section,
            )+
        }

        impl Config {
            /// Sets a key to a value from a file. Returns `None` if there is no such key.
            pub(super) fn set_key(
                &mut self,
                section: &str,
                key: &str,
                value: &Spanned<TomlValue>,
            ) -> Option<Result<(), Vec<InvalidValue>>> {
                match (section, key) {
                    $($(
                        (stringify!($section), stringify!($key)) => {
                            Some($value_type.parse(value).map(|value| self.$section.$key = value))
                        }
                    )+)+
                    _ => None,
                }
            }

            /// Returns every section and key, in the order of the table, with the values of this configuration.
            pub(super) fn describe(&self) -> Vec<SectionDescription> {
                vec![$(
                    SectionDescription {
                        name: stringify!($section),
                        about: &[$($about),+],
                        keys: vec![$(
                            KeyDescription {
                                name: stringify!($key),
                                help: &[$($help),+],
                                allowed: $value_type.allowed(),
                                value: $value_type.write(&self.$section.$key),
                            },
                        )+],
                    },
                )+]
            }
        }
    };
}

// To add a key, add it here and to man/tbtt.toml.5. Tests compare the two: the keys, their defaults and allowed values,
// and every sentence of the help texts.
sections! {
    /// Announce and scrape over HTTP.
    [http] HttpSection {
        /// Addresses and Unix sockets to listen on for HTTP. The IPv6 wildcard [::] serves IPv4 as
        /// well, so no other address can be listed with the same port. With port 0 the system picks
        /// a free port. Sockets passed by the service manager replace this list.
        listen: Vec<Listen> = vec![Listen::Tcp(([0; 8], 6969).into())], ListOf(ListenAddress);

        /// Path of the announce URL. Clients derive the path of the scrape URL from it: they replace
        /// announce with scrape in the last part (BEP 48).
        announce_path: String = "/announce".to_owned(), AnnouncePath;

        /// Seconds in which a client must send its request line and header. Slower connections are
        /// closed.
        header_timeout: u32 = 10, seconds(1..=300);

        /// Seconds that a connection may stay open without a request.
        idle_timeout: u32 = 20, seconds(1..=3600);

        /// Maximum number of open connections. Further connections are closed before a request is
        /// read.
        max_connections: u32 = 16384, number(1..=1_000_000, "connections");

        /// Maximum number of open connections from one network: an IPv4 address or an IPv6 /64.
        max_connections_per_network: u32 = 512, number(1..=1_000_000, "connections");
    }

    /// Announce and scrape over UDP (BEP 15), for the same torrents and peers.
    [udp] UdpSection {
        /// Addresses to listen on for UDP, written as in [http]. An empty list disables UDP. Sockets
        /// passed by the service manager replace this list.
        listen: Vec<SocketAddr> = vec![([0; 8], 6969).into()], ListOf(UdpAddress);

        /// Seconds for which a connection id is valid. Old clients use an id for up to an hour. A
        /// longer lifetime serves these clients and does not weaken the protection.
        connection_lifetime: u32 = 120, seconds(60..=3600);

        /// Response to a request with a forged or expired connection id: silence sends nothing,
        /// error sends an error. The error is shorter than any request, so it cannot be used to
        /// amplify a flood.
        invalid_connection_ids: InvalidConnectionIds = InvalidConnectionIds::Silence,
            keyword::<InvalidConnectionIds>(InvalidConnectionIds::KEYWORDS);

        /// Maximum UDP response size. Responses larger than the path MTU may be lost to
        /// fragmentation.
        max_payload: u32 = 1232, number(512..=1472, "bytes");

        /// Size of the receive buffer of each UDP socket, where requests wait to be read. Without
        /// the privilege to exceed it, the limit of the system, net.core.rmem_max, applies.
        receive_buffer: u32 = 1_048_576, number(16_384..=1_073_741_824, "bytes");
    }

    /// Responses to clients, and how long peers are kept.
    [tracker] TrackerSection {
        /// Seconds that clients are asked to wait between announces.
        interval: u32 = 1800, seconds(60..=7200);

        /// Minimum number of seconds that a client must wait before it announces again to get more
        /// peers. Must not be longer than interval.
        min_interval: u32 = 300, seconds(1..=7200);

        /// Seconds after its last announce for which a peer is still handed out. They are counted in
        /// whole minutes. Set it well above interval; otherwise peers are removed before they
        /// announce again.
        peer_timeout: u32 = 2700, seconds(120..=14400);

        /// Number of peers returned to a client that does not ask for a number. Must not be more
        /// than max_numwant.
        numwant: u32 = 50, number(0..=1000, "peers");

        /// Maximum number of peers in a response, even if the client asks for more.
        max_numwant: u32 = 200, number(1..=1000, "peers");

        /// Maximum number of torrents in one scrape over HTTP. Over UDP the maximum is 74, or fewer
        /// if max_payload is less than 896.
        max_scrape: u32 = 74, number(1..=1000, "torrents");

        /// Whether a scrape over HTTP that names no torrent returns all torrents.
        full_scrape: bool = false, Boolean;

        /// Warning that is sent with every announce response over HTTP. Many clients show it to the
        /// user. If it is empty, no warning is sent.
        warning: String = String::new(), text(255);

        /// Number of threads that serve clients. 0 means one thread for each processor core.
        workers: u32 = 0, number(0..=256, "threads");
    }

    /// The torrents that are tracked. Without open, these are only the torrents named by directories
    /// and allow.
    [torrents] TorrentsSection {
        /// Whether every torrent that is not denied is tracked, even if no file or list names it.
        open: bool = false, Boolean;

        /// Directories whose .torrent files are tracked, including those in subdirectories. Grant
        /// the user that runs tbtt(8) read access to them.
        directories: Vec<PathBuf> = Vec::new(), ListOf(AbsolutePath);

        /// Files that list the info-hashes of additional torrents to track.
        allow: Vec<PathBuf> = Vec::new(), ListOf(AbsolutePath);

        /// Files that list the info-hashes of torrents that are never tracked, even if another list
        /// or directory allows them.
        deny: Vec<PathBuf> = Vec::new(), ListOf(AbsolutePath);

        /// Files that list texts for the clients of single torrents. Each entry is an info-hash, the
        /// word warning or failure, and a text of up to 255 bytes. With failure, clients get this
        /// text instead of peers.
        notices: Vec<PathBuf> = Vec::new(), ListOf(AbsolutePath);

        /// Seconds a listed torrent may be without a seeder before the log, the metrics and tbttctl
        /// check report it. 0 means interval in [tracker].
        seedless_after: u32 = 0, seconds(0..=86400);

        /// Seconds for which a torrent is still tracked after its last .torrent file was removed.
        removal_grace: u32 = 600, seconds(0..=86400);
    }

    /// The addresses that may use the tracker. The most specific network that contains an address
    /// decides, on whichever list it is. If the same network is on both lists, the address is
    /// refused. An address that is on neither list is accepted if the allow list is empty, and
    /// refused if the allow list has entries.
    [access] AccessSection {
        /// Networks that may announce.
        announce_allow: Vec<NetworkSource> = Vec::new(), ListOf(NetworkOrFile);

        /// Networks that may not announce.
        announce_deny: Vec<NetworkSource> = Vec::new(), ListOf(NetworkOrFile);

        /// Networks that may scrape.
        scrape_allow: Vec<NetworkSource> = Vec::new(), ListOf(NetworkOrFile);

        /// Networks that may not scrape.
        scrape_deny: Vec<NetworkSource> = Vec::new(), ListOf(NetworkOrFile);

        /// Networks that may read the status page, its JSON, and the .torrent files that it offers.
        /// To allow everyone, set it to ["0.0.0.0/0", "::/0"].
        status_allow: Vec<NetworkSource> = networks(&["127.0.0.0/8", "::1"]), ListOf(NetworkOrFile);

        /// Networks that may not read the status page.
        status_deny: Vec<NetworkSource> = Vec::new(), ListOf(NetworkOrFile);

        /// Networks that may read the metrics.
        metrics_allow: Vec<NetworkSource> = networks(&["127.0.0.0/8", "::1"]), ListOf(NetworkOrFile);

        /// Networks that may not read the metrics.
        metrics_deny: Vec<NetworkSource> = Vec::new(), ListOf(NetworkOrFile);

        /// Networks whose addresses have no meaning outside of them. A peer in one of these networks
        /// is handed out only to clients in the same network.
        local_networks: Vec<NetworkSource> = networks(&[
            "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
            "192.168.0.0/16", "::1", "fc00::/7", "fe80::/10",
        ]), ListOf(NetworkOrFile);

        /// Networks whose ip=, ipv4= and ipv6= parameters are honored. List only your own seeders:
        /// any host here can register arbitrary addresses and so direct traffic at third parties.
        trust_ip_params_from: Vec<NetworkSource> = Vec::new(), ListOf(NetworkOrFile);
    }

    /// Rate limits for each network, and limits on the number of peers and torrents. For the rate
    /// limits, a network is an IPv4 address or an IPv6 /64. The IPv6 /56 that contains it may send
    /// four times as many requests, and the /48 sixteen times as many.
    [limits] LimitsSection {
        /// Maximum number of announces per minute from one network. 0 means no limit.
        announces: u32 = 600, number(0..=200_000, "a minute");

        /// Number of announces that one network may send at once after a quiet period.
        announces_burst: u32 = 1200, number(1..=1_000_000, "announces");

        /// Maximum number of scrapes per minute from one network. 0 means no limit.
        scrapes: u32 = 120, number(0..=200_000, "a minute");

        /// Number of scrapes that one network may send at once after a quiet period.
        scrapes_burst: u32 = 240, number(1..=1_000_000, "scrapes");

        /// Maximum number of new connections per minute from one network. 0 means no limit.
        connections: u32 = 1200, number(0..=200_000, "a minute");

        /// Number of connections that one network may open at once after a quiet period.
        connections_burst: u32 = 2400, number(1..=1_000_000, "connections");

        /// Networks that have no rate limits, for example mirrors, monitors and proxies.
        exempt: Vec<NetworkSource> = networks(&["127.0.0.0/8", "::1"]), ListOf(NetworkOrFile);

        /// Number of networks that are remembered for each of the three rate limits, at 8 bytes
        /// each.
        table_entries: u32 = 262_144, number(1024..=16_777_216, "networks");

        /// Maximum number of peers of one network in a swarm. Further clients get normal responses,
        /// but are not handed out.
        peers_per_network: u32 = 64, number(1..=1000, "peers");

        /// Maximum number of peers in all swarms together. Further clients get normal responses, but
        /// are not handed out. The first peer of a torrent is always handed out. A peer uses 14 to
        /// 100 bytes of memory.
        max_peers: u32 = 10_000_000, number(1..=1_000_000_000, "peers");

        /// Maximum number of torrents an open tracker keeps. Beyond that, unknown torrents are
        /// refused; listed torrents are always tracked.
        max_torrents: u32 = 1_000_000, number(1..=100_000_000, "torrents");
    }

    /// Reverse proxies in front of the tracker, for HTTP. Every connection over a Unix socket is
    /// taken for a proxy, so let nothing else reach the socket.
    [proxy] ProxySection {
        /// Proxies that are trusted to send the address of the client.
        trusted: Vec<NetworkSource> = Vec::new(), ListOf(NetworkOrFile);

        /// Header in which the proxies send the address of the client. forwarded is the header of
        /// RFC 7239.
        header: String = "x-forwarded-for".to_owned(), keyword::<String>(&["x-forwarded-for", "forwarded"]);

        /// Additional addresses to listen on, where each connection starts with a PROXY header
        /// (version 1 or 2) that has the address of the client. Only trusted proxies may connect to
        /// them. Sockets passed by the service manager replace this list.
        listen: Vec<Listen> = Vec::new(), ListOf(ListenAddress);
    }

    /// The status page: the torrents by name, and their state. It contains no client addresses.
    [status] StatusSection {
        /// Path of the status page. Its JSON has the same path with .json appended. If it is empty,
        /// there is no status page.
        path: Option<String> = Some("/status".to_owned()), OrEmpty(PagePath);

        /// Addresses to listen on for the status page and the metrics, which are then served nowhere
        /// else. If the list is empty, they are served at the addresses of [http]. Sockets named
        /// status that the service manager passes replace this list.
        listen: Vec<Listen> = Vec::new(), ListOf(ListenAddress);

        /// Whether the page offers the .torrent files for download.
        serve_torrents: bool = true, Boolean;

        /// Announce URLs for the magnet links on the page.
        announce_urls: Vec<String> = Vec::new(), ListOf(text(255));
    }

    /// Metrics for Prometheus.
    [metrics] MetricsSection {
        /// Path of the metrics. If it is empty, there are no metrics.
        path: Option<String> = Some("/metrics".to_owned()), OrEmpty(PagePath);

        /// Whether each listed torrent has metrics of its own.
        per_torrent: bool = false, Boolean;
    }

    /// The state that survives a restart: peers, download counters, and the keys of UDP connection
    /// ids.
    [state] StateSection {
        /// Directory of the snapshot. The user that runs tbtt(8) must own it, and no other user may
        /// have write access. If it is empty, no state is kept, and a restart begins without peers
        /// and counters.
        directory: Option<PathBuf> = None, OrEmpty(AbsolutePath);

        /// Seconds between two snapshots. A snapshot is also written at shutdown. A crash loses only
        /// the changes since the last snapshot.
        interval: u32 = 300, seconds(10..=86400);
    }

    /// Other trackers that share the same swarms; see tbtt-cluster(7). The trackers exchange changes
    /// through a store, Valkey or Redis, that all of them can reach.
    [cluster] ClusterSection {
        /// URL of the store. If it is empty, the tracker is not in a cluster. Write
        /// redis://HOST:PORT/DATABASE, rediss:// for TLS, or redis+unix:///PATH.
        url: Option<StoreUrl> = None, OrEmpty(ClusterUrl);

        /// Name of the cluster, with which its keys in the store begin. Trackers with the same name
        /// share their swarms.
        name: String = "tbtt".to_owned(), ClusterName;

        /// User to authenticate as at the store (ACL). If it is empty, the default user of the store
        /// is used.
        user: String = String::new(), text(64);

        /// File whose first line is the password of the user, or a credential that the service
        /// manager passes. It is read once when the tracker starts, before root privileges are
        /// dropped. If it is empty, no password is sent.
        password_file: Option<PasswordFile> = None, OrEmpty(PasswordLocation);

        /// File of CA certificates (PEM) to verify the certificate of the store, for a rediss://
        /// URL. If it is empty, the CA certificates that the system trusts are used.
        ca_file: Option<PathBuf> = None, OrEmpty(AbsolutePath);

        /// Maximum number of changes that wait to be sent to the store, at about 60 bytes each.
        /// Changes that do not fit are counted, and sent later from memory.
        queue: u32 = 65_536, number(1024..=4_194_304, "changes");
    }

    /// The control socket, over which tbttctl(8) reaches the running daemon.
    [control] ControlSection {
        /// Path of the control socket. If it is empty, there is no control socket. A socket named
        /// control that the service manager passes replaces it.
        listen: Option<PathBuf> = Some("/run/tbtt/control".into()), OrEmpty(AbsolutePath);

        /// File mode of the control socket, which determines who may use it: 0600 allows root and
        /// the user of the daemon, 0660 also allows the members of the group.
        mode: String = "0660".to_owned(), keyword::<String>(&["0600", "0660"]);

        /// Group of the control socket. If it is empty, the group of the daemon's user is used.
        group: String = String::new(), text(32);
    }

    /// The process.
    [daemon] DaemonSection {
        /// User that the daemon switches to permanently after it has opened its sockets, if it was
        /// started as root. Without a user, a start as root is refused.
        user: String = String::new(), text(32);

        /// Whether the process gives up access to files that it does not need, with Landlock.
        landlock: bool = true, Boolean;
    }

    /// The log: its content and its destination.
    [log] LogSection {
        /// Destination of the log lines. auto means standard error if that is a terminal or the
        /// journal, or if there is no /dev/log; otherwise it means syslog(3).
        target: log::Target = log::Target::Auto, keyword::<log::Target>(&["auto", "syslog", "stderr"]);

        /// Least important level that is logged.
        level: log::Level = log::Level::Notice,
            keyword::<log::Level>(&["error", "warning", "notice", "info", "debug"]);

        /// Facility of the log lines in syslog(3).
        facility: log::Facility = log::Facility::default(), keyword::<log::Facility>(&[
            "daemon", "user", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
        ]);

        /// Whether each announce and each refusal is logged, one line each: an access log. The lines
        /// have level info.
        announces: bool = false, Boolean;

        /// Whether log lines contain client addresses. masked keeps the first 24 bits of an IPv4
        /// address and the first 48 bits of an IPv6 address.
        addresses: log::Addresses = log::Addresses::Off, keyword::<log::Addresses>(&["off", "masked", "full"]);
    }
}

/// Keys that have a new name, as section, old name and new name. An error names the new name.
pub(super) const RENAMED_KEYS: &[(&str, &str, &str)] = &[
    ("access", "believe_ip_from", "trust_ip_params_from"),
    ("daemon", "sandbox", "landlock"),
    ("limits", "remembered", "table_entries"),
    ("status", "torrents", "serve_torrents"),
    ("torrents", "grace", "removal_grace"),
    ("udp", "bad_ids", "invalid_connection_ids"),
];

/// Parses networks that are defaults in the table.
fn networks(texts: &[&str]) -> Vec<NetworkSource> {
    let networks = texts.iter().filter_map(|text| parse_network(text).ok());
    networks.map(NetworkSource::Network).collect()
}

/// A section and its keys, for the sample and for error messages.
pub(super) struct SectionDescription {
    pub(super) name: &'static str,
    /// The lines of its help text.
    pub(super) about: &'static [&'static str],
    pub(super) keys: Vec<KeyDescription>,
}

/// A key, for the sample and for error messages.
pub(super) struct KeyDescription {
    pub(super) name: &'static str,
    /// The lines of its help text.
    pub(super) help: &'static [&'static str],
    /// The allowed values, as text to follow "allowed: ".
    pub(super) allowed: String,
    /// The value in the described configuration, as TOML.
    pub(super) value: String,
}

#[cfg(test)]
mod tests;
