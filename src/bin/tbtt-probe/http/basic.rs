//! What clients ask over HTTP: the cases of a gentle probe.

use std::net::IpAddr;

use super::{Answer, Miss, Reply, Session, is_refusal, peers_in, read, served, well_formed};
use crate::bencode::{Dict, Value};
use crate::case::Effort::Gentle;
use crate::case::Source::{Bep, Practice};
use crate::case::{Case, Finding, broken, none_of, shown, skipped};
use crate::peer::{InfoHash, is_nowhere, random_hash};

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
    let (hash, peer) = (random_hash()?, session.peer()?);
    let reply = session.announce(&session.started_of(&hash, &peer));
    session.foreign = Some((hash, reply.clone()));
    Ok((hash, reply))
}

/// Whether any torrent is tracked.
pub(super) fn is_open(session: &mut Session) -> Result<bool, Miss> {
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
pub(super) fn has_peers(session: &Session, dict: &Dict) -> Finding {
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
