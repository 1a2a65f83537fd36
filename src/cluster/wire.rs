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
//! mark        u32       host's fingerprint (upper 28 bits), told redelivered (1 bit), download counted (1 bit),
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
//! There is no time in it: when a batch was told, the engine contains by its own clock, and so the nodes' need not agree.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU16;

use crate::bytes;
use crate::cluster::download_counters::{Counter, NodeId};
use crate::tracker::{Class, InfoHash, PeerUpdate, TimedUpdate};

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

/// One record of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReplicationRecord {
    Peer(TimedUpdate),
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
pub enum InvalidBatch {
    Version(u8),
    Torn,
    Kind(u8),
    /// Port 0, or an IPv4-mapped address.
    Endpoint,
}

impl fmt::Display for InvalidBatch {
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

impl std::error::Error for InvalidBatch {}

/// Replaces `out` by a batch without records, for [`write_record`] to append to.
pub fn write_head(sender: Sender, out: &mut Vec<u8>) {
    out.clear();
    out.push(VERSION);
    out.extend_from_slice(&sender.node.0.to_be_bytes());
    out.extend_from_slice(&sender.run.to_be_bytes());
}

/// Appends a record to a batch.
pub fn write_record(record: &ReplicationRecord, out: &mut Vec<u8>) {
    match record {
        ReplicationRecord::Peer(told) => write_peer(told, out),
        ReplicationRecord::Counter(counter) => {
            out.push(COUNTER);
            out.extend_from_slice(&counter.info_hash.0);
            out.extend_from_slice(&counter.node.0.to_be_bytes());
            out.extend_from_slice(&counter.downloads.to_be_bytes());
        }
    }
}

fn write_peer(told: &TimedUpdate, out: &mut Vec<u8>) {
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
    let redelivered = if told.redelivered { AGAIN } else { 0 };
    let completed = if change.completed { COMPLETED } else { 0 };
    let class = match change.class {
        Some(Class::Leecher) => 0,
        Some(Class::Partial) => 1,
        Some(Class::Seeder) => 2,
        None => 3,
    };
    out.extend_from_slice(&(change.host & HOST | redelivered | completed | class).to_be_bytes());
    let age = u16::try_from(told.age_secs).unwrap_or(u16::MAX);
    out.extend_from_slice(&age.to_be_bytes());
}

impl<'a> Batch<'a> {
    /// Reads a batch, and its records once, so that none is taken in of one that is found torn later.
    ///
    /// # Errors
    /// When it does not follow the format.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, InvalidBatch> {
        let (sender, records) = read_head(bytes)?;
        let mut rest = records;
        while read_record(&mut rest)?.is_some() {}
        Ok(Self { sender, records })
    }

    /// In the order in which they were told.
    pub fn records(&self) -> impl Iterator<Item = ReplicationRecord> + use<'a> {
        let mut rest = self.records;
        std::iter::from_fn(move || read_record(&mut rest).ok().flatten())
    }
}

/// Who tells a batch, whatever is in it.
///
/// # Errors
/// When it does not begin as the format has it.
pub fn read_sender(bytes: &[u8]) -> Result<Sender, InvalidBatch> {
    read_head(bytes).map(|(sender, _)| sender)
}

fn read_head(bytes: &[u8]) -> Result<(Sender, &[u8]), InvalidBatch> {
    let (&version, _) = bytes.split_first().ok_or(InvalidBatch::Torn)?;
    if version != VERSION {
        return Err(InvalidBatch::Version(version));
    }
    let (head, records) = bytes.split_at_checked(HEAD).ok_or(InvalidBatch::Torn)?;
    let mut head = &head[1..];
    let sender = Sender {
        node: NodeId(u64::from_be_bytes(take(&mut head)?)),
        run: u32::from_be_bytes(take(&mut head)?),
    };
    Ok((sender, records))
}

/// Takes a record off the front, past those of later versions; `None` at the end.
fn read_record(rest: &mut &[u8]) -> Result<Option<ReplicationRecord>, InvalidBatch> {
    loop {
        let Some((&kind, after)) = rest.split_first() else {
            return Ok(None);
        };
        *rest = after;
        return match kind {
            PEER_V4 | PEER_V6 => read_peer(kind, rest).map(ReplicationRecord::Peer).map(Some),
            COUNTER => Ok(Some(ReplicationRecord::Counter(Counter {
                info_hash: InfoHash(take(rest)?),
                node: NodeId(u64::from_be_bytes(take(rest)?)),
                downloads: u32::from_be_bytes(take(rest)?),
            }))),
            SKIPPABLE.. => {
                let [len] = take(rest)?;
                let after = rest
                    .split_at_checked(len.into())
                    .ok_or(InvalidBatch::Torn)?
                    .1;
                *rest = after;
                continue;
            }
            _ => Err(InvalidBatch::Kind(kind)),
        };
    }
}

