//! Tests of the tbtt-torrent program: the torrents that it creates, and the errors that it finds.

use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;

const TOOL: &str = env!("CARGO_BIN_EXE_tbtt-torrent");
const SAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/torrents");

/// The working directory of a test, removed afterwards unless the test fails.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("torrent-{name}"));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(TOOL);
        command
            .args(arguments)
            .current_dir(&self.0)
            .env_remove("SOURCE_DATE_EPOCH");
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs tbtt-torrent, which must succeed, and returns its output.
    #[track_caller]
    fn good(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs tbtt-torrent, which must exit with this status and print this text. Returns all output.
    #[track_caller]
    fn bad(&self, arguments: &[&str], status: i32, expected: &str) -> String {
        let output = self.run(arguments);
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {text}");
        assert!(text.contains(expected), "{arguments:?}: {text}");
        text
    }

    fn show(&self, torrent: &str) -> serde_json::Value {
        serde_json::from_str(&self.good(&["show", "--json", torrent])).unwrap()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if !thread::panicking() {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

/// Returns the same bytes as content() in tests/torrents/make.py.
fn content(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed;
    let mut bytes = Vec::new();
    while bytes.len() < size {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        bytes.extend(state.to_be_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// Writes the files of tests/torrents/make.py.
fn write_sample_files(directory: &Directory) {
    directory.write("disc.iso", &content(1, 100_001));
    directory.write("small.iso", &content(1, 1_000));
    directory.write("discs/SHA256SUMS", &content(1, 321));
    directory.write("discs/amd64/empty", b"");
    directory.write("discs/amd64/one.iso", &content(3, 50_000));
    directory.write("discs/amd64/two.iso", &content(4, 16_384));
    directory.write("discs/arm64/grüße.iso", &content(5, 70_000));
}

#[test]
fn info_hashes_match_libtorrent() {
    let directory = Directory::new("ids");
    write_sample_files(&directory);
    for line in fs::read_to_string(format!("{SAMPLES}/expected.txt"))
        .unwrap()
        .lines()
    {
        let [sample, v1, v2, size, name] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{line}");
        };
        let format = sample.split('-').next().unwrap();
        let mut arguments = vec![
            "create", name, "-l", "16K", "--format", format, "-o", "x", "-f",
        ];
        if name == "small.iso" {
            arguments.push("--private");
        }
        directory.good(&arguments);
        let report = directory.show("x");
        // libtorrent 2.0.8 pads the last piece of a directory as well, which no client requires.
        if (name, format) != ("discs", "hybrid") {
            assert_eq!(report["v1"].as_str().unwrap_or("-"), v1, "{line}");
            assert_eq!(report["v2"].as_str().unwrap_or("-"), v2, "{line}");
        }
        assert_eq!(report["size"].to_string(), size, "{line}");
        directory.good(&["verify", "x", name]);
        directory.good(&["verify", &format!("{SAMPLES}/{sample}"), name]);
    }
}

#[test]
fn same_input_gives_same_bytes() {
    let directory = Directory::new("same");
    write_sample_files(&directory);
    directory.write("long", &content(7, 9_000_000));
    for name in ["discs", "long"] {
        for format in ["v1", "v2", "hybrid"] {
            let create = |threads: &str, epoch: Option<&str>| {
                let mut command = directory.command(&["create", name, "-o", "-", "-t", threads]);
                command.args(["-l", "64K", "--format", format, "--comment", "for all"]);
                command.envs(epoch.map(|epoch| ("SOURCE_DATE_EPOCH", epoch)));
                let output = command.output().unwrap();
                assert!(output.status.success(), "{output:?}");
                output.stdout
            };
            let plain = create("1", None);
            assert_eq!(plain, create("3", None), "{name} {format}");
            assert!(!plain.windows(13).any(|text| text == b"creation date"));
            let dated = create("2", Some("1700000000"));
            let text = b"13:creation datei1700000000e";
            assert!(dated.windows(text.len()).any(|window| window == text));
        }
    }
    let mut command = directory.command(&["create", "long", "-o", "-"]);
    let output = command.env("SOURCE_DATE_EPOCH", "now").output().unwrap();
    assert_eq!(output.status.code(), Some(64));
}

#[test]
fn torrent_contains_all_options_of_create() {
    let directory = Directory::new("everything");
    write_sample_files(&directory);
    let id = "0123456789abcdef0123456789abcdef01234567";
    directory.good(&[
        "create",
        "discs",
        "disc.iso",
        "--announce",
        "http://a.example/announce,udp://a.example:6969",
        "--announce",
        "http://b.example/announce",
        "--web-seed",
        "https://m.example/pub/",
        "--node",
        "[2001:db8::1]:6881",
        "--comment",
        "a comment",
        "--source",
        "here",
        "--similar",
        id,
        "--collection",
        "discs",
        "--exclude",
        "*.iso",
        "--private",
        "--quiet",
    ]);
    let report = directory.show("discs.torrent");
    let tiers = [
        &["http://a.example/announce", "udp://a.example:6969"][..],
        &["http://b.example/announce"],
    ];
    assert_eq!(report["trackers"], serde_json::json!(tiers));
    assert_eq!(report["web_seeds"][0], "https://m.example/pub/");
    assert_eq!(report["nodes"][0], "2001:db8::1:6881");
    assert_eq!(report["comment"], "a comment");
    assert_eq!(report["source"], "here");
    assert_eq!(report["similar"][0], id);
    assert_eq!(report["collections"][0], "discs");
    assert_eq!(report["private"], true);
    let paths = report["files"].as_array().unwrap().iter();
    let paths: Vec<_> = paths.map(|file| file["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["SHA256SUMS", "amd64/empty"]);

    let report = directory.show("disc.iso.torrent");
    assert_eq!(report["web_seeds"][0], "https://m.example/pub/disc.iso");
    let link = directory.good(&["magnet", "disc.iso.torrent"]);
    assert_eq!(link.trim_end(), report["magnet"]);
    let (v1, v2) = (
        report["v1"].as_str().unwrap(),
        report["v2"].as_str().unwrap(),
    );
    let bare = format!("magnet:?xt=urn:btih:{v1}&xt=urn:btmh:1220{v2}");
    assert_eq!(
        directory
            .good(&["magnet", "--bare", "disc.iso.torrent"])
            .trim_end(),
        bare
    );
    assert_eq!(
        link.trim_end(),
        bare + "&dn=disc.iso&xl=100001&tr=http%3A%2F%2Fa.example%2Fannounce&tr=udp%3A%2F%2Fa.example%3A6969\
            &tr=http%3A%2F%2Fb.example%2Fannounce&ws=https%3A%2F%2Fm.example%2Fpub%2Fdisc.iso"
    );
    let text = directory.good(&["show", "discs.torrent", "disc.iso.torrent"]);
    assert!(text.contains("amd64/empty") && text.contains(v2), "{text}");
}

#[test]
fn create_refuses_invalid_input() {
    let directory = Directory::new("refused");
    directory.write("empty/a", b"");
    directory.write("a.iso", b"data");
    directory.write("tree/a", b"data");
    directory.bad(&["create", "empty"], 65, "no data");
    directory.bad(&["create", "absent"], 66, "absent");
    directory.bad(&["create", "a.iso", "absent"], 66, "absent");
    assert!(!directory.0.join("a.iso.torrent").exists());
    directory.bad(&["create", "tree", "-o", "tree/x.torrent"], 64, "inside");
    directory.bad(&["create", "a.iso", "-l", "100000"], 64, "power of two");
    directory.bad(&["create", "a.iso", "-l", "8K"], 64, "power of two");
    directory.bad(&["create", "a.iso", "-l", "0"], 64, "a size is a number");
    directory.bad(&["create", "a.iso", "-a", "tracker:6969"], 64, "not a URL");
    directory.bad(
        &["create", "a.iso", "-w", "https://m.example/pub"],
        64,
        "must end in",
    );
    directory.bad(&["create", "a.iso", "-w", "//srv/pub/"], 64, "not a URL");
    directory.bad(
        &["create", "a.iso", "--similar", "12"],
        64,
        "40 hexadecimal",
    );
    directory.bad(
        &["create", "a.iso", "tree", "-o", "x"],
        64,
        "not a directory",
    );
    directory.bad(&["create", "a.iso", "-o", "no/x"], 73, "no/x");
    directory.bad(
        &["create", "a.iso", "--name", "../b"],
        64,
        "cannot be the name",
    );
    directory.bad(&["nothing"], 64, "nothing");

    directory.good(&["create", "a.iso", "--format", "v1", "-l", "100000"]);
    let first = fs::read(directory.0.join("a.iso.torrent")).unwrap();
    directory.bad(&["create", "a.iso"], 73, "--force");
    assert_eq!(fs::read(directory.0.join("a.iso.torrent")).unwrap(), first);
    directory.good(&["create", "a.iso", "--force"]);
    assert_ne!(fs::read(directory.0.join("a.iso.torrent")).unwrap(), first);
}

#[test]
fn create_refuses_special_files_and_names() {
    let directory = Directory::new("special");
    directory.write("a.iso", b"data");
    directory.write("tree/a", b"data");
    directory.good(&["create", "a.iso"]);
    symlink("a", directory.0.join("tree/link")).unwrap();
    directory.bad(&["create", "tree"], 65, "tree/link");
    directory.good(&["create", "tree", "-x", "link", "-q"]);
    fs::remove_file(directory.0.join("tree/link")).unwrap();
    nix::unistd::mkfifo(
        &directory.0.join("tree/pipe"),
        nix::sys::stat::Mode::S_IRWXU,
    )
    .unwrap();
    directory.bad(&["create", "tree", "-f"], 65, "tree/pipe");
    directory.bad(
        &["verify", "a.iso.torrent", "tree/pipe"],
        1,
        "tree/pipe: is not a regular file; wrong piece: 0\n",
    );
    fs::remove_file(directory.0.join("tree/pipe")).unwrap();
    File::create(
        directory
            .0
            .join(Path::new("tree").join(std::ffi::OsStr::from_bytes(b"\xff"))),
    )
    .unwrap();
    directory.bad(&["create", "tree", "-f"], 65, "not UTF-8");
    // No temporary file is left.
    let hidden = fs::read_dir(&directory.0).unwrap().filter(|entry| {
        let name = entry.as_ref().unwrap().file_name();
        name.as_bytes().starts_with(b".")
    });
    assert_eq!(hidden.count(), 0);
}

#[test]
fn verify_names_wrong_pieces_and_files() {
    let directory = Directory::new("verify");
    write_sample_files(&directory);
    for format in ["v1", "v2", "hybrid"] {
        directory.good(&[
            "create", "discs", "disc.iso", "-l", "16K", "--format", format, "-f",
        ]);
        assert!(
            directory
                .good(&["verify", "discs.torrent"])
                .contains("no errors")
        );
        assert_eq!(directory.good(&["verify", "-q", "disc.iso.torrent"]), "");
        fs::rename(directory.0.join("disc.iso"), directory.0.join("moved")).unwrap();
        directory.bad(&["verify", "disc.iso.torrent"], 66, "disc.iso");
        directory.good(&["verify", "disc.iso.torrent", "moved"]);
        fs::rename(directory.0.join("moved"), directory.0.join("disc.iso")).unwrap();

        let mut one = content(3, 50_000);
        one[20_000] ^= 1;
        directory.write("discs/amd64/one.iso", &one);
        let text = directory.bad(&["verify", "discs.torrent"], 1, "1 of ");
        assert!(
            text.contains("one.iso: wrong piece: ") && !text.contains("two.iso"),
            "{text}"
        );
        fs::remove_file(directory.0.join("discs/amd64/two.iso")).unwrap();
        directory.bad(
            &["verify", "discs.torrent"],
            1,
            "two.iso: is missing; wrong piece",
        );
        fs::remove_file(directory.0.join("discs/amd64/empty")).unwrap();
        directory.bad(&["verify", "discs.torrent"], 1, "empty: is missing\n");

        directory.write("disc.iso", &content(1, 100_000));
        directory.bad(
            &["verify", "disc.iso.torrent"],
            1,
            "has 100000 bytes instead of 100001; wrong piece: 6\n",
        );
        directory.write("disc.iso", &content(1, 100_002));
        directory.bad(&["verify", "disc.iso.torrent"], 1, "has 100002 bytes");
        write_sample_files(&directory);
    }
}

#[test]
fn edit_keeps_the_info_hashes() {
    let directory = Directory::new("edit");
    write_sample_files(&directory);
    directory.good(&[
        "create",
        "disc.iso",
        "discs",
        "-a",
        "http://old.example/announce",
        "-w",
        "http://old.example/",
    ]);
    let [before, tree] =
        ["disc.iso.torrent", "discs.torrent"].map(|torrent| directory.show(torrent));
    let first = fs::read(directory.0.join("disc.iso.torrent")).unwrap();
    directory.good(&["edit", "disc.iso.torrent", "discs.torrent"]);
    assert_eq!(
        fs::read(directory.0.join("disc.iso.torrent")).unwrap(),
        first
    );
    directory.good(&[
        "edit",
        "disc.iso.torrent",
        "discs.torrent",
        "-a",
        "http://new.example/announce",
        "-w",
        "http://new.example/",
        "-c",
        "moved",
    ]);
    for (torrent, before, seed) in [
        ("disc.iso.torrent", before, "http://new.example/disc.iso"),
        ("discs.torrent", tree, "http://new.example/"),
    ] {
        let after = directory.show(torrent);
        assert_eq!((&after["v1"], &after["v2"]), (&before["v1"], &before["v2"]));
        assert_eq!(
            after["trackers"],
            serde_json::json!([["http://new.example/announce"]])
        );
        assert_eq!(after["web_seeds"], serde_json::json!([seed]));
        assert_eq!(after["comment"], "moved");
        directory.good(&["verify", torrent]);
    }
    let bare = directory.good(&[
        "edit",
        "disc.iso.torrent",
        "--no-announce",
        "--no-web-seeds",
        "--comment",
        "",
        "-o",
        "bare.torrent",
    ]);
    assert_eq!(bare, "");
    let bare = directory.show("bare.torrent");
    assert_eq!(bare["trackers"], serde_json::json!([]));
    assert_eq!(bare["comment"], serde_json::Value::Null);
    let same = fs::read(directory.0.join("disc.iso.torrent")).unwrap();
    directory.bad(
        &["edit", "disc.iso.torrent", "-w", "http://new.example"],
        64,
        "must end in",
    );
    assert_eq!(
        fs::read(directory.0.join("disc.iso.torrent")).unwrap(),
        same
    );
}

const TRACKER: &str = "http://t.example:6969/announce";
const LINT: [&str; 4] = ["lint", "r", "--announce", TRACKER];

/// Creates the directory `r` with two torrents that have no errors.
fn lint_directory(name: &str) -> Directory {
    let directory = Directory::new(name);
    directory.write("r/a.iso", b"one");
    directory.write("r/b.iso", b"two");
    directory.bad(&LINT, 66, "no torrent");
    directory.good(&["create", "r/a.iso", "-a", TRACKER]);
    assert_eq!(directory.good(&LINT), "1 torrent checked, no errors\n");
    let seed = "https://m.example/r/";
    directory.good(&["create", "r/b.iso", "-a", TRACKER, "-w", seed]);
    assert_eq!(directory.good(&LINT), "2 torrents checked, no errors\n");
    directory
}

#[test]
fn lint_reports_invalid_torrents() {
    let directory = lint_directory("lint-torrents");
    directory.write("r/page.torrent", b"<html>");
    directory.bad(&LINT, 1, "r/page.torrent: at byte 0");
    // Names that start with a dot are skipped.
    let hidden = directory.0.join("r/.page.torrent");
    fs::rename(directory.0.join("r/page.torrent"), hidden).unwrap();
    directory.good(&LINT);
    directory.bad(&["lint", "absent"], 1, "absent: cannot be read");
}

#[test]
fn lint_reports_trackers() {
    let directory = lint_directory("lint-trackers");
    directory.bad(
        &["lint", "r", "-a", "http://new.example/announce"],
        2,
        "is not one of those given",
    );
    directory.bad(
        &[
            "lint",
            "r",
            "-a",
            &format!("{TRACKER},udp://t.example:6969"),
        ],
        2,
        "`udp://t.example:6969` is missing",
    );
    directory.good(&["create", "r/b.iso", "-a", TRACKER, "--private", "-f"]);
    directory.bad(&LINT, 2, "private");
    directory.good(&["create", "r/b.iso", "-f"]);
    directory.bad(&["lint", "r"], 2, "has no tracker");
}

#[test]
fn lint_reports_duplicate_info_hashes() {
    let directory = lint_directory("lint-ids");
    let copy = directory.0.join("r/c.torrent");
    fs::copy(directory.0.join("r/b.iso.torrent"), copy).unwrap();
    let expected = "r/c.torrent: has the same info-hash as `r/b.iso.torrent`";
    let text = directory.bad(&LINT, 4, expected);
    assert!(text.contains("3 torrents checked, 2 errors"), "{text}");
}

#[test]
fn lint_reports_missing_and_different_files() {
    let directory = lint_directory("lint-files");
    directory.write("r/b.iso", b"too much");
    directory.bad(&LINT, 8, "`r/b.iso` has 8 bytes instead of 3");
    directory.write("r/b.iso", b"1");
    directory.bad(&LINT, 8, "`r/b.iso` has 1 byte instead of 3");
    fs::remove_file(directory.0.join("r/b.iso")).unwrap();
    let text = directory.bad(&LINT, 8, "`r/b.iso` is missing");
    assert!(text.ends_with("2 torrents checked, 1 error\n"), "{text}");
    directory.write("data/a.iso", b"one");
    directory.write("data/b.iso", b"two");
    directory.good(&["lint", "r", "--data", "data", "-q"]);
}

#[test]
fn lint_reports_web_seeds() {
    let directory = lint_directory("lint-seeds");
    directory.good(&["create", "r/b.iso", "-a", TRACKER, "-f"]);
    // Debian once published such torrents: with the path at which they were built.
    let torrent = fs::read(directory.0.join("r/b.iso.torrent")).unwrap();
    let built = b"9:httpseedsl21://srv/build/dst/b.isoe4:info";
    let at = torrent
        .windows(6)
        .position(|window| window == b"4:info")
        .unwrap();
    let built = [&torrent[..at], built, &torrent[at + 6..]].concat();
    directory.write("r/b.iso.torrent", &built);
    directory.bad(&LINT, 16, "`//srv/build/dst/b.iso` is not a URL");
    directory.good(&["edit", "r/b.iso.torrent", "--no-web-seeds"]);
    let edited = fs::read(directory.0.join("r/b.iso.torrent")).unwrap();
    assert_eq!(edited, torrent);
}

#[test]
fn lint_reports_checksum_files() {
    let directory = lint_directory("lint-checksums");
    for tool in ["sha256sum", "sha512sum"] {
        let sums = format!("r/{}", tool.replace("sum", "sums").to_uppercase());
        let output = Command::new(tool)
            .args(["a.iso.torrent", "b.iso.torrent", "a.iso"])
            .current_dir(directory.0.join("r"))
            .output()
            .unwrap();
        directory.write(&sums, &output.stdout);
        directory.good(&LINT);
        let text = String::from_utf8(output.stdout).unwrap();
        let other_name = text.replace("b.iso.torrent", "z.torrent");
        directory.write(&sums, other_name.as_bytes());
        let output = directory.bad(&LINT, 32, "lists `z.torrent`, which is missing");
        assert!(output.contains("is not listed in SHA"), "{output}");
        directory.write(&sums, text.replace(&text[..1], "x").as_bytes());
        directory.bad(&LINT, 32, "another checksum");
        fs::remove_file(directory.0.join(&sums)).unwrap();
    }
}

#[test]
fn lint_adds_the_classes_of_errors() {
    let directory = lint_directory("lint-sum");
    directory.write("r/a.iso", b"");
    directory.bad(
        &["lint", "r", "-a", "http://new.example/announce"],
        2 + 8,
        "5 errors",
    );
}

/// Starts a mirror that responds to HEAD requests: correctly below `/pub/` and `/tree/`, wrongly elsewhere. Returns its
/// URL.
#[cfg(feature = "online")]
fn start_mirror() -> String {
    use std::io::{Read as _, Write as _};

    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mirror = format!("http://{}/", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
                request.push(byte[0]);
            }
            let path = request.split(|byte| *byte == b' ').nth(1).unwrap();
            let response = match path {
                b"/pub/a%20b.iso" | b"/tree/r/sub/x" => "200 OK\r\nContent-Length: 4",
                b"/short/a%20b.iso" => "200 OK\r\nContent-Length: 3",
                b"/moved/a%20b.iso" => "302 Found\r\nLocation: http://other.example/",
                _ => "404 Not Found\r\nContent-Length: 0",
            };
            let response = format!("HTTP/1.1 {response}\r\nConnection: close\r\n\r\n");
            stream.write_all(response.as_bytes()).unwrap();
        }
    });
    mirror
}

#[cfg(feature = "online")]
#[test]
fn lint_online_checks_web_seeds() {
    let mirror = start_mirror();
    let directory = Directory::new("online");
    directory.write("a b.iso", b"data");
    directory.write("r/sub/x", b"data");
    let lint = ["lint", "--online", "-q", "."];
    let create = |name: &str, seed: &str| {
        directory.good(&["create", name, "-f", "-a", TRACKER, "-w", seed]);
    };
    for (path, expected) in [
        ("pub", None),
        ("short", Some("has 3 bytes instead of 4")),
        ("moved", Some("redirects to `http://other.example/`")),
        ("absent", Some("responds with 404")),
    ] {
        create("a b.iso", &format!("{mirror}{path}/"));
        match expected {
            None => assert_eq!(directory.good(&lint), ""),
            Some(expected) => drop(directory.bad(&lint, 16, expected)),
        }
    }
    create("a b.iso", "http://127.0.0.1:1/");
    directory.bad(&lint, 16, "does not respond");
    directory.good(&["lint", "-q", "."]);
    fs::remove_file(directory.0.join("a b.iso.torrent")).unwrap();
    create("r", &format!("{mirror}tree/"));
    directory.good(&lint);
}

/// A file that is not a usual torrent.
struct Strange {
    name: &'static str,
    bytes: Vec<u8>,
    /// Whether all commands except verify accept the torrent.
    readable: bool,
    /// The exit status of verify.
    verify: i32,
    /// A part of the error message.
    message: &'static str,
}

fn invalid(name: &'static str, bytes: impl Into<Vec<u8>>, message: &'static str) -> Strange {
    Strange {
        name,
        bytes: bytes.into(),
        readable: false,
        verify: 65,
        message,
    }
}

fn readable(name: &'static str, bytes: Vec<u8>, verify: i32, message: &'static str) -> Strange {
    Strange {
        name,
        bytes,
        readable: true,
        verify,
        message,
    }
}

/// Returns a torrent of version 1 with a file in a directory.
fn v1_torrent(name: &str, path: &str) -> Vec<u8> {
    format!(
        "d4:infod5:filesld6:lengthi4e4:path{path}ee4:name{}:{name}12:piece lengthi16384e6:pieces20:{}ee",
        name.len(),
        "x".repeat(20)
    )
    .into_bytes()
}

fn strange_torrents() -> Vec<Strange> {
    let single = |info: &str| format!("d4:infod{info}ee");
    let deep = [b"d1:a".repeat(200_000), b"e".repeat(200_000)].concat();
    let huge = b"d4:infod6:lengthi9223372036854775807e4:name1:a12:piece lengthi9223372036854775807e6:pieces20:xxxxxxxxxxxxxxxxxxxxee";
    let negative = single("6:lengthi-4e4:name1:a12:piece lengthi16384e6:pieces0:");
    let zero = single("6:lengthi4e4:name1:a12:piece lengthi0e6:pieces0:");
    let wide = single("6:lengthi99999999999999999999e4:name1:a");
    let mut non_utf8 = v1_torrent("r", "l4:abcde");
    let at = non_utf8
        .windows(4)
        .position(|window| window == b"abcd")
        .unwrap();
    non_utf8[at] = 0xff;
    let not_a_name = "not a file name";
    vec![
        invalid("empty", "", "unexpected end of file"),
        invalid("page", "<html>", "expected a dictionary"),
        invalid("unsorted", single("4:name1:a6:lengthi4e"), "out of order"),
        invalid("twice", single("4:name1:a4:name1:b"), "duplicate key"),
        invalid("deep", deep, "100 deep"),
        invalid("negative", negative, "length"),
        invalid("zero", zero, "is 0"),
        invalid("wide", wide, "64 bits"),
        invalid("string", "d4:info99999999999:xe", "extends past"),
        readable("huge", huge.to_vec(), 66, "a: "),
        readable("above", v1_torrent("r", "l2:..1:ae"), 65, not_a_name),
        readable("root", v1_torrent("r", "l4:/etce"), 65, not_a_name),
        readable("name", v1_torrent("../r", "l1:ae"), 65, not_a_name),
        readable("nothing", v1_torrent("r", "l0:e"), 65, not_a_name),
        readable("control", v1_torrent("r", "l4:a\n\x1b[e"), 66, "r: "),
        readable("bytes", non_utf8, 66, "r: "),
    ]
}

/// Each command accepts a strange torrent or reports an error, and touches no file outside of the directory.
#[test]
fn strange_torrents_are_accepted_or_refused() {
    let directory = Directory::new("strange");
    for torrent in strange_torrents() {
        let file = format!("{}.torrent", torrent.name);
        directory.write(&file, &torrent.bytes);
        if torrent.readable {
            let text = directory.good(&["show", &file]);
            assert!(!text.contains('\x1b'), "{text:?}");
            directory.good(&["show", "--json", &file]);
            assert!(directory.good(&["magnet", &file]).is_ascii());
            directory.good(&["edit", &file, "-a", TRACKER, "-o", "edited"]);
        } else {
            for command in ["show", "magnet", "edit"] {
                directory.bad(&[command, &file], 65, torrent.message);
            }
        }
        let text = directory.bad(&["verify", &file], torrent.verify, torrent.message);
        assert!(
            torrent.verify != 65 || text.contains(torrent.name),
            "{text}"
        );
    }
    let status = directory.run(&["lint", "."]).status.code().unwrap();
    assert_eq!(status & 1, 1);
    directory.write("a", b"data");
    directory.bad(&["verify", "huge.torrent"], 1, "has 4 bytes");
    directory.bad(&["show", "absent"], 66, "cannot read absent");
}

#[test]
fn manual_examples_work() {
    let directory = Directory::new("manual");
    directory.write("example-1.0.iso", &content(1, 300_000));
    directory.write("example-1.0/README", b"read me\n");
    directory.write("example-1.0/doc/manual", &content(2, 40_000));
    directory.write("example-1.0/doc/manual~", b"old\n");
    let manual = concat!(env!("CARGO_MANIFEST_DIR"), "/man/tbtt-torrent.1");
    let text = fs::read_to_string(manual).unwrap();
    let (_, examples) = text.split_once(".Sh EXAMPLES\n").unwrap();
    let (examples, _) = examples.split_once("\n.Sh ").unwrap();
    let mut script = String::new();
    let mut count = 0;
    for block in examples.split(".Bd -literal").skip(1) {
        let (_, block) = block.split_once('\n').unwrap();
        let (block, _) = block.split_once(".Ed").unwrap();
        script += &block.replace("\\e", "\\").replace("\\-", "-");
        count += 1;
    }
    assert!(count >= 5, "{count} examples");
    let path = format!(
        "{}:{}",
        Path::new(TOOL).parent().unwrap().display(),
        std::env::var("PATH").unwrap()
    );
    let output = Command::new("sh")
        .args(["-eux", "-c", &script])
        .current_dir(&directory.0)
        .env("PATH", path)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
