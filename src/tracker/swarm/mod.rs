//! Who is in one swarm, until when, and whom to hand out.
//!
//! A peer is its endpoint, kept as the wire has it: 11 bytes for IPv4, 23 for IPv6. Small sets are scanned, large ones
//! have an index; either way an announce costs the same however many peers there are.

use std::hash::Hasher;
use std::hint::black_box;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::slice;

use hashbrown::HashTable;
use siphasher::sip::SipHasher13;

use crate::tracker::access::LocalNetworks;
use crate::tracker::settings::HostKey;
use crate::tracker::settings::Settings;
use crate::tracker::types::{Announce, Class, Event, InfoHash, ScrapeEntry, Time};
use crate::tracker::types::{PeerUpdate, TimedUpdate, age_minutes};

/// Up to this many peers of a family are scanned: as quick as an index, and half the memory.
const SCANNED: usize = 128;

/// How many hashes the peers of one network have in an index.
const SPOTS: u8 = 16;

/// The most peers of an answer that lie beside each other in memory: each that does not costs a wait for memory.
const RUN: usize = 8;

/// Where a peer is reached, as compact answers carry it: address and port in network order (BEP 23, BEP 7).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Endpoint {
    V4([u8; 6]),
    V6([u8; 18]),
}

impl Endpoint {
    fn new(address: IpAddr, port: NonZeroU16) -> Self {
        let port = port.get().to_be_bytes();
        match address {
            IpAddr::V4(v4) => Self::V4(joined(v4.octets(), port)),
            IpAddr::V6(v6) => Self::V6(joined(v6.octets(), port)),
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::V4(bytes) => bytes,
            Self::V6(bytes) => bytes,
        }
    }
}

fn joined<const A: usize, const N: usize>(address: [u8; A], port: [u8; 2]) -> [u8; N] {
    let mut endpoint = [0; N];
    endpoint[..A].copy_from_slice(&address);
    endpoint[A..].copy_from_slice(&port);
    endpoint
}

/// What shares a cap: an IPv4 address, or an IPv6 /64.
fn network<const N: usize>(endpoint: &[u8; N]) -> &[u8] {
    if N == 6 {
        &endpoint[..4]
    } else {
        &endpoint[..8]
    }
}

/// Where a network's peers are in an index: beside each other, so that they can be counted, but by a few different hashes, so
/// that most of those beside it need not be looked at to find one.
fn spots<const N: usize>(
    endpoint: &[u8; N],
    keyed: &SipHasher13,
) -> impl Iterator<Item = u64> + use<N> {
    let hash = keyed.hash(network(endpoint));
    // The upper packed tell a table's neighbours apart, the lower ones choose the place.
    (0..SPOTS).map(move |bucket_hash| hash ^ u64::from(bucket_hash) << 57)
}

/// The one of them where this peer is.
fn bucket_hash<const N: usize>(endpoint: &[u8; N], keyed: &SipHasher13) -> u64 {
    // By the port, and over IPv6 by the address's end.
    let bucket_hash = (endpoint[N - 1] ^ endpoint[N - 3]) % SPOTS;
    keyed.hash(network(endpoint)) ^ u64::from(bucket_hash) << 57
}

/// The address of an endpoint.
fn address<const N: usize>(endpoint: &[u8; N]) -> IpAddr {
    match <[u8; 4]>::try_from(&endpoint[..N - 2]) {
        Ok(v4) => IpAddr::from(v4),
        Err(_) => {
            let mut v6 = [0; 16];
            v6.copy_from_slice(&endpoint[..N - 2]);
            IpAddr::from(v6)
        }
    }
}

/// A peer's host, its class, whether its download has been counted, and whether its address is a local one.
///
/// The host is a fingerprint of `peer_id` and `key`, by which one that announces over both families counts once (BEP 7).
/// 28 packed: where 4,000 hosts of each family meet in one swarm, 1 in 16 such swarms is expected to count one too few.
#[derive(Clone, Copy, PartialEq, Eq)]
struct PeerFlags(u32);

impl PeerFlags {
    const CLASS: u32 = 0b0011;
    const COMPLETED: u32 = 0b0100;
    const LOCAL: u32 = 0b1000;
    const HOST: u32 = !0b1111;

