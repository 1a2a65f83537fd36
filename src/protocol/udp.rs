//! UDP connect, announce and scrape: a packet in, at most one packet out (BEP 15, 41).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::str::FromStr;

use crate::protocol::connection_id::{ConnectionId, ConnectionIds, Proven, Secret};
use crate::tracker::access::Networks;
use crate::tracker::types::AnnounceEffect;
use crate::tracker::{
    Announce, Event, InfoHash, Key, Lookup, PeerId, Refusal, Time, Tracker, UnixTime,
};

/// The longest packet that may be answered; a server reads one byte more to know the others.
pub const PACKET_MAX: usize = 2048;

/// How every connect begins, for a tracker to know it from noise.
const MAGIC: u64 = 0x0417_2710_1980;

/// Numbers of requests, and of the answers to them.
const CONNECT: u32 = 0;
const ANNOUNCE: u32 = 1;
const SCRAPE: u32 = 2;
const ERROR: u32 = 3;

/// What stands before the peers, the counts, the text of an answer.
const ANNOUNCED_HEADER: usize = 20;
const SCRAPED_HEADER: usize = 8;
const ERROR_HEADER: usize = 8;

/// The longest error; an operator's own words may be cut.
const ERROR_MAX: usize = 256;

/// The most torrents that a scrape tells of: a request for more would be fragmented on its way. What comes after is
/// passed over, as in a longer HTTP scrape.
const SCRAPE_MAX: usize = 74;

/// What the operator decides about UDP.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whose word is taken for where a peer is: the operator's own seeds.
    pub believed: Networks,
    /// Seconds for which a connection id is good, at most [`ConnectionIds::MAX_LIFETIME`].
    pub connection_lifetime: u32,
    pub bad_ids: InvalidConnectionIds,
    /// The most bytes in an answer, without IP and UDP headers; at least what an error has, [`ERROR_MAX`].
    pub max_payload: usize,
}

impl Settings {
    /// What IPv6 carries everywhere without fragments: 1,280 bytes less two headers.
    pub const DEFAULT_MAX_PAYLOAD: usize = 1232;
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            believed: Networks::default(),
            connection_lifetime: ConnectionIds::DEFAULT_LIFETIME,
            bad_ids: InvalidConnectionIds::Silence,
            max_payload: Self::DEFAULT_MAX_PAYLOAD,
        }
    }
}

/// What becomes of a request whose connection id is forged or too old.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InvalidConnectionIds {
    /// As BEP 15 has it.
    Silence,
    /// An error, shorter than any request: a client that still has an old id learns of it at once.
    Error,
}

impl InvalidConnectionIds {
    /// How the configuration spells them.
    pub const WORDS: &[&str] = &["silence", "error"];
}

impl FromStr for InvalidConnectionIds {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        match word {
            "silence" => Ok(Self::Silence),
            "error" => Ok(Self::Error),
            _ => Err(UnknownWord),
        }
    }
}

impl fmt::Display for InvalidConnectionIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Silence => "silence",
            Self::Error => "error",
        })
    }
}

/// None of [`InvalidConnectionIds::WORDS`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnknownWord;

/// What was made of a packet, for the server to count. All but [`Self::Silent`] have an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    Connected,
    Announced(Announce, AnnounceEffect),
    Scraped,
    Refused(Refusal),
    Invalid(InvalidPacket),
    BadId,
    Silent(Silence),
}

/// Why a request could not be read, from a client whose address is proven; so he is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InvalidPacket {
    AnnounceTooShort,
    PortZero,
    ScrapeEmpty,
    ScrapeUneven,
}

impl InvalidPacket {
    /// What the client's user reads.
    pub fn reason(self) -> &'static str {
        match self {
            Self::AnnounceTooShort => "an announce has 98 bytes at least",
            Self::PortZero => "port 0 cannot be reached",
            Self::ScrapeEmpty => "a scrape needs an info_hash",
            Self::ScrapeUneven => "an info_hash in a scrape has 20 bytes",
        }
    }
}

/// Why a packet gets no answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Silence {
    /// Its source cannot be one client's socket.
    Source,
    /// Longer than [`PACKET_MAX`] or shorter than any request.
    Length,
    /// A connect without BEP 15's number at its head.
    Magic,
    /// Not one of BEP 15's requests.
    Action,
    BadId,
}

/// Answers packets, of any worker.
#[derive(Clone)]
pub struct Responder {
    ids: ConnectionIds,
    settings: Settings,
}

impl Responder {
    pub fn new(settings: Settings, secret: &Secret) -> Self {
        Self {
            ids: ConnectionIds::new(secret, settings.connection_lifetime),
            settings,
        }
    }

