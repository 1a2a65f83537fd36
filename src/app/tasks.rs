//! What is done beside serving: sweeps, the status line, the watchdog, and what the operator's signals ask for.

use std::fmt::Display;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::sleep;

use crate::config::{Config, Errors, LoadedConfig};
use crate::lock::lock;
use crate::log;
use crate::os::signals::{Request, Requests};
use crate::os::systemd::{self, Watchdog};
use crate::protocol::connection_id::Secret;
use crate::protocol::udp::Responder;
use crate::server::Shared;
use crate::server::counters::{AccessLogEntry, Counters};
use crate::server::http::server::HttpServer;
use crate::server::udp::UdpServer;
use crate::snapshot::Secrets;
use crate::torrents::watcher::TorrentWatcher;
use crate::tracker::Totals;

use crate::app::state::StateSaver;
use crate::app::status_collector::StatusCollector;
use crate::torrents::seed_monitor::SeedMonitor;
use crate::torrents::sync::TorrentSync;

const STATUS_INTERVAL: Duration = Duration::from_secs(10);

/// How often what was counted is warn_on_notify_error, if anything was.
const COUNTED_INTERVAL: Duration = Duration::from_secs(300);

/// Where the configuration comes from, now and at each reload.
#[derive(Clone, Debug)]
pub struct ConfigSource {
    pub file: PathBuf,
    /// A missing file counts as empty.
    pub may_be_missing: bool,
    /// Given on the command line: tracks any torrent whatever the file says.
    pub open: bool,
}

impl ConfigSource {
    pub fn load(&self) -> Result<LoadedConfig, Errors> {
        let mut loaded = match self.may_be_missing {
            true => Config::load_if_present(&self.file),
            false => Config::load(&self.file),
        }?;
        loaded.config.torrents.open |= self.open;
        Ok(loaded)
    }
}

/// All that a reload changes and a duty looks at.
pub struct AppContext {
    pub source: ConfigSource,
    /// As it was at the start.
    pub started: Config,
    pub shared: Arc<Shared>,
    pub http: Arc<HttpServer>,
    pub udp: Arc<UdpServer>,
    pub torrent_sync: Arc<TorrentSync>,
    pub seed_monitor: Arc<SeedMonitor>,
    pub status_collector: Arc<StatusCollector>,
    pub torrent_watcher: TorrentWatcher,
    pub state_saver: Arc<StateSaver>,
    pub secrets: Secrets,
    /// One reload at a time, whoever asks for it.
    pub reloading: Mutex<()>,
}

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

    /// Takes over what the configuration says now: all of it, or, if anything is wrong with it, nothing.
    pub fn reload(&self) -> Result<(), Errors> {
        let _alone = lock(&self.reloading);
        warn_on_notify_error(systemd::reloading());
        let loaded = match self.source.load() {
            Ok(loaded) => loaded,
            Err(faults) => {
                self.status_collector.record_reload(false);
                for fault in &faults.0 {
                    log::error("reload refused, nothing is changed", &[("fault", fault)]);
                }
                let first = faults
                    .0
                    .first()
                    .map(ToString::to_string)
                    .unwrap_or_default();
                warn_on_notify_error(systemd::ready(&format!("reload refused: {first}")));
                return Err(faults);
            }
        };
        if let Err(error) = log::init(&loaded.log_settings()) {
            log::error("the log stays as it was", &[("reason", &error)]);
        }
        for warning in loaded.warnings() {
            log::warning("unwise configuration", &[("at", &warning)]);
        }
        for key in self.started.only_at_start(&loaded.config) {
            log::warning(
                "changed, but takes effect at a restart only",
                &[("key", &key)],
            );
        }
        let seed = self.secrets.seed;
        self.shared.tracker.set(loaded.tracker_settings(seed));
        self.http.set(loaded.http_settings(seed));
        self.udp.set(Responder::new(
            loaded.udp_settings(),
            &Secret(self.secrets.connection_id),
        ));
        self.shared.counters.log_access(loaded.config.log.announces);
        self.state_saver.set(&loaded.config);
        self.seed_monitor.set(loaded.config.seed_monitor_settings());
        self.torrent_sync.set(loaded.torrent_sync_settings());
        self.torrent_watcher
            .rescan(loaded.config.watcher_settings());
        self.status_collector.record_reload(true);
        log::notice("reloaded", &[]);
        warn_on_notify_error(systemd::ready(&status(&self.shared, 0)));
        Ok(())
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

/// Keeps the line of `systemctl status` alive.
async fn update_systemd_status(shared: Arc<Shared>) {
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

fn status(shared: &Shared, announces_per_second: u64) -> String {
    let Totals { torrents, peers } = shared.tracker.totals();
    let (peers, peers_v6) = (peers.sum(), peers.v6);
    format!(
        "{torrents} torrents, {peers} peers ({peers_v6} IPv6), {announces_per_second} announces/s"
    )
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

/// Creates the counters, with an access log if the configuration asks for one.
pub fn new_counters(config: &Config) -> Counters {
    let counters = Counters::new(Box::new(log_announce));
    counters.log_access(config.log.announces);
    counters
}

/// Writes one line of the access log.
fn log_announce(entry: &AccessLogEntry<'_>) {
    let client = log::client(entry.from);
    let fields: log::Fields<'_> = &[("protocol", &entry.protocol), ("client", &client)];
    match entry.announce {
        Ok(announce) => {
            let event = format!("{:?}", announce.event).to_lowercase();
            let own: log::Fields<'_> = &[
                ("info_hash", &announce.info_hash),
                ("event", &event),
                ("complete", &announce.complete),
            ];
            log::info("announced", &[fields, own].concat());
        }
        Err(refusal) => log::info(
            "refused",
            &[fields, &[("reason", &refusal.reason())]].concat(),
        ),
    }
}

/// Pings while every worker still serves: one that is stuck makes the service manager restart the process.
async fn keep_watchdog(watchdog: Watchdog, workers: Arc<systemd::Heartbeats>) {
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
