//! What a tracker holds, as bytes for a snapshot to keep: written block by block, and taken in redelivered.
//!
//! A block is a count of torrents (`u32`) and then, until its end, torrents:
//!
//! ```text
//! info_hash   20 bytes
//! flags       1 byte    1: its counter outlives its peers
//! downloaded  u32
//! peers       u32       over IPv4
//! peers       u32       over IPv6
//!             11 bytes each: address and port (6), age in minutes (1), mark (4)
//!             23 bytes each: address and port (18), age in minutes (1), mark (4)
//! ```
//!
//! Numbers are big-endian. The count is of torrents with peers; those without, of which only the counter is kept, come on
//! top. A mark's upper 28 packed are the host's fingerprint, which means the same only to a tracker with the same seed.

use siphasher::sip::SipHasher13;

use super::Tracker;
use super::shard::{Shard, Torrent, Totals};
use super::swarm::peer::PeerRecord;
use super::types::{Admission, CorruptBlock, InfoHash, Time, age_minutes};
use crate::bytes;
use crate::lock::lock;

/// A block is full from this size on. Copying so much keeps a shard's announces waiting for a fraction of a millisecond;
/// only swarms of tens of thousands of peers do not fit.
const FULL: usize = 512 * 1024;

const HEAD: usize = 20 + 1 + 3 * 4;
const WAS_LISTED: u8 = 1;

/// Peers older than a day, whoever asks, are older than any timeout.
const DAY_MINUTES: u32 = 1440;

/// Where a walk over all that a tracker holds has come to; begins with the default.
#[derive(Clone, Debug, Default)]
pub struct DumpCursor {
    shard: usize,
    place: Option<ShardPosition>,
}

/// A place within a shard.
#[derive(Clone, Debug)]
struct ShardPosition {
    /// The walk goes backwards: the end is where new torrents come, and where those that fill a gap come from, so none is missed.
    torrents_left: usize,
    /// In the middle of this torrent, before its peer of that number.
    halfway: Option<(InfoHash, usize)>,
}

/// What became of a block: torrents with peers, and peers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Restored {
    pub written: Totals,
    /// All but those silent for too long. A torrent counts once, in however many blocks it was.
    pub back: Totals,
}

impl Tracker {
    /// Replaces `block` by the walk's next block, and tells what is in it; `None` after the last. Blocks may be empty, which
    /// none to restore may be; one is at most [`Tracker::MAX_BLOCK`] long. One shard is locked while its part is copied.
    ///
    /// While announces go on, peers of a swarm too large for a block may be in two blocks, or in none if they happen to move
    /// from what is left to what is done. Torrents and counters are never missed.
    pub fn save(&self, now: Time, walk: &mut DumpCursor, block: &mut Vec<u8>) -> Option<Totals> {
        let shard = self.shards.get(walk.shard)?;
        block.clear();
        // Before the lock: growing takes longer than copying.
        block.reserve(FULL + HEAD + 23);
        block.extend_from_slice(&[0; 4]);
        let mut written = Totals::default();
        let place = walk.place.take();
        walk.place = lock(shard).save(now, place, &self.keyed, block, &mut written);
        if walk.place.is_none() {
            walk.shard += 1;
        }
        if block.len() == 4 {
            block.clear();
        } else {
            block[..4].copy_from_slice(&(written.torrents as u32).to_be_bytes());
        }
        Some(written)
    }

    /// No block is longer, in bytes.
    pub const MAX_BLOCK: usize = 4 << 20;

    /// Takes in what a tracker of the same seed wrote. `passed_minutes` is what the tracker's clock has gone on since, in whole
    /// minutes of that clock; who has been silent for too long stays away.
    ///
    /// Torrents may have been named before or are named later: until then their peers are kept for as long as an announce is
    /// good for, and their counters for good.
    pub fn restore(&self, now: Time, passed_minutes: u32) -> Restore<'_> {
        Restore {
            tracker: self,
            aging: Aging {
                now,
                passed_minutes: passed_minutes.min(DAY_MINUTES),
                timeout_minutes: self.settings().timeout_minutes(),
            },
            head: None,
            v4: Vec::new(),
            v6: Vec::new(),
            restored: Restored::default(),
        }
    }
}

/// Blocks on their way back into a tracker, in the order in which they were written.
pub struct Restore<'a> {
    tracker: &'a Tracker,
    aging: Aging,
    /// The torrent read last, whose peers may go on in the next block: a large swarm is built at once.
    head: Option<Head>,
    v4: Vec<PeerRecord<6>>,
    v6: Vec<PeerRecord<18>>,
    restored: Restored,
}

