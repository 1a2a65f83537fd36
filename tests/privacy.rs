//! No output for operators names a client: not the log at its most detailed level, the status page, its JSON, the
//! metrics or the output of tbttctl. Responses to announces and the snapshot hold peers by design, and are not checked
//! here.

mod harness;

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;

use nix::unistd::{User, chown, geteuid};
use sha1::{Digest as _, Sha1};

use harness::http::Connection;
use harness::udp::{self, Client};
use harness::{Daemon, Directory};

const NAME: &str = "a-release.iso";

/// Addresses of clients: source addresses, and addresses in parameters and headers.
const V4: [[u8; 4]; 9] = [
    [127, 201, 3, 44],
    [127, 201, 3, 45],
    [127, 201, 3, 46],
    [127, 201, 3, 47],
    [127, 201, 3, 48],
    [198, 51, 100, 95],
    [198, 51, 100, 96],
    [198, 51, 100, 97],
    [198, 51, 100, 98],
];
const V6: [&str; 3] = ["2001:db8:77::77", "2001:db8:78::78", "2001:db8:79::79"];
const PEER_ID: &str = "-XX0001-private-mark";
const KEY: &str = "deadbea7";

struct Scene {
    directory: Directory,
    daemon: Daemon,
    /// The info-hash, percent-encoded for a query.
    info_hash: String,
    id: [u8; 20],
}

impl Scene {
    fn start(more: &str) -> Self {
        let directory = Directory::new();
        let at = |part: &str| directory.path().join(part).display().to_string();
        fs::create_dir(at("state")).unwrap();
        if geteuid().is_root() {
            let nobody = User::from_name("nobody").unwrap().unwrap();
            chown(at("state").as_str(), Some(nobody.uid), None).unwrap();
        }
        let pieces = "x".repeat(20);
        let length = NAME.len();
        let info =
            format!("d6:lengthi1e4:name{length}:{NAME}12:piece lengthi16384e6:pieces20:{pieces}e");
        directory.write("torrents/one.torrent", format!("d4:info{info}e"));
        let (torrents, state, control) = (at("torrents"), at("state"), at("control"));
        let daemon = Daemon::start(&format!(
            "[http]\nlisten = ['127.0.0.1:0']\nheader_timeout = 1\n[udp]\nlisten = ['127.0.0.1:0']\n\
             [torrents]\ndirectories = ['{torrents}']\n[state]\ndirectory = '{state}'\n\
             [control]\nlisten = '{control}'\n[metrics]\nper_torrent = true\n\
             [limits]\nannounces = 1\nannounces_burst = 4\nexempt = []\n{more}"
        ));
        let id: [u8; 20] = Sha1::digest(&info).into();
        let info_hash = id.iter().map(|byte| format!("%{byte:02x}")).collect();
        Self {
            directory,
            daemon,
            info_hash,
            id,
        }
    }

    fn http(&self, from: [u8; 4]) -> Connection {
        Connection::open_from(
            Ipv4Addr::from(from).into(),
            self.daemon.addresses("http")[0],
        )
    }

    /// Returns the target of an announce.
    fn query(&self, info_hash: &str, more: &str) -> String {
        format!("/announce?info_hash={info_hash}&peer_id={PEER_ID}&key={KEY}&left=1{more}")
    }

    fn announce(&self, from: [u8; 4], headers: &str) -> String {
        let mut http = self.http(from);
        let target = self.query(&self.info_hash, "&port=6881");
        http.send(format!("GET {target} HTTP/1.1\r\n{headers}\r\n"));
        String::from_utf8_lossy(&http.response().body).into_owned()
    }

    fn udp(&self, from: [u8; 4]) -> Client {
        let to = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), self.daemon.port("udp"));
        Client::new(Ipv4Addr::from(from).into(), to)
    }

    fn tbttctl(&self, arguments: &[&str]) -> String {
        let result = Command::new(env!("CARGO_BIN_EXE_tbttctl"))
            .arg("--socket")
            .arg(self.directory.path().join("control"))
            .args(arguments)
            .output()
            .unwrap();
        String::from_utf8([result.stdout, result.stderr].concat()).unwrap()
    }

    /// Stops the tracker, and returns all output for operators with a name for each.
    fn output(mut self) -> Vec<(String, String)> {
        let mut output = Vec::new();
        for arguments in [
            &["reload"][..],
            &["snapshot"],
            &["status"],
            &["status", "--json"],
            &["torrents"],
            &["torrents", "--json"],
            &["torrent", NAME],
            &["torrent", "--json", NAME],
            &["check"],
        ] {
            output.push((format!("{arguments:?}"), self.tbttctl(arguments)));
        }
        for path in ["/", "/status", "/status.json", "/metrics", "/nowhere"] {
            let text = self.http([127, 0, 0, 1]).get(path).text().to_owned();
            output.push((path.to_owned(), text));
        }
        assert!(self.daemon.stop().success());
        output.push(("log".to_owned(), self.daemon.log()));
        output
    }
}

