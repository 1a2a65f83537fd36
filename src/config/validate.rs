//! Checks that involve several keys: contradictions, probably unintended values, and changes that need a restart.

use std::fmt;
use std::net::IpAddr;

use super::address_types::{Listen, addresses_overlap};
use super::schema::{ClusterSection, Config};
use crate::cluster::url::StoreUrl;
use crate::protocol::http::request::Paths;

/// A problem of some values. The loader adds the file and line.
pub(super) struct Finding {
    /// The keys that are involved, as `section.key`. The text is about the first of them.
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

impl Config {
    /// Returns the keys and sections that differ in `new` and take effect only when the daemon starts.
    pub fn keys_that_need_restart(&self, new: &Self) -> Vec<&'static str> {
        let changes = [
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
        changes
            .into_iter()
            .filter_map(|(key, changed)| changed.then_some(key))
            .collect()
    }

    /// Returns the values that contradict each other. They are errors.
    pub(super) fn conflicts(&self) -> Vec<Finding> {
        let mut findings = self.overlapping_addresses();
        findings.extend(self.duplicate_path());
        let (min, interval) = (self.tracker.min_interval, self.tracker.interval);
        if min > interval {
            let text =
                format!("{min} is longer than interval ({interval}); set it to {interval} or less");
            let keys = &["tracker.min_interval", "tracker.interval"];
            findings.push(Finding::new(keys, text));
        }
        let (numwant, max) = (self.tracker.numwant, self.tracker.max_numwant);
        if numwant > max {
            let text =
                format!("{numwant} is more than max_numwant ({max}); set it to {max} or less");
            let keys = &["tracker.numwant", "tracker.max_numwant"];
            findings.push(Finding::new(keys, text));
        }
        if self.cluster.url.is_some() && !cfg!(feature = "cluster") {
            let text = "this build of tbtt does not support clusters; \
                        leave url empty, or install a build that supports them";
            findings.push(Finding::new(&["cluster.url"], text));
        }
        findings
    }

    /// Returns each pair of addresses that cannot both be bound.
    fn overlapping_addresses(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let lists: [(&'static [&'static str], &[Listen]); 3] = [
            (&["http.listen"], &self.http.listen),
            (&["proxy.listen"], &self.proxy.listen),
            (&["status.listen"], &self.status.listen),
        ];
        let streams: Vec<_> = lists
            .into_iter()
            .flat_map(|(keys, addresses)| addresses.iter().map(move |address| (keys, address)))
            .collect();
        for (i, (keys, later)) in streams.iter().enumerate() {
            for (_, earlier) in &streams[..i] {
                if later.overlaps(earlier) {
                    findings.push(Finding::new(keys, overlap_text(*earlier, *later)));
                }
            }
        }
        let datagrams = &self.udp.listen;
        for (i, later) in datagrams.iter().enumerate() {
            for earlier in &datagrams[..i] {
                if addresses_overlap(later, earlier) {
                    findings.push(Finding::new(&["udp.listen"], overlap_text(earlier, later)));
                }
            }
        }
        findings
    }

    /// Finds a URL path that two things use. The second would never be served.
    fn duplicate_path(&self) -> Option<Finding> {
        let paths = Paths::new(&self.http.announce_path)?;
        let tracker_path = |path: &&String| paths.action(path).is_some();
        let finding = |keys, path: &str, user: &str| {
            let text = format!("\"{path}\" is already a path of {user}; choose another path");
            Some(Finding::new(keys, text))
        };
        if let Some(path) = self.status.path.as_ref().filter(tracker_path) {
            return finding(&["status.path", "http.announce_path"], path, "the tracker");
        }
        let path = self.metrics.path.as_ref()?;
        if tracker_path(&path) {
            return finding(&["metrics.path", "http.announce_path"], path, "the tracker");
        }
        let rest = path.strip_prefix(self.status.path.as_ref()?)?;
        let duplicate = matches!(rest, "" | ".json" | ".css") || rest.ends_with(".torrent");
        duplicate.then(|| finding(&["metrics.path", "status.path"], path, "the status page"))?
    }

    /// Returns the values that are allowed but probably unintended.
    pub(super) fn warnings(&self) -> Vec<Finding> {
        let mut findings = self.listen_warnings();
        findings.extend(self.torrent_warnings());
        findings.extend(self.cluster.warning());
        findings
    }

