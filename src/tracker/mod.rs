//! What a tracker knows, and the one way in to it.
#![forbid(unsafe_code)]

mod types;

pub use types::{Announce, Class, Event, InfoHash, Key, PeerId, Refusal, ScrapeEntry, Time};
