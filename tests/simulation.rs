//! The tracker beside a plain model of it: clients over days, a network that loses, repeats and delays, an operator who changes
//! his mind, standstills and restarts; time in hand, compared after each step.
//!
//! `SEED=n cargo test --test simulation` replays one history of each test.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU16;

use ipnet::IpNet;
use tbtt::tracker::access::AccessList;
use tbtt::tracker::dump::DumpCursor;
use tbtt::tracker::settings::Notice;
use tbtt::tracker::{
    AccessPolicy, Admission, Announce, Class, Event, InfoHash, Key, PeerId, Refusal, Rng,
    ScrapeEntry, Settings, Time, Totals, Tracker,
};

/// Who a peer is over all families: `peer_id` and `key`, or else its own endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Host {
    Named([u8; 20], u32),
    Endpoint(SocketAddr),
}

/// What a host is counted as.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Role {
    Leecher,
    Partial,
    Seeder,
    Completed,
}

/// What shares the cap of peers: an IPv4 address, or an IPv6 /64.
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

/// What one peer is, told as plainly as can be.
#[derive(Clone, Copy, PartialEq, Debug)]
struct ModelPeer {
    host: Host,
    class: Class,
    completed: bool,
    heard_minute: u32,
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
    /// Its counter is remembered for good.
    was_listed: bool,
    downloaded: u32,
    peers: HashMap<SocketAddr, ModelPeer>,
    /// What follows from the peers; kept as they come and go, since to count all after each step would take hours, and
    /// now and then compared with what it follows from.
    tally: Tally,
}

#[derive(Clone, Default, PartialEq, Debug)]
struct Tally {
    networks: HashMap<Network, usize>,
    /// How many endpoints of IPv4 and of IPv6 a host has in a role.
    roles: HashMap<(Host, Role), [u32; 2]>,
    /// Each host once, unless it has several addresses of one family.
    hosts: HashMap<Role, u32>,
    /// IPv4 and IPv6, all and seeders.
    families: [[usize; 2]; 2],
}

impl Tally {
    fn add(&mut self, at: SocketAddr, peer: &ModelPeer) {
        *self.networks.entry(Network::of(at.ip())).or_insert(0) += 1;
        let family = &mut self.families[usize::from(at.is_ipv6())];
        family[0] += 1;
        family[1] += usize::from(peer.class == Class::Seeder);
        for role in peer.roles() {
            let endpoints = self.roles.entry((peer.host, role)).or_insert([0, 0]);
            let before = endpoints[0].max(endpoints[1]);
            endpoints[usize::from(at.is_ipv6())] += 1;
            *self.hosts.entry(role).or_insert(0) += endpoints[0].max(endpoints[1]) - before;
        }
    }

    fn remove(&mut self, at: SocketAddr, peer: &ModelPeer) {
        let neighbours = self.networks.get_mut(&Network::of(at.ip())).unwrap();
        *neighbours -= 1;
        if *neighbours == 0 {
            self.networks.remove(&Network::of(at.ip()));
        }
        let family = &mut self.families[usize::from(at.is_ipv6())];
        family[0] -= 1;
        family[1] -= usize::from(peer.class == Class::Seeder);
        for role in peer.roles() {
            let endpoints = self.roles.get_mut(&(peer.host, role)).unwrap();
            let before = endpoints[0].max(endpoints[1]);
            endpoints[usize::from(at.is_ipv6())] -= 1;
            *self.hosts.get_mut(&role).unwrap() -= before - endpoints[0].max(endpoints[1]);
            if *endpoints == [0, 0] {
                self.roles.remove(&(peer.host, role));
            }
        }
    }

    fn hosts(&self, role: Role) -> u32 {
        self.hosts.get(&role).copied().unwrap_or(0)
    }
}