    /// Returns warnings about sockets, connections and peers.
    fn listen_warnings(&self) -> Vec<Finding> {
        let Self {
            http,
            udp,
            tracker,
            proxy,
            ..
        } = self;
        let mut findings = Vec::new();
        if http.listen.is_empty() && udp.listen.is_empty() && proxy.listen.is_empty() {
            findings.push(Finding::new(
                &["http.listen", "udp.listen"],
                "no address to listen on, so only sockets passed by the service manager are served; \
                 list an address",
            ));
        }
        let over_tcp = |listen: &Listen| matches!(listen, Listen::Tcp(_));
        if proxy.listen.iter().any(over_tcp) && proxy.trusted.is_empty() {
            findings.push(Finding::new(
                &["proxy.listen"],
                "no proxy is trusted, so all TCP connections to these addresses are closed; \
                 list your proxies in trusted",
            ));
        }
        let (per_network, total) = (http.max_connections_per_network, http.max_connections);
        if per_network > total {
            findings.push(Finding::new(
                &["http.max_connections_per_network", "http.max_connections"],
                format!(
                    "{per_network} has no effect because max_connections is {total}; \
                     set it to {total} or less"
                ),
            ));
        }
        let (timeout, interval) = (tracker.peer_timeout, tracker.interval);
        if timeout <= interval {
            findings.push(Finding::new(
                &["tracker.peer_timeout", "tracker.interval"],
                format!(
                    "{timeout} is not longer than interval ({interval}), so peers are removed before \
                     they announce again; set it well above {interval}"
                ),
            ));
        }
        findings
    }

    /// Returns warnings about the tracked torrents.
    fn torrent_warnings(&self) -> Vec<Finding> {
        let Self {
            tracker, torrents, ..
        } = self;
        let mut findings = Vec::new();
        if !torrents.open && torrents.directories.is_empty() && torrents.allow.is_empty() {
            findings.push(Finding::new(
                &["torrents.directories"],
                "no torrent is tracked; list the directories of your .torrent files, \
                 or set open to true",
            ));
        }
        if torrents.open && !torrents.allow.is_empty() {
            findings.push(Finding::new(
                &["torrents.allow"],
                "this list has no effect because open is true; remove either",
            ));
        }
        if torrents.open && tracker.full_scrape {
            findings.push(Finding::new(
                &["tracker.full_scrape"],
                "anyone can make this response arbitrarily long because [torrents] open is true; \
                 set full_scrape to false",
            ));
        }
        findings
    }
}

impl ClusterSection {
    fn warning(&self) -> Option<Finding> {
        let url = self.url.as_ref();
        if self.ca_file.is_some() && !url.is_some_and(StoreUrl::tls) {
            let text = "this file has no effect without TLS; \
                        set url to a rediss:// URL, or remove ca_file";
            return Some(Finding::new(&["cluster.ca_file", "cluster.url"], text));
        }
        let url = url?;
        let unencrypted = url.host().is_some_and(|host| {
            let address = host.parse::<IpAddr>();
            !url.tls() && !address.is_ok_and(|address| address.is_loopback())
        });
        let sends_password = unencrypted && self.password_file.is_some();
        sends_password.then(|| {
            let text = "the password and all shared data are sent without encryption; \
                        use a rediss:// URL unless the network is private";
            Finding::new(&["cluster.url", "cluster.password_file"], text)
        })
    }
}

