//! Measures the times to parse a list of 100,000 networks, to build an access list from it, and to look up an address.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use tbtt::config::list_file::parse_networks;
use tbtt::tracker::access::AccessList;

const ENTRIES: u32 = 100_000;
const LOOKUPS: usize = 500_000;
const PASSES: u32 = 9;

/// Permutes the 32-bit numbers, so that the entries are scattered and distinct.
fn scattered(number: u32) -> u32 {
    number
        .wrapping_mul(0x9e37_79b1)
        .rotate_left(13)
        .wrapping_mul(0x85eb_ca6b)
}

fn v4(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(scattered(number))
}

/// Returns an address in 2000::/3. The addresses are thus close together, as on the Internet.
fn v6(number: u32) -> Ipv6Addr {
    let bits = u128::from(scattered(number));
    Ipv6Addr::from_bits(0x2001 << 112 | bits << 80 | bits)
}

fn main() {
    let lists = [
        (
            "IPv4 /32",
            (0..ENTRIES)
                .map(|number| format!("{}\n", v4(number)))
                .collect::<String>(),
        ),
        (
            "IPv4 /24",
            (0..ENTRIES)
                .map(|number| format!("{}/24\n", Ipv4Addr::from_bits(scattered(number) & !0xff)))
                .collect(),
        ),
        (
            "IPv6 /64",
            (0..ENTRIES)
                .map(|number| {
                    format!(
                        "{}/64\n",
                        Ipv6Addr::from_bits(v6(number).to_bits() >> 64 << 64)
                    )
                })
                .collect(),
        ),
    ];
    let with_outlier = (
        "IPv6 /64 and the distant ::1",
        format!("::1\n{}", lists[2].1),
    );
    for (name, text) in lists.into_iter().chain([with_outlier]) {
        let start = Instant::now();
        let networks = parse_networks(&text).expect("a valid list");
        let parsed = start.elapsed();
        let start = Instant::now();
        let list = AccessList::new(Vec::new(), networks);
        let built = start.elapsed();

        // Half of the lookups are for addresses on the list.
        let addresses: Vec<IpAddr> = (0..1 << 16)
            .map(|number: u32| number.wrapping_mul(3) % (2 * ENTRIES))
            .map(|number| {
                if name.starts_with("IPv4") {
                    v4(number).into()
                } else {
                    v6(number).into()
                }
            })
            .collect();
        let mut admitted = 0u32;
        let mut best = f64::INFINITY;
        for _ in 0..PASSES {
            let start = Instant::now();
            for address in addresses.iter().cycle().take(LOOKUPS) {
                admitted += u32::from(list.admits(black_box(*address)));
            }
            best = best.min(start.elapsed().as_nanos() as f64 / LOOKUPS as f64);
        }
        println!(
            "{name}: {ENTRIES} entries parsed in {parsed:.1?}, built in {built:.1?}; {best:.0} ns per lookup, best of {PASSES} passes ({admitted} admitted)"
        );
    }
}
