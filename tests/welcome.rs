//! Who is welcome at the built daemon: which torrents, which addresses, how often, and by whose word for where they are.

mod harness;

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::Signal;
use sha1::{Digest, Sha1};

use harness::http::{Connection, Dictionary, Response};
use harness::{Daemon, Directory, PATIENCE, udp};

/// A torrent, as clients announce it.
type Id = [u8; 20];

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// Through whom clients come whose address is none of this machine's, unless a case has proxies of its own.
const PROXY: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 200));

const PEER_ID: &str = "-XX0001-abcdefghijkl";

/// A running tbtt, on both families, over HTTP and UDP.
struct Tracker {
    daemon: Daemon,
    http: u16,
    udp: u16,
}

impl Tracker {
    fn start(settings: &str) -> Self {
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
    fn open(settings: &str) -> Self {
        Self::start(&format!("[torrents]\nopen = true\n{settings}"))
    }

    fn connect(&self, from: IpAddr) -> Connection {
        Connection::open_from(from, SocketAddr::new(loopback(from), self.http))
    }

    /// One who asks over HTTP.
    fn from(&self, address: &str) -> Client<'_> {
        let address = address.parse().unwrap();
        Client {
            tracker: self,
            address,
        }
    }

    /// One who asks over UDP, and his connection id.
    fn udp_from(&self, address: &str) -> (udp::Client, u64) {
        let own = address.parse().unwrap();
        let client = udp::Client::new(own, SocketAddr::new(loopback(own), self.udp));
        let id = client.id();
        (client, id)
    }

    /// What becomes of an announce, which must be the same over HTTP and UDP on both families.
    fn verdict(&self, id: &Id) -> String {
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
    fn is_tracked(&self, id: &Id) -> bool {
        verdict(&self.from("127.0.0.1").announce(id, "port=1&left=0")) == SERVED
    }

    /// The leechers that a seeder at this address is given.
    fn handed_to(&self, address: &str, id: &Id) -> Vec<String> {
        let answer = self.from(address).announce(id, "port=9&left=0&numwant=200");
        answer.peers().iter().map(ToString::to_string).collect()
    }

    fn file(&self) -> PathBuf {
        self.daemon.directory().path().join("tbtt.toml")
    }

    /// Writes the configuration anew with another text in the place of one.
    fn rewrite(&self, before: &str, after: &str) {
        let text = fs::read_to_string(self.file()).unwrap();
        assert!(text.contains(before), "{before}");
        fs::write(self.file(), text.replace(before, after)).unwrap();
    }

    /// Has it read everything again, and waits until it has.
    fn reload(&self) {
        let [told, scanned] =
            ["reloaded", "torrent directories read"].map(|text| self.daemon.lines(text).len() + 1);
        self.daemon.signal(Signal::SIGHUP);
        self.daemon.wait_for_lines("reloaded", told);
        self.daemon
            .wait_for_lines("torrent directories read", scanned);
    }

    /// Has it read something again that has faults, which it must tell in so many lines, and nothing more.
    fn reload_in_vain(&self, faults: usize) -> Vec<String> {
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
fn loopback(address: IpAddr) -> IpAddr {
    if address.is_ipv4() { V4 } else { V6 }
}

struct Client<'a> {
    tracker: &'a Tracker,
    address: IpAddr,
}

impl Client<'_> {
    fn get(&self, target: &str) -> Dictionary {
        let (sender, header) = match self.address.is_loopback() {
            true => (self.address, String::new()),
            false => (PROXY, format!("X-Forwarded-For: {}\r\n", self.address)),
        };
        let mut connection = self.tracker.connect(sender);
        connection.send(format!("GET {target} HTTP/1.1\r\nHost: t\r\n{header}\r\n"));
        connection.response().dictionary()
    }

    fn announce(&self, id: &Id, query: &str) -> Dictionary {
        self.get(&announce(id, query))
    }

    /// Seeders and leechers; `None` for a torrent that is not told of.
    fn scrape(&self, id: &Id) -> Option<[i64; 2]> {
        let files = self
            .get(&format!("/scrape?info_hash={}", percent(id)))
            .dictionary("files");
        files.keys().contains(&&id[..]).then(|| {
            let torrent = files.dictionary(id);
            ["complete", "incomplete"].map(|key| torrent.number(key))
        })
    }
}

fn percent(id: &Id) -> String {
    id.iter().map(|byte| format!("%{byte:02x}")).collect()
}

fn announce(id: &Id, query: &str) -> String {
    let id = percent(id);
    format!("/announce?info_hash={id}&peer_id={PEER_ID}&{query}")
}

const SERVED: &str = "served";
const UNKNOWN: &str = "this torrent is not tracked here";
const DENIED: &str = "this torrent is not welcome here";
const NO_ROOM: &str = "no room for one more torrent here";
const UNWELCOME: &str = "your address is not welcome here";
const TOO_OFTEN: &str = "too many requests from your network";
const NAMELESS: &str = "the proxy in front of the tracker did not tell your address";

/// The reason of a refusal, which must say when to come again as well, or that it was none.
fn verdict(answer: &Dictionary) -> String {
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

fn udp_verdict((client, connection): &(udp::Client, u64), id: &Id) -> String {
    let packet = udp::with(udp::announce(*connection), 16, *id);
    let answer = client.ask(&packet);
    match answer[..8] {
        [0, 0, 0, 1, ..] => SERVED.to_owned(),
        [0, 0, 0, 3, ..] => String::from_utf8(answer[8..].to_vec()).unwrap(),
        _ => panic!("{answer:?}"),
    }
}

#[track_caller]
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "not in time: {what}");
        thread::yield_now();
    }
}

/// An id that no other case has.
fn some_id() -> Id {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!("torrent{number:013}")
        .into_bytes()
        .try_into()
        .unwrap()
}

/// The least torrent of this name, and its id.
fn torrent(name: &str) -> (Vec<u8>, Id) {
    let length = name.len();
    let info = format!("d6:lengthi0e4:name{length}:{name}12:piece lengthi1e6:pieces0:e");
    let id = Sha1::digest(info.as_bytes()).into();
    (format!("d4:info{info}e").into_bytes(), id)
}

fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A mirror's files.
struct Mirror(Directory);

impl Mirror {
    fn new() -> Self {
        let directory = Directory::new();
        fs::create_dir(directory.path().join("torrents")).unwrap();
        Self(directory)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// For the configuration, quoted.
    fn quoted(&self, name: &str) -> String {
        format!("'{}'", self.at(name).display())
    }

    /// A tracker of what is in `torrents`.
    fn start(&self, settings: &str) -> Tracker {
        let directory = self.quoted("torrents");
        Tracker::start(&format!(
            "[torrents]\ndirectories = [{directory}]\n{settings}"
        ))
    }

    /// Renamed into place, as a publisher should.
    fn publish(&self, name: &str, content: &[u8]) {
        fs::rename(self.0.write("aside", content), self.at(name)).unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.at(name)).unwrap();
    }
}

#[test]
fn closed_to_all_by_default() {
    let tracker = Tracker::start("");
    let id = some_id();
    assert_eq!(tracker.verdict(&id), UNKNOWN);
    for query in [
        "port=1&left=0&event=completed",
        "port=1&event=stopped",
        "port=1&compact=0",
    ] {
        assert_eq!(
            verdict(&tracker.from("::1").announce(&id, query)),
            UNKNOWN,
            "{query}"
        );
    }
    assert_eq!(tracker.from("127.0.0.1").scrape(&id), None);
    let (client, connection) = tracker.udp_from("127.0.0.1");
    let answer = client.ask(&udp::scrape(connection, &[id]));
    assert_eq!(answer[8..], [0; 12]);
}

#[test]
fn a_release_renamed_into_place_is_tracked_at_once() {
    let mirror = Mirror::new();
    let tracker = mirror.start("");
    let mut took: Vec<Duration> = (0..20)
        .map(|number| {
            let (content, id) = torrent(&format!("release-{number}"));
            assert!(!tracker.is_tracked(&id));
            mirror.publish(&format!("torrents/{number}.torrent"), &content);
            let since = Instant::now();
            wait_until("tracked", || tracker.is_tracked(&id));
            since.elapsed()
        })
        .collect();
    took.sort_unstable();
    let (median, worst) = (took[10], took[19]);
    println!("20 releases tracked: median {median:?}, worst {worst:?}");
    // Looking around without being told would take minutes.
    assert!(median < Duration::from_secs(1), "{took:?}");
    let (_, first) = torrent("release-0");
    assert_eq!(tracker.verdict(&first), SERVED);
    assert_eq!(tracker.from("::1").scrape(&first), Some([4, 0]));
}

