//! Takes the figures that operators are shown, and remembers those of the last day.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::clock::Clock;
use crate::lock::lock;
use crate::server::Shared;
use crate::server::counters::Counters;
use crate::server::http::connection_limits::ConnectionLimits;
use crate::status::report::{Health, History, Release, Snapshot, StatusReport, Totals, Unix};
use crate::torrents::catalog::CatalogEntry;

use crate::app::state::StateSaver;
use crate::torrents::seed_monitor::SeedMonitor;
use crate::torrents::sync::TorrentSync;

/// How often announces are counted for their rate.
const RATE_INTERVAL: Duration = Duration::from_secs(10);

/// How many seconds, and how many rates, are between two samples of the history.
const SAMPLE_SECS: u64 = 300;
const RATES_IN_SAMPLE: u64 = SAMPLE_SECS / RATE_INTERVAL.as_secs();

/// A day, and the moment at which it began.
const SAMPLES: usize = 86_400 / SAMPLE_SECS as usize + 1;

/// Whom to ask for each figure.
pub struct StatusCollector {
    shared: Arc<Shared>,
    connections: Arc<ConnectionLimits>,
    torrent_sync: Arc<TorrentSync>,
    seed_monitor: Arc<SeedMonitor>,
    state_saver: Arc<StateSaver>,
    started: Unix,
    configuration_good: AtomicBool,
    /// In thousandths.
    announces_per_second: AtomicU64,
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
        let status_collector = Self {
            shared: shared.clone(),
            connections: connections.clone(),
            torrent_sync: torrent_sync.clone(),
            seed_monitor: seed_monitor.clone(),
            state_saver: state_saver.clone(),
            started: unix(shared.clock),
            configuration_good: AtomicBool::new(true),
            announces_per_second: AtomicU64::new(0),
            refusals_per_second: AtomicU64::new(0),
            samples: Mutex::default(),
        };
        status_collector.samples().note(status_collector.sample());
        Arc::new(status_collector)
    }

    /// Whether the configuration that a reload found was taken over.
    pub fn note_reload(&self, good: bool) {
        self.configuration_good.store(good, Ordering::Relaxed);
    }

    /// Takes them all. Looks at every listed torrent, of a hybrid at every peer: ten thousand take some milliseconds, so it is
    /// nothing for a thread that serves.
    pub fn figures(&self) -> StatusReport {
        let Shared {
            counters,
            tracker,
            clock,
            ..
        } = &*self.shared;
        let now = unix(*clock);
        let (totals, [seeders_v4, seeders_v6]) = (tracker.totals(), tracker.seeders());
        let (peers, seeders) = (totals.peers_v4 + totals.peers_v6, seeders_v4 + seeders_v6);
        let mut releases: Vec<_> = self
            .torrent_sync
            .rows()
            .iter()
            .map(|row| self.release(row, now))
            .collect();
        releases.sort_by_cached_key(|release| release.name.to_lowercase());
        StatusReport {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: self.started,
            now,
            configuration_good: self.configuration_good.load(Ordering::Relaxed),
            totals: Totals {
                torrents: totals.torrents as u64,
                peers_ipv4: totals.peers_v4 as u64,
                peers_ipv6: totals.peers_v6 as u64,
                seeders: seeders as u64,
                // Some may have come or gone between the two looks.
                leechers: peers.saturating_sub(seeders) as u64,
                seeders_ipv4: seeders_v4 as u64,
                seeders_ipv6: seeders_v6 as u64,
                connections: self.connections.total() as u64,
            },
            announces_per_second: self.announces_per_second.load(Ordering::Relaxed) as f64 / 1e3,
            refusals_per_second: self.refusals_per_second.load(Ordering::Relaxed) as f64 / 1e3,
            counters: named(counters),
            handling: [
                ("http", &counters.http_handling),
                ("udp", &counters.udp_handling),
            ]
            .map(|(protocol, handling)| (protocol.to_owned(), handling.into()))
            .into(),
            snapshot: Snapshot {
                last: self.state_saver.last_saved(),
                interval: self.state_saver.interval(),
            },
            history: self.samples().history(self.sample()),
            cluster: (self.state_saver.cluster.as_ref()).map(|cluster| cluster.report()),
            releases,
        }
    }

    fn release(&self, row: &CatalogEntry, now: Unix) -> Release {
        let torrent = &row.torrent;
        let tracker = &self.shared.tracker;
        let counts = match (torrent.v1, torrent.v2) {
            (Some(_), Some(_)) => tracker.counts_together(torrent.ids()),
            _ => torrent
                .ids()
                .find_map(|id| tracker.scrape(&id))
                .unwrap_or_default(),
        };
        let listed_secs = self.shared.clock.now().0.saturating_sub(row.added.0);
        let added = now.saturating_sub(listed_secs.into());
        let seeds = torrent
            .ids()
            .next()
            .and_then(|id| self.seed_monitor.seeds(&id));
        let last_seed = match counts.complete {
            0 => seeds.and_then(|seeds| seeds.last).map(|last| last.0),
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
            // A seed counts once the watch has seen it.
            first_seed: seeds.and_then(|seeds| seeds.first).map(|first| first.0),
            last_seed,
            health: Health::of(counts.complete, last_seed),
            overdue: counts.complete == 0 && seeds.is_some_and(|seeds| seeds.overdue),
            file: row.files.first().cloned(),
        }
    }

    fn sample(&self) -> Sample {
        let totals = self.shared.tracker.totals();
        Sample {
            at: unix(self.shared.clock),
            peers_ipv4: totals.peers_v4 as u64,
            peers_ipv6: totals.peers_v6 as u64,
            announces: self.shared.counters.announces(),
        }
    }

    fn samples(&self) -> MutexGuard<'_, Samples> {
        lock(&self.samples)
    }

    pub async fn run(self: Arc<Self>) {
        let counters = &self.shared.counters;
        let rate = |before, now: u64| (now - before) * 1000 / RATE_INTERVAL.as_secs();
        let (mut before, mut refused_before) = (counters.announces(), counters.refusals());
        for turn in 1.. {
            sleep(RATE_INTERVAL).await;
            let (announces, refused) = (counters.announces(), counters.refusals());
            self.announces_per_second
                .store(rate(before, announces), Ordering::Relaxed);
            self.refusals_per_second
                .store(rate(refused_before, refused), Ordering::Relaxed);
            (before, refused_before) = (announces, refused);
            if turn % RATES_IN_SAMPLE == 0 {
                self.samples().note(self.sample());
            }
        }
    }
}

