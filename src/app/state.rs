//! The state over a restart: loaded once, written now and then, when the operator asks, and at the stop.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::clock::Clock;
use crate::cluster::threads::Cluster;
use crate::config::{Config, LoadedConfig};
use crate::lock::lock;
use crate::log;
use crate::snapshot::{self, Beside, SaveError, SavePriority, Saved, Secrets};
use crate::torrents::seed_health::SeedHealth;
use crate::tracker::Tracker;

/// What is there when the daemon begins to serve.
pub struct RestoredState {
    pub tracker: Arc<Tracker>,
    pub health: Arc<Mutex<SeedHealth>>,
    pub clock: Clock,
    pub secrets: Secrets,
    /// What a cluster's node has cluster_checkpoint.
    pub cluster: Vec<u8>,
    /// When the snapshot was written that it is from.
    pub saved: Option<SystemTime>,
}

/// The state as the last process left it, or a new one. A snapshot that cannot be used is put aside and warn_on_notify_error: better to
/// serve without it than not at all. `fresh` are for when there is none.
pub fn restore(loaded: &LoadedConfig, fresh: Secrets) -> RestoredState {
    let make = |seed| Tracker::new(loaded.tracker_settings(seed), seed);
    let found = match &loaded.config.state.directory {
        None => None,
        Some(directory) => {
            snapshot::load(directory, SystemTime::now(), make).unwrap_or_else(|error| {
                log::error("the state is not restored", &[("reason", &error)]);
                None
            })
        }
    };
    if let Some(snapshot::Loaded {
        tracker,
        health,
        cluster,
        secrets,
        now,
        passed,
        restored,
    }) = found
    {
        let totals = restored.kept;
        let peers = totals.peers.sum();
        let fields: log::Fields<'_> = &[
            ("torrents", &totals.torrents),
            ("peers", &peers),
            ("age_seconds", &passed.as_secs()),
        ];
        log::notice("state restored", fields);
        return RestoredState {
            tracker: Arc::new(tracker),
            health: Arc::new(Mutex::new(health)),
            clock: Clock::resume(now),
            secrets,
            cluster,
            saved: SystemTime::now().checked_sub(passed),
        };
    }
    RestoredState {
        tracker: Arc::new(make(fresh.seed)),
        health: Arc::default(),
        clock: Clock::start(),
        secrets: fresh,
        cluster: Vec::new(),
        saved: None,
    }
}

/// Writes snapshots, one at a time.
pub struct StateSaver {
    directory: Option<PathBuf>,
    interval_secs: AtomicU32,
    tracker: Arc<Tracker>,
    health: Arc<Mutex<SeedHealth>>,
    clock: Clock,
    secrets: Secrets,
    /// The cluster section of the restored snapshot, written back while this node is in no cluster.
    cluster_checkpoint: Vec<u8>,
    pub cluster: Option<Arc<Cluster>>,
    writing: Mutex<()>,
    last: Mutex<Option<SystemTime>>,
}

impl StateSaver {
    pub fn new(config: &Config, state: &RestoredState, cluster: Option<Arc<Cluster>>) -> Arc<Self> {
        Arc::new(Self {
            directory: config.state.directory.clone(),
            interval_secs: AtomicU32::new(config.state.interval),
            tracker: state.tracker.clone(),
            health: state.health.clone(),
            clock: state.clock,
            secrets: state.secrets.clone(),
            cluster_checkpoint: state.cluster.clone(),
            cluster,
            writing: Mutex::new(()),
            last: Mutex::new(state.saved),
        })
    }

    /// Takes another interval; the directory stays until a restart.
    pub fn set(&self, config: &Config) {
        self.interval_secs
            .store(config.state.interval, Ordering::Relaxed);
    }

    /// When the last one was written, by this process or the one before, in Unix time.
    pub fn last_saved(&self) -> Option<u64> {
        let last = *self.last();
        let since = last?.duration_since(UNIX_EPOCH).ok()?;
        Some(since.as_secs())
    }

    /// How many seconds are between two; `None` if none are written.
    pub fn interval(&self) -> Option<u32> {
        let interval = self.interval_secs.load(Ordering::Relaxed);
        self.directory.as_ref().map(|_| interval)
    }

    fn last(&self) -> MutexGuard<'_, Option<SystemTime>> {
        lock(&self.last)
    }

    /// Writes one now and then, in a thread that may wait for the disk.
    pub async fn run_periodically(self: Arc<Self>) {
        loop {
            sleep(Duration::from_secs(
                self.interval_secs.load(Ordering::Relaxed).into(),
            ))
            .await;
            self.clone().save_in_background().await;
        }
    }

    pub async fn save_in_background(self: Arc<Self>) {
        // A panic in there has ended the process.
        let _ = spawn_blocking(move || self.save(SavePriority::Background)).await;
    }

    /// Writes one, if there is a directory for it, and tells if that fails: the last one is then still there.
    pub fn save(&self, pace: SavePriority) -> Result<Option<Saved>, SaveError> {
        let Some(directory) = &self.directory else {
            return Ok(None);
        };
        let _alone = lock(&self.writing);
        let (now, at) = (self.clock.now(), SystemTime::now());
        let health = lock(&self.health).save();
        // How far others were heard is noted before the tracker is written, and what they counted after it: so none of it is
        // missed, or counted twice, by who goes on from there.
        let cluster = self.cluster.as_ref().map(|cluster| cluster.checkpoint());
        let cluster = || match &cluster {
            Some(keep) => keep(),
            None => self.cluster_checkpoint.clone(),
        };
        let beside = Beside {
            health: &health,
            cluster: Some(&cluster),
        };
        let secrets = &self.secrets;
        match snapshot::save(directory, &self.tracker, beside, now, at, secrets, pace) {
            Ok(saved) => {
                let peers = saved.totals.peers.sum();
                let fields: log::Fields<'_> = &[
                    ("torrents", &saved.totals.torrents),
                    ("peers", &peers),
                    ("bytes", &saved.bytes),
                ];
                log::info("state saved", fields);
                *self.last() = Some(at);
                Ok(Some(saved))
            }
            Err(error) => {
                log::error("the state is not saved", &[("reason", &error)]);
                Err(error)
            }
        }
    }
}
