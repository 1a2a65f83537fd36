//! Measures the time of a rate limit check, with 1,000 and with a million prefixes.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;
use std::time::Instant;

use tbtt::tracker::access::Networks;
use tbtt::tracker::rate_limit::{Rate, RateLimiter, Settings};
use tbtt::tracker::types::Time;

const REQUESTS: u32 = 1_000_000;
const PASSES: u32 = 9;

fn main() {
    let ten = NonZeroU32::new(10).expect("ten");
    let rate = Rate {
        per_minute: ten,
        burst: ten,
    };
    let settings = Settings {
        v4: rate,
        v6_64: rate,
        v6_56: rate.times(ten),
        v6_48: rate.times(ten),
        exempt: Networks::new(vec!["192.0.2.0/24".parse().expect("a network")]),
        table_entries: 1 << 18,
    };
    for prefixes in [1_000u32, REQUESTS] {
        let v4 = |number: u32| IpAddr::V4(Ipv4Addr::from_bits(number.wrapping_mul(0x9e37_79b1)));
        let v6 = |number: u32| {
            IpAddr::V6(Ipv6Addr::from_bits(
                0x2001 << 112 | u128::from(number.wrapping_mul(0x9e37_79b1)) << 64,
            ))
        };
        for (name, address) in [("IPv4", &v4 as &dyn Fn(u32) -> IpAddr), ("IPv6", &v6)] {
            let addresses: Vec<IpAddr> = (0..REQUESTS)
                .map(|number| address(number % prefixes))
                .collect();
            let limiter = RateLimiter::new(settings.clone(), [1, 2]);
            let mut best = f64::INFINITY;
            let mut admitted = 0u32;
            for pass in 0..PASSES {
                let start = Instant::now();
                for address in &addresses {
                    admitted += u32::from(limiter.take(Time(pass), black_box(*address)).is_ok());
                }
                best = best.min(start.elapsed().as_nanos() as f64 / f64::from(REQUESTS));
            }
            println!(
                "{name}, {prefixes} prefixes: {best:.0} ns per request, best of {PASSES} passes ({admitted} admitted)"
            );
        }
    }
}
