//! The store, Valkey or Redis, as a [`StreamStore`].
//!
//! All keys begin with the cluster's name, `tbtt` by default, followed by the number of a partition in braces. Valkey
//! Cluster would distribute the keys by that number.
//!
//! ```text
//! tbtt:{0}:changes .. tbtt:{15}:changes   streams: each entry has one field, which holds a batch
//! tbtt:{0}:filled                         the fill marker; lost when the store is emptied
//! tbtt:{0}:refill                         the node that refills the streams; expires after a minute
//! tbtt:{0}:downloads                      a hash: download counters by node and info-hash
//! ```

use std::thread;
use std::time::{Duration, Instant};

use redis::{
    Client, Cmd, Commands, ConnectionAddr, ConnectionInfo, FromRedisValue, Pipeline,
    RedisConnectionInfo, RedisError, TlsCertificates, Value,
};

use crate::cluster::download_counters::{DownloadCounter, NodeId};
use crate::cluster::queue::PARTITIONS;
use crate::cluster::settings::{Credentials, Settings};
use crate::cluster::stream_store::{Entry, EntryId, StoreError, StreamStore};
use crate::cluster::url::StoreAddress;
use crate::log;
use crate::tracker::types::InfoHash;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Maximum time for the store to respond, or to accept a command.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The field of an entry that holds the batch.
const BATCH_FIELD: &str = "b";

/// Maximum number of entries that a read returns from each stream.
const MAX_ENTRIES: usize = 64;

/// Number of counters that a command reads, or a round trip writes.
const COUNTERS_PER_COMMAND: usize = 1000;

/// Seconds for which the refill lock holds. After that, the node that refills the store counts as dead.
const REFILL_LOCK_SECS: u64 = 60;

impl From<RedisError> for StoreError {
    fn from(error: RedisError) -> Self {
        match error.is_timeout() {
            true => Self::new("no response in time"),
            false => Self::new(error.to_string()),
        }
    }
}

/// The store, and the settings that all connections to it share.
pub(super) struct RedisStore {
    client: Client,
    name: String,
    streams: [String; PARTITIONS],
    /// Entries are kept at least this long, in milliseconds.
    lifetime_ms: u64,
}

impl RedisStore {
    /// # Errors
    /// When the certificates are invalid.
    pub(super) fn new(settings: &Settings, credentials: &Credentials) -> Result<Self, StoreError> {
        let addr = match &settings.url.address {
            StoreAddress::Unix(path) => ConnectionAddr::Unix(path.clone()),
            StoreAddress::Tcp { host, port, tls } => match tls {
                false => ConnectionAddr::Tcp(host.clone(), *port),
                true => ConnectionAddr::TcpTls {
                    host: host.clone(),
                    port: *port,
                    insecure: false,
                    tls_params: None,
                },
            },
        };
        let info = ConnectionInfo {
            addr,
            redis: RedisConnectionInfo {
                db: settings.url.database.into(),
                username: Some(settings.user.clone()).filter(|user| !user.is_empty()),
                password: credentials.password.clone(),
                ..RedisConnectionInfo::default()
            },
        };
        let client = match settings.url.tls() {
            false => Client::open(info)?,
            true => {
                // Fails if another part of the process has installed a provider already.
                let _ = rustls::crypto::ring::default_provider().install_default();
                let certificates = TlsCertificates {
                    client_tls: None,
                    root_cert: credentials.ca_certificates.clone(),
                };
                Client::build_with_tls(info, certificates)?
            }
        };
        let name = settings.name.clone();
        Ok(Self {
            client,
            streams: std::array::from_fn(|number| format!("{name}:{{{number}}}:changes")),
            name,
            lifetime_ms: settings.lifetime().as_millis() as u64,
        })
    }