#[test]
fn a_half_written_file_is_never_tracked() {
    let mirror = Mirror::new();
    let tracker = mirror.start("");
    let (content, id) = torrent("slow");
    let markers = AtomicU32::new(0);
    // What is published now is tracked after whatever came before was looked at.
    let is_tracked_yet = || {
        let name = format!("marker-{}", markers.fetch_add(1, Ordering::Relaxed));
        let (content, marker) = torrent(&name);
        mirror.publish(&format!("torrents/{name}.torrent"), &content);
        wait_until("the marker", || tracker.is_tracked(&marker));
        tracker.is_tracked(&id)
    };
    let mut file = File::create(mirror.at("torrents/slow.torrent")).unwrap();
    assert!(!is_tracked_yet());
    for part in content.chunks(content.len() / 4) {
        assert!(!is_tracked_yet());
        file.write_all(part).unwrap();
    }
    drop(file);
    wait_until("tracked once closed", || tracker.is_tracked(&id));

    // As rsync has it.
    let (content, id) = torrent("synchronised");
    mirror
        .0
        .write("torrents/.synchronised.torrent.Xa81b2", &content);
    mirror.0.write("torrents/.synchronised.torrent", &content);
    tracker.reload();
    assert!(!tracker.is_tracked(&id));
    fs::rename(
        mirror.at("torrents/.synchronised.torrent.Xa81b2"),
        mirror.at("torrents/synchronised.torrent"),
    )
    .unwrap();
    wait_until("tracked once renamed", || tracker.is_tracked(&id));
    assert_eq!(tracker.daemon.lines("passed over"), [""; 0]);
}

#[test]
fn a_removed_release_is_tracked_until_its_grace_is_over() {
    let mirror = Mirror::new();
    let [(gone, gone_id), (moved, moved_id)] = ["gone", "moved"].map(torrent);
    mirror.publish("torrents/gone.torrent", &gone);
    mirror.publish("torrents/moved.torrent", &moved);
    let tracker = mirror.start("removal_grace = 3");
    assert_eq!(tracker.verdict(&gone_id), SERVED);
    let since = Instant::now();
    mirror.remove("torrents/moved.torrent");
    mirror.remove("torrents/gone.torrent");
    tracker.daemon.wait_for_lines("torrent file gone", 2);
    assert_eq!(
        tracker.from("::1").announce(&gone_id, "port=2").peers(),
        ["[::1]:1".parse().unwrap(), "[::1]:6881".parse().unwrap()],
        "peers stay"
    );
    mirror.publish("torrents/moved again.torrent", &moved);
    wait_until("no longer tracked", || !tracker.is_tracked(&gone_id));
    assert!(
        since.elapsed() > Duration::from_secs(2),
        "{:?}",
        since.elapsed()
    );
    assert_eq!(tracker.verdict(&gone_id), UNKNOWN);
    assert_eq!(tracker.from("127.0.0.1").scrape(&gone_id), None);
    assert_eq!(tracker.verdict(&moved_id), SERVED);
    let told = tracker.daemon.lines("torrent no longer tracked");
    assert!(
        told.len() == 1 && told[0].contains(&hex(&gone_id)),
        "{told:?}"
    );

    tracker.rewrite("removal_grace = 3", "removal_grace = 0");
    tracker.reload();
    mirror.remove("torrents/moved again.torrent");
    wait_until("gone without grace", || !tracker.is_tracked(&moved_id));
    mirror.publish("torrents/gone.torrent", &gone);
    wait_until("back", || tracker.is_tracked(&gone_id));
}

/// Both ids of each torrent that `tests/torrents/make.py` made with libtorrent, as they are announced.
fn samples() -> Vec<(&'static str, Vec<Id>)> {
    include_str!("torrents/expected.txt")
        .lines()
        .map(|line| {
            let words: Vec<_> = line.split(' ').collect();
            let ids = words[1..3].iter().filter(|id| **id != "-");
            (words[0], ids.map(|id| announced_as(id)).collect())
        })
        .collect()
}

/// An id in hex, as it is announced: a v2 id is cut.
fn announced_as(hex: &str) -> Id {
    std::array::from_fn(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap())
}

#[test]
fn torrents_of_every_version_are_tracked_by_every_id() {
    let mirror = Mirror::new();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/torrents");
    for (name, _) in samples() {
        fs::copy(from.join(name), mirror.at("torrents").join(name)).unwrap();
    }
    let tracker = mirror.start("");
    let rows = tracker.daemon.wait_for_line("torrent directories read");
    assert!(
        rows.ends_with("torrents=9"),
        "a hybrid is one torrent: {rows}"
    );
    let ids: Vec<_> = samples().into_iter().flat_map(|(_, ids)| ids).collect();
    assert_eq!(ids.len(), 12);
    for id in &ids {
        assert_eq!(tracker.verdict(id), SERVED, "{}", hex(id));
        assert_eq!(tracker.from("127.0.0.1").scrape(id), Some([4, 0]));
    }
    // Both ids of a hybrid go with its file.
    tracker.rewrite("[torrents]", "[torrents]\nremoval_grace = 0");
    tracker.reload();
    for (name, ids) in samples() {
        mirror.remove(&format!("torrents/{name}"));
        for id in ids {
            wait_until("gone", || !tracker.is_tracked(&id));
        }
    }
}

#[test]
fn a_faulty_file_is_one_line_and_no_outage() {
    let mirror = Mirror::new();
    let (good, id) = torrent("good");
    let text = String::from_utf8(good.clone()).unwrap();
    let faulty = [
        ("page.torrent", "<html>".to_owned()),
        ("trailing.torrent", format!("{text}\n")),
        (
            "unsorted.torrent",
            text.replace("6:lengthi0e4:name4:good", "4:name4:good6:lengthi0e"),
        ),
        ("zero.torrent", text.replace("i1e", "i01e")),
        ("cut.torrent", text[..text.len() - 1].to_owned()),
    ];
    let long_ago = SystemTime::now() - Duration::from_secs(3600);
    let publish_faulty = |name: &str, content: &str| {
        let path = mirror.0.write(name, content);
        let file = File::options().append(true).open(&path).unwrap();
        file.set_modified(long_ago).unwrap();
        fs::rename(&path, mirror.at("torrents").join(name)).unwrap();
    };
    for (name, content) in &faulty {
        publish_faulty(name, content);
    }
    mirror.publish("torrents/good.torrent", &good);
    let tracker = mirror.start("");
    assert_eq!(tracker.verdict(&id), SERVED);
    publish_faulty("later.torrent", "not yet");
    tracker.daemon.wait_for_line("later.torrent");
    tracker.reload();
    tracker.reload();
    let names = faulty.iter().map(|(name, _)| *name);
    for name in names.chain(["later.torrent"]) {
        let file = format!("file={}/", mirror.at("torrents").display());
        let told = tracker.daemon.lines(&format!("{file}{name}"));
        let [told] = &told[..] else {
            panic!("{told:#?}");
        };
        let (_, reason) = told.split_once("reason=").expect("a reason");
        assert!(
            told.contains("passed over") && reason.contains("at byte"),
            "{told}"
        );
    }
    assert_eq!(tracker.verdict(&id), SERVED);
    // Put right, it is tracked.
    let (content, id) = torrent("put right");
    mirror.publish("torrents/page.torrent", &content);
    wait_until("put right", || tracker.is_tracked(&id));
}

#[test]
fn directories_come_later_are_replaced_and_linked() {
    let mirror = Mirror::new();
    let releases = ["12", "13", "later", "other", "deep"].map(|name| (name, torrent(name)));
    for (name, (content, _)) in &releases[..2] {
        mirror
            .0
            .write(&format!("releases/{name}/{name}.torrent"), content);
    }
    symlink("../releases/12", mirror.at("torrents/current")).unwrap();
    let settings = format!(
        "[torrents]\nremoval_grace = 0\ndirectories = [{}, {}]",
        mirror.quoted("torrents"),
        mirror.quoted("mounted/later")
    );
    let tracker = Tracker::start(&settings);
    tracker.daemon.wait_for_line("mounted/later");
    let tracked = || -> Vec<&str> {
        let tracked = releases
            .iter()
            .filter(|(_, (_, id))| tracker.is_tracked(id));
        tracked.map(|(name, _)| *name).collect()
    };
    assert_eq!(tracked(), ["12"]);

    // A directory that was not there at the start.
    let [.., (_, (later, _)), (_, (other, _)), (_, (deep, _))] = &releases;
    fs::create_dir_all(mirror.at("mounted/later")).unwrap();
    mirror.publish("mounted/later/later.torrent", later);
    wait_until("later", || tracked() == ["12", "later"]);

    // The link moves on, as it does at a release.
    symlink("../releases/13", mirror.at("torrents/next")).unwrap();
    fs::rename(mirror.at("torrents/next"), mirror.at("torrents/current")).unwrap();
    wait_until("the link", || tracked() == ["13", "later"]);

    // Another directory takes the place of one.
    mirror.0.write("new/below/other.torrent", other);
    fs::rename(mirror.at("mounted/later"), mirror.at("old")).unwrap();
    fs::rename(mirror.at("new"), mirror.at("mounted/later")).unwrap();
    wait_until("the other", || tracked() == ["13", "other"]);
    mirror.publish("mounted/later/below/deep.torrent", deep);
    wait_until("watched as well", || tracked() == ["13", "other", "deep"]);
    fs::remove_dir_all(mirror.at("mounted")).unwrap();
    wait_until("removed", || tracked() == ["13"]);
}

