//! A session with a tracker over UDP (BEP 15): it sends packets, parses the responses, and stops all peers at the end.

mod cases;
mod hostile;

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use tbtt::os::random::random_bytes;

use crate::case::{Case, NotOk, RANDOM_REFUSED, count, excerpt, failed, skipped};
use crate::peer::{InfoHash, Peer, Peers, endpoints};
use crate::target::TrackerUrl;

/// All cases, in the order in which they run.
pub(crate) const CASES: &[&[Case<Session>]] = &[cases::CASES, hostile::CASES];

/// The protocol ID in a connect request.
const MAGIC: u64 = 0x0417_2710_1980;
const CONNECT: u32 = 0;
const ANNOUNCE: u32 = 1;
const SCRAPE: u32 = 2;
const ERROR: u32 = 3;

/// How long a client may use a connection ID.
const MINUTE: Duration = Duration::from_secs(60);

/// How many times a packet is sent before the probe gives up.
const TRIES: u32 = 3;

// Values of `Announce::event`.
const NONE: u32 = 0;
const COMPLETED: u32 = 1;
const STARTED: u32 = 2;
const STOPPED: u32 = 3;

/// A received packet, or `None` after the timeout.
type Reply = Option<Vec<u8>>;

/// A session with a tracker.
pub(crate) struct Session {
    url: TrackerUrl,
    to: SocketAddr,
    timeout: Duration,
    socket: UdpSocket,
    peers: Peers,
    /// The torrent that is announced.
    torrent: InfoHash,
    /// Whether the user gave the torrent. Otherwise it is random.
    named: bool,
    seeder: Peer,
    leecher: Peer,
    connect_reply: Vec<u8>,
    seeder_reply: Reply,
    leecher_reply: Reply,
    /// The current connection ID, and the time when it was received.
    id: u64,
    id_since: Instant,
    /// The first connection ID, and the time when it was received.
    first_id: (u64, Instant),
    transactions: Transactions,
    /// Peers that were announced and are not stopped yet.
    to_stop: Vec<Announce>,
}

/// Transaction IDs, each used once, and whether the responses had them.
struct Transactions {
    last: u32,
    first: u32,
    responses: usize,
    /// Number of responses with another ID than their request.
    wrong: usize,
}

/// An announce without connection ID and transaction ID.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Announce {
    torrent: InfoHash,
    peer: Peer,
    left: u64,
    event: u32,
    address: [u8; 4],
    numwant: i32,
    /// The bytes after the first 98 (BEP 41).
    options: Vec<u8>,
}

impl Announce {
    fn packet(&self, id: u64, transaction: u32) -> Vec<u8> {
        let mut packet = Vec::with_capacity(98 + self.options.len());
        packet.extend_from_slice(&id.to_be_bytes());
        packet.extend_from_slice(&ANNOUNCE.to_be_bytes());
        packet.extend_from_slice(&transaction.to_be_bytes());
        packet.extend_from_slice(&self.torrent);
        packet.extend_from_slice(&self.peer.id);
        packet.extend_from_slice(&0u64.to_be_bytes());
        packet.extend_from_slice(&self.left.to_be_bytes());
        packet.extend_from_slice(&0u64.to_be_bytes());
        packet.extend_from_slice(&self.event.to_be_bytes());
        packet.extend_from_slice(&self.address);
        packet.extend_from_slice(&self.peer.key.to_be_bytes());
        packet.extend_from_slice(&self.numwant.to_be_bytes());
        packet.extend_from_slice(&self.peer.port.to_be_bytes());
        packet.extend_from_slice(&self.options);
        packet
    }

    /// Returns whether both announce the same peer of the same torrent.
    fn is_same_peer(&self, other: &Self) -> bool {
        self.torrent == other.torrent
            && self.peer.port == other.peer.port
            && self.address == other.address
    }
}

/// A response to an announce.
#[derive(Clone, PartialEq, Eq, Debug)]
struct AnnounceResponse {
    interval: u32,
    leechers: u32,
    seeders: u32,
    peers: Vec<SocketAddr>,
}

