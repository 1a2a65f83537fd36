//! A run over HTTP: many connections at a time, with one request in flight on each.

use crate::population::{Population, Rng};
use crate::request::{self, Plan, RequestKind};
use crate::response;
use crate::system::{Epoll, connect_from, try_receive};
use crate::tally::Tally;
use std::io::{self, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// The run ends if nothing is received for this long. The requests in flight then count as faults.
const TIMEOUT: Duration = Duration::from_secs(5);

struct Connection {
    stream: TcpStream,
    /// Index of the source address.
    address: u32,
    /// Number of requests so far. A fill announces the peer of this number at the address.
    requests: u32,
    sent_at: Instant,
    received: Vec<u8>,
}

struct Run<'a> {
    plan: &'a Plan,
    population: &'a Population,
    rng: Rng,
    /// Number of requests that may still be sent.
    left: u64,
    next_address: u32,
    request: Vec<u8>,
    tally: Tally,
}

/// Runs the plan. Fails only if the server cannot be reached; bad responses count as faults.
pub fn run(plan: &Plan, population: &Population) -> io::Result<Tally> {
    let mut epoll = Epoll::new()?;
    let mut run = Run {
        plan,
        population,
        rng: Rng::new(plan.seed),
        left: plan.requests,
        next_address: 0,
        request: Vec::with_capacity(2048),
        tally: Tally::default(),
    };
    let started = Instant::now();
    let mut connections: Vec<Option<Connection>> = Vec::new();
    for token in 0..plan.window {
        connections.push(run.open(&epoll, token)?);
    }
    let mut in_flight = connections.iter().flatten().count();
    let mut last_received = started;
    while in_flight > 0 {
        // Poll without sleeping: the server must not pay for waking a client that in reality is on another host.
        let count = epoll.wait(Some(Duration::ZERO))?;
        for index in 0..count {
            let ready = epoll.ready(index);
            let token = ready.token as usize;
            let slot = &mut connections[token];
            let Some(connection) = slot else { continue };
            let Some(reusable) = run.receive(connection, ready.closed) else {
                continue;
            };
            if !(reusable && run.send_request(connection)) {
                *slot = None;
                *slot = run.open(&epoll, token)?;
                in_flight -= usize::from(slot.is_none());
            }
        }
        run.tally.record_iteration(count == 0);
        let now = Instant::now();
        if count > 0 {
            last_received = now;
        }
        if now - started >= plan.max_duration {
            run.left = 0;
        }
        if now - last_received > TIMEOUT {
            (0..in_flight).for_each(|_| run.tally.record_fault("no response"));
            break;
        }
    }
    Ok(run.tally)
}

impl Run<'_> {
    /// Opens a connection and sends a request. Returns `None` if no request is left to send.
    fn open(&mut self, epoll: &Epoll, token: usize) -> io::Result<Option<Connection>> {
        while self.left > 0 {
            let addresses = self.population.addresses();
            if self.plan.kind == RequestKind::Fill && self.next_address == addresses {
                break;
            }
            let address = if self.plan.close {
                self.rng.below(addresses)
            } else {
                self.next_address % addresses
            };
            self.next_address += 1;
            let stream = connect_from(Population::address(address), self.plan.to)?;
            epoll.add(&stream, token as u64)?;
            let mut connection = Connection {
                stream,
                address,
                requests: 0,
                sent_at: Instant::now(),
                received: Vec::new(),
            };
            if self.send_request(&mut connection) {
                return Ok(Some(connection));
            }
        }
        Ok(None)
    }

    /// Sends the next request on the connection. Returns false if no request is left, or if sending fails.
    fn send_request(&mut self, connection: &mut Connection) -> bool {
        let population = self.population;
        let peers_at_address = population.peers_at(connection.address);
        if self.left == 0 {
            return false;
        }
        let nth = match self.plan.kind {
            RequestKind::Fill if connection.requests == peers_at_address => return false,
            RequestKind::Fill => connection.requests,
            RequestKind::Announce | RequestKind::Scrape => self.rng.below(peers_at_address),
        };
        let close = self.plan.close;
        if self.plan.kind == RequestKind::Scrape {
            let hashes = request::pick_torrents(population, &mut self.rng);
            request::http_scrape(&mut self.request, &hashes, close);
        } else {
            let peer = population.peer(connection.address + nth * population.addresses());
            request::http_announce(&mut self.request, &peer, self.plan.numwant, close);
        }
        self.left -= 1;
        connection.requests += 1;
        connection.sent_at = Instant::now();
        let sent = connection.stream.write_all(&self.request).is_ok();
        if !sent {
            self.tally.record_fault("not sent");
        }
        sent
    }

    /// Receives bytes. Returns `None` until the response is complete, then whether the connection can be used again.
    fn receive(&mut self, connection: &mut Connection, closed: bool) -> Option<bool> {
        let mut bytes = [0; 4096];
        let length = match try_receive(&connection.stream, &mut bytes) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
            Err(_) => {
                self.tally.record_fault("reset");
                return Some(false);
            }
        };
        let received = &mut connection.received;
        received.extend_from_slice(&bytes[..length]);
        let closed = length == 0 || (closed && length < bytes.len());
        // After "Connection: close" the response is complete when the server has closed the connection.
        if self.plan.close && !closed {
            return None;
        }
        let body = match response::http_body(received) {
            Some(body) => body,
            None if closed => Err("truncated"),
            None => return None,
        };
        let checked = body.and_then(|body| match self.plan.kind {
            RequestKind::Scrape => response::http_scrape(body),
            RequestKind::Announce | RequestKind::Fill => response::http_announce(body),
        });
        self.tally
            .record_response(checked, received.len(), connection.sent_at.elapsed());
        received.clear();
        Some(!closed)
    }
}
