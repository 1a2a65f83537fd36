//! No engine: tbtt was built without the crate that speaks with one, and a configuration that names one is refused.

use std::convert::Infallible;
use std::fmt;
use std::time::Duration;

use crate::cluster::download_counters::Counter;
use crate::cluster::queue::PARTITIONS;
use crate::cluster::resync::EntryId;
use crate::cluster::settings::{Credentials, Settings};
use crate::cluster::stream_store::{Entry, StreamStore};

#[derive(Debug)]
pub struct StoreError;

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("built without clusters")
    }
}

/// There never is one.
pub(super) struct RedisStore(Infallible);

impl RedisStore {
    pub(super) fn new(settings: &Settings, credentials: &Credentials) -> Result<Self, StoreError> {
        let _ = (
            settings.lifetime(),
            &credentials.password,
            &credentials.certificates,
        );
        Err(StoreError)
    }

    pub(super) fn connect(&self) -> Result<Infallible, StoreError> {
        match self.0 {}
    }
}

impl StreamStore for Infallible {
    type StoreError = StoreError;

    fn now_ms(&self) -> u64 {
        match *self {}
    }

    fn append(&mut self, _: &[(usize, Vec<u8>)]) -> Result<(), StoreError> {
        match *self {}
    }

    fn read(&mut self, _: &[EntryId; PARTITIONS], _: Duration) -> Result<Vec<Entry>, StoreError> {
        match *self {}
    }

    fn last_ids(&mut self) -> Result<[EntryId; PARTITIONS], StoreError> {
        match *self {}
    }

    fn fill_marker(&mut self) -> Result<Option<String>, StoreError> {
        match *self {}
    }

    fn set_filled(&mut self, _: &str) -> Result<(), StoreError> {
        match *self {}
    }

    fn try_lock_refill(&mut self, _: &str) -> Result<bool, StoreError> {
        match *self {}
    }

    fn forget_before(&mut self, _: u64) -> Result<(), StoreError> {
        match *self {}
    }

    fn keep_refilling(&mut self, _: &str) -> Result<(), StoreError> {
        match *self {}
    }

    fn downloads(&mut self, _: &mut dyn FnMut(Counter)) -> Result<(), StoreError> {
        match *self {}
    }

    fn set_downloads(&mut self, _: &[Counter]) -> Result<(), StoreError> {
        match *self {}
    }
}
