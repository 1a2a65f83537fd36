//! A session with a tracker over HTTP: it sends requests, parses the responses, and stops all peers at the end.

mod basic;
mod hostile;
mod parameters;
mod scrape;
mod transport;
mod wire;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use percent_encoding::percent_encode_byte;
use tbtt::os::random::random_bytes;

use crate::bencode::{self, Dict, Value};
use crate::case::{
    Case, Finding, NotOk, RANDOM_REFUSED, count, excerpt, failed, ok_if_none, skipped,
};
use crate::peer::{InfoHash, Peer, Peers, endpoints};
use crate::target::TrackerUrl;
use wire::{NoResponse, Reply, Response, Wire};

/// All cases, in the order in which they run.
pub(crate) const CASES: &[&[Case<Session>]] = &[
    basic::CASES,
    parameters::CASES,
    transport::CASES,
    scrape::CASES,
    hostile::CASES,
];

/// A session with a tracker.
pub(crate) struct Session {
    url: TrackerUrl,
    wire: Wire,
    peers: Peers,
    /// The torrent that is announced.
    torrent: InfoHash,
    /// Whether the user gave the torrent. Otherwise it is random.
    named: bool,
    /// The second torrent that the user gave.
    second: Option<InfoHash>,
    seeder: Peer,
    leecher: Peer,
    /// The reply to the first announce of the seeder.
    seeder_reply: Reply,
    /// The reply to the first announce of the leecher; `None` if the seeder was refused.
    leecher_reply: Option<Reply>,
    /// A torrent that no tracker knows, and the reply to its announce.
    unknown: Option<(InfoHash, Reply)>,
    /// The reply to a scrape of the torrent.
    scrape_reply: Option<Reply>,
    /// Malformed requests, with a description, and their replies.
    malformed: Vec<(String, Reply)>,
    /// Peers that were announced and are not stopped yet: their announces, with additional header lines.
    to_stop: Vec<(Query, &'static str)>,
    /// The local address of the probe. Behind a NAT, the tracker sees another address.
    own_address: Option<IpAddr>,
    /// The same tracker over the other address family.
    other_family: Option<Wire>,
}

/// The parameters of a request in the order and encoding of the URL.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Query(Vec<(&'static str, String)>);

impl Query {
    /// Replaces a parameter, or adds it.
    fn set(mut self, key: &'static str, value: impl Into<String>) -> Self {
        let value = value.into();
        match self.0.iter_mut().find(|(name, _)| *name == key) {
            Some((_, old)) => *old = value,
            None => self.0.push((key, value)),
        }
        self
    }

    /// Adds a parameter, even if the key exists already.
    fn add(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.0.push((key, value.into()));
        self
    }

    fn without(mut self, key: &str) -> Self {
        self.0.retain(|(name, _)| *name != key);
        self
    }

    fn get(&self, key: &str) -> Option<&str> {
        let found = self.0.iter().find(|(name, _)| *name == key);
        found.map(|(_, value)| value.as_str())
    }

    fn text(&self) -> String {
        let pairs: Vec<_> = self
            .0
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        pairs.join("&")
    }

    /// Returns whether both announce the same peer of the same torrent.
    fn is_same_peer(&self, other: &Self) -> bool {
        ["info_hash", "peer_id", "port"]
            .iter()
            .all(|key| self.get(key) == other.get(key))
    }
}

/// Percent-encodes all bytes, including those that do not need it.
fn escaped(bytes: &[u8]) -> String {
    bytes.iter().copied().map(percent_encode_byte).collect()
}

/// The counts of a torrent in a scrape.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Counts {
    complete: i128,
    downloaded: i128,
    incomplete: i128,
}

impl Session {
    /// Announces a seeder and a leecher. `other_family` is another address of the tracker.
    ///
    /// # Errors
    /// The reason why the tracker cannot be reached.
    pub(crate) fn open(
        url: &TrackerUrl,
        to: SocketAddr,
        other_family: Option<SocketAddr>,
        timeout: Duration,
        named: &[InfoHash],
    ) -> Result<Self, String> {
        let no_random = |error: io::Error| format!("cannot read random bytes: {error}");
        let mut peers = Peers::new().map_err(no_random)?;
        let (seeder, leecher) = (
            peers.peer().map_err(no_random)?,
            peers.peer().map_err(no_random)?,
        );
        let random = random_bytes().map_err(no_random)?;
        let wire_to = |to| Wire {
            to,
            host: url.authority(),
            timeout,
        };
        let wire = wire_to(to);
        let own_address = match wire.connect() {
            Ok(connection) => connection.own_address(),
            Err(no_response) => return Err(no_response.to_string()),
        };
        let mut session = Self {
            url: url.clone(),
            wire,
            peers,
            torrent: named.first().copied().unwrap_or(random),
            named: !named.is_empty(),
            second: named.get(1).copied(),
            seeder,
            leecher,
            seeder_reply: Err(NoResponse::Closed),
            leecher_reply: None,
            unknown: None,
            scrape_reply: None,
            malformed: Vec::new(),
            to_stop: Vec::new(),
            own_address: own_address.map(|own| own.to_canonical()),
            other_family: other_family.map(wire_to),
        };
        let started = session.started(&session.seeder).set("left", "0");
        session.seeder_reply = session.announce(&started);
        if session.require_tracked().is_ok() {
            let started = session.started(&session.leecher);
            session.leecher_reply = Some(session.announce(&started));
        }
        Ok(session)
    }

