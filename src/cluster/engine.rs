//! The engine, Valkey or Redis, as the cluster needs it: one connection, and each thing that is asked of it.
//!
//! All its keys begin with the cluster's name, `tbtt` unless another is configured, and the number of a partition in
//! braces, by which Valkey Cluster would deal them out:
//!
//! ```text
//! tbtt:{0}:changes .. tbtt:{15}:changes   streams: each entry is a batch, in its one field
//! tbtt:{0}:filled                         that the streams hold what the nodes know; gone when the engine was emptied
//! tbtt:{0}:refill                         which node is filling them again, for a minute at most
//! tbtt:{0}:downloads                      a hash: what each node has counted, by node and info-hash
//! ```

use std::fmt;
use std::time::{Duration, Instant};

use redis::{
    Client, Cmd, Commands, ConnectionAddr, ConnectionInfo, FromRedisValue, Pipeline,
    RedisConnectionInfo, RedisError, TlsCertificates, Value,
};

use super::url::Place;
use super::{Credentials, Settings};
use crate::protocol::member::EntryId;
use crate::server::outbox::PARTITIONS;
use crate::tracker::InfoHash;
use crate::tracker::downloads::{Counter, NodeId};

/// How long it may take to connect, and to answer or take anything else.
const CONNECT: Duration = Duration::from_secs(2);
const ANSWER: Duration = Duration::from_secs(5);

/// The one field of an entry.
const BATCH: &str = "b";

/// How many entries of each stream one read gives at most.
pub(super) const READ_AT_ONCE: usize = 64;

/// How many counters one command reads, or one round trip writes.
const DOWNLOADS_AT_ONCE: usize = 1000;

/// For how long one node alone fills an emptied engine, in seconds: then it is thought to have died.
const REFILL_SECS: u32 = 60;

/// What is said to an engine after it could not be reached, or did not do what it should: the reason.
#[derive(Debug)]
pub(super) struct Lost(String);

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Lost {
    /// What was written does not come back to be read.
    pub(super) fn deaf() -> Self {
        Self("it no longer passes on what is written to it".to_owned())
    }
}

impl From<RedisError> for Lost {
    fn from(error: RedisError) -> Self {
        Self(error.to_string())
    }
}

/// An entry read from a stream.
pub(super) struct Entry {
    pub(super) partition: usize,
    pub(super) id: EntryId,
    pub(super) batch: Vec<u8>,
}

/// What never changes between two connections.
pub(super) struct Engine {
    client: Client,
    name: String,
    streams: [String; PARTITIONS],
    /// The least age at which an entry may go, in milliseconds.
    lifetime_ms: u64,
}

