//! Cases for the parameters of an announce over HTTP.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use tbtt::bytes::Hex;

use super::basic::{has_peers, tracks_any_torrent};
use super::{NotOk, Query, Session, accepted, escaped, is_refusal, parse, peers_in, status_of};
use crate::bencode::{Dict, Value};
use crate::case::Effort::Full;
use crate::case::Source::{Bep, Practice};
use crate::case::{Case, Finding, count, failed, ok_if_none, skipped};
use crate::peer::random_hash;

/// The bytes that a URL must encode: all that are not unreserved in RFC 3986.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

#[rustfmt::skip]
pub(super) const CASES: &[Case<Session>] = &[
    Case { id: "http-hash-length", effort: Full, source: Bep(3), check: hash_length,
        title: "an info_hash that does not have 20 bytes is refused" },
    Case { id: "http-peer-id", effort: Full, source: Bep(3), check: peer_id,
        title: "a peer_id that is missing or does not have 20 bytes is refused" },
    Case { id: "http-port", effort: Full, source: Practice, check: port,
        title: "a port that is 0, 65536 or missing is refused, and never listed" },
    Case { id: "http-refusals", effort: Full, source: Practice, check: refusals,
        title: "malformed requests are refused with status 200 and `failure reason`" },
    Case { id: "http-escapes", effort: Full, source: Bep(3), check: escapes,
        title: "bytes may be percent-encoded with digits of either case, or not encoded if a URL allows them" },
    Case { id: "http-plus", effort: Full, source: Practice, check: plus,
        title: "a + in an info_hash means +, not a space" },
    Case { id: "http-left", effort: Full, source: Bep(3), check: left,
        title: "only left=0 makes a seeder: 2^31, 2^32 and 2^63-1 do not" },
    Case { id: "http-left-odd", effort: Full, source: Practice, check: left_odd,
        title: "a client with left missing, above 2^63, negative or garbled is a leecher" },
    Case { id: "http-totals", effort: Full, source: Practice, check: totals,
        title: "uploaded and downloaded are optional" },
    Case { id: "http-event-empty", effort: Full, source: Bep(3), check: event_empty,
        title: "an empty event is the same as no event" },
    Case { id: "http-event-paused", effort: Full, source: Bep(21), check: event_paused,
        title: "the response to event=paused lists peers" },
    Case { id: "http-event-unknown", effort: Full, source: Practice, check: event_unknown,
        title: "an unknown event is the same as no event" },
    Case { id: "http-stopped-peers", effort: Full, source: Practice, check: stopped_peers,
        title: "the response to event=stopped lists no peers" },
    Case { id: "http-stopped-unknown", effort: Full, source: Practice, check: stopped_unknown,
        title: "event=stopped of an unknown peer is not refused" },
    Case { id: "http-completed", effort: Full, source: Bep(48), check: completed,
        title: "event=completed adds 1 to `downloaded`" },
    Case { id: "http-completed-once", effort: Full, source: Practice, check: completed_once,
        title: "a peer completes only once, and not while bytes are left" },
    Case { id: "http-compact-default", effort: Full, source: Practice, check: compact_default,
        title: "without compact=, the peers are compact" },
    Case { id: "http-compact-0", effort: Full, source: Bep(23), check: compact_0,
        title: "compact=0 gets peers, compact or as dictionaries" },
    Case { id: "http-no-peer-id", effort: Full, source: Practice, check: no_peer_id,
        title: "compact=0 with no_peer_id=1 gets peers" },
    Case { id: "http-numwant", effort: Full, source: Bep(3), check: numwant,
        title: "a response has `peers` for any numwant" },
    Case { id: "http-numwant-values", effort: Full, source: Practice, check: numwant_values,
        title: "numwant=0 gets no peers; a negative, huge, empty or garbled numwant gets some" },
    Case { id: "http-keys", effort: Full, source: Practice, check: keys,
        title: "keys may be in any order, and among unknown and empty ones" },
    Case { id: "http-families", effort: Full, source: Practice, check: families,
        title: "a client that announces over IPv4 and IPv6 is counted once" },
    Case { id: "http-hash-twice", effort: Full, source: Practice, check: hash_twice,
        title: "if an announce has two info_hash, the first counts, or the announce is refused" },
    Case { id: "http-long-query", effort: Full, source: Practice, check: long_query,
        title: "a query of 3,000 bytes is accepted" },
];

/// Sends malformed announces, each with a description, and keeps the replies. Fails if any of them is accepted.
fn must_be_refused(session: &mut Session, malformed: Vec<(String, Query)>) -> Finding {
    let mut problems = Vec::new();
    let sent = malformed.len();
    for (description, query) in malformed {
        let reply = session.announce(&query);
        if accepted(&reply).is_ok() {
            problems.push(format!("{description} was accepted"));
            session.withdraw(&query);
        }
        session.malformed.push((description, reply));
    }
    ok_if_none(problems, format!("{sent} malformed announces were refused"))
}

