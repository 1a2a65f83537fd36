//! The tracker's state as blocks for a snapshot, and back.
//!
//! A block is a count of torrents (`u32`), followed by torrents up to the end of the block:
//!
//! ```text
//! info_hash   20 bytes
//! flags       1 byte    1: the torrent is or was listed, so its counter is kept without peers
//! downloaded  u32
//! peers       u32       over IPv4
//! peers       u32       over IPv6
//!             11 bytes each: address and port (6), age in minutes (1), flags (4)
//!             23 bytes each: address and port (18), age in minutes (1), flags (4)
//! ```
//!
//! Numbers are big-endian. The count includes only torrents with peers. A block may have more torrents: those without
//! peers, of which only the counter is kept. The upper 28 bits of a peer's flags are the host's fingerprint, which is
//! valid only for a tracker with the same seed.

use super::Tracker;
use super::shard::{Shard, TrackedTorrent};
use super::swarm::peer::PeerRecord;
use super::types::{Admission, CorruptBlock, InfoHash, PerFamily, Time, Totals, age_minutes};
use crate::bytes;
use crate::lock::lock;

/// Length in bytes from which on a block is full. While a block is copied, the announces for its shard wait, for a
/// fraction of a millisecond. Only swarms of tens of thousands of peers do not fit into a block.
const FULL_BLOCK_LEN: usize = 512 * 1024;

const HEAD_LEN: usize = 20 + 1 + 3 * 4;
const WAS_LISTED: u8 = 1;

// A record is the endpoint, the age and the flags of a peer.
const V4_LEN: usize = record_len::<6>();
const V6_LEN: usize = record_len::<18>();

const fn record_len<const N: usize>() -> usize {
    N + 1 + 4
}

/// Maximum number of minutes between a dump and its restoration that are added to ages: a day, which is longer than any
/// peer timeout.
const MAX_PASSED_MINUTES: u32 = 1440;

/// A position in a dump of a whole tracker. The default is the beginning.
#[derive(Clone, Debug, Default)]
pub struct DumpCursor {
    shard: usize,
    position: Option<ShardPosition>,
}

/// A position within a shard.
#[derive(Clone, Debug)]
struct ShardPosition {
    /// The dump goes backwards: new torrents are added at the end, and torrents that fill a gap come from there, so none is
    /// missed.
    torrents_left: usize,
    /// If the position is in the middle of a torrent: its info-hash, and the number of its peers that are done.
    partial: Option<(InfoHash, usize)>,
}

/// The torrents with peers, and the peers, of a dump that has been restored.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Restored {
    /// The torrents and peers in the blocks.
    pub stored: Totals,
    /// The torrents and peers that were restored: all except expired peers. A torrent in several blocks counts once.
    pub kept: Totals,
}

impl Tracker {
    /// Replaces `block` by the next block of the dump and returns its totals; returns `None` after the last block. A block
    /// may be empty, which need not be restored. It has at most [`Tracker::MAX_BLOCK`] bytes. A shard is locked while its
    /// part is copied.
    ///
    /// Announces may go on meanwhile. A peer of a swarm that is too large for a block may then be in two blocks, or in
    /// none, if it moves from the part that is left to the part that is done. Torrents and counters are never missed.
    pub fn dump_block(
        &self,
        now: Time,
        cursor: &mut DumpCursor,
        block: &mut Vec<u8>,
    ) -> Option<Totals> {
        let shard = self.shards.get(cursor.shard)?;
        block.clear();
        // Reserved before the lock is taken, because allocating takes longer than copying.
        block.reserve(FULL_BLOCK_LEN + HEAD_LEN + V6_LEN);
        block.extend_from_slice(&[0; 4]);
        let mut dumped = Totals::default();
        let position = cursor.position.take();
        cursor.position = lock(shard).dump(now, position, block, &mut dumped);
        if cursor.position.is_none() {
            cursor.shard += 1;
        }
        if block.len() == 4 {
            block.clear();
        } else {
            block[..4].copy_from_slice(&(dumped.torrents as u32).to_be_bytes());
        }
        Some(dumped)
    }

