//! The state of a node in its cluster: an event for each change, and the node's part of the status report.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::cluster::download_counters::NodeId;
use crate::cluster::report::{ClusterReport, ClusterState, NodeReport};
use crate::counter::Counter;
use crate::lock::lock;
use crate::utc::UnixSecs;

/// Another node counts for this long after its last batch. Each node sends at least a heartbeat every ten seconds.
const NODE_TIMEOUT: Duration = Duration::from_secs(60);

/// Maximum number of other nodes to remember: anyone who may write to the store could invent any number.
const MAX_NODES: usize = 1024;

/// An event that the operator must know of, reported once for each change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ClusterEvent {
    CatchingUp,
    Joined {
        /// The time that catching up took.
        seconds: u64,
    },
    Disconnected {
        reason: String,
    },
    /// This node has refilled a store that was empty or incomplete.
    Refilled {
        peers: u64,
    },
    /// Another daemon runs with this node's id, from a copy of its state.
    DuplicateNodeId,
}

/// Receives each [`ClusterEvent`].
pub type EventHandler = Box<dyn Fn(&ClusterEvent) + Send + Sync>;

/// The thread that a connection belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Side {
    Writer,
    Reader,
}

/// The state of a thread's connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum LinkState {
    Down,
    CatchingUp,
    Synced,
}

/// The states of both connections.
#[derive(Clone, Copy)]
struct Links {
    writer: LinkState,
    reader: LinkState,
}

impl Links {
    const DOWN: Self = Self {
        writer: LinkState::Down,
        reader: LinkState::Down,
    };

    fn get(self, side: Side) -> LinkState {
        match side {
            Side::Writer => self.writer,
            Side::Reader => self.reader,
        }
    }

    fn state(self) -> ClusterState {
        match (self.writer, self.reader) {
            (LinkState::Synced, LinkState::Synced) => ClusterState::Joined,
            (LinkState::Down, _) | (_, LinkState::Down) => ClusterState::Disconnected,
            _ => ClusterState::CatchingUp,
        }
    }
}

/// Numbers since the start. `malformed` counts batches, `reconnects` connections, the others count updates.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) sent: Counter,
    pub(super) received: Counter,
    pub(super) applied: Counter,
    pub(super) stale: Counter,
    pub(super) rejected: Counter,
    pub(super) malformed: Counter,
    pub(super) reconnects: Counter,
}

/// The state of a node in its cluster, as operators see it.
pub(super) struct ClusterStatus {
    on_event: EventHandler,
    current: Mutex<CurrentState>,
    pub(super) tally: Tally,
    /// The age of the last entry read, when it was read, in milliseconds.
    lag_ms: AtomicU64,
}

/// The part of the status that changes, behind a lock.
struct CurrentState {
    links: Links,
    state: ClusterState,
    since: Instant,
    /// An event was reported. Before the first connection there is no change to report, only that the store is unreachable.
    reported: bool,
    /// The other nodes, and when their last batch was read.
    nodes: HashMap<NodeId, Instant>,
    duplicate_reported: bool,
    /// When the queue was last found to have dropped updates.
    dropped: Option<Instant>,
}

impl ClusterStatus {
    pub(super) fn new(on_event: EventHandler) -> Self {
        Self {
            on_event,
            current: Mutex::new(CurrentState {
                links: Links::DOWN,
                state: ClusterState::Disconnected,
                since: Instant::now(),
                reported: false,
                nodes: HashMap::new(),
                duplicate_reported: false,
                dropped: None,
            }),
            tally: Tally::default(),
            lag_ms: AtomicU64::new(0),
        }
    }

    /// Records that a connection was lost, or could not be established.
    pub(super) fn set_down(&self, side: Side, reason: &dyn ToString) {
        self.set(side, LinkState::Down, &|| reason.to_string());
    }

    /// Records that a connection works and is catching up.
    pub(super) fn set_catching_up(&self, side: Side) {
        self.set(side, LinkState::CatchingUp, &String::new);
    }

    /// Records that a connection has caught up.
    pub(super) fn set_synced(&self, side: Side) {
        self.set(side, LinkState::Synced, &String::new);
    }

    pub(super) fn is_connected(&self, side: Side) -> bool {
        self.current().links.get(side) != LinkState::Down
    }

    fn set(&self, side: Side, link: LinkState, reason: &dyn Fn() -> String) {
        let mut current = self.current();
        match side {
            // The reader follows the writer: entries of a store that refuses writes may be old.
            Side::Writer if link == LinkState::Down => current.links = Links::DOWN,
            Side::Writer => current.links.writer = link,
            Side::Reader if current.links.writer == LinkState::Down => return,
            Side::Reader => current.links.reader = link,
        }
        let state = current.links.state();
        // An unreachable store is reported at the start as well, once.
        let first = !current.reported && link == LinkState::Down;
        if state == current.state && !first {
            return;
        }
        let event = match state {
            ClusterState::Disconnected => ClusterEvent::Disconnected { reason: reason() },
            ClusterState::CatchingUp => ClusterEvent::CatchingUp,
            ClusterState::Joined => ClusterEvent::Joined {
                seconds: current.since.elapsed().as_secs(),
            },
        };
        (current.state, current.since, current.reported) = (state, Instant::now(), true);
        // The lock is held so that events are reported in order.
        (self.on_event)(&event);
    }

