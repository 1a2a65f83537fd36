//! Download counters of several trackers: each counts its own, and shows the sum.

use std::collections::HashMap;

use crate::tracker::types::CorruptBlock;
use crate::tracker::types::InfoHash;

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

/// What all trackers have counted, as far as this one contains; nothing that is 0.
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
        self.apply_update(&counter).map(|_| counter)
    }

    /// Takes a counter in, whoever's it is, and tells the torrent's new total; `None` if as much was known.
    pub fn apply_update(&mut self, counter: &Counter) -> Option<u32> {
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
        self.apply_update(&counter).map(|_| counter)
    }

    /// What all have counted together.
    pub fn total(&self, info_hash: &InfoHash) -> u32 {
        let counters = self.0.get(info_hash).map_or(&[][..], Vec::as_slice);
        let sum = |sum: u32, (_, downloads): &(NodeId, u32)| sum.saturating_add(*downloads);
        counters.iter().fold(0, sum)
    }

    /// Every counter, in no order: to tell it all redelivered, and for a tracker to show.
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
    pub fn restore(&mut self, mut bytes: &[u8]) -> Result<(), CorruptBlock> {
        while let Some((counter, rest)) = bytes.split_first_chunk::<{ Self::SAVED }>() {
            bytes = rest;
            let number = |from: usize, to: usize| {
                let bytes = counter[from..to].iter();
                bytes.fold(0, |number, byte| number << 8 | u64::from(*byte))
            };
            let mut info_hash = InfoHash([0; 20]);
            info_hash.0.copy_from_slice(&counter[..20]);
            self.apply_update(&Counter {
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

    fn of(&self, info_hash: &InfoHash, node: NodeId) -> u32 {
        let counters = self.0.get(info_hash).map_or(&[][..], Vec::as_slice);
        let own = counters.iter().find(|counter| counter.0 == node);
        own.map_or(0, |(_, downloads)| *downloads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tracker::Rng;

    const ONE: NodeId = NodeId(1);
    const OTHER: NodeId = NodeId(u64::MAX);

    fn id(number: u32) -> InfoHash {
        let mut id = InfoHash([0; 20]);
        id.0[..4].copy_from_slice(&number.to_be_bytes());
        id
    }

    fn counter(number: u32, node: NodeId, downloads: u32) -> Counter {
        Counter {
            info_hash: id(number),
            node,
            downloads,
        }
    }

    #[test]
    fn each_counts_its_own_and_all_show_the_sum() {
        let (mut one, mut other) = (Downloads::default(), Downloads::default());
        assert_eq!(one.count(id(7), ONE), Some(counter(7, ONE, 1)));
        let second = one.count(id(7), ONE).unwrap();
        assert_eq!(second, counter(7, ONE, 2));
        assert_eq!(other.apply_update(&second), Some(2));
        assert_eq!(other.apply_update(&second), None, "known");
        assert_eq!(other.apply_update(&counter(7, ONE, 1)), None, "older");
        assert_eq!(other.apply_update(&counter(8, ONE, 0)), None, "nothing");
        let third = other.count(id(7), OTHER).unwrap();
        assert_eq!(third, counter(7, OTHER, 1));
        assert_eq!(one.apply_update(&third), Some(3));
        assert_eq!((one.total(&id(7)), other.total(&id(7))), (3, 3));
        assert_eq!(one.total(&id(8)), 0);
        assert_eq!(one.counters().count(), 2);
    }

    /// Whatever order the counters come in, however often, and through however many restarts.
    #[test]
    fn all_agree_in_the_end() {
        let mut random = Rng::new(1);
        let nodes: Vec<_> = (0..4).map(NodeId).collect();
        let mut tables: Vec<_> = nodes.iter().map(|_| Downloads::default()).collect();
        let (mut told, mut counted) = (Vec::new(), [0; 3]);
        for _ in 0..5000 {
            let at = random.below(4) as usize;
            match random.below(4) {
                0 => {
                    let torrent = random.below(3);
                    told.extend(tables[at].count(id(torrent), nodes[at]));
                    counted[torrent as usize] += 1;
                }
                1 if random.below(20) == 0 => {
                    let bytes = tables[at].save();
                    tables[at] = Downloads::default();
                    for part in bytes.chunks(Downloads::SAVED) {
                        tables[at].restore(part).unwrap();
                    }
                }
                _ if told.is_empty() => {}
                _ => {
                    let one = told[random.below(told.len() as u32) as usize];
                    tables[at].apply_update(&one);
                }
            }
        }
        for table in &mut tables {
            for counter in &told {
                table.apply_update(counter);
            }
            for (torrent, counted) in (0..).zip(counted) {
                assert_eq!(table.total(&id(torrent)), counted);
            }
        }
        assert!(counted.iter().all(|&counted| counted > 100));
    }

    #[test]
    fn what_was_counted_alone_is_ones_own() {
        let mut downloads = Downloads::default();
        assert_eq!(downloads.adopt(id(1), 0, ONE), None);
        assert_eq!(downloads.adopt(id(1), 5, ONE), Some(counter(1, ONE, 5)));
        assert_eq!(downloads.adopt(id(1), 5, ONE), None);
        assert_eq!(downloads.apply_update(&counter(1, OTHER, 3)), Some(8));
        // The tracker shows 8 now, and 9 after it has counted one alone.
        assert_eq!(downloads.adopt(id(1), 8, ONE), None);
        assert_eq!(downloads.adopt(id(1), 9, ONE), Some(counter(1, ONE, 6)));
        assert_eq!(downloads.adopt(id(1), 2, ONE), None, "never back");
        assert_eq!(downloads.total(&id(1)), 9);
    }

    #[test]
    fn what_is_saved_is_the_same_on_every_machine() {
        let mut downloads = Downloads::default();
        downloads.apply_update(&Counter {
            info_hash: InfoHash(*b"aaaaabbbbbcccccddddd"),
            node: NodeId(0x0102_0304_0506_0708),
            downloads: 0x0a0b_0c0d,
        });
        let expected = b"aaaaabbbbbcccccddddd\x01\x02\x03\x04\x05\x06\x07\x08\x0a\x0b\x0c\x0d";
        let bytes = downloads.save();
        assert_eq!(bytes, expected);
        let mut back = Downloads::default();
        back.restore(&bytes).unwrap();
        assert_eq!(back.save(), bytes);
        for len in 1..bytes.len() {
            assert_eq!(
                Downloads::default().restore(&bytes[..len]),
                Err(CorruptBlock)
            );
        }
    }

    #[test]
    fn it_is_bounded_and_the_forgotten_make_room() {
        let mut downloads = Downloads::default();
        for node in 0..=MOST_NODES as u64 {
            downloads.apply_update(&counter(0, NodeId(node), 1));
        }
        assert_eq!(downloads.total(&id(0)), MOST_NODES as u32);
        for torrent in 0..=MOST as u32 {
            downloads.apply_update(&counter(torrent, NodeId(0), 2));
        }
        assert_eq!(downloads.0.len(), MOST);
        assert_eq!(downloads.count(id(MOST as u32), ONE), None);
        assert_eq!(
            downloads.apply_update(&counter(1, ONE, 5)),
            Some(7),
            "known torrents count on"
        );
        downloads.retain(|known| *known != id(2));
        assert_eq!(downloads.total(&id(2)), 0);
        assert!(downloads.count(id(MOST as u32), ONE).is_some());
        downloads.apply_update(&counter(3, ONE, u32::MAX));
        assert_eq!(downloads.total(&id(3)), u32::MAX);
    }
}
