//! The parts of the running daemon, and how they are built from the configuration and the restored state.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use crate::app::access_log::new_counters;
use crate::app::cluster::ClusterSetup;
use crate::app::state::{RestoredState, StateSaver};
use crate::app::status_collector::StatusCollector;
use crate::app::step_timer::StepTimer;
use crate::app::{Exit, Failed, fail};
use crate::config::diagnostics::Errors;
use crate::config::loader::LoadedConfig;
use crate::config::schema::Config;
use crate::protocol::connection_id::Secret;
use crate::protocol::udp::Responder;
use crate::server::Shared;
use crate::server::http::connection_limits::ConnectionLimits;
use crate::server::http::server::HttpServer;
use crate::server::udp::UdpServer;
use crate::snapshot::Secrets;
use crate::status::endpoint::StatusEndpoint;
use crate::torrents::seed_monitor::SeedMonitor;
use crate::torrents::sync::TorrentSync;
use crate::torrents::watcher::TorrentWatcher;

/// The source of the configuration, at the start and at each reload.
#[derive(Clone, Debug)]
pub struct ConfigSource {
    pub file: PathBuf,
    /// A missing file counts as empty.
    pub may_be_missing: bool,
    /// Option `--open`: tracks any torrent, even if the file does not say so.
    pub open: bool,
}

impl ConfigSource {
    /// Reads the configuration.
    ///
    /// # Errors
    /// When the configuration has errors: all of them.
    pub fn load(&self) -> Result<LoadedConfig, Errors> {
        let mut loaded = match self.may_be_missing {
            true => Config::load_if_present(&self.file),
            false => Config::load(&self.file),
        }?;
        loaded.config.torrents.open |= self.open;
        Ok(loaded)
    }

    /// Returns whether this is a trial run, `tbtt --open`, for which no configuration is needed.
    pub fn is_trial(&self) -> bool {
        self.open && self.may_be_missing
    }
}

/// The parts of the running daemon.
pub struct AppContext {
    pub source: ConfigSource,
    /// The configuration at the start.
    pub initial_config: Config,
    pub shared: Arc<Shared>,
    pub http: Arc<HttpServer>,
    pub udp: Arc<UdpServer>,
    pub torrent_sync: Arc<TorrentSync>,
    pub seed_monitor: Arc<SeedMonitor>,
    pub status_collector: Arc<StatusCollector>,
    pub torrent_watcher: TorrentWatcher,
    pub state_saver: Arc<StateSaver>,
    pub secrets: Secrets,
    /// Locked during a reload.
    pub reloading: Mutex<()>,
}

impl AppContext {
    /// Builds all parts. Reads the torrent directories, then starts the cluster node.
    ///
    /// # Errors
    /// When the system refuses a thread or an inotify instance.
    pub fn build(
        source: ConfigSource,
        loaded: &LoadedConfig,
        state: &RestoredState,
        cluster: Option<ClusterSetup>,
    ) -> Result<Arc<Self>, Failed> {
        let mut timer = StepTimer::start("start step finished");
        let config = &loaded.config;
        let secrets = state.secrets.clone();
        let seed_monitor = SeedMonitor::new(
            config.seed_monitor_settings(),
            state.health.clone(),
            state.clock,
        );
        let shared = Arc::new(Shared {
            tracker: state.tracker.clone(),
            clock: state.clock,
            counters: Arc::new(new_counters(config)),
            updates: cluster.as_ref().map(|setup| setup.updates.clone()),
        });
        let responder = Responder::new(loaded.udp_settings(), &Secret(secrets.connection_id));
        let udp = UdpServer::new(shared.clone(), responder);
        let torrent_sync = TorrentSync::new(
            loaded.torrent_sync_settings(),
            shared.tracker.clone(),
            shared.clock,
        );
        timer.finished("apply the torrent lists");
        let torrent_watcher = torrent_sync
            .watch(config.watcher_settings())
            .map_err(cannot_watch)?;
        timer.finished("read the torrent directories");
        // The cluster node starts once the tracked torrents are known: it refuses updates for others.
        let cluster = cluster
            .map(|setup| setup.start(&state.cluster, &shared.tracker, shared.clock))
            .transpose()?;
        let state_saver = StateSaver::new(config, state, cluster);
        let settings = loaded.http_settings(secrets.seed);
        let connections = Arc::new(ConnectionLimits::new(
            settings.max_connections,
            settings.max_connections_per_network,
        ));
        let status_collector = StatusCollector::new(
            &shared,
            &connections,
            &torrent_sync,
            &seed_monitor,
            &state_saver,
        );
        let collector = status_collector.clone();
        let status = StatusEndpoint::start(Box::new(move || collector.report()))
            .map_err(|error| fail(Exit::Internal, "cannot start the status thread", &error))?;
        let http = HttpServer::new(shared.clone(), status, settings, connections);
        Ok(Arc::new(Self {
            source,
            initial_config: config.clone(),
            shared,
            http: Arc::new(http),
            udp: Arc::new(udp),
            torrent_sync,
            seed_monitor,
            status_collector,
            torrent_watcher,
            state_saver,
            secrets,
            reloading: Mutex::default(),
        }))
    }
}

fn cannot_watch(error: io::Error) -> Failed {
    fail(
        Exit::Internal,
        "cannot watch the torrent directories; is fs.inotify.max_user_instances too low?",
        &error,
    )
}
