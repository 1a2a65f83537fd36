//! What announces changed here, waiting to be passed on to the other trackers of a cluster.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::thread::Thread;

use crate::counter::Counter;
use crate::lock::lock;
use crate::tracker::types::AnnounceEffect;
use crate::tracker::{InfoHash, PeerUpdate, Time};

/// Into how many streams the torrents are dealt out.
pub const PARTITIONS: usize = 16;

/// How many changes may have more room than they need kept for them, in each partition.
const ROOM_KEPT: usize = 4096;

/// A change and when it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Waiting {
    pub change: PeerUpdate,
    pub at: Time,
    /// It may have been told before.
    pub redelivered: bool,
}

/// Filled by the workers, emptied by the thread that writes to the engine. No worker ever waits here for more than another's
/// push, and it holds only so much.
pub struct UpdateQueue {
    parts: [Mutex<Vec<Waiting>>; PARTITIONS],
    waiting: AtomicUsize,
    most: usize,
    /// Downloads that were made, by torrent: memory cannot tell them, so none is ever dropped.
    counts: Mutex<HashMap<InfoHash, u32>>,
    /// The engine is out of reach.
    away: AtomicBool,
    /// Changes that found it full.
    pub dropped: Counter,
    /// Since when they did, until somebody asks.
    dropped_since: Mutex<Option<Time>>,
    writer: OnceLock<Thread>,
}

/// The stream in which a torrent's changes travel.
pub fn partition(info_hash: &InfoHash) -> usize {
    usize::from(info_hash.0[0]) % PARTITIONS
}

impl UpdateQueue {
    /// Holds `most` changes.
    pub fn new(most: usize) -> Self {
        Self {
            parts: Default::default(),
            waiting: AtomicUsize::new(0),
            most,
            counts: Mutex::default(),
            away: AtomicBool::new(true),
            dropped: Counter::default(),
            dropped_since: Mutex::default(),
            writer: OnceLock::new(),
        }
    }

    /// Who is woken when it fills: set once.
    pub fn set_writer(&self, writer: Thread) {
        let _ = self.writer.set(writer);
    }

    /// Has it look, whatever is waiting.
    pub fn wake_writer(&self) {
        self.writer.get().inspect(|writer| writer.unpark());
    }

    /// While the engine is out of reach only leaves are kept: who is here can be told from memory afterwards. What has waited
    /// since before that was known gives them room, too.
    pub fn set_away(&self, away: bool) {
        self.away.store(away, Ordering::Relaxed);
        if !away {
            return;
        }
        for part in &self.parts {
            let mut part = lock(part);
            let before = part.len();
            part.retain(|waiting| waiting.change.class.is_none());
            self.waiting
                .fetch_sub(before - part.len(), Ordering::Relaxed);
        }
    }

    /// Keeps what an announce did, if that is anything.
    pub fn push_effect(&self, news: &AnnounceEffect, at: Time) {
        if let Some(change) = news.change {
            if news.counted {
                *lock(&self.counts).entry(change.info_hash).or_default() += 1;
            }
            self.push(change, at);
        }
    }

    /// Keeps a change if there is room.
    pub fn push(&self, change: PeerUpdate, at: Time) {
        let redelivered = false;
        self.keep(Waiting {
            change,
            at,
            redelivered,
        });
    }

    /// Keeps a change redelivered that was taken.
    pub fn put_back(&self, waiting: &Waiting) {
        let redelivered = true;
        self.keep(Waiting {
            redelivered,
            ..*waiting
        });
    }

    fn keep(&self, waiting: Waiting) {
        let Waiting { change, at, .. } = waiting;
        if change.class.is_some() && self.away.load(Ordering::Relaxed) {
            return;
        }
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        if before >= self.most {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            self.dropped.add_one();
            lock(&self.dropped_since).get_or_insert(at);
            return;
        }
        lock(&self.parts[partition(&change.info_hash)]).push(waiting);
        if before == self.most / 4 {
            self.wake_writer();
        }
    }

    /// How many it can hold.
    pub fn most(&self) -> usize {
        self.most
    }

