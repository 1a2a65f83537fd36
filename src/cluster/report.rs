//! The cluster's part of the status report; see tbtt-status(7) for its JSON form.

use serde::{Deserialize, Serialize};

use crate::utc::UnixSecs;

/// The state of this tracker in its cluster. Counts are of changes since the start of the process.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug, Default)]
#[serde(default)]
pub struct ClusterReport {
    pub state: ClusterState,
    pub state_since: UnixSecs,
    /// The ID of this tracker: 16 hexadecimal digits.
    pub node: String,
    /// The other trackers that were seen in the last minute.
    pub nodes: Vec<NodeReport>,
    /// How old the last batch was when this tracker read it. While disconnected: for how long the tracker has been so.
    pub lag_seconds: f64,
    /// Changes that wait to be sent to the store.
    pub queue_length: u64,
    pub sent: u64,
    pub received: u64,
    /// Received changes that were applied.
    pub applied: u64,
    /// Received changes that were already known or came too late.
    pub stale: u64,
    /// Received changes that this tracker refused: it does not track the torrent, does not accept the address, or has
    /// enough peers of that network.
    pub refused: u64,
    /// Batches of changes that could not be read.
    pub malformed: u64,
    /// Changes for which the queue had no room. They are sent later, from memory.
    pub dropped: u64,
    /// When a change was last dropped.
    pub last_dropped: Option<UnixSecs>,
    /// Number of times that the store was reached again after it had been lost.
    pub reconnects: u64,
}

/// Another tracker of the cluster.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug, Default)]
#[serde(default)]
pub struct NodeReport {
    /// 16 hexadecimal digits.
    pub node: String,
    /// When the last batch of this tracker was read.
    pub last_seen: UnixSecs,
}

/// Whether this tracker and its cluster have each other's peers.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug, Default)]
#[serde(rename_all = "lowercase")]
pub enum ClusterState {
    /// The store cannot be reached.
    #[default]
    Disconnected,
    #[serde(rename = "catching up")]
    CatchingUp,
    Joined,
}

impl ClusterState {
    /// Returns the words used in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disconnected => "disconnected",
            Self::CatchingUp => "catching up",
            Self::Joined => "joined",
        }
    }
}
