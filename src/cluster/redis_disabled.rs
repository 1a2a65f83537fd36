//! No engine: tbtt was built without the crate that speaks with one, and a configuration that names one is refused.

use std::convert::Infallible;
use std::fmt;
use std::time::Duration;

use super::{Credentials, Entry, Line, Settings};
use crate::cluster::download_counters::Counter;
use crate::cluster::queue::PARTITIONS;
use crate::cluster::resync::EntryId;

#[derive(Debug)]
pub struct Lost;

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("built without clusters")
    }
}

/// There never is one.
pub(super) struct Engine(Infallible);

impl Engine {
    pub(super) fn new(settings: &Settings, credentials: &Credentials) -> Result<Self, Lost> {
        let _ = (
            settings.lifetime(),
            &credentials.password,
            &credentials.certificates,
        );
        Err(Lost)
    }

    pub(super) fn connect(&self) -> Result<Infallible, Lost> {
        match self.0 {}
    }
}

impl Line for Infallible {
    type Lost = Lost;

    fn now_ms(&self) -> u64 {
        match *self {}
    }

    fn append(&mut self, _: &[(usize, Vec<u8>)]) -> Result<(), Lost> {
        match *self {}
    }

    fn read(&mut self, _: &[EntryId; PARTITIONS], _: Duration) -> Result<Vec<Entry>, Lost> {
        match *self {}
    }

    fn last_ids(&mut self) -> Result<[EntryId; PARTITIONS], Lost> {
        match *self {}
    }

    fn filled(&mut self) -> Result<Option<String>, Lost> {
        match *self {}
    }

    fn set_filled(&mut self, _: &str) -> Result<(), Lost> {
        match *self {}
    }

    fn may_refill(&mut self, _: &str) -> Result<bool, Lost> {
        match *self {}
    }

    fn forget_before(&mut self, _: u64) -> Result<(), Lost> {
        match *self {}
    }

    fn keep_refilling(&mut self, _: &str) -> Result<(), Lost> {
        match *self {}
    }

    fn downloads(&mut self, _: &mut dyn FnMut(Counter)) -> Result<(), Lost> {
        match *self {}
    }

    fn set_downloads(&mut self, _: &[Counter]) -> Result<(), Lost> {
        match *self {}
    }
}
