//! The field's own nouns: what an announce says and what a tracker answers.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;

use crate::bytes::{Hex, parse_hex};

/// A torrent's id on the wire: SHA-1 of a v1 `info` (BEP 3), or SHA-256 of a v2 one cut to 20 bytes (BEP 52).
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

/// The whole SHA-256 of a v2 `info` (BEP 52).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct InfoHashV2(pub [u8; 32]);

impl InfoHashV2 {
    /// The id as it is announced: the first 20 bytes.
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

/// What a client calls itself (BEP 3). Never stored: it only helps to see that two addresses are one host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeerId(pub [u8; 20]);

/// A client's secret towards the tracker, the same over both address families (BEP 7, BEP 15). Never shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Key(pub u32);

/// Time as the core contains it: seconds since an origin of the caller's choice that never runs backwards.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Time(pub u32);

impl Time {
    /// Whole minutes, wrapping at 256: how finely a peer's age is kept.
    pub(crate) fn minute(self) -> u8 {
        (self.0 / 60).to_le_bytes()[0]
    }
}

/// Seconds since 1970. Unlike [`Time`], it means the same after a restart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct UnixTime(pub u64);

/// Why a client announces (BEP 3, BEP 21). Whatever else it sends counts as [`Event::None`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Event {
    #[default]
    None,
    Started,
    Completed,
    Stopped,
    /// A partial seed: has all that it wants, but not all that there is (BEP 21).
    Paused,
}

/// One announce, read and checked, from whichever protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Announce {
    pub info_hash: InfoHash,
    pub peer_id: PeerId,
    pub key: Option<Key>,
    /// Where the peer is reached; an IPv4-mapped address is already its IPv4 self.
    pub address: IpAddr,
    pub port: NonZeroU16,
    pub event: Event,
    /// `left` was sent and is 0.
    pub complete: bool,
    /// How many peers the client asks for; `None` leaves it to the tracker.
    pub numwant: Option<u32>,
}

/// What a peer is in its swarm, the most complete last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Class {
    Leecher,
    /// A leecher that wants no more (BEP 21).
    Partial,
    Seeder,
}

/// One torrent's counts, each host once (BEP 48, BEP 21).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ScrapeEntry {
    pub complete: u32,
    /// Leechers, partial seeds among them.
    pub incomplete: u32,
    /// Partial seeds.
    pub partial: u32,
    pub downloaded: u32,
}

/// Whether a torrent is tracked, and by whose word.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Admission {
    /// Nobody has named it: served if the tracker is open, and forgotten with its last peer.
    #[default]
    Unlisted,
    /// Published here: served, and its counters are kept.
    Listed,
    /// Refused even where the tracker is open.
    Denied,
}

/// What the tracker answers to an announce; the peers themselves are appended to the caller's buffer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    pub counts: ScrapeEntry,
    /// Seconds until the next announce is due.
    pub interval: u32,
    /// Seconds before which the client shall not come redelivered.
    pub min_interval: u32,
    /// For the client's user to read.
    pub warning: Option<Arc<str>>,
    /// For other trackers to apply_update. `None`: nothing has changed, as the peer's network has too many in the swarm.
    pub change: Option<PeerUpdate>,
    /// This announce made a new download.
    pub counted: bool,
}

/// Why the tracker does not serve a client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The torrent is not tracked here, perhaps not yet.
    UnknownTorrent,
    /// The torrent shall not be tracked here.
    DeniedTorrent,
    /// An open tracker has no room for one more that nobody has named.
    TooManyTorrents,
    /// The operator says why.
    Withdrawn(Arc<str>),
    /// The access list does not admit the client.
    Address,
    /// More requests than the client's network may make.
    TooOften {
        /// Seconds until the next may succeed, at least 1.
        retry_secs: u32,
    },
}

/// When a refused client may come redelivered (BEP 31).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Retry {
    /// After this many minutes, at least 1.
    Minutes(u32),
    Never,
}

