//! HTTP announces and scrapes: takes a query string and writes a bencoded response (BEP 3, 7, 21, 23, 24, 31, 48).

pub mod request;
mod response;

use std::net::IpAddr;

use crate::protocol::http::request::{
    Action, AnnounceRequest, InvalidRequest, pairs, twenty_bytes,
};
use crate::protocol::http::response::{write_announce_response, write_failure, write_scrape_entry};
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
            Ok(response) => {
                write_announce_response(
                    &mut buffer.body,
                    request.announce.address,
                    &response,
                    &buffer.peers,
                    request.compact,
                );
                HttpOutcome::Announced(request.announce, AnnounceEffect::of(&response))
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
    Ok(HttpOutcome::Scraped)
}

#[cfg(test)]
mod tests;
