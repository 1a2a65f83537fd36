//! What clients ask over HTTP, and a little of what they should not.

use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use super::wire::Connection;
use super::{
    Answer, Miss, NoAnswer, Query, Reply, Session, escaped, is_refusal, kind, peers_in, read,
    served, well_formed,
};
use crate::bencode::{Dict, Value};
use crate::case::Effort::{Full, Gentle};
use crate::case::Source::{Bep, Practice, Rfc};
use crate::case::{Case, Finding, broken, none_of, shown, skipped};
use crate::peer::{InfoHash, is_nowhere};

#[rustfmt::skip]
pub(super) const CASES: &[Case<Session>] = &[
    Case { id: "http-answer", effort: Gentle, source: Bep(3), check: answer,
        title: "an announce is answered with a bencoded dictionary" },
    Case { id: "http-form", effort: Gentle, source: Bep(3), check: form,
        title: "an answer's keys are sorted, each there once, and nothing follows its end" },
    Case { id: "http-plain", effort: Gentle, source: Practice, check: plain,
        title: "an answer has status 200 and its length, and is neither chunked nor compressed" },
    Case { id: "http-tracked", effort: Gentle, source: Bep(3), check: tracked,
        title: "the torrent that was named is tracked" },
    Case { id: "http-refusal", effort: Gentle, source: Bep(3), check: refusal,
        title: "a torrent that is not tracked is refused with a `failure reason`" },
    Case { id: "http-retry", effort: Gentle, source: Practice, check: retry,
        title: "a refusal says when to ask again, with `retry in` and `interval`" },
    Case { id: "http-retry-form", effort: Gentle, source: Bep(31), check: retry_form,
        title: "`retry in` is a number of minutes or `never`" },
    Case { id: "http-interval", effort: Gentle, source: Bep(3), check: interval,
        title: "`interval` is a number of seconds" },
    Case { id: "http-min-interval", effort: Gentle, source: Practice, check: min_interval,
        title: "`min interval` is no longer than `interval`" },
    Case { id: "http-peers", effort: Gentle, source: Bep(3), check: peers,
        title: "an answer has `peers`, if only an empty one" },
    Case { id: "http-compact", effort: Gentle, source: Bep(23), check: compact,
        title: "compact `peers` have 6 bytes each" },
    Case { id: "http-peers6", effort: Gentle, source: Bep(7), check: peers6,
        title: "over IPv6 there is `peers6`, with 18 bytes for each peer" },
    Case { id: "http-others", effort: Gentle, source: Bep(3), check: others,
        title: "a leecher is told of the seeder" },
    Case { id: "http-not-self", effort: Gentle, source: Practice, check: not_self,
        title: "no client is told of itself, of port 0 or of no address" },
    Case { id: "http-counts", effort: Gentle, source: Practice, check: counts,
        title: "`complete` counts the seeder, and `incomplete` the leecher" },
    Case { id: "http-external-ip", effort: Gentle, source: Bep(24), check: external_ip,
        title: "`external ip` is the client's address in 4 or 16 bytes" },
    Case { id: "http-scrape", effort: Gentle, source: Bep(48), check: scrape,
        title: "a scrape tells `complete`, `downloaded` and `incomplete` of a torrent" },
    Case { id: "http-scrape-form", effort: Gentle, source: Bep(3), check: scrape_form,
        title: "a scrape's keys are sorted, each there once, and nothing follows its end" },
    Case { id: "http-stopped", effort: Gentle, source: Bep(3), check: stopped,
        title: "event=stopped is answered like any announce" },
    Case { id: "http-gone", effort: Gentle, source: Bep(3), check: gone,
        title: "a peer that has stopped is told of no more" },

    Case { id: "http-hash-length", effort: Full, source: Bep(3), check: hash_length,
        title: "an info_hash that has not 20 bytes is not taken" },
    Case { id: "http-peer-id", effort: Full, source: Bep(3), check: peer_id,
        title: "a peer_id that has not 20 bytes, or is missing, is not taken" },
    Case { id: "http-port", effort: Full, source: Practice, check: port,
        title: "port 0, 65536 or none at all is refused, and never told to others" },
    Case { id: "http-refusals", effort: Full, source: Practice, check: refusals,
        title: "what is malformed is refused with status 200 and a `failure reason`" },
    Case { id: "http-escapes", effort: Full, source: Bep(3), check: escapes,
        title: "bytes may be escaped with digits of either case, or stand raw where a URL allows it" },
    Case { id: "http-plus", effort: Full, source: Practice, check: plus,
        title: "a + in an info_hash is a +, not a space" },
    Case { id: "http-left", effort: Full, source: Bep(3), check: left,
        title: "only left=0 makes a seeder: 2^31, 2^32, 2^63-1 do not" },
    Case { id: "http-left-odd", effort: Full, source: Practice, check: left_odd,
        title: "left missing, above 2^63, negative or garbled is a leecher's" },
    Case { id: "http-totals", effort: Full, source: Practice, check: totals,
        title: "uploaded and downloaded may be missing" },
    Case { id: "http-event-empty", effort: Full, source: Bep(3), check: event_empty,
        title: "an empty event is none" },
    Case { id: "http-event-paused", effort: Full, source: Bep(21), check: event_paused,
        title: "event=paused is answered with peers" },
    Case { id: "http-event-unknown", effort: Full, source: Practice, check: event_unknown,
        title: "an unknown event is none" },
    Case { id: "http-stopped-peers", effort: Full, source: Practice, check: stopped_peers,
        title: "who stops is told of no peers" },
    Case { id: "http-stopped-unknown", effort: Full, source: Practice, check: stopped_unknown,
        title: "who stops and was never there is not refused" },
    Case { id: "http-completed", effort: Full, source: Bep(48), check: completed,
        title: "event=completed adds one to `downloaded`" },
    Case { id: "http-completed-once", effort: Full, source: Practice, check: completed_once,
        title: "a peer completes once, and not with bytes left" },
    Case { id: "http-compact-default", effort: Full, source: Practice, check: compact_default,
        title: "without compact= the peers are compact" },
    Case { id: "http-compact-0", effort: Full, source: Bep(23), check: compact_0,
        title: "compact=0 is answered, with peers in either form" },
    Case { id: "http-no-peer-id", effort: Full, source: Practice, check: no_peer_id,
        title: "compact=0 with no_peer_id=1 is answered" },
    Case { id: "http-numwant", effort: Full, source: Bep(3), check: numwant,
        title: "`peers` is there whatever numwant says" },
    Case { id: "http-numwant-values", effort: Full, source: Practice, check: numwant_values,
        title: "numwant=0 gets no peers; negative, huge, empty and garbled ones get some" },
    Case { id: "http-keys", effort: Full, source: Practice, check: keys,
        title: "keys may come in any order, among unknown and empty ones" },
    Case { id: "http-families", effort: Full, source: Practice, check: families,
        title: "a client that announces over IPv4 and IPv6 is counted once" },
    Case { id: "http-hash-twice", effort: Full, source: Practice, check: hash_twice,
        title: "of two info_hash in an announce the first counts, or it is refused" },
    Case { id: "http-long-query", effort: Full, source: Practice, check: long_query,
        title: "a query of 3,000 bytes is read" },
    Case { id: "http-pieces", effort: Full, source: Rfc(9112), check: pieces,
        title: "a request may come in pieces" },
    Case { id: "http-1.0", effort: Full, source: Practice, check: http_1_0,
        title: "HTTP/1.0 without a Host is answered" },
    Case { id: "http-head", effort: Full, source: Practice, check: head,
        title: "HEAD is answered without a body" },
    Case { id: "http-absolute", effort: Full, source: Rfc(9112), check: absolute,
        title: "a request may name the whole URL" },
    Case { id: "http-close", effort: Full, source: Rfc(9112), check: close,
        title: "Connection: close ends the connection after the answer" },
    Case { id: "http-pipelined", effort: Full, source: Rfc(9112), check: pipelined,
        title: "requests sent together on a connection that stays open are answered in order" },
    Case { id: "http-gzip", effort: Full, source: Practice, check: gzip,
        title: "even to a client that takes gzip an answer is not compressed" },
    Case { id: "http-paths", effort: Full, source: Practice, check: paths,
        title: "a path that nobody knows is answered with 404" },
    Case { id: "http-scrape-twice", effort: Full, source: Bep(3), check: scrape_twice,
        title: "a scrape of one torrent twice has its key once" },
    Case { id: "http-scrape-order", effort: Full, source: Bep(3), check: scrape_order,
        title: "a scrape has its keys sorted whatever the order of the request" },
    Case { id: "http-scrape-foreign", effort: Full, source: Practice, check: scrape_foreign,
        title: "a scrape leaves an unknown torrent out, or counts nothing of it" },
    Case { id: "http-scrape-none", effort: Full, source: Practice, check: scrape_none,
        title: "a scrape without info_hash is refused, or tells of all" },
    Case { id: "http-scrape-many", effort: Full, source: Practice, check: scrape_many,
        title: "a scrape of 74 torrents is answered or refused" },
];

