//! Tests of updates: their order, their age, the limits, and the dump of all peers.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;

use super::*;
use crate::tracker::access::AccessList;
use crate::tracker::settings::{HostKey, Notice, Settings};
use crate::tracker::types::{
    Admission, Announce, Event, InfoHash, Key, PeerId, Refusal, ScrapeEntry, Totals,
};

/// A time in the middle of a minute.
const NOW: Time = Time(100 * 60 + 30);
const ID: InfoHash = InfoHash([7; 20]);

fn settings() -> Settings {
    Settings {
        open: true,
        max_peers_per_network: 3,
        host_key: Some(HostKey::new("tbtt")),
        ..Settings::default()
    }
}

fn tracker(seed: u64) -> Tracker {
    Tracker::new(settings(), seed)
}

fn from(address: &str, event: Event, complete: bool) -> Announce {
    Announce {
        info_hash: ID,
        peer_id: PeerId([1; 20]),
        key: Some(Key(1)),
        address: address.parse().unwrap(),
        port: NonZeroU16::new(6881).unwrap(),
        event,
        complete,
        numwant: None,
    }
}

/// Announces and returns the update for other trackers.
fn announce(tracker: &Tracker, at: Time, announce: &Announce) -> TimedUpdate {
    let response = tracker.announce(at, announce, &mut Vec::new()).unwrap();
    TimedUpdate {
        update: response.update.expect("the peer is kept"),
        age_secs: 0,
        redelivered: false,
    }
}

fn redelivered(update: TimedUpdate) -> TimedUpdate {
    TimedUpdate {
        redelivered: true,
        ..update
    }
}

/// Returns the numbers of seeders and leechers.
fn counts(tracker: &Tracker) -> (u32, u32) {
    let entry = tracker.scrape(&ID).unwrap();
    (entry.complete, entry.incomplete)
}

fn later(secs: u32) -> Time {
    Time(NOW.0 + secs)
}

#[test]
fn update_of_every_event_is_applied() {
    let (source, other) = (tracker(1), tracker(2));
    let steps = [
        (Event::Started, false, (0, 1)),
        (Event::Paused, false, (0, 1)),
        (Event::Completed, true, (1, 0)),
        (Event::None, true, (1, 0)),
        (Event::Stopped, true, (0, 0)),
    ];
    for address in ["192.0.2.1", "2001:db8::1"] {
        for (number, (event, complete, expected)) in (0..).zip(steps) {
            let update = announce(&source, later(number), &from(address, event, complete));
            assert_eq!(
                other.apply_update(later(number), 0, &update),
                ApplyResult::Applied,
                "{event:?}"
            );
            assert_eq!(counts(&other), expected, "{event:?}");
            assert_eq!(counts(&source), expected, "{event:?}");
        }
    }
    assert_eq!(
        source.scrape(&ID),
        other.scrape(&ID),
        "both have removed the torrent"
    );
    assert_eq!(other.totals(), Totals::default());
}

#[test]
fn host_that_announces_to_two_trackers_counts_once() {
    let (source, other) = (tracker(1), tracker(2));
    let completed = |address| from(address, Event::Completed, true);
    let response = source
        .announce(NOW, &completed("192.0.2.1"), &mut Vec::new())
        .unwrap();
    assert!(response.new_download);
    let update = announce(&source, NOW, &completed("192.0.2.1"));
    assert!(
        update.update.completed,
        "the download was counted before this announce"
    );
    assert_eq!(other.apply_update(NOW, 0, &update), ApplyResult::Applied);
    let response = other.announce(NOW, &completed("2001:db8::1"), &mut Vec::new());
    let response = response.unwrap();
    assert!(!response.new_download, "the source has counted it");
    let expected = ScrapeEntry {
        complete: 1,
        ..ScrapeEntry::default()
    };
    assert_eq!(response.counts, expected, "an update counts no download");
    // A tracker with another key takes the two peers for two hosts.
    let other_key = Tracker::new(
        Settings {
            host_key: Some(HostKey::new("other")),
            ..settings()
        },
        2,
    );
    other_key.apply_update(NOW, 0, &update);
    announce(&other_key, NOW, &completed("2001:db8::1"));
    assert_eq!(counts(&other_key), (2, 0));
}

