//! tbtt, the BitTorrent tracker.
//!
//! The modules are listed from the lowest to the highest layer, and each imports only modules above it in this list.
//! `docs/ARCHITECTURE.md` describes how they work together.

// Primitives.
pub mod bytes;
pub mod counter;
pub mod lock;
pub mod utc;

/// The log: one line and one write for each event.
pub mod log;

/// The Unix process: sockets, privileges, sandbox, signals, service manager. Knows nothing of torrents.
pub mod os;

/// The state of the tracker: swarms, access lists, rate limits. Pure: no clock, no I/O.
pub mod tracker;

/// The process's clock, which supplies the tracker's time.
pub mod clock;

/// HTTP and UDP of clients: bytes to request, response to bytes. Pure.
pub mod protocol;

/// `.torrent` files: parsing and building. Pure.
pub mod metainfo;

/// The state across a restart: swarms, counters and secrets in a file.
pub mod snapshot;

/// Several trackers that share their swarms through a store. Responses never wait for it.
pub mod cluster;

/// The torrents that are tracked: directories, lists, seeders.
pub mod torrents;

/// The status report for operators, and its forms: page, JSON, metrics.
pub mod status;

/// Sockets: reads requests, writes responses, counts.
pub mod server;

/// The configuration: parsing, validation, and the settings of each module.
pub mod config;

/// Wiring of the daemon: start-up, shutdown, periodic tasks.
pub mod app;