    /// The maximum length of a block, in bytes.
    pub const MAX_BLOCK: usize = 4 << 20;

    /// Begins to restore the dump of a tracker that had the same seed. `passed_minutes` is by how many whole minutes
    /// `now` is later than the time of the dump. Peers that have expired since are not restored.
    ///
    /// Torrents may be listed or denied before or afterwards. Until then their peers are kept until they expire, and their
    /// counters without limit.
    pub fn restore(&self, now: Time, passed_minutes: u32) -> Restore<'_> {
        Restore {
            tracker: self,
            aging: Aging {
                now,
                passed_minutes: passed_minutes.min(MAX_PASSED_MINUTES),
                timeout_minutes: self.settings().timeout_minutes(),
            },
            head: None,
            v4: Vec::new(),
            v6: Vec::new(),
            restored: Restored::default(),
        }
    }
}

/// A dump that is being restored, block by block, in the order in which the blocks were dumped.
pub struct Restore<'a> {
    tracker: &'a Tracker,
    aging: Aging,
    /// The last torrent that was read. Its peers may continue in the next block: a large swarm is built at once.
    head: Option<Head>,
    v4: Vec<PeerRecord<6>>,
    v6: Vec<PeerRecord<18>>,
    restored: Restored,
}

impl Restore<'_> {
    /// Restores the next block.
    ///
    /// # Errors
    /// When the block does not follow the format. The tracker then has a part of the dump, and must not be used.
    pub fn restore_block(&mut self, block: &[u8]) -> Result<(), CorruptBlock> {
        let (count, mut rest) = block.split_first_chunk().ok_or(CorruptBlock)?;
        // Limited by the length of the block, because the count may be wrong.
        let mut reserved = (u32::from_be_bytes(*count) as usize).min(rest.len() / HEAD_LEN);
        while !rest.is_empty() {
            let head = Head::read(&mut rest)?;
            if reserved > 0 {
                // All torrents of a block are of the same shard.
                let hash = self.tracker.hash(&head.info_hash);
                let mut shard = self.tracker.shard(hash);
                shard.reserve(std::mem::take(&mut reserved));
            }
            let peers = head.peers;
            self.restored.stored += torrent_totals(peers.map(|peers| peers as usize));
            if self.head.as_ref().map(|head| head.info_hash) != Some(head.info_hash) {
                self.flush();
                self.head = Some(head);
            }
            self.aging.read(&mut rest, peers.v4, &mut self.v4)?;
            self.aging.read(&mut rest, peers.v6, &mut self.v6)?;
        }
        Ok(())
    }

    /// Completes the restoration after the last block.
    pub fn finish(mut self) -> Restored {
        self.flush();
        self.restored
    }

    /// Adds the torrent that was read last to the tracker.
    fn flush(&mut self) {
        let Some(head) = self.head.take() else { return };
        let hash = self.tracker.hash(&head.info_hash);
        let mut shard = self.tracker.shard(hash);
        shard.restore(&head, hash, &self.v4, &self.v6);
        self.restored.kept += torrent_totals(PerFamily {
            v4: self.v4.len(),
            v6: self.v6.len(),
        });
        self.v4.clear();
        self.v6.clear();
    }
}

