//! A tracker among others: what its writer and its reader share.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::cluster::checkpoint::{self, Checkpoint};
use crate::cluster::download_counters::{Counter, Downloads, NodeId};
use crate::cluster::queue::{PARTITIONS, UpdateQueue};
use crate::cluster::resync::{EntryId, Resync};
use crate::cluster::status::{ClusterStatus, EventHandler};
use crate::cluster::wire::Sender;
use crate::lock::lock;
use crate::status::report as figures;
use crate::tracker::{InfoHash, Tracker};

/// A tracker among others: what its writer and its reader share.
pub struct Node {
    pub(super) own: Sender,
    pub(super) updates: Arc<UpdateQueue>,
    pub(super) tracker: Arc<Tracker>,
    pub(super) standing: ClusterStatus,
    pub(super) member: Mutex<Resync>,
    pub(super) downloads: Mutex<Downloads>,
    /// Counters that the engine may have, but not in its streams yet: who stays connected would not learn of them.
    pub(super) unacknowledged: Mutex<HashSet<(NodeId, InfoHash)>>,
    /// How far each stream has been read.
    pub(super) read: Mutex<[EntryId; PARTITIONS]>,
    /// How often the writer has appended something.
    pub(super) appended: AtomicU64,
    /// The reader asks for something to be appended.
    pub(super) heartbeat_requested: AtomicBool,
    /// [`Node::appended`] when the reader was lost: it goes on once the writer has proven that the engine is there.
    pub(super) reader_lost: AtomicU64,
    /// How often the writer has reached an engine that takes something. The reader follows it: were they connected to two
    /// engines, one that was replaced might still answer, and nothing new come from it.
    pub(super) connected: AtomicU64,
    /// The engine is another: all of its streams are to be read.
    pub(super) reread_all: AtomicBool,
    /// Something was refused since the streams were last read from their start.
    pub(super) refused: AtomicBool,
    /// [`Tracker::listings`] when that was last looked at.
    pub(super) listings: AtomicU64,
    /// [`Node::connected`] when the reader had last read all that was there.
    pub(super) caught_up_generation: AtomicU64,
    /// The engine's time when this process first reached it, in milliseconds since 1970; 0 before.
    pub(super) began_ms: AtomicU64,
}

impl Node {
    /// `kept` is what [`Node::keep`] gave before a restart; `random` is unlike at any other start. The tracker shows what was
    /// counted so far, and serves nobody yet.
    pub fn new(
        kept: &[u8],
        random: [u64; 2],
        tracker: Arc<Tracker>,
        updates: Arc<UpdateQueue>,
        tell: EventHandler,
    ) -> Self {
        let kept = Checkpoint::read(kept);
        let own = Sender {
            node: kept.as_ref().map_or(NodeId(random[0]), |kept| kept.node),
            run: random[1] as u32,
        };
        let (member, mut downloads, read) = match kept {
            None => (Resync::new(own), Downloads::default(), Default::default()),
            Some(kept) => {
                let member = Resync::resume(own, kept.unsent_since, kept.epoch);
                (member, kept.downloads, kept.read)
            }
        };
        // It may have counted alone.
        tracker.for_each_torrent(|info_hash, counts| {
            downloads.adopt(*info_hash, counts.downloaded, own.node);
        });
        Self {
            own,
            updates,
            tracker,
            standing: ClusterStatus::new(tell),
            member: Mutex::new(member),
            downloads: Mutex::new(downloads),
            unacknowledged: Mutex::default(),
            read: Mutex::new(read),
            appended: AtomicU64::new(0),
            heartbeat_requested: AtomicBool::new(false),
            reader_lost: AtomicU64::new(0),
            connected: AtomicU64::new(0),
            reread_all: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            listings: AtomicU64::new(0),
            caught_up_generation: AtomicU64::new(0),
            began_ms: AtomicU64::new(0),
        }
    }

    /// For the snapshot, to go on from there after a restart. To be called before the tracker is written, which then holds
    /// all that has been read; the bytes are to be asked for after that.
    pub fn keep(&self) -> impl Fn() -> Vec<u8> + '_ {
        let read = *lock(&self.read);
        let (unsent_since, epoch) = {
            let member = lock(&self.member);
            (member.unsent_since(), member.epoch())
        };
        move || {
            let downloads = &lock(&self.downloads);
            checkpoint::bytes(self.own.node, unsent_since, epoch, &read, downloads)
        }
    }

    /// `unix` is the time now, as operators see it.
    pub fn figures(&self, unix: figures::Unix) -> figures::Cluster {
        figures::Cluster {
            queue_length: self.updates.len() as u64,
            dropped: self.updates.dropped.get(),
            ..self.standing.figures(self.own.node, unix)
        }
    }

    pub(super) fn peers(&self) -> u64 {
        let totals = self.tracker.totals();
        (totals.peers_v4 + totals.peers_v6) as u64
    }

    /// Takes a counter in, and shows the new total.
    pub(super) fn hear_counter(&self, counter: &Counter) {
        let total = lock(&self.downloads).apply_update(counter);
        if let Some(total) = total {
            self.tracker.show_downloads(&counter.info_hash, total);
        }
    }

    /// Has the tracker show what all have counted; it forgets what it shows with a torrent's last peer, if it is open.
    pub(super) fn show_downloads(&self, info_hash: &InfoHash) {
        let total = lock(&self.downloads).total(info_hash);
        if total > 0 {
            self.tracker.show_downloads(info_hash, total);
        }
    }

    /// Whether the reader has read all that was there when the writer had connected, or found another engine.
    pub(super) fn has_read(&self) -> bool {
        let connected = self.connected.load(Ordering::Relaxed);
        // In the order in which the reader changes them back.
        !self.reread_all.load(Ordering::Acquire)
            && self.caught_up_generation.load(Ordering::Relaxed) == connected
    }

    pub(super) fn name(&self) -> String {
        format!("{:016x}", self.own.node.0)
    }
}

pub(super) fn due(last: Option<Instant>, at: Instant, every: Duration) -> bool {
    last.is_none_or(|last| at.saturating_duration_since(last) >= every)
}