/// The answer that the leecher had, unless the torrent is not tracked.
fn leechers(session: &Session) -> Result<Dict, Miss> {
    session.tracked()?;
    match &session.leecher_reply {
        Some(reply) => served(reply),
        None => skipped("there was no second announce"),
    }
}

fn answer(session: &mut Session) -> Finding {
    let (dict, _) = read(&session.seeder_reply)?;
    Ok(match dict.bytes("failure reason") {
        Some(reason) => format!("one that says {}", shown(reason)),
        None => format!("one of {} keys", dict.0.len()),
    })
}

fn form(session: &mut Session) -> Finding {
    well_formed(&session.seeder_reply)
}

fn plain(session: &mut Session) -> Finding {
    match &session.seeder_reply {
        Ok(answer) => is_plain(answer),
        Err(none) => skipped(none.to_string()),
    }
}

fn is_plain(answer: &Answer) -> Finding {
    let mut odd = Vec::new();
    if answer.status != 200 {
        odd.push(format!("status {}", answer.status));
    }
    for name in ["transfer-encoding", "content-encoding"] {
        if let Some(value) = answer.header(name) {
            odd.push(format!("{name}: {}", value.escape_default()));
        }
    }
    if answer.header("content-length").is_none() {
        odd.push("no content-length".to_owned());
    }
    if answer.behind > 0 {
        odd.push(format!("{} bytes behind the body", answer.behind));
    }
    none_of(odd, "so it was")
}