    fn new(host: u32, class: Class, completed: bool, local: bool) -> Self {
        let completed = if completed { Self::COMPLETED } else { 0 };
        let local = if local { Self::LOCAL } else { 0 };
        Self(host & Self::HOST | class as u32 | completed | local)
    }

    fn class(self) -> Class {
        match self.0 & Self::CLASS {
            0 => Class::Leecher,
            1 => Class::Partial,
            _ => Class::Seeder,
        }
    }

    fn completed(self) -> bool {
        self.0 & Self::COMPLETED != 0
    }

    fn local(self) -> bool {
        self.0 & Self::LOCAL != 0
    }

    fn in_class(self) -> CountKey {
        CountKey {
            packed: self.0 & (Self::HOST | Self::CLASS),
            of: Self::HOST | Self::CLASS,
        }
    }

    fn as_completed(self) -> CountKey {
        CountKey {
            packed: self.0 & Self::HOST | Self::COMPLETED,
            of: Self::HOST | Self::COMPLETED,
        }
    }
}

/// What a host is counted as: one of a class, or one that has completed.
#[derive(Clone, Copy)]
struct CountKey {
    packed: u32,
    of: u32,
}

impl CountKey {
    fn is_of(self, mark: PeerFlags) -> bool {
        mark.0 & self.of == self.packed
    }
}

/// One peer of the family whose endpoints have `N` bytes. Bytes all through, so that no record is padded.
#[derive(Clone, Copy)]
pub(super) struct PeerRecord<const N: usize> {
    endpoint: [u8; N],
    /// [`Time::minute`] of the last announce.
    heard: u8,
    mark: [u8; 4],
}

impl<const N: usize> PeerRecord<N> {
    fn new(endpoint: [u8; N], heard: u8, mark: PeerFlags) -> Self {
        Self {
            endpoint,
            heard,
            mark: mark.0.to_ne_bytes(),
        }
    }

    fn mark(&self) -> PeerFlags {
        PeerFlags(u32::from_ne_bytes(self.mark))
    }

    /// Hears the peer redelivered; tells whether that is the first time that it has completed.
    fn renew(&mut self, heard: u8, mark: PeerFlags) -> bool {
        let before = self.mark();
        // Once counted, always counted: a client that repeats `completed` makes no second download.
        self.heard = heard;
        self.mark = (mark.0 | before.0 & PeerFlags::COMPLETED).to_ne_bytes();
        mark.completed() && !before.completed()
    }

    /// A record as [`PeerRecord::endpoint`] and its like gave it away.
    pub(super) fn restored(endpoint: [u8; N], heard: u8, packed: u32) -> Self {
        // Bits that no class has would be counted for none.
        let mark = PeerFlags(packed);
        let mark = PeerFlags::new(packed, mark.class(), mark.completed(), mark.local());
        Self {
            endpoint,
            heard,
            mark: mark.0.to_ne_bytes(),
        }
    }

    /// Address and port as the wire has them.
    pub(super) fn endpoint(&self) -> &[u8; N] {
        &self.endpoint
    }

    /// [`Time::minute`] of the last announce.
    pub(super) fn heard(&self) -> u8 {
        self.heard
    }

    /// As other trackers are told of it redelivered. None but those whose port is not 0 are kept.
    pub(super) fn told(&self, info_hash: InfoHash, now: Time) -> Option<TimedUpdate> {
        let mark = self.mark();
        let port = u16::from_be_bytes([self.endpoint[N - 2], self.endpoint[N - 1]]);
        let change = PeerUpdate {
            info_hash,
            address: address(&self.endpoint),
            port: NonZeroU16::new(port)?,
            host: mark.0 & PeerFlags::HOST,
            class: Some(mark.class()),
            completed: mark.completed(),
        };
        Some(TimedUpdate {
            change,
            age_secs: 60 * u32::from(age_minutes(now, self.heard)) + now.0 % 60,
            redelivered: true,
        })
    }

    /// Host, class and whether it has completed.
    pub(super) fn packed(&self) -> u32 {
        self.mark().0
    }

