//! The status page, JSON and metrics of the built daemon, for a swarm with known contents, and the access to them.

mod harness;

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::{User, chown, geteuid};
use sha1::{Digest, Sha1};

use harness::http::{Connection, Response};
use harness::{Daemon, Directory, PATIENCE, TBTT, udp};
use tbtt::status::report::{Release, ReleaseHealth, StatusReport};

type Id = [u8; 20];

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
const PROXY: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 200));

/// The response for an unknown path.
const NOT_FOUND: (u16, &str) = (404, "not found\n");

/// Maximum age of a report, in seconds.
const MAX_AGE: u64 = 5;

/// Returns a minimal torrent file with this name, and its info-hash.
fn torrent(name: &str) -> (Vec<u8>, Id) {
    let length = name.len();
    let info = format!("d6:lengthi0e4:name{length}:{name}12:piece lengthi1e6:pieces0:e");
    let id = Sha1::digest(info.as_bytes()).into();
    (format!("d4:info{info}e").into_bytes(), id)
}

fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn percent(id: &[u8]) -> String {
    id.iter().map(|byte| format!("%{byte:02x}")).collect()
}

struct Tracker {
    daemon: Daemon,
    files: Directory,
    http: u16,
}

impl Tracker {
    /// Starts a tracker of these torrents, over IPv4 and IPv6, HTTP and UDP.
    fn start(torrents: &[(&str, &[u8])], settings: &str) -> Self {
        let files = Directory::new();
        for (name, content) in torrents {
            files.write(name, content);
        }
        let daemon = Daemon::start(&format!(
            "[http]\nlisten = ['[::]:0']\n[udp]\nlisten = ['[::]:0']\n\
             [torrents]\ndirectories = ['{}']\n{settings}",
            files.path().display()
        ));
        daemon.wait_for_line("torrent directories read");
        let http = daemon.port("http");
        Self {
            daemon,
            files,
            http,
        }
    }

    fn connect(&self, from: IpAddr) -> Connection {
        let to = if from.is_ipv4() { V4 } else { V6 };
        Connection::open_from(from, SocketAddr::new(to, self.http))
    }

    fn get(&self, target: &str) -> Response {
        self.connect(V4).get(target)
    }

    fn text(&self, target: &str) -> String {
        let response = self.get(target);
        assert_eq!(response.status, 200, "{target}");
        response.text().to_owned()
    }

    fn report(&self) -> StatusReport {
        serde_json::from_str(&self.text("/status.json")).unwrap()
    }

    /// Waits for a report that meets the condition.
    fn report_when(&self, what: &str, condition: impl Fn(&StatusReport) -> bool) -> StatusReport {
        let end = Instant::now() + PATIENCE;
        loop {
            let report = self.report();
            if condition(&report) {
                return report;
            }
            assert!(
                Instant::now() < end,
                "timeout waiting until {what}: {report:#?}"
            );
            thread::sleep(Duration::from_millis(100));
        }
    }

    fn announce(&self, from: IpAddr, id: &[u8], peer: &str, query: &str) {
        let target = format!(
            "/announce?info_hash={}&peer_id={peer:-<20}&{query}",
            percent(id)
        );
        assert_eq!(self.connect(from).get(&target).status, 200);
    }

    fn announce_udp(&self, id: &Id) {
        let client = udp::Client::new(V4, SocketAddr::new(V4, self.daemon.port("udp")));
        let packet = udp::with(udp::leecher(client.id()), 16, *id);
        assert_eq!(client.ask(&packet)[..4], [0, 0, 0, 1]);
    }

    /// Returns status and body of a response.
    fn status_and_body(&self, from: IpAddr, target: &str, header: &str) -> (u16, String) {
        let mut connection = self.connect(from);
        connection.send(format!("GET {target} HTTP/1.1\r\nHost: t\r\n{header}\r\n"));
        let response = connection.response();
        (response.status, response.text().to_owned())
    }

