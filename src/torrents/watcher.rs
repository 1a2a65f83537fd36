//! The torrent directories, watched by a thread of their own: which `.torrent` files appear and go, and what is wrong with one.
//!
//! inotify says at once that a file was renamed into place or closed after writing. Whatever it cannot say (lost events, replaced
//! or mounted directories, symbolic links that lead elsewhere, network file systems) a rescan finds, which looks at every name but
//! reads only what changed. A half-written file is never taken, for no beginning of a torrent is a torrent.
//!
//! Names that begin with a dot are passed over, files and directories alike: so rsync and others call what is not ready.
#![forbid(unsafe_code)]

use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::OsStr;
use std::fs::{self, File, FileType, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};

use crate::lock::lock;
use crate::metainfo::Metainfo;

/// Larger files are faulty: a torrent of a terabyte in pieces of 512 KiB has 40 MB.
const MAX_FILE: u64 = 64 << 20;

/// A file that is no torrent may still be being written until it has been at rest for so long.
const AT_REST: Duration = Duration::from_secs(5);

/// How often the places are compared where something may change that inotify does not see: a few files each time.
const ANCHORS_EVERY: Duration = Duration::from_secs(1);

/// How often files are looked at again that are young and no torrents yet.
const YOUNG_EVERY: Duration = Duration::from_millis(250);

/// Rescans take at most one part in so many of the thread's time, however often directories change.
const RESCAN_SHARE: u32 = 5;

/// What is watched.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// With all directories below them, symbolic links followed. They need not exist yet.
    pub directories: Vec<PathBuf>,
    /// Seconds between full rescans, which find what inotify does not tell.
    pub rescan_secs: u32,
}

/// What has come to pass in the directories.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum WatchEvent {
    /// A whole torrent is there, or is there anew with something changed.
    Appeared { path: PathBuf, metainfo: Metainfo },
    /// A file is no longer there, or what was faulty is no longer so.
    Gone { path: PathBuf },
    /// A file or directory that should serve does not: one line for the log. Told once until it changes; if the file was
    /// a torrent before, that torrent has not gone.
    Faulty { path: PathBuf, reason: String },
    /// Everything has been looked at once: after the start, and after each call of the [`TorrentWatcher`].
    Scanned,
}

/// The watching thread. Dropped, it stops.
pub struct TorrentWatcher {
    orders: Arc<Orders>,
    waker: UnixStream,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Orders {
    stop: AtomicBool,
    settings: Mutex<Option<Settings>>,
}

impl TorrentWatcher {
    /// Begins to watch. `report` is called in the watching thread, and holds up nothing but it.
    ///
    /// # Errors
    /// If the system has no inotify instance or thread to give.
    pub fn start(
        settings: Settings,
        report: impl FnMut(WatchEvent) + Send + 'static,
    ) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let (waker, woken) = UnixStream::pair()?;
        waker.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        let orders = Arc::new(Orders::default());
        let watcher = WatchThread::new(settings, inotify, Box::new(report), Arc::clone(&orders));
        let thread = thread::Builder::new()
            .name("publish".to_owned())
            .spawn(move || watcher.run(&woken))?;
        Ok(Self {
            orders,
            waker,
            thread: Some(thread),
        })
    }

    /// Looks at everything again, with these settings, and then says [`WatchEvent::Scanned`].
    pub fn rescan(&self, settings: Settings) {
        *lock(&self.orders.settings) = Some(settings);
        self.wake();
    }

    fn wake(&self) {
        // If the buffer is full, the thread will wake anyway.
        let _ = (&self.waker).write(&[0]);
    }
}

impl Drop for TorrentWatcher {
    fn drop(&mut self) {
        self.orders.stop.store(true, Ordering::Release);
        self.wake();
        if let Some(thread) = self.thread.take() {
            // A panic there has been told by its own message.
            let _ = thread.join();
        }
    }
}

