//! Tests of the block format, and of dumps that are restored.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;

use super::*;
use crate::tracker::rng::Rng;
use crate::tracker::settings::Settings;
use crate::tracker::types::{Announce, Event, Key, PeerId, ScrapeEntry};

const NOW: Time = Time(100 * 60);
const SEED: u64 = 3;

fn tracker(open: bool) -> Tracker {
    let settings = Settings {
        open,
        max_numwant: 1000,
        ..Settings::default()
    };
    Tracker::new(settings, SEED)
}

fn hash(number: u8) -> InfoHash {
    InfoHash([number; 20])
}

fn announce(tracker: &Tracker, at: Time, torrent: u8, address: IpAddr, event: Event) {
    let announce = Announce {
        info_hash: hash(torrent),
        peer_id: PeerId([7; 20]),
        key: Some(Key(7)),
        address,
        port: NonZeroU16::MIN,
        event,
        complete: event == Event::Completed,
        numwant: Some(0),
    };
    tracker
        .announce(at, &announce, &mut Vec::new())
        .expect("the tracker is open or the torrent is listed");
}

fn v4(number: u32) -> IpAddr {
    Ipv4Addr::from(0x0a00_0000 + number).into()
}

fn blocks(tracker: &Tracker, now: Time) -> Vec<Vec<u8>> {
    let (mut cursor, mut block, mut blocks) = (DumpCursor::default(), Vec::new(), Vec::new());
    while tracker.dump_block(now, &mut cursor, &mut block).is_some() {
        assert!(block.len() <= Tracker::MAX_BLOCK);
        if !block.is_empty() {
            blocks.push(block.clone());
        }
    }
    blocks
}

fn restore(tracker: &Tracker, now: Time, passed_minutes: u32, blocks: &[Vec<u8>]) -> Restored {
    let mut restore = tracker.restore(now, passed_minutes);
    for block in blocks {
        restore
            .restore_block(block)
            .expect("the block was dumped by a tracker");
    }
    restore.finish()
}

#[test]
fn format_is_the_same_on_every_machine() {
    let tracker = tracker(false);
    tracker.set_admission(&hash(1), Admission::Listed);
    announce(&tracker, Time(NOW.0 - 120), 1, v4(1), Event::Completed);
    let [block] = &blocks(&tracker, NOW)[..] else {
        panic!("one torrent is one block")
    };
    let (fixed, flags) = block.split_at(block.len() - 4);
    let expected = [
        &[0, 0, 0, 1][..],
        &[1; 20],
        &[1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0],
        &[10, 0, 0, 1, 0, 1, 2],
    ];
    assert_eq!(fixed, expected.concat());
    // The fingerprint for this seed, peer id and key, and the flags of a seeder that has completed.
    assert_eq!(flags, [0x1c, 0x1b, 0x99, 0xd6]);
}

#[test]
fn ages_continue_and_expired_peers_are_not_restored() {
    let first = tracker(true);
    // The default timeout is 45 minutes.
    for age in 0..=50 {
        announce(&first, Time(NOW.0 - age * 60), 1, v4(age), Event::None);
    }
    for (passed, expected) in [(0, 46), (1, 45), (45, 1), (46, 0), (300, 0), (u32::MAX, 0)] {
        let second = tracker(true);
        let now = Time(NOW.0 + passed.min(300) * 60);
        let restored = restore(&second, now, passed, &blocks(&first, NOW));
        assert_eq!(
            (restored.stored.peers.v4, restored.kept.peers.v4),
            (51, expected)
        );
        assert_eq!(second.totals().peers.v4, expected, "after {passed} minutes");
        // A minute later, another peer has expired.
        let later = Time(now.0 + 60);
        (0..Tracker::SLICES).for_each(|slice| second.expire(later, slice));
        assert_eq!(second.totals().peers.v4, expected.saturating_sub(1));
    }
}

#[test]
fn peer_that_announces_during_dump_has_age_zero() {
    assert_eq!(age_minutes(NOW, NOW.minute()), 0);
    assert_eq!(age_minutes(NOW, NOW.minute() + 1), 0);
    assert_eq!(age_minutes(NOW, NOW.minute() - 1), 1);
    assert_eq!(age_minutes(NOW, NOW.minute().wrapping_sub(245)), 245);
}

