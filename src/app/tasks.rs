//! What is done beside serving: sweeps, the status line, the watchdog, and what the operator's signals ask for.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::app::context::AppContext;
use crate::app::systemd_status::{
    keep_watchdog, status, update_systemd_status, warn_on_notify_error,
};
use crate::log;
use crate::os::signals::{Request, Requests};
use crate::os::systemd::{self, Watchdog};
use crate::server::Shared;
use crate::torrents::sync::TorrentSync;

/// How often what was counted is warn_on_notify_error, if anything was.
const COUNTED_INTERVAL: Duration = Duration::from_secs(300);

impl AppContext {
    /// Does what must be done now and then, and what signals ask for, until one asks to stop.
    pub async fn serve_operator(&self, workers: Arc<systemd::Heartbeats>, mut requests: Requests) {
        tokio::spawn(expire(self.shared.clone(), self.torrent_sync.clone()));
        tokio::spawn(update_systemd_status(self.shared.clone()));
        tokio::spawn(self.status_collector.clone().run());
        tokio::spawn(log_counters(self.shared.clone()));
        tokio::spawn(self.state_saver.clone().run_periodically());
        let (seed_monitor, torrent_sync) = (self.seed_monitor.clone(), self.torrent_sync.clone());
        tokio::spawn(seed_monitor.run(torrent_sync));
        if let Some(watchdog) = Watchdog::from_environment() {
            tokio::spawn(keep_watchdog(watchdog, workers));
        }
        warn_on_notify_error(systemd::ready(&status(&self.shared, 0)));
        loop {
            match requests.next().await {
                Request::Stop => return,
                // Told, if it is refused.
                Request::Reload => drop(self.reload()),
                Request::Snapshot => {
                    drop(tokio::spawn(self.state_saver.clone().save_in_background()))
                }
            }
        }
    }
}

/// Sweeps a slice each second, so that all peers are looked at once in about a minute.
async fn expire(shared: Arc<Shared>, torrent_sync: Arc<TorrentSync>) {
    for slice in 0.. {
        sleep(Duration::from_secs(1)).await;
        shared.tracker.expire(shared.clock.now(), slice);
        torrent_sync.expire();
    }
}

/// Tells what was counted, refusals by reason among it: totals, for no stranger may fill the log line by line.
async fn log_counters(shared: Arc<Shared>) {
    let mut before = Vec::new();
    loop {
        sleep(COUNTED_INTERVAL).await;
        let counted = shared.counters.all();
        if counted != before {
            log_counted(&counted);
        }
        before = counted;
        if shared.tracker.is_full() {
            let sentence = "full: further peers are not handed out, further torrents refused";
            log::warning(sentence, &[("see", &"[limits] max_peers, max_torrents")]);
        }
    }
}

/// What was counted since the start; what never happened is left out.
pub fn log_counted(counted: &[(&'static str, u64)]) {
    let happened = counted.iter().filter(|(_, count)| *count > 0);
    let fields: Vec<(&str, &dyn Display)> =
        happened.map(|(name, count)| (*name, count as _)).collect();
    log::notice("counted since the start", &fields);
}
