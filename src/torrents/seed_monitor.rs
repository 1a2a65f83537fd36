//! Looks now and then whether what is published has seeds, and has the log tell what an operator should know.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::clock::Clock;
use crate::config::Config;
use crate::lock::lock;
use crate::log;
use crate::torrents::seed_health::{SeedEvent, SeedHealth, Seeds};
use crate::tracker::InfoHash;

use super::sync::TorrentSync;

/// Ten thousand torrents take a few milliseconds.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// How many torrents one update's lines name at most: when the one seed of all goes, that is one event.
const NAMED_AT_ONCE: usize = 10;

/// What is known of the listed torrents' seeds, and how long one may be without.
pub struct SeedMonitor {
    health: Arc<Mutex<SeedHealth>>,
    patience_secs: AtomicU32,
    clock: Clock,
}

impl SeedMonitor {
    pub fn new(config: &Config, health: Arc<Mutex<SeedHealth>>, clock: Clock) -> Arc<Self> {
        Arc::new(Self {
            health,
            patience_secs: AtomicU32::new(config.seedless_after()),
            clock,
        })
    }

    /// Takes another threshold.
    pub fn set(&self, config: &Config) {
        self.patience_secs
            .store(config.seedless_after(), Ordering::Relaxed);
    }

    /// Of a torrent by the first of its ids; `None` for one that nobody has looked at yet.
    pub fn seeds(&self, id: &InfoHash) -> Option<Seeds> {
        self.health().seeds(id)
    }

    pub async fn run(self: Arc<Self>, torrent_sync: Arc<TorrentSync>) {
        loop {
            sleep(LOOK_INTERVAL).await;
            tell(&self.update(&torrent_sync), &torrent_sync);
        }
    }

    fn update(&self, torrent_sync: &TorrentSync) -> Vec<(InfoHash, SeedEvent)> {
        let seeded = torrent_sync.seeded();
        let (now, unix) = (self.clock.now(), self.clock.unix_at(Instant::now()));
        let patience_secs = self.patience_secs.load(Ordering::Relaxed);
        self.health().update(now, unix, patience_secs, seeded)
    }

    fn health(&self) -> MutexGuard<'_, SeedHealth> {
        lock(&self.health)
    }
}

fn tell(news: &[(InfoHash, SeedEvent)], torrent_sync: &TorrentSync) {
    let (named, unnamed) = news.split_at(news.len().min(NAMED_AT_ONCE));
    for (id, news) in named {
        let name = torrent_sync.name(*id).unwrap_or_default();
        let of: log::Fields<'_> = &[("name", &name), ("id", id)];
        match news {
            SeedEvent::NeverSeeded => log::warning("published without a seed", of),
            SeedEvent::LostSeeds { times } => {
                log::warning("lost its seeds", &[of, &[("times", times)]].concat());
            }
            SeedEvent::Seeded => log::notice("has a seed", of),
        }
    }
    let seeded = unnamed
        .iter()
        .filter(|(_, news)| *news == SeedEvent::Seeded);
    let seeded = seeded.count();
    let unseeded = unnamed.len() - seeded;
    if unseeded > 0 {
        log::warning("more are without a seed", &[("torrents", &unseeded)]);
    }
    if seeded > 0 {
        log::notice("more have a seed", &[("torrents", &seeded)]);
    }
}
