//! Reads and writes `.torrent` files. A torrent is written under a temporary name and renamed, so that no other program
//! reads an incomplete torrent.

use std::ffi::OsString;
use std::fmt::Display;
use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use crate::{Exit, Failed, fail};

/// Maximum size of a torrent in bytes. libtorrent and the tracker do not read larger torrents either.
const MAX_BYTES: u64 = 64 << 20;

/// Reads a torrent; `-` is standard input.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Failed> {
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        io::stdin().take(MAX_BYTES + 1).read_to_end(&mut bytes)
    } else {
        fs::File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes))
    };
    match read {
        Err(error) => Err(unreadable(path, error)),
        Ok(_) if bytes.len() as u64 > MAX_BYTES => {
            let reason = format!("larger than {MAX_BYTES} bytes; this is not a torrent");
            Err(invalid(path, reason))
        }
        Ok(_) => Ok(bytes),
    }
}

/// Returns the failure of a file that cannot be read.
pub(crate) fn unreadable(path: &Path, error: impl Display) -> Failed {
    let path = path.display();
    fail(Exit::NoInput, format!("cannot read {path}: {error}"))
}

/// Returns the failure of a file whose content or name is not valid.
pub(crate) fn invalid(path: &Path, reason: impl Display) -> Failed {
    fail(Exit::Data, format!("{}: {reason}", path.display()))
}

/// The place to which a torrent is written.
pub(crate) enum Target {
    Stdout,
    File(PathBuf),
}

impl Target {
    /// Returns the target that `--output` names, or else `default`. In a directory, the torrent has the file name of
    /// `default`.
    ///
    /// # Errors
    /// If there are several torrents and `output` is not a directory.
    pub(crate) fn new(
        output: Option<&Path>,
        default: &Path,
        several: bool,
    ) -> Result<Self, Failed> {
        let Some(output) = output else {
            return Ok(Self::at(default));
        };
        if output.is_dir() {
            let name = default.file_name().unwrap_or_default();
            return Ok(Self::File(output.join(name)));
        }
        if several {
            let reason = format!(
                "{}: not a directory; --output must be a directory if there are several torrents",
                output.display()
            );
            return Err(fail(Exit::Usage, reason));
        }
        Ok(Self::at(output))
    }

    fn at(path: &Path) -> Self {
        match path == Path::new("-") {
            true => Self::Stdout,
            false => Self::File(path.to_owned()),
        }
    }

    /// Fails if the target exists.
    pub(crate) fn check_absent(&self) -> Result<(), Failed> {
        match self {
            Self::File(path) if path.symlink_metadata().is_ok() => {
                let reason = format!(
                    "{}: already exists; add --force to overwrite it",
                    path.display()
                );
                Err(fail(Exit::CannotCreate, reason))
            }
            _ => Ok(()),
        }
    }

    /// Fails if the target is inside `root`, the directory of which the torrent is created.
    pub(crate) fn check_outside(&self, root: &Path) -> Result<(), Failed> {
        let Self::File(path) = self else {
            return Ok(());
        };
        let parent = path.parent().filter(|parent| *parent != Path::new(""));
        let directory = fs::canonicalize(parent.unwrap_or(Path::new(".")));
        if root.is_dir() && directory.is_ok_and(|directory| directory.starts_with(root)) {
            let reason = format!(
                "{}: inside the directory to publish; give another --output",
                path.display()
            );
            return Err(fail(Exit::Usage, reason));
        }
        Ok(())
    }

    pub(crate) fn write(&self, bytes: &[u8]) -> Result<(), Failed> {
        let (written, path) = match self {
            Self::Stdout => (write_stdout(bytes), Path::new("standard output")),
            Self::File(path) => (replace(path, bytes), path.as_path()),
        };
        written.map_err(|error| {
            let path = path.display();
            fail(Exit::CannotCreate, format!("cannot write {path}: {error}"))
        })
    }
}

fn write_stdout(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

/// Writes to a temporary name in the same directory, and renames. The temporary name starts with a dot, because the
/// tracker skips such names.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = OsString::from(".");
    name.push(path.file_name().ok_or(io::ErrorKind::InvalidInput)?);
    name.push(format!(".{}", std::process::id()));
    let temporary = path.with_file_name(name);
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&temporary)?;
        file.write_all(bytes)?;
        if let Ok(old) = fs::metadata(path) {
            file.set_permissions(old.permissions())?;
        }
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().inspect_err(|_| drop(fs::remove_file(&temporary)))
}
