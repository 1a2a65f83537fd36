//! A tracker in a cluster: the state that its writer and its reader share.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::cluster::checkpoint::{self, Checkpoint};
use crate::cluster::download_counters::{DownloadCounter, DownloadCounters, NodeId};
use crate::cluster::queue::{PARTITIONS, UpdateQueue};
use crate::cluster::report::ClusterReport;
use crate::cluster::resync::Resync;
use crate::cluster::status::{ClusterStatus, EventHandler};
use crate::cluster::stream_store::EntryId;
use crate::cluster::wire::BatchSender;
use crate::lock::lock;
use crate::tracker::Tracker;
use crate::tracker::types::InfoHash;
use crate::utc::UnixSecs;

/// A tracker in a cluster.
pub struct ClusterNode {
    /// The id and the run of this node.
    pub(super) own: BatchSender,
    pub(super) queue: Arc<UpdateQueue>,
    pub(super) tracker: Arc<Tracker>,
    pub(super) status: ClusterStatus,
    pub(super) resync: Mutex<Resync>,
    pub(super) counters: Mutex<DownloadCounters>,
    /// Counters that may be in the store's table, but not in its streams yet. Nodes that stay connected read only the
    /// streams, so these counters are sent again after a reconnect.
    pub(super) unacknowledged: Mutex<HashSet<(NodeId, InfoHash)>>,
    /// The last entry applied from each stream.
    pub(super) positions: Mutex<[EntryId; PARTITIONS]>,
    /// Number of successful appends.
    pub(super) appends: AtomicU64,
    /// The reader asks the writer to append a heartbeat.
    pub(super) heartbeat_requested: AtomicBool,
    /// The value of `appends` when the reader was lost. The reader reconnects after the next append: it proves that the
    /// store works.
    pub(super) appends_at_reader_loss: AtomicU64,
    /// Number of connections of the writer on which the store accepted an append. The reader reconnects when this number
    /// changes. Otherwise the two could be connected to different stores, and the reader's store could have been replaced:
    /// it might still respond, but would receive nothing new.
    pub(super) connection_generation: AtomicU64,
    /// The store was emptied or replaced: the reader must read all streams from the start.
    pub(super) reread_all: AtomicBool,
    /// An update was rejected since the streams were last read from the start.
    pub(super) rejected_some: AtomicBool,
    /// [`Tracker::listings`] when it was last compared.
    pub(super) listings: AtomicU64,
    /// The value of `connection_generation` for which the reader has read everything.
    pub(super) caught_up_generation: AtomicU64,
    /// Store time when this process first reached the store, in milliseconds since 1970; 0 before.
    pub(super) first_contact_ms: AtomicU64,
}

impl ClusterNode {
    /// Creates a node that continues from `checkpoint`, which [`ClusterNode::checkpoint`] returned before a restart.
    /// `random` must differ at each start. The tracker must hold its restored download counts, and must not serve announces
    /// yet.
    pub fn new(
        checkpoint: &[u8],
        random: [u64; 2],
        tracker: Arc<Tracker>,
        queue: Arc<UpdateQueue>,
        on_event: EventHandler,
    ) -> Self {
        let checkpoint = Checkpoint::parse(checkpoint);
        let own = BatchSender {
            node: checkpoint
                .as_ref()
                .map_or(NodeId(random[0]), |checkpoint| checkpoint.node),
            run: random[1] as u32,
        };
        let (resync, mut counters, positions) = match checkpoint {
            None => (
                Resync::new(own),
                DownloadCounters::default(),
                Default::default(),
            ),
            Some(checkpoint) => {
                let resync = Resync::resume(own, checkpoint.unsent_since, checkpoint.epoch);
                (resync, checkpoint.counters, checkpoint.positions)
            }
        };
        // The tracker may have counted downloads outside of the cluster.
        tracker.for_each_torrent(|info_hash, counts| {
            counters.adopt(*info_hash, counts.downloaded, own.node);
        });
        Self {
            own,
            queue,
            tracker,
            status: ClusterStatus::new(on_event),
            resync: Mutex::new(resync),
            counters: Mutex::new(counters),
            unacknowledged: Mutex::default(),
            positions: Mutex::new(positions),
            appends: AtomicU64::new(0),
            heartbeat_requested: AtomicBool::new(false),
            appends_at_reader_loss: AtomicU64::new(0),
            connection_generation: AtomicU64::new(0),
            reread_all: AtomicBool::new(false),
            rejected_some: AtomicBool::new(false),
            listings: AtomicU64::new(0),
            caught_up_generation: AtomicU64::new(0),
            first_contact_ms: AtomicU64::new(0),
        }
    }

    /// Starts a checkpoint for the snapshot, from which the node continues after a restart.
    ///
    /// Call this method before the tracker is written, so that the tracker's part holds everything read up to the recorded
    /// positions. Call the returned function, which returns the bytes, after that.
    pub fn checkpoint(&self) -> impl Fn() -> Vec<u8> + '_ {
        let positions = *lock(&self.positions);
        let (unsent_since, epoch) = {
            let resync = lock(&self.resync);
            (resync.unsent_since(), resync.epoch())
        };
        move || {
            let counters = &lock(&self.counters);
            checkpoint::write(self.own.node, unsent_since, epoch, &positions, counters)
        }
    }

    /// Returns the node's part of the status report. `unix` is the current time.
    pub fn report(&self, unix: UnixSecs) -> ClusterReport {
        ClusterReport {
            queue_length: self.queue.len() as u64,
            dropped: self.queue.dropped.get(),
            ..self.status.report(self.own.node, unix)
        }
    }

    /// Returns the number of peers in the tracker.
    pub(super) fn peer_count(&self) -> u64 {
        let totals = self.tracker.totals();
        totals.peers.sum() as u64
    }

    /// Applies a counter, and makes the tracker show the new total.
    pub(super) fn apply_counter(&self, counter: &DownloadCounter) {
        let total = lock(&self.counters).apply(counter);
        if let Some(total) = total {
            self.tracker.raise_downloads(&counter.info_hash, total);
        }
    }

    /// Makes the tracker show the downloads that all nodes have counted. An open tracker forgets them with a torrent's last
    /// peer.
    pub(super) fn raise_downloads(&self, info_hash: &InfoHash) {
        let total = lock(&self.counters).total(info_hash);
        if total > 0 {
            self.tracker.raise_downloads(info_hash, total);
        }
    }

    /// Returns whether the reader has read everything that was in the store when the writer connected, or found the store
    /// emptied or replaced.
    pub(super) fn reader_caught_up(&self) -> bool {
        let generation = self.connection_generation.load(Ordering::Relaxed);
        // The reader resets `caught_up_generation` before it clears `reread_all`, so `reread_all` must be loaded first.
        !self.reread_all.load(Ordering::Acquire)
            && self.caught_up_generation.load(Ordering::Relaxed) == generation
    }
}

/// Returns whether something that happens once per `interval` is due; the first time it always is.
pub(super) fn is_due(last: Option<Instant>, at: Instant, interval: Duration) -> bool {
    last.is_none_or(|last| at.saturating_duration_since(last) >= interval)
}
