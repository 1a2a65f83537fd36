//! Several trackers, one swarm: how a change travels from an announce on one host to an answer on another.
//!
//! 1. A worker answers an announce from its own memory, as ever. What that changed ([`Change`]: joined, refreshed, completed,
//!    left) it puts into the [`Outbox`], which never makes it wait: [`crate::server`] does both.
//! 2. [`write`] takes the outbox's changes five times a second, packs them into batches ([`changes`]) and appends these to
//!    streams in the engine, Valkey or Redis, one for each sixteenth of all info-hashes. The engine forgets what is
//!    older than a peer may be ([`engine`]).
//! 3. [`read`] of every other node waits for what comes next in the streams, and gives each record to
//!    [`Tracker::hear`], which checks it like any stranger's and lets nothing older undo what is newer.
//! 4. The next announce there is answered with the peer among the others.
//!
//! No node waits for another, or for the engine: without it each serves alone. What it must do when the engine is back,
//! or comes back empty, [`Member`] decides; a stream holds a peer's whole lifetime, so who begins at its start soon knows
//! everybody. Downloads are counted by each node for itself, and what is shown is the sum ([`Downloads`]).
#![forbid(unsafe_code)]

#[cfg_attr(not(feature = "cluster"), path = "cluster/no_engine.rs")]
mod engine;
mod kept;
mod standing;
mod url;

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

pub use standing::{Event, Tell};
pub use url::{Place, Url, Wrong};

use crate::protocol::changes::{self, Batch, Record, Sender};
use crate::protocol::member::{EntryId, Found, Member, REPLICA_LAG_SECS};
use crate::server::outbox::{Outbox, PARTITIONS, Waiting, partition};
use crate::server::{Clock, figures};
use crate::tracker::downloads::{Counter, Downloads, NodeId};
use crate::tracker::{Heard, Time, Told, Tracker, Walk};
use engine::{Connection, Engine, Entry, Lost};
use kept::Kept;
use standing::{Of, Standing};

/// How often what has changed is told. Longer, and others would learn of it later; shorter, and each batch would hold less,
/// of which the engine keeps as many as come in a peer's lifetime.
const TICK: Duration = Duration::from_millis(200);

/// The most records of one batch.
const BATCH_RECORDS: usize = 256;

/// A node that has nothing to tell says so as often, for others to know that it is there.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// How often it is looked whether the engine was emptied.
const LOOK: Duration = Duration::from_secs(1);

/// From the end of one walk over all peers to the next: where changes come faster than the engine takes them, walking
/// would make it no better.
const RECOUNT_REST: Duration = Duration::from_secs(10);

/// How long one wait for something to read is.
const READ_WAIT: Duration = Duration::from_secs(1);

/// From one attempt to connect to the next.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How much before where it stopped a node reads on after it has lost the engine: another one may have taken its place, whose
/// clock is not the same. To hear a change twice does no harm.
const REREAD_MS: u64 = 60_000;

/// What a node has written must come back to it in this time, or it is connected to an engine that no longer gets what others write.
const ECHO_PATIENCE: Duration = Duration::from_secs(30);

/// How long after a node's start its former self may still be seen to tell something, by a clock that is not the same
/// after a failover.
const DOUBLED_MS: u64 = 60_000;

/// How much longer than a peer lives an entry is kept: no two clocks are one.
const SLACK: Duration = Duration::from_secs(120);

/// How long the stop waits for the last changes to be told.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// Where a password is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PasswordFile {
    At(PathBuf),
    /// Of the service manager, by this name.
    Credential(String),
}

/// What never changes while the daemon runs.
#[derive(Clone, Debug)]
pub struct Settings {
    pub url: Url,
    /// What the engine's keys begin with.
    pub name: String,
    /// Empty for the engine's default user.
    pub user: String,
    pub password_file: Option<PasswordFile>,
    pub ca_file: Option<PathBuf>,
    /// How long a peer is remembered.
    pub peer_timeout: Duration,
    /// How many changes may wait.
    pub queue: usize,
}

impl Settings {
    fn lifetime(&self) -> Duration {
        self.peer_timeout + SLACK
    }
}

/// What the engine is shown, and what it must show.
pub struct Credentials {
    password: Option<String>,
    /// In PEM.
    certificates: Option<Vec<u8>>,
    /// Unlike at any other start: a node's id, if it has none yet, and its run.
    random: [u64; 2],
}

