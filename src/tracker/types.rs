//! The terms of the field: info-hash, announce, response, refusal, and the updates that trackers exchange.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::ops::{Add, AddAssign, Index, IndexMut};
use std::sync::Arc;

use crate::bytes::{Hex, parse_hex};

/// A torrent's id on the wire: the SHA-1 of a v1 `info` dictionary (BEP 3), or the first 20 bytes of the SHA-256 of a v2
/// `info` dictionary (BEP 52).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InfoHash(pub [u8; 20]);

impl fmt::Display for InfoHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hex(&self.0).fmt(f)
    }
}

impl fmt::Debug for InfoHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The whole SHA-256 of a v2 `info` dictionary (BEP 52).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct InfoHashV2(pub [u8; 32]);

impl InfoHashV2 {
    /// Returns the id that clients announce: the first 20 bytes.
    pub fn truncated(self) -> InfoHash {
        let mut id = [0; 20];
        id.copy_from_slice(&self.0[..20]);
        InfoHash(id)
    }
}

impl fmt::Display for InfoHashV2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hex(&self.0).fmt(f)
    }
}

impl fmt::Debug for InfoHashV2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The id that a client gives itself (BEP 3). It is never stored: it only shows that two addresses belong to the same host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeerId(pub [u8; 20]);

/// A secret of the client, which it sends to the tracker over both address families (BEP 7, BEP 15). It is never shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Key(pub u32);

/// The time of the core: seconds since an origin of the caller's choice. It never runs backwards.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Time(pub u32);

impl Time {
    /// Returns whole minutes, modulo 256: the resolution of a peer's age.
    pub(crate) fn minute(self) -> u8 {
        (self.0 / 60).to_le_bytes()[0]
    }
}

/// Seconds since 1970. Unlike [`Time`], it has the same origin after a restart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct UnixTime(pub u64);

/// The event of an announce (BEP 3, BEP 21). An unknown event counts as [`Event::None`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Event {
    #[default]
    None,
    Started,
    Completed,
    Stopped,
    /// The client is a partial seed: it has all that it wants, but not the whole torrent (BEP 21).
    Paused,
}

/// An announce, parsed and checked, from any protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Announce {
    pub info_hash: InfoHash,
    pub peer_id: PeerId,
    pub key: Option<Key>,
    /// The address at which the peer is reached. An IPv4-mapped address has been converted to IPv4.
    pub address: IpAddr,
    pub port: NonZeroU16,
    pub event: Event,
    /// Whether the client has the whole torrent: it sent `left`, and that is 0.
    pub complete: bool,
    /// The number of peers that the client asks for; `None` leaves the number to the tracker.
    pub numwant: Option<u32>,
}

/// The class of a peer in its swarm, in the order of completeness.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Class {
    Leecher,
    /// A leecher that wants no more (BEP 21).
    Partial,
    Seeder,
}

/// The counts of a torrent (BEP 48, BEP 21). A host that announces over both address families counts once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ScrapeEntry {
    pub complete: u32,
    /// Leechers, partial seeds included.
    pub incomplete: u32,
    /// Partial seeds.
    pub partial: u32,
    pub downloaded: u32,
}

/// Whether the operator has listed or denied a torrent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Admission {
    /// Neither listed nor denied: served if the tracker is open, and removed with its last peer.
    #[default]
    Unlisted,
    /// Published here: served, and its download counter is kept.
    Listed,
    /// Refused even if the tracker is open.
    Denied,
}

/// The response to an announce, without the peers, which are appended to the caller's buffer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AnnounceResponse {
    pub counts: ScrapeEntry,
    /// Seconds until the client's next announce is due.
    pub interval: u32,
    /// Seconds before which the client must not announce again.
    pub min_interval: u32,
    /// A text for the client's user.
    pub warning: Option<Arc<str>>,
    /// The update for other trackers. `None` if nothing has changed, as the peer's network has too many peers in the swarm.
    pub update: Option<PeerUpdate>,
    /// The announce made a new download, which was counted.
    pub new_download: bool,
}

/// The reason why the tracker does not serve a client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The torrent is not tracked, or not yet.
    UnknownTorrent,
    /// The operator has denied the torrent.
    DeniedTorrent,
    /// The tracker is open and has as many torrents as it may have; the torrent is not listed.
    TooManyTorrents,
    /// The operator has withdrawn the torrent and gives this reason.
    Withdrawn(Arc<str>),
    /// The access list denies the client's address.
    Address,
    /// The client's network has made more requests than the rate limit allows.
    TooOften {
        /// Seconds until the next request may succeed, at least 1.
        retry_secs: u32,
    },
}

/// When a refused client may try again (BEP 31).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Retry {
    /// After this many minutes, at least 1.
    Minutes(u32),
    Never,
}

impl Refusal {
    /// Returns the text that the client's user sees.
    pub fn reason(&self) -> &str {
        match self {
            Self::UnknownTorrent => "this torrent is not tracked here",
            Self::DeniedTorrent => "this torrent is on this tracker's deny list",
            Self::TooManyTorrents => "this tracker has reached its torrent limit",
            Self::Withdrawn(text) => text,
            Self::Address => "your address is not allowed on this tracker",
            Self::TooOften { .. } => "too many requests from your network",
        }
    }

