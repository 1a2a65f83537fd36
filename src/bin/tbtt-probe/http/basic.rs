//! The gentle cases over HTTP: announces and a scrape as clients send them.

use std::net::IpAddr;

use super::{NotOk, Reply, Response, Session, accepted, is_refusal, parse, peers_in, well_formed};
use crate::bencode::{Dict, Value};
use crate::case::Effort::Gentle;
use crate::case::Source::{Bep, Practice};
use crate::case::{
    ANY_TRACKED, Case, Finding, SECOND_REFUSED, count, excerpt, failed, ok_if_none, skipped,
};
use crate::peer::{InfoHash, is_unreachable, random_hash};

#[rustfmt::skip]
pub(super) const CASES: &[Case<Session>] = &[
    Case { id: "http-answer", effort: Gentle, source: Bep(3), check: response,
        title: "the response to an announce is a bencoded dictionary" },
    Case { id: "http-form", effort: Gentle, source: Bep(3), check: form,
        title: "the keys of a response are sorted and unique, and nothing follows the dictionary" },
    Case { id: "http-plain", effort: Gentle, source: Practice, check: plain,
        title: "a response has status 200 and a Content-Length, and is neither chunked nor compressed" },
    Case { id: "http-tracked", effort: Gentle, source: Bep(3), check: tracked,
        title: "the given torrent is tracked" },
    Case { id: "http-refusal", effort: Gentle, source: Bep(3), check: refusal,
        title: "a torrent that is not tracked is refused with `failure reason`" },
    Case { id: "http-retry", effort: Gentle, source: Practice, check: retry,
        title: "a refusal says when to announce again, with `retry in` and `interval`" },
    Case { id: "http-retry-form", effort: Gentle, source: Bep(31), check: retry_form,
        title: "`retry in` is a number of minutes or `never`" },
    Case { id: "http-interval", effort: Gentle, source: Bep(3), check: interval,
        title: "`interval` is a number of seconds" },
    Case { id: "http-min-interval", effort: Gentle, source: Practice, check: min_interval,
        title: "`min interval` is not longer than `interval`" },
    Case { id: "http-peers", effort: Gentle, source: Bep(3), check: peers,
        title: "a response has `peers`, even if there are no peers" },
    Case { id: "http-compact", effort: Gentle, source: Bep(23), check: compact,
        title: "compact `peers` have 6 bytes for each peer" },
    Case { id: "http-peers6", effort: Gentle, source: Bep(7), check: peers6,
        title: "over IPv6, a response has `peers6` with 18 bytes for each peer" },
    Case { id: "http-others", effort: Gentle, source: Bep(3), check: seeder_listed,
        title: "the response to a leecher lists the seeder" },
    Case { id: "http-not-self", effort: Gentle, source: Practice, check: not_self,
        title: "a response does not list the client itself, port 0 or an unspecified address" },
    Case { id: "http-counts", effort: Gentle, source: Practice, check: counts,
        title: "`complete` counts the seeder, and `incomplete` the leecher" },
    Case { id: "http-external-ip", effort: Gentle, source: Bep(24), check: external_ip,
        title: "`external ip` is the client's address in 4 or 16 bytes" },
    Case { id: "http-scrape", effort: Gentle, source: Bep(48), check: scrape,
        title: "a scrape returns `complete`, `downloaded` and `incomplete` of a torrent" },
    Case { id: "http-scrape-form", effort: Gentle, source: Bep(3), check: scrape_form,
        title: "the keys of a scrape are sorted and unique, and nothing follows the dictionary" },
    Case { id: "http-stopped", effort: Gentle, source: Bep(3), check: stopped,
        title: "event=stopped gets a response like any announce" },
    Case { id: "http-gone", effort: Gentle, source: Bep(3), check: stopped_not_listed,
        title: "a peer that has stopped is not listed any more" },
];

/// The reason for which the cases of compact peers are skipped.
const DICTIONARIES: &str = "the peers are dictionaries, which is allowed";

/// Returns the response to the first announce of the leecher. Skips the case unless the torrent is tracked.
fn leecher_response(session: &Session) -> Result<Dict, NotOk> {
    session.require_tracked()?;
    match &session.leecher_reply {
        Some(reply) => accepted(reply),
        None => skipped("the leecher was not announced"),
    }
}

