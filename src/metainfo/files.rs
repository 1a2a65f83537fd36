//! The lists of files in a torrent: `files` of v1, `file tree` of v2, and the comparison of both in a hybrid torrent.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, Visitor};
use serde_bytes::ByteBuf;

use super::bencode::{Dict, MetainfoError, fail};
use super::merkle::{BLOCK, Hash, layer_root};
use super::printable::shown;

/// A file of a torrent.
#[derive(Debug)]
pub struct FileEntry {
    /// The path below the name of the torrent, or for a single file the name itself. Not checked: neither safe to open nor
    /// safe to print.
    pub path: Vec<ByteBuf>,
    /// The length in bytes.
    pub length: u64,
    /// A padding file (BEP 47), which contains no data.
    pub pad: bool,
    /// The root of the hash tree of the file. `None` in a v1 list and for an empty file.
    pub root: Option<Hash>,
}

impl FileEntry {
    /// Returns the last part of the path, safe to print.
    fn shown_name(&self) -> String {
        self.path.last().map(|name| shown(name)).unwrap_or_default()
    }
}

/// Returns the sum of the lengths, or `None` if that exceeds 64 bits.
pub(super) fn total<'f>(mut files: impl Iterator<Item = &'f FileEntry>) -> Option<u64> {
    files.try_fold(0u64, |sum, file| sum.checked_add(file.length))
}

/// The fields of a file in a v1 list or a v2 tree. Unknown keys are ignored.
#[derive(Deserialize)]
struct FileFields {
    length: Option<u64>,
    attr: Option<ByteBuf>,
    path: Option<Vec<ByteBuf>>,
    #[serde(rename = "pieces root")]
    root: Option<ByteBuf>,
}

impl FileFields {
    fn has_attr(&self, letter: u8) -> bool {
        self.attr
            .as_ref()
            .is_some_and(|attr| attr.contains(&letter))
    }

    /// Returns the length. A symbolic link (BEP 47) may have none and then counts as empty.
    fn length(&self) -> Option<u64> {
        self.length.or(self.has_attr(b'l').then_some(0))
    }
}

/// Reads the files of v1. Returns `None` if the torrent has no v1 part.
pub(super) fn read_v1(
    info: &Dict<'_>,
    name: &ByteBuf,
    piece_length: u64,
) -> Result<Option<Vec<FileEntry>>, MetainfoError> {
    let Some(pieces) = info.string("pieces")? else {
        return Ok(None);
    };
    let at = info.offset("pieces");
    let files = match (
        info.read::<u64>("length")?,
        info.read::<Vec<FileFields>>("files")?,
    ) {
        (Some(length), None) => vec![FileEntry {
            path: vec![name.clone()],
            length,
            pad: false,
            root: None,
        }],
        (None, Some(list)) => read_v1_files(info.offset("files"), list)?,
        (None, None) => {
            return fail(
                info.span.start,
                "`info` has `pieces` but neither `length` nor `files`",
            );
        }
        (Some(_), Some(_)) => {
            return fail(
                info.offset("length"),
                "`info` has both `length` and `files`",
            );
        }
    };
    let Some(total) = total(files.iter()) else {
        return fail(
            info.span.start,
            "the total size of the files exceeds 2^64 bytes",
        );
    };
    if pieces.len() % 20 != 0 {
        return fail(
            at,
            format!(
                "`pieces` is {} bytes long, not a multiple of 20",
                pieces.len()
            ),
        );
    }
    let (hashes, needed) = (pieces.len() as u64 / 20, total.div_ceil(piece_length));
    if hashes != needed {
        return fail(
            at,
            format!(
                "`pieces` has {hashes} hashes, but {total} bytes in pieces of {piece_length} need {needed}"
            ),
        );
    }
    Ok(Some(files))
}

fn read_v1_files(at: usize, list: Vec<FileFields>) -> Result<Vec<FileEntry>, MetainfoError> {
    if list.is_empty() {
        return fail(at, "`files` is empty");
    }
    let mut files = Vec::with_capacity(list.len());
    for (number, fields) in list.into_iter().enumerate() {
        let Some(length) = fields.length() else {
            return fail(
                at,
                format!("file {} of `files` has no `length`", number + 1),
            );
        };
        let pad = fields.has_attr(b'p');
        match fields.path {
            Some(path) if !path.is_empty() => files.push(FileEntry {
                path,
                length,
                pad,
                root: None,
            }),
            _ => return fail(at, format!("file {} of `files` has no `path`", number + 1)),
        }
    }
    Ok(files)
}

