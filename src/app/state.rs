//! The state across a restart: restored once, saved periodically, when the operator requests it, and at shutdown.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::clock::Clock;
use crate::cluster::threads::Cluster;
use crate::config::loader::LoadedConfig;
use crate::config::schema::Config;
use crate::lock::lock;
use crate::log;
use crate::snapshot::{
    self, LoadError, LoadedSnapshot, SaveError, SavePriority, SavedSnapshot, Secrets, Sections,
};
use crate::torrents::seed_health::SeedHealth;
use crate::tracker::Tracker;

/// The state with which the daemon begins to serve.
pub struct RestoredState {
    pub tracker: Arc<Tracker>,
    pub health: Arc<Mutex<SeedHealth>>,
    pub clock: Clock,
    pub secrets: Secrets,
    /// The checkpoint of the cluster node.
    pub cluster: Vec<u8>,
    /// Time at which the snapshot was written.
    pub saved_at: Option<SystemTime>,
}

/// Returns the state as the last process left it, or a new state with `new_secrets`.
///
/// A snapshot that cannot be used is set aside, and that is logged: serving without it is better than not serving.
pub fn restore(loaded: &LoadedConfig, new_secrets: Secrets) -> RestoredState {
    let make_tracker = |seed| Tracker::new(loaded.tracker_settings(seed), seed);
    let started = Instant::now();
    let found = match &loaded.config.state.directory {
        None => None,
        Some(directory) => load(directory, make_tracker).unwrap_or_else(|error| {
            log::error("cannot restore the state", &[("reason", &error)]);
            None
        }),
    };
    let Some((snapshot, health)) = found else {
        return RestoredState {
            tracker: Arc::new(make_tracker(new_secrets.seed)),
            health: Arc::default(),
            clock: Clock::start(),
            secrets: new_secrets,
            cluster: Vec::new(),
            saved_at: None,
        };
    };
    let totals = snapshot.restored.kept;
    let peers = totals.peers.sum();
    let fields: log::Fields<'_> = &[
        ("torrents", &totals.torrents),
        ("peers", &peers),
        ("age_seconds", &snapshot.age.as_secs()),
    ];
    log::notice("state restored", fields);
    log::debug(
        "snapshot read",
        &[("milliseconds", &started.elapsed().as_millis())],
    );
    RestoredState {
        tracker: Arc::new(snapshot.tracker),
        health: Arc::new(Mutex::new(health)),
        clock: Clock::resume(snapshot.now),
        secrets: snapshot.secrets,
        cluster: snapshot.cluster,
        saved_at: SystemTime::now().checked_sub(snapshot.age),
    }
}

