//! An HTTP client for tests. It sends exactly the bytes that a test passes, and checks responses strictly.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_bencode::value::Value;
use socket2::{Domain, SockAddr, Socket, Type};

use super::PATIENCE;

/// An HTTP connection to the tracker.
pub(crate) struct Connection(BufReader<TcpStream>);

/// An HTTP response. Its body has exactly the length that the header announces.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// The header fields, by name in lower case.
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Connection {
    pub(crate) fn open(to: SocketAddr) -> Self {
        Self::new(TcpStream::connect_timeout(&to, PATIENCE).unwrap())
    }

    /// Connects from the address `from`. On Linux every address in 127.0.0.0/8 belongs to this host.
    pub(crate) fn open_from(from: IpAddr, to: SocketAddr) -> Self {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
        socket
            .bind(&SockAddr::from(SocketAddr::new(from, 0)))
            .unwrap();
        socket.connect_timeout(&to.into(), PATIENCE).unwrap();
        Self::new(socket.into())
    }

    /// Connects to a Unix socket.
    pub(crate) fn open_unix(to: &Path) -> Self {
        let stream = UnixStream::connect(to).unwrap();
        // std has no conversion, but the calls used here work on both kinds of stream socket.
        Self::new(OwnedFd::from(stream).into())
    }

    fn new(stream: TcpStream) -> Self {
        // This fails on a Unix socket, which has no such option and needs none.
        let _ = stream.set_nodelay(true);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self(BufReader::new(stream))
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        self.0.get_ref()
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream().write_all(bytes.as_ref()).unwrap();
    }

    /// Sends a GET request on the connection, which stays open, and returns the response.
    pub(crate) fn get(&mut self, target: &str) -> Response {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: t\r\n\r\n"));
        self.response()
    }

    /// Reads the next response, and panics if it is missing or incomplete.
    pub(crate) fn response(&mut self) -> Response {
        self.try_response().unwrap()
    }

    /// Reads the next response. Fails if the connection is closed or the time is up before the response is complete.
    pub(crate) fn try_response(&mut self) -> io::Result<Response> {
        let mut response = self.head()?;
        let length = response.headers["content-length"].parse().unwrap();
        response.body.resize(length, 0);
        self.0.read_exact(&mut response.body)?;
        Ok(response)
    }

    /// Reads only the head of a response. The response to a HEAD request ends there, despite its content-length.
    pub(crate) fn head(&mut self) -> io::Result<Response> {
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let status = line
            .strip_prefix("HTTP/1.1 ")
            .or(line.strip_prefix("HTTP/1.0 "))
            .and_then(|rest| rest.get(..3)?.parse().ok())
            .unwrap_or_else(|| panic!("not a status line: {line:?}"));
        let mut headers = HashMap::new();
        loop {
            line.clear();
            self.0.read_line(&mut line)?;
            let header = line
                .strip_suffix("\r\n")
                .expect("a header line ends with CRLF");
            let Some((name, value)) = header.split_once(": ") else {
                assert_eq!(header, "", "a header line has a name and a value");
                return Ok(Response {
                    status,
                    headers,
                    body: Vec::new(),
                });
            };
            let previous = headers.insert(name.to_ascii_lowercase(), value.to_owned());
            assert_eq!(previous, None, "the header field {name} is repeated");
        }
    }

    /// Returns all bytes up to the end of the connection. Panics if the tracker does not close the connection in time.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            // The kernel resets a connection that the tracker closes while some of our bytes are unread.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => rest,
            result => result
                .map(|_| rest)
                .expect("the tracker closes the connection"),
        }
    }
}

/// Sends a GET request on a new connection, and returns the response.
///
/// Panics unless the tracker then closes the connection, without another byte.
pub(crate) fn get(to: SocketAddr, target: &str) -> Response {
    let mut connection = Connection::open(to);
    connection.send(format!(
        "GET {target} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"
    ));
    let response = connection.response();
    assert_eq!(connection.rest(), b"", "no byte follows the body");
    response
}

