//! The periodic tasks of the main thread, and the signals of the operator.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::app::context::AppContext;
use crate::app::reload::reload;
use crate::app::systemd_status::{
    keep_watchdog, status, update_systemd_status, warn_on_notify_error,
};
use crate::log::{self, Level};
use crate::os::signals::{Request, Requests};
use crate::os::systemd::{self, Heartbeats, Watchdog};
use crate::server::Shared;
use crate::torrents::sync::TorrentSync;

/// Interval between two lines with the counters.
const COUNTERS_INTERVAL: Duration = Duration::from_secs(300);

/// Interval between two lines with the increase of the counters, at level debug.
const INCREASE_INTERVAL: Duration = Duration::from_secs(60);

/// Notifies systemd that the daemon is ready, and runs the periodic tasks until a signal requests the shutdown.
pub async fn run(context: &AppContext, heartbeats: Arc<Heartbeats>, mut requests: Requests) {
    let shared = &context.shared;
    tokio::spawn(expire(shared.clone(), context.torrent_sync.clone()));
    tokio::spawn(update_systemd_status(shared.clone()));
    tokio::spawn(context.status_collector.clone().run());
    tokio::spawn(log_counters(shared.clone()));
    tokio::spawn(log_increase(shared.clone()));
    tokio::spawn(context.state_saver.clone().run_periodically());
    let torrent_sync = context.torrent_sync.clone();
    tokio::spawn(context.seed_monitor.clone().run(torrent_sync));
    if let Some(watchdog) = Watchdog::from_environment() {
        tokio::spawn(keep_watchdog(watchdog, heartbeats));
    }
    warn_on_notify_error(systemd::ready(&status(shared, 0)));
    loop {
        match requests.next().await {
            Request::Stop => return,
            // `reload` logs its errors.
            Request::Reload => drop(reload(context)),
            Request::Snapshot => {
                drop(tokio::spawn(
                    context.state_saver.clone().save_in_background(),
                ));
            }
        }
    }
}

/// Expires the peers of one slice each second, so that a round over all slices takes about a minute.
async fn expire(shared: Arc<Shared>, torrent_sync: Arc<TorrentSync>) {
    for slice in 0.. {
        sleep(Duration::from_secs(1)).await;
        shared.tracker.expire(shared.clock.now(), slice);
        torrent_sync.expire();
    }
}

/// Logs the counters, with the refusals by reason, and a warning if the tracker is full. Only totals are logged, so
/// that no client can fill the log with its requests.
async fn log_counters(shared: Arc<Shared>) {
    let mut before = Vec::new();
    loop {
        sleep(COUNTERS_INTERVAL).await;
        let counters = shared.counters.all();
        if counters != before {
            log_totals(&counters);
        }
        before = counters;
        if shared.tracker.is_full() {
            log::warning(
                "tracker is full: new peers are not stored, new torrents are refused; raise max_peers or max_torrents",
                &[],
            );
        }
    }
}

/// Logs the counters since the start. Counters that are zero are left out.
pub fn log_totals(counters: &[(&'static str, u64)]) {
    log::notice("counters since the start", &fields(counters));
}

/// Logs at level debug how much each counter has grown in the last minute: which errors occur now, by reason, and how
/// often.
async fn log_increase(shared: Arc<Shared>) {
    let mut before = shared.counters.all();
    loop {
        sleep(INCREASE_INTERVAL).await;
        let counters = shared.counters.all();
        if log::enabled(Level::Debug) {
            let increase = increase(&before, &counters);
            if !increase.is_empty() {
                log::debug("counters of the last minute", &fields(&increase));
            }
        }
        before = counters;
    }
}

/// Returns the counters that have grown, and by how much. Both lists have the same names in the same order.
fn increase(
    before: &[(&'static str, u64)],
    counters: &[(&'static str, u64)],
) -> Vec<(&'static str, u64)> {
    let pairs = before.iter().zip(counters);
    pairs
        .map(|((_, before), (name, now))| (*name, now - before))
        .filter(|(_, increase)| *increase > 0)
        .collect()
}

/// Returns the counters that are not zero as fields of a line.
fn fields<'a>(counters: &'a [(&'static str, u64)]) -> Vec<(&'a str, &'a dyn Display)> {
    let nonzero = counters.iter().filter(|(_, count)| *count > 0);
    nonzero.map(|(name, count)| (*name, count as _)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn increase_has_only_counters_that_grew() {
        let before = [("connections", 3), ("malformed", 0), ("udp_unsent", 7)];
        let counters = [("connections", 5), ("malformed", 0), ("udp_unsent", 7)];
        assert_eq!(increase(&before, &counters), [("connections", 2)]);
        assert_eq!(increase(&counters, &counters), []);
    }
}