fn tracked(session: &mut Session) -> Finding {
    match (session.named, session.tracked()) {
        (true, Ok(())) => Ok("it is".to_owned()),
        (true, Err(_)) => broken(match served(&session.seeder_reply) {
            Err(Miss::Broken(why)) => why,
            _ => "it is not".to_owned(),
        }),
        (false, Ok(())) => skipped("none was named; this tracker takes any"),
        (false, Err(_)) => skipped("none was named"),
    }
}

/// The answer to an announce of a torrent that no tracker knows.
fn foreign(session: &mut Session) -> Result<(InfoHash, Reply), Miss> {
    if !session.named {
        return Ok((session.torrent, session.seeder_reply.clone()));
    }
    if let Some(foreign) = &session.foreign {
        return Ok(foreign.clone());
    }
    let (hash, peer) = (session.random_hash()?, session.peer()?);
    let reply = session.announce(&session.started_of(&hash, &peer));
    session.foreign = Some((hash, reply.clone()));
    Ok((hash, reply))
}

/// Whether any torrent is tracked.
fn is_open(session: &mut Session) -> Result<bool, Miss> {
    let (_, reply) = foreign(session)?;
    Ok(served(&reply).is_ok())
}

fn refusal(session: &mut Session) -> Finding {
    let (_, reply) = foreign(session)?;
    let (dict, _) = read(&reply)?;
    match dict.get("failure reason") {
        None if dict.get("interval").is_some() => skipped("any torrent is tracked"),
        None => broken("neither `failure reason` nor `interval` is in the answer"),
        Some(Value::Bytes(reason)) => Ok(shown(reason)),
        Some(_) => broken("`failure reason` is no string"),
    }
}

/// The dictionary of a refusal; skips if any torrent is tracked.
fn refused(session: &mut Session) -> Result<Dict, Miss> {
    let (_, reply) = foreign(session)?;
    match read(&reply) {
        Ok((dict, _)) if dict.get("failure reason").is_some() => Ok(dict),
        Ok(_) => skipped("any torrent is tracked"),
        Err(_) => skipped("no refusal could be read"),
    }
}

fn retry(session: &mut Session) -> Finding {
    let dict = refused(session)?;
    let missing: Vec<_> = ["retry in", "interval"]
        .into_iter()
        .filter(|key| dict.get(key).is_none())
        .collect();
    match missing.is_empty() {
        true => Ok("both are there".to_owned()),
        false => broken(format!("it lacks `{}`", missing.join("` and `"))),
    }
}

fn retry_form(session: &mut Session) -> Finding {
    match refused(session)?.get("retry in") {
        None => skipped("there is no `retry in`, which is optional"),
        Some(Value::Integer(minutes)) if *minutes > 0 => Ok(format!("{minutes}")),
        // BEP 31's own example has it so.
        Some(Value::Bytes(text))
            if text == b"never"
                || !text.is_empty() && text[0] != b'0' && text.iter().all(u8::is_ascii_digit) =>
        {
            Ok(shown(text))
        }
        Some(Value::Bytes(text)) => broken(format!("it is {}", shown(text))),
        Some(_) => broken("it is no positive number"),
    }
}

fn interval(session: &mut Session) -> Finding {
    session.tracked()?;
    let dict = served(&session.seeder_reply)?;
    match dict.get("interval") {
        Some(Value::Integer(seconds)) if (1..=1 << 31).contains(seconds) => {
            Ok(format!("{seconds} s"))
        }
        Some(Value::Integer(seconds)) => broken(format!("it is {seconds}")),
        Some(_) => broken("it is no number"),
        None => broken("it is missing"),
    }
}

fn min_interval(session: &mut Session) -> Finding {
    session.tracked()?;
    let dict = served(&session.seeder_reply)?;
    match (dict.get("min interval"), dict.integer("interval")) {
        (None, _) => skipped("there is none, which is customary too"),
        (Some(Value::Integer(min)), Some(interval)) if (0..=interval).contains(min) => {
            Ok(format!("{min} of {interval} s"))
        }
        (Some(Value::Integer(min)), Some(interval)) => broken(format!("{min} of {interval} s")),
        _ => broken("one of them is no number"),
    }
}

fn peers(session: &mut Session) -> Finding {
    session.tracked()?;
    has_peers(session, &served(&session.seeder_reply)?)
}

/// Over IPv6 `peers6` will do.
fn has_peers(session: &Session, dict: &Dict) -> Finding {
    match (dict.get("peers"), dict.get("peers6")) {
        (Some(_), _) => Ok("it is there".to_owned()),
        (None, Some(_)) if session.is_v6() => Ok("`peers6` is there".to_owned()),
        _ => broken("it is missing"),
    }
}

