//! How soon a torrent that is renamed into place is known, and how long 10,000 of them take to scan.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use tbtt::torrents::watcher::{Settings, TorrentWatcher, WatchEvent};

const FILES: usize = 10_000;
const DIRECTORIES: usize = 100;

/// So many as a disc of 250 MB has in pieces of 256 KiB.
const PIECES: usize = 1000;

const PATIENCE: Duration = Duration::from_secs(60);

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
        match events.recv_timeout(PATIENCE).expect("the scan ends") {
            (WatchEvent::Scanned, _) => return appeared,
            (WatchEvent::Appeared { .. }, _) => appeared += 1,
            (other, _) => panic!("{other:?}"),
        }
    }
}

fn start(settings: &Settings) -> (TorrentWatcher, Receiver<(WatchEvent, Instant)>) {
    let (sender, events) = channel();
    let report = move |event| drop(sender.send((event, Instant::now())));
    let publisher = TorrentWatcher::start(settings.clone(), report).expect("inotify");
    (publisher, events)
}

fn main() {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("publish-bench-{}", std::process::id()));
    let (torrents, aside) = (place.join("torrents"), place.join("aside"));
    for number in 0..DIRECTORIES {
        fs::create_dir_all(torrents.join(format!("{number:02}"))).expect("a directory");
    }
    let settings = Settings {
        directories: vec![torrents.clone()],
        rescan_secs: 3600,
    };

    let (publisher, events) = start(&settings);
    assert_eq!(scanned(&events), 0);
    let mut delays = Vec::with_capacity(FILES);
    for number in 0..FILES {
        fs::write(&aside, torrent(number)).expect("a file aside");
        let path = path(&torrents, number);
        let renamed = Instant::now();
        fs::rename(&aside, &path).expect("renamed into place");
        let (event, told) = events.recv_timeout(PATIENCE).expect("the file is told");
        assert!(matches!(event, WatchEvent::Appeared { path: told, .. } if told == path));
        delays.push(told - renamed);
    }
    delays.sort();
    let (half, p99, most) = (
        delays[FILES / 2],
        delays[FILES * 99 / 100],
        delays[FILES - 1],
    );
    println!(
        "renamed into place to told, {FILES} files of 20 KB one by one: median {half:.1?}, p99 {p99:.1?}, most {most:.1?}"
    );

    let begin = Instant::now();
    publisher.rescan(settings.clone());
    assert_eq!(scanned(&events), 0);
    println!(
        "rescan of {FILES} files, none of them changed: {:.1?}",
        begin.elapsed()
    );
    drop(publisher);

    let begin = Instant::now();
    let (publisher, events) = start(&settings);
    assert_eq!(scanned(&events), FILES);
    println!(
        "first scan of {FILES} torrents, in the page cache: {:.1?}",
        begin.elapsed()
    );

    // All at once, as when a mirror has caught up.
    let batch = place.join("batch");
    fs::create_dir(&batch).expect("a directory");
    for number in 0..FILES {
        fs::write(batch.join(number.to_string()), torrent(number + FILES)).expect("a file aside");
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
        let (event, told) = events.recv_timeout(PATIENCE).expect("every file is told");
        if let WatchEvent::Appeared { metainfo, .. } = event {
            let number: usize = metainfo.name.parse().expect("a number");
            delays.push(told - renamed[number - FILES]);
        }
    }
    delays.sort();
    println!(
        "{FILES} renamed at once: all told after {:.1?}, median {:.1?}",
        begin.elapsed(),
        delays[FILES / 2]
    );
    drop(publisher);
    fs::remove_dir_all(&place).expect("cleaned up");
}
