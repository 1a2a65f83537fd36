use std::net::Ipv4Addr;
use std::num::NonZeroU16;

use super::*;
use crate::tracker::settings::HostKey;
use crate::tracker::types::InfoHash;
use crate::tracker::{
    Admission, Announce, Event, Key, PeerId, Refusal, ScrapeEntry, Settings, Totals,
};

/// The middle of a minute.
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

fn announce(tracker: &Tracker, at: Time, announce: &Announce) -> TimedUpdate {
    let answer = tracker.announce(at, announce, &mut Vec::new()).unwrap();
    TimedUpdate {
        update: answer.update.expect("it is kept"),
        age_secs: 0,
        redelivered: false,
    }
}

fn redelivered(told: TimedUpdate) -> TimedUpdate {
    TimedUpdate {
        redelivered: true,
        ..told
    }
}

fn counts(tracker: &Tracker) -> (u32, u32) {
    let entry = tracker.scrape(&ID).unwrap();
    (entry.complete, entry.incomplete)
}

fn later(secs: u32) -> Time {
    Time(NOW.0 + secs)
}

#[test]
fn what_one_tracker_answers_another_hears() {
    let (one, other) = (tracker(1), tracker(2));
    let steps = [
        (Event::Started, false, (0, 1)),
        (Event::Paused, false, (0, 1)),
        (Event::Completed, true, (1, 0)),
        (Event::None, true, (1, 0)),
        (Event::Stopped, true, (0, 0)),
    ];
    for address in ["192.0.2.1", "2001:db8::1"] {
        for (number, (event, complete, expected)) in (0..).zip(steps) {
            let told = announce(&one, later(number), &from(address, event, complete));
            assert_eq!(
                other.apply_update(later(number), 0, &told),
                ApplyResult::Applied,
                "{event:?}"
            );
            assert_eq!(counts(&other), expected, "{event:?}");
            assert_eq!(counts(&one), expected, "{event:?}");
        }
    }
    assert_eq!(
        one.scrape(&ID),
        other.scrape(&ID),
        "each has forgotten the torrent"
    );
    assert_eq!(other.totals(), Totals::default());
}

#[test]
fn a_host_counts_once_whichever_trackers_its_families_announce_to() {
    let (one, other) = (tracker(1), tracker(2));
    let completed = |address| from(address, Event::Completed, true);
    let answer = one
        .announce(NOW, &completed("192.0.2.1"), &mut Vec::new())
        .unwrap();
    assert!(answer.new_download);
    let told = announce(&one, NOW, &completed("192.0.2.1"));
    assert!(told.update.completed, "still");
    assert_eq!(other.apply_update(NOW, 0, &told), ApplyResult::Applied);
    let answer = other.announce(NOW, &completed("2001:db8::1"), &mut Vec::new());
    let answer = answer.unwrap();
    assert!(!answer.new_download, "its download is known");
    let expected = ScrapeEntry {
        complete: 1,
        ..ScrapeEntry::default()
    };
    assert_eq!(answer.counts, expected, "no download is counted by hearsay");
    // A tracker with another key takes them for two.
    let stranger = Tracker::new(
        Settings {
            host_key: Some(HostKey::new("other")),
            ..settings()
        },
        2,
    );
    stranger.apply_update(NOW, 0, &told);
    announce(&stranger, NOW, &completed("2001:db8::1"));
    assert_eq!(counts(&stranger), (2, 0));
}

#[test]
fn the_cap_yields_no_change() {
    let tracker = tracker(1);
    for port in 1..=3 {
        let mut announce_from = from("192.0.2.1", Event::Started, false);
        announce_from.port = NonZeroU16::new(port).unwrap();
        announce(&tracker, NOW, &announce_from);
    }
    let fourth = from("192.0.2.1", Event::Started, false);
    let answer = tracker.announce(NOW, &fourth, &mut Vec::new()).unwrap();
    assert_eq!((answer.update, answer.new_download), (None, false));
}

