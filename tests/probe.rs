//! Tests of the tbtt-probe program: against tbtt, which has no faults, and against tbtt behind a relay that adds one
//! fault at a time.

mod harness;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use percent_encoding::percent_encode_byte;
use serde_json::Value;
use socket2::{Domain, SockAddr, Socket, Type};
use tbtt::bytes::parse_hex;

use harness::http::get;
use harness::{Daemon, PATIENCE};

const PROBE: &str = env!("CARGO_BIN_EXE_tbtt-probe");
const TORRENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/torrents");
const LISTED: [&str; 2] = [
    "abababababababababababababababababababab",
    "2b41414141414141414141414141414141414141",
];
const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// Runs tbtt-probe with a timeout that is long enough on a busy machine.
fn probe(arguments: &[&str]) -> Output {
    let seconds = PATIENCE.as_secs().to_string();
    Command::new(PROBE)
        .args(["--timeout", &seconds])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// Runs tbtt-probe, and returns its report and its exit status.
fn report(arguments: &[&str]) -> (Value, i32) {
    let output = probe(&[&["--json"], arguments].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    let report = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text:?}"));
    (report, output.status.code().unwrap())
}

/// Returns the cases of all targets by verdict.
fn verdicts(report: &Value) -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for target in report["targets"].as_array().unwrap() {
        assert_eq!(target["unreachable"], Value::Null, "{target:#}");
        for case in target["cases"].as_array().unwrap() {
            let verdict = case["verdict"].as_str().unwrap().to_owned();
            let id = case["id"].as_str().unwrap().to_owned();
            assert_ne!(case["seen"], "", "{id}");
            found.entry(verdict).or_default().insert(id);
        }
    }
    found
}

/// Returns all faults and differences, each as "fault ID" or "differs ID".
fn found(report: &Value) -> BTreeSet<String> {
    let verdicts = verdicts(report);
    let ids = ["fault", "differs"].iter().flat_map(|verdict| {
        let ids = verdicts.get(*verdict).into_iter().flatten();
        ids.map(move |id| format!("{verdict} {id}"))
    });
    ids.collect()
}

struct Tracker {
    /// Stops the tracker when dropped.
    _daemon: Daemon,
    http: u16,
    udp: u16,
}

impl Tracker {
    fn start(torrents: &str) -> Self {
        let daemon = Daemon::start(&format!(
            "[http]\nlisten = ['[::]:0']\n[udp]\nlisten = ['[::]:0']\n[torrents]\n{torrents}"
        ));
        // This line is logged after those with the addresses.
        daemon.wait_for_line("clients announce to");
        let (http, udp) = (daemon.port("http"), daemon.port("udp"));
        Self {
            _daemon: daemon,
            http,
            udp,
        }
    }

    fn open() -> Self {
        Self::start("open = true")
    }

    /// Tracks [`LISTED`].
    fn listed() -> Self {
        let directory = harness::Directory::new();
        let list = directory.write("listed", LISTED.join("\n"));
        Self::start(&format!("allow = ['{}']", list.display()))
    }

    fn urls(&self, host: &str) -> [String; 2] {
        [
            format!("http://{host}:{}/announce", self.http),
            format!("udp://{host}:{}/announce", self.udp),
        ]
    }

    /// Scrapes a listed torrent, and returns complete, downloaded and incomplete.
    fn counts(&self, hash: &str) -> [i64; 3] {
        let id: [u8; 20] = parse_hex(hash.as_bytes()).unwrap();
        let encoded: String = id.iter().copied().map(percent_encode_byte).collect();
        let to = SocketAddr::new(V4, self.http);
        let response = get(to, &format!("/scrape?info_hash={encoded}")).dictionary();
        let entry = response.dictionary("files").dictionary(id);
        ["complete", "downloaded", "incomplete"].map(|key| entry.number(key))
    }
}

fn set(ids: &[&str]) -> BTreeSet<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

#[test]
fn tbtt_has_no_faults_in_hostile_cases_of_both_protocols_and_families() {
    let tracker = Tracker::open();
    let [http, udp] = tracker.urls("127.0.0.1");
    let [http6, udp6] = tracker.urls("[::1]");
    let (report, status) = report(&["--hostile", &http, &udp, &http6, &udp6]);
    assert_eq!((found(&report), status), (set(&[]), 0), "{report:#}");
    let verdicts = verdicts(&report);
    assert_eq!(
        verdicts["skipped"],
        set(&[
            // The tracker tracks any torrent.
            "http-refusal",
            "http-retry",
            "http-retry-form",
            "http-tracked",
            "udp-refusal",
            "udp-tracked",
            // Each is skipped over one of the address families.
            "http-families",
            "http-peers6",
            "udp-forged-address",
            "udp-others-id",
        ])
    );
    assert!(verdicts["ok"].len() > 80, "{}", verdicts["ok"].len());
    assert_eq!(
        report["txt"],
        Value::Array(Vec::new()),
        "the hosts are addresses, which have no TXT records"
    );
}

