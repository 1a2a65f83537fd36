//! UDP connection ids: an id is valid for its address and its lifetime, and no other id is valid.
#![no_main]

use std::net::{IpAddr, Ipv6Addr};

use libfuzzer_sys::fuzz_target;
use tbtt::protocol::connection_id::{ConnectionId, ConnectionIds, Secret};
use tbtt::tracker::types::UnixTime;

const LIFETIME: u32 = 120;

fuzz_target!(|input: ([u8; 16], [u8; 16], u32, u32, u64)| {
    let (secret, address, issued, later, other) = input;
    let ids = ConnectionIds::new(&Secret(secret), LIFETIME);
    let address = IpAddr::from(Ipv6Addr::from(address)).to_canonical();
    let now = UnixTime(u64::from(issued));
    let id = ids.issue(now, address);
    assert!(ids.prove(id, now, address).is_some());
    let then = UnixTime(u64::from(issued) + u64::from(later));
    if later < LIFETIME {
        assert!(ids.prove(id, then, address).is_some());
    } else if later > LIFETIME {
        assert!(ids.prove(id, then, address).is_none(), "expired");
    }
    for bit in 0..64 {
        let flipped = ConnectionId(id.0 ^ 1 << bit);
        assert!(ids.prove(flipped, now, address).is_none(), "bit {bit}");
    }
    // The fuzzer observes comparisons and does find valid ids. Each of them is the id that was issued in some second.
    if ids.prove(ConnectionId(other), now, address).is_some() {
        let oldest = now.0.saturating_sub(LIFETIME.into());
        let mut seconds = oldest..=now.0 + u64::from(ConnectionIds::MAX_AHEAD);
        assert!(seconds.any(|second| ids.issue(UnixTime(second), address).0 == other));
    }
});
