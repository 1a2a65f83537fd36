//! The peers of an address family in a swarm: storage, index and selection.

use std::hint::black_box;
use std::net::IpAddr;
use std::num::NonZeroU16;

use hashbrown::HashTable;

use super::peer::{CountKey, Endpoint, PeerRecord, PeerRequest, address, network};
use crate::tracker::hash_key::HashKey;
use crate::tracker::types::Class;

/// A set of up to this many peers is scanned: that is as fast as an index and takes half the memory.
const MAX_SCANNED: usize = 128;

/// Maximum number of peers in a response that are neighbors in memory. Each peer that is not next to the previous costs a
/// wait for memory.
const MAX_RUN: usize = 8;

/// The number of hashes that the peers of a network are distributed over.
const BUCKETS_PER_NETWORK: u8 = 16;

/// The peers of a family. Leechers come before seeders, so that a seeder gets leechers only, without a search.
#[derive(Default)]
pub(in crate::tracker) struct PeerSet<const N: usize> {
    records: Vec<PeerRecord<N>>,
    /// `records[..leechers]` are leechers, partial seeds included; the rest are seeders.
    leechers: u32,
    partial: u32,
    /// Present when the set has had more than [`MAX_SCANNED`] peers and has not shrunk to half of that since.
    index: Option<Box<PeerIndex<N>>>,
}

impl<const N: usize> PeerSet<N> {
    pub(super) fn of_one(record: PeerRecord<N>) -> Self {
        let class = record.flags().class();
        Self {
            records: vec![record],
            leechers: u32::from(class != Class::Seeder),
            partial: u32::from(class == Class::Partial),
            index: None,
        }
    }

    /// Builds the set of all these records at once, without spare capacity. If there are more than [`MAX_SCANNED`], a
    /// record may come twice, as happens when a snapshot has the swarm in several blocks; the first is kept.
    pub(super) fn from_records(records: &[PeerRecord<N>], key: HashKey) -> Self {
        let mut set = Self::default();
        set.records.reserve_exact(records.len());
        if records.len() > MAX_SCANNED {
            set.index = Some(Box::new(PeerIndex::with_capacity(records.len(), key)));
        }
        let is_seeder = |record: &&PeerRecord<N>| record.flags().class() == Class::Seeder;
        set.extend(records.iter().filter(|record| !is_seeder(record)));
        set.leechers = set.records.len() as u32;
        let is_partial = |record: &&PeerRecord<N>| record.flags().class() == Class::Partial;
        set.partial = set.records.iter().filter(is_partial).count() as u32;
        set.extend(records.iter().filter(is_seeder));
        set
    }

