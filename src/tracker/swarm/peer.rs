//! A peer of a swarm: its endpoint and its flags, packed into a record.

use std::hash::Hasher;
use std::net::IpAddr;
use std::num::NonZeroU16;

use crate::tracker::access::LocalNetworks;
use crate::tracker::hash_key::HashKey;
use crate::tracker::types::{Announce, Class, Event, InfoHash, Time};
use crate::tracker::types::{PeerUpdate, TimedUpdate, age_minutes};

/// The address and port of a peer in network order, as in a compact response (BEP 23 for IPv4, BEP 7 for IPv6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Endpoint {
    V4([u8; 6]),
    V6([u8; 18]),
}

impl Endpoint {
    pub(super) fn new(address: IpAddr, port: NonZeroU16) -> Self {
        let port = port.get().to_be_bytes();
        match address {
            IpAddr::V4(v4) => Self::V4(concat(v4.octets(), port)),
            IpAddr::V6(v6) => Self::V6(concat(v6.octets(), port)),
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::V4(bytes) => bytes,
            Self::V6(bytes) => bytes,
        }
    }
}

fn concat<const A: usize, const N: usize>(address: [u8; A], port: [u8; 2]) -> [u8; N] {
    let mut endpoint = [0; N];
    endpoint[..A].copy_from_slice(&address);
    endpoint[A..].copy_from_slice(&port);
    endpoint
}

/// Returns the network of an endpoint, whose peers share a limit: an IPv4 address, or an IPv6 /64.
pub(super) fn network<const N: usize>(endpoint: &[u8; N]) -> &[u8] {
    if N == 6 {
        &endpoint[..4]
    } else {
        &endpoint[..8]
    }
}

/// Returns the address of an endpoint.
pub(super) fn address<const N: usize>(endpoint: &[u8; N]) -> IpAddr {
    match <[u8; 4]>::try_from(&endpoint[..N - 2]) {
        Ok(v4) => IpAddr::from(v4),
        Err(_) => {
            let mut v6 = [0; 16];
            v6.copy_from_slice(&endpoint[..N - 2]);
            IpAddr::from(v6)
        }
    }
}

/// The host of a peer, its class, whether its download has been counted, and whether its address is local.
///
/// The host is a fingerprint of `peer_id` and `key`, so that a client that announces over both address families counts once
/// (BEP 7). The fingerprint has 28 bits: of swarms with 4,000 hosts of each family, 1 in 16 is expected to count a host too
/// few.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct PeerFlags(u32);

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

    /// Returns the host's fingerprint in the upper 28 bits; the lower four are 0.
    pub(super) fn host(self) -> u32 {
        self.0 & Self::HOST
    }

    pub(super) fn class(self) -> Class {
        match self.0 & Self::CLASS {
            0 => Class::Leecher,
            1 => Class::Partial,
            _ => Class::Seeder,
        }
    }

    pub(super) fn completed(self) -> bool {
        self.0 & Self::COMPLETED != 0
    }

    pub(super) fn local(self) -> bool {
        self.0 & Self::LOCAL != 0
    }

    /// Returns the key under which the host counts in its class.
    pub(super) fn class_key(self) -> CountKey {
        CountKey {
            packed: self.0 & (Self::HOST | Self::CLASS),
            mask: Self::HOST | Self::CLASS,
        }
    }

    /// Returns the key under which the host counts as having completed.
    pub(super) fn completed_key(self) -> CountKey {
        CountKey {
            packed: self.0 & Self::HOST | Self::COMPLETED,
            mask: Self::HOST | Self::COMPLETED,
        }
    }
}

/// A host together with a class, or a host that has completed.
#[derive(Clone, Copy)]
pub(super) struct CountKey {
    packed: u32,
    mask: u32,
}

impl CountKey {
    pub(super) fn matches(self, flags: PeerFlags) -> bool {
        flags.0 & self.mask == self.packed
    }

    /// Returns the key without its mask, which differs for any two keys.
    pub(super) fn packed(self) -> u32 {
        self.packed
    }

