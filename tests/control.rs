//! tbttctl with the built daemon and a swarm with known contents.

mod harness;

use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::pty::{OpenptyResult, openpty};
use nix::unistd::{User, geteuid};
use sha1::{Digest, Sha1};
use tbtt::status::report::{Release, ReleaseHealth, StatusReport};

use harness::http::{Connection, get};
use harness::{Daemon, Directory, PATIENCE};

const TBTTCTL: &str = env!("CARGO_BIN_EXE_tbttctl");

/// A user that is neither root nor the daemon's.
const STRANGER: u32 = 65_432;

/// The parts that outlive a restart: the torrents, the state and the socket.
struct Scene {
    directory: Directory,
    /// More keys of `[torrents]`.
    keys: &'static str,
}

impl Scene {
    fn new() -> Self {
        let directory = Directory::new();
        for part in ["torrents", "state"] {
            fs::create_dir(directory.path().join(part)).unwrap();
        }
        if geteuid().is_root() {
            let nobody = User::from_name("nobody").unwrap().unwrap();
            let state = directory.path().join("state");
            chown(state, Some(nobody.uid.as_raw()), None).unwrap();
        }
        Self {
            directory,
            keys: "",
        }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("control")
    }

    fn config(&self) -> String {
        let at = |part: &str| self.directory.path().join(part).display().to_string();
        let (torrents, state, control) = (at("torrents"), at("state"), at("control"));
        let keys = self.keys;
        format!(
            "[http]\nlisten = ['127.0.0.1:0']\n[torrents]\ndirectories = ['{torrents}']\n{keys}\n\
             [state]\ndirectory = '{state}'\n[control]\nlisten = '{control}'\n"
        )
    }

    fn start(&self) -> Daemon {
        Daemon::start(&self.config())
    }

    /// Creates a `.torrent` file, and returns its info-hash.
    fn publish(&self, name: &str, length: u64) -> String {
        let info = format!(
            "d6:lengthi{length}e4:name{}:{name}12:piece lengthi8388608e6:pieces20:{}e",
            name.len(),
            "x".repeat(20),
        );
        let aside = self.directory.write("aside", format!("d4:info{info}e"));
        let at = format!("torrents/{name}.torrent");
        fs::rename(aside, self.directory.path().join(at)).unwrap();
        hex(&Sha1::digest(&info))
    }

    fn tbttctl(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(TBTTCTL);
        command.arg("--socket").arg(self.socket()).args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.tbttctl(arguments).output().unwrap()
    }

