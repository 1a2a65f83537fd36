//! A running tracker, and the clients that announce to it.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Instant;

use nix::sys::signal::Signal;
use sha1::{Digest, Sha1};

use super::http::{Connection, Dictionary, Response};
use super::{Daemon, Directory, PATIENCE, udp};

/// An info-hash, as clients announce it.
pub(crate) type InfoHash = [u8; 20];

pub(crate) const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
pub(crate) const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// The proxy of clients whose address does not belong to this machine, unless a test configures its own proxies.
pub(crate) const PROXY: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 200));

pub(crate) const PEER_ID: &str = "-XX0001-abcdefghijkl";

/// A running daemon that listens for HTTP and UDP on IPv4 and IPv6.
pub(crate) struct Tracker {
    pub(crate) daemon: Daemon,
    pub(crate) http: u16,
    pub(crate) udp: u16,
}

impl Tracker {
    /// Starts the daemon with `settings`, and waits until it listens and has scanned the torrent directories.
    pub(crate) fn start(settings: &str) -> Self {
        let proxy = match settings.contains("[proxy]") {
            true => String::new(),
            false => format!("[proxy]\ntrusted = ['{PROXY}']\n"),
        };
        let daemon = Daemon::start(&format!(
            "[http]\nlisten = ['[::]:0']\n[udp]\nlisten = ['[::]:0']\n{settings}\n{proxy}"
        ));
        daemon.wait_for_line(DIRECTORIES_READ);
        let (http, udp) = (daemon.port("http"), daemon.port("udp"));
        Self { daemon, http, udp }
    }

    /// Starts an open tracker, which tracks every torrent.
    pub(crate) fn open(settings: &str) -> Self {
        Self::start(&format!("[torrents]\nopen = true\n{settings}"))
    }

    /// Opens an HTTP connection from the address `from`.
    pub(crate) fn connect(&self, from: IpAddr) -> Connection {
        Connection::open_from(from, SocketAddr::new(loopback(from), self.http))
    }

    /// Returns an HTTP client with this address.
    pub(crate) fn client(&self, address: &str) -> Client<'_> {
        let address = address.parse().unwrap();
        Client {
            tracker: self,
            address,
        }
    }

    /// Returns a UDP client with this address, and its connection id.
    pub(crate) fn udp_client(&self, address: &str) -> (udp::Client, u64) {
        let own = address.parse().unwrap();
        let client = udp::Client::new(own, SocketAddr::new(loopback(own), self.udp));
        let id = client.id();
        (client, id)
    }

    /// Announces over HTTP and UDP, on IPv4 and IPv6, and returns the outcome, which must be the same for all.
    ///
    /// The outcome is [`SERVED`], or the reason of the refusal.
    pub(crate) fn outcome(&self, id: &InfoHash) -> String {
        let outcomes = [V4, V6].map(|family| {
            let family = family.to_string();
            let over_http = outcome(&self.client(&family).announce(id, "port=1&left=0"));
            assert_eq!(udp_outcome(&self.udp_client(&family), id), over_http);
            over_http
        });
        assert_eq!(outcomes[0], outcomes[1]);
        outcomes[0].clone()
    }

    /// Returns whether one announce over HTTP is served.
    pub(crate) fn is_tracked(&self, id: &InfoHash) -> bool {
        outcome(&self.client("127.0.0.1").announce(id, "port=1&left=0")) == SERVED
    }

    /// Returns the peers in the response to a seeder at this address. These are leechers only.
    pub(crate) fn peers_returned_to(&self, address: &str, id: &InfoHash) -> Vec<String> {
        let response = self
            .client(address)
            .announce(id, "port=9&left=0&numwant=200");
        response.peers().iter().map(ToString::to_string).collect()
    }

    /// Returns the path of the configuration file.
    pub(crate) fn config_file(&self) -> PathBuf {
        self.daemon.directory().path().join("tbtt.toml")
    }

    /// Replaces a text in the configuration file.
    pub(crate) fn edit_config(&self, before: &str, after: &str) {
        let text = fs::read_to_string(self.config_file()).unwrap();
        assert!(text.contains(before), "{before}");
        fs::write(self.config_file(), text.replace(before, after)).unwrap();
    }

    /// Reloads the daemon, and waits until it has reloaded and scanned the torrent directories.
    pub(crate) fn reload(&self) {
        let [reloads, scans] =
            [RELOADED, DIRECTORIES_READ].map(|text| self.daemon.lines(text).len() + 1);
        self.daemon.signal(Signal::SIGHUP);
        self.daemon.wait_for_lines(RELOADED, reloads);
        self.daemon.wait_for_lines(DIRECTORIES_READ, scans);
    }

    /// Reloads the daemon, which must fail with exactly `errors` errors. Returns their log lines.
    pub(crate) fn failing_reload(&self, errors: usize) -> Vec<String> {
        let before = self.daemon.lines(RELOAD_FAILED).len();
        let reloads = self.daemon.lines(RELOADED).len();
        self.daemon.signal(Signal::SIGHUP);
        self.daemon.wait_for_lines(RELOAD_FAILED, before + errors);
        // All lines of the first reload precede those of a second, so an excess line is seen now.
        self.daemon.signal(Signal::SIGHUP);
        self.daemon
            .wait_for_lines(RELOAD_FAILED, before + 2 * errors);
        let lines = self.daemon.lines(RELOAD_FAILED);
        assert_eq!(lines.len(), before + 2 * errors, "{lines:#?}");
        assert_eq!(self.daemon.lines(RELOADED).len(), reloads);
        lines[before..before + errors].to_vec()
    }
}

