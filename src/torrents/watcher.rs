//! Watches the torrent directories in a thread of its own: which `.torrent` files appear and disappear, and which are
//! invalid.
//!
//! inotify reports at once that a file was renamed into place or closed after writing. A rescan finds changes that inotify
//! does not report: lost events, replaced or mounted directories, symbolic links whose target changes, and network file
//! systems. A rescan visits every name but reads only files that changed. A half-written file is never accepted, because no
//! prefix of a torrent is a valid torrent.
//!
//! Files and directories whose names start with a dot are ignored: rsync and other programs name unfinished files so.
#![forbid(unsafe_code)]

use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::OsStr;
use std::fs::{self, FileType};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};

use crate::lock::lock;
use crate::metainfo::Metainfo;
use crate::torrents::file_version::{FileVersion, Inode, read_with_versions};

/// Maximum size of a file, in bytes; larger files are refused. The `.torrent` file of a terabyte in pieces of 512 KiB
/// has 40 MB.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// An invalid file is reported only after it was unchanged for this long, because it may still be written.
const SETTLE_TIME: Duration = Duration::from_secs(5);

/// Interval between checks whether the roots still refer to the same directories. Each check stats a few paths.
const ROOTS_INTERVAL: Duration = Duration::from_secs(1);

/// Interval between checks of files that are not valid yet, until they settle.
const UNSETTLED_INTERVAL: Duration = Duration::from_millis(250);

/// After a rescan, the next waits for at least this many times the duration of the last. However often directories change,
/// rescans thus take less than a fifth of the thread's time.
const RESCAN_PAUSE_FACTOR: u32 = 5;

/// The settings of a [`TorrentWatcher`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// The directories to watch, together with all directories below them. Symbolic links are followed. The directories
    /// need not exist yet.
    pub directories: Vec<PathBuf>,
    /// Seconds between full rescans.
    pub rescan_secs: u32,
}

/// A change in the torrent directories.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum WatchEvent {
    /// A valid torrent file appeared or changed.
    Appeared { path: PathBuf, metainfo: Metainfo },
    /// A file that was reported as [`WatchEvent::Appeared`] or [`WatchEvent::Faulty`] was removed.
    Removed { path: PathBuf },
    /// A file is not a valid torrent or cannot be read. Reported once until the reason changes. If the file was a valid
    /// torrent before, that torrent stays in force.
    Faulty { path: PathBuf, reason: String },
    /// A directory cannot be listed or watched. Reported once until the reason changes.
    DirectoryFaulty { path: PathBuf, reason: String },
    /// A directory that was reported as [`WatchEvent::DirectoryFaulty`] is usable again or was removed.
    DirectoryResolved { path: PathBuf },
    /// A scan of all directories is complete: the first, or the rescan after a call of [`TorrentWatcher::rescan`].
    Scanned,
}

/// The watching thread. Dropping it stops the thread.
pub struct TorrentWatcher {
    commands: Arc<Commands>,
    waker: UnixStream,
    thread: Option<JoinHandle<()>>,
}

/// The commands for the thread, which it takes when it wakes.
#[derive(Default)]
struct Commands {
    stop: AtomicBool,
    settings: Mutex<Option<Settings>>,
}

impl TorrentWatcher {
    /// Starts the thread. The thread calls `report`, and waits for it.
    ///
    /// # Errors
    /// Fails if the system provides no inotify instance or no thread.
    pub fn start(
        settings: Settings,
        report: impl FnMut(WatchEvent) + Send + 'static,
    ) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let (waker, wake_signal) = UnixStream::pair()?;
        waker.set_nonblocking(true)?;
        wake_signal.set_nonblocking(true)?;
        let commands = Arc::new(Commands::default());
        let watcher = WatchThread::new(settings, inotify, Box::new(report), Arc::clone(&commands));
        let thread = thread::Builder::new()
            .name("watcher".to_owned())
            .spawn(move || watcher.run(&wake_signal))?;
        Ok(Self {
            commands,
            waker,
            thread: Some(thread),
        })
    }

    /// Replaces the settings and rescans everything. The thread reports [`WatchEvent::Scanned`] when the rescan is
    /// complete.
    pub fn rescan(&self, settings: Settings) {
        *lock(&self.commands.settings) = Some(settings);
        self.wake();
    }

    fn wake(&self) {
        // If the buffer is full, the thread is about to wake.
        let _ = (&self.waker).write(&[0]);
    }
}

