//! A session with a tracker over UDP (BEP 15): packets by hand, and how the probe takes its leave.

mod cases;
mod hostile;

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use tbtt::os::random::random_bytes;

use crate::case::{Case, Miss, broken, shown, skipped};
use crate::peer::{InfoHash, Peer, Peers, endpoints};
use crate::target::TrackerUrl;

/// All cases, in the order in which they run.
pub(crate) const CASES: &[&[Case<Session>]] = &[cases::CASES, hostile::CASES];

const MAGIC: u64 = 0x0417_2710_1980;
const CONNECT: u32 = 0;
const ANNOUNCE: u32 = 1;
const SCRAPE: u32 = 2;
const ERROR: u32 = 3;

/// How long a client may use a connection id.
const MINUTE: Duration = Duration::from_secs(60);

/// How often a packet is sent before it counts as not answered.
const TRIES: u32 = 3;

/// Numbers of [`Announce::event`].
const NONE: u32 = 0;
const COMPLETED: u32 = 1;
const STARTED: u32 = 2;
const STOPPED: u32 = 3;

/// A packet that came, or `None` if none did.
type Reply = Option<Vec<u8>>;

/// A tracker that is being asked.
pub(crate) struct Session {
    url: TrackerUrl,
    to: SocketAddr,
    timeout: Duration,
    socket: UdpSocket,
    peers: Peers,
    torrent: InfoHash,
    named: bool,
    seeder: Peer,
    leecher: Peer,
    connect_reply: Vec<u8>,
    seeder_reply: Reply,
    leecher_reply: Reply,
    /// The connection id in use, and since when.
    id: u64,
    id_since: Instant,
    /// The first one, and when it came.
    first_id: (u64, Instant),
    /// What answers bore of those that were sent.
    transactions: Transactions,
    /// Peers that were announced and not stopped.
    to_stop: Vec<Announce>,
}

/// Numbers of requests, each used once.
struct Transactions {
    last: u32,
    first: u32,
    answered: usize,
    /// Answers that bore another number than their request.
    wrong: usize,
}

/// An announce, but for the numbers that change with each.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Announce {
    torrent: InfoHash,
    peer: Peer,
    left: u64,
    event: u32,
    address: [u8; 4],
    numwant: i32,
    /// What follows the 98 bytes (BEP 41).
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

    fn is_same_peer(&self, other: &Self) -> bool {
        self.torrent == other.torrent
            && self.peer.port == other.peer.port
            && self.address == other.address
    }
}

/// What an announce is answered with.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Announced {
    interval: u32,
    leechers: u32,
    seeders: u32,
    peers: Vec<SocketAddr>,
}

fn field(packet: &[u8], at: usize) -> Option<u32> {
    let bytes = packet.get(at..)?.first_chunk()?;
    Some(u32::from_be_bytes(*bytes))
}

fn head(action: u32, id: u64, transaction: u32) -> Vec<u8> {
    let mut packet = id.to_be_bytes().to_vec();
    packet.extend_from_slice(&action.to_be_bytes());
    packet.extend_from_slice(&transaction.to_be_bytes());
    packet
}