/// What tells one content of a file from the next without reading it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct FileVersion {
    inode: Inode,
    size: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    /// The same of the inode: whoever may read it now could perhaps not before.
    changed: (i64, i64),
}

/// Which file or directory it is, whatever it is called.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Inode {
    device: u64,
    number: u64,
}

impl Inode {
    fn of(metadata: &Metadata) -> Self {
        let (device, number) = (metadata.dev(), metadata.ino());
        Self { device, number }
    }

    fn at(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|metadata| Self::of(&metadata))
    }
}

impl FileVersion {
    fn of(metadata: &Metadata) -> Self {
        Self {
            inode: Inode::of(metadata),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    fn age(&self) -> Option<Duration> {
        let modified = Duration::new(
            u64::try_from(self.modified.0).ok()?,
            u32::try_from(self.modified.1).ok()?,
        );
        SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH + modified)
            .ok()
    }
}

/// A file that may still be being written.
struct Unsettled {
    stamp: Option<FileVersion>,
    since: Instant,
}

/// What a walk over the directories has met.
#[derive(Default)]
struct Walked {
    directories: HashSet<Inode>,
    watches: HashSet<WatchDescriptor>,
    files: HashSet<PathBuf>,
    links: HashSet<PathBuf>,
    mount_points: Vec<(PathBuf, Option<Inode>)>,
    /// Could not be listed, so nothing is known of what is below.
    unreadable: Vec<PathBuf>,
}

struct WatchThread {
    settings: Settings,
    inotify: Inotify,
    report: Box<dyn FnMut(WatchEvent) + Send>,
    orders: Arc<Orders>,
    watches: HashMap<WatchDescriptor, PathBuf>,
    /// Files that were read, whole or faulty, as they were then.
    known: HashMap<PathBuf, FileVersion>,
    young: HashMap<PathBuf, Unsettled>,
    /// What was last published of a path.
    faults: HashMap<PathBuf, String>,
    /// Symbolic links that lead to directories.
    links: HashSet<PathBuf>,
    /// The watched directories and the links, and what they led to.
    mount_points: Vec<(PathBuf, Option<Inode>)>,
    rescan_wanted: bool,
    last_rescan: Instant,
    next_rescan: Instant,
    next_anchors: Instant,
    next_young: Instant,
}

impl WatchThread {
    fn new(
        settings: Settings,
        inotify: Inotify,
        report: Box<dyn FnMut(WatchEvent) + Send>,
        orders: Arc<Orders>,
    ) -> Self {
        let now = Instant::now();
        Self {
            settings,
            inotify,
            report,
            orders,
            watches: HashMap::new(),
            known: HashMap::new(),
            young: HashMap::new(),
            faults: HashMap::new(),
            links: HashSet::new(),
            mount_points: Vec::new(),
            rescan_wanted: false,
            last_rescan: now,
            next_rescan: now,
            next_anchors: now,
            next_young: now,
        }
    }

    fn run(mut self, woken: &UnixStream) {
        self.rescan();
        self.report_scanned();
        while !self.is_stopping() {
            self.wait(woken);
            self.take_orders(woken);
            self.read_events();
            self.look_at_young();
            self.compare_anchors();
            let now = Instant::now();
            let due = now.duration_since(self.last_rescan).as_secs()
                >= self.settings.rescan_secs.max(1).into();
            if (self.rescan_wanted || due) && now >= self.next_rescan {
                self.rescan();
            }
        }
    }

    fn is_stopping(&self) -> bool {
        self.orders.stop.load(Ordering::Acquire)
    }

    fn report_scanned(&mut self) {
        if !self.is_stopping() {
            (self.report)(WatchEvent::Scanned);
        }
    }

