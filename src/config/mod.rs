//! Text to a checked [`Config`]: each key described once, every fault named with file, line and key.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt::{self, Write as _};
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use toml::Spanned;

use crate::cluster::settings::PasswordFile;
use crate::cluster::url::StoreUrl;
use crate::log;
use crate::os::privileges;
use crate::protocol::http::{self as protocol, Paths};
use crate::protocol::udp::{self, InvalidConnectionIds};
use crate::server::http::forwarded::{self as proxy, ForwardingHeader};
use crate::server::http::handler as http;
use crate::status::endpoint as views;
use crate::tracker::access::parse_network;
use crate::tracker::rate_limit::{self, Rate, RateLimiter};
use crate::tracker::{self, HostKey};

mod lists;
mod toml_value;
mod value_types;

pub use lists::Lists;
pub use value_types::{Listen, Source};

use toml_value::TomlValue;
use value_types::{
    AbsolutePath, AnnouncePath, Boolean, ClusterName, EngineUrl, InvalidValue, List, ListenAddress,
    NetworkOrFile, OrEmpty, PagePath, PasswordPlace, UdpAddress, ValueType, number, overlap,
    seconds, text, words,
};

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
            fn set(&mut self, section: &str, key: &str, given: &Spanned<TomlValue>) -> Option<Result<(), Vec<InvalidValue>>> {
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
            fn describe(&self) -> Vec<Section> {
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
        url: Option<StoreUrl> = None, OrEmpty(EngineUrl);

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

/// Each part's own settings.
impl Loaded {
    pub fn log_settings(&self) -> log::Settings {
        log::Settings {
            target: self.config.log.target,
            level: self.config.log.level,
            facility: self.config.log.facility,
            addresses: self.config.log.addresses,
            ..log::Settings::default()
        }
    }

    /// `seed` keys the budgets, which begin with full buckets.
    pub fn tracker_settings(&self, seed: u64) -> tracker::Settings {
        let Config {
            tracker,
            torrents,
            limits,
            cluster,
            ..
        } = &self.config;
        let budget = |per_minute, burst| self.budget(per_minute, burst, seed);
        tracker::Settings {
            open: torrents.open,
            interval: tracker.interval,
            min_interval: tracker.min_interval,
            peer_timeout: tracker.peer_timeout,
            numwant: tracker.numwant,
            max_numwant: tracker.max_numwant,
            max_peers_per_network: limits.peers_per_network as usize,
            max_peers: limits.max_peers as usize,
            max_torrents: limits.max_torrents as usize,
            warning: Some(tracker.warning.as_str())
                .filter(|text| !text.is_empty())
                .map(Into::into),
            announces: tracker::AccessPolicy {
                access: self.lists.announce.clone(),
                budget: budget(limits.announces, limits.announces_burst),
            },
            scrapes: tracker::AccessPolicy {
                access: self.lists.scrape.clone(),
                budget: budget(limits.scrapes, limits.scrapes_burst),
            },
            local_networks: self.lists.local_networks.clone(),
            // The catalog knows which ids they are for.
            notices: HashMap::new(),
            host_key: (cluster.url.as_ref()).map(|_| HostKey::new(&cluster.name)),
        }
    }

    pub fn http_settings(&self, seed: u64) -> http::Settings {
        let Config {
            http,
            tracker,
            limits,
            proxy,
            ..
        } = &self.config;
        http::Settings {
            paths: Paths::new(&http.announce_path).expect("checked when it was read"),
            protocol: protocol::Settings {
                max_scrape: tracker.max_scrape as usize,
                full_scrape: tracker.full_scrape,
                believed: self.lists.believed.clone(),
            },
            header_timeout: Duration::from_secs(http.header_timeout.into()),
            idle_timeout: Duration::from_secs(http.idle_timeout.into()),
            max_connections: http.connections_that_fit(privileges::open_files()),
            max_connections_per_network: http.max_connections_per_network,
            proxies: proxy::Settings {
                trusted: self.lists.trusted.clone(),
                header: match proxy.header.as_str() {
                    "forwarded" => ForwardingHeader::Forwarded,
                    _ => ForwardingHeader::XForwardedFor,
                },
            },
            connections: self.budget(limits.connections, limits.connections_burst, seed),
            views: Arc::new(self.view_settings()),
        }
    }

    fn view_settings(&self) -> views::Settings {
        let Config {
            status, metrics, ..
        } = &self.config;
        views::Settings {
            status_path: status.path.clone(),
            status_access: self.lists.status.clone(),
            serve_torrents: status.torrents,
            announce_urls: status.announce_urls.clone(),
            metrics_path: metrics.path.clone(),
            metrics_access: self.lists.metrics.clone(),
            per_torrent: metrics.per_torrent,
        }
    }

    pub fn udp_settings(&self) -> udp::Settings {
        udp::Settings {
            believed: self.lists.believed.clone(),
            connection_lifetime: self.config.udp.connection_lifetime,
            bad_ids: self.config.udp.bad_ids,
            max_payload: self.config.udp.max_payload as usize,
        }
    }

    /// `None` for no limit.
    fn budget(&self, per_minute: u32, burst: u32, seed: u64) -> Option<Arc<RateLimiter>> {
        let rate = Rate {
            per_minute: NonZeroU32::new(per_minute)?,
            burst: NonZeroU32::new(burst)?,
        };
        let times = |factor| rate.times(NonZeroU32::new(factor).unwrap_or(NonZeroU32::MIN));
        let settings = rate_limit::Settings {
            v4: rate,
            v6_64: rate,
            v6_56: times(4),
            v6_48: times(16),
            exempt: self.lists.exempt.clone(),
            places: self.config.limits.remembered as usize,
        };
        Some(Arc::new(RateLimiter::new(
            settings,
            [seed, u64::from(per_minute)],
        )))
    }
}

/// How many open files the daemon needs beside connections: sockets, directories, a snapshot, the configuration.
pub const FILES_BESIDE: u64 = 64;

impl Http {
    /// Strangers shall not take what a snapshot or a reload needs, so the limit of open files limits connections as well.
    fn connections_that_fit(&self, open_files: Option<u64>) -> usize {
        let wanted = self.max_connections as usize;
        let room = open_files.map(|files| files.saturating_sub(FILES_BESIDE).max(1));
        room.map_or(wanted, |room| {
            wanted.min(usize::try_from(room).unwrap_or(usize::MAX))
        })
    }
}

/// Networks that stand in the table as defaults.
fn networks(texts: &[&str]) -> Vec<Source> {
    let networks = texts.iter().filter_map(|text| parse_network(text).ok());
    networks.map(Source::Network).collect()
}

impl Config {
    /// `None` for a tracker that stands alone.
    pub fn cluster_settings(&self) -> Option<crate::cluster::settings::Settings> {
        let Cluster {
            url,
            name,
            user,
            password_file,
            ca_file,
            queue,
        } = &self.cluster;
        Some(crate::cluster::settings::Settings {
            url: url.clone()?,
            name: name.clone(),
            user: user.clone(),
            password_file: password_file.clone(),
            ca_file: ca_file.clone(),
            peer_timeout: Duration::from_secs(self.tracker.peer_timeout.into()),
            queue: *queue as usize,
        })
    }

    /// How long a torrent may be without a seed, in seconds.
    pub fn seedless_after(&self) -> u32 {
        match self.torrents.seedless_after {
            0 => self.tracker.interval,
            secs => secs,
        }
    }

    /// How many threads serve.
    pub fn worker_count(&self) -> usize {
        match self.tracker.workers {
            0 => thread::available_parallelism().map_or(1, usize::from),
            workers => workers as usize,
        }
    }

    /// Every file that a key names beside the configuration itself.
    pub fn list_files(&self) -> impl Iterator<Item = &Path> {
        let Self {
            torrents,
            access,
            limits,
            proxy,
            ..
        } = self;
        let of_torrents = [&torrents.allow, &torrents.deny, &torrents.notices]
            .into_iter()
            .flatten();
        let of_networks = [
            &access.announce_allow,
            &access.announce_deny,
            &access.scrape_allow,
            &access.scrape_deny,
            &access.status_allow,
            &access.status_deny,
            &access.metrics_allow,
            &access.metrics_deny,
            &access.local_networks,
            &access.believe_ip_from,
            &limits.exempt,
            &proxy.trusted,
        ];
        let of_networks = of_networks
            .into_iter()
            .flatten()
            .filter_map(|source| match source {
                Source::File(path) => Some(path),
                Source::Network(_) => None,
            });
        of_torrents.chain(of_networks).map(PathBuf::as_path)
    }

    /// The keys that differ in `new` and are looked at when the daemon starts, not when it reloads.
    pub fn only_at_start(&self, new: &Self) -> Vec<&'static str> {
        let differ = [
            ("http.listen", self.http.listen != new.http.listen),
            ("udp.listen", self.udp.listen != new.udp.listen),
            (
                "udp.receive_buffer",
                self.udp.receive_buffer != new.udp.receive_buffer,
            ),
            ("proxy.listen", self.proxy.listen != new.proxy.listen),
            ("status.listen", self.status.listen != new.status.listen),
            (
                "tracker.workers",
                self.tracker.workers != new.tracker.workers,
            ),
            (
                "state.directory",
                self.state.directory != new.state.directory,
            ),
            ("cluster", self.cluster != new.cluster),
            ("control", self.control != new.control),
            ("daemon", self.daemon != new.daemon),
        ];
        differ
            .into_iter()
            .filter_map(|(key, differs)| differs.then_some(key))
            .collect()
    }
}

/// Errors and advice that take more than one key to see.
impl Config {
    /// Values that cannot go together, each with the keys to blame.
    fn conflicts(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        let mut listens: Vec<(&'static [&'static str], &Listen)> = Vec::new();
        listens.extend(self.http.listen.iter().map(|at| (&["http.listen"][..], at)));
        listens.extend(
            self.proxy
                .listen
                .iter()
                .map(|at| (&["proxy.listen"][..], at)),
        );
        listens.extend(
            self.status
                .listen
                .iter()
                .map(|at| (&["status.listen"][..], at)),
        );
        for (i, (keys, later)) in listens.iter().enumerate() {
            for (_, earlier) in &listens[..i] {
                if later.overlaps(earlier) {
                    found.push(Finding::new(keys, overlapping(*earlier, *later)));
                }
            }
        }
        let listen = &self.udp.listen;
        for (i, later) in listen.iter().enumerate() {
            for earlier in listen[..i].iter().filter(|earlier| overlap(later, earlier)) {
                found.push(Finding::new(&["udp.listen"], overlapping(earlier, later)));
            }
        }
        found.extend(self.paths_that_meet());
        let (min, interval) = (self.tracker.min_interval, self.tracker.interval);
        if min > interval {
            let text =
                format!("{min} is longer than interval, {interval}; set it to {interval} or less");
            let keys = &["tracker.min_interval", "tracker.interval"];
            found.push(Finding::new(keys, text));
        }
        let (numwant, max) = (self.tracker.numwant, self.tracker.max_numwant);
        if numwant > max {
            let text =
                format!("{numwant} is more than max_numwant, {max}; set it to {max} or less");
            let keys = &["tracker.numwant", "tracker.max_numwant"];
            found.push(Finding::new(keys, text));
        }
        if self.cluster.url.is_some() && !cfg!(feature = "cluster") {
            let text = "this tbtt was built without clusters; leave it empty, or install one that was built with them";
            found.push(Finding::new(&["cluster.url"], text));
        }
        found
    }

    /// Two things at one path, of which one would never be seen.
    fn paths_that_meet(&self) -> Option<Finding> {
        let paths = Paths::new(&self.http.announce_path)?;
        let taken = |path: &&String| paths.action(path).is_some();
        let told = |keys, path: &str| {
            let text = format!("\"{path}\" is the path of something else already; choose another");
            Some(Finding::new(keys, text))
        };
        if let Some(path) = self.status.path.as_ref().filter(taken) {
            return told(&["status.path", "http.announce_path"], path);
        }
        let path = self.metrics.path.as_ref()?;
        if taken(&path) {
            return told(&["metrics.path", "http.announce_path"], path);
        }
        let rest = path.strip_prefix(self.status.path.as_ref()?)?;
        let meet = matches!(rest, "" | ".json" | ".css") || rest.ends_with(".torrent");
        meet.then(|| told(&["metrics.path", "status.path"], path))?
    }

    /// What is allowed but hardly meant.
    fn advice(&self) -> Vec<Finding> {
        let Self {
            http,
            udp,
            tracker,
            torrents,
            proxy,
            cluster,
            ..
        } = self;
        let mut found = Vec::new();
        if http.listen.is_empty() && udp.listen.is_empty() && proxy.listen.is_empty() {
            found.push(Finding::new(
                &["http.listen", "udp.listen"],
                "nothing to listen on, so only sockets from the service manager are served; \
                 name an address",
            ));
        }
        let over_tcp = |listen: &Listen| matches!(listen, Listen::Tcp(_));
        if proxy.listen.iter().any(over_tcp) && proxy.trusted.is_empty() {
            found.push(Finding::new(
                &["proxy.listen"],
                "nobody may connect there over TCP, as no proxy is trusted; name yours in trusted",
            ));
        }
        let (per_network, total) = (http.max_connections_per_network, http.max_connections);
        if per_network > total {
            found.push(Finding::new(
                &["http.max_connections_per_network", "http.max_connections"],
                format!(
                    "{per_network} is never reached, as max_connections is {total}; set it lower"
                ),
            ));
        }
        let (timeout, interval) = (tracker.peer_timeout, tracker.interval);
        if timeout <= interval {
            found.push(Finding::new(
                &["tracker.peer_timeout", "tracker.interval"],
                format!(
                    "{timeout} is no longer than interval, {interval}: peers are forgotten before \
                     they announce again; set it well above {interval}"
                ),
            ));
        }
        if !torrents.open && torrents.directories.is_empty() && torrents.allow.is_empty() {
            found.push(Finding::new(
                &["torrents.directories"],
                "no torrent is welcome; name the directories of your .torrent files, \
                 or set open to true",
            ));
        }
        if torrents.open && !torrents.allow.is_empty() {
            found.push(Finding::new(
                &["torrents.allow"],
                "has no effect, as open is true; leave one of the two out",
            ));
        }
        if torrents.open && tracker.full_scrape {
            found.push(Finding::new(
                &["tracker.full_scrape"],
                "with [torrents] open anyone can make the answer as long as he likes; \
                 set it to false",
            ));
        }
        found.extend(cluster.advice());
        found
    }
}