impl Session {
    /// Connects, and announces a seeder and a leecher; `Err` if the tracker cannot be reached.
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
                answered: 0,
                wrong: 0,
            },
            to_stop: Vec::new(),
        };
        session.connect_reply = session.try_connect()?;
        session.first_id = (session.id, session.id_since);
        if session.connected().is_ok() {
            let started = session.started(&session.seeder, 0);
            session.seeder_reply = session.announce(&started);
            if session.tracked().is_ok() {
                let started = session.started(&session.leecher, 1);
                session.leecher_reply = session.announce(&started);
            }
        }
        Ok(session)
    }

    fn try_connect(&mut self) -> Result<Vec<u8>, String> {
        let transaction = self.transaction();
        let reply = self.exchange(&head(CONNECT, MAGIC, transaction), transaction)?;
        if let Some(id) = reply.get(8..).and_then(|rest| rest.first_chunk()) {
            self.id = u64::from_be_bytes(*id);
            self.id_since = Instant::now();
        }
        Ok(reply)
    }

    /// Whether there is a connection id.
    fn connected(&self) -> Result<(), Miss> {
        match self.connect_reply.len() >= 16 && field(&self.connect_reply, 0) == Some(CONNECT) {
            true => Ok(()),
            false => skipped("there is no connection id"),
        }
    }

    /// Whether the torrent is tracked, judged by the seeder's first announce.
    pub(crate) fn tracked(&self) -> Result<(), Miss> {
        self.connected()?;
        match &self.seeder_reply {
            None => skipped("the first announce was not answered"),
            Some(reply) => match field(reply, 0) {
                Some(ANNOUNCE) if reply.len() >= 20 => Ok(()),
                _ if self.named => skipped("the torrent is refused"),
                _ => skipped("a random torrent is refused; name one that is tracked"),
            },
        }
    }

    fn started(&self, peer: &Peer, left: u64) -> Announce {
        let mut options = Vec::new();
        // The usual path tells a tracker nothing; what else is in the URL may be what lets the client in.
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

    /// Path and query of the URL (BEP 41).
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

    fn peer(&mut self) -> Result<Peer, Miss> {
        self.peers
            .peer()
            .or_else(|error| skipped(error.to_string()))
    }

    fn transaction(&mut self) -> u32 {
        self.transactions.last = self.transactions.last.wrapping_add(1);
        self.transactions.last
    }

    /// A connection id that may still be used.
    fn id(&mut self) -> u64 {
        if self.id_since.elapsed() > MINUTE {
            // Where the tracker gives no new one, the old one will be seen to fail.
            let _ = self.try_connect();
        }
        self.id
    }

    /// Sends until something comes back; `Err` says why nothing does.
    fn exchange(&mut self, packet: &[u8], transaction: u32) -> Result<Vec<u8>, String> {
        let mut why = "no answer in time".to_owned();
        for _ in 0..TRIES {
            let end = Instant::now() + self.timeout / TRIES;
            let sent = self.socket.send(packet);
            match sent.and_then(|_| self.hear(transaction, end)) {
                Ok(Some(reply)) => return Ok(reply),
                Ok(None) => {}
                Err(error) => why = error.to_string(),
            }
        }
        Err(why)
    }

    /// The next packet that is no late answer to another request.
    fn hear(&mut self, transaction: u32, end: Instant) -> io::Result<Option<Vec<u8>>> {
        while let Some(reply) = receive(&self.socket, end)? {
            let bears = field(&reply, 4);
            let own = bears == Some(transaction);
            if own || !self.transactions.is_old(bears) {
                self.transactions.answered += 1;
                self.transactions.wrong += usize::from(!own);
                return Ok(Some(reply));
            }
        }
        Ok(None)
    }

    fn ask(&mut self, packet: impl FnOnce(u64, u32) -> Vec<u8>) -> Reply {
        let (id, transaction) = (self.id(), self.transaction());
        self.exchange(&packet(id, transaction), transaction).ok()
    }

    fn announce(&mut self, announce: &Announce) -> Reply {
        let reply = self.ask(|id, transaction| announce.packet(id, transaction));
        let refused = reply
            .as_ref()
            .is_some_and(|reply| field(reply, 0) == Some(ERROR));
        let stops = announce.event == STOPPED;
        // Whatever was not answered may have been taken nonetheless; only a stop must have been heard.
        if !refused && (!stops || reply.is_some()) {
            self.to_stop.retain(|other| !other.is_same_peer(announce));
            if !stops {
                self.to_stop.push(announce.clone());
            }
        }
        reply
    }

    fn stop(&mut self, announce: &Announce) -> Reply {
        let mut announce = announce.clone();
        announce.event = STOPPED;
        self.announce(&announce)
    }

    /// Stops where nothing hangs on the answer.
    fn withdraw(&mut self, announce: &Announce) {
        let _ = self.stop(announce);
    }

    /// Stops all that was announced.
    pub(crate) fn leave(&mut self) {
        for announce in std::mem::take(&mut self.to_stop) {
            self.withdraw(&announce);
        }
    }

    fn scrape(&mut self, hashes: &[u8]) -> Reply {
        self.ask(|id, transaction| {
            let mut packet = head(SCRAPE, id, transaction);
            packet.extend_from_slice(hashes);
            packet
        })
    }

    /// Seeders, completed and leechers of each torrent that a scrape tells of.
    fn scraped(&mut self, hashes: &[u8]) -> Result<Vec<[u32; 3]>, Miss> {
        let reply = self.scrape(hashes);
        let reply = not_error(&reply)?;
        match (field(reply, 0), reply.get(8..)) {
            (Some(SCRAPE), Some(entries)) if entries.len() % 12 == 0 => {
                let entry = |entry: &[u8]| [0, 4, 8].map(|at| field(entry, at).unwrap_or_default());
                Ok(entries.chunks_exact(12).map(entry).collect())
            }
            (Some(SCRAPE), _) => broken(format!("a scrape's answer has {} bytes", reply.len())),
            _ => broken(format!("a scrape was answered with {}", shown(reply))),
        }
    }

    /// Of the torrent; skips where there is no scrape.
    fn counts(&mut self) -> Result<[u32; 3], Miss> {
        let torrent = self.torrent;
        match self.scraped(&torrent) {
            Ok(entries) if entries.len() == 1 => Ok(entries[0]),
            _ => skipped("there is no scrape to count by"),
        }
    }

    /// Announces a new peer that should be served, and stops it again.
    fn asked(&mut self, change: impl FnOnce(&mut Announce)) -> Result<Announced, Miss> {
        let peer = self.peer()?;
        let mut announce = self.started(&peer, 1);
        change(&mut announce);
        let reply = self.announce(&announce);
        self.withdraw(&announce);
        self.answered(&reply)
    }

    /// Reads the answer to an announce to the letter.
    fn answered(&self, reply: &Reply) -> Result<Announced, Miss> {
        let reply = not_error(reply)?;
        let address_len = if self.is_v6() { 16 } else { 4 };
        let (Some(ANNOUNCE), Some(peers)) = (field(reply, 0), reply.get(20..)) else {
            return broken(format!(
                "{} bytes with action {} came, where action 1 and 20 bytes should be",
                reply.len(),
                field(reply, 0).map_or("none".to_owned(), |action| action.to_string())
            ));
        };
        let Some(peers) = endpoints(peers, address_len) else {
            return broken(format!(
                "20 bytes and {} of peers came, no multiple of {}",
                peers.len(),
                address_len + 2
            ));
        };
        let number = |at| field(reply, at).unwrap_or_default();
        Ok(Announced {
            interval: number(8),
            leechers: number(12),
            seeders: number(16),
            peers,
        })
    }

    /// Whether an answer tells of a peer, by its port; skips where it may be one of too many.
    fn tells_of(announced: &Announced, peer: &Peer) -> Result<bool, Miss> {
        let Announced { peers, .. } = announced;
        match peers.iter().any(|other| other.port() == peer.port) {
            true => Ok(true),
            false if peers.len() >= 30 => skipped("the swarm has more peers than one answer"),
            false => Ok(false),
        }
    }

    /// What packets from a socket are answered with. Nothing is waited for: such answers come before those to two
    /// connects, of which the second is sent when the first has been answered.
    fn answers(&mut self, socket: &UdpSocket, packets: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, Miss> {
        let gone = |error: io::Error| Miss::Broken(format!("nothing is there any more: {error}"));
        for packet in packets {
            // What is too long for this system does not get as far as the tracker.
            let _ = socket.send(packet);
        }
        let mut answers = Vec::new();
        for _ in 0..2 {
            let mark = self.transaction();
            let mut marked = false;
            for _ in 0..TRIES {
                socket.send(&head(CONNECT, MAGIC, mark)).map_err(gone)?;
                let end = Instant::now() + self.timeout / TRIES;
                while let Some(answer) = receive(socket, end).map_err(gone)? {
                    let bears = field(&answer, 4);
                    if answer.len() == 16 && bears == Some(mark) {
                        marked = true;
                        break;
                    }
                    // A mark that was sent twice may be answered twice.
                    if field(&answer, 0) != Some(CONNECT) || !self.transactions.is_old(bears) {
                        answers.push(answer);
                    }
                }
                if marked {
                    break;
                }
            }
            if !marked {
                return broken("a connect was not answered any more");
            }
        }
        Ok(answers)
    }

    /// Another client's socket, on the port of the system's choice.
    fn other_socket(&self, own: Option<IpAddr>) -> Result<UdpSocket, Miss> {
        socket(own, self.to).or_else(|error| skipped(format!("no socket: {error}")))
    }

    fn is_v6(&self) -> bool {
        self.to.is_ipv6() && !self.to.ip().to_canonical().is_ipv4()
    }
}

impl Transactions {
    /// Whether this is a request's that was sent earlier.
    fn is_old(&self, transaction: Option<u32>) -> bool {
        let age = transaction.map(|transaction| self.last.wrapping_sub(transaction));
        age.is_some_and(|age| age > 0 && age < self.last.wrapping_sub(self.first))
    }
}

/// A socket that hears the tracker alone.
fn socket(own: Option<IpAddr>, to: SocketAddr) -> io::Result<UdpSocket> {
    let any = match to {
        SocketAddr::V4(_) => IpAddr::from([0; 4]),
        SocketAddr::V6(_) => IpAddr::from([0; 16]),
    };
    let socket = UdpSocket::bind((own.unwrap_or(any), 0))?;
    socket.connect(to)?;
    Ok(socket)
}

/// The next packet, if one comes in time.
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

/// The packet, unless there is none or it is an error.
fn not_error(reply: &Reply) -> Result<&[u8], Miss> {
    match reply {
        None => broken("no answer in time"),
        Some(reply) if field(reply, 0) == Some(ERROR) => broken(format!(
            "it was refused: {}",
            shown(reply.get(8..).unwrap_or_default())
        )),
        Some(reply) => Ok(reply),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_announce_has_its_fields_where_bep_15_has_them() {
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
        assert_eq!((&packet[..8], field(&packet, 8)), (&[0x0e; 8][..], Some(1)));
        assert_eq!(field(&packet, 12), Some(15));
        assert_eq!(
            (&packet[16..36], &packet[36..56]),
            (&[1; 20][..], &[2; 20][..])
        );
        assert_eq!(packet[64..72], 9u64.to_be_bytes());
        assert_eq!(
            (field(&packet, 80), &packet[84..88]),
            (Some(3), &[10, 11, 12, 13][..])
        );
        assert_eq!(
            (field(&packet, 88), field(&packet, 92)),
            (Some(0x0506_0708), Some(u32::MAX))
        );
        assert_eq!(packet[96..98], [3, 4]);
    }

    #[test]
    fn late_answers_are_told_from_wrong_ones() {
        let transactions = Transactions {
            first: u32::MAX,
            last: 3,
            answered: 0,
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
