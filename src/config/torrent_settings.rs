//! The settings of the torrent directories, the lists of torrents and the seed monitor, taken from the configuration.

use crate::torrents::{seed_monitor, sync, watcher};

use super::loader::LoadedConfig;
use super::schema::Config;

/// Seconds between rescans of the torrent directories. Rescans find changes that inotify does not report, such as those
/// on a network file system.
const RESCAN_SECS: u32 = 600;

impl LoadedConfig {
    /// Returns the settings of the lists of torrents.
    pub fn torrent_sync_settings(&self) -> sync::Settings {
        sync::Settings {
            removal_grace_secs: self.config.torrents.removal_grace,
            allow: self.lists.allow.clone(),
            deny: self.lists.deny.clone(),
            notices: self.lists.notices.clone(),
        }
    }
}

impl Config {
    /// Returns the settings of the torrent directories.
    pub fn watcher_settings(&self) -> watcher::Settings {
        watcher::Settings {
            directories: self.torrents.directories.clone(),
            rescan_secs: RESCAN_SECS,
        }
    }

    /// Returns the settings of the seed monitor.
    pub fn seed_monitor_settings(&self) -> seed_monitor::Settings {
        seed_monitor::Settings {
            threshold_secs: self.seedless_after(),
        }
    }
}