/// The longest file of either.
const CREDENTIALS_MAX: u64 = 1 << 20;

impl Credentials {
    /// To be called before root and the file system are given up.
    ///
    /// # Errors
    /// Names the file that cannot be used, and says why.
    pub fn read(settings: &Settings) -> Result<Self, String> {
        let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        let password = match &settings.password_file {
            None => None,
            Some(PasswordFile::At(path)) => Some(read_password(path)?),
            Some(PasswordFile::Credential(name)) => match credentials {
                Some(directory) => Some(read_password(&directory.join(name))?),
                None => {
                    return Err(format!(
                        "credential {name}: the service manager gave none; \
                         add LoadCredential={name}:/path to the unit"
                    ));
                }
            },
        };
        let certificates = match &settings.ca_file {
            None => None,
            Some(path) => {
                let pem = read_file(path)?;
                let some = pem.windows(CERTIFICATE.len()).any(|at| at == CERTIFICATE);
                some.then_some(())
                    .ok_or_else(|| format!("{}: holds no certificate (PEM)", path.display()))?;
                Some(pem)
            }
        };
        let random = || {
            let mut random = [0; 8];
            File::open(RANDOM)
                .and_then(|mut file| file.read_exact(&mut random))
                .map(|()| u64::from_be_bytes(random))
                .map_err(|error| format!("{RANDOM}: {error}"))
        };
        Ok(Self {
            password,
            certificates,
            random: [random()?, random()?],
        })
    }
}

const RANDOM: &str = "/dev/urandom";

const CERTIFICATE: &[u8] = b"-----BEGIN CERTIFICATE-----";

fn read_password(path: &Path) -> Result<String, String> {
    let text = String::from_utf8(read_file(path)?)
        .map_err(|_| format!("{}: is not text in UTF-8", path.display()))?;
    match text.lines().next() {
        Some(password) if !password.is_empty() => Ok(password.to_owned()),
        _ => Err(format!("{}: its first line is empty", path.display())),
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(CREDENTIALS_MAX).read_to_end(&mut bytes))
        .map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(bytes)
}

/// A node and its two threads.
pub struct Cluster {
    shared: Arc<Shared>,
    /// Closed when the writing thread has ended.
    written: Mutex<Receiver<()>>,
}

/// Leaves that were told a moment ago. If a replica takes over that lags behind, they must be told again, and memory has them no
/// more.
#[derive(Default)]
struct Left(VecDeque<Waiting>);

impl Left {
    fn note(&mut self, told: &[Waiting], now: Time, most: usize) {
        let recent = |waiting: &Waiting| now.0.saturating_sub(waiting.at.0) <= REPLICA_LAG_SECS;
        while self.0.front().is_some_and(|first| !recent(first)) {
            self.0.pop_front();
        }
        let left = told.iter().filter(|told| told.change.class.is_none());
        self.0.extend(left);
        let over = self.0.len().saturating_sub(most);
        self.0.drain(..over);
    }
}

/// What both threads use.
struct Shared {
    engine: Engine,
    own: Sender,
    outbox: Arc<Outbox>,
    tracker: Arc<Tracker>,
    clock: Clock,
    standing: Standing,
    member: Mutex<Member>,
    downloads: Mutex<Downloads>,
    /// How far each stream has been read.
    read: Mutex<[EntryId; PARTITIONS]>,
    /// How often the writing thread has connected. The other follows it: were they connected to two engines, one that was
    /// replaced might still answer, and nothing new come from it.
    connected: AtomicU64,
    /// The engine is another: all of its streams are to be read.
    read_anew: AtomicBool,
    /// The engine's time when this process first reached it, in milliseconds since 1970; 0 before.
    began_ms: AtomicU64,
    stop: AtomicBool,
}

