//! Counters of events since the start of the process. Each event is counted once, in a single place.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::counter::{Counter, Histogram};
use crate::protocol::http::HttpOutcome;
use crate::protocol::udp::{Silence, UdpOutcome};
use crate::tracker::types::{Announce, Refusal};

/// Defines each counter once, with its help text. The name of the field is also the counter's name in the log, in the
/// status report and in the metrics.
macro_rules! counters {
    ($($(#[doc = $help:literal])+ $name:ident,)+) => {
        /// Counters of events since the start of the process, and the access log.
        #[derive(Default)]
        pub struct Counters {
            $($(#[doc = $help])+ pub $name: Counter,)+
            /// Durations of HTTP announces and scrapes, without the network. Only some requests are measured, see
            /// [`Self::measures_next_http_request`].
            pub http_request_duration: Histogram,
            /// Durations of UDP packets, without the network. Each batch of packets adds its mean duration per packet.
            pub udp_request_duration: Histogram,
            access_log: Option<AccessLog>,
            log_access: AtomicBool,
        }

        impl Counters {
            /// Returns the names and values of all counters, in the order of their definition.
            pub fn all(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.get())),+]
            }
        }
    };
}

counters! {
    /// Accepted announces over HTTP.
    http_announces,
    /// Accepted announces over UDP.
    udp_announces,
    /// Accepted scrapes over HTTP.
    http_scrapes,
    /// Accepted scrapes over UDP.
    udp_scrapes,
    /// Announces refused because the torrent is not tracked.
    unknown_torrents,
    /// Announces refused because the torrent is on a deny list.
    denied_torrents,
    /// Announces refused because the tracker has reached its torrent limit.
    too_many_torrents,
    /// Announces refused because the operator withdrew the torrent.
    withdrawn_torrents,
    /// Announces and scrapes refused because the client's address is not allowed.
    denied_addresses,
    /// Announces and scrapes refused because the client's network exceeds its rate limit.
    rate_limited,
    /// Malformed announces and scrapes.
    malformed,
    /// HTTP requests with another path or method than the tracker handles.
    unhandled_requests,
    /// Accepted connections over TCP and Unix sockets.
    connections,
    /// Connections closed before a request was read, because of a limit: in total or for the client's network.
    connections_over_limit,
    /// Connections closed before a request was read, because the client's network exceeds its connection rate limit.
    connections_rate_limited,
    /// Connections closed before a request was read, because only trusted proxies may use the listener.
    untrusted_proxies,
    /// Connections closed because they did not start with a valid PROXY protocol header.
    invalid_proxy_headers,
    /// Connections closed because a request, a response or the next request took too long.
    connections_timed_out,
    /// Failures to accept a connection, for lack of file descriptors or memory, or because of a network error.
    accept_errors,
    /// Accepted connects over UDP.
    udp_connects,
    /// Requests over UDP with a forged or expired connection id.
    udp_invalid_connection_ids,
    /// Other UDP packets that got no response: not a request, or from an address that no client can have.
    udp_ignored,
    /// UDP packets dropped by the kernel because its receive buffer was full.
    udp_dropped_by_kernel,
    /// UDP responses dropped because the kernel's send buffer was full.
    udp_unsent,
    /// UDP packets whose response could not be sent to the client's address.
    udp_unanswerable,
    /// Failures to receive UDP packets.
    udp_receive_errors,
}

/// Number of HTTP announces per measured announce.
const HTTP_MEASURE_INTERVAL: u64 = 16;

/// Writes an entry of the access log. Workers call it, so it must not block.
pub type AccessLog = Box<dyn Fn(&AccessLogEntry<'_>) + Send + Sync>;

/// An announce, accepted or refused, or a refused scrape.
pub struct AccessLogEntry<'a> {
    /// `http` or `udp`.
    pub protocol: &'static str,
    pub from: IpAddr,
    /// The announce, or the reason why the request was refused.
    pub announce: Result<&'a Announce, &'a Refusal>,
}

impl Counters {
    /// Creates counters with an access log, which is off until [`Self::log_access`] turns it on.
    pub fn new(access_log: AccessLog) -> Self {
        Self {
            access_log: Some(access_log),
            ..Self::default()
        }
    }

    /// Turns the access log on or off.
    pub fn log_access(&self, on: bool) {
        self.log_access.store(on, Ordering::Relaxed);
    }

    /// Returns the number of accepted announces over both protocols.
    pub fn announces(&self) -> u64 {
        self.http_announces.get() + self.udp_announces.get()
    }

    /// Returns the number of announces and scrapes that were refused or malformed.
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

    /// Returns whether to measure the duration of the next HTTP announce or scrape. Measuring all would be too costly,
    /// because it reads the clock.
    pub fn measures_next_http_request(&self) -> bool {
        self.http_announces.get() % HTTP_MEASURE_INTERVAL == 0
    }

    /// Counts and logs an HTTP announce or scrape. `from` is `None` if a proxy did not report the client's address.
    pub fn count_http(&self, from: Option<IpAddr>, outcome: &HttpOutcome) {
        match outcome {
            HttpOutcome::Announced(announce, _) => {
                self.http_announces.add_one();
                self.write_access_log("http", from, Ok(announce));
            }
            HttpOutcome::Scraped => self.http_scrapes.add_one(),
            HttpOutcome::Refused(refusal) => self.count_refusal("http", from, refusal),
            HttpOutcome::Invalid(_) => self.malformed.add_one(),
        }
    }

    /// Counts and logs a UDP packet.
    pub fn count_udp(&self, from: IpAddr, outcome: &UdpOutcome) {
        match outcome {
            UdpOutcome::Connected => self.udp_connects.add_one(),
            UdpOutcome::Announced(announce, _) => {
                self.udp_announces.add_one();
                self.write_access_log("udp", Some(from), Ok(announce));
            }
            UdpOutcome::Scraped => self.udp_scrapes.add_one(),
            UdpOutcome::Refused(refusal) => self.count_refusal("udp", Some(from), refusal),
            UdpOutcome::Invalid(_) => self.malformed.add_one(),
            UdpOutcome::InvalidConnectionId | UdpOutcome::Silent(Silence::InvalidConnectionId) => {
                self.udp_invalid_connection_ids.add_one();
            }
            UdpOutcome::Silent(_) => self.udp_ignored.add_one(),
        }
    }

    fn count_refusal(&self, protocol: &'static str, from: Option<IpAddr>, refusal: &Refusal) {
        let counter = match refusal {
            Refusal::UnknownTorrent => &self.unknown_torrents,
            Refusal::DeniedTorrent => &self.denied_torrents,
            Refusal::TooManyTorrents => &self.too_many_torrents,
            Refusal::Withdrawn(_) => &self.withdrawn_torrents,
            Refusal::Address => &self.denied_addresses,
            Refusal::TooOften { .. } => &self.rate_limited,
        };
        counter.add_one();
        self.write_access_log(protocol, from, Err(refusal));
    }

    fn write_access_log(
        &self,
        protocol: &'static str,
        from: Option<IpAddr>,
        announce: Result<&Announce, &Refusal>,
    ) {
        if !self.log_access.load(Ordering::Relaxed) {
            return;
        }
        if let (Some(write), Some(from)) = (&self.access_log, from) {
            write(&AccessLogEntry {
                protocol,
                from,
                announce,
            });
        }
    }
}