impl Drop for TorrentWatcher {
    fn drop(&mut self) {
        self.commands.stop.store(true, Ordering::Release);
        self.wake();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has printed its own message.
            let _ = thread.join();
        }
    }
}

/// A file that is not valid yet and may still be written.
struct Unsettled {
    /// `None` if the file was not read yet, or changed while it was read.
    version: Option<FileVersion>,
    since: Instant,
}

/// The directories and files that a scan has visited.
#[derive(Default)]
struct ScanResult {
    directories: HashSet<Inode>,
    watches: HashSet<WatchDescriptor>,
    /// Torrent files, and directories with a fault.
    paths: HashSet<PathBuf>,
    links: HashSet<PathBuf>,
    roots: Vec<(PathBuf, Option<Inode>)>,
    /// Directories that could not be listed. The files below them are unknown, not removed.
    unreadable: Vec<PathBuf>,
}

/// The state of the watching thread.
struct WatchThread {
    settings: Settings,
    inotify: Inotify,
    report: Box<dyn FnMut(WatchEvent) + Send>,
    commands: Arc<Commands>,
    watches: HashMap<WatchDescriptor, PathBuf>,
    /// The versions of all files that were read, both valid and invalid.
    versions: HashMap<PathBuf, FileVersion>,
    unsettled: HashMap<PathBuf, Unsettled>,
    /// The reason that was last reported for each file.
    file_faults: HashMap<PathBuf, String>,
    /// The reason that was last reported for each directory.
    directory_faults: HashMap<PathBuf, String>,
    /// Symbolic links to directories.
    links: HashSet<PathBuf>,
    /// The configured directories and the symbolic links to directories, and the directories that these paths referred
    /// to in the last scan. inotify does not report if such a path comes to refer to another directory, for example
    /// after a mount.
    roots: Vec<(PathBuf, Option<Inode>)>,
    rescan_requested: bool,
    last_rescan: Instant,
    next_rescan: Instant,
    next_roots_check: Instant,
    next_unsettled_check: Instant,
}

impl WatchThread {
    fn new(
        settings: Settings,
        inotify: Inotify,
        report: Box<dyn FnMut(WatchEvent) + Send>,
        commands: Arc<Commands>,
    ) -> Self {
        let now = Instant::now();
        Self {
            settings,
            inotify,
            report,
            commands,
            watches: HashMap::new(),
            versions: HashMap::new(),
            unsettled: HashMap::new(),
            file_faults: HashMap::new(),
            directory_faults: HashMap::new(),
            links: HashSet::new(),
            roots: Vec::new(),
            rescan_requested: false,
            last_rescan: now,
            next_rescan: now,
            next_roots_check: now,
            next_unsettled_check: now,
        }
    }

    fn run(mut self, wake_signal: &UnixStream) {
        self.rescan();
        self.report_scanned();
        while !self.is_stopping() {
            self.wait(wake_signal);
            self.take_commands(wake_signal);
            self.read_events();
            self.check_unsettled();
            self.check_roots();
            let now = Instant::now();
            let due = now.duration_since(self.last_rescan).as_secs()
                >= self.settings.rescan_secs.max(1).into();
            if (self.rescan_requested || due) && now >= self.next_rescan {
                self.rescan();
            }
        }
    }

    fn is_stopping(&self) -> bool {
        self.commands.stop.load(Ordering::Acquire)
    }

    fn report_scanned(&mut self) {
        if !self.is_stopping() {
            (self.report)(WatchEvent::Scanned);
        }
    }

    /// Waits for an inotify event, a command or the next check.
    fn wait(&self, wake_signal: &UnixStream) {
        let now = Instant::now();
        let mut until = self.next_roots_check;
        if self.rescan_requested {
            until = until.min(self.next_rescan);
        }
        if !self.unsettled.is_empty() {
            until = until.min(self.next_unsettled_check);
        }
        // Rounded up. Otherwise the loop would spin through the last millisecond.
        let millis = until
            .saturating_duration_since(now)
            .as_micros()
            .div_ceil(1000);
        let timeout = PollTimeout::from(u16::try_from(millis).unwrap_or(u16::MAX));
        let mut sources = [self.inotify.as_fd(), wake_signal.as_fd()]
            .map(|source| PollFd::new(source, PollFlags::POLLIN));
        // Fails only if a signal interrupts the wait, and then the caller waits again.
        let _ = poll(&mut sources, timeout);
    }

