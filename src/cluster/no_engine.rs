//! No engine: tbtt was built without the crate that speaks with one, and a configuration that names one is refused.

use std::convert::Infallible;
use std::fmt;
use std::time::Duration;

use super::{Credentials, Settings};
use crate::protocol::member::EntryId;
use crate::server::outbox::PARTITIONS;
use crate::tracker::downloads::{Counter, NodeId};

#[derive(Debug)]
pub(super) struct Lost;

impl Lost {
    pub(super) fn deaf() -> Self {
        Self
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("built without clusters")
    }
}

pub(super) struct Entry {
    pub(super) partition: usize,
    pub(super) id: EntryId,
    pub(super) batch: Vec<u8>,
}

pub(super) struct Engine(Infallible);

impl Engine {
    pub(super) fn new(_: &Settings, _: &Credentials) -> Result<Self, Lost> {
        Err(Lost)
    }

    pub(super) fn connect(&self) -> Result<Connection<'_>, Lost> {
        match self.0 {}
    }
}

#[derive(Clone, Copy)]
pub(super) struct Clock(Infallible);

impl Clock {
    pub(super) fn now(self) -> u64 {
        match self.0 {}
    }

    pub(super) fn age(self, _: EntryId) -> u64 {
        match self.0 {}
    }
}

pub(super) struct Connection<'e> {
    engine: &'e Engine,
    pub(super) clock: Clock,
}

impl Connection<'_> {
    pub(super) fn append(&mut self, _: &[(usize, Vec<u8>)]) -> Result<EntryId, Lost> {
        match self.engine.0 {}
    }

    pub(super) fn read(
        &mut self,
        _: &[EntryId; PARTITIONS],
        _: Duration,
    ) -> Result<Vec<Entry>, Lost> {
        match self.engine.0 {}
    }

    pub(super) fn last_ids(&mut self) -> Result<[EntryId; PARTITIONS], Lost> {
        match self.engine.0 {}
    }

    pub(super) fn filled(&mut self) -> Result<Option<String>, Lost> {
        match self.engine.0 {}
    }

    pub(super) fn set_filled(&mut self, _: &str) -> Result<(), Lost> {
        match self.engine.0 {}
    }

    pub(super) fn may_refill(&mut self, _: &str) -> Result<bool, Lost> {
        match self.engine.0 {}
    }

    pub(super) fn downloads(&mut self, _: impl FnMut(Counter)) -> Result<(), Lost> {
        match self.engine.0 {}
    }

    pub(super) fn set_downloads(&mut self, _: NodeId, _: &[Counter]) -> Result<(), Lost> {
        match self.engine.0 {}
    }
}
