//! Checks regularly which listed torrents have a seeder, and logs changes.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::sleep;

use crate::clock::Clock;
use crate::lock::lock;
use crate::log;
use crate::torrents::seed_health::{SeedEvent, SeedHealth, SeederHistory};
use crate::torrents::sync::TorrentSync;
use crate::tracker::types::InfoHash;

/// A check of 10,000 torrents takes a few milliseconds.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// Maximum number of torrents per check that get a log line of their own. If the only seeder of many torrents leaves,
/// separate lines would repeat a single event.
const MAX_LINES: usize = 10;

/// The settings of a [`SeedMonitor`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Seconds that a torrent may be without a seeder before it is reported.
    pub threshold_secs: u32,
}

/// Records when listed torrents had seeders, and reports torrents that have been without a seeder for too long.
pub struct SeedMonitor {
    health: Arc<Mutex<SeedHealth>>,
    threshold_secs: AtomicU32,
    clock: Clock,
}

impl SeedMonitor {
    pub fn new(settings: Settings, health: Arc<Mutex<SeedHealth>>, clock: Clock) -> Arc<Self> {
        Arc::new(Self {
            health,
            threshold_secs: AtomicU32::new(settings.threshold_secs),
            clock,
        })
    }

    /// Replaces the settings.
    pub fn set_settings(&self, settings: Settings) {
        self.threshold_secs
            .store(settings.threshold_secs, Ordering::Relaxed);
    }

    /// Returns the seeder history of a torrent by the first of its ids. `None` for a torrent that was not checked yet.
    pub fn history(&self, id: &InfoHash) -> Option<SeederHistory> {
        self.health().history(id)
    }

    /// Checks all torrents every two seconds. Does not return.
    pub async fn run(self: Arc<Self>, torrent_sync: Arc<TorrentSync>) {
        loop {
            sleep(CHECK_INTERVAL).await;
            log_events(&self.update(&torrent_sync), &torrent_sync);
        }
    }

    fn update(&self, torrent_sync: &TorrentSync) -> Vec<(InfoHash, SeedEvent)> {
        let listed = torrent_sync.seeder_states();
        let (now, unix) = (self.clock.now(), self.clock.unix_now());
        let threshold_secs = self.threshold_secs.load(Ordering::Relaxed);
        self.health().update(now, unix, threshold_secs, listed)
    }

    fn health(&self) -> MutexGuard<'_, SeedHealth> {
        lock(&self.health)
    }
}

/// Logs a line for each of the first torrents, and the number of the others.
fn log_events(events: &[(InfoHash, SeedEvent)], torrent_sync: &TorrentSync) {
    let (listed, others) = events.split_at(events.len().min(MAX_LINES));
    for (id, event) in listed {
        let name = torrent_sync.name(*id).unwrap_or_default();
        let torrent: log::Fields<'_> = &[("name", &name), ("id", id)];
        match event {
            SeedEvent::NeverSeeded => log::warning("torrent published without a seeder", torrent),
            SeedEvent::LostLastSeeder { times } => {
                let fields = [torrent, &[("times", times)]].concat();
                log::warning("torrent lost its last seeder", &fields);
            }
            SeedEvent::Seeded => log::notice("torrent has a seeder", torrent),
        }
    }
    let seeded = others
        .iter()
        .filter(|(_, event)| *event == SeedEvent::Seeded)
        .count();
    let unseeded = others.len() - seeded;
    if unseeded > 0 {
        log::warning(
            "more torrents without a seeder (not listed individually)",
            &[("torrents", &unseeded)],
        );
    }
    if seeded > 0 {
        log::notice(
            "more torrents with a seeder (not listed individually)",
            &[("torrents", &seeded)],
        );
    }
}