    /// How many are waiting.
    pub fn len(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Swaps one partition's changes, in their order, for an empty `into`.
    pub fn take(&self, partition: usize, into: &mut Vec<Waiting>) {
        into.clear();
        into.shrink_to(ROOM_KEPT);
        std::mem::swap(&mut *lock(&self.parts[partition]), into);
        self.waiting.fetch_sub(into.len(), Ordering::Relaxed);
    }

    /// The downloads that were made since the last call.
    pub fn take_counts(&self) -> HashMap<InfoHash, u32> {
        std::mem::take(&mut lock(&self.counts))
    }

    /// Since when some have found it full, if any have since the last call.
    pub fn take_dropped_since(&self) -> Option<Time> {
        lock(&self.dropped_since).take()
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use super::*;
    use crate::tracker::Class;

    fn change(torrent: u8, class: Option<Class>) -> PeerUpdate {
        PeerUpdate {
            info_hash: InfoHash([torrent; 20]),
            address: [192, 0, 2, 1].into(),
            port: NonZeroU16::MIN,
            host: 0,
            class,
            completed: false,
        }
    }

    fn taken(updates: &UpdateQueue, partition: usize) -> Vec<Waiting> {
        let mut taken = Vec::new();
        updates.take(partition, &mut taken);
        taken
    }

    #[test]
    fn a_torrents_changes_stay_in_order_and_together() {
        let updates = UpdateQueue::new(8);
        updates.set_away(false);
        for (torrent, at) in [(1, 10), (2, 11), (17, 12), (1, 13)] {
            updates.push(change(torrent, Some(Class::Leecher)), Time(at));
        }
        assert_eq!(updates.len(), 4);
        let times = taken(&updates, 1)
            .iter()
            .map(|w| w.at.0)
            .collect::<Vec<_>>();
        assert_eq!(times, [10, 12, 13]);
        assert_eq!(updates.len(), 1);
        assert_eq!(taken(&updates, 2).len(), 1);
        assert!(updates.is_empty());
    }

    #[test]
    fn what_finds_it_full_is_counted_and_its_time_kept() {
        let updates = UpdateQueue::new(2);
        updates.set_away(false);
        (0..5).for_each(|at| updates.push(change(1, None), Time(at)));
        assert_eq!((updates.len(), updates.dropped.get()), (2, 3));
        assert_eq!(updates.take_dropped_since(), Some(Time(2)));
        assert_eq!(updates.take_dropped_since(), None);
        assert_eq!(taken(&updates, 1).len(), 2);
        updates.push(change(1, None), Time(9));
        assert_eq!((updates.len(), updates.dropped.get()), (1, 3));
    }

    #[test]
    fn without_the_engine_only_what_memory_cannot_tell_is_kept() {
        let updates = UpdateQueue::new(8);
        updates.push(change(1, Some(Class::Seeder)), Time(0));
        assert!(updates.is_empty());
        updates.push(change(1, None), Time(1));
        let times = taken(&updates, 1)
            .iter()
            .map(|w| w.at.0)
            .collect::<Vec<_>>();
        assert_eq!(times, [1]);
    }

    #[test]
    fn who_waits_to_come_makes_room_for_who_leaves() {
        let updates = UpdateQueue::new(2);
        updates.set_away(false);
        updates.push(change(1, Some(Class::Seeder)), Time(0));
        updates.push(change(1, Some(Class::Leecher)), Time(1));
        updates.set_away(true);
        updates.push(change(1, None), Time(2));
        updates.push(change(2, None), Time(3));
        assert_eq!((updates.len(), updates.dropped.get()), (2, 0));
    }

    #[test]
    fn a_download_is_never_dropped() {
        let updates = UpdateQueue::new(0);
        let news = AnnounceEffect {
            change: Some(change(1, Some(Class::Seeder))),
            counted: true,
        };
        (0..3).for_each(|at| updates.push_effect(&news, Time(at)));
        assert!(updates.is_empty());
        let expected = HashMap::from([(InfoHash([1; 20]), 3)]);
        assert_eq!(updates.take_counts(), expected);
        assert!(updates.take_counts().is_empty());
    }

    #[test]
    fn a_flood_leaves_no_room_behind() {
        let updates = UpdateQueue::new(100_000);
        updates.set_away(false);
        (0..100_000).for_each(|at| updates.push(change(1, None), Time(at)));
        let mut taken = Vec::new();
        updates.take(1, &mut taken);
        assert_eq!(taken.len(), 100_000);
        updates.take(1, &mut taken);
        assert!(taken.is_empty());
        updates.take(1, &mut taken);
        assert!(taken.capacity() <= ROOM_KEPT);
    }
}
