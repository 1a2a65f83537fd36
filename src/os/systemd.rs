//! What the service manager is told (sd_notify(3)); nothing, where none listens.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use sd_notify::NotifyState;

/// The daemon answers, for the first time or again after a reload. `status` as in [`status`], in the same message.
///
/// # Errors
/// `NOTIFY_SOCKET` is set, but could not be written to.
pub fn ready(status: &str) -> io::Result<()> {
    send(&[NotifyState::Ready, NotifyState::Status(&one_line(status))])
}

/// One line for `systemctl status`: living figures, or why a reload failed.
///
/// # Errors
/// As [`ready`].
pub fn status(text: &str) -> io::Result<()> {
    send(&[NotifyState::Status(&one_line(text))])
}

/// The configuration is read again; [`ready`] must follow, even if that fails. Carries the time by which `Type=notify-reload` knows
/// that this answers its own request and no older one.
///
/// # Errors
/// As [`ready`].
pub fn reloading() -> io::Result<()> {
    // Not the crate's own helper, which Debian's version has not; and not /proc/uptime, which a sandbox hides.
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    let now = Duration::from(now).as_micros();
    send(&[
        NotifyState::Reloading,
        NotifyState::Custom(&format!("MONOTONIC_USEC={now}")),
    ])
}

/// The daemon takes no more work and is about to exit.
///
/// # Errors
/// As [`ready`].
pub fn stopping() -> io::Result<()> {
    send(&[NotifyState::Stopping])
}

/// The service manager's watchdog, if the unit asks for one (`WatchdogSec=`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Watchdog {
    /// After this long without a ping the service manager ends the process.
    pub timeout: Duration,
}

impl Watchdog {
    /// `None` when no watchdog waits for this process.
    pub fn from_environment() -> Option<Self> {
        let mut usec = 0;
        sd_notify::watchdog_enabled(false, &mut usec).then_some(Self {
            timeout: Duration::from_micros(usec),
        })
    }

    /// How often to ping: half the time-out, as sd_watchdog_enabled(3) advises.
    pub fn interval(self) -> Duration {
        self.timeout / 2
    }

    /// "All workers serve": to be said only when [`Heartbeats::all_alive`] says so.
    ///
    /// # Errors
    /// As [`ready`].
    pub fn ping(self) -> io::Result<()> {
        send(&[NotifyState::Watchdog])
    }
}

/// Which workers have shown that they still serve, so that one stuck worker is enough to stop the watchdog's pings.
#[derive(Debug)]
pub struct Heartbeats(Box<[AtomicBool]>);

impl Heartbeats {
    pub fn new(count: usize) -> Self {
        Self((0..count).map(|_| AtomicBool::new(false)).collect())
    }

    /// This worker serves: called from the loop that serves, by its number from 0, several times in each ping interval.
    pub fn beat(&self, worker: usize) {
        self.0[worker].store(true, Relaxed);
    }

    /// Whether every worker was beat since this was last true.
    pub fn all_alive(&self) -> bool {
        let all = self.0.iter().all(|beat| beat.load(Relaxed));
        if all {
            self.0.iter().for_each(|beat| beat.store(false, Relaxed));
        }
        all
    }
}

/// One message, one datagram. The variable stays set, since each message looks for it.
fn send(states: &[NotifyState<'_>]) -> io::Result<()> {
    sd_notify::notify(false, states)
}

/// A newline would begin another assignment.
fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_worker_unseen_is_enough() {
        let workers = Heartbeats::new(2);
        assert!(!workers.all_alive());
        workers.beat(0);
        workers.beat(0);
        assert!(!workers.all_alive());
        workers.beat(1);
        assert!(workers.all_alive());
        assert!(!workers.all_alive(), "and each must be beat anew");
    }

    #[test]
    fn a_status_stays_one_line() {
        assert_eq!(one_line("failed:\nREADY=1\0"), "failed: READY=1 ");
    }
}