fn compact(session: &mut Session) -> Finding {
    let dict = leechers(session)?;
    match dict.get("peers") {
        Some(Value::Bytes(peers)) if peers.len() % 6 == 0 => Ok(format!("{} bytes", peers.len())),
        Some(Value::Bytes(peers)) => broken(format!("it has {} bytes", peers.len())),
        // compact= is but a wish.
        Some(Value::List(_)) => skipped("the peers are dictionaries, as they may be"),
        Some(_) => broken("it is neither a string nor a list"),
        None => skipped("there is no `peers`"),
    }
}

fn peers6(session: &mut Session) -> Finding {
    if !session.is_v6() {
        return skipped("this is IPv4");
    }
    let dict = leechers(session)?;
    match dict.get("peers6") {
        Some(Value::Bytes(peers)) if peers.len() % 18 == 0 => Ok(format!("{} bytes", peers.len())),
        Some(Value::Bytes(peers)) => broken(format!("it has {} bytes", peers.len())),
        Some(_) => broken("it is no string"),
        None if matches!(dict.get("peers"), Some(Value::List(_))) => {
            skipped("the peers are dictionaries, as they may be")
        }
        None => broken("it is missing"),
    }
}

fn others(session: &mut Session) -> Finding {
    let peers = peers_in(&leechers(session)?)?;
    match Session::tells_of(&peers, &session.seeder)? {
        true => Ok(format!("it is, among {}", peers.len())),
        false => broken(format!("it is not; there are {} others", peers.len())),
    }
}

fn not_self(session: &mut Session) -> Finding {
    let peers = peers_in(&leechers(session)?)?;
    if peers.iter().any(|peer| peer.port() == session.leecher.port) {
        return broken("the leecher was told of itself");
    }
    match peers.iter().find(|peer| is_nowhere(peer)) {
        Some(nowhere) => broken(format!("it was told of {nowhere}")),
        None => Ok(format!("so it is with {} peers", peers.len())),
    }
}

fn counts(session: &mut Session) -> Finding {
    let dict = leechers(session)?;
    match (dict.get("complete"), dict.get("incomplete")) {
        (None, None) => skipped("an answer has neither, as it may"),
        (Some(Value::Integer(complete)), Some(Value::Integer(incomplete))) => {
            let told = format!("complete {complete}, incomplete {incomplete}");
            // Whether the asker is counted in its own answer, trackers see differently.
            match *complete >= 1 && *incomplete >= 0 {
                true => Ok(told),
                false => broken(told),
            }
        }
        _ => broken("one of them is missing or no number"),
    }
}

fn external_ip(session: &mut Session) -> Finding {
    session.tracked()?;
    let dict = served(&session.seeder_reply)?;
    let told = match dict.get("external ip") {
        None => return skipped("there is none, which is optional"),
        Some(Value::Bytes(bytes)) => bytes.as_slice(),
        Some(_) => return broken("it is no string"),
    };
    let address = match (<[u8; 4]>::try_from(told), <[u8; 16]>::try_from(told)) {
        (Ok(v4), _) => IpAddr::from(v4),
        (_, Ok(v6)) => IpAddr::from(v6),
        _ => return broken(format!("it has {} bytes", told.len())),
    };
    // From behind a NAT it must be another.
    match session.own {
        Some(own) if own.is_loopback() && own != address.to_canonical() => {
            broken(format!("it is {address}, and the client is {own}"))
        }
        _ => Ok(address.to_string()),
    }
}

fn scrape(session: &mut Session) -> Finding {
    let reply = session.scrape_of(&[session.torrent])?;
    session.scraped = Some(reply.clone());
    // It is an extension.
    match &reply {
        Ok(answer) if matches!(answer.status, 403..=405 | 501) => {
            return skipped(format!("there is none: HTTP {}", answer.status));
        }
        Ok(answer) if is_refusal(answer) => return skipped("it is refused, as it may be"),
        _ => {}
    }
    let (dict, _) = read(&reply)?;
    let Some(files) = dict.dict("files") else {
        return broken("`files` is missing, or no dictionary");
    };
    let Some(entry) = files.dict(session.torrent) else {
        session.tracked()?;
        return broken("the torrent is not in `files`");
    };
    let missing = ["complete", "downloaded", "incomplete"]
        .into_iter()
        .find(|key| entry.integer(key).is_none_or(|count| count < 0));
    match missing {
        None => Ok(format!("{} keys", entry.0.len())),
        Some(key) => broken(format!("`{key}` is missing, or no number")),
    }
}

fn scrape_form(session: &mut Session) -> Finding {
    match &session.scraped {
        Some(reply) if read(reply).is_ok() => well_formed(reply),
        _ => skipped("there is no scrape to read"),
    }
}

fn stopped(session: &mut Session) -> Finding {
    session.tracked()?;
    let reply = session.stop(&session.started(&session.leecher));
    served(&reply)?;
    Ok("so it is".to_owned())
}

fn gone(session: &mut Session) -> Finding {
    session.tracked()?;
    let again = session
        .started(&session.seeder)
        .set("left", "0")
        .without("event");
    let Ok(dict) = served(&session.announce(&again)) else {
        return skipped("a second announce of the seeder was refused, perhaps as too early");
    };
    let peers = peers_in(&dict)?;
    match peers.iter().any(|peer| peer.port() == session.leecher.port) {
        true => broken("the seeder was told of a leecher that has stopped"),
        false => Ok("the seeder was not".to_owned()),
    }
}

