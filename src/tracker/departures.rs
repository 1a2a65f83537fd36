//! Who has left, for long enough that no older word of another tracker brings them back.

use std::hash::Hasher;
use std::sync::Mutex;

use hashbrown::HashTable;
use siphasher::sip::SipHasher13;

use super::types::{InfoHash, Time};
use crate::lock::lock;

/// So many that two workers seldom meet at one; each is turned over by the sweep of the same number.
const PARTS: usize = super::Tracker::SLICES;

/// The most of a generation in one part: what a table of 16,384 places holds, 147 kB. Two generations of all parts are 19 MB.
const MAX_DEPARTURES: usize = 14_336;

/// When a peer left, by a hash of peer and torrent: the upper 40 bits are the hash, the lower 24 the time in seconds. Two that
/// share a hash are taken for one, which in a full part costs one late word in tens of millions.
#[derive(Clone, Copy)]
struct Departure(u64);

impl Departure {
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
pub(super) struct Departures(Box<[Mutex<Part>]>);

#[derive(Default)]
struct Part {
    /// From when on there are leaves in the younger generation.
    departed_within: Time,
    younger: HashTable<Departure>,
    older: HashTable<Departure>,
}

impl Departures {
    pub(super) fn new() -> Self {
        Self((0..PARTS).map(|_| Mutex::default()).collect())
    }

    /// Notes that a peer left `age_secs` ago.
    pub(super) fn record(
        &self,
        info_hash: &InfoHash,
        endpoint: &[u8],
        now: Time,
        age_secs: u32,
        keyed: &SipHasher13,
    ) {
        let hash = hash(info_hash, endpoint, keyed);
        let mut part = lock(self.part(hash));
        part.record(hash, now, age_secs);
    }

    /// Whether a peer has left later than `age_secs` ago.
    pub(super) fn departed_within(
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
            .is_some_and(|leave| leave.age_secs(now) < age_secs)
    }

    /// Forgets in one part those of longer ago than `lifetime_secs`, some later.
    pub(super) fn expire(&self, now: Time, slice: usize, lifetime_secs: u32) {
        let mut part = lock(&self.0[slice % PARTS]);
        if now.0.saturating_sub(part.departed_within.0) > lifetime_secs {
            part.rotate(now);
        }
    }

    fn part(&self, hash: u64) -> &Mutex<Part> {
        // The bits that a leave's time takes the place of.
        &self.0[hash as usize % PARTS]
    }
}

impl Part {
    fn find(&self, hash: u64) -> Option<&Departure> {
        let is_it = |leave: &Departure| leave.is_of(hash);
        let place = place(hash);
        self.younger
            .find(place, is_it)
            .or_else(|| self.older.find(place, is_it))
    }

    fn record(&mut self, hash: u64, now: Time, age_secs: u32) {
        let known = self.find(hash).map(|leave| leave.age_secs(now));
        if known.is_some_and(|known| known <= age_secs) {
            return;
        }
        let leave = Departure::new(hash, now.0.wrapping_sub(age_secs));
        if let Some(place) = self
            .younger
            .find_mut(place(hash), |leave| leave.is_of(hash))
        {
            *place = leave;
            return;
        }
        if self.younger.len() >= MAX_DEPARTURES {
            self.rotate(now);
        }
        self.younger
            .insert_unique(place(hash), leave, |leave| place(leave.0));
    }

