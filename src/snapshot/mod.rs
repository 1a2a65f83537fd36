//! The state across a restart: swarms, counters and secrets, in one file in the state directory that is replaced as a
//! whole.
//!
//! Besides the tracker's blocks, a snapshot holds two sections whose content is opaque here: seed health, and the state
//! of the cluster node. The caller converts them.
#![forbid(unsafe_code)]

mod format;

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::fcntl::OFlag;

use self::format::{
    BLOCK, CHECKSUM_LEN, CLUSTER, END, HEADER_LEN, SEED_HEALTH, SnapshotFault, SnapshotHeader,
    Trailer, read_frame, write_frame,
};
use crate::tracker::Tracker;
use crate::tracker::dump::{DumpCursor, Restored};
use crate::tracker::types::{Time, Totals};

pub use self::format::Secrets;

/// Name of the current snapshot, which is always complete.
const FILE_NAME: &str = "snapshot";

/// Name of the next snapshot while it is written.
const NEW_FILE_NAME: &str = "snapshot.new";

/// Start of the name of a snapshot that was set aside; a Unix time follows.
const ASIDE_PREFIX: &str = "snapshot.aside-";

/// Maximum number of snapshots that were set aside: the latest are kept.
const MAX_ASIDE: usize = 3;

/// A background save calls fdatasync after this many bytes. A single fsync at the end of a large file keeps a processor
/// busy for long.
const SYNC_INTERVAL: u64 = 1 << 20;

/// Maximum length of a frame of the cluster section.
const MAX_CLUSTER_FRAME: usize = 1 << 20;

/// Maximum length of a frame of the seed health section: 10,000 torrents of 49 bytes.
const MAX_SEED_HEALTH_FRAME: usize = 490_000;

/// Maximum time that is added to the tracker's time. After that long, all peers have expired, so more would make no
/// difference.
const MAX_GAP: Duration = Duration::from_secs(86_400);

/// Upper bound of the pause after a block: a slow disk already spreads the load.
const MAX_PAUSE: Duration = Duration::from_millis(50);

/// A snapshot that was read.
pub struct LoadedSnapshot {
    pub tracker: Tracker,
    /// The seed health section, as it was given to [`save`]. It is empty if the snapshot has none.
    pub seed_health: Vec<u8>,
    /// The cluster section, as it was given to [`save`]. It is empty if the snapshot has none.
    pub cluster: Vec<u8>,
    pub secrets: Secrets,
    /// The current time for the tracker. Its clock must continue from this time, or the ages of peers would be wrong.
    pub now: Time,
    /// Time since the snapshot was written; 0 if the system's clock was set back.
    pub age: Duration,
    /// The totals of the snapshot, and those of its restored part.
    pub restored: Restored,
}

/// Reads the snapshot in `directory`. Returns `None` if there is none.
///
/// `at` is the current time. `make_tracker` creates the tracker from the seed; torrents can be listed in the tracker there or later.
///
/// # Errors
/// When the snapshot cannot be used, or the directory does not exist. A snapshot that cannot be used has been set
/// aside, and the daemon continues without it.
pub fn load(
    directory: &Path,
    at: SystemTime,
    make_tracker: impl FnOnce(u64) -> Tracker,
) -> Result<Option<LoadedSnapshot>, LoadError> {
    let path = directory.join(FILE_NAME);
    let fault = match open(&path) {
        Ok(file) => match read(BufReader::with_capacity(64 * 1024, file), at, make_tracker) {
            Ok(loaded) => return Ok(Some(loaded)),
            Err(fault) => fault,
        },
        Err(SnapshotFault::Unreadable(error)) if error.kind() == io::ErrorKind::NotFound => {
            // A missing directory is reported now, not when the first snapshot is written.
            return match fs::metadata(directory) {
                Ok(found) if found.is_dir() => Ok(None),
                Ok(_) => Err(LoadError::of_directory(
                    directory,
                    io::ErrorKind::NotADirectory.into(),
                )),
                Err(error) => Err(LoadError::of_directory(directory, error)),
            };
        }
        Err(fault) => fault,
    };
    Err(LoadError::set_aside(directory, at, fault))
}

