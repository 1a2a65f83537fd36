//! Counts of the hosts in a swarm, each host once.

use hashbrown::HashTable;
use siphasher::sip::SipHasher13;

use super::peer::{CountKey, JoinOutcome, PeerFlags, PeerRecord};
use super::peer_set::PeerSet;

/// How many hosts are of each class, however many families they are on.
#[derive(Default)]
pub(super) struct HostCounts {
    /// By [`Class`].
    pub(super) hosts_of: [u32; 3],
    /// How many records of each family have a role; kept from when both families are there and one has an index, until none has.
    pub(super) roles: Option<Box<HashTable<CountEntry>>>,
}

pub(super) struct CountEntry {
    packed: u32,
    /// IPv4, IPv6.
    records: [u32; 2],
}

impl HostCounts {
    /// Counts all at once what joining one by one would have counted.
    pub(super) fn of(v4: &PeerSet<6>, v6: &PeerSet<18>, keyed: &SipHasher13) -> Self {
        if v6.records.is_empty() {
            return Self::of_one(v4);
        }
        if v4.records.is_empty() {
            return Self::of_one(v6);
        }
        let mut census = Self::default();
        census.note_all(v4, v6, keyed);
        for role in census.roles.iter().flat_map(|roles| roles.iter()) {
            let mark = PeerFlags(role.packed);
            if !mark.completed() {
                let [v4, v6] = role.records;
                census.hosts_of[mark.class() as usize] += v4.max(v6);
            }
        }
        if v4.index.is_none() && v6.index.is_none() {
            census.roles = None;
        }
        census
    }

    /// Of one family each record is a host.
    pub(super) fn of_one<const N: usize>(set: &PeerSet<N>) -> Self {
        Self {
            hosts_of: set.records_of(),
            roles: None,
        }
    }

    /// Whether a record of this role in `mine`, which must not hold it, adds to the count: not while the other family
    /// has a record for which it can stand.
    fn adds<const N: usize, const M: usize>(
        &self,
        role: CountKey,
        mine: &PeerSet<N>,
        other: &PeerSet<M>,
        keyed: &SipHasher13,
    ) -> bool {
        match &self.roles {
            _ if other.records.is_empty() => true,
            None => mine.count(role) >= other.count(role),
            Some(roles) => {
                let count = roles.find(keyed.hash(&role.packed.to_ne_bytes()), |c| {
                    c.packed == role.packed
                });
                count.is_none_or(|c| c.records[family::<N>()] >= c.records[family::<M>()])
            }
        }
    }

    /// Adds or refreshes a peer of the family `mine`. One whose network has `most` peers here is not added.
    pub(super) fn join<const N: usize, const M: usize>(
        &mut self,
        record: PeerRecord<N>,
        mine: &mut PeerSet<N>,
        other: &PeerSet<M>,
        most: usize,
        keyed: &SipHasher13,
    ) -> JoinOutcome {
        let Some(at) = mine.find(&record.endpoint, keyed) else {
            if mine.neighbours(&record.endpoint, keyed) >= most {
                return JoinOutcome {
                    at: None,
                    first_completed: false,
                    completed: false,
                };
            }
            let (at, first_completed) = self.insert(record, mine, other, keyed);
            return JoinOutcome {
                at: Some(at),
                first_completed,
                completed: record.mark().completed(),
            };
        };
        let mut renewed = mine.records[at];
        let completes = renewed.renew(record.heard, record.mark());
        let completed = renewed.mark().completed();
        if renewed.mark() == mine.records[at].mark() {
            mine.records[at] = renewed;
            return JoinOutcome {
                at: Some(at),
                first_completed: false,
                completed,
            };
        }
        self.remove(at, mine, other, keyed);
        let (at, first_completed) = self.insert(renewed, mine, other, keyed);
        JoinOutcome {
            at: Some(at),
            first_completed: first_completed && completes,
            completed,
        }
    }