fn read_peer(kind: u8, rest: &mut &[u8]) -> Result<TimedUpdate, InvalidBatch> {
    let info_hash = InfoHash(take(rest)?);
    let address = match kind {
        PEER_V4 => IpAddr::from(take::<4>(rest)?),
        _ => {
            let v6 = Ipv6Addr::from(take::<16>(rest)?);
            if v6.to_ipv4_mapped().is_some() {
                return Err(InvalidBatch::Endpoint);
            }
            v6.into()
        }
    };
    let port = NonZeroU16::new(u16::from_be_bytes(take(rest)?)).ok_or(InvalidBatch::Endpoint)?;
    let mark = u32::from_be_bytes(take(rest)?);
    let class = match mark & CLASS {
        0 => Some(Class::Leecher),
        1 => Some(Class::Partial),
        2 => Some(Class::Seeder),
        _ => None,
    };
    Ok(TimedUpdate {
        change: PeerUpdate {
            info_hash,
            address,
            port,
            host: mark & HOST,
            class,
            completed: mark & COMPLETED != 0,
        },
        age_secs: u16::from_be_bytes(take(rest)?).into(),
        redelivered: mark & AGAIN != 0,
    })
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], InvalidBatch> {
    bytes::take(rest).ok_or(InvalidBatch::Torn)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tracker::Rng;

    const SENDER: Sender = Sender {
        node: NodeId(0x0123_4567_89ab_cdef),
        run: 0x1122_3344,
    };

    fn some_record(random: &mut Rng) -> ReplicationRecord {
        let mut info_hash = InfoHash([0; 20]);
        info_hash.0.fill_with(|| random.next_u32() as u8);
        if random.below(4) == 0 {
            return ReplicationRecord::Counter(Counter {
                info_hash,
                node: NodeId(random.next_u64()),
                downloads: random.next_u32(),
            });
        }
        let address = match random.below(2) {
            0 => IpAddr::from(random.next_u32().to_be_bytes()),
            _ => {
                let upper = u128::from(random.next_u64() | 1 << 63) << 64;
                Ipv6Addr::from(upper | u128::from(random.next_u64())).into()
            }
        };
        let classes = [
            None,
            Some(Class::Leecher),
            Some(Class::Partial),
            Some(Class::Seeder),
        ];
        ReplicationRecord::Peer(TimedUpdate {
            change: PeerUpdate {
                info_hash,
                address,
                port: NonZeroU16::new(random.next_u32() as u16 | 1).unwrap(),
                host: random.next_u32() & HOST,
                class: classes[random.below(4) as usize],
                completed: random.below(2) == 0,
            },
            age_secs: random.below(1 << 16),
            redelivered: random.below(2) == 0,
        })
    }

    fn batch(records: &[ReplicationRecord]) -> Vec<u8> {
        let mut bytes = vec![9; 3];
        write_head(SENDER, &mut bytes);
        for record in records {
            let before = bytes.len();
            write_record(record, &mut bytes);
            assert!(bytes.len() - before <= MAX_RECORD);
        }
        bytes
    }

    fn parsed(bytes: &[u8]) -> Vec<ReplicationRecord> {
        let batch = Batch::parse(bytes).unwrap();
        assert_eq!(batch.sender, SENDER);
        batch.records().collect()
    }

    #[test]
    fn the_format_is_the_same_on_every_machine() {
        let told = TimedUpdate {
            change: PeerUpdate {
                info_hash: InfoHash(*b"aaaaabbbbbcccccddddd"),
                address: "192.0.2.1".parse().unwrap(),
                port: NonZeroU16::new(6881).unwrap(),
                host: 0xabcd_ef10,
                class: Some(Class::Seeder),
                completed: true,
            },
            age_secs: 258,
            redelivered: false,
        };
        let left = TimedUpdate {
            change: PeerUpdate {
                address: "2001:db8::1".parse().unwrap(),
                class: None,
                completed: false,
                ..told.change
            },
            age_secs: 70_000,
            redelivered: true,
        };
        let counter = Counter {
            info_hash: told.change.info_hash,
            node: NodeId(3),
            downloads: 4,
        };
        let records = [
            ReplicationRecord::Peer(told),
            ReplicationRecord::Peer(left),
            ReplicationRecord::Counter(counter),
        ];
        let expected = [
            b"\x01\x01\x23\x45\x67\x89\xab\xcd\xef\x11\x22\x33\x44".as_slice(),
            b"\x04aaaaabbbbbcccccddddd\xc0\0\x02\x01\x1a\xe1\xab\xcd\xef\x16\x01\x02",
            b"\x06aaaaabbbbbcccccddddd\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x1a\xe1\xab\xcd\xef\x1b\xff\xff",
            b"\x01aaaaabbbbbcccccddddd\0\0\0\0\0\0\0\x03\0\0\0\x04",
        ];
        assert_eq!(batch(&records), expected.concat());
        let oldest = TimedUpdate {
            age_secs: 65_535,
            ..left
        };
        let read = [records[0], ReplicationRecord::Peer(oldest), records[2]];
        assert_eq!(parsed(&expected.concat()), read);
    }

    #[test]
    fn what_is_written_is_read() {
        let mut random = Rng::new(1);
        for _ in 0..2000 {
            let records: Vec<_> = (0..random.below(20))
                .map(|_| some_record(&mut random))
                .collect();
            assert_eq!(parsed(&batch(&records)), records);
        }
    }

    #[test]
    fn a_torn_batch_is_refused_as_a_whole() {
        let mut random = Rng::new(2);
        let records: Vec<_> = (0..50).map(|_| some_record(&mut random)).collect();
        let whole = batch(&records);
        // Where a record ends, the batch may as well.
        let ends: Vec<_> = (0..=records.len())
            .map(|count| batch(&records[..count]).len())
            .collect();
        for len in 0..whole.len() {
            match ends.iter().position(|&end| end == len) {
                Some(count) => assert_eq!(parsed(&whole[..len]), records[..count]),
                None => {
                    assert_eq!(
                        Batch::parse(&whole[..len]).unwrap_err(),
                        InvalidBatch::Torn,
                        "{len}"
                    );
                }
            }
        }
    }

    #[test]
    fn what_a_later_version_adds_is_passed_over() {
        let mut random = Rng::new(3);
        let records = [some_record(&mut random), some_record(&mut random)];
        let between = batch(&records[..1]).len();
        for unknown in [&b"\x80\x00"[..], b"\xff\x05hello", b"\x90\x01\x04\x91\x00"] {
            for place in [HEAD, between, batch(&records).len()] {
                let mut bytes = batch(&records);
                bytes.splice(place..place, unknown.iter().copied());
                assert_eq!(parsed(&bytes), records);
            }
            let mut torn = batch(&records);
            torn.extend_from_slice(&unknown[..unknown.len() - 1]);
            assert_eq!(Batch::parse(&torn).unwrap_err(), InvalidBatch::Torn);
        }
        let mut bytes = batch(&records);
        bytes[0] = 2;
        assert_eq!(Batch::parse(&bytes).unwrap_err(), InvalidBatch::Version(2));
        assert_eq!(Batch::parse(b"\x02").unwrap_err(), InvalidBatch::Version(2));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let mut random = Rng::new(4);
        let peer = loop {
            match some_record(&mut random) {
                ReplicationRecord::Peer(told) if told.change.address.is_ipv6() => break told,
                _ => {}
            }
        };
        let good = batch(&[ReplicationRecord::Peer(peer)]);
        let with = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = good.clone();
            change(&mut bytes);
            Batch::parse(&bytes).map(|_| ()).unwrap_err()
        };
        let address = HEAD + 1 + 20;
        let port = address + 16;
        assert_eq!(
            with(&|bytes| bytes[port..port + 2].fill(0)),
            InvalidBatch::Endpoint
        );
        let mapped = |bytes: &mut Vec<u8>| {
            bytes[address..address + 10].fill(0);
            bytes[address + 10..address + 12].fill(0xff);
        };
        assert_eq!(with(&mapped), InvalidBatch::Endpoint);
        for kind in [0, 2, 3, 5, 7, 127] {
            assert_eq!(with(&|bytes| bytes[HEAD] = kind), InvalidBatch::Kind(kind));
        }
    }

    #[test]
    fn no_bytes_do_harm() {
        let mut random = Rng::new(5);
        let mut understood = 0;
        for round in 0..50_000 {
            let records = [some_record(&mut random), some_record(&mut random)];
            let mut bytes = batch(&records);
            if round % 2 == 0 {
                let at = random.below(bytes.len() as u32) as usize;
                bytes[at] = random.next_u32() as u8;
            } else {
                bytes[1..].fill_with(|| random.next_u32() as u8);
                bytes.truncate(random.below(100) as usize);
            }
            if let Ok(batch) = Batch::parse(&bytes) {
                understood += 1;
                assert!(batch.records().count() <= bytes.len() / 33);
            }
        }
        assert!(understood > 10_000, "{understood}");
    }
}