impl Cluster {
    /// Begins to tell others, and to hear them. `kept` is what [`Cluster::kept`] gave before a restart.
    ///
    /// # Errors
    /// If the certificates cannot be used, or the system has no threads to give.
    pub fn start(
        settings: &Settings,
        credentials: &Credentials,
        kept: &[u8],
        outbox: Arc<Outbox>,
        tracker: Arc<Tracker>,
        clock: Clock,
        tell: Tell,
    ) -> io::Result<Self> {
        let engine = Engine::new(settings, credentials)
            .map_err(|error| io::Error::other(error.to_string()))?;
        let kept = Kept::read(kept);
        let own = Sender {
            node: kept
                .as_ref()
                .map_or(NodeId(credentials.random[0]), |kept| kept.node),
            run: credentials.random[1] as u32,
        };
        let (member, downloads, read) = match kept {
            None => (Member::new(own), Downloads::default(), Default::default()),
            Some(kept) => {
                let member = Member::resume(own, kept.owed_since, kept.epoch);
                (member, kept.downloads, kept.read)
            }
        };
        let shared = Arc::new(Shared {
            engine,
            own,
            outbox,
            tracker,
            clock,
            standing: Standing::new(tell),
            member: Mutex::new(member),
            downloads: Mutex::new(downloads),
            read: Mutex::new(read),
            connected: AtomicU64::new(0),
            read_anew: AtomicBool::new(false),
            began_ms: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let (ended, written) = mpsc::channel();
        let writer = shared.clone();
        let thread = thread::Builder::new()
            .name("cluster-write".to_owned())
            .spawn(move || {
                self::write(&writer);
                drop(ended);
            })?;
        shared.outbox.set_writer(thread.thread().clone());
        let reader = shared.clone();
        thread::Builder::new()
            .name("cluster-read".to_owned())
            .spawn(move || self::read(&reader))?;
        Ok(Self {
            shared,
            written: Mutex::new(written),
        })
    }

    pub fn figures(&self) -> figures::Cluster {
        let shared = &self.shared;
        let unix = shared.clock.unix_at(Instant::now()).0;
        figures::Cluster {
            queue_length: shared.outbox.len() as u64,
            dropped: shared.outbox.dropped.get(),
            ..shared.standing.figures(shared.own.node, unix)
        }
    }

    /// For the snapshot, to go on from there after a restart: to be taken before the tracker is written, which then holds
    /// all that has been read.
    pub fn kept(&self) -> Vec<u8> {
        let shared = &self.shared;
        let (owed_since, epoch) = {
            let member = lock(&shared.member);
            (member.owed_since(), member.epoch())
        };
        let mut kept = Kept {
            node: shared.own.node,
            owed_since,
            epoch,
            read: *lock(&shared.read),
            downloads: Downloads::default(),
        }
        .bytes();
        kept.extend(lock(&shared.downloads).save());
        kept
    }

    /// Has the last changes told, if the engine takes them in time. To be called when no worker changes anything any more.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.outbox.wake_writer();
        // It answers by being closed.
        let _ = lock(&self.written).recv_timeout(STOP_PATIENCE);
    }
}

impl Shared {
    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn peers(&self) -> u64 {
        let totals = self.tracker.totals();
        (totals.peers_v4 + totals.peers_v6) as u64
    }

    /// Takes a counter in, and shows the new total.
    fn hear_counter(&self, counter: &Counter) {
        let total = lock(&self.downloads).hear(counter);
        if let Some(total) = total {
            self.tracker.show_downloads(&counter.info_hash, total);
        }
    }
}

/// The writing thread: connects again and again until the stop.
fn write(shared: &Shared) {
    let mut pause = FIRST_PAUSE;
    while !shared.stopping() {
        let lost = match shared.engine.connect() {
            Ok(connection) => {
                let before = shared.connected.load(Ordering::Relaxed);
                let result = Writer::new(shared, connection).run();
                if shared.connected.load(Ordering::Relaxed) > before {
                    pause = FIRST_PAUSE;
                }
                match result {
                    Ok(()) => return,
                    Err(lost) => lost,
                }
            }
            Err(lost) => lost,
        };
        shared.standing.down(Of::Writer, &lost);
        thread::park_timeout(pause);
        pause = (2 * pause).min(LONGEST_PAUSE);
    }
}

/// One connection's writing.
struct Writer<'s> {
    shared: &'s Shared,
    connection: Connection<'s>,
    /// Packed, and to be appended next.
    batches: Vec<(usize, Vec<u8>)>,
    /// A walk over all peers to tell again those heard in the last so many seconds.
    recount: Option<Recount>,
    /// When the last such walk ended.
    recounted: Option<Instant>,
    left: Left,
    /// When the engine was last seen to be the one it was.
    same: Time,
}

struct Recount {
    walk: Walk,
    since_secs: u32,
    /// It fills an emptied engine.
    refill: bool,
    /// Told, but not yet packed, by partition.
    told: [Vec<Told>; PARTITIONS],
    sent: u64,
}

