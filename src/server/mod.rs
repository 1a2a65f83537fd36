//! Network servers for HTTP, UDP and the control socket: receive requests, respond and count.
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

/// State that the HTTP and UDP servers share. It is created before both and never replaced.
pub struct Shared {
    pub tracker: Arc<Tracker>,
    pub clock: Clock,
    pub counters: Arc<Counters>,
    /// Receives the changes of announces, for the other trackers of the cluster. `None` without a cluster.
    pub updates: Option<Arc<UpdateQueue>>,
}
