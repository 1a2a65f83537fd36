//! Download counters of several trackers: each counts its own, and shows the sum.

use std::collections::HashMap;

use super::saved::Malformed;
use super::types::InfoHash;

/// The most torrents that are kept, with some 100 bytes for three nodes: beyond what anyone publishes, and a bound on the memory.
const MOST: usize = 1 << 20;

/// The most trackers that may have counted one torrent's downloads, former ones among them.
const MOST_NODES: usize = 256;

/// Which tracker counted, the same for as long as it keeps its counters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NodeId(pub u64);

/// How many downloads of a torrent one tracker has counted by now; it never goes back, so of two the larger is the newer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Counter {
    pub info_hash: InfoHash,
    pub node: NodeId,
    pub downloads: u32,
}

/// What all trackers have counted, as far as this one knows; nothing that is 0.
#[derive(Default, Debug)]
pub struct Downloads(HashMap<InfoHash, Vec<(NodeId, u32)>>);

impl Downloads {
    /// Counts a download of one's own, and gives the counter to tell the others; `None` if there is no room for another
    /// torrent.
    pub fn count(&mut self, info_hash: InfoHash, own: NodeId) -> Option<Counter> {
        let downloads = self.of(&info_hash, own).saturating_add(1);
        let counter = Counter {
            info_hash,
            node: own,
            downloads,
        };
        self.hear(&counter).map(|_| counter)
    }

    /// Takes a counter in, whoever's it is, and tells the torrent's new total; `None` if as much was known.
    pub fn hear(&mut self, counter: &Counter) -> Option<u32> {
        if self.of(&counter.info_hash, counter.node) >= counter.downloads {
            return None;
        }
        let room = self.0.len() < MOST || self.0.contains_key(&counter.info_hash);
        let counters = room.then(|| self.0.entry(counter.info_hash).or_default())?;
        match counters.iter().position(|known| known.0 == counter.node) {
            Some(at) => counters[at].1 = counter.downloads,
            None if counters.len() < MOST_NODES => {
                counters.push((counter.node, counter.downloads));
            }
            None => return None,
        }
        Some(self.total(&counter.info_hash))
    }

    /// Takes what the tracker shows for the sum: what no other has counted is one's own. For a start, when the tracker may
    /// have counted alone; gives the counter to tell if it is new.
    pub fn adopt(&mut self, info_hash: InfoHash, total: u32, own: NodeId) -> Option<Counter> {
        let others = self.total(&info_hash) - self.of(&info_hash, own);
        let counter = Counter {
            info_hash,
            node: own,
            downloads: total.saturating_sub(others),
        };
        self.hear(&counter).map(|_| counter)
    }

    /// What all have counted together.
    pub fn total(&self, info_hash: &InfoHash) -> u32 {
        let counters = self.0.get(info_hash).map_or(&[][..], Vec::as_slice);
        let sum = |sum: u32, (_, downloads): &(NodeId, u32)| sum.saturating_add(*downloads);
        counters.iter().fold(0, sum)
    }

    /// Every counter, in no order: to tell it all again, and for a tracker to show.
    pub fn counters(&self) -> impl Iterator<Item = Counter> {
        self.0.iter().flat_map(|(info_hash, counters)| {
            counters.iter().map(|&(node, downloads)| Counter {
                info_hash: *info_hash,
                node,
                downloads,
            })
        })
    }

    /// Forgets the torrents that `known` does not know: those of an open tracker come and go.
    pub fn retain(&mut self, known: impl Fn(&InfoHash) -> bool) {
        self.0.retain(|info_hash, _| known(info_hash));
    }

    /// How many bytes one counter takes in a snapshot: torrent, node, downloads.
    pub const SAVED: usize = 20 + 8 + 4;

    /// All as bytes for a snapshot to keep. Numbers are big-endian.
    pub fn save(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for counter in self.counters() {
            bytes.extend_from_slice(&counter.info_hash.0);
            bytes.extend_from_slice(&counter.node.0.to_be_bytes());
            bytes.extend_from_slice(&counter.downloads.to_be_bytes());
        }
        bytes
    }

    /// Takes in what [`Downloads::save`] wrote, or a part of it that ends with a counter.
    ///
    /// # Errors
    /// When it ends in the middle of one.
    pub fn restore(&mut self, mut bytes: &[u8]) -> Result<(), Malformed> {
        while let Some((counter, rest)) = bytes.split_first_chunk::<{ Self::SAVED }>() {
            bytes = rest;
            let number = |from: usize, to: usize| {
                let bytes = counter[from..to].iter();
                bytes.fold(0, |number, byte| number << 8 | u64::from(*byte))
            };
            let mut info_hash = InfoHash([0; 20]);
            info_hash.0.copy_from_slice(&counter[..20]);
            self.hear(&Counter {
                info_hash,
                node: NodeId(number(20, 28)),
                downloads: number(28, 32) as u32,
            });
        }
        match bytes {
            [] => Ok(()),
            _ => Err(Malformed),
        }
    }

    fn of(&self, info_hash: &InfoHash, node: NodeId) -> u32 {
        let counters = self.0.get(info_hash).map_or(&[][..], Vec::as_slice);
        let own = counters.iter().find(|counter| counter.0 == node);
        own.map_or(0, |(_, downloads)| *downloads)
    }
}
