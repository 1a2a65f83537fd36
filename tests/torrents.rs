//! Which torrents the built daemon tracks.

mod harness;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

use harness::tracker::{
    DENIED, Id, Mirror, SERVED, Tracker, UNKNOWN, hex, some_id, torrent, verdict, wait_until,
};
use harness::udp;

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
