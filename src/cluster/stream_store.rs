//! The store as a node sees it: a trait that the Redis client implements, and so does the model in the simulation.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::cluster::download_counters::DownloadCounter;
use crate::cluster::queue::PARTITIONS;

/// A connection to the store, with the operations that a node needs. After an error the connection must not be used again.
pub trait StreamStore {
    /// Returns the store's time in milliseconds since 1970. All nodes share this time: their own clocks may differ.
    fn now_ms(&self) -> u64;

    /// Appends batches, each to the stream of its partition, and trims the entries there that are older than a peer's
    /// lifetime.
    fn append(&mut self, batches: &[(usize, Vec<u8>)]) -> Result<(), StoreError>;

    /// Returns entries that follow `after` in each stream, in the order of the stream. The number is bounded, so more may
    /// remain. If there is none, waits for up to `wait`.
    fn read(
        &mut self,
        after: &[EntryId; PARTITIONS],
        wait: Duration,
    ) -> Result<Vec<Entry>, StoreError>;

    /// Returns the last id that each stream has assigned; the default id for a stream that does not exist.
    fn last_ids(&mut self) -> Result<[EntryId; PARTITIONS], StoreError>;

    /// Returns the marker that [`StreamStore::finish_refill`] last stored; `None` if the store is new or was emptied since.
    fn fill_marker(&mut self) -> Result<Option<String>, StoreError>;

    /// Locks the store for a refill by this node, for a minute. Returns false if another node holds the lock.
    fn try_lock_refill(&mut self, node: &str) -> Result<bool, StoreError>;

    /// Holds the refill lock for another minute.
    fn extend_refill_lock(&mut self, node: &str) -> Result<(), StoreError>;

    /// Stores the marker that says that the streams hold every peer of this node, and releases the refill lock.
    fn finish_refill(&mut self, marker: &str) -> Result<(), StoreError>;

    /// Removes the entries of all streams that are older than `ms`, in store time.
    fn trim_before(&mut self, ms: u64) -> Result<(), StoreError>;

    /// Calls `each` with every download counter of every node.
    fn read_counters(&mut self, each: &mut dyn FnMut(DownloadCounter)) -> Result<(), StoreError>;

    /// Stores download counters. Each replaces the value stored before.
    fn write_counters(&mut self, counters: &[DownloadCounter]) -> Result<(), StoreError>;
}

/// An entry read from a stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    pub partition: usize,
    pub id: EntryId,
    pub batch: Vec<u8>,
}

/// The id of an entry: its place in its stream, and when the entry was appended by the store's clock.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct EntryId {
    /// Milliseconds since 1970.
    pub ms: u64,
    /// Distinguishes entries of the same millisecond.
    pub number: u64,
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.number)
    }
}

impl FromStr for EntryId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (ms, number) = text.split_once('-').ok_or(())?;
        Ok(Self {
            ms: ms.parse().map_err(drop)?,
            number: number.parse().map_err(drop)?,
        })
    }
}

/// The reason why the connection to the store failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoreError(String);

impl StoreError {
    pub fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry_ids_round_trip_and_compare_by_time() {
        for id in ["0-0", "1700000000000-3", "18446744073709551615-1"] {
            assert_eq!(id.parse::<EntryId>().unwrap().to_string(), id);
        }
        let (early, late) = ("9-9".parse::<EntryId>(), "10-0".parse::<EntryId>());
        assert!(early < late);
        for wrong in ["", "1", "1-", "-1", "a-1", "1-1-1"] {
            assert_eq!(wrong.parse::<EntryId>(), Err(()), "{wrong}");
        }
    }
}
