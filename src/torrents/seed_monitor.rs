//! Looks now and then whether what is published has seeds, and has the log tell what an operator should know.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::clock::Clock;
use crate::config::Config;
use crate::log;
use crate::torrents::seed_health::{Health, News, Seeds};
use crate::tracker::InfoHash;

use super::sync::Listing;

/// Ten thousand torrents take a few milliseconds.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// How many torrents one look's lines name at most: when the one seed of all goes, that is one event.
const NAMED_AT_ONCE: usize = 10;

/// What is known of the listed torrents' seeds, and how long one may be without.
pub struct Seedwatch {
    health: Arc<Mutex<Health>>,
    patience_secs: AtomicU32,
    clock: Clock,
}

impl Seedwatch {
    pub fn new(config: &Config, health: Arc<Mutex<Health>>, clock: Clock) -> Arc<Self> {
        Arc::new(Self {
            health,
            patience_secs: AtomicU32::new(config.seedless_after()),
            clock,
        })
    }

    /// Takes another patience.
    pub fn set(&self, config: &Config) {
        self.patience_secs
            .store(config.seedless_after(), Ordering::Relaxed);
    }

    /// Of a torrent by the first of its ids; `None` for one that nobody has looked at yet.
    pub fn seeds(&self, id: &InfoHash) -> Option<Seeds> {
        self.health().seeds(id)
    }

    pub async fn look_now_and_then(self: Arc<Self>, listing: Arc<Listing>) {
        loop {
            sleep(LOOK_INTERVAL).await;
            tell(&self.look(&listing), &listing);
        }
    }

    fn look(&self, listing: &Listing) -> Vec<(InfoHash, News)> {
        let seeded = listing.seeded();
        let (now, unix) = (self.clock.now(), self.clock.unix_at(Instant::now()));
        let patience_secs = self.patience_secs.load(Ordering::Relaxed);
        self.health().look(now, unix, patience_secs, seeded)
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn tell(news: &[(InfoHash, News)], listing: &Listing) {
    let (named, unnamed) = news.split_at(news.len().min(NAMED_AT_ONCE));
    for (id, news) in named {
        let name = listing.name(*id).unwrap_or_default();
        let of: log::Fields<'_> = &[("name", &name), ("id", id)];
        match news {
            News::NeverSeeded => log::warning("published without a seed", of),
            News::LostSeeds { times } => {
                log::warning("lost its seeds", &[of, &[("times", times)]].concat());
            }
            News::Seeded => log::notice("has a seed", of),
        }
    }
    let seeded = unnamed.iter().filter(|(_, news)| *news == News::Seeded);
    let seeded = seeded.count();
    let unseeded = unnamed.len() - seeded;
    if unseeded > 0 {
        log::warning("more are without a seed", &[("torrents", &unseeded)]);
    }
    if seeded > 0 {
        log::notice("more have a seed", &[("torrents", &seeded)]);
    }
}
