//! `.torrent` files: what is taken has the ids that its bytes say, and reads the same again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tbtt::metainfo::Metainfo;

fuzz_target!(|input: &[u8]| {
    let Ok(metainfo) = Metainfo::parse(input) else {
        return;
    };
    let torrent = metainfo.torrent();
    assert!(torrent.ids().count() > 0);
    assert!(!torrent.name.chars().any(char::is_control));
    // Trailing bytes are refused, whatever they are.
    let longer = [input, b"e"].concat();
    assert!(Metainfo::parse(&longer).is_err());
});