impl Refusal {
    /// What the client's user reads.
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

    /// A torrent may be announced moments before it is published: such a client shall not wait for long.
    pub fn retry(&self) -> Retry {
        match self {
            Self::UnknownTorrent => Retry::Minutes(5),
            // Room comes as others' peers fall silent.
            Self::TooManyTorrents => Retry::Minutes(30),
            Self::DeniedTorrent | Self::Withdrawn(_) | Self::Address => Retry::Never,
            Self::TooOften { retry_secs } => Retry::Minutes(retry_secs.div_ceil(60).max(1)),
        }
    }

    /// Seconds, for the clients that know `interval` alone.
    pub fn interval(&self) -> u32 {
        match self.retry() {
            Retry::Minutes(minutes) => minutes * 60,
            Retry::Never => 86_400,
        }
    }
}

/// What a `.torrent` file says of its torrent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Torrent {
    /// Safe to print on one line.
    pub name: String,
    /// Bytes of all files.
    pub size: u64,
    /// At least one of `v1` and `v2` is there; a hybrid has both.
    pub v1: Option<InfoHash>,
    pub v2: Option<InfoHashV2>,
}

impl Torrent {
    /// The ids under which clients announce: one, or a hybrid's two.
    pub fn ids(&self) -> impl Iterator<Item = InfoHash> + use<> {
        self.v1
            .into_iter()
            .chain(self.v2.map(InfoHashV2::truncated))
    }
}

/// One id; the error is a sentence for the operator.
pub fn parse_hash(entry: &str) -> Result<InfoHash, String> {
    let not_hex = || {
        format!(
            "`{}` is not a torrent's id: 40 or 64 hexadecimal digits",
            entry.escape_debug()
        )
    };
    if !entry.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(not_hex());
    }
    if entry.len() != 40 && entry.len() != 64 {
        return Err(format!(
            "`{entry}` has {} digits; a torrent's id has 40 (v1) or 64 (v2)",
            entry.len()
        ));
    }
    let id = parse_hex(&entry.as_bytes()[..40]);
    id.map(InfoHash).ok_or_else(not_hex)
}

/// What an announce changed, as other trackers are told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeerUpdate {
    pub info_hash: InfoHash,
    /// Where the peer is reached; an IPv4-mapped address is already its IPv4 self.
    pub address: IpAddr,
    pub port: NonZeroU16,
    /// The host's fingerprint, in the upper 28 bits; the others are 0. The same to all trackers with one [`HostKey`].
    pub host: u32,
    /// `None`: it has left.
    pub class: Option<Class>,
    /// Its download has been counted, now or earlier.
    pub completed: bool,
}

/// A change and when it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimedUpdate {
    pub change: PeerUpdate,
    /// Seconds from the announce until this was told.
    pub age_secs: u32,
    /// TimedUpdate from memory, by [`Tracker::dump_updates`], or perhaps heard before: of a join, what is known from the same minute may be
    /// newer, and stays; a leave that is known is no news. From memory the age is known to the minute, and is the oldest that it
    /// can be.
    pub redelivered: bool,
}

/// A block that does not follow the format.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CorruptBlock;

impl fmt::Display for CorruptBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a block ends in the middle of a torrent")
    }
}

impl std::error::Error for CorruptBlock {}

/// How long ago a peer was heard. One that was heard since `now` was taken is not the oldest of all.
pub(super) fn age_minutes(now: Time, heard: u8) -> u8 {
    match now.minute().wrapping_sub(heard) {
        250.. => 0,
        age => age,
    }
}

/// What an announce did that other trackers are to apply_update.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AnnounceEffect {
    /// `None`: nothing changed.
    pub change: Option<PeerUpdate>,
    /// It made a new download.
    pub counted: bool,
}

impl AnnounceEffect {
    pub fn of(answer: &Answer) -> Self {
        Self {
            change: answer.change,
            counted: answer.counted,
        }
    }
}
