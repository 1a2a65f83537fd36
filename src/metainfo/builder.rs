//! Writes `.torrent` files: `info` from names and hashes, and around it what may change without another id.

use std::collections::BTreeMap;

use sha1::Sha1;
use sha2::Sha256;

use super::MetainfoError;
use super::bencode::{Dict, Value};
use super::merkle::Hash;
use super::pieces::Layout;
use crate::tracker::{InfoHash, InfoHashV2};

/// A file to be published.
#[derive(Clone, Debug)]
pub struct NewFile {
    /// Below the torrent's name; the name itself, if it is of one file.
    pub path: Vec<String>,
    /// Bytes.
    pub length: u64,
    /// 32 bytes for each piece, and the root over them; empty without v2, and for an empty file.
    pub layer: Vec<u8>,
    pub root: Option<Hash>,
}

/// What `info` is made of (BEP 3, 27, 38, 47, 52).
#[derive(Debug)]
pub struct NewInfo<'a> {
    pub name: &'a str,
    /// The torrent is of one file, which has the torrent's name.
    pub is_single: bool,
    /// Sorted by path.
    pub files: &'a [NewFile],
    /// Where they lie, aligned if there is a v2.
    pub layout: &'a Layout,
    /// The hashes of the pieces, 20 bytes each.
    pub v1: Option<Vec<u8>>,
    pub v2: bool,
    pub private: bool,
    pub source: Option<&'a str>,
    pub similar: &'a [InfoHash],
    pub collections: &'a [String],
}

/// The `info` of a torrent as it is written, and what v2 has beside it.
#[derive(Debug)]
pub struct Info {
    bytes: Vec<u8>,
    layers: Option<Value>,
    pub v1: Option<InfoHash>,
    pub v2: Option<InfoHashV2>,
}

impl NewInfo<'_> {
    pub fn write(self) -> Info {
        let mut info = BTreeMap::new();
        let mut put = |key: &str, value: Value| info.insert(key.into(), value);
        put("name", Value::text(self.name));
        put("piece length", Value::length(self.layout.piece_length()));
        if self.private {
            put("private", Value::Integer(1));
        }
        if let Some(source) = self.source {
            put("source", Value::text(source));
        }
        if !self.similar.is_empty() {
            let ids = self.similar.iter().map(|id| Value::Bytes(id.0.into()));
            put("similar", Value::List(ids.collect()));
        }
        if !self.collections.is_empty() {
            put("collections", texts(self.collections));
        }
        if self.v2 {
            put("meta version", Value::Integer(2));
            put("file tree", tree(self.files, 0));
        }
        let layers = self.v2.then(|| layers(self.files));
        let is_v1 = self.v1.is_some();
        if self.is_single && is_v1 {
            put("length", Value::length(self.files[0].length));
        } else if is_v1 {
            put("files", list(self.files, self.layout));
        }
        if let Some(pieces) = self.v1 {
            put("pieces", Value::Bytes(pieces));
        }

        let mut bytes = Vec::new();
        Value::Dict(info).write(&mut bytes);
        Info {
            v1: is_v1.then(|| InfoHash(<Sha1 as sha1::Digest>::digest(&bytes).into())),
            v2: self
                .v2
                .then(|| InfoHashV2(<Sha256 as sha2::Digest>::digest(&bytes).into())),
            bytes,
            layers,
        }
    }
}

/// The v1 list, with padding where the layout has it.
fn list(files: &[NewFile], layout: &Layout) -> Value {
    let entry = |file: &NewFile| {
        Value::dict([
            ("length", Value::length(file.length)),
            ("path", texts(&file.path)),
        ])
    };
    let mut listed = Vec::new();
    let mut rest = files.iter().enumerate().peekable();
    for run in layout.runs() {
        let Some(number) = run.file else {
            listed.push(Value::dict([
                ("attr", Value::text("p")),
                ("length", Value::length(run.length)),
                ("path", texts(&[".pad".into(), run.length.to_string()])),
            ]));
            continue;
        };
        // Empty files have no run.
        while let Some((_, file)) = rest.next_if(|(at, _)| *at <= number) {
            listed.push(entry(file));
        }
    }
    listed.extend(rest.map(|(_, file)| entry(file)));
    Value::List(listed)
}

/// The v2 tree of these files, sorted, from the path's part `depth` on.
fn tree(files: &[NewFile], depth: usize) -> Value {
    let mut entries = BTreeMap::new();
    for group in files.chunk_by(|one, next| one.path[depth] == next.path[depth]) {
        let value = if group[0].path.len() == depth + 1 {
            let mut file = BTreeMap::from([(b"length".into(), Value::length(group[0].length))]);
            if let Some(root) = group[0].root {
                file.insert(b"pieces root".into(), Value::Bytes(root.into()));
            }
            Value::dict([("", Value::Dict(file))])
        } else {
            tree(group, depth + 1)
        };
        entries.insert(group[0].path[depth].clone().into(), value);
    }
    Value::Dict(entries)
}