/// What the process gives up reaching must not be what a link leads to.
#[test]
fn directories_and_lists_may_be_links_to_another_place() {
    let (mirror, elsewhere) = (Mirror::new(), Mirror::new());
    let [(first, first_id), (second, second_id)] = ["first", "second"].map(torrent);
    let denied = some_id();
    elsewhere.publish("torrents/first.torrent", &first);
    elsewhere.0.write("lists/deny", "");
    symlink(elsewhere.at("torrents"), mirror.at("linked")).unwrap();
    symlink(elsewhere.at("lists/deny"), mirror.at("deny")).unwrap();
    let settings = format!(
        "[torrents]\ndirectories = [{}]\ndeny = [{}]",
        mirror.quoted("linked"),
        mirror.quoted("deny")
    );
    let tracker = Tracker::start(&settings);
    assert_eq!(tracker.verdict(&first_id), SERVED);
    elsewhere.publish("torrents/second.torrent", &second);
    wait_until("watched", || tracker.is_tracked(&second_id));
    // Both are replaced where they are.
    fs::rename(elsewhere.at("torrents"), elsewhere.at("old")).unwrap();
    elsewhere.0.write("torrents/second.torrent", &second);
    elsewhere.publish("lists/deny", hex(&denied).as_bytes());
    tracker.reload();
    assert_eq!(tracker.verdict(&second_id), SERVED);
    assert_eq!(tracker.verdict(&denied), DENIED);
}

#[test]
fn lists_allow_and_deny_and_may_be_emptied() {
    let mirror = Mirror::new();
    let (content, published) = torrent("published");
    mirror.publish("torrents/published.torrent", &content);
    let hybrid = "hybrid-disc.torrent";
    let sample = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/torrents")
        .join(hybrid);
    fs::copy(sample, mirror.at("torrents").join(hybrid)).unwrap();
    let expected = include_str!("torrents/expected.txt");
    let line = expected.lines().find(|line| line.starts_with(hybrid));
    let words: Vec<_> = line.unwrap().split(' ').collect();
    let [v1, v2] = [words[1], words[2]].map(announced_as);
    let [one, two, both, foreign] = [(); 4].map(|()| some_id());
    let v2_only = "27cf8c58286ea5694623e68d1ce801aee8e91b5342189ad923870ce81d32c53e";

    let allow = format!(
        "# ours\n{}\n\n  {} # the other\r\n{v2_only}\n",
        hex(&one),
        hex(&two).to_uppercase()
    );
    mirror.0.write("allow", allow);
    mirror.0.write("allow-more", format!("{}\n", hex(&both)));
    let deny = format!(
        "{}\n{} # withdrawn\n{}\n",
        hex(&both),
        hex(&published),
        words[2]
    );
    mirror.0.write("deny", deny);
    let settings = format!(
        "allow = [{}, {}]\ndeny = [{}]",
        mirror.quoted("allow"),
        mirror.quoted("allow-more"),
        mirror.quoted("deny")
    );
    let tracker = mirror.start(&settings);
    let verdicts = || {
        let ids = [one, two, announced_as(v2_only), both, published, v1, v2];
        assert_eq!(tracker.verdict(&foreign), UNKNOWN);
        ids.map(|id| tracker.verdict(&id))
    };
    let [s, d, u] = [SERVED, DENIED, UNKNOWN];
    assert_eq!(verdicts(), [s, s, s, d, d, d, d]);
    assert_eq!(tracker.from("127.0.0.1").scrape(&both), None);
    assert_eq!(tracker.from("127.0.0.1").scrape(&one), Some([4, 0]));

    // A fault changes nothing, not even what is well.
    mirror.0.write("deny", "");
    let faulty = format!("{}\n\n{} oops\n", hex(&one), hex(&two));
    mirror.0.write("allow", faulty);
    mirror.0.write("allow-more", "# moved\nfeed\n");
    let told = tracker.reload_in_vain(2);
    let faulty = [(&told[0], "allow:3: "), (&told[1], "allow-more:2: ")];
    for (line, place) in faulty {
        assert!(
            line.contains(&format!("fault=\"{}", mirror.at(place).display())),
            "{told:#?}"
        );
    }
    assert_eq!(verdicts(), [s, s, s, d, d, d, d]);

    // Emptied means empty.
    mirror.0.write("allow", "# nothing\n");
    mirror.0.write("allow-more", format!("{}\n", hex(&both)));
    tracker.reload();
    assert_eq!(verdicts(), [u, u, u, s, s, s, s]);
    mirror.0.write("deny", words[1]);
    mirror.0.write("allow-more", "");
    tracker.reload();
    assert_eq!(verdicts(), [u, u, u, u, s, d, d]);
}

#[test]
fn an_open_tracker_keeps_to_its_deny_list() {
    let mirror = Mirror::new();
    let [any, denied] = [(); 2].map(|()| some_id());
    mirror.0.write("deny", hex(&denied));
    let settings = format!(
        "[torrents]\nopen = true\ndeny = [{}]",
        mirror.quoted("deny")
    );
    let tracker = Tracker::start(&settings);
    tracker.daemon.wait_for_line("open to all");
    let verdicts = || [any, denied].map(|id| tracker.verdict(&id));
    assert_eq!(verdicts(), [SERVED, DENIED]);
    mirror.0.write("deny", hex(&any));
    tracker.reload();
    assert_eq!(verdicts(), [DENIED, SERVED]);
    tracker.rewrite("open = true", "open = false");
    tracker.reload();
    assert_eq!(verdicts(), [DENIED, UNKNOWN]);
}

#[test]
fn single_torrents_have_notices() {
    let mirror = Mirror::new();
    let hybrid = samples().remove(2);
    let sample = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/torrents")
        .join(hybrid.0);
    let (content, old) = torrent("old");
    let (_, quiet) = torrent("quiet");
    mirror.publish("torrents/old.torrent", &content);
    mirror.publish("torrents/quiet.torrent", &torrent("quiet").0);
    let withdrawn = "withdrawn, see the web site";
    let notices = format!(
        "{} warning version 12.1 is out # since May\n{} failure {withdrawn}\n",
        hex(&old),
        hex(&hybrid.1[1])
    );
    mirror.0.write("notices", &notices);
    mirror.0.write("allow", "");
    let settings = format!(
        "removal_grace = 0\nallow = [{}]\nnotices = [{}]\n[tracker]\nwarning = 'read the news'",
        mirror.quoted("allow"),
        mirror.quoted("notices")
    );
    let tracker = mirror.start(&settings);
    let warning = |id: &Id| {
        let answer = tracker.from("::1").announce(id, "port=1&left=0");
        answer
            .has("warning message")
            .then(|| answer.text("warning message").to_owned())
    };
    assert_eq!(warning(&old).as_deref(), Some("version 12.1 is out"));
    assert_eq!(warning(&quiet).as_deref(), Some("read the news"));
    assert_eq!(tracker.verdict(&old), SERVED);
    // The hybrid is published after the notice, under whichever id that stands.
    assert_eq!(tracker.verdict(&hybrid.1[0]), UNKNOWN);
    fs::copy(&sample, mirror.at("torrents/hybrid.torrent")).unwrap();
    for id in &hybrid.1 {
        wait_until("withdrawn", || {
            verdict(&tracker.from("127.0.0.1").announce(id, "port=1")) == withdrawn
        });
        assert_eq!(tracker.verdict(id), withdrawn);
    }
    mirror
        .0
        .write("notices", format!("{} warned no more\n", hex(&old)));
    let told = tracker.reload_in_vain(1);
    assert!(
        told[0].contains("notices:1: ") && told[0].contains("`warned`"),
        "{told:?}"
    );
    assert_eq!(tracker.verdict(&hybrid.1[0]), withdrawn);
    // It holds for both ids too where another list has them tracked already.
    mirror.0.write("notices", notices);
    mirror.remove("torrents/hybrid.torrent");
    let ids: String = hybrid.1.iter().map(|id| hex(id) + "\n").collect();
    mirror.0.write("allow", ids);
    tracker.reload();
    assert_eq!(tracker.verdict(&hybrid.1[0]), SERVED);
    mirror.publish("torrents/hybrid.torrent", &fs::read(&sample).unwrap());
    for id in &hybrid.1 {
        wait_until("withdrawn again", || !tracker.is_tracked(id));
        assert_eq!(tracker.verdict(id), withdrawn);
    }
    mirror.0.write("notices", "");
    tracker.reload();
    assert_eq!(warning(&old).as_deref(), Some("read the news"));
    for id in &hybrid.1 {
        assert_eq!(tracker.verdict(id), SERVED);
    }
}

