//! The peers of one address family in a swarm.

use std::hint::black_box;
use std::net::IpAddr;

use hashbrown::HashTable;
use siphasher::sip::SipHasher13;

use super::peer::{CountKey, PeerRecord, PeerRequest, address, bucket_hash, network, spots};
use crate::tracker::types::Class;

/// Up to this many peers of a family are scanned: as quick as an index, and half the memory.
const SCANNED: usize = 128;

/// The most peers of an answer that lie beside each other in memory: each that does not costs a wait for memory.
const RUN: usize = 8;

/// The peers of one family: leechers before seeders, so that a seeder is given leechers alone without a search.
#[derive(Default)]
pub(in crate::tracker) struct PeerSet<const N: usize> {
    pub(super) records: Vec<PeerRecord<N>>,
    /// `records[..leechers]` are leechers, partial seeds among them; the rest are seeders.
    pub(super) leechers: u32,
    pub(super) partial: u32,
    /// Positions in `records` by [`bucket_hash`], once there are more than [`SCANNED`].
    pub(super) index: Option<Box<HashTable<u32>>>,
}

impl<const N: usize> PeerSet<N> {
    /// Of all these records at once, with no room to spare. Where there are so many that a snapshot was in several parts, one
    /// that is there twice is taken once.
    pub(super) fn of(records: &[PeerRecord<N>], keyed: &SipHasher13) -> Self {
        let mut set = Self::default();
        set.records.reserve_exact(records.len());
        if records.len() > SCANNED {
            set.index = Some(Box::new(HashTable::with_capacity(records.len())));
        }
        let is_seeder = |record: &&PeerRecord<N>| record.mark().class() == Class::Seeder;
        set.extend(records.iter().filter(|record| !is_seeder(record)), keyed);
        set.leechers = set.records.len() as u32;
        let is_partial = |record: &&PeerRecord<N>| record.mark().class() == Class::Partial;
        set.partial = set.records.iter().filter(is_partial).count() as u32;
        set.extend(records.iter().filter(is_seeder), keyed);
        set
    }