/// Two changes of one peer in both orders, and what remains.
#[test]
fn older_never_beats_newer() {
    let join = |tracker: &Tracker, at: Time, complete| {
        announce(tracker, at, &from("192.0.2.1", Event::Started, complete))
    };
    let leave =
        |tracker: &Tracker, at| announce(tracker, at, &from("192.0.2.1", Event::Stopped, false));
    let source = tracker(1);
    let (leecher, seeder) = (join(&source, NOW, false), join(&source, NOW, true));
    let gone = leave(&source, NOW);
    let cases = [
        // First, its age, second, its age, what remains.
        (leecher, 90, seeder, 5, (1, 0)),
        (seeder, 90, leecher, 5, (0, 1)),
        (leecher, 90, gone, 5, (0, 0)),
        (gone, 90, leecher, 5, (0, 1)),
    ];
    for (first, first_age, second, second_age, expected) in cases {
        for reversed in [false, true] {
            let other = tracker(2);
            let mut steps = [(first_age, first), (second_age, second)];
            if reversed {
                steps.reverse();
            }
            for (passed, told) in steps {
                other.apply_update(NOW, passed, &told);
            }
            assert_eq!(counts(&other), expected, "{first:?} {second:?} {reversed}");
            // And all over redelivered, as often as you like.
            for (passed, told) in steps {
                let heard = other.apply_update(NOW, passed, &told);
                assert!(
                    passed == second_age || heard == ApplyResult::Stale,
                    "{heard:?}"
                );
            }
            assert_eq!(counts(&other), expected, "{first:?} {second:?} {reversed}");
        }
    }
}

#[test]
fn within_a_minute_the_later_word_wins_but_not_by_hearsay() {
    let source = tracker(1);
    let told = |complete| announce(&source, NOW, &from("192.0.2.1", Event::None, complete));
    let (leecher, seeder) = (told(false), told(true));
    let gone = announce(&source, NOW, &from("192.0.2.1", Event::Stopped, true));
    let other = tracker(2);
    assert_eq!(other.apply_update(NOW, 10, &seeder), ApplyResult::Applied);
    assert_eq!(other.apply_update(NOW, 10, &leecher), ApplyResult::Applied);
    assert_eq!(counts(&other), (0, 1));
    assert_eq!(
        other.apply_update(NOW, 10, &redelivered(seeder)),
        ApplyResult::Stale
    );
    assert_eq!(counts(&other), (0, 1));
    assert_eq!(other.apply_update(NOW, 10, &gone), ApplyResult::Applied);
    assert_eq!(
        other.apply_update(NOW, 10, &redelivered(leecher)),
        ApplyResult::Stale,
        "it has left since that minute began"
    );
    assert_eq!(
        other.apply_update(NOW, 10, &leecher),
        ApplyResult::Applied,
        "stopped, and started within the second"
    );
    assert_eq!(counts(&other), (0, 1));
    assert_eq!(
        other.apply_update(NOW, 12, &redelivered(gone)),
        ApplyResult::Stale,
        "it has come back since"
    );
    assert_eq!(counts(&other), (0, 1));
    assert_eq!(
        other.apply_update(later(60), 12, &redelivered(gone)),
        ApplyResult::Applied
    );
    assert_eq!(counts(&other), (0, 0));
    let third = self::tracker(3);
    assert_eq!(third.apply_update(NOW, 10, &leecher), ApplyResult::Applied);
    assert_eq!(
        third.apply_update(NOW, 10, &redelivered(gone)),
        ApplyResult::Applied,
        "missed it"
    );
    assert_eq!(counts(&third), (0, 0));
}

#[test]
fn who_is_here_is_known() {
    let tracker = tracker(1);
    let gone = announce(&tracker, NOW, &from("192.0.2.1", Event::Stopped, false)).update;
    assert!(!tracker.contains(&gone));
    announce(&tracker, NOW, &from("192.0.2.2", Event::Started, false));
    assert!(!tracker.contains(&gone));
    announce(&tracker, NOW, &from("192.0.2.1", Event::Started, false));
    assert!(tracker.contains(&gone));
    announce(&tracker, NOW, &from("192.0.2.1", Event::Stopped, false));
    assert!(!tracker.contains(&gone));
}

