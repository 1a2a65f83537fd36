//! The wire format between trackers of a cluster: batches of peer updates and download counters.
//!
//! A batch is a header followed by records up to its end. Numbers are big-endian.
//!
//! ```text
//! version     1 byte    1
//! node        u64       id of the node that sends the batch
//! run         u32       random number of the node's process: a restart changes it
//!
//! kind        1 byte    4 or 6: a peer of IPv4 or IPv6
//! info_hash   20 bytes
//! address     4 or 16 bytes
//! port        u16       not 0
//! flags       u32       host's fingerprint (upper 28 bits), redelivered (1 bit), download counted (1 bit),
//!                       class (2 bits: leecher, partial seed, seeder, departed)
//! age         u16       seconds since the announce; 65,535 also stands for more
//!
//! kind        1 byte    1: a download counter
//! info_hash   20 bytes
//! node        u64       id of the node that counted
//! downloads   u32
//! ```
//!
//! Kinds of 128 and more belong to later versions. The byte after such a kind is the length of the rest of the record, so
//! that a reader can skip the record. A batch holds no time of day: the store's clock says when a batch was appended,
//! so the clocks of the nodes need not agree.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU16;

use crate::bytes;
use crate::cluster::download_counters::{DownloadCounter, NodeId};
use crate::tracker::types::{Class, InfoHash, PeerUpdate, TimedUpdate};

const VERSION: u8 = 1;
const HEADER_LEN: usize = 1 + 8 + 4;

const PEER_V4: u8 = 4;
const PEER_V6: u8 = 6;
const COUNTER: u8 = 1;
const SKIPPABLE: u8 = 128;

const REDELIVERED: u32 = 0b1000;
const COMPLETED: u32 = 0b0100;
const CLASS: u32 = 0b0011;
const HOST: u32 = !0b1111;

/// Length of the longest record, in bytes.
pub const MAX_RECORD_LEN: usize = 1 + 20 + 18 + 4 + 2;

/// The node and the run that send a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BatchSender {
    pub node: NodeId,
    /// A random number, drawn at each start. A node that comes back without its memory must apply the batches of its
    /// earlier run, so they must not count as its own.
    pub run: u32,
}

/// One record of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReplicationRecord {
    Peer(TimedUpdate),
    Counter(DownloadCounter),
}

/// A received batch that was checked to its end.
#[derive(Clone, Copy, Debug)]
pub struct ReplicationBatch<'a> {
    pub sender: BatchSender,
    records: &'a [u8],
}

/// The reason why bytes are not a batch. None of its records may be applied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InvalidBatch {
    UnsupportedVersion(u8),
    Truncated,
    UnknownKind(u8),
    /// Port 0, or an IPv4-mapped IPv6 address.
    InvalidEndpoint,
}

impl fmt::Display for InvalidBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnsupportedVersion(version) => {
                write!(f, "unsupported version {version}, expected {VERSION}")
            }
            Self::Truncated => f.write_str("the batch ends in the middle of a record"),
            Self::UnknownKind(kind) => write!(f, "unknown record kind {kind}"),
            Self::InvalidEndpoint => f.write_str("port 0 or an IPv4-mapped address"),
        }
    }
}

impl std::error::Error for InvalidBatch {}

/// Replaces the contents of `out` by a batch without records, to which [`write_record`] appends.
pub fn write_header(sender: BatchSender, out: &mut Vec<u8>) {
    out.clear();
    out.push(VERSION);
    out.extend_from_slice(&sender.node.0.to_be_bytes());
    out.extend_from_slice(&sender.run.to_be_bytes());
}

/// Appends a record to a batch.
pub fn write_record(record: &ReplicationRecord, out: &mut Vec<u8>) {
    match record {
        ReplicationRecord::Peer(update) => write_peer(update, out),
        ReplicationRecord::Counter(counter) => {
            out.push(COUNTER);
            out.extend_from_slice(&counter.info_hash.0);
            out.extend_from_slice(&counter.node.0.to_be_bytes());
            out.extend_from_slice(&counter.downloads.to_be_bytes());
        }
    }
}

fn write_peer(update: &TimedUpdate, out: &mut Vec<u8>) {
    let peer = &update.update;
    out.push(if peer.address.is_ipv4() {
        PEER_V4
    } else {
        PEER_V6
    });
    out.extend_from_slice(&peer.info_hash.0);
    match peer.address {
        IpAddr::V4(v4) => out.extend_from_slice(&v4.octets()),
        IpAddr::V6(v6) => out.extend_from_slice(&v6.octets()),
    }
    out.extend_from_slice(&peer.port.get().to_be_bytes());
    let redelivered = if update.redelivered { REDELIVERED } else { 0 };
    let completed = if peer.completed { COMPLETED } else { 0 };
    let class = match peer.class {
        Some(Class::Leecher) => 0,
        Some(Class::Partial) => 1,
        Some(Class::Seeder) => 2,
        None => 3,
    };
    out.extend_from_slice(&(peer.host & HOST | redelivered | completed | class).to_be_bytes());
    let age = u16::try_from(update.age_secs).unwrap_or(u16::MAX);
    out.extend_from_slice(&age.to_be_bytes());
}