#[test]
fn announce_beyond_limit_of_network_has_no_update() {
    let tracker = tracker(1);
    for port in 1..=3 {
        let mut announce_from = from("192.0.2.1", Event::Started, false);
        announce_from.port = NonZeroU16::new(port).unwrap();
        announce(&tracker, NOW, &announce_from);
    }
    let fourth = from("192.0.2.1", Event::Started, false);
    let response = tracker.announce(NOW, &fourth, &mut Vec::new()).unwrap();
    assert_eq!((response.update, response.new_download), (None, false));
}

/// Applies two updates of a peer in both orders, and compares what remains.
#[test]
fn older_update_does_not_undo_newer_one() {
    let join = |tracker: &Tracker, at: Time, complete| {
        announce(tracker, at, &from("192.0.2.1", Event::Started, complete))
    };
    let leave =
        |tracker: &Tracker, at| announce(tracker, at, &from("192.0.2.1", Event::Stopped, false));
    let source = tracker(1);
    let (leecher, seeder) = (join(&source, NOW, false), join(&source, NOW, true));
    let departure = leave(&source, NOW);
    let cases = [
        // The older update and its age, the newer and its age, and the remaining seeders and leechers.
        (leecher, 90, seeder, 5, (1, 0)),
        (seeder, 90, leecher, 5, (0, 1)),
        (leecher, 90, departure, 5, (0, 0)),
        (departure, 90, leecher, 5, (0, 1)),
    ];
    for (older, older_age, newer, newer_age, expected) in cases {
        for reversed in [false, true] {
            let other = tracker(2);
            let mut steps = [(older_age, older), (newer_age, newer)];
            if reversed {
                steps.reverse();
            }
            for (passed, update) in steps {
                other.apply_update(NOW, passed, &update);
            }
            assert_eq!(counts(&other), expected, "{older:?} {newer:?} {reversed}");
            // Nothing changes when both are applied again.
            for (passed, update) in steps {
                let result = other.apply_update(NOW, passed, &update);
                assert!(
                    passed == newer_age || result == ApplyResult::Stale,
                    "{result:?}"
                );
            }
            assert_eq!(counts(&other), expected, "{older:?} {newer:?} {reversed}");
        }
    }
}

#[test]
fn within_a_minute_the_later_update_wins_unless_redelivered() {
    let source = tracker(1);
    let join = |complete| announce(&source, NOW, &from("192.0.2.1", Event::None, complete));
    let (leecher, seeder) = (join(false), join(true));
    let departure = announce(&source, NOW, &from("192.0.2.1", Event::Stopped, true));
    let other = tracker(2);
    assert_eq!(other.apply_update(NOW, 10, &seeder), ApplyResult::Applied);
    assert_eq!(other.apply_update(NOW, 10, &leecher), ApplyResult::Applied);
    assert_eq!(counts(&other), (0, 1));
    assert_eq!(
        other.apply_update(NOW, 10, &redelivered(seeder)),
        ApplyResult::Stale
    );
    assert_eq!(counts(&other), (0, 1));
    assert_eq!(
        other.apply_update(NOW, 10, &departure),
        ApplyResult::Applied
    );
    assert_eq!(
        other.apply_update(NOW, 10, &redelivered(leecher)),
        ApplyResult::Stale,
        "the peer has left since that minute began"
    );
    assert_eq!(
        other.apply_update(NOW, 10, &leecher),
        ApplyResult::Applied,
        "stopped and started within a second"
    );
    assert_eq!(counts(&other), (0, 1));
    assert_eq!(
        other.apply_update(NOW, 12, &redelivered(departure)),
        ApplyResult::Stale,
        "the peer has joined again since"
    );
    assert_eq!(counts(&other), (0, 1));
    assert_eq!(
        other.apply_update(later(60), 12, &redelivered(departure)),
        ApplyResult::Applied
    );
    assert_eq!(counts(&other), (0, 0));
    let third = tracker(3);
    assert_eq!(third.apply_update(NOW, 10, &leecher), ApplyResult::Applied);
    assert_eq!(
        third.apply_update(NOW, 10, &redelivered(departure)),
        ApplyResult::Applied,
        "this tracker has missed the departure"
    );
    assert_eq!(counts(&third), (0, 0));
}