#[test]
fn a_local_announce_stands_against_what_is_late() {
    let source = tracker(1);
    let told = announce(&source, NOW, &from("192.0.2.1", Event::Started, true));
    let gone = announce(&source, NOW, &from("192.0.2.1", Event::Stopped, true));
    let other = tracker(2);
    announce(&other, later(60), &from("192.0.2.1", Event::Started, false));
    for late in [told, gone] {
        assert_eq!(other.apply_update(later(65), 65, &late), ApplyResult::Stale);
    }
    assert_eq!(counts(&other), (0, 1));
    announce(&other, later(70), &from("192.0.2.1", Event::Stopped, false));
    assert_eq!(other.apply_update(later(75), 75, &told), ApplyResult::Stale);
    assert_eq!(counts(&other), (0, 0));
    // Clocks across a network do not agree to the second.
    assert_eq!(
        other.apply_update(later(75), 7, &told),
        ApplyResult::Applied
    );
    // Without a key nothing is told, and so nothing is remembered.
    let lone = Tracker::new(
        Settings {
            host_key: None,
            ..settings()
        },
        3,
    );
    announce(&lone, later(70), &from("192.0.2.1", Event::Stopped, false));
    assert_eq!(
        lone.apply_update(later(75), 75, &told),
        ApplyResult::Applied
    );
}

#[test]
fn ages_are_kept_and_the_silent_stay_away() {
    let source = tracker(1);
    let told = announce(&source, NOW, &from("192.0.2.1", Event::Started, true));
    // Time 0 was a moment ago, and the change before it.
    for now in [Time(0), Time(59), NOW, Time(u32::MAX - 10_000)] {
        let other = tracker(2);
        assert_eq!(other.apply_update(now, 2700, &told), ApplyResult::Applied);
        let expire = |at: u32| (0..Tracker::SLICES).for_each(|slice| other.expire(Time(at), slice));
        expire(now.0);
        assert_eq!(counts(&other), (1, 0), "{now:?}");
        expire(now.0 + 62);
        assert_eq!(counts(&other), (0, 0), "{now:?}");
        assert_eq!(
            other.apply_update(now, 2762, &told),
            ApplyResult::Stale,
            "{now:?}"
        );
        let ancient = TimedUpdate {
            age_secs: u32::MAX,
            ..told
        };
        assert_eq!(
            other.apply_update(now, u32::MAX, &ancient),
            ApplyResult::Stale
        );
    }
}

#[test]
fn hearsay_must_be_as_welcome_as_an_announce() {
    let source = tracker(1);
    let told = announce(&source, NOW, &from("192.0.2.1", Event::Started, true));
    let gone = announce(&source, NOW, &from("192.0.2.1", Event::Stopped, true));
    let closed = Tracker::new(
        Settings {
            open: false,
            ..settings()
        },
        2,
    );
    assert_eq!(closed.apply_update(NOW, 0, &told), ApplyResult::Rejected);
    assert_eq!(closed.apply_update(NOW, 0, &gone), ApplyResult::Stale);
    assert_eq!(closed.totals(), Totals::default());
    closed.admit(&ID, Admission::Listed);
    assert_eq!(closed.apply_update(NOW, 0, &told), ApplyResult::Applied);
    closed.admit(&ID, Admission::Denied);
    assert_eq!(closed.apply_update(NOW, 0, &told), ApplyResult::Rejected);

    let mut unwelcome = settings();
    let list = |text: &str| text.parse().unwrap();
    unwelcome.announces.access =
        crate::tracker::access::AccessList::new(Vec::new(), vec![list("192.0.2.0/24")]);
    let picky = Tracker::new(unwelcome, 2);
    assert_eq!(picky.apply_update(NOW, 0, &told), ApplyResult::Rejected);
    assert_eq!(picky.totals(), Totals::default());

    let withdrawn = tracker(2);
    let notice = crate::tracker::settings::Notice {
        failure: Some("withdrawn".into()),
        ..Default::default()
    };
    withdrawn.set_notice(ID, Some(notice));
    assert_eq!(withdrawn.apply_update(NOW, 0, &told), ApplyResult::Rejected);
    assert!(matches!(
        withdrawn.announce(NOW, &from("192.0.2.1", Event::None, true), &mut Vec::new()),
        Err(Refusal::Withdrawn(_))
    ));

    let full = tracker(2);
    for port in 1..=3 {
        let mut told = told;
        told.update.port = NonZeroU16::new(port).unwrap();
        assert_eq!(full.apply_update(NOW, 0, &told), ApplyResult::Applied);
    }
    assert_eq!(full.apply_update(NOW, 0, &told), ApplyResult::Rejected);
    assert_eq!(counts(&full), (3, 0));
}