#[test]
fn tbtt_has_no_faults_with_listed_torrents_and_keeps_no_peer() {
    let tracker = Tracker::listed();
    let [http, udp] = tracker.urls("127.0.0.1");
    let named = ["--info-hash", LISTED[1], "--info-hash", LISTED[0]];
    let (passed, status) = report(&[&["--hostile", &http, &udp], &named[..]].concat());
    assert_eq!((found(&passed), status), (set(&[]), 0), "{passed:#}");
    assert_eq!(
        verdicts(&passed)["skipped"],
        set(&["http-families", "http-peers6"])
    );
    for hash in LISTED {
        let [complete, downloaded, incomplete] = tracker.counts(hash);
        assert_eq!((complete, incomplete), (0, 0), "{hash}");
        // Completed downloads stay in the count.
        assert_eq!(downloaded > 0, hash == LISTED[1], "{hash}");
    }

    // Refusing a random torrent is not a fault.
    let (random, status) = report(&[&http, &udp]);
    assert_eq!((found(&random), status), (set(&[]), 0), "{random:#}");
    let ok = &verdicts(&random)["ok"];
    assert!(ok.is_superset(&set(&["http-refusal", "http-retry", "udp-refusal"])));

    let (named, status) = report(&["--info-hash", &"cd".repeat(20), &http, &udp]);
    let refused = set(&["fault http-tracked", "fault udp-tracked"]);
    assert_eq!((found(&named), status), (refused, 1), "{named:#}");
}

#[test]
fn torrent_option_announces_the_torrent_of_the_file() {
    let tracker = Tracker::start(&format!("directories = ['{TORRENTS}']"));
    let [http, udp] = tracker.urls("127.0.0.1");
    let file = format!("{TORRENTS}/hybrid-disc.torrent");
    let (report, status) = report(&["--gentle", "--torrent", &file, &http, &udp]);
    assert_eq!((found(&report), status), (set(&[]), 0), "{report:#}");
    assert!(verdicts(&report)["ok"].is_superset(&set(&["http-tracked", "udp-tracked"])));
}

#[test]
fn tap_is_well_formed() {
    let tracker = Tracker::listed();
    let tamper = Tamper {
        response: |_, response| response.body.extend_from_slice(b"\r\n"),
        ..NO_TAMPER
    };
    let relay = Relay::start(&tracker, V4, tamper);
    let output = probe(&[
        "--tap",
        "--info-hash",
        LISTED[0],
        &relay.http(),
        "http://127.0.0.1:9/announce",
    ]);
    assert_eq!(output.status.code(), Some(69));
    let text = String::from_utf8(output.stdout).unwrap();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("TAP version 14"));
    let tests: usize = lines
        .next()
        .unwrap()
        .strip_prefix("1..")
        .unwrap()
        .parse()
        .unwrap();
    let results: Vec<_> = lines
        .filter(|line| line.starts_with("ok ") || line.starts_with("not ok "))
        .collect();
    assert_eq!(results.len(), tests, "{text}");
    for (number, line) in (1..).zip(&results) {
        let rest = line.trim_start_matches("not ").trim_start_matches("ok ");
        assert!(rest.starts_with(&format!("{number} - ")), "{line}");
    }
    let has = |start: &str, part: &str| {
        let mut lines = results.iter();
        lines.any(|line| line.starts_with(start) && line.contains(part))
    };
    for (result, part) in [
        ("ok", "- http-answer:"),
        ("ok", " # SKIP "),
        ("not ok", "- http-form:"),
        ("not ok", "- reachable"),
    ] {
        assert!(has(result, part), "{text}");
    }
    assert!(
        text.contains("\n  ---\n  seen: '2 bytes follow the dictionary'\n  ...\n"),
        "{text}"
    );
}

