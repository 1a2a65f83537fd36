//! The files of a torrent, as v1 and v2 of the format list them.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, Visitor};
use serde_bytes::ByteBuf;

use super::bencode::{Dict, Fault, fault};
use super::merkle::{BLOCK, Hash, layer_root};
use super::printable::shown;

/// A file that a torrent is of.
#[derive(Debug)]
pub struct File {
    /// Below the torrent's name, if it is of more than one file; not fit to open or to print.
    pub path: Vec<ByteBuf>,
    /// Bytes.
    pub length: u64,
    /// Padding between files (BEP 47), no data.
    pub pad: bool,
    /// The root of the file's hash tree, if it is of a v2 list and not empty.
    pub root: Option<Hash>,
}

impl File {
    fn shown_name(&self) -> String {
        self.path.last().map(|name| shown(name)).unwrap_or_default()
    }
}

pub(super) fn total<'f>(mut files: impl Iterator<Item = &'f File>) -> Option<u64> {
    files.try_fold(0u64, |sum, file| sum.checked_add(file.length))
}

/// A file as a v1 list or a v2 tree has it. Unknown keys are left alone.
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

    /// A symbolic link (BEP 47) may come without a length.
    fn length(&self) -> Option<u64> {
        self.length.or(self.has_attr(b'l').then_some(0))
    }
}

pub(super) fn read_v1(
    info: &Dict<'_>,
    name: &ByteBuf,
    piece_length: u64,
) -> Result<Option<Vec<File>>, Fault> {
    let Some(pieces) = info.string("pieces")? else {
        return Ok(None);
    };
    let at = info.offset("pieces");
    let files = match (
        info.read::<u64>("length")?,
        info.read::<Vec<FileFields>>("files")?,
    ) {
        (Some(length), None) => vec![File {
            path: vec![name.clone()],
            length,
            pad: false,
            root: None,
        }],
        (None, Some(list)) => read_v1_files(info.offset("files"), list)?,
        (None, None) => {
            return fault(
                info.span.start,
                "`info` has `pieces` but neither `length` nor `files`",
            );
        }
        (Some(_), Some(_)) => {
            return fault(
                info.offset("length"),
                "`info` has both `length` and `files`",
            );
        }
    };
    let Some(total) = total(files.iter()) else {
        return fault(
            info.span.start,
            "the files are larger than 2^64 bytes together",
        );
    };
    if pieces.len() % 20 != 0 {
        return fault(
            at,
            format!(
                "`pieces` is {} bytes long, not a multiple of 20",
                pieces.len()
            ),
        );
    }
    let (hashes, needed) = (pieces.len() as u64 / 20, total.div_ceil(piece_length));
    if hashes != needed {
        return fault(
            at,
            format!(
                "`pieces` has {hashes} hashes, but {total} bytes in pieces of {piece_length} need {needed}"
            ),
        );
    }
    Ok(Some(files))
}

fn read_v1_files(at: usize, list: Vec<FileFields>) -> Result<Vec<File>, Fault> {
    if list.is_empty() {
        return fault(at, "`files` is empty");
    }
    let mut files = Vec::with_capacity(list.len());
    for (number, fields) in list.into_iter().enumerate() {
        let Some(length) = fields.length() else {
            return fault(
                at,
                format!("file {} of `files` has no `length`", number + 1),
            );
        };
        let pad = fields.has_attr(b'p');
        match fields.path {
            Some(path) if !path.is_empty() => files.push(File {
                path,
                length,
                pad,
                root: None,
            }),
            _ => return fault(at, format!("file {} of `files` has no `path`", number + 1)),
        }
    }
    Ok(files)
}

