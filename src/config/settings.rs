//! Each part's own settings.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::loader::Loaded;
use super::schema::{Cluster, Config, Http};
use crate::cluster;
use crate::log;
use crate::os::privileges;
use crate::protocol::http::{self as protocol, Paths};
use crate::protocol::udp;
use crate::server::http::forwarded::{self as proxy, ForwardingHeader};
use crate::server::http::handler as http;
use crate::status::endpoint as views;
use crate::tracker::rate_limit::{self, Rate, RateLimiter};
use crate::tracker::{self, HostKey};

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
            torrents: status.torrents,
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

impl Config {
    /// `None` for a tracker that stands alone.
    pub fn cluster_settings(&self) -> Option<cluster::Settings> {
        let Cluster {
            url,
            name,
            user,
            password_file,
            ca_file,
            queue,
        } = &self.cluster;
        Some(cluster::Settings {
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
}

#[cfg(test)]
mod tests {
    use super::super::test_support::read;
    use super::*;
    use crate::tracker::Time;

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
}
