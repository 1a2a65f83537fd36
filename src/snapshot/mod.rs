//! Swarms, counters and secrets across a restart: one file in the state directory, replaced as a whole.
//!
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
    BLOCK, CLUSTER, END, End, Fault, HEADER, HEALTH, Header, read_frame, write_frame,
};
use crate::torrents::seed_health::SeedHealth;
use crate::tracker::dump::{DumpCursor, Restored};
use crate::tracker::{Time, Totals, Tracker};

pub use self::format::Secrets;

/// The good one, always whole.
const FILE: &str = "snapshot";

/// The next one, until it is whole.
const NEW: &str = "snapshot.new";

/// Before the time when one that could not be used was put aside.
const ASIDE: &str = "snapshot.aside-";

/// How many of those are kept, the latest.
const ASIDE_MOST: usize = 3;

/// How much is written before it is made lasting, beside service: what comes to the disk all at once takes a processor for long.
const LASTING: u64 = 1 << 20;

/// How much of what is kept of the cluster goes into a frame.
const CLUSTER_FULL: usize = 1 << 20;

/// How much of the seeds goes into a frame: whole torrents.
const HEALTH_FULL: usize = 10_000 * SeedHealth::SAVED_BYTES;

/// After this long away nobody is left to revive, and the tracker's time need not go on any further.
const LONGEST_GAP: Duration = Duration::from_secs(86_400);

/// A slow disk makes for rest enough.
const LONGEST_REST: Duration = Duration::from_millis(50);

/// What a snapshot gave back.
pub struct Loaded {
    pub tracker: Tracker,
    pub health: SeedHealth,
    /// As it was given to [`save`].
    pub cluster: Vec<u8>,
    pub secrets: Secrets,
    /// What the time is now for the tracker: its clock has to go on from here, or ages would be wrong.
    pub now: Time,
    /// From when the snapshot was written until now; 0 if the system's clock was set back.
    pub passed: Duration,
    /// What was in the snapshot, and what of it is back.
    pub restored: Restored,
}

/// Reads the snapshot in `directory`; `None` if there is none. `at` is the time now, and `make` makes the tracker to fill from
/// the seed; it may name torrents in it, or that is done later.
///
/// # Errors
/// When there is a snapshot that cannot be used, or no such directory. The snapshot has been put aside then, and the daemon
/// goes on without.
pub fn load(
    directory: &Path,
    at: SystemTime,
    make: impl FnOnce(u64) -> Tracker,
) -> Result<Option<Loaded>, LoadError> {
    let path = directory.join(FILE);
    let fault = match open(&path) {
        Ok(file) => match read(BufReader::with_capacity(64 * 1024, file), at, make) {
            Ok(loaded) => return Ok(Some(loaded)),
            Err(fault) => fault,
        },
        Err(Fault::Unreadable(error)) if error.kind() == io::ErrorKind::NotFound => {
            // Told now rather than at the first attempt to write.
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
    let aside = put_aside(directory, at).map(Some);
    Err(LoadError { path, fault, aside })
}

fn open(path: &Path) -> Result<File, Fault> {
    // A FIFO without a writer shall not keep the daemon waiting.
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW;
    let is_file = fs::symlink_metadata(path).map(|found| found.is_file());
    if !is_file.map_err(Fault::Unreadable)? {
        return Err(Fault::NotAFile);
    }
    OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(path)
        .map_err(Fault::Unreadable)
}

fn read(
    mut file: impl Read,
    at: SystemTime,
    make: impl FnOnce(u64) -> Tracker,
) -> Result<Loaded, Fault> {
    let header = Header::read(&mut file)?;
    let written = UNIX_EPOCH + Duration::from_secs(header.written);
    let passed = at.duration_since(written).unwrap_or_default();
    let passed_secs = passed.min(LONGEST_GAP).as_secs() as u32;
    let now = Time(header.time.0.saturating_add(passed_secs));
    let passed_minutes = now.0 / 60 - header.time.0 / 60;

    let tracker = make(header.secrets.seed);
    let mut restore = tracker.restore(now, passed_minutes);
    let (mut health, mut cluster) = (SeedHealth::default(), Vec::new());
    let (mut blocks, mut content) = (0, Vec::new());
    for number in 1.. {
        let taken = match read_frame(&mut file, number, &mut content)? {
            END => break,
            HEALTH => health.restore(&content),
            CLUSTER => {
                cluster.extend_from_slice(&content);
                Ok(())
            }
            _ => {
                blocks += 1;
                restore.restore_block(&content)
            }
        };
        taken.map_err(|_| Fault::Damaged("a block is not as its writer should have made it"))?;
    }
    let restored = restore.finish();
    let end = End {
        blocks,
        totals: restored.stored,
    };
    if content != end.content() {
        return Err(Fault::Damaged("the numbers at its end do not agree"));
    }
    if file.read(&mut [0]).map_err(Fault::Unreadable)? != 0 {
        return Err(Fault::Damaged("it goes on after its end"));
    }
    Ok(Loaded {
        tracker,
        health,
        cluster,
        secrets: header.secrets,
        now,
        passed,
        restored,
    })
}

/// How hard to write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SavePriority {
    /// Rests after each block for three times as long as it took, so that those who announce come first.
    Background,
    /// At once, for when nobody is served any more.
    Shutdown,
}

/// What a snapshot holds beside the tracker.
#[derive(Clone, Copy, Default)]
pub struct Beside<'a> {
    /// As [`SeedHealth::save`] gives it.
    pub health: &'a [u8],
    /// What a cluster's node keeps, of which nothing is known here; asked for once the tracker is written.
    pub cluster: Option<&'a dyn Fn() -> Vec<u8>>,
}

