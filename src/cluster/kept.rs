//! What a node keeps of its cluster over a restart, in the snapshot.

use crate::protocol::member::EntryId;
use crate::server::outbox::PARTITIONS;
use crate::tracker::Time;
use crate::tracker::downloads::{Downloads, NodeId};

const VERSION: u8 = 1;

/// Stands for none.
const NONE: u32 = u32::MAX;

/// Where a node stood, and what all had counted.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) node: NodeId,
    /// As in [`crate::protocol::member::Member`].
    pub(super) owed_since: Option<Time>,
    pub(super) epoch: Option<u64>,
    /// How far each stream has been read.
    pub(super) read: [EntryId; PARTITIONS],
    pub(super) downloads: Downloads,
}

impl Kept {
    /// Numbers are big-endian.
    ///
    /// ```text
    /// version     1 byte    1
    /// node        u64
    /// owed_since  u32       the tracker's time; 2^32 - 1: nothing is owed
    /// epoch       u64       0: unknown
    /// read        u64, u64  of each of 16 streams
    /// downloads             as their owner writes them
    /// ```
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&self.node.0.to_be_bytes());
        bytes.extend_from_slice(&self.owed_since.map_or(NONE, |owed| owed.0).to_be_bytes());
        bytes.extend_from_slice(&self.epoch.unwrap_or(0).to_be_bytes());
        for id in self.read {
            bytes.extend_from_slice(&id.ms.to_be_bytes());
            bytes.extend_from_slice(&id.number.to_be_bytes());
        }
        bytes.extend_from_slice(&self.downloads.save());
        bytes
    }

    /// `None` for what another version wrote.
    pub(super) fn read(mut bytes: &[u8]) -> Option<Self> {
        let rest = &mut bytes;
        (take(rest)? == [VERSION]).then_some(())?;
        let node = NodeId(u64::from_be_bytes(take(rest)?));
        let owed_since = u32::from_be_bytes(take(rest)?);
        let epoch = u64::from_be_bytes(take(rest)?);
        let mut read = [EntryId::default(); PARTITIONS];
        for id in &mut read {
            id.ms = u64::from_be_bytes(take(rest)?);
            id.number = u64::from_be_bytes(take(rest)?);
        }
        let mut downloads = Downloads::default();
        downloads.restore(rest).ok()?;
        Some(Self {
            node,
            owed_since: Some(Time(owed_since)).filter(|owed| owed.0 != NONE),
            epoch: Some(epoch).filter(|&epoch| epoch != 0),
            read,
            downloads,
        })
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(*first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tracker::InfoHash;

    #[test]
    fn what_is_kept_comes_back() {
        let mut downloads = Downloads::default();
        downloads.count(InfoHash([1; 20]), NodeId(7));
        let kept = Kept {
            node: NodeId(7),
            owed_since: None,
            epoch: Some(3),
            read: std::array::from_fn(|at| EntryId {
                ms: 1000 + at as u64,
                number: 2,
            }),
            downloads,
        };
        let bytes = kept.bytes();
        let back = Kept::read(&bytes).unwrap();
        assert_eq!(back.bytes(), bytes);
        assert_eq!(back.downloads.total(&InfoHash([1; 20])), 1);
        let owing = Kept {
            owed_since: Some(Time(9)),
            epoch: None,
            ..kept
        };
        let back = Kept::read(&owing.bytes()).unwrap();
        assert_eq!((back.owed_since, back.epoch), (Some(Time(9)), None));
    }

    #[test]
    fn what_is_torn_or_another_versions_is_none() {
        let kept = Kept {
            node: NodeId(7),
            owed_since: None,
            epoch: None,
            read: Default::default(),
            downloads: Downloads::default(),
        };
        let mut bytes = kept.bytes();
        assert!(Kept::read(&bytes).is_some());
        assert!(Kept::read(&bytes[..bytes.len() - 1]).is_none());
        assert!(Kept::read(&[]).is_none());
        bytes[0] = 2;
        assert!(Kept::read(&bytes).is_none());
    }
}
