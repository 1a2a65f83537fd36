//! `verify`: compares a file or directory with its torrent, and reports the files and pieces that differ.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use tbtt::metainfo::files::FileEntry;
use tbtt::metainfo::printable::shown;
use tbtt::metainfo::{Details, Metainfo};

use crate::arguments::Verify;
use crate::hash::{Hashed, Job, Piece};
use crate::{Exit, Failed, count, fail, file, print};

pub(crate) fn run(verify: &Verify) -> Result<(), Failed> {
    let bytes = file::read(&verify.torrent)?;
    let invalid = |reason: String| file::invalid(&verify.torrent, reason);
    let (metainfo, details) =
        Details::parse(&bytes).map_err(|error| file::invalid(&verify.torrent, error))?;
    let root = match &verify.path {
        Some(path) => path.clone(),
        None => next_to(&verify.torrent, &details.name).map_err(invalid)?,
    };
    // The layout has the files of version 1, including padding files, or else those of version 2.
    let listed = details
        .v1
        .as_ref()
        .or(details.v2.as_ref())
        .map_or(&[][..], Vec::as_slice);
    let files = paths(listed, &root, details.is_single).map_err(invalid)?;
    fs::metadata(&root).map_err(|error| file::unreadable(&root, error))?;

    let layout = details.layout(metainfo.piece_length);
    let job = Job {
        layout: &layout,
        files: &files,
        v1: metainfo.v1.is_some(),
        v2: metainfo.v2.is_some(),
        continue_after_error: true,
    };
    let Hashed { pieces, errors } = job.run(&verify.work);
    let mut report = Report::new(files.len());
    for (number, (path, length)) in files.iter().enumerate() {
        if !listed[number].pad {
            report.errors[number] = check_metadata(path, *length).err();
        }
    }
    for (number, error) in errors {
        report.errors[number].get_or_insert_with(|| format!("cannot be read: {error}"));
    }
    let expected = Expected::new(&metainfo, &details, listed);
    for (number, piece) in pieces.iter().enumerate() {
        let part = layout
            .piece(number as u64)
            .find_map(|part| Some((part.file?, part.offset)));
        let is_correct = piece
            .as_ref()
            .is_some_and(|piece| expected.matches(number, part, piece));
        if !is_correct {
            report.wrong.push(number);
            for file in layout.piece(number as u64).filter_map(|part| part.file) {
                report.pieces[file].push(number);
            }
        }
    }
    report.print(verify, &files, layout.pieces(), &metainfo)
}

/// Returns the path of the file or directory next to its torrent.
pub(crate) fn next_to(torrent: &Path, name: &[u8]) -> Result<PathBuf, String> {
    Ok(torrent.with_file_name(safe(name)?))
}

/// Returns the path and length of each listed file.
///
/// # Errors
/// If a name in the torrent could lead out of `root`.
pub(crate) fn paths(
    listed: &[FileEntry],
    root: &Path,
    is_single: bool,
) -> Result<Vec<(PathBuf, u64)>, String> {
    let path = |file: &FileEntry| {
        let mut path = root.to_owned();
        for part in file.path.iter().filter(|_| !is_single) {
            path.push(safe(part)?);
        }
        Ok((path, file.length))
    };
    listed.iter().map(path).collect()
}

/// Returns a component of a path, unless it could lead out of its directory.
fn safe(part: &[u8]) -> Result<&std::ffi::OsStr, String> {
    use std::os::unix::ffi::OsStrExt as _;
    if matches!(part, b"" | b"." | b"..") || part.contains(&b'/') || part.contains(&0) {
        return Err(format!("`{}` is not a file name", shown(part)));
    }
    Ok(std::ffi::OsStr::from_bytes(part))
}

/// Checks a file without reading it.
///
/// # Errors
/// The reason why the file cannot be that of the torrent, without the path in front.
pub(crate) fn check_metadata(path: &Path, length: u64) -> Result<(), String> {
    match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Err("is missing".to_owned()),
        Err(error) => Err(format!("cannot be read: {error}")),
        Ok(metadata) if !metadata.is_file() => Err("is not a regular file".to_owned()),
        Ok(metadata) if metadata.len() != length => {
            let actual = count(metadata.len(), "byte");
            Err(format!("has {actual} instead of {length}"))
        }
        Ok(_) => Ok(()),
    }
}

/// The hashes of the pieces in the torrent.
struct Expected<'a> {
    v1: Option<&'a [u8]>,
    /// For each file of the layout: the piece layer, or the root of a file of one piece. Empty for padding files, and
    /// without version 2.
    v2: Vec<&'a [u8]>,
    piece_length: u64,
}