impl Response {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("UTF-8")
    }

    /// Returns the body as a bencoded dictionary. Panics if the status is not 200, or if the body has a transfer or
    /// content encoding.
    pub(crate) fn dictionary(&self) -> Dictionary {
        assert_eq!(self.status, 200, "{self:?}");
        for absent in ["transfer-encoding", "content-encoding"] {
            assert!(!self.headers.contains_key(absent), "{self:?}");
        }
        Dictionary::read(&self.body)
    }
}

/// A bencoded dictionary.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Dictionary(HashMap<Vec<u8>, Value>);

impl Dictionary {
    /// Parses a dictionary, and panics unless its encoding is canonical: sorted and unique keys, and no byte after the
    /// end. Encoding a canonical dictionary again results in the same bytes.
    pub(crate) fn read(body: &[u8]) -> Self {
        let shown = String::from_utf8_lossy(body);
        let value: Value = serde_bencode::from_bytes(body).expect(&shown);
        assert_eq!(serde_bencode::to_bytes(&value).unwrap(), body, "{shown}");
        match value {
            Value::Dict(dictionary) => Self(dictionary),
            _ => panic!("not a dictionary: {shown}"),
        }
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.0.contains_key(key.as_bytes())
    }

    /// Returns the keys in order.
    pub(crate) fn keys(&self) -> Vec<&[u8]> {
        let mut keys: Vec<_> = self.0.keys().map(Vec::as_slice).collect();
        keys.sort_unstable();
        keys
    }

    fn value(&self, key: &[u8]) -> &Value {
        self.0
            .get(key)
            .unwrap_or_else(|| panic!("the key {} is missing in {self:?}", key.escape_ascii()))
    }

    pub(crate) fn number(&self, key: &str) -> i64 {
        match self.value(key.as_bytes()) {
            Value::Int(number) => *number,
            other => panic!("{key} is {other:?}"),
        }
    }

    pub(crate) fn bytes(&self, key: &str) -> &[u8] {
        match self.value(key.as_bytes()) {
            Value::Bytes(bytes) => bytes,
            other => panic!("{key} is {other:?}"),
        }
    }

    pub(crate) fn text(&self, key: &str) -> &str {
        std::str::from_utf8(self.bytes(key)).expect("UTF-8")
    }

    pub(crate) fn dictionary(&self, key: impl AsRef<[u8]>) -> Self {
        match self.value(key.as_ref()) {
            Value::Dict(dictionary) => Self(dictionary.clone()),
            other => panic!("{} is {other:?}", key.as_ref().escape_ascii()),
        }
    }

    pub(crate) fn dictionaries(&self, key: &str) -> Vec<Self> {
        let Value::List(list) = self.value(key.as_bytes()) else {
            panic!("{key} is not a list in {self:?}");
        };
        let dictionary = |value: &Value| match value {
            Value::Dict(dictionary) => Self(dictionary.clone()),
            other => panic!("{key} contains {other:?}"),
        };
        list.iter().map(dictionary).collect()
    }

    /// Returns the peers of a compact response, in order. Peers of both address families are supported.
    pub(crate) fn peers(&self) -> Vec<SocketAddr> {
        let mut peers = match self.has("peers6") {
            true => super::udp::endpoints::<16>(self.bytes("peers6")),
            false => super::udp::endpoints::<4>(self.bytes("peers")),
        };
        peers.sort_unstable();
        peers
    }

    /// Returns the ports of the peers in a compact response, in order.
    pub(crate) fn ports(&self) -> Vec<u16> {
        let (peers, size) = if self.has("peers6") {
            assert_eq!(
                self.bytes("peers"),
                b"",
                "a response contains peers of one address family"
            );
            (self.bytes("peers6"), 18)
        } else {
            (self.bytes("peers"), 6)
        };
        assert_eq!(peers.len() % size, 0);
        let mut ports: Vec<_> = peers
            .chunks(size)
            .map(|peer| u16::from_be_bytes([peer[size - 2], peer[size - 1]]))
            .collect();
        ports.sort_unstable();
        ports
    }
}
