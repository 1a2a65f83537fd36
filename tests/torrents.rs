//! The torrents that the built daemon tracks: torrent files, lists and notices.

mod harness;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

use harness::tracker::{
    DENIED, DIRECTORIES_READ, FILE_REMOVED, InfoHash, Mirror, NO_LONGER_TRACKED, NOT_TRACKED, OPEN,
    RELOAD_ERROR, SERVED, SKIPPED, Tracker, hex, new_info_hash, outcome, torrent, wait_until,
};
use harness::udp;

#[test]
fn tracks_no_torrent_by_default() {
    let tracker = Tracker::start("");
    let id = new_info_hash();
    assert_eq!(tracker.outcome(&id), NOT_TRACKED);
    for query in [
        "port=1&left=0&event=completed",
        "port=1&event=stopped",
        "port=1&compact=0",
    ] {
        assert_eq!(
            outcome(&tracker.client("::1").announce(&id, query)),
            NOT_TRACKED,
            "{query}"
        );
    }
    assert_eq!(tracker.client("127.0.0.1").scrape(&id), None);
    let (client, connection) = tracker.udp_client("127.0.0.1");
    let response = client.ask(&udp::scrape(connection, &[id]));
    assert_eq!(response[8..], [0; 12]);
}

#[test]
fn tracks_renamed_file_at_once() {
    let mirror = Mirror::new();
    let tracker = mirror.start("");
    let mut delays: Vec<Duration> = (0..20)
        .map(|number| {
            let (content, id) = torrent(&format!("release-{number}"));
            assert!(!tracker.is_tracked(&id));
            mirror.publish(&format!("torrents/{number}.torrent"), &content);
            let since = Instant::now();
            wait_until("tracked", || tracker.is_tracked(&id));
            since.elapsed()
        })
        .collect();
    delays.sort_unstable();
    let (median, worst) = (delays[10], delays[19]);
    println!("20 releases tracked: median {median:?}, worst {worst:?}");
    // Without inotify, a scan would find them only after minutes.
    assert!(median < Duration::from_secs(1), "{delays:?}");
    let (_, first) = torrent("release-0");
    assert_eq!(tracker.outcome(&first), SERVED);
    assert_eq!(tracker.client("::1").scrape(&first), Some([4, 0]));
}

#[test]
fn skips_incomplete_file() {
    let mirror = Mirror::new();
    let tracker = mirror.start("");
    let (content, id) = torrent("slow");
    let markers = AtomicU32::new(0);
    // Events are handled in order: once a marker is tracked, all earlier events have been handled.
    let is_tracked_now = || {
        let name = format!("marker-{}", markers.fetch_add(1, Ordering::Relaxed));
        let (content, marker) = torrent(&name);
        mirror.publish(&format!("torrents/{name}.torrent"), &content);
        wait_until("marker tracked", || tracker.is_tracked(&marker));
        tracker.is_tracked(&id)
    };
    let mut file = File::create(mirror.path("torrents/slow.torrent")).unwrap();
    assert!(!is_tracked_now());
    for part in content.chunks(content.len() / 4) {
        assert!(!is_tracked_now());
        file.write_all(part).unwrap();
    }
    drop(file);
    wait_until("tracked after close", || tracker.is_tracked(&id));

    // rsync writes a hidden file, then renames it.
    let (content, id) = torrent("synchronised");
    mirror.write("torrents/.synchronised.torrent.Xa81b2", &content);
    mirror.write("torrents/.synchronised.torrent", &content);
    tracker.reload();
    assert!(!tracker.is_tracked(&id));
    fs::rename(
        mirror.path("torrents/.synchronised.torrent.Xa81b2"),
        mirror.path("torrents/synchronised.torrent"),
    )
    .unwrap();
    wait_until("tracked after rename", || tracker.is_tracked(&id));
    assert_eq!(tracker.daemon.lines(SKIPPED), [""; 0]);
}

