//! Parses `.torrent` files. An accepted file has an id and a printable name.
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
    // Data after the end is refused.
    let longer = [input, b"e"].concat();
    assert!(Metainfo::parse(&longer).is_err());
});