    fn wait(&self, woken: &UnixStream) {
        let now = Instant::now();
        let mut until = self.next_anchors;
        if self.rescan_wanted {
            until = until.min(self.next_rescan);
        }
        if !self.young.is_empty() {
            until = until.min(self.next_young);
        }
        // Rounded up, so as not to spin through the last millisecond.
        let millis = until
            .saturating_duration_since(now)
            .as_micros()
            .div_ceil(1000);
        let timeout = PollTimeout::from(u16::try_from(millis).unwrap_or(u16::MAX));
        let mut sources = [self.inotify.as_fd(), woken.as_fd()]
            .map(|source| PollFd::new(source, PollFlags::POLLIN));
        // Only a signal ends it early, and then it is asked again.
        let _ = poll(&mut sources, timeout);
    }

    fn take_orders(&mut self, mut woken: &UnixStream) {
        while woken.read(&mut [0; 64]).is_ok_and(|count| count > 0) {}
        let settings = lock(&self.orders.settings).take();
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
        let of = |flags: AddWatchFlags| event.mask.intersects(flags);
        let lost = AddWatchFlags::IN_Q_OVERFLOW
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_UNMOUNT;
        self.rescan_wanted |= of(lost);
        if of(AddWatchFlags::IN_IGNORED) {
            self.rescan_wanted |= self.watches.remove(&event.wd).is_some();
            return;
        }
        let Some(directory) = self.watches.get(&event.wd) else {
            return;
        };
        let Some(name) = &event.name else {
            self.rescan_wanted |= of(AddWatchFlags::IN_ATTRIB);
            return;
        };
        if is_hidden(name) {
            return;
        }
        let path = directory.join(name);
        if of(AddWatchFlags::IN_ISDIR) || self.links.contains(&path) {
            self.rescan_wanted = true;
        } else if of(AddWatchFlags::IN_CREATE) {
            self.handle_created(&path);
        } else if is_torrent(name) {
            self.look(&path);
        } else if of(AddWatchFlags::IN_MOVED_TO) {
            self.rescan_wanted |= path.is_dir();
        }
    }

    /// A name that is new, which says nothing of whether its content is.
    fn handle_created(&mut self, path: &Path) {
        let Ok(metadata) = fs::symlink_metadata(path) else {
            return;
        };
        if metadata.is_symlink() && path.is_dir() {
            self.rescan_wanted = true;
        } else if path.file_name().is_some_and(is_torrent) {
            // A link leads to what is there already; for a file of its own, its closing will be told.
            if metadata.is_symlink() || metadata.nlink() > 1 {
                self.look(path);
            } else {
                self.keep_young(path, None);
            }
        }
    }

    /// Reads a file if it is not as it was.
    fn look(&mut self, path: &Path) {
        let stamp = match fs::metadata(path) {
            Ok(metadata) if metadata.is_file() => FileVersion::of(&metadata),
            Ok(_) => return self.gone(path),
            Err(error) if error.kind() == ErrorKind::NotFound => return self.gone(path),
            Err(error) => return self.unreadable(path, &error),
        };
        if self.known.get(path) == Some(&stamp) {
            return;
        }
        if stamp.size > MAX_FILE {
            self.known.insert(path.to_owned(), stamp);
            return self.faulty(path, format!("is larger than {} MiB", MAX_FILE >> 20));
        }
        let bytes = match read(path) {
            Ok((bytes, before, after)) if before == after && before == stamp => bytes,
            Ok(_) => return self.keep_young(path, None),
            Err(error) if error.kind() == ErrorKind::NotFound => return self.gone(path),
            Err(error) => return self.unreadable(path, &error),
        };
        match Metainfo::parse(&bytes) {
            Ok(metainfo) => {
                self.young.remove(path);
                self.faults.remove(path);
                self.known.insert(path.to_owned(), stamp);
                (self.report)(WatchEvent::Appeared {
                    path: path.to_owned(),
                    metainfo,
                });
            }
            Err(error) if self.is_at_rest(path, &stamp) => {
                self.known.insert(path.to_owned(), stamp);
                self.faulty(path, error.to_string());
            }
            Err(_) => self.keep_young(path, Some(stamp)),
        }
    }

