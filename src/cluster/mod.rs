//! Several trackers, one swarm: how a change travels from an announce on one host to an answer on another.
//!
//! 1. A worker answers an announce from its own memory, as ever. What that changed (a [`PeerUpdate`](crate::tracker::PeerUpdate):
//!    joined, refreshed, completed, left) it puts into the [`UpdateQueue`], which never makes it wait; [`crate::server`] does
//!    both.
//! 2. Five times a second the [`Writer`] takes what has come, packs it into batches ([`changes`]), and appends these to
//!    streams in the engine, Valkey or Redis: one stream for each sixteenth of all info-hashes. The engine forgets what
//!    is older than a peer may be.
//! 3. The [`Reader`] of every other node waits for what comes next in the streams, and gives each record to
//!    [`Tracker::apply_update`], which checks it like any stranger's and lets nothing older undo what is newer.
//! 4. The next announce there is answered with the peer among the others.
//!
//! No node waits for another, or for the engine: without it each serves alone. What it owes the others when the engine is
//! back, or comes back empty, [`Resync`] decides. A stream holds a peer's whole lifetime, so who begins at its start soon
//! contains everybody. Downloads are counted by each node for itself, and what is shown is the sum ([`Downloads`]).
//!
//! [`Writer`] and [`Reader`] go in steps, are handed the time, and know the engine as a [`StreamStore`]: the simulation plays
//! them with one of its own. The threads that turn them are in [`threads`].
#![forbid(unsafe_code)]

mod checkpoint;
pub mod download_counters;
pub mod node;
pub mod queue;
pub mod reader;
#[cfg_attr(not(feature = "cluster"), path = "redis_disabled.rs")]
mod redis;
pub mod resync;
pub mod settings;
pub mod status;
pub mod stream_store;
pub mod threads;
pub mod url;
pub mod wire;
pub mod writer;
