//! Counts of the hosts in a swarm: a host that announces over both address families counts once.

use hashbrown::HashTable;

use super::peer::{CountKey, JoinOutcome, PeerFlags, PeerRecord};
use super::peer_set::PeerSet;
use crate::tracker::hash_key::HashKey;
use crate::tracker::types::{Family, PerFamily};

/// The number of hosts of each class.
#[derive(Default)]
pub(super) struct HostCounts {
    /// The number of hosts by [`Class`](crate::tracker::types::Class).
    hosts: [u32; 3],
    /// The table of counts. It exists from when both families have peers and either has an index, until neither has an
    /// index. Without it, the records are scanned.
    records: Option<Box<RecordCounts>>,
}

impl HostCounts {
    /// Counts all peers at once, with the result that adding each of them has.
    pub(super) fn of_sets(v4: &PeerSet<6>, v6: &PeerSet<18>, key: HashKey) -> Self {
        if v6.is_empty() {
            return Self::of_set(v4);
        }
        if v4.is_empty() {
            return Self::of_set(v6);
        }
        let mut counts = Self::default();
        let records = RecordCounts::of(v4, v6, key);
        for entry in &records.table {
            if let Some(class) = CountKey::class_of(entry.packed) {
                counts.hosts[class as usize] += entry.records.v4.max(entry.records.v6);
            }
        }
        if v4.has_index() || v6.has_index() {
            counts.records = Some(Box::new(records));
        }
        counts
    }

    /// Counts the peers of a swarm with a single family, in which each record is a host.
    pub(super) fn of_set<const N: usize>(set: &PeerSet<N>) -> Self {
        Self {
            hosts: set.class_counts(),
            records: None,
        }
    }

    /// Returns the number of hosts of each class, by [`Class`](crate::tracker::types::Class).
    pub(super) fn hosts(&self) -> [u32; 3] {
        self.hosts
    }

    /// Returns whether records are counted in a table.
    pub(super) fn has_table(&self) -> bool {
        self.records.is_some()
    }

    /// Adds a peer to `mine`, the set of its family, or refreshes it. If its network has `max_per_network` peers in the
    /// set, a new peer is not added.
    pub(super) fn join<const N: usize, const M: usize>(
        &mut self,
        record: PeerRecord<N>,
        mine: &mut PeerSet<N>,
        other: &PeerSet<M>,
        max_per_network: usize,
        key: HashKey,
    ) -> JoinOutcome {
        let Some(position) = mine.find(&record.endpoint) else {
            if mine.count_in_network(&record.endpoint) >= max_per_network {
                return JoinOutcome {
                    position: None,
                    first_completed: false,
                    completed: false,
                };
            }
            let (position, first_completed) = self.insert(record, mine, other, key);
            return JoinOutcome {
                position: Some(position),
                first_completed,
                completed: record.flags().completed(),
            };
        };
        let before = mine.records()[position];
        let mut renewed = before;
        let completes = renewed.renew(record.minute, record.flags());
        let completed = renewed.flags().completed();
        if renewed.flags() == before.flags() {
            mine.replace(position, renewed);
            return JoinOutcome {
                position: Some(position),
                first_completed: false,
                completed,
            };
        }
        self.remove(position, mine, other);
        let (position, first_completed) = self.insert(renewed, mine, other, key);
        JoinOutcome {
            position: Some(position),
            first_completed: first_completed && completes,
            completed,
        }
    }

    /// Removes a peer from `mine`, the set of its family.
    pub(super) fn remove<const N: usize, const M: usize>(
        &mut self,
        position: usize,
        mine: &mut PeerSet<N>,
        other: &PeerSet<M>,
    ) {
        let flags = mine.remove(position).flags();
        if !mine.has_index() && !other.has_index() {
            self.records = None;
        }
        if let Some(records) = &mut self.records {
            records.subtract(flags, family::<N>());
        }
        if self.is_new_host(flags.class_key(), mine, other) {
            self.hosts[flags.class() as usize] -= 1;
        }
    }

