//! The checkpoint of a node in the snapshot: the cluster state that survives a restart.

use crate::bytes::take;
use crate::cluster::download_counters::{DownloadCounters, NodeId};
use crate::cluster::queue::PARTITIONS;
use crate::cluster::stream_store::EntryId;
use crate::tracker::types::Time;

const VERSION: u8 = 1;

/// Stands for no time.
const NO_TIME: u32 = u32::MAX;

/// The cluster state of a node that a restart keeps.
#[derive(Debug)]
pub(super) struct Checkpoint {
    pub(super) node: NodeId,
    /// See [`Resync::unsent_since`](crate::cluster::resync::Resync::unsent_since).
    pub(super) unsent_since: Option<Time>,
    /// See [`Resync::epoch`](crate::cluster::resync::Resync::epoch).
    pub(super) epoch: Option<u64>,
    /// The last entry applied from each stream.
    pub(super) positions: [EntryId; PARTITIONS],
    pub(super) counters: DownloadCounters,
}

/// Returns the bytes that [`Checkpoint::parse`] reads. Numbers are big-endian.
///
/// ```text
/// version       1 byte    1
/// node          u64
/// unsent_since  u32       in the tracker's time; 2^32 - 1: nothing is unsent
/// epoch         u64       0: unknown
/// positions     u64, u64  of each of 16 streams
/// counters                up to the end, see DownloadCounters::save
/// ```
pub(super) fn write(
    node: NodeId,
    unsent_since: Option<Time>,
    epoch: Option<u64>,
    positions: &[EntryId; PARTITIONS],
    counters: &DownloadCounters,
) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    bytes.extend_from_slice(&node.0.to_be_bytes());
    bytes.extend_from_slice(&unsent_since.map_or(NO_TIME, |since| since.0).to_be_bytes());
    bytes.extend_from_slice(&epoch.unwrap_or(0).to_be_bytes());
    for id in positions {
        bytes.extend_from_slice(&id.ms.to_be_bytes());
        bytes.extend_from_slice(&id.number.to_be_bytes());
    }
    bytes.extend_from_slice(&counters.save());
    bytes
}

impl Checkpoint {
    /// Parses a checkpoint. Returns `None` if it is truncated or of another version.
    pub(super) fn parse(mut bytes: &[u8]) -> Option<Self> {
        let rest = &mut bytes;
        (take(rest)? == [VERSION]).then_some(())?;
        let node = NodeId(u64::from_be_bytes(take(rest)?));
        let unsent_since = u32::from_be_bytes(take(rest)?);
        let epoch = u64::from_be_bytes(take(rest)?);
        let mut positions = [EntryId::default(); PARTITIONS];
        for id in &mut positions {
            id.ms = u64::from_be_bytes(take(rest)?);
            id.number = u64::from_be_bytes(take(rest)?);
        }
        let mut counters = DownloadCounters::default();
        counters.restore(rest).ok()?;
        Some(Self {
            node,
            unsent_since: Some(Time(unsent_since)).filter(|since| since.0 != NO_TIME),
            epoch: Some(epoch).filter(|&epoch| epoch != 0),
            positions,
            counters,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tracker::types::InfoHash;

    const NODE: NodeId = NodeId(7);

    #[test]
    fn checkpoint_round_trips() {
        let mut counters = DownloadCounters::default();
        counters.count(InfoHash([1; 20]), NODE);
        let positions = std::array::from_fn(|at| EntryId {
            ms: 1000 + at as u64,
            number: 2,
        });
        for (unsent_since, epoch) in [(None, Some(3)), (Some(Time(9)), None)] {
            let bytes = write(NODE, unsent_since, epoch, &positions, &counters);
            let parsed = Checkpoint::parse(&bytes).unwrap();
            assert_eq!((parsed.node, parsed.positions), (NODE, positions));
            assert_eq!((parsed.unsent_since, parsed.epoch), (unsent_since, epoch));
            assert_eq!(parsed.counters.total(&InfoHash([1; 20])), 1);
        }
    }

    #[test]
    fn rejects_truncated_checkpoint_and_other_versions() {
        let counters = DownloadCounters::default();
        let mut bytes = write(NODE, None, None, &Default::default(), &counters);
        assert!(Checkpoint::parse(&bytes).is_some());
        assert!(Checkpoint::parse(&bytes[..bytes.len() - 1]).is_none());
        assert!(Checkpoint::parse(&[]).is_none());
        bytes[0] = 2;
        assert!(Checkpoint::parse(&bytes).is_none());
    }
}