impl<'a> ReplicationBatch<'a> {
    /// Parses a batch and checks all its records, so that no record of an invalid batch is applied.
    ///
    /// # Errors
    /// When the bytes do not follow the format.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, InvalidBatch> {
        let (sender, records) = read_header(bytes)?;
        let mut rest = records;
        while read_record(&mut rest)?.is_some() {}
        Ok(Self { sender, records })
    }

    /// Returns the records in the order in which they were written.
    pub fn records(&self) -> impl Iterator<Item = ReplicationRecord> + use<'a> {
        let mut rest = self.records;
        std::iter::from_fn(move || read_record(&mut rest).ok().flatten())
    }
}

/// Parses the sender of a batch, and ignores its records.
///
/// # Errors
/// When the header does not follow the format.
pub fn read_sender(bytes: &[u8]) -> Result<BatchSender, InvalidBatch> {
    read_header(bytes).map(|(sender, _)| sender)
}

fn read_header(bytes: &[u8]) -> Result<(BatchSender, &[u8]), InvalidBatch> {
    let (&version, _) = bytes.split_first().ok_or(InvalidBatch::Truncated)?;
    if version != VERSION {
        return Err(InvalidBatch::UnsupportedVersion(version));
    }
    let (header, records) = bytes
        .split_at_checked(HEADER_LEN)
        .ok_or(InvalidBatch::Truncated)?;
    let mut header = &header[1..];
    let sender = BatchSender {
        node: NodeId(u64::from_be_bytes(take(&mut header)?)),
        run: u32::from_be_bytes(take(&mut header)?),
    };
    Ok((sender, records))
}

