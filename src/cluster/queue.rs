//! The queue of this node's updates, which wait to be sent to the other nodes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::thread::Thread;

use crate::counter::Counter;
use crate::lock::lock;
use crate::tracker::types::{AnnounceEffect, InfoHash, PeerUpdate, Time};

/// Number of streams over which the torrents are distributed.
pub const PARTITIONS: usize = 16;

/// Capacity kept in each partition's buffer after it is drained, in updates.
const KEPT_CAPACITY: usize = 4096;

/// An update in the queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QueuedUpdate {
    pub update: PeerUpdate,
    /// Time of the announce.
    pub at: Time,
    /// The update may have been sent before.
    pub redelivered: bool,
}

/// A bounded queue between the workers and the thread that writes to the store. A worker never waits here for longer than
/// another worker's push.
pub struct UpdateQueue {
    partitions: [Mutex<Vec<QueuedUpdate>>; PARTITIONS],
    len: AtomicUsize,
    capacity: usize,
    /// Completed downloads by torrent. They cannot be read from memory later, so none is ever dropped.
    downloads: Mutex<HashMap<InfoHash, u32>>,
    store_lost: AtomicBool,
    /// Updates that were dropped because the queue was full.
    pub dropped: Counter,
    /// When the first update was dropped since [`UpdateQueue::take_dropped_since`].
    dropped_since: Mutex<Option<Time>>,
    writer: OnceLock<Thread>,
}

/// Returns the number of the stream that carries a torrent's updates.
pub fn partition(info_hash: &InfoHash) -> usize {
    usize::from(info_hash.0[0]) % PARTITIONS
}

impl UpdateQueue {
    /// Returns an empty queue for up to `capacity` updates. The store counts as lost until it is reached.
    pub fn new(capacity: usize) -> Self {
        Self {
            partitions: Default::default(),
            len: AtomicUsize::new(0),
            capacity,
            downloads: Mutex::default(),
            store_lost: AtomicBool::new(true),
            dropped: Counter::default(),
            dropped_since: Mutex::default(),
            writer: OnceLock::new(),
        }
    }

    /// Sets the thread to wake when the queue fills. Only the first call has an effect.
    pub fn set_writer(&self, writer: Thread) {
        let _ = self.writer.set(writer);
    }

    /// Wakes the writing thread.
    pub fn wake_writer(&self) {
        if let Some(writer) = self.writer.get() {
            writer.unpark();
        }
    }

    /// Records whether the store is lost. Until it is back, only departures are queued: the peers that are here can be sent
    /// from memory afterwards. Other updates that already wait are removed, so that departures find room.
    pub fn set_store_lost(&self, lost: bool) {
        self.store_lost.store(lost, Ordering::Relaxed);
        if !lost {
            return;
        }
        for partition in &self.partitions {
            let mut partition = lock(partition);
            let before = partition.len();
            partition.retain(|update| update.update.class.is_none());
            self.len
                .fetch_sub(before - partition.len(), Ordering::Relaxed);
        }
    }

    /// Queues the change that an announce made, if any.
    pub fn push_effect(&self, effect: &AnnounceEffect, at: Time) {
        if let Some(update) = effect.update {
            if effect.new_download {
                *lock(&self.downloads).entry(update.info_hash).or_default() += 1;
            }
            self.push(update, at);
        }
    }

    /// Queues an update if there is room.
    pub fn push(&self, update: PeerUpdate, at: Time) {
        let redelivered = false;
        self.enqueue(QueuedUpdate {
            update,
            at,
            redelivered,
        });
    }

    /// Queues an update again that was taken before and may have been sent.
    pub fn put_back(&self, update: &QueuedUpdate) {
        let redelivered = true;
        self.enqueue(QueuedUpdate {
            redelivered,
            ..*update
        });
    }

    fn enqueue(&self, queued: QueuedUpdate) {
        let QueuedUpdate { update, at, .. } = queued;
        if update.class.is_some() && self.store_lost.load(Ordering::Relaxed) {
            return;
        }
        let before = self.len.fetch_add(1, Ordering::Relaxed);
        if before >= self.capacity {
            self.len.fetch_sub(1, Ordering::Relaxed);
            self.dropped.add_one();
            lock(&self.dropped_since).get_or_insert(at);
            return;
        }
        lock(&self.partitions[partition(&update.info_hash)]).push(queued);
        if before == self.capacity / 4 {
            self.wake_writer();
        }
    }

