//! Snapshots written and read as the daemon does: what is restored, and what happens to a damaged snapshot.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::stat::Mode;
use nix::unistd::{Uid, mkfifo};
use tbtt::snapshot::{
    self, LoadError, LoadedSnapshot, SaveError, SavePriority, SavedSnapshot, Secrets, Sections,
};
use tbtt::tracker::Tracker;
use tbtt::tracker::rng::Rng;
use tbtt::tracker::settings::Settings;
use tbtt::tracker::types::{Admission, Announce, Event, InfoHash, Key, PeerId, ScrapeEntry, Time};

const SECRETS: Secrets = Secrets {
    seed: 99,
    connection_id: [5; 16],
};
const NOW: Time = Time(500_000);

struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("tbtt-snapshot-{}-{name}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("snapshot")
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn save(&self, tracker: &Tracker) -> Result<SavedSnapshot, SaveError> {
        snapshot::save(
            &self.0,
            tracker,
            Sections::default(),
            NOW,
            at(0),
            &SECRETS,
            SavePriority::Shutdown,
        )
    }

    fn load(&self, passed_secs: u64) -> Result<Option<LoadedSnapshot>, LoadError> {
        snapshot::load(&self.0, at(passed_secs), tracker)
    }

    /// Returns the error that a start with these bytes as the snapshot logs.
    fn rejection(&self, bytes: &[u8]) -> String {
        fs::write(self.file(), bytes).unwrap();
        match self.load(0) {
            Err(error) => error.to_string(),
            Ok(_) => panic!("{} bytes were accepted as a snapshot", bytes.len()),
        }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // A second panic here would hide why a test failed.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn at(passed_secs: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000 + passed_secs)
}

fn tracker(seed: u64) -> Tracker {
    let settings = Settings {
        open: true,
        max_numwant: 100_000,
        ..Settings::default()
    };
    Tracker::new(settings, seed)
}

fn announce(torrent: u32, host: u32, address: IpAddr) -> Announce {
    let mut info_hash = InfoHash([0; 20]);
    info_hash.0[..4].copy_from_slice(&torrent.to_be_bytes());
    let mut peer_id = PeerId([b'-'; 20]);
    peer_id.0[..4].copy_from_slice(&host.to_be_bytes());
    Announce {
        info_hash,
        peer_id,
        key: Some(Key(host)),
        address,
        port: NonZeroU16::MIN,
        event: Event::None,
        complete: false,
        numwant: Some(100_000),
    }
}

fn v4(host: u32) -> IpAddr {
    Ipv4Addr::from(0x0a00_0000 + host).into()
}

fn v6(host: u32) -> IpAddr {
    Ipv6Addr::from(0x2001_0db8 << 96 | u128::from(host) << 64).into()
}

/// Returns a tracker with torrents of up to hundreds of peers, of one or both address families, and of all ages below the
/// time-out.
fn busy() -> Tracker {
    let tracker = tracker(SECRETS.seed);
    let mut random = Rng::new(1);
    for torrent in 0..200u32 {
        if torrent % 5 == 0 {
            let listed = announce(torrent, 0, v4(0)).info_hash;
            tracker.set_admission(&listed, Admission::Listed);
        }
        let peers = if torrent % 40 == 0 {
            700
        } else {
            random.below(6)
        };
        for _ in 0..peers {
            let host = random.below(500);
            let announced = Time(NOW.0 - random.below(2700));
            for address in [v4(host), v6(host)] {
                let mut announce = announce(torrent, host, address);
                announce.event =
                    [Event::None, Event::Completed, Event::Paused][random.below(3) as usize];
                announce.complete = random.below(2) == 0;
                if random.below(3) > 0 {
                    tracker
                        .announce(announced, &announce, &mut Vec::new())
                        .unwrap();
                }
            }
        }
    }
    tracker
}

/// Returns a tracker with a few peers, so that a test can change each byte of its snapshot.
fn few() -> Tracker {
    let tracker = tracker(SECRETS.seed);
    for (torrent, host) in [(1, 1), (1, 2), (2, 3)] {
        for address in [v4(host), v6(host)] {
            let announce = announce(torrent, host, address);
            tracker.announce(NOW, &announce, &mut Vec::new()).unwrap();
        }
    }
    tracker
}

/// Returns the counts of each torrent, and all peers that announces of both address families return.
fn all(tracker: &Tracker, now: Time) -> BTreeMap<InfoHash, (ScrapeEntry, Vec<Vec<u8>>)> {
    let mut torrents = BTreeMap::new();
    tracker.for_each_torrent(|info_hash, counts| {
        torrents.insert(*info_hash, (counts, Vec::new()));
    });
    for (info_hash, (_, peers)) in &mut torrents {
        for (address, len) in [(v4(1_000_000), 6), (v6(1_000_000), 18)] {
            let mut request = announce(0, 1_000_000, address);
            request.info_hash = *info_hash;
            let mut returned = Vec::new();
            tracker.announce(now, &request, &mut returned).unwrap();
            peers.extend(returned.chunks(len).map(<[u8]>::to_vec));
            request.event = Event::Stopped;
            tracker.announce(now, &request, &mut Vec::new()).unwrap();
        }
        peers.sort();
    }
    torrents
}

#[test]
fn restores_everything() {
    let directory = Directory::new("all");
    assert!(directory.load(0).unwrap().is_none());
    let before = busy();
    let saved = directory.save(&before).unwrap();
    let length = fs::metadata(directory.file()).unwrap().len();
    assert_eq!(saved.bytes, length);
    assert_eq!(directory.names(), ["snapshot"]);

    let loaded = directory.load(7).unwrap().unwrap();
    assert_eq!(loaded.secrets, SECRETS);
    assert_eq!(loaded.now, Time(NOW.0 + 7));
    assert_eq!(loaded.age, Duration::from_secs(7));
    assert_eq!(loaded.restored.stored, saved.totals);
    assert_eq!(loaded.restored.kept, saved.totals);
    let (mut peers, after) = (0, all(&loaded.tracker, loaded.now));
    let mut before = all(&before, NOW);
    // Torrents without peers, which no list has named yet.
    before.retain(|_, (counts, peers)| counts.downloaded > 0 || !peers.is_empty());
    for (info_hash, torrent) in &before {
        peers += torrent.1.len();
        assert_eq!(after.get(info_hash), Some(torrent), "{info_hash}");
    }
    assert_eq!(after.len(), before.len());
    assert_eq!(peers, saved.totals.peers.sum());
    assert!(peers > 2000, "{peers}");
}

#[test]
fn same_seed_writes_same_snapshot() {
    let directory = Directory::new("seed");
    let saves: Vec<_> = (0..2)
        .map(|_| {
            directory.save(&busy()).unwrap();
            fs::read(directory.file()).unwrap()
        })
        .collect();
    assert!(saves[0] == saves[1]);
}

#[test]
fn ages_continue_across_a_restart() {
    let directory = Directory::new("ages");
    directory.save(&busy()).unwrap();
    for passed_secs in [0, 1, 59, 60, 61, 1000, 1799, 2640, 2699, 2700, 2760, 90_000] {
        let never_stopped = busy();
        let loaded = directory.load(passed_secs).unwrap().unwrap();
        for secs in [0, 1, 30, 59, 60, 61] {
            let expire = |tracker: &Tracker, now| {
                (0..Tracker::SLICES).for_each(|slice| tracker.expire(now, slice));
                let totals = tracker.totals();
                (totals.peers.v4, totals.peers.v6)
            };
            let passed = passed_secs as u32 + secs;
            assert_eq!(
                // A tracker counts ages up to 256 minutes.
                expire(&never_stopped, Time(NOW.0 + passed.min(12_000))),
                expire(&loaded.tracker, Time(loaded.now.0 + secs)),
                "{secs} s after a stop of {passed_secs} s"
            );
        }
        // After more than 2640 seconds even the youngest peer is 46 minutes old.
        assert_eq!(passed_secs > 2640, never_stopped.totals().peers.v4 == 0);
    }
}

#[test]
fn quick_restarts_do_not_change_ages() {
    let directory = Directory::new("quick");
    let mut loaded = None;
    // Thirty restarts of twenty seconds each take ten minutes; the peers announced in minutes 0 to 45.
    for restart in 0..=30 {
        let (tracker, now) = match loaded.take() {
            None => (busy(), NOW),
            Some(LoadedSnapshot { tracker, now, .. }) => (tracker, now),
        };
        let elapsed = 20 * restart;
        snapshot::save(
            &directory.0,
            &tracker,
            Sections::default(),
            now,
            at(elapsed),
            &SECRETS,
            SavePriority::Shutdown,
        )
        .unwrap();
        loaded = directory.load(elapsed + 20).unwrap();
    }
    let loaded = loaded.unwrap();
    assert_eq!(loaded.now, Time(NOW.0 + 620));
    let never_stopped = busy();
    (0..Tracker::SLICES).for_each(|slice| never_stopped.expire(loaded.now, slice));
    let (there, expected) = (loaded.tracker.totals(), never_stopped.totals());
    assert_eq!(
        (there.peers.v4, there.peers.v6),
        (expected.peers.v4, expected.peers.v6)
    );
}

#[test]
fn dual_stack_host_is_still_counted_once() {
    let directory = Directory::new("once");
    let before = tracker(SECRETS.seed);
    let first = announce(1, 1, v4(1));
    before.announce(NOW, &first, &mut Vec::new()).unwrap();
    directory.save(&before).unwrap();
    let loaded = directory.load(5).unwrap().unwrap();
    let response = loaded
        .tracker
        .announce(loaded.now, &announce(1, 1, v6(1)), &mut Vec::new())
        .unwrap();
    assert_eq!(response.counts.incomplete, 1);
}

#[test]
fn snapshot_is_readable_by_its_owner_only() {
    let directory = Directory::new("mode");
    directory.save(&few()).unwrap();
    let mode = fs::metadata(directory.file()).unwrap().mode();
    assert_eq!(mode & 0o7777, 0o600);
    // The same holds if a file of that name exists already.
    fs::write(directory.0.join("snapshot.new"), "").unwrap();
    fs::set_permissions(
        directory.0.join("snapshot.new"),
        fs::Permissions::from_mode(0o666),
    )
    .unwrap();
    directory.save(&few()).unwrap();
    let mode = fs::metadata(directory.file()).unwrap().mode();
    assert_eq!(mode & 0o7777, 0o600);
    assert_eq!(directory.names(), ["snapshot"]);
}

/// Returns the path of the snapshot that was set aside, from the error.
fn aside(error: &str) -> &Path {
    let (_, rest) = error.split_once("; set aside as ").expect(error);
    let (path, rest) = rest.split_once("; ").expect(error);
    assert_eq!(rest, "starting without peers and counters");
    Path::new(path)
}

#[test]
fn sets_truncated_snapshot_aside() {
    let directory = Directory::new("cut");
    directory.save(&few()).unwrap();
    let whole = fs::read(directory.file()).unwrap();
    for len in 0..whole.len() {
        let error = directory.rejection(&whole[..len]);
        let expected = format!(
            "{} is damaged: it is truncated; ",
            directory.file().display()
        );
        assert!(error.starts_with(&expected), "cut at {len}: {error}");
        assert_eq!(fs::read(aside(&error)).unwrap(), whole[..len]);
        assert!(directory.load(0).unwrap().is_none());
    }
    assert_eq!(directory.names().len(), 3);
    directory.save(&few()).unwrap();
    let loaded = directory.load(0).unwrap().unwrap();
    assert_eq!(loaded.tracker.totals(), few().totals());
}

#[test]
fn detects_each_flipped_bit() {
    let directory = Directory::new("flipped");
    directory.save(&few()).unwrap();
    let whole = fs::read(directory.file()).unwrap();
    for bit in 0..whole.len() * 8 {
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let error = directory.rejection(&flipped);
        assert_eq!(fs::read(aside(&error)).unwrap(), flipped, "bit {bit}");
    }
}

#[test]
fn detects_lost_repeated_and_zeroed_parts() {
    let directory = Directory::new("parts");
    directory.save(&busy()).unwrap();
    let whole = fs::read(directory.file()).unwrap();
    let mut random = Rng::new(3);
    for _ in 0..200 {
        let from = random.below(whole.len() as u32) as usize;
        let to = from + 1 + random.below((whole.len() - from) as u32) as usize;
        let lost = [&whole[..from], &whole[to..]].concat();
        directory.rejection(&lost);
        let repeated = [&whole[..to], &whole[from..]].concat();
        directory.rejection(&repeated);
        let mut zeros = whole.clone();
        zeros[from..to].fill(0);
        if zeros != whole {
            directory.rejection(&zeros);
        }
    }
}

#[test]
fn sets_aside_other_files() {
    let directory = Directory::new("foreign");
    let file = directory.file();
    let other = directory.0.join("other");
    directory.save(&few()).unwrap();
    fs::rename(&file, &other).unwrap();
    type Make<'a> = &'a dyn Fn();
    let cases: [(&str, Make); 5] = [
        ("is not a tbtt snapshot", &|| {
            fs::write(&file, "# written by hand\n").unwrap();
        }),
        (
            "has format 2, of another version of tbtt; this version reads format 1",
            &|| {
                fs::write(&file, b"TBTTSNAP\0\0\0\x02 and other data").unwrap();
            },
        ),
        ("is not a regular file", &|| fs::create_dir(&file).unwrap()),
        // Opening a FIFO would wait for a writer.
        ("is not a regular file", &|| {
            mkfifo(&file, Mode::S_IRWXU).unwrap()
        }),
        ("is not a regular file", &|| symlink(&other, &file).unwrap()),
    ];
    for (why, make) in cases {
        make();
        let error = directory.load(0).err().expect(why).to_string();
        let expected = format!("{} {why}; set aside as ", file.display());
        assert!(error.starts_with(&expected), "{error}");
        assert!(fs::symlink_metadata(aside(&error)).is_ok());
        assert!(directory.load(0).unwrap().is_none(), "{why}");
    }
    // The target of the link is unchanged.
    fs::rename(&other, &file).unwrap();
    assert!(directory.load(0).unwrap().is_some());
}

#[test]
fn sets_unreadable_snapshot_aside() {
    if Uid::effective().is_root() {
        eprintln!("skipped: root can read any file");
        return;
    }
    let directory = Directory::new("unreadable");
    directory.save(&few()).unwrap();
    fs::set_permissions(directory.file(), fs::Permissions::from_mode(0o000)).unwrap();
    let error = directory.load(0).err().unwrap().to_string();
    assert!(
        error.contains("cannot be read: Permission denied"),
        "{error}"
    );
    assert!(aside(&error).exists());
}

#[test]
fn reports_missing_directory_at_start() {
    let directory = Directory::new("missing");
    let missing = directory.0.join("missing");
    let error = snapshot::load(&missing, at(0), tracker).err().unwrap();
    assert_eq!(
        error.to_string(),
        format!(
            "{} cannot be read: No such file or directory (os error 2); \
             create the directory and grant the user that runs tbtt read and write access",
            missing.display()
        )
    );
    fs::write(&missing, "").unwrap();
    let error = snapshot::load(&missing, at(0), tracker).err().unwrap();
    assert!(error.to_string().contains("ot a directory"), "{error}");
    let saved = snapshot::save(
        &missing,
        &few(),
        Sections::default(),
        NOW,
        at(0),
        &SECRETS,
        SavePriority::Shutdown,
    );
    assert!(saved.unwrap_err().to_string().contains("ot a directory"));
}

#[test]
fn keeps_the_last_three_snapshots_set_aside() {
    let directory = Directory::new("three");
    for number in 0..6 {
        fs::write(directory.file(), [number]).unwrap();
        // The system's clock is set back after the third.
        let at = at(if number < 3 { 1000 } else { 0 });
        assert!(snapshot::load(&directory.0, at, tracker).is_err());
    }
    let kept: Vec<_> = directory
        .names()
        .iter()
        .map(|name| fs::read(directory.0.join(name)).unwrap())
        .collect();
    assert_eq!(kept, [[3], [4], [5]]);
}

const SMALL_DISK: &str = "TBTT_TEST_SMALL_DISK";

/// The process that the next test starts, with a limit for the size of files. Without that test it does nothing.
#[test]
fn helper() {
    let Some(directory) = std::env::var_os(SMALL_DISK) else {
        return;
    };
    let saved = snapshot::save(
        Path::new(&directory),
        &busy(),
        Sections::default(),
        NOW,
        at(0),
        &SECRETS,
        SavePriority::Shutdown,
    );
    match saved {
        Ok(_) => println!("result: saved"),
        Err(error) => println!("result: {error}"),
    }
}

#[test]
fn full_disk_keeps_the_previous_snapshot() {
    let directory = Directory::new("full");
    directory.save(&busy()).unwrap();
    let whole = fs::read(directory.file()).unwrap();
    // The limit is reached at the beginning, in the middle, and just before the end. Its unit is 512 bytes.
    for blocks in [0, 1, 20, whole.len() / 512] {
        let output = Command::new("/bin/sh")
            .args(["-c", "trap '' XFSZ; ulimit -f $0; exec \"$@\""])
            .arg(blocks.to_string())
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "helper", "--nocapture"])
            .env(SMALL_DISK, &directory.0)
            .output()
            .unwrap();
        let output = String::from_utf8(output.stdout).unwrap();
        let expected = format!(
            "result: cannot write {}/snapshot.new: File too large (os error 27); \
             keeping the previous snapshot\n",
            directory.0.display()
        );
        assert!(output.contains(&expected), "{blocks} blocks: {output}");
        assert_eq!(directory.names(), ["snapshot"]);
        assert!(fs::read(directory.file()).unwrap() == whole);
    }
    assert!(directory.load(0).unwrap().is_some());
}

