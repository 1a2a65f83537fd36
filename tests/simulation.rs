//! Compares the tracker with a plain model after each step of a simulation: clients over days, a network that loses,
//! repeats and delays announces, an operator that changes settings, suspensions and restarts. The simulation controls
//! the time.
//!
//! `SEED=n cargo test --test simulation` replays the history of a seed in each test.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU16;

use ipnet::IpNet;
use tbtt::tracker::Tracker;
use tbtt::tracker::access::AccessList;
use tbtt::tracker::dump::DumpCursor;
use tbtt::tracker::rng::Rng;
use tbtt::tracker::settings::{AccessPolicy, Notice, Settings};
use tbtt::tracker::types::{
    Admission, Announce, Class, Event, Family, InfoHash, Key, PeerId, PerFamily, Refusal,
    ScrapeEntry, Time, Totals,
};

/// The identity of a host over both address families: `peer_id` and `key`, or its endpoint if it has no key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Host {
    Named([u8; 20], u32),
    Endpoint(SocketAddr),
}

/// A count that a host is part of.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Role {
    Leecher,
    Partial,
    Seeder,
    Completed,
}

/// A network whose peers share a limit: an IPv4 address, or an IPv6 /64.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Network {
    V4(Ipv4Addr),
    V6(u64),
}

impl Network {
    fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self::V4(v4),
            IpAddr::V6(v6) => Self::V6((v6.to_bits() >> 64) as u64),
        }
    }
}

/// A peer in the model.
#[derive(Clone, Copy, PartialEq, Debug)]
struct ModelPeer {
    host: Host,
    class: Class,
    completed: bool,
    announce_minute: u32,
}

impl ModelPeer {
    fn roles(&self) -> impl Iterator<Item = Role> + use<> {
        let class = match self.class {
            Class::Leecher => Role::Leecher,
            Class::Partial => Role::Partial,
            Class::Seeder => Role::Seeder,
        };
        let completed = self.completed.then_some(Role::Completed);
        std::iter::once(class).chain(completed)
    }
}

#[derive(Clone, Default)]
struct ModelTorrent {
    admission: Admission,
    /// The torrent is or was listed: its counter is kept without peers.
    was_listed: bool,
    downloaded: u32,
    peers: HashMap<SocketAddr, ModelPeer>,
    /// Counts of the peers. They are updated with each change, as counting all peers after each step would take hours. At
    /// intervals they are compared with a full count.
    tally: Tally,
}

#[derive(Clone, Default, PartialEq, Debug)]
struct Tally {
    networks: HashMap<Network, usize>,
    /// The number of endpoints that a host has in a role.
    roles: HashMap<(Host, Role), PerFamily<u32>>,
    /// Each host counts once, unless it has several addresses of the same family.
    hosts: HashMap<Role, u32>,
    peers: PerFamily<usize>,
    seeders: PerFamily<usize>,
}

impl Tally {
    fn add(&mut self, at: SocketAddr, peer: &ModelPeer) {
        *self.networks.entry(Network::of(at.ip())).or_insert(0) += 1;
        let family = family(at);
        self.peers[family] += 1;
        self.seeders[family] += usize::from(peer.class == Class::Seeder);
        for role in peer.roles() {
            let endpoints = self.roles.entry((peer.host, role)).or_default();
            let before = endpoints.v4.max(endpoints.v6);
            endpoints[family] += 1;
            *self.hosts.entry(role).or_insert(0) += endpoints.v4.max(endpoints.v6) - before;
        }
    }

    fn remove(&mut self, at: SocketAddr, peer: &ModelPeer) {
        let neighbors = self.networks.get_mut(&Network::of(at.ip())).unwrap();
        *neighbors -= 1;
        if *neighbors == 0 {
            self.networks.remove(&Network::of(at.ip()));
        }
        let family = family(at);
        self.peers[family] -= 1;
        self.seeders[family] -= usize::from(peer.class == Class::Seeder);
        for role in peer.roles() {
            let endpoints = self.roles.get_mut(&(peer.host, role)).unwrap();
            let before = endpoints.v4.max(endpoints.v6);
            endpoints[family] -= 1;
            *self.hosts.get_mut(&role).unwrap() -= before - endpoints.v4.max(endpoints.v6);
            if *endpoints == PerFamily::default() {
                self.roles.remove(&(peer.host, role));
            }
        }
    }

