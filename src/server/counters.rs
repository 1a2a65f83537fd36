//! What has happened so far, in numbers: each thing counted once, in one place.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::protocol::{http, udp};
use crate::tracker::Refusal;

/// A number that only grows.
#[derive(Default, Debug)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add_one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub fn add(&self, number: u64) {
        // Most batches have nothing to add, and workers share the line.
        if number > 0 {
            self.0.fetch_add(number, Ordering::Relaxed);
        }
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Since the start of the process.
#[derive(Default, Debug)]
pub struct Counters {
    /// Announces and scrapes that were answered.
    pub announces: Counter,
    pub scrapes: Counter,
    /// Announces that were refused, by reason.
    pub unknown_torrents: Counter,
    pub denied_torrents: Counter,
    pub withdrawn_torrents: Counter,
    pub unwelcome_addresses: Counter,
    pub too_often: Counter,
    /// Requests of the tracker's protocol that could not be read.
    pub malformed: Counter,
    /// Requests for other paths, or by other methods.
    pub foreign_requests: Counter,
    pub connections: Counter,
    /// Connections closed unheard: too many in all, or from one network.
    pub connections_over_limit: Counter,
    /// Connections closed unheard: from a network that connects too often.
    pub connections_too_often: Counter,
    /// Connections closed unheard where only trusted proxies may come.
    pub untrusted_proxies: Counter,
    /// Connections closed because they did not begin as the PROXY protocol has it.
    pub bad_preambles: Counter,
    /// Connections cut because a request, or its successor, took too long to come.
    pub connections_timed_out: Counter,
    /// Times that the system had no descriptor or memory for a connection.
    pub accept_errors: Counter,
    pub udp_connects: Counter,
    /// Requests with a forged or old connection id, whether they were told or not.
    pub udp_bad_ids: Counter,
    /// Other packets that got silence: no request at all, or from no client's address.
    pub udp_ignored: Counter,
    /// Packets that came faster than they were read, by the kernel's count.
    pub udp_dropped_by_kernel: Counter,
    /// Answers dropped since there was no room to send.
    pub udp_unsent: Counter,
    /// Packets whose answer had no way back.
    pub udp_unanswerable: Counter,
    /// Times that the system failed to receive.
    pub udp_receive_errors: Counter,
}

impl Counters {
    pub fn count_http(&self, outcome: http::Outcome) {
        match outcome {
            http::Outcome::Announced => &self.announces,
            http::Outcome::Scraped => &self.scrapes,
            http::Outcome::Refused(refusal) => self.refused(&refusal),
            http::Outcome::Malformed(_) => &self.malformed,
        }
        .add_one();
    }

    pub fn count_udp(&self, outcome: udp::Outcome) {
        match outcome {
            udp::Outcome::Connected => &self.udp_connects,
            udp::Outcome::Announced => &self.announces,
            udp::Outcome::Scraped => &self.scrapes,
            udp::Outcome::Refused(refusal) => self.refused(&refusal),
            udp::Outcome::Malformed(_) => &self.malformed,
            udp::Outcome::BadId | udp::Outcome::Silent(udp::Silence::BadId) => &self.udp_bad_ids,
            udp::Outcome::Silent(_) => &self.udp_ignored,
        }
        .add_one();
    }

    fn refused(&self, refusal: &Refusal) -> &Counter {
        match refusal {
            Refusal::UnknownTorrent => &self.unknown_torrents,
            Refusal::DeniedTorrent => &self.denied_torrents,
            Refusal::Withdrawn(_) => &self.withdrawn_torrents,
            Refusal::Address => &self.unwelcome_addresses,
            Refusal::TooOften { .. } => &self.too_often,
        }
    }
}