    /// Whether the client gets the same response as for an unknown path.
    fn is_hidden(&self, from: IpAddr, target: &str, header: &str) -> bool {
        let (status, text) = self.status_and_body(from, target, header);
        assert!(
            status == 200 || (status, text.as_str()) == NOT_FOUND,
            "{status} {text}"
        );
        status == 404
    }
}

/// Parses the samples, by name and labels.
fn samples(metrics: &str) -> HashMap<&str, f64> {
    let lines = metrics.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name, value.parse().unwrap())
        })
        .collect()
}

/// Returns the cells in the row of this release, without tags.
fn row(page: &str, name: &str) -> Vec<String> {
    let row = page
        .lines()
        .find(|line| line.contains(&format!("<bdi>{name}</bdi>")));
    let row = row.unwrap_or_else(|| panic!("no row for {name} in {page}"));
    let cells = row.split("<td").skip(1).map(|cell| {
        let text = cell
            .split_once('>')
            .unwrap()
            .1
            .split("</td>")
            .next()
            .unwrap();
        let texts = text.split('<').map(|part| part.rsplit('>').next().unwrap());
        texts.collect()
    });
    cells.collect()
}

#[test]
fn page_json_and_metrics_show_the_swarm() {
    let hybrid = include_bytes!("torrents/hybrid-small.torrent");
    let (seeded, seeded_id) = torrent("<b onclick='x'>seeded & \"sound\"");
    let (lost, lost_id) = torrent("lost");
    let (never, never_id) = torrent("never");
    let tracker = Tracker::start(
        &[
            ("a.torrent", hybrid),
            ("b.torrent", &seeded),
            ("c/d.torrent", &lost),
            ("e.torrent", &never),
        ],
        "[status]\nannounce_urls = ['http://t.example:6969/announce']\n[metrics]\nper_torrent = true",
    );
    tracker.announce(V4, &seeded_id, "one", "port=1&left=0");
    tracker.announce(V6, &seeded_id, "two", "port=2&left=0");
    tracker.announce(V4, &seeded_id, "three", "port=3&left=1");
    tracker.announce(V4, &seeded_id, "three", "port=3&left=0&event=completed");
    tracker.announce_udp(&seeded_id);
    tracker.announce(V4, &lost_id, "four", "port=4&left=0");
    tracker.announce(V4, &never_id, "five", "port=5&left=1");
    tracker.announce(V4, &[7; 20], "six", "port=6");
    tracker.announce(V4, &[7; 20], "six", "port=6");
    tracker.get("/announce?garbage");
    let hybrid_ids = tracker.report_when(
        "all torrents are listed, and \"lost\" had a seeder",
        |report| {
            let release = |name: &str| report.releases.iter().find(|release| release.name == name);
            report.releases.len() == 4
                && release("lost").is_some_and(|lost| lost.first_seed.is_some())
        },
    );
    let hybrid = hybrid_ids
        .releases
        .iter()
        .find(|release| release.v2.is_some())
        .unwrap();
    // A seeder of a hybrid torrent announces under both IDs, and counts once.
    let [v1, v2] = [hybrid.v1.as_ref(), hybrid.v2.as_ref()].map(|id| {
        let id = id.unwrap().as_bytes();
        let byte =
            |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap();
        id.chunks(2).map(byte).collect::<Vec<_>>()
    });
    tracker.announce(V4, &v1, "seven", "port=7&left=0&key=1");
    tracker.announce(V4, &v2[..20], "seven", "port=7&left=0&key=1");
    tracker.announce(V4, &lost_id, "four", "port=4&event=stopped");
    // The seed monitor saw the seeder before it left.
    let report = tracker.report_when(
        "the hybrid torrent has a seeder, and \"lost\" has none",
        |report| {
            let seeders = |name: &str| {
                report
                    .releases
                    .iter()
                    .find(|r| r.name == name)
                    .map(|r| r.seeders)
            };
            seeders(&hybrid.name) == Some(1) && seeders("lost") == Some(0)
        },
    );
    let (page, metrics) = (tracker.text("/status"), tracker.text("/metrics"));

    let by_name = |name: &str| {
        report
            .releases
            .iter()
            .find(|release| release.name == name)
            .unwrap()
    };
    let counts = |release: &Release| [release.seeders, release.leechers, release.downloads];
    let seeded = by_name("<b onclick='x'>seeded & \"sound\"");
    assert_eq!(counts(seeded), [3, 1, 1]);
    assert_eq!(
        (counts(by_name(&hybrid.name)), hybrid.size > 0),
        ([1, 0, 0], true)
    );
    assert_eq!(counts(by_name("lost")), [0, 0, 0]);
    assert_eq!(counts(by_name("never")), [0, 1, 0]);
    let health = |name: &str| by_name(name).health;
    assert_eq!(
        [health("lost"), health("never"), health(&hybrid.name)],
        [
            ReleaseHealth::LostSeeds,
            ReleaseHealth::NeverSeeded,
            ReleaseHealth::Seeded
        ]
    );
    assert_eq!(seeded.last_seed, Some(report.now));
    assert!(by_name("lost").last_seed.is_some() && by_name("never").first_seed.is_none());
    assert_eq!(seeded.v1.as_deref(), Some(hex(&seeded_id).as_str()));
    let totals = report.totals;
    assert_eq!(
        (totals.torrents, totals.peers_ipv4, totals.peers_ipv6),
        (5, 6, 1)
    );
    assert_eq!(
        (totals.seeders, totals.seeders_ipv6, totals.leechers),
        (5, 1, 2)
    );
    let counter = |name: &str| report.counters[name];
    assert_eq!(
        (counter("http_announces"), counter("udp_announces")),
        (9, 1)
    );
    assert_eq!((counter("unknown_torrents"), counter("malformed")), (2, 1));
    assert_eq!(report.snapshot.last, None);
    assert!(report.last_reload_successful && report.started <= report.now);

    let name = "&lt;b onclick=&#39;x&#39;&gt;seeded &amp; &quot;sound&quot;";
    assert_eq!(row(&page, name), ["0 B", "3", "1", "1", "now"]);
    assert_eq!(row(&page, "never"), ["0 B", "0", "1", "0", "never"]);
    assert!(
        row(&page, "lost")[4].ends_with(" ago"),
        "{:?}",
        row(&page, "lost")
    );
    assert!(!page.contains("<b onclick"), "{page}");
    for part in [
        "4 IPv4, 1 IPv6",
        "9 HTTP, 1 UDP since start",
        "1 never had one, 1 lost the last one",
        "&amp;tr=http%3A%2F%2Ft.example%3A6969%2Fannounce",
    ] {
        assert!(page.contains(part), "{part} in {page}");
    }

    let samples = samples(&metrics);
    let id = hex(&seeded_id);
    for (sample, expected) in [
        ("tbtt_announces_total{protocol=\"http\"}", 9.0),
        ("tbtt_announces_total{protocol=\"udp\"}", 1.0),
        ("tbtt_refusals_total{reason=\"unknown_torrent\"}", 2.0),
        ("tbtt_malformed_total", 1.0),
        ("tbtt_torrents", 5.0),
        ("tbtt_peers{family=\"ipv4\",role=\"seeder\"}", 4.0),
        ("tbtt_peers{family=\"ipv4\",role=\"leecher\"}", 2.0),
        ("tbtt_peers{family=\"ipv6\",role=\"seeder\"}", 1.0),
        ("tbtt_releases{health=\"seeded\"}", 2.0),
        ("tbtt_releases{health=\"lost_seeds\"}", 1.0),
        ("tbtt_releases{health=\"never_seeded\"}", 1.0),
        ("tbtt_config_last_reload_successful", 1.0),
        // A connect request and an announce.
        ("tbtt_request_duration_seconds_count{protocol=\"udp\"}", 2.0),
        (
            "tbtt_request_duration_seconds_count{protocol=\"http\"}",
            report.request_duration["http"].counts.iter().sum::<u64>() as f64,
        ),
        (
            &format!(
                "tbtt_release_seeders{{id=\"{id}\",name=\"<b onclick='x'>seeded & \\\"sound\\\"\"}}"
            ),
            3.0,
        ),
    ] {
        assert_eq!(
            samples.get(sample),
            Some(&expected),
            "{sample} in {metrics}"
        );
    }
    for text in [&page, &metrics, &tracker.text("/status.json")] {
        for private in ["127.0.0", "::1", tracker.files.path().to_str().unwrap()] {
            assert!(!text.contains(private), "{private} in {text}");
        }
    }
}