/// Removes the first record of `rest` and returns it; skips records of later versions. Returns `None` at the end.
fn read_record(rest: &mut &[u8]) -> Result<Option<ReplicationRecord>, InvalidBatch> {
    loop {
        let Some((&kind, after)) = rest.split_first() else {
            return Ok(None);
        };
        *rest = after;
        return match kind {
            PEER_V4 | PEER_V6 => read_peer(kind, rest).map(ReplicationRecord::Peer).map(Some),
            COUNTER => Ok(Some(ReplicationRecord::Counter(DownloadCounter {
                info_hash: InfoHash(take(rest)?),
                node: NodeId(u64::from_be_bytes(take(rest)?)),
                downloads: u32::from_be_bytes(take(rest)?),
            }))),
            SKIPPABLE.. => {
                let [len] = take(rest)?;
                let after = rest
                    .split_at_checked(len.into())
                    .ok_or(InvalidBatch::Truncated)?
                    .1;
                *rest = after;
                continue;
            }
            _ => Err(InvalidBatch::UnknownKind(kind)),
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
                return Err(InvalidBatch::InvalidEndpoint);
            }
            v6.into()
        }
    };
    let port =
        NonZeroU16::new(u16::from_be_bytes(take(rest)?)).ok_or(InvalidBatch::InvalidEndpoint)?;
    let flags = u32::from_be_bytes(take(rest)?);
    let class = match flags & CLASS {
        0 => Some(Class::Leecher),
        1 => Some(Class::Partial),
        2 => Some(Class::Seeder),
        _ => None,
    };
    Ok(TimedUpdate {
        update: PeerUpdate {
            info_hash,
            address,
            port,
            host: flags & HOST,
            class,
            completed: flags & COMPLETED != 0,
        },
        age_secs: u16::from_be_bytes(take(rest)?).into(),
        redelivered: flags & REDELIVERED != 0,
    })
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], InvalidBatch> {
    bytes::take(rest).ok_or(InvalidBatch::Truncated)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tracker::rng::Rng;

    const SENDER: BatchSender = BatchSender {
        node: NodeId(0x0123_4567_89ab_cdef),
        run: 0x1122_3344,
    };

    fn random_record(random: &mut Rng) -> ReplicationRecord {
        let mut info_hash = InfoHash([0; 20]);
        info_hash.0.fill_with(|| random.next_u32() as u8);
        if random.below(4) == 0 {
            return ReplicationRecord::Counter(DownloadCounter {
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
            update: PeerUpdate {
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
        write_header(SENDER, &mut bytes);
        for record in records {
            let before = bytes.len();
            write_record(record, &mut bytes);
            assert!(bytes.len() - before <= MAX_RECORD_LEN);
        }
        bytes
    }

    fn parsed(bytes: &[u8]) -> Vec<ReplicationRecord> {
        let batch = ReplicationBatch::parse(bytes).unwrap();
        assert_eq!(batch.sender, SENDER);
        batch.records().collect()
    }

    #[test]
    fn format_is_fixed() {
        let joined = TimedUpdate {
            update: PeerUpdate {
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
            update: PeerUpdate {
                address: "2001:db8::1".parse().unwrap(),
                class: None,
                completed: false,
                ..joined.update
            },
            age_secs: 70_000,
            redelivered: true,
        };
        let counter = DownloadCounter {
            info_hash: joined.update.info_hash,
            node: NodeId(3),
            downloads: 4,
        };
        let records = [
            ReplicationRecord::Peer(joined),
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
    fn records_round_trip() {
        let mut random = Rng::new(1);
        for _ in 0..2000 {
            let records: Vec<_> = (0..random.below(20))
                .map(|_| random_record(&mut random))
                .collect();
            assert_eq!(parsed(&batch(&records)), records);
        }
    }

    #[test]
    fn rejects_truncated_batch_as_a_whole() {
        let mut random = Rng::new(2);
        let records: Vec<_> = (0..50).map(|_| random_record(&mut random)).collect();
        let whole = batch(&records);
        // A batch may end where a record ends.
        let ends: Vec<_> = (0..=records.len())
            .map(|count| batch(&records[..count]).len())
            .collect();
        for len in 0..whole.len() {
            match ends.iter().position(|&end| end == len) {
                Some(count) => assert_eq!(parsed(&whole[..len]), records[..count]),
                None => {
                    assert_eq!(
                        ReplicationBatch::parse(&whole[..len]).unwrap_err(),
                        InvalidBatch::Truncated,
                        "{len}"
                    );
                }
            }
        }
    }

    #[test]
    fn skips_records_of_later_versions() {
        let mut random = Rng::new(3);
        let records = [random_record(&mut random), random_record(&mut random)];
        let between = batch(&records[..1]).len();
        for unknown in [&b"\x80\x00"[..], b"\xff\x05hello", b"\x90\x01\x04\x91\x00"] {
            for at in [HEADER_LEN, between, batch(&records).len()] {
                let mut bytes = batch(&records);
                bytes.splice(at..at, unknown.iter().copied());
                assert_eq!(parsed(&bytes), records);
            }
            let mut truncated = batch(&records);
            truncated.extend_from_slice(&unknown[..unknown.len() - 1]);
            assert_eq!(
                ReplicationBatch::parse(&truncated).unwrap_err(),
                InvalidBatch::Truncated
            );
        }
        let mut bytes = batch(&records);
        bytes[0] = 2;
        assert_eq!(
            ReplicationBatch::parse(&bytes).unwrap_err(),
            InvalidBatch::UnsupportedVersion(2)
        );
        assert_eq!(
            ReplicationBatch::parse(b"\x02").unwrap_err(),
            InvalidBatch::UnsupportedVersion(2)
        );
    }

    #[test]
    fn rejects_invalid_endpoint_and_unknown_kind() {
        let mut random = Rng::new(4);
        let peer = loop {
            match random_record(&mut random) {
                ReplicationRecord::Peer(joined) if joined.update.address.is_ipv6() => break joined,
                _ => {}
            }
        };
        let good = batch(&[ReplicationRecord::Peer(peer)]);
        let error_after = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = good.clone();
            change(&mut bytes);
            ReplicationBatch::parse(&bytes).map(|_| ()).unwrap_err()
        };
        let address = HEADER_LEN + 1 + 20;
        let port = address + 16;
        assert_eq!(
            error_after(&|bytes| bytes[port..port + 2].fill(0)),
            InvalidBatch::InvalidEndpoint
        );
        let map_address = |bytes: &mut Vec<u8>| {
            bytes[address..address + 10].fill(0);
            bytes[address + 10..address + 12].fill(0xff);
        };
        assert_eq!(error_after(&map_address), InvalidBatch::InvalidEndpoint);
        for kind in [0, 2, 3, 5, 7, 127] {
            assert_eq!(
                error_after(&|bytes| bytes[HEADER_LEN] = kind),
                InvalidBatch::UnknownKind(kind)
            );
        }
    }

    #[test]
    fn random_bytes_never_panic() {
        let mut random = Rng::new(5);
        let mut parsed = 0;
        for round in 0..50_000 {
            let records = [random_record(&mut random), random_record(&mut random)];
            let mut bytes = batch(&records);
            if round % 2 == 0 {
                let at = random.below(bytes.len() as u32) as usize;
                bytes[at] = random.next_u32() as u8;
            } else {
                bytes[1..].fill_with(|| random.next_u32() as u8);
                bytes.truncate(random.below(100) as usize);
            }
            if let Ok(batch) = ReplicationBatch::parse(&bytes) {
                parsed += 1;
                assert!(batch.records().count() <= bytes.len() / 33);
            }
        }
        assert!(parsed > 10_000, "{parsed}");
    }
}