    fn hosts(&self, role: Role) -> u32 {
        self.hosts.get(&role).copied().unwrap_or(0)
    }
}

fn family(at: SocketAddr) -> Family {
    match at {
        SocketAddr::V4(_) => Family::V4,
        SocketAddr::V6(_) => Family::V6,
    }
}

impl ModelTorrent {
    /// Returns whether the tracker has the torrent: it has peers, or is listed or denied.
    fn exists(&self) -> bool {
        self.admission != Admission::Unlisted || !self.peers.is_empty()
    }

    fn insert(&mut self, at: SocketAddr, peer: ModelPeer) {
        self.tally.add(at, &peer);
        self.peers.insert(at, peer);
    }

    fn remove(&mut self, at: SocketAddr) -> Option<ModelPeer> {
        let peer = self.peers.remove(&at)?;
        self.tally.remove(at, &peer);
        Some(peer)
    }

    fn clear(&mut self) {
        self.peers.clear();
        self.tally = Tally::default();
    }

    /// Keeps the peers for which `keeps` returns a minute, in which the peer seems to have announced.
    fn retain(&mut self, keeps: impl Fn(&ModelPeer) -> Option<u32>) {
        let tally = &mut self.tally;
        self.peers.retain(|at, peer| match keeps(peer) {
            Some(minute) => {
                peer.announce_minute = minute;
                true
            }
            None => {
                tally.remove(*at, peer);
                false
            }
        });
    }

    fn counts(&self) -> ScrapeEntry {
        let partial = self.tally.hosts(Role::Partial);
        ScrapeEntry {
            complete: self.tally.hosts(Role::Seeder),
            incomplete: self.tally.hosts(Role::Leecher) + partial,
            partial,
            downloaded: self.downloaded,
        }
    }

    /// Counts all peers and compares the result with the tally.
    fn verify_tally(&self) {
        let mut whole = Tally::default();
        for (at, peer) in &self.peers {
            *whole.networks.entry(Network::of(at.ip())).or_insert(0) += 1;
            let family = family(*at);
            whole.peers[family] += 1;
            whole.seeders[family] += usize::from(peer.class == Class::Seeder);
            for role in peer.roles() {
                whole.roles.entry((peer.host, role)).or_default()[family] += 1;
            }
        }
        for ((_, role), PerFamily { v4, v6 }) in &whole.roles {
            *whole.hosts.entry(*role).or_insert(0) += v4.max(v6);
        }
        let mut kept = self.tally.clone();
        kept.hosts.retain(|_, hosts| *hosts > 0);
        assert_eq!(kept, whole, "the model's tally is wrong");
    }

    fn announce(&mut self, now: Time, announce: &Announce, max_per_network: usize) {
        let at = SocketAddr::new(announce.address, announce.port.get());
        let neighbors = self.tally.networks.get(&Network::of(at.ip()));
        let is_full = neighbors.is_some_and(|&neighbors| neighbors >= max_per_network);
        if is_full && !self.peers.contains_key(&at) {
            return;
        }
        let before = self.remove(at);
        if announce.event == Event::Stopped {
            return;
        }
        let completed_before = before.is_some_and(|peer| peer.completed);
        let completes = announce.complete && announce.event == Event::Completed;
        let completed_hosts = self.tally.hosts(Role::Completed);
        let peer = ModelPeer {
            host: match announce.key {
                Some(Key(key)) => Host::Named(announce.peer_id.0, key),
                None => Host::Endpoint(at),
            },
            class: match (announce.complete, announce.event) {
                (true, _) => Class::Seeder,
                (false, Event::Paused) => Class::Partial,
                (false, _) => Class::Leecher,
            },
            completed: completes || completed_before,
            announce_minute: now.0 / 60,
        };
        self.insert(at, peer);
        if completes && !completed_before && self.tally.hosts(Role::Completed) > completed_hosts {
            self.downloaded += 1;
        }
    }
}