    /// Runs a command that must succeed, and returns its output.
    fn output(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command that must fail, and returns its error output and exit status.
    fn failure(&self, arguments: &[&str]) -> (String, i32) {
        failure(&self.run(arguments))
    }

    /// Runs the plugin for monitoring, and returns its line and exit status.
    fn check(&self, arguments: &[&str]) -> (String, i32) {
        let output = self.run(&[&["check"], arguments].concat());
        let line = String::from_utf8(output.stdout).unwrap();
        assert_eq!(line.lines().count(), 1, "{line}");
        (line, output.status.code().unwrap())
    }

    fn report(&self) -> StatusReport {
        serde_json::from_str(&self.output(&["status", "--json"])).unwrap()
    }

    fn release(&self, which: &str) -> Release {
        serde_json::from_str(&self.output(&["torrent", "--json", which])).unwrap()
    }
}

fn failure(output: &Output) -> (String, i32) {
    assert_eq!(output.stdout, b"", "{output:?}");
    let error = String::from_utf8(output.stderr.clone()).unwrap();
    (error, output.status.code().unwrap())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Announces from host number `host`, with `left` bytes missing and this event.
fn announce(daemon: &Daemon, info_hash: &str, host: u8, left: u8, event: &str) {
    let digits = info_hash.as_bytes().chunks(2).take(20);
    let id: String = digits
        .map(|two| format!("%{}", std::str::from_utf8(two).unwrap()))
        .collect();
    let from = format!("127.0.1.{host}").parse().unwrap();
    let mut connection = Connection::open_from(from, daemon.addresses("http")[0]);
    let response = connection.get(&format!(
        "/announce?info_hash={id}&peer_id=-TT0001-{host:012}&port={}&left={left}&event={event}",
        6881 + u16::from(host)
    ));
    assert!(!response.dictionary().has("failure reason"), "{response:?}");
}

/// Waits for a condition that no log line announces.
fn until<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(seen) = ready() {
            return seen;
        }
        assert!(Instant::now() < end, "timeout waiting for {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn all_commands_show_the_swarm() {
    let scene = Scene::new();
    let alpha = scene.publish("alpha-1.0-amd64.iso", 5_000_000);
    let beta = scene.publish("Beta-2.0-amd64.iso", 700);
    let hybrid = include_bytes!("torrents/hybrid-disc.torrent");
    scene
        .directory
        .write("torrents/hybrid-disc.torrent", hybrid);
    let (v1, v2) = (
        "d828b352ea5e8c1e8ba8aa5ffed6e00967488dd8",
        "ce86729aa22f8027b0794bbb387315afe9636ed9d0f4a766883ce04f6cf03cdf",
    );
    let daemon = scene.start();
    for (info_hash, host, left) in [
        (alpha.as_str(), 1, 0),
        (&alpha, 2, 0),
        (&alpha, 3, 9),
        (&beta, 4, 9),
        // The same host under both IDs of a hybrid torrent.
        (v1, 5, 0),
        (v2, 5, 0),
    ] {
        announce(&daemon, info_hash, host, left, "started");
    }
    announce(&daemon, &alpha, 3, 0, "completed");
    announce(&daemon, &alpha, 6, 9, "");
    get(daemon.addresses("http")[0], "/announce?info_hash=short");

    let report = scene.report();
    assert_eq!(report.version, env!("CARGO_PKG_VERSION"));
    assert!(report.last_reload_successful);
    let totals = report.totals;
    assert_eq!(
        (totals.torrents, totals.seeders, totals.leechers),
        (4, 5, 2)
    );
    assert_eq!((totals.peers_ipv4, totals.peers_ipv6), (7, 0));
    assert_eq!(report.counters["http_announces"], 8);
    assert_eq!(report.counters["malformed"], 1);
    assert_eq!(report.snapshot.interval, Some(300));
    let of = |name: &str, release: &Release| {
        assert_eq!(release.name, name);
        (release.seeders, release.leechers, release.downloads)
    };
    let [a, b, hybrid] = &report.releases[..] else {
        panic!("{:?}", report.releases);
    };
    assert_eq!(of("alpha-1.0-amd64.iso", a), (3, 1, 1));
    assert_eq!(of("Beta-2.0-amd64.iso", b), (0, 1, 0));
    assert_eq!(of("disc.iso", hybrid), (1, 0, 0));
    assert_eq!(
        (a.health, b.health),
        (ReleaseHealth::Seeded, ReleaseHealth::NeverSeeded)
    );
    assert_eq!(
        (hybrid.v1.as_deref(), hybrid.v2.as_deref()),
        (Some(v1), Some(v2))
    );
    assert!(
        b.file
            .as_ref()
            .unwrap()
            .ends_with("torrents/Beta-2.0-amd64.iso.torrent")
    );

    // The output is not a terminal, so it has no colors.
    let status = scene.output(&["status"]);
    for part in [
        "tbtt       0.1.0, up ",
        "releases   3: 2 seeded, ",
        "peers      7: 7 IPv4, 0 IPv6; 5 seeders, 2 leechers; in 4 torrents\n",
        "announces  8 since start, ",
        "refusals   1 since start, ",
        ": malformed 1\n",
        "snapshot   ",
    ] {
        assert!(status.contains(part), "{part}: {status}");
    }

    let names = |arguments: &[&str]| {
        let table = scene.output(&[&["torrents"], arguments].concat());
        let rows = table.lines().skip(1);
        rows.map(|row| row.rsplit(' ').next().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let (a, b, hybrid) = ("alpha-1.0-amd64.iso", "Beta-2.0-amd64.iso", "disc.iso");
    assert_eq!(names(&["--sort", "seeders"]), [a, hybrid, b]);
    assert_eq!(names(&["--sort", "size", "--reverse"]), [b, hybrid, a]);
    assert_eq!(names(&["--sort=name", "*-AMD64.iso"]), [b, a]);
    assert_eq!(names(&["lpha"]), [a]);
    assert_eq!(names(&["--unseeded"]), [b]);
    let listed: Vec<Release> =
        serde_json::from_str(&scene.output(&["torrents", "--json", "disc"])).unwrap();
    assert_eq!(listed.len(), 1);

    let details = scene.output(&["torrent", &beta[..8]]);
    for part in [
        "name          Beta-2.0-amd64.iso\n",
        "size          700 B (700 bytes)\n",
        &format!("v1            {beta}\n"),
        "health        never seeded\n",
        "leechers      1\n",
        "first seeded  never\n",
    ] {
        assert!(details.contains(part), "{part}: {details}");
    }
    assert_eq!(scene.release(v2).name, "disc.iso");
    assert_eq!(scene.release("ALPHA").v1, Some(alpha));
    let (error, exit) = scene.failure(&["torrent", "amd64"]);
    assert_eq!(exit, 1);
    assert!(error.contains("2 releases match \"amd64\":\n"), "{error}");
    assert_eq!(scene.failure(&["torrent", "gamma"]).1, 1);
}

#[test]
fn commands_finish_before_they_report() {
    let scene = Scene::new();
    let info_hash = scene.publish("one.iso", 1);
    let daemon = scene.start();
    announce(&daemon, &info_hash, 1, 0, "started");

    let file = scene.directory.path().join("state/snapshot");
    assert!(!file.exists());
    let saved = scene.output(&["snapshot"]);
    assert!(saved.starts_with("saved 1 peer of 1 torrent, "), "{saved}");
    assert!(file.exists());
    assert!(scene.report().snapshot.last.is_some());

    assert_eq!(scene.output(&["log-level"]), "debug\n");
    assert_eq!(scene.output(&["log-level", "warning"]), "warning\n");
    // The reload is below the log level now, so it is not logged, but it is done.
    assert_eq!(scene.output(&["reload"]), "reloaded\n");
    assert_eq!(scene.output(&["log-level"]), "debug\n", "as configured");
    assert_eq!(daemon.lines("log level changed"), [""; 0]);

    let config = daemon.directory().path().join("tbtt.toml");
    let good = fs::read_to_string(&config).unwrap();
    fs::write(
        &config,
        format!("{good}[tracker]\nintervall = 60\nnumwant = 'x'\n"),
    )
    .unwrap();
    let (error, exit) = scene.failure(&["reload"]);
    assert_eq!(exit, 78);
    let line = good.lines().count() + 2;
    let at = config.display();
    assert!(
        error.contains(&format!("{at}:{line}: [tracker] intervall: ")),
        "{error}"
    );
    assert!(
        error.contains(&format!("\n{at}:{}: [tracker] numwant: ", line + 1)),
        "{error}"
    );
    assert!(scene.output(&["status"]).contains(", last reload failed\n"));
    let (line, exit) = scene.check(&[]);
    assert_eq!(exit, 1);
    assert!(
        line.starts_with("TBTT WARNING - last reload failed | "),
        "{line}"
    );

    // The next valid configuration applies at once.
    fs::write(&config, good.replace("[torrents]", "[torrents]\nfull = 1")).unwrap();
    assert_eq!(scene.failure(&["reload"]).1, 78);
    fs::write(&config, good).unwrap();
    scene.output(&["reload"]);
    assert_eq!(scene.check(&[]).1, 0);
    scene.publish("two.iso", 2);
    scene.output(&["reload"]);
    until("the other release", || {
        (scene.report().releases.len() == 2).then_some(())
    });
}

#[test]
fn reports_a_release_without_a_seeder_across_restarts() {
    let mut scene = Scene::new();
    scene.keys = "seedless_after = 1";
    let info_hash = scene.publish("lonely.iso", 1);
    let mut daemon = scene.start();
    let id = format!(" name=lonely.iso id={info_hash}");
    daemon.wait_for_line(&format!("torrent published without a seeder{id}"));
    let (line, exit) = scene.check(&[]);
    assert_eq!(exit, 1);
    let text = "TBTT WARNING - releases that never had a seeder: lonely.iso | ";
    assert!(line.starts_with(text), "{line}");
    assert_eq!(scene.check(&["--never-seeded=,0"]).1, 2);
    assert_eq!(scene.check(&["--never-seeded=1"]).1, 0);
    let release = scene.release("lonely.iso");
    assert!(release.overdue);
    assert_eq!(
        (release.first_seed, release.health),
        (None, ReleaseHealth::NeverSeeded)
    );
    let status = scene.output(&["status"]);
    assert!(status.contains("  lonely.iso (never seeded)\n"), "{status}");

    announce(&daemon, &info_hash, 1, 0, "started");
    daemon.wait_for_line(&format!("torrent has a seeder{id}"));
    assert_eq!(scene.check(&[]).1, 0);
    let release = scene.release("lonely.iso");
    assert_eq!(
        (release.overdue, release.health),
        (false, ReleaseHealth::Seeded)
    );
    assert!(release.first_seed.unwrap() >= release.listed_since);

    announce(&daemon, &info_hash, 1, 0, "stopped");
    let lost = format!("torrent lost its last seeder{id} times=1");
    daemon.wait_for_line(&lost);
    let (line, exit) = scene.check(&[]);
    assert_eq!(exit, 2);
    assert!(
        line.starts_with("TBTT CRITICAL - releases that lost their last seeder: lonely.iso | "),
        "{line}"
    );
    let before = scene.release("lonely.iso");
    assert_eq!(
        (before.overdue, before.health),
        (true, ReleaseHealth::LostSeeds)
    );
    assert!(before.first_seed.is_some() && before.last_seed >= before.first_seed);

    assert!(daemon.stop().success());
    assert_eq!(
        daemon.lines("torrent published without a seeder").len(),
        1,
        "reported once"
    );
    let mut daemon = scene.start();
    assert_eq!(scene.release("lonely.iso"), before, "kept across a restart");
    assert_eq!(scene.check(&[]).1, 2, "still reported after a restart");
    announce(&daemon, &info_hash, 1, 0, "started");
    daemon.wait_for_line(&format!("torrent has a seeder{id}"));
    assert_eq!(scene.release("lonely.iso").first_seed, before.first_seed);
    assert!(daemon.stop().success());
    assert_eq!(
        daemon.lines("torrent lost its last seeder"),
        [""; 0],
        "reported before the restart only"
    );
}

#[test]
fn reports_a_daemon_that_is_not_running() {
    let scene = Scene::new();
    let socket = scene.socket();
    let at = socket.display();
    let (error, exit) = scene.failure(&["status"]);
    assert_eq!(exit, 69);
    assert!(
        error.contains(&format!("{at} does not exist; start tbtt (")),
        "{error}"
    );
    // The socket of a daemon that was killed remains.
    drop(UnixListener::bind(&socket).unwrap());
    for command in ["status", "torrents", "reload", "snapshot", "log-level"] {
        let (error, exit) = scene.failure(&[command]);
        assert_eq!(exit, 69, "{command}");
        let expected = format!("tbttctl: tbtt is not running: no process listens on {at}; ");
        assert!(error.starts_with(&expected), "{error}");
    }
    let (line, exit) = scene.check(&[]);
    assert_eq!(exit, 2);
    assert!(
        line.starts_with("TBTT CRITICAL - tbtt is not running"),
        "{line}"
    );

    // The next daemon replaces the socket; after a stop, tbttctl fails as before.
    let mut daemon = scene.start();
    scene.output(&["status"]);
    assert!(daemon.stop().success());
    assert_eq!(scene.failure(&["status"]).1, 69);
    // Another program listens on the socket.
    fs::remove_file(&socket).unwrap();
    let other = UnixListener::bind(&socket).unwrap();
    thread::spawn(move || other.accept().unwrap().0.write_all(b"220 mail\r\n"));
    let (line, exit) = scene.check(&[]);
    assert_eq!(exit, 3, "{line}");
}

#[test]
fn refuses_callers_without_permission() {
    let scene = Scene::new();
    scene.publish("one.iso", 1);
    let daemon = scene.start();
    let mode = fs::metadata(scene.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let run = |command: &str| {
        let mut command = scene.tbttctl(&[command]);
        if geteuid().is_root() {
            command.uid(STRANGER).gid(STRANGER);
        }
        command.output().unwrap()
    };
    if !geteuid().is_root() {
        fs::set_permissions(scene.socket(), Permissions::from_mode(0o020)).unwrap();
    }
    for command in ["status", "torrents", "reload", "snapshot", "log-level"] {
        let (error, exit) = failure(&run(command));
        assert_eq!(exit, 77, "{command}");
        let group = "run tbttctl as root or as a member of the group ";
        assert!(error.contains(group), "{error}");
    }
    let output = run("check");
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    if geteuid().is_root() {
        // If the mode of the socket admits everyone, the daemon itself checks the caller.
        fs::set_permissions(scene.socket(), Permissions::from_mode(0o666)).unwrap();
        for command in ["status", "torrents", "reload", "snapshot", "log-level"] {
            let (error, exit) = failure(&run(command));
            assert_eq!(exit, 77, "{command}");
            assert!(
                error.contains("only root, the daemon's user and "),
                "{error}"
            );
        }
    }
    assert_eq!(daemon.lines("reloaded"), [""; 0]);
    assert!(!scene.directory.path().join("state/snapshot").exists());
}

#[test]
fn daemon_serves_without_its_control_socket() {
    let scene = Scene::new();
    let info_hash = scene.publish("one.iso", 1);
    let config = scene.config().replace("/control'", "/no/such/place'");
    let daemon = Daemon::start(&config);
    announce(&daemon, &info_hash, 1, 0, "started");
    daemon.wait_for_line("cannot open the control socket; continuing without it reason=");

    // A second daemon does not replace a socket that is in use.
    let _first = scene.start();
    let second = Daemon::start(&scene.config());
    let line =
        second.wait_for_line("cannot open the control socket; continuing without it reason=");
    assert!(
        line.contains("another process listens on this path"),
        "{line}"
    );
    announce(&second, &info_hash, 1, 0, "started");
    scene.output(&["status"]);
}

#[test]
fn wrong_usage_exits_with_64() {
    let scene = Scene::new();
    for arguments in [
        &[][..],
        &["stats"],
        &["torrent"],
        &["log-level", "loud"],
        &["check", "--lost-seeds", "many"],
        // Standard input is not a terminal.
        &["top"],
    ] {
        let mut command = scene.tbttctl(arguments);
        let output = command.stdin(Stdio::null()).output().unwrap();
        assert_eq!(failure(&output).1, 64, "{arguments:?}");
    }
    assert!(scene.output(&["--help"]).contains("torrents"));
}

/// A command with a pseudoterminal. Dropping it kills the command.
struct Terminal {
    child: Child,
    input: File,
    output: Receiver<Vec<u8>>,
    seen: String,
}

impl Terminal {
    fn start(mut command: Command) -> Self {
        let OpenptyResult { master, slave } = openpty(None, None).unwrap();
        let child = command
            .env("TERM", "xterm")
            .stdin(slave.try_clone().unwrap())
            .stdout(slave)
            .spawn()
            .unwrap();
        // The command holds the terminal open as well.
        drop(command);
        let input = File::from(master);
        let mut screen = input.try_clone().unwrap();
        let (sender, output) = channel();
        thread::spawn(move || {
            let mut some = [0; 4096];
            // Reading fails once the last process has closed the terminal.
            while let Ok(length @ 1..) = screen.read(&mut some) {
                if sender.send(some[..length].to_owned()).is_err() {
                    return;
                }
            }
        });
        Self {
            child,
            input,
            output,
            seen: String::new(),
        }
    }

    /// Waits for text in the output. Each call starts after the output of the call before.
    fn until(&mut self, text: &str) {
        while !self.seen.contains(text) {
            let some = self.output.recv_timeout(PATIENCE);
            let some = some.unwrap_or_else(|_| panic!("no {text:?} in {:?}", self.seen));
            self.seen += &String::from_utf8_lossy(&some);
        }
        self.seen.clear();
    }

    fn type_in(&mut self, keys: &[u8]) {
        self.input.write_all(keys).unwrap();
    }

    /// Waits for the command to end, and returns the rest of its output.
    fn rest(mut self) -> String {
        let seen = until("its end", || match self.output.try_recv() {
            Ok(some) => {
                self.seen += &String::from_utf8_lossy(&some);
                None
            }
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(self.seen.clone()),
        });
        assert!(self.child.wait().unwrap().success());
        seen
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Fails if the command has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn terminal_gets_colors_and_continuous_updates() {
    let scene = Scene::new();
    let info_hash = scene.publish("one.iso", 1);
    let daemon = scene.start();
    announce(&daemon, &info_hash, 1, 0, "started");
    let shown = Terminal::start(scene.tbttctl(&["status"])).rest();
    assert!(shown.contains("\x1b[32m1 seeded\x1b[0m"), "{shown:?}");
    let mut plain = scene.tbttctl(&["status"]);
    plain.env("NO_COLOR", "1");
    let shown = Terminal::start(plain).rest();
    assert!(shown.contains("releases   1: 1 seeded"), "{shown:?}");

    let mut top = Terminal::start(scene.tbttctl(&["top", "--interval", "1"]));
    top.until("one.iso");
    // The terminal reports a smaller size.
    top.type_in(b"\x1b[12;30R");
    top.until("\x1b[12;1Hq quits; sort by: n name, s se\x1b");
    announce(&daemon, &info_hash, 2, 9, "started");
    top.until(" 2: 2 IPv4, 0 IPv6");
    top.type_in(b"q");
    assert!(top.rest().ends_with("\x1b[?25h\x1b[?1049l"));
}
