//! Notifies systemd: the status line of `systemctl status`, and the watchdog.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::log;
use crate::os::systemd::{self, Heartbeats, Watchdog};
use crate::server::Shared;
use crate::tracker::types::Totals;

const STATUS_INTERVAL: Duration = Duration::from_secs(10);

/// Updates the status line periodically. Also reports dropped log lines, for when no other line follows.
pub(super) async fn update_systemd_status(shared: Arc<Shared>) {
    let mut before = 0;
    loop {
        sleep(STATUS_INTERVAL).await;
        let announces = shared.counters.announces();
        warn_on_notify_error(systemd::status(&status(
            &shared,
            (announces - before) / STATUS_INTERVAL.as_secs(),
        )));
        before = announces;
        log::report_dropped();
    }
}

/// Returns the status line.
pub(super) fn status(shared: &Shared, announces_per_second: u64) -> String {
    let Totals { torrents, peers } = shared.tracker.totals();
    let (peers, peers_v6) = (peers.sum(), peers.v6);
    format!(
        "{torrents} torrents, {peers} peers ({peers_v6} IPv6), {announces_per_second} announces/s"
    )
}

/// Pings the watchdog while every worker is alive. If a worker is stuck, the service manager restarts the process.
pub(super) async fn keep_watchdog(watchdog: Watchdog, heartbeats: Arc<Heartbeats>) {
    loop {
        sleep(watchdog.interval()).await;
        if heartbeats.all_alive() {
            warn_on_notify_error(watchdog.ping());
        }
    }
}

/// Logs that systemd could not be notified. Serving continues without it.
pub fn warn_on_notify_error(result: io::Result<()>) {
    if let Err(error) = result {
        log::warning("cannot notify the service manager", &[("reason", &error)]);
    }
}