fn overlap_text<T: PartialEq + fmt::Display>(earlier: &T, later: &T) -> String {
    if later == earlier {
        format!("\"{later}\" is listed twice; remove either")
    } else {
        format!(
            "\"{earlier}\" and \"{later}\" overlap, because a wildcard includes every address \
             with its port; remove either"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_support::{config, errors, load, warnings};
    use super::*;

    #[test]
    fn names_changes_that_need_a_restart() {
        let before = Config::default();
        assert_eq!(
            before.keys_that_need_restart(&config("tracker.interval = 600")),
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
            ("daemon.landlock = false\ndaemon.user = 'a'", "daemon"),
        ] {
            assert_eq!(before.keys_that_need_restart(&config(text)), [expected]);
        }
    }

    #[test]
    fn contradictory_values_are_errors() {
        for (text, expected) in [
            (
                "[tracker]\nmin_interval = 1801",
                "t:2: [tracker] min_interval: 1801 is longer than interval (1800); set it to 1800 or less",
            ),
            (
                "[tracker]\ninterval = 299",
                "t:2: [tracker] min_interval: 300 is longer than interval (299); set it to 299 or less",
            ),
            (
                "[tracker]\nmax_numwant = 49",
                "t:2: [tracker] numwant: 50 is more than max_numwant (49); set it to 49 or less",
            ),
            (
                "[http]\nlisten = ['[::1]:80', '[::1]:80', '[::1]:81']",
                "t:2: [http] listen: \"[::1]:80\" is listed twice; remove either",
            ),
            (
                "[http]\nlisten = ['0.0.0.0:80', '[::]:80']",
                "t:2: [http] listen: \"0.0.0.0:80\" and \"[::]:80\" overlap, because a wildcard includes every \
                 address with its port; remove either",
            ),
            (
                "[http]\nlisten = ['127.0.0.1:80']\n[proxy]\nlisten = ['127.0.0.1:81', '[::]:80']",
                "t:4: [proxy] listen: \"127.0.0.1:80\" and \"[::]:80\" overlap, because a wildcard includes every \
                 address with its port; remove either",
            ),
            (
                "[http]\nlisten = ['unix:/a']\n[proxy]\nlisten = ['unix:/a']",
                "t:4: [proxy] listen: \"unix:/a\" is listed twice; remove either",
            ),
            (
                "[http]\nlisten = ['unix:/a']\n[status]\nlisten = ['unix:/a']",
                "t:4: [status] listen: \"unix:/a\" is listed twice; remove either",
            ),
            (
                "[status]\npath = '/scrape'",
                "t:2: [status] path: \"/scrape\" is already a path of the tracker; choose another path",
            ),
            (
                "[metrics]\npath = '/announce'",
                "t:2: [metrics] path: \"/announce\" is already a path of the tracker; choose another path",
            ),
            (
                "[metrics]\npath = '/status.json'",
                "t:2: [metrics] path: \"/status.json\" is already a path of the status page; choose another path",
            ),
            (
                "[udp]\nlisten = ['[::1]:80', '[::]:80']",
                "t:2: [udp] listen: \"[::1]:80\" and \"[::]:80\" overlap, because a wildcard includes every address \
                 with its port; remove either",
            ),
        ] {
            assert_eq!(errors(text), expected, "{text}");
        }
        for text in [
            "[tracker]\nmin_interval = 1800\nnumwant = 200",
            "[http]\nlisten = ['0.0.0.0:80', '[::1]:80', '[::]:81', 'unix:/a', 'unix:/b']",
            "[http]\nlisten = ['[::]:80']\n[proxy]\nlisten = ['[::]:81', 'unix:/a']",
            "[status]\npath = '/a'\n[metrics]\npath = '/a/metrics'",
            "[status]\npath = ''\n[metrics]\npath = '/status.json'",
        ] {
            assert!(load(&[("t", text)]).is_ok(), "{text}");
        }
    }

    #[test]
    fn probably_unintended_values_cause_warnings() {
        const TRACKED: &str = "torrents.directories = ['/srv']\n";
        assert_eq!(warnings(TRACKED), [""; 0]);
        assert_eq!(
            warnings(""),
            [
                "[torrents] directories: no torrent is tracked; list the directories of your .torrent files, or set \
                 open to true"
            ]
        );
        for (text, expected) in [
            (
                "http.listen = []\nudp.listen = []",
                "t:2: [http] listen: no address to listen on, so only sockets passed by the service manager are \
                 served; list an address",
            ),
            (
                "proxy.listen = ['[::1]:80', 'unix:/a']",
                "t:2: [proxy] listen: no proxy is trusted, so all TCP connections to these addresses are closed; \
                 list your proxies in trusted",
            ),
            (
                "tracker.interval = 2700",
                "t:2: [tracker] peer_timeout: 2700 is not longer than interval (2700), so peers are removed before \
                 they announce again; set it well above 2700",
            ),
            (
                "http.max_connections = 511",
                "t:2: [http] max_connections_per_network: 512 has no effect because max_connections is 511; set it \
                 to 511 or less",
            ),
            (
                "torrents.open = true\ntorrents.allow = ['/dev/null']",
                "t:3: [torrents] allow: this list has no effect because open is true; remove either",
            ),
            (
                "torrents.open = true\ntracker.full_scrape = true",
                "t:3: [tracker] full_scrape: anyone can make this response arbitrarily long because [torrents] open \
                 is true; set full_scrape to false",
            ),
        ] {
            assert_eq!(warnings(&format!("{TRACKED}{text}")), [expected]);
        }
        for text in [
            "http.listen = []\nudp.listen = []\nproxy.listen = ['unix:/a']",
            "proxy.listen = ['[::1]:80']\nproxy.trusted = ['::1']",
        ] {
            assert_eq!(warnings(&format!("{TRACKED}{text}")), [""; 0], "{text}");
        }
    }

    #[test]
    fn warnings_follow_changes_by_command_line() {
        let mut loaded = load(&[]).unwrap();
        assert_eq!(loaded.warnings().len(), 1);
        loaded.config.torrents.open = true;
        assert_eq!(loaded.warnings(), []);
    }
}
