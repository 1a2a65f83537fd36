//! Writes `.torrent` files: `info` from names and hashes, and the fields outside of `info`, which do not change the id.

use std::collections::BTreeMap;

use super::bencode::{BencodeValue, Dict, MetainfoError};
use super::merkle::Hash;
use super::pieces::Layout;
use super::{info_hash_v1, info_hash_v2};
use crate::tracker::types::{InfoHash, InfoHashV2};

/// A file of a new torrent.
#[derive(Clone, Debug)]
pub struct NewFile {
    /// The path below the name of the torrent, or for a single file the name itself.
    pub path: Vec<String>,
    /// The length in bytes.
    pub length: u64,
    /// Piece hashes of 32 bytes each. Empty without v2 and for an empty file.
    pub layer: Vec<u8>,
    /// The root of the hash tree. `None` without v2 and for an empty file.
    pub root: Option<Hash>,
}

/// The contents of a new `info` (BEP 3, 27, 38, 47, 52).
#[derive(Debug)]
pub struct NewInfo<'a> {
    pub name: &'a str,
    /// The torrent is a single file, which has the name of the torrent.
    pub is_single: bool,
    /// Sorted by path.
    pub files: &'a [NewFile],
    /// The layout of `files`, which must be aligned if `v2` is set.
    pub layout: &'a Layout,
    /// The piece hashes of v1, 20 bytes each. `None` for a torrent without v1.
    pub v1: Option<Vec<u8>>,
    pub v2: bool,
    pub private: bool,
    pub source: Option<&'a str>,
    pub similar: &'a [InfoHash],
    pub collections: &'a [String],
}

/// An encoded `info`, its ids, and the `piece layers` of v2, which are outside of `info`.
#[derive(Debug)]
pub struct EncodedInfo {
    bytes: Vec<u8>,
    layers: Option<BencodeValue>,
    pub v1: Option<InfoHash>,
    pub v2: Option<InfoHashV2>,
}

impl NewInfo<'_> {
    /// Encodes `info` and hashes it.
    pub fn write(self) -> EncodedInfo {
        let mut info = BTreeMap::new();
        let mut put = |key: &str, value: BencodeValue| info.insert(key.into(), value);
        put("name", BencodeValue::text(self.name));
        put(
            "piece length",
            BencodeValue::length(self.layout.piece_length()),
        );
        if self.private {
            put("private", BencodeValue::Integer(1));
        }
        if let Some(source) = self.source {
            put("source", BencodeValue::text(source));
        }
        if !self.similar.is_empty() {
            let ids = self
                .similar
                .iter()
                .map(|id| BencodeValue::Bytes(id.0.into()));
            put("similar", BencodeValue::List(ids.collect()));
        }
        if !self.collections.is_empty() {
            put("collections", texts(self.collections));
        }
        if self.v2 {
            put("meta version", BencodeValue::Integer(2));
            put("file tree", file_tree(self.files, 0));
        }
        let layers = self.v2.then(|| piece_layers(self.files));
        let is_v1 = self.v1.is_some();
        if self.is_single && is_v1 {
            put("length", BencodeValue::length(self.files[0].length));
        } else if is_v1 {
            put("files", file_list(self.files, self.layout));
        }
        if let Some(pieces) = self.v1 {
            put("pieces", BencodeValue::Bytes(pieces));
        }

        let mut bytes = Vec::new();
        BencodeValue::Dict(info).write(&mut bytes);
        EncodedInfo {
            v1: is_v1.then(|| info_hash_v1(&bytes)),
            v2: self.v2.then(|| info_hash_v2(&bytes)),
            bytes,
            layers,
        }
    }
}

