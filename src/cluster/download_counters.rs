//! Download counters of several trackers: each node counts its own downloads and shows the sum of all nodes.

use std::collections::HashMap;
use std::fmt;

use crate::tracker::types::{CorruptBlock, InfoHash};

/// Maximum number of torrents in the table, with some 100 bytes each for three nodes: more than anyone publishes, and a
/// bound on the memory.
const MAX_TORRENTS: usize = 1 << 20;

/// Maximum number of nodes, former ones included, that may have counted one torrent's downloads.
const MAX_NODES: usize = 256;

/// Length of one counter in a snapshot, in bytes: torrent, node, downloads.
const SAVED_LEN: usize = 20 + 8 + 4;

/// Id of a tracker in a cluster. A node keeps its id for as long as it keeps its counters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The number of downloads of a torrent that a node has counted so far. The number never decreases, so the larger of two
/// values is the newer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DownloadCounter {
    pub info_hash: InfoHash,
    pub node: NodeId,
    pub downloads: u32,
}

/// The counters of all nodes, as far as this node knows them. Counters of 0 are not stored.
#[derive(Default, Debug)]
pub struct DownloadCounters(HashMap<InfoHash, Vec<(NodeId, u32)>>);

impl DownloadCounters {
    /// Counts a download of this node and returns the counter to send to the others. Returns `None` if there is no room for
    /// another torrent.
    pub fn count(&mut self, info_hash: InfoHash, own: NodeId) -> Option<DownloadCounter> {
        let downloads = self.get(&info_hash, own).saturating_add(1);
        let counter = DownloadCounter {
            info_hash,
            node: own,
            downloads,
        };
        self.apply(&counter).map(|_| counter)
    }

    /// Applies a counter of any node and returns the torrent's new total. Returns `None` if the counter is not newer than
    /// the known counter, or if there is no room.
    pub fn apply(&mut self, counter: &DownloadCounter) -> Option<u32> {
        if self.get(&counter.info_hash, counter.node) >= counter.downloads {
            return None;
        }
        let room = self.0.len() < MAX_TORRENTS || self.0.contains_key(&counter.info_hash);
        let counters = room.then(|| self.0.entry(counter.info_hash).or_default())?;
        match counters.iter().position(|known| known.0 == counter.node) {
            Some(at) => counters[at].1 = counter.downloads,
            None if counters.len() < MAX_NODES => {
                counters.push((counter.node, counter.downloads));
            }
            None => return None,
        }
        Some(self.total(&counter.info_hash))
    }

    /// Attributes to this node the downloads by which the tracker's `total` exceeds the counters of the other nodes.
    /// Used at start-up: the tracker may have counted outside of a cluster. Returns the counter if it is new.
    pub fn adopt(
        &mut self,
        info_hash: InfoHash,
        total: u32,
        own: NodeId,
    ) -> Option<DownloadCounter> {
        let others = self.total(&info_hash) - self.get(&info_hash, own);
        let counter = DownloadCounter {
            info_hash,
            node: own,
            downloads: total.saturating_sub(others),
        };
        self.apply(&counter).map(|_| counter)
    }

    /// Returns the downloads that all nodes have counted together.
    pub fn total(&self, info_hash: &InfoHash) -> u32 {
        let counters = self.0.get(info_hash).map_or(&[][..], Vec::as_slice);
        let sum = |sum: u32, (_, downloads): &(NodeId, u32)| sum.saturating_add(*downloads);
        counters.iter().fold(0, sum)
    }