/// A client program on a host with one or two addresses.
struct Client {
    number: u32,
    addresses: Vec<SocketAddr>,
    /// The number of times that the program has started. Each run has peer ids of its own.
    run: u32,
    /// The torrent that the program downloads or seeds, if it runs.
    torrent: Option<InfoHash>,
    complete: bool,
}

impl Client {
    fn announce(&self, torrent: InfoHash, event: Event, random: &mut Rng) -> Vec<Announce> {
        let mut peer_id = [b'-'; 20];
        // Some programs share an id, and some have no key.
        let number = self.number / (1 + u32::from(self.number % 16 == 0));
        peer_id[..4].copy_from_slice(&number.to_be_bytes());
        peer_id[4..8].copy_from_slice(&self.run.to_be_bytes());
        let key = (self.number % 7 > 0).then_some(Key(number ^ 0xfeed));
        let numwant = [
            Some(0),
            Some(1),
            Some(3),
            Some(3),
            Some(10),
            Some(30),
            None,
            Some(u32::MAX),
        ][random.below(8) as usize];
        let of = |at: &SocketAddr| Announce {
            info_hash: torrent,
            peer_id: PeerId(peer_id),
            key,
            address: at.ip(),
            port: NonZeroU16::new(at.port()).unwrap(),
            event,
            complete: self.complete,
            numwant,
        };
        self.addresses.iter().map(of).collect()
    }
}

/// A scheduled event.
enum Scheduled {
    /// The client of this number takes its next action.
    Turn(usize),
    /// An announce reaches the tracker.
    Arrival(Announce),
    Sweep,
}

/// A snapshot, and the model at its time.
struct Saved {
    blocks: Vec<Vec<u8>>,
    time: Time,
    wall: u64,
    torrents: HashMap<InfoHash, ModelTorrent>,
}

/// The parameters of a simulation.
#[derive(Clone, Copy)]
struct Scenario {
    clients: u32,
    torrents: u32,
    /// The number of clients that share an address.
    clients_per_address: u32,
    open: bool,
    /// The operator acts once in so many steps.
    steps_per_operation: u32,
    steps: u32,
}

struct World {
    scenario: Scenario,
    seed: u64,
    random: Rng,
    /// The simulated time, in seconds.
    wall: u64,
    /// The tracker's time at a simulated time.
    origin: (Time, u64),
    tracker: Tracker,
    settings: Settings,
    denied: Vec<IpNet>,
    allowed: Vec<IpNet>,
    withdrawn: HashSet<InfoHash>,
    model: HashMap<InfoHash, ModelTorrent>,
    torrents: Vec<InfoHash>,
    clients: Vec<Client>,
    schedule: BTreeMap<(u64, u64), Scheduled>,
    serial: u64,
    saved: Saved,
    swept: Option<Time>,
}

const DAY: u64 = 24 * 3600;

/// Seconds between sweeps of all shards; much shorter than the 256 minutes after which ages wrap.
const SWEEP_INTERVAL: u64 = 400;

impl World {
    fn new(seed: u64, scenario: Scenario) -> Self {
        let settings = Settings {
            open: scenario.open,
            max_numwant: 70,
            ..Settings::default()
        };
        let mut random = Rng::new(seed);
        let origin = (Time(random.below(1_000_000)), 0);
        let mut world = Self {
            scenario,
            seed,
            wall: 0,
            origin,
            tracker: Tracker::new(settings.clone(), seed),
            settings,
            denied: Vec::new(),
            allowed: Vec::new(),
            withdrawn: HashSet::new(),
            model: HashMap::new(),
            torrents: (0..scenario.torrents)
                .map(|number| InfoHash(std::array::from_fn(|at| (number >> (at % 4 * 8)) as u8)))
                .collect(),
            clients: Vec::new(),
            schedule: BTreeMap::new(),
            serial: 0,
            saved: Saved {
                blocks: Vec::new(),
                time: origin.0,
                wall: 0,
                torrents: HashMap::new(),
            },
            swept: None,
            random,
        };
        for number in 0..scenario.clients {
            world.add_client(number);
        }
        if !scenario.open {
            for torrent in world.torrents.clone() {
                world.set_admission(torrent, Admission::Listed);
            }
        }
        world.schedule_in(SWEEP_INTERVAL, Scheduled::Sweep);
        world
    }

