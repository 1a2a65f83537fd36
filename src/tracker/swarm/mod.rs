//! Who is in one swarm, until when, and whom to hand out.
//!
//! A peer is its endpoint, kept as the wire has it: 11 bytes for IPv4, 23 for IPv6. Small sets are scanned, large ones
//! have an index; either way an announce costs the same however many peers there are.

pub(super) mod host_counts;
pub(super) mod peer;
pub(super) mod peer_set;

use std::slice;

use siphasher::sip::SipHasher13;

use crate::tracker::access::LocalNetworks;
use crate::tracker::types::{Class, ScrapeEntry, Time};
use host_counts::HostCounts;
use peer::{Endpoint, IndexKey, JoinOutcome, Peer, PeerFlags, PeerRecord, PeerRequest};
use peer_set::PeerSet;

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