    /// Returns the class of a [`CountKey::packed`]; `None` if that is of a host that has completed.
    pub(super) fn class_of(packed: u32) -> Option<Class> {
        let flags = PeerFlags(packed);
        (!flags.completed()).then(|| flags.class())
    }
}

/// A peer of the family whose endpoints have `N` bytes. All fields are bytes, so that a record has no padding.
#[derive(Clone, Copy)]
pub(in crate::tracker) struct PeerRecord<const N: usize> {
    pub(super) endpoint: [u8; N],
    pub(super) minute: u8,
    flags: [u8; 4],
}

impl<const N: usize> PeerRecord<N> {
    pub(super) fn new(endpoint: [u8; N], minute: u8, flags: PeerFlags) -> Self {
        Self {
            endpoint,
            minute,
            flags: flags.0.to_ne_bytes(),
        }
    }

    pub(super) fn flags(&self) -> PeerFlags {
        PeerFlags(u32::from_ne_bytes(self.flags))
    }

    /// Replaces the minute and the flags by those of another announce of the peer. Returns whether the peer has
    /// completed for the first time.
    pub(super) fn renew(&mut self, minute: u8, flags: PeerFlags) -> bool {
        let before = self.flags();
        // A download that was counted stays counted: a client that repeats `completed` makes no second download.
        self.minute = minute;
        self.flags = (flags.0 | before.0 & PeerFlags::COMPLETED).to_ne_bytes();
        flags.completed() && !before.completed()
    }

    /// Returns the record that [`PeerRecord::endpoint`], [`PeerRecord::minute`] and [`PeerRecord::packed_flags`] describe.
    pub(in crate::tracker) fn from_parts(endpoint: [u8; N], minute: u8, packed_flags: u32) -> Self {
        // Rebuilt from its parts: class bits that stand for no class would be counted under no class.
        let flags = PeerFlags(packed_flags);
        let flags = PeerFlags::new(
            packed_flags,
            flags.class(),
            flags.completed(),
            flags.local(),
        );
        Self::new(endpoint, minute, flags)
    }

    /// Returns address and port in network order.
    pub(in crate::tracker) fn endpoint(&self) -> &[u8; N] {
        &self.endpoint
    }

    /// Returns the [`Time::minute`] of the last announce.
    pub(in crate::tracker) fn minute(&self) -> u8 {
        self.minute
    }

    /// Returns host, class, whether the download was counted, and whether the address is local, as a number.
    pub(in crate::tracker) fn packed_flags(&self) -> u32 {
        self.flags().0
    }

    /// Returns the peer as a redelivered update for other trackers; `None` if its port is 0, which no peer that announced
    /// has.
    pub(in crate::tracker) fn to_update(
        self,
        info_hash: InfoHash,
        now: Time,
    ) -> Option<TimedUpdate> {
        let flags = self.flags();
        let port = u16::from_be_bytes([self.endpoint[N - 2], self.endpoint[N - 1]]);
        let update = PeerUpdate {
            info_hash,
            address: address(&self.endpoint),
            port: NonZeroU16::new(port)?,
            host: flags.host(),
            class: Some(flags.class()),
            completed: flags.completed(),
        };
        Some(TimedUpdate {
            update,
            age_secs: 60 * u32::from(age_minutes(now, self.minute)) + now.0 % 60,
            redelivered: true,
        })
    }

    /// Appends the peer if the request is for it, as [`PeerSet::select_peers`](super::peer_set::PeerSet::select_peers) does
    /// for larger swarms. A requester that has a position is this peer and gets nothing.
    pub(super) fn select_peers(
        &self,
        request: &PeerRequest,
        reaches: impl Fn(IpAddr) -> bool,
        out: &mut Vec<u8>,
    ) {
        let flags = self.flags();
        let fits = request.class != Class::Seeder || flags.class() != Class::Seeder;
        let reached = !flags.local() || reaches(address(&self.endpoint));
        if request.position.is_none() && request.want > 0 && fits && reached {
            out.extend_from_slice(&self.endpoint);
        }
    }

