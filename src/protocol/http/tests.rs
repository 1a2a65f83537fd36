//! Tests of HTTP requests and responses.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;

use serde_bencode::value::Value;

use super::request::Paths;
use super::*;
use crate::tracker::rng::Rng;
use crate::tracker::settings as tracker;
use crate::tracker::types::{Admission, AnnounceResponse, Event, Key, PeerId, ScrapeEntry};

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

/// Sends a request, and checks that serde_bencode encodes the parsed response to the same bytes. So the keys are sorted,
/// none is repeated, and nothing follows the dictionary.
fn request(
    tracker: &Tracker,
    from: impl Into<Option<IpAddr>>,
    action: Action,
    query: &[u8],
) -> (HttpOutcome, HashMap<Vec<u8>, Value>) {
    let settings = Settings {
        trust_ip_params_from: Networks::default(),
        max_scrape: 74,
        full_scrape: false,
    };
    request_with(tracker, &settings, from.into(), action, query)
}

fn request_with(
    tracker: &Tracker,
    settings: &Settings,
    from: Option<IpAddr>,
    action: Action,
    query: &[u8],
) -> (HttpOutcome, HashMap<Vec<u8>, Value>) {
    // Contents of an earlier response must not matter.
    let mut buffer = ResponseBuffer {
        body: b"stale".to_vec(),
        peers: b"stale".to_vec(),
        hashes: vec![InfoHash([0; 20])],
    };
    let outcome = respond(tracker, settings, Time(0), from, action, query, &mut buffer);
    (outcome, parse_dictionary(&buffer.body))
}