/// Sets the snapshot in `directory` aside because a section of it cannot be converted, and returns the error to log.
/// `at` is the current time.
pub fn reject_section(directory: &Path, at: SystemTime) -> LoadError {
    LoadError::set_aside(directory, at, SnapshotFault::MALFORMED_BLOCK)
}

fn open(path: &Path) -> Result<File, SnapshotFault> {
    // A FIFO without a writer must not block the daemon.
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW;
    let is_file = fs::symlink_metadata(path).map(|found| found.is_file());
    if !is_file.map_err(SnapshotFault::Unreadable)? {
        return Err(SnapshotFault::NotAFile);
    }
    OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(path)
        .map_err(SnapshotFault::Unreadable)
}

fn read(
    mut file: impl Read,
    at: SystemTime,
    make_tracker: impl FnOnce(u64) -> Tracker,
) -> Result<LoadedSnapshot, SnapshotFault> {
    let header = SnapshotHeader::read(&mut file)?;
    let written = UNIX_EPOCH + Duration::from_secs(header.written);
    let age = at.duration_since(written).unwrap_or_default();
    let passed_secs = age.min(MAX_GAP).as_secs() as u32;
    let now = Time(header.time.0.saturating_add(passed_secs));
    let passed_minutes = now.0 / 60 - header.time.0 / 60;

    let tracker = make_tracker(header.secrets.seed);
    let mut restore = tracker.restore(now, passed_minutes);
    let (mut seed_health, mut cluster) = (Vec::new(), Vec::new());
    let (mut blocks, mut content) = (0, Vec::new());
    for number in 1.. {
        match read_frame(&mut file, number, &mut content)? {
            END => break,
            SEED_HEALTH => seed_health.extend_from_slice(&content),
            CLUSTER => cluster.extend_from_slice(&content),
            _ => {
                blocks += 1;
                restore
                    .restore_block(&content)
                    .map_err(|_| SnapshotFault::MALFORMED_BLOCK)?;
            }
        }
    }
    let restored = restore.finish();
    let trailer = Trailer {
        blocks,
        totals: restored.stored,
    };
    if content != trailer.content() {
        return Err(SnapshotFault::Damaged("the totals at its end do not match"));
    }
    if file.read(&mut [0]).map_err(SnapshotFault::Unreadable)? != 0 {
        return Err(SnapshotFault::Damaged("there is data after its end"));
    }
    Ok(LoadedSnapshot {
        tracker,
        seed_health,
        cluster,
        secrets: header.secrets,
        now,
        age,
        restored,
    })
}

/// How a snapshot competes with announces for the processor and the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SavePriority {
    /// Pauses after each block for three times as long as the block took, so that announces come first.
    Background,
    /// Writes without pauses, for when no client is served any more.
    Shutdown,
}

/// The sections of a snapshot besides the tracker. Their content is opaque here.
#[derive(Clone, Copy, Default)]
pub struct Sections<'a> {
    pub seed_health: &'a [u8],
    /// Returns the state of the cluster node. It is called after the tracker is written.
    pub cluster: Option<&'a dyn Fn() -> Vec<u8>>,
}