fn unix(clock: Clock) -> Unix {
    clock.unix_at(Instant::now()).0
}

fn named(counters: &Counters) -> BTreeMap<String, u64> {
    let counters = counters.all().into_iter();
    counters
        .map(|(name, count)| (name.to_owned(), count))
        .collect()
}

#[derive(Clone, Copy)]
struct Sample {
    at: Unix,
    peers_ipv4: u64,
    peers_ipv6: u64,
    /// Since the start.
    announces: u64,
}

/// The last day's, oldest first.
#[derive(Default)]
struct Samples(VecDeque<Sample>);

impl Samples {
    fn note(&mut self, sample: Sample) {
        if self.0.len() == SAMPLES {
            self.0.pop_front();
        }
        self.0.push_back(sample);
    }

    /// What they are with the one of now behind them.
    fn history(&self, now: Sample) -> History {
        let all: Vec<_> = self.0.iter().chain([&now]).collect();
        // The first has none before it to say since when its announces came.
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
    fn the_history_begins_with_the_start() {
        let mut samples = Samples::default();
        samples.note(sample(0));
        samples.note(sample(1));
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
    fn the_history_holds_one_day() {
        let mut samples = Samples::default();
        (0..1000).for_each(|number| samples.note(sample(number)));
        assert_eq!(samples.0.len(), SAMPLES);
        let history = samples.history(sample(1000));
        assert_eq!(history.peers_ipv4.len(), SAMPLES);
        assert_eq!(history.peers_ipv4[0], 1000 - 288);
        assert_eq!(history.announces_per_second.len(), SAMPLES);
        assert_eq!(history.announces_per_second[288], 999.0 + 1000.0);
    }
}
