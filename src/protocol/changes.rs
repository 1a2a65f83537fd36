//! What one tracker tells the others, as bytes: batches of changes and download counters.
//!
//! A batch is a head and then, until its end, records. Numbers are big-endian.
//!
//! ```text
//! version     1 byte    1
//! node        u64       who tells, for good
//! run         u32       which life of its that is
//!
//! kind        1 byte    4 or 6: a peer of IPv4 or IPv6
//! info_hash   20 bytes
//! address     4 or 16 bytes
//! port        u16       not 0
//! mark        u32       host's fingerprint (upper 28 bits), told again (1 bit), download counted (1 bit),
//!                       class (2 bits: leecher, partial seed, seeder, has left)
//! age         u16       seconds since the announce; 65,535 and more are one
//!
//! kind        1 byte    1: a download counter
//! info_hash   20 bytes
//! node        u64       who counted
//! downloads   u32
//! ```
//!
//! A kind from 128 on is of a later version, and is followed by the length of the rest (1 byte), so that it can be passed over.
//! There is no time in it: when a batch was told, the engine knows by its own clock, and so the nodes' need not agree.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU16;

use crate::tracker::downloads::{Counter, NodeId};
use crate::tracker::{Answer, Change, Class, InfoHash, Told};

const VERSION: u8 = 1;
const HEAD: usize = 1 + 8 + 4;

const PEER_V4: u8 = 4;
const PEER_V6: u8 = 6;
const COUNTER: u8 = 1;
const SKIPPABLE: u8 = 128;

const AGAIN: u32 = 0b1000;
const COMPLETED: u32 = 0b0100;
const CLASS: u32 = 0b0011;
const HOST: u32 = !0b1111;

/// The longest record, in bytes.
pub const MAX_RECORD: usize = 1 + 20 + 18 + 4 + 2;

/// Who tells a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sender {
    pub node: NodeId,
    /// Another at each start: a node that comes back empty needs what its former self told.
    pub run: u32,
}

/// What an announce did that other trackers are to hear.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct News {
    /// `None`: nothing changed.
    pub change: Option<Change>,
    /// It made a new download.
    pub counted: bool,
}

impl News {
    pub(super) fn of(answer: &Answer) -> Self {
        Self {
            change: answer.change,
            counted: answer.counted,
        }
    }
}

/// One record of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Record {
    Peer(Told),
    Counter(Counter),
}

/// A batch that follows the format to its end.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    pub sender: Sender,
    records: &'a [u8],
}

/// Of another version, torn, or otherwise not a batch: nothing of it can be relied on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Malformed {
    Version(u8),
    Torn,
    Kind(u8),
    /// Port 0, or an IPv4-mapped address.
    Endpoint,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => {
                write!(f, "its version is {version}, this one reads {VERSION}")
            }
            Self::Torn => f.write_str("it ends in the middle of a record"),
            Self::Kind(kind) => write!(f, "a record is of no known kind, {kind}"),
            Self::Endpoint => f.write_str("a peer cannot be reached where it says"),
        }
    }
}

impl std::error::Error for Malformed {}

/// Replaces `out` by a batch without records, for [`write_record`] to append to.
pub fn write_head(sender: Sender, out: &mut Vec<u8>) {
    out.clear();
    out.push(VERSION);
    out.extend_from_slice(&sender.node.0.to_be_bytes());
    out.extend_from_slice(&sender.run.to_be_bytes());
}

/// Appends a record to a batch.
pub fn write_record(record: &Record, out: &mut Vec<u8>) {
    match record {
        Record::Peer(told) => write_peer(told, out),
        Record::Counter(counter) => {
            out.push(COUNTER);
            out.extend_from_slice(&counter.info_hash.0);
            out.extend_from_slice(&counter.node.0.to_be_bytes());
            out.extend_from_slice(&counter.downloads.to_be_bytes());
        }
    }
}

