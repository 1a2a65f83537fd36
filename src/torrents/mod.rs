//! The torrents that are tracked: where they come from, and whether they have seeders.

/// Which torrents are tracked, according to files and lists. Pure.
pub mod catalog;

/// Detects changed files.
mod file_version;

/// The times at which torrents had seeders. Pure.
pub mod seed_health;

/// Checks regularly that published torrents have seeders, and logs changes.
pub mod seed_monitor;

/// Applies the watched directories and the lists to the catalog and the tracker.
pub mod sync;

/// Watches the torrent directories through inotify.
pub mod watcher;