    /// Connects to the store, and logs the attempt at level debug. The pauses between attempts limit the rate of these
    /// lines.
    ///
    /// # Errors
    /// When the store cannot be reached, or refuses the credentials.
    pub(super) fn connect(&self) -> Result<RedisConnection<'_>, StoreError> {
        let started = Instant::now();
        let connected = self.try_connect();
        let thread = thread::current();
        let fields: log::Fields<'_> = &[
            ("thread", &thread.name().unwrap_or("-")),
            ("milliseconds", &started.elapsed().as_millis()),
        ];
        match &connected {
            Ok(_) => log::debug("connected to the cluster store", fields),
            Err(reason) => {
                let fields = [fields, &[("reason", reason as _)]].concat();
                log::debug("cannot connect to the cluster store", &fields);
            }
        }
        connected
    }

    fn try_connect(&self) -> Result<RedisConnection<'_>, StoreError> {
        let mut connection = self.client.get_connection_with_timeout(CONNECT_TIMEOUT)?;
        connection.set_read_timeout(Some(RESPONSE_TIMEOUT))?;
        connection.set_write_timeout(Some(RESPONSE_TIMEOUT))?;
        let sent_at = Instant::now();
        let (secs, micros): (u64, u64) = Cmd::new().arg("TIME").query(&mut connection)?;
        // The best estimate is that the response was on its way for half of the time.
        let at = sent_at + sent_at.elapsed() / 2;
        Ok(RedisConnection {
            store: self,
            connection,
            clock: StoreClock {
                at,
                ms: secs * 1000 + micros / 1000,
            },
        })
    }

    fn key(&self, suffix: &str) -> String {
        format!("{}:{{0}}:{suffix}", self.name)
    }
}

/// The store's time at a moment.
#[derive(Clone, Copy)]
struct StoreClock {
    at: Instant,
    ms: u64,
}

pub(super) struct RedisConnection<'s> {
    store: &'s RedisStore,
    connection: redis::Connection,
    clock: StoreClock,
}

