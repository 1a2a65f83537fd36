//! The torrents of one shard.

use std::ops::{AddAssign, Deref, DerefMut};
use std::sync::MutexGuard;
use std::sync::atomic::{AtomicUsize, Ordering};

use hashbrown::HashTable;
use siphasher::sip::SipHasher13;

use super::access::LocalNetworks;
use super::retired_counters::RetiredCounters;
use super::rng::Rng;
use super::swarm::Swarm;
use super::swarm::peer::{JoinOutcome, Peer};
use super::types::{Admission, InfoHash, Refusal, ScrapeEntry, Time};

/// How many peers a sweep looks at before it lets waiting announces in.
const SWEPT_AT_ONCE: usize = 4096;

/// Minutes within which a sweep comes round to every shard.
const SWEEP_ROUND: u8 = 2;

/// What all shards hold together, which the limits are compared with: known without a look at each.
#[derive(Default)]
pub(super) struct Usage {
    pub(super) torrents: AtomicUsize,
    pub(super) peers: AtomicUsize,
}

/// A part of the torrents, by their hash.
pub(super) struct Shard {
    /// Positions in `torrents` by info-hash.
    index: HashTable<u32>,
    pub(super) torrents: Vec<Torrent>,
    random: Rng,
    /// IPv4, IPv6.
    pub(super) peers: [usize; 2],
    pub(super) remembered: RetiredCounters,
    /// In which minute it was swept last.
    swept_minute: Option<u32>,
}

pub(super) struct Torrent {
    pub(super) info_hash: InfoHash,
    pub(super) downloaded: u32,
    pub(super) admission: Admission,
    /// Its counter outlives its peers, even when it is listed no more.
    pub(super) was_listed: bool,
    pub(super) swarm: Swarm,
}

/// A shard to change: what it then holds more or less is told to those who count all.
pub(super) struct ShardGuard<'a> {
    pub(super) shard: MutexGuard<'a, Shard>,
    /// Torrents, peers.
    pub(super) before: [usize; 2],
    pub(super) usage: &'a Usage,
}

impl Deref for ShardGuard<'_> {
    type Target = Shard;

    fn deref(&self) -> &Shard {
        &self.shard
    }
}

impl DerefMut for ShardGuard<'_> {
    fn deref_mut(&mut self) -> &mut Shard {
        &mut self.shard
    }
}

impl Drop for ShardGuard<'_> {
    fn drop(&mut self) {
        let totals = [&self.usage.torrents, &self.usage.peers];
        let changes = self.shard.held().into_iter().zip(self.before);
        for (total, (after, before)) in totals.into_iter().zip(changes) {
            // Most announces change neither, and all workers share the line.
            if after != before {
                // Wraps around when it is less, as the sum does then.
                total.fetch_add(after.wrapping_sub(before), Ordering::Relaxed);
            }
        }
    }
}

impl Torrent {
    pub(super) fn counts(&self) -> ScrapeEntry {
        ScrapeEntry {
            downloaded: self.downloaded,
            ..self.swarm.counts()
        }
    }

    pub(super) fn admitted(&self, open: bool) -> Result<(), Refusal> {
        match self.admission {
            Admission::Listed => Ok(()),
            Admission::Unlisted if open => Ok(()),
            Admission::Unlisted => Err(Refusal::UnknownTorrent),
            Admission::Denied => Err(Refusal::DeniedTorrent),
        }
    }
}

impl Shard {
    pub(super) fn new(random: Rng) -> Self {
        Self {
            index: HashTable::new(),
            torrents: Vec::new(),
            random,
            peers: [0, 0],
            remembered: RetiredCounters::default(),
            swept_minute: None,
        }
    }

    /// Torrents, peers.
    pub(super) fn held(&self) -> [usize; 2] {
        [self.torrents.len(), self.peers[0] + self.peers[1]]
    }

    pub(super) fn find(&self, info_hash: &InfoHash, hash: u64) -> Option<usize> {
        self.index
            .find(hash, |&at| {
                self.torrents[at as usize].info_hash == *info_hash
            })
            .map(|&at| at as usize)
    }

    /// Where a torrent is, if it may be served; room is made for one that it has not met if `unknown` allows that.
    pub(super) fn admitted(
        &mut self,
        info_hash: &InfoHash,
        hash: u64,
        open: bool,
        unknown: Result<(), Refusal>,
        keyed: &SipHasher13,
    ) -> Result<usize, Refusal> {
        match self.find(info_hash, hash) {
            Some(at) => self.torrents[at].admitted(open).map(|()| at),
            None => unknown.map(|()| self.add(info_hash, hash, keyed)),
        }
    }

    pub(super) fn join(
        &mut self,
        at: usize,
        now: Time,
        peer: &Peer,
        most: usize,
        keyed: &SipHasher13,
    ) -> JoinOutcome {
        let torrent = &mut self.torrents[at];
        let before = torrent.swarm.len();
        let joined = torrent.swarm.join(now.minute(), peer, most, keyed);
        torrent.downloaded = torrent
            .downloaded
            .saturating_add(joined.first_completed.into());
        self.update_totals_and_prune(at, before, keyed);
        joined
    }

