//! Tests the torrent watcher on real directories that change as publishers change them. Each case waits for events.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, SystemTime};

use tbtt::torrents::watcher::{Settings, TorrentWatcher, WatchEvent};

/// Longer than any step takes, so that only a failing test waits for so long.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Returns a minimal torrent with this name.
fn torrent(name: &str) -> Vec<u8> {
    let length = name.len();
    format!("d4:infod6:lengthi0e4:name{length}:{name}12:piece lengthi1e6:pieces0:ee").into_bytes()
}

struct Scene {
    directory: PathBuf,
    events: Receiver<WatchEvent>,
    watcher: TorrentWatcher,
    markers: u32,
}

/// Creates an empty directory for a test.
fn directory(test: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("publish-{test}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(directory.join("torrents")).unwrap();
    directory
}

/// Disables periodic rescans, so that a test sees only changes that were reported by inotify or found by a check of the
/// roots.
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
    /// Watches `torrents`, a directory that `prepare` has filled. The events of the first scan are still in the channel.
    fn new(test: &str, prepare: impl FnOnce(&Path)) -> Self {
        let directory = directory(test);
        let torrents = directory.join("torrents");
        prepare(&torrents);
        let (sender, events) = channel();
        let watcher = TorrentWatcher::start(settings(&[&torrents]), move |event| {
            sender.send(event).unwrap()
        })
        .unwrap();
        Self {
            directory,
            events,
            watcher,
            markers: 0,
        }
    }

    /// Also returns the events of the first scan.
    fn scanned(test: &str, prepare: impl FnOnce(&Path)) -> (Self, Vec<String>) {
        let scene = Self::new(test, prepare);
        let events = scene.until(|event| *event == WatchEvent::Scanned);
        (scene, events)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.join("torrents").join(name)
    }

    /// Renames a file into place, as a publisher should.
    fn publish(&self, name: &str, content: &[u8]) {
        let unpublished = self.directory.join("unpublished");
        fs::write(&unpublished, content).unwrap();
        fs::rename(&unpublished, self.at(name)).unwrap();
    }

    /// Formats an event as a line: its kind, the file, and the name of the torrent.
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
            WatchEvent::Removed { path } | WatchEvent::DirectoryResolved { path } => {
                format!("- {}", file(path))
            }
            WatchEvent::Faulty { path, reason } | WatchEvent::DirectoryFaulty { path, reason } => {
                format!("! {} {reason}", file(path))
            }
            WatchEvent::Scanned => "scanned".to_owned(),
        }
    }

    /// Waits for an event. Returns the lines of all events before, sorted.
    fn until(&self, wanted: impl Fn(&WatchEvent) -> bool) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let event = self
                .events
                .recv_timeout(TIMEOUT)
                .unwrap_or_else(|_| panic!("only {lines:?}"));
            if wanted(&event) {
                lines.sort();
                return lines;
            }
            lines.push(self.line(&event));
        }
    }

    /// Waits for the next event.
    #[track_caller]
    fn next(&self) -> String {
        let event = self.events.recv_timeout(TIMEOUT).expect("another event");
        self.line(&event)
    }

    /// Waits for as many events as are expected, in any order.
    #[track_caller]
    fn expect(&self, expected: &[&str]) {
        let mut lines: Vec<_> = expected.iter().map(|_| self.next()).collect();
        lines.sort();
        assert_eq!(lines, expected);
    }

    /// Returns the events of all changes before this call. Publishes a torrent and waits for its event, which comes after
    /// them.
    fn so_far(&mut self) -> Vec<String> {
        self.markers += 1;
        let name = format!("marker-{}.torrent", self.markers);
        self.publish(&name, &torrent("marker"));
        let path = self.at(&name);
        self.until(
            |event| matches!(event, WatchEvent::Appeared { path: appeared, .. } if *appeared == path),
        )
    }

    /// Rescans, and returns the events.
    fn rescan(&self) -> Vec<String> {
        self.watcher
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

const NO_EVENTS: [&str; 0] = [];

#[test]
fn first_scan_finds_existing_files() {
    let (mut scene, events) = Scene::scanned("first", |torrents| {
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
    let bad = "! a/bad.torrent at byte 0: expected a dictionary";
    assert_eq!(
        events,
        [
            bad,
            "+ a/b/c/two.torrent t",
            "+ a/one.torrent t",
            "+ top.torrent t"
        ]
    );
    assert_eq!(scene.rescan(), NO_EVENTS);
    assert_eq!(scene.so_far(), NO_EVENTS);
}

#[test]
fn file_renamed_into_place_is_reported_at_once() {
    let (scene, _) = Scene::scanned("rename", |_| ());
    for number in 0..100 {
        let name = format!("{number}.torrent");
        scene.publish(&name, &torrent("new"));
        assert_eq!(scene.next(), format!("+ {name} new"));
    }
}

#[test]
fn half_written_file_is_never_accepted() {
    let (mut scene, _) = Scene::scanned("half", |_| ());
    let content = torrent("slow");
    let (first, second) = content.split_at(content.len() / 2);
    let mut file = File::create(scene.at("slow.torrent")).unwrap();
    assert_eq!(scene.so_far(), NO_EVENTS);
    file.write_all(first).unwrap();
    assert_eq!(scene.so_far(), NO_EVENTS);
    assert_eq!(scene.rescan(), NO_EVENTS);
    file.write_all(second).unwrap();
    assert_eq!(scene.so_far(), NO_EVENTS);
    drop(file);
    assert_eq!(scene.next(), "+ slow.torrent slow");

    // The file is overwritten in place: the old torrent stays until the new content is complete.
    let content = torrent("again");
    let mut file = File::create(scene.at("slow.torrent")).unwrap();
    file.write_all(&content[..20]).unwrap();
    assert_eq!(scene.so_far(), NO_EVENTS);
    assert_eq!(scene.rescan(), NO_EVENTS);
    file.write_all(&content[20..]).unwrap();
    drop(file);
    assert_eq!(scene.next(), "+ slow.torrent again");
}

#[test]
fn complete_file_left_open_is_accepted_once_settled() {
    let (scene, _) = Scene::scanned("unclosed", |_| ());
    let mut file = File::create(scene.at("open.torrent")).unwrap();
    file.write_all(&torrent("open")).unwrap();
    assert_eq!(scene.next(), "+ open.torrent open");
}

#[test]
fn invalid_closed_file_is_reported_once_settled() {
    let (mut scene, _) = Scene::scanned("closed", |_| ());
    fs::write(scene.at("bad.torrent"), "d").unwrap();
    assert_eq!(scene.so_far(), NO_EVENTS);
    assert_eq!(
        scene.next(),
        "! bad.torrent at byte 1: unexpected end of file"
    );
    assert_eq!(scene.rescan(), NO_EVENTS);
}

#[test]
fn file_removed_or_moved_away_is_gone() {
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
fn file_may_become_another_torrent_or_invalid() {
    let (mut scene, _) = Scene::scanned("replace", |torrents| {
        fs::write(torrents.join("a.torrent"), torrent("one")).unwrap();
    });
    scene.publish("a.torrent", &torrent("two"));
    assert_eq!(scene.next(), "+ a.torrent two");
    fs::write(scene.at("a.torrent"), torrent("three")).unwrap();
    assert_eq!(scene.next(), "+ a.torrent three");

    let unpublished = scene.directory.join("bad");
    fs::write(&unpublished, "x").unwrap();
    make_old(&unpublished);
    fs::rename(&unpublished, scene.at("a.torrent")).unwrap();
    assert_eq!(scene.next(), "! a.torrent at byte 0: expected a dictionary");
    assert_eq!(scene.rescan(), NO_EVENTS);
    assert_eq!(scene.so_far(), NO_EVENTS);
    scene.publish("a.torrent", &torrent("four"));
    assert_eq!(scene.next(), "+ a.torrent four");
}

#[test]
fn too_large_file_is_refused_unread() {
    let (scene, events) = Scene::scanned("large", |torrents| {
        File::create(torrents.join("large.torrent"))
            .unwrap()
            .set_len((64 << 20) + 1)
            .unwrap();
        make_old(&torrents.join("large.torrent"));
    });
    assert_eq!(events, ["! large.torrent larger than 64 MiB"]);
    assert_eq!(scene.rescan(), NO_EVENTS);
    fs::remove_file(scene.at("large.torrent")).unwrap();
    assert_eq!(scene.next(), "- large.torrent");
}

#[test]
fn new_hard_and_symbolic_links_are_read_at_once() {
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
fn directories_may_be_added_renamed_and_removed() {
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
    // The watch of the moved directory uses the new name.
    scene.publish("new/c/z.torrent", &torrent("t"));
    assert_eq!(scene.next(), "+ new/c/z.torrent t");
    fs::rename(scene.at("new"), scene.directory.join("outside")).unwrap();
    scene.expect(&["- new/c/x.torrent", "- new/c/z.torrent", "- new/y.torrent"]);
    // The directory outside is no longer watched.
    fs::write(scene.directory.join("outside/w.torrent"), torrent("t")).unwrap();
    assert_eq!(scene.so_far(), NO_EVENTS);
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
fn replaced_link_to_directory_is_followed() {
    let (scene, events) = Scene::scanned("current", |torrents| {
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
    // The loop also leads to the releases. Each release is reported under a single path.
    assert_eq!(
        events,
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
    // The target of the link is watched.
    fs::write(
        scene.directory.join("releases/13/more.torrent"),
        torrent("13"),
    )
    .unwrap();
    assert_eq!(scene.next(), "+ current/more.torrent 13");
}

#[test]
fn missing_directory_may_appear_and_be_replaced() {
    let directory = directory("later");
    let (sender, events) = channel();
    let torrents = directory.join("torrents");
    let later = directory.join("mnt/later");
    let report = move |event| sender.send(event).unwrap();
    let watcher = TorrentWatcher::start(settings(&[&torrents, &later]), report).unwrap();
    let scene = Scene {
        directory,
        events,
        watcher,
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
fn overflow_of_event_queue_triggers_rescan() {
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
    let watcher = TorrentWatcher::start(settings(&[&torrents]), report).unwrap();
    let scene = Scene {
        directory,
        events,
        watcher,
        markers: 0,
    };
    assert_eq!(scene.next(), "scanned");
    fs::write(scene.at("old.torrent"), torrent("old")).unwrap();
    assert_eq!(scene.next(), "+ old.torrent old");
    scene.publish("first.torrent", &torrent("first"));
    assert_eq!(scene.next(), "+ first.torrent first");

    // While the thread waits, there are more events than the kernel queues.
    let limit: u32 = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events")
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let (first, second) = (scene.at("noise-1"), scene.at("noise-2"));
    fs::write(&first, "").unwrap();
    for _ in 0..limit / 4 + 10 {
        fs::rename(&first, &second).unwrap();
        fs::rename(&second, &first).unwrap();
    }
    scene.publish("lost.torrent", &torrent("lost"));
    fs::remove_file(scene.at("old.torrent")).unwrap();
    go_on.send(()).unwrap();
    scene.expect(&["+ lost.torrent lost", "- old.torrent"]);
}

#[test]
fn rescan_applies_new_settings() {
    let (scene, _) = Scene::scanned("settings", |torrents| {
        fs::write(torrents.join("a.torrent"), torrent("a")).unwrap();
    });
    let other = scene.directory.join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("b.torrent"), torrent("b")).unwrap();
    scene.watcher.rescan(settings(&[&other]));
    assert_eq!(
        [scene.next(), scene.next(), scene.next()],
        ["+ other/b.torrent b", "- a.torrent", "scanned"]
    );
    assert_eq!(scene.rescan(), ["+ a.torrent a", "- other/b.torrent"]);
}