#[test]
fn contains_peer_until_it_leaves() {
    let tracker = tracker(1);
    let peer = announce(&tracker, NOW, &from("192.0.2.1", Event::Stopped, false)).update;
    assert!(!tracker.contains(&peer));
    announce(&tracker, NOW, &from("192.0.2.2", Event::Started, false));
    assert!(!tracker.contains(&peer));
    announce(&tracker, NOW, &from("192.0.2.1", Event::Started, false));
    assert!(tracker.contains(&peer));
    announce(&tracker, NOW, &from("192.0.2.1", Event::Stopped, false));
    assert!(!tracker.contains(&peer));
}

#[test]
fn late_update_does_not_undo_local_announce() {
    let source = tracker(1);
    let join = announce(&source, NOW, &from("192.0.2.1", Event::Started, true));
    let departure = announce(&source, NOW, &from("192.0.2.1", Event::Stopped, true));
    let other = tracker(2);
    announce(&other, later(60), &from("192.0.2.1", Event::Started, false));
    for late in [join, departure] {
        assert_eq!(other.apply_update(later(65), 65, &late), ApplyResult::Stale);
    }
    assert_eq!(counts(&other), (0, 1));
    announce(&other, later(70), &from("192.0.2.1", Event::Stopped, false));
    assert_eq!(other.apply_update(later(75), 75, &join), ApplyResult::Stale);
    assert_eq!(counts(&other), (0, 0));
    // Two seconds of tolerance, as clocks on two machines do not agree to the second.
    assert_eq!(
        other.apply_update(later(75), 7, &join),
        ApplyResult::Applied
    );
    // Without a host key there is no cluster, so departures are not recorded.
    let standalone = Tracker::new(
        Settings {
            host_key: None,
            ..settings()
        },
        3,
    );
    announce(
        &standalone,
        later(70),
        &from("192.0.2.1", Event::Stopped, false),
    );
    assert_eq!(
        standalone.apply_update(later(75), 75, &join),
        ApplyResult::Applied
    );
}

#[test]
fn age_is_kept_and_expired_peer_is_stale() {
    let source = tracker(1);
    let update = announce(&source, NOW, &from("192.0.2.1", Event::Started, true));
    // The update may be from before time 0.
    for now in [Time(0), Time(59), NOW, Time(u32::MAX - 10_000)] {
        let other = tracker(2);
        assert_eq!(other.apply_update(now, 2700, &update), ApplyResult::Applied);
        let expire = |at: u32| (0..Tracker::SLICES).for_each(|slice| other.expire(Time(at), slice));
        expire(now.0);
        assert_eq!(counts(&other), (1, 0), "{now:?}");
        expire(now.0 + 62);
        assert_eq!(counts(&other), (0, 0), "{now:?}");
        assert_eq!(
            other.apply_update(now, 2762, &update),
            ApplyResult::Stale,
            "{now:?}"
        );
        let ancient = TimedUpdate {
            age_secs: u32::MAX,
            ..update
        };
        assert_eq!(
            other.apply_update(now, u32::MAX, &ancient),
            ApplyResult::Stale
        );
    }
}

#[test]
fn update_is_subject_to_the_rules_for_announces() {
    let source = tracker(1);
    let join = announce(&source, NOW, &from("192.0.2.1", Event::Started, true));
    let departure = announce(&source, NOW, &from("192.0.2.1", Event::Stopped, true));
    let closed = Tracker::new(
        Settings {
            open: false,
            ..settings()
        },
        2,
    );
    assert_eq!(closed.apply_update(NOW, 0, &join), ApplyResult::Rejected);
    assert_eq!(closed.apply_update(NOW, 0, &departure), ApplyResult::Stale);
    assert_eq!(closed.totals(), Totals::default());
    closed.set_admission(&ID, Admission::Listed);
    assert_eq!(closed.apply_update(NOW, 0, &join), ApplyResult::Applied);
    closed.set_admission(&ID, Admission::Denied);
    assert_eq!(closed.apply_update(NOW, 0, &join), ApplyResult::Rejected);

    let mut denying = settings();
    let denied = vec!["192.0.2.0/24".parse().unwrap()];
    denying.announces.access = AccessList::new(Vec::new(), denied);
    let denying = Tracker::new(denying, 2);
    assert_eq!(denying.apply_update(NOW, 0, &join), ApplyResult::Rejected);
    assert_eq!(denying.totals(), Totals::default());

    let withdrawn = tracker(2);
    let notice = Notice {
        failure: Some("withdrawn".into()),
        ..Default::default()
    };
    withdrawn.set_notice(ID, Some(notice));
    assert_eq!(withdrawn.apply_update(NOW, 0, &join), ApplyResult::Rejected);
    assert!(matches!(
        withdrawn.announce(NOW, &from("192.0.2.1", Event::None, true), &mut Vec::new()),
        Err(Refusal::Withdrawn(_))
    ));

    let full = tracker(2);
    for port in 1..=3 {
        let mut join = join;
        join.update.port = NonZeroU16::new(port).unwrap();
        assert_eq!(full.apply_update(NOW, 0, &join), ApplyResult::Applied);
    }
    assert_eq!(full.apply_update(NOW, 0, &join), ApplyResult::Rejected);
    assert_eq!(counts(&full), (3, 0));
}