    /// Returns how many updates the queue can hold.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Returns the number of updates that wait.
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Moves a partition's updates into `into`, in their order. The buffer of `into` is emptied and becomes the
    /// partition's.
    pub fn take(&self, partition: usize, into: &mut Vec<QueuedUpdate>) {
        into.clear();
        into.shrink_to(KEPT_CAPACITY);
        std::mem::swap(&mut *lock(&self.partitions[partition]), into);
        self.len.fetch_sub(into.len(), Ordering::Relaxed);
    }

    /// Takes the downloads that were completed since the last call, by torrent.
    pub fn take_downloads(&self) -> HashMap<InfoHash, u32> {
        std::mem::take(&mut lock(&self.downloads))
    }

    /// Returns when the first update was dropped since the last call, if any was.
    pub fn take_dropped_since(&self) -> Option<Time> {
        lock(&self.dropped_since).take()
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use super::*;
    use crate::tracker::types::Class;

    fn update(torrent: u8, class: Option<Class>) -> PeerUpdate {
        PeerUpdate {
            info_hash: InfoHash([torrent; 20]),
            address: [192, 0, 2, 1].into(),
            port: NonZeroU16::MIN,
            host: 0,
            class,
            completed: false,
        }
    }

    fn taken(queue: &UpdateQueue, partition: usize) -> Vec<QueuedUpdate> {
        let mut taken = Vec::new();
        queue.take(partition, &mut taken);
        taken
    }

    #[test]
    fn keeps_order_within_a_partition() {
        let queue = UpdateQueue::new(8);
        queue.set_store_lost(false);
        for (torrent, at) in [(1, 10), (2, 11), (17, 12), (1, 13)] {
            queue.push(update(torrent, Some(Class::Leecher)), Time(at));
        }
        assert_eq!(queue.len(), 4);
        let times = taken(&queue, 1)
            .iter()
            .map(|update| update.at.0)
            .collect::<Vec<_>>();
        assert_eq!(times, [10, 12, 13]);
        assert_eq!(queue.len(), 1);
        assert_eq!(taken(&queue, 2).len(), 1);
        assert!(queue.is_empty());
    }

    #[test]
    fn counts_drops_and_keeps_time_of_the_first() {
        let queue = UpdateQueue::new(2);
        queue.set_store_lost(false);
        (0..5).for_each(|at| queue.push(update(1, None), Time(at)));
        assert_eq!((queue.len(), queue.dropped.get()), (2, 3));
        assert_eq!(queue.take_dropped_since(), Some(Time(2)));
        assert_eq!(queue.take_dropped_since(), None);
        assert_eq!(taken(&queue, 1).len(), 2);
        queue.push(update(1, None), Time(9));
        assert_eq!((queue.len(), queue.dropped.get()), (1, 3));
    }

    #[test]
    fn queues_only_departures_while_store_is_lost() {
        let queue = UpdateQueue::new(8);
        queue.push(update(1, Some(Class::Seeder)), Time(0));
        assert!(queue.is_empty());
        queue.push(update(1, None), Time(1));
        let times = taken(&queue, 1)
            .iter()
            .map(|update| update.at.0)
            .collect::<Vec<_>>();
        assert_eq!(times, [1]);
    }

    #[test]
    fn losing_the_store_makes_room_for_departures() {
        let queue = UpdateQueue::new(2);
        queue.set_store_lost(false);
        queue.push(update(1, Some(Class::Seeder)), Time(0));
        queue.push(update(1, Some(Class::Leecher)), Time(1));
        queue.set_store_lost(true);
        queue.push(update(1, None), Time(2));
        queue.push(update(2, None), Time(3));
        assert_eq!((queue.len(), queue.dropped.get()), (2, 0));
    }

    #[test]
    fn never_drops_downloads() {
        let queue = UpdateQueue::new(0);
        let effect = AnnounceEffect {
            update: Some(update(1, Some(Class::Seeder))),
            new_download: true,
        };
        (0..3).for_each(|at| queue.push_effect(&effect, Time(at)));
        assert!(queue.is_empty());
        let expected = HashMap::from([(InfoHash([1; 20]), 3)]);
        assert_eq!(queue.take_downloads(), expected);
        assert!(queue.take_downloads().is_empty());
    }

    #[test]
    fn shrinks_buffers_after_a_flood() {
        let queue = UpdateQueue::new(100_000);
        queue.set_store_lost(false);
        (0..100_000).for_each(|at| queue.push(update(1, None), Time(at)));
        let mut taken = Vec::new();
        queue.take(1, &mut taken);
        assert_eq!(taken.len(), 100_000);
        queue.take(1, &mut taken);
        assert!(taken.is_empty());
        queue.take(1, &mut taken);
        assert!(taken.capacity() <= KEPT_CAPACITY);
    }
}