fn response(session: &mut Session) -> Finding {
    let (dict, _) = parse(&session.seeder_reply)?;
    Ok(match dict.bytes("failure reason") {
        Some(reason) => format!("a dictionary with `failure reason` {}", excerpt(reason)),
        None => format!("a dictionary with {}", count(dict.0.len(), "key")),
    })
}

fn form(session: &mut Session) -> Finding {
    well_formed(&session.seeder_reply)
}

fn plain(session: &mut Session) -> Finding {
    match &session.seeder_reply {
        Ok(response) => is_plain(response),
        Err(none) => skipped(none.to_string()),
    }
}

fn is_plain(response: &Response) -> Finding {
    let mut problems = Vec::new();
    if response.status != 200 {
        problems.push(format!("status {}", response.status));
    }
    for name in ["transfer-encoding", "content-encoding"] {
        if let Some(value) = response.header(name) {
            problems.push(format!("{name}: {}", value.escape_default()));
        }
    }
    if response.header("content-length").is_none() {
        problems.push("no content-length".to_owned());
    }
    if response.trailing > 0 {
        let bytes = count(response.trailing, "byte");
        problems.push(format!("{bytes} after the body"));
    }
    ok_if_none(problems, "status 200 with content-length")
}

fn tracked(session: &mut Session) -> Finding {
    match (session.named, session.require_tracked()) {
        (true, Ok(())) => Ok("the torrent is tracked".to_owned()),
        (true, Err(_)) => failed(match accepted(&session.seeder_reply) {
            Err(NotOk::Failed(seen)) => seen,
            _ => "the torrent is not tracked".to_owned(),
        }),
        (false, Ok(())) => skipped(ANY_TRACKED),
        (false, Err(_)) => skipped("no torrent was given"),
    }
}

/// Announces a torrent that no tracker knows, once in a session, and returns the torrent and the reply.
fn announce_unknown(session: &mut Session) -> Result<(InfoHash, Reply), NotOk> {
    if !session.named {
        return Ok((session.torrent, session.seeder_reply.clone()));
    }
    if let Some(unknown) = &session.unknown {
        return Ok(unknown.clone());
    }
    let (hash, peer) = (random_hash()?, session.peer()?);
    let reply = session.announce(&session.started_of(&hash, &peer));
    session.unknown = Some((hash, reply.clone()));
    Ok((hash, reply))
}

/// Returns whether the tracker is open: it tracks any torrent.
pub(super) fn tracks_any_torrent(session: &mut Session) -> Result<bool, NotOk> {
    let (_, reply) = announce_unknown(session)?;
    Ok(accepted(&reply).is_ok())
}

fn refusal(session: &mut Session) -> Finding {
    let (_, reply) = announce_unknown(session)?;
    let (dict, _) = parse(&reply)?;
    match dict.get("failure reason") {
        None if dict.get("interval").is_some() => skipped(ANY_TRACKED),
        None => failed("the response has neither `failure reason` nor `interval`"),
        Some(Value::Bytes(reason)) => Ok(excerpt(reason)),
        Some(_) => failed("`failure reason` is not a string"),
    }
}

/// Returns the dictionary of a refusal. Skips the case if any torrent is tracked.
fn refusal_dict(session: &mut Session) -> Result<Dict, NotOk> {
    let (_, reply) = announce_unknown(session)?;
    match parse(&reply) {
        Ok((dict, _)) if dict.get("failure reason").is_some() => Ok(dict),
        Ok(_) => skipped(ANY_TRACKED),
        Err(_) => skipped("the refusal cannot be parsed"),
    }
}

fn retry(session: &mut Session) -> Finding {
    let dict = refusal_dict(session)?;
    let missing: Vec<_> = ["retry in", "interval"]
        .into_iter()
        .filter(|key| dict.get(key).is_none())
        .collect();
    match missing.is_empty() {
        true => Ok("both are present".to_owned()),
        false => failed(format!("no `{}`", missing.join("` and no `"))),
    }
}