fn layers(files: &[NewFile]) -> Value {
    let longer = files.iter().filter(|file| file.layer.len() > 32);
    Value::Dict(
        longer
            .filter_map(|file| Some((file.root?.into(), Value::Bytes(file.layer.clone()))))
            .collect(),
    )
}

fn texts(texts: &[String]) -> Value {
    Value::List(texts.iter().map(|text| Value::text(text)).collect())
}

/// What stands around `info`; each part is left as it is if None, and taken away if empty.
#[derive(Clone, Default, Debug)]
pub struct Around {
    /// By tier (BEP 12).
    pub trackers: Option<Vec<Vec<String>>>,
    /// BEP 19.
    pub web_seeds: Option<Vec<String>>,
    /// BEP 17, to be taken away only.
    pub drop_http_seeds: bool,
    /// Host and port (BEP 5).
    pub nodes: Option<Vec<(String, u16)>>,
    pub comment: Option<String>,
    /// Seconds since 1970.
    pub creation_date: Option<Option<i64>>,
}

impl Info {
    /// The whole `.torrent`.
    pub fn torrent(self, around: &Around) -> Vec<u8> {
        let mut file = BTreeMap::from([(b"info".into(), Value::Raw(self.bytes))]);
        if let Some(layers) = self.layers {
            file.insert(b"piece layers".into(), layers);
        }
        around.apply(&mut file);
        written(file)
    }
}

impl Around {
    /// A `.torrent` with these changes; everything else, `info` above all, keeps its bytes.
    pub fn edit(&self, torrent: &[u8]) -> Result<Vec<u8>, MetainfoError> {
        let mut file: BTreeMap<_, _> = Dict::parse(torrent)?
            .entries()
            .map(|(key, value)| (key.to_vec(), Value::Raw(value.to_vec())))
            .collect();
        self.apply(&mut file);
        Ok(written(file))
    }

    fn apply(&self, file: &mut BTreeMap<Vec<u8>, Value>) {
        let mut put = |key: &str, value: Option<Value>| match value {
            Some(value) => drop(file.insert(key.into(), value)),
            None => drop(file.remove(key.as_bytes())),
        };
        if let Some(tiers) = &self.trackers {
            let mut urls = tiers.iter().flatten();
            put("announce", urls.next().map(|url| Value::text(url)));
            // One tracker needs no list.
            let list = || Value::List(tiers.iter().map(|tier| texts(tier)).collect());
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
                vec![Value::text(host), Value::length((*port).into())]
            };
            let list = nodes.iter().map(|node| Value::List(pair(node))).collect();
            put("nodes", (!nodes.is_empty()).then_some(Value::List(list)));
        }
        if let Some(comment) = &self.comment {
            put(
                "comment",
                (!comment.is_empty()).then(|| Value::text(comment)),
            );
        }
        if let Some(date) = self.creation_date {
            put("creation date", date.map(Value::Integer));
        }
    }
}

fn written(file: BTreeMap<Vec<u8>, Value>) -> Vec<u8> {
    let mut bytes = Vec::new();
    Value::Dict(file).write(&mut bytes);
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

    fn around() -> Around {
        Around {
            trackers: Some(vec![vec!["http://a/".into()], vec!["udp://b:1".into()]]),
            web_seeds: Some(vec!["http://w/".into()]),
            ..Around::default()
        }
    }

    #[test]
    fn a_tree_reads_back() {
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
        let read = Metainfo::parse(&info.torrent(&around())).unwrap();
        assert_eq!((read.v1, read.v2), (v1, v2));
        assert_eq!((read.size, read.private), (16_389, true));
        assert_eq!(read.trackers, [["http://a/"], ["udp://b:1"]]);
    }

    #[test]
    fn an_edit_changes_nothing_else() {
        let torrent = include_bytes!("../../tests/torrents/hybrid-discs.torrent");
        let same = Around::default().edit(torrent).unwrap();
        assert_eq!(same, torrent);
        let before = Metainfo::parse(torrent).unwrap();
        let edited = Metainfo::parse(&around().edit(torrent).unwrap()).unwrap();
        assert_ne!(before.trackers, edited.trackers);
        assert_eq!(edited.web_seeds, ["http://w/"]);
        let bare = Around {
            trackers: Some(Vec::new()),
            web_seeds: Some(Vec::new()),
            creation_date: Some(None),
            ..Around::default()
        };
        let bare = Metainfo::parse(&bare.edit(torrent).unwrap()).unwrap();
        assert_eq!((bare.v1, bare.v2), (before.v1, before.v2));
        assert_eq!((bare.trackers.len(), bare.web_seeds.len()), (0, 0));
        assert!(Around::default().edit(b"d1:b1:a1:a1:be").is_err());
    }
}