    /// Adds a client with addresses that others may share.
    fn add_client(&mut self, number: u32) {
        let place = number / self.scenario.clients_per_address;
        let port = 6881 + (number % self.scenario.clients_per_address) as u16;
        let v4 = SocketAddr::new(Ipv4Addr::from(0x0a00_0000 + place).into(), port);
        let prefix = 0x2001_0db8_u128 << 96 | u128::from(place / 8) << 64;
        let v6 = Ipv6Addr::from(prefix | u128::from(place) << 8);
        let v6 = SocketAddr::new(v6.into(), port);
        let addresses = match self.random.below(4) {
            0 => vec![v4, v6],
            1 => vec![v6],
            _ => vec![v4],
        };
        self.clients.push(Client {
            number,
            addresses,
            run: 0,
            torrent: None,
            complete: false,
        });
        let first = self.random.below(self.settings.interval).into();
        self.schedule_in(first, Scheduled::Turn(number as usize));
    }

    fn now(&self) -> Time {
        Time(self.origin.0.0 + (self.wall - self.origin.1) as u32)
    }

    fn schedule_in(&mut self, seconds: u64, what: Scheduled) {
        self.serial += 1;
        self.schedule
            .insert((self.wall + seconds, self.serial), what);
    }

    fn torrent(&mut self) -> InfoHash {
        // The first torrents have more clients than the last.
        let all = self.torrents.len() as u32;
        let number = self
            .random
            .below(all)
            .min(self.random.below(all))
            .min(self.random.below(all));
        self.torrents[number as usize]
    }

    /// Continues until the tracker has been called.
    fn step(&mut self) {
        if self.random.below(self.scenario.steps_per_operation) == 0 {
            return self.operator_acts();
        }
        loop {
            let ((wall, _), what) = self.schedule.pop_first().expect("there are clients");
            // Events that were due during a suspension happen after it.
            self.wall = self.wall.max(wall);
            match what {
                Scheduled::Turn(client) => self.turn(client),
                Scheduled::Arrival(announce) => return self.announce(&announce),
                Scheduled::Sweep => {
                    self.schedule_in(SWEEP_INTERVAL, Scheduled::Sweep);
                    return self.sweep();
                }
            }
        }
    }

    /// A client starts, continues, completes, pauses, stops, or disappears without an announce.
    fn turn(&mut self, number: usize) {
        let torrent = match self.clients[number].torrent {
            Some(torrent) => torrent,
            None => self.torrent(),
        };
        let (random, client) = (&mut self.random, &mut self.clients[number]);
        let chance = random.below(100);
        let event = if client.torrent.is_none() {
            client.run += 1;
            client.complete = chance < 20;
            Some(Event::Started)
        } else if chance < 3 {
            None
        } else if chance < 12 {
            Some(Event::Stopped)
        } else if chance < 30 && !client.complete {
            client.complete = true;
            Some(Event::Completed)
        } else if chance < 35 {
            Some(Event::Paused)
        } else if chance < 37 {
            // A client should not send this event now.
            Some(Event::Completed)
        } else {
            Some(Event::None)
        };
        let continues = !matches!(event, None | Some(Event::Stopped));
        client.torrent = continues.then_some(torrent);
        let announces = match event {
            Some(event) => client.announce(torrent, event, random),
            None => Vec::new(),
        };
        let interval = self.settings.interval;
        let next = match continues {
            true => interval * 9 / 10 + random.below(interval / 5),
            false => random.below(2 * interval),
        };
        self.schedule_in(next.into(), Scheduled::Turn(number));
        for announce in announces {
            self.send(announce);
        }
    }