impl Shard {
    /// Appends torrents from a position on. Returns where to continue, or `None` at the end of the shard.
    fn dump(
        &self,
        now: Time,
        position: Option<ShardPosition>,
        block: &mut Vec<u8>,
        dumped: &mut Totals,
    ) -> Option<ShardPosition> {
        let mut torrents_left = self.torrents.len();
        match position {
            None => {
                for (info_hash, downloaded) in self.retired_counters.iter() {
                    Head::of_counter(*info_hash, *downloaded).write(block);
                }
            }
            Some(position) => {
                torrents_left = torrents_left.min(position.torrents_left);
                // If the torrent was removed in the meantime, nothing is lost.
                let rest = position.partial.and_then(|(info_hash, peers_done)| {
                    let at = self.find(&info_hash, self.key.hash(&info_hash.0))?;
                    self.dump_torrent(at, peers_done, torrents_left, now, block, dumped)
                });
                if rest.is_some() {
                    return rest;
                }
            }
        }
        while torrents_left > 0 {
            if block.len() >= FULL_BLOCK_LEN {
                return Some(ShardPosition {
                    torrents_left,
                    partial: None,
                });
            }
            torrents_left -= 1;
            let rest = self.dump_torrent(torrents_left, 0, torrents_left, now, block, dumped);
            if rest.is_some() {
                return rest;
            }
        }
        None
    }

    /// Appends a torrent from a peer on. Returns where to continue if the block is full before the end of the torrent.
    fn dump_torrent(
        &self,
        at: usize,
        peers_done: usize,
        torrents_left: usize,
        now: Time,
        block: &mut Vec<u8>,
        dumped: &mut Totals,
    ) -> Option<ShardPosition> {
        let torrent = &self.torrents[at];
        let (v4, v6) = torrent.swarm.records();
        let v4_left = v4.get(peers_done..).unwrap_or_default();
        let v6_left = v6
            .get(peers_done.saturating_sub(v4.len())..)
            .unwrap_or_default();
        let v4_room = FULL_BLOCK_LEN.saturating_sub(block.len()).div_ceil(V4_LEN);
        let v4_left_out = v4_left.len().saturating_sub(v4_room);
        let v4_now = &v4_left[..v4_left.len() - v4_left_out];
        let v6_room = FULL_BLOCK_LEN
            .saturating_sub(block.len() + v4_now.len() * V4_LEN)
            .div_ceil(V6_LEN);
        let v6_left_out = v6_left.len().saturating_sub(v6_room);
        let v6_now = &v6_left[..v6_left.len() - v6_left_out];

        let head = Head {
            peers: PerFamily {
                v4: v4_now.len() as u32,
                v6: v6_now.len() as u32,
            },
            ..Head::of(torrent)
        };
        if !head.is_worth_keeping() {
            return None;
        }
        head.write(block);
        write_records(v4_now, now, block);
        write_records(v6_now, now, block);
        *dumped += torrent_totals(head.peers.map(|peers| peers as usize));
        (v4_left_out + v6_left_out > 0).then(|| ShardPosition {
            torrents_left,
            partial: Some((torrent.info_hash, peers_done + v4_now.len() + v6_now.len())),
        })
    }

    fn restore(&mut self, head: &Head, hash: u64, v4: &[PeerRecord<6>], v6: &[PeerRecord<18>]) {
        let at = match self.find(&head.info_hash, hash) {
            Some(at) => at,
            None if v4.is_empty() && v6.is_empty() => {
                if head.was_listed {
                    self.retired_counters.put(head.info_hash, head.downloaded);
                }
                return;
            }
            None => self.add(&head.info_hash, hash),
        };
        let torrent = &mut self.torrents[at];
        torrent.downloaded = torrent.downloaded.max(head.downloaded);
        torrent.was_listed |= head.was_listed;
        let before = torrent.swarm.len();
        if torrent.admission != Admission::Denied {
            torrent.swarm.restore(v4, v6, self.key);
        }
        self.update_totals_and_prune(at, before);
    }
}

/// Returns the totals of a single torrent. A torrent counts if it has peers.
fn torrent_totals(peers: PerFamily<usize>) -> Totals {
    Totals {
        torrents: usize::from(peers.sum() > 0),
        peers,
    }
}

/// The part of a torrent that precedes its peers.
struct Head {
    info_hash: InfoHash,
    was_listed: bool,
    downloaded: u32,
    /// The number of peers that follow.
    peers: PerFamily<u32>,
}