#[test]
fn exit_status_distinguishes_usage_errors_and_unreachable_trackers() {
    let status = |arguments: &[&str]| probe(arguments).status.code().unwrap();
    // These ports are unreachable and stay so: the TCP socket is bound and does not listen, the UDP socket receives
    // only from another address.
    let tcp = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    tcp.bind(&SockAddr::from(SocketAddr::new(V4, 0))).unwrap();
    let closed = tcp.local_addr().unwrap().as_socket().unwrap();
    assert_eq!(status(&[&format!("http://{closed}/announce")]), 69);
    let udp = UdpSocket::bind((V4, 0)).unwrap();
    udp.connect((V4, 9)).unwrap();
    let closed = udp.local_addr().unwrap();
    assert_eq!(status(&[&format!("udp://{closed}")]), 69);
    for wrong in [
        &[][..],
        &["--gentle", "--full", "http://127.0.0.1/announce"],
        &["--info-hash", "abc", "http://127.0.0.1/announce"],
        &["--torrent", "/nowhere.torrent", "http://127.0.0.1/announce"],
        &["--torrent", PROBE, "http://127.0.0.1/announce"],
        &["https://127.0.0.1/announce"],
        &["udp://127.0.0.1/announce"],
        &["--txt", "udp://127.0.0.1:6969"],
        // This is an error before anything is sent.
        &["--hostile", "udp://203.0.113.7:6969"],
    ] {
        assert_eq!(status(wrong), 64, "{wrong:?}");
    }
    let output = probe(&["--list"]);
    let list = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success() && list.lines().count() > 90,
        "{list}"
    );
    let ids: BTreeSet<_> = list.lines().map(|line| line.split(' ').next()).collect();
    assert_eq!(ids.len(), list.lines().count(), "the IDs are unique");
}

#[test]
fn manual_examples_run() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/man/tbtt-probe.1");
    let page = fs::read_to_string(page).unwrap();
    let examples: Vec<_> = page
        .lines()
        .filter_map(|line| line.strip_prefix(".Dl $ "))
        .collect();
    assert!(examples.len() >= 5, "{examples:?}");
    let tracker = Tracker::start(&format!("directories = ['{TORRENTS}']"));
    let directory = harness::Directory::new();
    let torrent = fs::read(format!("{TORRENTS}/hybrid-disc.torrent")).unwrap();
    directory.write("example.iso.torrent", torrent);
    let programs = std::path::Path::new(PROBE).parent().unwrap();
    for example in examples {
        let (http, udp) = (tracker.http, tracker.udp);
        let mut here = example.to_owned();
        if !example.contains("--txt") {
            for (from, to) in [
                (
                    "http://tracker.example.org:6969",
                    format!("http://127.0.0.1:{http}"),
                ),
                (
                    "udp://tracker.example.org:6969",
                    format!("udp://127.0.0.1:{udp}"),
                ),
                ("localhost:6969", format!("localhost:{http}")),
                // On a busy machine, a response may take long.
                ("tbtt-probe ", "tbtt-probe --timeout 20 ".to_owned()),
            ] {
                here = here.replace(from, &to);
            }
            assert!(!here.contains(":6969"), "{here}");
        }
        let output = Command::new("sh")
            .args(["-c", &here])
            .current_dir(directory.path())
            .env("PATH", format!("{}:/usr/bin:/bin", programs.display()))
            .output()
            .unwrap();
        assert!(output.status.success(), "{here}: {output:?}");
        assert!(!output.stdout.is_empty(), "{here}");
    }
}

/// How a relay changes the traffic of a tracker.
#[derive(Clone, Copy)]
struct Tamper {
    /// Changes the request target before the tracker gets it.
    request: fn(&str) -> String,
    /// Changes the response to a target, which is as the probe has sent it.
    response: fn(&str, &mut Response),
    /// Changes a packet to the tracker.
    packet: fn(&mut Vec<u8>),
    /// Changes a packet to the probe.
    reply: fn(&mut Vec<u8>),
    /// Sends an additional response to a packet to the probe.
    additional: fn(&[u8]) -> Option<Vec<u8>>,
}

const NO_TAMPER: Tamper = Tamper {
    request: str::to_owned,
    response: |_, _| {},
    packet: |_| {},
    reply: |_| {},
    additional: |_| None,
};

struct Response {
    status: u16,
    /// Additional lines, each with CRLF.
    headers: String,
    body: Vec<u8>,
}

impl Response {
    /// Replaces everything from the first occurrence to the end.
    fn cut_from(&mut self, from: &str, to: &str) {
        let body = &self.body;
        let at = body
            .windows(from.len())
            .position(|part| part == from.as_bytes());
        if let Some(at) = at {
            self.body.truncate(at);
            self.body.extend_from_slice(to.as_bytes());
        }
    }

