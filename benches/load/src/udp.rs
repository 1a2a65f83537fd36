//! A run over UDP: one socket sends from many addresses, with a source address for each packet.

use crate::population::{Population, Rng};
use crate::request::{self, Plan, RequestKind};
use crate::response;
use crate::system::{BATCH, BatchSocket, Datagram};
use crate::tally::Tally;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

/// A request without a response counts as lost after this time.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum age of a connection id. BEP 15 allows a minute.
const ID_LIFE: Duration = Duration::from_secs(55);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Request {
    Connect { address: u32 },
    Announce { peer: u32 },
    Scrape,
}

/// A place for a request in flight. The low half of the transaction id is the number of the slot.
struct Slot {
    /// The high half of the transaction id, to detect a late response to an earlier request of the slot.
    sequence: u16,
    in_flight: Option<(Request, Instant)>,
}

struct Run<'a> {
    plan: &'a Plan,
    population: &'a Population,
    socket: BatchSocket,
    rng: Rng,
    /// The connection id of each address.
    ids: Vec<u64>,
    slots: Vec<Slot>,
    /// Numbers of the free slots.
    free: Vec<u16>,
    outgoing: Vec<Datagram>,
    incoming: Vec<Datagram>,
    tally: Tally,
}

/// A run that is ready to start: every address has a connection id.
pub struct Connected<'a>(Run<'a>);

/// Requests a connection id for each address. The time for this is not measured.
pub fn connect<'a>(plan: &'a Plan, population: &'a Population) -> io::Result<Connected<'a>> {
    let mut run = Run {
        plan,
        population,
        socket: BatchSocket::bind(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0))?,
        rng: Rng::new(plan.seed),
        ids: vec![0; population.addresses() as usize],
        slots: (0..plan.window)
            .map(|_| Slot {
                sequence: 0,
                in_flight: None,
            })
            .collect(),
        free: (0..plan.window as u16).collect(),
        outgoing: vec![Datagram::default(); BATCH],
        incoming: vec![Datagram::default(); BATCH],
        tally: Tally::default(),
    };
    run.connect_all()?;
    Ok(Connected(run))
}

impl Connected<'_> {
    /// Runs the plan.
    pub fn run(self) -> io::Result<Tally> {
        let Self(mut run) = self;
        let (plan, population) = (run.plan, run.population);
        let started = Instant::now();
        let mut connected_at = started;
        let requests = match plan.kind {
            RequestKind::Fill => u64::from(population.peers()),
            RequestKind::Announce | RequestKind::Scrape => plan.requests,
        };
        let mut sent = 0;
        // Each iteration ends when the connection ids expire.
        while sent < requests && started.elapsed() < plan.max_duration {
            if connected_at.elapsed() >= ID_LIFE {
                run.connect_all()?;
                connected_at = Instant::now();
            }
            let until = (connected_at + ID_LIFE).min(started + plan.max_duration);
            sent += run.exchange(until, requests - sent, |run, nth| {
                run.next_request((sent + nth) as u32)
            })?;
        }
        Ok(run.tally)
    }
}