/// Replaces the snapshot in `directory` by one of what `tracker` holds, and of what is beside it. `now` is the tracker's
/// time and `at` the system's, both from before the call. Two calls for one directory must not overlap.
///
/// Waits for the disk: not to be called where announces are served. Meanwhile they are, and what they change may be in the
/// snapshot or not.
///
/// # Errors
/// When the new one cannot be made whole; the old one stays.
pub fn save(
    directory: &Path,
    tracker: &Tracker,
    beside: Beside<'_>,
    now: Time,
    at: SystemTime,
    secrets: &Secrets,
    pace: SavePriority,
) -> Result<Saved, SaveError> {
    let new = directory.join(NEW);
    let failed = |doing| {
        let path = new.clone();
        move |reason| SaveError {
            path,
            doing,
            reason,
        }
    };
    // Left by a process that was killed, whatever it is.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed("removed")(error));
        }
        _ => {}
    }
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)
        .map_err(failed("created"))?;
    let header = Header {
        written: at
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs()),
        time: now,
        secrets: secrets.clone(),
    };
    let saved = write(&file, &header, tracker, beside, pace)
        .and_then(|saved| file.sync_all().map(|()| saved))
        .map_err(failed("written"))
        .and_then(|saved| {
            fs::rename(&new, directory.join(FILE)).map_err(failed("renamed"))?;
            Ok(saved)
        })
        // Its room may be what is short.
        .inspect_err(|_| drop(fs::remove_file(&new)))?;
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(failed("made lasting"))?;
    Ok(saved)
}

fn write(
    file: &File,
    header: &Header,
    tracker: &Tracker,
    beside: Beside<'_>,
    pace: SavePriority,
) -> io::Result<Saved> {
    let mut file = BufWriter::with_capacity(64 * 1024, file);
    file.write_all(&header.bytes())?;
    let (mut walk, mut end, mut content) = (DumpCursor::default(), End::default(), Vec::new());
    let (mut number, mut bytes, mut lasting) = (1, HEADER as u64 + 8, 0);
    loop {
        let started = Instant::now();
        let Some(totals) = tracker.dump_block(header.time, &mut walk, &mut content) else {
            break;
        };
        if !content.is_empty() {
            bytes += write_frame(&mut file, number, BLOCK, &content)?;
            end.count(totals);
            number += 1;
            if pace == SavePriority::Background {
                if bytes - lasting > LASTING {
                    file.flush()?;
                    file.get_ref().sync_data()?;
                    lasting = bytes;
                }
                thread::sleep((3 * started.elapsed()).min(LONGEST_REST));
            }
        }
    }
    let health = beside.health.chunks(HEALTH_FULL).map(|part| (HEALTH, part));
    let cluster = beside.cluster.map(|cluster| cluster()).unwrap_or_default();
    let cluster = cluster.chunks(CLUSTER_FULL);
    for (kind, part) in health.chain(cluster.map(|part| (CLUSTER, part))) {
        bytes += write_frame(&mut file, number, kind, part)?;
        number += 1;
    }
    bytes += write_frame(&mut file, number, END, &end.content())?;
    file.flush()?;
    Ok(Saved {
        totals: end.totals,
        bytes,
    })
}

