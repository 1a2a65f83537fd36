//! Download counters of torrents that were listed, and now have no peers and are neither listed nor denied.

use hashbrown::HashTable;

use super::hash_key::HashKey;
use super::types::InfoHash;

/// Maximum number of counters in a shard, which is a million in all: far more than any operator publishes, and a bound on
/// the memory.
const MAX_COUNTERS: usize = 1024;

/// Counters without a torrent. A torrent may be listed again after an absence or a restart, and then continues to count.
pub(super) struct RetiredCounters {
    key: HashKey,
    table: HashTable<(InfoHash, u32)>,
}

impl RetiredCounters {
    pub(super) fn new(key: HashKey) -> Self {
        Self {
            key,
            table: HashTable::new(),
        }
    }

    /// Adds a counter unless it is 0. If the torrent has a counter already, the higher is kept.
    pub(super) fn put(&mut self, info_hash: InfoHash, downloaded: u32) {
        let key = self.key;
        let hash = |(info_hash, _): &(InfoHash, u32)| key.hash(&info_hash.0);
        let new = (info_hash, downloaded);
        if let Some(old) = self.table.find_mut(hash(&new), |old| old.0 == info_hash) {
            old.1 = old.1.max(downloaded);
        } else if downloaded > 0 && self.table.len() < MAX_COUNTERS {
            self.table.insert_unique(hash(&new), new, hash);
        }
    }

    /// Returns the counter of a torrent. `hash` is the hash of its info-hash.
    pub(super) fn get(&self, info_hash: &InfoHash, hash: u64) -> Option<u32> {
        let (_, downloaded) = self.table.find(hash, |(known, _)| known == info_hash)?;
        Some(*downloaded)
    }

    /// Removes and returns the counter of a torrent. `hash` is the hash of its info-hash.
    pub(super) fn take(&mut self, info_hash: &InfoHash, hash: u64) -> Option<u32> {
        let entry = self.table.find_entry(hash, |(known, _)| known == info_hash);
        entry.ok().map(|entry| entry.remove().0.1)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &(InfoHash, u32)> {
        self.table.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: HashKey = HashKey::new(1, 2);

    fn info_hash(number: u32) -> InfoHash {
        let mut info_hash = InfoHash([0; 20]);
        info_hash.0[..4].copy_from_slice(&number.to_be_bytes());
        info_hash
    }

    #[test]
    fn keeps_higher_counter_until_taken() {
        let hash = KEY.hash(&info_hash(1).0);
        let mut counters = RetiredCounters::new(KEY);
        counters.put(info_hash(1), 0);
        assert_eq!(counters.get(&info_hash(1), hash), None);
        for downloaded in [3, 5, 4] {
            counters.put(info_hash(1), downloaded);
        }
        assert_eq!(counters.get(&info_hash(1), hash), Some(5));
        assert_eq!(counters.take(&info_hash(1), hash), Some(5));
        assert_eq!(counters.take(&info_hash(1), hash), None);
    }

    #[test]
    fn number_of_counters_is_limited() {
        let mut counters = RetiredCounters::new(KEY);
        (0..=MAX_COUNTERS as u32).for_each(|number| counters.put(info_hash(number), 1));
        assert_eq!(counters.iter().count(), MAX_COUNTERS);
        // A counter that is in the table is still raised.
        counters.put(info_hash(0), 9);
        let hash = KEY.hash(&info_hash(0).0);
        assert_eq!(counters.get(&info_hash(0), hash), Some(9));
    }
}
