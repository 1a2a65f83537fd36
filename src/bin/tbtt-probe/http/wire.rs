//! A plain HTTP client: it sends exactly the bytes of a case, and keeps everything that the tracker sends.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::case::{count, excerpt};

/// Maximum size of a response in bytes. No tracker sends that much.
const MAX_RESPONSE: usize = 16 << 20;

/// How long to wait for bytes after a response if the tracker keeps the connection open.
const LINGER: Duration = Duration::from_millis(300);

/// A response as it was received.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// Names (in lower case) and values.
    headers: Vec<(String, String)>,
    /// If the response is chunked: the content of the chunks.
    pub(crate) body: Vec<u8>,
    /// Number of bytes after the response.
    pub(crate) trailing: usize,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(header, _)| header == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Returns the status and the beginning of the body.
    pub(crate) fn summary(&self) -> String {
        let Self { status, body, .. } = self;
        format!("HTTP {status} with {}", excerpt(body))
    }
}

/// Why there is no response.
#[derive(Clone, Debug)]
pub(crate) enum NoResponse {
    Unreachable(String),
    /// The connection was closed before the end of a response.
    Closed,
    TimedOut,
    Garbled(String),
}

impl fmt::Display for NoResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(reason) => write!(f, "cannot connect: {reason}"),
            Self::Closed => {
                f.write_str("the tracker closed the connection without a complete response")
            }
            Self::TimedOut => f.write_str("no response within the timeout"),
            Self::Garbled(seen) => write!(f, "the response is not HTTP: {seen}"),
        }
    }
}

pub(crate) type Reply = Result<Response, NoResponse>;

/// How to reach the tracker.
pub(crate) struct Wire {
    pub(crate) to: SocketAddr,
    /// The value of the `Host` header.
    pub(crate) host: String,
    /// Maximum time for connecting, and for a complete response.
    pub(crate) timeout: Duration,
}

impl Wire {
    pub(crate) fn connect(&self) -> Result<Connection, NoResponse> {
        let unreachable = |error: io::Error| NoResponse::Unreachable(error.to_string());
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

    /// Returns a GET request with `Connection: close`. Each additional header line ends in CRLF.
    pub(crate) fn request(&self, target: &str, headers: &str) -> String {
        let host = &self.host;
        format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{headers}Connection: close\r\n\r\n")
    }

    pub(crate) fn get(&self, target: &str) -> Reply {
        self.send(self.request(target, ""))
    }

    /// Sends a request on a new connection, and reads the response and all bytes after it.
    pub(crate) fn send(&self, request: impl AsRef<[u8]>) -> Reply {
        let mut connection = self.connect()?;
        connection.send(request);
        let mut response = connection.response()?;
        response.trailing = connection.drain(LINGER.min(self.timeout)).0;
        Ok(response)
    }
}

pub(crate) struct Connection {
    stream: TcpStream,
    timeout: Duration,
    /// Bytes that were read, and are not yet part of a response.
    buffer: Vec<u8>,
}

impl Connection {
    /// Sends bytes. Ignores errors, because the tracker may close the connection early. If it has sent no response before,
    /// reading the response fails.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref());
    }

    /// Returns the local address, which the tracker sees unless there is a NAT.
    pub(crate) fn own_address(&self) -> Option<IpAddr> {
        self.stream.local_addr().ok().map(|own| own.ip())
    }

    /// Reads the next response.
    pub(crate) fn response(&mut self) -> Reply {
        self.read_response(true)
    }

    /// Reads the next response, to a HEAD request, which has no body.
    pub(crate) fn response_to_head(&mut self) -> Reply {
        self.read_response(false)
    }

