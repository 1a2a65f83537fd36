use std::io::{self, ErrorKind};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use ::syslog::{LogFormat, Severity};

use super::line::PREFIX_MAX;
use super::settings::{Facility, Level};
use super::stderr::retry_interrupted;

const NAME: &str = env!("CARGO_PKG_NAME");

/// Syslog's local socket: one line, one datagram.
///
/// From the syslog crate come the facilities, severities and the trait of a format; not its socket, which blocks when the
/// receiver is slow and is connected once, so that a syslogd restarted is a syslogd lost; nor its format, which
/// stamps UTC where receivers that believe the stamp (syslog-ng, busybox) read local time. Without a stamp each of them takes the
/// time at which the line came.
pub(super) struct Syslog {
    pub(super) socket: UnixDatagram,
    pub(super) path: PathBuf,
    header: Header,
}

impl Syslog {
    pub(super) fn open(path: &Path, facility: Facility) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        let header = Header {
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
        let mut datagram = Vec::with_capacity(text.len() + PREFIX_MAX);
        self.header
            .format(&mut datagram, level.severity(), text)
            .map_err(|_| ErrorKind::InvalidData)?;
        match self.send(&datagram) {
            // A full queue is a receiver that lives: connecting again would not help.
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

/// `<30>tbtt[123]: sentence key=value`
struct Header {
    facility: Facility,
    pid: u32,
}

impl LogFormat<&str> for Header {
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
