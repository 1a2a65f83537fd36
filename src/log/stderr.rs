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

use super::line::PREFIX_MAX;
use super::settings::Level;
use crate::lock::lock;
use crate::utc::Utc;

/// Standard error, whatever it is.
pub(super) struct Stderr {
    pub(super) pipe: Pipe,
    prefix: Prefix,
    /// A line was written in part (a full disk): the next one begins on a line of its own.
    pub(super) torn: AtomicBool,
}

pub(super) enum Prefix {
    /// `<5>`, which the journal takes off again (sd-daemon(3)).
    Priority,
    /// For those who have nothing else that would tell.
    TimeAndLevel,
}

/// How to write without waiting depends on what standard error is. `O_NONBLOCK` is never set on it: the flag belongs to the open
/// file, which is the parent's as well, and a shell would find its terminal changed.
pub(super) enum Pipe {
    /// The journal, or another Unix socket: each send says for itself that it will not wait.
    Socket(socket2::Socket),
    /// A pipe, opened anew through `/proc`: the same pipe, but an open file of our own, whose flag is ours to set.
    Reopened(File),
    /// A terminal, or a pipe that cannot be opened anew (made by another user). Room for one page is room for one line,
    /// and the lock lets nobody else of this process take it between the look and the write.
    Polled(File, Mutex<()>),
    /// A file or `/dev/null`, which never makes a writer wait for a reader. Where a line crosses into a new page of a file, the
    /// kernel itself stops half way if the disk is full or a SIGKILL comes at that moment; pipes and sockets have no such gap.
    File(File),
}

impl Stderr {
    /// `reopen_path` is where the same pipe can be opened anew.
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
            let same = |other: &File| {
                other
                    .metadata()
                    .is_ok_and(|m| (m.dev(), m.ino()) == (metadata.dev(), metadata.ino()))
            };
            match nonblocking.filter(same) {
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
        let mut line = String::with_capacity(text.len() + PREFIX_MAX);
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
            Self::Polled(pipe, looking) => {
                let _looking = lock(looking);
                let mut room = [PollFd::new(pipe.as_fd(), PollFlags::POLLOUT)];
                match poll(&mut room, PollTimeout::ZERO)? {
                    0 => Err(ErrorKind::WouldBlock.into()),
                    _ => (&*pipe).write(line),
                }
            }
            Self::File(file) => (&*file).write(line),
        })
    }
}

pub(super) fn retry_interrupted<T>(mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match attempt() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// A descriptor of our own, closed on exec: if somebody closes 2, no line lands in a stranger's file.
pub(super) fn duplicate_stderr() -> io::Result<OwnedFd> {
    io::stderr().as_fd().try_clone_to_owned()
}

/// `JOURNAL_STREAM` is inherited by children whose standard error was redirected since, so it must be compared (systemd.exec(5)).
pub(super) fn stderr_is_journal(stderr: &OwnedFd) -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    let metadata = stderr
        .try_clone()
        .and_then(|stderr| File::from(stderr).metadata());
    metadata.is_ok_and(|m| stream == format!("{}:{}", m.dev(), m.ino()))
}

/// `2026-11-22T10:25:46.123Z` (RFC 3339).
pub(super) struct Timestamp(pub(super) SystemTime);

impl Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = self.0.duration_since(UNIX_EPOCH).unwrap_or_default();
        let utc = Utc::from_unix(i64::try_from(since.as_secs()).unwrap_or(i64::MAX));
        write!(
            f,
            "{}T{}.{:03}Z",
            utc.date(),
            utc.time(),
            since.subsec_millis()
        )
    }
}
