//! The destination of the lines: syslog or standard error.

use std::io::{self, ErrorKind, IsTerminal};
use std::path::Path;
use std::thread;
use std::time::Duration;

use super::line::compose;
use super::settings::{Level, Settings, Target};
use super::stderr::{Prefix, Stderr, duplicate_stderr, stderr_is_journal};
use super::syslog::Syslog;

/// Pause between two attempts to deliver a line.
const RETRY_INTERVAL: Duration = Duration::from_millis(5);

/// A receiver of lines. `write` writes one line completely or not at all, and never waits.
pub(super) enum Sink {
    Syslog(Syslog),
    Stderr(Stderr),
    /// Standard error could not be duplicated: no file descriptor was available.
    Nowhere,
}

impl Sink {
    pub(super) fn open(settings: &Settings) -> io::Result<Self> {
        let to_stderr = match settings.target {
            Target::Stderr => true,
            Target::Syslog => false,
            Target::Auto => {
                io::stderr().is_terminal()
                    || stderr_is_journal(&duplicate_stderr()?)
                    || settings.socket.symlink_metadata().is_err()
            }
        };
        if to_stderr {
            return Self::open_stderr();
        }
        let syslog = Syslog::open(&settings.socket, settings.facility)?;
        if let Err(reason) = syslog.socket.connect(&syslog.path) {
            let warning = compose(
                "cannot reach the syslog socket; dropping log messages until it is available",
                &[("path", &syslog.path.display()), ("reason", &reason)],
            );
            Self::open_stderr()?.deliver(Level::Warning, &warning, Duration::ZERO);
        }
        Ok(Self::Syslog(syslog))
    }

    pub(super) fn open_stderr() -> io::Result<Self> {
        let stderr = duplicate_stderr()?;
        let prefix = if stderr_is_journal(&stderr) {
            Prefix::Priority
        } else {
            Prefix::TimeAndLevel
        };
        Stderr::open(stderr, Path::new("/proc/self/fd/2"), prefix).map(Self::Stderr)
    }

    pub(super) fn write(&self, level: Level, text: &str) -> io::Result<()> {
        match self {
            Self::Syslog(syslog) => syslog.write(level, text),
            Self::Stderr(stderr) => stderr.write(level, text),
            Self::Nowhere => Err(ErrorKind::NotConnected.into()),
        }
    }

    /// Writes a line and returns whether that succeeded. If the receiver exists but is full, retries for up to `max_wait`.
    pub(super) fn deliver(&self, level: Level, text: &str, max_wait: Duration) -> bool {
        let mut waited = Duration::ZERO;
        loop {
            match self.write(level, text) {
                Err(error) if error.kind() == ErrorKind::WouldBlock && waited < max_wait => {
                    thread::sleep(RETRY_INTERVAL);
                    waited += RETRY_INTERVAL;
                }
                result => return result.is_ok(),
            }
        }
    }
}