impl Cluster {
    fn advice(&self) -> Option<Finding> {
        let url = self.url.as_ref();
        if self.ca_file.is_some() && !url.is_some_and(StoreUrl::tls) {
            let text = "has no effect without TLS; make url begin with rediss://, or leave it out";
            return Some(Finding::new(&["cluster.ca_file", "cluster.url"], text));
        }
        let url = url?;
        let open = url.host().is_some_and(|host| {
            let address = host.parse::<IpAddr>();
            !url.tls() && !address.is_ok_and(|address| address.is_loopback())
        });
        let secret = open && self.password_file.is_some();
        secret.then(|| {
            let text = "the password and all that the trackers know cross the network in the clear; \
                 use rediss:// unless that network is yours alone";
            Finding::new(&["cluster.url", "cluster.password_file"], text)
        })
    }
}

fn overlapping<T: PartialEq + fmt::Display>(earlier: &T, later: &T) -> String {
    if later == earlier {
        format!("\"{later}\" is listed twice; leave one out")
    } else {
        format!(
            "\"{earlier}\" and \"{later}\" overlap, as a wildcard takes in every address \
             on its port; leave one out"
        )
    }
}

/// Something found in the values: the keys to blame, as `section.key`, and what to tell of the first.
struct Finding {
    keys: &'static [&'static str],
    text: String,
}

impl Finding {
    fn new(keys: &'static [&'static str], text: impl Into<String>) -> Self {
        Self {
            keys,
            text: text.into(),
        }
    }
}

/// A section as the sample and the manual show it.
struct Section {
    name: &'static str,
    about: &'static [&'static str],
    keys: Vec<Key>,
}

struct Key {
    name: &'static str,
    help: &'static [&'static str],
    allowed: String,
    value: String,
}

