//! A file or directory against its torrent: which files and which pieces are wrong.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use tbtt::metainfo::files::FileEntry;
use tbtt::metainfo::printable::shown;
use tbtt::metainfo::{Details, Metainfo};

use crate::arguments::Verify;
use crate::hash::{Hashed, Job, Piece};
use crate::{Exit, Failed, fail, file, print};

pub(crate) fn run(verify: &Verify) -> Result<(), Failed> {
    let bytes = file::read(&verify.torrent)?;
    let (metainfo, details) =
        Details::parse(&bytes).map_err(|fault| file::faulty(&verify.torrent, fault))?;
    let root = match &verify.path {
        Some(path) => path.clone(),
        None => beside(&verify.torrent, &details.name)
            .map_err(|fault| file::faulty(&verify.torrent, fault))?,
    };
    // The layout counts what v1 lists, padding with it, or what v2 does.
    let listed = details
        .v1
        .as_ref()
        .or(details.v2.as_ref())
        .map_or(&[][..], Vec::as_slice);
    let files = paths(listed, &root, details.is_single)
        .map_err(|fault| file::faulty(&verify.torrent, fault))?;
    if let Err(error) = fs::metadata(&root) {
        return Err(fail(Exit::NoInput, format!("{}: {error}", root.display())));
    }

    let layout = details.layout(metainfo.piece_length);
    let job = Job {
        layout: &layout,
        files: &files,
        v1: metainfo.v1.is_some(),
        v2: metainfo.v2.is_some(),
        go_on: true,
    };
    let Hashed { pieces, faults } = job.run(&verify.work);
    let mut report = Report::new(files.len());
    for (number, (path, length)) in files.iter().enumerate() {
        if !listed[number].pad {
            report.faults[number] = fault(path, *length);
        }
    }
    for (number, error) in faults {
        report.faults[number].get_or_insert_with(|| error.to_string());
    }
    let expected = Expected::new(&metainfo, &details, listed);
    for (number, piece) in pieces.iter().enumerate() {
        let part = layout
            .piece(number as u64)
            .find_map(|part| Some((part.file?, part.offset)));
        let is_right = piece
            .as_ref()
            .is_some_and(|piece| expected.has(number, part, piece));
        if !is_right {
            report.wrong.push(number);
            for file in layout.piece(number as u64).filter_map(|part| part.file) {
                report.pieces[file].push(number);
            }
        }
    }
    report.tell(verify, &files, pieces.len(), &metainfo)
}

/// The file or directory that lies beside its torrent.
pub(crate) fn beside(torrent: &Path, name: &[u8]) -> Result<PathBuf, String> {
    Ok(torrent.with_file_name(safe(name)?))
}

/// Where each listed file should lie; refused, if a path leads elsewhere.
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

/// A part of a path that stays where it is.
fn safe(part: &[u8]) -> Result<&std::ffi::OsStr, String> {
    use std::os::unix::ffi::OsStrExt as _;
    if matches!(part, b"" | b"." | b"..") || part.contains(&b'/') || part.contains(&0) {
        return Err(format!("`{}` is no name of a file", shown(part)));
    }
    Ok(std::ffi::OsStr::from_bytes(part))
}

/// What can be seen of a file without reading it.
pub(crate) fn fault(path: &Path, length: u64) -> Option<String> {
    match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Some("is missing".to_owned()),
        Err(error) => Some(error.to_string()),
        Ok(metadata) if !metadata.is_file() => Some("is no file".to_owned()),
        Ok(metadata) if metadata.len() != length => {
            Some(format!("has {} bytes instead of {length}", metadata.len()))
        }
        Ok(_) => None,
    }
}

/// The hashes that pieces should have.
struct Expected<'a> {
    v1: Option<&'a [u8]>,
    /// For each file of the layout: its layer, or else its root.
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

    /// `part` is the file's part that the piece begins with.
    fn has(&self, number: usize, part: Option<(usize, u64)>, piece: &Piece) -> bool {
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
    /// What is wrong with each file but its content.
    faults: Vec<Option<String>>,
    /// The wrong pieces that each file has part in.
    pieces: Vec<Vec<usize>>,
    wrong: Vec<usize>,
}

impl Report {
    fn new(files: usize) -> Self {
        Self {
            faults: vec![None; files],
            pieces: vec![Vec::new(); files],
            wrong: Vec::new(),
        }
    }

    fn tell(
        &self,
        verify: &Verify,
        files: &[(PathBuf, u64)],
        pieces: usize,
        metainfo: &Metainfo,
    ) -> Result<(), Failed> {
        let mut bad = 0;
        for (number, (path, _)) in files.iter().enumerate() {
            let mut told = Vec::new();
            told.extend(self.faults[number].clone());
            if !self.pieces[number].is_empty() {
                told.push(format!("wrong pieces: {}", ranges(&self.pieces[number])));
            }
            if !told.is_empty() {
                bad += 1;
                let path = shown(path.as_os_str().as_encoded_bytes());
                print(&format!("{path}: {}\n", told.join("; ")));
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
                    "{}: all {pieces} pieces are right, by {versions}\n",
                    metainfo.name
                ));
            }
            return Ok(());
        }
        let reason = format!(
            "{}: {} of {pieces} pieces are wrong, in {bad} files",
            verify.torrent.display(),
            self.wrong.len()
        );
        Err(fail(Exit::Differs, reason))
    }
}

/// As 0, 3-5, 9.
fn ranges(numbers: &[usize]) -> String {
    numbers
        .chunk_by(|one, next| one + 1 == *next)
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
    fn runs_of_pieces_are_joined() {
        assert_eq!(ranges(&[0, 3, 4, 5, 9]), "0, 3-5, 9");
        assert_eq!(ranges(&[]), "");
    }

    #[test]
    fn names_stay_below() {
        assert!(safe(b"a..b").is_ok() && safe(b"\xff").is_ok());
        for bad in [&b""[..], b".", b"..", b"a/b", b"/", b"a\0"] {
            assert!(safe(bad).is_err(), "{}", bad.escape_ascii());
        }
    }
}
