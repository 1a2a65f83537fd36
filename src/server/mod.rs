//! Sockets: read, respond, write, count.
#![forbid(unsafe_code)]

/// How many connections there may be.
pub mod connections;

/// What has happened so far, in numbers.
pub mod counters;

/// HTTP/1 over TCP.
pub mod http;

/// Who a request is from when a proxy hands it on.
pub mod proxy;

/// A client's socket and pace.
mod stream;

/// BEP 15 over UDP.
pub mod udp;

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::protocol::connection_id::UnixTime;
use crate::tracker::Time;

/// Turns the process's monotonic clock into the core's time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
    /// The core's time at the origin.
    origin_time: Time,
    /// What the system's clock says at the origin.
    origin_unix: UnixTime,
}

impl Clock {
    /// Time 0 is now.
    pub fn start() -> Self {
        Self::start_at(Time(0))
    }

    /// Goes on from a time of an earlier process, so that ages count across its end.
    pub fn start_at(time: Time) -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            origin: Instant::now(),
            origin_time: time,
            origin_unix: UnixTime(unix.map_or(0, |since| since.as_secs())),
        }
    }

    pub fn now(self) -> Time {
        self.at(Instant::now())
    }

    pub fn at(self, instant: Instant) -> Time {
        Time(
            self.origin_time
                .0
                .saturating_add(self.passed(instant) as u32),
        )
    }

    /// Goes on from the start's without steps, whatever becomes of the system's clock.
    pub fn unix_at(self, instant: Instant) -> UnixTime {
        UnixTime(self.origin_unix.0 + self.passed(instant))
    }

    /// Seconds since the origin.
    fn passed(self, instant: Instant) -> u64 {
        instant.saturating_duration_since(self.origin).as_secs()
    }
}