impl<'s> Writer<'s> {
    fn new(shared: &'s Shared, connection: Connection<'s>) -> Self {
        Self {
            shared,
            connection,
            batches: Vec::new(),
            recount: None,
            recounted: None,
            left: Left::default(),
            same: shared.clock.now(),
        }
    }

    /// Tells what changes until the stop.
    ///
    /// # Errors
    /// When the engine is lost. What has not been told is owed, or waits in the outbox again.
    fn run(mut self) -> Result<(), Lost> {
        let shared = self.shared;
        let mut taken: [Vec<Waiting>; PARTITIONS] = Default::default();
        let mut last = shared.clock.now();
        let result = self.tell(&mut taken, &mut last);
        if result.is_err() {
            shared.outbox.set_away(true);
            lock(&shared.member).lost(last);
            if let Some(recount) = &self.recount {
                let since = last.0.saturating_sub(recount.since_secs);
                lock(&shared.member).dropped(Time(since));
            }
            // Those whose batches were not taken, perhaps; of these only what memory cannot tell is kept.
            for waiting in self.left.0.iter().chain(taken.iter().flatten()) {
                let Waiting {
                    change,
                    at,
                    counted,
                } = *waiting;
                shared.outbox.push(change, counted, at);
            }
        }
        result
    }

    fn tell(
        &mut self,
        taken: &mut [Vec<Waiting>; PARTITIONS],
        last: &mut Time,
    ) -> Result<(), Lost> {
        let shared = self.shared;
        if shared.began_ms.load(Ordering::Relaxed) == 0 {
            let began = self.connection.clock.now();
            shared.began_ms.store(began, Ordering::Relaxed);
        }
        self.learn_downloads()?;
        shared.outbox.set_away(false);
        let (mut looked, mut beaten) = (None::<Instant>, None::<Instant>);
        loop {
            let stopping = shared.stopping();
            let begun = Instant::now();
            let now = shared.clock.now();
            if looked.is_none_or(|at| at.elapsed() >= LOOK) {
                self.look(now)?;
                looked = Some(begun);
            }
            self.take_changes(now, taken)?;
            if self.batches.is_empty() && beaten.is_none_or(|at| at.elapsed() >= HEARTBEAT) {
                let mut batch = Vec::new();
                changes::write_head(shared.own, &mut batch);
                self.batches.push((0, batch));
            }
            if !self.batches.is_empty() {
                self.append()?;
                // An engine that can be reached, but takes nothing, is none.
                if beaten.is_none() {
                    shared.standing.behind(Of::Writer);
                    let before = shared.connected.fetch_add(1, Ordering::Relaxed);
                    shared.standing.tally.reconnects.add(u64::from(before > 0));
                }
                beaten = Some(begun);
            }
            for taken in &mut *taken {
                self.left.note(taken, now, shared.outbox.most());
                taken.clear();
            }
            *last = now;
            if stopping {
                return Ok(());
            }
            self.tell_again(now)?;
            if self.recount.is_none() {
                shared.standing.level(Of::Writer);
                thread::park_timeout(TICK.saturating_sub(begun.elapsed()));
            }
        }
    }

    /// Packs what has come into the outbox.
    fn take_changes(
        &mut self,
        now: Time,
        taken: &mut [Vec<Waiting>; PARTITIONS],
    ) -> Result<(), Lost> {
        let shared = self.shared;
        let mut counted = Vec::new();
        for (partition, taken) in taken.iter_mut().enumerate() {
            shared.outbox.take(partition, taken);
            let own = shared.own.node;
            for waiting in taken.iter_mut().filter(|waiting| waiting.counted) {
                // Once, whatever becomes of it on the way.
                waiting.counted = false;
                counted.extend(lock(&shared.downloads).count(waiting.change.info_hash, own));
            }
            let told = taken.iter().map(|waiting| {
                Record::Peer(Told {
                    change: waiting.change,
                    age_secs: now.0.saturating_sub(waiting.at.0),
                    again: false,
                })
            });
            pack(shared.own, partition, told, &mut self.batches);
            shared.standing.tally.sent.add(taken.len() as u64);
        }
        if let Some(since) = shared.outbox.take_dropped_since() {
            lock(&shared.member).dropped(since);
        }
        self.tell_counters(&counted)
    }

    /// Others hear of new counts in the streams, and whoever is away learns of them later.
    fn tell_counters(&mut self, counters: &[Counter]) -> Result<(), Lost> {
        let shared = self.shared;
        for counter in counters {
            let partition = partition(&counter.info_hash);
            let record = std::iter::once(Record::Counter(*counter));
            pack(shared.own, partition, record, &mut self.batches);
        }
        self.connection.set_downloads(shared.own.node, counters)
    }