    fn extend<'a>(&mut self, records: impl Iterator<Item = &'a PeerRecord<N>>) {
        let Some(index) = &mut self.index else {
            return self.records.extend(records);
        };
        for record in records {
            if index.find(&self.records, &record.endpoint).is_none() {
                self.records.push(*record);
                index.insert(&self.records, self.records.len() - 1);
            }
        }
    }

    pub(super) fn records(&self) -> &[PeerRecord<N>] {
        &self.records
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    pub(super) fn seeders(&self) -> usize {
        self.records.len() - self.leechers as usize
    }

    /// Returns how many records are of each class, by [`Class`].
    pub(super) fn class_counts(&self) -> [u32; 3] {
        let seeders = self.records.len() as u32 - self.leechers;
        [self.leechers - self.partial, self.partial, seeders]
    }

    /// Returns how many records match the key; looks at all of them.
    pub(super) fn count(&self, key: CountKey) -> u32 {
        let matching = self.records.iter().filter(|r| key.matches(r.flags()));
        matching.count() as u32
    }

    pub(super) fn has_index(&self) -> bool {
        self.index.is_some()
    }

    /// Returns the number of peers in the index.
    pub(super) fn index_len(&self) -> usize {
        self.index.as_ref().map_or(0, |index| index.positions.len())
    }

    /// Reserves memory for more peers.
    pub(super) fn reserve(&mut self, additional: usize) {
        self.records.reserve_exact(additional);
        if let Some(index) = &mut self.index {
            index.reserve(&self.records, additional);
        }
    }

    /// Returns the position of a peer.
    pub(super) fn find(&self, endpoint: &[u8; N]) -> Option<usize> {
        match &self.index {
            None => self.records.iter().position(|r| r.endpoint == *endpoint),
            Some(index) => index.find(&self.records, endpoint),
        }
    }

    /// Returns the [`Time::minute`](crate::tracker::types::Time::minute) of a peer's last announce.
    pub(super) fn minute(&self, endpoint: &[u8; N]) -> Option<u8> {
        Some(self.records[self.find(endpoint)?].minute)
    }

    /// Reads the records that [`PeerSet::find`] reads first, and returns the minute of the first, so that the read is not
    /// optimized away.
    pub(super) fn touch(&self, bucket_hash: u64) -> Option<u8> {
        let first = match &self.index {
            None => 0,
            Some(index) => *index.positions.iter_hash(bucket_hash).next()? as usize,
        };
        self.records.get(first).map(|record| record.minute)
    }

    /// Returns the number of peers in the endpoint's network.
    pub(super) fn count_in_network(&self, endpoint: &[u8; N]) -> usize {
        match &self.index {
            None => {
                let is_near = |r: &&PeerRecord<N>| network(&r.endpoint) == network(endpoint);
                self.records.iter().filter(is_near).count()
            }
            Some(index) => index.count_in_network(&self.records, endpoint),
        }
    }

    /// Adds a peer that is not in the set and returns its position. `key` is for the index, if this peer makes it
    /// necessary.
    pub(super) fn insert(&mut self, record: PeerRecord<N>, key: HashKey) -> usize {
        let len = self.records.len();
        if len == self.records.capacity() {
            // In small steps: doubling would waste a third of the memory in spare capacity and in gaps between allocations.
            self.records.reserve_exact((len / 32).max(1));
        }
        self.records.push(record);
        let mut position = len;
        let class = record.flags().class();
        self.partial += u32::from(class == Class::Partial);
        if class != Class::Seeder {
            position = self.leechers as usize;
            self.leechers += 1;
            self.records[len] = self.records[position];
            self.relocate(position, len);
            self.records[position] = record;
        }
        if let Some(index) = &mut self.index {
            index.insert(&self.records, position);
        } else if self.records.len() > MAX_SCANNED {
            self.index = Some(Box::new(PeerIndex::of(&self.records, key)));
        }
        position
    }

    /// Removes the peer at this position and returns its record.
    pub(super) fn remove(&mut self, position: usize) -> PeerRecord<N> {
        let record = self.records[position];
        if self.records.len() < MAX_SCANNED / 2 {
            self.index = None;
        }
        if let Some(index) = &mut self.index {
            index.remove(&record.endpoint, position);
        }
        self.partial -= u32::from(record.flags().class() == Class::Partial);
        let mut gap = position;
        if position < self.leechers as usize {
            self.leechers -= 1;
            gap = self.leechers as usize;
            self.records[position] = self.records[gap];
            self.relocate(gap, position);
        }
        let last = self.records.len() - 1;
        self.records[gap] = self.records[last];
        self.relocate(last, gap);
        self.records.pop();
        if last < self.records.capacity() / 2 {
            self.records.shrink_to(last + last / 8);
        }
        record
    }

    /// Replaces a record by another of the same endpoint and class.
    pub(super) fn replace(&mut self, position: usize, record: PeerRecord<N>) {
        self.records[position] = record;
    }

    /// Updates the index: the record that is now at `to` was at `from`.
    fn relocate(&mut self, from: usize, to: usize) {
        let Some(index) = &mut self.index else { return };
        if from != to {
            index.relocate(&self.records[to].endpoint, from, to);
        }
    }

    /// Appends up to `request.want` endpoints. They are taken in short runs, evenly spaced from a random start, so that
    /// each peer is as likely as any other. The requester itself is left out, and so are peers at local addresses that
    /// `reaches` refuses.
    pub(super) fn select_peers(
        &self,
        request: &PeerRequest,
        reaches: impl Fn(IpAddr) -> bool,
        out: &mut Vec<u8>,
    ) {
        let pool = if request.class == Class::Seeder {
            self.leechers as usize
        } else {
            self.records.len()
        };
        let own = request.position.filter(|&position| position < pool);
        let others = pool - usize::from(own.is_some());
        let selected = request.want.min(others);
        if selected == 0 {
            return;
        }
        let start = ((u64::from(request.random) * others as u64) >> 32) as usize;
        let run = (selected / 4).clamp(1, MAX_RUN);
        let gap = (others - selected) / selected.div_ceil(run);
        let other = |number: usize| {
            let position = if number < others {
                number
            } else {
                number - others
            };
            &self.records[position + usize::from(own.is_some_and(|own| position >= own))]
        };
        // The first of each run is read in advance, so that the waits for memory overlap.
        let firsts = (0..selected.div_ceil(run)).map(|nth| start + nth * (run + gap));
        black_box(firsts.fold(0, |all, first| all ^ other(first).minute));
        let begin = out.len();
        out.resize(begin + selected * N, 0);
        let mut slots = out[begin..].chunks_exact_mut(N);
        let mut first = start;
        for number in (0..selected).step_by(run) {
            let wanted = run.min(selected - number);
            let next = first + wanted + gap;
            // Peers in the gap replace those that are left out, as far as a short search finds any.
            let near = (first..next.min(first + 4 * wanted)).map(other);
            let reached = near.filter(|r| !r.flags().local() || reaches(address(&r.endpoint)));
            for (record, slot) in reached.take(wanted).zip(&mut slots) {
                slot.copy_from_slice(&record.endpoint);
            }
            first = next;
        }
        let unused = slots.len() * N;
        out.truncate(out.len() - unused);
    }
}