    /// Sends an announce over a network that loses some announces or their responses, so that the client retries, and that
    /// repeats and delays some.
    fn send(&mut self, announce: Announce) {
        for attempt in 0..3 {
            let chance = self.random.below(100);
            let delay = match self.random.below(50) {
                0 => self.random.below(3600),
                _ => self.random.below(3),
            };
            let sent = attempt * 15;
            if chance >= 5 {
                self.schedule_in((sent + delay).into(), Scheduled::Arrival(announce));
            }
            if chance >= 97 {
                let repeat = self.random.below(60);
                self.schedule_in((sent + delay + repeat).into(), Scheduled::Arrival(announce));
            }
            // The client has received a response.
            if chance >= 10 {
                return;
            }
        }
    }

    fn announce(&mut self, announce: &Announce) {
        let now = self.now();
        let info_hash = announce.info_hash;
        let mut peers = Vec::new();
        let result = self.tracker.announce(now, announce, &mut peers);
        let admission = self
            .model
            .get(&info_hash)
            .map_or(Admission::Unlisted, |torrent| torrent.admission);
        let refusal = match admission {
            _ if !self.admits(announce.address) => Some(Refusal::Address),
            _ if self.withdrawn.contains(&info_hash) => Some(Refusal::Withdrawn("gone".into())),
            Admission::Denied => Some(Refusal::DeniedTorrent),
            Admission::Unlisted if !self.settings.open => Some(Refusal::UnknownTorrent),
            _ => None,
        };
        assert_eq!(result.as_ref().err().cloned(), refusal);
        if let Ok(response) = result {
            let torrent = self.model.entry(info_hash).or_default();
            torrent.announce(now, announce, self.settings.max_peers_per_network);
            assert_eq!(response.counts, torrent.counts(), "{announce:?}");
            assert_eq!(response.interval, self.settings.interval);
            check_peers(torrent, announce, &self.settings, &peers);
            self.forget(info_hash);
        }
        self.compare_counts(info_hash);
    }

    /// The most specific network decides, and a denial wins over an equally specific permission. An address on no list is
    /// admitted unless there is an allow list.
    fn admits(&self, address: IpAddr) -> bool {
        let longest = |networks: &[IpNet]| {
            let holding = networks.iter().filter(|network| network.contains(&address));
            holding.map(IpNet::prefix_len).max()
        };
        match (longest(&self.allowed), longest(&self.denied)) {
            (None, None) => self.allowed.is_empty(),
            (allowed, denied) => allowed > denied,
        }
    }

    /// An action of the operator, or a restart or suspension of the machine.
    fn operator_acts(&mut self) {
        match self.random.below(16) {
            0..4 => {
                let torrent = self.torrent();
                let admission = [
                    Admission::Listed,
                    Admission::Listed,
                    Admission::Unlisted,
                    Admission::Denied,
                ][self.random.below(4) as usize];
                self.set_admission(torrent, admission);
            }
            4..6 => self.withdraw(),
            6..9 => self.reload(),
            9..12 => self.save(),
            12 => self.restart(true),
            13 => self.restart(false),
            14 => self.suspend(),
            _ => self.sweep(),
        }
        self.compare_totals();
        for torrent in self.torrents.clone() {
            self.compare_counts(torrent);
        }
    }

    fn set_admission(&mut self, info_hash: InfoHash, admission: Admission) {
        self.tracker.set_admission(&info_hash, admission);
        let torrent = self.model.entry(info_hash).or_default();
        torrent.admission = admission;
        torrent.was_listed |= admission == Admission::Listed;
        if admission == Admission::Denied {
            torrent.clear();
        }
        self.forget(info_hash);
    }

    fn withdraw(&mut self) {
        let torrent = self.torrent();
        if !self.withdrawn.remove(&torrent) {
            self.withdrawn.insert(torrent);
        }
        let notice = self.withdrawn.contains(&torrent).then(notice);
        self.tracker.set_notice(torrent, notice);
    }