/// Parts of the daemon's log lines.
pub(crate) const OPEN: &str = "tracker is open";
pub(crate) const DIRECTORIES_READ: &str = "torrent directories read";
pub(crate) const SKIPPED: &str = "skipping torrent file";
pub(crate) const FILE_REMOVED: &str = "torrent file removed";
pub(crate) const NO_LONGER_TRACKED: &str = "torrent no longer tracked";
pub(crate) const RELOADED: &str = "reloaded";
pub(crate) const RELOAD_FAILED: &str = "reload failed";
pub(crate) const RELOAD_ERROR: &str = "error=\"";

/// Returns the address over which a client at this address connects to the tracker.
pub(crate) fn loopback(address: IpAddr) -> IpAddr {
    if address.is_ipv4() { V4 } else { V6 }
}

/// A client that uses HTTP. An address that does not belong to this machine is sent through [`PROXY`].
pub(crate) struct Client<'a> {
    pub(crate) tracker: &'a Tracker,
    pub(crate) address: IpAddr,
}

impl Client<'_> {
    /// Sends a GET request, and returns the response.
    pub(crate) fn get(&self, target: &str) -> Dictionary {
        let (sender, header) = match self.address.is_loopback() {
            true => (self.address, String::new()),
            false => (PROXY, format!("X-Forwarded-For: {}\r\n", self.address)),
        };
        let mut connection = self.tracker.connect(sender);
        connection.send(format!("GET {target} HTTP/1.1\r\nHost: t\r\n{header}\r\n"));
        connection.response().dictionary()
    }

    /// Announces with further parameters, and returns the response.
    pub(crate) fn announce(&self, id: &InfoHash, query: &str) -> Dictionary {
        self.get(&announce(id, query))
    }

    /// Returns the numbers of seeders and leechers, or `None` if the scrape response does not contain the torrent.
    pub(crate) fn scrape(&self, id: &InfoHash) -> Option<[i64; 2]> {
        let files = self
            .get(&format!("/scrape?info_hash={}", percent(id)))
            .dictionary("files");
        files.keys().contains(&&id[..]).then(|| {
            let torrent = files.dictionary(id);
            ["complete", "incomplete"].map(|key| torrent.number(key))
        })
    }
}

/// Returns the info-hash in percent-encoding.
pub(crate) fn percent(id: &InfoHash) -> String {
    id.iter().map(|byte| format!("%{byte:02x}")).collect()
}

/// Returns the target of an announce request with further parameters.
pub(crate) fn announce(id: &InfoHash, query: &str) -> String {
    let id = percent(id);
    format!("/announce?info_hash={id}&peer_id={PEER_ID}&{query}")
}

/// The outcome of an announce that is served.
pub(crate) const SERVED: &str = "served";