fn hash_length(session: &mut Session) -> Finding {
    let peer = session.peer()?;
    let query = session.started(&peer);
    let hash = session.torrent;
    let digits = Hex(&hash).to_string();
    let malformed = [
        ("an info_hash of 0 bytes", String::new()),
        ("an info_hash of 19 bytes", escaped(&hash[..19])),
        ("an info_hash of 21 bytes", format!("{}%41", escaped(&hash))),
        (
            "an info_hash of 32 bytes",
            format!("{}{}", escaped(&hash), "%41".repeat(12)),
        ),
        ("an info_hash of 40 hexadecimal digits", digits),
        (
            "an info_hash with %zz",
            format!("{}%zz", escaped(&hash[..19])),
        ),
    ];
    let mut malformed: Vec<_> = malformed
        .into_iter()
        .map(|(description, value)| {
            let query = query.clone().set("info_hash", value);
            (description.to_owned(), query)
        })
        .collect();
    let missing = query.without("info_hash");
    malformed.push(("an announce without info_hash".to_owned(), missing));
    must_be_refused(session, malformed)
}

fn peer_id(session: &mut Session) -> Finding {
    session.require_tracked()?;
    let peer = session.peer()?;
    let query = session.started(&peer);
    let malformed = vec![
        (
            "a peer_id of 19 bytes".to_owned(),
            query.clone().set("peer_id", escaped(&peer.id[..19])),
        ),
        (
            "an announce without peer_id".to_owned(),
            query.without("peer_id"),
        ),
    ];
    must_be_refused(session, malformed)
}

fn port(session: &mut Session) -> Finding {
    session.require_tracked()?;
    let mut problems = Vec::new();
    let observer = session.peer()?;
    for value in [Some("0"), Some("65536"), Some("-1"), Some("x"), None] {
        let peer = session.peer()?;
        let query = session.started(&peer);
        let (description, query) = match value {
            Some(value) => (format!("port={value}"), query.set("port", value)),
            None => ("an announce without port".to_owned(), query.without("port")),
        };
        let reply = session.announce(&query);
        if accepted(&reply).is_ok() {
            // A tracker that stores 16 bits of 65536 has port 0.
            let seen = accepted(&session.announce(&session.started(&observer)))?;
            let is_listed = peers_in(&seen)?.iter().any(|peer| peer.port() == 0);
            problems.push(match is_listed {
                true => format!("{description} was accepted, and is listed as port 0"),
                false => format!("{description} was accepted"),
            });
            session.withdraw(&query);
        }
        session.malformed.push((description, reply));
    }
    session.withdraw(&session.started(&observer));
    ok_if_none(problems, "all were refused")
}

fn refusals(session: &mut Session) -> Finding {
    let short = escaped(&session.torrent[..19]);
    if let Ok(reply) = session.scrape(&format!("info_hash={short}")) {
        session
            .malformed
            .push(("a scrape of an info_hash of 19 bytes".to_owned(), reply));
    }
    let problems: Vec<_> = session
        .malformed
        .iter()
        .filter(|(_, reply)| accepted(reply).is_err())
        .filter(|(_, reply)| !reply.as_ref().is_ok_and(is_refusal))
        .map(|(description, reply)| format!("{description}: {}", status_of(reply)))
        .collect();
    let sent = session.malformed.len();
    ok_if_none(
        problems,
        format!("{sent} malformed requests were refused this way"),
    )
}

fn escapes(session: &mut Session) -> Finding {
    session.require_tracked()?;
    let hash = session.torrent;
    let lower: String = hash.iter().map(|byte| format!("%{byte:02x}")).collect();
    let raw = percent_encode(&hash, RESERVED).to_string();
    for (spelling, hash) in [("lower-case digits", lower), ("unencoded bytes", raw)] {
        let (_, change) = session.count_change(|query| query.set("info_hash", hash.as_str()))?;
        if change.incomplete < 1 {
            return failed(format!("with {spelling}, it was another torrent"));
        }
    }
    Ok("all spellings are the same torrent".to_owned())
}

fn plus(session: &mut Session) -> Finding {
    let open = tracks_any_torrent(session)?;
    let hash = match session.torrent.contains(&b'+') {
        true if session.require_tracked().is_ok() => session.torrent,
        _ if open => {
            let mut hash = random_hash()?;
            hash[7] = b'+';
            hash
        }
        _ => return skipped("no tracked torrent has a + in its info_hash"),
    };
    let before = session.counts_of(&hash)?;
    let peer = session.peer()?;
    let spelling = escaped(&hash).replace("%2B", "+");
    let query = session.started(&peer).set("info_hash", spelling);
    let reply = session.announce(&query);
    let after = session.counts_of(&hash)?;
    session.withdraw(&query);
    accepted(&reply)?;
    match after.incomplete > before.incomplete {
        true => Ok("the + was read as +".to_owned()),
        false => failed("the + was read as another byte"),
    }
}

