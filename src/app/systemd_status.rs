use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::log;
use crate::os::systemd::{self, Watchdog};
use crate::server::Shared;
use crate::tracker::Totals;

const STATUS_INTERVAL: Duration = Duration::from_secs(10);

/// Keeps the line of `systemctl status` alive.
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

pub(super) fn status(shared: &Shared, announces_per_second: u64) -> String {
    let Totals {
        torrents,
        peers_v4,
        peers_v6,
    } = shared.tracker.totals();
    let peers = peers_v4 + peers_v6;
    format!(
        "{torrents} torrents, {peers} peers ({peers_v6} IPv6), {announces_per_second} announces/s"
    )
}

/// Pings while every worker still serves: one that is stuck makes the service manager restart the process.
pub(super) async fn keep_watchdog(watchdog: Watchdog, workers: Arc<systemd::Heartbeats>) {
    loop {
        sleep(watchdog.interval()).await;
        if workers.all_alive() {
            warn_on_notify_error(watchdog.ping());
        }
    }
}

/// The service manager not listening is no reason to stop serving.
pub fn warn_on_notify_error(result: std::io::Result<()>) {
    if let Err(error) = result {
        log::warning("cannot tell the service manager", &[("reason", &error)]);
    }
}
