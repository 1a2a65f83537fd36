//! A `.torrent` file, read strictly: what the tracker must know of it, or what is wrong with it and where (BEP 3, 12, 19, 27, 47, 52).
//!
//! The id of a torrent is the hash of the *bytes* of its `info`, so whatever another reader could write differently is refused:
//! unsorted or repeated keys, leading zeros, anything after the end. [`Dict`] sees to that; serde_bencode reads the values.

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

use crate::tracker::types::Torrent;
use crate::tracker::{InfoHash, InfoHashV2};
use bencode::{Dict, Fault, fault};
use files::{File, check_hybrid, read_v1, read_v2, total};
use pieces::Layout;
use printable::shown;

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
mod tests;