/// Returns a 32-bit field of a packet.
fn u32_at(packet: &[u8], at: usize) -> Option<u32> {
    let bytes = packet.get(at..)?.first_chunk()?;
    Some(u32::from_be_bytes(*bytes))
}

/// Returns a packet that has only the header.
fn header(action: u32, id: u64, transaction: u32) -> Vec<u8> {
    let mut packet = id.to_be_bytes().to_vec();
    packet.extend_from_slice(&action.to_be_bytes());
    packet.extend_from_slice(&transaction.to_be_bytes());
    packet
}

impl Session {
    /// Connects, and announces a seeder and a leecher.
    ///
    /// # Errors
    /// The reason why the tracker cannot be reached.
    pub(crate) fn open(
        url: &TrackerUrl,
        to: SocketAddr,
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
        let first = u32::from_be_bytes(random_bytes().map_err(no_random)?) | 1;
        let mut session = Self {
            url: url.clone(),
            to,
            timeout,
            socket: socket(None, to).map_err(|error| error.to_string())?,
            peers,
            torrent: named.first().copied().unwrap_or(random),
            named: !named.is_empty(),
            seeder,
            leecher,
            connect_reply: Vec::new(),
            seeder_reply: None,
            leecher_reply: None,
            id: 0,
            id_since: Instant::now(),
            first_id: (0, Instant::now()),
            transactions: Transactions {
                first,
                last: first,
                responses: 0,
                wrong: 0,
            },
            to_stop: Vec::new(),
        };
        session.connect_reply = session.try_connect()?;
        session.first_id = (session.id, session.id_since);
        if session.require_connected().is_ok() {
            let started = session.started(&session.seeder, 0);
            session.seeder_reply = session.announce(&started);
            if session.require_tracked().is_ok() {
                let started = session.started(&session.leecher, 1);
                session.leecher_reply = session.announce(&started);
            }
        }
        Ok(session)
    }

    fn try_connect(&mut self) -> Result<Vec<u8>, String> {
        let transaction = self.transaction();
        let reply = self.exchange(&header(CONNECT, MAGIC, transaction), transaction)?;
        if let Some(id) = reply.get(8..).and_then(|rest| rest.first_chunk()) {
            self.id = u64::from_be_bytes(*id);
            self.id_since = Instant::now();
        }
        Ok(reply)
    }

    /// Skips the case unless there is a connection ID.
    fn require_connected(&self) -> Result<(), NotOk> {
        match self.connect_reply.len() >= 16 && u32_at(&self.connect_reply, 0) == Some(CONNECT) {
            true => Ok(()),
            false => skipped("the tracker has not sent a connection ID"),
        }
    }

    /// Skips the case unless the torrent is tracked, according to the first announce of the seeder.
    pub(crate) fn require_tracked(&self) -> Result<(), NotOk> {
        self.require_connected()?;
        match &self.seeder_reply {
            None => skipped("the first announce got no response"),
            Some(reply) => match u32_at(reply, 0) {
                Some(ANNOUNCE) if reply.len() >= 20 => Ok(()),
                _ if self.named => skipped("the tracker refuses the torrent"),
                _ => skipped(RANDOM_REFUSED),
            },
        }
    }

    /// Returns the first announce of a peer.
    fn started(&self, peer: &Peer, left: u64) -> Announce {
        let mut options = Vec::new();
        // A tracker does not need the usual path. Any other path or query may be a key without which it refuses the client.
        if !matches!(self.url.path.as_str(), "" | "/" | "/announce") || !self.url.query.is_empty() {
            options = self.url_options();
        }
        Announce {
            torrent: self.torrent,
            peer: peer.clone(),
            left,
            event: STARTED,
            address: [0; 4],
            numwant: -1,
            options,
        }
    }

    /// Returns the options with path and query of the URL (BEP 41).
    fn url_options(&self) -> Vec<u8> {
        let text = match (self.url.path.as_str(), self.url.query.as_str()) {
            ("", "") => "/announce".to_owned(),
            (path, "") => path.to_owned(),
            (path, query) => format!("{path}?{query}"),
        };
        let mut options = Vec::new();
        for piece in text.as_bytes().chunks(255) {
            options.extend_from_slice(&[2, piece.len() as u8]);
            options.extend_from_slice(piece);
        }
        options
    }

