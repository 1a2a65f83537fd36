//! The fast path: serves simple announces and scrapes without hyper, and sends each response with a single system call.
//!
//! Nearly all announces and scrapes are simple: a GET request that is received completely. With hyper they take an eighth
//! more CPU time (benches/README.md). So each connection starts on the fast path, and stays there as long as it sends a
//! single simple request at a time. A request is not simple if it has another method or path, a body, an upgrade, an
//! unusual `Connection` header, or more headers than any client sends. The fast path waits for the rest of an
//! incomplete head, because that takes less memory than in hyper.
//!
//! The first request that is not simple, and all later ones of the connection, are passed to hyper. So only hyper decides
//! which requests to reject, and how. The fast path parses heads with httparse, as hyper does, and writes the same heads as
//! hyper.

use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::os::fd::AsRawFd;

use httparse::{Header, Status};

use crate::protocol::http::request::{Action, Paths};
use crate::server::http::handler::{client_ip, handle_tracker_request};
use crate::server::http::server::{MAX_HEAD_LEN, Worker};
use crate::server::http::settings::Settings;
use crate::server::http::stream::Stream;

/// Maximum number of headers in a simple request. Clients and their proxies send fewer.
const MAX_HEADERS: usize = 32;

/// The buffer that headers are parsed to.
type HeaderBuffer<'i> = [MaybeUninit<Header<'i>>; MAX_HEADERS];

/// The next step for a connection after the fast path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Handoff {
    /// Hyper serves the request that was received, and all later requests.
    Hyper,
    /// The connection has ended.
    Close,
}

/// Serves the requests of a connection until a request is not simple.
///
/// # Errors
/// If the connection fails.
pub(super) async fn serve<S: Read + Write + AsRawFd + Unpin>(
    worker: &Worker,
    settings: &Settings,
    sender: Option<IpAddr>,
    stream: &mut Stream<S>,
) -> io::Result<Handoff> {
    loop {
        let received = stream.receive().await?;
        if received == 0 {
            return Ok(Handoff::Close);
        }
        let result = {
            let input = &worker.input.borrow()[..received];
            let output = &mut *worker.output.borrow_mut();
            let mut lines = [const { MaybeUninit::uninit() }; MAX_HEADERS];
            match SimpleRequest::parse(input, &mut lines, &settings.paths) {
                Some(request) => {
                    let is_last = write_response(worker, settings, sender, &request, output);
                    stream.response_ready();
                    let sent = stream.try_send(output, is_last)?;
                    Some((is_last, output[sent..].to_vec()))
                }
                None => {
                    stream.unread(input);
                    if received == MAX_HEAD_LEN || !is_incomplete_head(input) {
                        return Ok(Handoff::Hyper);
                    }
                    None
                }
            }
        };
        let Some((is_last, unsent)) = result else {
            // Waiting here takes as much memory as was received. In hyper, each client that sends a byte per second would
            // take 16 KiB.
            if !stream.receive_head().await? {
                return Ok(Handoff::Close);
            }
            continue;
        };
        // Some bytes are unsent only if the client does not read.
        stream.send_all(&unsent).await?;
        if is_last {
            return Ok(Handoff::Close);
        }
    }
}

/// Writes the head and the body of the response to `output`. Returns whether the connection ends after this response.
fn write_response(
    worker: &Worker,
    settings: &Settings,
    sender: Option<IpAddr>,
    request: &SimpleRequest<'_, '_>,
    output: &mut Vec<u8>,
) -> bool {
    let name = settings.proxies.header.name();
    let lines = request.headers.iter();
    let lines = lines.filter(|header| header.name.eq_ignore_ascii_case(name));
    let from = client_ip(settings, sender, lines.map(|header| header.value));
    let response = handle_tracker_request(worker, settings, from, request.action, request.query);
    let is_stopped = *worker.stop.borrow();
    let is_last = is_stopped || !request.keep_alive;
    let connection = match (request.version, request.keep_alive) {
        _ if is_stopped => "connection: close\r\n",
        (0, true) => "connection: keep-alive\r\n",
        (1, false) => "connection: close\r\n",
        _ => "",
    };
    output.clear();
    // Written without `format!`, which would take a tenth of all instructions outside the kernel.
    for part in [
        if request.version == 0 {
            "HTTP/1.0 200 OK\r\ncontent-type: text/plain\r\n"
        } else {
            "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n"
        },
        connection,
        "content-length: ",
        itoa::Buffer::new().format(response.body.len()),
        "\r\ndate: ",
        &worker.date.borrow(),
        "\r\n\r\n",
    ] {
        output.extend_from_slice(part.as_bytes());
    }
    output.extend_from_slice(&response.body);
    is_last
}