/// Replaces the snapshot in `directory` by a snapshot of `tracker` and `sections`.
///
/// `now` is the tracker's time and `at` the system's; the caller reads both before the call. Two calls for one directory must not
/// overlap.
///
/// The call waits for the disk, so a thread that serves clients must not make it. Announces continue meanwhile, and the
/// snapshot contains their changes or not.
///
/// # Errors
/// When the new snapshot cannot be completed; the old snapshot stays.
pub fn save(
    directory: &Path,
    tracker: &Tracker,
    sections: Sections<'_>,
    now: Time,
    at: SystemTime,
    secrets: &Secrets,
    priority: SavePriority,
) -> Result<SavedSnapshot, SaveError> {
    let new = directory.join(NEW_FILE_NAME);
    let cannot = |action| {
        let path = new.clone();
        move |reason| SaveError {
            path,
            action,
            reason,
        }
    };
    // A process that was killed may have left such a file, or another program a directory.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(cannot("remove")(error));
        }
        _ => {}
    }
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)
        .map_err(cannot("create"))?;
    let header = SnapshotHeader {
        written: at
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs()),
        time: now,
        secrets: secrets.clone(),
    };
    let started = Instant::now();
    let saved = write(&file, &header, tracker, sections, priority)
        .map_err(cannot("write"))
        .and_then(|(totals, bytes)| {
            let writing = started.elapsed();
            file.sync_all().map_err(cannot("write"))?;
            fs::rename(&new, directory.join(FILE_NAME)).map_err(cannot("rename"))?;
            Ok((totals, bytes, writing))
        })
        // The disk may be full: free the space.
        .inspect_err(|_| drop(fs::remove_file(&new)));
    let (totals, bytes, writing) = saved?;
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(cannot("sync the directory of"))?;
    Ok(SavedSnapshot {
        totals,
        bytes,
        writing,
        syncing: started.elapsed() - writing,
    })
}

/// Writes header and frames. Returns the totals of the blocks, and the length of the file.
fn write(
    file: &File,
    header: &SnapshotHeader,
    tracker: &Tracker,
    sections: Sections<'_>,
    priority: SavePriority,
) -> io::Result<(Totals, u64)> {
    let mut file = BufWriter::with_capacity(64 * 1024, file);
    file.write_all(&header.bytes())?;
    let (mut cursor, mut trailer, mut content) =
        (DumpCursor::default(), Trailer::default(), Vec::new());
    let (mut number, mut bytes, mut synced) = (1, (HEADER_LEN + CHECKSUM_LEN) as u64, 0);
    loop {
        let started = Instant::now();
        let Some(totals) = tracker.dump_block(header.time, &mut cursor, &mut content) else {
            break;
        };
        if !content.is_empty() {
            bytes += write_frame(&mut file, number, BLOCK, &content)?;
            trailer.add(totals);
            number += 1;
            if priority == SavePriority::Background {
                if bytes - synced > SYNC_INTERVAL {
                    file.flush()?;
                    file.get_ref().sync_data()?;
                    synced = bytes;
                }
                thread::sleep((3 * started.elapsed()).min(MAX_PAUSE));
            }
        }
    }
    let seed_health = sections.seed_health.chunks(MAX_SEED_HEALTH_FRAME);
    let seed_health = seed_health.map(|part| (SEED_HEALTH, part));
    let cluster = sections
        .cluster
        .map(|cluster| cluster())
        .unwrap_or_default();
    let cluster = cluster
        .chunks(MAX_CLUSTER_FRAME)
        .map(|part| (CLUSTER, part));
    for (kind, part) in seed_health.chain(cluster) {
        bytes += write_frame(&mut file, number, kind, part)?;
        number += 1;
    }
    bytes += write_frame(&mut file, number, END, &trailer.content())?;
    file.flush()?;
    Ok((trailer.totals, bytes))
}

/// A snapshot that was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SavedSnapshot {
    /// Torrents with peers, and peers.
    pub totals: Totals,
    /// Length of the file.
    pub bytes: u64,
    /// Time for writing, with the pauses and fdatasync calls of a background save.
    pub writing: Duration,
    /// Time for the final fsync calls and the rename.
    pub syncing: Duration,
}

/// Renames the snapshot so that no later snapshot overwrites it, and removes the oldest of those renamed before.
/// Returns the new path.
fn set_aside(directory: &Path, at: SystemTime) -> io::Result<PathBuf> {
    let mut names = names_aside(directory)?;
    let secs = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    // The name must sort after the latest name, even if the system's clock was set back.
    let latest = names
        .last()
        .and_then(|name| name[ASIDE_PREFIX.len()..].parse().ok());
    let secs = secs.max(latest.map_or(0, |latest: u64| latest.saturating_add(1)));
    let name = format!("{ASIDE_PREFIX}{secs:010}");
    let aside = directory.join(&name);
    fs::rename(directory.join(FILE_NAME), &aside)?;
    names.push(name);
    for old in &names[..names.len().saturating_sub(MAX_ASIDE)] {
        // A file that cannot be removed does no harm.
        let _ = fs::remove_file(directory.join(old));
    }
    Ok(aside)
}