    fn peer(&mut self) -> Result<Peer, NotOk> {
        self.peers
            .peer()
            .or_else(|error| skipped(error.to_string()))
    }

    /// Returns a new transaction ID.
    fn transaction(&mut self) -> u32 {
        self.transactions.last = self.transactions.last.wrapping_add(1);
        self.transactions.last
    }

    /// Returns a connection ID that is less than one minute old.
    fn id(&mut self) -> u64 {
        if self.id_since.elapsed() > MINUTE {
            // If the tracker sends no new ID, the requests with the old one fail, and the cases report that.
            let _ = self.try_connect();
        }
        self.id
    }

    /// Sends a packet until there is a response.
    ///
    /// # Errors
    /// The reason why there is no response.
    fn exchange(&mut self, packet: &[u8], transaction: u32) -> Result<Vec<u8>, String> {
        let mut reason = "no response within the timeout".to_owned();
        for _ in 0..TRIES {
            let end = Instant::now() + self.timeout / TRIES;
            let sent = self.socket.send(packet);
            match sent.and_then(|_| self.receive_response(transaction, end)) {
                Ok(Some(reply)) => return Ok(reply),
                Ok(None) => {}
                Err(error) => reason = error.to_string(),
            }
        }
        Err(reason)
    }

    /// Receives the next packet that is not a late response to an earlier request.
    fn receive_response(&mut self, transaction: u32, end: Instant) -> io::Result<Option<Vec<u8>>> {
        while let Some(reply) = receive(&self.socket, end)? {
            let id = u32_at(&reply, 4);
            let is_own = id == Some(transaction);
            if is_own || !self.transactions.is_old(id) {
                self.transactions.responses += 1;
                self.transactions.wrong += usize::from(!is_own);
                return Ok(Some(reply));
            }
        }
        Ok(None)
    }

    /// Sends a request with the current connection ID and a new transaction ID.
    fn request(&mut self, packet: impl FnOnce(u64, u32) -> Vec<u8>) -> Reply {
        let (id, transaction) = (self.id(), self.transaction());
        self.exchange(&packet(id, transaction), transaction).ok()
    }

    fn announce(&mut self, announce: &Announce) -> Reply {
        let reply = self.request(|id, transaction| announce.packet(id, transaction));
        let refused = reply
            .as_ref()
            .is_some_and(|reply| u32_at(reply, 0) == Some(ERROR));
        let stops = announce.event == STOPPED;
        // An announce without a response may have reached the tracker; a stop without a response may not.
        if !refused && (!stops || reply.is_some()) {
            self.to_stop.retain(|other| !other.is_same_peer(announce));
            if !stops {
                self.to_stop.push(announce.clone());
            }
        }
        reply
    }

    /// Stops a peer.
    fn stop(&mut self, announce: &Announce) -> Reply {
        let mut announce = announce.clone();
        announce.event = STOPPED;
        self.announce(&announce)
    }

    /// Stops a peer, and ignores the response.
    fn withdraw(&mut self, announce: &Announce) {
        let _ = self.stop(announce);
    }

    /// Stops all peers that were announced.
    pub(crate) fn stop_all(&mut self) {
        for announce in std::mem::take(&mut self.to_stop) {
            self.withdraw(&announce);
        }
    }

    fn scrape(&mut self, hashes: &[u8]) -> Reply {
        self.request(|id, transaction| {
            let mut packet = header(SCRAPE, id, transaction);
            packet.extend_from_slice(hashes);
            packet
        })
    }

    /// Scrapes torrents, and returns seeders, completed and leechers of each torrent in the response.
    fn scrape_entries(&mut self, hashes: &[u8]) -> Result<Vec<[u32; 3]>, NotOk> {
        let reply = self.scrape(hashes);
        let reply = not_error(&reply)?;
        match (u32_at(reply, 0), reply.get(8..)) {
            (Some(SCRAPE), Some(entries)) if entries.len() % 12 == 0 => {
                let entry =
                    |entry: &[u8]| [0, 4, 8].map(|at| u32_at(entry, at).unwrap_or_default());
                Ok(entries.chunks_exact(12).map(entry).collect())
            }
            (Some(SCRAPE), _) => failed(format!(
                "the response to a scrape has {}",
                count(reply.len(), "byte")
            )),
            _ => failed(format!("a scrape got {}", packet_summary(reply))),
        }
    }

