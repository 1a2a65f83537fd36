//! Collects the status report, and samples for its history of the last day.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::sleep;

use crate::app::state::StateSaver;
use crate::lock::lock;
use crate::server::Shared;
use crate::server::counters::Counters;
use crate::server::http::connection_limits::ConnectionLimits;
use crate::status::report::{
    History, Release, ReleaseHealth, ReportTotals, SnapshotReport, StatusReport,
};
use crate::torrents::catalog::CatalogEntry;
use crate::torrents::seed_monitor::SeedMonitor;
use crate::torrents::sync::TorrentSync;
use crate::utc::UnixSecs;

/// Rates of announces and refusals are averages over this interval.
const RATE_INTERVAL: Duration = Duration::from_secs(10);

/// Seconds between samples of the history.
const SAMPLE_SECS: u64 = 300;

/// Number of rate intervals between samples.
const RATES_PER_SAMPLE: u64 = SAMPLE_SECS / RATE_INTERVAL.as_secs();

/// Maximum number of samples: a day's, and the sample at its start.
const MAX_SAMPLES: usize = 86_400 / SAMPLE_SECS as usize + 1;

/// Collects the status report from the parts of the daemon.
pub struct StatusCollector {
    shared: Arc<Shared>,
    connections: Arc<ConnectionLimits>,
    torrent_sync: Arc<TorrentSync>,
    seed_monitor: Arc<SeedMonitor>,
    state_saver: Arc<StateSaver>,
    started: UnixSecs,
    last_reload_successful: AtomicBool,
    /// The rate of announces, in thousandths.
    announces_per_second: AtomicU64,
    /// The rate of refusals, in thousandths.
    refusals_per_second: AtomicU64,
    samples: Mutex<Samples>,
}

impl StatusCollector {
    pub fn new(
        shared: &Arc<Shared>,
        connections: &Arc<ConnectionLimits>,
        torrent_sync: &Arc<TorrentSync>,
        seed_monitor: &Arc<SeedMonitor>,
        state_saver: &Arc<StateSaver>,
    ) -> Arc<Self> {
        let collector = Self {
            shared: shared.clone(),
            connections: connections.clone(),
            torrent_sync: torrent_sync.clone(),
            seed_monitor: seed_monitor.clone(),
            state_saver: state_saver.clone(),
            started: shared.clock.unix_now().0,
            last_reload_successful: AtomicBool::new(true),
            announces_per_second: AtomicU64::new(0),
            refusals_per_second: AtomicU64::new(0),
            samples: Mutex::default(),
        };
        collector.samples().push(collector.sample());
        Arc::new(collector)
    }

    /// Records whether a reload applied the configuration.
    pub fn record_reload(&self, successful: bool) {
        self.last_reload_successful
            .store(successful, Ordering::Relaxed);
    }

    /// Takes a report. This reads every listed torrent, and for a hybrid torrent every peer: some milliseconds for ten
    /// thousand torrents. Do not call it in a thread that serves clients.
    pub fn report(&self) -> StatusReport {
        let Shared {
            counters,
            tracker,
            clock,
            ..
        } = &*self.shared;
        let now = clock.unix_now().0;
        let (totals, seeders) = (tracker.totals(), tracker.seeders());
        let mut releases: Vec<_> = self
            .torrent_sync
            .entries()
            .iter()
            .map(|entry| self.release(entry, now))
            .collect();
        releases.sort_by_cached_key(|release| release.name.to_lowercase());
        StatusReport {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: self.started,
            now,
            last_reload_successful: self.last_reload_successful.load(Ordering::Relaxed),
            totals: ReportTotals {
                torrents: totals.torrents as u64,
                peers_ipv4: totals.peers.v4 as u64,
                peers_ipv6: totals.peers.v6 as u64,
                seeders: seeders.sum() as u64,
                // The two counts are not taken at the same moment, so there may be more seeders than peers.
                leechers: totals.peers.sum().saturating_sub(seeders.sum()) as u64,
                seeders_ipv4: seeders.v4 as u64,
                seeders_ipv6: seeders.v6 as u64,
                connections: self.connections.total() as u64,
            },
            announces_per_second: self.announces_per_second.load(Ordering::Relaxed) as f64 / 1e3,
            refusals_per_second: self.refusals_per_second.load(Ordering::Relaxed) as f64 / 1e3,
            counters: counters_by_name(counters),
            request_duration: [
                ("http", &counters.http_request_duration),
                ("udp", &counters.udp_request_duration),
            ]
            .map(|(protocol, histogram)| (protocol.to_owned(), histogram.into()))
            .into(),
            snapshot: SnapshotReport {
                last: self.state_saver.last_saved(),
                interval: self.state_saver.interval(),
            },
            history: self.samples().history(self.sample()),
            cluster: (self.state_saver.cluster.as_ref()).map(|cluster| cluster.report()),
            releases,
        }
    }