/// The default configuration as a file: every key commented out below its help.
pub fn sample() -> String {
    let mut sample = SAMPLE_HEAD.to_owned();
    for section in Config::default().describe() {
        sample += &format!("\n{}[{}]\n", comment(&section.about.concat()), section.name);
        for key in section.keys {
            let help = comment(&key.help.concat());
            let allowed = comment(&format!("Allowed: {}.", key.allowed));
            let setting = commented_out(&format!("{} = ", key.name), &key.value);
            sample += &format!("\n{help}{allowed}{setting}");
        }
    }
    sample
}

const TERMINAL: usize = 79;

/// A key and its default, a list over several lines where it is too long for one.
fn commented_out(name: &str, value: &str) -> String {
    let elements = value
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    match elements {
        Some(elements) if 1 + name.len() + value.len() > TERMINAL => {
            // Our own defaults, none of which has a comma within.
            let elements: String = elements
                .split(", ")
                .map(|element| format!("#    {element},\n"))
                .collect();
            format!("#{name}[\n{elements}#]\n")
        }
        _ => format!("#{name}{value}\n"),
    }
}

/// `text` as comment lines that fit a terminal.
fn comment(text: &str) -> String {
    let mut comment = String::new();
    let mut line = String::from("#");
    for word in text.split_whitespace() {
        if line.len() + 1 + word.len() > TERMINAL {
            comment += &line;
            comment += "\n";
            line.truncate(1);
        }
        line += " ";
        line += word;
    }
    comment + &line + "\n"
}

const SAMPLE_HEAD: &str = "\
# The configuration of tbtt(8), the BitTorrent tracker. See also tbtt.toml(5).
#
# Each key stands below with its default; to change it, remove the # before it,
# which a long list has on each of its lines.
# Files named *.toml in the directory tbtt.toml.d beside this file are read
# after it, in the order of their names; a key in a later file replaces it as a
# whole.
# To see whether all is well: tbtt --check-config
";

/// A line for the operator about the configuration: `file:line: [section] key: what; what to do`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Diagnostic {
    /// `None` where a default is to blame.
    pub file: Option<PathBuf>,
    /// From 1; `None` where the file as a whole is meant.
    pub line: Option<usize>,
    pub text: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}:", file.display())?;
            if let Some(line) = self.line {
                write!(f, "{line}:")?;
            }
            f.write_str(" ")?;
        }
        // It may quote the file, which a terminal is not to take for commands.
        self.text
            .chars()
            .try_for_each(|char| match char.is_control() {
                true => write!(f, "{}", char.escape_default()),
                false => f.write_char(char),
            })
    }
}

/// All that keeps a configuration from being used, one line each. Never empty.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Errors(pub Vec<Diagnostic>);

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, fault) in self.0.iter().enumerate() {
            let newline = if i > 0 { "\n" } else { "" };
            write!(f, "{newline}{fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Errors {}

/// A configuration and where it came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    /// What the files say that `config` names.
    pub lists: Lists,
    /// Every file read, in order, but for the lists.
    pub files: Vec<PathBuf>,
    places: KeyLocations,
    about_files: Vec<Diagnostic>,
}

/// The file and line that last set a key, by `section.key`.
type KeyLocations = HashMap<String, (PathBuf, usize)>;

impl Loaded {
    /// What is allowed but unwise, as `config` stands now: a command line may have changed it since it was read.
    pub fn warnings(&self) -> Vec<Diagnostic> {
        let advice = self.config.advice().into_iter();
        let advice = advice.map(|finding| locate(&self.places, finding));
        self.about_files.iter().cloned().chain(advice).collect()
    }
}

impl Config {
    /// Reads the file at `path`, then the drop-ins: `*.toml` in the directory of that name with `.d` added, in the
    /// order of their names. A key set in a later file replaces it as a whole.
    pub fn load(path: &Path) -> Result<Loaded, Errors> {
        Self::load_from(path, false)
    }

    /// Like [`Config::load`], but a missing file counts as empty.
    pub fn load_if_present(path: &Path) -> Result<Loaded, Errors> {
        Self::load_from(path, true)
    }

    fn load_from(path: &Path, may_be_missing: bool) -> Result<Loaded, Errors> {
        let mut loader = Loader::default();
        match fs::read(path) {
            Err(error) if may_be_missing && error.kind() == io::ErrorKind::NotFound => {}
            content => loader.add_file(path, content),
        }
        let mut drop_ins = OsString::from(path);
        drop_ins.push(".d");
        loader.add_drop_ins(Path::new(&drop_ins));
        loader.finish()
    }
}

/// Gathers what the files say, and all that is wrong with them.
#[derive(Default)]
struct Loader {
    config: Config,
    files: Vec<PathBuf>,
    places: KeyLocations,
    about_files: Vec<Diagnostic>,
    faults: Vec<Diagnostic>,
}

impl Loader {
    fn add_drop_ins(&mut self, directory: &Path) {
        let listing = fs::read_dir(directory).and_then(|entries| {
            let paths = entries.map(|entry| Ok(entry?.path()));
            paths.collect::<io::Result<Vec<_>>>()
        });
        let mut paths = match listing {
            Ok(paths) => paths,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => {
                let text = format!("the directory of drop-ins cannot be read: {error}");
                return self.fault(directory, None, text);
            }
        };
        paths.retain(|path| {
            let hidden = path
                .file_name()
                .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            !hidden
                && path
                    .extension()
                    .is_some_and(|extension| extension == "toml")
        });
        paths.sort();
        for path in paths {
            self.add_file(&path, fs::read(&path));
        }
    }

    fn add_file(&mut self, path: &Path, content: io::Result<Vec<u8>>) {
        self.files.push(path.to_owned());
        let bytes = match content {
            Ok(bytes) => bytes,
            Err(error) => return self.fault(path, None, why_unreadable(&error)),
        };
        if fs::metadata(path)
            .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o002 != 0)
        {
            self.about_files.push(Diagnostic {
                file: Some(path.to_owned()),
                line: None,
                text: "anyone on this machine may change this file; chmod o-w it".to_owned(),
            });
        }
        match String::from_utf8(bytes) {
            Ok(text) => self.add_text(path, &text),
            Err(error) => {
                let valid = error.utf8_error().valid_up_to();
                let line = 1 + error.as_bytes()[..valid]
                    .iter()
                    .filter(|byte| **byte == b'\n')
                    .count();
                self.fault(
                    path,
                    Some(line),
                    "not UTF-8 text; save the file as UTF-8".to_owned(),
                );
            }
        }
    }

    /// Overlays one file's text on what came before.
    fn add_text(&mut self, path: &Path, text: &str) {
        let faults_before = self.faults.len();
        match toml_value::parse(text) {
            Ok(document) => {
                for (name, given) in &document.0 {
                    self.add_section(path, text, name, given);
                }
            }
            Err(error) => {
                let line = error.span.map(|span| toml_value::line_at(text, span.start));
                let source = line
                    .and_then(|line| text.lines().nth(line - 1))
                    .unwrap_or_default();
                let message = format!(
                    "not TOML: {}: {}; text goes in double quotes, lists in brackets, numbers bare",
                    shorten(source),
                    error.message
                );
                self.fault(path, line, message);
            }
        }
        self.faults[faults_before..].sort_by_key(|fault| fault.line);
    }

    fn add_section(&mut self, path: &Path, text: &str, name: &str, given: &TomlValue) {
        let line = toml_value::line_of_name(text, name);
        let sections = Config::default().describe();
        let Some(section) = sections.iter().find(|section| section.name == name) else {
            let text = match given {
                TomlValue::Table(_) => unknown_section(&sections, name),
                _ => stray_key(&sections, name),
            };
            return self.fault(path, line, text);
        };
        let TomlValue::Table(entries) = given else {
            let text = format!(
                "[{name}]: is {}, not a section; write [{name}] once, on a line of its own, and its keys below",
                given.kind()
            );
            return self.fault(path, line, text);
        };
        for (name, given) in entries {
            let place = toml_value::line_at(text, given.span().start);
            match self.config.set(section.name, name, given) {
                Some(Ok(())) => {
                    let key = format!("{}.{name}", section.name);
                    self.places.insert(key, (path.to_owned(), place));
                }
                Some(Err(wrongs)) => {
                    for wrong in wrongs {
                        let line = toml_value::line_at(text, wrong.span.start);
                        let text = explain(section, name, text, &wrong);
                        self.fault(path, Some(line), text);
                    }
                }
                None => self.fault(path, Some(place), unknown_key(&sections, section, name)),
            }
        }
    }

    fn fault(&mut self, path: &Path, line: Option<usize>, text: String) {
        self.faults.push(Diagnostic {
            file: Some(path.to_owned()),
            line,
            text,
        });
    }

    fn finish(mut self) -> Result<Loaded, Errors> {
        // A key that was refused still has its old value, so a conflict with it would mislead.
        if self.faults.is_empty() {
            let conflicts = self.config.conflicts().into_iter();
            self.faults
                .extend(conflicts.map(|finding| locate(&self.places, finding)));
        }
        let lists = Lists::read(&self.config, &mut self.faults);
        if !self.faults.is_empty() {
            return Err(Errors(self.faults));
        }
        Ok(Loaded {
            config: self.config,
            lists,
            files: self.files,
            places: self.places,
            about_files: self.about_files,
        })
    }
}