    /// Replaces the first occurrence.
    fn replace(&mut self, from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) {
        let (from, to) = (from.as_ref(), to.as_ref());
        let at = self.body.windows(from.len()).position(|part| part == from);
        if let Some(at) = at {
            self.body.splice(at..at + from.len(), to.iter().copied());
        }
    }
}

/// Relays requests and responses, changed, between the probe and a tracker.
struct Relay {
    host: String,
    http: u16,
    udp: u16,
    /// Number of requests and packets from the probe.
    requests: Arc<AtomicUsize>,
}

impl Relay {
    fn start(tracker: &Tracker, own: IpAddr, tamper: Tamper) -> Self {
        let requests = Arc::<AtomicUsize>::default();
        let listener = TcpListener::bind((own, 0)).unwrap();
        let socket = Arc::new(UdpSocket::bind((own, 0)).unwrap());
        let host = match own {
            IpAddr::V4(_) => own.to_string(),
            IpAddr::V6(_) => format!("[{own}]"),
        };
        let relay = Self {
            host,
            http: listener.local_addr().unwrap().port(),
            udp: socket.local_addr().unwrap().port(),
            requests: requests.clone(),
        };
        let to = SocketAddr::new(own, tracker.http);
        let count = requests.clone();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let count = count.clone();
                thread::spawn(move || relay_http(client, to, tamper, &count));
            }
        });
        let to = SocketAddr::new(own, tracker.udp);
        thread::spawn(move || relay_udp(&socket, to, tamper, &requests));
        relay
    }

    fn http(&self) -> String {
        format!("http://{}:{}/announce", self.host, self.http)
    }

    fn udp(&self) -> String {
        format!("udp://{}:{}/announce", self.host, self.udp)
    }
}

/// Relays the requests of a connection, each on a new connection to the tracker. Returns `None` at the end.
fn relay_http(
    mut client: TcpStream,
    to: SocketAddr,
    tamper: Tamper,
    count: &AtomicUsize,
) -> Option<()> {
    let mut buffer = Vec::new();
    loop {
        let end = loop {
            if let Some(at) = buffer.windows(4).position(|end| end == b"\r\n\r\n") {
                break at + 4;
            }
            let mut bytes = [0; 4096];
            let length = client.read(&mut bytes).ok()?;
            if length == 0 {
                return None;
            }
            buffer.extend_from_slice(&bytes[..length]);
        };
        count.fetch_add(1, Ordering::Relaxed);
        let head: Vec<u8> = buffer.drain(..end).collect();
        let head = String::from_utf8(head).ok()?;
        let (method, rest) = head.split_once(' ')?;
        let (target, rest) = rest.split_once(' ')?;
        let sent = (tamper.request)(target);
        let (_, headers) = rest.split_once("\r\n")?;
        let mut upstream = TcpStream::connect(to).ok()?;
        let request = format!("{method} {sent} HTTP/1.0\r\n{headers}");
        upstream.write_all(request.as_bytes()).ok()?;
        let mut bytes = Vec::new();
        upstream.read_to_end(&mut bytes).ok()?;
        let at = bytes.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
        let mut response = Response {
            status: std::str::from_utf8(&bytes[9..12]).ok()?.parse().ok()?,
            headers: String::new(),
            body: bytes.split_off(at),
        };
        (tamper.response)(target, &mut response);
        let Response {
            status,
            headers: lines,
            body,
        } = response;
        let length = body.len();
        let lines = format!("HTTP/1.1 {status} Some\r\n{lines}Content-Length: {length}\r\n\r\n");
        client.write_all(&[lines.as_bytes(), &body].concat()).ok()?;
        if rest.starts_with("HTTP/1.0") || headers.contains("Connection: close") {
            return None;
        }
    }
}

