//! The settings of the tracker core: which requests are accepted, and what the responses contain.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::access::{AccessList, LocalNetworks};
use super::hash_key::HashKey;
use super::rate_limit::{RateLimited, RateLimiter};
use super::types::{InfoHash, Refusal, Time};

/// The settings of a [`super::Tracker`]. [`super::Tracker::set_settings`] replaces them as a whole.
#[derive(Clone)]
pub struct Settings {
    /// Track every torrent that is not denied.
    pub open: bool,
    /// Seconds between a client's announces.
    pub interval: u32,
    /// Seconds that a client must wait at least before it announces again.
    pub min_interval: u32,
    /// Seconds after its last announce until a peer is no longer returned, rounded up to minutes. At most 14,400, because
    /// ages wrap at 256 minutes.
    pub peer_timeout: u32,
    /// Number of peers for a client that does not request a number.
    pub numwant: u32,
    /// Maximum number of peers in a response.
    pub max_numwant: u32,
    /// Maximum number of peers of one IPv4 address or IPv6 /64 in a swarm. Further peers get responses, but are not
    /// returned to others.
    pub max_peers_per_network: usize,
    /// Maximum number of peers in all swarms together. Further peers get responses, but are not returned to others. The
    /// first peer of a torrent is always kept.
    pub max_peers: usize,
    /// Number of torrents from which on an open tracker refuses unknown torrents. Listed torrents are always tracked.
    pub max_torrents: usize,
    /// `warning message` in every response, for the user of the client.
    pub warning: Option<Arc<str>>,
    /// Texts for the clients of single torrents.
    pub notices: HashMap<InfoHash, Notice>,
    pub announces: AccessPolicy,
    pub scrapes: AccessPolicy,
    /// A peer in one of these networks is returned only to peers in the same network.
    pub local_networks: LocalNetworks,
    /// The key that the trackers of a cluster share. `None` for a tracker without a cluster, which also does not record
    /// departures.
    pub host_key: Option<HostKey>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            open: false,
            interval: 1800,
            min_interval: 300,
            peer_timeout: 2700,
            numwant: 50,
            max_numwant: 200,
            max_peers_per_network: 64,
            max_peers: usize::MAX,
            max_torrents: usize::MAX,
            warning: None,
            notices: HashMap::new(),
            announces: AccessPolicy::default(),
            scrapes: AccessPolicy::default(),
            local_networks: LocalNetworks::default(),
            host_key: None,
        }
    }
}

/// Which addresses may send a kind of request, and how often.
#[derive(Clone, Default)]
pub struct AccessPolicy {
    pub access: AccessList,
    /// `None` means no limit.
    pub rate_limiter: Option<Arc<RateLimiter>>,
}

impl AccessPolicy {
    pub(super) fn admit(&self, now: Time, address: IpAddr) -> Result<(), Refusal> {
        if !self.access.admits(address) {
            return Err(Refusal::Address);
        }
        match &self.rate_limiter {
            None => Ok(()),
            Some(rate_limiter) => rate_limiter
                .take(now, address)
                .map_err(|RateLimited { retry_secs }| Refusal::TooOften { retry_secs }),
        }
    }
}

impl Settings {
    /// Returns the peer timeout in minutes.
    pub(super) fn timeout_minutes(&self) -> u8 {
        self.peer_timeout.div_ceil(60).min(240) as u8
    }

    /// Refuses a torrent for which the operator configured a failure text.
    pub(super) fn check_withdrawn(&self, info_hash: &InfoHash) -> Result<(), Refusal> {
        match self
            .notices
            .get(info_hash)
            .and_then(|notice| notice.failure.as_deref())
        {
            Some(text) => Err(Refusal::Withdrawn(text.into())),
            None => Ok(()),
        }
    }

    /// Returns the warning for the clients of a torrent: the torrent's own, or else the general one.
    pub(super) fn warning_for(&self, info_hash: &InfoHash) -> Option<Arc<str>> {
        let own = self
            .notices
            .get(info_hash)
            .and_then(|notice| notice.warning.as_deref());
        own.map(Into::into).or_else(|| self.warning.clone())
    }
}

/// A text that an operator configured for the clients of a torrent.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Notice {
    /// Sent as `warning message`, together with peers.
    pub warning: Option<String>,
    /// Sent as `failure reason`, instead of peers.
    pub failure: Option<String>,
}

/// Keys the fingerprints of hosts, so that the trackers of a cluster recognize the same host. When the key of a tracker
/// changes, dual-stack hosts count twice until they have announced again.
#[derive(Clone, Copy)]
pub struct HostKey(pub(super) HashKey);

impl HostKey {
    /// Derives the key from the name of the cluster. The name need not be secret: nobody can impersonate a client
    /// without its `key`, which is secret.
    pub fn new(name: &str) -> Self {
        let half = |number| HashKey::new(0, number).hash(name.as_bytes());
        Self(HashKey::new(half(1), half(2)))
    }
}