    pub(super) fn choose(
        &mut self,
        at: usize,
        peer: &Peer,
        joined: &JoinOutcome,
        local_networks: &LocalNetworks,
        peers: &mut Vec<u8>,
    ) -> ScrapeEntry {
        let random = self.random.next_u32();
        let torrent = &self.torrents[at];
        torrent
            .swarm
            .choose(peer, joined, random, local_networks, peers);
        torrent.counts()
    }

    pub(super) fn leave(&mut self, at: usize, peer: &Peer, keyed: &SipHasher13) -> ScrapeEntry {
        let torrent = &mut self.torrents[at];
        let before = torrent.swarm.len();
        torrent.swarm.leave(peer, keyed);
        let counts = torrent.counts();
        self.update_totals_and_prune(at, before, keyed);
        counts
    }

    /// How old a peer may seem to be in this sweep, in minutes.
    pub(super) fn begin_sweep(&mut self, now: Time, timeout_minutes: u8) -> u8 {
        let minute = now.0 / 60;
        let before = self.swept_minute.replace(minute).unwrap_or(minute);
        // Whoever came before the last sweep is too old by now, and may not seem so.
        match minute.saturating_sub(before) > timeout_minutes.into() {
            true => timeout_minutes.min(SWEEP_ROUND),
            false => timeout_minutes,
        }
    }

    /// Sweeps on from a torrent and a peer in it, and tells where to go on.
    pub(super) fn expire(
        &mut self,
        now: Time,
        timeout_minutes: u8,
        (torrent_at, peer_at): (usize, usize),
        keyed: &SipHasher13,
    ) -> Option<(usize, usize)> {
        let (mut at, mut from, mut left) = (torrent_at, peer_at, SWEPT_AT_ONCE);
        while at < self.torrents.len() {
            if left == 0 {
                return Some((at, from));
            }
            let torrent = &mut self.torrents[at];
            let before = torrent.swarm.len();
            let next = torrent
                .swarm
                .expire(now, timeout_minutes, from, left, keyed);
            left = left.saturating_sub(before[0] + before[1] + 1);
            let gone = self.update_totals_and_prune(at, before, keyed);
            match next {
                Some(peer_at) => from = peer_at,
                // Another has taken the place of one that is gone.
                None => (at, from) = (if gone { at } else { at + 1 }, 0),
            }
        }
        None
    }

    /// Keeps the totals, and forgets a torrent that nobody has named and nobody is in. Tells whether it has.
    pub(super) fn update_totals_and_prune(
        &mut self,
        at: usize,
        before: [usize; 2],
        keyed: &SipHasher13,
    ) -> bool {
        let torrent = &self.torrents[at];
        let after = torrent.swarm.len();
        for ((total, before), after) in self.peers.iter_mut().zip(before).zip(after) {
            *total = *total + after - before;
        }
        let idle = after == [0, 0] && torrent.admission == Admission::Unlisted;
        if idle {
            if torrent.was_listed {
                let (info_hash, downloaded) = (torrent.info_hash, torrent.downloaded);
                self.remembered.put(info_hash, downloaded, keyed);
            }
            self.remove(at, keyed);
        }
        idle
    }

    pub(super) fn add(&mut self, info_hash: &InfoHash, hash: u64, keyed: &SipHasher13) -> usize {
        let at = self.torrents.len();
        if at == self.torrents.capacity() {
            self.torrents.reserve_exact((at / 8).max(4));
        }
        let remembered = self.remembered.take(info_hash, hash);
        self.torrents.push(Torrent {
            info_hash: *info_hash,
            downloaded: remembered.unwrap_or(0),
            admission: Admission::default(),
            was_listed: remembered.is_some(),
            swarm: Swarm::default(),
        });
        let torrents = &self.torrents;
        self.index.insert_unique(hash, at as u32, |&at| {
            keyed.hash(&torrents[at as usize].info_hash.0)
        });
        at
    }

    pub(super) fn reserve(&mut self, more: usize, keyed: &SipHasher13) {
        self.torrents.reserve_exact(more);
        let torrents = &self.torrents;
        self.index
            .reserve(more, |&at| keyed.hash(&torrents[at as usize].info_hash.0));
    }

    fn remove(&mut self, at: usize, keyed: &SipHasher13) {
        self.point(at, None, keyed);
        let last = self.torrents.len() - 1;
        if at != last {
            self.point(last, Some(at), keyed);
        }
        self.torrents.swap_remove(at);
        if last < self.torrents.capacity() / 2 {
            self.torrents.shrink_to(last + last / 8);
            let torrents = &self.torrents;
            self.index
                .shrink_to(last, |&at| keyed.hash(&torrents[at as usize].info_hash.0));
        }
    }

    /// Has the index say `to` where it says `from`, or nothing.
    fn point(&mut self, from: usize, to: Option<usize>, keyed: &SipHasher13) {
        let hash = keyed.hash(&self.torrents[from].info_hash.0);
        let Ok(mut entry) = self.index.find_entry(hash, |&at| at as usize == from) else {
            return;
        };
        match to {
            Some(to) => *entry.get_mut() = to as u32,
            None => drop(entry.remove()),
        }
    }
}

/// What a tracker holds in all.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    pub torrents: usize,
    pub peers_v4: usize,
    pub peers_v6: usize,
}

impl AddAssign for Totals {
    fn add_assign(&mut self, more: Self) {
        self.torrents += more.torrents;
        self.peers_v4 += more.peers_v4;
        self.peers_v6 += more.peers_v6;
    }
}
