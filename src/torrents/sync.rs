//! Applies the watched directories and the operator's lists to the catalog, and the changes to the tracker.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, mpsc};
use std::time::Duration;

use crate::clock::Clock;
use crate::lock::lock;
use crate::log;
use crate::torrents::catalog::{AdmissionChange, Catalog, CatalogEntry};
use crate::torrents::watcher::{self, TorrentWatcher, WatchEvent};
use crate::tracker::Tracker;
use crate::tracker::settings::Notice;
use crate::tracker::types::{Admission, InfoHash};

/// Maximum time for which the start waits for the first scan of the torrent directories.
const FIRST_SCAN_TIMEOUT: Duration = Duration::from_secs(30);

/// The settings of a [`TorrentSync`].
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Seconds that a torrent is still tracked after its last file was removed.
    pub removal_grace_secs: u32,
    /// Torrents that are tracked without a file.
    pub allow: Vec<InfoHash>,
    /// Torrents that are never tracked.
    pub deny: Vec<InfoHash>,
    /// Texts for the clients of single torrents.
    pub notices: Vec<(InfoHash, Notice)>,
}

/// Keeps the torrents of the tracker the same as those of the catalog.
pub struct TorrentSync {
    catalog: Mutex<Catalog>,
    tracker: Arc<Tracker>,
    clock: Clock,
}

impl TorrentSync {
    pub fn new(settings: Settings, tracker: Arc<Tracker>, clock: Clock) -> Arc<Self> {
        let torrent_sync = Self {
            catalog: Mutex::new(Catalog::new(settings.removal_grace_secs)),
            tracker,
            clock,
        };
        torrent_sync.set_settings(settings);
        Arc::new(torrent_sync)
    }

    /// Replaces the settings, and applies the new lists.
    pub fn set_settings(&self, settings: Settings) {
        let mut catalog = self.catalog();
        catalog.set_removal_grace(settings.removal_grace_secs);
        let changes = catalog.set_lists(settings.allow, settings.deny);
        catalog.set_notices(settings.notices);
        self.tracker.set_notices(catalog.notices_by_id());
        self.apply(&changes);
    }

    /// Starts to watch the directories, and waits for the first scan, so that clients of published torrents are not refused
    /// after a restart. The wait is limited to 30 seconds, because a file system may hang.
    ///
    /// # Errors
    /// Fails if the system provides no inotify instance or no thread.
    pub fn watch(self: &Arc<Self>, settings: watcher::Settings) -> io::Result<TorrentWatcher> {
        let torrent_sync = self.clone();
        let (scanned, first_scan) = mpsc::sync_channel(1);
        let torrent_watcher = TorrentWatcher::start(settings, move |event| {
            if event == WatchEvent::Scanned {
                // Only the first scan is waited for. Later sends fail, because the channel is full or closed.
                let _ = scanned.try_send(());
            }
            torrent_sync.handle(event);
        })?;
        if first_scan.recv_timeout(FIRST_SCAN_TIMEOUT).is_err() {
            log::warning(
                "still scanning the torrent directories; serving with the torrents found so far",
                &[],
            );
        }
        Ok(torrent_watcher)
    }

    /// Stops tracking the torrents whose grace is over.
    pub fn expire(&self) {
        let mut catalog = self.catalog();
        let entries_before = catalog.entries().len();
        let changes = catalog.expire(self.clock.now());
        for AdmissionChange { id, .. } in &changes {
            log::notice("torrent no longer tracked", &[("id", id)]);
        }
        self.update_notices_after_removal(&catalog, entries_before);
        self.apply(&changes);
    }

    /// Returns each torrent that a file lists and that clients may announce: the first of its ids, and whether the torrent
    /// has a seeder.
    pub fn seeder_states(&self) -> Vec<(InfoHash, bool)> {
        let catalog = self.catalog();
        let served = catalog.entries().filter_map(|entry| {
            let id = entry.torrent.ids().next()?;
            let withdrawn = catalog.has_notices()
                && catalog
                    .notice(id)
                    .is_some_and(|notice| notice.failure.is_some());
            let mut counts = entry
                .torrent
                .ids()
                .filter_map(|id| self.tracker.scrape(&id))
                .peekable();
            counts.peek().filter(|_| !withdrawn)?;
            Some((id, counts.any(|counts| counts.complete > 0)))
        });
        served.collect()
    }

    /// Returns each torrent that a file lists, in no particular order.
    pub fn entries(&self) -> Vec<CatalogEntry> {
        self.catalog().entries().cloned().collect()
    }

    /// Returns the name of a torrent in the file that lists it.
    pub fn name(&self, id: InfoHash) -> Option<String> {
        Some(self.catalog().entry(id)?.torrent.name.clone())
    }

    fn handle(&self, event: WatchEvent) {
        let now = self.clock.now();
        let mut catalog = self.catalog();
        match event {
            WatchEvent::Appeared { path, metainfo } => {
                let torrent = metainfo.torrent();
                let (name, ids) = (torrent.name.clone(), torrent.ids());
                let changes = catalog.add_file(&path, torrent, now);
                // The notice for a hybrid torrent is set under a single id, and only the file shows the other id.
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
                } else {
                    let fields: log::Fields<'_> = &[("name", &name), ("file", &path.display())];
                    log::debug(
                        "torrent file read; torrent already tracked, or denied",
                        fields,
                    );
                }
                self.apply(&changes);
            }
            WatchEvent::Removed { path } => {
                log::info("torrent file removed", &[("file", &path.display())]);
                let entries_before = catalog.entries().len();
                let changes = catalog.remove_file(&path, now);
                self.update_notices_after_removal(&catalog, entries_before);
                self.apply(&changes);
            }
            WatchEvent::Faulty { path, reason } => log::warning(
                "skipping torrent file",
                &[("file", &path.display()), ("reason", &reason)],
            ),
            WatchEvent::DirectoryFaulty { path, reason } => log::warning(
                "problem with torrent directory",
                &[("directory", &path.display()), ("reason", &reason)],
            ),
            WatchEvent::DirectoryResolved { path } => log::info(
                "torrent directory problem resolved",
                &[("directory", &path.display())],
            ),
            WatchEvent::Scanned => log::notice(
                "torrent directories read",
                &[("torrents", &catalog.entries().len())],
            ),
        }
    }

    fn apply(&self, changes: &[AdmissionChange]) {
        for change in changes {
            self.tracker.set_admission(&change.id, change.admission);
        }
    }

    /// Once the entry of a hybrid torrent is removed, its notice applies only to the id under which it was set.
    fn update_notices_after_removal(&self, catalog: &Catalog, entries_before: usize) {
        if catalog.has_notices() && catalog.entries().len() < entries_before {
            self.tracker.set_notices(catalog.notices_by_id());
        }
    }

    fn catalog(&self) -> MutexGuard<'_, Catalog> {
        lock(&self.catalog)
    }
}
