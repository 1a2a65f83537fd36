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

/// A torrent, as clients announce it.
pub(crate) type Id = [u8; 20];

pub(crate) const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
pub(crate) const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// Through whom clients come whose address is none of this machine's, unless a case has proxies of its own.
pub(crate) const PROXY: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 200));

pub(crate) const PEER_ID: &str = "-XX0001-abcdefghijkl";

/// A running tbtt, on both families, over HTTP and UDP.
pub(crate) struct Tracker {
    pub(crate) daemon: Daemon,
    pub(crate) http: u16,
    pub(crate) udp: u16,
}

impl Tracker {
    pub(crate) fn start(settings: &str) -> Self {
        let proxy = match settings.contains("[proxy]") {
            true => String::new(),
            false => format!("[proxy]\ntrusted = ['{PROXY}']\n"),
        };
        let daemon = Daemon::start(&format!(
            "[http]\nlisten = ['[::]:0']\n[udp]\nlisten = ['[::]:0']\n{settings}\n{proxy}"
        ));
        // It tells this after all addresses.
        daemon.wait_for_line("clients announce to");
        daemon.wait_for_line("torrent directories read");
        let (http, udp) = (daemon.port("http"), daemon.port("udp"));
        Self { daemon, http, udp }
    }

    /// Of any torrent.
    pub(crate) fn open(settings: &str) -> Self {
        Self::start(&format!("[torrents]\nopen = true\n{settings}"))
    }

    pub(crate) fn connect(&self, from: IpAddr) -> Connection {
        Connection::open_from(from, SocketAddr::new(loopback(from), self.http))
    }

    /// One who asks over HTTP.
    pub(crate) fn from(&self, address: &str) -> Client<'_> {
        let address = address.parse().unwrap();
        Client {
            tracker: self,
            address,
        }
    }

    /// One who asks over UDP, and his connection id.
    pub(crate) fn udp_from(&self, address: &str) -> (udp::Client, u64) {
        let own = address.parse().unwrap();
        let client = udp::Client::new(own, SocketAddr::new(loopback(own), self.udp));
        let id = client.id();
        (client, id)
    }

    /// What becomes of an announce, which must be the same over HTTP and UDP on both families.
    pub(crate) fn verdict(&self, id: &Id) -> String {
        let verdicts = [V4, V6].map(|family| {
            let family = family.to_string();
            let over_http = verdict(&self.from(&family).announce(id, "port=1&left=0"));
            assert_eq!(udp_verdict(&self.udp_from(&family), id), over_http);
            over_http
        });
        assert_eq!(verdicts[0], verdicts[1]);
        verdicts[0].clone()
    }

    /// The same, asked once over HTTP.
    pub(crate) fn is_tracked(&self, id: &Id) -> bool {
        verdict(&self.from("127.0.0.1").announce(id, "port=1&left=0")) == SERVED
    }

    /// The leechers that a seeder at this address is given.
    pub(crate) fn handed_to(&self, address: &str, id: &Id) -> Vec<String> {
        let answer = self.from(address).announce(id, "port=9&left=0&numwant=200");
        answer.peers().iter().map(ToString::to_string).collect()
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.daemon.directory().path().join("tbtt.toml")
    }

    /// Writes the configuration anew with another text in the place of one.
    pub(crate) fn rewrite(&self, before: &str, after: &str) {
        let text = fs::read_to_string(self.file()).unwrap();
        assert!(text.contains(before), "{before}");
        fs::write(self.file(), text.replace(before, after)).unwrap();
    }

    /// Has it read everything again, and waits until it has.
    pub(crate) fn reload(&self) {
        let [told, scanned] =
            ["reloaded", "torrent directories read"].map(|text| self.daemon.lines(text).len() + 1);
        self.daemon.signal(Signal::SIGHUP);
        self.daemon.wait_for_lines("reloaded", told);
        self.daemon
            .wait_for_lines("torrent directories read", scanned);
    }

    /// Has it read something again that has faults, which it must tell in so many lines, and nothing more.
    pub(crate) fn reload_in_vain(&self, faults: usize) -> Vec<String> {
        let before = self.daemon.lines("reload refused").len();
        let reloaded = self.daemon.lines("reloaded").len();
        self.daemon.signal(Signal::SIGHUP);
        self.daemon
            .wait_for_lines("reload refused", before + faults);
        // What else it had to tell would stand there before it has heard another signal.
        self.daemon.signal(Signal::SIGHUP);
        self.daemon
            .wait_for_lines("reload refused", before + 2 * faults);
        let told = self.daemon.lines("reload refused");
        assert_eq!(told.len(), before + 2 * faults, "{told:#?}");
        assert_eq!(self.daemon.lines("reloaded").len(), reloaded);
        told[before..before + faults].to_vec()
    }
}

/// Where a client at this address reaches the tracker.
pub(crate) fn loopback(address: IpAddr) -> IpAddr {
    if address.is_ipv4() { V4 } else { V6 }
}

pub(crate) struct Client<'a> {
    pub(crate) tracker: &'a Tracker,
    pub(crate) address: IpAddr,
}

