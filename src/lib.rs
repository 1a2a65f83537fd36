//! tbtt, the BitTorrent tracker. The house from the ground floor up; arrows only point down.

/// What a tracker knows: swarms, who is welcome, how often. Pure: no clock, no I/O.
pub mod tracker;

/// Bytes in, bytes out: HTTP and UDP as clients write them. Pure.
pub mod protocol;

/// `.torrent` files, parsed and built. Pure.
pub mod metainfo;

/// Sockets: read, respond, write, count.
pub mod server;

/// The torrents that are tracked: directories, lists, seeders.
pub mod torrents;

/// One event, one line, one write.
pub mod log;

/// The process: sockets, privileges, sandbox, signals. Knows nothing of torrents.
pub mod os;

/// Swarms across machines: through an engine, and never waiting for it.
pub mod cluster;

/// Swarms, counters and secrets across a restart.
pub mod snapshot;

/// Text to a checked configuration; `main` hands its parts down.
pub mod config;

/// What `main` puts together.
pub mod app;

/// The process's clock.
pub mod clock;

pub mod bytes;
pub mod counter;
pub mod lock;
pub mod utc;

/// What operators see.
pub mod status;