/// Returns the names of the snapshots that were set aside, the latest last.
fn names_aside(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name().into_string();
        names.extend(name.ok().filter(|name| name.starts_with(ASIDE_PREFIX)));
    }
    names.sort();
    Ok(names)
}

/// The reason why no state was restored, as one line for the operator.
#[derive(Debug)]
pub struct LoadError {
    path: PathBuf,
    fault: SnapshotFault,
    /// New path of the snapshot; `None` if there was none to set aside.
    aside: io::Result<Option<PathBuf>>,
}

impl LoadError {
    fn of_directory(directory: &Path, error: io::Error) -> Self {
        Self {
            path: directory.to_owned(),
            fault: SnapshotFault::Unreadable(error),
            aside: Ok(None),
        }
    }

    fn set_aside(directory: &Path, at: SystemTime, fault: SnapshotFault) -> Self {
        Self {
            path: directory.join(FILE_NAME),
            fault,
            aside: set_aside(directory, at).map(Some),
        }
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}; ", self.path.display(), self.fault)?;
        match &self.aside {
            Ok(Some(aside)) => write!(
                f,
                "set aside as {}; starting without peers and counters",
                aside.display()
            ),
            Ok(None) => f.write_str(
                "create the directory and grant the user that runs tbtt read and write access",
            ),
            Err(error) => write!(
                f,
                "it cannot be set aside ({error}) and will be overwritten; starting without peers and counters"
            ),
        }
    }
}

impl std::error::Error for LoadError {}

/// The reason why no snapshot was written, as one line for the operator.
#[derive(Debug)]
pub struct SaveError {
    path: PathBuf,
    action: &'static str,
    reason: io::Error,
}

impl fmt::Display for SaveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, action, reason) = (self.path.display(), self.action, &self.reason);
        write!(
            f,
            "cannot {action} {path}: {reason}; keeping the previous snapshot"
        )
    }
}

