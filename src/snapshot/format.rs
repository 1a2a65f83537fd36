//! The format of a snapshot.
//!
//! `snapshot` begins with a header, and goes on with frames to its end. Numbers are big-endian.
//!
//! ```text
//! magic       "TBTTSNAP"
//! version     u32
//! written     u64       seconds since 1970
//! time        u32       the tracker's time then
//! seed        u64       secret
//! secret      16 bytes  of UDP's connection ids
//! checksum    u64       of all before
//!
//! kind        1 byte    B: a block of torrents; H: seeds of listed torrents, if any; C: a part of what is kept of the cluster,
//!                       if it is in one; E: the end
//! length      u32       of the content
//! checksum    u64       of kind, length and content
//! content               as the tracker writes it; at the end the numbers of blocks, torrents and peers over IPv4 and
//!                       IPv6 in all blocks (u64 each)
//! ```
//!
//! A checksum is SipHash-1-3 with a key that holds the frame's number (the header has 0), so that frames that changed places
//! are seen too. It guards against accidents, not against someone who may write the file.

use std::fmt;
use std::hash::Hasher;
use std::io::{self, Read, Write};

use siphasher::sip::SipHasher13;

use crate::os::random::random_bytes;
use crate::tracker::{Time, Totals, Tracker};

const MAGIC: [u8; 8] = *b"TBTTSNAP";
const VERSION: u32 = 1;
pub(super) const HEADER: usize = 8 + 4 + 8 + 4 + 8 + 16;

pub(super) const BLOCK: u8 = b'B';
pub(super) const HEALTH: u8 = b'H';
pub(super) const CLUSTER: u8 = b'C';
pub(super) const END: u8 = b'E';

/// What must stay the same over a restart, and must not be known outside.
#[derive(Clone, PartialEq, Eq)]
pub struct Secrets {
    /// For [`Tracker::new`]: with another, hosts on both address families would be counted twice.
    pub seed: u64,
    /// For UDP's connection ids: with another, clients would have to ask for new ones.
    pub connection_id: [u8; 16],
}

impl Secrets {
    /// New ones, for when there is no snapshot.
    ///
    /// # Errors
    /// When `/dev/urandom` cannot be read.
    pub fn new() -> io::Result<Self> {
        let random: [u8; 24] = random_bytes()?;
        let mut fields = Fields(&random);
        Ok(Self {
            seed: fields.u64(),
            connection_id: fields.take(),
        })
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(..)")
    }
}

pub(super) struct Header {
    pub(super) written: u64,
    pub(super) time: Time,
    pub(super) secrets: Secrets,
}

impl Header {
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER + 8);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_be_bytes());
        bytes.extend_from_slice(&self.written.to_be_bytes());
        bytes.extend_from_slice(&self.time.0.to_be_bytes());
        bytes.extend_from_slice(&self.secrets.seed.to_be_bytes());
        bytes.extend_from_slice(&self.secrets.connection_id);
        bytes.extend_from_slice(&checksum(0, &[&bytes]).to_be_bytes());
        bytes
    }

    pub(super) fn read(file: &mut impl Read) -> Result<Self, Fault> {
        let mut bytes = [0; HEADER];
        // What another version has after its number is not ours to know.
        read_exact(file, &mut bytes[..12])?;
        let mut fields = Fields(&bytes[..12]);
        if fields.take() != MAGIC {
            return Err(Fault::Foreign);
        }
        match fields.u32() {
            VERSION => {}
            version => return Err(Fault::OtherVersion(version)),
        }
        read_exact(file, &mut bytes[12..])?;
        let mut sum = [0; 8];
        read_exact(file, &mut sum)?;
        if checksum(0, &[&bytes]) != u64::from_be_bytes(sum) {
            return Err(Fault::Damaged("the checksum of its header is wrong"));
        }
        let mut fields = Fields(&bytes[12..]);
        Ok(Self {
            written: fields.u64(),
            time: Time(fields.u32()),
            secrets: Secrets {
                seed: fields.u64(),
                connection_id: fields.take(),
            },
        })
    }
}

/// What must have come by the end.
#[derive(Default)]
pub(super) struct End {
    pub(super) blocks: u64,
    pub(super) totals: Totals,
}

impl End {
    pub(super) fn count(&mut self, block: Totals) {
        self.blocks += 1;
        self.totals += block;
    }

    pub(super) fn content(&self) -> Vec<u8> {
        let Totals {
            torrents,
            peers_v4,
            peers_v6,
        } = self.totals;
        let counts = [torrents, peers_v4, peers_v6].map(|count| count as u64);
        [[self.blocks].as_slice(), &counts]
            .concat()
            .into_iter()
            .flat_map(u64::to_be_bytes)
            .collect()
    }
}

/// Appends a frame and tells its length.
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
    Ok((head.len() + 8 + content.len()) as u64)
}

/// Replaces `content` by the next frame's, and tells its kind.
pub(super) fn read_frame(
    file: &mut impl Read,
    number: u64,
    content: &mut Vec<u8>,
) -> Result<u8, Fault> {
    let (mut head, mut sum) = ([0; 5], [0; 8]);
    read_exact(file, &mut head)?;
    read_exact(file, &mut sum)?;
    let [kind, len @ ..] = head;
    let len = u32::from_be_bytes(len) as usize;
    // A damaged length shall not cost more memory than a true one.
    if len > Tracker::MAX_BLOCK {
        return Err(Fault::Damaged("a block is too long"));
    }
    content.resize(len, 0);
    read_exact(file, content)?;
    if checksum(number, &[&head, content]) != u64::from_be_bytes(sum) {
        return Err(Fault::Damaged("a checksum is wrong"));
    }
    match kind {
        BLOCK | HEALTH | CLUSTER | END => Ok(kind),
        _ => Err(Fault::Damaged("a block is of no known kind")),
    }
}

fn checksum(number: u64, parts: &[&[u8]]) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(u64::from_be_bytes(MAGIC), number);
    parts.iter().for_each(|part| hasher.write(part));
    hasher.finish()
}

fn read_exact(file: &mut impl Read, bytes: &mut [u8]) -> Result<(), Fault> {
    file.read_exact(bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Fault::Damaged("it ends too early"),
        _ => Fault::Unreadable(error),
    })
}

/// Numbers off the front of a header, which is long enough.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (field, rest) = self.0.split_at(N);
        self.0 = rest;
        field.try_into().expect("split at its length")
    }

    fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.take())
    }

    fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.take())
    }
}

/// Why a snapshot cannot be used.
#[derive(Debug)]
pub(super) enum Fault {
    Unreadable(io::Error),
    NotAFile,
    Foreign,
    OtherVersion(u32),
    Damaged(&'static str),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(error) => write!(f, "cannot be read: {error}"),
            Self::NotAFile => f.write_str("is not a regular file"),
            Self::Foreign => f.write_str("is not a snapshot of tbtt"),
            Self::OtherVersion(version) => write!(
                f,
                "has format {version}, of another version of tbtt; this one reads format {VERSION}"
            ),
            Self::Damaged(how) => write!(f, "is damaged: {how}"),
        }
    }
}