    /// As [`PeerSet::choose`] does of more. An asker who is not kept is given this one.
    fn choose(&self, asker: &PeerRequest, reaches: impl Fn(IpAddr) -> bool, out: &mut Vec<u8>) {
        let mark = self.mark();
        let fits = asker.class != Class::Seeder || mark.class() != Class::Seeder;
        let reached = !mark.local() || reaches(address(&self.endpoint));
        if asker.at.is_none() && asker.want > 0 && fits && reached {
            out.extend_from_slice(&self.endpoint);
        }
    }

    fn is_silent(&self, now: Time, timeout_minutes: u8) -> bool {
        now.minute().wrapping_sub(self.heard) > timeout_minutes
    }
}

/// The peers of one family: leechers before seeders, so that a seeder is given leechers alone without a search.
#[derive(Default)]
pub(super) struct PeerSet<const N: usize> {
    records: Vec<PeerRecord<N>>,
    /// `records[..leechers]` are leechers, partial seeds among them; the rest are seeders.
    leechers: u32,
    partial: u32,
    /// Positions in `records` by [`bucket_hash`], once there are more than [`SCANNED`].
    index: Option<Box<HashTable<u32>>>,
}

impl<const N: usize> PeerSet<N> {
    /// Of all these records at once, with no room to spare. Where there are so many that a snapshot was in several parts, one
    /// that is there twice is taken once.
    fn of(records: &[PeerRecord<N>], keyed: &SipHasher13) -> Self {
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

    fn seeders(&self) -> usize {
        self.records.len() - self.leechers as usize
    }

    fn reserve(&mut self, more: usize, keyed: &SipHasher13) {
        self.records.reserve_exact(more);
        let records = &self.records;
        if let Some(index) = &mut self.index {
            index.reserve(more, |&at| {
                bucket_hash(&records[at as usize].endpoint, keyed)
            });
        }
    }

    fn find(&self, endpoint: &[u8; N], keyed: &SipHasher13) -> Option<usize> {
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
    fn indexed(&self) -> usize {
        self.index.as_ref().map_or(0, |index| index.len())
    }

    /// When the first was heard that shares a [`bucket_hash`], or that stands first where there is no index.
    fn heard_at(&self, bucket_hash: u64) -> Option<u8> {
        let first = match &self.index {
            None => 0,
            Some(index) => *index.iter_hash(bucket_hash).next()? as usize,
        };
        self.records.get(first).map(|record| record.heard)
    }

    /// How many peers share the endpoint's network.
    fn neighbours(&self, endpoint: &[u8; N], keyed: &SipHasher13) -> usize {
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
    fn insert(&mut self, record: PeerRecord<N>, keyed: &SipHasher13) -> usize {
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

    fn remove(&mut self, at: usize, keyed: &SipHasher13) -> PeerRecord<N> {
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
    fn records_of(&self) -> [u32; 3] {
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

    fn count(&self, role: CountKey) -> u32 {
        self.records.iter().filter(|r| role.is_of(r.mark())).count() as u32
    }

    /// Appends up to `want` endpoints: short runs, evenly spaced from a random start, so that each peer is as likely as any
    /// other; never the asker's own. Peers at local addresses are left out unless `reaches` them.
    fn choose(&self, asker: &PeerRequest, reaches: impl Fn(IpAddr) -> bool, out: &mut Vec<u8>) {
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

/// For whom peers are chosen.
struct PeerRequest {
    class: Class,
    /// Where it stands in its set, if it is kept there.
    at: Option<usize>,
    want: usize,
    random: u32,
}

/// How many hosts are of each class, however many families they are on.
#[derive(Default)]
struct HostCounts {
    /// By [`Class`].
    hosts_of: [u32; 3],
    /// How many records of each family have a role; kept from when both families are there and one has an index, until none has.
    roles: Option<Box<HashTable<CountEntry>>>,
}

struct CountEntry {
    packed: u32,
    /// IPv4, IPv6.
    records: [u32; 2],
}

impl HostCounts {
    /// Counts all at once what joining one by one would have counted.
    fn of(v4: &PeerSet<6>, v6: &PeerSet<18>, keyed: &SipHasher13) -> Self {
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
    fn of_one<const N: usize>(set: &PeerSet<N>) -> Self {
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
    fn join<const N: usize, const M: usize>(
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

    fn remove<const N: usize, const M: usize>(
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
    fn take_in<const N: usize, const M: usize>(
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

/// Where an index has a peer, if it has it.
#[derive(Clone, Debug)]
pub(super) struct IndexKey {
    is_v4: bool,
    bucket_hash: u64,
}

impl IndexKey {
    pub(super) fn new(address: IpAddr, port: NonZeroU16, keyed: &SipHasher13) -> Self {
        match Endpoint::new(address, port) {
            Endpoint::V4(endpoint) => Self {
                is_v4: true,
                bucket_hash: bucket_hash(&endpoint, keyed),
            },
            Endpoint::V6(endpoint) => Self {
                is_v4: false,
                bucket_hash: bucket_hash(&endpoint, keyed),
            },
        }
    }
}

/// A peer as it announces itself.
#[derive(Clone, Copy)]
pub(super) struct Peer {
    endpoint: Endpoint,
    mark: PeerFlags,
    /// Which local network it is in, if in any.
    locality: Option<usize>,
    /// How many others it is to be given.
    want: usize,
}

impl Peer {
    pub(super) fn new(announce: &Announce, settings: &Settings, keyed: &SipHasher13) -> Self {
        let locality = settings.local_networks.index_of(announce.address);
        let want = announce
            .numwant
            .unwrap_or(settings.numwant)
            .min(settings.max_numwant);
        let endpoint = Endpoint::new(announce.address, announce.port);
        let class = match (announce.complete, announce.event) {
            (true, _) => Class::Seeder,
            (false, Event::Paused) => Class::Partial,
            (false, _) => Class::Leecher,
        };
        let completed = announce.complete && announce.event == Event::Completed;
        let mut hasher = settings.host_key.map_or(*keyed, |HostKey(keyed)| keyed);
        match announce.key {
            Some(key) => {
                hasher.write(&announce.peer_id.0);
                // The same on every machine, as a snapshot carries it from one to another.
                hasher.write(&key.0.to_be_bytes());
            }
            // Without a key, anyone who has met a peer could pass for it: each endpoint is a host of its own.
            None => hasher.write(endpoint.bytes()),
        }
        Self {
            endpoint,
            mark: PeerFlags::new(hasher.finish() as u32, class, completed, locality.is_some()),
            locality,
            want: want as usize,
        }
    }

    /// As another tracker tells of it; one that has left is a leecher, as good as any.
    pub(super) fn told(change: &PeerUpdate, local_networks: &LocalNetworks) -> Self {
        let locality = local_networks.index_of(change.address);
        let class = change.class.unwrap_or(Class::Leecher);
        Self {
            endpoint: Endpoint::new(change.address, change.port),
            mark: PeerFlags::new(change.host, class, change.completed, locality.is_some()),
            locality,
            want: 0,
        }
    }

    /// Address and port as the wire has them.
    pub(super) fn endpoint(&self) -> &[u8] {
        self.endpoint.bytes()
    }

    /// What its announce changed: it stands there now, or has left.
    pub(super) fn change(
        &self,
        announce: &Announce,
        joined: Option<&JoinOutcome>,
    ) -> Option<PeerUpdate> {
        let change = PeerUpdate {
            info_hash: announce.info_hash,
            address: announce.address,
            port: announce.port,
            host: self.mark.0 & PeerFlags::HOST,
            class: None,
            completed: false,
        };
        match joined {
            None => Some(change),
            Some(JoinOutcome { at: None, .. }) => None,
            Some(joined) => Some(PeerUpdate {
                class: Some(self.mark.class()),
                completed: joined.completed,
                ..change
            }),
        }
    }
}

/// Where a peer stands after its announce, and whether that made a new download.
pub(super) struct JoinOutcome {
    /// `None`: not kept, as its network has too many peers here already.
    pub(super) at: Option<usize>,
    pub(super) first_completed: bool,
    /// Its download has been counted, now or earlier.
    pub(super) completed: bool,
}

/// The peers of one torrent. Most torrents of an open tracker have one peer: that one takes no memory of its own. Most others
/// have peers of IPv4 alone: each of those is a host, and needs no census.
#[derive(Default)]
pub(super) enum Swarm {
    #[default]
    Empty,
    OneV4(PeerRecord<6>),
    OneV6(PeerRecord<18>),
    V4(Box<PeerSet<6>>),
    Both(Box<Families>),
}

/// A swarm with peers of IPv6, by family.
pub(super) struct Families {
    v4: PeerSet<6>,
    v6: PeerSet<18>,
    census: HostCounts,
}

impl Swarm {
    /// How many peers there are: IPv4, IPv6.
    pub(super) fn len(&self) -> [usize; 2] {
        match self {
            Self::Empty => [0, 0],
            Self::OneV4(_) => [1, 0],
            Self::OneV6(_) => [0, 1],
            Self::V4(set) => [set.records.len(), 0],
            Self::Both(families) => [families.v4.records.len(), families.v6.records.len()],
        }
    }

    /// How many of them are in an index.
    pub(super) fn indexed(&self) -> usize {
        match self {
            Self::V4(v4) => v4.indexed(),
            Self::Both(families) => families.v4.indexed() + families.v6.indexed(),
            _ => 0,
        }
    }

    /// When one was heard that is at this place, or near.
    pub(super) fn heard_at(&self, place: &IndexKey) -> Option<u8> {
        match self {
            Self::V4(v4) if place.is_v4 => v4.heard_at(place.bucket_hash),
            Self::Both(families) if place.is_v4 => families.v4.heard_at(place.bucket_hash),
            Self::Both(families) => families.v6.heard_at(place.bucket_hash),
            _ => None,
        }
    }

    /// How many of them are seeders: IPv4, IPv6.
    pub(super) fn seeders(&self) -> [usize; 2] {
        let is_seeder = |mark: PeerFlags| usize::from(mark.class() == Class::Seeder);
        match self {
            Self::Empty => [0, 0],
            Self::OneV4(record) => [is_seeder(record.mark()), 0],
            Self::OneV6(record) => [0, is_seeder(record.mark())],
            Self::V4(set) => [set.seeders(), 0],
            Self::Both(families) => [families.v4.seeders(), families.v6.seeders()],
        }
    }

    /// The counts of hosts; `downloaded` is not kept here.
    pub(super) fn counts(&self) -> ScrapeEntry {
        let mut hosts_of = [0; 3];
        match self {
            Self::Empty => {}
            Self::OneV4(record) => hosts_of[record.mark().class() as usize] = 1,
            Self::OneV6(record) => hosts_of[record.mark().class() as usize] = 1,
            Self::V4(set) => hosts_of = set.records_of(),
            Self::Both(families) => hosts_of = families.census.hosts_of,
        }
        let [leechers, partial, complete] = hosts_of;
        ScrapeEntry {
            complete,
            incomplete: leechers + partial,
            partial,
            downloaded: 0,
        }
    }

    /// Calls `each` with every peer's host, by its fingerprint, and class.
    pub(super) fn for_each_host(&self, mut each: impl FnMut(u32, Class)) {
        let mut tell = |mark: PeerFlags| each(mark.0 & PeerFlags::HOST, mark.class());
        let (v4, v6) = self.records();
        v4.iter().for_each(|record| tell(record.mark()));
        v6.iter().for_each(|record| tell(record.mark()));
    }

    /// Adds or refreshes a peer that was heard in this minute.
    pub(super) fn join(
        &mut self,
        heard: u8,
        peer: &Peer,
        most: usize,
        keyed: &SipHasher13,
    ) -> JoinOutcome {
        let (first_completed, completed) = match (&mut *self, peer.endpoint) {
            (Self::Empty, Endpoint::V4(endpoint)) => {
                *self = Self::OneV4(PeerRecord::new(endpoint, heard, peer.mark));
                (peer.mark.completed(), peer.mark.completed())
            }
            (Self::Empty, Endpoint::V6(endpoint)) => {
                *self = Self::OneV6(PeerRecord::new(endpoint, heard, peer.mark));
                (peer.mark.completed(), peer.mark.completed())
            }
            (Self::OneV4(record), Endpoint::V4(endpoint)) if record.endpoint == endpoint => {
                let first = record.renew(heard, peer.mark);
                (first, record.mark().completed())
            }
            (Self::OneV6(record), Endpoint::V6(endpoint)) if record.endpoint == endpoint => {
                let first = record.renew(heard, peer.mark);
                (first, record.mark().completed())
            }
            (_, Endpoint::V4(endpoint)) => {
                let record = PeerRecord::new(endpoint, heard, peer.mark);
                return self.change(keyed, |v4, v6, census| {
                    census.join(record, v4, v6, most, keyed)
                });
            }
            (_, Endpoint::V6(endpoint)) => {
                let record = PeerRecord::new(endpoint, heard, peer.mark);
                return self.change(keyed, |v4, v6, census| {
                    census.join(record, v6, v4, most, keyed)
                });
            }
        };
        JoinOutcome {
            at: Some(0),
            first_completed,
            completed,
        }
    }

    /// [`Time::minute`] of a peer's last announce; `None` if it is not there.
    pub(super) fn heard(&self, peer: &Peer, keyed: &SipHasher13) -> Option<u8> {
        let heard_v4 =
            |v4: &PeerSet<6>, endpoint| Some(v4.records[v4.find(endpoint, keyed)?].heard);
        match (self, &peer.endpoint) {
            (Self::OneV4(record), Endpoint::V4(endpoint)) => {
                (record.endpoint == *endpoint).then_some(record.heard)
            }
            (Self::OneV6(record), Endpoint::V6(endpoint)) => {
                (record.endpoint == *endpoint).then_some(record.heard)
            }
            (Self::V4(v4), Endpoint::V4(endpoint)) => heard_v4(v4, endpoint),
            (Self::Both(families), Endpoint::V4(endpoint)) => heard_v4(&families.v4, endpoint),
            (Self::Both(families), Endpoint::V6(endpoint)) => {
                let v6 = &families.v6;
                Some(v6.records[v6.find(endpoint, keyed)?].heard)
            }
            _ => None,
        }
    }

    /// Removes a peer; one that is not there is no error.
    pub(super) fn leave(&mut self, peer: &Peer, keyed: &SipHasher13) {
        match (&mut *self, peer.endpoint) {
            (Self::OneV4(record), Endpoint::V4(endpoint)) if record.endpoint == endpoint => {
                *self = Self::Empty
            }
            (Self::OneV6(record), Endpoint::V6(endpoint)) if record.endpoint == endpoint => {
                *self = Self::Empty
            }
            (Self::Empty | Self::OneV4(_) | Self::OneV6(_), _) => {}
            (_, Endpoint::V4(endpoint)) => self.change(keyed, |v4, v6, census| {
                if let Some(at) = v4.find(&endpoint, keyed) {
                    census.remove(at, v4, v6, keyed);
                }
            }),
            (_, Endpoint::V6(endpoint)) => self.change(keyed, |v4, v6, census| {
                if let Some(at) = v6.find(&endpoint, keyed) {
                    census.remove(at, v6, v4, keyed);
                }
            }),
        }
    }

    /// Appends as many endpoints of the peer's own family as it wants and there are, for it to connect to.
    pub(super) fn choose(
        &self,
        peer: &Peer,
        joined: &JoinOutcome,
        random: u32,
        local_networks: &LocalNetworks,
        out: &mut Vec<u8>,
    ) {
        let asker = PeerRequest {
            class: peer.mark.class(),
            at: joined.at,
            want: peer.want,
            random,
        };
        let reaches = |address| local_networks.contains(peer.locality, address);
        match (self, peer.endpoint) {
            (Self::OneV4(record), Endpoint::V4(_)) => record.choose(&asker, reaches, out),
            (Self::OneV6(record), Endpoint::V6(_)) => record.choose(&asker, reaches, out),
            (Self::V4(v4), Endpoint::V4(_)) => v4.choose(&asker, reaches, out),
            (Self::Both(families), Endpoint::V4(_)) => families.v4.choose(&asker, reaches, out),
            (Self::Both(families), Endpoint::V6(_)) => families.v6.choose(&asker, reaches, out),
            _ => {}
        }
    }

    /// Removes those unheard for more than `timeout_minutes`, looking at no more than `most` peers from number `from` on.
    /// Tells where to go on, or `None` at the end.
    pub(super) fn expire(
        &mut self,
        now: Time,
        timeout_minutes: u8,
        from: usize,
        most: usize,
        keyed: &SipHasher13,
    ) -> Option<usize> {
        match self {
            Self::OneV4(record) if record.is_silent(now, timeout_minutes) => *self = Self::Empty,
            Self::OneV6(record) if record.is_silent(now, timeout_minutes) => *self = Self::Empty,
            Self::Empty | Self::OneV4(_) | Self::OneV6(_) => {}
            Self::V4(_) | Self::Both(_) => {
                return self.change(keyed, |v4, v6, census| {
                    let mut at = from;
                    for _ in 0..most {
                        let v6_at = at.saturating_sub(v4.records.len());
                        if let Some(record) = v4.records.get(at) {
                            if record.is_silent(now, timeout_minutes) {
                                census.remove(at, v4, v6, keyed);
                            } else {
                                at += 1;
                            }
                        } else if let Some(record) = v6.records.get(v6_at) {
                            if record.is_silent(now, timeout_minutes) {
                                census.remove(v6_at, v6, v4, keyed);
                            } else {
                                at += 1;
                            }
                        } else {
                            return None;
                        }
                    }
                    Some(at)
                });
            }
        }
        None
    }

    /// Every peer: IPv4, IPv6.
    pub(super) fn records(&self) -> (&[PeerRecord<6>], &[PeerRecord<18>]) {
        match self {
            Self::Empty => (&[], &[]),
            Self::OneV4(record) => (slice::from_ref(record), &[]),
            Self::OneV6(record) => (&[], slice::from_ref(record)),
            Self::V4(v4) => (&v4.records, &[]),
            Self::Both(families) => (&families.v4.records, &families.v6.records),
        }
    }

    /// Takes peers back in that a snapshot kept. One that is here already has been heard since, and stays as it is.
    pub(super) fn take_in(
        &mut self,
        v4: &[PeerRecord<6>],
        v6: &[PeerRecord<18>],
        keyed: &SipHasher13,
    ) {
        match (&mut *self, v4, v6) {
            (_, [], []) => {}
            (Self::Empty, [one], []) => *self = Self::OneV4(*one),
            (Self::Empty, [], [one]) => *self = Self::OneV6(*one),
            (Self::Empty, _, _) => {
                *self = Self::of(PeerSet::of(v4, keyed), PeerSet::of(v6, keyed), keyed)
            }
            _ => self.change(keyed, |own_v4, own_v6, census| {
                census.take_in(v4, own_v4, own_v6, keyed);
                census.take_in(v6, own_v6, own_v4, keyed);
            }),
        }
    }

    fn of(v4: PeerSet<6>, v6: PeerSet<18>, keyed: &SipHasher13) -> Self {
        if v6.records.is_empty() {
            return Self::V4(Box::new(v4));
        }
        let census = HostCounts::of(&v4, &v6, keyed);
        Self::Both(Box::new(Families { v4, v6, census }))
    }

    /// Has the sets changed, whatever the form in which they are kept, and then keeps them in the smallest form.
    fn change<T>(
        &mut self,
        keyed: &SipHasher13,
        how: impl FnOnce(&mut PeerSet<6>, &mut PeerSet<18>, &mut HostCounts) -> T,
    ) -> T {
        if let Self::Empty | Self::OneV4(_) | Self::OneV6(_) = self {
            let (v4, v6) = self.records();
            *self = Self::of(PeerSet::of(v4, keyed), PeerSet::of(v6, keyed), keyed);
        }
        let done = match self {
            Self::V4(v4) => {
                let (mut v6, mut census) = (PeerSet::default(), HostCounts::of_one(v4));
                let done = how(v4, &mut v6, &mut census);
                if !v6.records.is_empty() {
                    let v4 = std::mem::take(&mut **v4);
                    *self = Self::Both(Box::new(Families { v4, v6, census }));
                }
                done
            }
            Self::Both(families) => {
                let Families { v4, v6, census } = &mut **families;
                how(v4, v6, census)
            }
            _ => unreachable!("just made"),
        };
        self.fold();
        done
    }

    fn fold(&mut self) {
        match self.records() {
            ([], []) => *self = Self::Empty,
            (&[one], []) => *self = Self::OneV4(one),
            ([], &[one]) => *self = Self::OneV6(one),
            (_, []) => {
                // Roles stay while an index does, or a single peer's coming and going would have all of them counted redelivered.
                if let Self::Both(families) = self {
                    if families.census.roles.is_none() {
                        *self = Self::V4(Box::new(std::mem::take(&mut families.v4)));
                    }
                }
            }
            _ => {}
        }
    }
}