#[test]
fn access_lists_say_who_may_announce_and_who_may_scrape() {
    let mirror = Mirror::new();
    mirror.0.write(
        "denied",
        "# abusers\n127.0.3.0/24 # all of it\n2001:db8:3::/48\n",
    );
    let settings = format!(
        "[access]\nannounce_deny = ['127.0.0.2', '2001:db8::/32', {}]\n\
         announce_allow = ['0.0.0.0/0', '::/0', '127.0.3.16/28', '2001:db8:3:7::/64']\n\
         scrape_allow = ['127.0.0.2', '127.0.3.0/24', '::1', '2001:db8:3::/48']\nscrape_deny = ['127.0.3.16/28', '2001:db8:3:7::/64']",
        mirror.quoted("denied")
    );
    let tracker = Tracker::open(&settings);
    let id = some_id();
    tracker.from("127.0.0.1").announce(&id, "port=1&left=0");
    // Whether each may announce, and scrape.
    for (address, announces, scrapes) in [
        ("127.0.0.1", true, false),
        ("127.0.0.2", false, true),
        ("127.0.0.3", true, false),
        ("127.0.2.255", true, false),
        ("127.0.3.1", false, true),
        ("127.0.3.15", false, true),
        ("127.0.3.16", true, false),
        ("127.0.3.31", true, false),
        ("127.0.3.32", false, true),
        ("127.0.4.0", true, false),
        ("::1", true, true),
        ("2001:db8::7", false, false),
        ("2001:db8:3::7", false, true),
        ("2001:db8:3:7::7", true, false),
        ("2001:db9::7", true, false),
        ("::ffff:127.0.0.2", false, true),
    ] {
        let client = tracker.from(address);
        let told = |may| if may { SERVED } else { UNWELCOME };
        let answer = client.announce(&id, "port=2&left=0&event=stopped");
        assert_eq!(verdict(&answer), told(announces), "announce from {address}");
        let answer = client.get(&format!("/scrape?info_hash={}", percent(&id)));
        if scrapes {
            assert!(answer.has("files"), "scrape from {address}: {answer:?}");
        } else {
            assert_eq!(verdict(&answer), UNWELCOME, "scrape from {address}");
        }
        // Over UDP, those that this machine has an address for.
        if client.address.is_loopback() {
            let over_udp = tracker.udp_from(address);
            let packet = udp::with(udp::announce(over_udp.1), 80, 3u32.to_be_bytes());
            let is_served = |packet: &[u8]| over_udp.0.ask(packet)[..4] != [0, 0, 0, 3];
            assert_eq!(is_served(&packet), announces, "UDP announce from {address}");
            let packet = udp::scrape(over_udp.1, &[id]);
            assert_eq!(is_served(&packet), scrapes, "UDP scrape from {address}");
        }
    }
    let over_udp = tracker.udp_from("127.0.0.2");
    assert_eq!(udp_verdict(&over_udp, &id), UNWELCOME);
    assert_eq!(
        tracker.from("::1").scrape(&id),
        Some([1, 0]),
        "who is refused is in no swarm"
    );

    mirror.0.write("denied", "127.0.0.1\n::1\n127.0.3.0/33\n");
    let told = tracker.reload_in_vain(1);
    assert!(told[0].contains("denied:3: "), "{told:?}");
    assert_eq!(tracker.verdict(&id), SERVED);
    mirror.0.write("denied", "127.0.0.1\n::1\n");
    tracker.reload();
    assert_eq!(tracker.verdict(&id), UNWELCOME);
    assert_eq!(
        verdict(&tracker.from("127.0.3.1").announce(&id, "port=1")),
        SERVED
    );
}

#[test]
fn local_peers_are_for_their_neighbours() {
    let tracker = Tracker::open(
        "[access]\nlocal_networks = ['127.0.1.0/24', '127.0.2.0/24', 'fd00:1::/32', 'fd00:2::/32']",
    );
    let id = some_id();
    let local = [
        "127.0.1.1",
        "127.0.2.1",
        "203.0.113.1",
        "fd00:1::1",
        "fd00:2::1",
        "2001:db8::1",
    ];
    for address in local {
        tracker.from(address).announce(&id, "port=1&left=1");
    }
    for (asker, peers) in [
        ("127.0.1.9", &["127.0.1.1:1", "203.0.113.1:1"][..]),
        ("127.0.2.9", &["127.0.2.1:1", "203.0.113.1:1"]),
        ("127.0.3.9", &["203.0.113.1:1"]),
        ("203.0.113.9", &["203.0.113.1:1"]),
        ("fd00:1::9", &["[2001:db8::1]:1", "[fd00:1::1]:1"]),
        ("fd00:2::9", &["[2001:db8::1]:1", "[fd00:2::1]:1"]),
        ("fd00:3::9", &["[2001:db8::1]:1"]),
        ("::1", &["[2001:db8::1]:1"]),
    ] {
        assert_eq!(tracker.handed_to(asker, &id), peers, "to {asker}");
    }
    for (asker, peers) in [
        ("127.0.1.8", &["127.0.1.1:1", "203.0.113.1:1"][..]),
        ("127.0.3.8", &["203.0.113.1:1"]),
        ("::1", &["[2001:db8::1]:1"]),
    ] {
        let (client, connection) = tracker.udp_from(asker);
        let answer = client.ask(&udp::with(udp::announce(connection), 16, id));
        let mut handed = match asker {
            "::1" => udp::endpoints::<16>(&answer[20..]),
            _ => udp::endpoints::<4>(&answer[20..]),
        };
        handed.sort_unstable();
        let handed: Vec<_> = handed.iter().map(ToString::to_string).collect();
        assert_eq!(handed, peers, "over UDP to {asker}");
    }
    // All are counted: eight asked over HTTP, three over UDP, each from a port of its own.
    assert_eq!(tracker.from("127.0.0.1").scrape(&id), Some([11, 6]));

    // By default all of 127/8 are neighbours, and what is private is for nobody outside.
    let tracker = Tracker::open("");
    for address in ["127.0.1.1", "10.1.1.1", "192.168.1.1", "fe80::1", "fd00::1"] {
        tracker.from(address).announce(&id, "port=1&left=1");
    }
    assert_eq!(tracker.handed_to("127.0.2.9", &id), ["127.0.1.1:1"]);
    assert_eq!(tracker.handed_to("10.200.1.1", &id), ["10.1.1.1:1"]);
    assert_eq!(tracker.handed_to("203.0.113.9", &id), [""; 0]);
    assert_eq!(tracker.handed_to("2001:db8::9", &id), [""; 0]);
    assert_eq!(tracker.handed_to("fd99::9", &id), ["[fd00::1]:1"]);
}

#[test]
fn only_those_configured_speak_for_other_addresses() {
    let tracker = Tracker::open(
        "[access]\ntrust_ip_params_from = ['127.0.0.4', '2001:db8:4::/48']\nannounce_deny = ['198.51.100.0/24']",
    );
    // The sender, what it says, and the peer that is handed out.
    for (from, says, peer) in [
        ("127.0.0.5", "ip=203.0.113.4", "127.0.0.5:1"),
        ("127.0.0.5", "ipv4=203.0.113.4", "127.0.0.5:1"),
        ("127.0.0.5", "ipv6=2001:db8::4", "127.0.0.5:1"),
        ("::1", "ip=2001:db8::4", "[::1]:1"),
        ("::1", "ipv6=2001:db8::4&ipv4=203.0.113.4", "[::1]:1"),
        ("2001:db8:5::1", "ip=2001:db8::4", "[2001:db8:5::1]:1"),
        ("127.0.0.4", "", "127.0.0.4:1"),
        ("127.0.0.4", "ip=203.0.113.4", "203.0.113.4:1"),
        ("127.0.0.4", "ipv4=203.0.113.4", "203.0.113.4:1"),
        ("127.0.0.4", "ipv4=203.0.113.4%3A77", "203.0.113.4:1"),
        ("127.0.0.4", "ip=seed.example.org", "127.0.0.4:1"),
        ("127.0.0.4", "ip=224.0.0.1", "127.0.0.4:1"),
        ("2001:db8:4::1", "ip=2001:db8::4", "[2001:db8::4]:1"),
        ("2001:db8:4::1", "ipv6=2001%3Adb8%3A%3A4", "[2001:db8::4]:1"),
        // Its other address, over which it announces as well.
        ("127.0.0.4", "ipv6=2001:db8::4", "127.0.0.4:1"),
        ("2001:db8:4::1", "ip=203.0.113.4", "203.0.113.4:1"),
    ] {
        let id = some_id();
        let say = |query: &str| {
            let answer = tracker.from(from).announce(&id, &format!("{query}&{says}"));
            assert_eq!(verdict(&answer), SERVED);
            // Whatever the family of the word, the peers must be readable.
            answer.peers()
        };
        say("port=1&left=1");
        let [v4, v6] = ["127.0.0.77", "::1"].map(|asker| tracker.handed_to(asker, &id));
        assert_eq!([v4, v6].concat(), [peer], "{from} says {says}");
        let given = say("port=2&left=0");
        assert_eq!(given, [peer.parse().unwrap()], "{from} says {says}");
    }
    let id = some_id();
    let answer = tracker
        .from("127.0.0.4")
        .announce(&id, "port=1&ip=198.51.100.4");
    assert_eq!(
        verdict(&answer),
        UNWELCOME,
        "the lists are asked about the address that counts"
    );

    for (from, peer) in [
        ("127.0.0.4", "203.0.113.4:6881"),
        ("127.0.0.5", "127.0.0.5:6881"),
        ("::1", "[::1]:6881"),
    ] {
        let id = some_id();
        let (client, connection) = tracker.udp_from(from);
        let packet = udp::with(udp::leecher(connection), 16, id);
        client.ask(&udp::with(packet, 84, [203, 0, 113, 4]));
        let [v4, v6] = ["127.0.0.77", "::1"].map(|asker| tracker.handed_to(asker, &id));
        assert_eq!([v4, v6].concat(), [peer], "{from} over UDP");
    }
    tracker.rewrite("'127.0.0.4', ", "");
    tracker.reload();
    let id = some_id();
    tracker
        .from("127.0.0.4")
        .announce(&id, "port=1&left=1&ip=203.0.113.4");
    assert_eq!(tracker.handed_to("127.0.0.77", &id), ["127.0.0.4:1"]);
}

