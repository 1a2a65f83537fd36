//! Sends this node's updates to the store: a connection of the writer, which advances in steps.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::cluster::download_counters::DownloadCounter;
use crate::cluster::node::{ClusterNode, is_due};
use crate::cluster::queue::{PARTITIONS, QueuedUpdate, UpdateQueue, partition};
use crate::cluster::resync::{REPLICA_LAG_SECS, StoreState};
use crate::cluster::status::Side;
use crate::cluster::stream_store::{StoreError, StreamStore};
use crate::cluster::wire::{self, BatchSender, ReplicationRecord};
use crate::lock::lock;
use crate::tracker::dump::DumpCursor;
use crate::tracker::types::{Time, TimedUpdate};

/// The interval between two steps if no work is left. A longer interval delays the updates of other nodes. A shorter
/// interval makes smaller batches, and the store keeps every batch for a peer's lifetime.
pub(super) const TICK: Duration = Duration::from_millis(200);

/// Maximum number of records in a batch.
const MAX_BATCH_RECORDS: usize = 256;

/// Idle nodes append a heartbeat this often so that other nodes see them.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(10);

/// The interval between checks of the fill marker, to find out whether the store was emptied or replaced.
const MARKER_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The pause between two resends. Where updates come faster than the store accepts them, resending more often would not
/// help.
const RESEND_PAUSE: Duration = Duration::from_secs(10);

/// One connection of the writer.
pub struct StreamWriter<'n> {
    node: &'n ClusterNode,
    /// Updates that were taken from the queue and may not have reached the store.
    taken: [Vec<QueuedUpdate>; PARTITIONS],
    /// Batches to append next, each with its partition.
    batches: Vec<(usize, Vec<u8>)>,
    departures: SentDepartures,
    /// Time of the last successful step.
    last_success: Time,
    /// The counters were exchanged with the store on this connection.
    counters_exchanged: bool,
    marker_checked: Option<Instant>,
    last_append: Option<Instant>,
    resend: Option<Resend>,
    /// When the last resend ended.
    resend_ended: Option<Instant>,
}

/// A walk over all peers in memory, to send again those that other nodes may not know.
struct Resend {
    cursor: DumpCursor,
    /// Resend peers updated since this time; `None`: all peers, because the store was emptied.
    since: Option<Time>,
    /// Updates from memory that are not packed yet, by partition.
    pending: [Vec<TimedUpdate>; PARTITIONS],
    /// Number of updates packed so far.
    sent: u64,
}

impl Resend {
    fn new(since: Option<Time>) -> Self {
        Self {
            cursor: DumpCursor::default(),
            since,
            pending: Default::default(),
            sent: 0,
        }
    }

    fn is_refill(&self) -> bool {
        self.since.is_none()
    }
}

/// Departures that were sent a moment ago, and when. They must be sent again if a replica that lags behind takes over, and
/// the tracker's memory no longer holds them.
#[derive(Default)]
struct SentDepartures(VecDeque<(Time, QueuedUpdate)>);

impl SentDepartures {
    /// Adds the departures among `sent`, and drops those that are old or exceed `max`.
    fn record(&mut self, sent: &[QueuedUpdate], now: Time, max: usize) {
        let is_recent = |sent_at: Time| now.0.saturating_sub(sent_at.0) <= REPLICA_LAG_SECS;
        while self.0.front().is_some_and(|(at, _)| !is_recent(*at)) {
            self.0.pop_front();
        }
        let departures = sent.iter().filter(|update| update.update.class.is_none());
        self.0.extend(departures.map(|update| (now, *update)));
        let excess = self.0.len().saturating_sub(max);
        self.0.drain(..excess);
    }

    /// Moves all departures back into the queue.
    fn put_back(&mut self, queue: &UpdateQueue) {
        self.0
            .drain(..)
            .for_each(|(_, update)| queue.put_back(&update));
    }
}

