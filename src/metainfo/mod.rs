//! A `.torrent` file, read strictly: what the tracker must know of it, or what is wrong with it and where (BEP 3, 12, 19, 27, 47, 52).
//!
//! The id of a torrent is the hash of the *bytes* of its `info`, so whatever another reader could write differently is refused:
//! unsorted or repeated keys, leading zeros, anything after the end. [`Dict`] sees to that; serde_bencode reads the values.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_bytes::ByteBuf;
use sha1::Sha1;
use sha2::Sha256;

pub mod bencode;
pub mod builder;
pub mod merkle;
pub mod pieces;

use crate::tracker::types::Torrent;
use crate::tracker::{InfoHash, InfoHashV2};
use bencode::{Dict, Fault, fault};
use merkle::{BLOCK, Hash, layer_root};
use pieces::Layout;

/// Characters of a name that are kept.
const MAX_SHOWN: usize = 255;

/// What the tracker keeps of a `.torrent`. All text is safe to print on one line; it is not a path to open, nor escaped for HTML.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Metainfo {
    pub name: String,
    /// Bytes of all files, padding (BEP 47) left out.
    pub size: u64,
    /// Bytes; at least 1, and a power of two from 16 KiB on if there is a v2 id.
    pub piece_length: u64,
    /// At least one of `v1` and `v2` is there; a hybrid has both.
    pub v1: Option<InfoHash>,
    pub v2: Option<InfoHashV2>,
    /// BEP 27: no DHT, no peer exchange.
    pub private: bool,
    /// Announce URLs by tier (BEP 12); `announce` alone is a tier of one.
    pub trackers: Vec<Vec<String>>,
    /// `url-list` (BEP 19).
    pub web_seeds: Vec<String>,
    /// Seconds since 1970.
    pub creation_date: Option<i64>,
}

/// What is wrong with a `.torrent`: one line for its publisher.
pub type MetainfoError = Fault;

impl Metainfo {
    /// Reads a whole `.torrent` file.
    pub fn parse(bytes: &[u8]) -> Result<Self, MetainfoError> {
        Read::of(bytes).map(|read| read.metainfo)
    }

    /// What the catalog keeps of it.
    pub fn torrent(&self) -> Torrent {
        Torrent {
            name: self.name.clone(),
            size: self.size,
            v1: self.v1,
            v2: self.v2,
        }
    }
}

/// What a tool must know of it beyond [`Metainfo`]. Text is as it stands in the file: not checked, and not fit to print.
#[derive(Debug)]
pub struct Details<'a> {
    pub name: Vec<u8>,
    /// One file, `name`; else the files lie below a directory of that name.
    pub is_single: bool,
    /// The files of v1, padding with them, in the order in which the pieces cover them.
    pub v1: Option<Vec<File>>,
    /// Of v1: 20 bytes for each piece.
    pub pieces: &'a [u8],
    /// The files of v2.
    pub v2: Option<Vec<File>>,
    /// For each of `v2` 32 bytes for each piece; empty if the file has no more than one.
    pub layers: Vec<&'a [u8]>,
    /// As [`Metainfo::trackers`].
    pub trackers: Vec<Vec<Vec<u8>>>,
    /// BEP 19.
    pub web_seeds: Vec<Vec<u8>>,
    /// `httpseeds` (BEP 17).
    pub http_seeds: Vec<Vec<u8>>,
    /// Host and port (BEP 5).
    pub nodes: Vec<(Vec<u8>, u16)>,
    pub comment: Option<Vec<u8>>,
    pub created_by: Option<Vec<u8>>,
    pub source: Option<Vec<u8>>,
    /// v1 ids, and names (BEP 38).
    pub similar: Vec<Vec<u8>>,
    pub collections: Vec<Vec<u8>>,
}

