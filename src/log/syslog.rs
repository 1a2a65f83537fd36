//! Writes lines to the local syslog socket.

use std::io::{self, ErrorKind};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use ::syslog::{LogFormat, Severity};

use super::line::MAX_PREFIX_LEN;
use super::settings::{Facility, Level};
use super::stderr::retry_interrupted;

const NAME: &str = env!("CARGO_PKG_NAME");

/// The local syslog socket: each line is one datagram.
///
/// The syslog crate provides the facilities, the severities and the trait of a format. Its socket is not used: it
/// blocks when the receiver is slow, and connects only once, so that it never reaches a syslogd that was restarted. Its
/// format is not used either: it adds a time stamp in UTC, and receivers that use that time stamp (syslog-ng, busybox)
/// read it as local time. Without a time stamp, each of them uses the time at which it received the line.
pub(super) struct Syslog {
    pub(super) socket: UnixDatagram,
    pub(super) path: PathBuf,
    header: SyslogHeader,
}

impl Syslog {
    pub(super) fn open(path: &Path, facility: Facility) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        let header = SyslogHeader {
            facility,
            pid: std::process::id(),
        };
        Ok(Self {
            socket,
            path: path.to_owned(),
            header,
        })
    }

    pub(super) fn write(&self, level: Level, text: &str) -> io::Result<()> {
        let mut datagram = Vec::with_capacity(text.len() + MAX_PREFIX_LEN);
        self.header
            .format(&mut datagram, level.severity(), text)
            .map_err(|_| ErrorKind::InvalidData)?;
        match self.send(&datagram) {
            // A full queue belongs to a receiver that exists: connecting again would not help.
            Err(error) if error.kind() != ErrorKind::WouldBlock => {
                self.socket.connect(&self.path)?;
                self.send(&datagram)
            }
            result => result,
        }
    }

    fn send(&self, datagram: &[u8]) -> io::Result<()> {
        retry_interrupted(|| self.socket.send(datagram)).map(drop)
    }
}

/// Formats a line as `<30>tbtt[123]: message key=value`.
struct SyslogHeader {
    facility: Facility,
    pid: u32,
}

impl LogFormat<&str> for SyslogHeader {
    fn format<W: io::Write>(
        &self,
        line: &mut W,
        severity: Severity,
        text: &str,
    ) -> ::syslog::Result<()> {
        let priority = self.facility.0 as u8 | severity as u8;
        write!(line, "<{priority}>{NAME}[{}]: {text}", self.pid)?;
        Ok(())
    }
}
