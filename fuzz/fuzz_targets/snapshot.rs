//! Blocks of a snapshot with a valid checksum: if a block is accepted, the tracker can be written and read again, with
//! the same result.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tbtt::tracker::Tracker;
use tbtt::tracker::dump::DumpCursor;
use tbtt::tracker::settings::Settings;
use tbtt::tracker::types::{Time, Totals};

const NOW: Time = Time(1_000_000);

fuzz_target!(|input: &[u8]| {
    let Some((&passed, block)) = input.split_first() else {
        return;
    };
    let first = tracker();
    let mut restore = first.restore(NOW, passed.into());
    if restore.restore_block(block).is_err() {
        return;
    }
    restore.finish();
    let second = tracker();
    let mut restore = second.restore(NOW, 0);
    let (mut cursor, mut block) = (DumpCursor::default(), Vec::new());
    while first.dump_block(NOW, &mut cursor, &mut block).is_some() {
        if !block.is_empty() {
            restore
                .restore_block(&block)
                .expect("the tracker accepts blocks that it has written");
        }
    }
    restore.finish();
    let totals: [Totals; 2] = [first.totals(), second.totals()];
    assert_eq!(totals[0], totals[1]);
    first.for_each_torrent(|id, entry| {
        if entry != Default::default() {
            assert_eq!(second.scrape(id), Some(entry), "{id}");
        }
    });
    for slice in 0..64 {
        first.expire(Time(NOW.0 + 100_000), slice);
    }
});

fn tracker() -> Tracker {
    let settings = Settings {
        open: true,
        ..Settings::default()
    };
    Tracker::new(settings, 1)
}
