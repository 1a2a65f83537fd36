//! The engine as a node sees it: streams, a marker and counters.

use std::time::Duration;

use crate::cluster::download_counters::Counter;
use crate::cluster::queue::PARTITIONS;
use crate::cluster::resync::EntryId;

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