    /// Returns every counter, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = DownloadCounter> {
        self.0.iter().flat_map(|(info_hash, counters)| {
            counters.iter().map(|&(node, downloads)| DownloadCounter {
                info_hash: *info_hash,
                node,
                downloads,
            })
        })
    }

    /// Returns all counters as bytes for a snapshot. Numbers are big-endian.
    pub fn save(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for counter in self.iter() {
            bytes.extend_from_slice(&counter.info_hash.0);
            bytes.extend_from_slice(&counter.node.0.to_be_bytes());
            bytes.extend_from_slice(&counter.downloads.to_be_bytes());
        }
        bytes
    }

    /// Applies the counters that [`DownloadCounters::save`] wrote. The bytes may also be a part that ends with a whole
    /// counter.
    ///
    /// # Errors
    /// When the bytes end in the middle of a counter. The counters before are applied.
    pub fn restore(&mut self, mut bytes: &[u8]) -> Result<(), CorruptBlock> {
        while let Some((counter, rest)) = bytes.split_first_chunk::<{ SAVED_LEN }>() {
            bytes = rest;
            let number = |from: usize, to: usize| {
                let bytes = counter[from..to].iter();
                bytes.fold(0, |number, byte| number << 8 | u64::from(*byte))
            };
            let mut info_hash = InfoHash([0; 20]);
            info_hash.0.copy_from_slice(&counter[..20]);
            self.apply(&DownloadCounter {
                info_hash,
                node: NodeId(number(20, 28)),
                downloads: number(28, 32) as u32,
            });
        }
        match bytes {
            [] => Ok(()),
            _ => Err(CorruptBlock),
        }
    }

    /// Returns the number of downloads that a node has counted; 0 if its counter is unknown.
    fn get(&self, info_hash: &InfoHash, node: NodeId) -> u32 {
        let counters = self.0.get(info_hash).map_or(&[][..], Vec::as_slice);
        let own = counters.iter().find(|counter| counter.0 == node);
        own.map_or(0, |(_, downloads)| *downloads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tracker::rng::Rng;

    const FIRST: NodeId = NodeId(1);
    const SECOND: NodeId = NodeId(u64::MAX);

    fn id(number: u32) -> InfoHash {
        let mut id = InfoHash([0; 20]);
        id.0[..4].copy_from_slice(&number.to_be_bytes());
        id
    }

    fn counter(number: u32, node: NodeId, downloads: u32) -> DownloadCounter {
        DownloadCounter {
            info_hash: id(number),
            node,
            downloads,
        }
    }

    #[test]
    fn sums_the_counters_of_all_nodes() {
        let (mut first, mut second) = (DownloadCounters::default(), DownloadCounters::default());
        assert_eq!(first.count(id(7), FIRST), Some(counter(7, FIRST, 1)));
        let own = first.count(id(7), FIRST).unwrap();
        assert_eq!(own, counter(7, FIRST, 2));
        assert_eq!(second.apply(&own), Some(2));
        assert_eq!(second.apply(&own), None, "known");
        assert_eq!(second.apply(&counter(7, FIRST, 1)), None, "older");
        assert_eq!(
            second.apply(&counter(8, FIRST, 0)),
            None,
            "zero is not stored"
        );
        let theirs = second.count(id(7), SECOND).unwrap();
        assert_eq!(theirs, counter(7, SECOND, 1));
        assert_eq!(first.apply(&theirs), Some(3));
        assert_eq!((first.total(&id(7)), second.total(&id(7))), (3, 3));
        assert_eq!(first.total(&id(8)), 0);
        assert_eq!(first.iter().count(), 2);
    }

    /// Applies counters in random order, repeatedly, and across restarts.
    #[test]
    fn tables_agree_once_all_counters_are_applied() {
        let mut random = Rng::new(1);
        let nodes: Vec<_> = (0..4).map(NodeId).collect();
        let mut tables: Vec<_> = nodes.iter().map(|_| DownloadCounters::default()).collect();
        let (mut sent, mut counted) = (Vec::new(), [0; 3]);
        for _ in 0..5000 {
            let at = random.below(4) as usize;
            match random.below(4) {
                0 => {
                    let torrent = random.below(3);
                    sent.extend(tables[at].count(id(torrent), nodes[at]));
                    counted[torrent as usize] += 1;
                }
                1 if random.below(20) == 0 => {
                    let bytes = tables[at].save();
                    tables[at] = DownloadCounters::default();
                    for part in bytes.chunks(SAVED_LEN) {
                        tables[at].restore(part).unwrap();
                    }
                }
                _ if sent.is_empty() => {}
                _ => {
                    let counter = sent[random.below(sent.len() as u32) as usize];
                    tables[at].apply(&counter);
                }
            }
        }
        for table in &mut tables {
            for counter in &sent {
                table.apply(counter);
            }
            for (torrent, counted) in (0..).zip(counted) {
                assert_eq!(table.total(&id(torrent)), counted);
            }
        }
        assert!(counted.iter().all(|&counted| counted > 100));
    }

    #[test]
    fn adopts_downloads_counted_outside_the_cluster() {
        let mut downloads = DownloadCounters::default();
        assert_eq!(downloads.adopt(id(1), 0, FIRST), None);
        assert_eq!(downloads.adopt(id(1), 5, FIRST), Some(counter(1, FIRST, 5)));
        assert_eq!(downloads.adopt(id(1), 5, FIRST), None);
        assert_eq!(downloads.apply(&counter(1, SECOND, 3)), Some(8));
        // The tracker shows 8 now, and 9 after it has counted another download outside of the cluster.
        assert_eq!(downloads.adopt(id(1), 8, FIRST), None);
        assert_eq!(downloads.adopt(id(1), 9, FIRST), Some(counter(1, FIRST, 6)));
        assert_eq!(
            downloads.adopt(id(1), 2, FIRST),
            None,
            "a counter never decreases"
        );
        assert_eq!(downloads.total(&id(1)), 9);
    }

    #[test]
    fn saved_format_is_fixed() {
        let mut downloads = DownloadCounters::default();
        downloads.apply(&DownloadCounter {
            info_hash: InfoHash(*b"aaaaabbbbbcccccddddd"),
            node: NodeId(0x0102_0304_0506_0708),
            downloads: 0x0a0b_0c0d,
        });
        let expected = b"aaaaabbbbbcccccddddd\x01\x02\x03\x04\x05\x06\x07\x08\x0a\x0b\x0c\x0d";
        let bytes = downloads.save();
        assert_eq!(bytes, expected);
        let mut restored = DownloadCounters::default();
        restored.restore(&bytes).unwrap();
        assert_eq!(restored.save(), bytes);
        for len in 1..bytes.len() {
            assert_eq!(
                DownloadCounters::default().restore(&bytes[..len]),
                Err(CorruptBlock)
            );
        }
    }

    #[test]
    fn limits_torrents_nodes_and_counts() {
        let mut downloads = DownloadCounters::default();
        for node in 0..=MAX_NODES as u64 {
            downloads.apply(&counter(0, NodeId(node), 1));
        }
        assert_eq!(downloads.total(&id(0)), MAX_NODES as u32);
        for torrent in 0..=MAX_TORRENTS as u32 {
            downloads.apply(&counter(torrent, NodeId(0), 2));
        }
        assert_eq!(downloads.0.len(), MAX_TORRENTS);
        assert_eq!(downloads.count(id(MAX_TORRENTS as u32), FIRST), None);
        assert_eq!(
            downloads.apply(&counter(1, FIRST, 5)),
            Some(7),
            "known torrents still count"
        );
        downloads.apply(&counter(3, FIRST, u32::MAX));
        assert_eq!(downloads.total(&id(3)), u32::MAX);
    }
}
