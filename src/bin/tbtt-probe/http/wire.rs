//! HTTP by hand: the bytes of a request are the case's own, and of an answer nothing is passed over.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::case::shown;

/// More than any tracker has to say.
const ANSWER_MAX: usize = 16 << 20;

/// How long bytes behind an answer are waited for, where the tracker leaves the connection open.
const LINGER: Duration = Duration::from_millis(300);

/// One answer as it came.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Names in lower case.
    headers: Vec<(String, String)>,
    /// Without its chunks, if it came in such.
    pub(crate) body: Vec<u8>,
    /// Bytes that came where the connection should have been closed.
    pub(crate) behind: usize,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(header, _)| header == name);
        found.map(|(_, value)| value.as_str())
    }

    /// In few words.
    pub(crate) fn shown(&self) -> String {
        let Self { status, body, .. } = self;
        format!("HTTP {status} with {}", shown(body))
    }
}

/// Why there is no answer.
#[derive(Clone, Debug)]
pub(crate) enum NoAnswer {
    Unreachable(String),
    /// The connection was closed before the end of an answer.
    Closed,
    TimedOut,
    Garbled(String),
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(why) => write!(f, "no connection: {why}"),
            Self::Closed => f.write_str("the connection was closed without a whole answer"),
            Self::TimedOut => f.write_str("no answer in time"),
            Self::Garbled(what) => write!(f, "what came is no HTTP: {what}"),
        }
    }
}

pub(crate) type Reply = Result<Answer, NoAnswer>;

/// Where the tracker is.
pub(crate) struct Wire {
    pub(crate) to: SocketAddr,
    /// What `Host` says.
    pub(crate) host: String,
    /// For a connection, and for a whole answer.
    pub(crate) timeout: Duration,
}

impl Wire {
    pub(crate) fn connect(&self) -> Result<Connection, NoAnswer> {
        let unreachable = |error: io::Error| NoAnswer::Unreachable(error.to_string());
        let stream = TcpStream::connect_timeout(&self.to, self.timeout).map_err(unreachable)?;
        stream.set_nodelay(true).map_err(unreachable)?;
        stream
            .set_write_timeout(Some(self.timeout))
            .map_err(unreachable)?;
        Ok(Connection {
            stream,
            timeout: self.timeout,
            buffer: Vec::new(),
        })
    }

    /// A GET that ends the connection, with further header lines, each with its CRLF.
    pub(crate) fn request(&self, target: &str, headers: &str) -> String {
        let host = &self.host;
        format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{headers}Connection: close\r\n\r\n")
    }

    pub(crate) fn get(&self, target: &str) -> Reply {
        self.ask(self.request(target, ""))
    }

    /// Sends what should get one answer, and reads on to the connection's end.
    pub(crate) fn ask(&self, request: impl AsRef<[u8]>) -> Reply {
        let mut connection = self.connect()?;
        connection.send(request);
        let mut answer = connection.answer()?;
        answer.behind = connection.rest(LINGER.min(self.timeout)).0;
        Ok(answer)
    }
}

pub(crate) struct Connection {
    stream: TcpStream,
    timeout: Duration,
    /// Read, and not yet part of an answer.
    buffer: Vec<u8>,
}