/// How many in a row are served before one is refused for being too often, of at most 100.
fn served_of_100(mut ask: impl FnMut() -> String) -> usize {
    (0..100)
        .find(|_| match ask().as_str() {
            SERVED => false,
            TOO_OFTEN => true,
            other => panic!("{other}"),
        })
        .unwrap_or(100)
}

#[test]
fn each_network_has_a_budget_for_announces_and_one_for_scrapes() {
    let tracker = Tracker::open(
        "[limits]\nexempt = ['127.0.0.99', '2001:db8:99::/48']\n\
         announces = 1\nannounces_burst = 3\nscrapes = 1\nscrapes_burst = 2",
    );
    let id = some_id();
    let announce = |from: &str| verdict(&tracker.from(from).announce(&id, "port=1&left=1"));
    let scrape = |from: &str| {
        let target = format!("/scrape?info_hash={}", percent(&id));
        let answer = tracker.from(from).get(&target);
        match answer.has("files") {
            true => SERVED.to_owned(),
            false => verdict(&answer),
        }
    };
    for loud in ["127.0.0.2", "::1", "203.0.113.2", "2001:db8:2::1"] {
        assert_eq!(served_of_100(|| announce(loud)), 3, "{loud}");
        assert_eq!(served_of_100(|| scrape(loud)), 2, "{loud}");
    }
    // One budget for both protocols, and none for asking at which address one is.
    for loud in ["127.0.0.2", "::1"] {
        assert_eq!(udp_verdict(&tracker.udp_from(loud), &id), TOO_OFTEN);
        let (client, connection) = tracker.udp_from(loud);
        let answer = client.ask(&udp::scrape(connection, &[id]));
        assert_eq!(answer, udp::error(TOO_OFTEN));
    }
    let over_udp = tracker.udp_from("127.0.0.3");
    assert_eq!(served_of_100(|| udp_verdict(&over_udp, &id)), 3);
    assert_eq!(announce("127.0.0.3"), TOO_OFTEN);
    // Others go unharmed, in the next network as well as anywhere.
    for quiet in ["127.0.0.4", "203.0.113.3", "2001:db8:2:1::1"] {
        assert_eq!(served_of_100(|| announce(quiet)), 3, "{quiet}");
    }
    for exempt in ["127.0.0.99", "2001:db8:99::1"] {
        assert_eq!(served_of_100(|| announce(exempt)), 100);
    }
    // Who is refused is in no swarm: each address that was served is in it once.
    let leechers = [
        "127.0.0.2",
        "203.0.113.2",
        "127.0.0.4",
        "203.0.113.3",
        "127.0.0.99",
    ]
    .len()
        + ["::1", "2001:db8:2::1", "2001:db8:2:1::1", "2001:db8:99::1"].len();
    let counts = tracker.from("127.0.0.99").scrape(&id);
    assert_eq!(counts, Some([1, leechers as i64]));

    // All of a /64 share; a /56 may ask four times as often, a /48 sixteen times.
    let sites = |prefixes: &mut dyn Iterator<Item = String>| -> usize {
        prefixes.map(|from| served_of_100(|| announce(&from))).sum()
    };
    let of_64 = |n| format!("2001:db8:64:0:{n:x}::1");
    assert_eq!(sites(&mut (0..9).map(of_64)), 3);
    let of_56 = |n| format!("2001:db8:56:{n:x}::1");
    assert_eq!(sites(&mut (0..9).map(of_56)), 4 * 3);
    let of_48 = |n| format!("2001:db8:48:{:x}::1", n << 6);
    assert_eq!(sites(&mut (0..99).map(of_48)), 16 * 3);

    // Written anew, other limits hold, and whoever had none left has again.
    tracker.rewrite("announces_burst = 3", "announces_burst = 5");
    tracker.reload();
    assert_eq!(served_of_100(|| announce("127.0.0.2")), 5);
}

/// Whether a new connection is served; else it must be closed without a word.
fn is_served(mut connection: Connection) -> Option<Connection> {
    // The tracker may have closed before.
    let _ = connection
        .stream()
        .write_all(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    match connection.try_response() {
        Ok(answer) => {
            assert_eq!(answer.status, 200);
            Some(connection)
        }
        Err(error) => {
            assert!(
                !matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                ),
                "neither served nor closed"
            );
            None
        }
    }
}

#[test]
fn each_network_has_a_budget_for_connections() {
    let tracker = Tracker::open("[limits]\nexempt = []\nconnections = 1\nconnections_burst = 3");
    for loud in ["127.0.0.2".parse().unwrap(), V6] {
        let served = (0..10).map_while(|_| is_served(tracker.connect(loud)));
        let served: Vec<_> = served.collect();
        assert_eq!(served.len(), 3, "{loud}");
        assert!(is_served(tracker.connect(loud)).is_none());
        // Those that are there go on, and so does everyone else.
        let served = served.into_iter().filter_map(is_served);
        assert_eq!(served.count(), 3);
        assert!(is_served(tracker.connect([127, 0, 0, 3].into())).is_some() || loud == V6);
    }
    for _ in 0..20 {
        assert!(
            is_served(tracker.connect(PROXY)).is_some(),
            "a proxy brings everyone's"
        );
    }
}

#[test]
fn what_is_kept_in_all_is_bounded() {
    let tracker = Tracker::open("[limits]\nmax_torrents = 2\nmax_peers = 2\npeers_per_network = 1");
    let (first, second, third) = (some_id(), some_id(), some_id());
    let apply_update = |from: &str, id: &Id, event| {
        let query = format!("port=1&left=1&event={event}");
        tracker.from(from).announce(id, &query)
    };
    apply_update("127.0.0.2", &first, "started");
    let same_network = tracker
        .from("127.0.0.2")
        .announce(&first, "port=2&left=1&event=started");
    assert_eq!(same_network.ports(), [1], "not kept, but answered in full");
    apply_update("127.0.0.3", &first, "started");

    let late = apply_update("127.0.0.4", &first, "started");
    assert_eq!(verdict(&late), SERVED);
    assert_eq!((late.ports().len(), late.number("incomplete")), (2, 2));
    apply_update("127.0.0.2", &second, "started");
    assert_eq!(
        tracker.handed_to("127.0.0.4", &second),
        ["127.0.0.2:1"],
        "a torrent's first peer is kept"
    );
    assert_eq!(
        verdict(&apply_update("127.0.0.2", &third, "started")),
        NO_ROOM
    );
    let (client, id) = tracker.udp_from("127.0.0.2");
    assert_eq!(udp_verdict(&(client, id), &third), NO_ROOM);

    // Whoever leaves makes room, for peers and with the last of a torrent for another.
    apply_update("127.0.0.2", &second, "stopped");
    apply_update("127.0.0.3", &first, "stopped");
    assert_eq!(
        verdict(&apply_update("127.0.0.2", &third, "started")),
        SERVED
    );
    assert_eq!(
        verdict(&apply_update("127.0.0.2", &second, "started")),
        NO_ROOM
    );

    tracker.rewrite("max_torrents = 2", "max_torrents = 3");
    tracker.reload();
    assert_eq!(
        verdict(&apply_update("127.0.0.2", &second, "started")),
        SERVED
    );
}

