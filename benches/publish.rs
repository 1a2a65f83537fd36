//! Measures the delay until a torrent that is renamed into place is reported, and the time to scan 10,000 torrents.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use tbtt::torrents::watcher::{Settings, TorrentWatcher, WatchEvent};

const FILES: usize = 10_000;
const DIRECTORIES: usize = 100;

/// A file of 250 MB has this many pieces of 256 KiB.
const PIECES: usize = 1000;

const TIMEOUT: Duration = Duration::from_secs(60);

fn torrent(number: usize) -> Vec<u8> {
    let (name, length) = (format!("{number:05}"), PIECES << 18);
    let mut torrent = format!(
        "d4:infod6:lengthi{length}e4:name5:{name}12:piece lengthi262144e6:pieces{}:",
        20 * PIECES
    )
    .into_bytes();
    torrent.resize(torrent.len() + 20 * PIECES, 7);
    torrent.extend(b"ee");
    torrent
}

fn path(torrents: &Path, number: usize) -> PathBuf {
    torrents
        .join(format!("{:02}", number % DIRECTORIES))
        .join(format!("{number}.torrent"))
}

fn scanned(events: &Receiver<(WatchEvent, Instant)>) -> usize {
    let mut appeared = 0;
    loop {
        match events.recv_timeout(TIMEOUT).expect("the scan ends") {
            (WatchEvent::Scanned, _) => return appeared,
            (WatchEvent::Appeared { .. }, _) => appeared += 1,
            (other, _) => panic!("{other:?}"),
        }
    }
}

fn start(settings: &Settings) -> (TorrentWatcher, Receiver<(WatchEvent, Instant)>) {
    let (sender, events) = channel();
    let report = move |event| drop(sender.send((event, Instant::now())));
    let watcher = TorrentWatcher::start(settings.clone(), report).expect("inotify");
    (watcher, events)
}

fn main() {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("publish-bench-{}", std::process::id()));
    let (torrents, unpublished) = (directory.join("torrents"), directory.join("unpublished"));
    for number in 0..DIRECTORIES {
        fs::create_dir_all(torrents.join(format!("{number:02}"))).expect("a directory");
    }
    let settings = Settings {
        directories: vec![torrents.clone()],
        rescan_secs: 3600,
    };

    let (watcher, events) = start(&settings);
    assert_eq!(scanned(&events), 0);
    let mut delays = Vec::with_capacity(FILES);
    for number in 0..FILES {
        fs::write(&unpublished, torrent(number)).expect("an unpublished file");
        let path = path(&torrents, number);
        let renamed = Instant::now();
        fs::rename(&unpublished, &path).expect("renamed into place");
        let (event, reported) = events.recv_timeout(TIMEOUT).expect("an event");
        assert!(matches!(event, WatchEvent::Appeared { path: appeared, .. } if appeared == path));
        delays.push(reported - renamed);
    }
    delays.sort();
    let (median, p99, max) = (
        delays[FILES / 2],
        delays[FILES * 99 / 100],
        delays[FILES - 1],
    );
    println!(
        "delay from rename to report, {FILES} files of 20 KB in turn: median {median:.1?}, p99 {p99:.1?}, max {max:.1?}"
    );

    let begin = Instant::now();
    watcher.rescan(settings.clone());
    assert_eq!(scanned(&events), 0);
    println!(
        "rescan of {FILES} files, none of them changed: {:.1?}",
        begin.elapsed()
    );
    drop(watcher);

    let begin = Instant::now();
    let (watcher, events) = start(&settings);
    assert_eq!(scanned(&events), FILES);
    println!(
        "first scan of {FILES} torrents, in the page cache: {:.1?}",
        begin.elapsed()
    );

    // All files at once, as at the end of a mirror run.
    let batch = directory.join("batch");
    fs::create_dir(&batch).expect("a directory");
    for number in 0..FILES {
        fs::write(batch.join(number.to_string()), torrent(number + FILES))
            .expect("an unpublished file");
    }
    let begin = Instant::now();
    let mut renamed = Vec::with_capacity(FILES);
    for number in 0..FILES {
        renamed.push(Instant::now());
        fs::rename(
            batch.join(number.to_string()),
            path(&torrents, number + FILES),
        )
        .expect("renamed into place");
    }
    let mut delays = Vec::with_capacity(FILES);
    while delays.len() < FILES {
        let (event, reported) = events
            .recv_timeout(TIMEOUT)
            .expect("an event for every file");
        if let WatchEvent::Appeared { metainfo, .. } = event {
            let number: usize = metainfo.name.parse().expect("a number");
            delays.push(reported - renamed[number - FILES]);
        }
    }
    delays.sort();
    println!(
        "{FILES} renamed at once: all reported after {:.1?}, median {:.1?}",
        begin.elapsed(),
        delays[FILES / 2]
    );
    drop(watcher);
    fs::remove_dir_all(&directory).expect("cleaned up");
}
