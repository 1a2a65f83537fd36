//! HTTP announce and scrape: a query string in, bencode out (BEP 3, 7, 21, 23, 24, 31, 48).

pub mod request;
mod response;

use std::net::IpAddr;

use crate::protocol::http::request::{
    Action, AnnounceRequest, InvalidRequest, pairs, twenty_bytes,
};
use crate::protocol::http::response::{write_answer, write_failure, write_scraped};
use crate::tracker::Tracker;
use crate::tracker::access::Networks;
use crate::tracker::types::{Announce, AnnounceEffect, InfoHash, Refusal, Time};

/// The longest query that is read; a scrape of the 74 torrents that fit one UDP packet has 5,400 bytes.
const QUERY_MAX: usize = 8192;

/// What the operator decides about requests.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whose word is taken for where a peer is (`ip`, `ipv4`, `ipv6`): the operator's own seeds. Anyone else could have the
    /// world connect to a victim.
    pub believed: Networks,
    /// The most torrents that one scrape tells of; what comes after is passed over.
    pub max_scrape: usize,
    /// Answer a scrape that names no torrent with all of them.
    pub full_scrape: bool,
}

/// What was made of a request, for the server to count.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    Announced(Announce, AnnounceEffect),
    Scraped,
    Refused(Refusal),
    Invalid(InvalidRequest),
}

/// Where the answer is written. Kept from one request to the next, so that answering allocates nothing.
#[derive(Default)]
pub struct Reply {
    /// One bencoded dictionary.
    pub body: Vec<u8>,
    /// Compact endpoints, before they are written.
    peers: Vec<u8>,
    /// What a scrape asks for.
    hashes: Vec<InfoHash>,
}

/// Answers one request from `from`, `None` where a proxy did not say: `reply.body` is what goes back, with HTTP status 200
/// whatever the outcome, as clients read no other's body.
pub fn respond(
    tracker: &Tracker,
    settings: &Settings,
    now: Time,
    from: Option<IpAddr>,
    action: Action,
    query: &[u8],
    reply: &mut Reply,
) -> Outcome {
    reply.body.clear();
    let result = match (from, action) {
        _ if query.len() > QUERY_MAX => Err(InvalidRequest::QueryTooLong),
        (None, _) => Err(InvalidRequest::AddressUnknown),
        (Some(from), Action::Announce) => {
            announce(tracker, settings, now, from.to_canonical(), query, reply)
        }
        (Some(from), Action::Scrape) => {
            scrape(tracker, settings, now, from.to_canonical(), query, reply)
        }
    };
    result.unwrap_or_else(|malformed| {
        write_failure(&mut reply.body, malformed.reason(), None);
        Outcome::Invalid(malformed)
    })
}

fn announce(
    tracker: &Tracker,
    settings: &Settings,
    now: Time,
    from: IpAddr,
    query: &[u8],
    reply: &mut Reply,
) -> Result<Outcome, InvalidRequest> {
    let request = AnnounceRequest::parse(query, from, settings.believed.contains(from))?;
    reply.peers.clear();
    Ok(
        match tracker.announce(now, &request.announce, &mut reply.peers) {
            Ok(answer) => {
                write_answer(
                    &mut reply.body,
                    request.announce.address,
                    &answer,
                    &reply.peers,
                    request.compact,
                );
                Outcome::Announced(request.announce, AnnounceEffect::of(&answer))
            }
            Err(refusal) => {
                write_failure(&mut reply.body, refusal.reason(), Some(&refusal));
                Outcome::Refused(refusal)
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
    reply: &mut Reply,
) -> Result<Outcome, InvalidRequest> {
    let scrape = match tracker.admit_scrape(now, from) {
        Ok(scrape) => scrape,
        Err(refusal) => {
            write_failure(&mut reply.body, refusal.reason(), Some(&refusal));
            return Ok(Outcome::Refused(refusal));
        }
    };
    reply.hashes.clear();
    for (_, value) in pairs(query)
        .filter(|(key, _)| *key == b"info_hash")
        .take(settings.max_scrape)
    {
        reply.hashes.push(InfoHash(
            twenty_bytes(value).ok_or(InvalidRequest::InfoHashWrong)?,
        ));
    }
    let out = &mut reply.body;
    out.extend_from_slice(b"d5:filesd");
    if !reply.hashes.is_empty() {
        reply.hashes.sort_unstable();
        reply.hashes.dedup();
        for info_hash in &reply.hashes {
            if let Some(entry) = scrape.counts(info_hash) {
                write_scraped(out, info_hash, &entry);
            }
        }
    } else if settings.full_scrape {
        let mut all = Vec::new();
        tracker.for_each_torrent(|info_hash, entry| all.push((*info_hash, entry)));
        all.sort_unstable_by_key(|(info_hash, _)| *info_hash);
        all.iter()
            .for_each(|(info_hash, entry)| write_scraped(out, info_hash, entry));
    } else {
        out.clear();
        return Err(InvalidRequest::FullScrape);
    }
    out.extend_from_slice(b"ee");
    Ok(Outcome::Scraped)
}

#[cfg(test)]
mod tests;