    /// Scrapes the torrent, and returns seeders, completed and leechers. Skips the case if scrapes are not supported.
    fn counts(&mut self) -> Result<[u32; 3], NotOk> {
        let torrent = self.torrent;
        match self.scrape_entries(&torrent) {
            Ok(entries) if entries.len() == 1 => Ok(entries[0]),
            _ => skipped("the counts need a scrape, which does not work"),
        }
    }

    /// Announces a new leecher with changes, and stops it again. Returns the response, which must not be an error.
    fn announce_briefly(
        &mut self,
        change: impl FnOnce(&mut Announce),
    ) -> Result<AnnounceResponse, NotOk> {
        let peer = self.peer()?;
        let mut announce = self.started(&peer, 1);
        change(&mut announce);
        let reply = self.announce(&announce);
        self.withdraw(&announce);
        self.parse_announce(&reply)
    }

    /// Parses the response to an announce strictly.
    fn parse_announce(&self, reply: &Reply) -> Result<AnnounceResponse, NotOk> {
        let reply = not_error(reply)?;
        let address_len = if self.is_v6() { 16 } else { 4 };
        let (Some(ANNOUNCE), Some(peers)) = (u32_at(reply, 0), reply.get(20..)) else {
            let action = u32_at(reply, 0)
                .map_or("no action".to_owned(), |action| format!("action {action}"));
            return failed(format!(
                "{} with {action}, instead of at least 20 with action 1",
                count(reply.len(), "byte")
            ));
        };
        let Some(peers) = endpoints(peers, address_len) else {
            return failed(format!(
                "{} of peers, which is not a multiple of {}",
                count(peers.len(), "byte"),
                address_len + 2
            ));
        };
        let number = |at| u32_at(reply, at).unwrap_or_default();
        Ok(AnnounceResponse {
            interval: number(8),
            leechers: number(12),
            seeders: number(16),
            peers,
        })
    }

    /// Returns whether a response lists a peer, by its port. Skips the case if the peer may be missing because the
    /// swarm has more peers than the response.
    fn lists(announced: &AnnounceResponse, peer: &Peer) -> Result<bool, NotOk> {
        let AnnounceResponse { peers, .. } = announced;
        match peers.iter().any(|other| other.port() == peer.port) {
            true => Ok(true),
            false if peers.len() >= 30 => {
                skipped("the swarm has more peers than fit into one response")
            }
            false => Ok(false),
        }
    }

    /// Sends packets from a socket, and returns all responses to them, which may be none. Does not wait for a timeout:
    /// after the packets, sends a connect, and a second one after the response to the first. Responses to the packets
    /// arrive before the response to the second connect.
    fn responses_to(
        &mut self,
        socket: &UdpSocket,
        packets: &[Vec<u8>],
    ) -> Result<Vec<Vec<u8>>, NotOk> {
        let gone = |error: io::Error| {
            NotOk::Failed(format!("the tracker cannot be reached any more: {error}"))
        };
        for packet in packets {
            // A packet that is too long for this system is not sent.
            let _ = socket.send(packet);
        }
        let mut responses = Vec::new();
        for _ in 0..2 {
            let transaction = self.transaction();
            let mut is_connected = false;
            for _ in 0..TRIES {
                socket
                    .send(&header(CONNECT, MAGIC, transaction))
                    .map_err(gone)?;
                let end = Instant::now() + self.timeout / TRIES;
                while let Some(response) = receive(socket, end).map_err(gone)? {
                    let id = u32_at(&response, 4);
                    if response.len() == 16 && id == Some(transaction) {
                        is_connected = true;
                        break;
                    }
                    // A connect that was sent twice may get two responses.
                    if u32_at(&response, 0) != Some(CONNECT) || !self.transactions.is_old(id) {
                        responses.push(response);
                    }
                }
                if is_connected {
                    break;
                }
            }
            if !is_connected {
                return failed("a connect afterwards got no response");
            }
        }
        Ok(responses)
    }

