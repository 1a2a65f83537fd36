//! PROXY protocol headers: parsing gives the same result whether the bytes are received at once or one by one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tbtt::server::http::proxy_protocol::ProxyHeader;

fuzz_target!(|input: &[u8]| {
    let whole = ProxyHeader::parse(input);
    if let ProxyHeader::Proxied { length, .. } | ProxyHeader::Local { length } = whole {
        assert!(length <= input.len());
        for less in 0..length {
            assert_eq!(ProxyHeader::parse(&input[..less]), ProxyHeader::Incomplete);
        }
        assert_eq!(ProxyHeader::parse(&input[..length]), whole);
    }
});
