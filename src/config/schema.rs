//! The table of sections and keys.

use std::net::SocketAddr;
use std::path::PathBuf;

use toml::Spanned;

use super::address_types::{Listen, ListenAddress, NetworkOrFile, Source, UdpAddress};
use super::cluster_types::{ClusterName, EngineUrl, PasswordPlace};
use super::toml_value::TomlValue;
use super::value_types::{
    AbsolutePath, AnnouncePath, Boolean, InvalidValue, List, OrEmpty, PagePath, ValueType, number,
    seconds, text, words,
};
use crate::cluster::{PasswordFile, Url};
use crate::log;
use crate::protocol::udp::InvalidConnectionIds;
use crate::tracker::access::parse_network;

/// Turns the table below into one struct for each section, [`Config`] to hold them, and the two functions that the
/// rest of this file is made of: `set` one key, and `describe` them all. A doc comment is the help that the sample
/// and the manual give.
macro_rules! sections {
    ($(
        $(#[doc = $about:literal])+
        [$section:ident] $Section:ident {
            $(
                $(#[doc = $help:literal])+
                $key:ident: $Type:ty = $default:expr, $rule:expr;
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

        /// The whole configuration, each value within its range.
        #[derive(Clone, PartialEq, Debug, Default)]
        pub struct Config {
            $(
                $(#[doc = $about])+
                pub $section: $Section,
            )+
        }

        impl Config {
            /// Sets one key to what a file says; `None` if there is no such key.
            pub(super) fn set(&mut self, section: &str, key: &str, given: &Spanned<TomlValue>) -> Option<Result<(), Vec<InvalidValue>>> {
                match (section, key) {
                    $($(
                        (stringify!($section), stringify!($key)) => {
                            Some($rule.read(given).map(|value| self.$section.$key = value))
                        }
                    )+)+
                    _ => None,
                }
            }

            /// Every section and key in order, with the values that they have here.
            pub(super) fn describe(&self) -> Vec<Section> {
                vec![$(
                    Section {
                        name: stringify!($section),
                        about: &[$($about),+],
                        keys: vec![$(
                            Key {
                                name: stringify!($key),
                                help: &[$($help),+],
                                allowed: $rule.allowed(),
                                value: $rule.write(&self.$section.$key),
                            },
                        )+],
                    },
                )+]
            }
        }
    };
}

// To add a key, add it here and to man/tbtt.toml.5; a test holds the two against each other.
sections! {
    /// Announce and scrape over HTTP.
    [http] Http {
        /// Where to listen. An IPv6 wildcard such as [::] serves IPv4 as well. With port 0 the
        /// system picks a free one. Sockets that the service manager hands over replace this list.
        listen: Vec<Listen> = vec![Listen::Tcp(([0; 8], 6969).into())], List(ListenAddress);

        /// The path in the announce URL. The scrape path is the same with scrape for announce (BEP 48).
        announce_path: String = "/announce".to_owned(), AnnouncePath;

        /// How long a client may take over its request line and header, in seconds.
        header_timeout: u32 = 10, seconds(1..=300);

        /// How long a connection may stay open without a request, in seconds.
        idle_timeout: u32 = 20, seconds(1..=3600);

        /// How many connections may be open at once.
        max_connections: u32 = 16384, number(1..=1_000_000, "connections");

        /// How many of them one network may hold: an IPv4 address or an IPv6 /64.
        max_connections_per_network: u32 = 512, number(1..=1_000_000, "connections");
    }

    /// Announce and scrape over UDP (BEP 15), for the same torrents and peers.
    [udp] Udp {
        /// Where to listen, as in [http]. Clients need not reach both, but a tracker's two URLs
        /// customarily have one port. Empty for no UDP. Sockets that the service manager hands over
        /// replace this list.
        listen: Vec<SocketAddr> = vec![([0; 8], 6969).into()], List(UdpAddress);

        /// How long a client may use a connection id, in seconds. Longer for old clients that keep
        /// theirs for up to an hour, which costs no safety.
        connection_lifetime: u32 = 120, seconds(60..=3600);

        /// What becomes of a request with a forged or old connection id. error is shorter than any
        /// request, so that it cannot be used to flood others.
        bad_ids: InvalidConnectionIds = InvalidConnectionIds::Silence, words::<InvalidConnectionIds>(InvalidConnectionIds::WORDS);

        /// How many bytes of answer go into one packet at most. Beyond what the way to a client
        /// carries in one piece, answers get lost.
        max_payload: u32 = 1232, number(512..=1472, "bytes");

        /// How many bytes of requests may wait to be read, on each socket. The system may allow less.
        receive_buffer: u32 = 1_048_576, number(16_384..=1_073_741_824, "bytes");
    }

    /// What clients are told, and what is remembered of them.
    [tracker] Tracker {
        /// How long a client is asked to wait between announces, in seconds.
        interval: u32 = 1800, seconds(60..=7200);

        /// How long a client must wait at least if it wants more peers, in seconds. At most interval.
        min_interval: u32 = 300, seconds(1..=7200);

        /// How long after its last announce a peer is still handed out, in seconds; counted in whole
        /// minutes. Longer than interval, or peers vanish between two announces.
        peer_timeout: u32 = 2700, seconds(120..=14400);

        /// How many peers a client gets that does not say how many it wants. At most max_numwant.
        numwant: u32 = 50, number(0..=1000, "peers");

        /// How many peers a client gets at most.
        max_numwant: u32 = 200, number(1..=1000, "peers");

        /// How many torrents one scrape over HTTP may ask for. Over UDP it is 74.
        max_scrape: u32 = 74, number(1..=1000, "torrents");

        /// Whether a scrape over HTTP that names no torrent gets all of them.
        full_scrape: bool = false, Boolean;

        /// A warning sent with every announce's answer over HTTP, which many clients show. Empty for
        /// none.
        warning: String = String::new(), text(255);

        /// How many threads serve. 0 for one on each processor core.
        workers: u32 = 0, number(0..=256, "threads");
    }

    /// Which torrents are tracked.
    [torrents] Torrents {
        /// Whether every torrent is tracked that is not denied, whoever made it.
        open: bool = false, Boolean;

        /// Directories whose .torrent files are tracked, those in directories below them too.
        directories: Vec<PathBuf> = Vec::new(), List(AbsolutePath);

        /// Files that list the info-hashes of further torrents to track.
        allow: Vec<PathBuf> = Vec::new(), List(AbsolutePath);

        /// Files that list the info-hashes of torrents never to track, whatever else welcomes them.
        deny: Vec<PathBuf> = Vec::new(), List(AbsolutePath);

        /// Files that give single torrents' clients a text: on each line an info-hash, the word
        /// warning or failure, and the text. With failure they get that instead of peers.
        notices: Vec<PathBuf> = Vec::new(), List(AbsolutePath);

        /// How long a torrent that a file lists may be without a seed before the log, the metrics and
        /// tbttctl check tell, in seconds. 0 for as long as [tracker] interval.
        seedless_after: u32 = 0, seconds(0..=86400);

        /// How long a torrent is still tracked after its last .torrent file is gone, in seconds.
        grace: u32 = 600, seconds(0..=86400);
    }

    /// Which addresses are answered. Lists hold networks, addresses, and files of them, one on each
    /// line. The most specific network that holds an address decides, deny if it is on both lists;
    /// an address on neither list is answered unless the allow list has entries.
    [access] Access {
        /// Who may announce.
        announce_allow: Vec<Source> = Vec::new(), List(NetworkOrFile);

        /// Who may not.
        announce_deny: Vec<Source> = Vec::new(), List(NetworkOrFile);

        /// Who may scrape.
        scrape_allow: Vec<Source> = Vec::new(), List(NetworkOrFile);

        /// Who may not.
        scrape_deny: Vec<Source> = Vec::new(), List(NetworkOrFile);

        /// Who may see the status page and its JSON. Set to ["0.0.0.0/0", "::/0"] for all.
        status_allow: Vec<Source> = networks(&["127.0.0.0/8", "::1"]), List(NetworkOrFile);

        /// Who may not.
        status_deny: Vec<Source> = Vec::new(), List(NetworkOrFile);

        /// Who may read the metrics.
        metrics_allow: Vec<Source> = networks(&["127.0.0.0/8", "::1"]), List(NetworkOrFile);

        /// Who may not.
        metrics_deny: Vec<Source> = Vec::new(), List(NetworkOrFile);

        /// Networks whose addresses mean nothing outside: a peer in one of these is handed out only
        /// to askers in the same one.
        local_networks: Vec<Source> = networks(&[
            "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
            "192.168.0.0/16", "::1", "fc00::/7", "fe80::/10",
        ]), List(NetworkOrFile);

        /// Whose word is taken for a peer's address (ip=, ipv4= and ipv6= in an announce): your own
        /// seeds at most, since anyone listed here can enlist others.
        believe_ip_from: Vec<Source> = Vec::new(), List(NetworkOrFile);
    }

    /// How often one network may ask: an IPv4 address or an IPv6 /64; four times that for a /56,
    /// sixteen times for a /48. 0 for no limit.
    [limits] Limits {
        /// Announces a minute.
        announces: u32 = 600, number(0..=200_000, "a minute");

        /// How many may come at once after a quiet time.
        announces_burst: u32 = 1200, number(1..=1_000_000, "announces");

        /// Scrapes a minute.
        scrapes: u32 = 120, number(0..=200_000, "a minute");

        /// How many may come at once after a quiet time.
        scrapes_burst: u32 = 240, number(1..=1_000_000, "scrapes");

        /// New connections a minute.
        connections: u32 = 1200, number(0..=200_000, "a minute");

        /// How many may come at once after a quiet time.
        connections_burst: u32 = 2400, number(1..=1_000_000, "connections");

        /// Who is not limited: mirrors, monitors, proxies.
        exempt: Vec<Source> = networks(&["127.0.0.0/8", "::1"]), List(NetworkOrFile);

        /// How many networks are remembered for each of the three limits, at 8 bytes each.
        remembered: u32 = 262_144, number(1024..=16_777_216, "networks");

        /// How many peers of one network a swarm keeps. More are answered, but not handed out.
        peers_per_network: u32 = 64, number(1..=1000, "peers");

        /// How many peers are kept in all, at 14 to 100 bytes each. More are answered, but not handed
        /// out, except that a torrent's first peer always is.
        max_peers: u32 = 10_000_000, number(1..=1_000_000_000, "peers");

        /// With how many torrents in all an open tracker refuses those that it has not met. Others that
        /// a file lists are tracked all the same.
        max_torrents: u32 = 1_000_000, number(1..=100_000_000, "torrents");
    }

    /// Reverse proxies in front of the tracker. Whoever connects over a Unix socket is one.
    [proxy] Proxy {
        /// Proxies whose word is taken for the client's address.
        trusted: Vec<Source> = Vec::new(), List(NetworkOrFile);

        /// The header in which they give it.
        header: String = "x-forwarded-for".to_owned(), words::<String>(&["x-forwarded-for", "forwarded"]);

        /// Further addresses to listen on, where each connection begins with a PROXY header (version
        /// 1 or 2) that gives it. Only trusted proxies may connect to these.
        listen: Vec<Listen> = Vec::new(), List(ListenAddress);
    }

    /// The status page: torrents by name and how they fare. It names no client.
    [status] Status {
        /// The path of the page. Its JSON is at the same path with .json. Empty for none.
        path: Option<String> = Some("/status".to_owned()), OrEmpty(PagePath);

        /// Addresses to serve the page and the metrics on, which are then served nowhere else. Empty
        /// for those of [http]. Sockets named status that the service manager hands over replace
        /// this list.
        listen: Vec<Listen> = Vec::new(), List(ListenAddress);

        /// Whether the page offers the .torrent files themselves.
        torrents: bool = true, Boolean;

        /// Announce URLs for the page's magnet links.
        announce_urls: Vec<String> = Vec::new(), List(text(255));
    }

    /// Metrics for Prometheus.
    [metrics] Metrics {
        /// Their path. Empty for none.
        path: Option<String> = Some("/metrics".to_owned()), OrEmpty(PagePath);

        /// Whether each listed torrent has metrics of its own.
        per_torrent: bool = false, Boolean;
    }

    /// What survives a restart: peers, download counters, and the keys of UDP's connection ids.
    [state] State {
        /// The directory where a snapshot of these is kept. Empty for none.
        directory: Option<PathBuf> = None, OrEmpty(AbsolutePath);

        /// How long after a snapshot the next one is written, in seconds; one is written at the stop
        /// too. What a crash can lose at most.
        interval: u32 = 300, seconds(10..=86400);
    }

    /// Other trackers with the same swarms, through a Valkey or Redis engine that all of them reach.
    [cluster] Cluster {
        /// The engine: redis://HOST:PORT/DATABASE, rediss:// with TLS, or redis+unix:///PATH. Empty
        /// for a tracker that stands alone.
        url: Option<Url> = None, OrEmpty(EngineUrl);

        /// What the engine's keys begin with. Trackers of one name share their swarms.
        name: String = "tbtt".to_owned(), ClusterName;

        /// The engine's user (ACL). Empty for its default user.
        user: String = String::new(), text(64);

        /// The file whose first line is the user's password, or credential: and the name of a
        /// credential of the service manager. Empty for none. Read at the start, before root is
        /// given up.
        password_file: Option<PasswordFile> = None, OrEmpty(PasswordPlace);

        /// The certificates (PEM) that vouch for the engine of a rediss:// URL. Empty for those that
        /// the system trusts.
        ca_file: Option<PathBuf> = None, OrEmpty(AbsolutePath);

        /// How many changes may wait for the engine. What does not fit is told later, from memory.
        queue: u32 = 65_536, number(1024..=4_194_304, "changes");
    }

    /// Where tbttctl reaches the running daemon.
    [control] Control {
        /// The Unix socket for it. Empty for none. One that the service manager hands over replaces it.
        listen: Option<PathBuf> = Some("/run/tbtt/control".into()), OrEmpty(AbsolutePath);

        /// Who may use it besides root: the daemon's user alone, or members of the group too.
        mode: String = "0660".to_owned(), words::<String>(&["0600", "0660"]);

        /// The group. Empty for that of the daemon's user.
        group: String = String::new(), text(32);
    }

    /// The process.
    [daemon] Daemon {
        /// The user to become for good once the sockets are open, if started as root. Without one,
        /// root is refused.
        user: String = String::new(), text(32);

        /// Whether the process gives up reaching files that it does not need (Landlock).
        sandbox: bool = true, Boolean;
    }

    /// What is logged, and where to.
    [log] Log {
        /// Where log lines go. auto is stderr if that is a terminal or the journal, or if there is no /dev/log; else syslog.
        target: log::Target = log::Target::Auto, words::<log::Target>(&["auto", "syslog", "stderr"]);

        /// The least important lines that are still logged.
        level: log::Level = log::Level::Notice,
            words::<log::Level>(&["error", "warning", "notice", "info", "debug"]);

        /// The facility under which syslog files the lines.
        facility: log::Facility = log::Facility::default(), words::<log::Facility>(&[
            "daemon", "user", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
        ]);

        /// Whether each announce is a line, at level info.
        announces: bool = false, Boolean;

        /// Whether lines may name clients' addresses. masked keeps /24 of IPv4 and /48 of IPv6.
        addresses: log::Addresses = log::Addresses::Off, words::<log::Addresses>(&["off", "masked", "full"]);
    }
}

/// Networks that stand in the table as defaults.
fn networks(texts: &[&str]) -> Vec<Source> {
    let networks = texts.iter().filter_map(|text| parse_network(text).ok());
    networks.map(Source::Network).collect()
}

/// A section as the sample and the manual show it.
pub(super) struct Section {
    pub(super) name: &'static str,
    pub(super) about: &'static [&'static str],
    pub(super) keys: Vec<Key>,
}

pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) help: &'static [&'static str],
    pub(super) allowed: String,
    pub(super) value: String,
}

#[cfg(test)]
mod tests;
