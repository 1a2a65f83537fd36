//! tbtt-torrent from outside: what it makes, finds and refuses.

use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;

const TOOL: &str = env!("CARGO_BIN_EXE_tbtt-torrent");
const SAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/torrents");

/// A directory of the test's own.
struct Place(PathBuf);

impl Place {
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

    /// What it prints, which it must do well.
    #[track_caller]
    fn good(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// It ends with this status, and says this.
    #[track_caller]
    fn bad(&self, arguments: &[&str], status: i32, told: &str) -> String {
        let output = self.run(arguments);
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {text}");
        assert!(text.contains(told), "{arguments:?}: {text}");
        text
    }

    fn show(&self, torrent: &str) -> serde_json::Value {
        serde_json::from_str(&self.good(&["show", "--json", torrent])).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !thread::panicking() {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

/// The same bytes as content() of tests/torrents/make.py.
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

/// The files of tests/torrents/make.py.
fn with_sample_files(place: &Place) {
    place.write("disc.iso", &content(1, 100_001));
    place.write("small.iso", &content(1, 1_000));
    place.write("discs/SHA256SUMS", &content(1, 321));
    place.write("discs/amd64/empty", b"");
    place.write("discs/amd64/one.iso", &content(3, 50_000));
    place.write("discs/amd64/two.iso", &content(4, 16_384));
    place.write("discs/arm64/grüße.iso", &content(5, 70_000));
}

#[test]
fn ids_are_those_of_libtorrent() {
    let place = Place::new("ids");
    with_sample_files(&place);
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
        place.good(&arguments);
        let report = place.show("x");
        // libtorrent 2.0.8 fills up the last piece of a tree as well, which no client needs.
        if (name, format) != ("discs", "hybrid") {
            assert_eq!(report["v1"].as_str().unwrap_or("-"), v1, "{line}");
            assert_eq!(report["v2"].as_str().unwrap_or("-"), v2, "{line}");
        }
        assert_eq!(report["size"].to_string(), size, "{line}");
        place.good(&["verify", "x", name]);
        place.good(&["verify", &format!("{SAMPLES}/{sample}"), name]);
    }
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let place = Place::new("same");
    with_sample_files(&place);
    place.write("long", &content(7, 9_000_000));
    for name in ["discs", "long"] {
        for format in ["v1", "v2", "hybrid"] {
            let make = |threads: &str, epoch: Option<&str>| {
                let mut command = place.command(&["create", name, "-o", "-", "-t", threads]);
                command.args(["-l", "64K", "--format", format, "--comment", "for all"]);
                command.envs(epoch.map(|epoch| ("SOURCE_DATE_EPOCH", epoch)));
                let output = command.output().unwrap();
                assert!(output.status.success(), "{output:?}");
                output.stdout
            };
            let one = make("1", None);
            assert_eq!(one, make("3", None), "{name} {format}");
            assert!(!one.windows(13).any(|text| text == b"creation date"));
            let dated = make("2", Some("1700000000"));
            let text = b"13:creation datei1700000000e";
            assert!(dated.windows(text.len()).any(|window| window == text));
        }
    }
    let mut command = place.command(&["create", "long", "-o", "-"]);
    let output = command.env("SOURCE_DATE_EPOCH", "now").output().unwrap();
    assert_eq!(output.status.code(), Some(64));
}

#[test]
fn everything_that_is_asked_for_is_in_it() {
    let place = Place::new("everything");
    with_sample_files(&place);
    let id = "0123456789abcdef0123456789abcdef01234567";
    place.good(&[
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
    let report = place.show("discs.torrent");
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

    let report = place.show("disc.iso.torrent");
    assert_eq!(report["web_seeds"][0], "https://m.example/pub/disc.iso");
    let link = place.good(&["magnet", "disc.iso.torrent"]);
    assert_eq!(link.trim_end(), report["magnet"]);
    let (v1, v2) = (
        report["v1"].as_str().unwrap(),
        report["v2"].as_str().unwrap(),
    );
    let bare = format!("magnet:?xt=urn:btih:{v1}&xt=urn:btmh:1220{v2}");
    assert_eq!(
        place
            .good(&["magnet", "--bare", "disc.iso.torrent"])
            .trim_end(),
        bare
    );
    assert_eq!(
        link.trim_end(),
        bare + "&dn=disc.iso&xl=100001&tr=http%3A%2F%2Fa.example%2Fannounce&tr=udp%3A%2F%2Fa.example%3A6969\
            &tr=http%3A%2F%2Fb.example%2Fannounce&ws=https%3A%2F%2Fm.example%2Fpub%2Fdisc.iso"
    );
    let text = place.good(&["show", "discs.torrent", "disc.iso.torrent"]);
    assert!(text.contains("amd64/empty") && text.contains(v2), "{text}");
}

#[test]
fn what_would_surprise_is_refused() {
    let place = Place::new("refused");
    place.write("empty/a", b"");
    place.write("a.iso", b"data");
    place.write("tree/a", b"data");
    place.bad(&["create", "empty"], 65, "no data");
    place.bad(&["create", "absent"], 66, "absent");
    place.bad(&["create", "a.iso", "absent"], 66, "absent");
    assert!(!place.0.join("a.iso.torrent").exists());
    place.bad(&["create", "tree", "-o", "tree/x.torrent"], 64, "lies in");
    place.bad(&["create", "a.iso", "-l", "100000"], 64, "power of two");
    place.bad(&["create", "a.iso", "-l", "8K"], 64, "power of two");
    place.bad(&["create", "a.iso", "-l", "0"], 64, "size");
    place.bad(&["create", "a.iso", "-a", "tracker:6969"], 64, "not a URL");
    place.bad(
        &["create", "a.iso", "-w", "https://m.example/pub"],
        64,
        "must end in",
    );
    place.bad(&["create", "a.iso", "-w", "//srv/pub/"], 64, "not a URL");
    place.bad(
        &["create", "a.iso", "--similar", "12"],
        64,
        "40 hexadecimal",
    );
    place.bad(&["create", "a.iso", "tree", "-o", "x"], 64, "no directory");
    place.bad(&["create", "a.iso", "-o", "no/x"], 73, "no/x");
    place.bad(
        &["create", "a.iso", "--name", "../b"],
        64,
        "no torrent's name",
    );
    place.bad(&["nothing"], 64, "nothing");

    place.good(&["create", "a.iso", "--format", "v1", "-l", "100000"]);
    let first = fs::read(place.0.join("a.iso.torrent")).unwrap();
    place.bad(&["create", "a.iso"], 73, "--force");
    assert_eq!(fs::read(place.0.join("a.iso.torrent")).unwrap(), first);
    place.good(&["create", "a.iso", "--force"]);
    assert_ne!(fs::read(place.0.join("a.iso.torrent")).unwrap(), first);

    symlink("a", place.0.join("tree/link")).unwrap();
    place.bad(&["create", "tree"], 65, "tree/link");
    place.good(&["create", "tree", "-x", "link", "-q"]);
    fs::remove_file(place.0.join("tree/link")).unwrap();
    nix::unistd::mkfifo(&place.0.join("tree/pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    place.bad(&["create", "tree", "-f"], 65, "tree/pipe");
    place.bad(&["verify", "a.iso.torrent", "tree/pipe"], 1, "no file");
    fs::remove_file(place.0.join("tree/pipe")).unwrap();
    File::create(
        place
            .0
            .join(Path::new("tree").join(std::ffi::OsStr::from_bytes(b"\xff"))),
    )
    .unwrap();
    place.bad(&["create", "tree", "-f"], 65, "not UTF-8");
    // Nothing is left behind, and nobody could have met half a torrent.
    let hidden = fs::read_dir(&place.0).unwrap().filter(|entry| {
        let name = entry.as_ref().unwrap().file_name();
        name.as_bytes().starts_with(b".")
    });
    assert_eq!(hidden.count(), 0);
}

#[test]
fn wrong_pieces_and_files_are_named() {
    let place = Place::new("verify");
    with_sample_files(&place);
    for format in ["v1", "v2", "hybrid"] {
        place.good(&[
            "create", "discs", "disc.iso", "-l", "16K", "--format", format, "-f",
        ]);
        assert!(
            place
                .good(&["verify", "discs.torrent"])
                .contains("are right")
        );
        assert_eq!(place.good(&["verify", "-q", "disc.iso.torrent"]), "");
        fs::rename(place.0.join("disc.iso"), place.0.join("moved")).unwrap();
        place.bad(&["verify", "disc.iso.torrent"], 66, "disc.iso");
        place.good(&["verify", "disc.iso.torrent", "moved"]);
        fs::rename(place.0.join("moved"), place.0.join("disc.iso")).unwrap();

        let mut one = content(3, 50_000);
        one[20_000] ^= 1;
        place.write("discs/amd64/one.iso", &one);
        let text = place.bad(&["verify", "discs.torrent"], 1, "1 of ");
        assert!(
            text.contains("one.iso: wrong pieces: ") && !text.contains("two.iso"),
            "{text}"
        );
        fs::remove_file(place.0.join("discs/amd64/two.iso")).unwrap();
        place.bad(
            &["verify", "discs.torrent"],
            1,
            "two.iso: is missing; wrong pieces: ",
        );
        fs::remove_file(place.0.join("discs/amd64/empty")).unwrap();
        place.bad(&["verify", "discs.torrent"], 1, "empty: is missing\n");

        place.write("disc.iso", &content(1, 100_000));
        place.bad(
            &["verify", "disc.iso.torrent"],
            1,
            "has 100000 bytes instead of 100001; wrong pieces: 6\n",
        );
        place.write("disc.iso", &content(1, 100_002));
        place.bad(&["verify", "disc.iso.torrent"], 1, "has 100002 bytes");
        with_sample_files(&place);
    }
}

#[test]
fn an_edit_leaves_the_ids() {
    let place = Place::new("edit");
    with_sample_files(&place);
    place.good(&[
        "create",
        "disc.iso",
        "discs",
        "-a",
        "http://old.example/announce",
        "-w",
        "http://old.example/",
    ]);
    let [before, tree] = ["disc.iso.torrent", "discs.torrent"].map(|torrent| place.show(torrent));
    let first = fs::read(place.0.join("disc.iso.torrent")).unwrap();
    place.good(&["edit", "disc.iso.torrent", "discs.torrent"]);
    assert_eq!(fs::read(place.0.join("disc.iso.torrent")).unwrap(), first);
    place.good(&[
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
        let after = place.show(torrent);
        assert_eq!((&after["v1"], &after["v2"]), (&before["v1"], &before["v2"]));
        assert_eq!(
            after["trackers"],
            serde_json::json!([["http://new.example/announce"]])
        );
        assert_eq!(after["web_seeds"], serde_json::json!([seed]));
        assert_eq!(after["comment"], "moved");
        place.good(&["verify", torrent]);
    }
    let bare = place.good(&[
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
    let bare = place.show("bare.torrent");
    assert_eq!(bare["trackers"], serde_json::json!([]));
    assert_eq!(bare["comment"], serde_json::Value::Null);
    let same = fs::read(place.0.join("disc.iso.torrent")).unwrap();
    place.bad(
        &["edit", "disc.iso.torrent", "-w", "http://new.example"],
        64,
        "must end in",
    );
    assert_eq!(fs::read(place.0.join("disc.iso.torrent")).unwrap(), same);
}

#[test]
fn each_class_of_fault_has_its_status() {
    const OURS: &str = "http://t.example:6969/announce";
    let place = Place::new("lint");
    place.write("r/a.iso", b"one");
    place.write("r/b.iso", b"two");
    let lint = ["lint", "r", "--announce", OURS];
    place.bad(&lint, 66, "no torrent");
    place.good(&[
        "create",
        "r/a.iso",
        "r/b.iso",
        "-a",
        OURS,
        "-w",
        "https://m.example/r/",
    ]);
    assert_eq!(place.good(&lint), "2 torrents checked, nothing is wrong\n");

    place.write("r/page.torrent", b"<html>");
    place.bad(&lint, 1, "r/page.torrent: at byte 0");
    // As the tracker does, it passes over names that begin with a dot.
    fs::rename(
        place.0.join("r/page.torrent"),
        place.0.join("r/.page.torrent"),
    )
    .unwrap();
    place.good(&lint);
    place.bad(&["lint", "absent"], 1, "absent");

    place.bad(
        &["lint", "r", "-a", "http://new.example/announce"],
        2,
        "is not ours",
    );
    place.bad(
        &["lint", "r", "-a", &format!("{OURS},udp://t.example:6969")],
        2,
        "`udp://t.example:6969` is missing",
    );
    place.good(&["create", "r/b.iso", "-a", OURS, "--private", "-f"]);
    place.bad(&lint, 2, "private");
    place.good(&["create", "r/b.iso", "-f"]);
    place.bad(&["lint", "r"], 2, "names no tracker");
    place.good(&["create", "r/b.iso", "-a", OURS, "-f"]);

    fs::copy(place.0.join("r/b.iso.torrent"), place.0.join("r/c.torrent")).unwrap();
    place.bad(&lint, 4, "r/c.torrent: `r/b.iso.torrent` has the info-hash");
    fs::remove_file(place.0.join("r/c.torrent")).unwrap();

    place.write("r/b.iso", b"too much");
    place.bad(&lint, 8, "`r/b.iso` has 8 bytes instead of 3");
    fs::remove_file(place.0.join("r/b.iso")).unwrap();
    place.bad(&lint, 8, "`r/b.iso` is missing");
    place.write("data/a.iso", b"one");
    place.write("data/b.iso", b"two");
    place.good(&["lint", "r", "--data", "data", "-q"]);
    place.write("r/b.iso", b"two");

    // As published by Debian once: the path where it was built.
    let torrent = fs::read(place.0.join("r/b.iso.torrent")).unwrap();
    let built = b"9:httpseedsl21://srv/build/dst/b.isoe4:info";
    let at = torrent
        .windows(6)
        .position(|window| window == b"4:info")
        .unwrap();
    let built = [&torrent[..at], built, &torrent[at + 6..]].concat();
    place.write("r/b.iso.torrent", &built);
    place.bad(&lint, 16, "`//srv/build/dst/b.iso` is not a URL");
    place.good(&["edit", "r/b.iso.torrent", "--no-web-seeds"]);
    assert_eq!(fs::read(place.0.join("r/b.iso.torrent")).unwrap(), torrent);

    for tool in ["sha256sum", "sha512sum"] {
        let sums = format!("r/{}", tool.replace("sum", "sums").to_uppercase());
        let made = Command::new(tool)
            .args(["a.iso.torrent", "b.iso.torrent", "a.iso"])
            .current_dir(place.0.join("r"))
            .output()
            .unwrap();
        place.write(&sums, &made.stdout);
        place.good(&lint);
        let text = String::from_utf8(made.stdout).unwrap();
        place.write(&sums, text.replace("b.iso.torrent", "z.torrent").as_bytes());
        let told = place.bad(&lint, 32, "`z.torrent` is missing");
        assert!(told.contains("does not list it"), "{told}");
        place.write(&sums, text.replace(&text[..1], "x").as_bytes());
        place.bad(&lint, 32, "another checksum");
        fs::remove_file(place.0.join(&sums)).unwrap();
    }

    place.write("r/a.iso", b"");
    place.bad(
        &["lint", "r", "-a", "http://new.example/announce"],
        2 + 8,
        "5 faults",
    );
}

/// Answers HEAD for `/pub/`, as mirrors do, well and badly.
#[cfg(feature = "online")]
#[test]
fn web_seeds_are_asked() {
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
            let answer = match path {
                b"/pub/a%20b.iso" | b"/tree/r/sub/x" => "200 OK\r\nContent-Length: 4",
                b"/short/a%20b.iso" => "200 OK\r\nContent-Length: 3",
                b"/moved/a%20b.iso" => "302 Found\r\nLocation: http://other.example/",
                _ => "404 Not Found\r\nContent-Length: 0",
            };
            let answer = format!("HTTP/1.1 {answer}\r\nConnection: close\r\n\r\n");
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });

    let place = Place::new("online");
    place.write("a b.iso", b"data");
    place.write("r/sub/x", b"data");
    let lint = ["lint", "--online", "-q", "."];
    for (directory, told) in [
        ("pub", None),
        ("short", Some("has 3 bytes instead of 4")),
        ("moved", Some("redirects to `http://other.example/`")),
        ("absent", Some("404")),
    ] {
        let seed = format!("{mirror}{directory}/");
        place.good(&[
            "create",
            "a b.iso",
            "-f",
            "-a",
            "http://t.example/announce",
            "-w",
            &seed,
        ]);
        match told {
            None => assert_eq!(place.good(&lint), ""),
            Some(told) => drop(place.bad(&lint, 16, told)),
        }
    }
    place.good(&[
        "create",
        "a b.iso",
        "-f",
        "-a",
        "http://t.example/announce",
        "-w",
        "http://127.0.0.1:1/",
    ]);
    place.bad(&lint, 16, "cannot be asked");
    place.good(&["lint", "-q", "."]);
    fs::remove_file(place.0.join("a b.iso.torrent")).unwrap();
    let seed = format!("{mirror}tree/");
    place.good(&[
        "create",
        "r",
        "-a",
        "http://t.example/announce",
        "-w",
        &seed,
    ]);
    place.good(&lint);
}

/// What the world has for torrents ends in an answer or a fault with its place, and nothing is touched outside.
#[test]
fn strange_torrents_are_read_or_refused() {
    let place = Place::new("strange");
    let v1 = |name: &str, path: &str| {
        format!(
            "d4:infod5:filesld6:lengthi4e4:path{path}ee4:name{}:{name}12:piece lengthi16384e6:pieces20:{}ee",
            name.len(),
            "x".repeat(20)
        )
        .into_bytes()
    };
    let single = |info: &str| format!("d4:infod{info}ee").into_bytes();
    let deep = [b"d1:a".repeat(200_000), b"e".repeat(200_000)].concat();
    let huge = b"d4:infod6:lengthi9223372036854775807e4:name1:a12:piece lengthi9223372036854775807e6:pieces20:xxxxxxxxxxxxxxxxxxxxee";
    let mut non_utf8 = v1("r", "l4:abcde");
    let at = non_utf8
        .windows(4)
        .position(|window| window == b"abcd")
        .unwrap();
    non_utf8[at] = 0xff;
    // Whether it is a torrent that can be shown, and what verify says of it.
    for (name, bytes, readable, verified, told) in [
        ("empty", Vec::new(), false, 65, "unexpected end"),
        ("page", b"<html>".to_vec(), false, 65, "dictionary"),
        (
            "unsorted",
            single("4:name1:a6:lengthi4e"),
            false,
            65,
            "out of order",
        ),
        (
            "twice",
            single("4:name1:a4:name1:b"),
            false,
            65,
            "duplicate key",
        ),
        ("deep", deep, false, 65, "100 deep"),
        (
            "negative",
            single("6:lengthi-4e4:name1:a12:piece lengthi16384e6:pieces0:"),
            false,
            65,
            "length",
        ),
        (
            "zero",
            single("6:lengthi4e4:name1:a12:piece lengthi0e6:pieces0:"),
            false,
            65,
            "is 0",
        ),
        (
            "wide",
            single("6:lengthi99999999999999999999e4:name1:a"),
            false,
            65,
            "64 bits",
        ),
        (
            "string",
            b"d4:info99999999999:xe".to_vec(),
            false,
            65,
            "past the end",
        ),
        ("huge", huge.to_vec(), true, 66, "a: "),
        ("above", v1("r", "l2:..1:ae"), true, 65, "no name of a file"),
        ("root", v1("r", "l4:/etce"), true, 65, "no name of a file"),
        ("name", v1("../r", "l1:ae"), true, 65, "no name of a file"),
        ("nothing", v1("r", "l0:e"), true, 65, "no name of a file"),
        ("control", v1("r", "l4:a\n\x1b[e"), true, 66, "r: "),
        ("bytes", non_utf8, true, 66, "r: "),
    ] {
        let torrent = format!("{name}.torrent");
        place.write(&torrent, &bytes);
        if readable {
            let text = place.good(&["show", &torrent]);
            assert!(!text.contains('\x1b'), "{text:?}");
            place.good(&["show", "--json", &torrent]);
            assert!(place.good(&["magnet", &torrent]).is_ascii());
            place.good(&[
                "edit",
                &torrent,
                "-a",
                "http://t.example/announce",
                "-o",
                "edited",
            ]);
        } else {
            for command in ["show", "magnet", "edit"] {
                place.bad(&[command, &torrent], 65, told);
            }
        }
        let text = place.bad(&["verify", &torrent], verified, told);
        assert!(verified != 65 || text.contains(name), "{text}");
    }
    let status = place.run(&["lint", "."]).status.code().unwrap();
    assert_eq!(status & 1, 1);
    place.write("a", b"data");
    place.bad(&["verify", "huge.torrent"], 1, "has 4 bytes");
    place.bad(&["show", "absent"], 66, "absent");
}

/// The examples of the manual, each as it stands there.
#[test]
fn the_manuals_examples_work() {
    let place = Place::new("manual");
    place.write("example-1.0.iso", &content(1, 300_000));
    place.write("example-1.0/README", b"read me\n");
    place.write("example-1.0/doc/manual", &content(2, 40_000));
    place.write("example-1.0/doc/manual~", b"old\n");
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
        .current_dir(&place.0)
        .env("PATH", path)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
