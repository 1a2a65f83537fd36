//! UDP connects, announces and scrapes: takes a packet and writes at most one response (BEP 15).
//!
//! BEP 41's options, which follow an announce, are ignored: they hold the path of the announce URL, and all paths are
//! served alike.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::str::FromStr;

use crate::protocol::connection_id::{ConnectionId, ConnectionIds, Proven, Secret};
use crate::tracker::Tracker;
use crate::tracker::access::Networks;
use crate::tracker::prefetch::Lookup;
use crate::tracker::types::{
    Announce, AnnounceEffect, Event, InfoHash, Key, PeerId, Refusal, Time, UnixTime,
};

/// Maximum length in bytes of a packet that gets a response. A server receives one byte more, so that it recognizes longer
/// packets.
pub const MAX_PACKET_LEN: usize = 2048;

/// The first eight bytes of every connect (BEP 15's `protocol_id`). They distinguish a connect from random packets.
const MAGIC: u64 = 0x0417_2710_1980;

// Actions of requests and of their responses.
const CONNECT: u32 = 0;
const ANNOUNCE: u32 = 1;
const SCRAPE: u32 = 2;
const ERROR: u32 = 3;

// Lengths in bytes of the part before the peers, the counts and the text of a response.
const ANNOUNCE_HEADER_LEN: usize = 20;
const SCRAPE_HEADER_LEN: usize = 8;
const ERROR_HEADER_LEN: usize = 8;

/// Maximum length of an error in bytes. A longer text from the operator is truncated.
const MAX_ERROR_LEN: usize = 256;

/// Maximum number of torrents in the response to a scrape. A request for more would be fragmented on its way. Further
/// torrents are ignored, as in an HTTP scrape.
const MAX_SCRAPE: usize = 74;

/// The operator's settings for UDP.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Networks whose IP address field is honored: the operator's own seeders. Any other client could use the field to
    /// direct the connections of all peers at a victim.
    pub trust_ip_params_from: Networks,
    /// Seconds for which a connection id is valid, at most [`ConnectionIds::MAX_LIFETIME`].
    pub connection_lifetime: u32,
    pub invalid_connection_ids: InvalidConnectionIds,
    /// Maximum length of a response in bytes, without IP and UDP headers. Should be at least [`MAX_ERROR_LEN`], because
    /// errors are not limited by it.
    pub max_payload: usize,
}

impl Settings {
    /// The length that every IPv6 network carries without fragmentation: 1,280 bytes less the IPv6 and UDP headers.
    pub const DEFAULT_MAX_PAYLOAD: usize = 1232;
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            trust_ip_params_from: Networks::default(),
            connection_lifetime: ConnectionIds::DEFAULT_LIFETIME,
            invalid_connection_ids: InvalidConnectionIds::Silence,
            max_payload: Self::DEFAULT_MAX_PAYLOAD,
        }
    }
}

/// The response to a request with a forged or expired connection id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InvalidConnectionIds {
    /// No response, as BEP 15 requires.
    Silence,
    /// An error, which is shorter than any request. A client with an expired id can connect again at once.
    Error,
}

impl InvalidConnectionIds {
    /// The values in the configuration.
    pub const KEYWORDS: &[&str] = &["silence", "error"];
}

impl FromStr for InvalidConnectionIds {
    type Err = ParseInvalidConnectionIdsError;

    fn from_str(word: &str) -> Result<Self, ParseInvalidConnectionIdsError> {
        match word {
            "silence" => Ok(Self::Silence),
            "error" => Ok(Self::Error),
            _ => Err(ParseInvalidConnectionIdsError),
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

/// The error of parsing an [`InvalidConnectionIds`]: the text is none of [`InvalidConnectionIds::KEYWORDS`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ParseInvalidConnectionIdsError;

/// The result of a packet, for the server to count. Every outcome except [`Self::Silent`] has a response.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum UdpOutcome {
    Connected,
    Announced(Announce, AnnounceEffect),
    Scraped,
    Refused(Refusal),
    Invalid(InvalidPacket),
    InvalidConnectionId,
    Silent(Silence),
}

/// The reason why a request with a valid connection id is malformed. The client receives the reason as an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InvalidPacket {
    AnnounceTooShort,
    PortZero,
    ScrapeEmpty,
    ScrapeUneven,
}

impl InvalidPacket {
    /// Returns the text that the client shows to its user.
    pub fn reason(self) -> &'static str {
        match self {
            Self::AnnounceTooShort => "an announce needs at least 98 bytes",
            Self::PortZero => "port is 0",
            Self::ScrapeEmpty => "a scrape needs an info_hash",
            Self::ScrapeUneven => "each info_hash in a scrape must have 20 bytes",
        }
    }
}