#[test]
fn counter_of_listed_torrent_is_kept_without_peers() {
    for listed_before in [true, false] {
        let mut last = tracker(false);
        last.set_admission(&hash(1), Admission::Listed);
        announce(&last, NOW, 1, v4(1), Event::Completed);
        announce(&last, NOW, 1, v4(1), Event::Stopped);
        // The torrent is not listed after the first two of three restarts.
        for listed in [false, false, true] {
            let next = tracker(false);
            if listed && listed_before {
                next.set_admission(&hash(1), Admission::Listed);
            }
            restore(&next, NOW, 0, &blocks(&last, NOW));
            if listed && !listed_before {
                next.set_admission(&hash(1), Admission::Listed);
            }
            last = next;
        }
        let downloaded = last.scrape(&hash(1)).map(|counts| counts.downloaded);
        assert_eq!(downloaded, Some(1));
        assert_eq!(last.totals().torrents, 1);
    }
}

#[test]
fn unlisted_torrent_is_removed_with_its_last_peer() {
    let first = tracker(true);
    announce(&first, NOW, 1, v4(1), Event::Completed);
    announce(&first, NOW, 2, v4(1), Event::Completed);
    announce(&first, NOW, 2, v4(1), Event::Stopped);
    let second = tracker(true);
    let restored = restore(&second, NOW, 0, &blocks(&first, NOW));
    assert_eq!(restored.kept.torrents, 1);
    let downloaded = |tracker: &Tracker, torrent| {
        tracker
            .scrape(&hash(torrent))
            .map(|counts| counts.downloaded)
    };
    assert_eq!(downloaded(&second, 1), Some(1));
    assert_eq!(downloaded(&second, 2), Some(0));
    let third = tracker(true);
    restore(&third, NOW, 60, &blocks(&second, NOW));
    assert_eq!(
        (downloaded(&third, 1), third.totals()),
        (Some(0), Totals::default())
    );
    assert_eq!(blocks(&third, NOW), Vec::<Vec<u8>>::new());
}

#[test]
fn denied_torrent_gets_no_peers() {
    let first = tracker(true);
    announce(&first, NOW, 1, v4(1), Event::None);
    let second = tracker(true);
    second.set_admission(&hash(1), Admission::Denied);
    restore(&second, NOW, 0, &blocks(&first, NOW));
    assert_eq!(second.totals().peers.v4, 0);
}

#[test]
fn dual_stack_host_counts_once_after_restore() {
    let first = tracker(true);
    let v6 = Ipv6Addr::LOCALHOST.into();
    announce(&first, NOW, 1, v4(1), Event::None);
    let second = tracker(true);
    restore(&second, NOW, 0, &blocks(&first, NOW));
    announce(&second, NOW, 1, v6, Event::None);
    let third = tracker(true);
    restore(&third, NOW, 0, &blocks(&second, NOW));
    announce(&third, NOW, 1, v4(1), Event::None);
    let expected = ScrapeEntry {
        incomplete: 1,
        ..ScrapeEntry::default()
    };
    assert_eq!(third.scrape(&hash(1)), Some(expected));
    assert_eq!((third.totals().peers.v4, third.totals().peers.v6), (1, 1));
}

#[test]
fn announces_during_dump_lose_no_torrent() {
    let first = tracker(true);
    // All torrents are in the same shard, which takes several blocks.
    let shard = |number: u32| {
        let mut info_hash = InfoHash([0; 20]);
        info_hash.0[..4].copy_from_slice(&number.to_be_bytes());
        (first.hash(&info_hash) % 1024 == 0).then_some(info_hash)
    };
    let torrents: Vec<_> = (0..).filter_map(shard).take(8).collect();
    let peers = |torrent: usize| if torrent == 3 { 120_000 } else { 15_000 };
    let announce = |torrent: usize, number, event| {
        let announce = Announce {
            info_hash: torrents[torrent],
            peer_id: PeerId([7; 20]),
            key: None,
            address: v4(number),
            port: NonZeroU16::MIN,
            event,
            complete: number % 3 == 0,
            numwant: Some(0),
        };
        first.announce(NOW, &announce, &mut Vec::new()).unwrap();
    };
    for torrent in 0..8 {
        (0..peers(torrent)).for_each(|number| announce(torrent, number, Event::None));
    }
    let (mut cursor, mut block, mut blocks) = (DumpCursor::default(), Vec::new(), Vec::new());
    let mut steps = 0;
    while first.dump_block(NOW, &mut cursor, &mut block).is_some() {
        if block.is_empty() {
            continue;
        }
        blocks.push(block.clone());
        // A torrent is removed and another fills the gap; peers of the largest torrent come and go.
        match steps {
            1 => (0..peers(0)).for_each(|number| announce(0, number, Event::Stopped)),
            2.. => (0..50).for_each(|number| {
                announce(3, steps * 50 + number, Event::Stopped);
                announce(3, 1_000_000 + steps * 50 + number, Event::None);
            }),
            _ => {}
        }
        steps += 1;
    }
    assert!(blocks.len() > 4, "{}", blocks.len());
    let second = tracker(true);
    restore(&second, NOW, 0, &blocks);
    for (torrent, info_hash) in torrents.iter().enumerate().skip(1) {
        let counts = second.scrape(info_hash).unwrap();
        let found = counts.complete + counts.incomplete;
        if torrent == 3 {
            let missed = 120_000u32.saturating_sub(found);
            assert!(missed < 500, "{found}");
        } else {
            assert_eq!(found, 15_000, "torrent {torrent}");
        }
    }
}

