//! Several trackers ("nodes") that share their swarms through a store, Valkey or Redis.
//!
//! An update travels from an announce on one node to a response of another:
//!
//! 1. A worker responds to an announce from its own memory, as without a cluster. The worker puts the update (a
//!    [`PeerUpdate`]: joined, refreshed, completed, left) into the [`UpdateQueue`], which never makes a worker wait. Both
//!    are done in [`crate::server`].
//! 2. Five times a second the [`StreamWriter`] takes the queued updates, packs them into batches ([`wire`]), and appends
//!    these to streams in the store. There are 16 streams, selected by the info-hash. The store drops entries that are
//!    older than a peer's lifetime.
//! 3. The [`StreamReader`] of every other node waits for new entries, and passes each record to [`Tracker::apply_update`].
//!    The tracker checks a record like an announce, and an older update never undoes a newer update.
//! 4. The next response to an announce for that torrent may contain the peer.
//!
//! No node waits for another node or for the store: without the store, each serves its own peers. [`Resync`] decides which
//! peers a node sends again when the store is back, or comes back empty. A stream holds a whole lifetime of a peer, so a
//! node that reads the streams from the start soon knows every peer. Each node counts downloads separately, and shows the
//! sum ([`DownloadCounters`]).
//!
//! [`StreamWriter`] and [`StreamReader`] advance in steps, with the time as a parameter and the store behind the trait
//! [`StreamStore`]. `tests/cluster_simulation.rs` runs them against a model of the store, [`threads`] against the real
//! store.
//!
//! [`PeerUpdate`]: crate::tracker::types::PeerUpdate
//! [`Tracker::apply_update`]: crate::tracker::Tracker::apply_update
//! [`UpdateQueue`]: crate::cluster::queue::UpdateQueue
//! [`StreamWriter`]: crate::cluster::writer::StreamWriter
//! [`StreamReader`]: crate::cluster::reader::StreamReader
//! [`Resync`]: crate::cluster::resync::Resync
//! [`DownloadCounters`]: crate::cluster::download_counters::DownloadCounters
//! [`StreamStore`]: crate::cluster::stream_store::StreamStore
//! [`wire`]: crate::cluster::wire
//! [`threads`]: crate::cluster::threads
#![forbid(unsafe_code)]

mod checkpoint;
pub mod download_counters;
pub mod node;
pub mod queue;
pub mod reader;
#[cfg(feature = "cluster")]
mod redis;
#[cfg(not(feature = "cluster"))]
mod redis_disabled;
pub mod report;
pub mod resync;
pub mod settings;
pub mod status;
pub mod stream_store;
pub mod threads;
pub mod url;
pub mod wire;
pub mod writer;
