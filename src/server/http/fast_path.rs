//! A plain GET that came whole, as nearly every announce and scrape does, answered with one send and without hyper.
//!
//! Through hyper it takes an eighth more CPU time (benches/README.md). So each connection begins here, and stays as long as
//! it brings one request at a time, each with nothing about it that needs a second look: another method or path, a body, an
//! upgrade, an odd `Connection`, more headers than any client sends. A head that comes in pieces is waited for here, as that
//! takes less memory. The first that is not so is handed to hyper unread, and all that follows with it: what must be
//! rejected, and how, is decided there alone. The head is read by httparse, which is hyper's parser too, and is written as
//! hyper writes it.

use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::os::fd::AsRawFd;

use httparse::{Header, Status};

use crate::protocol::http::request::{Action, Paths};
use crate::server::http::handler::{client_ip, handle_tracker_request};
use crate::server::http::server::{HEADER_MAX, Worker};
use crate::server::http::settings::Settings;
use crate::server::http::stream::Stream;

/// More than clients and their proxies send.
const HEADERS_MAX: usize = 32;

/// Where headers are read to.
type Lines<'i> = [MaybeUninit<Header<'i>>; HEADERS_MAX];

/// How a connection goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Handoff {
    /// What has come in, and what follows, is for hyper.
    Hyper,
    /// It is at its end.
    Close,
}

/// Answers a connection's requests until there is one that is not plain.
///
/// # Errors
/// When the connection fails.
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
        let answered = {
            let input = &worker.input.borrow()[..received];
            let output = &mut *worker.output.borrow_mut();
            let mut lines = [const { MaybeUninit::uninit() }; HEADERS_MAX];
            match SimpleRequest::parse(input, &mut lines, &settings.paths) {
                Some(request) => {
                    let is_last = answer(worker, settings, sender, &request, output);
                    stream.answered();
                    let sent = stream.try_send(output, is_last)?;
                    Some((is_last, output[sent..].to_vec()))
                }
                None => {
                    stream.refund(input);
                    if received == HEADER_MAX || !is_begun(input) {
                        return Ok(Handoff::Hyper);
                    }
                    None
                }
            }
        };
        let Some((is_last, unsent)) = answered else {
            // Waiting here costs what has come; in hyper it would cost 16 KiB, of each of those who send a byte a second.
            if !stream.receive_head().await? {
                return Ok(Handoff::Close);
            }
            continue;
        };
        // Only a client that does not read leaves something here.
        stream.send_all(&unsent).await?;
        if is_last {
            return Ok(Handoff::Close);
        }
    }
}

/// Writes head and body to `output`; tells whether the connection ends with them.
fn answer(
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
    let reply = handle_tracker_request(worker, settings, from, request.action, request.query);
    let is_stopped = *worker.stop.borrow();
    let is_last = is_stopped || !request.keep_alive;
    let connection = match (request.version, request.keep_alive) {
        _ if is_stopped => "connection: close\r\n",
        (0, true) => "connection: keep-alive\r\n",
        (1, false) => "connection: close\r\n",
        _ => "",
    };
    output.clear();
    // By hand: formatting would take a tenth of all instructions outside the kernel.
    for part in [
        if request.version == 0 {
            "HTTP/1.0 200 OK\r\ncontent-type: text/plain\r\n"
        } else {
            "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n"
        },
        connection,
        "content-length: ",
        itoa::Buffer::new().format(reply.body.len()),
        "\r\ndate: ",
        &worker.date.borrow(),
        "\r\n\r\n",
    ] {
        output.extend_from_slice(part.as_bytes());
    }
    output.extend_from_slice(&reply.body);
    is_last
}

/// A request of which all that matters is here.
#[derive(Debug)]
struct SimpleRequest<'h, 'i> {
    action: Action,
    query: &'i [u8],
    /// Of HTTP, after "1.": 0 or 1.
    version: u8,
    keep_alive: bool,
    headers: &'h [Header<'i>],
}

