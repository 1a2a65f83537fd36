use std::io;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, RwLock};
use std::time::{Duration, Instant};

use nix::unistd::{getpid, gettid};

use super::line::{Fields, compose};
use super::settings::{Addresses, Level, Settings};
use super::sink::Sink;
use crate::lock::{lock, read, write};

/// A receiver that takes a line now and then must not be fed on these reports alone.
const TELL_DROPPED_EVERY: Duration = Duration::from_secs(1);

static LOG: OnceLock<Log> = OnceLock::new();

pub(super) fn log() -> &'static Log {
    LOG.get_or_init(Log::early)
}

pub(super) struct Log {
    pub(super) level: AtomicU8,
    pub(super) addresses: AtomicU8,
    /// Locked only to take the `Arc` or to exchange it, never over a write.
    pub(super) sink: RwLock<Arc<Sink>>,
    /// What `sink` was opened for.
    opened: Mutex<Option<Settings>>,
    /// Lines dropped and not yet told.
    pub(super) dropped: AtomicUsize,
    pub(super) dropped_total: AtomicUsize,
    /// When dropped lines were last told of.
    pub(super) told: Mutex<Option<Instant>>,
}

impl Log {
    pub(super) fn early() -> Self {
        Self {
            level: AtomicU8::new(Level::Info as u8),
            addresses: AtomicU8::new(Addresses::Off as u8),
            sink: RwLock::new(Arc::new(Sink::open_stderr().unwrap_or(Sink::Nowhere))),
            opened: Mutex::new(None),
            dropped: AtomicUsize::new(0),
            dropped_total: AtomicUsize::new(0),
            told: Mutex::new(None),
        }
    }

    pub(super) fn apply(&self, settings: &Settings) -> io::Result<()> {
        let mut opened = lock(&self.opened);
        // Where lines go is kept if nothing else is asked for: without root, standard error may not open anew.
        if !opened
            .as_ref()
            .is_some_and(|before| before.same_place(settings))
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

    pub(super) fn write(&self, level: Level, sentence: &str, fields: Fields<'_>) {
        if !self.enabled(level) {
            return;
        }
        let sink = self.sink();
        // What was dropped comes first, so that the gap shows where it was.
        let open = self.tell_dropped(&sink, TELL_DROPPED_EVERY);
        if !open || !sink.deliver(level, &compose(sentence, fields), patience()) {
            self.dropped.fetch_add(1, Relaxed);
            self.dropped_total.fetch_add(1, Relaxed);
        }
    }

    /// False when that was due and could not be written: then another line can't either.
    pub(super) fn tell_dropped(&self, sink: &Sink, every: Duration) -> bool {
        if self.dropped.load(Relaxed) == 0 {
            return true;
        }
        // Taken: another thread is telling.
        let Ok(mut told) = self.told.try_lock() else {
            return true;
        };
        let now = Instant::now();
        if told.is_some_and(|told| now.saturating_duration_since(told) < every) {
            return true;
        }
        let dropped = self.dropped.swap(0, Relaxed);
        let report = compose("log lines dropped", &[("dropped", &dropped)]);
        if sink.deliver(Level::Warning, &report, patience()) {
            *told = Some(now);
            return true;
        }
        self.dropped.fetch_add(dropped, Relaxed);
        false
    }
}

/// A burst of the few lines that a start and a stop write outruns a receiver that lives: outside systemd the kernel queues
/// eleven datagrams. The main thread, which serves nobody, waits a moment for it. No other thread ever waits.
fn patience() -> Duration {
    match gettid() == getpid() {
        true => Duration::from_millis(100),
        false => Duration::ZERO,
    }
}
