//! The PROXY protocol's beginning of a connection: the same whether it comes at once or byte by byte.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tbtt::server::http::forwarded::Preamble;

fuzz_target!(|input: &[u8]| {
    let whole = Preamble::parse(input);
    if let Preamble::Proxied { length, .. } | Preamble::Local { length } = whole {
        assert!(length <= input.len());
        for less in 0..length {
            assert_eq!(Preamble::parse(&input[..less]), Preamble::Incomplete);
        }
        assert_eq!(Preamble::parse(&input[..length]), whole);
    }
});
