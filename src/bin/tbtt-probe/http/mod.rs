//! A session with a tracker over HTTP: its requests, what is made of its answers, and how the probe takes its leave.

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
use crate::case::{Case, Finding, Miss, broken, none_of, shown, skipped};
use crate::peer::{InfoHash, Peer, Peers, endpoints};
use crate::target::TrackerUrl;
use wire::{Answer, NoAnswer, Reply, Wire};

/// All cases, in the order in which they run.
pub(crate) const CASES: &[&[Case<Session>]] = &[
    basic::CASES,
    parameters::CASES,
    transport::CASES,
    scrape::CASES,
    hostile::CASES,
];

/// A tracker that is being asked.
pub(crate) struct Session {
    url: TrackerUrl,
    wire: Wire,
    peers: Peers,
    /// The torrent that is announced, and whether the user named it.
    torrent: InfoHash,
    named: bool,
    /// Another one that the user named.
    second: Option<InfoHash>,
    seeder: Peer,
    leecher: Peer,
    /// The answers to their first announces; the leecher has none if the seeder was refused.
    seeder_reply: Reply,
    leecher_reply: Option<Reply>,
    /// An announce of a torrent that no tracker can know, and its answer.
    foreign: Option<(InfoHash, Reply)>,
    /// The answer to a scrape of the torrent.
    scraped: Option<Reply>,
    /// Requests that no tracker should take, and their answers.
    malformed: Vec<(String, Reply)>,
    /// What was announced and not yet stopped, with the header lines that went along.
    to_stop: Vec<(Query, &'static str)>,
    /// The probe's own address.
    own: Option<IpAddr>,
    /// The same tracker over the other family, if there is one.
    other_family: Option<Wire>,
}

/// The parameters of a request, in their order, as they stand in its URL.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Query(Vec<(&'static str, String)>);

impl Query {
    fn set(mut self, key: &'static str, value: impl Into<String>) -> Self {
        let value = value.into();
        match self.0.iter_mut().find(|(name, _)| *name == key) {
            Some((_, old)) => *old = value,
            None => self.0.push((key, value)),
        }
        self
    }

    /// Even if it is there already.
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

    /// Whether it announces the same peer of the same torrent.
    fn is_same_peer(&self, other: &Self) -> bool {
        ["info_hash", "peer_id", "port"]
            .iter()
            .all(|key| self.get(key) == other.get(key))
    }
}

/// Each byte as %XX.
fn escaped(bytes: &[u8]) -> String {
    bytes.iter().copied().map(percent_encode_byte).collect()
}

/// What a scrape counts for one torrent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Counts {
    complete: i128,
    downloaded: i128,
    incomplete: i128,
}