impl Head {
    fn of(torrent: &TrackedTorrent) -> Self {
        Self {
            info_hash: torrent.info_hash,
            was_listed: torrent.was_listed,
            downloaded: torrent.downloaded,
            peers: PerFamily::default(),
        }
    }

    fn of_counter(info_hash: InfoHash, downloaded: u32) -> Self {
        Self {
            info_hash,
            was_listed: true,
            downloaded,
            peers: PerFamily::default(),
        }
    }

    fn is_worth_keeping(&self) -> bool {
        self.peers != PerFamily::default() || self.was_listed && self.downloaded > 0
    }

    fn write(&self, block: &mut Vec<u8>) {
        block.extend_from_slice(&self.info_hash.0);
        block.push(if self.was_listed { WAS_LISTED } else { 0 });
        block.extend_from_slice(&self.downloaded.to_be_bytes());
        block.extend_from_slice(&self.peers.v4.to_be_bytes());
        block.extend_from_slice(&self.peers.v6.to_be_bytes());
    }

    fn read(rest: &mut &[u8]) -> Result<Self, CorruptBlock> {
        let info_hash = InfoHash(take(rest)?);
        let [flags] = take(rest)?;
        let mut number = || take(rest).map(u32::from_be_bytes);
        Ok(Self {
            info_hash,
            was_listed: flags & WAS_LISTED != 0,
            downloaded: number()?,
            peers: PerFamily {
                v4: number()?,
                v6: number()?,
            },
        })
    }
}

fn write_records<const N: usize>(records: &[PeerRecord<N>], now: Time, block: &mut Vec<u8>) {
    for record in records {
        block.extend_from_slice(record.endpoint());
        block.push(age_minutes(now, record.minute()));
        block.extend_from_slice(&record.packed_flags().to_be_bytes());
    }
}

/// Calls `each` with the torrents of a block and their peers over IPv4 and IPv6 that are no older than `max_age_minutes`.
pub(super) fn for_each_swarm(
    block: &[u8],
    now: Time,
    max_age_minutes: u8,
    mut each: impl FnMut(InfoHash, &[PeerRecord<6>], &[PeerRecord<18>]),
) -> Result<(), CorruptBlock> {
    let aging = Aging {
        now,
        passed_minutes: 0,
        timeout_minutes: max_age_minutes,
    };
    let mut rest = block.get(4..).unwrap_or_default();
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    while !rest.is_empty() {
        let head = Head::read(&mut rest)?;
        v4.clear();
        v6.clear();
        aging.read(&mut rest, head.peers.v4, &mut v4)?;
        aging.read(&mut rest, head.peers.v6, &mut v6)?;
        each(head.info_hash, &v4, &v6);
    }
    Ok(())
}

/// The conversion of ages in a block to the present time.
struct Aging {
    now: Time,
    passed_minutes: u32,
    timeout_minutes: u8,
}

impl Aging {
    /// Takes `count` records off the front of `rest`, and appends those that have not expired to `records`.
    fn read<const N: usize>(
        &self,
        rest: &mut &[u8],
        count: u32,
        records: &mut Vec<PeerRecord<N>>,
    ) -> Result<(), CorruptBlock> {
        let len = (count as usize)
            .checked_mul(record_len::<N>())
            .ok_or(CorruptBlock)?;
        let (bytes, after) = rest.split_at_checked(len).ok_or(CorruptBlock)?;
        *rest = after;
        for mut record in bytes.chunks_exact(record_len::<N>()) {
            let endpoint = take(&mut record)?;
            let [age] = take(&mut record)?;
            let packed_flags = take(&mut record).map(u32::from_be_bytes)?;
            let age = u32::from(age) + self.passed_minutes;
            if age <= u32::from(self.timeout_minutes) {
                let minute = self.now.minute().wrapping_sub(age as u8);
                records.push(PeerRecord::from_parts(endpoint, minute, packed_flags));
            }
        }
        Ok(())
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], CorruptBlock> {
    bytes::take(rest).ok_or(CorruptBlock)
}

#[cfg(test)]
mod tests;