/// Relays packets. Each client has its own socket to the tracker, bound to the client's address.
fn relay_udp(socket: &Arc<UdpSocket>, to: SocketAddr, tamper: Tamper, count: &AtomicUsize) {
    let mut clients: HashMap<SocketAddr, UdpSocket> = HashMap::new();
    let mut packet = [0; 4096];
    while let Ok((length, client)) = socket.recv_from(&mut packet) {
        count.fetch_add(1, Ordering::Relaxed);
        let upstream = clients.entry(client).or_insert_with(|| {
            let upstream = UdpSocket::bind((client.ip(), 0)).unwrap();
            upstream.connect(to).unwrap();
            let (back, socket) = (upstream.try_clone().unwrap(), socket.clone());
            thread::spawn(move || {
                let mut packet = [0; 4096];
                while let Ok(length) = back.recv(&mut packet) {
                    let mut packet = packet[..length].to_vec();
                    (tamper.reply)(&mut packet);
                    socket.send_to(&packet, client).unwrap();
                }
            });
            upstream
        });
        let mut packet = packet[..length].to_vec();
        if let Some(response) = (tamper.additional)(&packet) {
            socket.send_to(&response, client).unwrap();
        }
        (tamper.packet)(&mut packet);
        // At the end of a test, the tracker is gone.
        let _ = upstream.send(&packet);
    }
}

/// Tests a tracker behind a relay, and compares the faults and differences. They choose the protocol.
#[track_caller]
fn assert_found(
    tracker: &Tracker,
    own: IpAddr,
    arguments: &[&str],
    tamper: Tamper,
    expected: &[&str],
) {
    let relay = Relay::start(tracker, own, tamper);
    let url = match expected.iter().any(|case| case.contains(" udp-")) {
        true => relay.udp(),
        false => relay.http(),
    };
    let (report, status) = report(&[arguments, &[&url]].concat());
    assert_eq!(found(&report), set(expected));
    let has_fault = expected.iter().any(|case| case.starts_with("fault "));
    assert_eq!(status, i32::from(has_fault));
}

#[track_caller]
fn gentle(tracker: &Tracker, tamper: Tamper, expected: &[&str]) {
    assert_found(tracker, V4, &["--gentle"], tamper, expected);
}

#[track_caller]
fn gentle6(tracker: &Tracker, tamper: Tamper, expected: &[&str]) {
    assert_found(tracker, V6, &["--gentle"], tamper, expected);
}

#[track_caller]
fn full(tracker: &Tracker, tamper: Tamper, expected: &[&str]) {
    assert_found(tracker, V4, &["--full"], tamper, expected);
}

#[track_caller]
fn hostile(tracker: &Tracker, tamper: Tamper, expected: &[&str]) {
    assert_found(tracker, V4, &["--hostile"], tamper, expected);
}

fn request(request: fn(&str) -> String) -> Tamper {
    Tamper {
        request,
        ..NO_TAMPER
    }
}

fn response(response: fn(&str, &mut Response)) -> Tamper {
    Tamper {
        response,
        ..NO_TAMPER
    }
}

fn packet(packet: fn(&mut Vec<u8>)) -> Tamper {
    Tamper {
        packet,
        ..NO_TAMPER
    }
}

fn reply(reply: fn(&mut Vec<u8>)) -> Tamper {
    Tamper { reply, ..NO_TAMPER }
}

fn additional(additional: fn(&[u8]) -> Option<Vec<u8>>) -> Tamper {
    Tamper {
        additional,
        ..NO_TAMPER
    }
}

#[test]
fn relay_without_changes_has_no_faults_and_few_gentle_requests() {
    let tracker = Tracker::listed();
    for own in [V4, V6] {
        let relay = Relay::start(&tracker, own, NO_TAMPER);
        let named = ["--info-hash", LISTED[0], "--info-hash", LISTED[1]];
        let urls = [relay.http(), relay.udp()];
        for url in &urls {
            let before = relay.requests.load(Ordering::Relaxed);
            let (report, status) = report(&[&["--gentle", url], &named[..]].concat());
            assert_eq!((found(&report), status), (set(&[]), 0), "{report:#}");
            let sent = relay.requests.load(Ordering::Relaxed) - before;
            assert!((5..=10).contains(&sent), "{sent} requests");
        }
        let (report, status) = report(&[&["--full", &urls[0], &urls[1]], &named[..]].concat());
        assert_eq!((found(&report), status), (set(&[]), 0), "{report:#}");
    }
}