/// Announces with each of these values of `left`, or without `left`. Fails if any of them is refused or counted as a
/// seeder.
fn counts_as_leecher(session: &mut Session, values: &[Option<&str>]) -> Finding {
    session.require_tracked()?;
    let mut problems = Vec::new();
    for value in values {
        let left = value.map_or("no left".to_owned(), |value| format!("left={value}"));
        let counted = session.count_change(|query| match value {
            Some(value) => query.set("left", *value),
            None => query.without("left"),
        });
        match counted {
            Ok((_, change)) if change.complete > 0 => {
                problems.push(format!("{left} was counted as a seeder"));
            }
            Ok(_) => {}
            Err(NotOk::Failed(seen)) => problems.push(format!("{left}: {seen}")),
            skipped => skipped.map(drop)?,
        }
    }
    ok_if_none(problems, "all were counted as leechers")
}

fn left(session: &mut Session) -> Finding {
    let values = ["2147483648", "4294967296", "9223372036854775807"];
    counts_as_leecher(session, &values.map(Some))
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
    counts_as_leecher(session, &values)
}

fn totals(session: &mut Session) -> Finding {
    session.require_tracked()?;
    session.announce_briefly(|query| query.without("uploaded").without("downloaded"))?;
    Ok("not refused".to_owned())
}

/// Fails unless the response to an announce with this event lists the seeder.
fn lists_seeder_despite_event(session: &mut Session, event: &str) -> Finding {
    session.require_tracked()?;
    let dict = session.announce_briefly(|query| query.set("event", event))?;
    match Session::lists(&peers_in(&dict)?, &session.seeder)? {
        true => Ok("the seeder is listed".to_owned()),
        false => failed(format!("the seeder is not listed after event={event}")),
    }
}

fn event_empty(session: &mut Session) -> Finding {
    lists_seeder_despite_event(session, "")
}

fn event_paused(session: &mut Session) -> Finding {
    lists_seeder_despite_event(session, "paused")
}

fn event_unknown(session: &mut Session) -> Finding {
    lists_seeder_despite_event(session, "empty")?;
    lists_seeder_despite_event(session, "bogus")
}

fn stopped_peers(session: &mut Session) -> Finding {
    session.require_tracked()?;
    let peer = session.peer()?;
    let query = session.started(&peer);
    accepted(&session.announce(&query))?;
    let peers = peers_in(&accepted(&session.stop(&query))?)?;
    match peers.len() {
        0 => Ok("no peers".to_owned()),
        number => failed(format!("the response lists {}", count(number, "peer"))),
    }
}

fn stopped_unknown(session: &mut Session) -> Finding {
    session.require_tracked()?;
    let peer = session.peer()?;
    let query = session.started(&peer);
    accepted(&session.stop(&query))?;
    Ok("not refused".to_owned())
}

fn completed(session: &mut Session) -> Finding {
    session.require_tracked()?;
    let peer = session.peer()?;
    let query = session.started(&peer);
    accepted(&session.announce(&query))?;
    let before = session.counts()?;
    let done = query.set("event", "completed").set("left", "0");
    accepted(&session.announce(&done))?;
    let after = session.counts();
    session.withdraw(&done);
    match after?.downloaded - before.downloaded {
        1 => Ok("`downloaded` increased by 1".to_owned()),
        change => failed(format!("`downloaded` changed by {change}")),
    }
}

fn completed_once(session: &mut Session) -> Finding {
    session.require_tracked()?;
    let peer = session.peer()?;
    let done = session
        .started(&peer)
        .set("event", "completed")
        .set("left", "0");
    accepted(&session.announce(&done))?;
    let before = session.counts()?;
    accepted(&session.announce(&done))?;
    let after = session.counts();
    session.withdraw(&done);
    let twice = after?.downloaded - before.downloaded;
    let (_, partial) = session.count_change(|query| query.set("event", "completed"))?;
    match (twice, partial.complete) {
        (0, 0) => Ok("neither was counted".to_owned()),
        (0, _) => failed("a peer with bytes left became a seeder"),
        (twice, _) => failed(format!("the second event=completed added {twice}")),
    }
}

fn compact_default(session: &mut Session) -> Finding {
    session.require_tracked()?;
    let dict = session.announce_briefly(|query| query.without("compact"))?;
    match dict.get("peers").or(dict.get("peers6")) {
        Some(Value::Bytes(_)) => Ok("the peers are compact".to_owned()),
        Some(_) => failed("the peers are dictionaries"),
        None => failed("the response has no peers"),
    }
}

