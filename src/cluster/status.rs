//! How a node stands in its cluster, told at each change, and the figures that operators are shown.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::cluster::download_counters::NodeId;
use crate::cluster::wire::Sender;
use crate::counter::Counter;
use crate::lock::lock;
use crate::status::report::{self as figures, ClusterState, Unix};

/// A node not heard of for so long is not counted. Each tells something every ten seconds.
const NODE_GONE: Duration = Duration::from_secs(60);

/// How many others are remembered: who may write to the engine could make up any number.
const MOST_NODES: usize = 1024;

/// What the operator is to know, once for each change of state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ClusterEvent {
    CatchingUp,
    Joined {
        seconds: u64,
    },
    Disconnected {
        reason: String,
    },
    /// The engine had been emptied, and holds what this node contains now.
    Refilled {
        peers: u64,
    },
    /// Another daemon is running with this node's id, from a copy of its state.
    DuplicateNodeId,
}

/// Receives each [`ClusterEvent`].
pub type EventHandler = Box<dyn Fn(&ClusterEvent) + Send + Sync>;

/// One of the two threads' connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Link {
    Down,
    /// Connected, but not level with the others.
    CatchingUp,
    Synced,
}

/// Which thread tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Side {
    Writer = 0,
    Reader = 1,
}

/// Changes, and for `malformed` batches, since the start.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) sent: Counter,
    pub(super) received: Counter,
    pub(super) applied: Counter,
    pub(super) older: Counter,
    pub(super) refused: Counter,
    pub(super) malformed: Counter,
    pub(super) reconnects: Counter,
}

pub(super) struct ClusterStatus {
    tell: EventHandler,
    now: Mutex<Now>,
    pub(super) tally: Tally,
    /// The time by which what was last read was late, in milliseconds.
    late_ms: AtomicU64,
}

struct Now {
    links: [Link; 2],
    state: ClusterState,
    since: Instant,
    /// Before the first connection there is nothing to have been lost.
    told: bool,
    /// Others, and when they were last heard of.
    nodes: HashMap<NodeId, Instant>,
    doubled: bool,
    /// When the queue was last seen to have been full.
    dropped: Option<Instant>,
}

impl ClusterStatus {
    pub(super) fn new(tell: EventHandler) -> Self {
        Self {
            tell,
            now: Mutex::new(Now {
                links: [Link::Down; 2],
                state: ClusterState::Lone,
                since: Instant::now(),
                told: false,
                nodes: HashMap::new(),
                doubled: false,
                dropped: None,
            }),
            tally: Tally::default(),
            late_ms: AtomicU64::new(0),
        }
    }

    pub(super) fn down(&self, of: Side, reason: &dyn ToString) {
        self.set(of, Link::Down, &|| reason.to_string());
    }

    pub(super) fn behind(&self, of: Side) {
        self.set(of, Link::CatchingUp, &String::new);
    }

    pub(super) fn set_synced(&self, of: Side) {
        self.set(of, Link::Synced, &String::new);
    }

    pub(super) fn is_up(&self, of: Side) -> bool {
        self.now().links[of as usize] != Link::Down
    }

    fn set(&self, of: Side, link: Link, reason: &dyn Fn() -> String) {
        let mut now = self.now();
        // The reader follows the writer: what it has from an engine that takes nothing may be old.
        match of {
            Side::Writer if link == Link::Down => now.links = [Link::Down; 2],
            Side::Reader if now.links[0] == Link::Down => return,
            _ => now.links[of as usize] = link,
        }
        let state = match now.links {
            [Link::Synced, Link::Synced] => ClusterState::Joined,
            links if links.contains(&Link::Down) => ClusterState::Lone,
            _ => ClusterState::CatchingUp,
        };
        // That it cannot be reached is told at the start as well, once.
        let first = !now.told && link == Link::Down;
        if state == now.state && !first {
            return;
        }
        let event = match state {
            ClusterState::Lone => ClusterEvent::Disconnected { reason: reason() },
            ClusterState::CatchingUp => ClusterEvent::CatchingUp,
            ClusterState::Joined => ClusterEvent::Joined {
                seconds: now.since.elapsed().as_secs(),
            },
        };
        (now.state, now.since, now.told) = (state, Instant::now(), true);
        // In order, so within the lock.
        (self.tell)(&event);
    }

    pub(super) fn refilled(&self, peers: u64) {
        (self.tell)(&ClusterEvent::Refilled { peers });
    }

