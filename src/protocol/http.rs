//! HTTP announce and scrape: a query string in, bencode out (BEP 3, 7, 21, 23, 24, 31, 48).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU16;

use crate::tracker::access::Networks;
use crate::tracker::{
    Announce, Answer, Event, InfoHash, Key, PeerId, Refusal, Retry, ScrapeEntry, Time, Tracker,
};

/// The longest query that is read; a scrape of the 74 torrents that fit one UDP packet has 5,400 bytes.
const QUERY_MAX: usize = 8192;

/// What a request's path asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    Announce,
    Scrape,
}

/// Which paths are served: announce's, and scrape's as derived from it (BEP 48).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Paths {
    announce: String,
    scrape: String,
}

impl Paths {
    /// `None` unless the path starts with `/` and its last segment with `announce`.
    pub fn new(announce: &str) -> Option<Self> {
        let (folder, name) = announce.rsplit_once('/')?;
        let suffix = name.strip_prefix("announce")?;
        let scrape = format!("{folder}/scrape{suffix}");
        announce.starts_with('/').then(|| Self {
            announce: announce.to_owned(),
            scrape,
        })
    }

    /// A slash at the end changes nothing.
    pub fn action(&self, path: &str) -> Option<Action> {
        let path = path.strip_suffix('/').unwrap_or(path);
        if path == self.announce {
            Some(Action::Announce)
        } else if path == self.scrape {
            Some(Action::Scrape)
        } else {
            None
        }
    }

    pub fn announce(&self) -> &str {
        &self.announce
    }
}

/// What the operator decides about requests.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whose word is taken for where a peer is (`ip`, `ipv4`, `ipv6`): the operator's own seeds. Anyone else could have the
    /// world connect to a victim.
    pub believed: Networks,
    /// The most torrents that one scrape tells of; what comes after is passed over.
    pub max_scrape: usize,
    /// Answer a scrape that names no torrent with all of them.
    pub full_scrape: bool,
}

/// What was made of a request, for the server to count.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    Announced,
    Scraped,
    Refused(Refusal),
    Malformed(Malformed),
}

/// Why a request could not be read. The client is told, as an answer of its protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Malformed {
    QueryTooLong,
    InfoHashMissing,
    InfoHashWrong,
    PeerIdMissing,
    PeerIdWrong,
    PortWrong,
    FullScrape,
    AddressUnknown,
}

impl Malformed {
    /// What the client's user reads.
    pub fn reason(self) -> &'static str {
        match self {
            Self::QueryTooLong => "the query is longer than 8192 bytes",
            Self::InfoHashMissing => "info_hash is missing",
            Self::InfoHashWrong => "info_hash is not 20 percent-encoded bytes",
            Self::PeerIdMissing => "peer_id is missing",
            Self::PeerIdWrong => "peer_id is not 20 percent-encoded bytes",
            Self::PortWrong => "port is missing or not a number from 1 to 65535",
            Self::AddressUnknown => "the proxy in front of the tracker did not tell your address",
            Self::FullScrape => "a scrape needs an info_hash",
        }
    }
}

/// Where the answer is written. Kept from one request to the next, so that answering allocates nothing.
#[derive(Default)]
pub struct Reply {
    /// One bencoded dictionary.
    pub body: Vec<u8>,
    /// Compact endpoints, before they are written.
    peers: Vec<u8>,
    /// What a scrape asks for.
    hashes: Vec<InfoHash>,
}

/// Answers one request from `from`, `None` where a proxy did not say: `reply.body` is what goes back, with HTTP status 200 whatever the outcome, as clients read no
/// other's body.
pub fn respond(
    tracker: &Tracker,
    settings: &Settings,
    now: Time,
    from: Option<IpAddr>,
    action: Action,
    query: &[u8],
    reply: &mut Reply,
) -> Outcome {
    reply.body.clear();
    let result = match (from, action) {
        _ if query.len() > QUERY_MAX => Err(Malformed::QueryTooLong),
        (None, _) => Err(Malformed::AddressUnknown),
        (Some(from), Action::Announce) => {
            announce(tracker, settings, now, from.to_canonical(), query, reply)
        }
        (Some(from), Action::Scrape) => {
            scrape(tracker, settings, now, from.to_canonical(), query, reply)
        }
    };
    result.unwrap_or_else(|malformed| {
        write_failure(&mut reply.body, malformed.reason(), None);
        Outcome::Malformed(malformed)
    })
}

