//! HTTP announces and scrapes: takes a query string and writes a bencoded response (BEP 3, 7, 21, 23, 24, 31, 48).

pub mod request;
mod response;

use crate::bytes::hex_digit;
use crate::tracker::access::Networks;
use crate::tracker::types::AnnounceEffect;
use crate::tracker::{
    Announce, AnnounceResponse, Event, InfoHash, Key, PeerId, Refusal, Retry, ScrapeEntry, Time,
    Tracker,
};
use crate::protocol::http::response::{write_answer, write_failure, write_scrape_entry};
use crate::tracker::Tracker;
use crate::tracker::access::Networks;
use crate::tracker::types::{Announce, AnnounceEffect, InfoHash, Refusal, Time};

/// Maximum length of a query in bytes. A scrape of 74 torrents, the number that fits a UDP packet, has 5,400 bytes.
const MAX_QUERY_LEN: usize = 8192;

/// The operator's settings for announces and scrapes over HTTP.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Networks whose `ip`, `ipv4` and `ipv6` parameters are honored: the operator's own seeders. Any other client could
    /// use the parameters to direct the connections of all peers at a victim.
    pub trust_ip_params_from: Networks,
    /// Maximum number of torrents in the response to a scrape. Further torrents of the request are ignored.
    pub max_scrape: usize,
    /// Whether a scrape without an info-hash returns all torrents. If not, such a scrape fails.
    pub full_scrape: bool,
}

/// The result of a request, for the server to count.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HttpOutcome {
    Announced(Announce, AnnounceEffect),
    Scraped,
    Refused(Refusal),
    Invalid(InvalidRequest),
}

/// Buffers for a response. A worker reuses them for each request, so that a response needs no allocation.
#[derive(Default)]
pub struct ResponseBuffer {
    /// The response: a bencoded dictionary.
    pub body: Vec<u8>,
    /// Compact endpoints from the tracker, before they are written to the body.
    peers: Vec<u8>,
    /// Info-hashes of a scrape.
    hashes: Vec<InfoHash>,
}

/// Responds to a request from `from`, which is `None` if a proxy did not report the client's address.
///
/// Writes the response to `buffer.body`. The HTTP status is 200 for every outcome, because clients ignore the body of a
/// response with another status.
pub fn respond(
    tracker: &Tracker,
    settings: &Settings,
    now: Time,
    from: Option<IpAddr>,
    action: Action,
    query: &[u8],
    buffer: &mut ResponseBuffer,
) -> HttpOutcome {
    buffer.body.clear();
    let result = match (from, action) {
        _ if query.len() > MAX_QUERY_LEN => Err(InvalidRequest::QueryTooLong),
        (None, _) => Err(InvalidRequest::AddressUnknown),
        (Some(from), Action::Announce) => {
            announce(tracker, settings, now, from.to_canonical(), query, buffer)
        }
        (Some(from), Action::Scrape) => {
            scrape(tracker, settings, now, from.to_canonical(), query, buffer)
        }
    };
    result.unwrap_or_else(|invalid| {
        write_failure(&mut buffer.body, invalid.reason(), None);
        HttpOutcome::Invalid(invalid)
    })
}