    fn rotate(&mut self, now: Time) {
        self.older = std::mem::take(&mut self.younger);
        self.departed_within = now;
    }
}

/// Where a leave is in a table, by the part of the hash that it keeps: a table takes a place from the lower bits, and tells
/// neighbours apart by the upper ones.
fn place(hash: u64) -> u64 {
    hash & !Departure::TIME | hash >> 40
}

fn hash(info_hash: &InfoHash, endpoint: &[u8], keyed: &SipHasher13) -> u64 {
    let mut hasher = *keyed;
    hasher.write(&info_hash.0);
    hasher.write(endpoint);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFETIME: u32 = 2700;

    fn keyed() -> SipHasher13 {
        SipHasher13::new_with_keys(1, 2)
    }

    fn endpoint(number: u32) -> [u8; 6] {
        let mut endpoint = [0; 6];
        endpoint[..4].copy_from_slice(&number.to_be_bytes());
        endpoint
    }

    fn record(left: &Departures, number: u32, at: u32, age_secs: u32) {
        let id = InfoHash([7; 20]);
        left.record(&id, &endpoint(number), Time(at), age_secs, &keyed());
    }

    fn departed_within(left: &Departures, number: u32, at: u32, age_secs: u32) -> bool {
        let id = InfoHash([7; 20]);
        left.departed_within(&id, &endpoint(number), Time(at), age_secs, &keyed())
    }

    fn expire(left: &Departures, at: u32) {
        (0..PARTS).for_each(|slice| left.expire(Time(at), slice, LIFETIME));
    }

    #[test]
    fn who_left_is_known_to_the_second() {
        let left = Departures::new();
        record(&left, 1, 1000, 10);
        assert!(departed_within(&left, 1, 1000, 11), "came before");
        assert!(!departed_within(&left, 1, 1000, 10), "came then");
        assert!(!departed_within(&left, 1, 1000, 9), "came after");
        assert!(!departed_within(&left, 2, 1000, 11), "another");
        let other = InfoHash([8; 20]);
        assert!(!left.departed_within(&other, &endpoint(1), Time(1000), 11, &keyed()));
        record(&left, 1, 1001, 20);
        assert!(
            !departed_within(&left, 1, 1001, 11),
            "an older leave is no news"
        );
        record(&left, 1, 1001, 0);
        assert!(departed_within(&left, 1, 1005, 5));
        assert!(!departed_within(&left, 1, 1005, 4));
    }

    #[test]
    fn it_may_have_been_before_time_0() {
        let left = Departures::new();
        record(&left, 1, 5, 600);
        assert!(departed_within(&left, 1, 5, 601));
        assert!(!departed_within(&left, 1, 5, 600));
        // The clock of another thread may be a second behind.
        record(&left, 2, 6, 0);
        assert!(departed_within(&left, 2, 5, 1));
        assert!(!departed_within(&left, 2, 5, 0));
    }

    #[test]
    fn they_are_known_for_one_lifetime_at_least_and_two_at_most() {
        let left = Departures::new();
        for minute in 0..200 {
            record(&left, minute, minute * 60, 0);
            expire(&left, minute * 60);
            for past in 0..=minute {
                let age_secs = (minute - past) * 60;
                let known = departed_within(&left, past, minute * 60, age_secs + 1);
                assert!(known || age_secs > LIFETIME, "{past} in {minute}");
                assert!(
                    !known || age_secs <= 2 * LIFETIME + 120,
                    "{past} in {minute}"
                );
            }
        }
        expire(&left, 1_000_000);
        expire(&left, 2_000_000);
        assert!(left.0.iter().all(|part| lock(part).find(0).is_none()));
    }

    #[test]
    fn a_flood_of_leaves_is_bounded_and_the_latest_are_known() {
        let mut part = Part::default();
        let hash = |number: usize| {
            let number = (number as u32).to_be_bytes();
            hash(&InfoHash([7; 20]), &number, &keyed())
        };
        let many = 5 * MAX_DEPARTURES / 2;
        for number in 0..many {
            part.record(hash(number), Time(100), 0);
        }
        assert_eq!(
            (part.older.len(), part.younger.len()),
            (MAX_DEPARTURES, MAX_DEPARTURES / 2)
        );
        assert!(part.older.capacity() <= 16_384);
        let known = |number: &usize| part.find(hash(*number)).is_some();
        assert!((MAX_DEPARTURES..many).all(|number| known(&number)));
        assert_eq!((0..MAX_DEPARTURES).filter(known).count(), 0);
    }
}