/// Announces what should not be taken, keeps the answers, and fails if one was as good as any.
fn not_taken(session: &mut Session, odd: Vec<(String, Query)>) -> Finding {
    let mut taken = Vec::new();
    let count = odd.len();
    for (what, query) in odd {
        let reply = session.announce(&query);
        if served(&reply).is_ok() {
            taken.push(what.clone());
            session.withdraw(&query);
        }
        session.malformed.push((what, reply));
    }
    match taken.is_empty() {
        true => Ok(format!("none of {count} was")),
        false => broken(format!("taken: {}", taken.join(", "))),
    }
}

fn hash_length(session: &mut Session) -> Finding {
    let peer = session.peer()?;
    let query = session.started(&peer);
    let hash = session.torrent;
    let digits: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let odd = [
        ("no info_hash bytes", String::new()),
        ("19 bytes", escaped(&hash[..19])),
        ("21 bytes", format!("{}%41", escaped(&hash))),
        (
            "32 bytes",
            format!("{}{}", escaped(&hash), "%41".repeat(12)),
        ),
        ("40 hex digits", digits),
        ("%zz in info_hash", format!("{}%zz", escaped(&hash[..19]))),
    ];
    let mut odd: Vec<_> = odd
        .into_iter()
        .map(|(what, value)| (what.to_owned(), query.clone().set("info_hash", value)))
        .collect();
    odd.push(("info_hash missing".to_owned(), query.without("info_hash")));
    not_taken(session, odd)
}

fn peer_id(session: &mut Session) -> Finding {
    session.tracked()?;
    let peer = session.peer()?;
    let query = session.started(&peer);
    let odd = vec![
        (
            "peer_id of 19 bytes".to_owned(),
            query.clone().set("peer_id", escaped(&peer.id[..19])),
        ),
        ("peer_id missing".to_owned(), query.without("peer_id")),
    ];
    not_taken(session, odd)
}

fn port(session: &mut Session) -> Finding {
    session.tracked()?;
    let mut taken = Vec::new();
    let observer = session.peer()?;
    for value in [Some("0"), Some("65536"), Some("-1"), Some("x"), None] {
        let peer = session.peer()?;
        let query = session.started(&peer);
        let (what, query) = match value {
            Some(value) => (format!("port={value}"), query.set("port", value)),
            None => ("port missing".to_owned(), query.without("port")),
        };
        let reply = session.announce(&query);
        if served(&reply).is_ok() {
            // 65536 may have become 0.
            let seen = served(&session.announce(&session.started(&observer)))?;
            let nowhere = peers_in(&seen)?.iter().any(|peer| peer.port() == 0);
            taken.push(match nowhere {
                true => format!("{what} was taken and told to others as port 0"),
                false => format!("{what} was taken"),
            });
            session.withdraw(&query);
        }
        session.malformed.push((what, reply));
    }
    session.withdraw(&session.started(&observer));
    none_of(taken, "all were refused")
}

fn refusals(session: &mut Session) -> Finding {
    let short = escaped(&session.torrent[..19]);
    if let Ok(reply) = session.scrape(&format!("info_hash={short}")) {
        session
            .malformed
            .push(("a scrape of 19 bytes".to_owned(), reply));
    }
    let odd: Vec<_> = session
        .malformed
        .iter()
        .filter(|(_, reply)| served(reply).is_err())
        .filter(|(_, reply)| !reply.as_ref().is_ok_and(is_refusal))
        .map(|(what, reply)| format!("{what}: {}", kind(reply)))
        .collect();
    none_of(odd, format!("all {} were", session.malformed.len()))
}

