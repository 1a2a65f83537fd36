//! `.torrent` files: parses them strictly (BEP 3, 12, 19, 27, 47, 52), and builds new ones in [`builder`].
//!
//! The id of a torrent is the hash of the *bytes* of its `info`. An encoding that another program would write
//! differently is therefore refused: unsorted or duplicate keys, leading zeros, data after the end. [`Dict`] checks the
//! encoding, and serde_bencode parses the values.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde_bytes::ByteBuf;
use sha1::Sha1;
use sha2::Sha256;

pub mod bencode;
pub mod builder;
pub mod files;
pub mod merkle;
pub mod pieces;
pub mod printable;

use crate::tracker::types::{InfoHash, InfoHashV2, Torrent};
use bencode::{Dict, MetainfoError, fail};
use files::{FileEntry, check_hybrid, read_v1, read_v2, total};
use pieces::Layout;
use printable::shown;

/// The contents of a `.torrent` file. All text is safe to print on a single line, but is neither a path to open nor escaped
/// for HTML.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Metainfo {
    pub name: String,
    /// The size of all files in bytes, without padding (BEP 47).
    pub size: u64,
    /// The length of a piece in bytes, at least 1. With a v2 id, it is a power of two of at least 16 KiB.
    pub piece_length: u64,
    /// At least one of `v1` and `v2` is set. A hybrid torrent has both.
    pub v1: Option<InfoHash>,
    pub v2: Option<InfoHashV2>,
    /// Clients use neither DHT nor peer exchange (BEP 27).
    pub private: bool,
    /// Announce URLs by tier (BEP 12). A lone `announce` is a tier of its own.
    pub trackers: Vec<Vec<String>>,
    /// `url-list` (BEP 19).
    pub web_seeds: Vec<String>,
    /// Seconds since 1970.
    pub creation_date: Option<i64>,
}

impl Metainfo {
    /// Parses a whole `.torrent` file.
    pub fn parse(bytes: &[u8]) -> Result<Self, MetainfoError> {
        ParsedTorrent::parse(bytes).map(|parsed| parsed.metainfo)
    }

    /// Returns the part that the catalog stores.
    pub fn torrent(&self) -> Torrent {
        Torrent {
            name: self.name.clone(),
            size: self.size,
            v1: self.v1,
            v2: self.v2,
        }
    }
}

/// Further contents of a `.torrent` file, for tools. Text is not checked and not safe to print.
#[derive(Debug)]
pub struct Details<'a> {
    pub name: Vec<u8>,
    /// The torrent is a single file called `name`. Otherwise the files are below a directory of that name.
    pub is_single: bool,
    /// The files of v1 and their padding, in the order of the pieces.
    pub v1: Option<Vec<FileEntry>>,
    /// The piece hashes of v1, 20 bytes each.
    pub pieces: &'a [u8],
    /// The files of v2.
    pub v2: Option<Vec<FileEntry>>,
    /// For each file in `v2`, the hashes of its pieces of 32 bytes each; empty if the file has at most one piece.
    pub layers: Vec<&'a [u8]>,
    /// The same as [`Metainfo::trackers`].
    pub trackers: Vec<Vec<Vec<u8>>>,
    /// `url-list` (BEP 19).
    pub web_seeds: Vec<Vec<u8>>,
    /// `httpseeds` (BEP 17).
    pub http_seeds: Vec<Vec<u8>>,
    /// DHT nodes: host and port (BEP 5).
    pub nodes: Vec<(Vec<u8>, u16)>,
    pub comment: Option<Vec<u8>>,
    pub created_by: Option<Vec<u8>>,
    pub source: Option<Vec<u8>>,
    /// v1 ids of similar torrents (BEP 38).
    pub similar: Vec<Vec<u8>>,
    /// Names of collections (BEP 38).
    pub collections: Vec<Vec<u8>>,
}

impl<'a> Details<'a> {
    /// Parses a whole `.torrent` file.
    pub fn parse(bytes: &'a [u8]) -> Result<(Metainfo, Self), MetainfoError> {
        let ParsedTorrent {
            metainfo,
            file,
            info,
            name,
            v1,
            v2,
        } = ParsedTorrent::parse(bytes)?;
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
        // BEP 38 allows both in `info` and outside of `info`.
        let either = |key| -> Result<Vec<Vec<u8>>, MetainfoError> {
            let mut texts = info.read::<StringOrList>(key)?.unwrap_or_default().0;
            texts.extend(file.read::<StringOrList>(key)?.unwrap_or_default().0);
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
            web_seeds: file.read::<StringOrList>("url-list")?.unwrap_or_default().0,
            http_seeds: file
                .read::<StringOrList>("httpseeds")?
                .unwrap_or_default()
                .0,
            nodes: nodes.map(|(host, port)| (host.into_vec(), port)).collect(),
            comment: bytes(file.read("comment")?),
            created_by: bytes(file.read("created by")?),
            source: bytes(info.read("source")?),
            similar: either("similar")?,
            collections: either("collections")?,
        };
        Ok((metainfo, details))
    }

