//! Download counters of torrents that were listed once and are nobody's now.

use hashbrown::HashTable;
use siphasher::sip::SipHasher13;

use super::types::InfoHash;

/// The most that one shard remembers, a million in all: far beyond what anyone publishes, and a bound on the memory.
const MAX_COUNTERS: usize = 1024;

/// Counters without a torrent. It may be listed redelivered after an absence or a restart, and shall then go on counting.
#[derive(Default)]
pub(super) struct RetiredCounters(HashTable<(InfoHash, u32)>);

impl RetiredCounters {
    /// Keeps the higher of two counters for one torrent, and none that is 0.
    pub(super) fn put(&mut self, info_hash: InfoHash, downloaded: u32, keyed: &SipHasher13) {
        let hash = |(info_hash, _): &(InfoHash, u32)| keyed.hash(&info_hash.0);
        let new = (info_hash, downloaded);
        if let Some(old) = self.0.find_mut(hash(&new), |old| old.0 == info_hash) {
            old.1 = old.1.max(downloaded);
        } else if downloaded > 0 && self.0.len() < MAX_COUNTERS {
            self.0.insert_unique(hash(&new), new, hash);
        }
    }

    pub(super) fn get(&self, info_hash: &InfoHash, hash: u64) -> Option<u32> {
        let (_, downloaded) = self.0.find(hash, |(known, _)| known == info_hash)?;
        Some(*downloaded)
    }

    pub(super) fn take(&mut self, info_hash: &InfoHash, hash: u64) -> Option<u32> {
        let entry = self.0.find_entry(hash, |(known, _)| known == info_hash);
        entry.ok().map(|entry| entry.remove().0.1)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &(InfoHash, u32)> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(number: u32) -> InfoHash {
        let mut info_hash = InfoHash([0; 20]);
        info_hash.0[..4].copy_from_slice(&number.to_be_bytes());
        info_hash
    }

    #[test]
    fn the_higher_counter_stays_until_it_is_taken() {
        let keyed = SipHasher13::new_with_keys(1, 2);
        let key = keyed.hash(&hash(1).0);
        let mut remembered = RetiredCounters::default();
        remembered.put(hash(1), 0, &keyed);
        assert_eq!(remembered.get(&hash(1), key), None);
        for downloaded in [3, 5, 4] {
            remembered.put(hash(1), downloaded, &keyed);
        }
        assert_eq!(remembered.get(&hash(1), key), Some(5));
        assert_eq!(remembered.take(&hash(1), key), Some(5));
        assert_eq!(remembered.take(&hash(1), key), None);
    }

    #[test]
    fn it_is_bounded() {
        let keyed = SipHasher13::new_with_keys(1, 2);
        let mut remembered = RetiredCounters::default();
        (0..=MAX_COUNTERS as u32).for_each(|number| remembered.put(hash(number), 1, &keyed));
        assert_eq!(remembered.iter().count(), MAX_COUNTERS);
        // One that is known still counts on.
        remembered.put(hash(0), 9, &keyed);
        assert_eq!(remembered.get(&hash(0), keyed.hash(&hash(0).0)), Some(9));
    }
}
