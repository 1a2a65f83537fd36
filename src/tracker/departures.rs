//! Recent departures of peers, so that a late update from another tracker does not bring a peer back.

use std::hash::Hasher;
use std::sync::Mutex;

use hashbrown::HashTable;

use super::hash_key::HashKey;
use super::types::{InfoHash, Time};
use crate::lock::lock;

/// Maximum number of departures of a generation in a part: as many as a table of 16,384 buckets holds, in 147 kB. Two
/// generations of all parts take 19 MB.
const MAX_DEPARTURES: usize = 14_336;

/// The time at which a peer left, with a hash of the peer and the torrent: the upper 40 bits are the hash, the lower 24 the
/// time in seconds. Two peers with the same hash are mistaken for each other. In a full part, that wrongly drops a late
/// update in tens of millions.
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

    /// Returns how many seconds before `now` the peer left; 0 if that is in the future.
    fn age_secs(self, now: Time) -> u32 {
        let age = u64::from(now.0).wrapping_sub(self.0) & Self::TIME;
        if age > Self::TIME / 2 { 0 } else { age as u32 }
    }
}

/// Two generations of departures, in parts with a lock each.
pub(super) struct Departures {
    key: HashKey,
    parts: Box<[Mutex<DeparturePart>]>,
}

#[derive(Default)]
struct DeparturePart {
    /// The time at which the younger generation began.
    rotated_at: Time,
    younger: HashTable<Departure>,
    older: HashTable<Departure>,
}

impl Departures {
    /// Number of parts: so many that two workers seldom need the same part.
    pub(super) const PARTS: usize = 64;

    pub(super) fn new(key: HashKey) -> Self {
        Self {
            key,
            parts: (0..Self::PARTS).map(|_| Mutex::default()).collect(),
        }
    }

    /// Records that a peer left `age_secs` ago.
    pub(super) fn record(&self, info_hash: &InfoHash, endpoint: &[u8], now: Time, age_secs: u32) {
        let hash = self.hash(info_hash, endpoint);
        lock(self.part(hash)).record(hash, now, age_secs);
    }

    /// Returns whether a peer has left less than `age_secs` ago.
    pub(super) fn departed_within(
        &self,
        info_hash: &InfoHash,
        endpoint: &[u8],
        now: Time,
        age_secs: u32,
    ) -> bool {
        let hash = self.hash(info_hash, endpoint);
        let part = lock(self.part(hash));
        part.find(hash)
            .is_some_and(|departure| departure.age_secs(now) < age_secs)
    }

    /// Removes the departures of a part that are older than `lifetime_secs`. Some are removed only after twice that time.
    pub(super) fn expire(&self, now: Time, slice: usize, lifetime_secs: u32) {
        let mut part = lock(&self.parts[slice % Self::PARTS]);
        if now.0.saturating_sub(part.rotated_at.0) > lifetime_secs {
            part.rotate(now);
        }
    }

    fn part(&self, hash: u64) -> &Mutex<DeparturePart> {
        // Chosen by the bits of the hash that a departure does not keep.
        &self.parts[hash as usize % Self::PARTS]
    }

    fn hash(&self, info_hash: &InfoHash, endpoint: &[u8]) -> u64 {
        let mut hasher = self.key.hasher();
        hasher.write(&info_hash.0);
        hasher.write(endpoint);
        hasher.finish()
    }
}

impl DeparturePart {
    fn find(&self, hash: u64) -> Option<&Departure> {
        let is_it = |departure: &Departure| departure.is_of(hash);
        let table_hash = table_hash(hash);
        self.younger
            .find(table_hash, is_it)
            .or_else(|| self.older.find(table_hash, is_it))
    }

    fn record(&mut self, hash: u64, now: Time, age_secs: u32) {
        let recorded = self.find(hash).map(|departure| departure.age_secs(now));
        if recorded.is_some_and(|recorded| recorded <= age_secs) {
            return;
        }
        let departure = Departure::new(hash, now.0.wrapping_sub(age_secs));
        let table_hash = table_hash(hash);
        let is_it = |departure: &Departure| departure.is_of(hash);
        if let Some(recorded) = self.younger.find_mut(table_hash, is_it) {
            *recorded = departure;
            return;
        }
        if self.younger.len() >= MAX_DEPARTURES {
            self.rotate(now);
        }
        self.younger
            .insert_unique(table_hash, departure, |departure| {
                self::table_hash(departure.0)
            });
    }

