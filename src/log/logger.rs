//! The state of the log: level, destination, and the count of dropped lines.

use std::io;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, RwLock};
use std::time::{Duration, Instant};

use nix::unistd::{getpid, gettid};

use super::line::{Fields, compose};
use super::settings::{Addresses, Level, Settings};
use super::sink::Sink;
use crate::lock::{lock, read, write};

/// Minimum time between two reports of dropped lines: a receiver that accepts only a few lines would otherwise receive
/// nothing but these reports.
const DROP_REPORT_INTERVAL: Duration = Duration::from_secs(1);

static LOGGER: OnceLock<Logger> = OnceLock::new();

/// Returns the logger of the process.
pub(super) fn logger() -> &'static Logger {
    LOGGER.get_or_init(Logger::early)
}

/// The logger of the process. Threads share it.
pub(super) struct Logger {
    pub(super) level: AtomicU8,
    pub(super) addresses: AtomicU8,
    /// Locked only to clone or replace the `Arc`, never during a write.
    pub(super) sink: RwLock<Arc<Sink>>,
    /// The settings that `sink` was opened with.
    opened: Mutex<Option<Settings>>,
    /// Number of dropped lines that are not reported yet.
    pub(super) dropped: AtomicUsize,
    /// Number of all dropped lines since the start.
    pub(super) dropped_total: AtomicUsize,
    /// Time of the last report of dropped lines.
    pub(super) last_report: Mutex<Option<Instant>>,
}

impl Logger {
    /// Creates the logger that is used before the configuration is known. It writes to standard error.
    pub(super) fn early() -> Self {
        Self {
            level: AtomicU8::new(Level::Info as u8),
            addresses: AtomicU8::new(Addresses::Off as u8),
            sink: RwLock::new(Arc::new(Sink::open_stderr().unwrap_or(Sink::Nowhere))),
            opened: Mutex::new(None),
            dropped: AtomicUsize::new(0),
            dropped_total: AtomicUsize::new(0),
            last_report: Mutex::new(None),
        }
    }

    /// Applies the settings, and opens the destination if it differs.
    ///
    /// # Errors
    /// When the destination cannot be opened. The settings are then unchanged.
    pub(super) fn apply(&self, settings: &Settings) -> io::Result<()> {
        let mut opened = lock(&self.opened);
        // An unchanged destination is not opened again: without root privileges, opening standard error again may fail.
        if !opened
            .as_ref()
            .is_some_and(|before| before.same_destination(settings))
        {
            let sink = Sink::open(settings)?;
            *write(&self.sink) = Arc::new(sink);
        }
        self.level.store(settings.level as u8, Relaxed);
        self.addresses.store(settings.addresses as u8, Relaxed);
        *opened = Some(settings.clone());
        Ok(())
    }

    pub(super) fn enabled(&self, level: Level) -> bool {
        level as u8 <= self.level.load(Relaxed)
    }

    pub(super) fn sink(&self) -> Arc<Sink> {
        Arc::clone(&read(&self.sink))
    }

    /// Writes a line, or counts it as dropped.
    pub(super) fn write(&self, level: Level, message: &str, fields: Fields<'_>) {
        if !self.enabled(level) {
            return;
        }
        let sink = self.sink();
        // Dropped lines are reported first, so that the report is where the lines are missing.
        let open = self.report_dropped(&sink, DROP_REPORT_INTERVAL);
        if !open || !sink.deliver(level, &compose(message, fields), max_wait()) {
            self.dropped.fetch_add(1, Relaxed);
            self.dropped_total.fetch_add(1, Relaxed);
        }
    }

    /// Reports dropped lines, unless the last report is less than `interval` ago. Returns false if a report was due and
    /// could not be written: the next line would be lost, too.
    pub(super) fn report_dropped(&self, sink: &Sink, interval: Duration) -> bool {
        if self.dropped.load(Relaxed) == 0 {
            return true;
        }
        // If the lock is taken, another thread is writing the report.
        let Ok(mut last_report) = self.last_report.try_lock() else {
            return true;
        };
        let now = Instant::now();
        if last_report.is_some_and(|last| now.saturating_duration_since(last) < interval) {
            return true;
        }
        let dropped = self.dropped.swap(0, Relaxed);
        let report = compose("log lines dropped", &[("dropped", &dropped)]);
        if sink.deliver(Level::Warning, &report, max_wait()) {
            *last_report = Some(now);
            return true;
        }
        self.dropped.fetch_add(dropped, Relaxed);
        false
    }
}

/// Returns how long the calling thread may wait for a receiver that is full.
///
/// Even the few lines of a start and a stop can be too many at once for a working receiver: outside systemd, the kernel
/// queues eleven datagrams. The main thread serves no client, so it waits for a moment. No other thread ever waits.
fn max_wait() -> Duration {
    match gettid() == getpid() {
        true => Duration::from_millis(100),
        false => Duration::ZERO,
    }
}