impl<'a> Expected<'a> {
    fn new(metainfo: &Metainfo, details: &'a Details<'_>, listed: &[FileEntry]) -> Self {
        let mut of_files = details
            .v2
            .iter()
            .flatten()
            .zip(&details.layers)
            .map(|(file, layer)| match (&file.root, layer.is_empty()) {
                (Some(root), true) => &root[..],
                _ => *layer,
            });
        let has_v2 = metainfo.v2.is_some();
        let of_listed = listed.iter().map(|file| match has_v2 && !file.pad {
            true => of_files.next().unwrap_or_default(),
            false => &[],
        });
        Self {
            v2: of_listed.collect(),
            v1: metainfo.v1.is_some().then_some(details.pieces),
            piece_length: metainfo.piece_length,
        }
    }

    /// Returns whether a piece has the expected hashes in all versions. `part` is the file with which the piece begins, and
    /// the offset in the file.
    fn matches(&self, number: usize, part: Option<(usize, u64)>, piece: &Piece) -> bool {
        let v1 = self
            .v1
            .is_none_or(|pieces| pieces.chunks_exact(20).nth(number) == Some(&piece.v1[..]));
        let v2 = part.is_none_or(|(file, offset)| {
            let layer = self.v2[file];
            let at = (offset / self.piece_length) as usize;
            layer.is_empty() || layer.chunks_exact(32).nth(at) == Some(&piece.v2[..])
        });
        v1 && v2
    }
}

struct Report {
    /// For each file, an error other than in its content.
    errors: Vec<Option<String>>,
    /// For each file, the wrong pieces that contain a part of the file.
    pieces: Vec<Vec<usize>>,
    /// All wrong pieces.
    wrong: Vec<usize>,
}

impl Report {
    fn new(files: usize) -> Self {
        Self {
            errors: vec![None; files],
            pieces: vec![Vec::new(); files],
            wrong: Vec::new(),
        }
    }

    /// Prints the report; fails if anything differs.
    fn print(
        &self,
        verify: &Verify,
        files: &[(PathBuf, u64)],
        pieces: u64,
        metainfo: &Metainfo,
    ) -> Result<(), Failed> {
        let mut bad = 0;
        for (number, (path, _)) in files.iter().enumerate() {
            let mut reasons = Vec::new();
            reasons.extend(self.errors[number].clone());
            match self.pieces[number].as_slice() {
                [] => {}
                [only] => reasons.push(format!("wrong piece: {only}")),
                several => reasons.push(format!("wrong pieces: {}", ranges(several))),
            }
            if !reasons.is_empty() {
                bad += 1;
                let path = shown(path.as_os_str().as_encoded_bytes());
                print(&format!("{path}: {}\n", reasons.join("; ")));
            }
        }
        if bad == 0 && self.wrong.is_empty() {
            if !verify.work.quiet {
                let versions = match (metainfo.v1, metainfo.v2) {
                    (Some(_), Some(_)) => "both versions",
                    (Some(_), None) => "version 1",
                    _ => "version 2",
                };
                print(&format!(
                    "{}: {} verified, no errors ({versions})\n",
                    metainfo.name,
                    count(pieces, "piece")
                ));
            }
            return Ok(());
        }
        let reason = format!(
            "{}: {} and {} of {} differ",
            verify.torrent.display(),
            count(bad, "file"),
            self.wrong.len(),
            count(pieces, "piece")
        );
        Err(fail(Exit::Differs, reason))
    }
}

/// Returns numbers with runs joined: `0, 3-5, 9`.
fn ranges(numbers: &[usize]) -> String {
    numbers
        .chunk_by(|number, next| number + 1 == *next)
        .map(|run| match run {
            [only] => only.to_string(),
            _ => format!("{}-{}", run[0], run[run.len() - 1]),
        })
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joins_runs_of_pieces() {
        assert_eq!(ranges(&[0, 3, 4, 5, 9]), "0, 3-5, 9");
        assert_eq!(ranges(&[]), "");
    }

    #[test]
    fn rejects_names_that_lead_out_of_the_directory() {
        assert!(safe(b"a..b").is_ok() && safe(b"\xff").is_ok());
        for bad in [&b""[..], b".", b"..", b"a/b", b"/", b"a\0"] {
            assert!(safe(bad).is_err(), "{}", bad.escape_ascii());
        }
    }
}
