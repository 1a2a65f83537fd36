//! The torrents that are tracked: where they come from, and whether they have seeders.

/// Which torrents are tracked, from files and lists. Pure.
pub mod catalog;

/// Since when a torrent has had a seeder. Pure.
pub mod seed_health;

/// Checks regularly that published torrents have seeders, and logs what changes.
pub mod seed_monitor;

/// Applies the watched directories and the lists to the catalog and the tracker.
pub mod sync;

/// The torrent directories, watched through inotify.
pub mod watcher;