    /// Replaces the settings.
    fn reload(&mut self) {
        let random = &mut self.random;
        let mut one_of = |choices: &[u32]| choices[random.below(choices.len() as u32) as usize];
        self.settings.interval = one_of(&[900, 1800]);
        self.settings.peer_timeout = one_of(&[120, 1000, 2700, 2700, 7200]);
        self.settings.max_peers_per_network = one_of(&[1, 3, 64, 1000]) as usize;
        self.settings.numwant = one_of(&[0, 5, 50]);
        self.settings.max_numwant = one_of(&[1, 70, 200]);
        self.settings.open = one_of(&[0, 1, 1, 1]) == u32::from(self.scenario.open);
        self.denied.clear();
        self.allowed.clear();
        // Most of the time there are no such lists.
        for choice in 0..4 {
            let network = match random.below(16) {
                0 => format!("10.0.{}.0/{}", random.below(16), 20 + random.below(13)),
                1 => format!(
                    "2001:db8:0:{:x}::/{}",
                    random.below(512),
                    52 + random.below(13)
                ),
                2 => "10.0.0.0/8".to_owned(),
                _ => continue,
            };
            let network: IpNet = network.parse().unwrap();
            match choice {
                0 => self.allowed.push(network.trunc()),
                _ => self.denied.push(network.trunc()),
            }
        }
        let access = AccessList::new(self.allowed.clone(), self.denied.clone());
        self.settings.announces = AccessPolicy {
            access,
            rate_limiter: None,
        };
        self.tracker.set_settings(self.settings.clone());
    }

    fn save(&mut self) {
        let (mut cursor, mut block, mut blocks) = (DumpCursor::default(), Vec::new(), Vec::new());
        let time = self.now();
        while self
            .tracker
            .dump_block(time, &mut cursor, &mut block)
            .is_some()
        {
            if !block.is_empty() {
                blocks.push(block.clone());
            }
        }
        self.saved = Saved {
            blocks,
            time,
            wall: self.wall,
            torrents: self.model.clone(),
        };
    }

    /// Replaces the tracker by a new tracker with the state of a snapshot: a snapshot of now after a clean shutdown,
    /// the last snapshot after a crash.
    fn restart(&mut self, clean: bool) {
        if clean {
            self.save();
        }
        self.wall += match self.random.below(8) {
            0 => u64::from(self.random.below(2 * DAY as u32)),
            1 | 2 => u64::from(self.random.below(3000)),
            _ => u64::from(self.random.below(3)),
        };
        // The time that has passed by the system's clock, which may have been set back, or far ahead.
        let passed = match self.random.below(10) {
            0 => 0,
            1 => 30 * DAY,
            _ => self.wall - self.saved.wall,
        };
        let written = self.saved.time;
        self.origin = (Time(written.0 + passed as u32), self.wall);
        let now = self.now();
        self.swept = None;
        self.tracker = Tracker::new(self.settings.clone(), self.seed);
        for torrent in &self.withdrawn {
            self.tracker.set_notice(*torrent, Some(notice()));
        }
        let admissions: Vec<_> = self
            .model
            .iter()
            .map(|(info_hash, torrent)| (*info_hash, torrent.admission))
            .filter(|(_, admission)| *admission != Admission::Unlisted)
            .collect();
        // Torrents are listed and denied before or after the snapshot is restored.
        let before = self.random.below(2) == 0;
        let admit = |tracker: &Tracker| {
            admissions
                .iter()
                .for_each(|(info_hash, admission)| tracker.set_admission(info_hash, *admission));
        };
        if before {
            admit(&self.tracker);
        }
        let passed_minutes = now.0 / 60 - written.0 / 60;
        let mut restore = self.tracker.restore(now, passed_minutes);
        for block in &self.saved.blocks {
            restore
                .restore_block(block)
                .expect("the block was dumped by the tracker");
        }
        restore.finish();
        if !before {
            admit(&self.tracker);
        }
        self.model = std::mem::take(&mut self.saved.torrents);
        let admissions: HashMap<_, _> = admissions.into_iter().collect();
        self.restart_model(now, passed_minutes, &admissions, before);
        // The snapshot still exists.
        self.save();
    }