impl ModelTorrent {
    /// Somebody is in it or has named it.
    fn is_there(&self) -> bool {
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

    /// Keeps the peers for which `keeps` has a minute: that in which they seem to have been heard.
    fn retain(&mut self, keeps: impl Fn(&ModelPeer) -> Option<u32>) {
        let tally = &mut self.tally;
        self.peers.retain(|at, peer| match keeps(peer) {
            Some(minute) => {
                peer.heard_minute = minute;
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

    /// Counts everyone, by the rules as they are written.
    fn dump_updates(&self) {
        let mut whole = Tally::default();
        for (at, peer) in &self.peers {
            *whole.networks.entry(Network::of(at.ip())).or_insert(0) += 1;
            let family = &mut whole.families[usize::from(at.is_ipv6())];
            family[0] += 1;
            family[1] += usize::from(peer.class == Class::Seeder);
            for role in peer.roles() {
                let endpoints = whole.roles.entry((peer.host, role)).or_insert([0, 0]);
                endpoints[usize::from(at.is_ipv6())] += 1;
            }
        }
        for ((_, role), [v4, v6]) in &whole.roles {
            *whole.hosts.entry(*role).or_insert(0) += v4.max(v6);
        }
        let mut kept = self.tally.clone();
        kept.hosts.retain(|_, hosts| *hosts > 0);
        assert_eq!(kept, whole, "the model is wrong");
    }

    fn announce(&mut self, now: Time, announce: &Announce, max_per_network: usize) {
        let at = SocketAddr::new(announce.address, announce.port.get());
        let neighbours = self.tally.networks.get(&Network::of(at.ip()));
        let is_full = neighbours.is_some_and(|&neighbours| neighbours >= max_per_network);
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
            heard_minute: now.0 / 60,
        };
        self.insert(at, peer);
        if completes && !completed_before && self.tally.hosts(Role::Completed) > completed_hosts {
            self.downloaded += 1;
        }
    }
}

/// A client program on a host with an address or two.
struct Client {
    number: u32,
    addresses: Vec<SocketAddr>,
    /// Each run of the program has ids of its own.
    run: u32,
    /// What it is at, if it runs.
    torrent: Option<InfoHash>,
    complete: bool,
}

impl Client {
    fn announce(&self, torrent: InfoHash, event: Event, random: &mut Rng) -> Vec<Announce> {
        let mut peer_id = [b'-'; 20];
        // Now and then programs share an id, or lack a key.
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

/// What comes by itself, in its time.
enum Coming {
    /// A client does what it does next.
    Turn(usize),
    /// An announce has found its way.
    Arrival(Announce),
    Sweep,
}

/// A snapshot, and what it is of.
struct Saved {
    blocks: Vec<Vec<u8>>,
    time: Time,
    wall: u64,
    torrents: HashMap<InfoHash, ModelTorrent>,
}

/// What a history is made of.
#[derive(Clone, Copy)]
struct Scene {
    clients: u32,
    torrents: u32,
    /// How many hosts share an address.
    crowding: u32,
    open: bool,
    /// One step in so many is the operator's.
    calm: u32,
    steps: u32,
}

struct World {
    scene: Scene,
    seed: u64,
    random: Rng,
    /// The world's seconds.
    wall: u64,
    /// The tracker's are these, and the world's since then.
    origin: (Time, u64),
    tracker: Tracker,
    settings: Settings,
    denied: Vec<IpNet>,
    allowed: Vec<IpNet>,
    withdrawn: HashSet<InfoHash>,
    model: HashMap<InfoHash, ModelTorrent>,
    torrents: Vec<InfoHash>,
    clients: Vec<Client>,
    coming: BTreeMap<(u64, u64), Coming>,
    serial: u64,
    saved: Saved,
    swept: Option<Time>,
}

const DAY: u64 = 24 * 3600;

/// Seconds between sweeps of all; far from what makes ages wrap.
const SWEEP_INTERVAL: u64 = 400;

impl World {
    fn new(seed: u64, scene: Scene) -> Self {
        let settings = Settings {
            open: scene.open,
            max_numwant: 70,
            ..Settings::default()
        };
        let mut random = Rng::new(seed);
        let origin = (Time(random.below(1_000_000)), 0);
        let mut world = Self {
            scene,
            seed,
            wall: 0,
            origin,
            tracker: Tracker::new(settings.clone(), seed),
            settings,
            denied: Vec::new(),
            allowed: Vec::new(),
            withdrawn: HashSet::new(),
            model: HashMap::new(),
            torrents: (0..scene.torrents)
                .map(|number| InfoHash(std::array::from_fn(|at| (number >> (at % 4 * 8)) as u8)))
                .collect(),
            clients: Vec::new(),
            coming: BTreeMap::new(),
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
        for number in 0..scene.clients {
            world.settle_in(number);
        }
        if !scene.open {
            for torrent in world.torrents.clone() {
                world.admit(torrent, Admission::Listed);
            }
        }
        world.comes(SWEEP_INTERVAL, Coming::Sweep);
        world
    }

    /// A client with addresses that others may share.
    fn settle_in(&mut self, number: u32) {
        let place = number / self.scene.crowding;
        let port = 6881 + (number % self.scene.crowding) as u16;
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
        self.comes(first, Coming::Turn(number as usize));
    }

    fn now(&self) -> Time {
        Time(self.origin.0.0 + (self.wall - self.origin.1) as u32)
    }

    fn comes(&mut self, seconds: u64, what: Coming) {
        self.serial += 1;
        self.coming.insert((self.wall + seconds, self.serial), what);
    }

    fn torrent(&mut self) -> InfoHash {
        // The first are busier than the last.
        let all = self.torrents.len() as u32;
        let number = self
            .random
            .below(all)
            .min(self.random.below(all))
            .min(self.random.below(all));
        self.torrents[number as usize]
    }

    /// Until something has happened to the tracker.
    fn step(&mut self) {
        if self.random.below(self.scene.calm) == 0 {
            return self.operate();
        }
        loop {
            let ((wall, _), what) = self.coming.pop_first().expect("there are clients");
            // What a standstill has held up comes when it is over.
            self.wall = self.wall.max(wall);
            match what {
                Coming::Turn(client) => self.turn(client),
                Coming::Arrival(announce) => return self.announce(&announce),
                Coming::Sweep => {
                    self.comes(SWEEP_INTERVAL, Coming::Sweep);
                    return self.sweep();
                }
            }
        }
    }

    /// A client starts, goes on, completes, pauses, stops, or vanishes without a word.
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
            // Not what a client should say then.
            Some(Event::Completed)
        } else {
            Some(Event::None)
        };
        let goes_on = !matches!(event, None | Some(Event::Stopped));
        client.torrent = goes_on.then_some(torrent);
        let announces = match event {
            Some(event) => client.announce(torrent, event, random),
            None => Vec::new(),
        };
        let interval = self.settings.interval;
        let next = match goes_on {
            true => interval * 9 / 10 + random.below(interval / 5),
            false => random.below(2 * interval),
        };
        self.comes(next.into(), Coming::Turn(number));
        for announce in announces {
            self.send(announce);
        }
    }

    /// Over a network that loses announces or their answers, so that a client asks again, and repeats and delays some.
    fn send(&mut self, announce: Announce) {
        for attempt in 0..3 {
            let chance = self.random.below(100);
            let delay = match self.random.below(50) {
                0 => self.random.below(3600),
                _ => self.random.below(3),
            };
            let sent = attempt * 15;
            if chance >= 5 {
                self.comes((sent + delay).into(), Coming::Arrival(announce));
            }
            if chance >= 97 {
                let again = self.random.below(60);
                self.comes((sent + delay + again).into(), Coming::Arrival(announce));
            }
            // Answered, as far as the client sees.
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
        if let Ok(answer) = result {
            let torrent = self.model.entry(info_hash).or_default();
            torrent.announce(now, announce, self.settings.max_peers_per_network);
            assert_eq!(answer.counts, torrent.counts(), "{announce:?}");
            assert_eq!(answer.interval, self.settings.interval);
            check_peers(torrent, announce, &self.settings, &peers);
            self.forget(info_hash);
        }
        self.compare_counts(info_hash);
    }

    /// The most specific network decides, a denial wins, and who is on no list is welcome unless some are allowed.
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

    /// Something that only an operator, or his machine, does.
    fn operate(&mut self) {
        match self.random.below(16) {
            0..4 => {
                let torrent = self.torrent();
                let admission = [
                    Admission::Listed,
                    Admission::Listed,
                    Admission::Unlisted,
                    Admission::Denied,
                ][self.random.below(4) as usize];
                self.admit(torrent, admission);
            }
            4..6 => self.withdraw(),
            6..9 => self.reload(),
            9..12 => self.save(),
            12 => self.restart(true),
            13 => self.restart(false),
            14 => self.stand_still(),
            _ => self.sweep(),
        }
        self.compare_totals();
        for torrent in self.torrents.clone() {
            self.compare_counts(torrent);
        }
    }

    fn admit(&mut self, info_hash: InfoHash, admission: Admission) {
        self.tracker.admit(&info_hash, admission);
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

    /// Other settings.
    fn reload(&mut self) {
        let random = &mut self.random;
        let mut one_of = |choices: &[u32]| choices[random.below(choices.len() as u32) as usize];
        self.settings.interval = one_of(&[900, 1800]);
        self.settings.peer_timeout = one_of(&[120, 1000, 2700, 2700, 7200]);
        self.settings.max_peers_per_network = one_of(&[1, 3, 64, 1000]) as usize;
        self.settings.numwant = one_of(&[0, 5, 50]);
        self.settings.max_numwant = one_of(&[1, 70, 200]);
        self.settings.open = one_of(&[0, 1, 1, 1]) == u32::from(self.scene.open);
        self.denied.clear();
        self.allowed.clear();
        // Mostly there are no such lists.
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
        self.tracker.set(self.settings.clone());
    }

    fn save(&mut self) {
        let (mut walk, mut block, mut blocks) = (DumpCursor::default(), Vec::new(), Vec::new());
        let time = self.now();
        while self
            .tracker
            .dump_block(time, &mut walk, &mut block)
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

    /// A new tracker goes on where the snapshot is: one just written, or, after a crash, the last there is.
    fn restart(&mut self, in_order: bool) {
        if in_order {
            self.save();
        }
        self.wall += match self.random.below(8) {
            0 => u64::from(self.random.below(2 * DAY as u32)),
            1 | 2 => u64::from(self.random.below(3000)),
            _ => u64::from(self.random.below(3)),
        };
        // What the system's clock says has passed: it may have been set back, or far ahead.
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
        let named: Vec<_> = self
            .model
            .iter()
            .map(|(info_hash, torrent)| (*info_hash, torrent.admission))
            .filter(|(_, admission)| *admission != Admission::Unlisted)
            .collect();
        // Who has named what, it is told before or after.
        let before = self.random.below(2) == 0;
        let name = |tracker: &Tracker| {
            named
                .iter()
                .for_each(|(info_hash, admission)| tracker.admit(info_hash, *admission));
        };
        if before {
            name(&self.tracker);
        }
        let passed_minutes = now.0 / 60 - written.0 / 60;
        let mut restore = self.tracker.restore(now, passed_minutes);
        for block in &self.saved.blocks {
            restore.restore_block(block).expect("as it was written");
        }
        restore.finish();
        if !before {
            name(&self.tracker);
        }
        self.model = std::mem::take(&mut self.saved.torrents);
        let named: HashMap<_, _> = named.into_iter().collect();
        self.restart_model(now, passed_minutes, &named, before);
        // The snapshot is there still.
        self.save();
    }

    fn restart_model(
        &mut self,
        now: Time,
        passed_minutes: u32,
        named: &HashMap<InfoHash, Admission>,
        before: bool,
    ) {
        let timeout = self.settings.peer_timeout.div_ceil(60);
        let written_minute = now.0 / 60 - passed_minutes;
        for (info_hash, torrent) in &mut self.model {
            // All that is written of one that nobody is in is a counter that is to be remembered.
            let is_written =
                !torrent.peers.is_empty() || torrent.was_listed && torrent.downloaded > 0;
            torrent.retain(|peer| {
                let age = written_minute - peer.heard_minute + passed_minutes;
                (age <= timeout).then_some(peer.heard_minute)
            });
            let is_found = before && named.contains_key(info_hash);
            if !is_written || !is_found && torrent.peers.is_empty() && !torrent.was_listed {
                *torrent = ModelTorrent::default();
            }
            torrent.admission = Admission::Unlisted;
        }
        for (info_hash, admission) in named {
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

    /// The process, or the whole machine, is stopped for hours, and the world goes on without it. Then it is swept, while
    /// a few have come in already.
    fn stand_still(&mut self) {
        self.sweep();
        self.wall += u64::from(self.random.below(12 * 3600));
        let end = self.wall + 60;
        for _ in 0..20 {
            let torrent = self.torrent();
            let number = self.random.below(self.scene.clients) as usize;
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
        // After a standstill only those are known who have come since.
        let limit = if since > timeout {
            timeout.min(2)
        } else {
            timeout
        };
        for torrent in self.model.values_mut() {
            torrent.retain(|peer| {
                let age = minute - peer.heard_minute;
                // Ages wrap: of those who were there before, a few seem new.
                (age % 256 <= limit).then(|| minute - age % 256)
            });
        }
        for torrent in self.torrents.clone() {
            self.forget(torrent);
        }
    }

    /// A remembered counter of 0 is none.
    fn forget(&mut self, info_hash: InfoHash) {
        let is_kept = |torrent: &ModelTorrent| {
            torrent.is_there() || torrent.was_listed && torrent.downloaded > 0
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
            torrents: self.model.values().filter(|t| t.is_there()).count(),
            ..Totals::default()
        };
        for torrent in self.model.values() {
            totals.peers.v4 += torrent.tally.families[0][0];
            totals.peers.v6 += torrent.tally.families[1][0];
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

/// As many as asked for and there are; each of the asker's family, another than the asker, once; for a seeder no seeder.
fn check_peers(torrent: &ModelTorrent, announce: &Announce, settings: &Settings, peers: &[u8]) {
    let asker = SocketAddr::new(announce.address, announce.port.get());
    let size = if asker.is_ipv4() { 6 } else { 18 };
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
        let class = torrent.peers.get(&at).expect("one who is there").class;
        assert!(at != asker, "{announce:?} was given itself");
        assert!(
            seeders_too || class != Class::Seeder,
            "{announce:?} was given {at}"
        );
        assert!(given.insert(at), "{announce:?} was given {at} twice");
    }
    let [all, seeders] = torrent.tally.families[usize::from(asker.is_ipv6())];
    let own = torrent.peers.get(&asker).map(|peer| peer.class);
    let there = match seeders_too {
        true => all - usize::from(own.is_some()),
        false => all - seeders - usize::from(own.is_some_and(|class| class != Class::Seeder)),
    };
    let want = announce.numwant.unwrap_or(settings.numwant);
    let want = want.min(settings.max_numwant) as usize;
    let expected = match announce.event {
        Event::Stopped => 0,
        _ => want.min(there),
    };
    assert_eq!(given.len(), expected, "{announce:?}");
}

fn simulate(seed: u64, scene: Scene) {
    let seed = match std::env::var("SEED") {
        Ok(seed) => seed.parse().expect("SEED is a number"),
        Err(_) => seed,
    };
    eprintln!("replay with SEED={seed}");
    let mut world = World::new(seed, scene);
    for step in 0..scene.steps {
        world.step();
        if step % 500 == 0 {
            world.compare_totals();
            let torrent = world.torrent();
            world
                .model
                .get(&torrent)
                .inspect(|torrent| torrent.dump_updates());
        }
    }
    let totals = world.tracker.totals();
    eprintln!("{} days, {totals:?} at the end", world.wall / DAY);
}

/// Three hosts to an address, everyone in a few swarms, hardly a quiet moment.
#[test]
fn a_village_agrees_with_the_model() {
    let scene = Scene {
        clients: 36,
        torrents: 4,
        crowding: 3,
        open: true,
        calm: 100,
        steps: 250_000,
    };
    simulate(1, scene);
}

/// Swarms that are large enough for an index.
#[test]
fn a_town_agrees_with_the_model() {
    let scene = Scene {
        clients: 1500,
        torrents: 3,
        crowding: 2,
        open: true,
        calm: 1000,
        steps: 250_000,
    };
    simulate(2, scene);
}

/// Many torrents, most of them small, in a tracker that is closed most of the time.
#[test]
fn a_mirror_agrees_with_the_model() {
    let scene = Scene {
        clients: 2500,
        torrents: 60,
        crowding: 1,
        open: false,
        calm: 1000,
        steps: 250_000,
    };
    simulate(3, scene);
}

/// The same, open to all, with little to disturb it.
#[test]
fn days_of_an_open_tracker_agree_with_the_model() {
    let scene = Scene {
        clients: 3000,
        torrents: 200,
        crowding: 4,
        open: true,
        calm: 5000,
        steps: 250_000,
    };
    simulate(4, scene);
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