fn announce(
    tracker: &Tracker,
    settings: &Settings,
    now: Time,
    from: IpAddr,
    query: &[u8],
    reply: &mut Reply,
) -> Result<Outcome, Malformed> {
    let request = AnnounceRequest::parse(query, from, settings.believed.hold(from))?;
    reply.peers.clear();
    Ok(
        match tracker.announce(now, &request.announce, &mut reply.peers) {
            Ok(answer) => {
                write_answer(
                    &mut reply.body,
                    from,
                    &answer,
                    &reply.peers,
                    request.compact,
                );
                Outcome::Announced
            }
            Err(refusal) => {
                write_failure(&mut reply.body, refusal.reason(), Some(&refusal));
                Outcome::Refused(refusal)
            }
        },
    )
}

fn scrape(
    tracker: &Tracker,
    settings: &Settings,
    now: Time,
    from: IpAddr,
    query: &[u8],
    reply: &mut Reply,
) -> Result<Outcome, Malformed> {
    if let Err(refusal) = tracker.admit_scrape(now, from) {
        write_failure(&mut reply.body, refusal.reason(), Some(&refusal));
        return Ok(Outcome::Refused(refusal));
    }
    reply.hashes.clear();
    for (_, value) in pairs(query)
        .filter(|(key, _)| *key == b"info_hash")
        .take(settings.max_scrape)
    {
        reply.hashes.push(InfoHash(
            twenty_bytes(value).ok_or(Malformed::InfoHashWrong)?,
        ));
    }
    let out = &mut reply.body;
    out.extend_from_slice(b"d5:filesd");
    if !reply.hashes.is_empty() {
        reply.hashes.sort_unstable();
        reply.hashes.dedup();
        for info_hash in &reply.hashes {
            if let Some(entry) = tracker.scrape(info_hash) {
                write_scraped(out, info_hash, &entry);
            }
        }
    } else if settings.full_scrape {
        let mut all = Vec::new();
        tracker.for_each_torrent(|info_hash, entry| all.push((*info_hash, entry)));
        all.sort_unstable_by_key(|(info_hash, _)| *info_hash);
        all.iter()
            .for_each(|(info_hash, entry)| write_scraped(out, info_hash, entry));
    } else {
        out.clear();
        return Err(Malformed::FullScrape);
    }
    out.extend_from_slice(b"ee");
    Ok(Outcome::Scraped)
}

/// An announce and how its answer is to look.
#[derive(PartialEq, Eq, Debug)]
struct AnnounceRequest {
    announce: Announce,
    /// Peers as one string (BEP 23); if not, as a list of dictionaries.
    compact: bool,
}

impl AnnounceRequest {
    /// Takes the first of each key. What a client may leave out and what it garbles counts as not sent; but for these
    /// three, without which there is nothing to track. The client's word for its address is taken if it is `believed`.
    fn parse(query: &[u8], from: IpAddr, believed: bool) -> Result<Self, Malformed> {
        let [
            mut info_hash,
            mut peer_id,
            mut port,
            mut left,
            mut event,
            mut numwant,
            mut key,
            mut compact,
        ] = [None; 8];
        let [mut ip, mut ipv4, mut ipv6] = [None; 3];
        for (name, value) in pairs(query) {
            let field = match name {
                b"info_hash" => &mut info_hash,
                b"peer_id" => &mut peer_id,
                b"port" => &mut port,
                b"left" => &mut left,
                b"event" => &mut event,
                b"numwant" => &mut numwant,
                b"key" => &mut key,
                b"compact" => &mut compact,
                b"ip" if believed => &mut ip,
                b"ipv4" if believed => &mut ipv4,
                b"ipv6" if believed => &mut ipv6,
                _ => continue,
            };
            field.get_or_insert(value);
        }
        let info_hash = twenty_bytes(info_hash.ok_or(Malformed::InfoHashMissing)?)
            .ok_or(Malformed::InfoHashWrong)?;
        let peer_id =
            twenty_bytes(peer_id.ok_or(Malformed::PeerIdMissing)?).ok_or(Malformed::PeerIdWrong)?;
        let port = port
            .and_then(decimal)
            .and_then(|port| u16::try_from(port).ok())
            .and_then(NonZeroU16::new);
        let announce = Announce {
            info_hash: InfoHash(info_hash),
            peer_id: PeerId(peer_id),
            key: key.and_then(parse_key),
            address: ip.or(ipv4).or(ipv6).and_then(parse_address).unwrap_or(from),
            port: port.ok_or(Malformed::PortWrong)?,
            event: event.map_or(Event::None, parse_event),
            complete: left.and_then(decimal) == Some(0),
            numwant: numwant.and_then(parse_numwant),
        };
        Ok(Self {
            announce,
            compact: compact != Some(b"0"),
        })
    }
}