    fn take_commands(&mut self, mut wake_signal: &UnixStream) {
        while wake_signal.read(&mut [0; 64]).is_ok_and(|count| count > 0) {}
        let settings = lock(&self.commands.settings).take();
        if let Some(settings) = settings {
            self.settings = settings;
            self.rescan();
            self.report_scanned();
        }
    }

    fn read_events(&mut self) {
        while !self.is_stopping() {
            match self.inotify.read_events() {
                Ok(events) if !events.is_empty() => {
                    events.iter().for_each(|event| self.handle(event))
                }
                Err(Errno::EINTR) => {}
                _ => return,
            }
        }
    }

    fn handle(&mut self, event: &InotifyEvent) {
        let has = |flags: AddWatchFlags| event.mask.intersects(flags);
        let lost = AddWatchFlags::IN_Q_OVERFLOW
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_UNMOUNT;
        self.rescan_requested |= has(lost);
        if has(AddWatchFlags::IN_IGNORED) {
            self.rescan_requested |= self.watches.remove(&event.wd).is_some();
            return;
        }
        let Some(directory) = self.watches.get(&event.wd) else {
            return;
        };
        let Some(name) = &event.name else {
            self.rescan_requested |= has(AddWatchFlags::IN_ATTRIB);
            return;
        };
        if is_hidden(name) {
            return;
        }
        let path = directory.join(name);
        if has(AddWatchFlags::IN_ISDIR) || self.links.contains(&path) {
            self.rescan_requested = true;
        } else if has(AddWatchFlags::IN_CREATE) {
            self.handle_created(&path);
        } else if is_torrent(name) {
            self.check_file(&path);
        } else if has(AddWatchFlags::IN_MOVED_TO) {
            self.rescan_requested |= path.is_dir();
        }
    }

    /// Handles a new name, which may belong to a new or to an existing file.
    fn handle_created(&mut self, path: &Path) {
        let Ok(metadata) = fs::symlink_metadata(path) else {
            return;
        };
        if metadata.is_symlink() && path.is_dir() {
            self.rescan_requested = true;
        } else if path.file_name().is_some_and(is_torrent) {
            // The content of a link exists already. A new file reports IN_CLOSE_WRITE when it is complete.
            if metadata.is_symlink() || metadata.nlink() > 1 {
                self.check_file(path);
            } else {
                self.mark_unsettled(path, None);
            }
        }
    }

    /// Reads a file if its version changed, and reports the result.
    fn check_file(&mut self, path: &Path) {
        let version = match fs::metadata(path) {
            Ok(metadata) if metadata.is_file() => FileVersion::of(&metadata),
            Ok(_) => return self.file_removed(path),
            Err(error) if error.kind() == ErrorKind::NotFound => return self.file_removed(path),
            Err(error) => return self.file_unreadable(path, &error),
        };
        if self.versions.get(path) == Some(&version) {
            return;
        }
        if version.size > MAX_FILE_BYTES {
            self.versions.insert(path.to_owned(), version);
            return self.file_faulty(path, format!("larger than {} MiB", MAX_FILE_BYTES >> 20));
        }
        let bytes = match read_with_versions(path, MAX_FILE_BYTES) {
            Ok((bytes, before, after)) if before == after && before == version => bytes,
            Ok(_) => return self.mark_unsettled(path, None),
            Err(error) if error.kind() == ErrorKind::NotFound => return self.file_removed(path),
            Err(error) => return self.file_unreadable(path, &error),
        };
        match Metainfo::parse(&bytes) {
            Ok(metainfo) => {
                self.unsettled.remove(path);
                self.file_faults.remove(path);
                self.versions.insert(path.to_owned(), version);
                (self.report)(WatchEvent::Appeared {
                    path: path.to_owned(),
                    metainfo,
                });
            }
            Err(error) if self.is_settled(path, &version) => {
                self.versions.insert(path.to_owned(), version);
                self.file_faulty(path, error.to_string());
            }
            Err(_) => self.mark_unsettled(path, Some(version)),
        }
    }

    fn file_unreadable(&mut self, path: &Path, error: &io::Error) {
        // Without a version, the file is read again even if its metadata does not change.
        self.versions.remove(path);
        self.file_faulty(path, format!("cannot be read: {error}"));
    }