#[test]
fn tracks_removed_torrent_during_grace() {
    let mirror = Mirror::new();
    let [(removed, removed_id), (moved, moved_id)] = ["removed", "moved"].map(torrent);
    mirror.publish("torrents/removed.torrent", &removed);
    mirror.publish("torrents/moved.torrent", &moved);
    let tracker = mirror.start("removal_grace = 3");
    assert_eq!(tracker.outcome(&removed_id), SERVED);
    let since = Instant::now();
    mirror.remove("torrents/moved.torrent");
    mirror.remove("torrents/removed.torrent");
    tracker.daemon.wait_for_lines(FILE_REMOVED, 2);
    assert_eq!(
        tracker
            .client("::1")
            .announce(&removed_id, "port=2")
            .peers(),
        ["[::1]:1".parse().unwrap(), "[::1]:6881".parse().unwrap()],
        "peers are kept during the grace period"
    );
    mirror.publish("torrents/moved again.torrent", &moved);
    wait_until("no longer tracked", || !tracker.is_tracked(&removed_id));
    assert!(
        since.elapsed() > Duration::from_secs(2),
        "{:?}",
        since.elapsed()
    );
    assert_eq!(tracker.outcome(&removed_id), NOT_TRACKED);
    assert_eq!(tracker.client("127.0.0.1").scrape(&removed_id), None);
    assert_eq!(tracker.outcome(&moved_id), SERVED);
    let lines = tracker.daemon.lines(NO_LONGER_TRACKED);
    assert!(
        lines.len() == 1 && lines[0].contains(&hex(&removed_id)),
        "{lines:?}"
    );

    tracker.edit_config("removal_grace = 3", "removal_grace = 0");
    tracker.reload();
    mirror.remove("torrents/moved again.torrent");
    wait_until("not tracked without grace", || {
        !tracker.is_tracked(&moved_id)
    });
    mirror.publish("torrents/removed.torrent", &removed);
    wait_until("tracked again", || tracker.is_tracked(&removed_id));
}

/// Returns the name and the announced info-hashes of each torrent that `tests/torrents/make.py` made with libtorrent.
fn samples() -> Vec<(&'static str, Vec<InfoHash>)> {
    include_str!("torrents/expected.txt")
        .lines()
        .map(|line| {
            let words: Vec<_> = line.split(' ').collect();
            let ids = words[1..3].iter().filter(|id| **id != "-");
            (words[0], ids.map(|id| announced_as(id)).collect())
        })
        .collect()
}

/// Parses an info-hash in hexadecimal digits. A v2 info-hash is truncated, as clients announce it.
fn announced_as(hex: &str) -> InfoHash {
    std::array::from_fn(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap())
}

#[test]
fn tracks_all_versions_by_all_info_hashes() {
    let mirror = Mirror::new();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/torrents");
    for (name, _) in samples() {
        fs::copy(from.join(name), mirror.path("torrents").join(name)).unwrap();
    }
    let tracker = mirror.start("");
    let line = tracker.daemon.wait_for_line(DIRECTORIES_READ);
    assert!(
        line.ends_with("torrents=9"),
        "a hybrid torrent counts once: {line}"
    );
    let ids: Vec<_> = samples().into_iter().flat_map(|(_, ids)| ids).collect();
    assert_eq!(ids.len(), 12);
    for id in &ids {
        assert_eq!(tracker.outcome(id), SERVED, "{}", hex(id));
        assert_eq!(tracker.client("127.0.0.1").scrape(id), Some([4, 0]));
    }
    // Both info-hashes of a hybrid torrent are removed with its file.
    tracker.edit_config("[torrents]", "[torrents]\nremoval_grace = 0");
    tracker.reload();
    for (name, ids) in samples() {
        mirror.remove(&format!("torrents/{name}"));
        for id in ids {
            wait_until("not tracked", || !tracker.is_tracked(&id));
        }
    }
}

