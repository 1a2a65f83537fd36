//! The peers of a torrent, their timeout, and the selection of peers for a response.
//!
//! A peer is its endpoint in network order and a few flags: 11 bytes for IPv4, 23 for IPv6. Small sets are scanned, large
//! sets have an index. Either way the cost of an announce does not depend on the number of peers.

mod host_counts;
pub(super) mod peer;
pub(super) mod peer_set;

use std::slice;

use crate::tracker::access::LocalNetworks;
use crate::tracker::hash_key::HashKey;
use crate::tracker::types::{Class, PerFamily, ScrapeEntry, Time};
use host_counts::HostCounts;
use peer::{Endpoint, JoinOutcome, Peer, PeerFlags, PeerRecord, PeerRequest};
use peer_set::{IndexKey, PeerSet};

/// The peers of a torrent, in the smallest form that holds them.
///
/// Most torrents of an open tracker have a single peer, which takes no allocation. Most others have IPv4 peers only,
/// each of which is a host, so that no host counts are needed.
#[derive(Default)]
pub(super) enum Swarm {
    #[default]
    Empty,
    OneV4(PeerRecord<6>),
    OneV6(PeerRecord<18>),
    V4(Box<PeerSet<6>>),
    Both(Box<DualStackSwarm>),
}

/// A swarm with IPv6 peers.
pub(super) struct DualStackSwarm {
    v4: PeerSet<6>,
    v6: PeerSet<18>,
    host_counts: HostCounts,
}

impl Swarm {
    /// Returns the number of peers.
    pub(super) fn len(&self) -> PerFamily<usize> {
        let (v4, v6) = match self {
            Self::Empty => (0, 0),
            Self::OneV4(_) => (1, 0),
            Self::OneV6(_) => (0, 1),
            Self::V4(v4) => (v4.len(), 0),
            Self::Both(swarm) => (swarm.v4.len(), swarm.v6.len()),
        };
        PerFamily { v4, v6 }
    }

    /// Returns the number of seeders.
    pub(super) fn seeders(&self) -> PerFamily<usize> {
        let is_seeder = |flags: PeerFlags| usize::from(flags.class() == Class::Seeder);
        let (v4, v6) = match self {
            Self::Empty => (0, 0),
            Self::OneV4(record) => (is_seeder(record.flags()), 0),
            Self::OneV6(record) => (0, is_seeder(record.flags())),
            Self::V4(v4) => (v4.seeders(), 0),
            Self::Both(swarm) => (swarm.v4.seeders(), swarm.v6.seeders()),
        };
        PerFamily { v4, v6 }
    }

    /// Returns the number of hosts of each class. `downloaded` is 0, as it is not part of the swarm.
    pub(super) fn counts(&self) -> ScrapeEntry {
        let mut hosts = [0; 3];
        match self {
            Self::Empty => {}
            Self::OneV4(record) => hosts[record.flags().class() as usize] = 1,
            Self::OneV6(record) => hosts[record.flags().class() as usize] = 1,
            Self::V4(v4) => hosts = v4.class_counts(),
            Self::Both(swarm) => hosts = swarm.host_counts.hosts(),
        }
        let [leechers, partial, complete] = hosts;
        ScrapeEntry {
            complete,
            incomplete: leechers + partial,
            partial,
            downloaded: 0,
        }
    }

    /// Returns all peers.
    pub(super) fn records(&self) -> (&[PeerRecord<6>], &[PeerRecord<18>]) {
        match self {
            Self::Empty => (&[], &[]),
            Self::OneV4(record) => (slice::from_ref(record), &[]),
            Self::OneV6(record) => (&[], slice::from_ref(record)),
            Self::V4(v4) => (v4.records(), &[]),
            Self::Both(swarm) => (swarm.v4.records(), swarm.v6.records()),
        }
    }

    /// Calls `each` with the host, by its fingerprint, and the class of every peer.
    pub(super) fn for_each_host(&self, mut each: impl FnMut(u32, Class)) {
        let mut visit = |flags: PeerFlags| each(flags.host(), flags.class());
        let (v4, v6) = self.records();
        v4.iter().for_each(|record| visit(record.flags()));
        v6.iter().for_each(|record| visit(record.flags()));
    }

    /// Returns the number of peers that are in an index.
    pub(super) fn index_len(&self) -> usize {
        match self {
            Self::V4(v4) => v4.index_len(),
            Self::Both(swarm) => swarm.v4.index_len() + swarm.v6.index_len(),
            _ => 0,
        }
    }

    /// Reads the records that a search for the peer reads first; see [`PeerSet::touch`].
    pub(super) fn touch(&self, key: &IndexKey) -> Option<u8> {
        match self {
            Self::V4(v4) if key.is_v4 => v4.touch(key.bucket_hash),
            Self::Both(swarm) if key.is_v4 => swarm.v4.touch(key.bucket_hash),
            Self::Both(swarm) => swarm.v6.touch(key.bucket_hash),
            _ => None,
        }
    }

