//! The tracker beside a plain model of it: random histories, time in hand, compared after each step.
//!
//! `SEED=n cargo test --test simulation` replays one history.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;

use tbtt::tracker::{
    Admission, Announce, Event, InfoHash, Key, PeerId, Random, Refusal, ScrapeEntry, Settings,
    Time, Totals, Tracker, Walk,
};

/// What one peer is, told as plainly as can be.
#[derive(Clone, PartialEq)]
struct ModelPeer {
    /// Who it is over all families: `peer_id` and `key`, or else its own endpoint.
    host: String,
    class: &'static str,
    completed: bool,
    heard_minute: u32,
}

#[derive(Default)]
struct ModelTorrent {
    admission: Admission,
    /// Its counter is remembered for good.
    listed_once: bool,
    downloaded: u32,
    peers: HashMap<SocketAddr, ModelPeer>,
}

impl ModelTorrent {
    /// Somebody is in it or has named it.
    fn is_there(&self) -> bool {
        self.admission != Admission::Unnamed || !self.peers.is_empty()
    }

    /// How many peers of a family fit, for each host.
    fn by_host(&self, ipv4: bool, fits: impl Fn(&ModelPeer) -> bool) -> HashMap<&str, u32> {
        let mut count = HashMap::new();
        for (_, peer) in self
            .peers
            .iter()
            .filter(|(at, peer)| at.is_ipv4() == ipv4 && fits(peer))
        {
            *count.entry(peer.host.as_str()).or_insert(0) += 1;
        }
        count
    }

    /// Each host once, unless it has several addresses of one family.
    fn hosts(&self, fits: impl Fn(&ModelPeer) -> bool + Copy) -> u32 {
        let (v4, v6) = (self.by_host(true, fits), self.by_host(false, fits));
        let hosts: HashSet<_> = v4.keys().chain(v6.keys()).collect();
        hosts
            .iter()
            .map(|host| v4.get(**host).max(v6.get(**host)).unwrap())
            .sum()
    }

    fn counts(&self) -> ScrapeEntry {
        let partial = self.hosts(|peer| peer.class == "partial");
        ScrapeEntry {
            complete: self.hosts(|peer| peer.class == "seeder"),
            incomplete: self.hosts(|peer| peer.class == "leecher") + partial,
            partial,
            downloaded: self.downloaded,
        }
    }

    fn announce(&mut self, now: Time, announce: &Announce, max_per_network: usize) {
        let at = SocketAddr::new(announce.address, announce.port.get());
        let neighbours = self
            .peers
            .keys()
            .filter(|peer| network(peer.ip()) == network(at.ip()));
        if !self.peers.contains_key(&at) && neighbours.count() >= max_per_network {
            return;
        }
        let before = self.peers.remove(&at);
        if announce.event == Event::Stopped {
            return;
        }
        let completed_before = before.is_some_and(|peer| peer.completed);
        let completes = announce.complete && announce.event == Event::Completed;
        let host = match announce.key {
            Some(key) => format!("{:?} {key:?}", announce.peer_id),
            None => at.to_string(),
        };
        let completed_hosts = self.hosts(|peer| peer.completed);
        let class = match (announce.complete, announce.event) {
            (true, _) => "seeder",
            (false, Event::Paused) => "partial",
            (false, _) => "leecher",
        };
        let completed = completes || completed_before;
        self.peers.insert(
            at,
            ModelPeer {
                host,
                class,
                completed,
                heard_minute: now.0 / 60,
            },
        );
        if completes && !completed_before && self.hosts(|peer| peer.completed) > completed_hosts {
            self.downloaded += 1;
        }
    }
}

/// What shares the cap of peers: an IPv4 address, or an IPv6 /64.
fn network(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets()[..8].to_vec(),
    }
}

struct World {
    random: Random,
    now: Time,
    swept: Time,
    tracker: Tracker,
    settings: Settings,
    model: HashMap<InfoHash, ModelTorrent>,
    torrents: Vec<InfoHash>,
    seed: u64,
    /// How many addresses of each family and how many hosts there are.
    addresses: u32,
}

impl World {
    fn new(seed: u64, open: bool, addresses: u32) -> Self {
        let settings = Settings {
            open,
            max_numwant: 70,
            max_peers_per_network: 90,
            ..Settings::default()
        };
        Self {
            random: Random::new(seed),
            now: Time(1000),
            swept: Time(1000),
            tracker: Tracker::new(settings.clone(), seed),
            settings,
            model: HashMap::new(),
            torrents: (0..4).map(|i| InfoHash([i; 20])).collect(),
            seed,
            addresses,
        }
    }

    fn step(&mut self) {
        self.now = Time(self.now.0 + self.random.below(20));
        match self.random.below(400) {
            0 => self.admit(),
            1..4 => self.expire(),
            4 => self.restart(),
            _ if self.now.0 - self.swept.0 > 3600 => self.expire(),
            _ => self.announce(),
        }
    }