    /// Adds the records whose endpoints are not in `mine`, the set of their family.
    pub(super) fn restore<const N: usize, const M: usize>(
        &mut self,
        records: &[PeerRecord<N>],
        mine: &mut PeerSet<N>,
        other: &PeerSet<M>,
        key: HashKey,
    ) {
        mine.reserve(records.len());
        for record in records {
            if mine.find(&record.endpoint).is_none() {
                self.insert(*record, mine, other, key);
            }
        }
    }

    /// Inserts a record. Returns its position, and whether its host is the first to have completed.
    fn insert<const N: usize, const M: usize>(
        &mut self,
        record: PeerRecord<N>,
        mine: &mut PeerSet<N>,
        other: &PeerSet<M>,
        key: HashKey,
    ) -> (usize, bool) {
        let flags = record.flags();
        if self.is_new_host(flags.class_key(), mine, other) {
            self.hosts[flags.class() as usize] += 1;
        }
        let first_completed =
            flags.completed() && self.is_new_host(flags.completed_key(), mine, other);
        let position = mine.insert(record, key);
        if let Some(records) = &mut self.records {
            records.add(flags, family::<N>());
        } else if !other.is_empty() && (mine.has_index() || other.has_index()) {
            self.records = Some(Box::new(RecordCounts::of(mine, other, key)));
        }
        (position, first_completed)
    }

    /// Returns whether another record with this key in `mine` is another host. It is not if the other family has a record
    /// with this key that no record in `mine` is paired with. The record itself must not be in `mine`.
    fn is_new_host<const N: usize, const M: usize>(
        &self,
        key: CountKey,
        mine: &PeerSet<N>,
        other: &PeerSet<M>,
    ) -> bool {
        match &self.records {
            _ if other.is_empty() => true,
            None => mine.count(key) >= other.count(key),
            Some(records) => {
                let count = records.get(key);
                count.is_none_or(|count| count[family::<N>()] >= count[family::<M>()])
            }
        }
    }
}

/// The number of records of each family, by [`CountKey`].
struct RecordCounts {
    key: HashKey,
    table: HashTable<RecordCount>,
}

struct RecordCount {
    /// [`CountKey::packed`].
    packed: u32,
    records: PerFamily<u32>,
}

impl RecordCounts {
    fn of<const N: usize, const M: usize>(
        mine: &PeerSet<N>,
        other: &PeerSet<M>,
        key: HashKey,
    ) -> Self {
        let mut counts = Self {
            key,
            table: HashTable::new(),
        };
        for record in mine.records() {
            counts.add(record.flags(), family::<N>());
        }
        for record in other.records() {
            counts.add(record.flags(), family::<M>());
        }
        counts
    }

    fn get(&self, key: CountKey) -> Option<&PerFamily<u32>> {
        let packed = key.packed();
        let hash = self.key.hash(&packed.to_ne_bytes());
        let count = self.table.find(hash, |count| count.packed == packed)?;
        Some(&count.records)
    }

    fn add(&mut self, flags: PeerFlags, family: Family) {
        let key = self.key;
        let hash = |count: &RecordCount| key.hash(&count.packed.to_ne_bytes());
        for packed in packed_keys(flags) {
            let new = RecordCount {
                packed,
                records: PerFamily::default(),
            };
            let mut entry = self
                .table
                .entry(hash(&new), |count| count.packed == packed, hash)
                .or_insert(new);
            entry.get_mut().records[family] += 1;
        }
    }

    fn subtract(&mut self, flags: PeerFlags, family: Family) {
        for packed in packed_keys(flags) {
            let hash = self.key.hash(&packed.to_ne_bytes());
            if let Ok(mut entry) = self.table.find_entry(hash, |count| count.packed == packed) {
                entry.get_mut().records[family] -= 1;
                if entry.get().records == PerFamily::default() {
                    entry.remove();
                }
            }
        }
    }
}

/// Returns the keys under which a record is counted: its class, and whether it has completed.
fn packed_keys(flags: PeerFlags) -> impl Iterator<Item = u32> {
    let completed = flags.completed().then(|| flags.completed_key());
    let keys = std::iter::once(flags.class_key()).chain(completed);
    keys.map(CountKey::packed)
}

/// Returns the family whose endpoints have `N` bytes.
const fn family<const N: usize>() -> Family {
    if N == 6 { Family::V4 } else { Family::V6 }
}