impl Session {
    /// Announces a seeder and a leecher; `Err` if the tracker cannot be reached. `other_family` is where it may be
    /// reached, too.
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
        let own = match wire.connect() {
            Ok(connection) => connection.own(),
            Err(no_answer) => return Err(no_answer.to_string()),
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
            seeder_reply: Err(NoAnswer::Closed),
            leecher_reply: None,
            foreign: None,
            scraped: None,
            malformed: Vec::new(),
            to_stop: Vec::new(),
            own: own.map(|own| own.to_canonical()),
            other_family: other_family.map(wire_to),
        };
        let started = session.started(&session.seeder).set("left", "0");
        session.seeder_reply = session.announce(&started);
        if session.tracked().is_ok() {
            let started = session.started(&session.leecher);
            session.leecher_reply = Some(session.announce(&started));
        }
        Ok(session)
    }

    /// Whether the torrent is tracked, judged by the seeder's first announce.
    pub(crate) fn tracked(&self) -> Result<(), Miss> {
        match &self.seeder_reply {
            Err(_) => skipped("the first announce was not answered"),
            Ok(answer) => match bencode::read(&answer.body) {
                Err(_) => skipped("the first announce was not answered with bencode"),
                Ok((dict, _)) => match dict.get("failure reason") {
                    None => Ok(()),
                    Some(_) if self.named => skipped("the torrent is refused"),
                    Some(_) => skipped("a random torrent is refused; name one that is tracked"),
                },
            },
        }
    }

    /// A leecher's first announce.
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

    fn peer(&mut self) -> Result<Peer, Miss> {
        self.peers
            .peer()
            .or_else(|error| skipped(error.to_string()))
    }

    /// The path and query of an announce.
    fn target(&self, query: &str) -> String {
        Self::join(&self.url.path, &self.url.query, query)
    }

    fn join(path: &str, own: &str, query: &str) -> String {
        match own {
            "" => format!("{path}?{query}"),
            own => format!("{path}?{own}&{query}"),
        }
    }

    fn announce(&mut self, query: &Query) -> Reply {
        self.announce_with(query, "")
    }

    /// Sends header lines along.
    fn announce_with(&mut self, query: &Query, headers: &'static str) -> Reply {
        let request = self.wire.request(&self.target(&query.text()), headers);
        let reply = self.wire.ask(request);
        let refused = reply.as_ref().is_ok_and(is_refusal);
        let stops = query.get("event") == Some("stopped");
        // Whatever was not answered may have been taken nonetheless; only a stop must have been heard.
        if !refused && (!stops || reply.is_ok()) {
            self.to_stop.retain(|(other, _)| !other.is_same_peer(query));
            if !stops {
                self.to_stop.push((query.clone(), headers));
            }
        }
        reply
    }

    fn stop(&mut self, query: &Query) -> Reply {
        self.announce(&query.clone().set("event", "stopped"))
    }

    /// Stops where nothing hangs on the answer.
    fn withdraw(&mut self, query: &Query) {
        let _ = self.stop(query);
    }

    /// Stops all that was announced.
    pub(crate) fn leave(&mut self) {
        for (query, headers) in std::mem::take(&mut self.to_stop) {
            // Whether it is heard, the probe cannot help.
            let _ = self.announce_with(&query.set("event", "stopped"), headers);
        }
    }

    fn scrape(&self, query: &str) -> Result<Reply, Miss> {
        match self.url.scrape_path() {
            Some(path) => Ok(self.wire.get(&Self::join(&path, &self.url.query, query))),
            None => {
                skipped("the URL's last part does not begin with announce, so there is no scrape")
            }
        }
    }

    fn scrape_of(&self, hashes: &[InfoHash]) -> Result<Reply, Miss> {
        let pairs = hashes
            .iter()
            .map(|hash| format!("info_hash={}", escaped(hash)));
        self.scrape(&pairs.collect::<Vec<_>>().join("&"))
    }

    /// The counts of a torrent, zeros if it is not told of; skips where there is no scrape.
    fn counts_of(&self, torrent: &InfoHash) -> Result<Counts, Miss> {
        let reply = self.scrape_of(&[*torrent])?;
        let files = match served(&reply) {
            Ok(dict) => dict.dict("files").cloned(),
            Err(_) => None,
        };
        let Some(files) = files else {
            return skipped("there is no scrape to count by");
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

    fn counts(&self) -> Result<Counts, Miss> {
        self.counts_of(&self.torrent)
    }

    /// Announces a new peer that should be served, and stops it again; returns its answer and how it changed the counts.
    fn counted(&mut self, change: impl Fn(Query) -> Query) -> Result<(Dict, Counts), Miss> {
        let before = self.counts()?;
        let peer = self.peer()?;
        let query = change(self.started(&peer));
        let reply = self.announce(&query);
        let after = self.counts();
        self.withdraw(&query);
        let (dict, after) = (served(&reply)?, after?);
        let change = Counts {
            complete: after.complete - before.complete,
            downloaded: after.downloaded - before.downloaded,
            incomplete: after.incomplete - before.incomplete,
        };
        Ok((dict, change))
    }

    /// Announces a new leecher that should be served whatever is odd about it.
    fn asked(&mut self, change: impl Fn(Query) -> Query) -> Result<Dict, Miss> {
        let peer = self.peer()?;
        let query = change(self.started(&peer));
        let reply = self.announce(&query);
        self.withdraw(&query);
        served(&reply)
    }

    /// Whether an answer tells of a peer, by its port; skips where it may be one of too many.
    fn tells_of(peers: &[SocketAddr], peer: &Peer) -> Result<bool, Miss> {
        match peers.iter().any(|other| other.port() == peer.port) {
            true => Ok(true),
            false if peers.len() >= 30 => skipped("the swarm has more peers than one answer"),
            false => Ok(false),
        }
    }

    fn is_v6(&self) -> bool {
        self.wire.to.is_ipv6() && !self.wire.to.ip().to_canonical().is_ipv4()
    }
}

/// The answer's dictionary and what is wrong with its form, whatever its status.
fn read(reply: &Reply) -> Result<(Dict, Vec<String>), Miss> {
    let answer = reply.as_ref().or_else(|none| broken(none.to_string()))?;
    bencode::read(&answer.body)
        .or_else(|why| broken(format!("{}, no bencode: {why}", answer.shown())))
}

/// The dictionary of an answer that is no refusal.
fn served(reply: &Reply) -> Result<Dict, Miss> {
    let (dict, _) = read(reply)?;
    match dict.get("failure reason") {
        None => Ok(dict),
        Some(Value::Bytes(reason)) => broken(format!("it was refused: {}", shown(reason))),
        Some(_) => broken("it was refused, with a `failure reason` that is no string"),
    }
}

/// Well if the answer's form is; what else it says does not matter.
fn well_formed(reply: &Reply) -> Finding {
    let (_, faults) = read(reply)?;
    none_of(faults, "so it is")
}

/// All peers of an answer in whatever form, of both families.
fn peers_in(dict: &Dict) -> Result<Vec<SocketAddr>, Miss> {
    let mut all = Vec::new();
    for (key, address_len) in [("peers", 4), ("peers6", 16)] {
        match dict.get(key) {
            None => {}
            Some(Value::Bytes(compact)) => match endpoints(compact, address_len) {
                Some(peers) => all.extend(peers),
                None => {
                    let (len, of) = (compact.len(), address_len + 2);
                    return broken(format!("`{key}` has {len} bytes, no multiple of {of}"));
                }
            },
            Some(Value::List(peers)) => {
                for peer in peers {
                    all.push(dictionary_peer(peer)?);
                }
            }
            Some(_) => return broken(format!("`{key}` is neither a string nor a list")),
        }
    }
    Ok(all)
}

/// A peer as BEP 3 has it; one with a name instead of an address counts as unspecified, with its port.
fn dictionary_peer(peer: &Value) -> Result<SocketAddr, Miss> {
    let Value::Dict(peer) = peer else {
        return broken("an entry of `peers` is no dictionary");
    };
    let (Some(ip), Some(port)) = (peer.bytes("ip"), peer.integer("port")) else {
        return broken("an entry of `peers` lacks `ip` or `port`");
    };
    let Ok(port) = u16::try_from(port) else {
        return broken(format!("an entry of `peers` has port {port}"));
    };
    match String::from_utf8_lossy(ip).parse::<IpAddr>() {
        Ok(ip) => Ok(SocketAddr::new(ip, port)),
        Err(_) => broken(format!("an entry of `peers` has {} as its `ip`", shown(ip))),
    }
}

/// The status and the kind of a reply, for a list of several.
fn kind(reply: &Reply) -> String {
    match reply {
        Err(none) => none.to_string(),
        Ok(answer) => format!("HTTP {}", answer.status),
    }
}

/// Whether a reply is a refusal as clients read it.
fn is_refusal(answer: &Answer) -> bool {
    let read = bencode::read(&answer.body);
    answer.status == 200 && read.is_ok_and(|(dict, _)| dict.bytes("failure reason").is_some())
}
