//! The store of a build without the `redis` crate: there never is a connection. A configuration that names a store is
//! refused.

use std::convert::Infallible;
use std::time::Duration;

use crate::cluster::download_counters::DownloadCounter;
use crate::cluster::queue::PARTITIONS;
use crate::cluster::settings::{Credentials, Settings};
use crate::cluster::stream_store::{Entry, EntryId, StoreError, StreamStore};

/// A store that cannot be created.
pub(super) struct DisabledStore(Infallible);

impl DisabledStore {
    pub(super) fn new(settings: &Settings, credentials: &Credentials) -> Result<Self, StoreError> {
        let _ = (
            settings.lifetime(),
            &credentials.password,
            &credentials.ca_certificates,
        );
        Err(StoreError::new(
            "this tbtt was built without cluster support",
        ))
    }

    pub(super) fn connect(&self) -> Result<Infallible, StoreError> {
        match self.0 {}
    }
}

impl StreamStore for Infallible {
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

    fn try_lock_refill(&mut self, _: &str) -> Result<bool, StoreError> {
        match *self {}
    }

    fn extend_refill_lock(&mut self, _: &str) -> Result<(), StoreError> {
        match *self {}
    }

    fn finish_refill(&mut self, _: &str) -> Result<(), StoreError> {
        match *self {}
    }

    fn trim_before(&mut self, _: u64) -> Result<(), StoreError> {
        match *self {}
    }

    fn read_counters(&mut self, _: &mut dyn FnMut(DownloadCounter)) -> Result<(), StoreError> {
        match *self {}
    }

    fn write_counters(&mut self, _: &[DownloadCounter]) -> Result<(), StoreError> {
        match *self {}
    }
}