fn retry_form(session: &mut Session) -> Finding {
    match refusal_dict(session)?.get("retry in") {
        None => skipped("the refusal has no `retry in`, which is optional"),
        Some(Value::Integer(minutes)) if *minutes > 0 => Ok(count(*minutes as usize, "minute")),
        // The example in BEP 31 has a string.
        Some(Value::Bytes(text))
            if text == b"never"
                || !text.is_empty() && text[0] != b'0' && text.iter().all(u8::is_ascii_digit) =>
        {
            Ok(excerpt(text))
        }
        Some(Value::Bytes(text)) => failed(format!("`retry in` is {}", excerpt(text))),
        Some(_) => failed("`retry in` is not a positive number"),
    }
}

fn interval(session: &mut Session) -> Finding {
    session.require_tracked()?;
    let dict = accepted(&session.seeder_reply)?;
    match dict.get("interval") {
        Some(Value::Integer(seconds)) if (1..=1 << 31).contains(seconds) => {
            Ok(format!("{seconds} s"))
        }
        Some(Value::Integer(seconds)) => failed(format!("`interval` is {seconds}")),
        Some(_) => failed("`interval` is not a number"),
        None => failed("`interval` is missing"),
    }
}

fn min_interval(session: &mut Session) -> Finding {
    session.require_tracked()?;
    let dict = accepted(&session.seeder_reply)?;
    match (dict.get("min interval"), dict.integer("interval")) {
        (None, _) => skipped("the response has no `min interval`, which is optional"),
        (Some(Value::Integer(min)), Some(interval)) if (0..=interval).contains(min) => Ok(format!(
            "`min interval` is {min} s, `interval` is {interval} s"
        )),
        (Some(Value::Integer(min)), Some(interval)) => failed(format!(
            "`min interval` is {min} s, `interval` is {interval} s"
        )),
        _ => failed("`min interval` or `interval` is not a number"),
    }
}

fn peers(session: &mut Session) -> Finding {
    session.require_tracked()?;
    has_peers(session, &accepted(&session.seeder_reply)?)
}

/// Checks that a response has `peers`. Over IPv6, `peers6` is enough.
pub(super) fn has_peers(session: &Session, dict: &Dict) -> Finding {
    match (dict.get("peers"), dict.get("peers6")) {
        (Some(_), _) => Ok("`peers` is present".to_owned()),
        (None, Some(_)) if session.is_v6() => Ok("`peers6` is present".to_owned()),
        _ => failed("`peers` is missing"),
    }
}

fn compact(session: &mut Session) -> Finding {
    let dict = leecher_response(session)?;
    match dict.get("peers") {
        Some(Value::Bytes(peers)) if peers.len() % 6 == 0 => Ok(count(peers.len(), "byte")),
        Some(Value::Bytes(peers)) => failed(format!("`peers` has {}", count(peers.len(), "byte"))),
        // A tracker may ignore compact=1.
        Some(Value::List(_)) => skipped(DICTIONARIES),
        Some(_) => failed("`peers` is neither a string nor a list"),
        None => skipped("the response has no `peers`"),
    }
}

fn peers6(session: &mut Session) -> Finding {
    if !session.is_v6() {
        return skipped("the tracker was reached over IPv4");
    }
    let dict = leecher_response(session)?;
    match dict.get("peers6") {
        Some(Value::Bytes(peers)) if peers.len() % 18 == 0 => Ok(count(peers.len(), "byte")),
        Some(Value::Bytes(peers)) => failed(format!("`peers6` has {}", count(peers.len(), "byte"))),
        Some(_) => failed("`peers6` is not a string"),
        None if matches!(dict.get("peers"), Some(Value::List(_))) => skipped(DICTIONARIES),
        None => failed("`peers6` is missing"),
    }
}

fn seeder_listed(session: &mut Session) -> Finding {
    let peers = peers_in(&leecher_response(session)?)?;
    match Session::lists(&peers, &session.seeder)? {
        true => Ok(format!(
            "the seeder is listed, among {}",
            count(peers.len(), "peer")
        )),
        false => failed(format!(
            "the seeder is not listed, among {}",
            count(peers.len(), "peer")
        )),
    }
}

