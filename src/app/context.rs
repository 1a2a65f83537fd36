use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use crate::app::state::StateSaver;
use crate::app::status_collector::StatusCollector;
use crate::config::{Config, Errors, LoadedConfig};
use crate::server::Shared;
use crate::server::http::server::HttpServer;
use crate::server::udp::UdpServer;
use crate::snapshot::Secrets;
use crate::torrents::seed_monitor::SeedMonitor;
use crate::torrents::sync::TorrentSync;
use crate::torrents::watcher::TorrentWatcher;

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
