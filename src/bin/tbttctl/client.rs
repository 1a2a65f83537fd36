//! Sends a request to the daemon over its control socket, and reads the response.

use std::fmt;
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::unistd::{Gid, Group};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tbtt::server::control::Problem;

/// Timeout for requests that only return something.
const GET_TIMEOUT: Duration = Duration::from_secs(10);

/// Timeout for requests that wait for disks.
const POST_TIMEOUT: Duration = Duration::from_secs(600);

/// The reason why there is no usable response.
#[derive(Debug)]
pub(crate) enum Error {
    /// No process listens on the socket.
    NotRunning(String),
    NoPermission(String),
    /// The reasons for which the daemon refused the request.
    Refused(Vec<String>),
    /// Any other failure: no response in time, or a response that cannot be parsed.
    Failed(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRunning(text) | Self::NoPermission(text) | Self::Failed(text) => {
                f.write_str(text)
            }
            Self::Refused(faults) => f.write_str(&faults.join("\n")),
        }
    }
}

/// A request, with its path.
#[derive(Clone, Copy)]
pub(crate) enum ControlRequest<'a> {
    Get(&'a str),
    Post(&'a str),
    /// With a body.
    Put(&'a str, &'a str),
}

/// Sends a request, and returns the JSON in the response.
pub(crate) fn send(socket: &Path, request: ControlRequest<'_>) -> Result<Vec<u8>, Error> {
    let stream = UnixStream::connect(socket).map_err(|error| no_connection(socket, &error))?;
    exchange(stream, request).map_err(|error| match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            Error::Failed("no response from tbtt in time; see its log".to_owned())
        }
        _ => Error::Failed(format!("connection to tbtt failed: {error}")),
    })?
}

/// Sends a GET request, and parses the response.
pub(crate) fn get<T: DeserializeOwned>(socket: &Path, path: &str) -> Result<T, Error> {
    parse_json(&send(socket, ControlRequest::Get(path))?)
}

/// Parses the JSON of a response.
pub(crate) fn parse_json<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, Error> {
    serde_json::from_slice(json).map_err(|error| {
        Error::Failed(format!(
            "cannot parse the response of tbtt: {error}; use the tbttctl of the same version"
        ))
    })
}

/// Sends a request in HTTP/1.0, where the response ends with the connection.
fn exchange(
    mut stream: UnixStream,
    request: ControlRequest<'_>,
) -> io::Result<Result<Vec<u8>, Error>> {
    let (method, path, body, timeout) = match request {
        ControlRequest::Get(path) => ("GET", path, "", GET_TIMEOUT),
        ControlRequest::Post(path) => ("POST", path, "", POST_TIMEOUT),
        ControlRequest::Put(path, body) => ("PUT", path, body, GET_TIMEOUT),
    };
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(GET_TIMEOUT))?;
    let length = body.len();
    let head_and_body =
        format!("{method} {path} HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(head_and_body.as_bytes())?;
    let mut response = Vec::new();
    stream.read_to_end(&mut response)?;
    Ok(parse_response(&response))
}

/// Returns the body of a response, if that has the length that the head states, or the reasons of the refusal.
fn parse_response(response: &[u8]) -> Result<Vec<u8>, Error> {
    let split = || {
        let end = response.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = std::str::from_utf8(&response[..end]).ok()?.to_lowercase();
        let body = &response[end + 4..];
        let status: u16 = head.split(' ').nth(1)?.parse().ok()?;
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))?;
        (head.starts_with("http/1.") && length.parse() == Ok(body.len())).then_some((status, body))
    };
    match split() {
        Some((200, body)) => Ok(body.to_owned()),
        Some((status, body)) => match serde_json::from_slice::<Problem>(body) {
            Ok(Problem { faults }) if status == 403 => Err(Error::NoPermission(faults.join("\n"))),
            Ok(Problem { faults }) => Err(Error::Refused(faults)),
            Err(_) => Err(Error::Failed(format!(
                "unexpected response with status {status}; is the program at this socket tbtt?"
            ))),
        },
        None => Err(Error::Failed(
            "incomplete or invalid response; is the program at this socket tbtt? See its log"
                .to_owned(),
        )),
    }
}

fn no_connection(socket: &Path, error: &io::Error) -> Error {
    let path = socket.display();
    match error.kind() {
        ErrorKind::NotFound => Error::NotRunning(format!(
            "tbtt is not running, or uses another socket: {path} does not exist; start tbtt (systemctl start tbtt), \
             or pass the path that [control] listen in tbtt.toml sets with --socket"
        )),
        ErrorKind::ConnectionRefused => Error::NotRunning(format!(
            "tbtt is not running: no process listens on {path}; start tbtt (systemctl start tbtt)"
        )),
        ErrorKind::PermissionDenied => Error::NoPermission(match group(socket) {
            Some(group) => format!(
                "no permission to use {path}; run tbttctl as root or as a member of the group {group}"
            ),
            None => format!("no permission to use {path}; run tbttctl as root"),
        }),
        _ => Error::Failed(format!("cannot connect to {path}: {error}")),
    }
}

/// Returns the group that may use the socket.
fn group(socket: &Path) -> Option<String> {
    let file = fs::metadata(socket).ok()?;
    let gid = (file.mode() & 0o020 != 0).then_some(file.gid())?;
    let group = Group::from_gid(Gid::from_raw(gid)).ok().flatten();
    Some(group.map_or_else(|| gid.to_string(), |group| group.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejects_truncated_responses() {
        let ok = "HTTP/1.0 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(parse_response(ok.as_bytes()).unwrap(), b"{}");
        for end in 0..ok.len() {
            assert!(parse_response(&ok.as_bytes()[..end]).is_err(), "{end}");
        }
        let error = |response: &str| parse_response(response.as_bytes()).unwrap_err().to_string();
        let refused = "HTTP/1.0 422 No\r\ncontent-length: 21\r\n\r\n{\"faults\":[\"a\", \"b\"]}";
        assert_eq!(error(refused), "a\nb");
        let other = "HTTP/1.0 404 Not Found\r\ncontent-length: 2\r\n\r\nno";
        assert!(
            error(other).ends_with("at this socket tbtt?"),
            "{}",
            error(other)
        );
    }
}
