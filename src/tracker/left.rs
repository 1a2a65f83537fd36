//! Who has left, for long enough that no older word of another tracker brings them back.

use std::hash::Hasher;
use std::sync::Mutex;

use hashbrown::HashTable;
use siphasher::sip::SipHasher13;

use super::lock;
use super::types::{InfoHash, Time};

/// So many that two workers seldom meet at one; each is turned over by the sweep of the same number.
const PARTS: usize = super::Tracker::SLICES;

/// The most of a generation in one part: what a table of 16,384 places holds, 147 kB. Two generations of all parts are 19 MB.
const MOST: usize = 14_336;

/// When a peer left, by a hash of peer and torrent: the upper 40 bits are the hash, the lower 24 the time in seconds. Two that
/// share a hash are taken for one, which in a full part costs one late word in tens of millions.
#[derive(Clone, Copy)]
struct Leave(u64);

impl Leave {
    const TIME: u64 = (1 << 24) - 1;

    fn new(hash: u64, at: u32) -> Self {
        Self(hash & !Self::TIME | u64::from(at) & Self::TIME)
    }

    fn is_of(self, hash: u64) -> bool {
        (self.0 ^ hash) & !Self::TIME == 0
    }

    /// How many seconds before `now`; the future is now.
    fn age_secs(self, now: Time) -> u32 {
        let age = u64::from(now.0).wrapping_sub(self.0) & Self::TIME;
        if age > Self::TIME / 2 { 0 } else { age as u32 }
    }
}

/// Two generations of those who have left, in parts.
pub(super) struct Left(Box<[Mutex<Part>]>);

#[derive(Default)]
struct Part {
    /// From when on there are leaves in the younger generation.
    since: Time,
    younger: HashTable<Leave>,
    older: HashTable<Leave>,
}

impl Left {
    pub(super) fn new() -> Self {
        Self((0..PARTS).map(|_| Mutex::default()).collect())
    }

    /// Notes that a peer left `age_secs` ago.
    pub(super) fn note(
        &self,
        info_hash: &InfoHash,
        endpoint: &[u8],
        now: Time,
        age_secs: u32,
        keyed: &SipHasher13,
    ) {
        let hash = hash(info_hash, endpoint, keyed);
        let mut part = lock(self.part(hash));
        part.note(hash, now, age_secs);
    }

    /// Whether a peer has left since `age_secs` ago, or then.
    pub(super) fn since(
        &self,
        info_hash: &InfoHash,
        endpoint: &[u8],
        now: Time,
        age_secs: u32,
        keyed: &SipHasher13,
    ) -> bool {
        let hash = hash(info_hash, endpoint, keyed);
        let part = lock(self.part(hash));
        part.find(hash)
            .is_some_and(|leave| leave.age_secs(now) <= age_secs)
    }

    /// Forgets in one part those of longer ago than `lifetime_secs`, some later.
    pub(super) fn expire(&self, now: Time, slice: usize, lifetime_secs: u32) {
        let mut part = lock(&self.0[slice % PARTS]);
        if now.0.saturating_sub(part.since.0) > lifetime_secs {
            part.turn(now);
        }
    }

    fn part(&self, hash: u64) -> &Mutex<Part> {
        // The bits that a leave's time takes the place of.
        &self.0[hash as usize % PARTS]
    }
}

impl Part {
    fn find(&self, hash: u64) -> Option<&Leave> {
        let is_it = |leave: &Leave| leave.is_of(hash);
        let place = place(hash);
        self.younger
            .find(place, is_it)
            .or_else(|| self.older.find(place, is_it))
    }

    fn note(&mut self, hash: u64, now: Time, age_secs: u32) {
        let known = self.find(hash).map(|leave| leave.age_secs(now));
        if known.is_some_and(|known| known <= age_secs) {
            return;
        }
        let leave = Leave::new(hash, now.0.wrapping_sub(age_secs));
        if let Some(place) = self
            .younger
            .find_mut(place(hash), |leave| leave.is_of(hash))
        {
            *place = leave;
            return;
        }
        if self.younger.len() >= MOST {
            self.turn(now);
        }
        self.younger
            .insert_unique(place(hash), leave, |leave| place(leave.0));
    }

    fn turn(&mut self, now: Time) {
        self.older = std::mem::take(&mut self.younger);
        self.since = now;
    }
}

/// Where a leave is in a table, by the part of the hash that it keeps: a table takes its places from the lower bits.
fn place(hash: u64) -> u64 {
    (hash & !Leave::TIME).rotate_left(40)
}

fn hash(info_hash: &InfoHash, endpoint: &[u8], keyed: &SipHasher13) -> u64 {
    let mut hasher = *keyed;
    hasher.write(&info_hash.0);
    hasher.write(endpoint);
    hasher.finish()
}