impl Connection {
    /// A tracker may have seen enough and closed; if it has not answered first, that will be missed.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref());
    }

    /// The address that the tracker sees, but for what translates it on the way.
    pub(crate) fn own(&self) -> Option<IpAddr> {
        self.stream.local_addr().ok().map(|own| own.ip())
    }

    /// The next answer.
    pub(crate) fn answer(&mut self) -> Reply {
        self.read_answer(true)
    }

    /// The next answer, to a HEAD: it has no body.
    pub(crate) fn head(&mut self) -> Reply {
        self.read_answer(false)
    }

    fn read_answer(&mut self, has_body: bool) -> Reply {
        let end = Instant::now() + self.timeout;
        let head_len = loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                break at + 4;
            }
            if !self.more(end)? {
                return match self.buffer.is_empty() {
                    true => Err(NoAnswer::Closed),
                    false => Err(NoAnswer::Garbled(shown(&self.buffer))),
                };
            }
        };
        let head: Vec<u8> = self.buffer.drain(..head_len).collect();
        let mut answer = parse_head(&head).ok_or_else(|| NoAnswer::Garbled(shown(&head)))?;
        if has_body {
            answer.body = self.body(&answer, end)?;
        }
        Ok(answer)
    }

    fn body(&mut self, answer: &Answer, end: Instant) -> Result<Vec<u8>, NoAnswer> {
        if answer.header("transfer-encoding").is_some() {
            return self.chunks(end);
        }
        match answer.header("content-length") {
            Some(length) => match length.parse() {
                Ok(length) if length <= ANSWER_MAX => self.exactly(length, end),
                _ => Err(NoAnswer::Garbled(format!(
                    "a body of {} bytes",
                    length.escape_default()
                ))),
            },
            None => {
                while self.more(end)? {}
                Ok(std::mem::take(&mut self.buffer))
            }
        }
    }

    fn chunks(&mut self, end: Instant) -> Result<Vec<u8>, NoAnswer> {
        let mut body = Vec::new();
        loop {
            let line_len = loop {
                match find(&self.buffer, b"\r\n") {
                    Some(at) => break at,
                    None if self.more(end)? => {}
                    None => return Err(NoAnswer::Closed),
                }
            };
            let line = self.exactly(line_len + 2, end)?;
            let size = std::str::from_utf8(&line).unwrap_or_default();
            let size = size.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).ok();
            let Some(size) = size.filter(|&size| size <= ANSWER_MAX - body.len()) else {
                return Err(NoAnswer::Garbled(format!("a chunk of {}", shown(&line))));
            };
            let chunk = self.exactly(size + 2, end)?;
            body.extend_from_slice(&chunk[..size]);
            if size == 0 {
                return Ok(body);
            }
        }
    }

    fn exactly(&mut self, length: usize, end: Instant) -> Result<Vec<u8>, NoAnswer> {
        while self.buffer.len() < length {
            if !self.more(end)? {
                return Err(NoAnswer::Closed);
            }
        }
        Ok(self.buffer.drain(..length).collect())
    }

    /// How many bytes still come, and whether the tracker closes the connection in this time.
    pub(crate) fn rest(&mut self, within: Duration) -> (usize, bool) {
        let end = Instant::now() + within;
        loop {
            match self.more(end) {
                Ok(true) => {}
                Ok(false) => return (self.buffer.len(), true),
                Err(_) => return (self.buffer.len(), false),
            }
        }
    }

    /// Reads once; `false` at the connection's end.
    fn more(&mut self, end: Instant) -> Result<bool, NoAnswer> {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() || self.stream.set_read_timeout(Some(left)).is_err() {
            return Err(NoAnswer::TimedOut);
        }
        if self.buffer.len() > ANSWER_MAX {
            return Err(NoAnswer::Garbled(format!("over {ANSWER_MAX} bytes")));
        }
        let mut bytes = [0; 16 * 1024];
        match self.stream.read(&mut bytes) {
            Ok(0) => Ok(false),
            Ok(length) => {
                self.buffer.extend_from_slice(&bytes[..length]);
                Ok(true)
            }
            Err(error) => match error.kind() {
                ErrorKind::Interrupted => Ok(true),
                ErrorKind::WouldBlock | ErrorKind::TimedOut => Err(NoAnswer::TimedOut),
                _ => Ok(false),
            },
        }
    }
}

fn parse_head(head: &[u8]) -> Option<Answer> {
    let head = String::from_utf8_lossy(head);
    let mut lines = head.trim_end_matches("\r\n").split("\r\n");
    let line = lines.next()?;
    let rest = line
        .strip_prefix("HTTP/1.1 ")
        .or_else(|| line.strip_prefix("HTTP/1.0 "))?;
    let header = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_ascii_lowercase(), value.trim().to_owned()))
    };
    Some(Answer {
        status: rest.get(..3)?.parse().ok()?,
        headers: lines.map(header).collect::<Option<_>>()?,
        body: Vec::new(),
        behind: 0,
    })
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// What is made of these bytes, after which the connection is closed.
    fn reply(bytes: &'static [u8]) -> Reply {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let wire = Wire {
            to: listener.local_addr().unwrap(),
            host: "t".to_owned(),
            timeout: Duration::from_secs(20),
        };
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 256];
            assert!(stream.read(&mut request).unwrap() > 0);
            stream.write_all(bytes).unwrap();
        });
        let reply = wire.get("/");
        server.join().unwrap();
        reply
    }

    #[test]
    fn reads_bodies_of_every_kind() {
        let answer = reply(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nde\r\n").unwrap();
        assert_eq!((answer.status, &answer.body[..]), (200, &b"de"[..]));
        assert_eq!(
            (answer.behind, answer.header("content-length")),
            (2, Some("2"))
        );
        let answer = reply(b"HTTP/1.0 404 No\r\n\r\nto the end").unwrap();
        assert_eq!((answer.status, &answer.body[..]), (404, &b"to the end"[..]));
        let chunked =
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nd\r\n1;x\r\ne\r\n0\r\n\r\n";
        assert_eq!(reply(chunked).unwrap().body, b"de");
    }

    #[test]
    fn tells_why_there_is_no_answer() {
        assert!(matches!(reply(b""), Err(NoAnswer::Closed)));
        let short = reply(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nde");
        assert!(matches!(short, Err(NoAnswer::Closed)));
        for garbled in [
            &b"d8:intervali1ee"[..],
            b"HTTP/2 200 OK\r\n\r\n",
            b"HTTP/1.1 x\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nd\r\nffffffffffffffff\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
        ] {
            let garbled = reply(garbled);
            assert!(matches!(garbled, Err(NoAnswer::Garbled(_))), "{garbled:?}");
        }
        let wire = Wire {
            to: TcpListener::bind("127.0.0.1:0")
                .unwrap()
                .local_addr()
                .unwrap(),
            host: String::new(),
            timeout: Duration::from_secs(20),
        };
        assert!(matches!(wire.get("/"), Err(NoAnswer::Unreachable(_))));
    }
}