    /// Returns the layout of the pieces over the files of v1, or of v2 if there is no v1 part.
    pub fn layout(&self, piece_length: u64) -> Layout {
        match (&self.v1, &self.v2) {
            (None, Some(v2)) => Layout::aligned(v2.iter().map(|file| file.length), piece_length),
            (v1, _) => {
                let files = v1.iter().flatten();
                Layout::packed(files.map(|file| (file.length, file.pad)), piece_length)
            }
        }
    }

    /// Returns the files without padding.
    pub fn files(&self) -> impl Iterator<Item = &FileEntry> {
        let files = self.v2.as_ref().or(self.v1.as_ref());
        files.into_iter().flatten().filter(|file| !file.pad)
    }
}

/// A parsed file, from which [`Metainfo`] and [`Details`] take their parts.
struct ParsedTorrent<'a> {
    metainfo: Metainfo,
    file: Dict<'a>,
    info: Dict<'a>,
    name: ByteBuf,
    v1: Option<Vec<FileEntry>>,
    v2: Option<Vec<FileEntry>>,
}

impl<'a> ParsedTorrent<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, MetainfoError> {
        let file = Dict::parse(bytes)?;
        let Some(info) = file.dict("info")? else {
            return fail(0, "`info` is missing");
        };
        let name = info.require::<ByteBuf>("name")?;
        let piece_length = info.require::<u64>("piece length")?;
        if piece_length == 0 {
            return fail(info.offset("piece length"), "`piece length` is 0");
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
                return fail(
                    info.span.start,
                    "`info` has neither `pieces` (v1) nor `meta version` 2",
                );
            }
        };
        let data = files.iter().filter(|file| !file.pad);
        let Some(size) = total(data) else {
            return fail(
                info.span.start,
                "the total size of the files exceeds 2^64 bytes",
            );
        };

        let encoded = info.raw();
        let lines = |texts: Vec<Vec<u8>>| texts.iter().map(|text| shown(text)).collect();
        let metainfo = Metainfo {
            name: shown(&name),
            size,
            piece_length,
            v1: v1.is_some().then(|| info_hash_v1(encoded)),
            v2: v2.is_some().then(|| info_hash_v2(encoded)),
            private: info.read::<i64>("private")? == Some(1),
            trackers: trackers(&file)?.into_iter().map(lines).collect(),
            web_seeds: lines(file.read::<StringOrList>("url-list")?.unwrap_or_default().0),
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

/// Returns the v1 id of an encoded `info` (BEP 3).
fn info_hash_v1(info: &[u8]) -> InfoHash {
    InfoHash(<Sha1 as sha1::Digest>::digest(info).into())
}

/// Returns the v2 id of an encoded `info` (BEP 52).
fn info_hash_v2(info: &[u8]) -> InfoHashV2 {
    InfoHashV2(<Sha256 as sha2::Digest>::digest(info).into())
}

/// Returns the announce URLs by tier.
fn trackers(file: &Dict<'_>) -> Result<Vec<Vec<Vec<u8>>>, MetainfoError> {
    let mut tiers = file
        .read::<Vec<StringOrList>>("announce-list")?
        .unwrap_or_default();
    tiers.retain(|tier| !tier.0.is_empty());
    if tiers.is_empty() {
        tiers.extend(file.read::<StringOrList>("announce")?);
        tiers.retain(|tier| !tier.0.is_empty());
    }
    Ok(tiers.into_iter().map(|tier| tier.0).collect())
}

/// A string or a list of strings. Empty strings are left out.
#[derive(Default)]
struct StringOrList(Vec<Vec<u8>>);

impl<'de> Deserialize<'de> for StringOrList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StringOrListVisitor)
    }
}

struct StringOrListVisitor;

impl<'de> Visitor<'de> for StringOrListVisitor {
    type Value = StringOrList;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or a list of strings")
    }

    fn visit_bytes<E>(self, text: &[u8]) -> Result<StringOrList, E> {
        let texts = if text.is_empty() {
            Vec::new()
        } else {
            vec![text.to_vec()]
        };
        Ok(StringOrList(texts))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<StringOrList, A::Error> {
        let mut texts = Vec::new();
        while let Some(text) = list.next_element::<ByteBuf>()? {
            if !text.is_empty() {
                texts.push(text.into_vec());
            }
        }
        Ok(StringOrList(texts))
    }
}

#[cfg(test)]
mod tests;