    /// Drops the older generation and begins the next.
    fn rotate(&mut self, now: Time) {
        self.older = std::mem::take(&mut self.younger);
        self.rotated_at = now;
    }
}

/// Returns the hash of a departure in a table, from the bits that a departure keeps. A table chooses the place by the lower
/// bits and distinguishes neighbors by the upper bits.
fn table_hash(hash: u64) -> u64 {
    hash & !Departure::TIME | hash >> 40
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFETIME: u32 = 2700;
    const ID: InfoHash = InfoHash([7; 20]);

    fn departures() -> Departures {
        Departures::new(HashKey::new(1, 2))
    }

    fn endpoint(number: u32) -> [u8; 6] {
        let mut endpoint = [0; 6];
        endpoint[..4].copy_from_slice(&number.to_be_bytes());
        endpoint
    }

    fn record(departures: &Departures, number: u32, at: u32, age_secs: u32) {
        departures.record(&ID, &endpoint(number), Time(at), age_secs);
    }

    fn departed_within(departures: &Departures, number: u32, at: u32, age_secs: u32) -> bool {
        departures.departed_within(&ID, &endpoint(number), Time(at), age_secs)
    }

    fn expire(departures: &Departures, at: u32) {
        (0..Departures::PARTS).for_each(|slice| departures.expire(Time(at), slice, LIFETIME));
    }

    #[test]
    fn departure_is_known_to_the_second() {
        let departures = departures();
        record(&departures, 1, 1000, 10);
        assert!(departed_within(&departures, 1, 1000, 11), "joined before");
        assert!(
            !departed_within(&departures, 1, 1000, 10),
            "joined in the same second"
        );
        assert!(!departed_within(&departures, 1, 1000, 9), "joined after");
        assert!(!departed_within(&departures, 2, 1000, 11), "another peer");
        let other_torrent = InfoHash([8; 20]);
        assert!(!departures.departed_within(&other_torrent, &endpoint(1), Time(1000), 11));
        record(&departures, 1, 1001, 20);
        assert!(
            !departed_within(&departures, 1, 1001, 11),
            "an older departure changes nothing"
        );
        record(&departures, 1, 1001, 0);
        assert!(departed_within(&departures, 1, 1005, 5));
        assert!(!departed_within(&departures, 1, 1005, 4));
    }

    #[test]
    fn departure_may_be_before_time_zero() {
        let departures = departures();
        record(&departures, 1, 5, 600);
        assert!(departed_within(&departures, 1, 5, 601));
        assert!(!departed_within(&departures, 1, 5, 600));
        // The clock of another thread may be a second behind.
        record(&departures, 2, 6, 0);
        assert!(departed_within(&departures, 2, 5, 1));
        assert!(!departed_within(&departures, 2, 5, 0));
    }

    #[test]
    fn departures_are_kept_for_one_to_two_lifetimes() {
        let departures = departures();
        for minute in 0..200 {
            record(&departures, minute, minute * 60, 0);
            expire(&departures, minute * 60);
            for past in 0..=minute {
                let age_secs = (minute - past) * 60;
                let known = departed_within(&departures, past, minute * 60, age_secs + 1);
                assert!(known || age_secs > LIFETIME, "{past} in {minute}");
                assert!(
                    !known || age_secs <= 2 * LIFETIME + 120,
                    "{past} in {minute}"
                );
            }
        }
        expire(&departures, 1_000_000);
        expire(&departures, 2_000_000);
        assert!(departures.parts.iter().all(|part| {
            let part = lock(part);
            part.younger.is_empty() && part.older.is_empty()
        }));
    }

    #[test]
    fn number_of_departures_is_limited_and_latest_are_kept() {
        let departures = departures();
        let mut part = DeparturePart::default();
        let hash = |number: usize| departures.hash(&ID, &(number as u32).to_be_bytes());
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
