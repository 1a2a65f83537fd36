//! What has happened so far, in numbers: each thing counted once, in one place.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::protocol::http::Outcome;
use crate::tracker::Refusal;

/// A number that only grows.
#[derive(Default, Debug)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add_one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
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
    /// Connections cut because a request, or its successor, took too long to come.
    pub connections_timed_out: Counter,
    /// Times that the system had no descriptor or memory for a connection.
    pub accept_errors: Counter,
}

impl Counters {
    pub fn count_http(&self, outcome: Outcome) {
        match outcome {
            Outcome::Announced => &self.announces,
            Outcome::Scraped => &self.scrapes,
            Outcome::Refused(refusal) => self.refused(&refusal),
            Outcome::Malformed(_) => &self.malformed,
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