impl Restore<'_> {
    /// # Errors
    /// When the block does not follow the format; what came before is in the tracker, which is of no use then.
    pub fn take_in(&mut self, block: &[u8]) -> Result<(), CorruptBlock> {
        let (count, mut rest) = block.split_first_chunk().ok_or(CorruptBlock)?;
        // As far as the bytes bear it out.
        let mut room = (u32::from_be_bytes(*count) as usize).min(rest.len() / HEAD);
        while !rest.is_empty() {
            let head = Head::read(&mut rest)?;
            if room > 0 {
                // All torrents of a block are of one shard.
                let hash = self.tracker.hash(&head.info_hash);
                let mut shard = self.tracker.shard(hash);
                shard.reserve(std::mem::take(&mut room), &self.tracker.keyed);
            }
            let peers = head.peers;
            self.restored.written += totals(peers.map(|peers| peers as usize));
            if self.head.as_ref().map(|head| head.info_hash) != Some(head.info_hash) {
                self.update_totals_and_prune();
                self.head = Some(head);
            }
            self.aging.read(&mut rest, peers[0], &mut self.v4)?;
            self.aging.read(&mut rest, peers[1], &mut self.v6)?;
        }
        Ok(())
    }

    /// After the last block.
    pub fn finish(mut self) -> Restored {
        self.update_totals_and_prune();
        self.restored
    }

    fn update_totals_and_prune(&mut self) {
        let Some(head) = self.head.take() else { return };
        let hash = self.tracker.hash(&head.info_hash);
        let mut shard = self.tracker.shard(hash);
        shard.take_in(&head, hash, &self.v4, &self.v6, &self.tracker.keyed);
        self.restored.back += totals([self.v4.len(), self.v6.len()]);
        self.v4.clear();
        self.v6.clear();
    }
}

impl Shard {
    /// Appends what there is from a place on, and tells where to go on.
    fn save(
        &self,
        now: Time,
        place: Option<ShardPosition>,
        keyed: &SipHasher13,
        block: &mut Vec<u8>,
        written: &mut Totals,
    ) -> Option<ShardPosition> {
        let mut torrents_left = self.torrents.len();
        match place {
            None => self.remembered.iter().for_each(|(info_hash, downloaded)| {
                Head::of_counter(*info_hash, *downloaded).write(block);
            }),
            Some(place) => {
                torrents_left = torrents_left.min(place.torrents_left);
                // Gone in the meantime, it is no loss.
                let halfway = place.halfway.and_then(|(info_hash, peers_done)| {
                    let at = self.find(&info_hash, keyed.hash(&info_hash.0))?;
                    self.save_torrent(at, peers_done, torrents_left, now, block, written)
                });
                if halfway.is_some() {
                    return halfway;
                }
            }
        }
        while torrents_left > 0 {
            if block.len() >= FULL {
                return Some(ShardPosition {
                    torrents_left,
                    halfway: None,
                });
            }
            torrents_left -= 1;
            let halfway = self.save_torrent(torrents_left, 0, torrents_left, now, block, written);
            if halfway.is_some() {
                return halfway;
            }
        }
        None
    }

    /// Appends a torrent from a peer on, and tells where to go on if the block was full before its end.
    fn save_torrent(
        &self,
        at: usize,
        peers_done: usize,
        torrents_left: usize,
        now: Time,
        block: &mut Vec<u8>,
        written: &mut Totals,
    ) -> Option<ShardPosition> {
        let torrent = &self.torrents[at];
        let (v4, v6) = torrent.swarm.records();
        let v4_left = v4.get(peers_done..).unwrap_or_default();
        let v6_left = v6
            .get(peers_done.saturating_sub(v4.len())..)
            .unwrap_or_default();
        let v4_room = FULL.saturating_sub(block.len()).div_ceil(11);
        let v4_left_out = v4_left.len().saturating_sub(v4_room);
        let v4_now = &v4_left[..v4_left.len() - v4_left_out];
        let v6_room = FULL
            .saturating_sub(block.len() + v4_now.len() * 11)
            .div_ceil(23);
        let v6_left_out = v6_left.len().saturating_sub(v6_room);
        let v6_now = &v6_left[..v6_left.len() - v6_left_out];

        let head = Head {
            peers: [v4_now.len() as u32, v6_now.len() as u32],
            ..Head::of(torrent)
        };
        if !head.is_worth_keeping() {
            return None;
        }
        head.write(block);
        write_records(v4_now, now, block);
        write_records(v6_now, now, block);
        *written += totals([v4_now.len(), v6_now.len()]);
        (v4_left_out + v6_left_out > 0).then(|| ShardPosition {
            torrents_left,
            halfway: Some((torrent.info_hash, peers_done + v4_now.len() + v6_now.len())),
        })
    }