/// The `name=value` pairs of a query; a name alone has an empty value.
fn pairs(query: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    query
        .split(|&byte| byte == b'&')
        .map(|pair| match pair.iter().position(|&byte| byte == b'=') {
            Some(equals) => (&pair[..equals], &pair[equals + 1..]),
            None => (pair, &[][..]),
        })
}

/// Exactly 20 bytes after one percent-decoding. A `+` is a `+`: in these keys no client means a space by it.
fn twenty_bytes(value: &[u8]) -> Option<[u8; 20]> {
    let mut bytes = [0; 20];
    let mut rest = value;
    for byte in &mut bytes {
        (*byte, rest) = match rest {
            [b'%', high, low, rest @ ..] => (hex_digit(*high)? << 4 | hex_digit(*low)?, rest),
            [b'%', ..] | [] => return None,
            [raw, rest @ ..] => (*raw, rest),
        };
    }
    rest.is_empty().then_some(bytes)
}

/// An address, or an endpoint of which the address is taken (BEP 7).
fn parse_address(value: &[u8]) -> Option<IpAddr> {
    let mut text = Vec::with_capacity(value.len());
    let mut rest = value;
    while let [byte, after @ ..] = rest {
        let escaped = match rest {
            [b'%', high, low, after @ ..] => {
                Some((hex_digit(*high)? << 4 | hex_digit(*low)?, after))
            }
            _ => None,
        };
        let (byte, after) = escaped.unwrap_or((*byte, after));
        text.push(byte);
        rest = after;
    }
    let text = std::str::from_utf8(&text).ok()?;
    let endpoint = || text.parse().map(|endpoint: SocketAddr| endpoint.ip());
    let address: IpAddr = text.parse().or_else(|_| endpoint()).ok()?;
    Some(address.to_canonical())
        .filter(|address| !address.is_unspecified() && !address.is_multicast())
}

