//! One connection's writing, step by step.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::cluster::download_counters::Counter;
use crate::cluster::node::{Node, due};
use crate::cluster::queue::{PARTITIONS, UpdateQueue, Waiting, partition};
use crate::cluster::resync::{REPLICA_LAG_SECS, StoreState};
use crate::cluster::status::Side;
use crate::cluster::stream_store::StreamStore;
use crate::cluster::wire::{self, ReplicationRecord, Sender};
use crate::lock::lock;
use crate::tracker::{DumpCursor, Time, TimedUpdate};

/// How often what has changed is told. Longer, and others would learn of it later; shorter, and each batch would hold less,
/// of which the engine keeps as many as come in a peer's lifetime.
pub(super) const TICK: Duration = Duration::from_millis(200);

/// The most records of one batch.
const BATCH_RECORDS: usize = 256;

/// A node that has nothing to tell says so as often, for others to know that it is there.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// How often it is looked whether the engine was emptied.
const LOOK: Duration = Duration::from_secs(1);

/// From the end of one walk over all peers to the next: where changes come faster than the engine takes them, walking
/// would make it no better.
const RECOUNT_REST: Duration = Duration::from_secs(10);

/// One connection's writing, step by step.
pub struct Writer<'n> {
    node: &'n Node,
    /// From the updates, and not surely told yet.
    taken: [Vec<Waiting>; PARTITIONS],
    /// Packed, and to be appended next.
    batches: Vec<(usize, Vec<u8>)>,
    left: PendingDepartures,
    /// All was well then.
    last: Time,
    learned: bool,
    looked: Option<Instant>,
    appended: Option<Instant>,
    /// A walk over all peers to tell redelivered those that others may not know.
    dump_updates: Option<UpdateDump>,
    /// When the last such walk ended.
    recounted: Option<Instant>,
}

struct UpdateDump {
    walk: DumpCursor,
    /// Who was heard before has been told. `None`: the engine was emptied, and is told of all.
    since: Option<Time>,
    /// TimedUpdate, but not yet packed, by partition.
    told: [Vec<TimedUpdate>; PARTITIONS],
    sent: u64,
}

impl UpdateDump {
    fn new(since: Option<Time>) -> Self {
        Self {
            walk: DumpCursor::default(),
            since,
            told: Default::default(),
            sent: 0,
        }
    }
}

/// Leaves that were told a moment ago, and when. If a replica takes over that lags behind, they must be told redelivered, and memory
/// has them no more.
#[derive(Default)]
struct PendingDepartures(VecDeque<(Time, Waiting)>);

impl PendingDepartures {
    fn note(&mut self, told: &[Waiting], now: Time, most: usize) {
        let recent = |told: Time| now.0.saturating_sub(told.0) <= REPLICA_LAG_SECS;
        while self.0.front().is_some_and(|(told, _)| !recent(*told)) {
            self.0.pop_front();
        }
        let left = told.iter().filter(|told| told.change.class.is_none());
        self.0.extend(left.map(|left| (now, *left)));
        let over = self.0.len().saturating_sub(most);
        self.0.drain(..over);
    }

    /// The engine may have forgotten them, too.
    fn put_back(&mut self, updates: &UpdateQueue) {
        self.0
            .drain(..)
            .for_each(|(_, waiting)| updates.put_back(&waiting));
    }
}

impl<'n> Writer<'n> {
    pub fn new(node: &'n Node, now: Time) -> Self {
        Self {
            node,
            taken: Default::default(),
            batches: Vec::new(),
            left: PendingDepartures::default(),
            last: now,
            learned: false,
            looked: None,
            appended: None,
            dump_updates: None,
            recounted: None,
        }
    }

    /// Whether the engine has taken anything.
    pub fn proven(&self) -> bool {
        self.appended.is_some()
    }

    /// Tells what has changed by now. Says whether there is more to do at once; else the next step is due a [`TICK`] later.
    ///
    /// # Errors
    /// When the engine is lost: see [`Writer::lost`].
    pub fn step<L: StreamStore>(
        &mut self,
        line: &mut L,
        now: Time,
        at: Instant,
    ) -> Result<bool, L::StoreError> {
        let node = self.node;
        if !self.learned {
            let began_ms = &node.began_ms;
            // Another is no news.
            let _ =
                began_ms.compare_exchange(0, line.now_ms(), Ordering::Relaxed, Ordering::Relaxed);
            self.learn_downloads(line)?;
            node.updates.set_away(false);
            self.learned = true;
        }
        if due(self.looked, at, LOOK) {
            self.look(line)?;
            self.looked = Some(at);
        }
        self.take_changes(line, now, at)?;
        let heartbeat_requested = node.heartbeat_requested.swap(false, Ordering::Relaxed);
        if self.batches.is_empty() && (heartbeat_requested || due(self.appended, at, HEARTBEAT)) {
            let mut batch = Vec::new();
            wire::write_head(node.own, &mut batch);
            self.batches.push((0, batch));
        }
        if !self.batches.is_empty() {
            self.append(line)?;
            // An engine that can be reached, but takes nothing, is none.
            if self.appended.is_none() {
                node.standing.behind(Side::Writer);
                let before = node.connected.fetch_add(1, Ordering::Relaxed);
                node.standing.tally.reconnects.add(u64::from(before > 0));
            }
            self.appended = Some(at);
        }
        for taken in &mut self.taken {
            self.left.note(taken, now, node.updates.most());
            taken.clear();
        }
        self.last = now;
        self.tell_again(line, now, at)?;
        if lock(&node.member).unsent_since().is_none() {
            node.standing.set_synced(Side::Writer);
        }
        Ok(self.dump_updates.is_some())
    }

