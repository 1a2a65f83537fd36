//! Detects changes of a file from its metadata, without reading the file.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use nix::fcntl::OFlag;

/// Identifies a file or directory independently of its name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Inode {
    device: u64,
    number: u64,
}

impl Inode {
    pub(super) fn of(metadata: &Metadata) -> Self {
        let (device, number) = (metadata.dev(), metadata.ino());
        Self { device, number }
    }

    /// Follows symbolic links. Returns `None` if `path` does not exist or cannot be reached.
    pub(super) fn at(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|metadata| Self::of(&metadata))
    }
}

/// The metadata that differs between two contents of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FileVersion {
    inode: Inode,
    pub(super) size: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    /// Seconds and nanoseconds of the last change of the inode. A change of the permissions may have made the file
    /// readable.
    changed: (i64, i64),
}

impl FileVersion {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            inode: Inode::of(metadata),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Returns the time since the last modification. `None` if that is in the future.
    pub(super) fn age(&self) -> Option<Duration> {
        let modified = Duration::new(
            u64::try_from(self.modified.0).ok()?,
            u32::try_from(self.modified.1).ok()?,
        );
        SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH + modified)
            .ok()
    }
}

/// Reads at most `max_bytes` of a file. Returns the content, and the versions of the file before and after.
pub(super) fn read_with_versions(
    path: &Path,
    max_bytes: u64,
) -> io::Result<(Vec<u8>, FileVersion, FileVersion)> {
    // If a pipe has replaced the file, O_NONBLOCK prevents waiting for a writer.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)?;
    let version = |file: &File| file.metadata().map(|metadata| FileVersion::of(&metadata));
    let before = version(&file)?;
    let mut bytes =
        Vec::with_capacity(usize::try_from(before.size.min(max_bytes)).unwrap_or(0) + 1);
    (&file).take(max_bytes).read_to_end(&mut bytes)?;
    Ok((bytes, before, version(&file)?))
}