    /// Returns whether the last announce is more than `timeout_minutes` old.
    pub(super) fn is_expired(&self, now: Time, timeout_minutes: u8) -> bool {
        now.minute().wrapping_sub(self.minute) > timeout_minutes
    }
}

/// A peer as its announce describes it.
#[derive(Clone, Copy)]
pub(in crate::tracker) struct Peer {
    pub(super) endpoint: Endpoint,
    pub(super) flags: PeerFlags,
    /// The number of the local network that the peer is in, if any.
    pub(super) locality: Option<usize>,
    /// Maximum number of peers in the response.
    pub(super) want: usize,
}

impl Peer {
    /// Creates the peer of an announce. `want` is the maximum number of peers in the response; `key` is the key of the
    /// host's fingerprint.
    pub(in crate::tracker) fn new(
        announce: &Announce,
        want: u32,
        local_networks: &LocalNetworks,
        key: HashKey,
    ) -> Self {
        let locality = local_networks.index_of(announce.address);
        let endpoint = Endpoint::new(announce.address, announce.port);
        let class = match (announce.complete, announce.event) {
            (true, _) => Class::Seeder,
            (false, Event::Paused) => Class::Partial,
            (false, _) => Class::Leecher,
        };
        let completed = announce.complete && announce.event == Event::Completed;
        let mut hasher = key.hasher();
        match announce.key {
            Some(key) => {
                hasher.write(&announce.peer_id.0);
                // The byte order is fixed, as a snapshot may move to another machine.
                hasher.write(&key.0.to_be_bytes());
            }
            // Without a key, any client that has met the peer could pass for it: then each endpoint is a host of its own.
            None => hasher.write(endpoint.bytes()),
        }
        let host = hasher.finish() as u32;
        Self {
            endpoint,
            flags: PeerFlags::new(host, class, completed, locality.is_some()),
            locality,
            want: want as usize,
        }
    }

    /// Returns the peer that another tracker's update describes. The class of a peer that has left does not matter.
    pub(in crate::tracker) fn from_update(
        update: &PeerUpdate,
        local_networks: &LocalNetworks,
    ) -> Self {
        let locality = local_networks.index_of(update.address);
        let class = update.class.unwrap_or(Class::Leecher);
        Self {
            endpoint: Endpoint::new(update.address, update.port),
            flags: PeerFlags::new(update.host, class, update.completed, locality.is_some()),
            locality,
            want: 0,
        }
    }

    /// Returns address and port in network order.
    pub(in crate::tracker) fn endpoint(&self) -> &[u8] {
        self.endpoint.bytes()
    }

    /// Returns the update for other trackers: the peer has joined with this outcome, or has left. `None` if the swarm
    /// did not take it in, as nothing changed then.
    pub(in crate::tracker) fn to_update(
        self,
        announce: &Announce,
        outcome: Option<&JoinOutcome>,
    ) -> Option<PeerUpdate> {
        let left = PeerUpdate {
            info_hash: announce.info_hash,
            address: announce.address,
            port: announce.port,
            host: self.flags.host(),
            class: None,
            completed: false,
        };
        match outcome {
            None => Some(left),
            Some(JoinOutcome { position: None, .. }) => None,
            Some(outcome) => Some(PeerUpdate {
                class: Some(self.flags.class()),
                completed: outcome.completed,
                ..left
            }),
        }
    }
}

/// The outcome of adding or refreshing a peer.
pub(in crate::tracker) struct JoinOutcome {
    /// The peer's position in its set; `None` if it is not kept, as its network has too many peers in the swarm.
    pub(in crate::tracker) position: Option<usize>,
    /// The announce made a new download.
    pub(in crate::tracker) first_completed: bool,
    /// The peer's download has been counted, now or earlier.
    pub(in crate::tracker) completed: bool,
}

/// The peer for which others are selected.
pub(super) struct PeerRequest {
    pub(super) class: Class,
    /// The requester's position in its set, if it is kept there.
    pub(super) position: Option<usize>,
    pub(super) want: usize,
    pub(super) random: u32,
}