    fn unreadable(&mut self, path: &Path, error: &io::Error) {
        // So that it is read again even if nothing of it changes.
        self.known.remove(path);
        self.faulty(path, format!("cannot be read: {error}"));
    }

    /// By the file's own time, or, if that lies in the future, by how long it was seen like this.
    fn is_at_rest(&self, path: &Path, stamp: &FileVersion) -> bool {
        let seen_long = |young: &Unsettled| {
            young.stamp.as_ref() == Some(stamp) && young.since.elapsed() >= AT_REST
        };
        stamp.age().is_some_and(|age| age >= AT_REST) || self.young.get(path).is_some_and(seen_long)
    }

    fn keep_young(&mut self, path: &Path, stamp: Option<FileVersion>) {
        let since = Instant::now();
        if self.young.is_empty() {
            self.next_young = since + YOUNG_EVERY;
        }
        let young = self
            .young
            .entry(path.to_owned())
            .or_insert(Unsettled { stamp, since });
        if young.stamp != stamp {
            *young = Unsettled { stamp, since };
        }
    }

    fn look_at_young(&mut self) {
        if self.young.is_empty() || Instant::now() < self.next_young {
            return;
        }
        self.next_young = Instant::now() + YOUNG_EVERY;
        let paths: Vec<PathBuf> = self.young.keys().cloned().collect();
        for path in paths {
            match fs::metadata(&path) {
                Ok(metadata) if !self.is_at_rest(&path, &FileVersion::of(&metadata)) => {
                    self.keep_young(&path, Some(FileVersion::of(&metadata)));
                }
                _ => self.look(&path),
            }
        }
    }

    fn gone(&mut self, path: &Path) {
        self.young.remove(path);
        let was_known = self.known.remove(path).is_some();
        let was_faulty = self.faults.remove(path).is_some();
        if was_known || was_faulty {
            (self.report)(WatchEvent::Gone {
                path: path.to_owned(),
            });
        }
    }

    fn faulty(&mut self, path: &Path, reason: String) {
        self.young.remove(path);
        if self.faults.get(path) != Some(&reason) {
            self.faults.insert(path.to_owned(), reason.clone());
            (self.report)(WatchEvent::Faulty {
                path: path.to_owned(),
                reason,
            });
        }
    }

    fn compare_anchors(&mut self) {
        let now = Instant::now();
        if now >= self.next_anchors {
            self.next_anchors = now + ANCHORS_EVERY;
            self.rescan_wanted |= self
                .mount_points
                .iter()
                .any(|(path, inode)| Inode::at(path) != *inode);
        }
    }

    /// Looks at everything, and forgets what is not there.
    fn rescan(&mut self) {
        let start = Instant::now();
        self.rescan_wanted = false;
        let walked = self.walk();
        if self.is_stopping() {
            return;
        }
        self.watches.retain(|watch, _| {
            let stays = walked.watches.contains(watch);
            if !stays {
                // Of a directory that is no more, the kernel has ended it already.
                let _ = self.inotify.rm_watch(*watch);
            }
            stays
        });
        let is_there = |path: &PathBuf| {
            walked.files.contains(path)
                || walked
                    .unreadable
                    .iter()
                    .any(|directory| path.starts_with(directory))
        };
        let known = self
            .known
            .keys()
            .chain(self.young.keys())
            .chain(self.faults.keys());
        let gone: Vec<PathBuf> = known.filter(|path| !is_there(path)).cloned().collect();
        gone.iter().for_each(|path| self.gone(path));
        self.links = walked.links;
        self.mount_points = walked.mount_points;
        self.last_rescan = Instant::now();
        self.next_rescan = self.last_rescan + start.elapsed() * RESCAN_SHARE;
    }