fn parse_dictionary(body: &[u8]) -> HashMap<Vec<u8>, Value> {
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

/// Parses a query with all required keys and `extra`.
fn parsed(extra: &str) -> AnnounceRequest {
    parse(&format!("{HASH_AND_ID}&port=6881&{extra}")).unwrap()
}

#[test]
fn derives_scrape_path_from_announce_path() {
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
fn parses_announce_of_a_typical_client() {
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
fn parses_announce_without_optional_keys() {
    let AnnounceRequest { announce, compact } = parse(&format!("{HASH_AND_ID}&port=1")).unwrap();
    assert!(compact);
    assert_eq!(announce.event, Event::None);
    assert_eq!((announce.key, announce.numwant), (None, None));
    assert!(!announce.complete);
}

#[test]
fn decodes_exactly_20_bytes_once() {
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
fn rejects_announce_without_required_keys() {
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
        "the first value of each key counts"
    );
}

#[test]
fn left_of_0_makes_a_seeder() {
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
fn parses_events() {
    for (event, expected) in [
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
        assert_eq!(parsed(event).announce.event, expected, "{event}");
    }
}

#[test]
fn parses_numwant() {
    for (numwant, expected) in [
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
        assert_eq!(parsed(numwant).announce.numwant, expected, "{numwant}");
    }
}

#[test]
fn parses_any_key_to_32_bits() {
    let key = |key: &str| parsed(&format!("key={key}")).announce.key;
    assert_eq!(key("deadBEEF"), Some(Key(0xdead_beef)));
    assert_eq!(key("1"), Some(Key(1)));
    assert_eq!(key("00000001"), Some(Key(1)));
    assert_eq!(key("ffffffff"), Some(Key(u32::MAX)));
    assert_eq!(key(""), None);
    assert_eq!(key("0"), None, "over UDP, 0 stands for no key");
    assert_eq!(key("00000000"), None);
    let hashed = ["0deadbeef", "deadbeeg", "-1", "%61", "secret", "+"].map(key);
    for (i, key) in hashed.iter().enumerate() {
        assert!(key.is_some() && !hashed[..i].contains(key), "{hashed:?}");
    }
}

#[test]
fn compact_is_default_unless_0() {
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
fn accepts_keys_in_any_order_and_unknown_keys() {
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
fn rejects_query_over_8192_bytes() {
    let tracker = tracker(true);
    for action in [Action::Announce, Action::Scrape] {
        let mut query = format!("{HASH_AND_ID}&port=1&pad=");
        query += &"x".repeat(8192 - query.len());
        let (outcome, _) = request(&tracker, V4, action, query.as_bytes());
        assert!(
            matches!(outcome, HttpOutcome::Announced(..) | HttpOutcome::Scraped),
            "{outcome:?}"
        );
        query += "x";
        let (outcome, failure) = request(&tracker, V4, action, query.as_bytes());
        assert_eq!(outcome, HttpOutcome::Invalid(InvalidRequest::QueryTooLong));
        let reason = bytes("the query is longer than 8192 bytes");
        assert_eq!(
            dictionary_of(&failure),
            dictionary([("failure reason", reason)])
        );
    }
}

#[test]
fn writes_exact_announce_responses() {
    let tracker = tracker(true);
    let mut buffer = ResponseBuffer::default();
    let settings = Settings {
        trust_ip_params_from: Networks::default(),
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
            &mut buffer,
        );
        buffer.body.escape_ascii().to_string()
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
        "an IPv4-mapped address counts as IPv4"
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
fn fails_without_client_address() {
    let tracker = tracker(true);
    let query = format!("{HASH_AND_ID}&port=1");
    for action in [Action::Announce, Action::Scrape] {
        let (outcome, failure) = request(&tracker, None, action, query.as_bytes());
        assert_eq!(
            outcome,
            HttpOutcome::Invalid(InvalidRequest::AddressUnknown)
        );
        assert_eq!(failure.len(), 1);
    }
}

#[test]
fn honors_ip_parameters_of_trusted_clients_only() {
    let address = |query: &str, trusted| {
        let from = if query.starts_with("ipv6") { V6 } else { V4 };
        let query = format!("{HASH_AND_ID}&port=1&{query}");
        let request = AnnounceRequest::parse(query.as_bytes(), from, trusted);
        request.unwrap().announce.address
    };
    for (query, expected) in [
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
        assert_eq!(address(query, true).to_string(), expected, "{query}");
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
fn response_has_the_family_of_the_ip_parameter() {
    let tracker = tracker(true);
    let settings = Settings {
        trust_ip_params_from: Networks::new(vec![V4.into()]),
        max_scrape: 74,
        full_scrape: false,
    };
    let announce = |query: &str| {
        let query = format!("{HASH_AND_ID}&{query}");
        let action = Action::Announce;
        request_with(&tracker, &settings, Some(V4), action, query.as_bytes()).1
    };
    announce("port=258&ip=2001:db8::7");
    let response = announce("port=259&ip=2001:db8::8");
    let peer = b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x07\x01\x02";
    assert_eq!(response[&b"peers6"[..]], bytes(peer));
    assert_eq!(response[&b"peers"[..]], bytes(""));
    assert_eq!(
        response[&b"external ip"[..]],
        bytes(b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x08")
    );
}

/// Builds the response from the BEPs' description, without our own writer.
fn reference_answer(from: IpAddr, answer: &AnnounceResponse, peers: &[u8], compact: bool) -> Value {
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
fn responses_match_serde_bencode() {
    let mut random = Rng::new(3);
    let mut number = {
        let mut random = Rng::new(4);
        // The numbers have from 1 to 10 digits.
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
        write_announce_response(&mut body, from, &answer, &peers, compact);
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
fn refusal_has_retry_and_interval() {
    let tracker = tracker(false);
    tracker.set_admission(&InfoHash([b'd'; 20]), Admission::Denied);
    for (hash, refusal, retry, seconds) in [
        ("u", Refusal::UnknownTorrent, "5", 300),
        ("d", Refusal::DeniedTorrent, "never", 86_400),
    ] {
        let query = format!(
            "info_hash={}&peer_id={}&port=1",
            hash.repeat(20),
            "p".repeat(20)
        );
        let (outcome, failure) = request(&tracker, V4, Action::Announce, query.as_bytes());
        assert_eq!(outcome, HttpOutcome::Refused(refusal.clone()));
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

/// Returns the torrents of a scrape response, sorted.
fn scraped(response: &HashMap<Vec<u8>, Value>) -> Vec<(Vec<u8>, Value)> {
    assert_eq!(response.len(), 1);
    let Some(Value::Dict(files)) = response.get(&b"files"[..]) else {
        panic!("no files in {response:?}");
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
fn scrape_is_sorted_and_without_duplicates() {
    let tracker = tracker(true);
    for (port, extra) in [
        (1, "left=0&event=completed"),
        (2, "left=1"),
        (3, "left=1&event=paused"),
    ] {
        let query = format!("{HASH_AND_ID}&port={port}&{extra}");
        request(&tracker, V4, Action::Announce, query.as_bytes());
    }
    let other = [b'0'; 20];
    let query = "info_hash=abcdefghijklmnopqrst&x=y&info_hash=00000000000000000000&&info_hash=%61bcdefghijklmnopqrst";
    let (outcome, response) = request(&tracker, V4, Action::Scrape, query.as_bytes());
    assert_eq!(outcome, HttpOutcome::Scraped);
    let counts = dictionary([
        ("complete", Value::Int(1)),
        ("downloaded", Value::Int(1)),
        ("downloaders", Value::Int(1)),
        ("incomplete", Value::Int(2)),
    ]);
    assert_eq!(
        scraped(&response),
        [(other.to_vec(), zeros()), (HASH.to_vec(), counts)]
    );
}

#[test]
fn closed_tracker_scrapes_listed_torrents_only() {
    let tracker = tracker(false);
    let (listed, denied) = (InfoHash([b'l'; 20]), InfoHash([b'd'; 20]));
    tracker.set_admission(&listed, Admission::Listed);
    tracker.set_admission(&denied, Admission::Denied);
    let query = ["l", "d", "u"]
        .map(|hash| format!("info_hash={}&", hash.repeat(20)))
        .concat();
    let files = || scraped(&request(&tracker, V4, Action::Scrape, query.as_bytes()).1);
    assert_eq!(files(), [(listed.0.to_vec(), zeros())]);
    tracker.set_admission(&listed, Admission::Unlisted);
    assert_eq!(
        files(),
        [],
        "a torrent that is no longer listed is left out"
    );
}

#[test]
fn scrape_is_limited_to_max_scrape() {
    let tracker = tracker(true);
    let query = |hashes: u8| -> String {
        let hash = |i| format!("info_hash=%{:02x}bcdefghijklmnopqrst&", 255 - i);
        (0..hashes).map(hash).collect()
    };
    for (requested, expected) in [(1, 1), (73, 73), (74, 74), (75, 74), (100, 74)] {
        let (_, response) = request(&tracker, V4, Action::Scrape, query(requested).as_bytes());
        let files = scraped(&response);
        assert_eq!(files.len(), expected, "of {requested}");
        assert_eq!(
            files.last().unwrap().0[0],
            255,
            "the first torrents of the request"
        );
    }
    let wrong = query(74) + "info_hash=x";
    let (outcome, _) = request(&tracker, V4, Action::Scrape, wrong.as_bytes());
    assert_eq!(
        outcome,
        HttpOutcome::Scraped,
        "torrents over the limit are not parsed"
    );
    let wrong = query(73) + "info_hash=x";
    let (outcome, failure) = request(&tracker, V4, Action::Scrape, wrong.as_bytes());
    assert_eq!(outcome, HttpOutcome::Invalid(InvalidRequest::InfoHashWrong));
    assert_eq!(
        dictionary_of(&failure),
        dictionary([(
            "failure reason",
            bytes(InvalidRequest::InfoHashWrong.reason())
        )])
    );
}

#[test]
fn full_scrape_is_sorted_over_all_shards() {
    let tracker = tracker(false);
    let mut random = Rng::new(5);
    let mut listed: Vec<[u8; 20]> = (0..3000)
        .map(|_| random_bytes(&mut random, 20).try_into().unwrap())
        .collect();
    for hash in &listed {
        tracker.set_admission(&InfoHash(*hash), Admission::Listed);
    }
    tracker.set_admission(&InfoHash([0; 20]), Admission::Denied);
    listed.sort_unstable();
    let full = Settings {
        trust_ip_params_from: Networks::default(),
        max_scrape: 74,
        full_scrape: true,
    };
    for query in [&b""[..], b"&", b"info_hashes=x"] {
        // `request_with` compares the response with serde_bencode, which sorts.
        let (outcome, response) = request_with(&tracker, &full, Some(V4), Action::Scrape, query);
        assert_eq!(outcome, HttpOutcome::Scraped);
        let files = scraped(&response);
        assert!(
            files
                .iter()
                .map(|(hash, _)| &hash[..])
                .eq(listed.iter().map(|hash| &hash[..]))
        );

        let (outcome, failure) = request(&tracker, V4, Action::Scrape, query);
        assert_eq!(
            outcome,
            HttpOutcome::Invalid(InvalidRequest::ScrapeWithoutInfoHash)
        );
        let reason = bytes("a scrape needs an info_hash");
        assert_eq!(
            dictionary_of(&failure),
            dictionary([("failure reason", reason)])
        );
    }
}

/// Returns a nearly valid query, so that every part of the parser is reached.
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
fn any_query_gets_one_valid_dictionary() {
    for open in [true, false] {
        let tracker = tracker(open);
        tracker.set_admission(&InfoHash(*HASH), Admission::Listed);
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
            let (outcome, response) = request(&tracker, from, action, &query);
            let key: &[u8] = match &outcome {
                HttpOutcome::Announced(..) => b"peers",
                HttpOutcome::Scraped => b"files",
                HttpOutcome::Refused(_) | HttpOutcome::Invalid(_) => b"failure reason",
            };
            assert!(
                response.contains_key(key),
                "{} {outcome:?}",
                query.escape_ascii()
            );
            let kind = match outcome {
                HttpOutcome::Announced(..) => "Announced".to_owned(),
                other => format!("{other:?}"),
            };
            *seen.entry(kind).or_default() += 1;
        }
        // If an outcome is missing, the queries were not varied enough.
        let refused = if open { 0 } else { 1 };
        assert_eq!(seen.len(), 8 + refused, "{seen:?}");
    }
}
