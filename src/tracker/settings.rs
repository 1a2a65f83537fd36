//! What the operator decides: who is answered, how often, and with what.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use siphasher::sip::SipHasher13;

use super::access::{AccessList, LocalNetworks};
use super::rate_limit::{RateLimited, RateLimiter};
use super::types::{InfoHash, Refusal, Time};

/// Taken over as a whole by [`super::Tracker::set`].
#[derive(Clone)]
pub struct Settings {
    /// Serve any torrent that is not denied.
    pub open: bool,
    /// Seconds between a client's announces.
    pub interval: u32,
    /// Seconds before which a client shall not announce redelivered.
    pub min_interval: u32,
    /// Seconds after which a silent peer is no longer handed out, to the minute; at most 14,400, as ages wrap at 256
    /// minutes.
    pub peer_timeout: u32,
    /// Peers for a client that does not say how many it wants.
    pub numwant: u32,
    /// The most peers in one answer.
    pub max_numwant: u32,
    /// How many peers of one IPv4 address or IPv6 /64 a swarm keeps; the others are answered, but not handed out.
    pub max_peers_per_network: usize,
    /// How many peers are kept in all; the others are answered, but not handed out. A torrent's first is kept all the same.
    pub max_peers: usize,
    /// With how many torrents in all an open tracker takes no further one that nobody has named.
    pub max_torrents: usize,
    /// Sent with every answer, for the client's user to read.
    pub warning: Option<Arc<str>>,
    /// What single torrents' clients are told.
    pub notices: HashMap<InfoHash, Notice>,
    pub announces: AccessPolicy,
    pub scrapes: AccessPolicy,
    /// Peers in one of these are handed out only to askers in the same one.
    pub local_networks: LocalNetworks,
    /// Of the trackers that tell each other of their peers. `None`: there are none, and who has left need not be remembered.
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

/// Who may come in by one way, and how often.
#[derive(Clone, Default)]
pub struct AccessPolicy {
    pub access: AccessList,
    /// `None`: as often as they like.
    pub budget: Option<Arc<RateLimiter>>,
}

impl AccessPolicy {
    pub(super) fn admit(&self, now: Time, address: IpAddr) -> Result<(), Refusal> {
        if !self.access.admits(address) {
            return Err(Refusal::Address);
        }
        match &self.budget {
            None => Ok(()),
            Some(budget) => budget
                .take(now, address)
                .map_err(|RateLimited { retry_secs }| Refusal::TooOften { retry_secs }),
        }
    }
}

impl Settings {
    /// How old a peer may be, in minutes.
    pub(super) fn timeout_minutes(&self) -> u8 {
        self.peer_timeout.div_ceil(60).min(240) as u8
    }

    /// What this torrent's clients are told instead of being served.
    pub(super) fn withdrawn(&self, info_hash: &InfoHash) -> Result<(), Refusal> {
        match self
            .notices
            .get(info_hash)
            .and_then(|notice| notice.failure.as_deref())
        {
            Some(text) => Err(Refusal::Withdrawn(text.into())),
            None => Ok(()),
        }
    }

    /// What this torrent's clients are told beside being served.
    pub(super) fn warning(&self, info_hash: &InfoHash) -> Option<Arc<str>> {
        let own = self
            .notices
            .get(info_hash)
            .and_then(|notice| notice.warning.as_deref());
        own.map(Into::into).or_else(|| self.warning.clone())
    }
}

/// What an operator says of one torrent to its clients.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Notice {
    /// For `warning message`: shown, and peers are handed out as ever.
    pub warning: Option<String>,
    /// For `failure reason`: said instead of handing out peers.
    pub failure: Option<String>,
}

/// Keys the hosts' fingerprints, for trackers that are to know each other's hosts. When a tracker gets another, the hosts that
/// are on both families count twice until they have announced redelivered.
#[derive(Clone, Copy)]
pub struct HostKey(pub(super) SipHasher13);

impl HostKey {
    /// The same for the same name. It may be known: that a client's own `key` is not keeps others from passing for it.
    pub fn new(name: &str) -> Self {
        let half = |number| SipHasher13::new_with_keys(0, number).hash(name.as_bytes());
        Self(SipHasher13::new_with_keys(half(1), half(2)))
    }
}