impl<'a> Details<'a> {
    /// Reads a whole `.torrent` file.
    pub fn parse(bytes: &'a [u8]) -> Result<(Metainfo, Self), MetainfoError> {
        let Read {
            metainfo,
            file,
            info,
            name,
            v1,
            v2,
        } = Read::of(bytes)?;
        let mut layers = Vec::new();
        if let Some(dict) = file.dict("piece layers")? {
            for file in v2.iter().flatten() {
                let root = file.root.filter(|_| file.length > metainfo.piece_length);
                let layer = root.and_then(|root| dict.string(root).transpose());
                layers.push(layer.transpose()?.unwrap_or_default());
            }
        }
        layers.resize(v2.as_ref().map_or(0, Vec::len), &[][..]);
        let is_single = match (&v1, &v2) {
            (Some(_), _) => !info.has("files"),
            (None, Some(v2)) => v2.len() == 1 && v2[0].path == [name.clone()],
            (None, None) => true,
        };
        let nodes = file.read::<Vec<(ByteBuf, u16)>>("nodes")?;
        let nodes = nodes.unwrap_or_default().into_iter();
        let bytes = |text: Option<ByteBuf>| text.map(ByteBuf::into_vec);
        // BEP 38 has both inside `info`, or beside it.
        let either = |key| -> Result<Vec<Vec<u8>>, MetainfoError> {
            let mut texts = info.read::<Texts>(key)?.unwrap_or_default().0;
            texts.extend(file.read::<Texts>(key)?.unwrap_or_default().0);
            Ok(texts)
        };
        let details = Self {
            name: name.into_vec(),
            is_single,
            pieces: info.string("pieces")?.unwrap_or_default(),
            v1,
            v2,
            layers,
            trackers: trackers(&file)?,
            web_seeds: file.read::<Texts>("url-list")?.unwrap_or_default().0,
            http_seeds: file.read::<Texts>("httpseeds")?.unwrap_or_default().0,
            nodes: nodes.map(|(host, port)| (host.into_vec(), port)).collect(),
            comment: bytes(file.read("comment")?),
            created_by: bytes(file.read("created by")?),
            source: bytes(info.read("source")?),
            similar: either("similar")?,
            collections: either("collections")?,
        };
        Ok((metainfo, details))
    }

    /// What its pieces cover: the files as v1 lists them, else as v2 does.
    pub fn layout(&self, piece_length: u64) -> Layout {
        match (&self.v1, &self.v2) {
            (None, Some(v2)) => Layout::aligned(v2.iter().map(|file| file.length), piece_length),
            (v1, _) => {
                let files = v1.iter().flatten();
                Layout::packed(files.map(|file| (file.length, file.pad)), piece_length)
            }
        }
    }

    /// The files of both versions, padding left out.
    pub fn files(&self) -> impl Iterator<Item = &File> {
        let files = self.v2.as_ref().or(self.v1.as_ref());
        files.into_iter().flatten().filter(|file| !file.pad)
    }
}

/// What reading comes to, before each reader takes what he needs.
struct Read<'a> {
    metainfo: Metainfo,
    file: Dict<'a>,
    info: Dict<'a>,
    name: ByteBuf,
    v1: Option<Vec<File>>,
    v2: Option<Vec<File>>,
}

impl<'a> Read<'a> {
    fn of(bytes: &'a [u8]) -> Result<Self, MetainfoError> {
        let file = Dict::parse(bytes)?;
        let Some(info) = file.dict("info")? else {
            return fault(0, "`info` is missing");
        };
        let name = info.need::<ByteBuf>("name")?;
        let piece_length = info.need::<u64>("piece length")?;
        if piece_length == 0 {
            return fault(info.offset("piece length"), "`piece length` is 0");
        }

        let v1 = read_v1(&info, &name, piece_length)?;
        let v2 = read_v2(&file, &info, piece_length)?;
        let files = match (&v1, &v2) {
            (Some(v1), Some(v2)) => {
                check_hybrid(&info, piece_length, v1, v2)?;
                v2
            }
            (Some(files), None) | (None, Some(files)) => files,
            (None, None) => {
                return fault(
                    info.span.start,
                    "`info` has neither `pieces` (v1) nor `meta version` 2",
                );
            }
        };
        let data = files.iter().filter(|file| !file.pad);
        let Some(size) = total(data) else {
            return fault(
                info.span.start,
                "the files are larger than 2^64 bytes together",
            );
        };

        let hashed = info.raw();
        let lines = |texts: Vec<Vec<u8>>| texts.iter().map(|text| shown(text)).collect();
        let metainfo = Metainfo {
            name: shown(&name),
            size,
            piece_length,
            v1: v1
                .is_some()
                .then(|| InfoHash(<Sha1 as sha1::Digest>::digest(hashed).into())),
            v2: v2
                .is_some()
                .then(|| InfoHashV2(<Sha256 as sha2::Digest>::digest(hashed).into())),
            private: info.read::<i64>("private")? == Some(1),
            trackers: trackers(&file)?.into_iter().map(lines).collect(),
            web_seeds: lines(file.read::<Texts>("url-list")?.unwrap_or_default().0),
            creation_date: file.read("creation date")?,
        };
        Ok(Self {
            metainfo,
            file,
            info,
            name,
            v1,
            v2,
        })
    }
}

