//! The format of the file `snapshot`: a header, then frames to the end of the file. Numbers are big-endian.
//!
//! ```text
//! magic       "TBTTSNAP"
//! version     u32
//! written     u64       seconds since 1970
//! time        u32       the tracker's time at that moment
//! seed        u64       secret
//! secret      16 bytes  key of UDP's connection IDs
//! checksum    u64       of all bytes before
//!
//! kind        1 byte    B: a block of torrents; H: a part of the seed health of listed torrents, if there are any;
//!                       C: a part of the state of the cluster node, if there is a cluster; E: the end
//! length      u32       of the content
//! checksum    u64       of kind, length and content
//! content               as its module writes it; in the frame E the numbers of blocks, torrents, IPv4 peers and IPv6
//!                       peers in all blocks (u64 each)
//! ```
//!
//! A checksum is SipHash-1-3, keyed with the magic and the number of the frame (0 for the header), so that reordered
//! frames are detected, too. The checksum protects against accidents, not against a process that may write the file.

use std::fmt;
use std::hash::Hasher;
use std::io::{self, Read, Write};

use siphasher::sip::SipHasher13;

use crate::bytes::take;
use crate::os::random::random_bytes;
use crate::tracker::Tracker;
use crate::tracker::types::{Time, Totals};

const MAGIC: [u8; 8] = *b"TBTTSNAP";
const VERSION: u32 = 1;

/// Length of magic and version, which all versions of the format have in common.
const PREAMBLE_LEN: usize = 8 + 4;

/// Length of the header without its checksum.
pub(super) const HEADER_LEN: usize = PREAMBLE_LEN + 8 + 4 + 8 + 16;

pub(super) const CHECKSUM_LEN: usize = 8;

// The kinds of frames.
pub(super) const BLOCK: u8 = b'B';
pub(super) const SEED_HEALTH: u8 = b'H';
pub(super) const CLUSTER: u8 = b'C';
pub(super) const END: u8 = b'E';

/// Values that must survive a restart and must not become known to others.
#[derive(Clone, PartialEq, Eq)]
pub struct Secrets {
    /// The seed for [`Tracker::new`]. With another seed, hosts that use both address families would be counted twice.
    pub seed: u64,
    /// The key of UDP's connection IDs. With another key, clients would have to request new IDs.
    pub connection_id: [u8; 16],
}

impl Secrets {
    /// Generates secrets, for when there is no snapshot.
    ///
    /// # Errors
    /// When `/dev/urandom` cannot be read.
    pub fn generate() -> io::Result<Self> {
        let random: [u8; 24] = random_bytes()?;
        let mut fields = HeaderFields(&random);
        Ok(Self {
            seed: fields.u64(),
            connection_id: fields.bytes(),
        })
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(..)")
    }
}

/// The header of a snapshot, which precedes its frames.
pub(super) struct SnapshotHeader {
    /// Seconds since 1970.
    pub(super) written: u64,
    pub(super) time: Time,
    pub(super) secrets: Secrets,
}

impl SnapshotHeader {
    /// Returns the header and its checksum as they are written.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_LEN + CHECKSUM_LEN);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_be_bytes());
        bytes.extend_from_slice(&self.written.to_be_bytes());
        bytes.extend_from_slice(&self.time.0.to_be_bytes());
        bytes.extend_from_slice(&self.secrets.seed.to_be_bytes());
        bytes.extend_from_slice(&self.secrets.connection_id);
        bytes.extend_from_slice(&checksum(0, &[&bytes]).to_be_bytes());
        bytes
    }

    pub(super) fn read(file: &mut impl Read) -> Result<Self, SnapshotFault> {
        let mut bytes = [0; HEADER_LEN];
        // Another version may have a shorter header, so its version is checked before the rest is read.
        read_exact(file, &mut bytes[..PREAMBLE_LEN])?;
        let mut fields = HeaderFields(&bytes[..PREAMBLE_LEN]);
        if fields.bytes() != MAGIC {
            return Err(SnapshotFault::Foreign);
        }
        match fields.u32() {
            VERSION => {}
            version => return Err(SnapshotFault::OtherVersion(version)),
        }
        read_exact(file, &mut bytes[PREAMBLE_LEN..])?;
        let mut sum = [0; CHECKSUM_LEN];
        read_exact(file, &mut sum)?;
        if checksum(0, &[&bytes]) != u64::from_be_bytes(sum) {
            return Err(SnapshotFault::Damaged(
                "the checksum of its header is wrong",
            ));
        }
        let mut fields = HeaderFields(&bytes[PREAMBLE_LEN..]);
        Ok(Self {
            written: fields.u64(),
            time: Time(fields.u32()),
            secrets: Secrets {
                seed: fields.u64(),
                connection_id: fields.bytes(),
            },
        })
    }
}

