//! Reads files once and hashes their pieces for both versions, on as many threads as are wanted.
//!
//! Each thread reads what it hashes, into one small buffer that stays in the processor's cache. So memory is flat whatever the
//! piece length, and no thread hands data to another. Two hashes are always computed side by side ([`abreast`]): the two
//! versions of a hybrid, or two pieces, or two blocks.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use indicatif::{ProgressBar, ProgressStyle};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use sha1::Sha1;
use sha2::Sha256;
use tbtt::metainfo::merkle::{self, BLOCK, Hash};
use tbtt::metainfo::pieces::{FileSpan, Layout};

use crate::arguments::Work;

/// Bytes read at once: whole blocks, and small enough for a core's own cache.
const BUFFER: usize = 128 * 1024;

/// Bytes that a thread takes as its next work, if that is more than two pieces.
const RUN: u64 = 4 * 1024 * 1024;

/// What is to be hashed.
pub(crate) struct Job<'a> {
    pub(crate) layout: &'a Layout,
    /// The files that the layout counts, with their lengths in bytes.
    pub(crate) files: &'a [(PathBuf, u64)],
    pub(crate) v1: bool,
    /// The layout is aligned, as v2 demands.
    pub(crate) v2: bool,
    /// Go on with the next piece if one cannot be read.
    pub(crate) go_on: bool,
}

/// The hashes of a piece, of the versions that were asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    pub(crate) v1: [u8; 20],
    /// Its hash in the layer of its file; the file's root, if that has no more than a piece.
    pub(crate) v2: Hash,
}

/// By their number; None, where a file could not be read. Beside them which file, and why.
pub(crate) struct Hashed {
    pub(crate) pieces: Vec<Option<Piece>>,
    pub(crate) faults: BTreeMap<usize, io::Error>,
}

impl Job<'_> {
    pub(crate) fn run(&self, work: &Work) -> Hashed {
        let count = self.layout.pieces();
        let bar = bar(self.files.iter().map(|(_, length)| length).sum(), work);
        let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        let run = (RUN / self.layout.piece_length()).max(2);
        let hash = || {
            let mut reader = Reader::new(self, &bar);
            let mut hashed = Vec::new();
            loop {
                let first = next.fetch_add(run, Ordering::Relaxed);
                let (mut number, end) = (first, count.min(first.saturating_add(run)));
                while number < end && !stop.load(Ordering::Relaxed) {
                    if let Some(pair) = reader.pair(number, end) {
                        hashed.extend([(number, pair[0]), (number + 1, pair[1])]);
                        number += 2;
                        continue;
                    }
                    match reader.piece(number) {
                        Some(piece) => hashed.push((number, piece)),
                        None => stop.store(!self.go_on, Ordering::Relaxed),
                    }
                    number += 1;
                }
                if first >= count || stop.load(Ordering::Relaxed) {
                    return (hashed, reader.faults);
                }
            }
        };

        let processors = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let threads = work.threads.map_or(processors, NonZeroUsize::get);
        let threads = threads.min(usize::try_from(count.div_ceil(run)).unwrap_or(usize::MAX));
        let mut pieces = vec![None; usize::try_from(count).expect("pieces that fit into memory")];
        let mut faults = BTreeMap::new();
        thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(hash)).collect();
            for worker in workers {
                let (hashed, faulty) = worker.join().expect("a thread that does not panic");
                for (number, piece) in hashed {
                    pieces[number as usize] = Some(piece);
                }
                faults.extend(faulty);
            }
        });
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
        Hashed { pieces, faults }
    }
}

/// On a terminal, unless it is to be quiet.
fn bar(size: u64, work: &Work) -> Option<ProgressBar> {
    let bar = ProgressBar::new(size);
    if work.quiet || bar.is_hidden() {
        return None;
    }
    let style = "{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    bar.set_style(ProgressStyle::with_template(style).expect("a template that is right"));
    Some(bar)
}

/// One thread's work.
struct Reader<'a> {
    job: &'a Job<'a>,
    bar: &'a Option<ProgressBar>,
    buffer: Vec<u8>,
    leaves: Vec<Hash>,
    /// The file that was read last.
    open: Option<(usize, File)>,
    faults: BTreeMap<usize, io::Error>,
}

impl<'a> Reader<'a> {
    fn new(job: &'a Job<'a>, bar: &'a Option<ProgressBar>) -> Self {
        Self {
            job,
            bar,
            buffer: vec![0; BUFFER],
            leaves: Vec::new(),
            open: None,
            faults: BTreeMap::new(),
        }
    }

    fn piece(&mut self, number: u64) -> Option<Piece> {
        let layout = self.job.layout;
        let mut v1 = Sha1::default();
        let mut v2 = [0; 32];
        for part in layout.piece(number) {
            match part.file {
                None => self.pad(part.length, &mut v1),
                Some(file) => {
                    if let Err(error) = self.part(file, part, &mut v1) {
                        self.faults.insert(file, error);
                        return None;
                    }
                    if self.job.v2 {
                        let length = layout.piece_length();
                        // A file's last piece is filled up with zeros, unless it is the only one.
                        let is_only = self.job.files[file].1 <= length;
                        let width = if is_only { 1 } else { length / BLOCK };
                        v2 = merkle::root(&mut self.leaves, width);
                    }
                }
            }
        }
        let v1 = sha1::Digest::finalize(v1).into();
        Some(Piece { v1, v2 })
    }

