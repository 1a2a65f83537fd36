//! Several trackers ("nodes") that share their swarms through a store, Valkey or Redis.
//!
//! An update travels from an announce on one node to a response of another:
//!
//! 1. A worker responds to an announce from its own memory, as without a cluster. The worker puts the change (a
//!    [`PeerUpdate`]: joined, refreshed, completed, left) into the [`UpdateQueue`], which never makes a worker wait. Both
//!    are done in [`crate::server`].
//! 2. Five times a second the [`StreamWriter`] takes the queued updates, packs them into batches ([`wire`]), and appends
//!    these to streams in the store. There are 16 streams, selected by the info-hash. The store drops entries that are
//!    older than a peer's lifetime.
//! 3. The [`StreamReader`] of every other node waits for new entries, and passes each record to [`Tracker::apply_update`].
//!    The tracker checks a record like an announce, and an older update never undoes a newer update.
//! 4. The next response to an announce for that torrent may contain the peer.
//!
//! No node waits for another node or for the store: without the store, each serves its own peers. [`Resync`] decides which
//! peers a node sends again when the store is back, or comes back empty. A stream holds a whole lifetime of a peer, so a
//! node that reads the streams from the start soon knows every peer. Each node counts downloads separately, and shows the
//! sum ([`DownloadCounters`]).
//!
//! [`StreamWriter`] and [`StreamReader`] advance in steps, with the time as a parameter and the store behind the trait
//! [`StreamStore`]. `tests/cluster_simulation.rs` runs them against a model of the store, [`threads`] against the real
//! store.
//!
//! [`PeerUpdate`]: crate::tracker::types::PeerUpdate
//! [`Tracker::apply_update`]: crate::tracker::Tracker::apply_update
//! [`UpdateQueue`]: crate::cluster::queue::UpdateQueue
//! [`StreamWriter`]: crate::cluster::writer::StreamWriter
//! [`StreamReader`]: crate::cluster::reader::StreamReader
//! [`Resync`]: crate::cluster::resync::Resync
//! [`DownloadCounters`]: crate::cluster::download_counters::DownloadCounters
//! [`StreamStore`]: crate::cluster::stream_store::StreamStore
//! [`wire`]: crate::cluster::wire
//! [`threads`]: crate::cluster::threads
#![forbid(unsafe_code)]

mod checkpoint;
pub mod download_counters;
pub mod node;
pub mod queue;
pub mod reader;
#[cfg(feature = "cluster")]
mod redis;
#[cfg(not(feature = "cluster"))]
mod redis_disabled;
pub mod report;
pub mod resync;
pub mod settings;
pub mod status;
pub mod stream_store;
pub mod threads;
pub mod url;
pub mod wire;

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

pub use settings::{Credentials, PasswordFile, Settings};
pub use status::{ClusterEvent, EventHandler};
pub use url::{InvalidStoreUrl, StoreAddress, Url};

use self::redis::RedisStore;
use crate::clock::Clock;
use crate::cluster::download_counters::{Counter, Downloads, NodeId};
use crate::cluster::queue::{PARTITIONS, UpdateQueue, Waiting, partition};
use crate::cluster::resync::{EntryId, REPLICA_LAG_SECS, Resync, StoreState};
use crate::cluster::wire::{Batch, ReplicationRecord, Sender};
use crate::lock::lock;
use crate::status::report as figures;
use crate::tracker::dump::DumpCursor;
use crate::tracker::replication::ApplyResult;
use crate::tracker::{InfoHash, Time, TimedUpdate, Tracker};
use checkpoint::Checkpoint;
use status::{ClusterStatus, Side};

/// How often what has changed is told. Longer, and others would learn of it later; shorter, and each batch would hold less,
/// of which the engine keeps as many as come in a peer's lifetime.
const TICK: Duration = Duration::from_millis(200);

/// The most records of one batch.
const BATCH_RECORDS: usize = 256;

/// A node that has nothing to tell says so as often, for others to know that it is there.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// How often it is looked whether the engine was emptied.
const LOOK: Duration = Duration::from_secs(1);

/// From the end of one walk over all peers to the next: where changes come faster than the engine takes them, walking
/// would make it no better.
const RECOUNT_REST: Duration = Duration::from_secs(10);

/// How long one wait for something to read is.
const READ_WAIT: Duration = Duration::from_secs(1);