#[test]
fn clients_without_access_get_404() {
    let tracker = Tracker::start(
        &[("a.torrent", &torrent("a").0)],
        &format!(
            "[proxy]\ntrusted = ['{PROXY}']\n[access]\nstatus_deny = ['127.0.0.7']\n\
             metrics_allow = ['192.0.2.0/24']\n"
        ),
    );
    let id = hex(&torrent("a").1);
    let file = format!("/status/{id}.torrent");
    let paths = [
        "/status",
        "/status?sort=size",
        "/status.json",
        "/status.css",
        &file,
    ];
    let [denied, other] = [7, 9].map(|last| IpAddr::from([127, 0, 0, last]));
    for path in paths {
        assert!(!tracker.is_hidden(V4, path, ""), "{path}");
        assert!(!tracker.is_hidden(V6, path, ""), "{path}");
        assert!(tracker.is_hidden(denied, path, ""), "{path}");
        assert!(
            tracker.is_hidden(PROXY, path, "X-Forwarded-For: 192.0.2.1\r\n"),
            "{path}"
        );
        assert!(
            !tracker.is_hidden(PROXY, path, "X-Forwarded-For: 127.0.0.9\r\n"),
            "{path}"
        );
        assert!(
            tracker.is_hidden(other, path, "X-Forwarded-For: 127.0.0.1\r\n"),
            "untrusted proxy: {path}"
        );
    }
    assert!(tracker.is_hidden(V4, "/metrics", ""));
    assert!(!tracker.is_hidden(PROXY, "/metrics", "X-Forwarded-For: 192.0.2.1\r\n"));
    let response = tracker.get("/status");
    for (name, value) in [
        ("content-type", "text/html; charset=utf-8"),
        ("cache-control", "private, max-age=5"),
        ("x-content-type-options", "nosniff"),
    ] {
        assert_eq!(response.headers[name], value);
    }
    assert!(
        response.headers["content-security-policy"]
            .starts_with("default-src 'none'; style-src 'self'")
    );
    let mut connection = tracker.connect(V4);
    connection.send("POST /status HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(connection.response().status, 405);
    connection.send("HEAD /status HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(connection.head().unwrap().status, 200);
    assert_eq!(tracker.connect(V4).get("/status").status, 200);

    // A reload can disable all of them.
    let file = tracker.daemon.directory().path().join("tbtt.toml");
    let config = fs::read_to_string(&file).unwrap();
    let off = config.replace(
        "[access]",
        "[status]\npath = ''\n[metrics]\npath = ''\n[access]",
    );
    fs::write(&file, off.replace("[status]\nlisten = []\n", "")).unwrap();
    tracker.daemon.signal(Signal::SIGHUP);
    tracker.daemon.wait_for_line("reloaded");
    for path in paths.into_iter().chain(["/metrics"]) {
        assert!(tracker.is_hidden(V4, path, ""), "{path}");
    }
}

#[test]
fn status_listener_serves_nothing_else() {
    let directory = Directory::new();
    let socket = directory.path().join("socket");
    // The daemon creates the socket as another user.
    fs::set_permissions(
        directory.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o777),
    )
    .unwrap();
    let tracker = Tracker::start(
        &[],
        &format!(
            "[status]\nlisten = ['127.0.0.1:0', 'unix:{}']",
            socket.display()
        ),
    );
    tracker
        .daemon
        .wait_for_line("protocol=status address=unix:");
    let own = tracker.daemon.addresses("status")[0];
    for path in ["/status", "/status.json", "/metrics"] {
        assert_eq!(harness::http::get(own, path).status, 200, "{path}");
        assert!(tracker.is_hidden(V4, path, ""), "{path}");
        // A proxy on a Unix socket that does not name the client gets 404.
        assert_eq!(Connection::open_unix(&socket).get(path).status, 404);
        let mut proxy = Connection::open_unix(&socket);
        proxy.send(format!(
            "GET {path} HTTP/1.1\r\nHost: t\r\nX-Forwarded-For: ::1\r\n\r\n"
        ));
        assert_eq!(proxy.response().status, 200);
    }
    for path in ["/announce", "/scrape", "/"] {
        assert_eq!(harness::http::get(own, path).status, 404, "{path}");
        assert_eq!(tracker.get(path).status, 200, "{path}");
    }
}

#[test]
fn serves_status_on_an_inherited_socket() {
    let socket = TcpListener::bind((V4, 0)).unwrap();
    let at = socket.local_addr().unwrap();
    let mut program = Command::new("sh");
    let script =
        "exec 3>&1 >/dev/null; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=status exec \"$0\" \"$@\"";
    program
        .args(["-c", script, TBTT])
        .stdout(OwnedFd::from(socket));
    let daemon = Daemon::spawn(program, "[torrents]\nopen = true\n");
    daemon.wait_for_line(&format!("listening protocol=status address={at}"));
    for path in ["/status", "/status.json", "/metrics"] {
        assert_eq!(harness::http::get(at, path).status, 200, "{path}");
    }
    assert_eq!(harness::http::get(at, "/announce").status, 404);
}

#[test]
fn serves_listed_torrent_files_only() {
    let (content, id) = torrent("a");
    let tracker = Tracker::start(&[("a.torrent", &content)], "");
    let target = format!("/status/{}.torrent", hex(&id));
    let response = tracker.get(&target);
    assert_eq!((response.status, &response.body), (200, &content));
    assert_eq!(response.headers["content-type"], "application/x-bittorrent");
    for target in [
        "/status/../../etc/passwd.torrent",
        "/status/a.torrent",
        "/status/.torrent",
    ] {
        assert_eq!(tracker.get(target).status, 404, "{target}");
    }
    let secret = tracker.files.write("secret", "secret");
    symlink(secret, tracker.files.path().join("link")).unwrap();
    fs::rename(
        tracker.files.path().join("link"),
        tracker.files.path().join("a.torrent"),
    )
    .unwrap();
    // The file may be served from the cache as long as the report is; after that, the file is read again.
    let end = Instant::now() + PATIENCE;
    loop {
        let response = tracker.get(&target);
        if response.status == 404 {
            break;
        }
        assert_eq!(response.body, content);
        assert!(Instant::now() < end, "still served");
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn reports_snapshots_and_failed_reloads() {
    let state = Directory::new();
    if let Some(nobody) = User::from_name("nobody")
        .unwrap()
        .filter(|_| geteuid().is_root())
    {
        chown(state.path(), Some(nobody.uid), Some(nobody.gid)).unwrap();
    }
    let tracker = Tracker::start(
        &[],
        &format!("[state]\ndirectory = '{}'", state.path().display()),
    );
    let before = tracker.report();
    assert_eq!(
        (before.snapshot.last, before.last_reload_successful),
        (None, true)
    );
    tracker.daemon.signal(Signal::SIGUSR1);
    let file = tracker.daemon.directory().path().join("tbtt.toml");
    fs::write(&file, "[http]\nlisten = 7\n").unwrap();
    tracker.daemon.signal(Signal::SIGHUP);
    let after = tracker.report_when("snapshot and failed reload are reported", |report| {
        report.snapshot.last.is_some() && !report.last_reload_successful
    });
    assert!(after.snapshot.last >= Some(after.started));
    let metrics = tracker.text("/metrics");
    let last = samples(&metrics)["tbtt_snapshot_timestamp_seconds"];
    assert_eq!(last, after.snapshot.last.unwrap() as f64);
    assert!(metrics.contains("\ntbtt_config_last_reload_successful 0\n"));
}

#[test]
fn many_requests_share_one_report() {
    let tracker = Tracker::start(&[("a.torrent", &torrent("a").0)], "");
    let started = Instant::now();
    let request = || {
        let mut connection = tracker.connect(V4);
        let seen = (0..250).map(|_| {
            let response = connection.get("/status.json");
            assert_eq!(response.status, 200);
            serde_json::from_slice::<StatusReport>(&response.body)
                .unwrap()
                .now
        });
        seen.collect::<BTreeSet<_>>()
    };
    let seen = thread::scope(|scope| {
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(request)).collect();
        let seen = clients.into_iter().map(|client| client.join().unwrap());
        seen.flatten().collect::<BTreeSet<_>>()
    });
    // The first report may be from before the first request.
    let max = started.elapsed().as_secs() / MAX_AGE + 2;
    assert!(
        seen.len() as u64 <= max,
        "{seen:?} in {:?}",
        started.elapsed()
    );

    // These are more pages than are rendered from the same report: some are refused, unless reports changed often enough.
    let mut connection = tracker.connect(V4);
    let started = Instant::now();
    let pages = (1..=1000).map(|page| connection.get(&format!("/status?page={page}")));
    let (shown, refused): (Vec<_>, Vec<_>) = pages.partition(|response| response.status == 200);
    let max = 100 * (started.elapsed().as_secs() / MAX_AGE + 2);
    assert!(
        shown.len() as u64 <= max,
        "{} in {:?}",
        shown.len(),
        started.elapsed()
    );
    for response in &refused {
        assert_eq!(
            (response.status, response.headers["retry-after"].as_str()),
            (503, "5")
        );
    }
    assert_eq!(
        connection.get("/metrics").status,
        200,
        "metrics are served at the limit"
    );
}

#[test]
fn pages_have_a_hundred_of_ten_thousand_releases() {
    const COUNT: usize = 10_000;
    let torrents: Vec<_> = (0..COUNT)
        .map(|number| {
            (
                format!("{number}.torrent"),
                torrent(&format!("release-{number:05}")),
            )
        })
        .collect();
    let files: Vec<_> = torrents
        .iter()
        .map(|(file, (content, _))| (file.as_str(), &content[..]))
        .collect();
    let tracker = Tracker::start(&files, "[metrics]\nper_torrent = true");
    for (_, (_, id)) in torrents.iter().step_by(1000) {
        tracker.announce(V4, id, "one", "port=1&left=0");
    }
    // A report from before the last announce may be served for some seconds more.
    tracker.report_when("all are listed and ten have a seeder", |report| {
        let seeded = report
            .releases
            .iter()
            .filter(|release| release.seeders == 1);
        report.releases.len() == COUNT && seeded.count() == 10
    });
    let rows = |target: &str| {
        let page = tracker.text(target);
        let rows: Vec<_> = page
            .split("<bdi>")
            .skip(1)
            .map(|row| row[..13].to_owned())
            .collect();
        rows
    };
    let first = rows("/status");
    assert_eq!((first.len(), first[0].as_str()), (100, "release-00000"));
    let last = rows("/status?page=100");
    assert_eq!((last.len(), last[99].as_str()), (100, "release-09999"));
    let expected: Vec<_> = (0..COUNT)
        .step_by(1000)
        .map(|number| format!("release-{number:05}"))
        .collect();
    assert_eq!(rows("/status?sort=seeders")[..10], expected);
    assert_eq!(
        rows("/status?search=777+release"),
        [
            "release-00777",
            "release-01777",
            "release-02777",
            "release-03777",
            "release-04777",
            "release-05777",
            "release-06777",
            "release-07770",
            "release-07771",
            "release-07772",
            "release-07773",
            "release-07774",
            "release-07775",
            "release-07776",
            "release-07777",
            "release-07778",
            "release-07779",
            "release-08777",
            "release-09777",
        ]
    );
    let metrics = tracker.text("/metrics");
    assert_eq!(metrics.matches("\ntbtt_release_seeders{").count(), COUNT);
    assert!(metrics.contains("\ntbtt_releases{health=\"never_seeded\"} 9990\n"));
}