/// Returns the v1 list of files, with the padding of the layout.
fn file_list(files: &[NewFile], layout: &Layout) -> BencodeValue {
    let entry = |file: &NewFile| {
        BencodeValue::dict([
            ("length", BencodeValue::length(file.length)),
            ("path", texts(&file.path)),
        ])
    };
    let mut listed = Vec::new();
    let mut rest = files.iter().enumerate().peekable();
    for span in layout.spans() {
        let Some(number) = span.file else {
            listed.push(BencodeValue::dict([
                ("attr", BencodeValue::text("p")),
                ("length", BencodeValue::length(span.length)),
                ("path", texts(&[".pad".into(), span.length.to_string()])),
            ]));
            continue;
        };
        // Empty files have no span.
        while let Some((_, file)) = rest.next_if(|(at, _)| *at <= number) {
            listed.push(entry(file));
        }
    }
    listed.extend(rest.map(|(_, file)| entry(file)));
    BencodeValue::List(listed)
}

/// Returns the v2 tree of sorted files that have the first `depth` parts of their paths in common.
fn file_tree(files: &[NewFile], depth: usize) -> BencodeValue {
    let mut entries = BTreeMap::new();
    for group in files.chunk_by(|left, right| left.path[depth] == right.path[depth]) {
        let value = if group[0].path.len() == depth + 1 {
            let mut file =
                BTreeMap::from([(b"length".into(), BencodeValue::length(group[0].length))]);
            if let Some(root) = group[0].root {
                file.insert(b"pieces root".into(), BencodeValue::Bytes(root.into()));
            }
            BencodeValue::dict([("", BencodeValue::Dict(file))])
        } else {
            file_tree(group, depth + 1)
        };
        entries.insert(group[0].path[depth].clone().into(), value);
    }
    BencodeValue::Dict(entries)
}

fn piece_layers(files: &[NewFile]) -> BencodeValue {
    let longer = files.iter().filter(|file| file.layer.len() > 32);
    BencodeValue::Dict(
        longer
            .filter_map(|file| Some((file.root?.into(), BencodeValue::Bytes(file.layer.clone()))))
            .collect(),
    )
}

fn texts(texts: &[String]) -> BencodeValue {
    BencodeValue::List(texts.iter().map(|text| BencodeValue::text(text)).collect())
}

/// Changes of the fields outside of `info`. `None` leaves a field unchanged, and an empty value removes the field.
#[derive(Clone, Default, Debug)]
pub struct OuterFields {
    /// Announce URLs by tier (BEP 12).
    pub trackers: Option<Vec<Vec<String>>>,
    /// `url-list` (BEP 19).
    pub web_seeds: Option<Vec<String>>,
    /// Removes `httpseeds` (BEP 17).
    pub drop_http_seeds: bool,
    /// DHT nodes: host and port (BEP 5).
    pub nodes: Option<Vec<(String, u16)>>,
    pub comment: Option<String>,
    /// Seconds since 1970. `Some(None)` removes the date.
    pub creation_date: Option<Option<i64>>,
}

impl EncodedInfo {
    /// Returns the whole `.torrent` file.
    pub fn torrent(self, outer: &OuterFields) -> Vec<u8> {
        let mut file = BTreeMap::from([(b"info".into(), BencodeValue::Raw(self.bytes))]);
        if let Some(layers) = self.layers {
            file.insert(b"piece layers".into(), layers);
        }
        outer.apply(&mut file);
        encode(file)
    }
}

impl OuterFields {
    /// Applies the changes to a `.torrent` file. All other fields keep their bytes, `info` in particular.
    pub fn edit(&self, torrent: &[u8]) -> Result<Vec<u8>, MetainfoError> {
        let mut file: BTreeMap<_, _> = Dict::parse(torrent)?
            .entries()
            .map(|(key, value)| (key.to_vec(), BencodeValue::Raw(value.to_vec())))
            .collect();
        self.apply(&mut file);
        Ok(encode(file))
    }