#[test]
fn dump_has_every_peer_and_is_stale_when_applied_again() {
    let (source, other) = (tracker(1), tracker(2));
    let mut peers = 0;
    for torrent in 0..50 {
        for number in 0..torrent * torrent {
            let address = Ipv4Addr::from(0x0a00_0000 + number);
            let mut announce_from = from(&address.to_string(), Event::Completed, number % 2 == 0);
            announce_from.info_hash = InfoHash([torrent as u8; 20]);
            announce_from.key = Some(Key(number));
            if number % 3 == 0 {
                let v6 = Ipv6Addr::from((0x2001_0db8 << 96) + (u128::from(number) << 64));
                announce_from.address = v6.into();
            }
            announce(&source, Time(NOW.0 - number % 600), &announce_from);
            peers += 1;
        }
    }
    // The other tracker applies it a minute later, by a clock with another origin.
    let all = dump(&source, later(0), u32::MAX);
    assert_eq!(all.len(), peers);
    let other_now = Time(7);
    for update in &all {
        assert_eq!(
            other.apply_update(other_now, 60, update),
            ApplyResult::Applied,
            "{update:?}"
        );
    }
    for torrent in 0..50 {
        let id = InfoHash([torrent; 20]);
        let without_downloads = |tracker: &Tracker| ScrapeEntry {
            downloaded: 0,
            ..tracker.scrape(&id).unwrap()
        };
        assert_eq!(without_downloads(&other), without_downloads(&source));
    }
    for update in &all {
        assert_eq!(
            other.apply_update(other_now, 60, update),
            ApplyResult::Stale,
            "{update:?}"
        );
        assert_eq!(
            source.apply_update(later(60), 60, update),
            ApplyResult::Stale,
            "{update:?}"
        );
    }
    // In a dump of the other tracker, no peer is younger than in the source.
    for update in dump(&other, other_now, u32::MAX) {
        assert_eq!(
            source.apply_update(later(60), 0, &update),
            ApplyResult::Stale,
            "{update:?}"
        );
    }
    // The peers of the last two minutes and of the minute that had begun before. The same number announced in each second.
    let late = dump(&source, later(0), 120);
    assert!(late.iter().all(|update| update.age_secs < 240));
    assert!(late.len() > all.len() / 5 && late.len() < all.len() * 2 / 3);
}

fn dump(tracker: &Tracker, now: Time, since_secs: u32) -> Vec<TimedUpdate> {
    let (mut cursor, mut updates) = (DumpCursor::default(), Vec::new());
    while tracker.dump_updates(now, since_secs, &mut cursor, &mut updates) {}
    updates
}

#[test]
fn raise_downloads_never_lowers_the_counter() {
    let tracker = Tracker::new(
        Settings {
            open: false,
            ..settings()
        },
        1,
    );
    let shown = || tracker.scrape(&ID).unwrap().downloaded;
    tracker.raise_downloads(&ID, 5);
    assert_eq!(tracker.scrape(&ID), None);
    tracker.set_admission(&ID, Admission::Listed);
    assert_eq!(shown(), 5, "kept until the torrent was listed");
    tracker.raise_downloads(&ID, 4);
    assert_eq!(shown(), 5);
    announce(&tracker, NOW, &from("192.0.2.1", Event::Completed, true));
    tracker.raise_downloads(&ID, 7);
    assert_eq!(shown(), 7);
}