#[test]
fn skips_invalid_file_with_one_log_line() {
    let mirror = Mirror::new();
    let (good, id) = torrent("good");
    let text = String::from_utf8(good.clone()).unwrap();
    let invalid = [
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
    let publish_invalid = |name: &str, content: &str| {
        let path = mirror.write(name, content);
        let file = File::options().append(true).open(&path).unwrap();
        file.set_modified(long_ago).unwrap();
        fs::rename(&path, mirror.path("torrents").join(name)).unwrap();
    };
    for (name, content) in &invalid {
        publish_invalid(name, content);
    }
    mirror.publish("torrents/good.torrent", &good);
    let tracker = mirror.start("");
    assert_eq!(tracker.outcome(&id), SERVED);
    publish_invalid("later.torrent", "not yet");
    tracker.daemon.wait_for_line("later.torrent");
    tracker.reload();
    tracker.reload();
    let names = invalid.iter().map(|(name, _)| *name);
    for name in names.chain(["later.torrent"]) {
        let file = format!("file={}/", mirror.path("torrents").display());
        let lines = tracker.daemon.lines(&format!("{file}{name}"));
        let [line] = &lines[..] else {
            panic!("{lines:#?}");
        };
        let (_, reason) = line.split_once("reason=").expect("a reason");
        assert!(
            line.contains(SKIPPED) && reason.contains("at byte"),
            "{line}"
        );
    }
    assert_eq!(tracker.outcome(&id), SERVED);
    // A corrected file is tracked.
    let (content, id) = torrent("corrected");
    mirror.publish("torrents/page.torrent", &content);
    wait_until("corrected file tracked", || tracker.is_tracked(&id));
}

#[test]
fn follows_created_replaced_and_linked_directories() {
    let mirror = Mirror::new();
    let releases = ["12", "13", "later", "other", "deep"].map(|name| (name, torrent(name)));
    for (name, (content, _)) in &releases[..2] {
        mirror.write(&format!("releases/{name}/{name}.torrent"), content);
    }
    symlink("../releases/12", mirror.path("torrents/current")).unwrap();
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

    // The directory did not exist at startup.
    let [.., (_, (later, _)), (_, (other, _)), (_, (deep, _))] = &releases;
    fs::create_dir_all(mirror.path("mounted/later")).unwrap();
    mirror.publish("mounted/later/later.torrent", later);
    wait_until("new directory read", || tracked() == ["12", "later"]);

    // The link is replaced, as publishers do for a new release.
    symlink("../releases/13", mirror.path("torrents/next")).unwrap();
    fs::rename(
        mirror.path("torrents/next"),
        mirror.path("torrents/current"),
    )
    .unwrap();
    wait_until("new target read", || tracked() == ["13", "later"]);

    // Another directory replaces the directory.
    mirror.write("new/below/other.torrent", other);
    fs::rename(mirror.path("mounted/later"), mirror.path("old")).unwrap();
    fs::rename(mirror.path("new"), mirror.path("mounted/later")).unwrap();
    wait_until("replacement read", || tracked() == ["13", "other"]);
    mirror.publish("mounted/later/below/deep.torrent", deep);
    wait_until("replacement watched", || {
        tracked() == ["13", "other", "deep"]
    });
    fs::remove_dir_all(mirror.path("mounted")).unwrap();
    wait_until("directory removed", || tracked() == ["13"]);
}

/// The sandbox must allow access to the targets of links.
#[test]
fn directories_and_lists_may_be_links() {
    let (mirror, elsewhere) = (Mirror::new(), Mirror::new());
    let [(first, first_id), (second, second_id)] = ["first", "second"].map(torrent);
    let denied = new_info_hash();
    elsewhere.publish("torrents/first.torrent", &first);
    elsewhere.write("lists/deny", "");
    symlink(elsewhere.path("torrents"), mirror.path("linked")).unwrap();
    symlink(elsewhere.path("lists/deny"), mirror.path("deny")).unwrap();
    let settings = format!(
        "[torrents]\ndirectories = [{}]\ndeny = [{}]",
        mirror.quoted("linked"),
        mirror.quoted("deny")
    );
    let tracker = Tracker::start(&settings);
    assert_eq!(tracker.outcome(&first_id), SERVED);
    elsewhere.publish("torrents/second.torrent", &second);
    wait_until("target watched", || tracker.is_tracked(&second_id));
    // The directory and the list are replaced in the target place.
    fs::rename(elsewhere.path("torrents"), elsewhere.path("old")).unwrap();
    elsewhere.write("torrents/second.torrent", &second);
    elsewhere.publish("lists/deny", hex(&denied).as_bytes());
    tracker.reload();
    assert_eq!(tracker.outcome(&second_id), SERVED);
    assert_eq!(tracker.outcome(&denied), DENIED);
}

#[test]
fn allow_and_deny_lists_apply_after_reload() {
    let mirror = Mirror::new();
    let (content, published) = torrent("published");
    mirror.publish("torrents/published.torrent", &content);
    let hybrid = "hybrid-disc.torrent";
    let sample = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/torrents")
        .join(hybrid);
    fs::copy(sample, mirror.path("torrents").join(hybrid)).unwrap();
    let expected = include_str!("torrents/expected.txt");
    let line = expected.lines().find(|line| line.starts_with(hybrid));
    let words: Vec<_> = line.unwrap().split(' ').collect();
    let [v1, v2] = [words[1], words[2]].map(announced_as);
    let [first, second, both, unlisted] = [(); 4].map(|()| new_info_hash());
    let v2_only = "27cf8c58286ea5694623e68d1ce801aee8e91b5342189ad923870ce81d32c53e";

    let allow = format!(
        "# ours\n{}\n\n  {} # second\r\n{v2_only}\n",
        hex(&first),
        hex(&second).to_uppercase()
    );
    mirror.write("allow", allow);
    mirror.write("allow-more", format!("{}\n", hex(&both)));
    let deny = format!(
        "{}\n{} # withdrawn\n{}\n",
        hex(&both),
        hex(&published),
        words[2]
    );
    mirror.write("deny", deny);
    let settings = format!(
        "allow = [{}, {}]\ndeny = [{}]",
        mirror.quoted("allow"),
        mirror.quoted("allow-more"),
        mirror.quoted("deny")
    );
    let tracker = mirror.start(&settings);
    let outcomes = || {
        let ids = [
            first,
            second,
            announced_as(v2_only),
            both,
            published,
            v1,
            v2,
        ];
        assert_eq!(tracker.outcome(&unlisted), NOT_TRACKED);
        ids.map(|id| tracker.outcome(&id))
    };
    let [s, d, u] = [SERVED, DENIED, NOT_TRACKED];
    assert_eq!(outcomes(), [s, s, s, d, d, d, d]);
    assert_eq!(tracker.client("127.0.0.1").scrape(&both), None);
    assert_eq!(tracker.client("127.0.0.1").scrape(&first), Some([4, 0]));

    // If one list is invalid, the valid lists are not applied either.
    mirror.write("deny", "");
    let invalid = format!("{}\n\n{} oops\n", hex(&first), hex(&second));
    mirror.write("allow", invalid);
    mirror.write("allow-more", "# moved\nfeed\n");
    let lines = tracker.failing_reload(2);
    let expected = [(&lines[0], "allow:3: "), (&lines[1], "allow-more:2: ")];
    for (line, location) in expected {
        assert!(
            line.contains(&format!(
                "{RELOAD_ERROR}{}",
                mirror.path(location).display()
            )),
            "{lines:#?}"
        );
    }
    assert_eq!(outcomes(), [s, s, s, d, d, d, d]);

    // An empty list has no entries.
    mirror.write("allow", "# nothing\n");
    mirror.write("allow-more", format!("{}\n", hex(&both)));
    tracker.reload();
    assert_eq!(outcomes(), [u, u, u, s, s, s, s]);
    mirror.write("deny", words[1]);
    mirror.write("allow-more", "");
    tracker.reload();
    assert_eq!(outcomes(), [u, u, u, u, s, d, d]);
}

#[test]
fn open_tracker_applies_deny_list() {
    let mirror = Mirror::new();
    let [other, denied] = [(); 2].map(|()| new_info_hash());
    mirror.write("deny", hex(&denied));
    let settings = format!(
        "[torrents]\nopen = true\ndeny = [{}]",
        mirror.quoted("deny")
    );
    let tracker = Tracker::start(&settings);
    tracker.daemon.wait_for_line(OPEN);
    let outcomes = || [other, denied].map(|id| tracker.outcome(&id));
    assert_eq!(outcomes(), [SERVED, DENIED]);
    mirror.write("deny", hex(&other));
    tracker.reload();
    assert_eq!(outcomes(), [DENIED, SERVED]);
    tracker.edit_config("open = true", "open = false");
    tracker.reload();
    assert_eq!(outcomes(), [DENIED, NOT_TRACKED]);
}

#[test]
fn notices_apply_to_single_torrents() {
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
    mirror.write("notices", &notices);
    mirror.write("allow", "");
    let settings = format!(
        "removal_grace = 0\nallow = [{}]\nnotices = [{}]\n[tracker]\nwarning = 'read the news'",
        mirror.quoted("allow"),
        mirror.quoted("notices")
    );
    let tracker = mirror.start(&settings);
    let warning = |id: &InfoHash| {
        let response = tracker.client("::1").announce(id, "port=1&left=0");
        response
            .has("warning message")
            .then(|| response.text("warning message").to_owned())
    };
    assert_eq!(warning(&old).as_deref(), Some("version 12.1 is out"));
    assert_eq!(warning(&quiet).as_deref(), Some("read the news"));
    assert_eq!(tracker.outcome(&old), SERVED);
    // The notice names one info-hash, and applies to both as soon as the hybrid torrent is published.
    assert_eq!(tracker.outcome(&hybrid.1[0]), NOT_TRACKED);
    fs::copy(&sample, mirror.path("torrents/hybrid.torrent")).unwrap();
    for id in &hybrid.1 {
        wait_until("withdrawn", || {
            outcome(&tracker.client("127.0.0.1").announce(id, "port=1")) == withdrawn
        });
        assert_eq!(tracker.outcome(id), withdrawn);
    }
    mirror.write("notices", format!("{} warned no more\n", hex(&old)));
    let lines = tracker.failing_reload(1);
    assert!(
        lines[0].contains("notices:1: ") && lines[0].contains("`warned`"),
        "{lines:?}"
    );
    assert_eq!(tracker.outcome(&hybrid.1[0]), withdrawn);
    // The notice also applies to both info-hashes if the allow list has them before the file is published.
    mirror.write("notices", notices);
    mirror.remove("torrents/hybrid.torrent");
    let ids: String = hybrid.1.iter().map(|id| hex(id) + "\n").collect();
    mirror.write("allow", ids);
    tracker.reload();
    assert_eq!(tracker.outcome(&hybrid.1[0]), SERVED);
    mirror.publish("torrents/hybrid.torrent", &fs::read(&sample).unwrap());
    for id in &hybrid.1 {
        wait_until("withdrawn again", || !tracker.is_tracked(id));
        assert_eq!(tracker.outcome(id), withdrawn);
    }
    mirror.write("notices", "");
    tracker.reload();
    assert_eq!(warning(&old).as_deref(), Some("read the news"));
    for id in &hybrid.1 {
        assert_eq!(tracker.outcome(id), SERVED);
    }
}
