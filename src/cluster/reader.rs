//! One connection's reading, step by step.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::cluster::node::{Node, due};
use crate::cluster::queue::PARTITIONS;
use crate::cluster::resync::EntryId;
use crate::cluster::status::Side;
use crate::cluster::stream_store::{Entry, StreamStore};
use crate::cluster::wire::{self, Batch, ReplicationRecord};
use crate::lock::lock;
use crate::tracker::{ApplyResult, Time};

/// How long one wait for something to read is.
const READ_WAIT: Duration = Duration::from_secs(1);

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
                        node.show_downloads(&told.change.info_hash);
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