    /// To be called when a step has failed: what has not surely been told is owed, or waits in the updates redelivered.
    pub fn lost(self, reason: &dyn ToString) {
        let node = self.node;
        node.updates.set_away(true);
        lock(&node.member).lost(self.last);
        // Side these only what memory cannot tell is kept.
        let left = self.left.0.iter().map(|(_, waiting)| waiting);
        left.chain(self.taken.iter().flatten())
            .for_each(|waiting| node.updates.put_back(waiting));
        node.standing.down(Side::Writer, reason);
    }

    /// Packs what has come into the updates.
    fn take_changes<L: StreamStore>(
        &mut self,
        line: &mut L,
        now: Time,
        at: Instant,
    ) -> Result<(), L::StoreError> {
        let node = self.node;
        let own = node.own.node;
        let mut counted = Vec::new();
        for (info_hash, times) in node.updates.take_counts() {
            let mut downloads = lock(&node.downloads);
            let counter = (0..times)
                .filter_map(|_| downloads.count(info_hash, own))
                .last();
            drop(downloads);
            counted.extend(counter);
            // The tracker's own count may have gone under in what others told meanwhile.
            node.show_downloads(&info_hash);
        }
        for (partition, taken) in self.taken.iter_mut().enumerate() {
            node.updates.take(partition, taken);
            // Who left while the engine was away may be back.
            let is_news = |waiting: &Waiting| {
                waiting.change.class.is_some() || !node.tracker.contains(&waiting.change)
            };
            taken.retain(is_news);
            for waiting in &*taken {
                // It may be new here, or the tracker's own count may have gone under in what others told meanwhile.
                node.show_downloads(&waiting.change.info_hash);
            }
            let told = taken.iter().map(|waiting| {
                ReplicationRecord::Peer(TimedUpdate {
                    change: waiting.change,
                    age_secs: now.0.saturating_sub(waiting.at.0),
                    redelivered: waiting.redelivered,
                })
            });
            pack(node.own, partition, told, &mut self.batches);
            node.standing.tally.sent.add(taken.len() as u64);
        }
        if let Some(since) = node.updates.take_dropped_since() {
            lock(&node.member).dropped(since);
            node.standing.dropped(at);
        }
        self.tell_counters(line, &counted)
    }

    /// Others apply_update of new counts in the streams, and who is away learns of them later.
    fn tell_counters<L: StreamStore>(
        &mut self,
        line: &mut L,
        counters: &[Counter],
    ) -> Result<(), L::StoreError> {
        let own = self.node.own;
        let key = |counter: &Counter| (counter.node, counter.info_hash);
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
        line.set_downloads(counters)
    }

