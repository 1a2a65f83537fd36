//! UDP connects, announces and scrapes: takes a packet and writes at most one response (BEP 15).
//!
//! BEP 41's options, which follow an announce, are ignored: they hold the path of the announce URL, and all paths are
//! served alike.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::str::FromStr;

use crate::protocol::connection_id::{ConnectionId, ConnectionIds, Proven, Secret};
use crate::tracker::access::Networks;
use crate::tracker::prefetch::Lookup;
use crate::tracker::types::AnnounceEffect;
use crate::tracker::{Announce, Event, InfoHash, Key, PeerId, Refusal, Time, Tracker, UnixTime};

/// Maximum length in bytes of a packet that gets a response. A server receives one byte more, so that it recognizes longer
/// packets.
pub const MAX_PACKET_LEN: usize = 2048;

/// The first eight bytes of every connect. They distinguish a connect from random packets.
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
    /// Networks whose IP address field is honored: the operator's own seeders. Any other client could use the field to direct
    /// the connections of all peers at a victim.
    pub trust_ip_params_from: Networks,
    /// Seconds for which a connection id is valid, at most [`ConnectionIds::MAX_LIFETIME`].
    pub connection_lifetime: u32,
    pub invalid_connection_ids: InvalidConnectionIds,
    /// Maximum length of a response in bytes, without IP and UDP headers. Should be at least [`MAX_ERROR_LEN`], because errors
    /// are not limited by it.
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
    pub const WORDS: &[&str] = &["silence", "error"];
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