    fn append(&mut self) -> Result<(), Lost> {
        self.connection.append(&self.batches)?;
        self.batches.clear();
        Ok(())
    }

    /// Learns what all nodes have counted, and tells what this one has counted that is not known there.
    fn learn_downloads(&mut self) -> Result<(), Lost> {
        let shared = self.shared;
        let own = shared.own.node;
        let mut known = HashMap::new();
        self.connection.downloads(|counter| {
            if counter.node == own {
                known.insert(counter.info_hash, counter.downloads);
            }
            shared.hear_counter(&counter);
        })?;
        let mut totals = Vec::new();
        shared.tracker.for_each_torrent(|info_hash, counts| {
            if counts.downloaded > 0 {
                totals.push((*info_hash, counts.downloaded));
            }
        });
        let new: Vec<_> = {
            let mut downloads = lock(&shared.downloads);
            for (info_hash, total) in totals {
                downloads.adopt(info_hash, total, own);
            }
            let is_new = |counter: &Counter| {
                let known = known.get(&counter.info_hash).copied().unwrap_or(0);
                counter.node == own && counter.downloads > known
            };
            downloads.counters().filter(is_new).collect()
        };
        self.tell_counters(&new)
    }

    /// Looks whether the engine has been emptied, or was filled again by another.
    fn look(&mut self, now: Time) -> Result<(), Lost> {
        let shared = self.shared;
        let marker = self.connection.filled()?;
        let marker = marker.and_then(|marker| marker.parse().ok());
        let found = lock(&shared.member).look(marker, shared.peers());
        match found {
            Found::Same => self.same = now,
            Found::Refilled => {
                // Who filled it may not have heard what was told to it as it was before.
                lock(&shared.member).lost(self.same);
                shared.read_anew.store(true, Ordering::Relaxed);
                self.same = now;
                self.tell_all_counters()?;
            }
            Found::Wanting => {
                let refilling = self.recount.as_ref().is_some_and(|recount| recount.refill);
                let node = format!("{:016x}", shared.own.node.0);
                if !refilling && self.connection.may_refill(&node)? {
                    self.tell_all_counters()?;
                    self.recount = Some(Recount::new(u32::MAX, true));
                }
            }
        }
        Ok(())
    }

    fn tell_all_counters(&mut self) -> Result<(), Lost> {
        let shared = self.shared;
        let counters: Vec<_> = lock(&shared.downloads).counters().collect();
        self.connection.set_downloads(shared.own.node, &counters)
    }

    /// Goes a step further in telling from memory what others may not know, if there is something.
    fn tell_again(&mut self, now: Time) -> Result<(), Lost> {
        let shared = self.shared;
        let rested = self.recounted.is_none_or(|at| at.elapsed() >= RECOUNT_REST);
        if self.recount.is_none() && rested {
            let owed = lock(&shared.member).settle(now);
            self.recount = owed.map(|since_secs| Recount::new(since_secs, false));
        }
        let Some(recount) = &mut self.recount else {
            return Ok(());
        };
        let mut told = Vec::new();
        let more = shared
            .tracker
            .recount(now, recount.since_secs, &mut recount.walk, &mut told);
        for told in told {
            recount.told[partition(&told.change.info_hash)].push(told);
        }
        for (partition, told) in recount.told.iter_mut().enumerate() {
            // Whole batches, while more may come.
            let whole = match more {
                true => told.len() / BATCH_RECORDS * BATCH_RECORDS,
                false => told.len(),
            };
            let records = told.drain(..whole).map(Record::Peer);
            pack(shared.own, partition, records, &mut self.batches);
            recount.sent += whole as u64;
            shared.standing.tally.sent.add(whole as u64);
        }
        if !self.batches.is_empty() {
            self.append()?;
        }
        if more {
            return Ok(());
        }
        self.recounted = Some(Instant::now());
        let done = self.recount.take();
        if let Some(peers) = done.filter(|done| done.refill).map(|done| done.sent) {
            let marker = lock(&shared.member).refilled(self.connection.clock.now(), peers);
            self.connection.set_filled(&marker.to_string())?;
            shared.standing.refilled(peers);
        }
        Ok(())
    }
}

