//! What has happened so far, in numbers: each thing counted once, in one place.

use std::net::IpAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::counter::{Counter, Histogram};
use crate::protocol::{http, udp};
use crate::tracker::{Announce, Refusal};

/// Describes each counter once: its meaning and its name, under which the log knows it as well.
macro_rules! counters {
    ($($(#[doc = $meaning:literal])* $name:ident,)+) => {
        /// Since the start of the process.
        #[derive(Default)]
        pub struct Counters {
            $($(#[doc = $meaning])* pub $name: Counter,)+
            /// How long requests took over HTTP: one in [`TIMED_ONE_IN`].
            pub http_request_duration: Histogram,
            /// And over UDP: each batch of packets is one, of its mean.
            pub udp_request_duration: Histogram,
            access_log: OnceLock<AccessLog>,
            log_access: AtomicBool,
        }

        impl Counters {
            /// Every counter by name, in order.
            pub fn all(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.get())),+]
            }
        }
    };
}

counters! {
    /// Announces and scrapes that were answered.
    http_announces,
    udp_announces,
    http_scrapes,
    udp_scrapes,
    /// Announces that were refused, by reason.
    unknown_torrents,
    denied_torrents,
    too_many_torrents,
    withdrawn_torrents,
    denied_addresses,
    rate_limited,
    /// Requests of the tracker's protocol that could not be read.
    malformed,
    /// Requests for other paths, or by other methods.
    unhandled_requests,
    connections,
    /// Connections closed unheard: too many in all, or from one network.
    connections_over_limit,
    /// Connections closed unheard: from a network that connects too often.
    connections_rate_limited,
    /// Connections closed unheard where only trusted proxies may come.
    untrusted_proxies,
    /// Connections closed because they did not admit_connection as the PROXY protocol has it.
    invalid_proxy_headers,
    /// Connections cut because a request, or its successor, took too long to come.
    connections_timed_out,
    /// Times that the system had no descriptor or memory for a connection.
    accept_errors,
    udp_connects,
    /// Requests with a forged or old connection id, whether they were told or not.
    udp_invalid_connection_ids,
    /// Other packets that got silence: no request at all, or from no client's address.
    udp_ignored,
    /// Packets that came faster than they were read, by the kernel's count.
    udp_dropped_by_kernel,
    /// Answers dropped since there was no room to send.
    udp_unsent,
    /// Packets whose answer had no way back.
    udp_unanswerable,
    /// Times that the system failed to receive.
    udp_receive_errors,
}

/// Of so many announces over HTTP one is timed.
const TIMED_ONE_IN: u64 = 16;

/// Writes a line for an announce somewhere; called by the workers, so it must not wait.
pub type AccessLog = Box<dyn Fn(&Seen<'_>) + Send + Sync>;

/// One announce, answered or refused, as an access log has it.
pub struct Seen<'a> {
    pub protocol: &'static str,
    pub from: IpAddr,
    /// What was announced, or why it was refused.
    pub announce: Result<&'a Announce, &'a Refusal>,
}

impl Counters {
    /// Answered announces, whatever they came over.
    pub fn announces(&self) -> u64 {
        self.http_announces.get() + self.udp_announces.get()
    }

    /// Announces and scrapes that were refused or could not be read.
    pub fn refusals(&self) -> u64 {
        let refusals = [
            &self.unknown_torrents,
            &self.denied_torrents,
            &self.too_many_torrents,
            &self.withdrawn_torrents,
            &self.denied_addresses,
            &self.rate_limited,
            &self.malformed,
        ];
        refusals.into_iter().map(Counter::get).sum()
    }

    /// Whether the next announce over HTTP is to be timed: to read the clock costs something too.
    pub fn times_http(&self) -> bool {
        self.http_announces.get() % TIMED_ONE_IN == 0
    }

    /// Where announces are told of, once they are: said once, at the start.
    pub fn set_access_log(&self, log: AccessLog) {
        // A second one would be a fault of the caller, and changes nothing.
        let _ = self.access_log.set(log);
    }

    /// Whether each announce is told of.
    pub fn log_access(&self, whether: bool) {
        self.log_access.store(whether, Ordering::Relaxed);
    }

    /// `from` is `None` where a proxy did not tell whom it asks for.
    pub fn count_http(&self, from: Option<IpAddr>, outcome: &http::Outcome) {
        match outcome {
            http::Outcome::Announced(announce, _) => {
                self.http_announces.add_one();
                self.tell("http", from, Ok(announce));
            }
            http::Outcome::Scraped => self.http_scrapes.add_one(),
            http::Outcome::Refused(refusal) => self.refused("http", from, refusal),
            http::Outcome::Invalid(_) => self.malformed.add_one(),
        }
    }

    pub fn count_udp(&self, from: IpAddr, outcome: &udp::Outcome) {
        match outcome {
            udp::Outcome::Connected => self.udp_connects.add_one(),
            udp::Outcome::Announced(announce, _) => {
                self.udp_announces.add_one();
                self.tell("udp", Some(from), Ok(announce));
            }
            udp::Outcome::Scraped => self.udp_scrapes.add_one(),
            udp::Outcome::Refused(refusal) => self.refused("udp", Some(from), refusal),
            udp::Outcome::Invalid(_) => self.malformed.add_one(),
            udp::Outcome::BadId | udp::Outcome::Silent(udp::Silence::BadId) => {
                self.udp_invalid_connection_ids.add_one();
            }
            udp::Outcome::Silent(_) => self.udp_ignored.add_one(),
        }
    }

    fn refused(&self, protocol: &'static str, from: Option<IpAddr>, refusal: &Refusal) {
        let counter = match refusal {
            Refusal::UnknownTorrent => &self.unknown_torrents,
            Refusal::DeniedTorrent => &self.denied_torrents,
            Refusal::TooManyTorrents => &self.too_many_torrents,
            Refusal::Withdrawn(_) => &self.withdrawn_torrents,
            Refusal::Address => &self.denied_addresses,
            Refusal::TooOften { .. } => &self.rate_limited,
        };
        counter.add_one();
        self.tell(protocol, from, Err(refusal));
    }

    fn tell(
        &self,
        protocol: &'static str,
        from: Option<IpAddr>,
        announce: Result<&Announce, &Refusal>,
    ) {
        if !self.log_access.load(Ordering::Relaxed) {
            return;
        }
        if let (Some(log), Some(from)) = (self.access_log.get(), from) {
            log(&Seen {
                protocol,
                from,
                announce,
            });
        }
    }
}
