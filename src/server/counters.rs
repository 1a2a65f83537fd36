//! What has happened so far, in numbers: each thing counted once, in one place.

use std::net::IpAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::protocol::{http, udp};
use crate::tracker::{Announce, Refusal};

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

/// Describes each counter once: its meaning and its name, under which the log knows it as well.
macro_rules! counters {
    ($($(#[doc = $meaning:literal])* $name:ident,)+) => {
        /// Since the start of the process.
        #[derive(Default)]
        pub struct Counters {
            $($(#[doc = $meaning])* pub $name: Counter,)+
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
    announces,
    scrapes,
    /// Announces that were refused, by reason.
    unknown_torrents,
    denied_torrents,
    withdrawn_torrents,
    unwelcome_addresses,
    too_often,
    /// Requests of the tracker's protocol that could not be read.
    malformed,
    /// Requests for other paths, or by other methods.
    foreign_requests,
    connections,
    /// Connections closed unheard: too many in all, or from one network.
    connections_over_limit,
    /// Connections closed unheard: from a network that connects too often.
    connections_too_often,
    /// Connections closed unheard where only trusted proxies may come.
    untrusted_proxies,
    /// Connections closed because they did not begin as the PROXY protocol has it.
    bad_preambles,
    /// Connections cut because a request, or its successor, took too long to come.
    connections_timed_out,
    /// Times that the system had no descriptor or memory for a connection.
    accept_errors,
    udp_connects,
    /// Requests with a forged or old connection id, whether they were told or not.
    udp_bad_ids,
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
            http::Outcome::Announced(announce) => self.answered("http", from, announce),
            http::Outcome::Scraped => self.scrapes.add_one(),
            http::Outcome::Refused(refusal) => self.refused("http", from, refusal),
            http::Outcome::Malformed(_) => self.malformed.add_one(),
        }
    }

    pub fn count_udp(&self, from: IpAddr, outcome: &udp::Outcome) {
        match outcome {
            udp::Outcome::Connected => self.udp_connects.add_one(),
            udp::Outcome::Announced(announce) => self.answered("udp", Some(from), announce),
            udp::Outcome::Scraped => self.scrapes.add_one(),
            udp::Outcome::Refused(refusal) => self.refused("udp", Some(from), refusal),
            udp::Outcome::Malformed(_) => self.malformed.add_one(),
            udp::Outcome::BadId | udp::Outcome::Silent(udp::Silence::BadId) => {
                self.udp_bad_ids.add_one();
            }
            udp::Outcome::Silent(_) => self.udp_ignored.add_one(),
        }
    }

    fn answered(&self, protocol: &'static str, from: Option<IpAddr>, announce: &Announce) {
        self.announces.add_one();
        self.tell(protocol, from, Ok(announce));
    }

    fn refused(&self, protocol: &'static str, from: Option<IpAddr>, refusal: &Refusal) {
        let counter = match refusal {
            Refusal::UnknownTorrent => &self.unknown_torrents,
            Refusal::DeniedTorrent => &self.denied_torrents,
            Refusal::Withdrawn(_) => &self.withdrawn_torrents,
            Refusal::Address => &self.unwelcome_addresses,
            Refusal::TooOften { .. } => &self.too_often,
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