    fn extend<'a>(
        &mut self,
        records: impl Iterator<Item = &'a PeerRecord<N>>,
        keyed: &SipHasher13,
    ) {
        let Some(index) = &mut self.index else {
            return self.records.extend(records);
        };
        for record in records {
            let all = &mut self.records;
            let hash = bucket_hash(&record.endpoint, keyed);
            let same = |at: &u32| all[*at as usize].endpoint == record.endpoint;
            if index.find(hash, same).is_none() {
                index.insert_unique(hash, all.len() as u32, |&at| {
                    bucket_hash(&all[at as usize].endpoint, keyed)
                });
                all.push(*record);
            }
        }
    }

    pub(super) fn seeders(&self) -> usize {
        self.records.len() - self.leechers as usize
    }

    pub(super) fn reserve(&mut self, more: usize, keyed: &SipHasher13) {
        self.records.reserve_exact(more);
        let records = &self.records;
        if let Some(index) = &mut self.index {
            index.reserve(more, |&at| {
                bucket_hash(&records[at as usize].endpoint, keyed)
            });
        }
    }

    pub(super) fn find(&self, endpoint: &[u8; N], keyed: &SipHasher13) -> Option<usize> {
        match &self.index {
            None => self.records.iter().position(|r| r.endpoint == *endpoint),
            Some(index) => index
                .find(bucket_hash(endpoint, keyed), |&at| {
                    self.records[at as usize].endpoint == *endpoint
                })
                .map(|&at| at as usize),
        }
    }

    /// How many peers are in the index.
    pub(super) fn indexed(&self) -> usize {
        self.index.as_ref().map_or(0, |index| index.len())
    }

    /// When the first was heard that shares a [`bucket_hash`], or that stands first where there is no index.
    pub(super) fn heard_at(&self, bucket_hash: u64) -> Option<u8> {
        let first = match &self.index {
            None => 0,
            Some(index) => *index.iter_hash(bucket_hash).next()? as usize,
        };
        self.records.get(first).map(|record| record.heard)
    }

    /// How many peers share the endpoint's network.
    pub(super) fn neighbours(&self, endpoint: &[u8; N], keyed: &SipHasher13) -> usize {
        let near = |record: &PeerRecord<N>| network(&record.endpoint) == network(endpoint);
        let Some(index) = &self.index else {
            return self.records.iter().filter(|record| near(record)).count();
        };
        let mut neighbours = 0;
        for bucket_hash in spots(endpoint, keyed) {
            // Passes by all that share the bucket_hash, and finds none.
            index.find(bucket_hash, |&at| {
                neighbours += usize::from(near(&self.records[at as usize]));
                false
            });
        }
        neighbours
    }

    /// Adds a peer that is not there yet and tells its position.
    pub(super) fn insert(&mut self, record: PeerRecord<N>, keyed: &SipHasher13) -> usize {
        let len = self.records.len();
        if len == self.records.capacity() {
            // By little: what is reserved, and the gaps left behind by growing, would be a third of the memory.
            self.records.reserve_exact((len / 32).max(1));
        }
        self.records.push(record);
        let mut at = len;
        let class = record.mark().class();
        self.partial += u32::from(class == Class::Partial);
        if class != Class::Seeder {
            at = self.leechers as usize;
            self.leechers += 1;
            self.records[len] = self.records[at];
            self.moved(at, len, keyed);
            self.records[at] = record;
        }
        self.add_to_index(at, keyed);
        at
    }

    pub(super) fn remove(&mut self, at: usize, keyed: &SipHasher13) -> PeerRecord<N> {
        let record = self.records[at];
        self.remove_from_index(at, keyed);
        self.partial -= u32::from(record.mark().class() == Class::Partial);
        let mut gap = at;
        if at < self.leechers as usize {
            self.leechers -= 1;
            gap = self.leechers as usize;
            self.records[at] = self.records[gap];
            self.moved(gap, at, keyed);
        }
        let last = self.records.len() - 1;
        self.records[gap] = self.records[last];
        self.moved(last, gap, keyed);
        self.records.pop();
        if last < self.records.capacity() / 2 {
            self.records.shrink_to(last + last / 8);
        }
        record
    }

    /// How many records are of each class, by [`Class`].
    pub(super) fn records_of(&self) -> [u32; 3] {
        let seeders = self.records.len() as u32 - self.leechers;
        [self.leechers - self.partial, self.partial, seeders]
    }

    /// Tells the index that the record now at `to` was at `from`.
    fn moved(&mut self, from: usize, to: usize, keyed: &SipHasher13) {
        let Some(index) = &mut self.index else { return };
        if from != to {
            let hash = bucket_hash(&self.records[to].endpoint, keyed);
            if let Some(position) = index.find_mut(hash, |&at| at as usize == from) {
                *position = to as u32;
            }
        }
    }

    fn add_to_index(&mut self, at: usize, keyed: &SipHasher13) {
        let records = &self.records;
        let hash = |&at: &u32| bucket_hash(&records[at as usize].endpoint, keyed);
        if let Some(index) = &mut self.index {
            index.insert_unique(hash(&(at as u32)), at as u32, hash);
        } else if records.len() > SCANNED {
            let mut index = HashTable::with_capacity(records.len());
            for at in 0..records.len() as u32 {
                index.insert_unique(hash(&at), at, hash);
            }
            self.index = Some(Box::new(index));
        }
    }

    fn remove_from_index(&mut self, at: usize, keyed: &SipHasher13) {
        if self.records.len() < SCANNED / 2 {
            self.index = None;
        }
        if let Some(index) = &mut self.index {
            let hash = bucket_hash(&self.records[at].endpoint, keyed);
            if let Ok(entry) = index.find_entry(hash, |&position| position as usize == at) {
                entry.remove();
            }
        }
    }

    pub(super) fn count(&self, role: CountKey) -> u32 {
        self.records.iter().filter(|r| role.is_of(r.mark())).count() as u32
    }

    /// Appends up to `want` endpoints: short runs, evenly spaced from a random start, so that each peer is as likely as any
    /// other; never the asker's own. Peers at local addresses are left out unless `reaches` them.
    pub(super) fn choose(
        &self,
        asker: &PeerRequest,
        reaches: impl Fn(IpAddr) -> bool,
        out: &mut Vec<u8>,
    ) {
        let pool = if asker.class == Class::Seeder {
            self.leechers as usize
        } else {
            self.records.len()
        };
        let own = asker.at.filter(|&at| at < pool);
        let others = pool - usize::from(own.is_some());
        let chosen = asker.want.min(others);
        if chosen == 0 {
            return;
        }
        let start = ((u64::from(asker.random) * others as u64) >> 32) as usize;
        let run = (chosen / 4).clamp(1, RUN);
        let gap = (others - chosen) / chosen.div_ceil(run);
        let other = |number: usize| {
            let at = if number < others {
                number
            } else {
                number - others
            };
            &self.records[at + usize::from(own.is_some_and(|own| at >= own))]
        };
        // One of each run at first, so that the waits for them fall together.
        let firsts = (0..chosen.div_ceil(run)).map(|nth| start + nth * (run + gap));
        black_box(firsts.fold(0, |all, first| all ^ other(first).heard));
        let begin = out.len();
        out.resize(begin + chosen * N, 0);
        let mut slots = out[begin..].chunks_exact_mut(N);
        let mut first = start;
        for number in (0..chosen).step_by(run) {
            let wanted = run.min(chosen - number);
            let next = first + wanted + gap;
            // Those in the gap stand in for those that are left out, as far as that is quickly done.
            let near = (first..next.min(first + 4 * wanted)).map(other);
            let reached = near.filter(|r| !r.mark().local() || reaches(address(&r.endpoint)));
            for (record, slot) in reached.take(wanted).zip(&mut slots) {
                slot.copy_from_slice(&record.endpoint);
            }
            first = next;
        }
        let unused = slots.len() * N;
        out.truncate(out.len() - unused);
    }
}