    /// Answers one packet: the answer is appended to `out`, and nothing is if there is none.
    ///
    /// A sender who has not shown that he hears us gets no more bytes than he sent: a connect's 16 for 16 or more, and
    /// an error that is shorter than the shortest request.
    pub fn respond(
        &self,
        tracker: &Tracker,
        now: Time,
        unix: UnixTime,
        from: SocketAddr,
        packet: &[u8],
        out: &mut Vec<u8>,
    ) -> Outcome {
        let address = from.ip().to_canonical();
        if from.port() == 0 || !is_one_host(address) {
            return Outcome::Silent(Silence::Source);
        }
        let header = match Header::parse(packet) {
            Ok(header) => header,
            Err(silence) => return Outcome::Silent(silence),
        };
        if header.action == CONNECT {
            return self.connect(&header, unix, address, out);
        }
        let id = ConnectionId(header.id);
        let Some(proven) = self.ids.prove(id, unix, address) else {
            return self.bad_id(&header, out);
        };
        let result = match header.action {
            ANNOUNCE => self.announce(tracker, now, proven, &header, packet, out),
            _ => self.scrape(tracker, now, proven, &header, packet, out),
        };
        result.unwrap_or_else(|malformed| {
            write_error(out, &header, malformed.reason());
            Outcome::Invalid(malformed)
        })
    }

    fn connect(&self, header: &Header, unix: UnixTime, from: IpAddr, out: &mut Vec<u8>) -> Outcome {
        if header.id != MAGIC {
            return Outcome::Silent(Silence::Magic);
        }
        write_head(out, CONNECT, header);
        out.extend_from_slice(&self.ids.issue(unix, from).0.to_be_bytes());
        Outcome::Connected
    }

    fn bad_id(&self, header: &Header, out: &mut Vec<u8>) -> Outcome {
        match self.settings.bad_ids {
            InvalidConnectionIds::Silence => Outcome::Silent(Silence::BadId),
            InvalidConnectionIds::Error => {
                const REASON: &str = "bad id";
                const { assert!(ERROR_HEADER + REASON.len() <= Header::LEN) };
                write_error(out, header, REASON);
                Outcome::BadId
            }
        }
    }