impl Run<'_> {
    /// Requests a new connection id for each address. The responses do not count in the tally.
    fn connect_all(&mut self) -> io::Result<()> {
        let addresses = self.population.addresses();
        let until = Instant::now() + Duration::from_secs(30);
        let tally = std::mem::take(&mut self.tally);
        self.exchange(until, u64::from(addresses), |_, nth| Request::Connect {
            address: nth as u32,
        })?;
        let answered = std::mem::replace(&mut self.tally, tally).answered;
        if answered < u64::from(addresses) {
            return Err(io::Error::other(format!(
                "only {answered} of {addresses} connects got a response"
            )));
        }
        Ok(())
    }

    /// Returns the next request of the plan; `nth` is its number.
    fn next_request(&mut self, nth: u32) -> Request {
        if self.plan.connects > 0 && self.rng.below(1000) < self.plan.connects {
            return Request::Connect {
                address: self.rng.below(self.population.addresses()),
            };
        }
        match self.plan.kind {
            RequestKind::Fill => Request::Announce { peer: nth },
            RequestKind::Announce => Request::Announce {
                peer: self.rng.below(self.population.peers()),
            },
            RequestKind::Scrape => Request::Scrape,
        }
    }

    /// Sends up to `limit` requests, none after `until`, and waits for all responses. Returns the number of requests.
    fn exchange(
        &mut self,
        until: Instant,
        limit: u64,
        mut next: impl FnMut(&mut Self, u64) -> Request,
    ) -> io::Result<u64> {
        let mut sent = 0;
        let mut last_iteration = Instant::now();
        let mut last_sweep = last_iteration;
        while self.free.len() < self.slots.len() || (sent < limit && last_iteration < until) {
            let mut batch = 0;
            while batch < BATCH && sent < limit && last_iteration < until && !self.free.is_empty() {
                let request = next(self, sent);
                self.write_request(batch, request, last_iteration);
                batch += 1;
                sent += 1;
            }
            self.socket.send(&self.outgoing[..batch])?;
            // Poll without sleeping: the server must not pay for waking a client that in reality is on another host.
            let count = match self.socket.receive(&mut self.incoming, false) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                Err(error) => return Err(error),
            };
            let now = Instant::now();
            for index in 0..count {
                self.handle_response(index, now);
            }
            self.tally.record_iteration(count == 0 && batch == 0);
            last_iteration = now;
            if now - last_sweep > TIMEOUT {
                self.expire_requests(now);
                last_sweep = now;
            }
        }
        Ok(sent)
    }

    /// Writes a request into the datagram `index` of the batch. There must be a free slot.
    fn write_request(&mut self, index: usize, request: Request, now: Instant) {
        let Some(number) = self.free.pop() else {
            return;
        };
        let slot = &mut self.slots[usize::from(number)];
        slot.sequence = slot.sequence.wrapping_add(1);
        slot.in_flight = Some((request, now));
        let transaction = u32::from(slot.sequence) << 16 | u32::from(number);
        let datagram = &mut self.outgoing[index];
        datagram.remote = self.plan.to;
        let out = &mut datagram.bytes;
        let (length, source) = match request {
            Request::Connect { address } => {
                let source = Population::address(address);
                (request::udp_connect(out, transaction), source)
            }
            Request::Announce { peer } => {
                let id = self.ids[self.population.address_index_of(peer) as usize];
                let peer = self.population.peer(peer);
                let numwant = self.plan.numwant;
                let length = request::udp_announce(out, id, transaction, &peer, numwant);
                (length, peer.address)
            }
            Request::Scrape => {
                let address = self.rng.below(self.population.addresses());
                let id = self.ids[address as usize];
                let hashes = request::pick_torrents(self.population, &mut self.rng);
                let length = request::udp_scrape(out, id, transaction, &hashes);
                (length, Population::address(address))
            }
        };
        datagram.length = length;
        datagram.source = Some(source);
    }

    /// Checks the received datagram `index`, and frees its slot.
    fn handle_response(&mut self, index: usize, now: Instant) {
        let packet = self.incoming[index].payload();
        let transaction = response::udp_transaction(packet).unwrap_or(u32::MAX);
        let (sequence, number) = ((transaction >> 16) as u16, transaction as u16);
        let slot = self.slots.get_mut(usize::from(number));
        let Some(slot) = slot.filter(|slot| slot.sequence == sequence) else {
            self.tally.record_fault("unknown transaction id");
            return;
        };
        let Some((request, sent_at)) = slot.in_flight.take() else {
            self.tally.record_fault("duplicate response");
            return;
        };
        self.free.push(number);
        let checked = match request {
            Request::Connect { address } => response::udp_connection_id(packet).map(|id| {
                self.ids[address as usize] = id;
                0
            }),
            Request::Announce { .. } => response::udp_announce(packet),
            Request::Scrape => response::udp_scrape(packet),
        };
        self.tally
            .record_response(checked, packet.len(), now - sent_at);
    }

    /// Counts each request that has timed out as lost, and frees its slot.
    fn expire_requests(&mut self, now: Instant) {
        for (number, slot) in self.slots.iter_mut().enumerate() {
            let lost = slot.in_flight.take_if(|(_, at)| now - *at > TIMEOUT);
            if lost.is_some() {
                self.free.push(number as u16);
                self.tally.record_fault("lost");
            }
        }
    }
}