impl Recount {
    fn new(since_secs: u32, refill: bool) -> Self {
        Self {
            walk: Walk::default(),
            since_secs,
            refill,
            told: Default::default(),
            sent: 0,
        }
    }
}

/// Appends batches of these records to those that are to be appended to streams.
fn pack(
    own: Sender,
    partition: usize,
    records: impl Iterator<Item = Record>,
    batches: &mut Vec<(usize, Vec<u8>)>,
) {
    let mut room = 0;
    let mut batch = Vec::new();
    for record in records {
        if room == 0 {
            if !batch.is_empty() {
                batches.push((partition, std::mem::take(&mut batch)));
            }
            changes::write_head(own, &mut batch);
            room = BATCH_RECORDS;
        }
        changes::write_record(&record, &mut batch);
        room -= 1;
    }
    if !batch.is_empty() {
        batches.push((partition, batch));
    }
}

/// The reading thread: connects whenever the writing one has.
fn read(shared: &Shared) {
    let mut pause = FIRST_PAUSE;
    while !shared.stopping() {
        let connected = shared.connected.load(Ordering::Relaxed);
        if connected > 0 && shared.standing.is_up(Of::Writer) {
            let begun = Instant::now();
            let result = shared
                .engine
                .connect()
                .and_then(|connection| hear(shared, connection, connected));
            if let Err(lost) = result {
                shared.standing.down(Of::Reader, &lost);
            }
            pause = match begun.elapsed() < LONGEST_PAUSE {
                true => (2 * pause).min(LONGEST_PAUSE),
                false => FIRST_PAUSE,
            };
        }
        thread::sleep(pause);
    }
}

/// One connection's reading, until the writing thread has another.
fn hear(shared: &Shared, mut connection: Connection<'_>, connected: u64) -> Result<(), Lost> {
    let follows = || shared.connected.load(Ordering::Relaxed) == connected;
    shared.standing.behind(Of::Reader);
    let last = connection.last_ids()?;
    let mut from = *lock(&shared.read);
    for (from, last) in from.iter_mut().zip(last) {
        *from = (*from).min(last);
        from.ms = from.ms.saturating_sub(REREAD_MS);
    }
    let (mut level, mut echoed) = (false, Instant::now());
    while !shared.stopping() && follows() {
        if shared.read_anew.swap(false, Ordering::Relaxed) {
            from = Default::default();
        }
        let entries = connection.read(&from, READ_WAIT)?;
        let mut late_ms = 0;
        for entry in &entries {
            from[entry.partition] = entry.id;
            late_ms = connection.clock.age(entry.id);
            if hear_batch(shared, entry, late_ms) {
                echoed = Instant::now();
            }
        }
        *lock(&shared.read) = from;
        shared.standing.late(late_ms);
        if !level {
            level = entries.is_empty() || from.iter().zip(last).all(|(from, last)| *from >= last);
            echoed = Instant::now();
        }
        if level && follows() {
            shared.standing.level(Of::Reader);
        }
        if echoed.elapsed() > ECHO_PATIENCE {
            return Err(Lost::deaf());
        }
    }
    Ok(())
}

/// Takes in a batch, and tells whether it is this node's own.
fn hear_batch(shared: &Shared, entry: &Entry, age_ms: u64) -> bool {
    let tally = &shared.standing.tally;
    let Ok(batch) = Batch::parse(&entry.batch) else {
        tally.malformed.add_one();
        return false;
    };
    if lock(&shared.member).is_own(batch.sender) {
        return true;
    }
    let unix = shared.clock.unix_at(Instant::now()).0;
    if batch.sender.node != shared.own.node {
        shared.standing.heard_of(batch.sender, unix);
    } else if entry.id.ms > shared.began_ms.load(Ordering::Relaxed) + DOUBLED_MS {
        shared.standing.doubled();
    }
    let (now, passed_secs) = (shared.clock.now(), (age_ms / 1000) as u32);
    let (mut received, mut applied, mut older, mut refused) = (0, 0, 0, 0);
    for record in batch.records() {
        match record {
            Record::Counter(counter) => shared.hear_counter(&counter),
            Record::Peer(told) => {
                received += 1;
                match shared.tracker.hear(now, passed_secs, &told) {
                    Heard::Taken => applied += 1,
                    Heard::Older => older += 1,
                    Heard::Refused => refused += 1,
                }
            }
        }
    }
    tally.received.add(received);
    tally.applied.add(applied);
    tally.older.add(older);
    tally.refused.add(refused);
    false
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