#[test]
fn large_swarm_is_restored_completely() {
    let first = tracker(true);
    for number in 0..100_000 {
        announce_keyless(&first, number);
    }
    let saved = blocks(&first, NOW);
    assert!(saved.len() > 1);
    let second = tracker(true);
    let restored = restore(&second, NOW, 0, &saved);
    assert_eq!(restored.kept, first.totals());
    assert_eq!(second.totals(), first.totals());
    assert_eq!(second.scrape(&hash(1)), first.scrape(&hash(1)));
    // The order of peers is the same, and a second announce adds no peer.
    assert_eq!(blocks(&second, NOW), saved);
    (0..100_000).for_each(|number| announce_keyless(&second, number));
    assert_eq!(second.totals(), first.totals());
}

fn announce_keyless(tracker: &Tracker, number: u32) {
    let v6 = Ipv6Addr::from(u128::from(number) << 64).into();
    let announce = Announce {
        info_hash: hash(1),
        peer_id: PeerId([7; 20]),
        key: None,
        address: if number % 4 == 0 { v6 } else { v4(number) },
        port: NonZeroU16::MIN,
        event: Event::None,
        complete: number % 3 == 0,
        numwant: Some(0),
    };
    tracker.announce(NOW, &announce, &mut Vec::new()).unwrap();
}

#[test]
fn rejects_truncated_block() {
    let first = tracker(true);
    announce(&first, NOW, 1, v4(1), Event::None);
    announce(&first, NOW, 1, v4(2), Event::None);
    announce(&first, NOW, 1, Ipv6Addr::LOCALHOST.into(), Event::None);
    let [block] = &blocks(&first, NOW)[..] else {
        panic!("one torrent is one block")
    };
    for len in 0..block.len() {
        let second = tracker(true);
        let result = second.restore(NOW, 0).restore_block(&block[..len]);
        // A count alone is a block without torrents.
        assert_eq!(result.is_ok(), len == 4, "cut at {len}");
    }
    // Counts that exceed the block.
    for at in [0, 29, 33] {
        let mut block = block.clone();
        block[at] = 0xff;
        let result = tracker(true).restore(NOW, 0).restore_block(&block);
        assert_eq!(result.is_ok(), at == 0);
    }
}

/// The snapshot verifies checksums. Here any block must be restored or refused without a panic, then or later.
#[test]
fn corrupt_block_does_not_crash() {
    let first = tracker(true);
    for number in 0..200 {
        announce(&first, NOW, number as u8 % 4, v4(number), Event::None);
        let v6 = Ipv6Addr::from(u128::from(number) << 64).into();
        announce(&first, NOW, number as u8 % 4, v6, Event::Completed);
    }
    let saved = blocks(&first, NOW);
    let mut random = Rng::new(5);
    for _ in 0..2000 {
        let mut block = saved[random.below(saved.len() as u32) as usize].clone();
        for _ in 0..=random.below(20) {
            let at = random.below(block.len() as u32) as usize;
            block[at] = random.next_u32() as u8;
        }
        let second = tracker(true);
        let mut restore = second.restore(NOW, 0);
        let restored = (0..2).all(|_| restore.restore_block(&block).is_ok());
        if restored {
            restore.finish();
        }
        for number in 0..50 {
            let event = [Event::None, Event::Completed, Event::Stopped][number as usize % 3];
            announce(&second, NOW, number as u8 % 4, v4(number * 4), event);
        }
        let later = Time(NOW.0 + 3600);
        (0..Tracker::SLICES).for_each(|slice| second.expire(later, slice));
        assert_eq!((second.totals().peers.v4, second.totals().peers.v6), (0, 0));
    }
}