    fn apply(&self, file: &mut BTreeMap<Vec<u8>, BencodeValue>) {
        let mut put = |key: &str, value: Option<BencodeValue>| match value {
            Some(value) => drop(file.insert(key.into(), value)),
            None => drop(file.remove(key.as_bytes())),
        };
        if let Some(tiers) = &self.trackers {
            let mut urls = tiers.iter().flatten();
            put("announce", urls.next().map(|url| BencodeValue::text(url)));
            // A single tracker needs no list.
            let list = || BencodeValue::List(tiers.iter().map(|tier| texts(tier)).collect());
            put("announce-list", urls.next().map(|_| list()));
        }
        if let Some(urls) = &self.web_seeds {
            put("url-list", (!urls.is_empty()).then(|| texts(urls)));
        }
        if self.drop_http_seeds {
            put("httpseeds", None);
        }
        if let Some(nodes) = &self.nodes {
            let pair = |(host, port): &(String, u16)| {
                vec![
                    BencodeValue::text(host),
                    BencodeValue::length((*port).into()),
                ]
            };
            let list = nodes
                .iter()
                .map(|node| BencodeValue::List(pair(node)))
                .collect();
            put(
                "nodes",
                (!nodes.is_empty()).then_some(BencodeValue::List(list)),
            );
        }
        if let Some(comment) = &self.comment {
            put(
                "comment",
                (!comment.is_empty()).then(|| BencodeValue::text(comment)),
            );
        }
        if let Some(date) = self.creation_date {
            put("creation date", date.map(BencodeValue::Integer));
        }
    }
}

fn encode(file: BTreeMap<Vec<u8>, BencodeValue>) -> Vec<u8> {
    let mut bytes = Vec::new();
    BencodeValue::Dict(file).write(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metainfo::Metainfo;

    fn file(path: &[&str], length: u64) -> NewFile {
        NewFile {
            path: path.iter().map(|part| (*part).to_owned()).collect(),
            length,
            layer: Vec::new(),
            root: (length > 0).then_some([7; 32]),
        }
    }

    fn outer_fields() -> OuterFields {
        OuterFields {
            trackers: Some(vec![vec!["http://a/".into()], vec!["udp://b:1".into()]]),
            web_seeds: Some(vec!["http://w/".into()]),
            ..OuterFields::default()
        }
    }

    #[test]
    fn written_torrent_parses() {
        let files = [
            file(&["a"], 5),
            file(&["b", "c"], 0),
            file(&["b", "d"], 16_384),
        ];
        let layout = Layout::aligned(files.iter().map(|file| file.length), 16_384);
        let info = NewInfo {
            name: "x",
            is_single: false,
            files: &files,
            layout: &layout,
            v1: Some(vec![0; 40]),
            v2: true,
            private: true,
            source: Some("here"),
            similar: &[InfoHash([1; 20])],
            collections: &["all".into()],
        }
        .write();
        let (v1, v2) = (info.v1, info.v2);
        let read = Metainfo::parse(&info.torrent(&outer_fields())).unwrap();
        assert_eq!((read.v1, read.v2), (v1, v2));
        assert_eq!((read.size, read.private), (16_389, true));
        assert_eq!(read.trackers, [["http://a/"], ["udp://b:1"]]);
    }

    #[test]
    fn edit_keeps_other_fields() {
        let torrent = include_bytes!("../../tests/torrents/hybrid-discs.torrent");
        let same = OuterFields::default().edit(torrent).unwrap();
        assert_eq!(same, torrent);
        let before = Metainfo::parse(torrent).unwrap();
        let edited = Metainfo::parse(&outer_fields().edit(torrent).unwrap()).unwrap();
        assert_ne!(before.trackers, edited.trackers);
        assert_eq!(edited.web_seeds, ["http://w/"]);
        let bare = OuterFields {
            trackers: Some(Vec::new()),
            web_seeds: Some(Vec::new()),
            creation_date: Some(None),
            ..OuterFields::default()
        };
        let bare = Metainfo::parse(&bare.edit(torrent).unwrap()).unwrap();
        assert_eq!((bare.v1, bare.v2), (before.v1, before.v2));
        assert_eq!((bare.trackers.len(), bare.web_seeds.len()), (0, 0));
        assert!(OuterFields::default().edit(b"d1:b1:a1:a1:be").is_err());
    }
}