/// Reads the files of v2, and checks their piece layers. Returns `None` if the torrent has no v2 part.
pub(super) fn read_v2(
    file: &Dict<'_>,
    info: &Dict<'_>,
    piece_length: u64,
) -> Result<Option<Vec<FileEntry>>, MetainfoError> {
    let tree = info.offset("file tree");
    match info.read::<i64>("meta version")? {
        None | Some(1) if !info.has("file tree") => return Ok(None),
        None | Some(1) => return fail(tree, "`info` has a `file tree` but not `meta version` 2"),
        Some(2) => {}
        Some(other) => {
            return fail(
                info.offset("meta version"),
                format!("`meta version` {other} is unknown; 1 and 2 are known"),
            );
        }
    }
    if !piece_length.is_power_of_two() || piece_length < BLOCK {
        let reason = format!(
            "`piece length` {piece_length} is not a power of two of at least {BLOCK}, as v2 requires"
        );
        return fail(info.offset("piece length"), reason);
    }
    let Some(value) = info.value("file tree") else {
        return fail(tree, "`meta version` is 2, but there is no `file tree`");
    };
    let mut files = Vec::new();
    let seed = FileTreeSeed {
        path: &mut Vec::new(),
        files: &mut files,
    };
    if let Err(error) = seed.deserialize(&mut serde_bencode::Deserializer::new(value)) {
        return fail(tree, format!("`file tree`: {error}"));
    }
    if files.is_empty() {
        return fail(tree, "`file tree` has no file");
    }
    check_layers(file, tree, &files, piece_length)?;
    Ok(Some(files))
}

/// Reads a directory of a `file tree`, and appends its files to `files`.
struct FileTreeSeed<'t> {
    path: &'t mut Vec<ByteBuf>,
    files: &'t mut Vec<FileEntry>,
}

impl<'de> DeserializeSeed<'de> for FileTreeSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for FileTreeSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a dictionary of files and directories")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut is_file = false;
        while let Some(name) = map.next_key::<ByteBuf>()? {
            if is_file {
                return Err(A::Error::custom("an entry is both a file and a directory"));
            }
            if name.is_empty() {
                is_file = true;
                let file = tree_file(self.path, &map.next_value()?).map_err(A::Error::custom)?;
                self.files.push(file);
            } else {
                self.path.push(name);
                map.next_value_seed(FileTreeSeed {
                    path: self.path,
                    files: self.files,
                })?;
                self.path.pop();
            }
        }
        Ok(())
    }
}

fn tree_file(path: &[ByteBuf], fields: &FileFields) -> Result<FileEntry, &'static str> {
    if path.is_empty() {
        return Err("a file has no name");
    }
    let length = fields.length().ok_or("a file has no `length`")?;
    let root = match &fields.root {
        Some(root) => Some(
            <[u8; 32]>::try_from(root.as_slice())
                .map_err(|_| "a `pieces root` is not 32 bytes long")?,
        ),
        None if length == 0 => None,
        None => return Err("a file that is not empty has no `pieces root`"),
    };
    Ok(FileEntry {
        path: path.to_vec(),
        length,
        pad: fields.has_attr(b'p'),
        root,
    })
}

/// Checks that every file larger than a piece has a layer of piece hashes that matches the root of the file.
fn check_layers(
    file: &Dict<'_>,
    tree: usize,
    files: &[FileEntry],
    piece_length: u64,
) -> Result<(), MetainfoError> {
    let layers = file.dict("piece layers")?;
    for file in files.iter().filter(|file| file.length > piece_length) {
        let layer_name = || format!("the piece layer of `{}`", file.shown_name());
        let layer = match (&layers, &file.root) {
            (Some(layers), Some(root)) => layers
                .string(root)?
                .map(|hashes| (layers.offset(root), hashes)),
            _ => None,
        };
        let Some((at, hashes)) = layer else {
            return fail(
                tree,
                format!("{} is missing from `piece layers`", layer_name()),
            );
        };
        if hashes.len() % 32 != 0 {
            return fail(
                at,
                format!(
                    "{} is {} bytes long, not a multiple of 32",
                    layer_name(),
                    hashes.len()
                ),
            );
        }
        let (count, needed) = (hashes.len() as u64 / 32, file.length.div_ceil(piece_length));
        if count != needed {
            return fail(
                at,
                format!(
                    "{} has {count} hashes, but its length needs {needed}",
                    layer_name()
                ),
            );
        }
        if Some(layer_root(hashes, piece_length)) != file.root {
            return fail(
                at,
                format!("{} does not hash to its `pieces root`", layer_name()),
            );
        }
    }
    Ok(())
}

/// Checks that both parts of a hybrid torrent list the same files in the same order, each at a piece boundary (BEP 52).
pub(super) fn check_hybrid(
    info: &Dict<'_>,
    piece_length: u64,
    v1: &[FileEntry],
    v2: &[FileEntry],
) -> Result<(), MetainfoError> {
    let at = if info.has("files") {
        info.offset("files")
    } else {
        info.offset("length")
    };
    let same = |(left, right): (&FileEntry, &FileEntry)| {
        left.path == right.path && left.length == right.length
    };
    let data = || v1.iter().filter(|file| !file.pad);
    if data().count() != v2.len() || !data().zip(v2).all(same) {
        return fail(at, "the v1 files differ from those of the `file tree`");
    }
    let mut position = 0u64;
    for file in v1 {
        if !file.pad && file.length > 0 && position % piece_length != 0 {
            let name = file.shown_name();
            return fail(
                at,
                format!(
                    "`{name}` does not start at a piece boundary, as a hybrid torrent requires"
                ),
            );
        }
        position = position.saturating_add(file.length);
    }
    Ok(())
}
