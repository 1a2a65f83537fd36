//! A node, its engine, and the two threads between them.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::clock::Clock;
use crate::cluster::node::Node;
use crate::cluster::queue::UpdateQueue;
use crate::cluster::reader::{ReadStatus, Reader};
use crate::cluster::redis::RedisStore;
use crate::cluster::settings::{Credentials, Settings};
use crate::cluster::status::EventHandler;
use crate::cluster::writer::{TICK, Writer};
use crate::lock::lock;
use crate::status::report as figures;
use crate::tracker::Tracker;

/// From one attempt to connect to the next.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How long the stop waits for the last changes to be told.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// A node, its engine, and the two threads between them.
pub struct Cluster {
    joint: Arc<Joint>,
    /// Closed when the writing thread has ended.
    written: Mutex<Receiver<()>>,
}

struct Joint {
    node: Node,
    engine: RedisStore,
    clock: Clock,
    stop: AtomicBool,
}

impl Cluster {
    /// Begins to tell others, and to apply_update them. `kept` is what [`Cluster::keep`] gave before a restart.
    ///
    /// # Errors
    /// If the certificates cannot be used, or the system has no threads to give.
    pub fn start(
        settings: &Settings,
        credentials: &Credentials,
        kept: &[u8],
        updates: Arc<UpdateQueue>,
        tracker: Arc<Tracker>,
        clock: Clock,
        tell: EventHandler,
    ) -> io::Result<Self> {
        let engine = RedisStore::new(settings, credentials)
            .map_err(|error| io::Error::other(error.to_string()))?;
        let joint = Arc::new(Joint {
            node: Node::new(kept, credentials.random, tracker, updates, tell),
            engine,
            clock,
            stop: AtomicBool::new(false),
        });
        let (ended, written) = mpsc::channel();
        let writer = joint.clone();
        let thread = thread::Builder::new()
            .name("cluster-write".to_owned())
            .spawn(move || {
                write(&writer);
                drop(ended);
            })?;
        joint.node.updates.set_writer(thread.thread().clone());
        let reader = joint.clone();
        thread::Builder::new()
            .name("cluster-read".to_owned())
            .spawn(move || read(&reader))?;
        Ok(Self {
            joint,
            written: Mutex::new(written),
        })
    }

    pub fn figures(&self) -> figures::Cluster {
        let unix = self.joint.clock.unix_at(Instant::now()).0;
        self.joint.node.figures(unix)
    }

    /// As [`Node::keep`] has it.
    pub fn keep(&self) -> impl Fn() -> Vec<u8> + '_ {
        self.joint.node.keep()
    }

    /// Has the last changes told, if the engine takes them in time. To be called when no worker changes anything any more.
    pub fn stop(&self) {
        self.joint.stop.store(true, Ordering::Relaxed);
        self.joint.node.updates.wake_writer();
        // It answers by being closed.
        let _ = lock(&self.written).recv_timeout(STOP_PATIENCE);
    }
}

impl Joint {
    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// The writing thread: connects redelivered and redelivered until the stop.
fn write(joint: &Joint) {
    let mut pause = FIRST_PAUSE;
    while !joint.stopping() {
        let mut writer = Writer::new(&joint.node, joint.clock.now());
        let lost = match joint.engine.connect() {
            Err(lost) => lost,
            Ok(mut line) => loop {
                // Once more after the stop has come, for what was changed until then.
                let stopping = joint.stopping();
                let at = Instant::now();
                match writer.step(&mut line, joint.clock.at(at), at) {
                    Err(lost) => break lost,
                    Ok(_) if stopping => return,
                    Ok(true) => {}
                    Ok(false) => thread::park_timeout(TICK.saturating_sub(at.elapsed())),
                }
            },
        };
        if writer.proven() {
            pause = FIRST_PAUSE;
        }
        writer.lost(&lost);
        thread::park_timeout(pause);
        pause = (2 * pause).min(LONGEST_PAUSE);
    }
}

/// The reading thread: connects whenever the writing one has.
fn read(joint: &Joint) {
    let mut pause = FIRST_PAUSE;
    while !joint.stopping() {
        let begun = Instant::now();
        if let Some(mut reader) = Reader::new(&joint.node, begun) {
            let lost = match joint.engine.connect() {
                Err(lost) => Some(lost.to_string()),
                Ok(mut line) => loop {
                    let at = Instant::now();
                    match reader.step(&mut line, joint.clock.at(at), at) {
                        Err(lost) => break Some(lost.to_string()),
                        Ok(ReadStatus::Stalled) => {
                            break Some("it no longer passes on what is written to it".to_owned());
                        }
                        Ok(ReadStatus::Superseded) => break None,
                        Ok(ReadStatus::Continue) if joint.stopping() => return,
                        Ok(ReadStatus::Continue) => {}
                    }
                },
            };
            if let Some(lost) = lost {
                reader.lost(&lost);
            }
            pause = match begun.elapsed() < LONGEST_PAUSE {
                true => (2 * pause).min(LONGEST_PAUSE),
                false => FIRST_PAUSE,
            };
        }
        thread::sleep(pause);
    }
}
