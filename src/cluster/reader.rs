//! Applies the updates of other nodes: a connection of the reader, which advances in steps.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::cluster::node::{ClusterNode, is_due};
use crate::cluster::queue::PARTITIONS;
use crate::cluster::status::Side;
use crate::cluster::stream_store::{Entry, EntryId, StoreError, StreamStore};
use crate::cluster::wire::{self, ReplicationBatch, ReplicationRecord};
use crate::lock::lock;
use crate::tracker::replication::ApplyResult;
use crate::tracker::types::Time;

/// Maximum time for which a read waits for new entries.
const READ_WAIT: Duration = Duration::from_secs(1);

/// After a reconnect, reading starts this long before the last entry that was read: another store with another clock may
/// have taken over. Applying an update twice does no harm.
const REREAD_MS: u64 = 60_000;

/// The interval between two readings of all streams from the start for updates that were rejected. Other nodes may list a
/// torrent earlier than this node does.
const REREAD_INTERVAL: Duration = Duration::from_secs(15);

/// The writer's own batches must be read back within this time. Otherwise the reader is connected to a store that no longer
/// receives the nodes' batches.
const ECHO_TIMEOUT: Duration = Duration::from_secs(30);

/// A batch with this node's id, but of another run, shows that a second daemon has the same id only if the batch was
/// appended this long after the node first reached the store. The margin allows for a failover to a store with another
/// clock.
const EARLIER_RUN_MS: u64 = 60_000;

/// One connection of the reader.
pub struct StreamReader<'n> {
    node: &'n ClusterNode,
    /// The generation of the writer's connection that this reader belongs to, see [`ClusterNode::connection_generation`].
    generation: u64,
    /// The position in each stream from which to continue.
    positions: [EntryId; PARTITIONS],
    /// The highest id read from each stream. Entries up to this id are redelivered when they are read again.
    highest: [EntryId; PARTITIONS],
    /// The ends of the streams when this reader connected, or last started again from their start.
    ends: Option<[EntryId; PARTITIONS]>,
    /// The reader has read up to `ends`.
    caught_up: bool,
    /// When a batch of this node was last read back.
    last_echo: Instant,
    /// When the streams were last read again for rejected updates.
    last_reread: Option<Instant>,
}

/// The state of a reader after a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadStatus {
    /// The next step may follow.
    Continue,
    /// The writer has another connection, so the reader must connect again as well.
    Superseded,
    /// The writer's batches do not come back: this store no longer receives the nodes' batches.
    Stalled,
}

impl<'n> StreamReader<'n> {
    /// Returns `None` while the writer is not connected, or has not appended anything since the last reader was lost.
    pub fn new(node: &'n ClusterNode, at: Instant) -> Option<Self> {
        let generation = node.connection_generation.load(Ordering::Relaxed);
        let store_works = node.appends.load(Ordering::Relaxed)
            > node.appends_at_reader_loss.load(Ordering::Relaxed);
        let positions = *lock(&node.positions);
        (store_works && node.status.is_connected(Side::Writer)).then_some(Self {
            node,
            generation,
            positions,
            highest: positions,
            ends: None,
            caught_up: false,
            last_echo: at,
            last_reread: None,
        })
    }

    /// Reads the next entries, or waits a while for them, and applies them.
    ///
    /// # Errors
    /// When the connection is lost. Then [`StreamReader::connection_lost`] must be called, as after
    /// [`ReadStatus::Stalled`].
    pub fn step<S: StreamStore>(
        &mut self,
        store: &mut S,
        now: Time,
        at: Instant,
    ) -> Result<ReadStatus, StoreError> {
        let node = self.node;
        if node.connection_generation.load(Ordering::Relaxed) != self.generation {
            return Ok(ReadStatus::Superseded);
        }
        if self.ends.is_none() {
            self.start(store)?;
        }
        if node.reread_all.load(Ordering::Relaxed) {
            self.positions = Default::default();
            self.ends = Some(store.last_ids()?);
            self.caught_up = false;
            node.caught_up_generation.store(0, Ordering::Relaxed);
            node.reread_all.store(false, Ordering::Release);
        }
        if self.must_retry_rejected(at) {
            self.positions = Default::default();
        }
        let entries = store.read(&self.positions, READ_WAIT)?;
        let mut lag_ms = 0;
        for entry in &entries {
            self.positions[entry.partition] = entry.id;
            let highest = &mut self.highest[entry.partition];
            let redelivered = entry.id <= *highest;
            *highest = entry.id.max(*highest);
            lag_ms = store.now_ms().saturating_sub(entry.id.ms);
            if apply_batch(node, entry, redelivered, lag_ms, now, at) {
                self.last_echo = at;
            }
        }
        *lock(&node.positions) = self.positions;
        node.status.set_lag(lag_ms);
        if !self.caught_up {
            let ends = self.ends.iter().flatten();
            let is_reached = |(position, end): (&EntryId, &EntryId)| position >= end;
            self.caught_up = entries.is_empty() || self.positions.iter().zip(ends).all(is_reached);
            self.last_echo = at;
        }
        // If the writer has reconnected meanwhile, the next step ends this reader, and the next reader must catch up first.
        if self.caught_up && node.connection_generation.load(Ordering::Relaxed) == self.generation {
            node.caught_up_generation
                .store(self.generation, Ordering::Relaxed);
            node.status.set_synced(Side::Reader);
        }
        match at.saturating_duration_since(self.last_echo) > ECHO_TIMEOUT {
            true => Ok(ReadStatus::Stalled),
            false => Ok(ReadStatus::Continue),
        }
    }

