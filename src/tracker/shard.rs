//! The torrents of a shard: index, sweep, and the totals that the limits are compared with.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};

use hashbrown::HashTable;

use super::access::LocalNetworks;
use super::hash_key::HashKey;
use super::retired_counters::RetiredCounters;
use super::rng::Rng;
use super::swarm::Swarm;
use super::swarm::peer::{JoinOutcome, Peer};
use super::types::{Admission, InfoHash, PerFamily, Refusal, ScrapeEntry, Time};
use crate::lock::lock;

/// Number of peers that a sweep visits before it releases the lock for waiting announces.
const PEERS_PER_LOCK: usize = 4096;

/// The number of minutes within which a sweep visits every shard.
const SWEEP_ROUND_MINUTES: u8 = 2;

/// A part of the torrents, chosen by their info-hash.
pub(super) struct Shard {
    pub(super) key: HashKey,
    /// Positions in `torrents`, by info-hash.
    index: HashTable<u32>,
    pub(super) torrents: Vec<TrackedTorrent>,
    random: Rng,
    /// The number of peers in all torrents.
    pub(super) peers: PerFamily<usize>,
    pub(super) retired_counters: RetiredCounters,
    /// The minute of the last sweep.
    swept_minute: Option<u32>,
}

/// A torrent that has peers, or that is listed or denied.
pub(super) struct TrackedTorrent {
    pub(super) info_hash: InfoHash,
    pub(super) downloaded: u32,
    pub(super) admission: Admission,
    /// The torrent is or was listed: its counter is kept without peers, even when it is no longer listed.
    pub(super) was_listed: bool,
    pub(super) swarm: Swarm,
}

impl TrackedTorrent {
    pub(super) fn counts(&self) -> ScrapeEntry {
        ScrapeEntry {
            downloaded: self.downloaded,
            ..self.swarm.counts()
        }
    }

    /// Checks whether the torrent is served; `open` says whether the tracker serves torrents that are not listed.
    pub(super) fn check_served(&self, open: bool) -> Result<(), Refusal> {
        match self.admission {
            Admission::Listed => Ok(()),
            Admission::Unlisted if open => Ok(()),
            Admission::Unlisted => Err(Refusal::UnknownTorrent),
            Admission::Denied => Err(Refusal::DeniedTorrent),
        }
    }
}

impl Shard {
    pub(super) fn new(random: Rng, key: HashKey) -> Self {
        Self {
            key,
            index: HashTable::new(),
            torrents: Vec::new(),
            random,
            peers: PerFamily::default(),
            retired_counters: RetiredCounters::new(key),
            swept_minute: None,
        }
    }

    /// Returns the position of a torrent. `hash` is the hash of its info-hash.
    pub(super) fn find(&self, info_hash: &InfoHash, hash: u64) -> Option<usize> {
        let is_it = |&at: &u32| self.torrents[at as usize].info_hash == *info_hash;
        let at = self.index.find(hash, is_it)?;
        Some(*at as usize)
    }

    /// Returns the position of a torrent that is served. A torrent that is not in the shard is added, unless `unknown`
    /// is the reason to refuse it.
    pub(super) fn find_or_add(
        &mut self,
        info_hash: &InfoHash,
        hash: u64,
        open: bool,
        unknown: Result<(), Refusal>,
    ) -> Result<usize, Refusal> {
        match self.find(info_hash, hash) {
            Some(at) => self.torrents[at].check_served(open).map(|()| at),
            None => unknown.map(|()| self.add(info_hash, hash)),
        }
    }

    /// Adds or refreshes a peer of the torrent at this position, and counts its download if it is the first.
    pub(super) fn join(
        &mut self,
        at: usize,
        now: Time,
        peer: &Peer,
        max_per_network: usize,
    ) -> JoinOutcome {
        let torrent = &mut self.torrents[at];
        let before = torrent.swarm.len();
        let outcome = torrent
            .swarm
            .join(now.minute(), peer, max_per_network, self.key);
        torrent.downloaded = torrent
            .downloaded
            .saturating_add(outcome.first_completed.into());
        self.update_totals_and_prune(at, before);
        outcome
    }

    /// Removes a peer of the torrent at this position. Returns the torrent's counts.
    pub(super) fn leave(&mut self, at: usize, peer: &Peer) -> ScrapeEntry {
        let torrent = &mut self.torrents[at];
        let before = torrent.swarm.len();
        torrent.swarm.leave(peer);
        let counts = torrent.counts();
        self.update_totals_and_prune(at, before);
        counts
    }

    /// Appends the endpoints of other peers to `peers`. Returns the torrent's counts.
    pub(super) fn select_peers(
        &mut self,
        at: usize,
        peer: &Peer,
        outcome: &JoinOutcome,
        local_networks: &LocalNetworks,
        peers: &mut Vec<u8>,
    ) -> ScrapeEntry {
        let random = self.random.next_u32();
        let torrent = &self.torrents[at];
        torrent
            .swarm
            .select_peers(peer, outcome, random, local_networks, peers);
        torrent.counts()
    }

    /// Begins a sweep. Returns how many minutes a peer's last announce may seem to be old in this sweep.
    pub(super) fn begin_sweep(&mut self, now: Time, timeout_minutes: u8) -> u8 {
        let minute = now.0 / 60;
        let before = self.swept_minute.replace(minute).unwrap_or(minute);
        // Every peer that announced before the last sweep is expired by now. As ages wrap, it may seem young.
        match minute.saturating_sub(before) > timeout_minutes.into() {
            true => timeout_minutes.min(SWEEP_ROUND_MINUTES),
            false => timeout_minutes,
        }
    }