fn escapes(session: &mut Session) -> Finding {
    session.tracked()?;
    let hash = session.torrent;
    let lower: String = hash.iter().map(|byte| format!("%{byte:02x}")).collect();
    let raw: String = hash
        .iter()
        .map(|&byte| match byte {
            b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect();
    for (what, spelled) in [("digits in lower case", lower), ("raw bytes", raw)] {
        let (_, change) = session.counted(|query| query.set("info_hash", spelled.as_str()))?;
        if change.incomplete < 1 {
            return broken(format!("with {what} it was another torrent"));
        }
    }
    Ok("all are the same torrent".to_owned())
}

fn plus(session: &mut Session) -> Finding {
    let open = is_open(session)?;
    let hash = match session.torrent.contains(&b'+') {
        true if session.tracked().is_ok() => session.torrent,
        _ if open => {
            let mut hash = session.random_hash()?;
            hash[7] = b'+';
            hash
        }
        _ => return skipped("no torrent that is tracked has a + in its info_hash"),
    };
    let before = session.counts_of(&hash)?;
    let peer = session.peer()?;
    let spelled = escaped(&hash).replace("%2B", "+");
    let query = session.started(&peer).set("info_hash", spelled);
    let reply = session.announce(&query);
    let after = session.counts_of(&hash)?;
    session.withdraw(&query);
    served(&reply)?;
    match after.incomplete > before.incomplete {
        true => Ok("so it is".to_owned()),
        false => broken("it was taken for another byte"),
    }
}

/// Fails if an announce with one of these as its `left`, or without any, is refused or counted as a seeder's.
fn leechers_left(session: &mut Session, values: &[Option<&str>]) -> Finding {
    session.tracked()?;
    let mut odd = Vec::new();
    for value in values {
        let what = value.map_or("no left".to_owned(), |value| format!("left={value}"));
        let counted = session.counted(|query| match value {
            Some(value) => query.set("left", *value),
            None => query.without("left"),
        });
        match counted {
            Ok((_, change)) if change.complete > 0 => {
                odd.push(format!("{what} was counted as a seeder"));
            }
            Ok(_) => {}
            Err(Miss::Broken(why)) => odd.push(format!("{what}: {why}")),
            skipped => skipped.map(drop)?,
        }
    }
    none_of(odd, "all were counted as leechers")
}

fn left(session: &mut Session) -> Finding {
    let values = ["2147483648", "4294967296", "9223372036854775807"];
    leechers_left(session, &values.map(Some))
}

fn left_odd(session: &mut Session) -> Finding {
    let values = [
        None,
        Some("9223372036854775808"),
        Some("18446744073709551615"),
        Some("-1"),
        Some(""),
        Some("abc"),
    ];
    leechers_left(session, &values)
}

fn totals(session: &mut Session) -> Finding {
    session.tracked()?;
    session.asked(|query| query.without("uploaded").without("downloaded"))?;
    Ok("so it was answered".to_owned())
}

/// Fails if an announce with this event is not told of the seeder.
fn told_despite_event(session: &mut Session, event: &str) -> Finding {
    session.tracked()?;
    let dict = session.asked(|query| query.set("event", event))?;
    match Session::tells_of(&peers_in(&dict)?, &session.seeder)? {
        true => Ok("it was told of the seeder".to_owned()),
        false => broken("it was not told of the seeder"),
    }
}

fn event_empty(session: &mut Session) -> Finding {
    told_despite_event(session, "")
}

fn event_paused(session: &mut Session) -> Finding {
    told_despite_event(session, "paused")
}

fn event_unknown(session: &mut Session) -> Finding {
    told_despite_event(session, "empty")?;
    told_despite_event(session, "bogus")
}

fn stopped_peers(session: &mut Session) -> Finding {
    session.tracked()?;
    let peer = session.peer()?;
    let query = session.started(&peer);
    served(&session.announce(&query))?;
    let peers = peers_in(&served(&session.stop(&query))?)?;
    match peers.len() {
        0 => Ok("none".to_owned()),
        count => broken(format!("{count} were told")),
    }
}

fn stopped_unknown(session: &mut Session) -> Finding {
    session.tracked()?;
    let peer = session.peer()?;
    let query = session.started(&peer);
    served(&session.stop(&query))?;
    Ok("it was answered".to_owned())
}

fn completed(session: &mut Session) -> Finding {
    session.tracked()?;
    let peer = session.peer()?;
    let query = session.started(&peer);
    served(&session.announce(&query))?;
    let before = session.counts()?;
    let done = query.set("event", "completed").set("left", "0");
    served(&session.announce(&done))?;
    let after = session.counts();
    session.withdraw(&done);
    match after?.downloaded - before.downloaded {
        1 => Ok("it does".to_owned()),
        change => broken(format!("it added {change}")),
    }
}

fn completed_once(session: &mut Session) -> Finding {
    session.tracked()?;
    let peer = session.peer()?;
    let done = session
        .started(&peer)
        .set("event", "completed")
        .set("left", "0");
    served(&session.announce(&done))?;
    let before = session.counts()?;
    served(&session.announce(&done))?;
    let after = session.counts();
    session.withdraw(&done);
    let twice = after?.downloaded - before.downloaded;
    let (_, partial) = session.counted(|query| query.set("event", "completed"))?;
    match (twice, partial.complete) {
        (0, 0) => Ok("so it is".to_owned()),
        (0, _) => broken("one with bytes left became a seeder"),
        (twice, _) => broken(format!("the second time added {twice}")),
    }
}

fn compact_default(session: &mut Session) -> Finding {
    session.tracked()?;
    let dict = session.asked(|query| query.without("compact"))?;
    match dict.get("peers").or(dict.get("peers6")) {
        Some(Value::Bytes(_)) => Ok("they are".to_owned()),
        Some(_) => broken("they are dictionaries"),
        None => broken("there are none"),
    }
}

fn compact_0(session: &mut Session) -> Finding {
    session.tracked()?;
    let dict = session.asked(|query| query.set("compact", "0"))?;
    has_seeder_in_either_form(session, &dict)
}

fn no_peer_id(session: &mut Session) -> Finding {
    session.tracked()?;
    let dict = session.asked(|query| query.set("compact", "0").set("no_peer_id", "1"))?;
    has_seeder_in_either_form(session, &dict)
}

fn has_seeder_in_either_form(session: &Session, dict: &Dict) -> Finding {
    match Session::tells_of(&peers_in(dict)?, &session.seeder)? {
        false => broken("the seeder is not among the peers"),
        true => Ok(match dict.get("peers") {
            Some(Value::List(_)) => "dictionaries".to_owned(),
            _ => "compact".to_owned(),
        }),
    }
}

fn numwant(session: &mut Session) -> Finding {
    session.tracked()?;
    for value in ["0", "-1", "1000000"] {
        let dict = session.asked(|query| query.set("numwant", value))?;
        if let Err(Miss::Broken(why)) = has_peers(session, &dict) {
            return broken(format!("numwant={value}: {why}"));
        }
    }
    Ok("so it is with 0, -1 and 1000000".to_owned())
}

fn numwant_values(session: &mut Session) -> Finding {
    session.tracked()?;
    let values = ["0", "-1", "", "abc", "4294967296", "99999999999999999999"];
    let mut odd = Vec::new();
    for value in values {
        let peers = session
            .asked(|query| query.set("numwant", value))
            .and_then(|dict| peers_in(&dict));
        let peers = match peers {
            Ok(peers) => peers,
            Err(Miss::Broken(why)) => {
                odd.push(format!("numwant={value}: {why}"));
                continue;
            }
            Err(skipped) => return Err(skipped),
        };
        let well = match value {
            "0" => peers.is_empty(),
            _ => Session::tells_of(&peers, &session.seeder)?,
        };
        if !well {
            odd.push(format!("numwant={value} got {} peers", peers.len()));
        }
    }
    none_of(odd, format!("so it was with {} values", values.len()))
}

fn keys(session: &mut Session) -> Finding {
    session.tracked()?;
    session.asked(|Query(mut pairs)| {
        pairs.reverse();
        Query(pairs)
            .add("corrupt", "0")
            .add("supportcrypto", "1")
            .add("requirecrypto", "1")
            .add("cryptoport", "0")
            .add("redundant", "0&&flag&=")
            .add("azudp", "0&")
    })?;
    Ok("it was answered".to_owned())
}

fn families(session: &mut Session) -> Finding {
    session.tracked()?;
    let Some(other) = session.other_family.take() else {
        return skipped("the tracker was not reached over the other family before");
    };
    let before = session.counts()?;
    let peer = session.peer()?;
    let query = session.started(&peer).set("left", "0");
    let there = other.get(&session.target(&query.text()));
    let here = session.announce(&query);
    let after = session.counts();
    session.withdraw(&query);
    let _ = other.get(&session.target(&query.set("event", "stopped").text()));
    if served(&there).is_err() {
        return skipped("it was not answered over the other family");
    }
    served(&here)?;
    match after?.complete - before.complete {
        1 => Ok("it is".to_owned()),
        count => broken(format!("it was counted as {count}")),
    }
}

fn hash_twice(session: &mut Session) -> Finding {
    session.tracked()?;
    let other = match session.second {
        Some(second) => second,
        None => session.random_hash()?,
    };
    let (first_before, before) = (session.counts()?, session.counts_of(&other)?);
    let peer = session.peer()?;
    let query = session.started(&peer).add("info_hash", escaped(&other));
    let reply = session.announce(&query);
    let (first_after, after) = (session.counts()?, session.counts_of(&other)?);
    session.withdraw(&query);
    let (dict, _) = read(&reply)?;
    if dict.get("failure reason").is_some() {
        return Ok("it was refused".to_owned());
    }
    match after.incomplete > before.incomplete {
        true => broken("the last one counted"),
        false if first_after.incomplete > first_before.incomplete => {
            Ok("the first one counted".to_owned())
        }
        false => broken("it was answered, and none of them counted"),
    }
}

fn long_query(session: &mut Session) -> Finding {
    session.tracked()?;
    session.asked(|query| query.set("x", "x".repeat(3_000)))?;
    Ok("it was answered".to_owned())
}

/// A well-formed request's bytes, for those cases that care how it comes and not what it says.
fn announce_again(session: &Session, headers: &str) -> String {
    session.wire.request(&announce_target(session), headers)
}

fn announce_target(session: &Session) -> String {
    let query = session.started(&session.seeder).set("left", "0");
    session.target(&query.without("event").text())
}

fn connection(session: &Session) -> Result<Connection, Miss> {
    let connection = session.wire.connect();
    connection.or_else(|none| skipped(none.to_string()))
}

/// Well if it was answered as an announce is: with peers or a refusal of the torrent.
fn answered(reply: &Reply) -> Finding {
    read(reply)?;
    Ok("it was answered".to_owned())
}

fn pieces(session: &mut Session) -> Finding {
    let request = announce_again(session, "");
    let mut connection = connection(session)?;
    for piece in request.as_bytes().chunks(request.len() / 6) {
        connection.send(piece);
        thread::sleep(Duration::from_millis(20));
    }
    answered(&connection.answer())
}

fn http_1_0(session: &mut Session) -> Finding {
    let target = announce_target(session);
    answered(&session.wire.ask(format!("GET {target} HTTP/1.0\r\n\r\n")))
}

fn head(session: &mut Session) -> Finding {
    let request = announce_again(session, "").replacen("GET", "HEAD", 1);
    let mut connection = connection(session)?;
    connection.send(request);
    let answer = connection.head().or_else(|none| broken(none.to_string()))?;
    let (body, _) = connection.rest(session.wire.timeout.min(Duration::from_millis(500)));
    match (answer.status, body) {
        (200, 0) => Ok("so it was".to_owned()),
        (status, 0) => broken(format!("HTTP {status}")),
        (status, body) => broken(format!("HTTP {status}, and a body of {body} bytes")),
    }
}

fn absolute(session: &mut Session) -> Finding {
    let target = format!("http://{}{}", session.wire.host, announce_target(session));
    answered(&session.wire.get(&target))
}

fn close(session: &mut Session) -> Finding {
    let request = announce_again(session, "");
    let mut connection = connection(session)?;
    connection.send(request);
    if let Err(none) = connection.answer() {
        return skipped(none.to_string());
    }
    match connection.rest(session.wire.timeout) {
        (_, true) => Ok("it does".to_owned()),
        (_, false) => broken("it stayed open"),
    }
}

fn pipelined(session: &mut Session) -> Finding {
    let (target, host) = (announce_target(session), &session.wire.host);
    let one = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let mut connection = connection(session)?;
    connection.send(&one);
    let first = connection
        .answer()
        .or_else(|none| broken(none.to_string()))?;
    let closes = |answer: &Answer| {
        let header = answer.header("connection");
        header.is_some_and(|value| value.eq_ignore_ascii_case("close"))
            || answer.header("content-length").is_none()
    };
    if closes(&first) {
        return skipped("a connection ends with its first answer, as it may");
    }
    connection.send(one.repeat(2));
    for number in ["first", "second"] {
        match connection.answer() {
            Ok(answer) => read(&Ok(answer)).map(drop)?,
            Err(NoAnswer::Closed) if number == "first" => {
                return skipped("a connection ends with its first answer, as it may");
            }
            Err(none) => return broken(format!("the {number} of two: {none}")),
        }
    }
    Ok("three on one connection, two of them sent together".to_owned())
}

fn gzip(session: &mut Session) -> Finding {
    let request = announce_again(session, "Accept-Encoding: gzip\r\n");
    match session.wire.ask(request) {
        Err(none) => broken(none.to_string()),
        Ok(answer) => match answer.header("content-encoding") {
            None => Ok("it was not".to_owned()),
            Some(encoding) => broken(format!("it was, with {}", encoding.escape_default())),
        },
    }
}

fn paths(session: &mut Session) -> Finding {
    let letters = escaped(&session.random_hash()?).replace('%', "");
    match session.wire.get(&format!("/{letters}")) {
        Ok(answer) if answer.status == 404 => Ok("it was".to_owned()),
        Ok(answer) => broken(answer.shown()),
        Err(none) => broken(none.to_string()),
    }
}

/// A scrape's answer, if there is scrape here and the torrent is in it.
fn scraped(session: &Session, hashes: &[InfoHash]) -> Result<Reply, Miss> {
    session.tracked()?;
    session.counts()?;
    session.scrape_of(hashes)
}

fn scrape_twice(session: &mut Session) -> Finding {
    well_formed(&scraped(session, &[session.torrent; 2])?)
}

fn scrape_order(session: &mut Session) -> Finding {
    let any = is_open(session)?;
    let second = match session.second {
        Some(second) => second,
        None if any => session.random_hash()?,
        None => return skipped("no second torrent was named"),
    };
    // Some trackers forget a torrent without peers.
    let peer = session.peer()?;
    let query = session.started_of(&second, &peer);
    served(&session.announce(&query))?;
    let mut hashes = [session.torrent, second];
    for _ in 0..2 {
        hashes.reverse();
        let reply = scraped(session, &hashes)?;
        let (dict, _) = read(&reply)?;
        let files = dict.dict("files").map_or(0, |files| files.0.len());
        if files < 2 {
            return skipped(format!("of two torrents it told of {files}"));
        }
        well_formed(&reply)?;
    }
    Ok("so they are in both orders".to_owned())
}

fn scrape_foreign(session: &mut Session) -> Finding {
    session.counts()?;
    let hash = session.random_hash()?;
    let dict = served(&session.scrape_of(&[hash])?)?;
    match dict.dict("files").map(|files| files.dict(hash)) {
        None => broken("`files` is missing"),
        Some(None) => Ok("it left it out".to_owned()),
        Some(Some(entry)) => match entry.0.iter().all(|(_, count)| *count == Value::Integer(0)) {
            true => Ok("it counted nothing".to_owned()),
            false => broken("it counted something"),
        },
    }
}

fn scrape_none(session: &mut Session) -> Finding {
    session.counts()?;
    let (dict, _) = read(&session.scrape("")?)?;
    match (dict.bytes("failure reason"), dict.dict("files")) {
        (Some(reason), _) => Ok(shown(reason)),
        (None, Some(files)) => Ok(format!("it told of {}", files.0.len())),
        _ => broken("neither `failure reason` nor `files`"),
    }
}

fn scrape_many(session: &mut Session) -> Finding {
    session.counts()?;
    let mut hashes = vec![session.torrent];
    while hashes.len() < 74 {
        hashes.push(session.random_hash()?);
    }
    let (dict, _) = read(&session.scrape_of(&hashes)?)?;
    match (dict.bytes("failure reason"), dict.dict("files")) {
        (Some(reason), _) => Ok(shown(reason)),
        (None, Some(files)) => Ok(format!("it told of {}", files.0.len())),
        _ => broken("neither `failure reason` nor `files`"),
    }
}