    /// Reports that this node has refilled the store with `peers`.
    pub(super) fn report_refill(&self, peers: u64) {
        (self.on_event)(&ClusterEvent::Refilled { peers });
    }

    /// Records that a batch of another node was read.
    pub(super) fn record_node(&self, node: NodeId, at: Instant) {
        let nodes = &mut self.current().nodes;
        if nodes.len() >= MAX_NODES && !nodes.contains_key(&node) {
            nodes.retain(|_, last| at.saturating_duration_since(*last) < NODE_TIMEOUT);
            if nodes.len() >= MAX_NODES {
                return;
            }
        }
        nodes.insert(node, at);
    }

    /// Reports a duplicate node id, once.
    pub(super) fn report_duplicate_node_id(&self) {
        let mut current = self.current();
        if !std::mem::replace(&mut current.duplicate_reported, true) {
            (self.on_event)(&ClusterEvent::DuplicateNodeId);
        }
    }

    /// Records that the queue has dropped updates.
    pub(super) fn record_dropped(&self, at: Instant) {
        self.current().dropped = Some(at);
    }

    pub(super) fn set_lag(&self, ms: u64) {
        self.lag_ms.store(ms, Ordering::Relaxed);
    }

    /// Returns the node's part of the status report, without the queue's numbers. `unix` is the current time.
    pub(super) fn report(&self, own: NodeId, unix: UnixSecs) -> ClusterReport {
        let current = self.current();
        let ages = current.nodes.iter();
        let ages = ages.map(|(node, last)| (node, last.elapsed()));
        let mut nodes: Vec<_> = ages
            .filter(|(_, age)| *age < NODE_TIMEOUT)
            .map(|(node, age)| NodeReport {
                node: node.to_string(),
                last_seen: unix.saturating_sub(age.as_secs()),
            })
            .collect();
        nodes.sort_by(|a, b| a.node.cmp(&b.node));
        let tally = &self.tally;
        ClusterReport {
            state: current.state,
            state_since: unix.saturating_sub(current.since.elapsed().as_secs()),
            node: own.to_string(),
            nodes,
            lag_seconds: match current.state {
                ClusterState::Disconnected => current.since.elapsed().as_secs() as f64,
                _ => self.lag_ms.load(Ordering::Relaxed) as f64 / 1e3,
            },
            queue_length: 0,
            sent: tally.sent.get(),
            received: tally.received.get(),
            applied: tally.applied.get(),
            stale: tally.stale.get(),
            refused: tally.rejected.get(),
            malformed: tally.malformed.get(),
            dropped: 0,
            last_dropped: current
                .dropped
                .map(|at| unix.saturating_sub(at.elapsed().as_secs())),
            reconnects: tally.reconnects.get(),
        }
    }

    fn current(&self) -> MutexGuard<'_, CurrentState> {
        lock(&self.current)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn recorded() -> (ClusterStatus, Arc<Mutex<Vec<ClusterEvent>>>) {
        let events = Arc::new(Mutex::new(Vec::new()));
        let record = events.clone();
        let on_event: EventHandler =
            Box::new(move |event| record.lock().unwrap().push(event.clone()));
        (ClusterStatus::new(on_event), events)
    }

    fn disconnected(reason: &str) -> ClusterEvent {
        let reason = reason.to_owned();
        ClusterEvent::Disconnected { reason }
    }

    #[test]
    fn reports_each_change_of_state_once() {
        let (status, events) = recorded();
        for reason in ["refused", "refused", "timed out"] {
            status.set_down(Side::Writer, &reason);
            status.set_down(Side::Reader, &reason);
        }
        assert_eq!(*events.lock().unwrap(), [disconnected("refused")]);
        status.set_catching_up(Side::Writer);
        status.set_catching_up(Side::Reader);
        status.set_synced(Side::Reader);
        status.set_synced(Side::Writer);
        status.set_synced(Side::Writer);
        status.set_down(Side::Reader, &"closed");
        status.set_down(Side::Writer, &"closed too");
        let expected = [
            disconnected("refused"),
            ClusterEvent::CatchingUp,
            ClusterEvent::Joined { seconds: 0 },
            disconnected("closed"),
        ];
        assert_eq!(*events.lock().unwrap(), expected);
    }

    #[test]
    fn lists_nodes_of_the_last_minute_up_to_the_maximum() {
        let (status, events) = recorded();
        let now = Instant::now();
        status.record_node(NodeId(1), now - NODE_TIMEOUT);
        status.record_node(NodeId(2), now);
        let nodes = || status.report(NodeId(9), 1000).nodes;
        let second = NodeReport {
            node: "0000000000000002".to_owned(),
            last_seen: 1000,
        };
        assert_eq!(nodes(), [second]);
        (0..5000).for_each(|node| status.record_node(NodeId(node), now));
        assert_eq!(nodes().len(), MAX_NODES);
        status.report_duplicate_node_id();
        status.report_duplicate_node_id();
        assert_eq!(*events.lock().unwrap(), [ClusterEvent::DuplicateNodeId]);
    }
}