fn write_peer(told: &Told, out: &mut Vec<u8>) {
    let change = &told.change;
    out.push(if change.address.is_ipv4() {
        PEER_V4
    } else {
        PEER_V6
    });
    out.extend_from_slice(&change.info_hash.0);
    match change.address {
        IpAddr::V4(v4) => out.extend_from_slice(&v4.octets()),
        IpAddr::V6(v6) => out.extend_from_slice(&v6.octets()),
    }
    out.extend_from_slice(&change.port.get().to_be_bytes());
    let again = if told.again { AGAIN } else { 0 };
    let completed = if change.completed { COMPLETED } else { 0 };
    let class = match change.class {
        Some(Class::Leecher) => 0,
        Some(Class::Partial) => 1,
        Some(Class::Seeder) => 2,
        None => 3,
    };
    out.extend_from_slice(&(change.host & HOST | again | completed | class).to_be_bytes());
    let age = u16::try_from(told.age_secs).unwrap_or(u16::MAX);
    out.extend_from_slice(&age.to_be_bytes());
}

impl<'a> Batch<'a> {
    /// Reads a batch, and its records once, so that none is taken in of one that is found torn later.
    ///
    /// # Errors
    /// When it does not follow the format.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (&version, _) = bytes.split_first().ok_or(Malformed::Torn)?;
        if version != VERSION {
            return Err(Malformed::Version(version));
        }
        let (head, records) = bytes.split_at_checked(HEAD).ok_or(Malformed::Torn)?;
        let mut head = &head[1..];
        let sender = Sender {
            node: NodeId(u64::from_be_bytes(take(&mut head)?)),
            run: u32::from_be_bytes(take(&mut head)?),
        };
        let mut rest = records;
        while read_record(&mut rest)?.is_some() {}
        Ok(Self { sender, records })
    }

    /// In the order in which they were told.
    pub fn records(&self) -> impl Iterator<Item = Record> + use<'a> {
        let mut rest = self.records;
        std::iter::from_fn(move || read_record(&mut rest).ok().flatten())
    }
}

/// Takes a record off the front, past those of later versions; `None` at the end.
fn read_record(rest: &mut &[u8]) -> Result<Option<Record>, Malformed> {
    loop {
        let Some((&kind, after)) = rest.split_first() else {
            return Ok(None);
        };
        *rest = after;
        return match kind {
            PEER_V4 | PEER_V6 => read_peer(kind, rest).map(Record::Peer).map(Some),
            COUNTER => Ok(Some(Record::Counter(Counter {
                info_hash: InfoHash(take(rest)?),
                node: NodeId(u64::from_be_bytes(take(rest)?)),
                downloads: u32::from_be_bytes(take(rest)?),
            }))),
            SKIPPABLE.. => {
                let [len] = take(rest)?;
                let after = rest.split_at_checked(len.into()).ok_or(Malformed::Torn)?.1;
                *rest = after;
                continue;
            }
            _ => Err(Malformed::Kind(kind)),
        };
    }
}

fn read_peer(kind: u8, rest: &mut &[u8]) -> Result<Told, Malformed> {
    let info_hash = InfoHash(take(rest)?);
    let address = match kind {
        PEER_V4 => IpAddr::from(take::<4>(rest)?),
        _ => {
            let v6 = Ipv6Addr::from(take::<16>(rest)?);
            if v6.to_ipv4_mapped().is_some() {
                return Err(Malformed::Endpoint);
            }
            v6.into()
        }
    };
    let port = NonZeroU16::new(u16::from_be_bytes(take(rest)?)).ok_or(Malformed::Endpoint)?;
    let mark = u32::from_be_bytes(take(rest)?);
    let class = match mark & CLASS {
        0 => Some(Class::Leecher),
        1 => Some(Class::Partial),
        2 => Some(Class::Seeder),
        _ => None,
    };
    Ok(Told {
        change: Change {
            info_hash,
            address,
            port,
            host: mark & HOST,
            class,
            completed: mark & COMPLETED != 0,
        },
        age_secs: u16::from_be_bytes(take(rest)?).into(),
        again: mark & AGAIN != 0,
    })
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Malformed> {
    let (first, after) = rest.split_first_chunk().ok_or(Malformed::Torn)?;
    *rest = after;
    Ok(*first)
}