#[test]
fn a_network_fills_no_swarm() {
    let tracker = Tracker::open("[limits]\npeers_per_network = 2");
    let id = some_id();
    for (crowd, one, another) in [
        (
            ["127.0.0.2"; 3],
            "127.0.0.3",
            ["127.0.0.2:1", "127.0.0.2:2", "127.0.0.3:1"],
        ),
        (
            ["2001:db8::1", "2001:db8::2", "2001:db8::3"],
            "2001:db8:0:1::1",
            ["[2001:db8::1]:1", "[2001:db8::2]:2", "[2001:db8:0:1::1]:1"],
        ),
    ] {
        let announce = |from: &str, port: usize, query: &str| {
            let query = format!("port={port}&left=1&{query}");
            tracker.from(from).announce(&id, &query)
        };
        for (port, from) in crowd.iter().enumerate() {
            let answer = announce(from, port + 1, "");
            assert_eq!(verdict(&answer), SERVED);
            assert_eq!(answer.ports().len(), port.min(2), "answered in full");
        }
        announce(one, 1, "");
        let before = tracker.handed_to(one, &id);
        assert_eq!(before, another);
        // One leaves, and there is room.
        announce(crowd[0], 1, "event=stopped");
        announce(crowd[2], 3, "");
        let ports = |peers: &[String]| -> Vec<String> {
            let ports = peers.iter().filter_map(|peer| peer.rsplit_once(':'));
            let mut ports: Vec<_> = ports.map(|(_, port)| port.to_owned()).collect();
            ports.sort_unstable();
            ports
        };
        assert_eq!(ports(&tracker.handed_to(one, &id)), ["1", "2", "3"]);
    }
    // Three leechers of each family, and the two that asked.
    assert_eq!(tracker.from("127.0.0.1").scrape(&id), Some([2, 6]));
}

const VICTIM: &str = "198.51.100.66";
const VICTIM_V6: &str = "2001:db8:bad::66";

/// All that are handed out of a swarm, of both families. Those who ask are of this machine, and so are given its peers too.
fn swarm(tracker: &Tracker, id: &Id) -> Vec<String> {
    let swarm = ["127.0.0.77", "::1"].map(|asker| tracker.handed_to(asker, id));
    swarm.concat()
}

/// Announces with further lines in the header, each ended.
fn announce_with(connection: &mut Connection, id: &Id, header: &str) -> Response {
    let target = announce(id, "port=1&left=1");
    connection.send(format!("GET {target} HTTP/1.1\r\nHost: t\r\n{header}\r\n"));
    connection.response()
}

#[test]
fn headers_count_as_far_as_trusted_proxies_wrote_them() {
    let trusted = "trusted = ['127.0.0.1', '127.0.0.9', '2001:db8:aaaa::/48']";
    let tracker = Tracker::open(&format!("[proxy]\n{trusted}"));
    let check = |header: &str, cases: &[(&str, &[&str], &str)]| {
        for (sender, lines, peer) in cases {
            let id = some_id();
            let lines: String = lines
                .iter()
                .map(|line| format!("{header}: {line}\r\n"))
                .collect();
            let mut connection = tracker.connect(sender.parse().unwrap());
            let answer = announce_with(&mut connection, &id, &lines).dictionary();
            let expected: &[String] = match *peer {
                "" => {
                    assert_eq!(verdict(&answer), NAMELESS, "{lines}");
                    &[]
                }
                peer => {
                    assert_eq!(verdict(&answer), SERVED, "{lines}");
                    let peer = SocketAddr::new(peer.parse().unwrap(), 1);
                    &[peer.to_string()]
                }
            };
            assert_eq!(swarm(&tracker, &id), expected, "{sender} says {lines}");
        }
    };
    check(
        "X-Forwarded-For",
        &[
            ("127.0.0.1", &["203.0.113.5"], "203.0.113.5"),
            ("127.0.0.1", &["2001:db8::5"], "2001:db8::5"),
            ("127.0.0.1", &["203.0.113.5:4711"], "203.0.113.5"),
            ("127.0.0.1", &["[2001:db8::5]:4711"], "2001:db8::5"),
            ("127.0.0.1", &["::ffff:203.0.113.5"], "203.0.113.5"),
            (
                "127.0.0.1",
                &[&format!("{VICTIM}, 203.0.113.5")],
                "203.0.113.5",
            ),
            ("127.0.0.1", &[VICTIM, "203.0.113.5"], "203.0.113.5"),
            (
                "127.0.0.9",
                &[&format!(
                    "{VICTIM}, 203.0.113.5, 2001:db8:aaaa::1, 127.0.0.1"
                )],
                "203.0.113.5",
            ),
            ("127.0.0.1", &[&format!("{VICTIM}, unknown")], ""),
            ("127.0.0.1", &[&format!("{VICTIM}, ")], VICTIM),
            ("127.0.0.1", &["garbage"], ""),
            ("127.0.0.1", &[], "127.0.0.1"),
            ("127.0.0.2", &[VICTIM], "127.0.0.2"),
            ("127.0.0.2", &["127.0.0.1"], "127.0.0.2"),
            ("127.0.0.2", &[VICTIM_V6, "127.0.0.9"], "127.0.0.2"),
            ("::1", &[VICTIM_V6], "::1"),
        ],
    );
    // The header that was not configured is anyone's.
    check(
        "Forwarded",
        &[("127.0.0.1", &["for=198.51.100.66"], "127.0.0.1")],
    );

    tracker.rewrite(
        trusted,
        "header = 'forwarded'\ntrusted = ['127.0.0.1', '::1']",
    );
    tracker.reload();
    check(
        "Forwarded",
        &[
            ("127.0.0.1", &["for=203.0.113.5"], "203.0.113.5"),
            (
                "::1",
                &["for=\"[2001:db8::5]:4711\";proto=https;by=203.0.113.1"],
                "2001:db8::5",
            ),
            (
                "127.0.0.1",
                &["for=198.51.100.66, for=203.0.113.5;host=\"a,b\", for=\"[::1]\""],
                "203.0.113.5",
            ),
            (
                "127.0.0.1",
                &["for=198.51.100.66", "For=203.0.113.5"],
                "203.0.113.5",
            ),
            ("127.0.0.1", &["for=198.51.100.66, for=_hidden"], ""),
            ("127.0.0.1", &["for=198.51.100.66, for=unknown"], ""),
            ("127.0.0.2", &["for=198.51.100.66"], "127.0.0.2"),
            ("127.0.0.9", &["for=198.51.100.66"], "127.0.0.9"),
        ],
    );
    check("X-Forwarded-For", &[("127.0.0.1", &[VICTIM], "127.0.0.1")]);
}

#[test]
fn one_connection_of_a_proxy_brings_many_clients() {
    let tracker = Tracker::open("");
    let id = some_id();
    let mut connection = tracker.connect(PROXY);
    let clients = ["203.0.113.1", "2001:db8::1", "203.0.113.2", "2001:db8::2"];
    for client in clients {
        let header = format!("X-Forwarded-For: {VICTIM}, {client}\r\n");
        let answer = announce_with(&mut connection, &id, &header).dictionary();
        let address: IpAddr = client.parse().unwrap();
        let own = match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        assert_eq!(answer.bytes("external ip"), own);
    }
    // One request without the header speaks for the proxy alone, not for who came before.
    announce_with(&mut connection, &id, "");
    assert_eq!(
        swarm(&tracker, &id),
        [
            "127.0.0.200:1",
            "203.0.113.1:1",
            "203.0.113.2:1",
            "[2001:db8::1]:1",
            "[2001:db8::2]:1"
        ]
    );
}

const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// A header of version 2 of the PROXY protocol.
fn version_2(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
    let length = u16::try_from(addresses.len()).unwrap().to_be_bytes();
    [&V2_SIGNATURE[..], &[command, family], &length, addresses].concat()
}

/// From an address to 192.0.2.1 or 2001:db8::1.
fn version_2_from(address: &str) -> Vec<u8> {
    let ports = [4711_u16.to_be_bytes(), 80_u16.to_be_bytes()].concat();
    match address.parse().unwrap() {
        IpAddr::V4(from) => {
            let addresses = [from.octets(), [192, 0, 2, 1]].concat();
            version_2(0x21, 0x11, &[addresses, ports].concat())
        }
        IpAddr::V6(from) => {
            let to: Ipv6Addr = "2001:db8::1".parse().unwrap();
            let addresses = [from.octets(), to.octets()].concat();
            version_2(0x21, 0x21, &[addresses, ports].concat())
        }
    }
}

/// What a connection begins with, and the peers that two announces on it make.
fn preambles() -> Vec<(Vec<u8>, Option<&'static str>)> {
    let with_more = |mut header: Vec<u8>, more: &[u8]| {
        let length = (header.len() - 16 + more.len()) as u16;
        header[14..16].copy_from_slice(&length.to_be_bytes());
        [header, more.to_vec()].concat()
    };
    vec![
        (
            b"PROXY TCP4 203.0.113.5 192.0.2.1 4711 80\r\n".to_vec(),
            Some("203.0.113.5"),
        ),
        (
            b"PROXY TCP6 2001:db8::5 2001:db8::1 4711 80\r\n".to_vec(),
            Some("2001:db8::5"),
        ),
        (
            b"PROXY TCP6 ::ffff:203.0.113.5 ::1 4711 80\r\n".to_vec(),
            Some("203.0.113.5"),
        ),
        (version_2_from("203.0.113.5"), Some("203.0.113.5")),
        (version_2_from("2001:db8::5"), Some("2001:db8::5")),
        (
            // An authority (0x02), as a proxy that ends TLS sends it.
            with_more(version_2_from("203.0.113.5"), b"\x02\0\x09tracker.t"),
            Some("203.0.113.5"),
        ),
        (b"PROXY UNKNOWN\r\n".to_vec(), None),
        (version_2(0x20, 0x00, b""), None),
    ]
}