pub(super) fn read_v2(
    file: &Dict<'_>,
    info: &Dict<'_>,
    piece_length: u64,
) -> Result<Option<Vec<File>>, Fault> {
    let tree = info.offset("file tree");
    match info.read::<i64>("meta version")? {
        None | Some(1) if !info.has("file tree") => return Ok(None),
        None | Some(1) => return fault(tree, "`info` has a `file tree` but not `meta version` 2"),
        Some(2) => {}
        Some(other) => {
            return fault(
                info.offset("meta version"),
                format!("`meta version` {other} is unknown; 1 and 2 are known"),
            );
        }
    }
    if !piece_length.is_power_of_two() || piece_length < BLOCK {
        let reason = format!(
            "`piece length` {piece_length} is not a power of two from {BLOCK} on, as v2 demands"
        );
        return fault(info.offset("piece length"), reason);
    }
    let Some(value) = info.value("file tree") else {
        return fault(tree, "`meta version` is 2, but there is no `file tree`");
    };
    let mut files = Vec::new();
    let seed = Tree {
        path: &mut Vec::new(),
        files: &mut files,
    };
    if let Err(error) = seed.deserialize(&mut serde_bencode::Deserializer::new(value)) {
        return fault(tree, format!("`file tree`: {error}"));
    }
    if files.is_empty() {
        return fault(tree, "`file tree` has no file");
    }
    check_layers(file, tree, &files, piece_length)?;
    Ok(Some(files))
}

/// One directory of a `file tree`, its files put behind those that came before.
struct Tree<'t> {
    path: &'t mut Vec<ByteBuf>,
    files: &'t mut Vec<File>,
}

impl<'de> DeserializeSeed<'de> for Tree<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Tree<'_> {
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
                map.next_value_seed(Tree {
                    path: self.path,
                    files: self.files,
                })?;
                self.path.pop();
            }
        }
        Ok(())
    }
}

fn tree_file(path: &[ByteBuf], fields: &FileFields) -> Result<File, &'static str> {
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
    Ok(File {
        path: path.to_vec(),
        length,
        pad: fields.has_attr(b'p'),
        root,
    })
}

/// Every file larger than a piece has its layer of piece hashes, and they hash to the file's root.
fn check_layers(
    file: &Dict<'_>,
    tree: usize,
    files: &[File],
    piece_length: u64,
) -> Result<(), Fault> {
    let layers = file.dict("piece layers")?;
    for file in files.iter().filter(|file| file.length > piece_length) {
        let of_file = || format!("the piece layer of `{}`", file.shown_name());
        let layer = match (&layers, &file.root) {
            (Some(layers), Some(root)) => layers
                .string(root)?
                .map(|hashes| (layers.offset(root), hashes)),
            _ => None,
        };
        let Some((at, hashes)) = layer else {
            return fault(
                tree,
                format!("{} is missing from `piece layers`", of_file()),
            );
        };
        if hashes.len() % 32 != 0 {
            return fault(
                at,
                format!(
                    "{} is {} bytes long, not a multiple of 32",
                    of_file(),
                    hashes.len()
                ),
            );
        }
        let (count, needed) = (hashes.len() as u64 / 32, file.length.div_ceil(piece_length));
        if count != needed {
            return fault(
                at,
                format!(
                    "{} has {count} hashes, but its length needs {needed}",
                    of_file()
                ),
            );
        }
        if Some(layer_root(hashes, piece_length)) != file.root {
            return fault(
                at,
                format!("{} does not hash to its `pieces root`", of_file()),
            );
        }
    }
    Ok(())
}

/// Both halves of a hybrid are of the same files, in the same order, each at the start of a piece (BEP 52).
pub(super) fn check_hybrid(
    info: &Dict<'_>,
    piece_length: u64,
    v1: &[File],
    v2: &[File],
) -> Result<(), Fault> {
    let at = if info.has("files") {
        info.offset("files")
    } else {
        info.offset("length")
    };
    let same =
        |(left, right): (&File, &File)| left.path == right.path && left.length == right.length;
    let data = || v1.iter().filter(|file| !file.pad);
    if data().count() != v2.len() || !data().zip(v2).all(same) {
        return fault(at, "the v1 files are not those of the `file tree`");
    }
    let mut position = 0u64;
    for file in v1 {
        if !file.pad && file.length > 0 && position % piece_length != 0 {
            let name = file.shown_name();
            return fault(
                at,
                format!("`{name}` does not start at a piece, as it must in a hybrid"),
            );
        }
        position = position.saturating_add(file.length);
    }
    Ok(())
}
