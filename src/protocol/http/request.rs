//! HTTP requests: which path is asked for, and the query of an announce.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;

use crate::bytes::hex_digit;
use crate::tracker::types::{Announce, Event, InfoHash, Key, PeerId};

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

/// Why a request could not be read. The client is told, as an answer of its protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InvalidRequest {
    QueryTooLong,
    InfoHashMissing,
    InfoHashWrong,
    PeerIdMissing,
    PeerIdWrong,
    PortWrong,
    FullScrape,
    AddressUnknown,
}

impl InvalidRequest {
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

/// An announce and how its answer is to look.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct AnnounceRequest {
    pub(super) announce: Announce,
    /// Peers as one string (BEP 23); if not, as a list of dictionaries.
    pub(super) compact: bool,
}

impl AnnounceRequest {
    /// Takes the first of each key. What a client may leave out and what it garbles counts as not sent; but for these
    /// three, without which there is nothing to track. The client's word for its address is taken if it is `believed`.
    pub(super) fn parse(
        query: &[u8],
        from: IpAddr,
        believed: bool,
    ) -> Result<Self, InvalidRequest> {
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
        let info_hash = twenty_bytes(info_hash.ok_or(InvalidRequest::InfoHashMissing)?)
            .ok_or(InvalidRequest::InfoHashWrong)?;
        let peer_id = twenty_bytes(peer_id.ok_or(InvalidRequest::PeerIdMissing)?)
            .ok_or(InvalidRequest::PeerIdWrong)?;
        let port = port
            .and_then(decimal)
            .and_then(|port| u16::try_from(port).ok())
            .and_then(NonZeroU16::new);
        // Clients add their address of the other family to each announce (BEP 7), and announce over that as well.
        let told = ip.or(if from.is_ipv4() { ipv4 } else { ipv6 });
        let announce = Announce {
            info_hash: InfoHash(info_hash),
            peer_id: PeerId(peer_id),
            key: key.and_then(parse_key),
            address: told.and_then(parse_address).unwrap_or(from),
            port: port.ok_or(InvalidRequest::PortWrong)?,
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
pub(super) fn pairs(query: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    query
        .split(|&byte| byte == b'&')
        .map(|pair| match pair.iter().position(|&byte| byte == b'=') {
            Some(equals) => (&pair[..equals], &pair[equals + 1..]),
            None => (pair, &[][..]),
        })
}

/// Exactly 20 bytes after one percent-decoding. A `+` is a `+`: in these keys no client means a space by it.
pub(super) fn twenty_bytes(value: &[u8]) -> Option<[u8; 20]> {
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

/// Digits alone, of at most a `u64`.
fn decimal(value: &[u8]) -> Option<u64> {
    let digits = (!value.is_empty()).then_some(value)?;
    digits.iter().try_fold(0_u64, |number, digit| {
        let digit = char::from(*digit).to_digit(10)?;
        number.checked_mul(10)?.checked_add(digit.into())
    })
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