#[test]
fn the_proxy_protocol_names_the_client() {
    let mirror = Mirror::new();
    let unix = mirror.at("proxied.socket");
    let tracker = Tracker::open(&format!(
        "[proxy]\ntrusted = ['127.0.0.1', '::1']\nlisten = ['[::]:0', 'unix:{}']",
        unix.display()
    ));
    let port = tracker.daemon.port("http-proxy");
    let proxied = |from: IpAddr| Connection::open_from(from, SocketAddr::new(loopback(from), port));
    for (preamble, client) in preambles() {
        let shown = preamble.escape_ascii();
        for (connection, own) in [
            (proxied(V4), Some("127.0.0.1")),
            (proxied(V6), Some("::1")),
            (Connection::open_unix(&unix), None),
        ] {
            let mut connection = connection;
            let id = some_id();
            connection.send(&preamble);
            let spoofed = format!("X-Forwarded-For: {VICTIM}\r\nForwarded: for={VICTIM}\r\n");
            let header = if client.is_some() { &spoofed } else { "" };
            for _ in 0..2 {
                let answer = announce_with(&mut connection, &id, header).dictionary();
                let expected = match client.or(own) {
                    Some(_) => SERVED,
                    None => NAMELESS,
                };
                assert_eq!(verdict(&answer), expected, "{shown}");
            }
            let peer = client.or(own).map(|peer| peer.parse().unwrap());
            let peer = peer.map(|peer| SocketAddr::new(peer, 1).to_string());
            assert_eq!(swarm(&tracker, &id), peer.as_slice(), "{shown}");
        }
    }
    // Byte by byte, the request in the same packets.
    let id = some_id();
    let mut connection = proxied(V4);
    let target = announce(&id, "port=1&left=1");
    let request = format!("GET {target} HTTP/1.1\r\nHost: t\r\n\r\n");
    let all = [version_2_from("203.0.113.5"), request.into_bytes()].concat();
    all.chunks(1).for_each(|byte| connection.send(byte));
    assert_eq!(verdict(&connection.response().dictionary()), SERVED);
    assert_eq!(swarm(&tracker, &id), ["203.0.113.5:1"]);
}

#[test]
fn what_is_no_trusted_preamble_is_closed() {
    let mirror = Mirror::new();
    let unix = mirror.at("proxied.socket");
    let tracker = Tracker::open(&format!(
        "[proxy]\ntrusted = ['127.0.0.1', '::1']\nlisten = ['[::]:0', 'unix:{}']",
        unix.display()
    ));
    let port = tracker.daemon.port("http-proxy");
    let id = some_id();
    let target = announce(&id, "port=1&left=1");
    let request = format!("GET {target} HTTP/1.1\r\nHost: t\r\n\r\n");
    let closes = |mut connection: Connection, preamble: &[u8]| {
        let all = [preamble, request.as_bytes()].concat();
        // It may be closed before all is sent.
        let _ = connection.stream().write_all(&all);
        assert_eq!(connection.rest(), b"", "{}", preamble.escape_ascii());
    };
    let proxied = |from: IpAddr| Connection::open_from(from, SocketAddr::new(loopback(from), port));
    let v1 = format!("PROXY TCP4 {VICTIM} 192.0.2.1 4711 80\r\n");
    for preamble in [v1.as_bytes(), &version_2_from(VICTIM), b""] {
        for stranger in [2, 9] {
            closes(proxied([127, 0, 0, stranger].into()), preamble);
        }
    }
    let long = [b"PROXY UNKNOWN ", &[b'x'; 200][..], b"\r\n"].concat();
    let no_port = format!("PROXY TCP4 {VICTIM} 192.0.2.1 4711 65536\r\n");
    let half_family = format!("PROXY TCP6 {VICTIM} 192.0.2.1 4711 80\r\n");
    let garbage: &[&[u8]] = &[
        b"",
        b"\r\n",
        b"proxy UNKNOWN\r\n",
        b"PROXY \r\n",
        b"PROXY TCP4 garbage\r\n",
        no_port.as_bytes(),
        half_family.as_bytes(),
        &long,
        &version_2(0x11, 0x11, &[0; 12]),
        &version_2(0x22, 0x11, &[0; 12]),
        &version_2(0x21, 0x44, &[0; 12]),
        &version_2(0x21, 0x11, &[0; 11]),
        &version_2(0x21, 0x21, &[0; 35]),
        &version_2(0x21, 0x00, &[0; 5000]),
    ];
    for preamble in garbage {
        closes(proxied(V4), preamble);
        closes(proxied(V6), preamble);
        closes(Connection::open_unix(&unix), preamble);
    }
    // Where no preamble is asked for, none is believed, whoever sends it.
    for (from, preamble) in [(V4, v1.into_bytes()), (V6, version_2_from(VICTIM_V6))] {
        let mut connection = tracker.connect(from);
        let _ = connection
            .stream()
            .write_all(&[preamble, request.clone().into_bytes()].concat());
        let answer = String::from_utf8(connection.rest()).unwrap();
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 400 "),
            "{answer}"
        );
    }
    assert_eq!(swarm(&tracker, &id), [""; 0]);
    assert_eq!(
        verdict(&tracker.from("127.0.0.2").announce(&id, "port=1")),
        SERVED
    );
}

#[test]
fn over_a_unix_socket_the_header_names_the_client() {
    let mirror = Mirror::new();
    let unix = mirror.at("http.socket");
    let daemon = Daemon::start(&format!(
        "[http]\nlisten = ['unix:{}', '[::]:0']\n[torrents]\nopen = true\n\
         [access]\nannounce_deny = ['203.0.113.6']\n\
         [limits]\nannounces = 1\nannounces_burst = 2\nconnections = 1\nconnections_burst = 1",
        unix.display()
    ));
    daemon.wait_for_line("address=[::]:");
    let tracker = Tracker {
        http: daemon.port("http"),
        udp: 0,
        daemon,
    };
    let id = some_id();
    let mut kept = Connection::open_unix(&unix);
    for (header, expected) in [
        ("X-Forwarded-For: 203.0.113.5\r\n", SERVED),
        ("X-Forwarded-For: 198.51.100.66, 2001:db8::5\r\n", SERVED),
        ("X-Forwarded-For: 203.0.113.6\r\n", UNWELCOME),
        ("", NAMELESS),
        ("X-Forwarded-For: unknown\r\n", NAMELESS),
        ("Forwarded: for=198.51.100.66\r\n", NAMELESS),
        ("X-Forwarded-For: 203.0.113.5\r\n", SERVED),
        ("X-Forwarded-For: 203.0.113.5\r\n", TOO_OFTEN),
        ("X-Forwarded-For: 203.0.113.7\r\n", SERVED),
    ] {
        let mut fresh = Connection::open_unix(&unix);
        let answer = match header.contains("113.5") {
            true => announce_with(&mut kept, &id, header),
            false => announce_with(&mut fresh, &id, header),
        };
        assert_eq!(verdict(&answer.dictionary()), expected, "{header}");
    }
    assert_eq!(
        tracker.handed_to("127.0.0.77", &id),
        ["203.0.113.5:1", "203.0.113.7:1"]
    );
    assert_eq!(tracker.handed_to("::1", &id), ["[2001:db8::5]:1"]);
}