    fn take_in(
        &mut self,
        head: &Head,
        hash: u64,
        v4: &[PeerRecord<6>],
        v6: &[PeerRecord<18>],
        keyed: &SipHasher13,
    ) {
        let at = match self.find(&head.info_hash, hash) {
            Some(at) => at,
            None if v4.is_empty() && v6.is_empty() => {
                if head.was_listed {
                    self.remembered.put(head.info_hash, head.downloaded, keyed);
                }
                return;
            }
            None => self.add(&head.info_hash, hash, keyed),
        };
        let torrent = &mut self.torrents[at];
        torrent.downloaded = torrent.downloaded.max(head.downloaded);
        torrent.was_listed |= head.was_listed;
        let before = torrent.swarm.len();
        if torrent.admission != Admission::Denied {
            torrent.swarm.take_in(v4, v6, keyed);
        }
        self.update_totals_and_prune(at, before, keyed);
    }
}

/// One torrent's part of the totals; it counts if it has peers.
fn totals([peers_v4, peers_v6]: [usize; 2]) -> Totals {
    Totals {
        torrents: usize::from(peers_v4 + peers_v6 > 0),
        peers_v4,
        peers_v6,
    }
}

/// What stands before a torrent's peers.
struct Head {
    info_hash: InfoHash,
    was_listed: bool,
    downloaded: u32,
    /// How many follow: IPv4, IPv6.
    peers: [u32; 2],
}

impl Head {
    fn of(torrent: &Torrent) -> Self {
        Self {
            info_hash: torrent.info_hash,
            was_listed: torrent.was_listed,
            downloaded: torrent.downloaded,
            peers: [0, 0],
        }
    }

    fn of_counter(info_hash: InfoHash, downloaded: u32) -> Self {
        Self {
            info_hash,
            was_listed: true,
            downloaded,
            peers: [0, 0],
        }
    }

    fn is_worth_keeping(&self) -> bool {
        self.peers != [0, 0] || self.was_listed && self.downloaded > 0
    }

    fn write(&self, block: &mut Vec<u8>) {
        block.extend_from_slice(&self.info_hash.0);
        block.push(if self.was_listed { WAS_LISTED } else { 0 });
        block.extend_from_slice(&self.downloaded.to_be_bytes());
        for peers in self.peers {
            block.extend_from_slice(&peers.to_be_bytes());
        }
    }

    fn read(rest: &mut &[u8]) -> Result<Self, CorruptBlock> {
        let info_hash = InfoHash(take(rest)?);
        let [flags] = take(rest)?;
        let mut number = || take(rest).map(u32::from_be_bytes);
        Ok(Self {
            info_hash,
            was_listed: flags & WAS_LISTED != 0,
            downloaded: number()?,
            peers: [number()?, number()?],
        })
    }
}

fn write_records<const N: usize>(records: &[PeerRecord<N>], now: Time, block: &mut Vec<u8>) {
    for record in records {
        block.extend_from_slice(record.endpoint());
        block.push(age_minutes(now, record.heard()));
        block.extend_from_slice(&record.packed().to_be_bytes());
    }
}

/// Calls `each` with the torrents of a block and their peers over IPv4 and IPv6 that are no older than so many minutes.
pub(super) fn for_each_swarm(
    block: &[u8],
    now: Time,
    oldest_minutes: u8,
    mut each: impl FnMut(InfoHash, &[PeerRecord<6>], &[PeerRecord<18>]),
) -> Result<(), CorruptBlock> {
    let aging = Aging {
        now,
        passed_minutes: 0,
        timeout_minutes: oldest_minutes,
    };
    let mut rest = block.get(4..).unwrap_or_default();
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    while !rest.is_empty() {
        let head = Head::read(&mut rest)?;
        v4.clear();
        v6.clear();
        aging.read(&mut rest, head.peers[0], &mut v4)?;
        aging.read(&mut rest, head.peers[1], &mut v6)?;
        each(head.info_hash, &v4, &v6);
    }
    Ok(())
}

/// What time has done to those who were in a block.
struct Aging {
    now: Time,
    passed_minutes: u32,
    timeout_minutes: u8,
}

impl Aging {
    /// Takes `count` records off the front of `rest`, and appends those who are not too old.
    fn read<const N: usize>(
        &self,
        rest: &mut &[u8],
        count: u32,
        records: &mut Vec<PeerRecord<N>>,
    ) -> Result<(), CorruptBlock> {
        let len = (count as usize).checked_mul(N + 5).ok_or(CorruptBlock)?;
        let (bytes, after) = rest.split_at_checked(len).ok_or(CorruptBlock)?;
        *rest = after;
        for mut record in bytes.chunks_exact(N + 5) {
            let endpoint = take(&mut record)?;
            let [age] = take(&mut record)?;
            let packed = take(&mut record).map(u32::from_be_bytes)?;
            let age = u32::from(age) + self.passed_minutes;
            if age <= u32::from(self.timeout_minutes) {
                let heard = self.now.minute().wrapping_sub(age as u8);
                records.push(PeerRecord::restored(endpoint, heard, packed));
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
