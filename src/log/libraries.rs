//! Receives the messages that libraries log with the `log` crate.
//!
//! Each message becomes one line, bounded and escaped like any other: `library message library=rustls message="..."`.
//! The first part is constant, so no library can write a line that looks like an event of the daemon, to a fail2ban
//! filter for example.
//!
//! Libraries may log often, so the number of lines per minute is limited. Messages at level trace are ignored: mio, for
//! one, logs each socket there.
//!
//! A message cannot contain a client's address. Of the libraries that are built in, only rustls logs at other levels, and
//! the daemon uses it for the connection to the store of a cluster.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use ::log::{LevelFilter, Log, Metadata, Record};

use super::logger::logger;
use super::settings::Level;
use crate::lock::lock;

/// Interval for which lines are counted, and the maximum number of lines in it.
const INTERVAL: Duration = Duration::from_secs(60);
const MAX_LINES: u32 = 100;

static LIBRARIES: Libraries = Libraries {
    limit: Mutex::new(LineLimit {
        start: None,
        lines: 0,
        suppressed: 0,
    }),
};

/// Receives the messages of libraries from now on, and makes libraries skip those that this level does not write.
pub(super) fn receive_messages(level: Level) {
    // At a reload the receiver is already set, and this fails.
    let _ = ::log::set_logger(&LIBRARIES);
    ::log::set_max_level(match level {
        Level::Error => LevelFilter::Error,
        Level::Warning | Level::Notice | Level::Info => LevelFilter::Warn,
        Level::Debug => LevelFilter::Debug,
    });
}

struct Libraries {
    limit: Mutex<LineLimit>,
}

impl Log for Libraries {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        own_level(metadata.level()).is_some_and(|level| logger().enabled(level))
    }

    fn log(&self, record: &Record<'_>) {
        let Some(level) = own_level(record.level()).filter(|level| logger().enabled(*level)) else {
            return;
        };
        let Some(suppressed) = lock(&self.limit).admit(Instant::now()) else {
            return;
        };
        if suppressed > 0 {
            let fields = &[("messages", &suppressed as _)];
            logger().write(
                Level::Warning,
                "too many library messages; some are not logged",
                fields,
            );
        }
        let library = crate_name(record.target());
        let fields = &[("library", &library as _), ("message", record.args() as _)];
        logger().write(level, "library message", fields);
    }

    fn flush(&self) {}
}

/// Returns the level at which a library's message is written; `None` if it is ignored.
fn own_level(level: ::log::Level) -> Option<Level> {
    match level {
        ::log::Level::Error => Some(Level::Error),
        ::log::Level::Warn => Some(Level::Warning),
        ::log::Level::Info | ::log::Level::Debug => Some(Level::Debug),
        ::log::Level::Trace => None,
    }
}

/// Returns the name of the crate: the target of a message is the path of its module, unless the library sets another.
fn crate_name(target: &str) -> &str {
    target.split("::").next().unwrap_or(target)
}

/// Limits the number of lines in an interval.
struct LineLimit {
    start: Option<Instant>,
    lines: u32,
    /// Number of messages that were not written and are not reported yet.
    suppressed: u64,
}

impl LineLimit {
    /// Counts a message. Returns `None` if it must not be written, and otherwise the number of earlier messages that
    /// were not.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        let is_over = |start| now.saturating_duration_since(start) >= INTERVAL;
        if self.start.is_none_or(is_over) {
            self.start = Some(now);
            self.lines = 0;
        }
        if self.lines == MAX_LINES {
            self.suppressed += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_levels_and_ignores_trace() {
        let levels = [
            (::log::Level::Error, Some(Level::Error)),
            (::log::Level::Warn, Some(Level::Warning)),
            (::log::Level::Info, Some(Level::Debug)),
            (::log::Level::Debug, Some(Level::Debug)),
            (::log::Level::Trace, None),
        ];
        for (theirs, ours) in levels {
            assert_eq!(own_level(theirs), ours);
        }
    }

    #[test]
    fn names_the_crate_of_a_message() {
        assert_eq!(crate_name("rustls::client::hs"), "rustls");
        assert_eq!(crate_name("redis"), "redis");
        assert_eq!(crate_name(""), "");
    }

    #[test]
    fn limits_lines_and_counts_suppressed_messages() {
        let start = Instant::now();
        let mut limit = LineLimit {
            start: None,
            lines: 0,
            suppressed: 0,
        };
        for _ in 0..MAX_LINES {
            assert_eq!(limit.admit(start), Some(0));
        }
        assert_eq!(limit.admit(start), None);
        assert_eq!(
            limit.admit(start + INTERVAL - Duration::from_millis(1)),
            None
        );
        assert_eq!(limit.admit(start + INTERVAL), Some(2));
        assert_eq!(limit.admit(start + INTERVAL), Some(0));
    }
}
