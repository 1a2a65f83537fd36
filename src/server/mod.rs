//! Sockets: read, respond, write, count.
#![forbid(unsafe_code)]

/// How many connections there may be.
pub mod connections;

/// What has happened so far, in numbers.
pub mod counters;

/// HTTP/1 over TCP.
pub mod http;

/// A client's socket and pace.
mod stream;

use std::time::Instant;

use crate::tracker::Time;

/// Turns the process's monotonic clock into the core's time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// Time 0 is now.
    pub fn start() -> Self {
        Self {
            origin: Instant::now(),
        }
    }

    pub fn now(self) -> Time {
        self.at(Instant::now())
    }

    pub fn at(self, instant: Instant) -> Time {
        Time(instant.saturating_duration_since(self.origin).as_secs() as u32)
    }
}