fn trackers(file: &Dict<'_>) -> Result<Vec<Vec<Vec<u8>>>, MetainfoError> {
    let mut tiers = file
        .read::<Vec<Texts>>("announce-list")?
        .unwrap_or_default();
    tiers.retain(|tier| !tier.0.is_empty());
    if tiers.is_empty() {
        tiers.extend(file.read::<Texts>("announce")?);
        tiers.retain(|tier| !tier.0.is_empty());
    }
    Ok(tiers.into_iter().map(|tier| tier.0).collect())
}

/// Text that was written by a stranger, made fit for a terminal, a log line and a table.
pub fn shown(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let mut out = String::new();
    for (count, char) in text.chars().enumerate() {
        if count == MAX_SHOWN {
            out.push('…');
            break;
        }
        out.push(if is_deceptive(char) {
            char::REPLACEMENT_CHARACTER
        } else {
            char
        });
    }
    out
}

/// Controls, line separators, and what turns the direction of the text around it or cannot be seen.
fn is_deceptive(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        || matches!(char, '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

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

fn total<'f>(mut files: impl Iterator<Item = &'f File>) -> Option<u64> {
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

fn read_v1(
    info: &Dict<'_>,
    name: &ByteBuf,
    piece_length: u64,
) -> Result<Option<Vec<File>>, MetainfoError> {
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

fn read_v1_files(at: usize, list: Vec<FileFields>) -> Result<Vec<File>, MetainfoError> {
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

fn read_v2(
    file: &Dict<'_>,
    info: &Dict<'_>,
    piece_length: u64,
) -> Result<Option<Vec<File>>, MetainfoError> {
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
) -> Result<(), MetainfoError> {
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
fn check_hybrid(
    info: &Dict<'_>,
    piece_length: u64,
    v1: &[File],
    v2: &[File],
) -> Result<(), MetainfoError> {
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

/// One text or a list of them, empty ones left out.
#[derive(Default)]
struct Texts(Vec<Vec<u8>>);

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextsVisitor)
    }
}

struct TextsVisitor;

impl<'de> Visitor<'de> for TextsVisitor {
    type Value = Texts;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or a list of strings")
    }

    fn visit_bytes<E>(self, text: &[u8]) -> Result<Texts, E> {
        let texts = if text.is_empty() {
            Vec::new()
        } else {
            vec![text.to_vec()]
        };
        Ok(Texts(texts))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Texts, A::Error> {
        let mut texts = Vec::new();
        while let Some(text) = list.next_element::<ByteBuf>()? {
            if !text.is_empty() {
                texts.push(text.into_vec());
            }
        }
        Ok(Texts(texts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLES: [(&str, &[u8]); 9] = [
        (
            "v1-disc.torrent",
            include_bytes!("../../tests/torrents/v1-disc.torrent"),
        ),
        (
            "v1-discs.torrent",
            include_bytes!("../../tests/torrents/v1-discs.torrent"),
        ),
        (
            "v1-small.torrent",
            include_bytes!("../../tests/torrents/v1-small.torrent"),
        ),
        (
            "v2-disc.torrent",
            include_bytes!("../../tests/torrents/v2-disc.torrent"),
        ),
        (
            "v2-discs.torrent",
            include_bytes!("../../tests/torrents/v2-discs.torrent"),
        ),
        (
            "v2-small.torrent",
            include_bytes!("../../tests/torrents/v2-small.torrent"),
        ),
        (
            "hybrid-disc.torrent",
            include_bytes!("../../tests/torrents/hybrid-disc.torrent"),
        ),
        (
            "hybrid-discs.torrent",
            include_bytes!("../../tests/torrents/hybrid-discs.torrent"),
        ),
        (
            "hybrid-small.torrent",
            include_bytes!("../../tests/torrents/hybrid-small.torrent"),
        ),
    ];

    fn sample(name: &str) -> &'static [u8] {
        SAMPLES.iter().find(|(file, _)| *file == name).unwrap().1
    }

    /// The sample with one piece of it, there exactly once, replaced.
    fn altered(name: &str, from: &[u8], to: &[u8]) -> Vec<u8> {
        let bytes = sample(name);
        let places: Vec<_> = (0..bytes.len())
            .filter(|at| bytes[*at..].starts_with(from))
            .collect();
        assert_eq!(places.len(), 1, "{} in {name}", from.escape_ascii());
        [&bytes[..places[0]], to, &bytes[places[0] + from.len()..]].concat()
    }

    fn error(bytes: &[u8]) -> MetainfoError {
        let error = Metainfo::parse(bytes).expect_err(&bytes.escape_ascii().to_string());
        assert!(
            !error.reason.contains('\n') && error.offset <= bytes.len(),
            "{error}"
        );
        error
    }

    #[track_caller]
    fn refused(bytes: &[u8], offset: usize, reason: &str) {
        let error = error(bytes);
        assert!(error.reason.contains(reason), "{error}");
        assert_eq!(error.offset, offset, "{error}");
    }

    fn v1(info: &str) -> Vec<u8> {
        format!("d4:infod{info}ee").into_bytes()
    }

    #[test]
    fn ids_and_sizes_are_those_of_libtorrent() {
        let expected = include_str!("../../tests/torrents/expected.txt");
        assert_eq!(expected.lines().count(), SAMPLES.len());
        for line in expected.lines() {
            let columns: Vec<_> = line.split(' ').collect();
            let metainfo = Metainfo::parse(sample(columns[0])).unwrap();
            let v1 = metainfo.v1.map_or("-".to_owned(), |id| id.to_string());
            let v2 = metainfo.v2.map_or("-".to_owned(), |id| id.to_string());
            let (size, name) = (metainfo.size.to_string(), metainfo.name);
            assert_eq!([columns[0], &v1, &v2, &size, &name][..], columns, "{line}");
        }
    }

    #[test]
    fn a_v2_id_is_announced_by_its_first_20_bytes() {
        let v2 = Metainfo::parse(sample("v2-disc.torrent"))
            .unwrap()
            .v2
            .unwrap();
        assert_eq!(v2.truncated().to_string(), v2.to_string()[..40]);
    }

    #[test]
    fn reads_what_stands_around_info() {
        let many = Metainfo::parse(sample("hybrid-discs.torrent")).unwrap();
        let first = vec![
            "http://tracker.example.org:6969/announce".to_owned(),
            "udp://tracker.example.org:6969".to_owned(),
        ];
        let second = vec!["http://backup.example.org/announce".to_owned()];
        assert_eq!(many.trackers, [first.clone(), second]);
        assert_eq!(many.web_seeds, ["https://mirror.example.org/iso/"]);
        assert_eq!(many.creation_date, Some(1_700_000_000));
        assert_eq!(many.piece_length, 16 * 1024);
        assert!(!many.private);

        let one = Metainfo::parse(sample("v1-small.torrent")).unwrap();
        assert_eq!(one.trackers, [&first[..1]]);
        assert!(one.private && one.web_seeds.is_empty());

        let least =
            Metainfo::parse(&v1("6:lengthi0e4:name1:a12:piece lengthi1e6:pieces0:")).unwrap();
        assert!(least.trackers.is_empty() && least.creation_date.is_none());
        let empty = b"d8:announce0:13:announce-listllee4:infod6:lengthi0e4:name1:a12:piece lengthi1e6:pieces0:e8:url-listl0:1:uee";
        let empty = Metainfo::parse(empty).unwrap();
        assert!(empty.trackers.is_empty());
        assert_eq!(empty.web_seeds, ["u"]);
    }

    #[test]
    fn keys_that_nobody_knows_count_towards_the_id_only() {
        let plain =
            Metainfo::parse(&v1("6:lengthi0e4:name1:a12:piece lengthi1e6:pieces0:")).unwrap();
        let around =
            b"d4:infod6:lengthi0e4:name1:a12:piece lengthi1e6:pieces0:e2:zzd2:\xff\xfeli-1eeee";
        assert_eq!(Metainfo::parse(around).unwrap(), plain);
        let within = v1("6:lengthi0e4:name1:a12:piece lengthi1e6:pieces0:2:zzle");
        assert_ne!(Metainfo::parse(&within).unwrap().v1, plain.v1);
    }

    #[test]
    fn every_beginning_of_a_torrent_is_refused() {
        for (_, bytes) in SAMPLES {
            for end in 0..bytes.len() {
                error(&bytes[..end]);
            }
        }
    }

    #[test]
    fn a_file_may_lie_as_deep_as_bencode_may() {
        let tree = |dirs: usize| {
            let (open, close) = ("d1:a".repeat(dirs), "e".repeat(dirs));
            let tree = format!("9:file tree{open}d0:d6:lengthi0eee{close}");
            v1(&format!(
                "{tree}12:meta versioni2e4:name1:a12:piece lengthi16384e"
            ))
        };
        assert_eq!(Metainfo::parse(&tree(96)).unwrap().size, 0);
        assert!(error(&tree(97)).reason.contains("100 deep"));
    }

    #[test]
    fn refuses_a_v1_info_that_does_not_add_up() {
        refused(&v1("4:name1:a12:piece lengthi1e"), 7, "neither `pieces`");
        refused(&v1("12:piece lengthi1e6:pieces0:"), 7, "`name` is missing");
        refused(&v1("4:name1:a6:pieces0:"), 7, "`piece length` is missing");
        refused(
            &v1("4:name1:a12:piece lengthi1e6:pieces0:"),
            7,
            "neither `length` nor `files`",
        );
        refused(
            &v1("5:filesle6:lengthi0e4:name1:a12:piece lengthi1e6:pieces0:"),
            25,
            "both `length` and `files`",
        );
        refused(
            &v1("5:filesle4:name1:a12:piece lengthi1e6:pieces0:"),
            15,
            "`files` is empty",
        );
        refused(
            &v1("6:lengthi0e4:name1:a12:piece lengthi0e6:pieces0:"),
            43,
            "`piece length` is 0",
        );
        refused(
            &v1("6:lengthi0e4:name1:a12:piece lengthi-1e6:pieces0:"),
            43,
            "`piece length`: Invalid Value",
        );
        refused(
            &v1("6:lengthi-1e4:name1:a12:piece lengthi1e6:pieces0:"),
            16,
            "`length`: Invalid Value",
        );
        refused(
            &v1("6:length1:14:name1:a12:piece lengthi1e6:pieces0:"),
            16,
            "`length`: Invalid Type",
        );
        refused(
            &v1("6:lengthi0e4:namei1e12:piece lengthi1e6:pieces0:"),
            25,
            "`name`: Invalid Type",
        );
        refused(
            &v1("6:lengthi0e4:name1:a12:piece lengthi1e6:piecesi1e"),
            54,
            "a string should stand here",
        );
        refused(
            &v1("6:lengthi1e4:name1:a12:piece lengthi1e6:pieces19:1234567890123456789"),
            54,
            "19 bytes long",
        );
        refused(
            &v1("6:lengthi2e4:name1:a12:piece lengthi1e6:pieces20:12345678901234567890"),
            54,
            "has 1 hashes, but 2 bytes",
        );
        refused(
            &v1("6:lengthi0e4:name1:a12:piece lengthi1e6:pieces20:12345678901234567890"),
            54,
            "need 0",
        );
        refused(b"d4:infoli1eee", 7, "a dictionary should stand here");
        refused(
            &v1("5:filesld4:pathl1:aeee4:name1:a12:piece lengthi1e6:pieces0:"),
            15,
            "file 1 of `files` has no `length`",
        );
        refused(
            &v1("5:filesld6:lengthi0eee4:name1:a12:piece lengthi1e6:pieces0:"),
            15,
            "file 1 of `files` has no `path`",
        );
        refused(
            &v1("5:filesld6:lengthi0e4:pathleee4:name1:a12:piece lengthi1e6:pieces0:"),
            15,
            "has no `path`",
        );
        refused(
            &v1("5:filesi1e4:name1:a12:piece lengthi1e6:pieces0:"),
            15,
            "`files`: Invalid Type",
        );
        let half = format!("d6:lengthi{}e4:pathl1:aee", i64::MAX);
        let huge = format!("5:filesl{half}{half}{half}e4:name1:a12:piece lengthi1e6:pieces0:");
        refused(&v1(&huge), 7, "larger than 2^64");
    }

    #[test]
    fn what_only_looks_odd_is_tracked_and_safe_to_show() {
        let odd = |name: &[u8]| {
            let start = format!("d4:infod6:lengthi0e4:name{}:", name.len()).into_bytes();
            let bytes = [&start, name, b"12:piece lengthi1e6:pieces0:ee"].concat();
            Metainfo::parse(&bytes).unwrap().name
        };
        assert_eq!(odd(b"../../etc/passwd"), "../../etc/passwd");
        assert_eq!(odd(b"a\nb\x1b[31mc\0"), "a\u{fffd}b\u{fffd}[31mc\u{fffd}");
        assert_eq!(
            odd("iso\u{202e}txt\u{2028}".as_bytes()),
            "iso\u{fffd}txt\u{fffd}"
        );
        assert_eq!(odd(b"gr\xfc\xdfe"), "gr\u{fffd}\u{fffd}e");
        assert_eq!(odd("ü".repeat(255).as_bytes()), "ü".repeat(255));
        assert_eq!(odd("ü".repeat(256).as_bytes()), "ü".repeat(255) + "…");
        assert_eq!(odd(b""), "");
        let dots =
            v1("5:filesld6:lengthi0e4:pathl2:..2:..4:evileee4:name1:/12:piece lengthi1e6:pieces0:");
        assert_eq!(Metainfo::parse(&dots).unwrap().size, 0);
        let link = v1("5:filesld4:attr1:l4:pathl1:aeee4:name1:a12:piece lengthi1e6:pieces0:");
        assert_eq!(Metainfo::parse(&link).unwrap().size, 0);
    }

    #[test]
    fn refuses_a_v2_info_that_does_not_add_up() {
        let v2 = |from: &str, to: &str| {
            error(&altered("v2-small.torrent", from.as_bytes(), to.as_bytes())).reason
        };
        assert!(v2("meta versioni2e", "meta versioni3e").contains("`meta version` 3 is unknown"));
        assert!(v2("meta versioni2e", "meta versioni1e").contains("not `meta version` 2"));
        assert!(v2("12:meta versioni2e", "").contains("not `meta version` 2"));
        assert!(v2("9:file tree", "9:fine tree").contains("there is no `file tree`"));
        assert!(
            v2("piece lengthi16384e", "piece lengthi8192e").contains("8192 is not a power of two")
        );
        assert!(
            v2("piece lengthi16384e", "piece lengthi16385e")
                .contains("16385 is not a power of two")
        );
        assert!(v2("6:lengthi1000e", "").contains("has no `length`"));

        assert!(v2("pieces root32:", "pieces rook32:").contains("no `pieces root`"));

        let info = |tree: &str| {
            error(&v1(&format!(
                "9:file tree{tree}12:meta versioni2e4:name1:a12:piece lengthi16384e"
            )))
            .reason
        };
        assert!(info("de").contains("has no file"));
        assert!(info("le").contains("`file tree`: Invalid Type"));
        assert!(info("d0:d6:lengthi0eee").contains("a file has no name"));
        assert!(
            info("d1:ad0:d6:lengthi0ee1:bd0:d6:lengthi0eeeee")
                .contains("both a file and a directory")
        );
        assert!(info("d1:ad0:d6:lengthi1eeee").contains("no `pieces root`"));
        assert!(info("d1:ad0:d6:lengthi1e11:pieces root3:abceee").contains("not 32 bytes"));
    }

    #[test]
    fn refuses_piece_layers_that_are_not_the_files() {
        let name = "v2-disc.torrent";
        let bytes = sample(name);
        let key = b"12:piece layers";
        let at = bytes
            .windows(key.len())
            .position(|window| window == key)
            .unwrap();
        let layers = at + key.len();
        let without = [&bytes[..at], b"e"].concat();
        assert!(error(&without).reason.contains("of `disc.iso` is missing"));
        // d32:<root>224:<seven hashes>ee
        let layer = layers + 1 + 3 + 32;
        assert!(bytes[layer..].starts_with(b"224:"));
        let mut flipped = bytes.to_vec();
        flipped[layer + 4] ^= 1;
        refused(&flipped, layer, "does not hash to its `pieces root`");
        let other_length = |length: usize| {
            let hashes = &bytes[layer + 4..layer + 4 + length];
            [
                &bytes[..layer],
                format!("{length}:").as_bytes(),
                hashes,
                b"ee",
            ]
            .concat()
        };
        refused(
            &other_length(223),
            layer,
            "223 bytes long, not a multiple of 32",
        );
        refused(
            &other_length(192),
            layer,
            "has 6 hashes, but its length needs 7",
        );
        let mut renamed = bytes.to_vec();
        renamed[layers + 4] ^= 1;
        assert!(error(&renamed).reason.contains("of `disc.iso` is missing"));
        refused(
            &[&bytes[..layers], b"i1ee"].concat(),
            layers,
            "a dictionary should stand here",
        );
        refused(
            &[&bytes[..layer], b"i1eee"].concat(),
            layer,
            "a string should stand here",
        );
    }

    #[test]
    fn both_halves_of_a_hybrid_must_agree() {
        let differs =
            |from: &[u8], to: &[u8]| error(&altered("hybrid-discs.torrent", from, to)).reason;
        assert!(
            differs(b"4:pathl5:amd647:one.iso", b"4:pathl5:amd647:two.iso")
                .contains("not those of the `file tree`")
        );
        assert!(
            differs(b"lengthi321e4:path", b"lengthi320e4:path")
                .contains("not those of the `file tree`")
        );
        assert!(
            differs(b"lengthi16063e4:path", b"lengthi16062e4:path")
                .contains("`one.iso` does not start at a piece")
        );
        let single = error(&altered(
            "hybrid-small.torrent",
            b"6:lengthi1000e12:meta",
            b"6:lengthi1001e12:meta",
        ));
        assert!(single.reason.contains("not those"), "{single}");
    }

    /// Mutated samples end in an answer, never in a panic; what is taken nevertheless holds to the promises of [`Metainfo`].
    #[test]
    fn mutations_are_survived() {
        const SEED: u64 = 0x7462_7474;
        let mut state = SEED;
        let mut random = |below: usize| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(state >> 33).unwrap() % below
        };
        let (mut taken, mut refused) = (0, 0);
        for round in 0..30_000 {
            let mut bytes = SAMPLES[round % SAMPLES.len()].1.to_vec();
            for _ in 0..=random(3) {
                if bytes.is_empty() {
                    break;
                }
                let at = random(bytes.len());
                match random(6) {
                    0 => bytes[at] ^= 1 << random(8),
                    1 => bytes[at] = b"0123456789:-deil"[random(16)],
                    2 => bytes.insert(at, b"0123456789:-deil"[random(16)]),
                    3 => drop(bytes.remove(at)),
                    4 => drop(
                        bytes.splice(at..at, sample("v2-small.torrent")[..random(100)].to_vec()),
                    ),
                    _ => bytes.truncate(at + 1),
                }
            }
            match Details::parse(&bytes) {
                Ok((metainfo, details)) => {
                    taken += 1;
                    let layout = details.layout(metainfo.piece_length);
                    let last = layout.pieces().saturating_sub(1);
                    let parts = layout.piece(0).chain(layout.piece(last));
                    assert!(
                        parts.map(|part| part.length).max() <= Some(metainfo.piece_length),
                        "seed {SEED}, round {round}"
                    );
                    assert!(
                        metainfo.v1.is_some() || metainfo.v2.is_some(),
                        "seed {SEED}, round {round}"
                    );
                    assert!(
                        metainfo.piece_length > 0 && !metainfo.name.contains(char::is_control),
                        "seed {SEED}, round {round}"
                    );
                }
                Err(error) => {
                    refused += 1;
                    assert!(
                        error.offset <= bytes.len() && !error.reason.contains(char::is_control),
                        "seed {SEED}, round {round}: {error}"
                    );
                }
            }
        }
        assert!(
            taken > 1_000 && refused > 10_000,
            "{taken} taken, {refused} refused"
        );
    }
}
