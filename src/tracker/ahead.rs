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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tracker::{Announce, Event, PeerId, Random, Settings, Time};

    /// An announce of a peer of either family, in a torrent that has many peers or few.
    fn announce(random: &mut Random) -> Announce {
        let torrent = random.below(20).saturating_sub(10) as u8;
        let host = random.below(1000);
        let v4 = IpAddr::from(host.to_be_bytes());
        let v6 = IpAddr::from((0x2001_0db8_u128 << 96 | u128::from(host) << 64).to_be_bytes());
        Announce {
            info_hash: InfoHash([torrent; 20]),
            peer_id: PeerId([host as u8; 20]),
            key: None,
            address: if random.below(2) == 0 { v4 } else { v6 },
            port: NonZeroU16::MIN,
            event: match random.below(8) {
                0 => Event::Stopped,
                _ => Event::None,
            },
            complete: random.below(2) == 0,
            numwant: None,
        }
    }

    #[test]
    fn answers_are_the_same_with_and_without() {
        let settings = Settings {
            open: true,
            ..Settings::default()
        };
        let with = Tracker::new(settings.clone(), 1);
        let without = Tracker::new(settings, 1);
        let mut random = Random::new(2);
        for _ in 0..200 {
            let batch: Vec<_> = (0..64).map(|_| announce(&mut random)).collect();
            let mut sought = vec![Sought::new(InfoHash([0; 20]), None)];
            sought.extend(batch.iter().map(|announce| {
                Sought::new(announce.info_hash, Some((announce.address, announce.port)))
            }));
            with.look_ahead(&mut sought);
            for announce in &batch {
                let answers = [&with, &without].map(|tracker| {
                    let mut peers = Vec::new();
                    let answer = tracker.announce(Time(0), announce, &mut peers);
                    (answer, peers)
                });
                assert_eq!(answers[0], answers[1]);
            }
            assert_eq!(with.totals(), without.totals());
        }
        let large = with.scrape(&InfoHash([0; 20])).unwrap();
        assert!(large.complete + large.incomplete > 1000, "{large:?}");
    }
}
