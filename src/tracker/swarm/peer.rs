//! One peer of a swarm: its endpoint and its flags, packed into a record.

use std::hash::Hasher;
use std::net::IpAddr;
use std::num::NonZeroU16;

use siphasher::sip::SipHasher13;

use crate::tracker::access::LocalNetworks;
use crate::tracker::settings::HostKey;
use crate::tracker::settings::Settings;
use crate::tracker::types::{Announce, Class, Event, InfoHash, Time};
use crate::tracker::types::{PeerUpdate, TimedUpdate, age_minutes};

/// How many hashes the peers of one network have in an index.
const SPOTS: u8 = 16;

/// Where a peer is reached, as compact answers carry it: address and port in network order (BEP 23, BEP 7).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Endpoint {
    V4([u8; 6]),
    V6([u8; 18]),
}

impl Endpoint {
    pub(super) fn new(address: IpAddr, port: NonZeroU16) -> Self {
        let port = port.get().to_be_bytes();
        match address {
            IpAddr::V4(v4) => Self::V4(joined(v4.octets(), port)),
            IpAddr::V6(v6) => Self::V6(joined(v6.octets(), port)),
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
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
pub(super) fn network<const N: usize>(endpoint: &[u8; N]) -> &[u8] {
    if N == 6 {
        &endpoint[..4]
    } else {
        &endpoint[..8]
    }
}

/// Where a network's peers are in an index: beside each other, so that they can be counted, but by a few different hashes, so
/// that most of those beside it need not be looked at to find one.
pub(super) fn spots<const N: usize>(
    endpoint: &[u8; N],
    keyed: &SipHasher13,
) -> impl Iterator<Item = u64> + use<N> {
    let hash = keyed.hash(network(endpoint));
    // The upper packed tell a table's neighbours apart, the lower ones choose the place.
    (0..SPOTS).map(move |bucket_hash| hash ^ u64::from(bucket_hash) << 57)
}

/// The one of them where this peer is.
pub(super) fn bucket_hash<const N: usize>(endpoint: &[u8; N], keyed: &SipHasher13) -> u64 {
    // By the port, and over IPv6 by the address's end.
    let bucket_hash = (endpoint[N - 1] ^ endpoint[N - 3]) % SPOTS;
    keyed.hash(network(endpoint)) ^ u64::from(bucket_hash) << 57
}

/// The address of an endpoint.
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

/// A peer's host, its class, whether its download has been counted, and whether its address is a local one.
///
/// The host is a fingerprint of `peer_id` and `key`, by which one that announces over both families counts once (BEP 7).
/// 28 packed: where 4,000 hosts of each family meet in one swarm, 1 in 16 such swarms is expected to count one too few.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct PeerFlags(pub(super) u32);

impl PeerFlags {
    const CLASS: u32 = 0b0011;
    const COMPLETED: u32 = 0b0100;
    const LOCAL: u32 = 0b1000;
    pub(super) const HOST: u32 = !0b1111;

    pub(super) fn new(host: u32, class: Class, completed: bool, local: bool) -> Self {
        let completed = if completed { Self::COMPLETED } else { 0 };
        let local = if local { Self::LOCAL } else { 0 };
        Self(host & Self::HOST | class as u32 | completed | local)
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

    pub(super) fn in_class(self) -> CountKey {
        CountKey {
            packed: self.0 & (Self::HOST | Self::CLASS),
            of: Self::HOST | Self::CLASS,
        }
    }

    pub(super) fn as_completed(self) -> CountKey {
        CountKey {
            packed: self.0 & Self::HOST | Self::COMPLETED,
            of: Self::HOST | Self::COMPLETED,
        }
    }
}

/// What a host is counted as: one of a class, or one that has completed.
#[derive(Clone, Copy)]
pub(super) struct CountKey {
    pub(super) packed: u32,
    of: u32,
}

impl CountKey {
    pub(super) fn is_of(self, mark: PeerFlags) -> bool {
        mark.0 & self.of == self.packed
    }
}

/// One peer of the family whose endpoints have `N` bytes. Bytes all through, so that no record is padded.
#[derive(Clone, Copy)]
pub(in crate::tracker) struct PeerRecord<const N: usize> {
    pub(super) endpoint: [u8; N],
    /// [`Time::minute`] of the last announce.
    pub(super) heard: u8,
    mark: [u8; 4],
}

impl<const N: usize> PeerRecord<N> {
    pub(super) fn new(endpoint: [u8; N], heard: u8, mark: PeerFlags) -> Self {
        Self {
            endpoint,
            heard,
            mark: mark.0.to_ne_bytes(),
        }
    }

    pub(super) fn mark(&self) -> PeerFlags {
        PeerFlags(u32::from_ne_bytes(self.mark))
    }

    /// Hears the peer redelivered; tells whether that is the first time that it has completed.
    pub(super) fn renew(&mut self, heard: u8, mark: PeerFlags) -> bool {
        let before = self.mark();
        // Once counted, always counted: a client that repeats `completed` makes no second download.
        self.heard = heard;
        self.mark = (mark.0 | before.0 & PeerFlags::COMPLETED).to_ne_bytes();
        mark.completed() && !before.completed()
    }

    /// A record as [`PeerRecord::endpoint`] and its like gave it away.
    pub(in crate::tracker) fn restored(endpoint: [u8; N], heard: u8, packed: u32) -> Self {
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
    pub(in crate::tracker) fn endpoint(&self) -> &[u8; N] {
        &self.endpoint
    }

    /// [`Time::minute`] of the last announce.
    pub(in crate::tracker) fn heard(&self) -> u8 {
        self.heard
    }

    /// As other trackers are told of it redelivered. None but those whose port is not 0 are kept.
    pub(in crate::tracker) fn told(&self, info_hash: InfoHash, now: Time) -> Option<TimedUpdate> {
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
    pub(in crate::tracker) fn packed(&self) -> u32 {
        self.mark().0
    }

    /// As [`PeerSet::choose`] does of more. An asker who is not kept is given this one.
    pub(super) fn choose(
        &self,
        asker: &PeerRequest,
        reaches: impl Fn(IpAddr) -> bool,
        out: &mut Vec<u8>,
    ) {
        let mark = self.mark();
        let fits = asker.class != Class::Seeder || mark.class() != Class::Seeder;
        let reached = !mark.local() || reaches(address(&self.endpoint));
        if asker.at.is_none() && asker.want > 0 && fits && reached {
            out.extend_from_slice(&self.endpoint);
        }
    }

    pub(super) fn is_silent(&self, now: Time, timeout_minutes: u8) -> bool {
        now.minute().wrapping_sub(self.heard) > timeout_minutes
    }
}

/// Where an index has a peer, if it has it.
#[derive(Clone, Debug)]
pub(in crate::tracker) struct IndexKey {
    pub(super) is_v4: bool,
    pub(super) bucket_hash: u64,
}

impl IndexKey {
    pub(in crate::tracker) fn new(address: IpAddr, port: NonZeroU16, keyed: &SipHasher13) -> Self {
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
pub(in crate::tracker) struct Peer {
    pub(super) endpoint: Endpoint,
    pub(super) mark: PeerFlags,
    /// Which local network it is in, if in any.
    pub(super) locality: Option<usize>,
    /// How many others it is to be given.
    pub(super) want: usize,
}

impl Peer {
    pub(in crate::tracker) fn new(
        announce: &Announce,
        settings: &Settings,
        keyed: &SipHasher13,
    ) -> Self {
        let locality = settings.local_networks.of(announce.address);
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
    pub(in crate::tracker) fn told(change: &PeerUpdate, local_networks: &LocalNetworks) -> Self {
        let locality = local_networks.of(change.address);
        let class = change.class.unwrap_or(Class::Leecher);
        Self {
            endpoint: Endpoint::new(change.address, change.port),
            mark: PeerFlags::new(change.host, class, change.completed, locality.is_some()),
            locality,
            want: 0,
        }
    }

    /// Address and port as the wire has them.
    pub(in crate::tracker) fn endpoint(&self) -> &[u8] {
        self.endpoint.bytes()
    }

    /// What its announce changed: it stands there now, or has left.
    pub(in crate::tracker) fn change(
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
pub(in crate::tracker) struct JoinOutcome {
    /// `None`: not kept, as its network has too many peers here already.
    pub(in crate::tracker) at: Option<usize>,
    pub(in crate::tracker) first_completed: bool,
    /// Its download has been counted, now or earlier.
    pub(in crate::tracker) completed: bool,
}

/// For whom peers are chosen.
pub(super) struct PeerRequest {
    pub(super) class: Class,
    /// Where it stands in its set, if it is kept there.
    pub(super) at: Option<usize>,
    pub(super) want: usize,
    pub(super) random: u32,
}