/// A finding with the place of the first of its keys that a file sets.
fn locate(places: &KeyLocations, finding: Finding) -> Diagnostic {
    let place = finding.keys.iter().find_map(|key| places.get(*key));
    let (section, key) = finding.keys[0].split_once('.').unwrap_or_default();
    Diagnostic {
        file: place.map(|(file, _)| file.clone()),
        line: place.map(|(_, line)| *line),
        text: format!("[{section}] {key}: {}", finding.text),
    }
}

fn why_unreadable(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "there is no such file; name another, or make one from what tbtt --print-default-config prints".to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            "no permission to read this file; let the user that runs tbtt read it, and enter its directory".to_owned()
        }
        io::ErrorKind::IsADirectory => "is a directory; name the file itself".to_owned(),
        _ => format!("cannot be read: {error}"),
    }
}

fn explain(section: &Section, name: &str, text: &str, wrong: &InvalidValue) -> String {
    let mut value = text.get(wrong.span.clone()).unwrap_or_default().to_owned();
    // Before the @ of a URL stands a password, which is not for a log to show.
    if let (true, Some((_, host))) = (name == "url", value.rsplit_once('@')) {
        value = format!("\"...@{host}");
    }
    let key = section.keys.iter().find(|key| key.name == name);
    let (allowed, default) = key.map_or(("", ""), |key| (&key.allowed, &key.value));
    let advice = match &wrong.advice {
        Some(advice) => advice.clone(),
        None => format!("correct it, or remove the key for its default, {default}"),
    };
    format!(
        "[{}] {name}: {} {}; allowed: {allowed}; {advice}",
        section.name,
        shorten(&value),
        wrong.what
    )
}

fn unknown_section(sections: &[Section], name: &str) -> String {
    let names = || sections.iter().map(|section| section.name);
    match nearest(name, names()) {
        Some(near) => format!("[{name}]: unknown section; did you mean [{near}]?"),
        None => {
            let names: Vec<_> = names().map(|name| format!("[{name}]")).collect();
            format!(
                "[{name}]: unknown section; the sections are {}",
                names.join(", ")
            )
        }
    }
}

fn stray_key(sections: &[Section], name: &str) -> String {
    let homes = homes(sections, name);
    if homes.is_empty() {
        format!("{name}: unknown key, and outside of any section; remove it")
    } else {
        format!(
            "{name}: stands before any section; move it below {}",
            homes.join(" or ")
        )
    }
}

fn unknown_key(sections: &[Section], section: &Section, name: &str) -> String {
    let homes = homes(sections, name);
    let names = || section.keys.iter().map(|key| key.name);
    let advice = if !homes.is_empty() {
        format!("it belongs in {}", homes.join(" or "))
    } else if let Some(near) = nearest(name, names()) {
        format!("did you mean {near}?")
    } else {
        format!(
            "the keys here are {}",
            names().collect::<Vec<_>>().join(", ")
        )
    };
    format!("[{}] {name}: unknown key; {advice}", section.name)
}

/// The sections that have a key of this name.
fn homes(sections: &[Section], key: &str) -> Vec<String> {
    let has = |section: &&Section| section.keys.iter().any(|known| known.name == key);
    sections
        .iter()
        .filter(has)
        .map(|section| format!("[{}]", section.name))
        .collect()
}

/// The known name that `name` is likely a slip of, if one is near enough.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let name: Vec<char> = name.to_lowercase().replace('-', "_").chars().collect();
    let near = known.map(|known| (edits(&name, known), known)).min()?;
    (near.0 <= name.len().div_ceil(3)).then_some(near.1)
}

/// How many characters must be added, removed or changed to get from `a` to `b` (Levenshtein).
fn edits(a: &[char], b: &str) -> usize {
    let mut row: Vec<usize> = (0..=a.len()).collect();
    for c in b.chars() {
        let mut diagonal = row[0];
        row[0] += 1;
        for (i, d) in a.iter().enumerate() {
            let change = diagonal + usize::from(c != *d);
            diagonal = row[i + 1];
            row[i + 1] = change.min(row[i] + 1).min(diagonal + 1);
        }
    }
    row[a.len()]
}