    fn release(&self, entry: &CatalogEntry, now: UnixSecs) -> Release {
        let torrent = &entry.torrent;
        let tracker = &self.shared.tracker;
        let counts = match (torrent.v1, torrent.v2) {
            (Some(_), Some(_)) => tracker.counts_together(torrent.ids()),
            _ => torrent
                .ids()
                .find_map(|id| tracker.scrape(&id))
                .unwrap_or_default(),
        };
        let listed_secs = self.shared.clock.now().0.saturating_sub(entry.added.0);
        let added = now.saturating_sub(listed_secs.into());
        let seeds = torrent
            .ids()
            .next()
            .and_then(|id| self.seed_monitor.history(&id));
        let last_seed = match counts.complete {
            0 => seeds.and_then(|seeds| seeds.last_seen).map(|last| last.0),
            _ => Some(now),
        };
        Release {
            name: torrent.name.clone(),
            size: torrent.size,
            v1: torrent.v1.map(|v1| v1.to_string()),
            v2: torrent.v2.map(|v2| v2.to_string()),
            seeders: counts.complete,
            leechers: counts.incomplete,
            downloads: counts.downloaded,
            listed_since: seeds.map_or(added, |seeds| seeds.listed_since.0),
            // A seeder that the monitor has not seen yet does not count here.
            first_seed: seeds
                .and_then(|seeds| seeds.first_seen)
                .map(|first| first.0),
            last_seed,
            health: ReleaseHealth::new(counts.complete, last_seed),
            overdue: counts.complete == 0 && seeds.is_some_and(|seeds| seeds.overdue),
            file: entry.files.first().cloned(),
        }
    }

    fn sample(&self) -> Sample {
        let totals = self.shared.tracker.totals();
        Sample {
            at: self.shared.clock.unix_now().0,
            peers_ipv4: totals.peers.v4 as u64,
            peers_ipv6: totals.peers.v6 as u64,
            announces: self.shared.counters.announces(),
        }
    }

    fn samples(&self) -> MutexGuard<'_, Samples> {
        lock(&self.samples)
    }

    /// Updates the rates and takes samples, until the future is dropped.
    pub async fn run(self: Arc<Self>) {
        let counters = &self.shared.counters;
        let rate = |before, now: u64| (now - before) * 1000 / RATE_INTERVAL.as_secs();
        let (mut announces_before, mut refusals_before) =
            (counters.announces(), counters.refusals());
        for round in 1.. {
            sleep(RATE_INTERVAL).await;
            let (announces, refusals) = (counters.announces(), counters.refusals());
            self.announces_per_second
                .store(rate(announces_before, announces), Ordering::Relaxed);
            self.refusals_per_second
                .store(rate(refusals_before, refusals), Ordering::Relaxed);
            (announces_before, refusals_before) = (announces, refusals);
            if round % RATES_PER_SAMPLE == 0 {
                self.samples().push(self.sample());
            }
        }
    }
}

fn counters_by_name(counters: &Counters) -> BTreeMap<String, u64> {
    let counters = counters.all().into_iter();
    counters
        .map(|(name, count)| (name.to_owned(), count))
        .collect()
}

/// The numbers of the tracker at a moment, for the history.
#[derive(Clone, Copy)]
struct Sample {
    at: UnixSecs,
    peers_ipv4: u64,
    peers_ipv6: u64,
    /// Announces since the start of the process.
    announces: u64,
}

/// The samples of the last day, oldest first.
#[derive(Default)]
struct Samples(VecDeque<Sample>);

impl Samples {
    fn push(&mut self, sample: Sample) {
        if self.0.len() == MAX_SAMPLES {
            self.0.pop_front();
        }
        self.0.push_back(sample);
    }

    /// Returns the history: the samples, followed by `now`.
    fn history(&self, now: Sample) -> History {
        let all: Vec<_> = self.0.iter().chain([&now]).collect();
        // The first sample only starts the first interval: without a sample before it, it has no rate.
        let rate = |pair: &[&Sample]| {
            let seconds = pair[1].at.saturating_sub(pair[0].at).max(1);
            (pair[1].announces - pair[0].announces) as f64 / seconds as f64
        };
        let later = &all[1..];
        History {
            interval: SAMPLE_SECS,
            last: now.at,
            peers_ipv4: later.iter().map(|sample| sample.peers_ipv4).collect(),
            peers_ipv6: later.iter().map(|sample| sample.peers_ipv6).collect(),
            announces_per_second: all.windows(2).map(rate).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(number: u64) -> Sample {
        Sample {
            at: number * SAMPLE_SECS,
            peers_ipv4: number,
            peers_ipv6: 2 * number,
            announces: number * number * SAMPLE_SECS,
        }
    }

    #[test]
    fn history_starts_with_the_process() {
        let mut samples = Samples::default();
        samples.push(sample(0));
        samples.push(sample(1));
        let mut now = sample(1);
        now.at += 10;
        now.announces += 25;
        let history = samples.history(now);
        assert_eq!(history.peers_ipv4, [1, 1]);
        assert_eq!(history.peers_ipv6, [2, 2]);
        assert_eq!(history.announces_per_second, [1.0, 2.5]);
        assert_eq!(history.last, 310);
    }

    #[test]
    fn history_holds_one_day() {
        let mut samples = Samples::default();
        (0..1000).for_each(|number| samples.push(sample(number)));
        assert_eq!(samples.0.len(), MAX_SAMPLES);
        let history = samples.history(sample(1000));
        assert_eq!(history.peers_ipv4.len(), MAX_SAMPLES);
        assert_eq!(history.peers_ipv4[0], 1000 - 288);
        assert_eq!(history.announces_per_second.len(), MAX_SAMPLES);
        assert_eq!(history.announces_per_second[288], 999.0 + 1000.0);
    }
}
