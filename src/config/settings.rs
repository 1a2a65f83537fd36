//! Settings of the other modules, made from the configuration.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::loader::LoadedConfig;
use super::schema::{ClusterSection, Config, HttpSection};
use crate::cluster;
use crate::log;
use crate::os::privileges;
use crate::protocol::http as protocol;
use crate::protocol::http::request::Paths;
use crate::protocol::udp;
use crate::server::http::forwarded::{self as proxy, ForwardingHeader};
use crate::server::http::settings as http;
use crate::status::endpoint as status_endpoint;
use crate::tracker::rate_limit::{self, Rate, RateLimiter};
use crate::tracker::settings::{self as tracker, HostKey};

impl LoadedConfig {
    /// Returns the settings of the log.
    pub fn log_settings(&self) -> log::Settings {
        log::Settings {
            target: self.config.log.target,
            level: self.config.log.level,
            facility: self.config.log.facility,
            addresses: self.config.log.addresses,
            ..log::Settings::default()
        }
    }

    /// Returns the settings of the tracker.
    ///
    /// `seed` seeds the hashes of the rate limiters. The rate limiters are new, so all their buckets are full.
    pub fn tracker_settings(&self, seed: u64) -> tracker::Settings {
        let Config {
            tracker,
            torrents,
            limits,
            cluster,
            ..
        } = &self.config;
        let rate_limiter = |per_minute, burst| self.rate_limiter(per_minute, burst, seed);
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
                rate_limiter: rate_limiter(limits.announces, limits.announces_burst),
            },
            scrapes: tracker::AccessPolicy {
                access: self.lists.scrape.clone(),
                rate_limiter: rate_limiter(limits.scrapes, limits.scrapes_burst),
            },
            local_networks: self.lists.local_networks.clone(),
            // The catalog sets these, because it knows which info-hashes belong to one torrent.
            notices: HashMap::new(),
            host_key: (cluster.url.as_ref()).map(|_| HostKey::new(&cluster.name)),
        }
    }

    /// Returns the settings of the HTTP server. `seed` seeds the hash of the rate limiter for connections.
    pub fn http_settings(&self, seed: u64) -> http::Settings {
        let Config {
            http,
            tracker,
            limits,
            proxy,
            ..
        } = &self.config;
        http::Settings {
            paths: Paths::new(&http.announce_path).expect("AnnouncePath has checked it"),
            protocol: protocol::Settings {
                max_scrape: tracker.max_scrape as usize,
                full_scrape: tracker.full_scrape,
                trust_ip_params_from: self.lists.trust_ip_params_from.clone(),
            },
            header_timeout: Duration::from_secs(http.header_timeout.into()),
            idle_timeout: Duration::from_secs(http.idle_timeout.into()),
            max_connections: http.max_connections_within(privileges::open_files()),
            max_connections_per_network: http.max_connections_per_network,
            proxies: proxy::Settings {
                trusted: self.lists.trusted.clone(),
                header: match proxy.header.as_str() {
                    "forwarded" => ForwardingHeader::Forwarded,
                    _ => ForwardingHeader::XForwardedFor,
                },
            },
            connection_rate: self.rate_limiter(limits.connections, limits.connections_burst, seed),
            status: Arc::new(self.status_settings()),
        }
    }

    /// Returns the settings of the status page and the metrics.
    fn status_settings(&self) -> status_endpoint::Settings {
        let Config {
            status, metrics, ..
        } = &self.config;
        status_endpoint::Settings {
            status_path: status.path.clone(),
            status_access: self.lists.status.clone(),
            serve_torrents: status.serve_torrents,
            announce_urls: status.announce_urls.clone(),
            metrics_path: metrics.path.clone(),
            metrics_access: self.lists.metrics.clone(),
            per_torrent: metrics.per_torrent,
        }
    }

    /// Returns the settings of the UDP protocol.
    pub fn udp_settings(&self) -> udp::Settings {
        udp::Settings {
            trust_ip_params_from: self.lists.trust_ip_params_from.clone(),
            connection_lifetime: self.config.udp.connection_lifetime,
            invalid_connection_ids: self.config.udp.invalid_connection_ids,
            max_payload: self.config.udp.max_payload as usize,
        }
    }

    /// Returns a rate limiter, or `None` if `per_minute` is 0, which means no limit.
    fn rate_limiter(&self, per_minute: u32, burst: u32, seed: u64) -> Option<Arc<RateLimiter>> {
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
            table_entries: self.config.limits.table_entries as usize,
        };
        Some(Arc::new(RateLimiter::new(
            settings,
            [seed, u64::from(per_minute)],
        )))
    }
}