/// A value or line as a message can carry it.
fn shorten(source: &str) -> String {
    const MAX: usize = 60;
    let line = source.trim().lines().next().unwrap_or_default();
    let short: String = line.chars().take(MAX).collect();
    let cut = short.len() < source.trim().len();
    if cut { short + "..." } else { short }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_files_for_the_daemon() {
        let http = Http::default();
        for (open_files, fit) in [
            (None, 16384),
            (Some(1 << 20), 16384),
            (Some(16384 + FILES_BESIDE), 16384),
            (Some(16383 + FILES_BESIDE), 16383),
            (Some(FILES_BESIDE), 1),
            (Some(0), 1),
        ] {
            assert_eq!(http.connections_that_fit(open_files), fit, "{open_files:?}");
        }
    }

    use crate::tracker::Time;

    /// What the files say, without a file.
    fn read(files: &[(&str, &str)]) -> Result<Loaded, Errors> {
        let mut loader = Loader::default();
        for (name, text) in files {
            loader.add_text(Path::new(name), text);
        }
        loader.finish()
    }

    fn config(text: &str) -> Config {
        read(&[("t", text)]).unwrap().config
    }

    fn faults(text: &str) -> String {
        read(&[("t", text)]).unwrap_err().to_string()
    }

    fn warnings(text: &str) -> Vec<String> {
        let loaded = read(&[("t", text)]).unwrap();
        loaded
            .warnings()
            .iter()
            .map(Diagnostic::to_string)
            .collect()
    }

    #[test]
    fn nothing_said_is_the_default() {
        let config = config("");
        assert_eq!(config, Config::default());
        assert_eq!(
            config.http.listen,
            [Listen::Tcp("[::]:6969".parse().unwrap())]
        );
        assert!(!config.torrents.open);
    }

    #[test]
    fn every_kind_of_value_is_read() {
        let config = config(
            "[http]\n\
             listen = ['192.0.2.1:80', \"[2001:db8::1]:80\", 'unix:/run/t.sock', '127.0.0.1:0', '127.0.0.1:0']\n\
             announce_path = '/a/announce.php'\n\
             [tracker]\ninterval = 60\nmin_interval = 0x1e\nfull_scrape = true\nwarning = 'fünf'\n\
             [torrents]\ndirectories = [\n  '/srv/a', # one\n  '/srv/b',\n]\n\
             [state]\ndirectory = '/var/lib/tbtt'\n\
             [log]\nlevel = 'debug'\n",
        );
        assert_eq!(
            config.state.directory.as_deref(),
            Some(Path::new("/var/lib/tbtt"))
        );
        assert_eq!(
            config
                .http
                .listen
                .iter()
                .map(Listen::to_string)
                .collect::<Vec<_>>(),
            [
                "192.0.2.1:80",
                "[2001:db8::1]:80",
                "unix:/run/t.sock",
                "127.0.0.1:0",
                "127.0.0.1:0"
            ]
        );
        assert_eq!(config.http.announce_path, "/a/announce.php");
        assert_eq!(
            (config.tracker.interval, config.tracker.min_interval),
            (60, 30)
        );
        assert!(config.tracker.full_scrape);
        assert_eq!(config.tracker.warning, "fünf");
        assert_eq!(
            config.torrents.directories,
            [Path::new("/srv/a"), Path::new("/srv/b")]
        );
        assert_eq!(config.log.level, log::Level::Debug);
    }

    #[test]
    fn no_fault_shows_a_password() {
        for url in ["redis://tbtt:secret@192.0.2.1/", "rediss:tbtt:secret@x"] {
            let told = faults(&format!("[cluster]\nurl = '{url}'\n"));
            assert!(told.contains("[cluster] url: \"...@"), "{told}");
            assert!(!told.contains("secret"), "{told}");
        }
    }

    #[test]
    fn toml_is_read_in_all_its_spellings() {
        for text in [
            "tracker.interval = 600",
            "tracker = { interval = 600 }",
            "[tracker]\r\ninterval=6_00\r\n",
            "\u{feff}[ tracker ] # c\n\"interval\" = 600",
        ] {
            assert_eq!(config(text).tracker.interval, 600, "{text}");
        }
    }

    #[test]
    fn a_later_file_replaces_a_key_as_a_whole() {
        let loaded = read(&[
            (
                "a",
                "[torrents]\ndirectories = ['/a', '/b']\n[tracker]\ninterval = 900\nnumwant = 7",
            ),
            (
                "b",
                "[torrents]\ndirectories = ['/c']\n[tracker]\ninterval = 1000",
            ),
        ])
        .unwrap();
        assert_eq!(loaded.config.torrents.directories, [Path::new("/c")]);
        assert_eq!(
            (
                loaded.config.tracker.interval,
                loaded.config.tracker.numwant
            ),
            (1000, 7)
        );
    }

    #[test]
    fn ranges_hold_at_their_edges() {
        for section in Config::default().describe() {
            for key in section.keys {
                let mut words = key.allowed.split(' ');
                let (Some(Ok(low)), Some("to"), Some(Ok(high))) = (
                    words.next().map(str::parse::<i64>),
                    words.next(),
                    words.next().map(str::parse::<i64>),
                ) else {
                    continue;
                };
                let set = |value: i64| {
                    let mut loader = Loader::default();
                    let text = format!("{}.{} = {value}", section.name, key.name);
                    loader.add_text(Path::new("t"), &text);
                    loader
                        .faults
                        .into_iter()
                        .map(|fault| fault.text)
                        .collect::<Vec<_>>()
                };
                assert!(set(low).is_empty() && set(high).is_empty(), "{}", key.name);
                assert!(set(low - 1)[0].contains("is too small"), "{}", key.name);
                assert!(set(high + 1)[0].contains("is too large"), "{}", key.name);
            }
        }
    }

    #[test]
    fn every_word_is_read_and_written() {
        for section in Config::default().describe() {
            for (i, key) in section.keys.iter().enumerate() {
                for word in key.allowed.split('"').skip(1).step_by(2) {
                    // A list's quotes are no words.
                    if key.value.starts_with('[') {
                        continue;
                    }
                    let config = config(&format!("{}.{} = '{word}'", section.name, key.name));
                    let mut sections = config.describe().into_iter();
                    let written = sections
                        .find(|written| written.name == section.name)
                        .unwrap();
                    assert_eq!(written.keys[i].value, format!("\"{word}\""));
                }
            }
        }
    }

    #[test]
    fn each_fault_says_what_and_where_and_what_to_do() {
        const TCP: &str =
            r#"allowed: a list, each "address:port", "[IPv6 address]:port" or "unix:/path""#;
        const NETWORKS: &str =
            r#"allowed: a list, each "address", "network/length" or "/path" of a file of these"#;
        for (text, expected) in [
            (
                "[tracker]\ninterval = 30",
                "t:2: [tracker] interval: 30 is too small; allowed: 60 to 7200 seconds; \
                 correct it, or remove the key for its default, 1800",
            ),
            (
                "[tracker]\n\ninterval = 99999999999",
                "t:3: [tracker] interval: 99999999999 is too large; allowed: 60 to 7200 seconds; \
                 correct it, or remove the key for its default, 1800",
            ),
            (
                "[tracker]\ninterval = \"1800\"",
                "t:2: [tracker] interval: \"1800\" is text, not a number; allowed: 60 to 7200 seconds; \
                 write it without quotes",
            ),
            (
                "[tracker]\ninterval = '30m'",
                "t:2: [tracker] interval: '30m' is text, not a number; allowed: 60 to 7200 seconds; \
                 write the number alone, without quotes",
            ),
            (
                "[tracker]\ninterval = 60.5",
                "t:2: [tracker] interval: 60.5 is a fraction, not a whole number; allowed: 60 to 7200 seconds; \
                 correct it, or remove the key for its default, 1800",
            ),
            (
                "[tracker]\ninterval = 1979-05-27",
                "t:2: [tracker] interval: 1979-05-27 is a date or time, not a number; \
                 allowed: 60 to 7200 seconds; correct it, or remove the key for its default, 1800",
            ),
            (
                "[tracker]\n\ninterval = { minutes = 30 }",
                "t:3: [tracker] interval: { minutes = 30 } is a table, not a number; \
                 allowed: 60 to 7200 seconds; correct it, or remove the key for its default, 1800",
            ),
            (
                "[torrents]\nopen = 1",
                "t:2: [torrents] open: 1 is a number, not true or false; allowed: true or false; \
                 correct it, or remove the key for its default, false",
            ),
            (
                "[torrents]\nopen = 'true'",
                "t:2: [torrents] open: 'true' is text, not true or false; allowed: true or false; \
                 write it without quotes",
            ),
            (
                "[torrents]\ndirectories = '/srv'",
                "t:2: [torrents] directories: '/srv' is text, not a list; \
                 allowed: a list, each an absolute path; put it in brackets: [...]",
            ),
            (
                "[torrents]\ndirectories = [\n'/srv',\n'torrents',\n3]",
                "t:4: [torrents] directories: 'torrents' is not absolute; \
                 allowed: a list, each an absolute path; write the whole path, from / on\n\
                 t:5: [torrents] directories: 3 is a number, not text; \
                 allowed: a list, each an absolute path; write it in double quotes",
            ),
            (
                "[state]\ndirectory = 'lib'",
                "t:2: [state] directory: 'lib' is not absolute; \
                 allowed: an absolute path or \"\"; write the whole path, from / on",
            ),
            (
                "[log]\nlevel = 'notise'",
                "t:2: [log] level: 'notise' is none of the words; \
                 allowed: \"error\", \"warning\", \"notice\", \"info\" or \"debug\"; did you mean \"notice\"?",
            ),
            (
                "[log]\naddresses = false",
                "t:2: [log] addresses: false is true or false, not text; \
                 allowed: \"off\", \"masked\" or \"full\"; write it in double quotes",
            ),
            (
                "[tracker]\nwarning = \"a\\nb\"",
                "t:2: [tracker] warning: \"a\\nb\" has a line break or another control character; \
                 allowed: one line of text, up to 255 bytes; correct it, or remove the key for its default, \"\"",
            ),
            (
                "[http]\nannounce_path = 'announce'",
                "t:2: [http] announce_path: 'announce' does not start with /; \
                 allowed: a path that starts with / and whose last part starts with announce; \
                 write for example \"/announce\"",
            ),
            (
                "[http]\nannounce_path = '/announce/x'",
                "t:2: [http] announce_path: '/announce/x' leaves clients no scrape path, which they make by \
                 putting scrape for announce in the last part; \
                 allowed: a path that starts with / and whose last part starts with announce; \
                 write for example \"/announce/x/announce\"",
            ),
            (
                "[status]\npath = '/'",
                "t:2: [status] path: '/' ends with /; allowed: a path that starts with / and does not end with it \
                 or \"\"; correct it, or remove the key for its default, \"/status\"",
            ),
            (
                "[http]\nannounce_path = '/announce?a'",
                "t:2: [http] announce_path: '/announce?a' has '?', which no path may have; \
                 allowed: a path that starts with / and whose last part starts with announce; \
                 correct it, or remove the key for its default, \"/announce\"",
            ),
            (
                "[http]\nlisten = ['0.0.0.0']",
                &format!(
                    "t:2: [http] listen: '0.0.0.0' has no port; {TCP}; write \"0.0.0.0:6969\""
                ),
            ),
            (
                "[http]\nlisten = ['::']",
                &format!("t:2: [http] listen: '::' has no port; {TCP}; write \"[::]:6969\""),
            ),
            (
                "[http]\nlisten = ['80', ':80', '*:80']",
                &["'80'", "':80'", "'*:80'"]
                    .map(|value| {
                        format!(
                            "t:2: [http] listen: {value} has no address; {TCP}; write \"[::]:80\""
                        )
                    })
                    .join("\n"),
            ),
            (
                "[http]\nlisten = ['localhost:80']",
                &format!(
                    "t:2: [http] listen: 'localhost:80' has a name, and names are not looked up; {TCP}; \
                     write the address"
                ),
            ),
            (
                "[http]\nlisten = ['127.0.0.1:65536']",
                &format!(
                    "t:2: [http] listen: '127.0.0.1:65536' has no port from 0 to 65535; {TCP}; \
                     correct it, or remove the key for its default, [\"[::]:6969\"]"
                ),
            ),
            (
                "[http]\nlisten = ['127.0.0.256:80']",
                &format!(
                    "t:2: [http] listen: '127.0.0.256:80' is no address; {TCP}; \
                     correct it, or remove the key for its default, [\"[::]:6969\"]"
                ),
            ),
            (
                "[http]\nlisten = ['unix:run']",
                &format!(
                    "t:2: [http] listen: 'unix:run' has no absolute path; {TCP}; \
                     write unix: and the whole path, from / on"
                ),
            ),
            (
                "[udp]\nlisten = ['unix:/run/t']",
                "t:2: [udp] listen: 'unix:/run/t' has no port from 0 to 65535; \
                 allowed: a list, each \"address:port\" or \"[IPv6 address]:port\"; \
                 correct it, or remove the key for its default, [\"[::]:6969\"]",
            ),
            (
                "[udp]\nbad_ids = 'answer'",
                "t:2: [udp] bad_ids: 'answer' is none of the words; allowed: \"silence\" or \"error\"; \
                 correct it, or remove the key for its default, \"silence\"",
            ),
            (
                "[access]\nannounce_deny = '192.0.2.1'",
                &format!(
                    "t:2: [access] announce_deny: '192.0.2.1' is text, not a list; {NETWORKS}; \
                     put it in brackets: [...]"
                ),
            ),
            (
                "[access]\nscrape_allow = [\n'192.0.2.1/24',\n'2001:db8::1/32',\n]",
                &format!(
                    "t:3: [access] scrape_allow: '192.0.2.1/24' has bits set beyond its prefix; {NETWORKS}; \
                     write \"192.0.2.0/24\" for the network or \"192.0.2.1\" for the address\n\
                     t:4: [access] scrape_allow: '2001:db8::1/32' has bits set beyond its prefix; {NETWORKS}; \
                     write \"2001:db8::/32\" for the network or \"2001:db8::1\" for the address"
                ),
            ),
            (
                "[proxy]\ntrusted = ['192.0.2.0/33', 'lists/proxies', 'localhost', '']",
                &["'192.0.2.0/33'", "'lists/proxies'", "'localhost'", "''"]
                    .map(|value| {
                        format!(
                            "t:2: [proxy] trusted: {value} is neither a network nor an absolute path; {NETWORKS}; \
                             correct it, or remove the key for its default, []"
                        )
                    })
                    .join("\n"),
            ),
            (
                "[proxy]\nheader = 'X-Forwarded-For'",
                "t:2: [proxy] header: 'X-Forwarded-For' is none of the words; \
                 allowed: \"x-forwarded-for\" or \"forwarded\"; did you mean \"x-forwarded-for\"?",
            ),
            (
                "[limits]\nannounces = -1",
                "t:2: [limits] announces: -1 is too small; allowed: 0 to 200000 a minute; \
                 correct it, or remove the key for its default, 600",
            ),
            (
                "[limits]\nannounces = '600/min'",
                "t:2: [limits] announces: '600/min' is text, not a number; allowed: 0 to 200000 a minute; \
                 write the number alone, without quotes",
            ),
        ] {
            assert_eq!(faults(text), expected, "{text}");
        }
    }

    #[test]
    fn unknown_names_are_refused_with_the_likely_one() {
        for (text, expected) in [
            (
                "[trakcer]\ninterval = 60",
                "t:1: [trakcer]: unknown section; did you mean [tracker]?",
            ),
            (
                "\n[database]\n",
                "t:2: [database]: unknown section; \
                 the sections are [http], [udp], [tracker], [torrents], [access], [limits], [proxy], [status], [metrics], [state], [cluster], [control], [daemon], [log]",
            ),
            (
                "[tracker]\nintervall = 60",
                "t:2: [tracker] intervall: unknown key; did you mean interval?",
            ),
            (
                "[tracker]\nMin-Interval = 60",
                "t:2: [tracker] Min-Interval: unknown key; did you mean min_interval?",
            ),
            (
                "[tracker]\nlisten = []",
                "t:2: [tracker] listen: unknown key; it belongs in [http] or [udp] or [proxy] or [status] or [control]",
            ),
            (
                "[log]\nrotate = true",
                "t:2: [log] rotate: unknown key; the keys here are target, level, facility, announces, addresses",
            ),
            (
                "# c\nlisten = []",
                "t:2: listen: stands before any section; move it below [http] or [udp] or [proxy] or [status] or [control]",
            ),
            (
                "speed = 'a'",
                "t:1: speed: unknown key, and outside of any section; remove it",
            ),
            (
                "http = 3",
                "t:1: [http]: is a number, not a section; \
                 write [http] once, on a line of its own, and its keys below",
            ),
            (
                "[[http]]\n[[http]]",
                "t:1: [http]: is a list, not a section; write [http] once, on a line of its own, and its keys below",
            ),
        ] {
            assert_eq!(faults(text), expected, "{text}");
        }
    }

    #[test]
    fn text_that_is_no_toml_is_refused_with_its_line() {
        // Why is the toml crate's to say, and differs by its version.
        for (text, start) in [
            (
                "[http]\nlisten = [::]:6969\n",
                "t:2: not TOML: listen = [::]:6969: ",
            ),
            (
                "[tracker]\ninterval = 30m\n",
                "t:2: not TOML: interval = 30m: ",
            ),
            (
                "[tracker]\ninterval = 60\ninterval = 70\n",
                "t:3: not TOML: interval = 70: duplicate key",
            ),
            ("[http\n", "t:1: not TOML: [http: "),
            ("level\u{1b}[2J", "t:1: not TOML: level\\u{1b}[2J: "),
            ("[log]\n\nlevel: info\n", "t:3: not TOML: level: info: "),
        ] {
            let faults = faults(text);
            assert!(faults.starts_with(start), "{faults}");
            assert!(!faults.contains('\n'), "{faults}");
            assert!(
                faults.ends_with("; text goes in double quotes, lists in brackets, numbers bare"),
                "{faults}"
            );
        }
    }

    #[test]
    fn all_faults_of_all_files_are_told_at_once_and_in_order() {
        let faults = read(&[
            (
                "a",
                "[tracker]\nworkers = -1\ninterval = 'x'\n[log]\nlevle = 'info'",
            ),
            ("b", "[http"),
            ("c", "[http]\nidle_timeout = 0"),
        ])
        .unwrap_err();
        let places: Vec<_> = faults
            .0
            .iter()
            .map(|fault| (fault.file.clone().unwrap(), fault.line))
            .collect();
        let expected = [("a", 2), ("a", 3), ("a", 5), ("b", 1), ("c", 2)];
        assert_eq!(
            places,
            expected.map(|(file, line)| (file.into(), Some(line)))
        );
    }

    #[test]
    fn lists_and_the_files_that_name_them_are_found_faulty_at_once() {
        let faults = faults(
            "[access]\nannounce_deny = ['/nowhere/a']\n[limits]\nexempt = ['/nowhere/b']\n[tracker]\ninterval = 1",
        );
        let lines: Vec<_> = faults.lines().collect();
        assert_eq!(lines.len(), 3, "{faults}");
        assert!(lines[0].starts_with("t:6: [tracker] interval: 1 is too small"));
        for (line, list) in lines[1..].iter().zip(["/nowhere/a", "/nowhere/b"]) {
            assert_eq!(
                *line,
                format!("{list}: there is no such list; make it, empty if nothing is to be on it")
            );
        }
    }

    #[test]
    fn lists_of_networks_are_read_in_all_their_spellings() {
        let networks = |config: &Config| {
            let sources = config.access.announce_allow.iter();
            sources.map(Source::to_string).collect::<Vec<_>>()
        };
        let config = config(
            "[access]\nannounce_allow = ['192.0.2.0/24', '198.51.100.7', '2001:DB8::/32', '::1/128', '0.0.0.0/0', \
             '/dev/null']",
        );
        assert_eq!(
            networks(&config),
            [
                "192.0.2.0/24",
                "198.51.100.7",
                "2001:db8::/32",
                "::1",
                "0.0.0.0/0",
                "/dev/null"
            ]
        );
    }

    #[test]
    fn networks_given_replace_the_default() {
        let default = read(&[]).unwrap();
        let own = read(&[(
            "t",
            "[access]\nlocal_networks = ['192.0.2.0/24']\n[limits]\nexempt = []",
        )])
        .unwrap();
        let (here, there) = ("192.0.2.1".parse().unwrap(), "fe80::1".parse().unwrap());
        let local = |loaded: &Loaded, address| loaded.lists.local_networks.of(address).is_some();
        assert!(!local(&default, here) && local(&default, there));
        assert!(local(&own, here) && !local(&own, there));
        let home = "127.0.0.1".parse().unwrap();
        assert!(default.lists.exempt.hold(home) && !own.lists.exempt.hold(home));
    }

    #[test]
    fn without_a_limit_there_is_no_budget() {
        let text = "[limits]\nannounces = 0\nscrapes = 1\nscrapes_burst = 1\nexempt = []";
        let settings = read(&[("t", text)]).unwrap().tracker_settings(7);
        assert!(settings.announces.budget.is_none());
        let scrapes = settings.scrapes.budget.unwrap();
        let take = |address: &str| scrapes.take(Time(0), address.parse().unwrap()).is_ok();
        assert!(take("192.0.2.1") && !take("192.0.2.1") && take("192.0.2.2"));
        // Of one /56: four times what a /64 has.
        for net in 0..4 {
            assert!(take(&format!("2001:db8:0:{net}::1")));
            assert!(!take(&format!("2001:db8:0:{net}::2")));
        }
        assert!(!take("2001:db8:0:4::1"));
        // Of one /48: sixteen times, four of which are spent.
        for net in 1..=12 {
            assert!(take(&format!("2001:db8:0:{:x}::1", net << 8)), "{net}");
        }
        assert!(!take("2001:db8:0:ff00::1") && take("2001:db8:1::1"));
    }

    #[test]
    fn what_takes_a_restart_is_named_once() {
        let before = Config::default();
        assert_eq!(
            before.only_at_start(&config("tracker.interval = 600")),
            [""; 0]
        );
        for (text, expected) in [
            ("http.listen = []", "http.listen"),
            ("udp.listen = []", "udp.listen"),
            ("udp.receive_buffer = 16384", "udp.receive_buffer"),
            ("proxy.listen = ['unix:/a']", "proxy.listen"),
            ("status.listen = ['unix:/a']", "status.listen"),
            ("tracker.workers = 1", "tracker.workers"),
            ("state.directory = '/a'", "state.directory"),
            ("daemon.sandbox = false\ndaemon.user = 'a'", "daemon"),
        ] {
            assert_eq!(before.only_at_start(&config(text)), [expected]);
        }
    }

    #[test]
    fn every_file_of_a_list_is_known() {
        let mut config = Config::default();
        let path = |name: &str| Path::new("/lists").join(name);
        config.torrents.allow = vec![path("a"), path("b")];
        config.torrents.deny = vec![path("c")];
        config.torrents.notices = vec![path("d")];
        let network = Source::Network("192.0.2.0/24".parse().unwrap());
        let sources = [
            &mut config.access.announce_allow,
            &mut config.access.announce_deny,
            &mut config.access.scrape_allow,
            &mut config.access.scrape_deny,
            &mut config.access.status_allow,
            &mut config.access.status_deny,
            &mut config.access.metrics_allow,
            &mut config.access.metrics_deny,
            &mut config.access.local_networks,
            &mut config.access.believe_ip_from,
            &mut config.limits.exempt,
            &mut config.proxy.trusted,
        ];
        let names = 'e'..='p';
        for (sources, name) in sources.into_iter().zip(names) {
            *sources = vec![network.clone(), Source::File(path(&name.to_string()))];
        }
        let mut files: Vec<_> = config.list_files().collect();
        files.sort();
        assert_eq!(files.len(), 16);
        assert_eq!(files[0], path("a"));
        files.dedup();
        assert_eq!((files.len(), files[15]), (16, &*path("p")));
    }

    #[test]
    fn values_that_cannot_go_together_are_faults() {
        for (text, expected) in [
            (
                "[tracker]\nmin_interval = 1801",
                "t:2: [tracker] min_interval: 1801 is longer than interval, 1800; set it to 1800 or less",
            ),
            (
                "[tracker]\ninterval = 299",
                "t:2: [tracker] min_interval: 300 is longer than interval, 299; set it to 299 or less",
            ),
            (
                "[tracker]\nmax_numwant = 49",
                "t:2: [tracker] numwant: 50 is more than max_numwant, 49; set it to 49 or less",
            ),
            (
                "[http]\nlisten = ['[::1]:80', '[::1]:80', '[::1]:81']",
                "t:2: [http] listen: \"[::1]:80\" is listed twice; leave one out",
            ),
            (
                "[http]\nlisten = ['0.0.0.0:80', '[::]:80']",
                "t:2: [http] listen: \"0.0.0.0:80\" and \"[::]:80\" overlap, as a wildcard takes in every address \
                 on its port; leave one out",
            ),
            (
                "[http]\nlisten = ['127.0.0.1:80']\n[proxy]\nlisten = ['127.0.0.1:81', '[::]:80']",
                "t:4: [proxy] listen: \"127.0.0.1:80\" and \"[::]:80\" overlap, as a wildcard takes in every address \
                 on its port; leave one out",
            ),
            (
                "[http]\nlisten = ['unix:/a']\n[proxy]\nlisten = ['unix:/a']",
                "t:4: [proxy] listen: \"unix:/a\" is listed twice; leave one out",
            ),
            (
                "[http]\nlisten = ['unix:/a']\n[status]\nlisten = ['unix:/a']",
                "t:4: [status] listen: \"unix:/a\" is listed twice; leave one out",
            ),
            (
                "[status]\npath = '/scrape'",
                "t:2: [status] path: \"/scrape\" is the path of something else already; choose another",
            ),
            (
                "[metrics]\npath = '/announce'",
                "t:2: [metrics] path: \"/announce\" is the path of something else already; choose another",
            ),
            (
                "[metrics]\npath = '/status.json'",
                "t:2: [metrics] path: \"/status.json\" is the path of something else already; choose another",
            ),
            (
                "[udp]\nlisten = ['[::1]:80', '[::]:80']",
                "t:2: [udp] listen: \"[::1]:80\" and \"[::]:80\" overlap, as a wildcard takes in every address \
                 on its port; leave one out",
            ),
        ] {
            assert_eq!(faults(text), expected, "{text}");
        }
        for text in [
            "[tracker]\nmin_interval = 1800\nnumwant = 200",
            "[http]\nlisten = ['0.0.0.0:80', '[::1]:80', '[::]:81', 'unix:/a', 'unix:/b']",
            "[http]\nlisten = ['[::]:80']\n[proxy]\nlisten = ['[::]:81', 'unix:/a']",
            "[status]\npath = '/a'\n[metrics]\npath = '/a/metrics'",
            "[status]\npath = ''\n[metrics]\npath = '/status.json'",
        ] {
            assert!(read(&[("t", text)]).is_ok(), "{text}");
        }
    }

    #[test]
    fn legal_but_unwise_settings_warn() {
        const TRACKS: &str = "torrents.directories = ['/srv']\n";
        assert_eq!(warnings(TRACKS), [""; 0]);
        assert_eq!(
            warnings(""),
            [
                "[torrents] directories: no torrent is welcome; name the directories of your .torrent files, \
              or set open to true"
            ]
        );
        for (text, expected) in [
            (
                "http.listen = []\nudp.listen = []",
                "t:2: [http] listen: nothing to listen on, so only sockets from the service manager are served; \
                 name an address",
            ),
            (
                "proxy.listen = ['[::1]:80', 'unix:/a']",
                "t:2: [proxy] listen: nobody may connect there over TCP, as no proxy is trusted; name yours in trusted",
            ),
            (
                "tracker.interval = 2700",
                "t:2: [tracker] peer_timeout: 2700 is no longer than interval, 2700: peers are forgotten before \
                 they announce again; set it well above 2700",
            ),
            (
                "http.max_connections = 511",
                "t:2: [http] max_connections_per_network: 512 is never reached, as max_connections is 511; \
                 set it lower",
            ),
            (
                "torrents.open = true\ntorrents.allow = ['/dev/null']",
                "t:3: [torrents] allow: has no effect, as open is true; leave one of the two out",
            ),
            (
                "torrents.open = true\ntracker.full_scrape = true",
                "t:3: [tracker] full_scrape: with [torrents] open anyone can make the answer as long as he likes; \
                 set it to false",
            ),
        ] {
            assert_eq!(warnings(&format!("{TRACKS}{text}")), [expected]);
        }
        for text in [
            "http.listen = []\nudp.listen = []\nproxy.listen = ['unix:/a']",
            "proxy.listen = ['[::1]:80']\nproxy.trusted = ['::1']",
        ] {
            assert_eq!(warnings(&format!("{TRACKS}{text}")), [""; 0], "{text}");
        }
    }

    #[test]
    fn warnings_follow_what_the_command_line_changed() {
        let mut loaded = read(&[]).unwrap();
        assert_eq!(loaded.warnings().len(), 1);
        loaded.config.torrents.open = true;
        assert_eq!(loaded.warnings(), []);
    }

    /// A directory of one test's own, gone after it.
    pub(super) struct TestDirectory(pub(super) PathBuf);

    impl TestDirectory {
        pub(super) fn new(name: &str) -> Self {
            let path =
                std::env::temp_dir().join(format!("tbtt-config-{}-{name}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        pub(super) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
            let path = self.0.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, content).unwrap();
            path
        }
    }

    impl Drop for TestDirectory {
        fn drop(&mut self) {
            // A test that fails must say why, not that this failed too.
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn drop_ins_are_read_in_name_order() {
        let directory = TestDirectory::new("drop-ins");
        let base = directory.write(
            "t.toml",
            "[tracker]\ninterval = 100\nmin_interval = 10\nnumwant = 1",
        );
        directory.write("t.toml.d/20.toml", "[tracker]\ninterval = 120");
        directory.write(
            "t.toml.d/10.toml",
            "[tracker]\ninterval = 110\nmin_interval = 11",
        );
        for ignored in [
            "t.toml.d/30.toml.bak",
            "t.toml.d/.40.toml",
            "t.toml.d/README",
            "t.toml.d/toml",
        ] {
            directory.write(ignored, "not read");
        }
        let loaded = Config::load(&base).unwrap();
        let Tracker {
            interval,
            min_interval,
            numwant,
            ..
        } = loaded.config.tracker;
        assert_eq!((interval, min_interval, numwant), (120, 11, 1));
        let d = directory.0.join("t.toml.d");
        assert_eq!(loaded.files, [base, d.join("10.toml"), d.join("20.toml")]);
    }

    #[test]
    fn a_missing_file_is_a_fault_unless_it_may_be_missing() {
        let directory = TestDirectory::new("missing");
        let missing = directory.0.join("t.toml");
        let fault = Config::load(&missing).unwrap_err().to_string();
        assert_eq!(
            fault,
            format!(
                "{}: there is no such file; name another, or make one from what tbtt --print-default-config prints",
                missing.display()
            )
        );
        assert_eq!(
            Config::load_if_present(&missing).unwrap().config,
            Config::default()
        );
        let drop_in = directory.write("t.toml.d/a.toml", "tracker.numwant = 5");
        let loaded = Config::load_if_present(&missing).unwrap();
        assert_eq!(
            (loaded.config.tracker.numwant, loaded.files),
            (5, vec![drop_in])
        );
    }

    #[test]
    fn files_that_cannot_be_read_are_named() {
        let directory = TestDirectory::new("unreadable");
        let name = directory.0.display();
        assert_eq!(
            Config::load(&directory.0).unwrap_err().to_string(),
            format!("{name}: is a directory; name the file itself")
        );
        let base = directory.write("t.toml", b"# one\n# \xfc\n");
        directory.write("t.toml.d/a.toml/x", "");
        assert_eq!(
            Config::load(&base).unwrap_err().to_string(),
            format!(
                "{name}/t.toml:2: not UTF-8 text; save the file as UTF-8\n\
                 {name}/t.toml.d/a.toml: is a directory; name the file itself"
            )
        );
        let base = directory.write("u.toml", "");
        directory.write("u.toml.d", "");
        let faults = Config::load(&base).unwrap_err().to_string();
        assert!(faults.starts_with(&format!(
            "{name}/u.toml.d: the directory of drop-ins cannot be read: "
        )));
        // The tests may run as root, whom no mode stops.
        assert_eq!(
            why_unreadable(&io::ErrorKind::PermissionDenied.into()),
            "no permission to read this file; let the user that runs tbtt read it, and enter its directory"
        );
    }

    #[test]
    fn a_file_that_anyone_may_change_warns() {
        let directory = TestDirectory::new("writable");
        let base = directory.write("t.toml", "torrents.open = true");
        for (mode, expected) in [(0o664, 0), (0o646, 1)] {
            fs::set_permissions(&base, fs::Permissions::from_mode(mode)).unwrap();
            let warnings = Config::load(&base).unwrap().warnings();
            assert_eq!(warnings.len(), expected, "{warnings:?}");
        }
    }

    #[test]
    fn the_sample_reads_back_as_the_default() {
        let sample = sample();
        let is_key = |line: &str| {
            line.strip_prefix('#').is_some_and(|rest| {
                rest.starts_with(char::is_alphabetic)
                    || rest.starts_with("    ")
                    || rest.starts_with(']')
            })
        };
        let live: Vec<_> = sample
            .lines()
            .map(|line| if is_key(line) { &line[1..] } else { line })
            .collect();
        let live = live.join("\n");
        assert_eq!(config(&sample), Config::default());

        // Over a base in which every key is another, so that each must really have been set.
        let mut loader = Loader::default();
        loader.config.http.listen.clear();
        loader.config.log.level = log::Level::Debug;
        loader.add_text(Path::new("t"), &live);
        let loaded = loader.finish().unwrap();
        assert_eq!(loaded.config, Config::default());
        let keys: usize = Config::default()
            .describe()
            .iter()
            .map(|section| section.keys.len())
            .sum();
        assert_eq!(loaded.places.len(), keys);
    }

    #[test]
    fn the_sample_fits_a_terminal() {
        for line in sample().lines() {
            assert!(line.len() <= 79, "{line}");
        }
    }

    /// What the manual lists, as `section.key = default, allowed`.
    fn listed_in(manual: &str) -> Vec<String> {
        let plain = |text: &str| text.replace("\\(dq", "\"");
        let mut listed = Vec::new();
        let mut section = "";
        // A line may be continued on the next.
        let manual = manual.replace("\\\n", "");
        let mut lines = manual.lines();
        while let Some(line) = lines.next() {
            if let Some(name) = line.strip_prefix(".Ss [") {
                section = name.split(']').next().unwrap();
            } else if let Some(key) = line.strip_prefix(".It Ic ") {
                let body: Vec<_> = lines
                    .by_ref()
                    .take_while(|line| !line.starts_with('.'))
                    .collect();
                let key = plain(&key.replace(" No =", " ="));
                listed.push(format!("{section}.{key}, {}", body.join(" ")));
            }
        }
        listed
    }

    #[test]
    fn the_manual_lists_every_key_once_and_in_order() {
        let listed = listed_in(include_str!("../../man/tbtt.toml.5"));
        let mut known = Vec::new();
        for section in Config::default().describe() {
            for key in section.keys {
                known.push(format!(
                    "{}.{} = {}, Allowed: {}.",
                    section.name, key.name, key.value, key.allowed
                ));
            }
        }
        assert_eq!(listed, known);
    }
}