/// The reason why a packet gets no response.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Silence {
    /// The source cannot be the socket of a client.
    Source,
    /// The packet is longer than [`MAX_PACKET_LEN`] or shorter than any request.
    Length,
    /// The packet is a connect that does not start with BEP 15's number.
    Magic,
    /// The action is not one of BEP 15's requests.
    Action,
    /// The connection id is forged or expired, and [`InvalidConnectionIds::Silence`] is set.
    InvalidConnectionId,
}

/// Responds to packets. All workers can share a responder.
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

    /// Responds to a packet. Appends the response to `out`, or nothing if there is no response.
    ///
    /// A sender that has not proven its address gets no more bytes than it sent: 16 bytes for a connect of 16 or more,
    /// or an error that is shorter than the shortest request.
    pub fn respond(
        &self,
        tracker: &Tracker,
        now: Time,
        unix: UnixTime,
        from: SocketAddr,
        packet: &[u8],
        out: &mut Vec<u8>,
    ) -> UdpOutcome {
        let address = from.ip().to_canonical();
        if from.port() == 0 || !is_one_host(address) {
            return UdpOutcome::Silent(Silence::Source);
        }
        let header = match PacketHeader::parse(packet) {
            Ok(header) => header,
            Err(silence) => return UdpOutcome::Silent(silence),
        };
        if header.action == CONNECT {
            return self.connect(&header, unix, address, out);
        }
        let id = ConnectionId(header.id);
        let Some(proven) = self.ids.prove(id, unix, address) else {
            return self.invalid_connection_id(&header, out);
        };
        let result = match header.action {
            ANNOUNCE => self.announce(tracker, now, proven, &header, packet, out),
            _ => self.scrape(tracker, now, proven, &header, packet, out),
        };
        result.unwrap_or_else(|invalid| {
            write_error(out, &header, invalid.reason());
            UdpOutcome::Invalid(invalid)
        })
    }

    fn connect(
        &self,
        header: &PacketHeader,
        unix: UnixTime,
        from: IpAddr,
        out: &mut Vec<u8>,
    ) -> UdpOutcome {
        if header.id != MAGIC {
            return UdpOutcome::Silent(Silence::Magic);
        }
        write_header(out, CONNECT, header);
        out.extend_from_slice(&self.ids.issue(unix, from).0.to_be_bytes());
        UdpOutcome::Connected
    }

    fn invalid_connection_id(&self, header: &PacketHeader, out: &mut Vec<u8>) -> UdpOutcome {
        match self.settings.invalid_connection_ids {
            InvalidConnectionIds::Silence => UdpOutcome::Silent(Silence::InvalidConnectionId),
            InvalidConnectionIds::Error => {
                // At most eight bytes, or the error would be longer than the shortest request.
                const REASON: &str = "bad id";
                const { assert!(ERROR_HEADER_LEN + REASON.len() <= PacketHeader::LEN) };
                write_error(out, header, REASON);
                UdpOutcome::InvalidConnectionId
            }
        }
    }

    fn announce(
        &self,
        tracker: &Tracker,
        now: Time,
        from: Proven,
        header: &PacketHeader,
        packet: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<UdpOutcome, InvalidPacket> {
        let mut announce = parse_announce(packet, from.address())?;
        // The field holds an IPv4 address. The response to an IPv6 packet has IPv6 peers, so the field is ignored there.
        if from.address().is_ipv4() && self.settings.trust_ip_params_from.contains(from.address()) {
            announce.address = ip_field(packet).unwrap_or(announce.address);
        }
        let endpoint_len = if announce.address.is_ipv4() { 6 } else { 18 };
        let max_peers = self
            .settings
            .max_payload
            .saturating_sub(ANNOUNCE_HEADER_LEN)
            / endpoint_len;
        announce.numwant = announce.numwant.map(|want| want.min(max_peers as u32));
        let start = out.len();
        out.extend_from_slice(&[0; ANNOUNCE_HEADER_LEN]);
        match tracker.announce(now, &announce, out) {
            Ok(response) => {
                // If the client does not limit the number of peers, the tracker may return more than fit.
                out.truncate(start + ANNOUNCE_HEADER_LEN + max_peers * endpoint_len);
                let fields = [
                    ANNOUNCE,
                    header.transaction,
                    response.interval,
                    response.counts.incomplete,
                    response.counts.complete,
                ];
                for (bytes, field) in out[start..].chunks_exact_mut(4).zip(fields) {
                    bytes.copy_from_slice(&field.to_be_bytes());
                }
                Ok(UdpOutcome::Announced(
                    announce,
                    AnnounceEffect::of(&response),
                ))
            }
            Err(refusal) => {
                out.truncate(start);
                write_error(out, header, refusal.reason());
                Ok(UdpOutcome::Refused(refusal))
            }
        }
    }

    /// Writes an entry for each info-hash, in the order of the request and also for repeated ones. The entry of a torrent
    /// that is not tracked has zeros.
    fn scrape(
        &self,
        tracker: &Tracker,
        now: Time,
        from: Proven,
        header: &PacketHeader,
        packet: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<UdpOutcome, InvalidPacket> {
        let scrape = match tracker.admit_scrape(now, from.address()) {
            Ok(scrape) => scrape,
            Err(refusal) => {
                write_error(out, header, refusal.reason());
                return Ok(UdpOutcome::Refused(refusal));
            }
        };
        let mut hashes = &packet[PacketHeader::LEN..];
        if hashes.is_empty() {
            return Err(InvalidPacket::ScrapeEmpty);
        }
        if hashes.len() % 20 != 0 {
            return Err(InvalidPacket::ScrapeUneven);
        }
        let max_entries = self.settings.max_payload.saturating_sub(SCRAPE_HEADER_LEN) / 12;
        hashes = &hashes[..hashes.len().min(20 * max_entries.min(MAX_SCRAPE))];
        write_header(out, SCRAPE, header);
        while let Some((hash, rest)) = hashes.split_first_chunk() {
            let entry = scrape.counts(&InfoHash(*hash)).unwrap_or_default();
            for count in [entry.complete, entry.downloaded, entry.incomplete] {
                out.extend_from_slice(&count.to_be_bytes());
            }
            hashes = rest;
        }
        Ok(UdpOutcome::Scraped)
    }
}

/// The first 16 bytes of every request.
struct PacketHeader {
    /// [`MAGIC`] in a connect, a connection id in other requests.
    id: u64,
    action: u32,
    /// A number that the client chose. The response repeats it.
    transaction: u32,
}

impl PacketHeader {
    const LEN: usize = 16;

    fn parse(packet: &[u8]) -> Result<Self, Silence> {
        let header: &[u8; Self::LEN] = packet.first_chunk().ok_or(Silence::Length)?;
        if packet.len() > MAX_PACKET_LEN {
            return Err(Silence::Length);
        }
        let header = Self {
            id: u64::from_be_bytes(field(header, 0)),
            action: u32::from_be_bytes(field(header, 8)),
            transaction: u32::from_be_bytes(field(header, 12)),
        };
        match header.action {
            CONNECT | ANNOUNCE | SCRAPE => Ok(header),
            _ => Err(Silence::Action),
        }
    }
}

/// Returns the `N` bytes that start at `at`.
fn field<const N: usize, const LEN: usize>(packet: &[u8; LEN], at: usize) -> [u8; N] {
    std::array::from_fn(|i| packet[at + i])
}

/// Returns whether the address is that of a single host, so that a response reaches only that host.
fn is_one_host(address: IpAddr) -> bool {
    !address.is_unspecified()
        && !address.is_multicast()
        && address != IpAddr::V4(Ipv4Addr::BROADCAST)
}

/// Returns the address in the announce's IP address field, or `None` if the field is 0 or no host can have the address.
fn ip_field(packet: &[u8]) -> Option<IpAddr> {
    let address = packet.get(84..)?.first_chunk::<4>()?;
    Some(IpAddr::from(*address)).filter(|address| is_one_host(*address))
}

/// Parses an announce. Ignores its IP address field, because with it anyone could register a victim as a peer. Also ignores
/// options after the 98 bytes.
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

/// Appends the torrents and peers that a packet asks for, as a hint for [`Tracker::prefetch`]. Does not check the
/// connection id or the access rules.
pub fn lookups_in(packet: &[u8], from: IpAddr, lookups: &mut Vec<Lookup>) {
    let Ok(header) = PacketHeader::parse(packet) else {
        return;
    };
    match header.action {
        ANNOUNCE => {
            if let Ok(announce) = parse_announce(packet, from) {
                lookups.push(Lookup::Announce(announce));
            }
        }
        SCRAPE => {
            let hashes = packet[PacketHeader::LEN..]
                .chunks_exact(20)
                .take(MAX_SCRAPE);
            let hashes = hashes.filter_map(|hash| hash.try_into().ok());
            let mut from = Some(from);
            lookups.extend(hashes.map(|hash| Lookup::Scrape(InfoHash(hash), from.take())));
        }
        _ => {}
    }
}

fn write_header(out: &mut Vec<u8>, action: u32, header: &PacketHeader) {
    out.extend_from_slice(&action.to_be_bytes());
    out.extend_from_slice(&header.transaction.to_be_bytes());
}

fn write_error(out: &mut Vec<u8>, header: &PacketHeader, reason: &str) {
    let mut end = reason.len().min(MAX_ERROR_LEN - ERROR_HEADER_LEN);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    write_header(out, ERROR, header);
    out.extend_from_slice(&reason.as_bytes()[..end]);
}

#[cfg(test)]
mod tests;