impl<'n> StreamWriter<'n> {
    pub fn new(node: &'n ClusterNode, now: Time) -> Self {
        Self {
            node,
            taken: Default::default(),
            batches: Vec::new(),
            departures: SentDepartures::default(),
            last_success: now,
            counters_exchanged: false,
            marker_checked: None,
            last_append: None,
            resend: None,
            resend_ended: None,
        }
    }

    /// Returns whether the store has accepted anything on this connection.
    pub fn has_appended(&self) -> bool {
        self.last_append.is_some()
    }

    /// Sends the changes so far. Returns true if more work is waiting; otherwise the next step is due after `TICK`.
    ///
    /// # Errors
    /// When the connection is lost. Then [`StreamWriter::connection_lost`] must be called.
    pub fn step<S: StreamStore>(
        &mut self,
        store: &mut S,
        now: Time,
        at: Instant,
    ) -> Result<bool, StoreError> {
        let node = self.node;
        if !self.counters_exchanged {
            // Only the first connection of the process sets the time.
            let _ = node.first_contact_ms.compare_exchange(
                0,
                store.now_ms(),
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            self.exchange_counters(store)?;
            node.queue.set_store_lost(false);
            self.counters_exchanged = true;
        }
        if is_due(self.marker_checked, at, MARKER_CHECK_INTERVAL) {
            self.check_marker(store)?;
            self.marker_checked = Some(at);
        }
        self.pack_queue(store, now, at)?;
        self.append_step(store, at)?;
        for taken in &mut self.taken {
            self.departures.record(taken, now, node.queue.capacity());
            taken.clear();
        }
        self.last_success = now;
        self.resend_step(store, now, at)?;
        if lock(&node.resync).unsent_since().is_none() {
            node.status.set_synced(Side::Writer);
        }
        Ok(self.resend.is_some())
    }

    /// Handles the loss of the connection after a failed step: updates that may not have reached the store are put back
    /// into the queue, or count as unsent.
    pub fn connection_lost(self, reason: &dyn ToString) {
        let node = self.node;
        node.queue.set_store_lost(true);
        lock(&node.resync).connection_lost(self.last_success);
        // The queue accepts only departures now. All other updates can be read from memory later.
        let departures = self.departures.0.iter().map(|(_, update)| update);
        departures
            .chain(self.taken.iter().flatten())
            .for_each(|update| node.queue.put_back(update));
        node.status.set_down(Side::Writer, reason);
    }

    /// Packs the contents of the queue into batches.
    fn pack_queue<S: StreamStore>(
        &mut self,
        store: &mut S,
        now: Time,
        at: Instant,
    ) -> Result<(), StoreError> {
        let node = self.node;
        let own = node.own.node;
        let mut counted = Vec::new();
        for (info_hash, times) in node.queue.take_downloads() {
            let mut counters = lock(&node.counters);
            let counter = (0..times)
                .filter_map(|_| counters.count(info_hash, own))
                .last();
            drop(counters);
            counted.extend(counter);
            // A total that other nodes sent meanwhile may have replaced the tracker's own count.
            node.raise_downloads(&info_hash);
        }
        for (partition, taken) in self.taken.iter_mut().enumerate() {
            node.queue.take(partition, taken);
            // A peer that left while the store was lost may be back.
            let is_current = |update: &QueuedUpdate| {
                update.update.class.is_some() || !node.tracker.contains(&update.update)
            };
            taken.retain(is_current);
            for update in &*taken {
                // The torrent may be new to this tracker, or a total that other nodes sent meanwhile may have replaced the
                // tracker's own count.
                node.raise_downloads(&update.update.info_hash);
            }
            let records = taken.iter().map(|update| {
                ReplicationRecord::Peer(TimedUpdate {
                    update: update.update,
                    age_secs: now.0.saturating_sub(update.at.0),
                    redelivered: update.redelivered,
                })
            });
            pack(node.own, partition, records, &mut self.batches);
            node.status.tally.sent.add(taken.len() as u64);
        }
        if let Some(since) = node.queue.take_dropped_since() {
            lock(&node.resync).mark_unsent(since);
            node.status.record_dropped(at);
        }
        self.send_counters(store, &counted)
    }

    /// Appends the batches, or a heartbeat if one is due, and records that the store accepted them.
    fn append_step<S: StreamStore>(
        &mut self,
        store: &mut S,
        at: Instant,
    ) -> Result<(), StoreError> {
        let node = self.node;
        let requested = node.heartbeat_requested.swap(false, Ordering::Relaxed);
        if self.batches.is_empty()
            && (requested || is_due(self.last_append, at, HEARTBEAT_INTERVAL))
        {
            let mut batch = Vec::new();
            wire::write_header(node.own, &mut batch);
            self.batches.push((0, batch));
        }
        if self.batches.is_empty() {
            return Ok(());
        }
        self.append(store)?;
        // The append proves that the store works: a store that can be reached may still refuse writes.
        if self.last_append.is_none() {
            node.status.set_catching_up(Side::Writer);
            let before = node.connection_generation.fetch_add(1, Ordering::Relaxed);
            node.status.tally.reconnects.add(u64::from(before > 0));
        }
        self.last_append = Some(at);
        Ok(())
    }

    /// Writes counters to the store's table, and packs them for the streams: connected nodes read them from the streams,
    /// other nodes later from the table.
    fn send_counters<S: StreamStore>(
        &mut self,
        store: &mut S,
        counters: &[DownloadCounter],
    ) -> Result<(), StoreError> {
        let own = self.node.own;
        let key = |counter: &DownloadCounter| (counter.node, counter.info_hash);
        lock(&self.node.unacknowledged).extend(counters.iter().map(key));
        for counter in counters {
            let record = std::iter::once(ReplicationRecord::Counter(*counter));
            pack(
                own,
                partition(&counter.info_hash),
                record,
                &mut self.batches,
            );
        }
        store.write_counters(counters)
    }

    fn append<S: StreamStore>(&mut self, store: &mut S) -> Result<(), StoreError> {
        store.append(&self.batches)?;
        self.batches.clear();
        lock(&self.node.unacknowledged).clear();
        self.node.appends.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Applies the counters in the store's table, and sends those that the store lacks. This includes counters of other
    /// nodes, which may no longer exist.
    fn exchange_counters<S: StreamStore>(&mut self, store: &mut S) -> Result<(), StoreError> {
        let node = self.node;
        let mut stored = HashMap::new();
        store.read_counters(&mut |counter| {
            stored.insert((counter.node, counter.info_hash), counter.downloads);
            node.apply_counter(&counter);
        })?;
        let is_new = |counter: &DownloadCounter| {
            let stored = stored.get(&(counter.node, counter.info_hash));
            stored.is_none_or(|stored| counter.downloads > *stored)
                || lock(&node.unacknowledged).contains(&(counter.node, counter.info_hash))
        };
        let new: Vec<_> = lock(&node.counters).iter().filter(is_new).collect();
        self.send_counters(store, &new)
    }

    /// Checks whether the store was emptied or replaced, or was refilled by another node.
    fn check_marker<S: StreamStore>(&mut self, store: &mut S) -> Result<(), StoreError> {
        let node = self.node;
        if self.resend.as_ref().is_some_and(Resend::is_refill) {
            return store.extend_refill_lock(&node.own.node.to_string());
        }
        let marker = store.fill_marker()?;
        let marker = marker.and_then(|marker| marker.parse().ok());
        let state = lock(&node.resync).check_marker(store.now_ms(), marker, node.peer_count());
        match state {
            StoreState::Unchanged => return Ok(()),
            StoreState::Refilled => {}
            StoreState::NeedsRefill { outdated_ms }
                if self.may_resend() && store.try_lock_refill(&node.own.node.to_string())? =>
            {
                if let Some(ms) = outdated_ms {
                    store.trim_before(ms)?;
                }
                lock(&node.resync).start_full_resend();
                self.resend = Some(Resend::new(None));
            }
            StoreState::NeedsRefill { .. } => return Ok(()),
        }
        node.reread_all.store(true, Ordering::Release);
        self.departures.put_back(&node.queue);
        self.exchange_counters(store)
    }

    /// Returns whether peers may be sent from memory. Before the reader has caught up, memory may hold peers whose
    /// departure is still unread. Other nodes may have forgotten the departure, and would take such a peer to be back.
    fn may_resend(&self) -> bool {
        self.has_appended() && self.node.reader_caught_up()
    }

    /// Starts a resend if peers are unsent, and sends the next part of a resend that is running.
    fn resend_step<S: StreamStore>(
        &mut self,
        store: &mut S,
        now: Time,
        at: Instant,
    ) -> Result<(), StoreError> {
        let node = self.node;
        let may_start = self.resend.is_none() && self.may_resend();
        if may_start && is_due(self.resend_ended, at, RESEND_PAUSE) {
            let since = lock(&node.resync).start_resend();
            self.resend = since.map(|since| Resend::new(Some(since)));
        }
        let Some(resend) = &mut self.resend else {
            return Ok(());
        };
        let since_secs = match resend.since {
            Some(since) => now.0.saturating_sub(since.0),
            None => u32::MAX,
        };
        let mut updates = Vec::new();
        let more = node
            .tracker
            .dump_updates(now, since_secs, &mut resend.cursor, &mut updates);
        for update in updates {
            resend.pending[partition(&update.update.info_hash)].push(update);
        }
        for (partition, pending) in resend.pending.iter_mut().enumerate() {
            // Batches are full, except for the last of each stream.
            let ready = match more {
                true => pending.len() / MAX_BATCH_RECORDS * MAX_BATCH_RECORDS,
                false => pending.len(),
            };
            let records = pending.drain(..ready).map(ReplicationRecord::Peer);
            pack(node.own, partition, records, &mut self.batches);
            resend.sent += ready as u64;
            node.status.tally.sent.add(ready as u64);
        }
        if !self.batches.is_empty() {
            self.append(store)?;
        }
        if more {
            return Ok(());
        }
        if let Some(Resend {
            since: None, sent, ..
        }) = self.resend
        {
            let marker = lock(&node.resync).finish_refill(store.now_ms(), sent);
            store.finish_refill(&marker.to_string())?;
            node.status.report_refill(sent);
        }
        lock(&node.resync).finish_resend(now);
        (self.resend, self.resend_ended) = (None, Some(at));
        Ok(())
    }
}

/// Packs records into batches, and adds these to the batches that will be appended to a partition's stream.
fn pack(
    own: BatchSender,
    partition: usize,
    records: impl Iterator<Item = ReplicationRecord>,
    batches: &mut Vec<(usize, Vec<u8>)>,
) {
    let mut free_records = 0;
    let mut batch = Vec::new();
    for record in records {
        if free_records == 0 {
            if !batch.is_empty() {
                batches.push((partition, std::mem::take(&mut batch)));
            }
            wire::write_header(own, &mut batch);
            free_records = MAX_BATCH_RECORDS;
        }
        wire::write_record(&record, &mut batch);
        free_records -= 1;
    }
    if !batch.is_empty() {
        batches.push((partition, batch));
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use super::*;
    use crate::tracker::types::{InfoHash, PeerUpdate};

    #[test]
    fn keeps_a_sent_departure_for_the_replica_lag() {
        let departure = PeerUpdate {
            info_hash: InfoHash([1; 20]),
            address: [192, 0, 2, 1].into(),
            port: NonZeroU16::MIN,
            host: 0,
            class: None,
            completed: false,
        };
        // The departure waited in the queue for a long time before it was sent.
        let waited = QueuedUpdate {
            update: departure,
            at: Time(100),
            redelivered: false,
        };
        for (later, kept) in [(REPLICA_LAG_SECS, 1), (REPLICA_LAG_SECS + 1, 0)] {
            let (mut departures, queue) = (SentDepartures::default(), UpdateQueue::new(8));
            departures.record(&[waited], Time(1000), queue.capacity());
            departures.record(&[], Time(1000 + later), queue.capacity());
            departures.put_back(&queue);
            assert_eq!(queue.len(), kept, "{later}");
        }
    }
}