fn hex_digit(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

/// Digits alone, of at most a `u64`.
fn decimal(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// Digits alone, however many: more than there is to give is all there is. Negative numbers leave it to the tracker.
fn parse_numwant(value: &[u8]) -> Option<u32> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(
        decimal(value)
            .and_then(|want| u32::try_from(want).ok())
            .unwrap_or(u32::MAX),
    )
}

fn parse_event(value: &[u8]) -> Event {
    match value {
        b"started" => Event::Started,
        b"completed" => Event::Completed,
        b"stopped" => Event::Stopped,
        b"paused" => Event::Paused,
        _ => Event::None,
    }
}

/// Clients write the key that they send over UDP as 32 bits in up to 8 hex digits here; any other text is folded to 32 bits.
fn parse_key(value: &[u8]) -> Option<Key> {
    let hex = (value.len() <= 8)
        .then(|| {
            value.iter().try_fold(0, |key, &digit| {
                Some(key << 4 | u32::from(hex_digit(digit)?))
            })
        })
        .flatten();
    // FNV-1a: the key is hashed with a secret before it is used.
    let folded = || {
        value.iter().fold(0x811c_9dc5, |key: u32, &byte| {
            (key ^ u32::from(byte)).wrapping_mul(0x0100_0193)
        })
    };
    let key = hex.unwrap_or_else(folded);
    (key != 0 && !value.is_empty()).then_some(Key(key))
}

/// Keys in bencode's order; `peers` always, as some clients fail without it.
fn write_answer(out: &mut Vec<u8>, from: IpAddr, answer: &Answer, peers: &[u8], compact: bool) {
    out.extend_from_slice(b"d8:completei");
    write_decimal(out, answer.counts.complete);
    out.extend_from_slice(b"e10:downloadedi");
    write_decimal(out, answer.counts.downloaded);
    out.extend_from_slice(b"e11:external ip");
    match from {
        IpAddr::V4(address) => write_bytes(out, &address.octets()),
        IpAddr::V6(address) => write_bytes(out, &address.octets()),
    }
    out.extend_from_slice(b"10:incompletei");
    write_decimal(out, answer.counts.incomplete);
    out.extend_from_slice(b"e8:intervali");
    write_decimal(out, answer.interval);
    out.extend_from_slice(b"e12:min intervali");
    write_decimal(out, answer.min_interval);
    out.extend_from_slice(b"e5:peers");
    match (compact, from) {
        (true, IpAddr::V4(_)) => write_bytes(out, peers),
        (true, IpAddr::V6(_)) => {
            out.extend_from_slice(b"0:6:peers6");
            write_bytes(out, peers);
        }
        (false, _) => write_dictionaries(out, from, peers),
    }
    if let Some(warning) = &answer.warning {
        out.extend_from_slice(b"15:warning message");
        write_bytes(out, warning.as_bytes());
    }
    out.push(b'e');
}

/// The peers as BEP 3 has them, without ids, which a tracker need not know.
fn write_dictionaries(out: &mut Vec<u8>, from: IpAddr, peers: &[u8]) {
    out.push(b'l');
    let address_len = if from.is_ipv4() { 4 } else { 16 };
    for (address, port) in peers
        .chunks_exact(address_len + 2)
        .map(|peer| peer.split_at(address_len))
    {
        let address = match (<[u8; 4]>::try_from(address), <[u8; 16]>::try_from(address)) {
            (Ok(v4), _) => Ipv4Addr::from(v4).to_string(),
            (_, Ok(v6)) => Ipv6Addr::from(v6).to_string(),
            _ => continue,
        };
        out.extend_from_slice(b"d2:ip");
        write_bytes(out, address.as_bytes());
        out.extend_from_slice(b"4:porti");
        write_decimal(out, u32::from(port[0]) << 8 | u32::from(port[1]));
        out.extend_from_slice(b"ee");
    }
    out.push(b'e');
}

fn write_scraped(out: &mut Vec<u8>, info_hash: &InfoHash, entry: &ScrapeEntry) {
    write_bytes(out, &info_hash.0);
    out.extend_from_slice(b"d8:completei");
    write_decimal(out, entry.complete);
    out.extend_from_slice(b"e10:downloadedi");
    write_decimal(out, entry.downloaded);
    out.extend_from_slice(b"e11:downloadersi");
    write_decimal(out, entry.incomplete - entry.partial);
    out.extend_from_slice(b"e10:incompletei");
    write_decimal(out, entry.incomplete);
    out.extend_from_slice(b"ee");
}

/// A refusal tells when to come again twice: few clients know `retry in` (BEP 31), more of them honour `interval`.
fn write_failure(out: &mut Vec<u8>, reason: &str, refusal: Option<&Refusal>) {
    out.extend_from_slice(b"d14:failure reason");
    write_bytes(out, reason.as_bytes());
    if let Some(refusal) = refusal {
        out.extend_from_slice(b"8:intervali");
        write_decimal(out, refusal.interval());
        out.extend_from_slice(b"e12:min intervali");
        write_decimal(out, refusal.interval());
        out.extend_from_slice(b"e8:retry in");
        match refusal.retry() {
            Retry::Never => write_bytes(out, b"never"),
            Retry::Minutes(minutes) => {
                write_bytes(out, itoa::Buffer::new().format(minutes).as_bytes())
            }
        }
    }
    out.push(b'e');
}

fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    write_decimal(out, bytes.len() as u32);
    out.push(b':');
    out.extend_from_slice(bytes);
}

fn write_decimal(out: &mut Vec<u8>, number: u32) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}