/// Reasons of refusals.
pub(crate) const NOT_TRACKED: &str = "this torrent is not tracked here";
pub(crate) const DENIED: &str = "this torrent is on this tracker's deny list";
pub(crate) const TOO_MANY_TORRENTS: &str = "this tracker has reached its torrent limit";
pub(crate) const ADDRESS_REFUSED: &str = "your address is not allowed on this tracker";
pub(crate) const RATE_LIMITED: &str = "too many requests from your network";
pub(crate) const NO_CLIENT_ADDRESS: &str =
    "the proxy in front of the tracker did not report your address";

/// Returns the outcome of an announce: [`SERVED`], or the reason of the refusal.
///
/// A refusal must also contain the time to retry.
pub(crate) fn outcome(response: &Dictionary) -> String {
    if !response.has("failure reason") {
        assert!(response.has("interval"), "{response:?}");
        return SERVED.to_owned();
    }
    let reason = response.text("failure reason");
    let (retry, interval) = match reason {
        NOT_TRACKED => ("5", 300),
        RATE_LIMITED => ("1", 60),
        TOO_MANY_TORRENTS => ("30", 1800),
        NO_CLIENT_ADDRESS => return reason.to_owned(),
        _ => ("never", 86_400),
    };
    assert_eq!(response.text("retry in"), retry);
    assert_eq!(response.number("interval"), interval);
    assert_eq!(response.number("min interval"), interval);
    assert!(!response.has("peers"), "{response:?}");
    reason.to_owned()
}

/// Announces over UDP, and returns the outcome as [`outcome`] does.
pub(crate) fn udp_outcome((client, connection): &(udp::Client, u64), id: &InfoHash) -> String {
    let packet = udp::with(udp::announce(*connection), 16, *id);
    let response = client.ask(&packet);
    match response[..8] {
        [0, 0, 0, 1, ..] => SERVED.to_owned(),
        [0, 0, 0, 3, ..] => String::from_utf8(response[8..].to_vec()).unwrap(),
        _ => panic!("{response:?}"),
    }
}

/// Waits until a condition holds. `description` says in a panic which condition it is.
#[track_caller]
pub(crate) fn wait_until(description: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "not in time: {description}");
        thread::yield_now();
    }
}

/// Returns an info-hash that no other test uses.
pub(crate) fn new_info_hash() -> InfoHash {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!("torrent{number:013}")
        .into_bytes()
        .try_into()
        .unwrap()
}

/// Returns the smallest torrent of this name, and its info-hash.
pub(crate) fn torrent(name: &str) -> (Vec<u8>, InfoHash) {
    let length = name.len();
    let info = format!("d6:lengthi0e4:name{length}:{name}12:piece lengthi1e6:pieces0:e");
    let id = Sha1::digest(info.as_bytes()).into();
    (format!("d4:info{info}e").into_bytes(), id)
}

/// Returns bytes in hexadecimal digits.
pub(crate) fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The files of a mirror. The directory `torrents` holds its torrents.
pub(crate) struct Mirror(Directory);

impl Mirror {
    pub(crate) fn new() -> Self {
        let directory = Directory::new();
        fs::create_dir(directory.path().join("torrents")).unwrap();
        Self(directory)
    }

    /// Returns the path of a file.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Returns the path of a file in quotes, for the configuration.
    pub(crate) fn quoted(&self, name: &str) -> String {
        format!("'{}'", self.path(name).display())
    }

    /// Writes a file, and creates the directories that it needs.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        self.0.write(name, content)
    }

    /// Starts a tracker for the directory `torrents`.
    pub(crate) fn start(&self, settings: &str) -> Tracker {
        let directory = self.quoted("torrents");
        Tracker::start(&format!(
            "[torrents]\ndirectories = [{directory}]\n{settings}"
        ))
    }

    /// Writes a temporary file and renames it to `name`, as a publisher should.
    pub(crate) fn publish(&self, name: &str, content: &[u8]) {
        fs::rename(self.0.write("aside", content), self.path(name)).unwrap();
    }

    /// Removes a file.
    pub(crate) fn remove(&self, name: &str) {
        fs::remove_file(self.path(name)).unwrap();
    }
}

/// Announces with additional header lines, each with its line end.
pub(crate) fn announce_with(connection: &mut Connection, id: &InfoHash, header: &str) -> Response {
    let target = announce(id, "port=1&left=1");
    connection.send(format!("GET {target} HTTP/1.1\r\nHost: t\r\n{header}\r\n"));
    connection.response()
}