    /// Skips the case unless the torrent is tracked, according to the first announce of the seeder.
    pub(crate) fn require_tracked(&self) -> Result<(), NotOk> {
        match &self.seeder_reply {
            Err(_) => skipped("the first announce got no response"),
            Ok(response) => match bencode::parse(&response.body) {
                Err(_) => skipped("the response to the first announce is not bencode"),
                Ok((dict, _)) => match dict.get("failure reason") {
                    None => Ok(()),
                    Some(_) if self.named => skipped("the tracker refuses the torrent"),
                    Some(_) => skipped(RANDOM_REFUSED),
                },
            },
        }
    }

    /// Returns the first announce of a leecher.
    fn started(&self, peer: &Peer) -> Query {
        self.started_of(&self.torrent, peer)
    }

    fn started_of(&self, torrent: &InfoHash, peer: &Peer) -> Query {
        Query(vec![
            ("info_hash", escaped(torrent)),
            ("peer_id", escaped(&peer.id)),
            ("port", peer.port.to_string()),
            ("uploaded", "0".to_owned()),
            ("downloaded", "0".to_owned()),
            ("left", "1".to_owned()),
            ("event", "started".to_owned()),
            ("compact", "1".to_owned()),
            ("key", format!("{:08x}", peer.key)),
        ])
    }

    fn peer(&mut self) -> Result<Peer, NotOk> {
        self.peers
            .peer()
            .or_else(|error| skipped(error.to_string()))
    }

    /// Returns path and query of an announce.
    fn target(&self, query: &str) -> String {
        Self::join(&self.url.path, &self.url.query, query)
    }

    /// Joins a path, the query of the URL that the user gave, and the query of a request.
    fn join(path: &str, url_query: &str, query: &str) -> String {
        match url_query {
            "" => format!("{path}?{query}"),
            url_query => format!("{path}?{url_query}&{query}"),
        }
    }

    fn announce(&mut self, query: &Query) -> Reply {
        self.announce_with(query, "")
    }

    /// Announces with additional header lines.
    fn announce_with(&mut self, query: &Query, headers: &'static str) -> Reply {
        let request = self.wire.request(&self.target(&query.text()), headers);
        let reply = self.wire.send(request);
        let refused = reply.as_ref().is_ok_and(is_refusal);
        let stops = query.get("event") == Some("stopped");
        // An announce without a response may have reached the tracker; a stop without a response may not.
        if !refused && (!stops || reply.is_ok()) {
            self.to_stop.retain(|(other, _)| !other.is_same_peer(query));
            if !stops {
                self.to_stop.push((query.clone(), headers));
            }
        }
        reply
    }

    /// Stops a peer.
    fn stop(&mut self, query: &Query) -> Reply {
        self.announce(&query.clone().set("event", "stopped"))
    }

    /// Stops a peer, and ignores the response.
    fn withdraw(&mut self, query: &Query) {
        let _ = self.stop(query);
    }

    /// Stops all peers that were announced.
    pub(crate) fn stop_all(&mut self) {
        for (query, headers) in std::mem::take(&mut self.to_stop) {
            // If this fails, the tracker removes the peer later, as it removes any silent client.
            let _ = self.announce_with(&query.set("event", "stopped"), headers);
        }
    }

    fn scrape(&self, query: &str) -> Result<Reply, NotOk> {
        match self.url.scrape_path() {
            Some(path) => Ok(self.wire.get(&Self::join(&path, &self.url.query, query))),
            None => skipped(
                "the last part of the URL does not start with announce, so it has no scrape",
            ),
        }
    }

    fn scrape_of(&self, hashes: &[InfoHash]) -> Result<Reply, NotOk> {
        let pairs = hashes
            .iter()
            .map(|hash| format!("info_hash={}", escaped(hash)));
        self.scrape(&pairs.collect::<Vec<_>>().join("&"))
    }

    /// Scrapes the counts of a torrent; zeros if the response does not list the torrent. Skips the case if scrapes are not
    /// supported.
    fn counts_of(&self, torrent: &InfoHash) -> Result<Counts, NotOk> {
        let reply = self.scrape_of(&[*torrent])?;
        let files = match accepted(&reply) {
            Ok(dict) => dict.dict("files").cloned(),
            Err(_) => None,
        };
        let Some(files) = files else {
            return skipped("the counts need a scrape, which does not work");
        };
        let Some(entry) = files.dict(torrent) else {
            return Ok(Counts::default());
        };
        let count = |key| entry.integer(key).unwrap_or_default();
        Ok(Counts {
            complete: count("complete"),
            downloaded: count("downloaded"),
            incomplete: count("incomplete"),
        })
    }