impl StreamStore for RedisConnection<'_> {
    fn now_ms(&self) -> u64 {
        self.clock.ms + self.clock.at.elapsed().as_millis() as u64
    }

    fn append(&mut self, batches: &[(usize, Vec<u8>)]) -> Result<(), StoreError> {
        let oldest = self.now_ms().saturating_sub(self.store.lifetime_ms);
        let mut pipeline = Pipeline::with_capacity(batches.len());
        for (partition, batch) in batches {
            pipeline
                .cmd("XADD")
                .arg(&self.store.streams[*partition])
                .arg(&["MINID", "~"])
                .arg(oldest)
                .arg(&["*", BATCH_FIELD])
                .arg(batch)
                .ignore();
        }
        Ok(pipeline.query(&mut self.connection)?)
    }

    fn read(
        &mut self,
        after: &[EntryId; PARTITIONS],
        wait: Duration,
    ) -> Result<Vec<Entry>, StoreError> {
        let reply = Cmd::new()
            .arg("XREAD")
            .arg("COUNT")
            .arg(MAX_ENTRIES)
            .arg("BLOCK")
            .arg(wait.as_millis() as u64)
            .arg("STREAMS")
            .arg(&self.store.streams)
            .arg(&after.map(|id| id.to_string()))
            .query::<Value>(&mut self.connection)?;
        let mut entries = Vec::new();
        for stream in elements(reply) {
            let [name, content] = pair(stream)?;
            let name = String::from_owned_redis_value(name)?;
            let partition = self.store.streams.iter().position(|own| *own == name);
            let partition = partition.ok_or_else(unexpected_response)?;
            for entry in elements(content) {
                let [id, fields] = pair(entry)?;
                // An entry that something else wrote becomes an empty batch, which is counted as malformed.
                let batch = match elements(fields).into_iter().nth(1) {
                    Some(Value::BulkString(batch)) => batch,
                    _ => Vec::new(),
                };
                entries.push(Entry {
                    partition,
                    id: entry_id(id)?,
                    batch,
                });
            }
        }
        Ok(entries)
    }

    fn last_ids(&mut self) -> Result<[EntryId; PARTITIONS], StoreError> {
        let mut ids = [EntryId::default(); PARTITIONS];
        for (id, stream) in ids.iter_mut().zip(&self.store.streams) {
            let info = Cmd::new()
                .arg(&["XINFO", "STREAM", stream])
                .query::<Value>(&mut self.connection);
            let no_such_key = |error: &RedisError| {
                let detail = error.detail().unwrap_or_default();
                detail.contains("no such key")
            };
            let info = match info {
                Err(error) if no_such_key(&error) => continue,
                info => info?,
            };
            let mut fields = elements(info).into_iter();
            while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
                if matches!(&name, Value::BulkString(name) if name == b"last-generated-id") {
                    *id = entry_id(value)?;
                }
            }
        }
        Ok(ids)
    }

    fn fill_marker(&mut self) -> Result<Option<String>, StoreError> {
        Ok(self.connection.get(self.store.key("filled"))?)
    }

    fn finish_refill(&mut self, marker: &str) -> Result<(), StoreError> {
        let mut pipeline = Pipeline::new();
        pipeline
            .set(self.store.key("filled"), marker)
            .ignore()
            .del(self.store.key("refill"))
            .ignore();
        Ok(pipeline.query(&mut self.connection)?)
    }

    fn try_lock_refill(&mut self, node: &str) -> Result<bool, StoreError> {
        let locked = Cmd::new()
            .arg("SET")
            .arg(self.store.key("refill"))
            .arg(node)
            .arg(&["NX", "EX"])
            .arg(REFILL_LOCK_SECS)
            .query::<Value>(&mut self.connection)?;
        Ok(locked == Value::Okay)
    }

    fn trim_before(&mut self, ms: u64) -> Result<(), StoreError> {
        let mut pipeline = Pipeline::with_capacity(PARTITIONS);
        for stream in &self.store.streams {
            pipeline
                .cmd("XTRIM")
                .arg(stream)
                .arg("MINID")
                .arg(ms)
                .ignore();
        }
        Ok(pipeline.query(&mut self.connection)?)
    }

    fn extend_refill_lock(&mut self, node: &str) -> Result<(), StoreError> {
        Ok(Cmd::new()
            .arg("SET")
            .arg(self.store.key("refill"))
            .arg(node)
            .arg("EX")
            .arg(REFILL_LOCK_SECS)
            .query(&mut self.connection)?)
    }

    fn read_counters(&mut self, each: &mut dyn FnMut(DownloadCounter)) -> Result<(), StoreError> {
        let mut cursor = "0".to_owned();
        loop {
            let (next, fields): (String, HashFields) = Cmd::new()
                .arg("HSCAN")
                .arg(self.store.key("downloads"))
                .arg(&cursor)
                .arg("COUNT")
                .arg(COUNTERS_PER_COMMAND)
                .query(&mut self.connection)?;
            // Fields that something else wrote are skipped.
            let counters = fields
                .iter()
                .filter_map(|(field, count)| counter(field, count));
            counters.for_each(&mut *each);
            if next == "0" {
                return Ok(());
            }
            cursor = next;
        }
    }

    fn write_counters(&mut self, counters: &[DownloadCounter]) -> Result<(), StoreError> {
        let key = self.store.key("downloads");
        for counters in counters.chunks(COUNTERS_PER_COMMAND) {
            let mut pipeline = Pipeline::with_capacity(counters.len());
            for counter in counters {
                let field = [&counter.node.0.to_be_bytes()[..], &counter.info_hash.0].concat();
                pipeline
                    .cmd("HSET")
                    .arg(&key)
                    .arg(field)
                    .arg(counter.downloads)
                    .ignore();
            }
            pipeline.query::<()>(&mut self.connection)?;
        }
        Ok(())
    }
}

fn entry_id(value: Value) -> Result<EntryId, StoreError> {
    let id = String::from_owned_redis_value(value)?;
    id.parse().map_err(|()| unexpected_response())
}

/// Fields of a hash, with their values.
type HashFields = Vec<(Vec<u8>, Vec<u8>)>;

/// Parses a field and its value in the hash of download counters.
fn counter(field: &[u8], count: &[u8]) -> Option<DownloadCounter> {
    let (node, info_hash) = field.split_first_chunk()?;
    Some(DownloadCounter {
        node: NodeId(u64::from_be_bytes(*node)),
        info_hash: InfoHash(info_hash.try_into().ok()?),
        downloads: std::str::from_utf8(count).ok()?.parse().ok()?,
    })
}

/// Returns the elements of an array; of anything else, none.
fn elements(value: Value) -> Vec<Value> {
    match value {
        Value::Array(values) => values,
        _ => Vec::new(),
    }
}

fn pair(value: Value) -> Result<[Value; 2], StoreError> {
    elements(value)
        .try_into()
        .map_err(|_| unexpected_response())
}

/// Returns the error for a response that does not fit its command.
fn unexpected_response() -> StoreError {
    StoreError::new("unexpected response; check that the server at cluster.url is Valkey or Redis")
}
