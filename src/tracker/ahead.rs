//! A look at what a batch of requests will need, so that their waits for memory fall together.
//!
//! A torrent and a peer in it are found in half a dozen steps through memory, each of which waits for the one before. The
//! processor can wait for several requests at once, but only for what stands close together in the program: so here each
//! step is taken for all before the next. Nothing is changed or told, so no request depends on having been here.

use std::hint::black_box;
use std::net::IpAddr;
use std::num::NonZeroU16;

use super::swarm::Place;
use super::{InfoHash, Tracker};

/// A torrent, and a peer that may be in it, that a request names.
#[derive(Clone, Debug)]
pub struct Sought {
    info_hash: InfoHash,
    peer: Option<(IpAddr, NonZeroU16)>,
    hash: u64,
    place: Option<Place>,
    /// Where the torrent is in its shard.
    at: Option<usize>,
}

impl Sought {
    /// A scrape has no `peer`.
    pub fn new(info_hash: InfoHash, peer: Option<(IpAddr, NonZeroU16)>) -> Self {
        Self {
            info_hash,
            peer,
            hash: 0,
            place: None,
            at: None,
        }
    }
}

impl Tracker {
    /// Has the processor fetch what these requests will look at.
    pub fn look_ahead(&self, batch: &mut [Sought]) {
        for sought in &mut *batch {
            sought.hash = self.hash(&sought.info_hash);
            sought.place = sought
                .peer
                .map(|(address, port)| Place::new(address, port, &self.keyed));
        }
        for sought in &mut *batch {
            sought.at = self.shard(sought.hash).find(&sought.info_hash, sought.hash);
        }
        for sought in &*batch {
            let shard = self.shard(sought.hash);
            // Another worker may have moved it meanwhile.
            let torrent = sought.at.and_then(|at| shard.torrents.get(at));
            black_box(torrent.map(|torrent| torrent.swarm.indexed()));
        }
        for sought in &*batch {
            let Some(place) = &sought.place else { continue };
            let shard = self.shard(sought.hash);
            let torrent = sought.at.and_then(|at| shard.torrents.get(at));
            black_box(torrent.and_then(|torrent| torrent.swarm.heard_at(place)));
        }
    }
}
