//! `.torrent` files on disk: read whole, written beside and renamed, so that nobody meets half of one.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use crate::{Exit, Failed, fail};

/// A larger file is no torrent: libtorrent and the tracker would not read it either.
const MAX_BYTES: u64 = 64 << 20;

/// A `.torrent`, or standard input for `-`.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Failed> {
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        io::stdin().take(MAX_BYTES + 1).read_to_end(&mut bytes)
    } else {
        fs::File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes))
    };
    match read {
        Err(error) => Err(fail(Exit::NoInput, format!("{}: {error}", path.display()))),
        Ok(_) if bytes.len() as u64 > MAX_BYTES => {
            let reason = format!(
                "{}: larger than {MAX_BYTES} bytes, so no torrent",
                path.display()
            );
            Err(fail(Exit::Data, reason))
        }
        Ok(_) => Ok(bytes),
    }
}

/// What is wrong with a file's content.
pub(crate) fn faulty(path: &Path, reason: impl std::fmt::Display) -> Failed {
    fail(Exit::Data, format!("{}: {reason}", path.display()))
}

/// Where a torrent is to be written.
pub(crate) enum Target {
    Stdout,
    File(PathBuf),
}

impl Target {
    /// What `--output` says, else `default`; in a directory under the default's name. Of several only a directory takes all.
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
                "{}: no directory, as it must be for several torrents",
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

    /// Refuses to write over what is there.
    pub(crate) fn check_absent(&self) -> Result<(), Failed> {
        match self {
            Self::File(path) if path.symlink_metadata().is_ok() => {
                let reason = format!("{}: there already; --force writes over it", path.display());
                Err(fail(Exit::CannotCreate, reason))
            }
            _ => Ok(()),
        }
    }

    /// Refuses to write into the directory that it is to be the torrent of.
    pub(crate) fn check_outside(&self, root: &Path) -> Result<(), Failed> {
        let Self::File(path) = self else {
            return Ok(());
        };
        let parent = path.parent().filter(|parent| *parent != Path::new(""));
        let directory = fs::canonicalize(parent.unwrap_or(Path::new(".")));
        if root.is_dir() && directory.is_ok_and(|directory| directory.starts_with(root)) {
            let reason = format!("{}: lies in what is to be published", path.display());
            return Err(fail(Exit::Usage, reason));
        }
        Ok(())
    }

    pub(crate) fn write(&self, bytes: &[u8]) -> Result<(), Failed> {
        let (written, path) = match self {
            Self::Stdout => (write_out(bytes), Path::new("standard output")),
            Self::File(path) => (replace(path, bytes), path.as_path()),
        };
        written.map_err(|error| fail(Exit::CannotCreate, format!("{}: {error}", path.display())))
    }
}

fn write_out(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

/// Writes beside it under a name that begins with a dot, which the tracker passes over, and renames.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().ok_or(io::ErrorKind::InvalidInput)?);
    name.push(format!(".{}", std::process::id()));
    let beside = path.with_file_name(name);
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&beside)?;
        file.write_all(bytes)?;
        if let Ok(old) = fs::metadata(path) {
            file.set_permissions(old.permissions())?;
        }
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    write().inspect_err(|_| drop(fs::remove_file(&beside)))
}