#[test]
fn a_reload_takes_all_at_once_and_disturbs_nobody() {
    let mirror = Mirror::new();
    mirror.0.write("deny", "");
    let settings = format!(
        "deny = [{}]\n[tracker]\ninterval = 1800\n[access]\nscrape_deny = []",
        mirror.quoted("deny")
    );
    let tracker = Tracker::open(&settings);
    let id = some_id();
    tracker.from("127.0.0.2").announce(&id, "port=1&left=1");
    tracker.from("2001:db8::2").announce(&id, "port=1&left=1");
    let mut waiting = tracker.connect(V4);
    let mut half = tracker.connect(V6);
    assert_eq!(
        announce_with(&mut waiting, &id, "")
            .dictionary()
            .number("interval"),
        1800
    );
    let target = announce(&id, "port=7&left=0");
    half.send(format!("GET {target} HTT"));
    let udp_before = tracker.udp_from("127.0.0.2");

    tracker.rewrite("interval = 1800", "interval = 1200");
    tracker.rewrite("scrape_deny = []", "scrape_deny = ['127.0.0.3']");
    mirror.0.write("deny", hex(&some_id()));
    tracker.reload();
    half.send("P/1.1\r\nHost: t\r\n\r\n");
    let answer = half.response().dictionary();
    assert_eq!(answer.number("interval"), 1200);
    assert_eq!(
        answer.peers(),
        ["[2001:db8::2]:1".parse().unwrap()],
        "swarms are kept"
    );
    let answer = announce_with(&mut waiting, &id, "").dictionary();
    assert_eq!(answer.number("interval"), 1200);
    assert_eq!(answer.peers(), ["127.0.0.2:1".parse().unwrap()]);
    assert_eq!(
        udp_verdict(&udp_before, &id),
        SERVED,
        "its connection id too"
    );
    let scrape = |from: &str| {
        let target = format!("/scrape?info_hash={}", percent(&id));
        tracker.from(from).get(&target).has("files")
    };
    assert!(!scrape("127.0.0.3") && scrape("127.0.0.2"));

    // Whatever is wrong, nothing of it is taken, and all of it is told.
    mirror
        .0
        .write("deny", format!("{}\n{}\n", hex(&id), "0".repeat(39)));
    tracker.rewrite("interval = 1200", "interval = 900\nworkers = -1");
    tracker.rewrite("scrape_deny = ['127.0.0.3']", "scrape_deny = []");
    let text = fs::read_to_string(tracker.file()).unwrap();
    let line = 1 + text
        .lines()
        .position(|line| line == "workers = -1")
        .unwrap();
    let told = tracker.reload_in_vain(2);
    let faults = [
        format!("{}:{line}: [tracker] workers", tracker.file().display()),
        format!("{}:2: ", mirror.at("deny").display()),
    ];
    for (told, fault) in told.iter().zip(faults) {
        assert!(told.contains(&format!("fault=\"{fault}")), "{told}");
    }
    tracker.rewrite("workers = -1\n", "");
    assert!(tracker.reload_in_vain(1)[0].contains("deny:2: "));
    fs::remove_file(mirror.at("deny")).unwrap();
    let told = tracker.reload_in_vain(1);
    let fault = format!(
        "fault=\"{}: no such list",
        mirror.at("deny").display()
    );
    assert!(told[0].contains(&fault), "{told:?}");
    let answer = announce_with(&mut waiting, &id, "").dictionary();
    assert_eq!(
        (answer.number("interval"), verdict(&answer)),
        (1200, SERVED.into())
    );
    assert!(
        !scrape("127.0.0.3"),
        "nor what stands in files without a fault"
    );

    mirror.0.write("deny", "");
    tracker.rewrite("[http]\nlisten = ['[::]:0']", "[http]\nlisten = ['[::]:1']");
    tracker.reload();
    tracker.daemon.wait_for_line("key=http.listen");
    let answer = announce_with(&mut waiting, &id, "").dictionary();
    assert_eq!(answer.number("interval"), 900);
    assert!(scrape("127.0.0.3"));
}

#[test]
fn what_is_refused_is_refused_during_a_reload_too() {
    let mirror = Mirror::new();
    let [denied, withdrawn, any] = [(); 3].map(|()| some_id());
    mirror.0.write("deny", hex(&denied));
    mirror
        .0
        .write("notices", format!("{} failure gone", hex(&withdrawn)));
    let settings = format!(
        "deny = [{}]\nnotices = [{}]\n[access]\nannounce_deny = ['127.0.0.3']",
        mirror.quoted("deny"),
        mirror.quoted("notices")
    );
    let tracker = Tracker::open(&settings);
    let done = AtomicBool::new(false);
    let asked = thread::scope(|scope| {
        let asks = |from: IpAddr, id: Id, expected: &'static str| {
            let (tracker, done) = (&tracker, &done);
            scope.spawn(move || {
                let mut connection = tracker.connect(from);
                let mut asked = 0;
                while !done.load(Ordering::Relaxed) {
                    let answer = announce_with(&mut connection, &id, "").dictionary();
                    assert_eq!(verdict(&answer), expected);
                    asked += 1;
                }
                asked
            })
        };
        let asking = [
            asks(V4, denied, DENIED),
            asks(V6, withdrawn, "gone"),
            asks(V4, any, SERVED),
            asks([127, 0, 0, 3].into(), any, UNWELCOME),
        ];
        for _ in 0..40 {
            tracker.reload();
        }
        done.store(true, Ordering::Relaxed);
        asking.map(|asking| asking.join().unwrap())
    });
    println!("asked during 40 reloads: {asked:?}");
    assert!(asked.iter().all(|&asked| asked > 40), "{asked:?}");
}

const FLOOD_HTTP: usize = 60_000;
const FLOOD_UDP: usize = 140_000;

/// What the process has in memory, in bytes.
fn resident(daemon: &Daemon) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    kib.unwrap().parse::<usize>().unwrap() * 1024
}

/// Ids that nobody has heard of, other ones for each flood.
struct Foreign(u64);

impl Foreign {
    fn next(&mut self) -> Id {
        let mut id = [0; 20];
        for part in id.chunks_mut(8) {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            part.copy_from_slice(&self.0.swap_bytes().to_be_bytes()[..part.len()]);
        }
        id
    }
}

/// Announces of foreign torrents on one connection that is kept, a hundred at a time, all of which must be refused.
fn flood_http(tracker: &Tracker, from: IpAddr, count: usize, ticks: &Sender<()>) {
    const AT_ONCE: usize = 100;
    let mut foreign = Foreign(u64::from(
        from.to_string().as_bytes()[from.to_string().len() - 1],
    ));
    let mut connection = tracker.connect(from);
    let one = |id: &Id| format!("GET {} HTTP/1.1\r\nHost: t\r\n\r\n", announce(id, "port=1"));
    // Each answer has the length of the first.
    connection.send(one(&foreign.next()));
    let refusal = connection.response();
    assert_eq!(verdict(&refusal.dictionary()), UNKNOWN);
    connection.send(one(&foreign.next()));
    let mut answer = vec![0; 4096];
    let length = connection.stream().read(&mut answer).unwrap();
    for _ in 0..count / AT_ONCE {
        let requests: String = (0..AT_ONCE).map(|_| one(&foreign.next())).collect();
        connection.send(requests);
        answer.resize(length * AT_ONCE, 0);
        connection.stream().read_exact(&mut answer).unwrap();
        for answer in answer.chunks(length) {
            assert!(answer.ends_with(&refusal.body));
        }
        ticks.send(()).unwrap();
    }
}

fn flood_udp(tracker: &Tracker, from: IpAddr, count: usize, ticks: &Sender<()>) {
    const AT_ONCE: usize = 50;
    let mut foreign = Foreign(count as u64);
    let (client, connection) = tracker.udp_from(&from.to_string());
    let refusal = udp::error(UNKNOWN);
    for _ in 0..count / AT_ONCE {
        for _ in 0..AT_ONCE {
            client.send(&udp::with(udp::announce(connection), 16, foreign.next()));
        }
        for _ in 0..AT_ONCE {
            assert_eq!(client.receive(), refusal);
        }
        ticks.send(()).unwrap();
    }
}

#[test]
fn a_flood_of_foreign_torrents_leaves_no_trace() {
    // 200,000 hashes alone, with nothing beside them, would be 4 MB.
    const BOUND: usize = 2 << 20;
    let mirror = Mirror::new();
    let (content, listed) = torrent("listed");
    mirror.publish("torrents/listed.torrent", &content);
    let tracker = mirror.start("");
    let flood = |http: usize, udp: usize| {
        thread::scope(|scope| {
            let tracker = &tracker;
            let (sender, ticks) = channel();
            for last in 11..=14 {
                let (from, sender) = (IpAddr::from([127, 0, 0, last]), sender.clone());
                scope.spawn(move || flood_http(tracker, from, http / 4, &sender));
            }
            for from in [V6, [127, 0, 0, 15].into()] {
                let sender = sender.clone();
                scope.spawn(move || flood_udp(tracker, from, udp / 2, &sender));
            }
            drop(sender);
            let mut took = Vec::new();
            // As long as the flood goes on, but not as fast as it can be done.
            while ticks.recv().is_ok() {
                let since = Instant::now();
                let from = ["127.0.0.2", "::1"][took.len() % 2];
                let verdict = match took.len() % 4 {
                    0 | 1 => verdict(&tracker.from(from).announce(&listed, "port=1&left=1")),
                    _ => udp_verdict(&tracker.udp_from(from), &listed),
                };
                assert_eq!(verdict, SERVED);
                took.push(since.elapsed());
                while ticks.try_recv().is_ok() {}
            }
            took
        })
    };
    // What any load takes once.
    flood(4_000, 4_000);
    let before = resident(&tracker.daemon);
    let since = Instant::now();
    let mut took = flood(FLOOD_HTTP, FLOOD_UDP);
    let elapsed = since.elapsed();
    let after = resident(&tracker.daemon);
    took.sort_unstable();
    println!(
        "{} foreign announces in {elapsed:?}: {} KiB before, {} KiB after; meanwhile {} listed ones, \
         all answered, median {:?}, 99 % within {:?}, worst {:?}",
        FLOOD_HTTP + FLOOD_UDP,
        before / 1024,
        after / 1024,
        took.len(),
        took[took.len() / 2],
        took[took.len() * 99 / 100],
        took[took.len() - 1]
    );
    assert!(
        after < before + BOUND,
        "{before} bytes before, {after} after"
    );
    assert!(took.len() >= 20, "{}", took.len());
    assert_eq!(tracker.from("127.0.0.1").scrape(&listed), Some([2, 2]));
}