    fn restart_model(
        &mut self,
        now: Time,
        passed_minutes: u32,
        admissions: &HashMap<InfoHash, Admission>,
        before: bool,
    ) {
        let timeout = self.settings.peer_timeout.div_ceil(60);
        let written_minute = now.0 / 60 - passed_minutes;
        for (info_hash, torrent) in &mut self.model {
            // Of a torrent without peers only a counter is saved, if it was listed.
            let is_written =
                !torrent.peers.is_empty() || torrent.was_listed && torrent.downloaded > 0;
            torrent.retain(|peer| {
                let age = written_minute - peer.announce_minute + passed_minutes;
                (age <= timeout).then_some(peer.announce_minute)
            });
            let is_found = before && admissions.contains_key(info_hash);
            if !is_written || !is_found && torrent.peers.is_empty() && !torrent.was_listed {
                *torrent = ModelTorrent::default();
            }
            torrent.admission = Admission::Unlisted;
        }
        for (info_hash, admission) in admissions {
            let torrent = self.model.entry(*info_hash).or_default();
            torrent.admission = *admission;
            torrent.was_listed |= *admission == Admission::Listed;
            if *admission == Admission::Denied {
                torrent.clear();
            }
        }
        for torrent in self.torrents.clone() {
            self.forget(torrent);
        }
    }

    /// The process or the whole machine is suspended for hours. The sweep after that finds a few clients that have
    /// announced since.
    fn suspend(&mut self) {
        self.sweep();
        self.wall += u64::from(self.random.below(12 * 3600));
        let end = self.wall + 60;
        for _ in 0..20 {
            let torrent = self.torrent();
            let number = self.random.below(self.scenario.clients) as usize;
            for announce in self.clients[number].announce(torrent, Event::None, &mut self.random) {
                self.announce(&announce);
            }
            self.wall = (self.wall + u64::from(self.random.below(6))).min(end);
        }
        self.sweep();
    }

    fn sweep(&mut self) {
        let now = self.now();
        (0..Tracker::SLICES).for_each(|slice| self.tracker.expire(now, slice));
        let minute = now.0 / 60;
        let timeout = self.settings.peer_timeout.div_ceil(60);
        let since = minute - self.swept.replace(now).unwrap_or(now).0 / 60;
        // After a suspension only the peers remain that have announced since.
        let limit = if since > timeout {
            timeout.min(2)
        } else {
            timeout
        };
        for torrent in self.model.values_mut() {
            torrent.retain(|peer| {
                let age = minute - peer.announce_minute;
                // Ages wrap: of the peers from before, a few seem young.
                (age % 256 <= limit).then(|| minute - age % 256)
            });
        }
        for torrent in self.torrents.clone() {
            self.forget(torrent);
        }
    }

    /// Removes a torrent of which the tracker keeps nothing. A counter of 0 is not kept.
    fn forget(&mut self, info_hash: InfoHash) {
        let is_kept = |torrent: &ModelTorrent| {
            torrent.exists() || torrent.was_listed && torrent.downloaded > 0
        };
        if self
            .model
            .get(&info_hash)
            .is_some_and(|torrent| !is_kept(torrent))
        {
            self.model.remove(&info_hash);
        }
    }

    fn compare_totals(&self) {
        let mut totals = Totals {
            torrents: self.model.values().filter(|t| t.exists()).count(),
            ..Totals::default()
        };
        for torrent in self.model.values() {
            totals.peers += torrent.tally.peers;
        }
        assert_eq!(self.tracker.totals(), totals);
    }

    fn compare_counts(&self, info_hash: InfoHash) {
        let served = |torrent: &&ModelTorrent| match torrent.admission {
            Admission::Listed => true,
            Admission::Unlisted => self.settings.open,
            Admission::Denied => false,
        };
        let expected = match self.model.get(&info_hash) {
            None => self.settings.open.then(ScrapeEntry::default),
            Some(torrent) => Some(torrent).filter(served).map(ModelTorrent::counts),
        };
        assert_eq!(self.tracker.scrape(&info_hash), expected);
    }
}

fn notice() -> Notice {
    Notice {
        warning: None,
        failure: Some("gone".to_owned()),
    }
}