    fn read_response(&mut self, has_body: bool) -> Reply {
        let end = Instant::now() + self.timeout;
        let head_len = loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                break at + 4;
            }
            if !self.read_more(end)? {
                return match self.buffer.is_empty() {
                    true => Err(NoResponse::Closed),
                    false => Err(NoResponse::Garbled(excerpt(&self.buffer))),
                };
            }
        };
        let head: Vec<u8> = self.buffer.drain(..head_len).collect();
        let mut response = parse_head(&head).ok_or_else(|| NoResponse::Garbled(excerpt(&head)))?;
        if has_body {
            response.body = self.body(&response, end)?;
        }
        Ok(response)
    }

    fn body(&mut self, response: &Response, end: Instant) -> Result<Vec<u8>, NoResponse> {
        if response.header("transfer-encoding").is_some() {
            return self.chunks(end);
        }
        match response.header("content-length") {
            Some(length) => match length.parse() {
                Ok(length) if length <= MAX_RESPONSE => self.take(length, end),
                _ => Err(NoResponse::Garbled(format!(
                    "a body of {} bytes",
                    length.escape_default()
                ))),
            },
            None => {
                while self.read_more(end)? {}
                Ok(std::mem::take(&mut self.buffer))
            }
        }
    }

    /// Reads the body of a chunked response.
    fn chunks(&mut self, end: Instant) -> Result<Vec<u8>, NoResponse> {
        let mut body = Vec::new();
        loop {
            let line_len = loop {
                match find(&self.buffer, b"\r\n") {
                    Some(at) => break at,
                    None if self.read_more(end)? => {}
                    None => return Err(NoResponse::Closed),
                }
            };
            let line = self.take(line_len + 2, end)?;
            let size = std::str::from_utf8(&line).unwrap_or_default();
            let size = size.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).ok();
            let Some(size) = size.filter(|&size| size <= MAX_RESPONSE - body.len()) else {
                return Err(NoResponse::Garbled(format!(
                    "a chunk of {}",
                    excerpt(&line)
                )));
            };
            let chunk = self.take(size + 2, end)?;
            body.extend_from_slice(&chunk[..size]);
            if size == 0 {
                return Ok(body);
            }
        }
    }

    /// Reads and removes this number of bytes.
    fn take(&mut self, length: usize, end: Instant) -> Result<Vec<u8>, NoResponse> {
        while self.buffer.len() < length {
            if !self.read_more(end)? {
                return Err(NoResponse::Closed);
            }
        }
        Ok(self.buffer.drain(..length).collect())
    }

    /// Reads until the tracker closes the connection. Returns the number of bytes, and whether the connection was closed in
    /// this time.
    pub(crate) fn drain(&mut self, within: Duration) -> (usize, bool) {
        let end = Instant::now() + within;
        loop {
            match self.read_more(end) {
                Ok(true) => {}
                Ok(false) => return (self.buffer.len(), true),
                Err(_) => return (self.buffer.len(), false),
            }
        }
    }

    /// Reads once. Returns `false` at the end of the connection.
    fn read_more(&mut self, end: Instant) -> Result<bool, NoResponse> {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() || self.stream.set_read_timeout(Some(left)).is_err() {
            return Err(NoResponse::TimedOut);
        }
        if self.buffer.len() > MAX_RESPONSE {
            return Err(NoResponse::Garbled(format!(
                "over {}",
                count(MAX_RESPONSE, "byte")
            )));
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
                ErrorKind::WouldBlock | ErrorKind::TimedOut => Err(NoResponse::TimedOut),
                _ => Ok(false),
            },
        }
    }
}

fn parse_head(head: &[u8]) -> Option<Response> {
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
    Some(Response {
        status: rest.get(..3)?.parse().ok()?,
        headers: lines.map(header).collect::<Option<_>>()?,
        body: Vec::new(),
        trailing: 0,
    })
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// Returns the reply if the tracker sends these bytes and closes the connection.
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
    fn reads_bodies_with_length_and_chunked_and_to_the_end() {
        let response = reply(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nde\r\n").unwrap();
        assert_eq!((response.status, &response.body[..]), (200, &b"de"[..]));
        assert_eq!(
            (response.trailing, response.header("content-length")),
            (2, Some("2"))
        );
        let response = reply(b"HTTP/1.0 404 No\r\n\r\nto the end").unwrap();
        assert_eq!(
            (response.status, &response.body[..]),
            (404, &b"to the end"[..])
        );
        let chunked =
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nd\r\n1;x\r\ne\r\n0\r\n\r\n";
        assert_eq!(reply(chunked).unwrap().body, b"de");
    }

    #[test]
    fn reports_why_there_is_no_response() {
        assert!(matches!(reply(b""), Err(NoResponse::Closed)));
        let short = reply(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nde");
        assert!(matches!(short, Err(NoResponse::Closed)));
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
            assert!(
                matches!(garbled, Err(NoResponse::Garbled(_))),
                "{garbled:?}"
            );
        }
        let wire = Wire {
            to: TcpListener::bind("127.0.0.1:0")
                .unwrap()
                .local_addr()
                .unwrap(),
            host: String::new(),
            timeout: Duration::from_secs(20),
        };
        assert!(matches!(wire.get("/"), Err(NoResponse::Unreachable(_))));
    }
}