    fn counts(&self) -> Result<Counts, NotOk> {
        self.counts_of(&self.torrent)
    }

    /// Announces a new leecher with a changed query, and stops it again. Returns the response, which must not be a
    /// refusal, and the change of the counts.
    fn count_change(&mut self, change: impl Fn(Query) -> Query) -> Result<(Dict, Counts), NotOk> {
        let before = self.counts()?;
        let peer = self.peer()?;
        let query = change(self.started(&peer));
        let reply = self.announce(&query);
        let after = self.counts();
        self.withdraw(&query);
        let (dict, after) = (accepted(&reply)?, after?);
        let change = Counts {
            complete: after.complete - before.complete,
            downloaded: after.downloaded - before.downloaded,
            incomplete: after.incomplete - before.incomplete,
        };
        Ok((dict, change))
    }

    /// Announces a new leecher with a changed query, and stops it again. Returns the response, which must not be a refusal.
    fn announce_briefly(&mut self, change: impl Fn(Query) -> Query) -> Result<Dict, NotOk> {
        let peer = self.peer()?;
        let query = change(self.started(&peer));
        let reply = self.announce(&query);
        self.withdraw(&query);
        accepted(&reply)
    }

    /// Returns whether peers in a response include this peer, by its port. Skips the case if the peer may be missing
    /// because the swarm has more peers than the response.
    fn lists(peers: &[SocketAddr], peer: &Peer) -> Result<bool, NotOk> {
        match peers.iter().any(|other| other.port() == peer.port) {
            true => Ok(true),
            false if peers.len() >= 30 => {
                skipped("the swarm has more peers than fit into one response")
            }
            false => Ok(false),
        }
    }

    fn is_v6(&self) -> bool {
        self.wire.to.is_ipv6() && !self.wire.to.ip().to_canonical().is_ipv4()
    }
}

/// Parses the dictionary in a response of any status, and returns it with its errors of form.
fn parse(reply: &Reply) -> Result<(Dict, Vec<String>), NotOk> {
    let response = reply.as_ref().or_else(|none| failed(none.to_string()))?;
    bencode::parse(&response.body).or_else(|error| {
        let seen = response.summary();
        failed(format!("{seen}, which is not bencode: {error}"))
    })
}

/// Parses a response that must not be a refusal.
fn accepted(reply: &Reply) -> Result<Dict, NotOk> {
    let (dict, _) = parse(reply)?;
    match dict.get("failure reason") {
        None => Ok(dict),
        Some(Value::Bytes(reason)) => {
            failed(format!("the request was refused: {}", excerpt(reason)))
        }
        Some(_) => failed("the request was refused, with a `failure reason` that is not a string"),
    }
}

/// Checks the form of a response of any content.
fn well_formed(reply: &Reply) -> Finding {
    let (_, errors) = parse(reply)?;
    ok_if_none(errors, "no errors of form")
}

/// Returns all peers in a response, compact or as dictionaries, of both address families.
fn peers_in(dict: &Dict) -> Result<Vec<SocketAddr>, NotOk> {
    let mut all = Vec::new();
    for (key, address_len) in [("peers", 4), ("peers6", 16)] {
        match dict.get(key) {
            None => {}
            Some(Value::Bytes(compact)) => match endpoints(compact, address_len) {
                Some(peers) => all.extend(peers),
                None => {
                    let (len, of) = (compact.len(), address_len + 2);
                    return failed(format!(
                        "`{key}` has {}, which is not a multiple of {of}",
                        count(len, "byte")
                    ));
                }
            },
            Some(Value::List(peers)) => {
                for peer in peers {
                    all.push(dictionary_peer(peer)?);
                }
            }
            Some(_) => return failed(format!("`{key}` is neither a string nor a list")),
        }
    }
    Ok(all)
}

/// Parses a peer of BEP 3.
fn dictionary_peer(peer: &Value) -> Result<SocketAddr, NotOk> {
    let Value::Dict(peer) = peer else {
        return failed("an entry of `peers` is not a dictionary");
    };
    let (Some(ip), Some(port)) = (peer.bytes("ip"), peer.integer("port")) else {
        return failed("an entry of `peers` lacks `ip` or `port`");
    };
    let Ok(port) = u16::try_from(port) else {
        return failed(format!("an entry of `peers` has port {port}"));
    };
    match String::from_utf8_lossy(ip).parse::<IpAddr>() {
        Ok(ip) => Ok(SocketAddr::new(ip, port)),
        Err(_) => failed(format!(
            "an entry of `peers` has {} as its `ip`",
            excerpt(ip)
        )),
    }
}

/// Returns the status of a response, or why there is none.
fn status_of(reply: &Reply) -> String {
    match reply {
        Err(none) => none.to_string(),
        Ok(response) => format!("HTTP {}", response.status),
    }
}

/// Returns whether clients understand a response as a refusal.
fn is_refusal(response: &Response) -> bool {
    let parsed = bencode::parse(&response.body);
    response.status == 200 && parsed.is_ok_and(|(dict, _)| dict.bytes("failure reason").is_some())
}