/// The content of the last frame: the totals of all blocks.
#[derive(Default)]
pub(super) struct Trailer {
    pub(super) blocks: u64,
    pub(super) totals: Totals,
}

impl Trailer {
    /// Adds the totals of a block.
    pub(super) fn add(&mut self, block: Totals) {
        self.blocks += 1;
        self.totals += block;
    }

    pub(super) fn content(&self) -> Vec<u8> {
        let Totals { torrents, peers } = self.totals;
        let counts = [torrents, peers.v4, peers.v6].map(|count| count as u64);
        [[self.blocks].as_slice(), &counts]
            .concat()
            .into_iter()
            .flat_map(u64::to_be_bytes)
            .collect()
    }
}

/// Appends a frame and returns its length.
pub(super) fn write_frame(
    file: &mut impl Write,
    number: u64,
    kind: u8,
    content: &[u8],
) -> io::Result<u64> {
    let mut head = [kind, 0, 0, 0, 0];
    head[1..].copy_from_slice(&(content.len() as u32).to_be_bytes());
    file.write_all(&head)?;
    file.write_all(&checksum(number, &[&head, content]).to_be_bytes())?;
    file.write_all(content)?;
    Ok((head.len() + CHECKSUM_LEN + content.len()) as u64)
}

/// Reads the next frame into `content`, and returns its kind.
pub(super) fn read_frame(
    file: &mut impl Read,
    number: u64,
    content: &mut Vec<u8>,
) -> Result<u8, SnapshotFault> {
    let (mut head, mut sum) = ([0; 5], [0; CHECKSUM_LEN]);
    read_exact(file, &mut head)?;
    read_exact(file, &mut sum)?;
    let [kind, len @ ..] = head;
    let len = u32::from_be_bytes(len) as usize;
    // A damaged length must not allocate more memory than a valid length.
    if len > Tracker::MAX_BLOCK {
        return Err(SnapshotFault::Damaged("a block is too long"));
    }
    content.resize(len, 0);
    read_exact(file, content)?;
    if checksum(number, &[&head, content]) != u64::from_be_bytes(sum) {
        return Err(SnapshotFault::Damaged("a checksum is wrong"));
    }
    match kind {
        BLOCK | SEED_HEALTH | CLUSTER | END => Ok(kind),
        _ => Err(SnapshotFault::Damaged("the kind of a block is unknown")),
    }
}

fn checksum(number: u64, parts: &[&[u8]]) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(u64::from_be_bytes(MAGIC), number);
    parts.iter().for_each(|part| hasher.write(part));
    hasher.finish()
}

fn read_exact(file: &mut impl Read, bytes: &mut [u8]) -> Result<(), SnapshotFault> {
    file.read_exact(bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => SnapshotFault::Damaged("it is truncated"),
        _ => SnapshotFault::Unreadable(error),
    })
}

/// Reads the fields of a header in order. The header must be long enough.
struct HeaderFields<'a>(&'a [u8]);

impl HeaderFields<'_> {
    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        take(&mut self.0).expect("a header has a fixed length")
    }

    fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.bytes())
    }

    fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.bytes())
    }
}

/// The reason why a snapshot cannot be used.
#[derive(Debug)]
pub(super) enum SnapshotFault {
    Unreadable(io::Error),
    NotAFile,
    Foreign,
    OtherVersion(u32),
    Damaged(&'static str),
}

impl SnapshotFault {
    /// The checksum of a block is right, but its module cannot convert its content.
    pub(super) const MALFORMED_BLOCK: Self = Self::Damaged("the content of a block is malformed");
}

impl fmt::Display for SnapshotFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(error) => write!(f, "cannot be read: {error}"),
            Self::NotAFile => f.write_str("is not a regular file"),
            Self::Foreign => f.write_str("is not a tbtt snapshot"),
            Self::OtherVersion(version) => write!(
                f,
                "has format {version}, of another version of tbtt; this version reads format {VERSION}"
            ),
            Self::Damaged(how) => write!(f, "is damaged: {how}"),
        }
    }
}