#[test]
fn finds_faults_in_the_form_of_http_responses() {
    let tracker = Tracker::open();
    gentle(
        &tracker,
        response(|target, response| {
            if target.contains("event=started") {
                response.status = 500;
                response.body = b"<html>".to_vec();
            }
        }),
        &[
            "fault http-answer",
            "fault http-form",
            "fault http-refusal",
            "differs http-plain",
        ],
    );
    gentle(
        &tracker,
        response(|_, response| response.headers = "Content-Encoding: x\r\n".to_owned()),
        &["differs http-plain"],
    );
    gentle(
        &tracker,
        response(|_, response| response.replace("d8:complete", "d1:z0:8:complete")),
        &["fault http-form", "fault http-scrape-form"],
    );
    gentle(
        &tracker,
        response(|_, response| response.replace("8:interval", "8:intervali9e8:interval")),
        &["fault http-form", "differs http-min-interval"],
    );
    gentle(
        &tracker,
        response(|_, response| response.body.extend_from_slice(b"\r\n")),
        &["fault http-form", "fault http-scrape-form"],
    );
    gentle(
        &tracker,
        response(|_, response| response.replace("i1800e", "i01800e")),
        &["fault http-form"],
    );
    gentle(
        &tracker,
        response(|_, response| response.replace("8:interval", "8:Interval")),
        &[
            "fault http-form",
            "fault http-interval",
            "fault http-refusal",
            "differs http-min-interval",
        ],
    );
    gentle(
        &tracker,
        response(|_, response| response.replace("8:intervali1800e", "8:intervali0e")),
        &["fault http-interval", "differs http-min-interval"],
    );
}

#[test]
fn finds_faults_in_the_peers_of_http_responses() {
    let tracker = Tracker::open();
    gentle(
        &tracker,
        response(|_, response| response.replace("5:peers6:", "5:peers7:\0")),
        &[
            "fault http-compact",
            "fault http-others",
            "differs http-not-self",
        ],
    );
    gentle(
        &tracker,
        response(|_, response| response.replace("5:peers", "5:pears")),
        &["fault http-peers", "fault http-others"],
    );
    gentle6(
        &tracker,
        response(|_, response| response.replace("6:peers6", "6:peers7")),
        &["fault http-peers6", "fault http-others"],
    );
    gentle6(
        &tracker,
        response(|_, response| response.replace("6:peers618:", "6:peers619:\0")),
        &[
            "fault http-peers6",
            "fault http-others",
            "differs http-not-self",
        ],
    );
    // The client itself is among its peers.
    gentle(
        &tracker,
        response(|target, response| {
            let port = target.split("port=").nth(1).unwrap_or("0");
            let port: u16 = port.split('&').next().unwrap().parse().unwrap();
            let own = [&b"5:peers12:\x7f\0\0\x01"[..], &port.to_be_bytes()].concat();
            response.replace("5:peers6:", own);
        }),
        &["differs http-not-self"],
    );
}

#[test]
fn finds_faults_in_counts_scrapes_and_stops_over_http() {
    let tracker = Tracker::open();
    gentle(
        &tracker,
        response(|_, response| response.replace("11:external ip4:\x7f", "11:external ip4:\x7e")),
        &["fault http-external-ip"],
    );
    gentle(
        &tracker,
        response(|_, response| response.replace("8:completei1e", "8:completei0e")),
        &["differs http-counts"],
    );
    gentle(
        &tracker,
        response(|_, response| response.replace("10:downloaded", "10:Downloaded")),
        &[
            "fault http-form",
            "fault http-scrape",
            "fault http-scrape-form",
        ],
    );
    // No peer ever stops.
    gentle(
        &tracker,
        request(|target| target.replace("event=stopped", "event=")),
        &["fault http-gone"],
    );
    gentle(
        &tracker,
        response(|target, response| {
            if target.contains("event=stopped") {
                response.body = b"d14:failure reason2:noe".to_vec();
            }
        }),
        &["fault http-stopped"],
    );
    full(
        &tracker,
        response(|target, response| {
            if target.matches("info_hash").count() == 2 && target.starts_with("/scrape") {
                let entry = response.body[8..response.body.len() - 2].to_vec();
                response.body.splice(8..8, entry);
            }
        }),
        &["fault http-scrape-twice", "fault http-scrape-order"],
    );
}

#[test]
fn finds_faults_in_required_parameters_over_http() {
    let tracker = Tracker::open();
    full(
        &tracker,
        request(|target| target.replace("left=4294967296", "left=0")),
        &["fault http-left"],
    );
    full(
        &tracker,
        request(|target| target.replace("left=abc", "left=0")),
        &["differs http-left-odd"],
    );
    full(
        &tracker,
        request(|target| {
            target
                .replace("port=0", "port=1")
                .replace("port=65536", "port=2")
        }),
        &["differs http-port"],
    );
    full(
        &tracker,
        response(|target, response| {
            if target.contains("port=0") {
                response.status = 400;
            }
        }),
        &["differs http-refusals"],
    );
    // A byte is added to an ID of 19 bytes.
    full(
        &tracker,
        request(|target| {
            let padded = |pair: &str| match pair.split_once('=') {
                Some(("/announce?info_hash" | "peer_id", id)) if id.len() == 57 => {
                    format!("{pair}%61")
                }
                _ => pair.to_owned(),
            };
            let pairs: Vec<_> = target.split('&').map(padded).collect();
            pairs.join("&")
        }),
        &["fault http-hash-length", "fault http-peer-id"],
    );
    full(
        &tracker,
        request(|target| target.replace('+', "%20")),
        &["differs http-plus"],
    );
    // Lower-case digits mean other bytes.
    assert_found(
        &tracker,
        V4,
        &["--full", "--info-hash", LISTED[0]],
        request(|target| target.replace("%ab", "%AC")),
        &["fault http-escapes"],
    );
}

