//! `Forwarded` and `X-Forwarded-For`: only what trusted proxies say changes whose request it is.
#![no_main]

use std::net::{IpAddr, Ipv4Addr};

use libfuzzer_sys::fuzz_target;
use tbtt::server::http::forwarded::{ForwardingHeader, client_address};
use tbtt::tracker::access::Networks;

fuzz_target!(|input: &[u8]| {
    let trusted = Networks::new(vec!["192.0.2.0/24".parse().unwrap()]);
    let proxy = IpAddr::from(Ipv4Addr::new(192, 0, 2, 1));
    let stranger = IpAddr::from(Ipv4Addr::new(198, 51, 100, 1));
    for header in [ForwardingHeader::Forwarded, ForwardingHeader::XForwardedFor] {
        let lines = || input.split(|&byte| byte == b'\n');
        let believed = client_address(header, &trusted, Some(stranger), lines());
        assert_eq!(believed, Some(stranger), "a stranger was believed");
        client_address(header, &trusted, Some(proxy), lines());
        client_address(header, &trusted, None, lines());
        // What stands to the left of a stranger, whom a trusted proxy names last, is never reached.
        let own: &[u8] = match header {
            ForwardingHeader::Forwarded => b"for=198.51.100.1",
            _ => b"198.51.100.1",
        };
        let behind = lines().chain([own]);
        let found = client_address(header, &trusted, Some(proxy), behind);
        assert_eq!(found, Some(stranger));
    }
});
