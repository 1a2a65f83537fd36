//! Errors and advice that take more than one key to see.

use std::fmt;
use std::net::IpAddr;

use super::address_types::{Listen, overlap};
use super::schema::{Cluster, Config};
use crate::cluster::Url;
use crate::protocol::http::Paths;

impl Config {
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
    pub(super) fn conflicts(&self) -> Vec<Finding> {
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
    pub(super) fn advice(&self) -> Vec<Finding> {
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
        if self.ca_file.is_some() && !url.is_some_and(Url::tls) {
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
pub(super) struct Finding {
    pub(super) keys: &'static [&'static str],
    pub(super) text: String,
}

impl Finding {
    fn new(keys: &'static [&'static str], text: impl Into<String>) -> Self {
        Self {
            keys,
            text: text.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_support::{config, faults, read, warnings};
    use super::*;

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
}