    /// Returns whether to read all streams again because an update was rejected that may be accepted now: the nodes seldom
    /// list a new release at the same time.
    fn must_retry_rejected(&mut self, at: Instant) -> bool {
        let node = self.node;
        let listings = node.tracker.listings();
        if listings == node.listings.load(Ordering::Relaxed)
            || !is_due(self.last_reread, at, REREAD_INTERVAL)
        {
            return false;
        }
        node.listings.store(listings, Ordering::Relaxed);
        self.last_reread = Some(at);
        node.rejected_some.swap(false, Ordering::Relaxed)
    }

    /// Handles the loss of the connection after a step that failed or returned [`ReadStatus::Stalled`].
    pub fn connection_lost(self, reason: &dyn ToString) {
        let node = self.node;
        let appends = node.appends.load(Ordering::Relaxed);
        node.appends_at_reader_loss
            .store(appends, Ordering::Relaxed);
        node.heartbeat_requested.store(true, Ordering::Relaxed);
        node.status.set_down(Side::Reader, reason);
    }

    fn start<S: StreamStore>(&mut self, store: &mut S) -> Result<(), StoreError> {
        self.node.status.set_catching_up(Side::Reader);
        self.node.caught_up_generation.store(0, Ordering::Relaxed);
        let ends = store.last_ids()?;
        for (position, end) in self.positions.iter_mut().zip(ends) {
            *position = (*position).min(end);
            position.ms = position.ms.saturating_sub(REREAD_MS);
        }
        self.ends = Some(ends);
        Ok(())
    }
}

/// Applies a batch that was appended `age_ms` ago. Returns whether this run of the node sent the batch; then it is ignored.
fn apply_batch(
    node: &ClusterNode,
    entry: &Entry,
    redelivered: bool,
    age_ms: u64,
    now: Time,
    at: Instant,
) -> bool {
    let tally = &node.status.tally;
    let is_own = |sender| lock(&node.resync).is_own(sender);
    if wire::read_sender(&entry.batch).is_ok_and(is_own) {
        return true;
    }
    let Ok(batch) = ReplicationBatch::parse(&entry.batch) else {
        tally.malformed.add_one();
        return false;
    };
    if batch.sender.node != node.own.node {
        node.status.record_node(batch.sender.node, at);
    } else if entry.id.ms > node.first_contact_ms.load(Ordering::Relaxed) + EARLIER_RUN_MS {
        node.status.report_duplicate_node_id();
    }
    let passed_secs = u32::try_from(age_ms / 1000).unwrap_or(u32::MAX);
    let (mut received, mut applied, mut stale, mut rejected) = (0, 0, 0, 0);
    for record in batch.records() {
        match record {
            ReplicationRecord::Counter(counter) => node.apply_counter(&counter),
            ReplicationRecord::Peer(mut update) => {
                received += 1;
                // A redelivered update must not undo later changes: this node's own batches are not applied again.
                update.redelivered |= redelivered;
                match node.tracker.apply_update(now, passed_secs, &update) {
                    ApplyResult::Applied => {
                        applied += 1;
                        node.raise_downloads(&update.update.info_hash);
                    }
                    ApplyResult::Stale => stale += 1,
                    ApplyResult::Rejected => rejected += 1,
                }
            }
        }
    }
    tally.received.add(received);
    tally.applied.add(applied);
    tally.stale.add(stale);
    tally.rejected.add(rejected);
    if rejected > 0 {
        node.rejected_some.store(true, Ordering::Relaxed);
    }
    false
}
