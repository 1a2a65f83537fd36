//! The two threads of a node: one writes to the store, the other reads from it.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::clock::Clock;
use crate::cluster::node::ClusterNode;
use crate::cluster::queue::UpdateQueue;
use crate::cluster::reader::{ReadStatus, StreamReader};
#[cfg(feature = "cluster")]
use crate::cluster::redis::RedisStore as Store;
#[cfg(not(feature = "cluster"))]
use crate::cluster::redis_disabled::DisabledStore as Store;
use crate::cluster::report::ClusterReport;
use crate::cluster::settings::{Credentials, Settings};
use crate::cluster::status::EventHandler;
use crate::cluster::writer::{StreamWriter, TICK};
use crate::lock::lock;
use crate::tracker::Tracker;

/// The pauses between attempts to connect: each is twice as long as the last, up to the maximum.
const MIN_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(2);

/// Maximum time for which a shutdown waits for the last updates to be sent.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// A node with its two threads.
pub struct Cluster {
    context: Arc<ThreadContext>,
    /// Closed when the writing thread has ended.
    writer_ended: Mutex<Receiver<()>>,
}

/// The state that both threads share.
struct ThreadContext {
    node: ClusterNode,
    store: Store,
    clock: Clock,
    stop: AtomicBool,
}

impl Cluster {
    /// Starts the two threads. [`Cluster::checkpoint`] returned the bytes of `checkpoint` before a restart.
    ///
    /// # Errors
    /// When the certificates are invalid, or the system refuses a thread.
    pub fn start(
        settings: &Settings,
        credentials: &Credentials,
        checkpoint: &[u8],
        queue: Arc<UpdateQueue>,
        tracker: Arc<Tracker>,
        clock: Clock,
        on_event: EventHandler,
    ) -> io::Result<Self> {
        let store = Store::new(settings, credentials)
            .map_err(|error| io::Error::other(error.to_string()))?;
        let context = Arc::new(ThreadContext {
            node: ClusterNode::new(checkpoint, credentials.random, tracker, queue, on_event),
            store,
            clock,
            stop: AtomicBool::new(false),
        });
        let (ended, writer_ended) = mpsc::channel();
        let writer = context.clone();
        let thread = thread::Builder::new()
            .name("cluster-write".to_owned())
            .spawn(move || {
                run_writer(&writer);
                drop(ended);
            })?;
        context.node.queue.set_writer(thread.thread().clone());
        let reader = context.clone();
        thread::Builder::new()
            .name("cluster-read".to_owned())
            .spawn(move || run_reader(&reader))?;
        Ok(Self {
            context,
            writer_ended: Mutex::new(writer_ended),
        })
    }

    /// Returns the cluster's part of the status report.
    pub fn report(&self) -> ClusterReport {
        let unix = self.context.clock.unix_now().0;
        self.context.node.report(unix)
    }

    /// Starts a checkpoint for the snapshot, see [`ClusterNode::checkpoint`].
    pub fn checkpoint(&self) -> impl Fn() -> Vec<u8> + '_ {
        self.context.node.checkpoint()
    }

    /// Sends the last updates, if the store accepts them in time, and ends the threads. Must be called after all workers
    /// have stopped.
    pub fn stop(&self) {
        self.context.stop.store(true, Ordering::Relaxed);
        self.context.node.queue.wake_writer();
        // The thread closes the channel when it ends; it never sends anything.
        let _ = lock(&self.writer_ended).recv_timeout(SHUTDOWN_TIMEOUT);
    }
}

impl ThreadContext {
    fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// The writing thread: connects again and again until shutdown.
fn run_writer(context: &ThreadContext) {
    let mut pause = MIN_PAUSE;
    while !context.is_stopping() {
        let mut writer = StreamWriter::new(&context.node, context.clock.now());
        let error = match context.store.connect() {
            Err(error) => error,
            Ok(mut connection) => loop {
                // After the shutdown has started, a last step sends the updates that came until then.
                let stopping = context.is_stopping();
                let at = Instant::now();
                match writer.step(&mut connection, context.clock.at(at), at) {
                    Err(error) => break error,
                    Ok(_) if stopping => return,
                    Ok(true) => {}
                    Ok(false) => thread::park_timeout(TICK.saturating_sub(at.elapsed())),
                }
            },
        };
        if writer.has_appended() {
            pause = MIN_PAUSE;
        }
        writer.connection_lost(&error);
        thread::park_timeout(pause);
        pause = (2 * pause).min(MAX_PAUSE);
    }
}

/// The reading thread: connects when the writing thread is connected, until shutdown.
fn run_reader(context: &ThreadContext) {
    let mut pause = MIN_PAUSE;
    while !context.is_stopping() {
        let started = Instant::now();
        if let Some(mut reader) = StreamReader::new(&context.node, started) {
            let reason = match context.store.connect() {
                Err(error) => Some(error.to_string()),
                Ok(mut connection) => loop {
                    let at = Instant::now();
                    match reader.step(&mut connection, context.clock.at(at), at) {
                        Err(error) => break Some(error.to_string()),
                        Ok(ReadStatus::Stalled) => {
                            let reason = "the store no longer passes on what is written to it";
                            break Some(reason.to_owned());
                        }
                        Ok(ReadStatus::Superseded) => break None,
                        Ok(ReadStatus::Continue) if context.is_stopping() => return,
                        Ok(ReadStatus::Continue) => {}
                    }
                },
            };
            if let Some(reason) = reason {
                reader.connection_lost(&reason);
            }
            pause = match started.elapsed() < MAX_PAUSE {
                true => (2 * pause).min(MAX_PAUSE),
                false => MIN_PAUSE,
            };
        }
        thread::sleep(pause);
    }
}