/// What a snapshot holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Saved {
    /// Torrents with peers, and peers.
    pub totals: Totals,
    /// Its length.
    pub bytes: u64,
}

/// Gives the snapshot a name under which nothing overwrites it, and removes the oldest so named.
fn put_aside(directory: &Path, at: SystemTime) -> io::Result<PathBuf> {
    let mut names = names_aside(directory)?;
    let secs = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    // Later than the latest, whatever the system's clock says.
    let latest = names
        .last()
        .and_then(|name| name[ASIDE.len()..].parse().ok());
    let secs = secs.max(latest.map_or(0, |latest: u64| latest.saturating_add(1)));
    let name = format!("{ASIDE}{secs:010}");
    let aside = directory.join(&name);
    fs::rename(directory.join(FILE), &aside)?;
    names.push(name);
    for old in &names[..names.len().saturating_sub(ASIDE_MOST)] {
        // One too many does no harm.
        let _ = fs::remove_file(directory.join(old));
    }
    Ok(aside)
}

/// Those put aside before, the latest last.
fn names_aside(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name().into_string();
        names.extend(name.ok().filter(|name| name.starts_with(ASIDE)));
    }
    names.sort();
    Ok(names)
}

/// Why there is nothing to go on with, in one line for the operator.
#[derive(Debug)]
pub struct LoadError {
    path: PathBuf,
    fault: Fault,
    /// Where it is now; `None` if there was nothing to put aside.
    aside: io::Result<Option<PathBuf>>,
}

impl LoadError {
    fn of_directory(directory: &Path, error: io::Error) -> Self {
        Self {
            path: directory.to_owned(),
            fault: Fault::Unreadable(error),
            aside: Ok(None),
        }
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}; ", self.path.display(), self.fault)?;
        match &self.aside {
            Ok(Some(aside)) => {
                let aside = aside.display();
                write!(
                    f,
                    "put aside as {aside}, and started without peers and counters"
                )
            }
            Ok(None) => f.write_str(
                "make the directory, and let the user that runs tbtt read and write in it",
            ),
            Err(error) => write!(
                f,
                "it cannot be put aside either, {error}, and will be replaced; started without peers and counters"
            ),
        }
    }
}

impl std::error::Error for LoadError {}

/// Why there is no new snapshot, in one line for the operator.
#[derive(Debug)]
pub struct SaveError {
    path: PathBuf,
    doing: &'static str,
    reason: io::Error,
}