/// A simple request.
#[derive(Debug)]
struct SimpleRequest<'h, 'i> {
    action: Action,
    query: &'i [u8],
    /// The minor version of HTTP/1: 0 or 1.
    version: u8,
    keep_alive: bool,
    headers: &'h [Header<'i>],
}

impl<'h, 'i> SimpleRequest<'h, 'i> {
    /// Parses a request. Returns `None` unless `input` is exactly a simple request.
    fn parse(input: &'i [u8], lines: &'h mut HeaderBuffer<'i>, paths: &Paths) -> Option<Self> {
        let mut request = httparse::Request::new(&mut []);
        let status = request.parse_with_uninit_headers(input, lines).ok()?;
        if status != Status::Complete(input.len()) || request.method? != "GET" {
            return None;
        }
        let target = request.path?;
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let action = paths.action(path)?;
        if !target
            .bytes()
            .fold(true, |all, byte| all & is_unambiguous(byte))
        {
            return None;
        }
        let (mut close, mut keep) = (false, false);
        let headers: &'h [Header<'i>] = request.headers;
        for Header { name, value } in headers {
            let is = |other: &str| name.eq_ignore_ascii_case(other);
            if is("connection") {
                if value.eq_ignore_ascii_case(b"close") {
                    close = true;
                } else if value.eq_ignore_ascii_case(b"keep-alive") {
                    keep = true;
                } else {
                    return None;
                }
            } else if is("content-length")
                || is("transfer-encoding")
                || is("expect")
                || is("upgrade")
            {
                return None;
            }
        }
        let version = request.version?;
        Some(Self {
            action,
            query: query.as_bytes(),
            version,
            keep_alive: !close && (keep || version == 1),
            headers,
        })
    }
}

/// Returns whether the input is the valid start of a request head, but not a complete head.
fn is_incomplete_head(input: &[u8]) -> bool {
    let mut lines = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut []);
    request.parse_with_uninit_headers(input, &mut lines) == Ok(Status::Partial)
}