/// Checks the peers in a response: as many as requested and available, of the requester's family, each once, not the
/// requester itself, and no seeder for a seeder.
fn check_peers(torrent: &ModelTorrent, announce: &Announce, settings: &Settings, peers: &[u8]) {
    let requester = SocketAddr::new(announce.address, announce.port.get());
    let size = if requester.is_ipv4() { 6 } else { 18 };
    assert_eq!(peers.len() % size, 0);
    let seeders_too = !announce.complete;
    let mut given = HashSet::new();
    for peer in peers.chunks(size) {
        let (address, port) = peer.split_at(size - 2);
        let address = match <[u8; 4]>::try_from(address) {
            Ok(v4) => IpAddr::from(v4),
            Err(_) => IpAddr::from(<[u8; 16]>::try_from(address).unwrap()),
        };
        let at = SocketAddr::new(address, u16::from_be_bytes(port.try_into().unwrap()));
        let class = torrent
            .peers
            .get(&at)
            .expect("the peer is in the swarm")
            .class;
        assert!(at != requester, "{announce:?} received itself");
        assert!(
            seeders_too || class != Class::Seeder,
            "{announce:?} received {at}"
        );
        assert!(given.insert(at), "{announce:?} received {at} twice");
    }
    let family = family(requester);
    let (all, seeders) = (torrent.tally.peers[family], torrent.tally.seeders[family]);
    let own = torrent.peers.get(&requester).map(|peer| peer.class);
    let available = match seeders_too {
        true => all - usize::from(own.is_some()),
        false => all - seeders - usize::from(own.is_some_and(|class| class != Class::Seeder)),
    };
    let want = announce.numwant.unwrap_or(settings.numwant);
    let want = want.min(settings.max_numwant) as usize;
    let expected = match announce.event {
        Event::Stopped => 0,
        _ => want.min(available),
    };
    assert_eq!(given.len(), expected, "{announce:?}");
}

fn simulate(seed: u64, scenario: Scenario) {
    let seed = match std::env::var("SEED") {
        Ok(seed) => seed.parse().expect("SEED is a number"),
        Err(_) => seed,
    };
    eprintln!("replay with SEED={seed}");
    let mut world = World::new(seed, scenario);
    for step in 0..scenario.steps {
        world.step();
        if step % 500 == 0 {
            world.compare_totals();
            let torrent = world.torrent();
            world
                .model
                .get(&torrent)
                .inspect(|torrent| torrent.verify_tally());
        }
    }
    let totals = world.tracker.totals();
    eprintln!("{} days, {totals:?} at the end", world.wall / DAY);
}

/// Three clients share each address, all are in a few swarms, and the operator acts often.
#[test]
fn small_swarms_agree_with_model() {
    let scenario = Scenario {
        clients: 36,
        torrents: 4,
        clients_per_address: 3,
        open: true,
        steps_per_operation: 100,
        steps: 250_000,
    };
    simulate(1, scenario);
}

/// The swarms are large enough for an index.
#[test]
fn indexed_swarms_agree_with_model() {
    let scenario = Scenario {
        clients: 1500,
        torrents: 3,
        clients_per_address: 2,
        open: true,
        steps_per_operation: 1000,
        steps: 250_000,
    };
    simulate(2, scenario);
}

/// There are many torrents, most of them with few peers, in a tracker that is closed most of the time.
#[test]
fn closed_tracker_agrees_with_model() {
    let scenario = Scenario {
        clients: 2500,
        torrents: 60,
        clients_per_address: 1,
        open: false,
        steps_per_operation: 1000,
        steps: 250_000,
    };
    simulate(3, scenario);
}

/// There are more torrents in an open tracker, and the operator acts seldom.
#[test]
fn open_tracker_agrees_with_model() {
    let scenario = Scenario {
        clients: 3000,
        torrents: 200,
        clients_per_address: 4,
        open: true,
        steps_per_operation: 5000,
        steps: 250_000,
    };
    simulate(4, scenario);
}

/// Each of 1,000 peers is expected 200 times in 200,000 selections. A deviation of 60 is more than four standard
/// deviations.
#[test]
fn every_peer_is_equally_likely_to_be_selected() {
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
        address: Ipv4Addr::from(0x0a00_0000 + number).into(),
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
    assert_eq!(given.pop(), Some(0), "the requester never receives itself");
    let (min, max) = (given.iter().min().unwrap(), given.iter().max().unwrap());
    assert!(
        (140..=260).contains(min) && (140..=260).contains(max),
        "from {min} to {max}"
    );
}