    /// Returns whether a file has been unchanged for the settle time: by its modification time, or, if that is in the
    /// future, by the time since this version was first seen.
    fn is_settled(&self, path: &Path, version: &FileVersion) -> bool {
        let unchanged = |unsettled: &Unsettled| {
            unsettled.version.as_ref() == Some(version) && unsettled.since.elapsed() >= SETTLE_TIME
        };
        version.age().is_some_and(|age| age >= SETTLE_TIME)
            || self.unsettled.get(path).is_some_and(unchanged)
    }

    /// Records that a file is not valid yet, and since when it has this version.
    fn mark_unsettled(&mut self, path: &Path, version: Option<FileVersion>) {
        let since = Instant::now();
        if self.unsettled.is_empty() {
            self.next_unsettled_check = since + UNSETTLED_INTERVAL;
        }
        let unsettled = self
            .unsettled
            .entry(path.to_owned())
            .or_insert(Unsettled { version, since });
        if unsettled.version != version {
            *unsettled = Unsettled { version, since };
        }
    }

    /// Checks the files that are not valid yet, if that is due.
    fn check_unsettled(&mut self) {
        if self.unsettled.is_empty() || Instant::now() < self.next_unsettled_check {
            return;
        }
        self.next_unsettled_check = Instant::now() + UNSETTLED_INTERVAL;
        let paths: Vec<PathBuf> = self.unsettled.keys().cloned().collect();
        for path in paths {
            match fs::metadata(&path) {
                Ok(metadata) if !self.is_settled(&path, &FileVersion::of(&metadata)) => {
                    self.mark_unsettled(&path, Some(FileVersion::of(&metadata)));
                }
                _ => self.check_file(&path),
            }
        }
    }

    /// Reports that a file was removed, if the file was reported before.
    fn file_removed(&mut self, path: &Path) {
        self.unsettled.remove(path);
        let was_read = self.versions.remove(path).is_some();
        let was_faulty = self.file_faults.remove(path).is_some();
        if was_read || was_faulty {
            (self.report)(WatchEvent::Removed {
                path: path.to_owned(),
            });
        }
    }

    /// Reports that a file is invalid, unless this reason was reported before.
    fn file_faulty(&mut self, path: &Path, reason: String) {
        self.unsettled.remove(path);
        if self.file_faults.get(path) != Some(&reason) {
            self.file_faults.insert(path.to_owned(), reason.clone());
            (self.report)(WatchEvent::Faulty {
                path: path.to_owned(),
                reason,
            });
        }
    }

    /// Reports that a directory cannot be used, unless this reason was reported before.
    fn directory_faulty(&mut self, path: &Path, reason: String) {
        if self.directory_faults.get(path) != Some(&reason) {
            self.directory_faults
                .insert(path.to_owned(), reason.clone());
            (self.report)(WatchEvent::DirectoryFaulty {
                path: path.to_owned(),
                reason,
            });
        }
    }

    /// Reports that a directory can be used again, if a fault was reported before.
    fn directory_resolved(&mut self, path: &Path) {
        if self.directory_faults.remove(path).is_some() {
            (self.report)(WatchEvent::DirectoryResolved {
                path: path.to_owned(),
            });
        }
    }

    /// If a check is due, requests a rescan when a root refers to another directory than in the last scan.
    fn check_roots(&mut self) {
        let now = Instant::now();
        if now >= self.next_roots_check {
            self.next_roots_check = now + ROOTS_INTERVAL;
            self.rescan_requested |= self
                .roots
                .iter()
                .any(|(path, inode)| Inode::at(path) != *inode);
        }
    }

    /// Scans everything, and drops files and directories that no longer exist.
    fn rescan(&mut self) {
        let start = Instant::now();
        self.rescan_requested = false;
        let scan = self.scan();
        if self.is_stopping() {
            return;
        }
        self.watches.retain(|watch, _| {
            let stays = scan.watches.contains(watch);
            if !stays {
                // Fails if the directory was removed, because the kernel has then removed the watch.
                let _ = self.inotify.rm_watch(*watch);
            }
            stays
        });
        let is_removed = |path: &&PathBuf| {
            !scan.paths.contains(*path)
                && !scan
                    .unreadable
                    .iter()
                    .any(|directory| path.starts_with(directory))
        };
        let files = self
            .versions
            .keys()
            .chain(self.unsettled.keys())
            .chain(self.file_faults.keys());
        let removed: Vec<PathBuf> = files.filter(is_removed).cloned().collect();
        let directories = self.directory_faults.keys();
        let resolved: Vec<PathBuf> = directories.filter(is_removed).cloned().collect();
        removed.iter().for_each(|path| self.file_removed(path));
        resolved
            .iter()
            .for_each(|path| self.directory_resolved(path));
        self.links = scan.links;
        self.roots = scan.roots;
        self.last_rescan = Instant::now();
        self.next_rescan = self.last_rescan + start.elapsed() * RESCAN_PAUSE_FACTOR;
    }

