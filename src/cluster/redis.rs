//! The engine, Valkey or Redis, as the cluster needs it: one connection, and each thing that is asked of it.
//!
//! All its keys begin with the cluster's name, `tbtt` unless another is configured, and the number of a partition in
//! braces, by which Valkey Cluster would deal them out:
//!
//! ```text
//! tbtt:{0}:changes .. tbtt:{15}:changes   streams: each entry is a batch, in its one field
//! tbtt:{0}:filled                              that the streams hold what the nodes know; gone when the engine was emptied
//! tbtt:{0}:refill                         which node is filling them redelivered, for a minute at most
//! tbtt:{0}:downloads                      a hash: what each node has counted, by node and info-hash
//! ```

use std::fmt;
use std::time::{Duration, Instant};

use redis::{
    Client, Cmd, Commands, ConnectionAddr, ConnectionInfo, FromRedisValue, Pipeline,
    RedisConnectionInfo, RedisError, TlsCertificates, Value,
};

use crate::cluster::download_counters::{Counter, NodeId};
use crate::cluster::queue::PARTITIONS;
use crate::cluster::resync::EntryId;
use crate::cluster::settings::{Credentials, Settings};
use crate::cluster::stream_store::{Entry, StreamStore};
use crate::cluster::url::StoreAddress;
use crate::tracker::InfoHash;

/// How long it may take to connect, and to answer or take anything else.
const CONNECT: Duration = Duration::from_secs(2);
const ANSWER: Duration = Duration::from_secs(5);

/// The one field of an entry.
const BATCH: &str = "b";

/// How many entries of each stream one read gives at most.
const READ_AT_ONCE: usize = 64;

/// How many counters one command reads, or one round trip writes.
const DOWNLOADS_AT_ONCE: usize = 1000;

/// For how long one node alone fills an emptied engine, in seconds: then it is thought to have died.
const REFILL_SECS: u64 = 60;

/// What is said to an engine after it could not be reached, or did not do what it should: the reason.
#[derive(Debug)]
pub(super) struct StoreError(String);

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<RedisError> for StoreError {
    fn from(error: RedisError) -> Self {
        match error.is_timeout() {
            true => Self("no answer in time".to_owned()),
            false => Self(error.to_string()),
        }
    }
}

/// What never changes between two connections.
pub(super) struct RedisStore {
    client: Client,
    name: String,
    streams: [String; PARTITIONS],
    /// The least age at which an entry may go, in milliseconds.
    lifetime_ms: u64,
}

impl RedisStore {
    /// # Errors
    /// If the certificates are none.
    pub(super) fn new(settings: &Settings, credentials: &Credentials) -> Result<Self, StoreError> {
        let addr = match &settings.url.place {
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
                // Another part of the process may have chosen already.
                let _ = rustls::crypto::ring::default_provider().install_default();
                let certificates = TlsCertificates {
                    client_tls: None,
                    root_cert: credentials.certificates.clone(),
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

    pub(super) fn connect(&self) -> Result<Connection<'_>, StoreError> {
        let mut connection = self.client.get_connection_with_timeout(CONNECT)?;
        connection.set_read_timeout(Some(ANSWER))?;
        connection.set_write_timeout(Some(ANSWER))?;
        let asked = Instant::now();
        let (secs, micros): (u64, u64) = Cmd::new().arg("TIME").query(&mut connection)?;
        // The answer was under way for half the time, as far as anyone can tell.
        let at = asked + asked.elapsed() / 2;
        Ok(Connection {
            engine: self,
            connection,
            clock: Clock {
                at,
                ms: secs * 1000 + micros / 1000,
            },
        })
    }

    fn key(&self, what: &str) -> String {
        format!("{}:{{0}}:{what}", self.name)
    }
}

/// What the engine's clock said when it was asked.
#[derive(Clone, Copy)]
struct Clock {
    at: Instant,
    ms: u64,
}

pub(super) struct Connection<'e> {
    engine: &'e RedisStore,
    connection: redis::Connection,
    clock: Clock,
}

impl StreamStore for Connection<'_> {
    type StoreError = StoreError;

    fn now_ms(&self) -> u64 {
        self.clock.ms + self.clock.at.elapsed().as_millis() as u64
    }

    fn append(&mut self, batches: &[(usize, Vec<u8>)]) -> Result<(), StoreError> {
        let oldest = self.now_ms().saturating_sub(self.engine.lifetime_ms);
        let mut pipeline = Pipeline::with_capacity(batches.len());
        for (partition, batch) in batches {
            pipeline
                .cmd("XADD")
                .arg(&self.engine.streams[*partition])
                .arg(&["MINID", "~"])
                .arg(oldest)
                .arg(&["*", BATCH])
                .arg(batch)
                .ignore();
        }
        Ok(pipeline.query(&mut self.connection)?)
    }