impl std::error::Error for SaveError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tracker::settings::Settings;

    const SECRETS: Secrets = Secrets {
        seed: 0x0123_4567_89ab_cdef,
        connection_id: *b"sixteen secrets!",
    };

    fn header() -> SnapshotHeader {
        SnapshotHeader {
            written: 1_800_000_000,
            time: Time(90_000),
            secrets: SECRETS,
        }
    }

    /// Returns a snapshot of an empty tracker.
    fn empty() -> Vec<u8> {
        let mut file = header().bytes();
        write_frame(&mut file, 1, END, &Trailer::default().content()).unwrap();
        file
    }

    fn read_at(file: &[u8], unix_secs: u64) -> Result<LoadedSnapshot, SnapshotFault> {
        let at = UNIX_EPOCH + Duration::from_secs(unix_secs);
        read(file, at, |seed| Tracker::new(Settings::default(), seed))
    }

    fn fault(file: &[u8]) -> String {
        match read_at(file, 0) {
            Ok(_) => "none".to_owned(),
            Err(fault) => fault.to_string(),
        }
    }

    #[test]
    fn header_has_the_same_bytes_on_every_machine() {
        let bytes = header().bytes();
        let expected = [
            b"TBTTSNAP".as_slice(),
            &[0, 0, 0, 1],
            &[0, 0, 0, 0, 0x6b, 0x49, 0xd2, 0x00],
            &[0, 1, 0x5f, 0x90],
            &[0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef],
            b"sixteen secrets!",
            // SipHash-1-3 of all bytes before, with the key "TBTTSNAP" and 0.
            &[0xfa, 0x48, 0x0a, 0x6d, 0x2f, 0x20, 0xef, 0x2b],
        ];
        assert_eq!(bytes, expected.concat());
        let read = read_at(&empty(), 0).unwrap();
        assert_eq!(read.secrets, SECRETS);
    }

    #[test]
    fn tracker_time_continues_across_a_restart() {
        for (at, now) in [
            (1_800_000_000, 90_000),
            (1_800_000_061, 90_061),
            // The system's clock was set back.
            (1_799_999_999, 90_000),
            (0, 90_000),
            // Stopped for a day and for more: a day is the maximum.
            (1_800_086_400, 176_400),
            (1_900_000_000, 176_400),
        ] {
            let loaded = read_at(&empty(), at).unwrap();
            assert_eq!(loaded.now, Time(now), "{at}");
            assert_eq!(loaded.age.as_secs(), at.saturating_sub(1_800_000_000));
        }
    }

    #[test]
    fn distinguishes_faults() {
        assert_eq!(fault(&empty()), "none");
        assert_eq!(fault(b""), "is damaged: it is truncated");
        assert_eq!(fault(b"d8:announce3:..."), "is not a tbtt snapshot");

        let mut newer = empty();
        newer[11] = 2;
        newer.truncate(12);
        assert_eq!(
            fault(&newer),
            "has format 2, of another version of tbtt; this version reads format 1"
        );

        let mut longer = empty();
        longer.push(0);
        assert_eq!(fault(&longer), "is damaged: there is data after its end");

        let with = |kind, content: &[u8]| {
            let mut file = header().bytes();
            write_frame(&mut file, 1, kind, content).unwrap();
            write_frame(&mut file, 2, END, &Trailer::default().content()).unwrap();
            fault(&file)
        };
        assert_eq!(
            with(b'X', b""),
            "is damaged: the kind of a block is unknown"
        );
        assert_eq!(
            with(BLOCK, b"?"),
            "is damaged: the content of a block is malformed"
        );
        assert_eq!(
            with(BLOCK, &[0; 4]),
            "is damaged: the totals at its end do not match"
        );

        let mut long = header().bytes();
        long.extend_from_slice(&[BLOCK, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(fault(&long), "is damaged: a block is too long");
    }

    #[test]
    fn rejects_reordered_blocks() {
        let mut file = header().bytes();
        write_frame(&mut file, 2, BLOCK, &[0; 4]).unwrap();
        assert_eq!(fault(&file), "is damaged: a checksum is wrong");
    }

    #[test]
    fn sections_may_take_several_frames_or_none() {
        let parts = [vec![1; MAX_SEED_HEALTH_FRAME], vec![2; 3]];
        let mut file = header().bytes();
        write_frame(&mut file, 1, SEED_HEALTH, &parts[0]).unwrap();
        write_frame(&mut file, 2, SEED_HEALTH, &parts[1]).unwrap();
        write_frame(&mut file, 3, CLUSTER, b"clu").unwrap();
        write_frame(&mut file, 4, CLUSTER, b"ster").unwrap();
        write_frame(&mut file, 5, END, &Trailer::default().content()).unwrap();
        let read = read_at(&file, 0).unwrap();
        assert_eq!(read.seed_health, parts.concat());
        assert_eq!(read.cluster, b"cluster");
        let read = read_at(&empty(), 0).unwrap();
        assert_eq!((read.seed_health, read.cluster), (Vec::new(), Vec::new()));
    }

    #[test]
    fn read_error_is_not_reported_as_damage() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::from_raw_os_error(5))
            }
        }
        let file = io::Cursor::new(empty()).take(60).chain(Broken);
        let made = |seed| Tracker::new(Settings::default(), seed);
        let fault = read(file, UNIX_EPOCH, made).err().unwrap();
        assert_eq!(
            fault.to_string(),
            "cannot be read: Input/output error (os error 5)"
        );
    }

    #[test]
    fn secrets_are_random_and_never_displayed() {
        let (one, other) = (Secrets::generate().unwrap(), Secrets::generate().unwrap());
        assert_ne!(one.seed, other.seed);
        assert_ne!(one.connection_id, other.connection_id);
        assert_eq!(format!("{one:?}"), "Secrets(..)");
    }
}