    /// Returns a new socket, as another client would have.
    fn other_socket(&self, own: Option<IpAddr>) -> Result<UdpSocket, NotOk> {
        socket(own, self.to).or_else(|error| skipped(format!("cannot create a socket: {error}")))
    }

    fn is_v6(&self) -> bool {
        self.to.is_ipv6() && !self.to.ip().to_canonical().is_ipv4()
    }
}

impl Transactions {
    /// Returns whether the ID belongs to an earlier request.
    fn is_old(&self, transaction: Option<u32>) -> bool {
        let age = transaction.map(|transaction| self.last.wrapping_sub(transaction));
        age.is_some_and(|age| age > 0 && age < self.last.wrapping_sub(self.first))
    }
}

/// Returns a socket that receives only from the tracker.
fn socket(own: Option<IpAddr>, to: SocketAddr) -> io::Result<UdpSocket> {
    let any = match to {
        SocketAddr::V4(_) => IpAddr::from([0; 4]),
        SocketAddr::V6(_) => IpAddr::from([0; 16]),
    };
    let socket = UdpSocket::bind((own.unwrap_or(any), 0))?;
    socket.connect(to)?;
    Ok(socket)
}

/// Receives the next packet; returns `None` after the timeout.
fn receive(socket: &UdpSocket, end: Instant) -> io::Result<Option<Vec<u8>>> {
    let mut packet = vec![0; 64 * 1024];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        socket.set_read_timeout(Some(left))?;
        match socket.recv(&mut packet) {
            Ok(length) => {
                packet.truncate(length);
                return Ok(Some(packet));
            }
            Err(error) => match error.kind() {
                ErrorKind::Interrupted | ErrorKind::WouldBlock | ErrorKind::TimedOut => {}
                _ => return Err(error),
            },
        }
    }
}

/// Returns the length and the beginning of a packet.
fn packet_summary(packet: &[u8]) -> String {
    format!("{}: {}", count(packet.len(), "byte"), excerpt(packet))
}

/// Returns the packet. Fails if there is no packet or an error.
fn not_error(reply: &Reply) -> Result<&[u8], NotOk> {
    match reply {
        None => failed("no response within the timeout"),
        Some(reply) if u32_at(reply, 0) == Some(ERROR) => failed(format!(
            "the request was refused: {}",
            excerpt(reply.get(8..).unwrap_or_default())
        )),
        Some(reply) => Ok(reply),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn announce_packet_has_the_layout_of_bep_15() {
        let announce = Announce {
            torrent: [1; 20],
            peer: Peer {
                id: [2; 20],
                port: 0x0304,
                key: 0x0506_0708,
            },
            left: 9,
            event: STOPPED,
            address: [10, 11, 12, 13],
            numwant: -1,
            options: vec![0],
        };
        let packet = announce.packet(0x0e0e_0e0e_0e0e_0e0e, 15);
        assert_eq!(packet.len(), 99);
        assert_eq!(
            (&packet[..8], u32_at(&packet, 8)),
            (&[0x0e; 8][..], Some(1))
        );
        assert_eq!(u32_at(&packet, 12), Some(15));
        assert_eq!(
            (&packet[16..36], &packet[36..56]),
            (&[1; 20][..], &[2; 20][..])
        );
        assert_eq!(packet[64..72], 9u64.to_be_bytes());
        assert_eq!(
            (u32_at(&packet, 80), &packet[84..88]),
            (Some(3), &[10, 11, 12, 13][..])
        );
        assert_eq!(
            (u32_at(&packet, 88), u32_at(&packet, 92)),
            (Some(0x0506_0708), Some(u32::MAX))
        );
        assert_eq!(packet[96..98], [3, 4]);
    }

    #[test]
    fn distinguishes_late_responses_from_wrong_ones() {
        let transactions = Transactions {
            first: u32::MAX,
            last: 3,
            responses: 0,
            wrong: 0,
        };
        for (number, old) in [
            (0, true),
            (2, true),
            (3, false),
            (4, false),
            (u32::MAX, false),
        ] {
            assert_eq!(transactions.is_old(Some(number)), old, "{number}");
        }
        assert!(!transactions.is_old(None));
    }
}