/// From one attempt to connect to the next.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How much before where it stopped a node reads on after it has lost the engine: another one may have taken its place, whose
/// clock is not the same. To apply_update a change twice does no harm.
const REREAD_MS: u64 = 60_000;

/// From one reading of all the streams to the next, for torrents that others have listed earlier than this node.
const LISTED_REST: Duration = Duration::from_secs(15);

/// What a node has written must come back to it in this time, or it is connected to an engine that no longer gets what
/// others write.
const ECHO_PATIENCE: Duration = Duration::from_secs(30);

/// How long after a node's start its former self may still be seen to tell something, by a clock that is not the same
/// after a failover.
const DOUBLED_MS: u64 = 60_000;

/// How long the stop waits for the last changes to be told.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// A connection to the engine, and each thing that is asked of it. After an error it must not be used redelivered.
pub trait StreamStore {
    /// Why it is no more.
    type StoreError;

    /// The engine's time, which all nodes share: their own clocks may say what they want. Milliseconds since 1970.
    fn now_ms(&self) -> u64;

    /// Appends batches, each to its partition's stream, and forgets there what is too old.
    fn append(&mut self, batches: &[(usize, Vec<u8>)]) -> Result<(), Self::StoreError>;

    /// What comes after `from` in each stream, in its order, but only so much; waits for up to `wait` if that is nothing.
    fn read(
        &mut self,
        from: &[EntryId; PARTITIONS],
        wait: Duration,
    ) -> Result<Vec<Entry>, Self::StoreError>;

    /// The last id that each stream has given out; 0 where there is no stream.
    fn last_ids(&mut self) -> Result<[EntryId; PARTITIONS], Self::StoreError>;

    /// What [`StreamStore::set_filled`] last said; `None` if the engine has been emptied since, or is new.
    fn fill_marker(&mut self) -> Result<Option<String>, Self::StoreError>;

    /// Says that the streams hold all that this node contains, and lets others fill them.
    fn set_filled(&mut self, marker: &str) -> Result<(), Self::StoreError>;

    /// Whether this node is to fill the streams: no other is about it. That holds for a minute.
    fn try_lock_refill(&mut self, node: &str) -> Result<bool, Self::StoreError>;

    /// Forgets what came into the streams before `ms`, by its own clock.
    fn forget_before(&mut self, ms: u64) -> Result<(), Self::StoreError>;

    /// For another minute.
    fn keep_refilling(&mut self, node: &str) -> Result<(), Self::StoreError>;

    /// Calls `each` with what each node has counted.
    fn downloads(&mut self, each: &mut dyn FnMut(Counter)) -> Result<(), Self::StoreError>;

    /// Says what nodes have counted, in place of what it had of these.
    fn set_downloads(&mut self, counters: &[Counter]) -> Result<(), Self::StoreError>;
}

/// An entry read from a stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    pub partition: usize,
    pub id: EntryId,
    pub batch: Vec<u8>,
}

/// A tracker among others: what its writer and its reader share.
pub struct Node {
    own: Sender,
    updates: Arc<UpdateQueue>,
    tracker: Arc<Tracker>,
    standing: ClusterStatus,
    member: Mutex<Resync>,
    downloads: Mutex<Downloads>,
    /// Counters that the engine may have, but not in its streams yet: who stays connected would not learn of them.
    unacknowledged: Mutex<HashSet<(NodeId, InfoHash)>>,
    /// How far each stream has been read.
    read: Mutex<[EntryId; PARTITIONS]>,
    /// How often the writer has appended something.
    appended: AtomicU64,
    /// The reader asks for something to be appended.
    heartbeat_requested: AtomicBool,
    /// [`Node::appended`] when the reader was lost: it goes on once the writer has proven that the engine is there.
    reader_lost: AtomicU64,
    /// How often the writer has reached an engine that takes something. The reader follows it: were they connected to two
    /// engines, one that was replaced might still answer, and nothing new come from it.
    connected: AtomicU64,
    /// The engine is another: all of its streams are to be read.
    reread_all: AtomicBool,
    /// Something was refused since the streams were last read from their start.
    refused: AtomicBool,
    /// [`Tracker::listings`] when that was last looked at.
    listings: AtomicU64,
    /// [`Node::connected`] when the reader had last read all that was there.
    caught_up_generation: AtomicU64,
    /// The engine's time when this process first reached it, in milliseconds since 1970; 0 before.
    began_ms: AtomicU64,
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