    fn pad(&mut self, mut length: u64, v1: &mut Sha1) {
        if !self.job.v1 {
            return;
        }
        self.buffer.fill(0);
        while length > 0 {
            let now = length.min(BUFFER as u64);
            v1.take(&self.buffer[..now as usize]);
            length -= now;
        }
    }

    /// This piece and the next, if v1 alone is wanted and both lie within one file.
    fn pair(&mut self, number: u64, end: u64) -> Option<[Piece; 2]> {
        if self.job.v2 || number + 1 >= end {
            return None;
        }
        let only = |number| {
            let mut parts = self.job.layout.piece(number);
            parts.next().filter(|_| parts.next().is_none())
        };
        let (one, other) = (only(number)?, only(number + 1)?);
        let file = one.file?;
        if other.file != Some(file) || one.length != other.length {
            return None;
        }
        // Whatever cannot be read is found again, and told, when the pieces are taken one by one.
        self.open(file).ok()?;
        let (_, open) = self.open.as_ref()?;
        let (mut v1, mut done) = ([Sha1::default(), Sha1::default()], 0);
        while done < one.length {
            let now = (one.length - done).min(BUFFER as u64 / 2);
            let (left, right) = self.buffer.split_at_mut(BUFFER / 2);
            let (left, right) = (&mut left[..now as usize], &mut right[..now as usize]);
            open.read_exact_at(left, one.offset + done).ok()?;
            open.read_exact_at(right, other.offset + done).ok()?;
            let [first, second] = &mut v1;
            abreast(first, left, second, right);
            done += now;
        }
        if let Some(bar) = self.bar {
            bar.inc(2 * done);
        }
        Some(v1.map(|v1| Piece {
            v1: sha1::Digest::finalize(v1).into(),
            v2: [0; 32],
        }))
    }

    fn open(&mut self, number: usize) -> io::Result<()> {
        if self.open.as_ref().is_some_and(|(open, _)| *open == number) {
            return Ok(());
        }
        self.open = None;
        let path = &self.job.files[number].0;
        // A pipe would wait for a writer, and some devices never end.
        if !fs::metadata(path)?.is_file() {
            return Err(io::Error::other("is no file"));
        }
        let file = File::open(path)?;
        // Only advice: it works as well without.
        let _ = posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_SEQUENTIAL);
        self.open = Some((number, file));
        Ok(())
    }

    fn part(&mut self, number: usize, part: FileSpan, v1: &mut Sha1) -> io::Result<()> {
        self.open(number)?;
        let (_, file) = self.open.as_ref().expect("just opened");
        self.leaves.clear();
        let (mut offset, end) = (part.offset, part.offset + part.length);
        while offset < end {
            let now = (end - offset).min(BUFFER as u64);
            let data = &mut self.buffer[..now as usize];
            file.read_exact_at(data, offset)?;
            match (self.job.v1, self.job.v2) {
                (true, true) => hybrid(data, v1, &mut self.leaves),
                (true, false) => v1.take(data),
                (false, _) => leaves(data, &mut self.leaves),
            }
            offset += now;
            if let Some(bar) = self.bar {
                bar.inc(now);
            }
        }
        Ok(())
    }
}

fn hybrid(data: &[u8], v1: &mut Sha1, leaves: &mut Vec<Hash>) {
    for block in data.chunks(BLOCK as usize) {
        let mut v2 = Sha256::default();
        abreast(v1, block, &mut v2, block);
        leaves.push(sha2::Digest::finalize(v2).into());
    }
}

fn leaves(data: &[u8], leaves: &mut Vec<Hash>) {
    for pair in data.chunks(2 * BLOCK as usize) {
        if pair.len() < 2 * BLOCK as usize {
            leaves.extend(pair.chunks(BLOCK as usize).map(merkle::leaf));
            continue;
        }
        let (left, right) = pair.split_at(BLOCK as usize);
        let (mut first, mut second) = (Sha256::default(), Sha256::default());
        abreast(&mut first, left, &mut second, right);
        leaves.extend([first, second].map(|hash| Hash::from(sha2::Digest::finalize(hash))));
    }
}

/// Both hashes over as many bytes each, in turns of one step of SHA-1 and SHA-256.
///
/// A processor's own instructions for them spend most of the time waiting for the step before. Meanwhile it can do
/// those of the other hash, if they are near enough: that takes a quarter to a third less time than one after the other.
fn abreast(one: &mut impl Take, left: &[u8], other: &mut impl Take, right: &[u8]) {
    const STEP: usize = 64;
    debug_assert_eq!(left.len(), right.len());
    for (left, right) in left.chunks(STEP).zip(right.chunks(STEP)) {
        one.take(left);
        other.take(right);
    }
}

/// A hash that takes in more bytes. The two crates may stand on different versions of one that has such a trait.
trait Take {
    fn take(&mut self, bytes: &[u8]);
}

impl Take for Sha1 {
    fn take(&mut self, bytes: &[u8]) {
        sha1::Digest::update(self, bytes);
    }
}

impl Take for Sha256 {
    fn take(&mut self, bytes: &[u8]) {
        sha2::Digest::update(self, bytes);
    }
}
