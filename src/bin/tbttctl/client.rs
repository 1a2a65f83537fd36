//! One request to the daemon over its control socket, and its answer.

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

/// How long the daemon may take to show something.
const TO_SHOW: Duration = Duration::from_secs(10);

/// How long it may take over what waits for disks.
const TO_DO: Duration = Duration::from_secs(600);

/// Why there is no answer, or none that could be used.
#[derive(Debug)]
pub(crate) enum Error {
    /// Nobody listens.
    NotRunning(String),
    NoPermission(String),
    /// The daemon said why it did not do it.
    Refused(Vec<String>),
    /// Something else: not what this version of the daemon says, or no answer in time.
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

/// What is asked.
#[derive(Clone, Copy)]
pub(crate) enum Ask<'a> {
    Get(&'a str),
    Post(&'a str),
    Put(&'a str, &'a str),
}

/// Asks, and gives the JSON of the answer.
pub(crate) fn ask(socket: &Path, ask: Ask<'_>) -> Result<Vec<u8>, Error> {
    let stream = UnixStream::connect(socket).map_err(|error| no_connection(socket, &error))?;
    exchange(stream, ask).map_err(|error| match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            Error::Failed("tbtt has not answered in time; its log may say why".to_owned())
        }
        _ => Error::Failed(format!("the connection to tbtt broke: {error}")),
    })?
}

/// As [`ask`], read.
pub(crate) fn get<T: DeserializeOwned>(socket: &Path, path: &str) -> Result<T, Error> {
    read(&ask(socket, Ask::Get(path))?)
}

/// What an answer says.
pub(crate) fn read<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, Error> {
    serde_json::from_slice(json).map_err(|error| {
        Error::Failed(format!(
            "tbtt's answer cannot be read, {error}: is it of another version?"
        ))
    })
}

/// HTTP/1.0, whose answers end with the connection.
fn exchange(mut stream: UnixStream, ask: Ask<'_>) -> io::Result<Result<Vec<u8>, Error>> {
    let (method, path, body, patience) = match ask {
        Ask::Get(path) => ("GET", path, "", TO_SHOW),
        Ask::Post(path) => ("POST", path, "", TO_DO),
        Ask::Put(path, body) => ("PUT", path, body, TO_SHOW),
    };
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(TO_SHOW))?;
    let length = body.len();
    let request = format!("{method} {path} HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(parse(&answer))
}

/// The body of an answer that is as long as its head says, or why it was refused.
fn parse(answer: &[u8]) -> Result<Vec<u8>, Error> {
    let whole = || {
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = std::str::from_utf8(&answer[..end]).ok()?.to_lowercase();
        let body = &answer[end + 4..];
        let status: u16 = head.split(' ').nth(1)?.parse().ok()?;
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))?;
        (head.starts_with("http/1.") && length.parse() == Ok(body.len())).then_some((status, body))
    };
    match whole() {
        Some((200, body)) => Ok(body.to_owned()),
        Some((status, body)) => match serde_json::from_slice::<Problem>(body) {
            Ok(Problem { faults }) if status == 403 => Err(Error::NoPermission(faults.join("\n"))),
            Ok(Problem { faults }) => Err(Error::Refused(faults)),
            Err(_) => Err(Error::Failed(format!(
                "whoever listens there answers with status {status}: is it tbtt?"
            ))),
        },
        None => Err(Error::Failed(
            "tbtt ended the connection before its answer; its log may say why".to_owned(),
        )),
    }
}

fn no_connection(socket: &Path, error: &io::Error) -> Error {
    let path = socket.display();
    match error.kind() {
        ErrorKind::NotFound => Error::NotRunning(format!(
            "tbtt is not running, or has its socket elsewhere: there is no {path}; start it (systemctl start tbtt), \
             or see [control] listen in its configuration, and name it with --socket"
        )),
        ErrorKind::ConnectionRefused => Error::NotRunning(format!(
            "tbtt is not running: nobody listens at {path}; start it (systemctl start tbtt)"
        )),
        ErrorKind::PermissionDenied => Error::NoPermission(match group(socket) {
            Some(group) => format!(
                "no permission to use {path}: run tbttctl as root, or become a member of the group {group}"
            ),
            None => format!("no permission to use {path}: run tbttctl as root"),
        }),
        _ => Error::Failed(format!("cannot reach tbtt at {path}: {error}")),
    }
}

/// The group that may use the socket.
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
    fn an_answer_must_be_whole() {
        let ok = "HTTP/1.0 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(parse(ok.as_bytes()).unwrap(), b"{}");
        for end in 0..ok.len() {
            assert!(parse(&ok.as_bytes()[..end]).is_err(), "{end}");
        }
        let said = |answer: &str| parse(answer.as_bytes()).unwrap_err().to_string();
        let refused = "HTTP/1.0 422 No\r\ncontent-length: 21\r\n\r\n{\"faults\":[\"a\", \"b\"]}";
        assert_eq!(said(refused), "a\nb");
        let other = "HTTP/1.0 404 Not Found\r\ncontent-length: 2\r\n\r\nno";
        assert!(said(other).ends_with("is it tbtt?"), "{}", said(other));
    }
}
