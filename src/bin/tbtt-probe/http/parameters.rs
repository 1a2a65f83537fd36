//! The parameters of an announce over HTTP: odd ones, missing ones, and what each of them changes.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use tbtt::bytes::Hex;

use super::basic::{has_peers, is_open};
use super::{Miss, Query, Session, escaped, is_refusal, kind, peers_in, read, served};
use crate::bencode::{Dict, Value};
use crate::case::Effort::Full;
use crate::case::Source::{Bep, Practice};
use crate::case::{Case, Finding, broken, none_of, skipped};
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
];

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
    let digits = Hex(&hash).to_string();
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
    let raw = percent_encode(&hash, RESERVED).to_string();
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
            let mut hash = random_hash()?;
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
        None => random_hash()?,
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