    /// Inserts a record; tells its position, and whether its host is the first to have completed.
    fn insert<const N: usize, const M: usize>(
        &mut self,
        record: PeerRecord<N>,
        mine: &mut PeerSet<N>,
        other: &PeerSet<M>,
        keyed: &SipHasher13,
    ) -> (usize, bool) {
        let mark = record.mark();
        if self.adds(mark.in_class(), mine, other, keyed) {
            self.hosts_of[mark.class() as usize] += 1;
        }
        let first_completed =
            mark.completed() && self.adds(mark.as_completed(), mine, other, keyed);
        let at = mine.insert(record, keyed);
        if self.roles.is_some() {
            self.note(mark, family::<N>(), keyed);
        } else if !other.records.is_empty() && (mine.index.is_some() || other.index.is_some()) {
            self.note_all(mine, other, keyed);
        }
        (at, first_completed)
    }

    pub(super) fn remove<const N: usize, const M: usize>(
        &mut self,
        at: usize,
        mine: &mut PeerSet<N>,
        other: &PeerSet<M>,
        keyed: &SipHasher13,
    ) -> PeerRecord<N> {
        let record = mine.remove(at, keyed);
        let mark = record.mark();
        if mine.index.is_none() && other.index.is_none() {
            self.roles = None;
        }
        self.unnote(mark, family::<N>(), keyed);
        if self.adds(mark.in_class(), mine, other, keyed) {
            self.hosts_of[mark.class() as usize] -= 1;
        }
        record
    }

    /// Adds those of `more` that are not there.
    pub(super) fn take_in<const N: usize, const M: usize>(
        &mut self,
        more: &[PeerRecord<N>],
        mine: &mut PeerSet<N>,
        other: &PeerSet<M>,
        keyed: &SipHasher13,
    ) {
        mine.reserve(more.len(), keyed);
        for record in more {
            if mine.find(&record.endpoint, keyed).is_none() {
                self.insert(*record, mine, other, keyed);
            }
        }
    }

    fn note_all<const N: usize, const M: usize>(
        &mut self,
        mine: &PeerSet<N>,
        other: &PeerSet<M>,
        keyed: &SipHasher13,
    ) {
        self.roles = Some(Box::default());
        mine.records
            .iter()
            .for_each(|r| self.note(r.mark(), family::<N>(), keyed));
        other
            .records
            .iter()
            .for_each(|r| self.note(r.mark(), family::<M>(), keyed));
    }

    fn note(&mut self, mark: PeerFlags, family: usize, keyed: &SipHasher13) {
        let Some(roles) = &mut self.roles else { return };
        let completed = mark.completed().then(|| mark.as_completed());
        for CountKey { packed, .. } in std::iter::once(mark.in_class()).chain(completed) {
            let hash = |c: &CountEntry| keyed.hash(&c.packed.to_ne_bytes());
            let new = CountEntry {
                packed,
                records: [0, 0],
            };
            let mut entry = roles
                .entry(hash(&new), |c| c.packed == packed, hash)
                .or_insert(new);
            entry.get_mut().records[family] += 1;
        }
    }

    fn unnote(&mut self, mark: PeerFlags, family: usize, keyed: &SipHasher13) {
        let Some(roles) = &mut self.roles else { return };
        let completed = mark.completed().then(|| mark.as_completed());
        for CountKey { packed, .. } in std::iter::once(mark.in_class()).chain(completed) {
            if let Ok(mut entry) =
                roles.find_entry(keyed.hash(&packed.to_ne_bytes()), |c| c.packed == packed)
            {
                entry.get_mut().records[family] -= 1;
                if entry.get().records == [0, 0] {
                    entry.remove();
                }
            }
        }
    }
}

/// Which of [`CountEntry::records`] counts endpoints of `N` bytes.
const fn family<const N: usize>() -> usize {
    if N == 6 { 0 } else { 1 }
}