    /// Returns the [`Time::minute`] of a peer's last announce; `None` if the peer is not in the swarm.
    pub(super) fn minute(&self, peer: &Peer) -> Option<u8> {
        match (self, &peer.endpoint) {
            (Self::OneV4(record), Endpoint::V4(endpoint)) => {
                (record.endpoint == *endpoint).then_some(record.minute)
            }
            (Self::OneV6(record), Endpoint::V6(endpoint)) => {
                (record.endpoint == *endpoint).then_some(record.minute)
            }
            (Self::V4(v4), Endpoint::V4(endpoint)) => v4.minute(endpoint),
            (Self::Both(swarm), Endpoint::V4(endpoint)) => swarm.v4.minute(endpoint),
            (Self::Both(swarm), Endpoint::V6(endpoint)) => swarm.v6.minute(endpoint),
            _ => None,
        }
    }

    /// Adds a peer that announced in this minute, or refreshes it. A new peer is not kept if its network has
    /// `max_per_network` peers in the swarm, unless the swarm is empty. `key` is for an index that this peer may make
    /// necessary.
    pub(super) fn join(
        &mut self,
        minute: u8,
        peer: &Peer,
        max_per_network: usize,
        key: HashKey,
    ) -> JoinOutcome {
        let flags = peer.flags;
        let (first_completed, completed) = match (&mut *self, peer.endpoint) {
            (Self::Empty, Endpoint::V4(endpoint)) => {
                *self = Self::OneV4(PeerRecord::new(endpoint, minute, flags));
                (flags.completed(), flags.completed())
            }
            (Self::Empty, Endpoint::V6(endpoint)) => {
                *self = Self::OneV6(PeerRecord::new(endpoint, minute, flags));
                (flags.completed(), flags.completed())
            }
            (Self::OneV4(record), Endpoint::V4(endpoint)) if record.endpoint == endpoint => {
                let first = record.renew(minute, flags);
                (first, record.flags().completed())
            }
            (Self::OneV6(record), Endpoint::V6(endpoint)) if record.endpoint == endpoint => {
                let first = record.renew(minute, flags);
                (first, record.flags().completed())
            }
            (_, Endpoint::V4(endpoint)) => {
                let record = PeerRecord::new(endpoint, minute, flags);
                return self.with_sets(|v4, v6, host_counts| {
                    host_counts.join(record, v4, v6, max_per_network, key)
                });
            }
            (_, Endpoint::V6(endpoint)) => {
                let record = PeerRecord::new(endpoint, minute, flags);
                return self.with_sets(|v4, v6, host_counts| {
                    host_counts.join(record, v6, v4, max_per_network, key)
                });
            }
        };
        JoinOutcome {
            position: Some(0),
            first_completed,
            completed,
        }
    }

    /// Removes a peer, if it is in the swarm.
    pub(super) fn leave(&mut self, peer: &Peer) {
        match (&mut *self, peer.endpoint) {
            (Self::OneV4(record), Endpoint::V4(endpoint)) if record.endpoint == endpoint => {
                *self = Self::Empty;
            }
            (Self::OneV6(record), Endpoint::V6(endpoint)) if record.endpoint == endpoint => {
                *self = Self::Empty;
            }
            (Self::Empty | Self::OneV4(_) | Self::OneV6(_), _) => {}
            (_, Endpoint::V4(endpoint)) => self.with_sets(|v4, v6, host_counts| {
                if let Some(position) = v4.find(&endpoint) {
                    host_counts.remove(position, v4, v6);
                }
            }),
            (_, Endpoint::V6(endpoint)) => self.with_sets(|v4, v6, host_counts| {
                if let Some(position) = v6.find(&endpoint) {
                    host_counts.remove(position, v6, v4);
                }
            }),
        }
    }

    /// Appends endpoints of the peer's own family for it to connect to: as many as it wants and the swarm has.
    pub(super) fn select_peers(
        &self,
        peer: &Peer,
        outcome: &JoinOutcome,
        random: u32,
        local_networks: &LocalNetworks,
        out: &mut Vec<u8>,
    ) {
        let request = PeerRequest {
            class: peer.flags.class(),
            position: outcome.position,
            want: peer.want,
            random,
        };
        let reaches = |address| local_networks.contains(peer.locality, address);
        match (self, peer.endpoint) {
            (Self::OneV4(record), Endpoint::V4(_)) => record.select_peers(&request, reaches, out),
            (Self::OneV6(record), Endpoint::V6(_)) => record.select_peers(&request, reaches, out),
            (Self::V4(v4), Endpoint::V4(_)) => v4.select_peers(&request, reaches, out),
            (Self::Both(swarm), Endpoint::V4(_)) => swarm.v4.select_peers(&request, reaches, out),
            (Self::Both(swarm), Endpoint::V6(_)) => swarm.v6.select_peers(&request, reaches, out),
            _ => {}
        }
    }

