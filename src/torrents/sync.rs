//! From what the torrent directories and the operator's lists say to what the tracker serves.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, mpsc};
use std::time::Duration;

use crate::clock::Clock;
use crate::config::{Config, Lists};
use crate::lock::lock;
use crate::log;
use crate::torrents::catalog::{AdmissionChange, Catalog, CatalogEntry};
use crate::torrents::watcher::{self, TorrentWatcher, WatchEvent};
use crate::tracker::types::Torrent;
use crate::tracker::{Admission, InfoHash, Tracker};

/// Full rescans find what inotify does not tell, such as changes on a network file system.
const RESCAN_SECS: u32 = 600;

/// How long the start waits for the torrent directories.
const FIRST_SCAN_MAX: Duration = Duration::from_secs(30);

/// Keeps the tracker's torrents as the catalog has them.
pub struct TorrentSync {
    catalog: Mutex<Catalog>,
    tracker: Arc<Tracker>,
    clock: Clock,
}

impl TorrentSync {
    pub fn new(config: &Config, lists: &Lists, tracker: Arc<Tracker>, clock: Clock) -> Arc<Self> {
        let torrent_sync = Self {
            catalog: Mutex::new(Catalog::new(config.torrents.removal_grace)),
            tracker,
            clock,
        };
        torrent_sync.set(config, lists);
        Arc::new(torrent_sync)
    }

    /// Takes new lists.
    pub fn set(&self, config: &Config, lists: &Lists) {
        let mut catalog = self.catalog();
        catalog.set_grace(config.torrents.removal_grace);
        let changes = catalog.set_lists(lists.allow.iter().copied(), lists.deny.iter().copied());
        catalog.set_notices(lists.notices.iter().cloned());
        self.tracker.set_notices(catalog.notices_by_id());
        self.apply(&changes);
    }

    /// Begins to watch the directories, and waits until all have been read once, or clients of what is published would be told
    /// that it is unknown; but not for ever, as a file system may hang.
    ///
    /// # Errors
    /// If the system has no inotify instance or thread to give.
    pub fn watch(self: &Arc<Self>, config: &Config) -> io::Result<TorrentWatcher> {
        let torrent_sync = self.clone();
        let (scanned, first_scan) = mpsc::sync_channel(1);
        let torrent_watcher = TorrentWatcher::start(watched(config), move |event| {
            if event == WatchEvent::Scanned {
                // Full, or nobody waits any more: later scans are not asked for.
                let _ = scanned.try_send(());
            }
            torrent_sync.note(event);
        })?;
        if first_scan.recv_timeout(FIRST_SCAN_MAX).is_err() {
            log::warning(
                "reading the torrent directories takes long; serving meanwhile",
                &[],
            );
        }
        Ok(torrent_watcher)
    }

    /// Has the directories that are configured now looked at anew.
    pub fn rescan(config: &Config, torrent_watcher: &TorrentWatcher) {
        torrent_watcher.rescan(watched(config));
    }

    /// Drops the torrents whose grace is over.
    pub fn expire(&self) {
        let mut catalog = self.catalog();
        let rows = catalog.rows().len();
        let changes = catalog.expire(self.clock.now());
        for AdmissionChange { id, .. } in &changes {
            log::notice("torrent no longer tracked", &[("id", id)]);
        }
        self.forget_notices(&catalog, rows);
        self.apply(&changes);
    }

    /// Of each torrent that a file lists and that clients may announce: the first of its ids, and whether it has a seed.
    pub fn seeded(&self) -> Vec<(InfoHash, bool)> {
        let catalog = self.catalog();
        let served = catalog.rows().filter_map(|row| {
            let id = row.torrent.ids().next()?;
            let withdrawn = catalog.has_notices()
                && catalog
                    .notice(id)
                    .is_some_and(|notice| notice.failure.is_some());
            let mut counts = row
                .torrent
                .ids()
                .filter_map(|id| self.tracker.scrape(&id))
                .peekable();
            counts.peek().filter(|_| !withdrawn)?;
            Some((id, counts.any(|counts| counts.complete > 0)))
        });
        served.collect()
    }

    /// Each torrent that a file lists, in no order.
    pub fn rows(&self) -> Vec<CatalogEntry> {
        self.catalog().rows().cloned().collect()
    }

    /// What the file that lists a torrent calls it.
    pub fn name(&self, id: InfoHash) -> Option<String> {
        Some(self.catalog().row(id)?.torrent.name.clone())
    }

    fn note(&self, event: WatchEvent) {
        let now = self.clock.now();
        let mut catalog = self.catalog();
        let changes = match event {
            WatchEvent::Appeared { path, metainfo } => {
                let torrent = Torrent {
                    name: metainfo.name,
                    size: metainfo.size,
                    v1: metainfo.v1,
                    v2: metainfo.v2,
                };
                let (name, ids) = (torrent.name.clone(), torrent.ids());
                let changes = catalog.add_file(&path, torrent, now);
                // A notice for a hybrid stands under one id and holds for both, as the file makes known.
                if catalog.has_notices() {
                    ids.for_each(|id| self.tracker.set_notice(id, catalog.notice(id).cloned()));
                }
                let listed = changes
                    .iter()
                    .filter(|change| change.admission == Admission::Listed);
                let ids: Vec<_> = listed.map(|change| change.id.to_string()).collect();
                if !ids.is_empty() {
                    let fields: log::Fields<'_> = &[
                        ("name", &name),
                        ("ids", &ids.join(",")),
                        ("file", &path.display()),
                    ];
                    log::info("torrent tracked", fields);
                }
                changes
            }
            WatchEvent::Gone { path } => {
                log::info("torrent file gone", &[("file", &path.display())]);
                let rows = catalog.rows().len();
                let changes = catalog.remove_file(&path, now);
                self.forget_notices(&catalog, rows);
                changes
            }
            WatchEvent::Faulty { path, reason } => {
                log::warning(
                    "passed over",
                    &[("file", &path.display()), ("reason", &reason)],
                );
                return;
            }
            WatchEvent::Scanned => {
                log::notice(
                    "torrent directories read",
                    &[("torrents", &catalog.rows().len())],
                );
                return;
            }
        };
        self.apply(&changes);
    }

    fn apply(&self, changes: &[AdmissionChange]) {
        for change in changes {
            self.tracker.admit(&change.id, change.admission);
        }
    }

    /// Once a hybrid's row is gone, a notice holds for the id alone under which it stands.
    fn forget_notices(&self, catalog: &Catalog, rows_before: usize) {
        if catalog.has_notices() && catalog.rows().len() < rows_before {
            self.tracker.set_notices(catalog.notices_by_id());
        }
    }

    fn catalog(&self) -> MutexGuard<'_, Catalog> {
        lock(&self.catalog)
    }
}

fn watched(config: &Config) -> watcher::Settings {
    watcher::Settings {
        directories: config.torrents.directories.clone(),
        rescan_secs: RESCAN_SECS,
    }
}