/// Returns whether all HTTP parsers agree on a byte in a request target. `#` starts a fragment, which is not part of the
/// target. Parsers differ on some other bytes.
fn is_unambiguous(byte: u8) -> bool {
    matches!(byte, b'!' | b'$'..=b';' | b'=' | b'?'..=b'[' | b']' | b'_' | b'a'..=b'z' | b'~')
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "GET /announce?info_hash=%aB&port=1 HTTP/1.1\r\nHost: t\r\n";

    /// Parses a request, and returns the values that the response depends on. Returns `None` if the request is not simple.
    fn parse(request: &str) -> Option<(Action, String, u8, bool)> {
        let paths = Paths::new("/announce").unwrap();
        let mut lines = [const { MaybeUninit::uninit() }; MAX_HEADERS];
        let request = SimpleRequest::parse(request.as_bytes(), &mut lines, &paths)?;
        let query = String::from_utf8(request.query.to_vec()).unwrap();
        Some((request.action, query, request.version, request.keep_alive))
    }

    fn with(headers: &str) -> Option<(Action, String, u8, bool)> {
        parse(&format!("{HEAD}{headers}\r\n"))
    }

    #[test]
    fn accepts_requests_of_typical_clients() {
        let query = "info_hash=%aB&port=1".to_owned();
        assert_eq!(with(""), Some((Action::Announce, query, 1, true)));
        let scrape = parse("GET /scrape/?a=b?c&(!$'*+,;:@[]~_) HTTP/1.0\r\nAccept: */*\r\n\r\n");
        let query = "a=b?c&(!$'*+,;:@[]~_)".to_owned();
        assert_eq!(scrape, Some((Action::Scrape, query, 0, false)));
        let bare = parse("GET /announce HTTP/1.1\n\n");
        assert_eq!(bare, Some((Action::Announce, String::new(), 1, true)));
        assert!(with(&"X-A: b\r\n".repeat(MAX_HEADERS - 1)).is_some());
    }

    #[test]
    fn keep_alive_depends_on_version_and_header() {
        let kept = |version: u8, headers: &str| {
            let request = format!("GET /announce HTTP/1.{version}\r\n{headers}\r\n");
            parse(&request).map(|(.., keep_alive)| keep_alive)
        };
        for (headers, old, new) in [
            ("", Some(false), Some(true)),
            ("Connection: close\r\n", Some(false), Some(false)),
            ("connection:  CLOSE \r\n", Some(false), Some(false)),
            ("Connection: Keep-Alive\r\n", Some(true), Some(true)),
            (
                "Connection: keep-alive\r\nConnection: close\r\n",
                Some(false),
                Some(false),
            ),
            (
                "Connection: close\r\nConnection: keep-alive\r\n",
                Some(false),
                Some(false),
            ),
            ("Connection: TE, close\r\n", None, None),
            ("Connection: close\r\nConnection: TE\r\n", None, None),
            ("Connection: Upgrade\r\n", None, None),
            ("Connection:\r\n", None, None),
        ] {
            assert_eq!(
                (kept(0, headers), kept(1, headers)),
                (old, new),
                "{headers}"
            );
        }
    }

    #[test]
    fn recognizes_incomplete_heads() {
        for head in [
            "",
            "G",
            "GET /announce",
            HEAD,
            "\r\n\r\nGET /",
            "PUT / HTTP/1.1\r\nA: b",
        ] {
            assert!(is_incomplete_head(head.as_bytes()), "{head}");
        }
        let complete = format!("{HEAD}\r\n");
        for other in [
            &complete,
            "\x16\x03\x01",
            "GET / HTTP/2.0\r\n",
            "GET / HTTP/1.1\r\n: b",
        ] {
            assert!(!is_incomplete_head(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn rejects_requests_that_are_not_simple() {
        for headers in [
            "Content-Length: 0\r\n",
            "content-length: 5\r\n",
            "Transfer-Encoding: chunked\r\n",
            "Expect: 100-continue\r\n",
            "Upgrade: websocket\r\n",
            "A b: c\r\n",
            " folded\r\n",
            "A : b\r\n",
            &"X-A: b\r\n".repeat(MAX_HEADERS),
        ] {
            assert_eq!(with(headers), None, "{headers}");
        }
        assert_eq!(
            parse(&format!("{HEAD}\r\nGET")),
            None,
            "another request follows"
        );
        assert_eq!(parse(&format!("{HEAD}\r")), None, "the head is incomplete");
        for line in [
            "HEAD /announce HTTP/1.1",
            "get /announce HTTP/1.1",
            "GET /announce HTTP/1.2",
            "GET /announce HTTP/2.0",
            "GET /announce",
            "GET  /announce HTTP/1.1",
            "GET announce HTTP/1.1",
            "GET http://t/announce HTTP/1.1",
            "GET //announce HTTP/1.1",
            "GET /announces HTTP/1.1",
            "GET /%61nnounce HTTP/1.1",
            "GET / HTTP/1.1",
            "GET /announce?a#b HTTP/1.1",
            "GET /announce?a#?b HTTP/1.1",
            "GET /announce?a\\b HTTP/1.1",
            "GET /announce?a\"b HTTP/1.1",
            "GET /announce?a<b HTTP/1.1",
            "GET /announce?a\u{e4}b HTTP/1.1",
            "GET /announce?a\x7fb HTTP/1.1",
            "GET /announce?a\tb HTTP/1.1",
            "GET /announce?a\0b HTTP/1.1",
        ] {
            assert_eq!(parse(&format!("{line}\r\nHost: t\r\n\r\n")), None, "{line}");
        }
    }
}