/// The positions of a set's peers by [`bucket_hash`]. All methods get the records that the positions refer to.
struct PeerIndex<const N: usize> {
    key: HashKey,
    positions: HashTable<u32>,
}

impl<const N: usize> PeerIndex<N> {
    fn with_capacity(capacity: usize, key: HashKey) -> Self {
        let positions = HashTable::with_capacity(capacity);
        Self { key, positions }
    }

    fn of(records: &[PeerRecord<N>], key: HashKey) -> Self {
        let mut index = Self::with_capacity(records.len(), key);
        (0..records.len()).for_each(|position| index.insert(records, position));
        index
    }

    fn reserve(&mut self, records: &[PeerRecord<N>], additional: usize) {
        let hash = hash_at(records, self.key);
        self.positions.reserve(additional, hash);
    }

    fn find(&self, records: &[PeerRecord<N>], endpoint: &[u8; N]) -> Option<usize> {
        let is_it = |&position: &u32| records[position as usize].endpoint == *endpoint;
        let hash = bucket_hash(endpoint, self.key);
        let position = self.positions.find(hash, is_it)?;
        Some(*position as usize)
    }

    fn count_in_network(&self, records: &[PeerRecord<N>], endpoint: &[u8; N]) -> usize {
        let mut count = 0;
        for hash in bucket_hashes(endpoint, self.key) {
            // The search passes all that share the hash and finds none, as the closure returns false.
            self.positions.find(hash, |&position| {
                let other = &records[position as usize].endpoint;
                count += usize::from(network(other) == network(endpoint));
                false
            });
        }
        count
    }

    fn insert(&mut self, records: &[PeerRecord<N>], position: usize) {
        let hash = hash_at(records, self.key);
        let position = position as u32;
        self.positions
            .insert_unique(hash(&position), position, hash);
    }

    fn relocate(&mut self, endpoint: &[u8; N], from: usize, to: usize) {
        let hash = bucket_hash(endpoint, self.key);
        let is_it = |&position: &u32| position as usize == from;
        if let Some(position) = self.positions.find_mut(hash, is_it) {
            *position = to as u32;
        }
    }

    fn remove(&mut self, endpoint: &[u8; N], position: usize) {
        let hash = bucket_hash(endpoint, self.key);
        let is_it = |&at: &u32| at as usize == position;
        if let Ok(entry) = self.positions.find_entry(hash, is_it) {
            entry.remove();
        }
    }
}

/// Returns a function that hashes a position in an index, for the table.
fn hash_at<const N: usize>(records: &[PeerRecord<N>], key: HashKey) -> impl Fn(&u32) -> u64 {
    move |&position| bucket_hash(&records[position as usize].endpoint, key)
}

/// Returns the hashes under which an index has the peers of a network. They are close together, so that the peers can be
/// counted; they are several, so that a search for a peer passes few of the others.
fn bucket_hashes<const N: usize>(
    endpoint: &[u8; N],
    key: HashKey,
) -> impl Iterator<Item = u64> + use<N> {
    let hash = key.hash(network(endpoint));
    // A table distinguishes neighbors by the upper bits of a hash and chooses the place by the lower bits.
    (0..BUCKETS_PER_NETWORK).map(move |bucket| hash ^ u64::from(bucket) << 57)
}

/// Returns this peer's hash, which is among [`bucket_hashes`].
fn bucket_hash<const N: usize>(endpoint: &[u8; N], key: HashKey) -> u64 {
    // Chosen by the port, and for IPv6 also by the end of the address.
    let bucket = (endpoint[N - 1] ^ endpoint[N - 3]) % BUCKETS_PER_NETWORK;
    key.hash(network(endpoint)) ^ u64::from(bucket) << 57
}

/// A peer's hash in the index of its swarm, for [`PeerSet::touch`].
#[derive(Clone, Debug)]
pub(in crate::tracker) struct IndexKey {
    pub(super) is_v4: bool,
    pub(super) bucket_hash: u64,
}

impl IndexKey {
    pub(in crate::tracker) fn new(address: IpAddr, port: NonZeroU16, key: HashKey) -> Self {
        match Endpoint::new(address, port) {
            Endpoint::V4(endpoint) => Self {
                is_v4: true,
                bucket_hash: bucket_hash(&endpoint, key),
            },
            Endpoint::V6(endpoint) => Self {
                is_v4: false,
                bucket_hash: bucket_hash(&endpoint, key),
            },
        }
    }
}