    fn read(
        &mut self,
        from: &[EntryId; PARTITIONS],
        wait: Duration,
    ) -> Result<Vec<Entry>, StoreError> {
        let reply = Cmd::new()
            .arg("XREAD")
            .arg("COUNT")
            .arg(READ_AT_ONCE)
            .arg("BLOCK")
            .arg(wait.as_millis() as u64)
            .arg("STREAMS")
            .arg(&self.engine.streams)
            .arg(&from.map(|id| id.to_string()))
            .query::<Value>(&mut self.connection)?;
        let mut entries = Vec::new();
        for stream in list(reply) {
            let [name, content] = pair(stream)?;
            let name = String::from_owned_redis_value(name)?;
            let partition = self.engine.streams.iter().position(|own| *own == name);
            let partition = partition.ok_or_else(odd)?;
            for entry in list(content) {
                let [id, fields] = pair(entry)?;
                // Whatever else someone has put there is no batch, and will be seen to be none.
                let batch = match list(fields).into_iter().nth(1) {
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
        for (id, stream) in ids.iter_mut().zip(&self.engine.streams) {
            let info = Cmd::new()
                .arg(&["XINFO", "STREAM", stream])
                .query::<Value>(&mut self.connection);
            let no_such_key = |error: &RedisError| {
                let why = error.detail().unwrap_or_default();
                why.contains("no such key")
            };
            let info = match info {
                Err(error) if no_such_key(&error) => continue,
                info => info?,
            };
            let mut fields = list(info).into_iter();
            while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
                if matches!(&name, Value::BulkString(name) if name == b"last-generated-id") {
                    *id = entry_id(value)?;
                }
            }
        }
        Ok(ids)
    }

    fn fill_marker(&mut self) -> Result<Option<String>, StoreError> {
        Ok(self.connection.get(self.engine.key("filled"))?)
    }

    fn set_filled(&mut self, marker: &str) -> Result<(), StoreError> {
        let mut pipeline = Pipeline::new();
        pipeline
            .set(self.engine.key("filled"), marker)
            .ignore()
            .del(self.engine.key("refill"))
            .ignore();
        Ok(pipeline.query(&mut self.connection)?)
    }

    fn try_lock_refill(&mut self, node: &str) -> Result<bool, StoreError> {
        let locked = Cmd::new()
            .arg("SET")
            .arg(self.engine.key("refill"))
            .arg(node)
            .arg(&["NX", "EX"])
            .arg(REFILL_SECS)
            .query::<Value>(&mut self.connection)?;
        Ok(locked == Value::Okay)
    }

    fn forget_before(&mut self, ms: u64) -> Result<(), StoreError> {
        let mut pipeline = Pipeline::with_capacity(PARTITIONS);
        for stream in &self.engine.streams {
            pipeline
                .cmd("XTRIM")
                .arg(stream)
                .arg("MINID")
                .arg(ms)
                .ignore();
        }
        Ok(pipeline.query(&mut self.connection)?)
    }

    fn keep_refilling(&mut self, node: &str) -> Result<(), StoreError> {
        Ok(Cmd::new()
            .arg("SET")
            .arg(self.engine.key("refill"))
            .arg(node)
            .arg("EX")
            .arg(REFILL_SECS)
            .query(&mut self.connection)?)
    }

    fn downloads(&mut self, each: &mut dyn FnMut(Counter)) -> Result<(), StoreError> {
        let mut cursor = "0".to_owned();
        loop {
            let (next, fields): (String, Fields) = Cmd::new()
                .arg("HSCAN")
                .arg(self.engine.key("downloads"))
                .arg(&cursor)
                .arg("COUNT")
                .arg(DOWNLOADS_AT_ONCE)
                .query(&mut self.connection)?;
            // What someone else put there counts nothing.
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

    fn set_downloads(&mut self, counters: &[Counter]) -> Result<(), StoreError> {
        let key = self.engine.key("downloads");
        for counters in counters.chunks(DOWNLOADS_AT_ONCE) {
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
    id.parse().map_err(|()| odd())
}

/// Of a hash, with their values.
type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// Of a field and its value in the hash of downloads.
fn counter(field: &[u8], count: &[u8]) -> Option<Counter> {
    let (node, info_hash) = field.split_first_chunk()?;
    Some(Counter {
        node: NodeId(u64::from_be_bytes(*node)),
        info_hash: InfoHash(info_hash.try_into().ok()?),
        downloads: std::str::from_utf8(count).ok()?.parse().ok()?,
    })
}

fn list(value: Value) -> Vec<Value> {
    match value {
        Value::Array(values) => values,
        _ => Vec::new(),
    }
}

fn pair(value: Value) -> Result<[Value; 2], StoreError> {
    list(value).try_into().map_err(|_| odd())
}

fn odd() -> StoreError {
    StoreError("the engine answered in a way that no Valkey or Redis does".to_owned())
}