    fn announce(&mut self) {
        let random = &mut self.random;
        // The first torrents are busier than the last ones.
        let info_hash = self.torrents[random.below(4).min(random.below(4)) as usize];
        let number = random.below(self.addresses);
        let address: IpAddr = match random.below(3) {
            0 => format!("2001:db8:0:{:x}::{number:x}", number % 5)
                .parse()
                .unwrap(),
            _ => format!("10.0.{}.{}", number >> 8, number & 255)
                .parse()
                .unwrap(),
        };
        // Mostly a host is the same over both families; now and then clients share an id or lack a key.
        let host = if random.below(8) == 0 {
            random.below(self.addresses)
        } else {
            number
        };
        let mut peer_id = [b'-'; 20];
        peer_id[..4].copy_from_slice(&host.to_be_bytes());
        let events = [
            Event::None,
            Event::Started,
            Event::Completed,
            Event::Stopped,
            Event::Paused,
        ];
        let announce = Announce {
            info_hash,
            peer_id: PeerId(peer_id),
            key: (random.below(6) > 0).then_some(Key(host ^ 0xfeed)),
            address,
            port: NonZeroU16::new(6881 + u16::from(random.below(16) == 0)).unwrap(),
            event: events[random.below(5) as usize],
            complete: random.below(2) == 0,
            numwant: [None, Some(0), Some(1), Some(60), Some(u32::MAX)][random.below(5) as usize],
        };
        let mut peers = Vec::new();
        let result = self.tracker.announce(self.now, &announce, &mut peers);
        let admission = self
            .model
            .get(&info_hash)
            .map_or(Admission::Unnamed, |torrent| torrent.admission);
        let refusal = match admission {
            Admission::Denied => Some(Refusal::DeniedTorrent),
            Admission::Unnamed if !self.settings.open => Some(Refusal::UnknownTorrent),
            _ => None,
        };
        assert_eq!(result.as_ref().err().cloned(), refusal);
        let Ok(answer) = result else { return };
        let torrent = self.model.entry(info_hash).or_default();
        torrent.announce(self.now, &announce, self.settings.max_peers_per_network);
        assert_eq!(answer.counts, torrent.counts(), "{announce:?}");
        check_peers(torrent, &announce, &self.settings, &peers);
        self.forget();
    }

    fn admit(&mut self) {
        let info_hash = self.torrents[self.random.below(4) as usize];
        let admission = [
            Admission::Listed,
            Admission::Listed,
            Admission::Unnamed,
            Admission::Denied,
        ][self.random.below(4) as usize];
        self.tracker.admit(&info_hash, admission);
        let torrent = self.model.entry(info_hash).or_default();
        torrent.admission = admission;
        torrent.listed_once |= admission == Admission::Listed;
        if admission == Admission::Denied {
            torrent.peers.clear();
        }
        self.forget();
    }

    fn expire(&mut self) {
        self.swept = self.now;
        (0..Tracker::SLICES).for_each(|slice| self.tracker.expire(self.now, slice));
        self.expire_in_model();
    }

    fn expire_in_model(&mut self) {
        let minute = self.now.0 / 60;
        for torrent in self.model.values_mut() {
            torrent
                .peers
                .retain(|_, peer| minute - peer.heard_minute <= self.settings.peer_timeout / 60);
        }
        self.forget();
    }

    /// A remembered counter of 0 is none.
    fn forget(&mut self) {
        self.model.retain(|_, torrent| {
            torrent.is_there() || torrent.listed_once && torrent.downloaded > 0
        });
    }

    /// Another tracker goes on where this one is, some time later; who has named what, it is told before or after.
    fn restart(&mut self) {
        let (mut walk, mut block, mut blocks) = (Walk::default(), Vec::new(), Vec::new());
        while self.tracker.save(self.now, &mut walk, &mut block).is_some() {
            if !block.is_empty() {
                blocks.push(block.clone());
            }
        }
        let written_minute = self.now.0 / 60;
        self.now = Time(self.now.0 + self.random.below(3000));
        self.swept = self.now;
        self.tracker = Tracker::new(self.settings.clone(), self.seed);
        let before = self.random.below(2) == 0;
        if before {
            self.admit_all();
        }
        let passed_minutes = self.now.0 / 60 - written_minute;
        let mut restore = self.tracker.restore(self.now, passed_minutes);
        for block in &blocks {
            restore.take_in(block).expect("it was just written");
        }
        restore.finish();
        if !before {
            self.admit_all();
        }
        self.expire_in_model();
        for torrent in self.model.values_mut() {
            if torrent.peers.is_empty() && !torrent.listed_once {
                torrent.downloaded = 0;
            }
        }
        self.compare_totals();
        self.compare_counts();
    }

    fn admit_all(&self) {
        for (info_hash, torrent) in &self.model {
            if torrent.admission != Admission::Unnamed {
                self.tracker.admit(info_hash, torrent.admission);
            }
        }
    }

