//! Notifications to the service manager (sd_notify(3)). Without a service manager that listens, they do nothing.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use sd_notify::NotifyState;

/// Notifies that the daemon is ready, at the start and after each reload. `status` is sent in the same message, as by
/// [`status`].
///
/// # Errors
/// When `NOTIFY_SOCKET` is set, but cannot be written to.
pub fn ready(status: &str) -> io::Result<()> {
    send(&[NotifyState::Ready, NotifyState::Status(&one_line(status))])
}

/// Sets the status line of `systemctl status`: current numbers, or why a reload failed.
///
/// # Errors
/// The same as those of [`ready`].
pub fn status(text: &str) -> io::Result<()> {
    send(&[NotifyState::Status(&one_line(text))])
}

/// Notifies that a reload has begun. [`ready`] must follow, even if the reload fails. The message contains the time, by
/// which `Type=notify-reload` distinguishes the response to its request from the response to an older request.
///
/// # Errors
/// The same as those of [`ready`].
pub fn reloading() -> io::Result<()> {
    // The crate's helper is missing in Debian's version, and /proc/uptime is hidden in a sandbox.
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    let now = Duration::from(now).as_micros();
    send(&[
        NotifyState::Reloading,
        NotifyState::Custom(&format!("MONOTONIC_USEC={now}")),
    ])
}

/// Notifies that the daemon accepts no more requests and will exit.
///
/// # Errors
/// The same as those of [`ready`].
pub fn stopping() -> io::Result<()> {
    send(&[NotifyState::Stopping])
}

/// The service manager's watchdog, if the unit asks for one (`WatchdogSec=`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Watchdog {
    /// Time without a ping after which the service manager kills the process.
    pub timeout: Duration,
}

impl Watchdog {
    /// Returns `None` if the service manager expects no pings from this process.
    pub fn from_environment() -> Option<Self> {
        let mut usec = 0;
        sd_notify::watchdog_enabled(false, &mut usec).then_some(Self {
            timeout: Duration::from_micros(usec),
        })
    }

    /// Returns the interval between pings: half the time-out, as sd_watchdog_enabled(3) recommends.
    pub fn interval(self) -> Duration {
        self.timeout / 2
    }

    /// Sends a ping. Call this only if [`Heartbeats::all_alive`] returns true.
    ///
    /// # Errors
    /// The same as those of [`ready`].
    pub fn ping(self) -> io::Result<()> {
        send(&[NotifyState::Watchdog])
    }
}

/// The workers that have reported that they are alive. A single stuck worker is enough to stop the pings.
#[derive(Debug)]
pub struct Heartbeats(Box<[AtomicBool]>);

impl Heartbeats {
    pub fn new(count: usize) -> Self {
        Self((0..count).map(|_| AtomicBool::new(false)).collect())
    }

    /// Reports that a worker is alive. Workers are numbered from 0, and call this from their main loop several times in
    /// each ping interval.
    pub fn beat(&self, worker: usize) {
        self.0[worker].store(true, Relaxed);
    }

    /// Returns whether all workers have called [`Heartbeats::beat`] since this function last returned true.
    pub fn all_alive(&self) -> bool {
        let all = self.0.iter().all(|beat| beat.load(Relaxed));
        if all {
            self.0.iter().for_each(|beat| beat.store(false, Relaxed));
        }
        all
    }
}

/// Sends one datagram. `NOTIFY_SOCKET` stays set, because each message reads it.
fn send(states: &[NotifyState<'_>]) -> io::Result<()> {
    sd_notify::notify(false, states)
}

/// Replaces control characters: a newline would start another assignment.
fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requires_a_heartbeat_of_each_worker() {
        let heartbeats = Heartbeats::new(2);
        assert!(!heartbeats.all_alive());
        heartbeats.beat(0);
        heartbeats.beat(0);
        assert!(!heartbeats.all_alive());
        heartbeats.beat(1);
        assert!(heartbeats.all_alive());
        assert!(!heartbeats.all_alive(), "each worker must report again");
    }

    #[test]
    fn status_stays_one_line() {
        assert_eq!(one_line("failed:\nREADY=1\0"), "failed: READY=1 ");
    }
}