/// Reads the snapshot and converts its section of seed health.
fn load(
    directory: &Path,
    make_tracker: impl FnOnce(u64) -> Tracker,
) -> Result<Option<(LoadedSnapshot, SeedHealth)>, LoadError> {
    let Some(snapshot) = snapshot::load(directory, SystemTime::now(), make_tracker)? else {
        return Ok(None);
    };
    let mut health = SeedHealth::default();
    match health.restore(&snapshot.seed_health) {
        Ok(()) => Ok(Some((snapshot, health))),
        Err(_) => Err(snapshot::reject_section(directory, SystemTime::now())),
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
    /// Locked while a snapshot is written.
    writing: Mutex<()>,
    /// Time of the last snapshot, by this process or the one before.
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
            last: Mutex::new(state.saved_at),
        })
    }

    /// Sets the interval. The directory does not change until a restart.
    pub fn set_interval(&self, config: &Config) {
        self.interval_secs
            .store(config.state.interval, Ordering::Relaxed);
    }

    /// Returns the time of the last snapshot, written by this process or the one before, in seconds since 1970.
    pub fn last_saved(&self) -> Option<u64> {
        let last = *self.last();
        let since = last?.duration_since(UNIX_EPOCH).ok()?;
        Some(since.as_secs())
    }

    /// Returns the interval between snapshots in seconds; `None` if none are written.
    pub fn interval(&self) -> Option<u32> {
        let interval = self.interval_secs.load(Ordering::Relaxed);
        self.directory.as_ref().map(|_| interval)
    }

    fn last(&self) -> MutexGuard<'_, Option<SystemTime>> {
        lock(&self.last)
    }

    /// Writes a snapshot in each interval, until the future is dropped.
    pub async fn run_periodically(self: Arc<Self>) {
        loop {
            sleep(Duration::from_secs(
                self.interval_secs.load(Ordering::Relaxed).into(),
            ))
            .await;
            self.clone().save_in_background().await;
        }
    }

    /// Writes a snapshot in a thread that may wait for the disk.
    pub async fn save_in_background(self: Arc<Self>) {
        // `save` logs its errors, and a panic in it ends the process.
        let _ = spawn_blocking(move || self.save(SavePriority::Background)).await;
    }

    /// Writes a snapshot, if a directory is configured. Logs an error; the previous snapshot is kept then.
    ///
    /// # Errors
    /// When the snapshot could not be written.
    pub fn save(&self, priority: SavePriority) -> Result<Option<SavedSnapshot>, SaveError> {
        let Some(directory) = &self.directory else {
            return Ok(None);
        };
        let _alone = lock(&self.writing);
        let (now, at) = (self.clock.now(), SystemTime::now());
        let seed_health = lock(&self.health).save();
        // The positions in the streams of the other nodes are taken before the tracker is written, and their counters
        // after that. A process that continues from the snapshot then misses none of their updates and counts none
        // twice.
        let cluster = self.cluster.as_ref().map(|cluster| cluster.checkpoint());
        let cluster = || match &cluster {
            Some(finish_checkpoint) => finish_checkpoint(),
            None => self.cluster_checkpoint.clone(),
        };
        let sections = Sections {
            seed_health: &seed_health,
            cluster: Some(&cluster),
        };
        let secrets = &self.secrets;
        match snapshot::save(
            directory,
            &self.tracker,
            sections,
            now,
            at,
            secrets,
            priority,
        ) {
            Ok(saved) => {
                log_saved(&saved);
                *self.last() = Some(at);
                Ok(Some(saved))
            }
            Err(error) => {
                log::error("cannot save the state", &[("reason", &error)]);
                Err(error)
            }
        }
    }
}

fn log_saved(saved: &SavedSnapshot) {
    let peers = saved.totals.peers.sum();
    let fields: log::Fields<'_> = &[
        ("torrents", &saved.totals.torrents),
        ("peers", &peers),
        ("bytes", &saved.bytes),
    ];
    log::info("state saved", fields);
    let fields: log::Fields<'_> = &[
        ("writing_milliseconds", &saved.writing.as_millis()),
        ("syncing_milliseconds", &saved.syncing.as_millis()),
    ];
    log::debug("snapshot written", fields);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tracker::settings::Settings;
    use crate::tracker::types::{InfoHash, Time, UnixTime};

    fn make(seed: u64) -> Tracker {
        Tracker::new(Settings::default(), seed)
    }

    fn save(directory: &Path, seed_health: &[u8]) {
        let sections = Sections {
            seed_health,
            cluster: None,
        };
        let (secrets, at) = (Secrets::generate().unwrap(), SystemTime::now());
        let priority = SavePriority::Shutdown;
        snapshot::save(
            directory,
            &make(1),
            sections,
            Time(0),
            at,
            &secrets,
            priority,
        )
        .unwrap();
    }

    #[test]
    fn restores_seed_health_and_sets_malformed_section_aside() {
        let directory = std::env::temp_dir().join(format!("tbtt-state-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let mut health = SeedHealth::default();
        let ids: Vec<_> = (0..25_000_u32)
            .map(|number| {
                let mut id = InfoHash([0; 20]);
                id.0[..4].copy_from_slice(&number.to_be_bytes());
                id
            })
            .collect();
        health.update(Time(0), UnixTime(7), 1, ids.iter().map(|id| (*id, true)));
        save(&directory, &health.save());
        let (_, restored) = load(&directory, make).unwrap().unwrap();
        for id in &ids {
            assert!(restored.history(id).is_some());
            assert_eq!(restored.history(id), health.history(id));
        }

        save(&directory, b"?");
        let error = load(&directory, make).err().unwrap().to_string();
        assert!(
            error.contains("is damaged: the content of a block is malformed; set aside as "),
            "{error}"
        );
        assert!(load(&directory, make).unwrap().is_none());
        std::fs::remove_dir_all(directory).unwrap();
    }
}