    /// A batch of another node was read.
    pub(super) fn heard_of(&self, sender: Sender, at: Instant) {
        let nodes = &mut self.now().nodes;
        if nodes.len() >= MOST_NODES && !nodes.contains_key(&sender.node) {
            nodes.retain(|_, last| at.saturating_duration_since(*last) < NODE_GONE);
            if nodes.len() >= MOST_NODES {
                return;
            }
        }
        nodes.insert(sender.node, at);
    }

    pub(super) fn doubled(&self) {
        let mut now = self.now();
        if !std::mem::replace(&mut now.doubled, true) {
            (self.tell)(&ClusterEvent::DuplicateNodeId);
        }
    }

    pub(super) fn dropped(&self, at: Instant) {
        self.now().dropped = Some(at);
    }

    pub(super) fn late(&self, ms: u64) {
        self.late_ms.store(ms, Ordering::Relaxed);
    }

    pub(super) fn figures(&self, own: NodeId, unix: Unix) -> figures::Cluster {
        let now = self.now();
        let ages = now.nodes.iter().map(|(node, last)| (node, last.elapsed()));
        let mut nodes: Vec<_> = ages
            .filter(|(_, age)| *age < NODE_GONE)
            .map(|(node, age)| figures::Node {
                node: shown(*node),
                last_heard: unix.saturating_sub(age.as_secs()),
            })
            .collect();
        nodes.sort_by(|a, b| a.node.cmp(&b.node));
        let tally = &self.tally;
        figures::Cluster {
            state: now.state,
            state_since: unix.saturating_sub(now.since.elapsed().as_secs()),
            node: shown(own),
            nodes,
            lag_seconds: match now.state {
                ClusterState::Lone => now.since.elapsed().as_secs() as f64,
                _ => self.late_ms.load(Ordering::Relaxed) as f64 / 1e3,
            },
            queue_length: 0,
            sent: tally.sent.get(),
            received: tally.received.get(),
            applied: tally.applied.get(),
            older: tally.older.get(),
            refused: tally.refused.get(),
            malformed: tally.malformed.get(),
            dropped: 0,
            last_dropped: now
                .dropped
                .map(|at| unix.saturating_sub(at.elapsed().as_secs())),
            reconnects: tally.reconnects.get(),
        }
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        lock(&self.now)
    }
}

fn shown(node: NodeId) -> String {
    format!("{:016x}", node.0)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn told() -> (ClusterStatus, Arc<Mutex<Vec<ClusterEvent>>>) {
        let told = Arc::new(Mutex::new(Vec::new()));
        let events = told.clone();
        let tell: EventHandler = Box::new(move |event| events.lock().unwrap().push(event.clone()));
        (ClusterStatus::new(tell), told)
    }

    fn alone(reason: &str) -> ClusterEvent {
        let reason = reason.to_owned();
        ClusterEvent::Disconnected { reason }
    }

    #[test]
    fn each_change_of_state_is_told_once() {
        let (standing, told) = told();
        for reason in ["refused", "refused", "timed out"] {
            standing.down(Side::Writer, &reason);
            standing.down(Side::Reader, &reason);
        }
        assert_eq!(*told.lock().unwrap(), [alone("refused")]);
        standing.behind(Side::Writer);
        standing.behind(Side::Reader);
        standing.set_synced(Side::Reader);
        standing.set_synced(Side::Writer);
        standing.set_synced(Side::Writer);
        standing.down(Side::Reader, &"closed");
        standing.down(Side::Writer, &"closed too");
        let expected = [
            alone("refused"),
            ClusterEvent::CatchingUp,
            ClusterEvent::Joined { seconds: 0 },
            alone("closed"),
        ];
        assert_eq!(*told.lock().unwrap(), expected);
    }

    #[test]
    fn nodes_are_those_of_the_last_minute_and_only_so_many() {
        let (standing, told) = told();
        let sender = |node| Sender {
            node: NodeId(node),
            run: 1,
        };
        let now = Instant::now();
        standing.heard_of(sender(1), now - NODE_GONE);
        standing.heard_of(sender(2), now);
        let nodes = || standing.figures(NodeId(9), 1000).nodes;
        let two = figures::Node {
            node: "0000000000000002".to_owned(),
            last_heard: 1000,
        };
        assert_eq!(nodes(), [two]);
        (0..5000).for_each(|node| standing.heard_of(sender(node), now));
        assert_eq!(nodes().len(), MOST_NODES);
        standing.doubled();
        standing.doubled();
        assert_eq!(*told.lock().unwrap(), [ClusterEvent::DuplicateNodeId]);
    }
}
