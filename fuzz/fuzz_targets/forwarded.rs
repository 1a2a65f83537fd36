//! `Forwarded` and `X-Forwarded-For`: only headers from trusted proxies change the client's address.
#![no_main]

use std::net::{IpAddr, Ipv4Addr};

use libfuzzer_sys::fuzz_target;
use tbtt::server::http::forwarded::{ForwardingHeader, client_address};
use tbtt::tracker::access::Networks;

fuzz_target!(|input: &[u8]| {
    let trusted = Networks::new(vec!["192.0.2.0/24".parse().unwrap()]);
    let proxy = IpAddr::from(Ipv4Addr::new(192, 0, 2, 1));
    let untrusted = IpAddr::from(Ipv4Addr::new(198, 51, 100, 1));
    for header in [ForwardingHeader::Forwarded, ForwardingHeader::XForwardedFor] {
        let lines = || input.split(|&byte| byte == b'\n');
        let client = client_address(header, &trusted, Some(untrusted), lines());
        assert_eq!(client, Some(untrusted), "an untrusted sender was trusted");
        client_address(header, &trusted, Some(proxy), lines());
        client_address(header, &trusted, None, lines());
        // The part to the left of an untrusted address, which a trusted proxy appended, is never read.
        let own: &[u8] = match header {
            ForwardingHeader::Forwarded => b"for=198.51.100.1",
            _ => b"198.51.100.1",
        };
        let behind = lines().chain([own]);
        let found = client_address(header, &trusted, Some(proxy), behind);
        assert_eq!(found, Some(untrusted));
    }
});
