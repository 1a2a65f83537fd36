//! HTTP requests: parses the path, and the query of an announce.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;

use crate::bytes::hex_digit;
use crate::tracker::types::{Announce, Event, InfoHash, Key, PeerId};

/// The kind of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    Announce,
    Scrape,
}

/// The paths of announces and scrapes. The scrape path is derived from the announce path (BEP 48).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Paths {
    announce: String,
    scrape: String,
}

impl Paths {
    /// Derives the scrape path by replacing `announce` in the last segment. Returns `None` unless the path starts with `/`
    /// and its last segment starts with `announce`.
    pub fn new(announce: &str) -> Option<Self> {
        let (folder, name) = announce.rsplit_once('/')?;
        let suffix = name.strip_prefix("announce")?;
        let scrape = format!("{folder}/scrape{suffix}");
        announce.starts_with('/').then(|| Self {
            announce: announce.to_owned(),
            scrape,
        })
    }

    /// Returns the kind of request for a path, or `None` for any other path. A slash at the end is ignored.
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

/// The reason why a request is not valid. The client receives the reason as a failure in HTTP status 200.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InvalidRequest {
    QueryTooLong,
    InfoHashMissing,
    InfoHashWrong,
    PeerIdMissing,
    PeerIdWrong,
    PortWrong,
    ScrapeWithoutInfoHash,
    AddressUnknown,
}

impl InvalidRequest {
    /// Returns the text that the client shows to its user.
    pub fn reason(self) -> &'static str {
        match self {
            Self::QueryTooLong => "the query is longer than 8192 bytes",
            Self::InfoHashMissing => "info_hash is missing",
            Self::InfoHashWrong => "info_hash is not 20 percent-encoded bytes",
            Self::PeerIdMissing => "peer_id is missing",
            Self::PeerIdWrong => "peer_id is not 20 percent-encoded bytes",
            Self::PortWrong => "port is missing or not a number from 1 to 65535",
            Self::AddressUnknown => "the proxy in front of the tracker did not report your address",
            Self::ScrapeWithoutInfoHash => "a scrape needs an info_hash",
        }
    }
}

/// An announce, and the format of its response.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct AnnounceRequest {
    pub(super) announce: Announce,
    /// Whether peers are written as a single string (BEP 23) or as a list of dictionaries (BEP 3).
    pub(super) compact: bool,
}

impl AnnounceRequest {
    /// Parses the query of an announce from `from`. If a key is repeated, the first value is used.
    ///
    /// An optional key with a malformed value counts as missing. The address parameters are read only if
    /// `trust_ip_params` is true.
    ///
    /// # Errors
    /// If `info_hash`, `peer_id` or `port` is missing or malformed.
    pub(super) fn parse(
        query: &[u8],
        from: IpAddr,
        trust_ip_params: bool,
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
                b"ip" if trust_ip_params => &mut ip,
                b"ipv4" if trust_ip_params => &mut ipv4,
                b"ipv6" if trust_ip_params => &mut ipv6,
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
        // Clients add their address of the other family to each announce (BEP 7), but also announce over that family. So
        // of `ipv4` and `ipv6` only the parameter of the connection's own family counts.
        let parameter = ip.or(if from.is_ipv4() { ipv4 } else { ipv6 });
        let announce = Announce {
            info_hash: InfoHash(info_hash),
            peer_id: PeerId(peer_id),
            key: key.and_then(parse_key),
            address: parameter.and_then(parse_address).unwrap_or(from),
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

/// Returns the `name=value` pairs of a query. A name without `=` has an empty value.
pub(super) fn pairs(query: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    query
        .split(|&byte| byte == b'&')
        .map(|pair| match pair.iter().position(|&byte| byte == b'=') {
            Some(equals) => (&pair[..equals], &pair[equals + 1..]),
            None => (pair, &[][..]),
        })
}

/// Percent-decodes exactly 20 bytes. A `+` stays a `+`: no client means a space by it in these keys.
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

/// Parses an address, or an endpoint and returns its address (BEP 7). Returns `None` if no peer can have the address.
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

/// Parses a `u64` that consists of digits only.
fn decimal(value: &[u8]) -> Option<u64> {
    let digits = (!value.is_empty()).then_some(value)?;
    digits.iter().try_fold(0_u64, |number, digit| {
        let digit = char::from(*digit).to_digit(10)?;
        number.checked_mul(10)?.checked_add(digit.into())
    })
}

/// Parses a number of peers that consists of digits only. A number over `u32::MAX` counts as `u32::MAX`, which is more than
/// any response holds. A negative number counts as missing: the tracker chooses.
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

/// Parses a client's key. Over UDP a key is a 32-bit number, which clients write as up to 8 hex digits over HTTP. Other
/// text is hashed to 32 bits.
fn parse_key(value: &[u8]) -> Option<Key> {
    let hex = (value.len() <= 8)
        .then(|| {
            value.iter().try_fold(0, |key, &digit| {
                Some(key << 4 | u32::from(hex_digit(digit)?))
            })
        })
        .flatten();
    // FNV-1a is enough, because the tracker hashes the key with a secret before use.
    let hashed = || {
        value.iter().fold(0x811c_9dc5, |key: u32, &byte| {
            (key ^ u32::from(byte)).wrapping_mul(0x0100_0193)
        })
    };
    let key = hex.unwrap_or_else(hashed);
    (key != 0 && !value.is_empty()).then_some(Key(key))
}