    /// Visits each directory once, even if several paths lead to it. Paths without a symbolic link come first.
    fn scan(&mut self) -> ScanResult {
        let mut scan = ScanResult::default();
        let mut real: VecDeque<PathBuf> = self.settings.directories.iter().cloned().collect();
        let mut linked = VecDeque::new();
        loop {
            let (directory, is_linked) = match (real.pop_front(), linked.is_empty()) {
                (Some(directory), _) => (directory, false),
                (None, false) => (linked.pop_front().unwrap_or_default(), true),
                (None, true) => return scan,
            };
            if scan.links.contains(&directory) || self.settings.directories.contains(&directory) {
                // Read before the directory is listed, so that a later change is detected.
                let inode = Inode::at(&directory);
                scan.roots.push((directory.clone(), inode));
            }
            match self.list_directory(&directory, &mut scan) {
                Ok(entries) => {
                    for (path, kind) in entries {
                        if self.is_stopping() {
                            return scan;
                        }
                        if kind.is_symlink() && path.is_dir() {
                            scan.links.insert(path.clone());
                            linked.push_back(path);
                        } else if kind.is_dir() {
                            if is_linked { &mut linked } else { &mut real }.push_back(path);
                        } else if path.file_name().is_some_and(is_torrent) {
                            self.check_file(&path);
                            scan.paths.insert(path);
                        }
                    }
                }
                Err(error) => self.handle_list_error(directory, &error, &mut scan),
            }
        }
    }

    fn handle_list_error(&mut self, directory: PathBuf, error: &io::Error, scan: &mut ScanResult) {
        let exists = error.kind() != ErrorKind::NotFound;
        if exists {
            scan.unreadable.push(directory.clone());
        }
        if exists || self.settings.directories.contains(&directory) {
            self.directory_faulty(&directory, format!("cannot be listed: {error}"));
            scan.paths.insert(directory);
        }
    }

    /// Returns the entries of a directory, sorted by name, or nothing if this scan has already visited the directory. The
    /// watch is added before the directory is listed, so that no change is missed.
    fn list_directory(
        &mut self,
        directory: &Path,
        scan: &mut ScanResult,
    ) -> io::Result<Vec<(PathBuf, FileType)>> {
        let metadata = fs::metadata(directory)?;
        if !scan.directories.insert(Inode::of(&metadata)) {
            return Ok(Vec::new());
        }
        let watch = self.add_watch(directory);
        if let Ok(watch) = watch {
            scan.watches.insert(watch);
            self.watches.insert(watch, directory.to_owned());
        }
        let mut entries = Vec::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            if !is_hidden(&entry.file_name()) {
                entries.push((entry.path(), entry.file_type()?));
            }
        }
        match watch {
            Ok(_) => self.directory_resolved(directory),
            Err(error) => {
                self.handle_watch_error(directory, error);
                scan.paths.insert(directory.to_owned());
            }
        }
        entries.sort_unstable_by(|(left, _), (right, _)| left.cmp(right));
        Ok(entries)
    }

    fn handle_watch_error(&mut self, directory: &Path, error: Errno) {
        let rescan_secs = self.settings.rescan_secs;
        let remedy = if error == Errno::ENOSPC {
            "; raise fs.inotify.max_user_watches"
        } else {
            ""
        };
        let reason = format!(
            "cannot be watched, changes are found only every {rescan_secs} s: {}{remedy}",
            error.desc()
        );
        self.directory_faulty(directory, reason);
    }

    fn add_watch(&self, directory: &Path) -> Result<WatchDescriptor, Errno> {
        let flags = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_ATTRIB
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_ONLYDIR;
        self.inotify.add_watch(directory, flags)
    }
}

fn is_torrent(name: &OsStr) -> bool {
    name.as_bytes().ends_with(b".torrent")
}

fn is_hidden(name: &OsStr) -> bool {
    name.as_bytes().starts_with(b".")
}