#[test]
fn finds_faults_in_optional_parameters_over_http() {
    let tracker = Tracker::open();
    full(
        &tracker,
        request(|target| target.replace("event=completed", "event=started")),
        &["fault http-completed"],
    );
    full(
        &tracker,
        response(|target, response| {
            if target.contains("event=paused") || target.contains("event=bogus") {
                response.body = b"d14:failure reason2:noe".to_vec();
            }
        }),
        &["fault http-event-paused", "differs http-event-unknown"],
    );
    full(
        &tracker,
        request(|target| match target.contains("compact=") {
            true => target.to_owned(),
            false => target.replace("key=", "compact=0&key="),
        }),
        &["differs http-compact-default"],
    );
    full(
        &tracker,
        response(|target, response| {
            if target.contains("compact=0") {
                (response.status, response.body) = (400, b"<html>".to_vec());
            }
        }),
        &["fault http-compact-0", "differs http-no-peer-id"],
    );
    full(
        &tracker,
        response(|target, response| {
            if target.contains("numwant=0") {
                response.replace("5:peers0:", "");
            }
        }),
        &["fault http-numwant"],
    );
    full(
        &tracker,
        request(|target| target.replace("numwant=-1", "numwant=0")),
        &["differs http-numwant-values"],
    );
    full(
        &tracker,
        response(|_, response| {
            if response.status == 404 {
                response.status = 200;
            }
        }),
        &["differs http-paths"],
    );
}

#[test]
fn finds_a_client_that_is_counted_twice() {
    let tracker = Tracker::open();
    // Without the key, it is another client.
    let no_key = request(|target| target.replace("&key=", "&"));
    let relay = Relay::start(&tracker, V6, no_key);
    let [http, _] = tracker.urls("127.0.0.1");
    let named = ["--info-hash", LISTED[0]];
    let (report, status) = report(&[&["--full", &http, &relay.http()], &named[..]].concat());
    assert_eq!(
        (found(&report), status),
        (set(&["differs http-families"]), 0)
    );
}

#[test]
fn finds_faults_in_refusals_over_http() {
    let tracker = Tracker::listed();
    let arguments = ["--gentle", "--info-hash", LISTED[0]];
    let assert_gentle = |change: fn(&str, &mut Response), expected: &[&str]| {
        assert_found(&tracker, V4, &arguments, response(change), expected);
    };
    assert_gentle(
        |_, response| response.cut_from("8:retry in", "e"),
        &["differs http-retry"],
    );
    assert_gentle(
        |_, response| response.cut_from("8:retry in", "8:retry ini0ee"),
        &["fault http-retry-form"],
    );
    assert_gentle(
        |_, response| {
            if response.body.starts_with(b"d14:failure reason") {
                response.body = b"d5:peers0:e".to_vec();
            }
        },
        &["fault http-refusal"],
    );
}

#[test]
fn finds_faults_in_the_form_of_udp_responses() {
    let tracker = Tracker::open();
    gentle(
        &tracker,
        reply(|reply| {
            if reply[3] == 1 {
                reply[4] ^= 1;
            }
        }),
        &["fault udp-transaction"],
    );
    gentle(
        &tracker,
        reply(|reply| {
            if reply[3] == 0 {
                reply.push(0);
            }
        }),
        &["fault udp-connect"],
    );
    gentle(
        &tracker,
        reply(|reply| {
            if reply[3] == 1 {
                reply[8..12].fill(0);
            }
        }),
        &["fault udp-interval"],
    );
    gentle(
        &tracker,
        reply(|reply| {
            if reply[3] == 2 {
                reply.push(0);
            }
        }),
        &["fault udp-scrape"],
    );
}