fn compact_0(session: &mut Session) -> Finding {
    session.require_tracked()?;
    let dict = session.announce_briefly(|query| query.set("compact", "0"))?;
    has_seeder_in_either_form(session, &dict)
}

fn no_peer_id(session: &mut Session) -> Finding {
    session.require_tracked()?;
    let dict =
        session.announce_briefly(|query| query.set("compact", "0").set("no_peer_id", "1"))?;
    has_seeder_in_either_form(session, &dict)
}

fn has_seeder_in_either_form(session: &Session, dict: &Dict) -> Finding {
    match Session::lists(&peers_in(dict)?, &session.seeder)? {
        false => failed("the seeder is not listed"),
        true => Ok(match dict.get("peers") {
            Some(Value::List(_)) => "the peers are dictionaries".to_owned(),
            _ => "the peers are compact".to_owned(),
        }),
    }
}

fn numwant(session: &mut Session) -> Finding {
    session.require_tracked()?;
    for value in ["0", "-1", "1000000"] {
        let dict = session.announce_briefly(|query| query.set("numwant", value))?;
        if let Err(NotOk::Failed(seen)) = has_peers(session, &dict) {
            return failed(format!("numwant={value}: {seen}"));
        }
    }
    Ok("`peers` is present for 0, -1 and 1000000".to_owned())
}

fn numwant_values(session: &mut Session) -> Finding {
    session.require_tracked()?;
    let values = ["0", "-1", "", "abc", "4294967296", "99999999999999999999"];
    let mut problems = Vec::new();
    for value in values {
        let peers = session
            .announce_briefly(|query| query.set("numwant", value))
            .and_then(|dict| peers_in(&dict));
        let peers = match peers {
            Ok(peers) => peers,
            Err(NotOk::Failed(seen)) => {
                problems.push(format!("numwant={value}: {seen}"));
                continue;
            }
            Err(skipped) => return Err(skipped),
        };
        let is_ok = match value {
            "0" => peers.is_empty(),
            _ => Session::lists(&peers, &session.seeder)?,
        };
        if !is_ok {
            let peers = count(peers.len(), "peer");
            problems.push(format!("numwant={value} got {peers}"));
        }
    }
    ok_if_none(problems, format!("{} values were tried", values.len()))
}

fn keys(session: &mut Session) -> Finding {
    session.require_tracked()?;
    session.announce_briefly(|Query(mut pairs)| {
        pairs.reverse();
        Query(pairs)
            .add("corrupt", "0")
            .add("supportcrypto", "1")
            .add("requirecrypto", "1")
            .add("cryptoport", "0")
            .add("redundant", "0&&flag&=")
            .add("azudp", "0&")
    })?;
    Ok("not refused".to_owned())
}

fn families(session: &mut Session) -> Finding {
    session.require_tracked()?;
    let Some(other) = session.other_family.take() else {
        return skipped("the tracker was not reached over another address family before");
    };
    let before = session.counts()?;
    let peer = session.peer()?;
    let query = session.started(&peer).set("left", "0");
    let reply_there = other.get(&session.target(&query.text()));
    let reply_here = session.announce(&query);
    let after = session.counts();
    session.withdraw(&query);
    let _ = other.get(&session.target(&query.set("event", "stopped").text()));
    if accepted(&reply_there).is_err() {
        return skipped("the announce over the other address family was not accepted");
    }
    accepted(&reply_here)?;
    match after?.complete - before.complete {
        1 => Ok("counted once".to_owned()),
        number => failed(format!("counted {number} times")),
    }
}

fn hash_twice(session: &mut Session) -> Finding {
    session.require_tracked()?;
    let other = match session.second {
        Some(second) => second,
        None => random_hash()?,
    };
    let (first_before, before) = (session.counts()?, session.counts_of(&other)?);
    let peer = session.peer()?;
    let query = session.started(&peer).add("info_hash", escaped(&other));
    let reply = session.announce(&query);
    let (first_after, after) = (session.counts()?, session.counts_of(&other)?);
    session.withdraw(&query);
    let (dict, _) = parse(&reply)?;
    if dict.get("failure reason").is_some() {
        return Ok("the announce was refused".to_owned());
    }
    match after.incomplete > before.incomplete {
        true => failed("the second info_hash counted"),
        false if first_after.incomplete > first_before.incomplete => {
            Ok("the first info_hash counted".to_owned())
        }
        false => failed("the announce was not refused, and neither info_hash counted"),
    }
}

fn long_query(session: &mut Session) -> Finding {
    session.require_tracked()?;
    session.announce_briefly(|query| query.set("x", "x".repeat(3_000)))?;
    Ok("not refused".to_owned())
}