/// Number of open files that are reserved for uses other than connections: sockets, directories, the snapshot and the
/// configuration.
pub const RESERVED_FILES: u64 = 64;

impl HttpSection {
    /// Returns the maximum number of connections that the limit on open files allows, which is at least 1.
    ///
    /// Connections must not use up the files that a snapshot or a reload needs.
    fn max_connections_within(&self, open_files: Option<u64>) -> usize {
        let wanted = self.max_connections as usize;
        let room = open_files.map(|files| files.saturating_sub(RESERVED_FILES).max(1));
        room.map_or(wanted, |room| {
            wanted.min(usize::try_from(room).unwrap_or(usize::MAX))
        })
    }
}

impl Config {
    /// Returns the settings of the cluster, or `None` if the tracker is not in a cluster.
    pub fn cluster_settings(&self) -> Option<cluster::settings::Settings> {
        let ClusterSection {
            url,
            name,
            user,
            password_file,
            ca_file,
            queue,
        } = &self.cluster;
        Some(cluster::settings::Settings {
            url: url.clone()?,
            name: name.clone(),
            user: user.clone(),
            password_file: password_file.clone(),
            ca_file: ca_file.clone(),
            peer_timeout: Duration::from_secs(self.tracker.peer_timeout.into()),
            queue_capacity: *queue as usize,
        })
    }

    /// Returns the number of seconds that a listed torrent may be without a seeder before it is reported.
    pub fn seedless_after(&self) -> u32 {
        match self.torrents.seedless_after {
            0 => self.tracker.interval,
            secs => secs,
        }
    }

    /// Returns the number of threads that serve clients.
    pub fn worker_count(&self) -> usize {
        match self.tracker.workers {
            0 => thread::available_parallelism().map_or(1, usize::from),
            workers => workers as usize,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_support::load;
    use super::*;
    use crate::tracker::types::Time;

    #[test]
    fn open_file_limit_caps_connections() {
        let http = HttpSection::default();
        for (open_files, expected) in [
            (None, 16384),
            (Some(1 << 20), 16384),
            (Some(16384 + RESERVED_FILES), 16384),
            (Some(16383 + RESERVED_FILES), 16383),
            (Some(RESERVED_FILES), 1),
            (Some(0), 1),
        ] {
            let connections = http.max_connections_within(open_files);
            assert_eq!(connections, expected, "{open_files:?}");
        }
    }

    #[test]
    fn configured_networks_replace_default() {
        let default = load(&[]).unwrap();
        let custom = load(&[(
            "t",
            "[access]\nlocal_networks = ['192.0.2.0/24']\n[limits]\nexempt = []",
        )])
        .unwrap();
        let is_local = |loaded: &LoadedConfig, address: &str| {
            let networks = &loaded.lists.local_networks;
            networks.index_of(address.parse().unwrap()).is_some()
        };
        assert!(!is_local(&default, "192.0.2.1") && is_local(&default, "fe80::1"));
        assert!(is_local(&custom, "192.0.2.1") && !is_local(&custom, "fe80::1"));
        let loopback = "127.0.0.1".parse().unwrap();
        assert!(default.lists.exempt.contains(loopback) && !custom.lists.exempt.contains(loopback));
    }

    #[test]
    fn zero_disables_rate_limit() {
        let text = "[limits]\nannounces = 0\nscrapes = 1\nscrapes_burst = 1\nexempt = []";
        let settings = load(&[("t", text)]).unwrap().tracker_settings(7);
        assert!(settings.announces.rate_limiter.is_none());
        assert!(settings.scrapes.rate_limiter.is_some());
    }

    #[test]
    fn wider_ipv6_networks_have_higher_limits() {
        let text = "[limits]\nscrapes = 1\nscrapes_burst = 1\nexempt = []";
        let settings = load(&[("t", text)]).unwrap().tracker_settings(7);
        let scrapes = settings.scrapes.rate_limiter.unwrap();
        let take = |address: &str| scrapes.take(Time(0), address.parse().unwrap()).is_ok();
        assert!(take("192.0.2.1") && !take("192.0.2.1") && take("192.0.2.2"));
        // A /56 has four times the limit of a /64.
        for net in 0..4 {
            assert!(take(&format!("2001:db8:0:{net}::1")));
            assert!(!take(&format!("2001:db8:0:{net}::2")));
        }
        assert!(!take("2001:db8:0:4::1"));
        // A /48 has sixteen times the limit. Four of these tokens are used already.
        for net in 1..=12 {
            assert!(take(&format!("2001:db8:0:{:x}::1", net << 8)), "{net}");
        }
        assert!(!take("2001:db8:0:ff00::1") && take("2001:db8:1::1"));
    }
}