impl Engine {
    /// # Errors
    /// If the certificates are none.
    pub(super) fn new(settings: &Settings, credentials: &Credentials) -> Result<Self, Lost> {
        let addr = match &settings.url.place {
            Place::Unix(path) => ConnectionAddr::Unix(path.clone()),
            Place::Tcp { host, port, tls } => match tls {
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

    pub(super) fn connect(&self) -> Result<Connection<'_>, Lost> {
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

/// The engine's time, which all nodes share: their own clocks may say what they want.
#[derive(Clone, Copy)]
pub(super) struct Clock {
    at: Instant,
    ms: u64,
}

impl Clock {
    /// In milliseconds since 1970.
    pub(super) fn now(self) -> u64 {
        self.ms + self.at.elapsed().as_millis() as u64
    }

    /// For how long an entry has been there, in milliseconds.
    pub(super) fn age(self, id: EntryId) -> u64 {
        self.now().saturating_sub(id.ms)
    }
}

/// After any error it must not be used again.
pub(super) struct Connection<'e> {
    engine: &'e Engine,
    connection: redis::Connection,
    pub(super) clock: Clock,
}

impl Connection<'_> {
    /// Appends batches, each to its partition's stream, forgets there what is too old, and tells the last one's id.
    pub(super) fn append(&mut self, batches: &[(usize, Vec<u8>)]) -> Result<EntryId, Lost> {
        let oldest = self.clock.now().saturating_sub(self.engine.lifetime_ms);
        let mut pipeline = Pipeline::with_capacity(batches.len());
        for (partition, batch) in batches {
            pipeline
                .cmd("XADD")
                .arg(&self.engine.streams[*partition])
                .arg(&["MINID", "~"])
                .arg(oldest)
                .arg(&["*", BATCH])
                .arg(batch);
        }
        let ids: Vec<String> = pipeline.query(&mut self.connection)?;
        let ids = ids.iter().filter_map(|id| id.parse().ok());
        Ok(ids.max().unwrap_or_default())
    }

    /// What comes after `from` in each stream, in its order; waits for up to `wait` if that is nothing.
    pub(super) fn read(
        &mut self,
        from: &[EntryId; PARTITIONS],
        wait: Duration,
    ) -> Result<Vec<Entry>, Lost> {
        let ids = from.map(|id| id.to_string());
        let reply = Cmd::new()
            .arg("XREAD")
            .arg("COUNT")
            .arg(READ_AT_ONCE)
            .arg("BLOCK")
            .arg(wait.as_millis() as u64)
            .arg("STREAMS")
            .arg(&self.engine.streams)
            .arg(&ids)
            .query::<Value>(&mut self.connection)?;
        let mut entries = Vec::new();
        for stream in list(reply) {
            let [key, of_key] = pair(stream)?;
            let key = String::from_owned_redis_value(key)?;
            let partition = self.engine.streams.iter().position(|name| *name == key);
            let partition = partition.ok_or_else(odd)?;
            for entry in list(of_key) {
                let [id, fields] = pair(entry)?;
                let id = String::from_owned_redis_value(id)?;
                // Whatever else someone has put there is no batch, and will be seen to be none.
                let batch = match list(fields).into_iter().nth(1) {
                    Some(Value::BulkString(batch)) => batch,
                    _ => Vec::new(),
                };
                entries.push(Entry {
                    partition,
                    id: id.parse().map_err(|()| odd())?,
                    batch,
                });
            }
        }
        Ok(entries)
    }

    /// The last id that each stream has given out; 0 where there is no stream.
    pub(super) fn last_ids(&mut self) -> Result<[EntryId; PARTITIONS], Lost> {
        let mut ids = [EntryId::default(); PARTITIONS];
        for (id, stream) in ids.iter_mut().zip(&self.engine.streams) {
            let info = Cmd::new()
                .arg(&["XINFO", "STREAM", stream])
                .query::<Value>(&mut self.connection);
            let info = match info {
                Err(error)
                    if error
                        .detail()
                        .is_some_and(|why| why.contains("no such key")) =>
                {
                    continue;
                }
                info => info?,
            };
            let mut fields = list(info).into_iter();
            while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
                if matches!(&name, Value::BulkString(name) if name == b"last-generated-id") {
                    let last = String::from_owned_redis_value(value)?;
                    *id = last.parse().map_err(|()| odd())?;
                }
            }
        }
        Ok(ids)
    }

    /// What [`Connection::set_filled`] last said; `None` if the engine has been emptied since, or is new.
    pub(super) fn filled(&mut self) -> Result<Option<String>, Lost> {
        Ok(self.connection.get(self.engine.key("filled"))?)
    }

    /// Says that the streams hold all that this node knows, and lets others fill them.
    pub(super) fn set_filled(&mut self, marker: &str) -> Result<(), Lost> {
        let mut pipeline = Pipeline::new();
        pipeline
            .set(self.engine.key("filled"), marker)
            .ignore()
            .del(self.engine.key("refill"))
            .ignore();
        Ok(pipeline.query(&mut self.connection)?)
    }

    /// What all nodes have counted.
    pub(super) fn downloads(&mut self, mut hear: impl FnMut(Counter)) -> Result<(), Lost> {
        let mut cursor = "0".to_owned();
        loop {
            let (next, fields): (String, Vec<(Vec<u8>, Vec<u8>)>) = Cmd::new()
                .arg("HSCAN")
                .arg(self.engine.key("downloads"))
                .arg(&cursor)
                .arg("COUNT")
                .arg(DOWNLOADS_AT_ONCE)
                .query(&mut self.connection)?;
            for (field, count) in fields {
                // What someone else put there counts nothing.
                if let Some(counter) = counter(&field, &count) {
                    hear(counter);
                }
            }
            if next == "0" {
                return Ok(());
            }
            cursor = next;
        }
    }

    /// Says what nodes have counted: what `own` has replaces what it had, of others only what was not there.
    pub(super) fn set_downloads(&mut self, own: NodeId, counters: &[Counter]) -> Result<(), Lost> {
        let key = self.engine.key("downloads");
        for counters in counters.chunks(DOWNLOADS_AT_ONCE) {
            let mut pipeline = Pipeline::with_capacity(counters.len());
            for counter in counters {
                let field = [&counter.node.0.to_be_bytes()[..], &counter.info_hash.0].concat();
                pipeline
                    .cmd(if counter.node == own {
                        "HSET"
                    } else {
                        "HSETNX"
                    })
                    .arg(&key)
                    .arg(field)
                    .arg(counter.downloads)
                    .ignore();
            }
            pipeline.query::<()>(&mut self.connection)?;
        }
        Ok(())
    }

    /// Whether this node is to fill the streams: no other is about it.
    pub(super) fn may_refill(&mut self, node: &str) -> Result<bool, Lost> {
        let locked = Cmd::new()
            .arg("SET")
            .arg(self.engine.key("refill"))
            .arg(node)
            .arg(&["NX", "EX"])
            .arg(REFILL_SECS)
            .query::<Value>(&mut self.connection)?;
        Ok(locked == Value::Okay)
    }
}

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

fn pair(value: Value) -> Result<[Value; 2], Lost> {
    list(value).try_into().map_err(|_| odd())
}

fn odd() -> Lost {
    Lost("the engine answered in a way that no Valkey or Redis does".to_owned())
}