impl fmt::Display for SaveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, doing, reason) = (self.path.display(), self.doing, &self.reason);
        write!(
            f,
            "{path} cannot be {doing}: {reason}; the last snapshot stays"
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
    use crate::tracker::{InfoHash, Settings, UnixTime};

    const SECRETS: Secrets = Secrets {
        seed: 0x0123_4567_89ab_cdef,
        connection_id: *b"sixteen secrets!",
    };

    fn header() -> Header {
        Header {
            written: 1_800_000_000,
            time: Time(90_000),
            secrets: SECRETS,
        }
    }

    /// A snapshot of nothing.
    fn empty() -> Vec<u8> {
        let mut file = header().bytes();
        write_frame(&mut file, 1, END, &End::default().content()).unwrap();
        file
    }

    fn read_at(file: &[u8], unix_secs: u64) -> Result<Loaded, Fault> {
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
    fn the_header_is_the_same_on_every_machine() {
        let bytes = header().bytes();
        let expected = [
            b"TBTTSNAP".as_slice(),
            &[0, 0, 0, 1],
            &[0, 0, 0, 0, 0x6b, 0x49, 0xd2, 0x00],
            &[0, 1, 0x5f, 0x90],
            &[0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef],
            b"sixteen secrets!",
            // SipHash-1-3 of all that, the key "TBTTSNAP" and 0.
            &[0xfa, 0x48, 0x0a, 0x6d, 0x2f, 0x20, 0xef, 0x2b],
        ];
        assert_eq!(bytes, expected.concat());
        let read = read_at(&empty(), 0).unwrap();
        assert_eq!(read.secrets, SECRETS);
    }

    #[test]
    fn the_trackers_time_goes_on_across_the_gap() {
        for (at, now) in [
            (1_800_000_000, 90_000),
            (1_800_000_061, 90_061),
            // The system's clock was set back.
            (1_799_999_999, 90_000),
            (0, 90_000),
            // Away for a day and more: how much more does not matter.
            (1_800_086_400, 176_400),
            (1_900_000_000, 176_400),
        ] {
            let loaded = read_at(&empty(), at).unwrap();
            assert_eq!(loaded.now, Time(now), "{at}");
            assert_eq!(loaded.passed.as_secs(), at.saturating_sub(1_800_000_000));
        }
    }

    #[test]
    fn what_is_wrong_is_told_apart() {
        assert_eq!(fault(&empty()), "none");
        assert_eq!(fault(b""), "is damaged: it ends too early");
        assert_eq!(fault(b"d8:announce3:..."), "is not a snapshot of tbtt");

        let mut newer = empty();
        newer[11] = 2;
        newer.truncate(12);
        assert_eq!(
            fault(&newer),
            "has format 2, of another version of tbtt; this one reads format 1"
        );

        let mut longer = empty();
        longer.push(0);
        assert_eq!(fault(&longer), "is damaged: it goes on after its end");

        let with = |kind, content: &[u8]| {
            let mut file = header().bytes();
            write_frame(&mut file, 1, kind, content).unwrap();
            write_frame(&mut file, 2, END, &End::default().content()).unwrap();
            fault(&file)
        };
        assert_eq!(with(b'X', b""), "is damaged: a block is of no known kind");
        assert_eq!(
            with(BLOCK, b"?"),
            "is damaged: a block is not as its writer should have made it"
        );
        assert_eq!(
            with(HEALTH, b"?"),
            "is damaged: a block is not as its writer should have made it"
        );
        assert_eq!(
            with(BLOCK, &[0; 4]),
            "is damaged: the numbers at its end do not agree"
        );

        let mut long = header().bytes();
        long.extend_from_slice(&[BLOCK, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(fault(&long), "is damaged: a block is too long");
    }

    #[test]
    fn blocks_that_changed_places_are_seen() {
        let mut file = header().bytes();
        write_frame(&mut file, 2, BLOCK, &[0; 4]).unwrap();
        assert_eq!(fault(&file), "is damaged: a checksum is wrong");
    }

    #[test]
    fn seeds_may_take_several_frames_or_none() {
        let mut health = SeedHealth::default();
        let id = |number: u32| {
            let mut id = InfoHash([0; 20]);
            id.0[..4].copy_from_slice(&number.to_be_bytes());
            id
        };
        let listed = (0..25_000).map(|number| (id(number), true));
        health.update(Time(0), UnixTime(7), 1, listed);
        let mut file = header().bytes();
        let frames = health.save();
        let frames = frames.chunks(HEALTH_FULL);
        assert_eq!(frames.len(), 3);
        for (number, frame) in (1..).zip(frames) {
            write_frame(&mut file, number, HEALTH, frame).unwrap();
        }
        write_frame(&mut file, 4, END, &End::default().content()).unwrap();
        let read = read_at(&file, 0).unwrap().health;
        for number in [0, 9_999, 10_000, 24_999] {
            assert_eq!(read.history(&id(number)), health.history(&id(number)));
            assert!(read.history(&id(number)).is_some());
        }
        // One from before there were such frames.
        let read = read_at(&empty(), 0).unwrap().health;
        assert_eq!(read.history(&id(0)), None);
    }

    #[test]
    fn a_disk_that_fails_is_not_called_damage() {
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
    fn secrets_are_new_each_time_and_never_shown() {
        let (one, other) = (Secrets::new().unwrap(), Secrets::new().unwrap());
        assert_ne!(one.seed, other.seed);
        assert_ne!(one.connection_id, other.connection_id);
        assert_eq!(format!("{one:?}"), "Secrets(..)");
    }
}