impl Client<'_> {
    pub(crate) fn get(&self, target: &str) -> Dictionary {
        let (sender, header) = match self.address.is_loopback() {
            true => (self.address, String::new()),
            false => (PROXY, format!("X-Forwarded-For: {}\r\n", self.address)),
        };
        let mut connection = self.tracker.connect(sender);
        connection.send(format!("GET {target} HTTP/1.1\r\nHost: t\r\n{header}\r\n"));
        connection.response().dictionary()
    }

    pub(crate) fn announce(&self, id: &Id, query: &str) -> Dictionary {
        self.get(&announce(id, query))
    }

    /// Seeders and leechers; `None` for a torrent that is not told of.
    pub(crate) fn scrape(&self, id: &Id) -> Option<[i64; 2]> {
        let files = self
            .get(&format!("/scrape?info_hash={}", percent(id)))
            .dictionary("files");
        files.keys().contains(&&id[..]).then(|| {
            let torrent = files.dictionary(id);
            ["complete", "incomplete"].map(|key| torrent.number(key))
        })
    }
}

pub(crate) fn percent(id: &Id) -> String {
    id.iter().map(|byte| format!("%{byte:02x}")).collect()
}

pub(crate) fn announce(id: &Id, query: &str) -> String {
    let id = percent(id);
    format!("/announce?info_hash={id}&peer_id={PEER_ID}&{query}")
}

pub(crate) const SERVED: &str = "served";
pub(crate) const UNKNOWN: &str = "this torrent is not tracked here";
pub(crate) const DENIED: &str = "this torrent is not welcome here";
pub(crate) const NO_ROOM: &str = "no room for one more torrent here";
pub(crate) const UNWELCOME: &str = "your address is not welcome here";
pub(crate) const TOO_OFTEN: &str = "too many requests from your network";
pub(crate) const NAMELESS: &str = "the proxy in front of the tracker did not tell your address";

/// The reason of a refusal, which must say when to come again as well, or that it was none.
pub(crate) fn verdict(answer: &Dictionary) -> String {
    if !answer.has("failure reason") {
        assert!(answer.has("interval"), "{answer:?}");
        return SERVED.to_owned();
    }
    let reason = answer.text("failure reason");
    let (retry, interval) = match reason {
        UNKNOWN => ("5", 300),
        TOO_OFTEN => ("1", 60),
        NO_ROOM => ("30", 1800),
        NAMELESS => return reason.to_owned(),
        _ => ("never", 86_400),
    };
    assert_eq!(answer.text("retry in"), retry);
    assert_eq!(answer.number("interval"), interval);
    assert_eq!(answer.number("min interval"), interval);
    assert!(!answer.has("peers"), "{answer:?}");
    reason.to_owned()
}

pub(crate) fn udp_verdict((client, connection): &(udp::Client, u64), id: &Id) -> String {
    let packet = udp::with(udp::announce(*connection), 16, *id);
    let answer = client.ask(&packet);
    match answer[..8] {
        [0, 0, 0, 1, ..] => SERVED.to_owned(),
        [0, 0, 0, 3, ..] => String::from_utf8(answer[8..].to_vec()).unwrap(),
        _ => panic!("{answer:?}"),
    }
}

#[track_caller]
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "not in time: {what}");
        thread::yield_now();
    }
}

/// An id that no other case has.
pub(crate) fn some_id() -> Id {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!("torrent{number:013}")
        .into_bytes()
        .try_into()
        .unwrap()
}

/// The least torrent of this name, and its id.
pub(crate) fn torrent(name: &str) -> (Vec<u8>, Id) {
    let length = name.len();
    let info = format!("d6:lengthi0e4:name{length}:{name}12:piece lengthi1e6:pieces0:e");
    let id = Sha1::digest(info.as_bytes()).into();
    (format!("d4:info{info}e").into_bytes(), id)
}

pub(crate) fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A mirror's files.
pub(crate) struct Mirror(pub(crate) Directory);

impl Mirror {
    pub(crate) fn new() -> Self {
        let directory = Directory::new();
        fs::create_dir(directory.path().join("torrents")).unwrap();
        Self(directory)
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// For the configuration, quoted.
    pub(crate) fn quoted(&self, name: &str) -> String {
        format!("'{}'", self.at(name).display())
    }

    /// A tracker of what is in `torrents`.
    pub(crate) fn start(&self, settings: &str) -> Tracker {
        let directory = self.quoted("torrents");
        Tracker::start(&format!(
            "[torrents]\ndirectories = [{directory}]\n{settings}"
        ))
    }

    /// Renamed into place, as a publisher should.
    pub(crate) fn publish(&self, name: &str, content: &[u8]) {
        fs::rename(self.0.write("aside", content), self.at(name)).unwrap();
    }

    pub(crate) fn remove(&self, name: &str) {
        fs::remove_file(self.at(name)).unwrap();
    }
}

/// Announces with further lines in the header, each ended.
pub(crate) fn announce_with(connection: &mut Connection, id: &Id, header: &str) -> Response {
    let target = announce(id, "port=1&left=1");
    connection.send(format!("GET {target} HTTP/1.1\r\nHost: t\r\n{header}\r\n"));
    connection.response()
}