    fn peers(&self) -> u64 {
        let totals = self.tracker.totals();
        totals.peers.sum() as u64
    }

    /// Takes a counter in, and shows the new total.
    fn hear_counter(&self, counter: &Counter) {
        let total = lock(&self.downloads).apply_update(counter);
        if let Some(total) = total {
            self.tracker.show_downloads(&counter.info_hash, total);
        }
    }

    /// Has the tracker show what all have counted; it forgets what it shows with a torrent's last peer, if it is open.
    fn show_downloads(&self, info_hash: &InfoHash) {
        let total = lock(&self.downloads).total(info_hash);
        if total > 0 {
            self.tracker.show_downloads(info_hash, total);
        }
    }

    /// Whether the reader has read all that was there when the writer had connected, or found another engine.
    fn has_read(&self) -> bool {
        let connected = self.connected.load(Ordering::Relaxed);
        // In the order in which the reader changes them back.
        !self.reread_all.load(Ordering::Acquire)
            && self.caught_up_generation.load(Ordering::Relaxed) == connected
    }

    fn name(&self) -> String {
        format!("{:016x}", self.own.node.0)
    }
}

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
                    update: waiting.change,
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
            dump_updates.told[partition(&told.update.info_hash)].push(told);
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

fn due(last: Option<Instant>, at: Instant, every: Duration) -> bool {
    last.is_none_or(|last| at.saturating_duration_since(last) >= every)
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

/// One connection's reading, step by step.
pub struct Reader<'n> {
    node: &'n Node,
    /// [`Node::connected`], as this follows it.
    connected: u64,
    from: [EntryId; PARTITIONS],
    /// Up to there all has been heard before.
    heard: [EntryId; PARTITIONS],
    /// Where the streams ended at the connection.
    last: Option<[EntryId; PARTITIONS]>,
    caught_up_generation: bool,
    /// When something that this node wrote was last read.
    echoed: Instant,
    /// When all was last read redelivered for torrents that had not been listed.
    listed: Option<Instant>,
}

/// What has become of a reader.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadStatus {
    Continue,
    /// The writer has another connection.
    Superseded,
    /// What the writer wrote does not come back: this engine no longer gets what others write.
    Stalled,
}

impl<'n> Reader<'n> {
    /// `None` while the writer has no connection, or has not appended anything since the last reader was lost.
    pub fn new(node: &'n Node, at: Instant) -> Option<Self> {
        let connected = node.connected.load(Ordering::Relaxed);
        let proven =
            node.appended.load(Ordering::Relaxed) > node.reader_lost.load(Ordering::Relaxed);
        let read = *lock(&node.read);
        (proven && node.standing.is_up(Side::Writer)).then_some(Self {
            node,
            connected,
            from: read,
            heard: read,
            last: None,
            caught_up_generation: false,
            echoed: at,
            listed: None,
        })
    }

    /// Reads what has come, or waits a while for it, and hears it.
    ///
    /// # Errors
    /// When the engine is lost.
    pub fn step<L: StreamStore>(
        &mut self,
        line: &mut L,
        now: Time,
        at: Instant,
    ) -> Result<ReadStatus, L::StoreError> {
        let node = self.node;
        if node.connected.load(Ordering::Relaxed) != self.connected {
            return Ok(ReadStatus::Superseded);
        }
        if self.last.is_none() {
            self.begin(line)?;
        }
        if node.reread_all.load(Ordering::Relaxed) {
            self.from = Default::default();
            self.last = Some(line.last_ids()?);
            self.caught_up_generation = false;
            node.caught_up_generation.store(0, Ordering::Relaxed);
            node.reread_all.store(false, Ordering::Release);
        }
        if self.missed_some(at) {
            self.from = Default::default();
        }
        let entries = line.read(&self.from, READ_WAIT)?;
        let mut late_ms = 0;
        for entry in &entries {
            self.from[entry.partition] = entry.id;
            let heard = &mut self.heard[entry.partition];
            let redelivered = entry.id <= *heard;
            *heard = entry.id.max(*heard);
            late_ms = line.now_ms().saturating_sub(entry.id.ms);
            if hear_batch(node, entry, redelivered, late_ms, now, at) {
                self.echoed = at;
            }
        }
        *lock(&node.read) = self.from;
        node.standing.late(late_ms);
        if !self.caught_up_generation {
            let last = self.last.iter().flatten();
            let reached = |(from, last): (&EntryId, &EntryId)| from >= last;
            self.caught_up_generation =
                entries.is_empty() || self.from.iter().zip(last).all(reached);
            self.echoed = at;
        }
        // Else the writer may have lost its connection meanwhile, and all is to begin redelivered.
        if self.caught_up_generation && node.connected.load(Ordering::Relaxed) == self.connected {
            node.caught_up_generation
                .store(self.connected, Ordering::Relaxed);
            node.standing.set_synced(Side::Reader);
        }
        match at.saturating_duration_since(self.echoed) > ECHO_PATIENCE {
            true => Ok(ReadStatus::Stalled),
            false => Ok(ReadStatus::Continue),
        }
    }