#[test]
fn finds_faults_in_peers_and_counts_over_udp() {
    let tracker = Tracker::open();
    gentle(
        &tracker,
        reply(|reply| {
            if reply.len() > 20 {
                reply.pop();
            }
        }),
        &[
            "fault udp-others",
            "fault udp-counts",
            "differs udp-not-self",
        ],
    );
    gentle(
        &tracker,
        reply(|reply| {
            if reply[3] == 1 {
                reply[16..20].fill(0);
            }
        }),
        &["fault udp-counts"],
    );
    gentle(
        &tracker,
        reply(|reply| {
            if reply.len() == 26 {
                reply[24..].fill(0);
            }
        }),
        &["fault udp-others", "differs udp-not-self"],
    );
    // No peer ever stops.
    gentle(
        &tracker,
        packet(|packet| {
            if packet.len() == 98 && packet[83] == 3 {
                packet[83] = 0;
            }
        }),
        &["fault udp-gone"],
    );
}

#[test]
fn finds_faults_in_announces_over_udp() {
    let tracker = Tracker::open();
    full(
        &tracker,
        packet(|packet| {
            if packet.len() == 98 && packet[96..] == [0, 0] {
                packet[97] = 1;
            }
        }),
        &["differs udp-port"],
    );
    // left is read as 32 bits.
    full(
        &tracker,
        packet(|packet| {
            if packet.len() == 98 && packet[8..12] == [0, 0, 0, 1] {
                packet[64..68].fill(0);
            }
        }),
        &["fault udp-left"],
    );
    full(
        &tracker,
        packet(|packet| {
            if packet.len() == 97 {
                packet.push(1);
            }
        }),
        &["fault udp-short"],
    );
    full(
        &tracker,
        packet(|packet| {
            if packet.len() == 98 && packet[83] == 1 {
                packet[83] = 0;
            }
        }),
        &["fault udp-completed"],
    );
    full(
        &tracker,
        packet(|packet| {
            if packet.len() == 98 && packet[92..96] == [0; 4] {
                packet[92..96].fill(255);
            }
        }),
        &["differs udp-numwant"],
    );
}

#[test]
fn finds_faults_in_scrapes_and_malformed_packets_over_udp() {
    let tracker = Tracker::open();
    full(
        &tracker,
        packet(|packet| {
            if packet.len() == 16 + 21 {
                packet.extend_from_slice(&[0; 19]);
            }
        }),
        &["fault udp-scrape-uneven"],
    );
    // The entries are in another order than in the request.
    full(
        &tracker,
        reply(|reply| {
            if reply.len() == 8 + 4 * 12 {
                reply[8..].rotate_left(12);
            }
        }),
        &["fault udp-scrape-order"],
    );
    full(
        &tracker,
        reply(|reply| {
            if reply.len() == 8 + 74 * 12 {
                reply.extend_from_slice(&[0; 12]);
            }
        }),
        &["differs udp-scrape-74", "differs udp-scrape-more"],
    );
    full(
        &tracker,
        additional(|packet| (packet[..8] == [0; 8]).then(|| packet[8..].to_vec())),
        &["differs udp-not-connect"],
    );
    full(
        &tracker,
        additional(|packet| (packet.get(8..12) == Some(&[0, 0, 0, 4])).then(|| vec![0, 0, 0, 4])),
        &["differs udp-actions"],
    );
}

#[test]
fn finds_hostile_faults_over_udp() {
    let tracker = Tracker::open();
    // The response is longer than the request.
    hostile(
        &tracker,
        additional(|packet| {
            let bare = packet.len() == 16 && packet[8..12] != [0; 4];
            bare.then(|| b"\0\0\0\x03tranConnection ID missmatch.".to_vec())
        }),
        &["differs udp-amplification"],
    );
    // Any connection ID is accepted, from any address.
    hostile(
        &tracker,
        additional(|packet| {
            let announce = packet.len() == 98 && packet[8..12] == [0, 0, 0, 1];
            (announce && packet[..8] == [255; 8]).then(|| vec![0, 0, 0, 1])
        }),
        &["fault udp-forged-id"],
    );
}

#[test]
fn finds_faults_in_refusals_over_udp() {
    let tracker = Tracker::listed();
    // opentracker refuses with the first 8 bytes of an announce response.
    let truncated = reply(|reply| {
        if reply[3] == 3 {
            reply[3] = 1;
            reply.truncate(8);
        }
    });
    gentle(
        &tracker,
        truncated,
        &["fault udp-announce", "fault udp-refusal"],
    );
}
