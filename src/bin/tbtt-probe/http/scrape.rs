//! Scrapes over HTTP, other than that of a gentle probe.

use super::basic::is_open;
use super::{Miss, Reply, Session, read, served, well_formed};
use crate::bencode::Value;
use crate::case::Effort::Full;
use crate::case::Source::{Bep, Practice};
use crate::case::{Case, Finding, broken, shown, skipped};
use crate::peer::{InfoHash, random_hash};

#[rustfmt::skip]
pub(super) const CASES: &[Case<Session>] = &[
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
        None if any => random_hash()?,
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
    let hash = random_hash()?;
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
        hashes.push(random_hash()?);
    }
    let (dict, _) = read(&session.scrape_of(&hashes)?)?;
    match (dict.bytes("failure reason"), dict.dict("files")) {
        (Some(reason), _) => Ok(shown(reason)),
        (None, Some(files)) => Ok(format!("it told of {}", files.0.len())),
        _ => broken("neither `failure reason` nor `files`"),
    }
}