/// The error of parsing an [`InvalidConnectionIds`]: the text is none of [`InvalidConnectionIds::WORDS`].
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
    /// A sender that has not proven its address gets no more bytes than it sent: 16 bytes for a connect of 16 or more, or an
    /// error that is shorter than the shortest request.
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
        let room = self
            .settings
            .max_payload
            .saturating_sub(ANNOUNCE_HEADER_LEN)
            / endpoint_len;
        announce.numwant = announce.numwant.map(|want| want.min(room as u32));
        let start = out.len();
        out.extend_from_slice(&[0; ANNOUNCE_HEADER_LEN]);
        match tracker.announce(now, &announce, out) {
            Ok(answer) => {
                // If the client does not limit the number of peers, the tracker may return more than fit.
                out.truncate(start + ANNOUNCE_HEADER_LEN + room * endpoint_len);
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
                Ok(UdpOutcome::Announced(announce, AnnounceEffect::of(&answer)))
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
        let room = self.settings.max_payload.saturating_sub(SCRAPE_HEADER_LEN) / 12;
        hashes = &hashes[..hashes.len().min(20 * room.min(MAX_SCRAPE))];
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

/// Appends the torrents and peers that a packet asks for, as a hint for [`Tracker::prefetch`]. Does not check the connection
/// id or the access rules.
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
mod tests {
    use super::*;
    use crate::protocol::http;
    use crate::tracker::{self, Admission, Rng};

    const NOW: Time = Time(1000);
    const UNIX: UnixTime = UnixTime(1_790_000_000);
    const TORRENT: [u8; 20] = *b"a torrent's 20 bytes";
    const OTHER: [u8; 20] = *b"another's 20 bytes__";
    const V4: &str = "192.0.2.1:1001";
    const V6: &str = "[2001:db8::1]:1001";
    const MAPPED: &str = "[::ffff:192.0.2.1]:1001";

    /// What was announced is seen in what the tracker does: the tests' outcomes all carry this.
    const ANNOUNCED: Outcome = Outcome::Announced(ANY, NOTHING);
    const NOTHING: AnnounceEffect = AnnounceEffect {
        update: None,
        new_download: false,
    };
    const ANY: Announce = Announce {
        info_hash: InfoHash(TORRENT),
        peer_id: PeerId([0; 20]),
        key: None,
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        port: NonZeroU16::MIN,
        event: Event::None,
        complete: false,
        numwant: None,
    };

    /// A tracker with two listed torrents, and what answers for it.
    struct Site {
        tracker: Tracker,
        responder: Responder,
    }

    impl Site {
        fn new() -> Self {
            Self::with(Settings::default(), tracker::Settings::default())
        }

        fn with(settings: Settings, tracking: tracker::Settings) -> Self {
            let tracker = Tracker::new(tracking, 7);
            for torrent in [TORRENT, OTHER] {
                tracker.admit(&InfoHash(torrent), Admission::Listed);
            }
            let responder = Responder::new(settings, &Secret([7; 16]));
            Self { tracker, responder }
        }

        fn respond(&self, from: &str, packet: &[u8]) -> (Outcome, Vec<u8>) {
            self.respond_at(UNIX, from.parse().expect("an endpoint"), packet)
        }

        fn respond_at(
            &self,
            unix: UnixTime,
            from: SocketAddr,
            packet: &[u8],
        ) -> (Outcome, Vec<u8>) {
            let mut out = b"earlier".to_vec();
            let outcome = self
                .responder
                .respond(&self.tracker, NOW, unix, from, packet, &mut out);
            let answer = out
                .strip_prefix(b"earlier")
                .expect("only appended")
                .to_vec();
            assert_eq!(answer.is_empty(), matches!(outcome, Outcome::Silent(_)));
            let outcome = match outcome {
                Outcome::Announced(..) => ANNOUNCED,
                same => same,
            };
            (outcome, answer)
        }

        /// What a client does: ask for an id, and use it.
        fn ask(&self, from: &str, request: impl Fn(u64) -> Vec<u8>) -> (Outcome, Vec<u8>) {
            self.respond(from, &request(self.id(from)))
        }

        fn id(&self, from: &str) -> u64 {
            let (outcome, answer) = self.respond(from, &connect());
            assert_eq!((outcome, answer.len()), (Outcome::Connected, 16));
            u64::from_be_bytes(field(answer.first_chunk::<16>().unwrap(), 8))
        }

        /// Complete, downloaded, incomplete.
        fn counts(&self) -> [u32; 3] {
            let entry = self.tracker.scrape(&InfoHash(TORRENT)).unwrap();
            [entry.complete, entry.downloaded, entry.incomplete]
        }
    }

    fn connect() -> Vec<u8> {
        b"\x00\x00\x04\x17\x27\x10\x19\x80\x00\x00\x00\x00tran".to_vec()
    }

    /// A seeder's announce, by BEP 15's offsets.
    fn announce(id: u64) -> Vec<u8> {
        let mut packet = vec![0; 98];
        packet[..8].copy_from_slice(&id.to_be_bytes());
        packet[8..12].copy_from_slice(&1u32.to_be_bytes());
        packet[12..16].copy_from_slice(b"tran");
        packet[16..36].copy_from_slice(&TORRENT);
        packet[36..56].copy_from_slice(b"-XX0001-abcdefghijkl");
        packet[92..96].copy_from_slice(&(-1i32).to_be_bytes());
        packet[96..98].copy_from_slice(&6881u16.to_be_bytes());
        packet
    }

    fn with<const N: usize>(mut packet: Vec<u8>, at: usize, bytes: [u8; N]) -> Vec<u8> {
        packet[at..at + N].copy_from_slice(&bytes);
        packet
    }

    fn leecher(id: u64) -> Vec<u8> {
        with(announce(id), 64, 1u64.to_be_bytes())
    }

    fn scrape(id: u64, hashes: &[[u8; 20]]) -> Vec<u8> {
        let head = [&id.to_be_bytes()[..], &2u32.to_be_bytes(), b"tran"].concat();
        [head, hashes.concat()].concat()
    }

    fn error(reason: &str) -> Vec<u8> {
        [b"\x00\x00\x00\x03tran", reason.as_bytes()].concat()
    }

    /// An announce's answer as BEP 15 draws it.
    fn announced(leechers: u32, seeders: u32, peers: &[u8]) -> Vec<u8> {
        let mut answer = b"\x00\x00\x00\x01tran\x00\x00\x07\x08".to_vec();
        answer.extend(leechers.to_be_bytes());
        answer.extend(seeders.to_be_bytes());
        answer.extend(peers);
        answer
    }

    #[test]
    fn connect_is_answered_whatever_follows_it() {
        let site = Site::new();
        for len in [16, 17, 98, PACKET_MAX] {
            let mut packet = connect();
            packet.resize(len, 0xff);
            let (outcome, answer) = site.respond(V4, &packet);
            assert_eq!((outcome, answer.len()), (Outcome::Connected, 16), "{len}");
            assert_eq!(answer[..8], *b"\x00\x00\x00\x00tran");
        }
    }

    #[test]
    fn what_is_no_request_gets_silence() {
        let site = Site::new();
        let silent = |packet: &[u8]| match site.respond(V4, packet).0 {
            Outcome::Silent(silence) => silence,
            answered => panic!("{answered:?}"),
        };
        for len in 0..16 {
            assert_eq!(silent(&connect()[..len]), Silence::Length, "{len}");
        }
        let mut long = connect();
        long.resize(PACKET_MAX + 1, 0);
        assert_eq!(silent(&long), Silence::Length);
        for bit in 0..64 {
            let mut packet = connect();
            packet[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(silent(&packet), Silence::Magic, "{bit}");
        }
        let id = site.id(V4);
        for action in [3u32, 4, 5, 255, 256, 0x0100_0000, u32::MAX] {
            let packet = with(announce(id), 8, action.to_be_bytes());
            assert_eq!(silent(&packet), Silence::Action, "{action}");
            let packet = with(connect(), 8, action.to_be_bytes());
            assert_eq!(silent(&packet), Silence::Action, "{action}");
        }
    }

    #[test]
    fn sources_that_are_no_client_get_silence() {
        let site = Site::new();
        for from in [
            "192.0.2.1:0",
            "[2001:db8::1]:0",
            "0.0.0.0:1",
            "255.255.255.255:1",
            "224.0.0.1:1",
            "239.255.255.255:1",
            "[::]:1",
            "[ff02::1]:1",
            "[::ffff:0.0.0.0]:1",
            "[::ffff:255.255.255.255]:1",
            "[::ffff:224.0.0.1]:1",
        ] {
            let outcome = site.respond(from, &connect()).0;
            assert_eq!(outcome, Outcome::Silent(Silence::Source), "{from}");
        }
        for from in [V4, V6, MAPPED, "127.0.0.1:1", "[::1]:1", "[fe80::1]:65535"] {
            assert_eq!(
                site.respond(from, &connect()).0,
                Outcome::Connected,
                "{from}"
            );
        }
    }

    #[test]
    fn announce_gives_peers_by_the_packets_family() {
        for (from, other, peer) in [
            (V4, "192.0.2.9:1", &b"\xc0\x00\x02\x09\x1a\xe1"[..]),
            (MAPPED, "192.0.2.9:1", b"\xc0\x00\x02\x09\x1a\xe1"),
            (V4, "[::ffff:192.0.2.9]:1", b"\xc0\x00\x02\x09\x1a\xe1"),
            (
                V6,
                "[2001:db8::9]:1",
                b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x09\x1a\xe1",
            ),
        ] {
            let site = Site::new();
            let first = site.ask(other, announce);
            assert_eq!(first, (ANNOUNCED, announced(0, 1, b"")));
            let second = site.ask(from, leecher);
            assert_eq!(second, (ANNOUNCED, announced(1, 1, peer)), "{from}");
            // The other family is told of both, and given neither.
            let third_from = if from == V6 { V4 } else { V6 };
            let third = site.ask(third_from, leecher);
            assert_eq!(third, (ANNOUNCED, announced(2, 1, b"")));
        }
    }

    #[test]
    fn each_field_is_read_from_its_place() {
        for (at, bytes, counts) in [
            // Downloaded and uploaded decide nothing.
            (56, [0xff; 8], [1, 0, 0]),
            (72, [0xff; 8], [1, 0, 0]),
            (64, 0u64.to_be_bytes(), [1, 0, 0]),
            (64, 1u64.to_be_bytes(), [0, 0, 1]),
            (64, (1u64 << 31).to_be_bytes(), [0, 0, 1]),
            (64, (1u64 << 32).to_be_bytes(), [0, 0, 1]),
            (64, (1u64 << 63).to_be_bytes(), [0, 0, 1]),
            (64, u64::MAX.to_be_bytes(), [0, 0, 1]),
        ] {
            let site = Site::new();
            let outcome = site.ask(V4, |id| with(announce(id), at, bytes)).0;
            assert_eq!(
                (outcome, site.counts()),
                (ANNOUNCED, counts),
                "{at} {bytes:?}"
            );
        }
    }

    #[test]
    fn events_count_downloads_and_departures() {
        let site = Site::new();
        let say = |event: u32, left: u64| {
            let request = |id| {
                with(
                    with(announce(id), 80, event.to_be_bytes()),
                    64,
                    left.to_be_bytes(),
                )
            };
            assert_eq!(site.ask(V4, request).0, ANNOUNCED);
            let partial = site.tracker.scrape(&InfoHash(TORRENT)).unwrap().partial;
            (site.counts(), partial)
        };
        assert_eq!(say(2, 9), ([0, 0, 1], 0));
        assert_eq!(say(4, 9), ([0, 0, 1], 1));
        assert_eq!(say(5, 9), ([0, 0, 1], 0));
        assert_eq!(say(u32::MAX, 9), ([0, 0, 1], 0));
        assert_eq!(say(1, 0), ([1, 1, 0], 0));
        assert_eq!(say(1, 0), ([1, 1, 0], 0));
        assert_eq!(say(3, 0), ([0, 1, 0], 0));
        assert_eq!(say(3, 0), ([0, 1, 0], 0));
    }

    #[test]
    fn the_senders_word_for_its_address_is_not_taken() {
        let site = Site::new();
        site.ask("192.0.2.9:1", |id| {
            with(announce(id), 84, [198, 51, 100, 7])
        });
        let (_, answer) = site.ask(V4, leecher);
        assert_eq!(answer, announced(1, 1, b"\xc0\x00\x02\x09\x1a\xe1"));
    }

    #[test]
    fn the_word_of_those_believed_is_taken_for_ipv4() {
        let believed = ["192.0.2.0/24", "2001:db8::/32"].map(|network| network.parse().unwrap());
        let settings = Settings {
            believed: Networks::new(believed.into()),
            ..Settings::default()
        };
        let site = Site::with(settings, tracker::Settings::default());
        let told = |id| with(announce(id), 84, [198, 51, 100, 7]);
        site.ask("192.0.2.9:1", told);
        site.ask("203.0.113.9:1", |id| with(told(id), 96, [0, 1]));
        site.ask("192.0.2.9:1", |id| with(announce(id), 84, [224, 0, 0, 1]));
        let (_, answer) = site.ask(V4, leecher);
        let mut peers: Vec<_> = answer[20..].chunks(6).collect();
        peers.sort_unstable();
        let expected = [
            b"\xc0\x00\x02\x09\x1a\xe1",
            b"\xc6\x33\x64\x07\x1a\xe1",
            b"\xcb\x00\x71\x09\x00\x01",
        ];
        assert_eq!(peers, expected);
        site.ask("[2001:db8::9]:1", announce);
        let (_, answer) = site.ask(V6, |id| with(leecher(id), 84, [198, 51, 100, 8]));
        assert_eq!(answer.len(), 20 + 18);
    }

    /// A site whose torrent has `leechers` of each family, and which gives as many as fit.
    fn crowded(settings: Settings, leechers: u16, numwant: u32) -> Site {
        let tracking = tracker::Settings {
            numwant,
            max_numwant: 1000,
            max_peers_per_network: 1000,
            ..tracker::Settings::default()
        };
        let site = Site::with(settings, tracking);
        for port in 1..=leechers {
            for from in ["192.0.2.200:1", "[2001:db8::200]:1"] {
                site.ask(from, |id| with(leecher(id), 96, port.to_be_bytes()));
            }
        }
        site
    }

    #[test]
    fn num_want_is_signed_and_capped() {
        let site = crowded(Settings::default(), 100, 50);
        for (num_want, peers) in [
            (-1, 50),
            (i32::MIN, 50),
            (0, 0),
            (1, 1),
            (99, 99),
            (200, 100),
            (i32::MAX, 100),
        ] {
            let (_, answer) = site.ask(V4, |id| with(announce(id), 92, num_want.to_be_bytes()));
            assert_eq!(answer.len(), 20 + 6 * peers, "{num_want}");
        }
    }

    #[test]
    fn answers_fit_the_payload() {
        for (max_payload, v4, v6) in [(1232, 202, 67), (128, 18, 6), (1231, 201, 67), (0, 0, 0)] {
            let settings = Settings {
                max_payload,
                ..Settings::default()
            };
            let site = crowded(settings, 300, 1000);
            for num_want in [-1, 203, 1000] {
                for (from, peers, endpoint) in [(V4, v4, 6), (V6, v6, 18), (MAPPED, v4, 6)] {
                    let request = |id| with(announce(id), 92, i32::to_be_bytes(num_want));
                    let (_, answer) = site.ask(from, request);
                    assert_eq!(answer.len(), 20 + endpoint * peers, "{max_payload} {from}");
                    let mut given: Vec<_> = answer[20..].chunks_exact(endpoint).collect();
                    given.sort_unstable();
                    given.dedup();
                    assert_eq!(given.len(), peers);
                }
            }
        }
    }

    #[test]
    fn refused_torrents_get_an_error() {
        let site = Site::new();
        site.tracker.admit(&InfoHash(OTHER), Admission::Denied);
        for (hash, refusal) in [
            ([9; 20], Refusal::UnknownTorrent),
            (OTHER, Refusal::DeniedTorrent),
        ] {
            let (outcome, answer) = site.ask(V4, |id| with(announce(id), 16, hash));
            assert_eq!(outcome, Outcome::Refused(refusal.clone()));
            assert_eq!(answer, error(refusal.reason()));
        }
    }

    #[test]
    fn the_operators_words_are_cut_to_fit() {
        let header = Header::parse(&connect()).unwrap();
        for (reason, told) in [
            ("x".repeat(248), 248),
            ("x".repeat(249), 248),
            ("é".repeat(200), 248),
            ("xé".repeat(200), 247),
        ] {
            let mut out = Vec::new();
            write_error(&mut out, &header, &reason);
            assert_eq!(out, error(&reason[..told]));
        }
    }

    #[test]
    fn malformed_requests_of_proven_senders_get_an_error() {
        let site = Site::new();
        let expect = |malformed: InvalidPacket, request: &dyn Fn(u64) -> Vec<u8>| {
            let answer = site.ask(V4, request);
            assert_eq!(
                answer,
                (Outcome::Invalid(malformed), error(malformed.reason()))
            );
        };
        for len in 16..98 {
            expect(InvalidPacket::AnnounceTooShort, &|id| {
                announce(id)[..len].to_vec()
            });
        }
        expect(InvalidPacket::PortZero, &|id| {
            with(announce(id), 96, [0, 0])
        });
        expect(InvalidPacket::ScrapeEmpty, &|id| scrape(id, &[]));
        for len in (17..PACKET_MAX).filter(|len| (len - 16) % 20 != 0) {
            expect(InvalidPacket::ScrapeUneven, &|id| {
                scrape(id, &[TORRENT; 102])[..len].to_vec()
            });
        }
        assert_eq!(site.counts(), [0, 0, 0]);
    }

    #[test]
    fn scrape_answers_each_hash_in_its_place() {
        for from in [V4, V6] {
            let site = Site::new();
            site.ask(V4, |id| with(announce(id), 80, 1u32.to_be_bytes()));
            site.ask(V6, leecher);
            site.tracker.admit(&InfoHash(OTHER), Admission::Denied);
            let hashes = [[0xff; 20], TORRENT, OTHER, TORRENT, [0; 20]];
            let (outcome, answer) = site.ask(from, |id| scrape(id, &hashes));
            let tracked = [0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1];
            let expected = [[0; 12], tracked, [0; 12], tracked, [0; 12]].concat();
            assert_eq!(outcome, Outcome::Scraped);
            assert_eq!(answer, [b"\x00\x00\x00\x02tran", &expected[..]].concat());
        }
    }

    #[test]
    fn scrape_tells_of_74_at_most() {
        let site = Site::new();
        site.ask(V4, announce);
        for (asked, told) in [(1, 1), (2, 2), (73, 73), (74, 74), (75, 74), (101, 74)] {
            let (outcome, answer) = site.ask(V4, |id| scrape(id, &vec![TORRENT; asked]));
            assert_eq!(
                (outcome, answer.len()),
                (Outcome::Scraped, 8 + 12 * told),
                "{asked}"
            );
            assert!(answer[8..].chunks(12).all(|entry| entry == &answer[8..20]));
        }
        let settings = Settings {
            max_payload: 128,
            ..Settings::default()
        };
        let site = Site::with(settings, tracker::Settings::default());
        let (_, answer) = site.ask(V4, |id| scrape(id, &[TORRENT; 74]));
        assert_eq!(answer.len(), 8 + 12 * 10);
    }

    #[test]
    fn a_host_on_two_families_and_two_protocols_counts_once() {
        let site = Site::new();
        let settings = http::Settings {
            believed: Networks::default(),
            max_scrape: 1,
            full_scrape: false,
        };
        let query = b"info_hash=a%20torrent%27s%2020%20bytes&peer_id=-XX0001-abcdefghijkl\
            &port=6881&left=0&key=00ABCDEF";
        let outcome = http::respond(
            &site.tracker,
            &settings,
            NOW,
            V6.parse::<SocketAddr>().ok().map(|from| from.ip()),
            http::Action::Announce,
            query,
            &mut http::Reply::default(),
        );
        assert!(matches!(outcome, http::Outcome::Announced(..)));
        let keyed = |id| with(announce(id), 88, 0x00ab_cdef_u32.to_be_bytes());
        let (_, answer) = site.ask(V4, keyed);
        assert_eq!(answer, announced(0, 1, b""));
        // Without a key, or with another, it may be anyone.
        site.ask("192.0.2.2:1", |id| with(announce(id), 88, [0; 4]));
        site.ask("192.0.2.3:1", |id| with(announce(id), 88, [1; 4]));
        assert_eq!(site.counts(), [3, 0, 0]);
    }

    #[test]
    fn bad_ids_get_silence_or_less_than_they_sent() {
        let silent = Site::new();
        let telling = Site::with(
            Settings {
                bad_ids: InvalidConnectionIds::Error,
                ..Settings::default()
            },
            tracker::Settings::default(),
        );
        for bad in [
            0,
            1,
            MAGIC,
            u64::MAX,
            silent.id("192.0.2.2:1001"),
            silent.id(V6),
        ] {
            for len in 16..=PACKET_MAX {
                for action in [1u32, 2] {
                    let mut packet = with(announce(bad), 8, action.to_be_bytes());
                    packet.resize(len, 0);
                    let outcome = silent.respond(V4, &packet).0;
                    assert_eq!(outcome, Outcome::Silent(Silence::BadId));
                    let (outcome, answer) = telling.respond(V4, &packet);
                    assert_eq!((outcome, &answer), (Outcome::BadId, &error("bad id")));
                    assert!(answer.len() <= len);
                }
            }
        }
        assert_eq!(silent.counts(), [0, 0, 0]);
    }

    #[test]
    fn an_id_is_good_for_the_lifetime_from_any_port() {
        let site = Site::new();
        let id = site.id(V4);
        for (seconds, port, outcome) in [
            (0, 1, ANNOUNCED),
            (60, 2, ANNOUNCED),
            (119, 65535, ANNOUNCED),
            (120, 1001, ANNOUNCED),
            (121, 1001, Outcome::Silent(Silence::BadId)),
        ] {
            let from = (Ipv4Addr::new(192, 0, 2, 1), port).into();
            let later = UnixTime(UNIX.0 + seconds);
            assert_eq!(
                site.respond_at(later, from, &announce(id)).0,
                outcome,
                "{seconds}"
            );
        }
    }

    #[test]
    fn options_change_nothing() {
        let site = Site::new();
        site.ask("192.0.2.9:1", announce);
        let plain = site.ask(V4, leecher);
        for options in [
            &b"\x00"[..],
            b"\x01\x01\x00",
            b"\x02",
            b"\x02\x00",
            b"\x02\x09/announce",
            b"\x02\x05/anno\x02\x04unce\x00",
            b"\x02\xff/cut",
            b"\x03\x00\xff\x01\x00",
            &[0xff; PACKET_MAX - 98],
        ] {
            let answer = site.ask(V4, |id| [&leecher(id), options].concat());
            assert_eq!(answer, plain, "{options:?}");
        }
    }

    #[test]
    fn url_data_is_joined_across_pieces() {
        for (options, url) in [
            (&b""[..], &b""[..]),
            (b"\x00\x02\x01x", b""),
            (b"\x02\x00", b""),
            (b"\x02\x09/announce", b"/announce"),
            (b"\x02\x05/anno\x02\x04unce\x00\x02\x01x", b"/announce"),
            (
                b"\x01\x02\x01/\x01\x01\x03\x02zz\xff\x00\x02\x01a\x01",
                b"/a",
            ),
            (b"\x02\x01/\x02", b"/"),
            (b"\x02\x01/\x02\x05cut", b"/"),
            (b"\x02\x01/\x09\x05cut", b"/"),
        ] {
            let packet = [announce(0), options.to_vec()].concat();
            let read: Vec<u8> = url_data(&packet).flatten().copied().collect();
            assert_eq!(read, url, "{options:?}");
        }
        for len in 0..98 {
            assert_eq!(url_data(&announce(0)[..len]).count(), 0);
        }
        let longest = [announce(0), b"\x02\xff".to_vec(), vec![b'a'; 255]].concat();
        assert_eq!(url_data(&longest).flatten().count(), 255);
    }

    #[test]
    fn no_packet_of_any_length_gets_more_than_it_may() {
        let open = tracker::Settings {
            open: true,
            max_numwant: 1000,
            ..tracker::Settings::default()
        };
        for bad_ids in [InvalidConnectionIds::Silence, InvalidConnectionIds::Error] {
            let settings = Settings {
                bad_ids,
                ..Settings::default()
            };
            let site = Site::with(settings, open.clone());
            let mut random = Rng::new(15);
            let mut answered = [0; 2];
            for round in 0..60_000 {
                let len = round % (PACKET_MAX + 2);
                let mut packet: Vec<u8> = (0..len.div_ceil(8))
                    .flat_map(|_| random.next_u64().to_be_bytes())
                    .take(len)
                    .collect();
                let from = if random.below(2) == 0 { V4 } else { V6 };
                // Most of random's own heads would be thrown away at once.
                let proven = random.below(2) == 0;
                let id = match random.below(3) {
                    _ if proven => site.id(from),
                    0 => MAGIC,
                    1 => site.id(if from == V4 { V6 } else { V4 }),
                    _ => random.next_u64(),
                };
                if random.below(8) != 0 && len >= 16 {
                    packet = with(packet, 0, id.to_be_bytes());
                    packet = with(packet, 8, random.below(5).to_be_bytes());
                }
                let proven = proven && packet.first_chunk() == Some(&id.to_be_bytes());
                let (outcome, answer) = site.respond(from, &packet);
                let most = if proven { 1232 } else { packet.len() };
                assert!(answer.len() <= most, "{round}: {outcome:?} to {packet:?}");
                answered[usize::from(proven)] += usize::from(!answer.is_empty());
            }
            assert!(answered.iter().all(|&n| n > 1000), "{answered:?}");
        }
    }
}
