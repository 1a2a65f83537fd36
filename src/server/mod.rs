//! Sockets: read, respond, write, count.
#![forbid(unsafe_code)]

pub mod control;
pub mod counters;
pub mod http;
pub mod udp;

use std::sync::Arc;

use crate::clock::Clock;
use crate::cluster::queue::UpdateQueue;
use crate::server::counters::Counters;
use crate::tracker::Tracker;

/// What the HTTP and UDP servers share. Built before either of them, and never changed.
pub struct Shared {
    pub tracker: Arc<Tracker>,
    pub clock: Clock,
    pub counters: Arc<Counters>,
    /// Receives what announces change, for the other trackers of a cluster; `None` without a cluster.
    pub updates: Option<Arc<UpdateQueue>>,
}
