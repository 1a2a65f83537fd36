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

use super::swarm::PeerRecord;
use super::types::{Admission, CorruptBlock, InfoHash, Time, age_minutes};
use super::{Shard, Torrent, Totals, Tracker, lock};
use crate::bytes;

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
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    use std::num::NonZeroU16;

    use super::*;
    use crate::tracker::{Announce, Event, Key, PeerId, Rng, ScrapeEntry, Settings};

    const NOW: Time = Time(100 * 60);
    const SEED: u64 = 3;

    fn tracker(open: bool) -> Tracker {
        let settings = Settings {
            open,
            max_numwant: 1000,
            ..Settings::default()
        };
        Tracker::new(settings, SEED)
    }

    fn hash(number: u8) -> InfoHash {
        InfoHash([number; 20])
    }

    fn announce(tracker: &Tracker, at: Time, torrent: u8, address: IpAddr, event: Event) {
        let announce = Announce {
            info_hash: hash(torrent),
            peer_id: PeerId([7; 20]),
            key: Some(Key(7)),
            address,
            port: NonZeroU16::MIN,
            event,
            complete: event == Event::Completed,
            numwant: Some(0),
        };
        tracker
            .announce(at, &announce, &mut Vec::new())
            .expect("it is welcome");
    }

    fn v4(number: u32) -> IpAddr {
        Ipv4Addr::from(0x0a00_0000 + number).into()
    }

    fn blocks(tracker: &Tracker, now: Time) -> Vec<Vec<u8>> {
        let (mut walk, mut block, mut blocks) = (DumpCursor::default(), Vec::new(), Vec::new());
        while tracker.save(now, &mut walk, &mut block).is_some() {
            assert!(block.len() <= Tracker::MAX_BLOCK);
            if !block.is_empty() {
                blocks.push(block.clone());
            }
        }
        blocks
    }

    fn restore(tracker: &Tracker, now: Time, passed_minutes: u32, blocks: &[Vec<u8>]) -> Restored {
        let mut restore = tracker.restore(now, passed_minutes);
        for block in blocks {
            restore.take_in(block).expect("as it was written");
        }
        restore.finish()
    }

    #[test]
    fn the_format_is_the_same_on_every_machine() {
        let tracker = tracker(false);
        tracker.admit(&hash(1), Admission::Listed);
        announce(&tracker, Time(NOW.0 - 120), 1, v4(1), Event::Completed);
        let [block] = &blocks(&tracker, NOW)[..] else {
            panic!("one torrent is one block")
        };
        let (fixed, mark) = block.split_at(block.len() - 4);
        let expected = [
            &[0, 0, 0, 1][..],
            &[1; 20],
            &[1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0],
            &[10, 0, 0, 1, 0, 1, 2],
        ];
        assert_eq!(fixed, expected.concat());
        // The fingerprint of this seed, id and key; a seeder that has completed.
        assert_eq!(mark, [0x1c, 0x1b, 0x99, 0xd6]);
    }

    #[test]
    fn ages_go_on_and_the_too_old_stay_away() {
        let first = tracker(true);
        // The default timeout is 45 minutes.
        for age in 0..=50 {
            announce(&first, Time(NOW.0 - age * 60), 1, v4(age), Event::None);
        }
        for (passed, expected) in [(0, 46), (1, 45), (45, 1), (46, 0), (300, 0), (u32::MAX, 0)] {
            let second = tracker(true);
            let now = Time(NOW.0 + passed.min(300) * 60);
            let restored = restore(&second, now, passed, &blocks(&first, NOW));
            assert_eq!(
                (restored.written.peers_v4, restored.back.peers_v4),
                (51, expected)
            );
            assert_eq!(second.totals().peers_v4, expected, "after {passed} minutes");
            // One minute on, one more is too old.
            let later = Time(now.0 + 60);
            (0..Tracker::SLICES).for_each(|slice| second.expire(later, slice));
            assert_eq!(second.totals().peers_v4, expected.saturating_sub(1));
        }
    }

    #[test]
    fn a_peer_heard_while_a_snapshot_is_written_is_not_old() {
        assert_eq!(age_minutes(NOW, NOW.minute()), 0);
        assert_eq!(age_minutes(NOW, NOW.minute() + 1), 0);
        assert_eq!(age_minutes(NOW, NOW.minute() - 1), 1);
        assert_eq!(age_minutes(NOW, NOW.minute().wrapping_sub(245)), 245);
    }

    #[test]
    fn counters_of_listed_torrents_outlive_everyone() {
        for listed_before in [true, false] {
            let mut last = tracker(false);
            last.admit(&hash(1), Admission::Listed);
            announce(&last, NOW, 1, v4(1), Event::Completed);
            announce(&last, NOW, 1, v4(1), Event::Stopped);
            // Over three restarts, in the first two of which the torrent is not there.
            for listed in [false, false, true] {
                let next = tracker(false);
                if listed && listed_before {
                    next.admit(&hash(1), Admission::Listed);
                }
                restore(&next, NOW, 0, &blocks(&last, NOW));
                if listed && !listed_before {
                    next.admit(&hash(1), Admission::Listed);
                }
                last = next;
            }
            let downloaded = last.scrape(&hash(1)).map(|counts| counts.downloaded);
            assert_eq!(downloaded, Some(1));
            assert_eq!(last.totals().torrents, 1);
        }
    }

    #[test]
    fn a_torrent_that_nobody_named_is_forgotten_with_its_last_peer() {
        let first = tracker(true);
        announce(&first, NOW, 1, v4(1), Event::Completed);
        announce(&first, NOW, 2, v4(1), Event::Completed);
        announce(&first, NOW, 2, v4(1), Event::Stopped);
        let second = tracker(true);
        let restored = restore(&second, NOW, 0, &blocks(&first, NOW));
        assert_eq!(restored.back.torrents, 1);
        let downloaded = |tracker: &Tracker, torrent| {
            tracker
                .scrape(&hash(torrent))
                .map(|counts| counts.downloaded)
        };
        assert_eq!(downloaded(&second, 1), Some(1));
        assert_eq!(downloaded(&second, 2), Some(0));
        let third = tracker(true);
        restore(&third, NOW, 60, &blocks(&second, NOW));
        assert_eq!(
            (downloaded(&third, 1), third.totals()),
            (Some(0), Totals::default())
        );
        assert_eq!(blocks(&third, NOW), Vec::<Vec<u8>>::new());
    }

    #[test]
    fn a_denied_torrent_gets_no_peers_back() {
        let first = tracker(true);
        announce(&first, NOW, 1, v4(1), Event::None);
        let second = tracker(true);
        second.admit(&hash(1), Admission::Denied);
        restore(&second, NOW, 0, &blocks(&first, NOW));
        assert_eq!(second.totals().peers_v4, 0);
    }

    #[test]
    fn a_host_on_both_families_still_counts_once() {
        let first = tracker(true);
        let v6 = Ipv6Addr::LOCALHOST.into();
        announce(&first, NOW, 1, v4(1), Event::None);
        let second = tracker(true);
        restore(&second, NOW, 0, &blocks(&first, NOW));
        announce(&second, NOW, 1, v6, Event::None);
        let third = tracker(true);
        restore(&third, NOW, 0, &blocks(&second, NOW));
        announce(&third, NOW, 1, v4(1), Event::None);
        let expected = ScrapeEntry {
            incomplete: 1,
            ..ScrapeEntry::default()
        };
        assert_eq!(third.scrape(&hash(1)), Some(expected));
        assert_eq!((third.totals().peers_v4, third.totals().peers_v6), (1, 1));
    }

    #[test]
    fn what_goes_on_meanwhile_loses_no_torrent() {
        let first = tracker(true);
        // All in one shard, so that it takes several blocks.
        let shard = |number: u32| {
            let mut info_hash = InfoHash([0; 20]);
            info_hash.0[..4].copy_from_slice(&number.to_be_bytes());
            (first.hash(&info_hash) % 1024 == 0).then_some(info_hash)
        };
        let torrents: Vec<_> = (0..).filter_map(shard).take(8).collect();
        let peers = |torrent: usize| if torrent == 3 { 120_000 } else { 15_000 };
        let announce = |torrent: usize, number, event| {
            let announce = Announce {
                info_hash: torrents[torrent],
                peer_id: PeerId([7; 20]),
                key: None,
                address: v4(number),
                port: NonZeroU16::MIN,
                event,
                complete: number % 3 == 0,
                numwant: Some(0),
            };
            first.announce(NOW, &announce, &mut Vec::new()).unwrap();
        };
        for torrent in 0..8 {
            (0..peers(torrent)).for_each(|number| announce(torrent, number, Event::None));
        }
        let (mut walk, mut block, mut blocks) = (DumpCursor::default(), Vec::new(), Vec::new());
        let mut steps = 0;
        while first.save(NOW, &mut walk, &mut block).is_some() {
            if block.is_empty() {
                continue;
            }
            blocks.push(block.clone());
            // One torrent leaves, others fill its place; peers of the largest come and go.
            match steps {
                1 => (0..peers(0)).for_each(|number| announce(0, number, Event::Stopped)),
                2.. => (0..50).for_each(|number| {
                    announce(3, steps * 50 + number, Event::Stopped);
                    announce(3, 1_000_000 + steps * 50 + number, Event::None);
                }),
                _ => {}
            }
            steps += 1;
        }
        assert!(blocks.len() > 4, "{}", blocks.len());
        let second = tracker(true);
        restore(&second, NOW, 0, &blocks);
        for (torrent, info_hash) in torrents.iter().enumerate().skip(1) {
            let counts = second.scrape(info_hash).unwrap();
            let found = counts.complete + counts.incomplete;
            if torrent == 3 {
                let missed = 120_000u32.saturating_sub(found);
                assert!(missed < 500, "{found}");
            } else {
                assert_eq!(found, 15_000, "torrent {torrent}");
            }
        }
    }

    #[test]
    fn a_large_swarm_comes_back_whole() {
        let first = tracker(true);
        for number in 0..100_000 {
            announce_keyless(&first, number);
        }
        let saved = blocks(&first, NOW);
        assert!(saved.len() > 1);
        let second = tracker(true);
        let restored = restore(&second, NOW, 0, &saved);
        assert_eq!(restored.back, first.totals());
        assert_eq!(second.totals(), first.totals());
        assert_eq!(second.scrape(&hash(1)), first.scrape(&hash(1)));
        // In the same order even, after which no peer is new.
        assert_eq!(blocks(&second, NOW), saved);
        (0..100_000).for_each(|number| announce_keyless(&second, number));
        assert_eq!(second.totals(), first.totals());
    }

    fn announce_keyless(tracker: &Tracker, number: u32) {
        let v6 = Ipv6Addr::from(u128::from(number) << 64).into();
        let announce = Announce {
            info_hash: hash(1),
            peer_id: PeerId([7; 20]),
            key: None,
            address: if number % 4 == 0 { v6 } else { v4(number) },
            port: NonZeroU16::MIN,
            event: Event::None,
            complete: number % 3 == 0,
            numwant: Some(0),
        };
        tracker.announce(NOW, &announce, &mut Vec::new()).unwrap();
    }

    #[test]
    fn a_block_cut_short_is_refused() {
        let first = tracker(true);
        announce(&first, NOW, 1, v4(1), Event::None);
        announce(&first, NOW, 1, v4(2), Event::None);
        announce(&first, NOW, 1, Ipv6Addr::LOCALHOST.into(), Event::None);
        let [block] = &blocks(&first, NOW)[..] else {
            panic!("one torrent is one block")
        };
        for len in 0..block.len() {
            let second = tracker(true);
            let taken = second.restore(NOW, 0).take_in(&block[..len]);
            // The count alone is a block of nothing.
            assert_eq!(taken.is_ok(), len == 4, "cut at {len}");
        }
        // Counts beyond all bounds.
        for at in [0, 29, 33] {
            let mut block = block.clone();
            block[at] = 0xff;
            let taken = tracker(true).restore(NOW, 0).take_in(&block);
            assert_eq!(taken.is_ok(), at == 0);
        }
    }

    /// Checksums are checked elsewhere: whatever comes is no reason to crash, now or later.
    #[test]
    fn a_block_of_nonsense_does_no_harm() {
        let first = tracker(true);
        for number in 0..200 {
            announce(&first, NOW, number as u8 % 4, v4(number), Event::None);
            let v6 = Ipv6Addr::from(u128::from(number) << 64).into();
            announce(&first, NOW, number as u8 % 4, v6, Event::Completed);
        }
        let saved = blocks(&first, NOW);
        let mut random = Rng::new(5);
        for _ in 0..2000 {
            let mut block = saved[random.below(saved.len() as u32) as usize].clone();
            for _ in 0..=random.below(20) {
                let at = random.below(block.len() as u32) as usize;
                block[at] = random.next_u32() as u8;
            }
            let second = tracker(true);
            let mut restore = second.restore(NOW, 0);
            let taken = (0..2).all(|_| restore.take_in(&block).is_ok());
            if taken {
                restore.finish();
            }
            for number in 0..50 {
                let event = [Event::None, Event::Completed, Event::Stopped][number as usize % 3];
                announce(&second, NOW, number as u8 % 4, v4(number * 4), event);
            }
            let later = Time(NOW.0 + 3600);
            (0..Tracker::SLICES).for_each(|slice| second.expire(later, slice));
            assert_eq!((second.totals().peers_v4, second.totals().peers_v6), (0, 0));
        }
    }
}