    /// Removes the peers whose last announce is more than `timeout_minutes` old. Looks at no more than `max_visited` peers
    /// from number `from` on. Returns the number at which to continue, or `None` at the end.
    pub(super) fn expire(
        &mut self,
        now: Time,
        timeout_minutes: u8,
        from: usize,
        max_visited: usize,
    ) -> Option<usize> {
        match self {
            Self::OneV4(record) if record.is_expired(now, timeout_minutes) => *self = Self::Empty,
            Self::OneV6(record) if record.is_expired(now, timeout_minutes) => *self = Self::Empty,
            Self::Empty | Self::OneV4(_) | Self::OneV6(_) => {}
            Self::V4(_) | Self::Both(_) => {
                return self.with_sets(|v4, v6, host_counts| {
                    let mut at = from;
                    for _ in 0..max_visited {
                        let v6_at = at.saturating_sub(v4.len());
                        if let Some(record) = v4.records().get(at) {
                            if record.is_expired(now, timeout_minutes) {
                                host_counts.remove(at, v4, v6);
                            } else {
                                at += 1;
                            }
                        } else if let Some(record) = v6.records().get(v6_at) {
                            if record.is_expired(now, timeout_minutes) {
                                host_counts.remove(v6_at, v6, v4);
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

    /// Adds peers from a snapshot. A peer that is in the swarm already has announced since, and stays as it is.
    pub(super) fn restore(&mut self, v4: &[PeerRecord<6>], v6: &[PeerRecord<18>], key: HashKey) {
        match (&mut *self, v4, v6) {
            (_, [], []) => {}
            (Self::Empty, [record], []) => *self = Self::OneV4(*record),
            (Self::Empty, [], [record]) => *self = Self::OneV6(*record),
            (Self::Empty, _, []) => *self = Self::V4(Box::new(PeerSet::from_records(v4, key))),
            (Self::Empty, _, _) => {
                let v4 = PeerSet::from_records(v4, key);
                let v6 = PeerSet::from_records(v6, key);
                let host_counts = HostCounts::of_sets(&v4, &v6, key);
                *self = Self::both(v4, v6, host_counts);
            }
            _ => self.with_sets(|own_v4, own_v6, host_counts| {
                host_counts.restore(v4, own_v4, own_v6, key);
                host_counts.restore(v6, own_v6, own_v4, key);
            }),
        }
    }

    fn both(v4: PeerSet<6>, v6: PeerSet<18>, host_counts: HostCounts) -> Self {
        Self::Both(Box::new(DualStackSwarm {
            v4,
            v6,
            host_counts,
        }))
    }

    /// Lets `edit` change the sets, whichever form the swarm has, and then brings the swarm to its smallest form.
    fn with_sets<T>(
        &mut self,
        edit: impl FnOnce(&mut PeerSet<6>, &mut PeerSet<18>, &mut HostCounts) -> T,
    ) -> T {
        match *self {
            Self::Empty => *self = Self::V4(Box::default()),
            Self::OneV4(record) => *self = Self::V4(Box::new(PeerSet::of_one(record))),
            Self::OneV6(record) => {
                let v6 = PeerSet::of_one(record);
                let host_counts = HostCounts::of_set(&v6);
                *self = Self::both(PeerSet::default(), v6, host_counts);
            }
            Self::V4(_) | Self::Both(_) => {}
        }
        let result = match self {
            Self::V4(v4) => {
                let (mut v6, mut host_counts) = (PeerSet::default(), HostCounts::of_set(v4));
                let result = edit(v4, &mut v6, &mut host_counts);
                if !v6.is_empty() {
                    let v4 = std::mem::take(&mut **v4);
                    *self = Self::both(v4, v6, host_counts);
                }
                result
            }
            Self::Both(swarm) => {
                let DualStackSwarm {
                    v4,
                    v6,
                    host_counts,
                } = &mut **swarm;
                edit(v4, v6, host_counts)
            }
            _ => unreachable!("replaced above"),
        };
        self.shrink();
        result
    }

    /// Brings the swarm to its smallest form.
    fn shrink(&mut self) {
        match self.records() {
            ([], []) => *self = Self::Empty,
            (&[record], []) => *self = Self::OneV4(record),
            ([], &[record]) => *self = Self::OneV6(record),
            (_, []) => {
                // The table of counts stays while an index does: otherwise a single IPv6 peer that comes and goes would
                // have all records counted again each time.
                if let Self::Both(swarm) = self {
                    if !swarm.host_counts.has_table() {
                        *self = Self::V4(Box::new(std::mem::take(&mut swarm.v4)));
                    }
                }
            }
            _ => {}
        }
    }
}