    fn compare_totals(&self) {
        let mut totals = Totals {
            torrents: self.model.values().filter(|t| t.is_there()).count(),
            ..Totals::default()
        };
        for torrent in self.model.values() {
            let v4 = torrent.peers.keys().filter(|at| at.is_ipv4()).count();
            totals.peers_v4 += v4;
            totals.peers_v6 += torrent.peers.len() - v4;
        }
        assert_eq!(self.tracker.totals(), totals);
    }

    fn compare_counts(&self) {
        for info_hash in &self.torrents {
            let served = |torrent: &&ModelTorrent| match torrent.admission {
                Admission::Listed => true,
                Admission::Unnamed => self.settings.open,
                Admission::Denied => false,
            };
            let expected = match self.model.get(info_hash) {
                None => self.settings.open.then(ScrapeEntry::default),
                Some(torrent) => Some(torrent).filter(served).map(ModelTorrent::counts),
            };
            assert_eq!(self.tracker.scrape(info_hash), expected);
        }
    }
}

/// As many as asked for and there are; each of the asker's family, another than the asker, once; for a seeder no seeder.
fn check_peers(torrent: &ModelTorrent, announce: &Announce, settings: &Settings, peers: &[u8]) {
    let asker = SocketAddr::new(announce.address, announce.port.get());
    let size = if asker.is_ipv4() { 6 } else { 18 };
    assert_eq!(peers.len() % size, 0);
    let given: Vec<SocketAddr> = peers
        .chunks(size)
        .map(|peer| {
            let (address, port) = peer.split_at(size - 2);
            let address = match <[u8; 4]>::try_from(address) {
                Ok(v4) => IpAddr::from(v4),
                Err(_) => IpAddr::from(<[u8; 16]>::try_from(address).unwrap()),
            };
            SocketAddr::new(address, u16::from_be_bytes(port.try_into().unwrap()))
        })
        .collect();
    let fits = |at: &SocketAddr| {
        let peer = &torrent.peers[at];
        *at != asker
            && at.is_ipv4() == asker.is_ipv4()
            && !(announce.complete && peer.class == "seeder")
    };
    assert!(given.iter().all(fits), "{announce:?} was given {given:?}");
    assert_eq!(
        given.iter().collect::<HashSet<_>>().len(),
        given.len(),
        "a peer was given twice"
    );
    let want = announce
        .numwant
        .unwrap_or(settings.numwant)
        .min(settings.max_numwant) as usize;
    let there = torrent.peers.keys().filter(|at| fits(at)).count();
    let expected = if announce.event == Event::Stopped {
        0
    } else {
        want.min(there)
    };
    assert_eq!(given.len(), expected, "{announce:?}");
}

fn simulate(open: bool, addresses: u32, steps: u32) {
    let seeds = match std::env::var("SEED") {
        Ok(seed) => vec![seed.parse().expect("SEED is a number")],
        Err(_) => vec![1, 2, 3],
    };
    for seed in seeds {
        eprintln!("replay with SEED={seed}");
        let mut world = World::new(seed, open, addresses);
        for step in 0..steps {
            world.step();
            if step % 100 == 0 {
                world.compare_totals();
                world.compare_counts();
            }
        }
    }
}

#[test]
fn small_swarms_agree_with_the_model() {
    simulate(true, 12, 30_000);
}

#[test]
fn indexed_swarms_agree_with_the_model() {
    simulate(true, 700, 8_000);
}

#[test]
fn listed_torrents_agree_with_the_model() {
    simulate(false, 40, 10_000);
}

/// Each of 1,000 peers is as likely as any other: 200,000 choices, 200 expected of each, 60 is over four standard deviations.
#[test]
fn every_peer_is_as_likely_as_any_other() {
    let tracker = Tracker::new(
        Settings {
            open: true,
            ..Settings::default()
        },
        7,
    );
    let announce = |number: u32, numwant| Announce {
        info_hash: InfoHash([9; 20]),
        peer_id: PeerId([1; 20]),
        key: None,
        address: std::net::Ipv4Addr::from(0x0a00_0000 + number).into(),
        port: NonZeroU16::MIN,
        event: Event::None,
        complete: false,
        numwant: Some(numwant),
    };
    let mut given = vec![0; 1001];
    let mut peers = Vec::new();
    for number in 0..=1000 {
        tracker
            .announce(Time(0), &announce(number, 0), &mut peers)
            .unwrap();
    }
    for _ in 0..4000 {
        peers.clear();
        tracker
            .announce(Time(0), &announce(1000, 50), &mut peers)
            .unwrap();
        assert_eq!(peers.len(), 50 * 6);
        peers
            .chunks(6)
            .for_each(|peer| given[usize::from(peer[2]) << 8 | usize::from(peer[3])] += 1);
    }
    assert_eq!(given.pop(), Some(0), "the asker is never given itself");
    let (least, most) = (given.iter().min().unwrap(), given.iter().max().unwrap());
    assert!(
        (140..=260).contains(least) && (140..=260).contains(most),
        "from {least} to {most}"
    );
}
