//! Cases for scrapes over HTTP.

use super::basic::tracks_any_torrent;
use super::{NotOk, Reply, Session, accepted, parse, well_formed};
use crate::bencode::Value;
use crate::case::Effort::Full;
use crate::case::Source::{Bep, Practice};
use crate::case::{Case, Finding, count, excerpt, failed, skipped};
use crate::peer::{InfoHash, random_hash};

#[rustfmt::skip]
pub(super) const CASES: &[Case<Session>] = &[
    Case { id: "http-scrape-twice", effort: Full, source: Bep(3), check: scrape_twice,
        title: "a scrape of a torrent given twice has its key once" },
    Case { id: "http-scrape-order", effort: Full, source: Bep(3), check: scrape_order,
        title: "the keys of a scrape are sorted, whatever the order of the request" },
    Case { id: "http-scrape-foreign", effort: Full, source: Practice, check: scrape_foreign,
        title: "a scrape of an unknown torrent omits it, or has counts of 0" },
    Case { id: "http-scrape-none", effort: Full, source: Practice, check: scrape_none,
        title: "a scrape without info_hash is refused, or returns all torrents" },
    Case { id: "http-scrape-many", effort: Full, source: Practice, check: scrape_many,
        title: "a scrape of 74 torrents gets a response or a refusal" },
];

/// Scrapes torrents, the first of which is tracked. Skips the case if scrapes are not supported.
fn scraped(session: &Session, hashes: &[InfoHash]) -> Result<Reply, NotOk> {
    session.require_tracked()?;
    session.counts()?;
    session.scrape_of(hashes)
}

fn scrape_twice(session: &mut Session) -> Finding {
    well_formed(&scraped(session, &[session.torrent; 2])?)
}

fn scrape_order(session: &mut Session) -> Finding {
    let any = tracks_any_torrent(session)?;
    let second = match session.second {
        Some(second) => second,
        None if any => random_hash()?,
        None => return skipped("no second torrent was given"),
    };
    // Some trackers remove a torrent without peers.
    let peer = session.peer()?;
    let query = session.started_of(&second, &peer);
    accepted(&session.announce(&query))?;
    let mut hashes = [session.torrent, second];
    for _ in 0..2 {
        hashes.reverse();
        let reply = scraped(session, &hashes)?;
        let (dict, _) = parse(&reply)?;
        let files = dict.dict("files").map_or(0, |files| files.0.len());
        if files < 2 {
            return skipped(format!("a scrape of two torrents returned {files}"));
        }
        well_formed(&reply)?;
    }
    Ok("sorted for both orders".to_owned())
}

fn scrape_foreign(session: &mut Session) -> Finding {
    session.counts()?;
    let hash = random_hash()?;
    let dict = accepted(&session.scrape_of(&[hash])?)?;
    match dict.dict("files").map(|files| files.dict(hash)) {
        None => failed("`files` is missing"),
        Some(None) => Ok("omitted".to_owned()),
        Some(Some(entry)) => match entry.0.iter().all(|(_, count)| *count == Value::Integer(0)) {
            true => Ok("all counts are 0".to_owned()),
            false => failed("not all counts are 0"),
        },
    }
}

fn scrape_none(session: &mut Session) -> Finding {
    session.counts()?;
    let (dict, _) = parse(&session.scrape("")?)?;
    match (dict.bytes("failure reason"), dict.dict("files")) {
        (Some(reason), _) => Ok(excerpt(reason)),
        (None, Some(files)) => Ok(count(files.0.len(), "torrent")),
        _ => failed("neither `failure reason` nor `files`"),
    }
}

fn scrape_many(session: &mut Session) -> Finding {
    session.counts()?;
    let mut hashes = vec![session.torrent];
    while hashes.len() < 74 {
        hashes.push(random_hash()?);
    }
    let (dict, _) = parse(&session.scrape_of(&hashes)?)?;
    match (dict.bytes("failure reason"), dict.dict("files")) {
        (Some(reason), _) => Ok(excerpt(reason)),
        (None, Some(files)) => Ok(count(files.0.len(), "torrent")),
        _ => failed("neither `failure reason` nor `files`"),
    }
}
