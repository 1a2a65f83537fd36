//! The torrent directories, as publishers treat them: each case on real directories, waited for by its events.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, SystemTime};

use tbtt::torrents::watcher::{Settings, TorrentWatcher, WatchEvent};

/// Longer than anything takes; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(30);

/// The least torrent of this name.
fn torrent(name: &str) -> Vec<u8> {
    let length = name.len();
    format!("d4:infod6:lengthi0e4:name{length}:{name}12:piece lengthi1e6:pieces0:ee").into_bytes()
}

struct Scene {
    directory: PathBuf,
    events: Receiver<WatchEvent>,
    publisher: TorrentWatcher,
    markers: u32,
}

/// An empty directory of this test's own.
fn directory(test: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("publish-{test}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(directory.join("torrents")).unwrap();
    directory
}

/// Never rescans for time's sake, so that what a test sees was told or noticed.
fn settings(directories: &[&Path]) -> Settings {
    let directories = directories
        .iter()
        .map(|directory| directory.to_path_buf())
        .collect();
    Settings {
        directories,
        rescan_secs: 100_000,
    }
}

impl Scene {
    /// Watches `torrents` in a directory that `prepare` has filled; the first scan is still to be read.
    fn new(test: &str, prepare: impl FnOnce(&Path)) -> Self {
        let directory = directory(test);
        let torrents = directory.join("torrents");
        prepare(&torrents);
        let (sender, events) = channel();
        let publisher = TorrentWatcher::start(settings(&[&torrents]), move |event| {
            sender.send(event).unwrap()
        })
        .unwrap();
        Self {
            directory,
            events,
            publisher,
            markers: 0,
        }
    }

    fn scanned(test: &str, prepare: impl FnOnce(&Path)) -> (Self, Vec<String>) {
        let scene = Self::new(test, prepare);
        let told = scene.until(|event| *event == WatchEvent::Scanned);
        (scene, told)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.join("torrents").join(name)
    }

    /// Renamed into place, as a publisher should.
    fn publish(&self, name: &str, content: &[u8]) {
        let aside = self.directory.join("aside");
        fs::write(&aside, content).unwrap();
        fs::rename(&aside, self.at(name)).unwrap();
    }

    /// One line for each event: what, which file, and the torrent's name.
    fn line(&self, event: &WatchEvent) -> String {
        let file = |path: &Path| {
            let torrents = self.directory.join("torrents");
            path.strip_prefix(torrents)
                .or(path.strip_prefix(&self.directory))
                .unwrap()
                .display()
                .to_string()
        };
        match event {
            WatchEvent::Appeared { path, metainfo } => {
                format!("+ {} {}", file(path), metainfo.name)
            }
            WatchEvent::Gone { path } => format!("- {}", file(path)),
            WatchEvent::Faulty { path, reason } => format!("! {} {reason}", file(path)),
            WatchEvent::Scanned => "scanned".to_owned(),
        }
    }

    /// What is told up to and without the event that is waited for, sorted.
    fn until(&self, wanted: impl Fn(&WatchEvent) -> bool) -> Vec<String> {
        let mut told = Vec::new();
        loop {
            let event = self
                .events
                .recv_timeout(PATIENCE)
                .unwrap_or_else(|_| panic!("only {told:?}"));
            if wanted(&event) {
                told.sort();
                return told;
            }
            told.push(self.line(&event));
        }
    }

    /// The next event.
    #[track_caller]
    fn next(&self) -> String {
        let event = self.events.recv_timeout(PATIENCE).expect("another event");
        self.line(&event)
    }

    /// The next events, as many as are expected, in any order.
    #[track_caller]
    fn expect(&self, expected: &[&str]) {
        let mut told: Vec<_> = expected.iter().map(|_| self.next()).collect();
        told.sort();
        assert_eq!(told, expected);
    }

    /// What was told of everything that came before this call: a torrent that is published now is told after it.
    fn so_far(&mut self) -> Vec<String> {
        self.markers += 1;
        let name = format!("marker-{}.torrent", self.markers);
        self.publish(&name, &torrent("marker"));
        let path = self.at(&name);
        self.until(
            |event| matches!(event, WatchEvent::Appeared { path: told, .. } if *told == path),
        )
    }

    /// What a rescan finds.
    fn rescan(&self) -> Vec<String> {
        self.publisher
            .rescan(settings(&[&self.directory.join("torrents")]));
        self.until(|event| *event == WatchEvent::Scanned)
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn make_old(path: &Path) {
    let long_ago = SystemTime::now() - Duration::from_secs(3600);
    File::options()
        .append(true)
        .open(path)
        .unwrap()
        .set_modified(long_ago)
        .unwrap();
}

const NOTHING: [&str; 0] = [];

#[test]
fn the_first_scan_finds_what_is_there() {
    let (mut scene, told) = Scene::scanned("first", |torrents| {
        fs::create_dir_all(torrents.join("a/b/c")).unwrap();
        fs::create_dir_all(torrents.join(".hidden")).unwrap();
        for file in [
            "top.torrent",
            "a/one.torrent",
            "a/b/c/two.torrent",
            "a/not",
            ".hidden/x.torrent",
            "a/.x.torrent",
            "a/.torrent",
        ] {
            fs::write(torrents.join(file), torrent("t")).unwrap();
        }
        fs::write(torrents.join("a/bad.torrent"), "<html>").unwrap();
        make_old(&torrents.join("a/bad.torrent"));
        nix::unistd::mkfifo(
            &torrents.join("pipe.torrent"),
            nix::sys::stat::Mode::S_IRWXU,
        )
        .unwrap();
        fs::create_dir(torrents.join("dir.torrent")).unwrap();
        symlink("nowhere", torrents.join("broken.torrent")).unwrap();
    });
    let bad = "! a/bad.torrent at byte 0: a dictionary should stand here";
    assert_eq!(
        told,
        [
            bad,
            "+ a/b/c/two.torrent t",
            "+ a/one.torrent t",
            "+ top.torrent t"
        ]
    );
    assert_eq!(scene.rescan(), NOTHING);
    assert_eq!(scene.so_far(), NOTHING);
}

#[test]
fn renamed_into_place_is_told_at_once() {
    let (scene, _) = Scene::scanned("rename", |_| ());
    for number in 0..100 {
        let name = format!("{number}.torrent");
        scene.publish(&name, &torrent("new"));
        assert_eq!(scene.next(), format!("+ {name} new"));
    }
}

#[test]
fn a_half_written_file_is_never_taken() {
    let (mut scene, _) = Scene::scanned("half", |_| ());
    let content = torrent("slow");
    let (first, second) = content.split_at(content.len() / 2);
    let mut file = File::create(scene.at("slow.torrent")).unwrap();
    assert_eq!(scene.so_far(), NOTHING);
    file.write_all(first).unwrap();
    assert_eq!(scene.so_far(), NOTHING);
    assert_eq!(scene.rescan(), NOTHING);
    file.write_all(second).unwrap();
    assert_eq!(scene.so_far(), NOTHING);
    drop(file);
    assert_eq!(scene.next(), "+ slow.torrent slow");

    // Written again over itself: what was there stays until the new one is whole.
    let content = torrent("again");
    let mut file = File::create(scene.at("slow.torrent")).unwrap();
    file.write_all(&content[..20]).unwrap();
    assert_eq!(scene.so_far(), NOTHING);
    assert_eq!(scene.rescan(), NOTHING);
    file.write_all(&content[20..]).unwrap();
    drop(file);
    assert_eq!(scene.next(), "+ slow.torrent again");
}

#[test]
fn a_whole_file_that_nobody_closes_counts_when_it_is_at_rest() {
    let (scene, _) = Scene::scanned("unclosed", |_| ());
    let mut file = File::create(scene.at("open.torrent")).unwrap();
    file.write_all(&torrent("open")).unwrap();
    assert_eq!(scene.next(), "+ open.torrent open");
}

#[test]
fn a_closed_file_that_is_no_torrent_is_told_once_it_is_at_rest() {
    let (mut scene, _) = Scene::scanned("closed", |_| ());
    fs::write(scene.at("bad.torrent"), "d").unwrap();
    assert_eq!(scene.so_far(), NOTHING);
    assert_eq!(
        scene.next(),
        "! bad.torrent at byte 1: the file ends too early"
    );
    assert_eq!(scene.rescan(), NOTHING);
}

#[test]
fn removed_or_moved_away_is_gone() {
    let (scene, _) = Scene::scanned("gone", |torrents| {
        for file in ["a.torrent", "b.torrent", "c.torrent"] {
            fs::write(torrents.join(file), torrent("t")).unwrap();
        }
    });
    fs::remove_file(scene.at("a.torrent")).unwrap();
    assert_eq!(scene.next(), "- a.torrent");
    fs::rename(scene.at("b.torrent"), scene.directory.join("elsewhere")).unwrap();
    assert_eq!(scene.next(), "- b.torrent");
    fs::rename(scene.at("c.torrent"), scene.at("c.torrent.old")).unwrap();
    assert_eq!(scene.next(), "- c.torrent");
    fs::rename(scene.at("c.torrent.old"), scene.at("d.torrent")).unwrap();
    assert_eq!(scene.next(), "+ d.torrent t");
    fs::rename(scene.at("d.torrent"), scene.at("e.torrent")).unwrap();
    scene.expect(&["+ e.torrent t", "- d.torrent"]);
}

#[test]
fn a_file_may_become_another_torrent_or_faulty() {
    let (mut scene, _) = Scene::scanned("replace", |torrents| {
        fs::write(torrents.join("a.torrent"), torrent("one")).unwrap();
    });
    scene.publish("a.torrent", &torrent("two"));
    assert_eq!(scene.next(), "+ a.torrent two");
    fs::write(scene.at("a.torrent"), torrent("three")).unwrap();
    assert_eq!(scene.next(), "+ a.torrent three");

    let aside = scene.directory.join("bad");
    fs::write(&aside, "x").unwrap();
    make_old(&aside);
    fs::rename(&aside, scene.at("a.torrent")).unwrap();
    assert_eq!(
        scene.next(),
        "! a.torrent at byte 0: a dictionary should stand here"
    );
    assert_eq!(scene.rescan(), NOTHING);
    assert_eq!(scene.so_far(), NOTHING);
    scene.publish("a.torrent", &torrent("four"));
    assert_eq!(scene.next(), "+ a.torrent four");
}

#[test]
fn too_large_is_faulty_and_not_read() {
    let (scene, told) = Scene::scanned("large", |torrents| {
        File::create(torrents.join("large.torrent"))
            .unwrap()
            .set_len((64 << 20) + 1)
            .unwrap();
        make_old(&torrents.join("large.torrent"));
    });
    assert_eq!(told, ["! large.torrent is larger than 64 MiB"]);
    assert_eq!(scene.rescan(), NOTHING);
    fs::remove_file(scene.at("large.torrent")).unwrap();
    assert_eq!(scene.next(), "- large.torrent");
}

#[test]
fn hard_and_symbolic_links_count_when_they_are_made() {
    let (scene, _) = Scene::scanned("links", |_| ());
    let elsewhere = scene.directory.join("elsewhere");
    fs::write(&elsewhere, torrent("t")).unwrap();
    fs::hard_link(&elsewhere, scene.at("hard.torrent")).unwrap();
    assert_eq!(scene.next(), "+ hard.torrent t");
    symlink(&elsewhere, scene.at("soft.torrent")).unwrap();
    assert_eq!(scene.next(), "+ soft.torrent t");
    fs::remove_file(scene.at("soft.torrent")).unwrap();
    assert_eq!(scene.next(), "- soft.torrent");
    fs::remove_file(scene.at("hard.torrent")).unwrap();
    assert_eq!(scene.next(), "- hard.torrent");
}

#[test]
fn directories_come_and_go_and_change_their_names() {
    let (mut scene, _) = Scene::scanned("directories", |_| ());
    fs::create_dir_all(scene.at("a/b/c")).unwrap();
    fs::write(scene.at("a/b/c/x.torrent"), torrent("t")).unwrap();
    assert_eq!(scene.next(), "+ a/b/c/x.torrent t");
    scene.publish("a/b/y.torrent", &torrent("t"));
    assert_eq!(scene.next(), "+ a/b/y.torrent t");
    fs::rename(scene.at("a/b"), scene.at("new")).unwrap();
    scene.expect(&[
        "+ new/c/x.torrent t",
        "+ new/y.torrent t",
        "- a/b/c/x.torrent",
        "- a/b/y.torrent",
    ]);
    // Its watch goes by the new name.
    scene.publish("new/c/z.torrent", &torrent("t"));
    assert_eq!(scene.next(), "+ new/c/z.torrent t");
    fs::rename(scene.at("new"), scene.directory.join("outside")).unwrap();
    scene.expect(&["- new/c/x.torrent", "- new/c/z.torrent", "- new/y.torrent"]);
    // What happens out there is no longer watched.
    fs::write(scene.directory.join("outside/w.torrent"), torrent("t")).unwrap();
    assert_eq!(scene.so_far(), NOTHING);
    fs::rename(scene.directory.join("outside"), scene.at("back")).unwrap();
    scene.expect(&[
        "+ back/c/x.torrent t",
        "+ back/c/z.torrent t",
        "+ back/w.torrent t",
        "+ back/y.torrent t",
    ]);
    fs::remove_dir_all(scene.at("back")).unwrap();
    scene.expect(&[
        "- back/c/x.torrent",
        "- back/c/z.torrent",
        "- back/w.torrent",
        "- back/y.torrent",
    ]);
}

#[test]
fn a_link_to_a_release_is_followed_when_it_moves_on() {
    let (scene, told) = Scene::scanned("current", |torrents| {
        let releases = torrents.parent().unwrap().join("releases");
        for release in ["12", "13"] {
            fs::create_dir_all(releases.join(release)).unwrap();
            fs::write(
                releases.join(release).join(format!("{release}.torrent")),
                torrent(release),
            )
            .unwrap();
        }
        symlink("../releases/12", torrents.join("current")).unwrap();
        symlink("..", torrents.join("loop")).unwrap();
        symlink("itself", torrents.join("itself")).unwrap();
    });
    // The loop leads to the releases as well, each of which is told of by one name only.
    assert_eq!(
        told,
        [
            "+ current/12.torrent 12",
            "+ loop/releases/13/13.torrent 13"
        ]
    );
    fs::remove_file(scene.at("loop")).unwrap();
    assert_eq!(scene.next(), "- loop/releases/13/13.torrent");

    symlink("../releases/13", scene.at("next")).unwrap();
    assert_eq!(scene.next(), "+ next/13.torrent 13");
    fs::rename(scene.at("next"), scene.at("current")).unwrap();
    scene.expect(&[
        "+ current/13.torrent 13",
        "- current/12.torrent",
        "- next/13.torrent",
    ]);
    // The release is watched where it really is.
    fs::write(
        scene.directory.join("releases/13/more.torrent"),
        torrent("13"),
    )
    .unwrap();
    assert_eq!(scene.next(), "+ current/more.torrent 13");
}

#[test]
fn a_directory_may_appear_later_and_be_replaced() {
    let directory = directory("later");
    let (sender, events) = channel();
    let torrents = directory.join("torrents");
    let later = directory.join("mnt/later");
    let report = move |event| sender.send(event).unwrap();
    let publisher = TorrentWatcher::start(settings(&[&torrents, &later]), report).unwrap();
    let scene = Scene {
        directory,
        events,
        publisher,
        markers: 0,
    };
    assert_eq!(
        scene.next(),
        "! mnt/later cannot be listed: No such file or directory (os error 2)"
    );
    assert_eq!(scene.next(), "scanned");

    fs::create_dir_all(&later).unwrap();
    fs::write(later.join("a.torrent"), torrent("a")).unwrap();
    scene.expect(&["+ mnt/later/a.torrent a", "- mnt/later"]);
    fs::create_dir(scene.directory.join("new")).unwrap();
    fs::write(scene.directory.join("new/b.torrent"), torrent("b")).unwrap();
    fs::rename(scene.directory.join("mnt"), scene.directory.join("old")).unwrap();
    scene.expect(&[
        "! mnt/later cannot be listed: No such file or directory (os error 2)",
        "- mnt/later/a.torrent",
    ]);
    fs::create_dir(scene.directory.join("mnt")).unwrap();
    fs::rename(scene.directory.join("new"), &later).unwrap();
    scene.expect(&["+ mnt/later/b.torrent b", "- mnt/later"]);
}

#[test]
fn lost_events_are_made_up_for() {
    let directory = directory("overflow");
    let (sender, events) = channel();
    let (go_on, wait): (Sender<()>, Receiver<()>) = channel();
    let torrents = directory.join("torrents");
    let report = move |event: WatchEvent| {
        let is_first =
            matches!(&event, WatchEvent::Appeared { metainfo, .. } if metainfo.name == "first");
        sender.send(event).unwrap();
        if is_first {
            wait.recv().unwrap();
        }
    };
    let publisher = TorrentWatcher::start(settings(&[&torrents]), report).unwrap();
    let scene = Scene {
        directory,
        events,
        publisher,
        markers: 0,
    };
    assert_eq!(scene.next(), "scanned");
    fs::write(scene.at("old.torrent"), torrent("old")).unwrap();
    assert_eq!(scene.next(), "+ old.torrent old");
    scene.publish("first.torrent", &torrent("first"));
    assert_eq!(scene.next(), "+ first.torrent first");

    // While the thread waits, more happens than the kernel keeps.
    let limit: u32 = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events")
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let (one, two) = (scene.at("noise-1"), scene.at("noise-2"));
    fs::write(&one, "").unwrap();
    for _ in 0..limit / 4 + 10 {
        fs::rename(&one, &two).unwrap();
        fs::rename(&two, &one).unwrap();
    }
    scene.publish("lost.torrent", &torrent("lost"));
    fs::remove_file(scene.at("old.torrent")).unwrap();
    go_on.send(()).unwrap();
    scene.expect(&["+ lost.torrent lost", "- old.torrent"]);
}

#[test]
fn settings_may_change() {
    let (scene, _) = Scene::scanned("settings", |torrents| {
        fs::write(torrents.join("a.torrent"), torrent("a")).unwrap();
    });
    let other = scene.directory.join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("b.torrent"), torrent("b")).unwrap();
    scene.publisher.rescan(settings(&[&other]));
    assert_eq!(
        [scene.next(), scene.next(), scene.next()],
        ["+ other/b.torrent b", "- a.torrent", "scanned"]
    );
    assert_eq!(scene.rescan(), ["+ a.torrent a", "- other/b.torrent"]);
}