    fn announce(
        &self,
        tracker: &Tracker,
        now: Time,
        from: Proven,
        header: &Header,
        packet: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Outcome, InvalidPacket> {
        let mut announce = parse_announce(packet, from.address())?;
        // The field is IPv4's: an IPv6 packet is answered with IPv6 peers, whatever it says.
        if from.address().is_ipv4() && self.settings.believed.contains(from.address()) {
            announce.address = told_address(packet).unwrap_or(announce.address);
        }
        let endpoint_len = if announce.address.is_ipv4() { 6 } else { 18 };
        let room = self.settings.max_payload.saturating_sub(ANNOUNCED_HEADER) / endpoint_len;
        announce.numwant = announce.numwant.map(|want| want.min(room as u32));
        let start = out.len();
        out.extend_from_slice(&[0; ANNOUNCED_HEADER]);
        match tracker.announce(now, &announce, out) {
            Ok(answer) => {
                // A client that leaves the number to the tracker may be given more than fit.
                out.truncate(start + ANNOUNCED_HEADER + room * endpoint_len);
                let fields = [
                    ANNOUNCE,
                    header.transaction,
                    answer.interval,
                    answer.counts.incomplete,
                    answer.counts.complete,
                ];
                for (place, field) in out[start..].chunks_exact_mut(4).zip(fields) {
                    place.copy_from_slice(&field.to_be_bytes());
                }
                Ok(Outcome::Announced(announce, AnnounceEffect::of(&answer)))
            }
            Err(refusal) => {
                out.truncate(start);
                write_error(out, header, refusal.reason());
                Ok(Outcome::Refused(refusal))
            }
        }
    }

    /// One entry for each hash, in their order, also where one is repeated; zeros for a torrent that is not tracked.
    fn scrape(
        &self,
        tracker: &Tracker,
        now: Time,
        from: Proven,
        header: &Header,
        packet: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Outcome, InvalidPacket> {
        let scrape = match tracker.admit_scrape(now, from.address()) {
            Ok(scrape) => scrape,
            Err(refusal) => {
                write_error(out, header, refusal.reason());
                return Ok(Outcome::Refused(refusal));
            }
        };
        let mut hashes = &packet[Header::LEN..];
        if hashes.is_empty() {
            return Err(InvalidPacket::ScrapeEmpty);
        }
        if hashes.len() % 20 != 0 {
            return Err(InvalidPacket::ScrapeUneven);
        }
        let room = self.settings.max_payload.saturating_sub(SCRAPED_HEADER) / 12;
        hashes = &hashes[..hashes.len().min(20 * room.min(SCRAPE_MAX))];
        write_head(out, SCRAPE, header);
        while let Some((hash, rest)) = hashes.split_first_chunk() {
            let entry = scrape.counts(&InfoHash(*hash)).unwrap_or_default();
            for count in [entry.complete, entry.downloaded, entry.incomplete] {
                out.extend_from_slice(&count.to_be_bytes());
            }
            hashes = rest;
        }
        Ok(Outcome::Scraped)
    }
}

/// What every request begins with.
struct Header {
    /// [`MAGIC`] in a connect, else a connection id.
    id: u64,
    action: u32,
    /// The client's own, sent back to it.
    transaction: u32,
}

impl Header {
    const LEN: usize = 16;

    fn parse(packet: &[u8]) -> Result<Self, Silence> {
        let head: &[u8; Self::LEN] = packet.first_chunk().ok_or(Silence::Length)?;
        if packet.len() > PACKET_MAX {
            return Err(Silence::Length);
        }
        let header = Self {
            id: u64::from_be_bytes(field(head, 0)),
            action: u32::from_be_bytes(field(head, 8)),
            transaction: u32::from_be_bytes(field(head, 12)),
        };
        match header.action {
            CONNECT | ANNOUNCE | SCRAPE => Ok(header),
            _ => Err(Silence::Action),
        }
    }
}

/// The bytes from `at` on.
fn field<const N: usize, const LEN: usize>(packet: &[u8; LEN], at: usize) -> [u8; N] {
    std::array::from_fn(|i| packet[at + i])
}

/// Whether a packet from this address can be one client's, and an answer to it reach no one else.
fn is_one_host(address: IpAddr) -> bool {
    !address.is_unspecified()
        && !address.is_multicast()
        && address != IpAddr::V4(Ipv4Addr::BROADCAST)
}

/// The address that an announce itself gives.
fn told_address(packet: &[u8]) -> Option<IpAddr> {
    let address = packet.get(84..)?.first_chunk::<4>()?;
    Some(IpAddr::from(*address)).filter(|address| is_one_host(*address))
}

/// Reads an announce. The sender's own word about its address is not taken here: anyone could enlist a victim.
///
/// What follows the 98 bytes changes nothing: [`url_data`] tells the path that was announced to, and all are served
/// alike.
fn parse_announce(packet: &[u8], from: IpAddr) -> Result<Announce, InvalidPacket> {
    let packet: &[u8; 98] = packet
        .first_chunk()
        .ok_or(InvalidPacket::AnnounceTooShort)?;
    let key = u32::from_be_bytes(field(packet, 88));
    let numwant = i32::from_be_bytes(field(packet, 92));
    let port = u16::from_be_bytes(field(packet, 96));
    Ok(Announce {
        info_hash: InfoHash(field(packet, 16)),
        peer_id: PeerId(field(packet, 36)),
        key: (key != 0).then_some(Key(key)),
        address: from,
        port: NonZeroU16::new(port).ok_or(InvalidPacket::PortZero)?,
        event: match u32::from_be_bytes(field(packet, 80)) {
            1 => Event::Completed,
            2 => Event::Started,
            3 => Event::Stopped,
            4 => Event::Paused,
            _ => Event::None,
        },
        complete: u64::from_be_bytes(field(packet, 64)) == 0,
        numwant: u32::try_from(numwant).ok(),
    })
}

/// Appends what a packet seems to ask about, for [`Tracker::prefetch`]: whether it may, and whether all of it is good,
/// is not looked at yet.
pub fn lookups_in(packet: &[u8], from: IpAddr, sought: &mut Vec<Lookup>) {
    let Ok(header) = Header::parse(packet) else {
        return;
    };
    match header.action {
        ANNOUNCE => {
            if let Ok(announce) = parse_announce(packet, from) {
                sought.push(Lookup::Announce(announce));
            }
        }
        SCRAPE => {
            let hashes = packet[Header::LEN..].chunks_exact(20).take(SCRAPE_MAX);
            let hashes = hashes.filter_map(|hash| hash.try_into().ok());
            let mut from = Some(from);
            sought.extend(hashes.map(|hash| Lookup::Scrape(InfoHash(hash), from.take())));
        }
        _ => {}
    }
}

/// The pieces of the path and query that an announce was sent to, to be read as one (BEP 41). Options of other kinds
/// are passed over; one that is cut off ends the list, as if it had not been there.
pub fn url_data(announce: &[u8]) -> impl Iterator<Item = &[u8]> {
    const END: u8 = 0;
    const NOP: u8 = 1;
    const URL_DATA: u8 = 2;
    let mut options = announce.get(98..).unwrap_or_default();
    std::iter::from_fn(move || {
        loop {
            match *options {
                [] | [END, ..] | [_] => return None,
                [NOP, ref rest @ ..] => options = rest,
                [kind, len, ref rest @ ..] => {
                    let (piece, rest) = rest.split_at_checked(len.into())?;
                    options = rest;
                    if kind == URL_DATA {
                        return Some(piece);
                    }
                }
            }
        }
    })
}

fn write_head(out: &mut Vec<u8>, action: u32, header: &Header) {
    out.extend_from_slice(&action.to_be_bytes());
    out.extend_from_slice(&header.transaction.to_be_bytes());
}

fn write_error(out: &mut Vec<u8>, header: &Header, reason: &str) {
    let mut end = reason.len().min(ERROR_MAX - ERROR_HEADER);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    write_head(out, ERROR, header);
    out.extend_from_slice(&reason.as_bytes()[..end]);
}

#[cfg(test)]
mod tests;
