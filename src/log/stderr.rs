//! Writes lines to standard error, without ever waiting for its reader.

use std::fmt::{self, Display, Write as _};
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, IsTerminal, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::libc::{MSG_DONTWAIT, MSG_NOSIGNAL, O_NOCTTY, O_NONBLOCK};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::line::MAX_PREFIX_LEN;
use super::settings::Level;
use crate::lock::lock;
use crate::utc::Utc;

/// Standard error: a terminal, a pipe, a socket or a file.
pub(super) struct Stderr {
    pub(super) pipe: Pipe,
    prefix: Prefix,
    /// The last line was written only in part (the disk is full): the next line starts with a newline.
    pub(super) torn: AtomicBool,
}

/// The prefix of a line, before its text.
pub(super) enum Prefix {
    /// A priority such as `<5>`, which the journal removes (sd-daemon(3)).
    Priority,
    /// Time and level, for readers that add neither.
    TimeAndLevel,
}

/// How to write without waiting, which depends on the kind of file. `O_NONBLOCK` is never set on standard error itself:
/// the flag belongs to the open file, which the parent process shares, and a shell would find its terminal changed.
pub(super) enum Pipe {
    /// The journal or another Unix socket: a flag of each send forbids waiting.
    Socket(socket2::Socket),
    /// A pipe, opened again through `/proc`: the same pipe, but an open file of this process, on which `O_NONBLOCK` can
    /// be set.
    Reopened(File),
    /// A terminal, or a pipe that cannot be opened again because another user created it. The file is polled before
    /// each write. Free space for a page is space for a line, and the lock prevents another thread from using it
    /// between poll and write.
    Polled(File, Mutex<()>),
    /// A file or `/dev/null`, on which a writer never waits for a reader. A line that crosses into a new page of a file
    /// can be cut there by the kernel, if the disk is full or SIGKILL arrives at that moment. Pipes and sockets do not
    /// have this gap.
    File(File),
}

impl Stderr {
    /// Prepares writing to `stderr`. `reopen_path` is the path where the same pipe can be opened again.
    pub(super) fn open(stderr: OwnedFd, reopen_path: &Path, prefix: Prefix) -> io::Result<Self> {
        let file = File::from(stderr);
        let metadata = file.metadata()?;
        let kind = metadata.file_type();
        let pipe = if kind.is_socket() {
            Pipe::Socket(OwnedFd::from(file).into())
        } else if kind.is_fifo() {
            let nonblocking = OpenOptions::new()
                .write(true)
                .custom_flags(O_NONBLOCK | O_NOCTTY)
                .open(reopen_path)
                .ok();
            let is_same = |other: &File| {
                other
                    .metadata()
                    .is_ok_and(|m| (m.dev(), m.ino()) == (metadata.dev(), metadata.ino()))
            };
            match nonblocking.filter(is_same) {
                Some(reopened) => Pipe::Reopened(reopened),
                None => Pipe::Polled(file, Mutex::new(())),
            }
        } else if file.is_terminal() {
            Pipe::Polled(file, Mutex::new(()))
        } else {
            Pipe::File(file)
        };
        Ok(Self {
            pipe,
            prefix,
            torn: AtomicBool::new(false),
        })
    }

    pub(super) fn write(&self, level: Level, text: &str) -> io::Result<()> {
        let mut line = String::with_capacity(text.len() + MAX_PREFIX_LEN);
        if self.torn.load(Relaxed) {
            line.push('\n');
        }
        // Writing to a String cannot fail.
        let _ = match self.prefix {
            Prefix::Priority => writeln!(line, "<{}>{text}", level as u8),
            Prefix::TimeAndLevel => {
                writeln!(line, "{} {level} {text}", Timestamp(SystemTime::now()))
            }
        };
        let written = self.pipe.write(line.as_bytes())?;
        self.torn.store(written < line.len(), Relaxed);
        match written == line.len() {
            true => Ok(()),
            false => Err(ErrorKind::WriteZero.into()),
        }
    }
}

impl Pipe {
    fn write(&self, line: &[u8]) -> io::Result<usize> {
        retry_interrupted(|| match self {
            Self::Socket(socket) => socket.send_with_flags(line, MSG_DONTWAIT | MSG_NOSIGNAL),
            Self::Reopened(pipe) => (&*pipe).write(line),
            Self::Polled(pipe, polling) => {
                let _polling = lock(polling);
                let mut writable = [PollFd::new(pipe.as_fd(), PollFlags::POLLOUT)];
                match poll(&mut writable, PollTimeout::ZERO)? {
                    0 => Err(ErrorKind::WouldBlock.into()),
                    _ => (&*pipe).write(line),
                }
            }
            Self::File(file) => (&*file).write(line),
        })
    }
}

/// Repeats a system call for as long as signals interrupt it.
pub(super) fn retry_interrupted<T>(mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match attempt() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Returns a duplicate of file descriptor 2, closed on exec. If 2 is closed and reused later, no line is written into
/// an unrelated file.
pub(super) fn duplicate_stderr() -> io::Result<OwnedFd> {
    io::stderr().as_fd().try_clone_to_owned()
}

/// Returns whether standard error is the journal. `JOURNAL_STREAM` alone does not prove it: children inherit the
/// variable, even if their standard error was redirected, so its device and inode are compared (systemd.exec(5)).
pub(super) fn stderr_is_journal(stderr: &OwnedFd) -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    let metadata = stderr
        .try_clone()
        .and_then(|stderr| File::from(stderr).metadata());
    metadata.is_ok_and(|m| stream == format!("{}:{}", m.dev(), m.ino()))
}

/// Displays a time as `2026-11-22T10:25:46.123Z` (RFC 3339).
pub(super) struct Timestamp(pub(super) SystemTime);

impl Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = self.0.duration_since(UNIX_EPOCH).unwrap_or_default();
        let utc = Utc::from_unix_secs(since.as_secs());
        write!(
            f,
            "{}T{}.{:03}Z",
            utc.date(),
            utc.time(),
            since.subsec_millis()
        )
    }
}