fn not_self(session: &mut Session) -> Finding {
    let peers = peers_in(&leecher_response(session)?)?;
    if peers.iter().any(|peer| peer.port() == session.leecher.port) {
        return failed("the response to the leecher lists the leecher");
    }
    match peers.iter().find(|peer| is_unreachable(peer)) {
        Some(unreachable) => failed(format!("{unreachable} is listed")),
        None => Ok(format!("{}, none of these", count(peers.len(), "peer"))),
    }
}

fn counts(session: &mut Session) -> Finding {
    let dict = leecher_response(session)?;
    match (dict.get("complete"), dict.get("incomplete")) {
        (None, None) => skipped("the response has neither, which is allowed"),
        (Some(Value::Integer(complete)), Some(Value::Integer(incomplete))) => {
            let seen = format!("complete {complete}, incomplete {incomplete}");
            // Trackers differ in whether a response counts the client that gets it.
            match *complete >= 1 && *incomplete >= 0 {
                true => Ok(seen),
                false => failed(seen),
            }
        }
        _ => failed("`complete` or `incomplete` is missing or not a number"),
    }
}

fn external_ip(session: &mut Session) -> Finding {
    session.require_tracked()?;
    let dict = accepted(&session.seeder_reply)?;
    let bytes = match dict.get("external ip") {
        None => return skipped("the response has no `external ip`, which is optional"),
        Some(Value::Bytes(bytes)) => bytes.as_slice(),
        Some(_) => return failed("`external ip` is not a string"),
    };
    let address = match (<[u8; 4]>::try_from(bytes), <[u8; 16]>::try_from(bytes)) {
        (Ok(v4), _) => IpAddr::from(v4),
        (_, Ok(v6)) => IpAddr::from(v6),
        _ => return failed(format!("`external ip` has {}", count(bytes.len(), "byte"))),
    };
    // Behind a NAT, the tracker sees another address than the client has.
    match session.own_address {
        Some(own) if own.is_loopback() && own != address.to_canonical() => {
            failed(format!("`external ip` is {address}; the client is {own}"))
        }
        _ => Ok(address.to_string()),
    }
}

fn scrape(session: &mut Session) -> Finding {
    let reply = session.scrape_of(&[session.torrent])?;
    session.scrape_reply = Some(reply.clone());
    // Scrapes are optional.
    match &reply {
        Ok(response) if matches!(response.status, 403..=405 | 501) => {
            return skipped(format!(
                "scrapes are not supported: HTTP {}",
                response.status
            ));
        }
        Ok(response) if is_refusal(response) => {
            return skipped("the scrape was refused, which is allowed");
        }
        _ => {}
    }
    let (dict, _) = parse(&reply)?;
    let Some(files) = dict.dict("files") else {
        return failed("`files` is missing or not a dictionary");
    };
    let Some(entry) = files.dict(session.torrent) else {
        session.require_tracked()?;
        return failed("the torrent is missing in `files`");
    };
    let missing = ["complete", "downloaded", "incomplete"]
        .into_iter()
        .find(|key| entry.integer(key).is_none_or(|count| count < 0));
    match missing {
        None => Ok(count(entry.0.len(), "key")),
        Some(key) => failed(format!("`{key}` is missing or not a number")),
    }
}

fn scrape_form(session: &mut Session) -> Finding {
    match &session.scrape_reply {
        Some(reply) if parse(reply).is_ok() => well_formed(reply),
        _ => skipped("the scrape got no bencoded response"),
    }
}

fn stopped(session: &mut Session) -> Finding {
    session.require_tracked()?;
    let reply = session.stop(&session.started(&session.leecher));
    accepted(&reply)?;
    Ok("not refused".to_owned())
}

fn stopped_not_listed(session: &mut Session) -> Finding {
    session.require_tracked()?;
    let again = session
        .started(&session.seeder)
        .set("left", "0")
        .without("event");
    let Ok(dict) = accepted(&session.announce(&again)) else {
        return skipped(SECOND_REFUSED);
    };
    let peers = peers_in(&dict)?;
    match peers.iter().any(|peer| peer.port() == session.leecher.port) {
        true => failed("the leecher is listed after it has stopped"),
        false => Ok("the leecher is not listed".to_owned()),
    }
}