/// Returns all forms in which a client's address, peer_id or key could be written.
fn forbidden() -> Vec<String> {
    let mut forbidden = vec![PEER_ID.to_owned(), KEY.to_owned()];
    for address in V4.map(Ipv4Addr::from) {
        let [a, b, c, d] = address.octets();
        forbidden.push(address.to_string());
        forbidden.push(format!("{a:02x}{b:02x}{c:02x}{d:02x}"));
        forbidden.push(address.to_bits().to_string());
        forbidden.push(format!("{a}.{b}.{c}."));
    }
    for address in V6 {
        forbidden.push(address.to_owned());
        forbidden.push(address.trim_end_matches(|c| c != ':').to_owned());
    }
    forbidden
}

fn check(output: &[(String, String)], peers: usize) {
    // The output does report the clients' activity.
    let text = |name: &str| &output.iter().find(|(found, _)| found == name).unwrap().1;
    assert!(text("/status").contains(NAME));
    assert!(text("/status.json").contains(&format!("\"peers_ipv4\":{peers}")));
    assert!(text("log").contains("counters since the start"));
    for (name, text) in output {
        assert!(!text.is_empty(), "{name}");
        for secret in forbidden() {
            assert!(
                !text.to_lowercase().contains(&secret.to_lowercase()),
                "{name} has {secret}: {text}"
            );
        }
    }
}

#[test]
fn direct_clients_are_not_named() {
    let scene = Scene::start("");
    // Valid announces, also with address parameters and headers that are ignored.
    assert!(scene.announce(V4[0], "").contains("8:interval"));
    let claims = format!("&port=6881&ip={}&ipv6={}", Ipv4Addr::from(V4[5]), V6[0]);
    let target = scene.query(&scene.info_hash, &claims);
    assert!(scene.http(V4[1]).get(&target).dictionary().has("peers"));
    let header = format!("X-Forwarded-For: {}\r\n", Ipv4Addr::from(V4[6]));
    scene.announce(V4[1], &header);
    let scrape = format!("/scrape?info_hash={}", scene.info_hash);
    scene.http(V4[0]).get(&scrape).dictionary();
    // Over the rate limit.
    let responses: Vec<_> = (0..6).map(|_| scene.announce(V4[2], "")).collect();
    assert!(responses[5].contains("too many requests"), "{responses:?}");
    // Invalid requests.
    let unknown = scene.query(&"%aa".repeat(20), "&port=6881");
    for target in [&unknown, &scene.query(&scene.info_hash, ""), "/announce"] {
        let response = scene.http(V4[0]).get(target).dictionary();
        assert!(response.has("failure reason"));
    }
    for garbage in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"POST /announce HTTP/1.1\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/9\r\n\r\n",
        b"GET /ann",
    ] {
        let mut http = scene.http(V4[4]);
        http.send(garbage);
        http.rest();
    }
    // Over UDP.
    let client = scene.udp(V4[3]);
    let announce = udp::with(udp::leecher(client.id()), 16, scene.id);
    assert_eq!(client.ask(&announce)[..4], [0, 0, 0, 1]);
    client.answers(&[udp::leecher(12345), vec![0xff; 40], vec![0; 3]]);
    check(&scene.output(), 4);
}

#[test]
fn clients_of_proxies_are_not_named() {
    let scene = Scene::start("[proxy]\ntrusted = ['127.0.0.0/8']\nlisten = ['127.0.0.1:0']");
    for client in [&Ipv4Addr::from(V4[7]).to_string(), V6[1], "unknown"] {
        scene.announce(V4[0], &format!("X-Forwarded-For: {client}\r\n"));
    }
    let proxy_listener = scene.daemon.addresses("http-proxy")[0];
    for (header, is_valid) in [
        (
            format!("PROXY TCP4 {} 192.0.2.1 5 6\r\n", Ipv4Addr::from(V4[8])),
            true,
        ),
        (format!("PROXY TCP6 {} 2001:db8::1 5 6\r\n", V6[2]), true),
        (
            format!("PROXY TCP4 {} 192.0.2.1 5 6 7\r\n", Ipv4Addr::from(V4[8])),
            false,
        ),
    ] {
        let from = IpAddr::from(V4[1]);
        let mut http = Connection::open_from(from, proxy_listener);
        let target = scene.query(&scene.info_hash, "&port=6881");
        http.send(format!("{header}GET {target} HTTP/1.1\r\n\r\n"));
        match is_valid {
            true => assert!(http.response().dictionary().has("interval")),
            false => assert_eq!(http.rest(), b""),
        }
    }
    check(&scene.output(), 2);
}