    /// Returns when the client may try again. For an unknown torrent that is soon, as a torrent may be announced moments
    /// before it is published.
    pub fn retry(&self) -> Retry {
        match self {
            Self::UnknownTorrent => Retry::Minutes(5),
            // Torrents are removed when their last peer expires.
            Self::TooManyTorrents => Retry::Minutes(30),
            Self::DeniedTorrent | Self::Withdrawn(_) | Self::Address => Retry::Never,
            Self::TooOften { retry_secs } => Retry::Minutes(retry_secs.div_ceil(60).max(1)),
        }
    }

    /// Returns the time until the client may try again in seconds, for clients that honor only `interval`. A client
    /// that may never try again gets a day.
    pub fn interval(&self) -> u32 {
        match self.retry() {
            Retry::Minutes(minutes) => minutes * 60,
            Retry::Never => 86_400,
        }
    }
}

/// The properties of a torrent that its `.torrent` file gives.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Torrent {
    /// Safe to print on a single line.
    pub name: String,
    /// The size of all files together, in bytes.
    pub size: u64,
    /// `v1` or `v2` is present; a hybrid torrent has both.
    pub v1: Option<InfoHash>,
    pub v2: Option<InfoHashV2>,
}

impl Torrent {
    /// Returns the info-hashes under which clients announce: two for a hybrid torrent.
    pub fn ids(&self) -> impl Iterator<Item = InfoHash> + use<> {
        self.v1
            .into_iter()
            .chain(self.v2.map(InfoHashV2::truncated))
    }
}

/// Parses an info-hash of 40 hexadecimal digits (v1) or 64 (v2), of which the first 40 count.
///
/// # Errors
/// Returns a sentence for the operator.
pub fn parse_hash(entry: &str) -> Result<InfoHash, String> {
    let not_hex = || {
        format!(
            "`{}` is not an info-hash: expected 40 or 64 hexadecimal digits",
            entry.escape_debug()
        )
    };
    if !entry.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(not_hex());
    }
    if entry.len() != 40 && entry.len() != 64 {
        return Err(format!(
            "`{entry}` has {} digits; an info-hash has 40 (v1) or 64 (v2)",
            entry.len()
        ));
    }
    let id = parse_hex(&entry.as_bytes()[..40]);
    id.map(InfoHash).ok_or_else(not_hex)
}

/// A change of a peer, which trackers send to each other: it has joined, announced again, or left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeerUpdate {
    pub info_hash: InfoHash,
    /// The address at which the peer is reached. An IPv4-mapped address has been converted to IPv4.
    pub address: IpAddr,
    pub port: NonZeroU16,
    /// The host's fingerprint in the upper 28 bits; the lower four are 0. Trackers with the same
    /// [`HostKey`](super::settings::HostKey) compute the same fingerprint.
    pub host: u32,
    /// `None`: the peer has left.
    pub class: Option<Class>,
    /// The peer's download has been counted, now or earlier.
    pub completed: bool,
}

/// An update and its age.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimedUpdate {
    pub update: PeerUpdate,
    /// Seconds from the announce until the update was sent.
    pub age_secs: u32,
    /// Whether the update was sent before, or read from memory by
    /// [`Tracker::dump_updates`](super::Tracker::dump_updates). A redelivered join does not overwrite state from the
    /// same minute, which may be newer; a redelivered departure is ignored if it is already recorded. The age of an
    /// update from memory is accurate to a minute, and rounded up.
    pub redelivered: bool,
}

/// A block of a snapshot does not follow the format.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CorruptBlock;

impl fmt::Display for CorruptBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a block ends in the middle of a torrent")
    }
}

impl std::error::Error for CorruptBlock {}

/// Returns how many minutes ago a peer announced in `minute`. A peer may have announced after `now` was read: its age is 0,
/// not 255.
pub(super) fn age_minutes(now: Time, minute: u8) -> u8 {
    match now.minute().wrapping_sub(minute) {
        250.. => 0,
        age => age,
    }
}

/// The effect of an announce, which a cluster replicates.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AnnounceEffect {
    /// The update for other trackers. `None` if nothing has changed.
    pub update: Option<PeerUpdate>,
    /// The announce made a new download, which was counted.
    pub new_download: bool,
}

impl AnnounceEffect {
    pub fn of(response: &AnnounceResponse) -> Self {
        Self {
            update: response.update,
            new_download: response.new_download,
        }
    }
}

/// An address family.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    V4,
    V6,
}

/// A value for each address family.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PerFamily<T> {
    pub v4: T,
    pub v6: T,
}

impl<T> PerFamily<T> {
    /// Applies `f` to both values.
    pub fn map<U>(self, mut f: impl FnMut(T) -> U) -> PerFamily<U> {
        PerFamily {
            v4: f(self.v4),
            v6: f(self.v6),
        }
    }
}

impl<T: Add<Output = T>> PerFamily<T> {
    /// Returns the sum of both values.
    pub fn sum(self) -> T {
        self.v4 + self.v6
    }
}

impl<T: AddAssign> AddAssign for PerFamily<T> {
    fn add_assign(&mut self, other: Self) {
        self.v4 += other.v4;
        self.v6 += other.v6;
    }
}

impl<T> Index<Family> for PerFamily<T> {
    type Output = T;

    fn index(&self, family: Family) -> &T {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }
}

impl<T> IndexMut<Family> for PerFamily<T> {
    fn index_mut(&mut self, family: Family) -> &mut T {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }
}

/// The number of torrents and peers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    pub torrents: usize,
    pub peers: PerFamily<usize>,
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.torrents += other.torrents;
        self.peers += other.peers;
    }
}