    /// Each directory once, however many names lead to it; names with no symbolic link in them come first.
    fn walk(&mut self) -> Walked {
        let mut walked = Walked::default();
        let mut real: VecDeque<PathBuf> = self.settings.directories.iter().cloned().collect();
        let mut linked = VecDeque::new();
        loop {
            let (directory, is_linked) = match (real.pop_front(), linked.is_empty()) {
                (Some(directory), _) => (directory, false),
                (None, false) => (linked.pop_front().unwrap_or_default(), true),
                (None, true) => return walked,
            };
            if walked.links.contains(&directory) || self.settings.directories.contains(&directory) {
                // Before it is listed, so that a later change is seen as one.
                let inode = Inode::at(&directory);
                walked.mount_points.push((directory.clone(), inode));
            }
            match self.list(&directory, &mut walked) {
                Ok(entries) => {
                    for (path, kind) in entries {
                        if self.is_stopping() {
                            return walked;
                        }
                        if kind.is_symlink() && path.is_dir() {
                            walked.links.insert(path.clone());
                            linked.push_back(path);
                        } else if kind.is_dir() {
                            if is_linked { &mut linked } else { &mut real }.push_back(path);
                        } else if path.file_name().is_some_and(is_torrent) {
                            self.look(&path);
                            walked.files.insert(path);
                        }
                    }
                }
                Err(error) => self.cannot_list(directory, &error, &mut walked),
            }
        }
    }

    fn cannot_list(&mut self, directory: PathBuf, error: &io::Error, walked: &mut Walked) {
        let is_there = error.kind() != ErrorKind::NotFound;
        if is_there {
            walked.unreadable.push(directory.clone());
        }
        if is_there || self.settings.directories.contains(&directory) {
            self.faulty(&directory, format!("cannot be listed: {error}"));
            walked.files.insert(directory);
        }
    }

    /// The entries of a directory, by name, which is watched from before it is listed on. None, if it was met before.
    fn list(
        &mut self,
        directory: &Path,
        walked: &mut Walked,
    ) -> io::Result<Vec<(PathBuf, FileType)>> {
        let metadata = fs::metadata(directory)?;
        if !walked.directories.insert(Inode::of(&metadata)) {
            return Ok(Vec::new());
        }
        let watch = self.watch(directory);
        if let Ok(watch) = watch {
            walked.watches.insert(watch);
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
            Ok(_) => self.cleared(directory),
            Err(error) => {
                let every = self.settings.rescan_secs;
                let hint = if error == Errno::ENOSPC {
                    "; raise fs.inotify.max_user_watches"
                } else {
                    ""
                };
                self.faulty(
                    directory,
                    format!(
                        "cannot be watched and is looked at every {every} s only: {}{hint}",
                        error.desc()
                    ),
                );
                walked.files.insert(directory.to_owned());
            }
        }
        entries.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        Ok(entries)
    }

    fn watch(&self, directory: &Path) -> Result<WatchDescriptor, Errno> {
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

    /// A directory that was faulty is in order again.
    fn cleared(&mut self, directory: &Path) {
        if self.faults.contains_key(directory) {
            self.gone(directory);
        }
    }
}

fn is_torrent(name: &OsStr) -> bool {
    name.as_bytes().ends_with(b".torrent")
}

fn is_hidden(name: &OsStr) -> bool {
    name.as_bytes().starts_with(b".")
}

/// The content, and the stamps before and after.
fn read(path: &Path) -> io::Result<(Vec<u8>, FileVersion, FileVersion)> {
    // Should a pipe have taken the file's place, this does not wait for a writer.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)?;
    let stamp = |file: &File| file.metadata().map(|metadata| FileVersion::of(&metadata));
    let before = stamp(&file)?;
    let mut bytes = Vec::with_capacity(usize::try_from(before.size.min(MAX_FILE)).unwrap_or(0) + 1);
    (&file).take(MAX_FILE).read_to_end(&mut bytes)?;
    Ok((bytes, before, stamp(&file)?))
}