fn announce(
    tracker: &Tracker,
    settings: &Settings,
    now: Time,
    from: IpAddr,
    query: &[u8],
    buffer: &mut ResponseBuffer,
) -> Result<HttpOutcome, InvalidRequest> {
    let trust_ip_params = settings.trust_ip_params_from.contains(from);
    let request = AnnounceRequest::parse(query, from, trust_ip_params)?;
    buffer.peers.clear();
    Ok(
        match tracker.announce(now, &request.announce, &mut buffer.peers) {
            Ok(answer) => {
                write_answer(
                    &mut buffer.body,
                    request.announce.address,
                    &answer,
                    &buffer.peers,
                    request.compact,
                );
                HttpOutcome::Announced(request.announce, AnnounceEffect::of(&answer))
            }
            Err(refusal) => {
                write_failure(&mut buffer.body, refusal.reason(), Some(&refusal));
                HttpOutcome::Refused(refusal)
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
    buffer: &mut ResponseBuffer,
) -> Result<HttpOutcome, InvalidRequest> {
    let scrape = match tracker.admit_scrape(now, from) {
        Ok(scrape) => scrape,
        Err(refusal) => {
            write_failure(&mut buffer.body, refusal.reason(), Some(&refusal));
            return Ok(HttpOutcome::Refused(refusal));
        }
    };
    buffer.hashes.clear();
    for (_, value) in pairs(query)
        .filter(|(key, _)| *key == b"info_hash")
        .take(settings.max_scrape)
    {
        buffer.hashes.push(InfoHash(
            twenty_bytes(value).ok_or(InvalidRequest::InfoHashWrong)?,
        ));
    }
    let out = &mut buffer.body;
    out.extend_from_slice(b"d5:filesd");
    if !buffer.hashes.is_empty() {
        buffer.hashes.sort_unstable();
        buffer.hashes.dedup();
        for info_hash in &buffer.hashes {
            if let Some(entry) = scrape.counts(info_hash) {
                write_scrape_entry(out, info_hash, &entry);
            }
        }
    } else if settings.full_scrape {
        let mut all = Vec::new();
        tracker.for_each_torrent(|info_hash, entry| all.push((*info_hash, entry)));
        all.sort_unstable_by_key(|(info_hash, _)| *info_hash);
        all.iter()
            .for_each(|(info_hash, entry)| write_scrape_entry(out, info_hash, entry));
    } else {
        out.clear();
        return Err(InvalidRequest::ScrapeWithoutInfoHash);
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
    fn parse(query: &[u8], from: IpAddr, believed: bool) -> Result<Self, InvalidRequest> {
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

/// Keys in bencode's order; `peers` always, as some clients fail without it.
fn write_answer(
    out: &mut Vec<u8>,
    from: IpAddr,
    answer: &AnnounceResponse,
    peers: &[u8],
    compact: bool,
) {
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

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use serde_bencode::value::Value;

    use super::*;
    use crate::tracker::{self, Admission, Rng};

    const V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    const V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));

    const HASH: &[u8; 20] = b"abcdefghijklmnopqrst";
    const HASH_AND_ID: &str = "info_hash=abcdefghijklmnopqrst&peer_id=-XX0001-abcdefghijkl";

    fn tracker(open: bool) -> Tracker {
        let settings = tracker::Settings {
            open,
            ..tracker::Settings::default()
        };
        Tracker::new(settings, 1)
    }

    /// Asks, and holds the answer against what serde_bencode makes of it: equal bytes mean sorted keys, each there once, and
    /// nothing behind.
    fn ask(
        tracker: &Tracker,
        from: impl Into<Option<IpAddr>>,
        action: Action,
        query: &[u8],
    ) -> (Outcome, HashMap<Vec<u8>, Value>) {
        let settings = Settings {
            believed: Networks::default(),
            max_scrape: 74,
            full_scrape: false,
        };
        ask_with(tracker, &settings, from.into(), action, query)
    }

    fn ask_with(
        tracker: &Tracker,
        settings: &Settings,
        from: Option<IpAddr>,
        action: Action,
        query: &[u8],
    ) -> (Outcome, HashMap<Vec<u8>, Value>) {
        // What was there before must not matter.
        let mut reply = Reply {
            body: b"stale".to_vec(),
            peers: b"stale".to_vec(),
            hashes: vec![InfoHash([0; 20])],
        };
        let outcome = respond(tracker, settings, Time(0), from, action, query, &mut reply);
        (outcome, read(&reply.body))
    }

    fn read(body: &[u8]) -> HashMap<Vec<u8>, Value> {
        let shown = body.escape_ascii();
        match serde_bencode::from_bytes(body) {
            Ok(Value::Dict(dictionary)) => {
                let again = serde_bencode::to_bytes(&dictionary_of(&dictionary)).unwrap();
                assert_eq!(body, again, "{shown} is not {}", again.escape_ascii());
                dictionary
            }
            other => panic!("{shown} reads as {other:?}"),
        }
    }

    fn dictionary_of(dictionary: &HashMap<Vec<u8>, Value>) -> Value {
        Value::Dict(dictionary.clone())
    }

    fn dictionary<const N: usize>(entries: [(&str, Value); N]) -> Value {
        let entries = entries.into_iter().map(|(key, value)| (key.into(), value));
        Value::Dict(entries.collect())
    }

    fn bytes(bytes: impl AsRef<[u8]>) -> Value {
        Value::Bytes(bytes.as_ref().to_vec())
    }

    fn parse(query: &str) -> Result<AnnounceRequest, InvalidRequest> {
        AnnounceRequest::parse(query.as_bytes(), V4, false)
    }

    /// What is read from a query that has all that it needs, and this.
    fn parsed(extra: &str) -> AnnounceRequest {
        parse(&format!("{HASH_AND_ID}&port=6881&{extra}")).unwrap()
    }

    #[test]
    fn paths_are_announces_and_the_scrape_derived_from_it() {
        for (announce, scrape) in [
            ("/announce", "/scrape"),
            ("/announce.php", "/scrape.php"),
            ("/pub/announce", "/pub/scrape"),
            ("/announce/announce", "/announce/scrape"),
            ("/announcer", "/scraper"),
        ] {
            let paths = Paths::new(announce).unwrap();
            assert_eq!(paths.announce(), announce);
            for (path, action) in [(announce, Action::Announce), (scrape, Action::Scrape)] {
                assert_eq!(paths.action(path), Some(action));
                assert_eq!(paths.action(&format!("{path}/")), Some(action));
                for other in [format!("{path}//"), format!("/{path}"), format!("{path}x")] {
                    assert_eq!(paths.action(&other), None, "{other}");
                }
            }
            assert_eq!(paths.action("/"), None);
            assert_eq!(paths.action(""), None);
        }
        for wrong in [
            "",
            "/",
            "announce",
            "x/announce",
            "/announc",
            "/Announce",
            "/announce/",
            "/a/b",
        ] {
            assert_eq!(Paths::new(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn an_announce_as_clients_send_it() {
        let query = "info_hash=%61bcdefghijklmnopqr%73%74&peer_id=-XX0001-%00%fF%2b+%7e~-_.!*(&port=51413&uploaded=1\
                     &downloaded=2&left=0&event=completed&numwant=80&key=DEADbeef&compact=1&supportcrypto=1";
        let expected = Announce {
            info_hash: InfoHash(*HASH),
            peer_id: PeerId(*b"-XX0001-\x00\xff++~~-_.!*("),
            key: Some(Key(0xdead_beef)),
            address: V4,
            port: NonZeroU16::new(51413).unwrap(),
            event: Event::Completed,
            complete: true,
            numwant: Some(80),
        };
        assert_eq!(
            parse(query),
            Ok(AnnounceRequest {
                announce: expected,
                compact: true,
            })
        );
    }

    #[test]
    fn an_announce_that_says_no_more_than_it_must() {
        let AnnounceRequest { announce, compact } =
            parse(&format!("{HASH_AND_ID}&port=1")).unwrap();
        assert!(compact);
        assert_eq!(announce.event, Event::None);
        assert_eq!((announce.key, announce.numwant), (None, None));
        assert!(!announce.complete);
    }

    #[test]
    fn binary_keys_are_20_bytes_after_one_decoding() {
        assert_eq!(twenty_bytes(HASH), Some(*HASH));
        assert_eq!(twenty_bytes(&b"%aB".repeat(20)), Some([0xab; 20]));
        assert_eq!(twenty_bytes(&b"%00".repeat(20)), Some([0; 20]));
        assert_eq!(twenty_bytes(&[0xff; 20]), Some([0xff; 20]), "raw");
        assert_eq!(twenty_bytes(&[b'+'; 20]), Some([b'+'; 20]));
        assert_eq!(
            twenty_bytes(b"%25bcdefghijklmnopqrst"),
            Some(*b"%bcdefghijklmnopqrst")
        );
        for wrong in [
            &b""[..],
            b"%",
            &HASH[..19],
            b"abcdefghijklmnopqrstu",
            b"abcdefghijklmnopqrst%",
            b"abcdefghijklmnopqrs%",
            b"abcdefghijklmnopqrs%4",
            b"%zzbcdefghijklmnopqrst",
            b"%6gbcdefghijklmnopqrst",
            b"%+6bcdefghijklmnopqrst",
            b"0123456789abcdef0123456789abcdef01234567",
            b"abcdefghijklmnopqrstuvwxyz012345",
        ] {
            assert_eq!(twenty_bytes(wrong), None, "{}", wrong.escape_ascii());
        }
    }

    #[test]
    fn what_an_announce_cannot_do_without() {
        let query =
            |info_hash, peer_id, port| parse(&format!("{info_hash}&{peer_id}&{port}")).map(|_| ());
        let (hash, id, port) = (
            "info_hash=abcdefghijklmnopqrst",
            "peer_id=abcdefghijklmnopqrst",
            "port=1",
        );
        assert_eq!(query(hash, id, port), Ok(()));
        assert_eq!(query("", id, port), Err(InvalidRequest::InfoHashMissing));
        assert_eq!(
            query("info_hash", id, port),
            Err(InvalidRequest::InfoHashWrong)
        );
        assert_eq!(
            query("info_hash=%a", id, port),
            Err(InvalidRequest::InfoHashWrong)
        );
        assert_eq!(query(hash, "", port), Err(InvalidRequest::PeerIdMissing));
        assert_eq!(
            query(hash, "peer_id=abc", port),
            Err(InvalidRequest::PeerIdWrong)
        );
        assert_eq!(query(hash, id, "port=65535"), Ok(()));
        assert_eq!(query(hash, id, "port=00080"), Ok(()));
        for wrong in [
            "",
            "port",
            "port=",
            "port=0",
            "port=00",
            "port=65536",
            "port=-1",
            "port=+1",
            "port=%31",
            "port=0x50",
            "port=80.",
            "port= 80",
            "port=18446744073709551617",
        ] {
            assert_eq!(
                query(hash, id, wrong),
                Err(InvalidRequest::PortWrong),
                "{wrong}"
            );
        }
        assert_eq!(
            parse(&format!("port=0&{hash}&{id}&port=1&info_hash=x")),
            Err(InvalidRequest::PortWrong),
            "the first of each key"
        );
    }

    #[test]
    fn only_a_left_of_0_makes_a_seeder() {
        for seeder in ["left=0", "left=000", "left=0&left=1"] {
            assert!(parsed(seeder).announce.complete, "{seeder}");
        }
        for leecher in [
            "",
            "left",
            "left=",
            "left=1",
            "left=-1",
            "left=-0",
            "left=+0",
            "left=abc",
            "left=0x0",
            "left=%30",
            "left=2147483648",
            "left=4294967296",
            "left=9223372036854775807",
            "left=9223372036854775808",
            "left=18446744073709551615",
            "left=18446744073709551616",
            "left=1&left=0",
        ] {
            assert!(!parsed(leecher).announce.complete, "{leecher}");
        }
    }

    #[test]
    fn events() {
        for (event, meant) in [
            ("event=started", Event::Started),
            ("event=completed", Event::Completed),
            ("event=stopped", Event::Stopped),
            ("event=paused", Event::Paused),
            ("event=started&event=stopped", Event::Started),
            ("event=empty", Event::None),
            ("event=", Event::None),
            ("event", Event::None),
            ("", Event::None),
            ("event=Stopped", Event::None),
            ("event=stoppe", Event::None),
            ("event=stoppedd", Event::None),
        ] {
            assert_eq!(parsed(event).announce.event, meant, "{event}");
        }
    }

    #[test]
    fn numwant() {
        for (numwant, meant) in [
            ("", None),
            ("numwant=", None),
            ("numwant=-1", None),
            ("numwant=+1", None),
            ("numwant=abc", None),
            ("numwant=5x", None),
            ("numwant=0", Some(0)),
            ("numwant=007", Some(7)),
            ("numwant=4294967295", Some(u32::MAX)),
            ("numwant=4294967296", Some(u32::MAX)),
            ("numwant=18446744073709551615", Some(u32::MAX)),
            ("numwant=18446744073709551616", Some(u32::MAX)),
            ("numwant=99999999999999999999999999", Some(u32::MAX)),
            ("numwant=1&numwant=2", Some(1)),
        ] {
            assert_eq!(parsed(numwant).announce.numwant, meant, "{numwant}");
        }
    }

    #[test]
    fn a_key_is_32_bits_however_it_is_written() {
        let key = |key: &str| parsed(&format!("key={key}")).announce.key;
        assert_eq!(key("deadBEEF"), Some(Key(0xdead_beef)));
        assert_eq!(key("1"), Some(Key(1)));
        assert_eq!(key("00000001"), Some(Key(1)));
        assert_eq!(key("ffffffff"), Some(Key(u32::MAX)));
        assert_eq!(key(""), None);
        assert_eq!(key("0"), None, "0 over UDP stands for none");
        assert_eq!(key("00000000"), None);
        let folded = ["0deadbeef", "deadbeeg", "-1", "%61", "secret", "+"].map(key);
        for (i, key) in folded.iter().enumerate() {
            assert!(key.is_some() && !folded[..i].contains(key), "{folded:?}");
        }
    }

    #[test]
    fn only_compact_0_is_not_compact() {
        for compact in [
            "",
            "compact",
            "compact=",
            "compact=1",
            "compact=2",
            "compact=00",
            "compact=1&compact=0",
        ] {
            assert!(parsed(compact).compact, "{compact}");
        }
        for not in ["compact=0", "compact=0&no_peer_id=1", "compact=0&compact=1"] {
            assert!(!parsed(not).compact, "{not}");
        }
    }

    #[test]
    fn a_query_is_read_in_any_order_and_with_anything_between() {
        let plain = parse(&format!("{HASH_AND_ID}&port=1&left=0")).unwrap();
        for query in [
            format!("left=0&port=1&{HASH_AND_ID}"),
            format!("&&{HASH_AND_ID}&&port=1&left=0&&"),
            format!("=&=&=x&{HASH_AND_ID}&port=1&left=0&corrupt=0&no_peer_id&azudp=1&%=%&port"),
            format!("PORT=0&ports=0&por=0&%70ort=0&{HASH_AND_ID}&port=1&left=0"),
            format!("ip=192.0.2.9&ipv4=192.0.2.9&ipv6=::9&{HASH_AND_ID}&port=1&left=0"),
        ] {
            assert_eq!(parse(&query).as_ref(), Ok(&plain), "{query}");
        }
    }

    #[test]
    fn a_query_of_8192_bytes_is_the_longest() {
        let tracker = tracker(true);
        for action in [Action::Announce, Action::Scrape] {
            let mut query = format!("{HASH_AND_ID}&port=1&pad=");
            query += &"x".repeat(8192 - query.len());
            let (outcome, _) = ask(&tracker, V4, action, query.as_bytes());
            assert!(
                matches!(outcome, Outcome::Announced(..) | Outcome::Scraped),
                "{outcome:?}"
            );
            query += "x";
            let (outcome, failure) = ask(&tracker, V4, action, query.as_bytes());
            assert_eq!(outcome, Outcome::Invalid(InvalidRequest::QueryTooLong));
            let reason = bytes("the query is longer than 8192 bytes");
            assert_eq!(
                dictionary_of(&failure),
                dictionary([("failure reason", reason)])
            );
        }
    }

    #[test]
    fn an_answer_to_the_letter() {
        let tracker = tracker(true);
        let mut reply = Reply::default();
        let settings = Settings {
            believed: Networks::default(),
            max_scrape: 74,
            full_scrape: false,
        };
        let mut body = |from: IpAddr, query: &str| {
            let query = format!("{HASH_AND_ID}&{query}");
            respond(
                &tracker,
                &settings,
                Time(0),
                Some(from),
                Action::Announce,
                query.as_bytes(),
                &mut reply,
            );
            reply.body.escape_ascii().to_string()
        };
        assert_eq!(
            body(V4, "port=258&left=0&event=completed"),
            "d8:completei1e10:downloadedi1e11:external ip4:\\xc0\\x00\\x02\\x0110:incompletei0e8:intervali1800e\
             12:min intervali300e5:peers0:e"
        );
        assert_eq!(
            body(V4, "port=259"),
            "d8:completei1e10:downloadedi1e11:external ip4:\\xc0\\x00\\x02\\x0110:incompletei1e8:intervali1800e\
             12:min intervali300e5:peers6:\\xc0\\x00\\x02\\x01\\x01\\x02e"
        );
        assert_eq!(
            body(V4, "port=259&compact=0"),
            "d8:completei1e10:downloadedi1e11:external ip4:\\xc0\\x00\\x02\\x0110:incompletei1e8:intervali1800e\
             12:min intervali300e5:peersld2:ip9:192.0.2.14:porti258eeee"
        );
        let mapped = IpAddr::V6(Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped());
        assert_eq!(
            body(mapped, "port=259"),
            body(V4, "port=259"),
            "mapped IPv4 is IPv4"
        );
        body(V6, "port=258");
        let external = "11:external ip16: \\x01\\r\\xb8\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x01";
        assert_eq!(
            body(V6, "port=259"),
            format!(
                "d8:completei1e10:downloadedi1e{external}10:incompletei3e8:intervali1800e12:min intervali300e\
                 5:peers0:6:peers618: \\x01\\r\\xb8\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x01\\x01\\x02e"
            )
        );
        assert_eq!(
            body(V6, "port=259&compact=0"),
            format!(
                "d8:completei1e10:downloadedi1e{external}10:incompletei3e8:intervali1800e12:min intervali300e\
                 5:peersld2:ip11:2001:db8::14:porti258eeee"
            )
        );
    }

    #[test]
    fn who_has_no_address_is_told_so() {
        let tracker = tracker(true);
        let query = format!("{HASH_AND_ID}&port=1");
        for action in [Action::Announce, Action::Scrape] {
            let (outcome, failure) = ask(&tracker, None, action, query.as_bytes());
            assert_eq!(outcome, Outcome::Invalid(InvalidRequest::AddressUnknown));
            assert_eq!(failure.len(), 1);
        }
    }

    #[test]
    fn an_address_is_believed_from_those_alone_whose_word_is_taken() {
        let address = |query: &str, believed| {
            let from = if query.starts_with("ipv6") { V6 } else { V4 };
            let query = format!("{HASH_AND_ID}&port=1&{query}");
            let request = AnnounceRequest::parse(query.as_bytes(), from, believed);
            request.unwrap().announce.address
        };
        for (query, meant) in [
            ("ip=198.51.100.7", "198.51.100.7"),
            ("ipv4=198.51.100.7", "198.51.100.7"),
            ("ipv4=198.51.100.7:6881", "198.51.100.7"),
            ("ipv4=198.51.100.7%3A6881", "198.51.100.7"),
            ("ipv6=2001:db8::7", "2001:db8::7"),
            ("ipv6=2001%3adb8%3A%3a7", "2001:db8::7"),
            ("ipv6=[2001:db8::7]:6881", "2001:db8::7"),
            ("ipv6=%5B2001:db8::7%5D:6881", "2001:db8::7"),
            ("ip=::ffff:198.51.100.7", "198.51.100.7"),
            ("ip=198.51.100.7&ip=198.51.100.8&ipv6=::8", "198.51.100.7"),
            ("port=2&ipv6=2001:db8::7", "192.0.2.1"),
        ] {
            assert_eq!(address(query, true).to_string(), meant, "{query}");
            let own = if query.starts_with("ipv6") { V6 } else { V4 };
            assert_eq!(address(query, false), own, "{query}");
        }
        for wrong in [
            "ip",
            "ip=",
            "ip=tracker.example",
            "ip=198.51.100",
            "ip=198.51.100.7.8",
            "ip=198.51.100.7:66666",
            "ip=0.0.0.0",
            "ip=::",
            "ip=224.0.0.1",
            "ip=ff02::1",
            "ip=%ff",
            "ip=%zz",
            "ip=%",
        ] {
            assert_eq!(address(wrong, true), V4, "{wrong}");
        }
    }

    #[test]
    fn an_answer_is_of_the_family_that_is_believed() {
        let tracker = tracker(true);
        let settings = Settings {
            believed: Networks::new(vec![V4.into()]),
            max_scrape: 74,
            full_scrape: false,
        };
        let announce = |query: &str| {
            let query = format!("{HASH_AND_ID}&{query}");
            let action = Action::Announce;
            ask_with(&tracker, &settings, Some(V4), action, query.as_bytes()).1
        };
        announce("port=258&ip=2001:db8::7");
        let answer = announce("port=259&ip=2001:db8::8");
        let peer = b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x07\x01\x02";
        assert_eq!(answer[&b"peers6"[..]], bytes(peer));
        assert_eq!(answer[&b"peers"[..]], bytes(""));
        assert_eq!(
            answer[&b"external ip"[..]],
            bytes(b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x08")
        );
    }

    /// As a reader of the BEPs would build it, without a writer of his own.
    fn reference_answer(
        from: IpAddr,
        answer: &AnnounceResponse,
        peers: &[u8],
        compact: bool,
    ) -> Value {
        let number = |number: u32| Value::Int(number.into());
        let mut expected = HashMap::new();
        let mut put = |key: &str, value| expected.insert(key.as_bytes().to_vec(), value);
        put("complete", number(answer.counts.complete));
        put("downloaded", number(answer.counts.downloaded));
        put("incomplete", number(answer.counts.incomplete));
        put("interval", number(answer.interval));
        put("min interval", number(answer.min_interval));
        if let Some(warning) = &answer.warning {
            put("warning message", bytes(warning.as_bytes()));
        }
        let size = match from {
            IpAddr::V4(v4) => put("external ip", bytes(v4.octets())).map_or(6, |_| 6),
            IpAddr::V6(v6) => put("external ip", bytes(v6.octets())).map_or(18, |_| 18),
        };
        if compact && size == 6 {
            put("peers", bytes(peers));
        } else if compact {
            put("peers", bytes(""));
            put("peers6", bytes(peers));
        } else {
            let peer = |peer: &[u8]| {
                let (address, port) = peer.split_at(size - 2);
                let ip = match <[u8; 4]>::try_from(address) {
                    Ok(v4) => IpAddr::from(v4),
                    Err(_) => IpAddr::from(<[u8; 16]>::try_from(address).unwrap()),
                };
                let port = u16::from_be_bytes(port.try_into().unwrap());
                let ip = bytes(ip.to_string());
                dictionary([("ip", ip), ("port", Value::Int(port.into()))])
            };
            put("peers", Value::List(peers.chunks(size).map(peer).collect()));
        }
        Value::Dict(expected)
    }

    fn random_bytes(random: &mut Rng, len: u32) -> Vec<u8> {
        (0..len).map(|_| random.next_u32() as u8).collect()
    }

    #[test]
    fn answers_are_what_serde_bencode_writes() {
        let mut random = Rng::new(3);
        let mut number = {
            let mut random = Rng::new(4);
            // Of any length in digits.
            move || random.next_u32() >> random.below(32)
        };
        for _ in 0..2000 {
            let from = if random.below(2) == 0 { V4 } else { V6 };
            let size = if from.is_ipv4() { 6 } else { 18 };
            let count = random.below(4) * random.below(70);
            let peers = random_bytes(&mut random, count * size);
            let warning = (random.below(2) == 0).then(|| "näxt wéek".repeat(number() as usize % 5));
            let answer = AnnounceResponse {
                counts: ScrapeEntry {
                    complete: number(),
                    incomplete: number(),
                    partial: 0,
                    downloaded: number(),
                },
                interval: number(),
                min_interval: number(),
                warning: warning.map(Into::into),
                update: None,
                new_download: false,
            };
            let compact = random.below(2) == 0;
            let mut body = Vec::new();
            write_answer(&mut body, from, &answer, &peers, compact);
            let expected = reference_answer(from, &answer, &peers, compact);
            assert_eq!(
                body.escape_ascii().to_string(),
                serde_bencode::to_bytes(&expected)
                    .unwrap()
                    .escape_ascii()
                    .to_string()
            );
        }
    }

    #[test]
    fn a_refusal_says_twice_when_to_come_again() {
        let tracker = tracker(false);
        tracker.admit(&InfoHash([b'd'; 20]), Admission::Denied);
        for (hash, refusal, retry, seconds) in [
            ("u", Refusal::UnknownTorrent, "5", 300),
            ("d", Refusal::DeniedTorrent, "never", 86_400),
        ] {
            let query = format!(
                "info_hash={}&peer_id={}&port=1",
                hash.repeat(20),
                "p".repeat(20)
            );
            let (outcome, failure) = ask(&tracker, V4, Action::Announce, query.as_bytes());
            assert_eq!(outcome, Outcome::Refused(refusal.clone()));
            assert_eq!(
                dictionary_of(&failure),
                dictionary([
                    ("failure reason", bytes(refusal.reason())),
                    ("interval", Value::Int(seconds)),
                    ("min interval", Value::Int(seconds)),
                    ("retry in", bytes(retry)),
                ])
            );
        }
    }

    /// The torrents of a scrape's answer, sorted.
    fn scraped(answer: &HashMap<Vec<u8>, Value>) -> Vec<(Vec<u8>, Value)> {
        assert_eq!(answer.len(), 1);
        let Some(Value::Dict(files)) = answer.get(&b"files"[..]) else {
            panic!("no files in {answer:?}");
        };
        let mut files: Vec<_> = files.clone().into_iter().collect();
        files.sort_by(|(one, _), (other, _)| one.cmp(other));
        files
    }

    fn zeros() -> Value {
        dictionary(
            ["complete", "downloaded", "downloaders", "incomplete"].map(|key| (key, Value::Int(0))),
        )
    }

    #[test]
    fn a_scrape_is_sorted_and_tells_of_each_torrent_once() {
        let tracker = tracker(true);
        for (port, extra) in [
            (1, "left=0&event=completed"),
            (2, "left=1"),
            (3, "left=1&event=paused"),
        ] {
            let query = format!("{HASH_AND_ID}&port={port}&{extra}");
            ask(&tracker, V4, Action::Announce, query.as_bytes());
        }
        let other = [b'0'; 20];
        let query = "info_hash=abcdefghijklmnopqrst&x=y&info_hash=00000000000000000000&&info_hash=%61bcdefghijklmnopqrst";
        let (outcome, answer) = ask(&tracker, V4, Action::Scrape, query.as_bytes());
        assert_eq!(outcome, Outcome::Scraped);
        let counts = dictionary([
            ("complete", Value::Int(1)),
            ("downloaded", Value::Int(1)),
            ("downloaders", Value::Int(1)),
            ("incomplete", Value::Int(2)),
        ]);
        assert_eq!(
            scraped(&answer),
            [(other.to_vec(), zeros()), (HASH.to_vec(), counts)]
        );
    }

    #[test]
    fn a_closed_tracker_scrapes_what_it_lists() {
        let tracker = tracker(false);
        let (listed, denied) = (InfoHash([b'l'; 20]), InfoHash([b'd'; 20]));
        tracker.admit(&listed, Admission::Listed);
        tracker.admit(&denied, Admission::Denied);
        let query = ["l", "d", "u"]
            .map(|hash| format!("info_hash={}&", hash.repeat(20)))
            .concat();
        let files = || scraped(&ask(&tracker, V4, Action::Scrape, query.as_bytes()).1);
        assert_eq!(files(), [(listed.0.to_vec(), zeros())]);
        tracker.admit(&listed, Admission::Unlisted);
        assert_eq!(files(), [], "no longer listed, no longer told of");
    }

    #[test]
    fn a_scrape_tells_of_so_many_and_no_more() {
        let tracker = tracker(true);
        let query = |hashes: u8| -> String {
            let hash = |i| format!("info_hash=%{:02x}bcdefghijklmnopqrst&", 255 - i);
            (0..hashes).map(hash).collect()
        };
        for (asked, told) in [(1, 1), (73, 73), (74, 74), (75, 74), (100, 74)] {
            let (_, answer) = ask(&tracker, V4, Action::Scrape, query(asked).as_bytes());
            let files = scraped(&answer);
            assert_eq!(files.len(), told, "of {asked}");
            assert_eq!(
                files.last().unwrap().0[0],
                255,
                "the first that are asked for"
            );
        }
        let wrong = query(74) + "info_hash=x";
        let (outcome, _) = ask(&tracker, V4, Action::Scrape, wrong.as_bytes());
        assert_eq!(outcome, Outcome::Scraped, "what is passed over is not read");
        let wrong = query(73) + "info_hash=x";
        let (outcome, failure) = ask(&tracker, V4, Action::Scrape, wrong.as_bytes());
        assert_eq!(outcome, Outcome::Invalid(InvalidRequest::InfoHashWrong));
        assert_eq!(
            dictionary_of(&failure),
            dictionary([(
                "failure reason",
                bytes(InvalidRequest::InfoHashWrong.reason())
            )])
        );
    }

    #[test]
    fn a_full_scrape_is_sorted_over_all_shards() {
        let tracker = tracker(false);
        let mut random = Rng::new(5);
        let mut listed: Vec<[u8; 20]> = (0..3000)
            .map(|_| random_bytes(&mut random, 20).try_into().unwrap())
            .collect();
        for hash in &listed {
            tracker.admit(&InfoHash(*hash), Admission::Listed);
        }
        tracker.admit(&InfoHash([0; 20]), Admission::Denied);
        listed.sort_unstable();
        let full = Settings {
            believed: Networks::default(),
            max_scrape: 74,
            full_scrape: true,
        };
        for query in [&b""[..], b"&", b"info_hashes=x"] {
            // Held against serde_bencode, which sorts.
            let (outcome, answer) = ask_with(&tracker, &full, Some(V4), Action::Scrape, query);
            assert_eq!(outcome, Outcome::Scraped);
            let files = scraped(&answer);
            assert!(
                files
                    .iter()
                    .map(|(hash, _)| &hash[..])
                    .eq(listed.iter().map(|hash| &hash[..]))
            );

            let (outcome, failure) = ask(&tracker, V4, Action::Scrape, query);
            assert_eq!(outcome, Outcome::Invalid(InvalidRequest::FullScrape));
            let reason = bytes("a scrape needs an info_hash");
            assert_eq!(
                dictionary_of(&failure),
                dictionary([("failure reason", reason)])
            );
        }
    }

    /// A query that is nearly right, so that each part of the reader is met.
    fn mutated(random: &mut Rng) -> Vec<u8> {
        const PARTS: [&[u8]; 14] = [
            b"info_hash=",
            b"peer_id=",
            b"port=",
            b"left=0",
            b"event=completed",
            b"numwant=",
            b"key=",
            b"compact=0",
            b"&",
            b"=",
            b"%",
            b"18446744073709551616",
            b"abcdefghijklmnopqrst",
            b"%00%ff",
        ];
        let mut query = format!("{HASH_AND_ID}&port=6881&left=1&numwant=50&key=abc&event=started&info_hash=%41bcdefghijklmnopqrst")
            .into_bytes();
        for _ in 0..=random.below(4) {
            let at = random.below(query.len() as u32) as usize;
            let end = (at + random.below(9) as usize).min(query.len());
            match random.below(4) {
                0 => query[at] = random.next_u32() as u8,
                1 => drop(query.drain(at..end)),
                2 => drop(query.splice(at..end, PARTS[random.below(14) as usize].iter().copied())),
                _ => query.extend_from_within(at..end),
            }
        }
        query
    }

    #[test]
    fn any_bytes_get_one_valid_dictionary() {
        for open in [true, false] {
            let tracker = tracker(open);
            tracker.admit(&InfoHash(*HASH), Admission::Listed);
            let mut random = Rng::new(6);
            let mut seen = HashMap::<_, u32>::new();
            for round in 0..10_000_u32 {
                let query = match round % 8 {
                    0 => {
                        let len = random.below(300);
                        random_bytes(&mut random, len)
                    }
                    _ => mutated(&mut random),
                };
                let action = [Action::Announce, Action::Scrape][random.below(2) as usize];
                let from = [V4, V6][random.below(2) as usize];
                let (outcome, answer) = ask(&tracker, from, action, &query);
                let key: &[u8] = match &outcome {
                    Outcome::Announced(..) => b"peers",
                    Outcome::Scraped => b"files",
                    Outcome::Refused(_) | Outcome::Invalid(_) => b"failure reason",
                };
                assert!(
                    answer.contains_key(key),
                    "{} {outcome:?}",
                    query.escape_ascii()
                );
                let kind = match outcome {
                    Outcome::Announced(..) => "Announced".to_owned(),
                    other => format!("{other:?}"),
                };
                *seen.entry(kind).or_default() += 1;
            }
            // Or else nothing much was tried.
            let refused = if open { 0 } else { 1 };
            assert_eq!(seen.len(), 8 + refused, "{seen:?}");
        }
    }
}
