//! What a node keeps of its cluster over a restart, in the snapshot.

use crate::bytes::take;
use crate::cluster::download_counters::{Downloads, NodeId};
use crate::cluster::queue::PARTITIONS;
use crate::cluster::resync::EntryId;
use crate::tracker::Time;

const VERSION: u8 = 1;

/// Stands for none.
const NONE: u32 = u32::MAX;

/// Where a node stood, and what all had counted.
#[derive(Debug)]
pub(super) struct Checkpoint {
    pub(super) node: NodeId,
    /// As in [`crate::cluster::resync::Resync`].
    pub(super) unsent_since: Option<Time>,
    pub(super) epoch: Option<u64>,
    /// How far each stream has been read.
    pub(super) read: [EntryId; PARTITIONS],
    pub(super) downloads: Downloads,
}

/// What [`Checkpoint::read`] reads. Numbers are big-endian.
///
/// ```text
/// version     1 byte    1
/// node        u64
/// unsent_since  u32       the tracker's time; 2^32 - 1: nothing is owed
/// epoch       u64       0: unknown
/// read        u64, u64  of each of 16 streams
/// downloads             as their owner writes them
/// ```
pub(super) fn bytes(
    node: NodeId,
    unsent_since: Option<Time>,
    epoch: Option<u64>,
    read: &[EntryId; PARTITIONS],
    downloads: &Downloads,
) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    bytes.extend_from_slice(&node.0.to_be_bytes());
    bytes.extend_from_slice(&unsent_since.map_or(NONE, |owed| owed.0).to_be_bytes());
    bytes.extend_from_slice(&epoch.unwrap_or(0).to_be_bytes());
    for id in read {
        bytes.extend_from_slice(&id.ms.to_be_bytes());
        bytes.extend_from_slice(&id.number.to_be_bytes());
    }
    bytes.extend_from_slice(&downloads.save());
    bytes
}

impl Checkpoint {
    /// `None` for what another version wrote.
    pub(super) fn read(mut bytes: &[u8]) -> Option<Self> {
        let rest = &mut bytes;
        (take(rest)? == [VERSION]).then_some(())?;
        let node = NodeId(u64::from_be_bytes(take(rest)?));
        let unsent_since = u32::from_be_bytes(take(rest)?);
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
            unsent_since: Some(Time(unsent_since)).filter(|owed| owed.0 != NONE),
            epoch: Some(epoch).filter(|&epoch| epoch != 0),
            read,
            downloads,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tracker::InfoHash;

    const NODE: NodeId = NodeId(7);

    #[test]
    fn what_is_kept_comes_back() {
        let mut downloads = Downloads::default();
        downloads.count(InfoHash([1; 20]), NODE);
        let read = std::array::from_fn(|at| EntryId {
            ms: 1000 + at as u64,
            number: 2,
        });
        for (unsent_since, epoch) in [(None, Some(3)), (Some(Time(9)), None)] {
            let bytes = bytes(NODE, unsent_since, epoch, &read, &downloads);
            let back = Checkpoint::read(&bytes).unwrap();
            assert_eq!((back.node, back.read), (NODE, read));
            assert_eq!((back.unsent_since, back.epoch), (unsent_since, epoch));
            assert_eq!(back.downloads.total(&InfoHash([1; 20])), 1);
        }
    }

    #[test]
    fn what_is_torn_or_another_versions_is_none() {
        let nothing = Downloads::default();
        let mut bytes = bytes(NODE, None, None, &Default::default(), &nothing);
        assert!(Checkpoint::read(&bytes).is_some());
        assert!(Checkpoint::read(&bytes[..bytes.len() - 1]).is_none());
        assert!(Checkpoint::read(&[]).is_none());
        bytes[0] = 2;
        assert!(Checkpoint::read(&bytes).is_none());
    }
}