#[test]
fn reports_a_directory_in_the_way() {
    let directory = Directory::new("way");
    directory.save(&few()).unwrap();
    let new = directory.0.join("snapshot.new");
    fs::create_dir(&new).unwrap();
    let error = directory.save(&few()).unwrap_err().to_string();
    let expected = format!("cannot remove {}: ", new.display());
    assert!(error.starts_with(&expected), "{error}");
    fs::remove_dir(&new).unwrap();
    // A file that a killed process has left is replaced.
    fs::write(&new, "half").unwrap();
    assert!(directory.load(0).unwrap().is_some());
    directory.save(&few()).unwrap();
    assert_eq!(directory.names(), ["snapshot"]);
}

#[test]
fn snapshot_is_complete_while_announces_continue() {
    let directory = Directory::new("concurrent");
    let tracker = busy();
    let mut before = all(&tracker, NOW);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for seed in 0..2 {
            let (tracker, stop) = (&tracker, &stop);
            scope.spawn(move || {
                let mut random = Rng::new(seed);
                while !stop.load(Ordering::Relaxed) {
                    let host = random.below(2000);
                    let mut announce = announce(1000 + random.below(300), host, v4(host));
                    announce.numwant = Some(50);
                    announce.event = [Event::None, Event::Stopped][random.below(2) as usize];
                    tracker.announce(NOW, &announce, &mut Vec::new()).unwrap();
                }
            });
        }
        for _ in 0..3 {
            let saved = snapshot::save(
                &directory.0,
                &tracker,
                Sections::default(),
                NOW,
                at(0),
                &SECRETS,
                SavePriority::Background,
            );
            saved.unwrap();
            let loaded = directory.load(0).unwrap().unwrap();
            let after = all(&loaded.tracker, NOW);
            before.retain(|_, (counts, peers)| counts.downloaded > 0 || !peers.is_empty());
            for (info_hash, torrent) in &before {
                assert_eq!(after.get(info_hash), Some(torrent));
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}