    /// Removes expired peers, from a torrent and a peer in it on. Returns where to continue; `None` at the end of the
    /// shard.
    pub(super) fn expire(
        &mut self,
        now: Time,
        timeout_minutes: u8,
        (torrent_at, peer_at): (usize, usize),
    ) -> Option<(usize, usize)> {
        let (mut at, mut from, mut remaining) = (torrent_at, peer_at, PEERS_PER_LOCK);
        while at < self.torrents.len() {
            if remaining == 0 {
                return Some((at, from));
            }
            let torrent = &mut self.torrents[at];
            let before = torrent.swarm.len();
            let next = torrent.swarm.expire(now, timeout_minutes, from, remaining);
            remaining = remaining.saturating_sub(before.sum() + 1);
            let removed = self.update_totals_and_prune(at, before);
            match next {
                Some(peer_at) => from = peer_at,
                // The last torrent has taken the position of the removed torrent.
                None => (at, from) = (if removed { at } else { at + 1 }, 0),
            }
        }
        None
    }

    /// Updates the number of peers after a change of a swarm, and removes its torrent if that has no peers and is neither
    /// listed nor denied. Returns whether the torrent was removed.
    pub(super) fn update_totals_and_prune(&mut self, at: usize, before: PerFamily<usize>) -> bool {
        let torrent = &self.torrents[at];
        let after = torrent.swarm.len();
        self.peers.v4 = self.peers.v4 + after.v4 - before.v4;
        self.peers.v6 = self.peers.v6 + after.v6 - before.v6;
        let unused = after == PerFamily::default() && torrent.admission == Admission::Unlisted;
        if unused {
            if torrent.was_listed {
                self.retired_counters
                    .put(torrent.info_hash, torrent.downloaded);
            }
            self.remove(at);
        }
        unused
    }

    /// Adds a torrent that is not in the shard. Returns its position.
    pub(super) fn add(&mut self, info_hash: &InfoHash, hash: u64) -> usize {
        let at = self.torrents.len();
        if at == self.torrents.capacity() {
            self.torrents.reserve_exact((at / 8).max(4));
        }
        let retired = self.retired_counters.take(info_hash, hash);
        self.torrents.push(TrackedTorrent {
            info_hash: *info_hash,
            downloaded: retired.unwrap_or(0),
            admission: Admission::default(),
            was_listed: retired.is_some(),
            swarm: Swarm::default(),
        });
        let rehash = hash_at(&self.torrents, self.key);
        self.index.insert_unique(hash, at as u32, rehash);
        at
    }

    /// Reserves memory for more torrents.
    pub(super) fn reserve(&mut self, additional: usize) {
        self.torrents.reserve_exact(additional);
        let rehash = hash_at(&self.torrents, self.key);
        self.index.reserve(additional, rehash);
    }

    fn remove(&mut self, at: usize) {
        self.repoint(at, None);
        let last = self.torrents.len() - 1;
        if at != last {
            self.repoint(last, Some(at));
        }
        self.torrents.swap_remove(at);
        if last < self.torrents.capacity() / 2 {
            self.torrents.shrink_to(last + last / 8);
            let rehash = hash_at(&self.torrents, self.key);
            self.index.shrink_to(last, rehash);
        }
    }

    /// Changes the index entry of the torrent at `from` to `to`, or removes it.
    fn repoint(&mut self, from: usize, to: Option<usize>) {
        let hash = self.key.hash(&self.torrents[from].info_hash.0);
        let Ok(mut entry) = self.index.find_entry(hash, |&at| at as usize == from) else {
            return;
        };
        match to {
            Some(to) => *entry.get_mut() = to as u32,
            None => drop(entry.remove()),
        }
    }
}

/// Returns a function that hashes a position in the index, for the table.
fn hash_at(torrents: &[TrackedTorrent], key: HashKey) -> impl Fn(&u32) -> u64 {
    move |&at| key.hash(&torrents[at as usize].info_hash.0)
}

/// The number of torrents and peers in all shards, for comparison with the limits, so that an announce need not visit all
/// shards.
#[derive(Default)]
pub(super) struct Usage {
    pub(super) torrents: AtomicUsize,
    pub(super) peers: AtomicUsize,
}

/// A locked shard. When the lock is released, the [`Usage`] is updated by the change of the shard.
pub(super) struct ShardGuard<'a> {
    shard: MutexGuard<'a, Shard>,
    torrents_before: usize,
    peers_before: usize,
    usage: &'a Usage,
}

impl<'a> ShardGuard<'a> {
    pub(super) fn lock(shard: &'a Mutex<Shard>, usage: &'a Usage) -> Self {
        let shard = lock(shard);
        Self {
            torrents_before: shard.torrents.len(),
            peers_before: shard.peers.sum(),
            shard,
            usage,
        }
    }
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
        let (torrents, peers) = (self.shard.torrents.len(), self.shard.peers.sum());
        update(&self.usage.torrents, self.torrents_before, torrents);
        update(&self.usage.peers, self.peers_before, peers);
    }
}

fn update(total: &AtomicUsize, before: usize, after: usize) {
    // Most announces change neither total, and all workers share their cache line.
    if after != before {
        // A decrease is an addition that wraps around.
        total.fetch_add(after.wrapping_sub(before), Ordering::Relaxed);
    }
}