#[test]
fn a_recount_tells_everything_and_adds_nothing_twice() {
    let (source, other) = (tracker(1), tracker(2));
    let mut peers = 0;
    for torrent in 0..50 {
        for number in 0..torrent * torrent {
            let address = Ipv4Addr::from(0x0a00_0000 + number);
            let mut announce_from = from(&address.to_string(), Event::Completed, number % 2 == 0);
            announce_from.info_hash = InfoHash([torrent as u8; 20]);
            announce_from.key = Some(Key(number));
            if number % 3 == 0 {
                let v6 = std::net::Ipv6Addr::from((0x2001_0db8 << 96) + (u128::from(number) << 64));
                announce_from.address = v6.into();
            }
            announce(&source, Time(NOW.0 - number % 600), &announce_from);
            peers += 1;
        }
    }
    // It comes to another a minute later, whose clock says something else.
    let all = recounted(&source, later(0), u32::MAX);
    assert_eq!(all.len(), peers);
    let theirs = Time(7);
    for told in &all {
        assert_eq!(
            other.apply_update(theirs, 60, told),
            ApplyResult::Applied,
            "{told:?}"
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
    for told in &all {
        assert_eq!(
            other.apply_update(theirs, 60, told),
            ApplyResult::Stale,
            "{told:?}"
        );
        assert_eq!(
            source.apply_update(later(60), 60, told),
            ApplyResult::Stale,
            "{told:?}"
        );
    }
    // Back from the other, nothing has become younger.
    for told in recounted(&other, theirs, u32::MAX) {
        assert_eq!(
            source.apply_update(later(60), 0, &told),
            ApplyResult::Stale,
            "{told:?}"
        );
    }
    // The last two minutes and the one begun before; each second as many peers as another.
    let late = recounted(&source, later(0), 120);
    assert!(late.iter().all(|told| told.age_secs < 240));
    assert!(late.len() > all.len() / 5 && late.len() < all.len() * 2 / 3);
}

fn recounted(tracker: &Tracker, now: Time, since_secs: u32) -> Vec<TimedUpdate> {
    let (mut walk, mut told) = (DumpCursor::default(), Vec::new());
    while tracker.dump_updates(now, since_secs, &mut walk, &mut told) {}
    told
}

#[test]
fn the_highest_count_is_shown() {
    let tracker = Tracker::new(
        Settings {
            open: false,
            ..settings()
        },
        1,
    );
    let shown = || tracker.scrape(&ID).unwrap().downloaded;
    tracker.show_downloads(&ID, 5);
    assert_eq!(tracker.scrape(&ID), None);
    tracker.admit(&ID, Admission::Listed);
    assert_eq!(shown(), 5, "remembered until it was listed");
    tracker.show_downloads(&ID, 4);
    assert_eq!(shown(), 5);
    announce(&tracker, NOW, &from("192.0.2.1", Event::Completed, true));
    tracker.show_downloads(&ID, 7);
    assert_eq!(shown(), 7);
}