    /// Whether others' peers were refused that may be welcome by now: a release is seldom published everywhere at once.
    fn missed_some(&mut self, at: Instant) -> bool {
        let node = self.node;
        let listings = node.tracker.listings();
        if listings == node.listings.load(Ordering::Relaxed) || !due(self.listed, at, LISTED_REST) {
            return false;
        }
        node.listings.store(listings, Ordering::Relaxed);
        self.listed = Some(at);
        node.refused.swap(false, Ordering::Relaxed)
    }

    /// To be called when a step has failed, or was deaf.
    pub fn lost(self, reason: &dyn ToString) {
        let node = self.node;
        let appended = node.appended.load(Ordering::Relaxed);
        node.reader_lost.store(appended, Ordering::Relaxed);
        node.heartbeat_requested.store(true, Ordering::Relaxed);
        node.standing.down(Side::Reader, reason);
    }

    fn begin<L: StreamStore>(&mut self, line: &mut L) -> Result<(), L::StoreError> {
        self.node.standing.behind(Side::Reader);
        self.node.caught_up_generation.store(0, Ordering::Relaxed);
        let last = line.last_ids()?;
        for (from, last) in self.from.iter_mut().zip(last) {
            *from = (*from).min(last);
            from.ms = from.ms.saturating_sub(REREAD_MS);
        }
        self.last = Some(last);
        Ok(())
    }
}

/// Takes in a batch that came into its stream `age_ms` ago, perhaps redelivered, and tells whether it is this node's own.
fn hear_batch(
    node: &Node,
    entry: &Entry,
    redelivered: bool,
    age_ms: u64,
    now: Time,
    at: Instant,
) -> bool {
    let tally = &node.standing.tally;
    let own = |sender| lock(&node.member).is_own(sender);
    if wire::read_sender(&entry.batch).is_ok_and(own) {
        return true;
    }
    let Ok(batch) = Batch::parse(&entry.batch) else {
        tally.malformed.add_one();
        return false;
    };
    if batch.sender.node != node.own.node {
        node.standing.heard_of(batch.sender, at);
    } else if entry.id.ms > node.began_ms.load(Ordering::Relaxed) + DOUBLED_MS {
        node.standing.doubled();
    }
    let passed_secs = u32::try_from(age_ms / 1000).unwrap_or(u32::MAX);
    let (mut received, mut applied, mut older, mut refused) = (0, 0, 0, 0);
    for record in batch.records() {
        match record {
            ReplicationRecord::Counter(counter) => node.hear_counter(&counter),
            ReplicationRecord::Peer(mut told) => {
                received += 1;
                // What this node has heard or done since is not to be undone: its own batches are not read.
                told.redelivered |= redelivered;
                match node.tracker.apply_update(now, passed_secs, &told) {
                    ApplyResult::Applied => {
                        applied += 1;
                        node.show_downloads(&told.update.info_hash);
                    }
                    ApplyResult::Stale => older += 1,
                    ApplyResult::Rejected => refused += 1,
                }
            }
        }
    }
    tally.received.add(received);
    tally.applied.add(applied);
    tally.older.add(older);
    tally.refused.add(refused);
    if refused > 0 {
        node.refused.store(true, Ordering::Relaxed);
    }
    false
}

/// A node, its engine, and the two threads between them.
pub struct Cluster {
    joint: Arc<Joint>,
    /// Closed when the writing thread has ended.
    written: Mutex<Receiver<()>>,
}