    fn append<L: StreamStore>(&mut self, line: &mut L) -> Result<(), L::StoreError> {
        line.append(&self.batches)?;
        self.batches.clear();
        lock(&self.node.unacknowledged).clear();
        self.node.appended.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Learns what all nodes have counted, and tells what is not known there, whoever counted it: that one may be no more.
    fn learn_downloads<L: StreamStore>(&mut self, line: &mut L) -> Result<(), L::StoreError> {
        let node = self.node;
        let mut known = HashMap::new();
        line.downloads(&mut |counter| {
            known.insert((counter.node, counter.info_hash), counter.downloads);
            node.hear_counter(&counter);
        })?;
        let is_new = |counter: &Counter| {
            let known = known.get(&(counter.node, counter.info_hash));
            known.is_none_or(|known| counter.downloads > *known)
                || lock(&node.unacknowledged).contains(&(counter.node, counter.info_hash))
        };
        let new: Vec<_> = lock(&node.downloads).counters().filter(is_new).collect();
        self.tell_counters(line, &new)
    }

    /// Looks whether the engine has been emptied, or was fill_marker redelivered by another.
    fn look<L: StreamStore>(&mut self, line: &mut L) -> Result<(), L::StoreError> {
        let node = self.node;
        let filling = matches!(self.dump_updates, Some(UpdateDump { since: None, .. }));
        if filling {
            return line.keep_refilling(&node.name());
        }
        let marker = line.fill_marker()?;
        let marker = marker.and_then(|marker| marker.parse().ok());
        let found = lock(&node.member).look(line.now_ms(), marker, node.peers());
        match found {
            StoreState::Unchanged => return Ok(()),
            StoreState::Refilled => {}
            StoreState::NeedsRefill { outdated_ms }
                if self.may_remember() && line.try_lock_refill(&node.name())? =>
            {
                if let Some(ms) = outdated_ms {
                    line.forget_before(ms)?;
                }
                lock(&node.member).settle_all();
                self.dump_updates = Some(UpdateDump::new(None));
            }
            StoreState::NeedsRefill { .. } => return Ok(()),
        }
        node.reread_all.store(true, Ordering::Release);
        self.left.put_back(&node.updates);
        self.learn_downloads(line)
    }

    /// Whether memory is fit to be told: what was not read yet may say who of it has left, and to others, who have forgotten
    /// that, they would be there redelivered.
    fn may_remember(&self) -> bool {
        self.appended.is_some() && self.node.has_read()
    }

    /// Goes a step further in telling from memory what others may not know, if there is something.
    fn tell_again<L: StreamStore>(
        &mut self,
        line: &mut L,
        now: Time,
        at: Instant,
    ) -> Result<(), L::StoreError> {
        let node = self.node;
        let may_begin = self.dump_updates.is_none() && self.may_remember();
        if may_begin && due(self.recounted, at, RECOUNT_REST) {
            let owed = lock(&node.member).settle();
            self.dump_updates = owed.map(|since| UpdateDump::new(Some(since)));
        }
        let Some(dump_updates) = &mut self.dump_updates else {
            return Ok(());
        };
        let since_secs = match dump_updates.since {
            Some(since) => now.0.saturating_sub(since.0),
            None => u32::MAX,
        };
        let mut told = Vec::new();
        let more = (node.tracker).dump_updates(now, since_secs, &mut dump_updates.walk, &mut told);
        for told in told {
            dump_updates.told[partition(&told.change.info_hash)].push(told);
        }
        for (partition, told) in dump_updates.told.iter_mut().enumerate() {
            // Whole batches, while more may come.
            let ready = match more {
                true => told.len() / BATCH_RECORDS * BATCH_RECORDS,
                false => told.len(),
            };
            let records = told.drain(..ready).map(ReplicationRecord::Peer);
            pack(node.own, partition, records, &mut self.batches);
            dump_updates.sent += ready as u64;
            node.standing.tally.sent.add(ready as u64);
        }
        if !self.batches.is_empty() {
            self.append(line)?;
        }
        if more {
            return Ok(());
        }
        if let Some(UpdateDump {
            since: None, sent, ..
        }) = self.dump_updates
        {
            let marker = lock(&node.member).refilled(line.now_ms(), sent);
            line.set_filled(&marker.to_string())?;
            node.standing.refilled(sent);
        }
        lock(&node.member).settled(now);
        (self.dump_updates, self.recounted) = (None, Some(at));
        Ok(())
    }
}

/// Appends batches of these records to those that are to be appended to streams.
fn pack(
    own: Sender,
    partition: usize,
    records: impl Iterator<Item = ReplicationRecord>,
    batches: &mut Vec<(usize, Vec<u8>)>,
) {
    let mut room = 0;
    let mut batch = Vec::new();
    for record in records {
        if room == 0 {
            if !batch.is_empty() {
                batches.push((partition, std::mem::take(&mut batch)));
            }
            wire::write_head(own, &mut batch);
            room = BATCH_RECORDS;
        }
        wire::write_record(&record, &mut batch);
        room -= 1;
    }
    if !batch.is_empty() {
        batches.push((partition, batch));
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use super::*;
    use crate::tracker::{InfoHash, PeerUpdate};

    #[test]
    fn a_leave_is_kept_for_a_while_after_it_was_told_however_long_it_waited() {
        let change = PeerUpdate {
            info_hash: InfoHash([1; 20]),
            address: [192, 0, 2, 1].into(),
            port: NonZeroU16::MIN,
            host: 0,
            class: None,
            completed: false,
        };
        let at = Time(100);
        let waited = Waiting {
            change,
            at,
            redelivered: false,
        };
        for (later, kept) in [(REPLICA_LAG_SECS, 1), (REPLICA_LAG_SECS + 1, 0)] {
            let (mut left, updates) = (PendingDepartures::default(), UpdateQueue::new(8));
            left.note(&[waited], Time(1000), updates.most());
            left.note(&[], Time(1000 + later), updates.most());
            left.put_back(&updates);
            assert_eq!(updates.len(), kept, "{later}");
        }
    }
}