impl<'h, 'i> SimpleRequest<'h, 'i> {
    /// `None` unless `input` is one such request and nothing else.
    fn parse(input: &'i [u8], lines: &'h mut Lines<'i>, paths: &Paths) -> Option<Self> {
        let mut request = httparse::Request::new(&mut []);
        let status = request.parse_with_uninit_headers(input, lines).ok()?;
        if status != Status::Complete(input.len()) || request.method? != "GET" {
            return None;
        }
        let target = request.path?;
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let action = paths.action(path)?;
        if !target.bytes().fold(true, |all, byte| all & is_clear(byte)) {
            return None;
        }
        let (mut close, mut keep) = (false, false);
        let headers: &'h [Header<'i>] = request.headers;
        for Header { name, value } in headers {
            let is = |one: &str| name.eq_ignore_ascii_case(one);
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

/// Whether this is the beginning of a request's head, with more to come and nothing wrong so far.
fn is_begun(input: &[u8]) -> bool {
    let mut lines = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut []);
    request.parse_with_uninit_headers(input, &mut lines) == Ok(Status::Partial)
}

/// Has one meaning for everyone in a target: `#` begins what is no part of it, and of some bytes opinions differ.
fn is_clear(byte: u8) -> bool {
    matches!(byte, b'!' | b'$'..=b';' | b'=' | b'?'..=b'[' | b']' | b'_' | b'a'..=b'z' | b'~')
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "GET /announce?info_hash=%aB&port=1 HTTP/1.1\r\nHost: t\r\n";

    /// What the answer depends on, if the request is plain.
    fn parsed(request: &str) -> Option<(Action, String, u8, bool)> {
        let paths = Paths::new("/announce").unwrap();
        let mut lines = [const { MaybeUninit::uninit() }; HEADERS_MAX];
        let plain = SimpleRequest::parse(request.as_bytes(), &mut lines, &paths)?;
        let query = String::from_utf8(plain.query.to_vec()).unwrap();
        Some((plain.action, query, plain.version, plain.keep_alive))
    }

    fn with(headers: &str) -> Option<(Action, String, u8, bool)> {
        parsed(&format!("{HEAD}{headers}\r\n"))
    }

    #[test]
    fn what_clients_send_is_plain() {
        let query = "info_hash=%aB&port=1".to_owned();
        assert_eq!(with(""), Some((Action::Announce, query, 1, true)));
        let scrape = parsed("GET /scrape/?a=b?c&(!$'*+,;:@[]~_) HTTP/1.0\r\nAccept: */*\r\n\r\n");
        let query = "a=b?c&(!$'*+,;:@[]~_)".to_owned();
        assert_eq!(scrape, Some((Action::Scrape, query, 0, false)));
        let bare = parsed("GET /announce HTTP/1.1\n\n");
        assert_eq!(bare, Some((Action::Announce, String::new(), 1, true)));
        assert!(with(&"X-A: b\r\n".repeat(HEADERS_MAX - 1)).is_some());
    }

    #[test]
    fn a_connection_is_kept_as_its_version_and_the_client_say() {
        let kept = |version: u8, headers: &str| {
            let request = format!("GET /announce HTTP/1.{version}\r\n{headers}\r\n");
            parsed(&request).map(|(.., keep_alive)| keep_alive)
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
    fn what_is_wrong_already_is_not_waited_for() {
        for begun in [
            "",
            "G",
            "GET /announce",
            HEAD,
            "\r\n\r\nGET /",
            "PUT / HTTP/1.1\r\nA: b",
        ] {
            assert!(is_begun(begun.as_bytes()), "{begun}");
        }
        let whole = format!("{HEAD}\r\n");
        for other in [
            &whole,
            "\x16\x03\x01",
            "GET / HTTP/2.0\r\n",
            "GET / HTTP/1.1\r\n: b",
        ] {
            assert!(!is_begun(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn what_needs_a_second_look_is_not_plain() {
        for headers in [
            "Content-Length: 0\r\n",
            "content-length: 5\r\n",
            "Transfer-Encoding: chunked\r\n",
            "Expect: 100-continue\r\n",
            "Upgrade: websocket\r\n",
            "A b: c\r\n",
            " folded\r\n",
            "A : b\r\n",
            &"X-A: b\r\n".repeat(HEADERS_MAX),
        ] {
            assert_eq!(with(headers), None, "{headers}");
        }
        assert_eq!(parsed(&format!("{HEAD}\r\nGET")), None, "one more begins");
        assert_eq!(parsed(&format!("{HEAD}\r")), None, "not all is there");
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
            assert_eq!(
                parsed(&format!("{line}\r\nHost: t\r\n\r\n")),
                None,
                "{line}"
            );
        }
    }
}