struct Joint {
    node: Node,
    engine: RedisStore,
    clock: Clock,
    stop: AtomicBool,
}

impl Cluster {
    /// Begins to tell others, and to apply_update them. `kept` is what [`Cluster::keep`] gave before a restart.
    ///
    /// # Errors
    /// If the certificates cannot be used, or the system has no threads to give.
    pub fn start(
        settings: &Settings,
        credentials: &Credentials,
        kept: &[u8],
        updates: Arc<UpdateQueue>,
        tracker: Arc<Tracker>,
        clock: Clock,
        tell: EventHandler,
    ) -> io::Result<Self> {
        let engine = RedisStore::new(settings, credentials)
            .map_err(|error| io::Error::other(error.to_string()))?;
        let joint = Arc::new(Joint {
            node: Node::new(kept, credentials.random, tracker, updates, tell),
            engine,
            clock,
            stop: AtomicBool::new(false),
        });
        let (ended, written) = mpsc::channel();
        let writer = joint.clone();
        let thread = thread::Builder::new()
            .name("cluster-write".to_owned())
            .spawn(move || {
                write(&writer);
                drop(ended);
            })?;
        joint.node.updates.set_writer(thread.thread().clone());
        let reader = joint.clone();
        thread::Builder::new()
            .name("cluster-read".to_owned())
            .spawn(move || read(&reader))?;
        Ok(Self {
            joint,
            written: Mutex::new(written),
        })
    }

    pub fn figures(&self) -> figures::Cluster {
        let unix = self.joint.clock.unix_at(Instant::now()).0;
        self.joint.node.figures(unix)
    }

    /// As [`Node::keep`] has it.
    pub fn keep(&self) -> impl Fn() -> Vec<u8> + '_ {
        self.joint.node.keep()
    }

    /// Has the last changes told, if the engine takes them in time. To be called when no worker changes anything any more.
    pub fn stop(&self) {
        self.joint.stop.store(true, Ordering::Relaxed);
        self.joint.node.updates.wake_writer();
        // It answers by being closed.
        let _ = lock(&self.written).recv_timeout(STOP_PATIENCE);
    }
}

impl Joint {
    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// The writing thread: connects redelivered and redelivered until the stop.
fn write(joint: &Joint) {
    let mut pause = FIRST_PAUSE;
    while !joint.stopping() {
        let mut writer = Writer::new(&joint.node, joint.clock.now());
        let lost = match joint.engine.connect() {
            Err(lost) => lost,
            Ok(mut line) => loop {
                // Once more after the stop has come, for what was changed until then.
                let stopping = joint.stopping();
                let at = Instant::now();
                match writer.step(&mut line, joint.clock.at(at), at) {
                    Err(lost) => break lost,
                    Ok(_) if stopping => return,
                    Ok(true) => {}
                    Ok(false) => thread::park_timeout(TICK.saturating_sub(at.elapsed())),
                }
            },
        };
        if writer.proven() {
            pause = FIRST_PAUSE;
        }
        writer.lost(&lost);
        thread::park_timeout(pause);
        pause = (2 * pause).min(LONGEST_PAUSE);
    }
}

/// The reading thread: connects whenever the writing one has.
fn read(joint: &Joint) {
    let mut pause = FIRST_PAUSE;
    while !joint.stopping() {
        let begun = Instant::now();
        if let Some(mut reader) = Reader::new(&joint.node, begun) {
            let lost = match joint.engine.connect() {
                Err(lost) => Some(lost.to_string()),
                Ok(mut line) => loop {
                    let at = Instant::now();
                    match reader.step(&mut line, joint.clock.at(at), at) {
                        Err(lost) => break Some(lost.to_string()),
                        Ok(ReadStatus::Stalled) => {
                            break Some("it no longer passes on what is written to it".to_owned());
                        }
                        Ok(ReadStatus::Superseded) => break None,
                        Ok(ReadStatus::Continue) if joint.stopping() => return,
                        Ok(ReadStatus::Continue) => {}
                    }
                },
            };
            if let Some(lost) = lost {
                reader.lost(&lost);
            }
            pause = match begun.elapsed() < LONGEST_PAUSE {
                true => (2 * pause).min(LONGEST_PAUSE),
                false => FIRST_PAUSE,
            };
        }
        thread::sleep(pause);
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use super::*;
    use crate::tracker::PeerUpdate;

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
