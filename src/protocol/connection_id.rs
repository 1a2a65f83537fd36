//! Connection ids (BEP 15): a UDP client sends its id back to prove that it receives packets at its source address.

use std::net::IpAddr;

use siphasher::sip::SipHasher24;

use crate::tracker::types::UnixTime;

/// The key of the hash in connection ids. It is saved across a restart, so that issued ids stay valid. The type has no
/// `Debug`, so that the key cannot be logged.
#[derive(Clone)]
pub struct Secret(pub [u8; 16]);

/// A connection id. A packet holds it as eight bytes in network order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConnectionId(pub u64);

/// An address whose host has proven that it receives packets there. Only [`ConnectionIds::prove`] creates a `Proven`. Code
/// that sends a response longer than the request, or that stores a peer, requires a `Proven`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Proven(IpAddr);

impl Proven {
    pub fn address(self) -> IpAddr {
        self.0
    }
}

/// Issues connection ids and checks them, without storing anything per client.
///
/// Without the check, an attacker who forges a source address could send a victim responses of up to twelve times the
/// size of each request, or register the victim as a peer. The id that the attacker needs is sent to the victim, so the
/// attacker has to guess it:
///
/// ```text
/// bits 63..12  the upper bits of SipHash-2-4(secret, address as IPv6, second of issue)
/// bits 11..0   the low bits of the second of issue
/// ```
///
/// The low bits select one of the last 4,096 seconds, so that a single hash is enough for a check and the age is exact. The
/// hash covers the whole second, so an id does not become valid again when the low bits repeat. A guess of the 52 bits
/// succeeds once in 4.5 * 10^15 attempts. A line of 1 Gbit/s carries 760,000 announces a second, so an attacker gets
/// a response in 190 years, or in two years at 100 Gbit/s. A longer lifetime does not increase that rate. If the id
/// carried the second in 32 bits, the first guess would succeed after an hour and a half. If it carried no second, a
/// check would have to try all seconds (or coarse steps) of the lifetime.
///
/// SipHash-2-4 is the variant that its authors recommend as a MAC. SipHash-1-3 would save 10 ns of an announce's
/// microseconds. The hash does not cover the port: a NAT may change the port between two packets, and BEP 15 requires
/// the address only.
#[derive(Clone)]
pub struct ConnectionIds {
    mac: SipHasher24,
    lifetime: u32,
}

/// Number of low bits of the second of issue in an id.
const SECOND_BITS: u32 = 12;
const SECOND_MASK: u64 = (1 << SECOND_BITS) - 1;

impl ConnectionIds {
    /// The lifetime that BEP 15 requires, in seconds.
    pub const DEFAULT_LIFETIME: u32 = 120;

    /// Maximum lifetime in seconds, for clients that keep their id for long.
    pub const MAX_LIFETIME: u32 = 3600;

    /// How far in the future the second of issue may be, in seconds. If the clock is set back by no more than this, all
    /// issued ids stay valid. If it is set back further, an id is invalid until the clock is 60 seconds before its
    /// second of issue. Clients then connect again within a minute, because BEP 15 lets them use an id no longer, and
    /// get a valid id.
    pub const MAX_AHEAD: u32 = 60;

    /// Creates ids that are valid for `lifetime` seconds, but not for more than [`Self::MAX_LIFETIME`].
    pub fn new(secret: &Secret, lifetime: u32) -> Self {
        const { assert!(((Self::MAX_LIFETIME + Self::MAX_AHEAD) as u64) < SECOND_MASK) };
        Self {
            mac: SipHasher24::new_with_key(&secret.0),
            lifetime: lifetime.min(Self::MAX_LIFETIME),
        }
    }

    /// Returns the id for an address at this time.
    pub fn issue(&self, now: UnixTime, address: IpAddr) -> ConnectionId {
        let mac = self.mac(now, address.to_canonical());
        ConnectionId(mac & !SECOND_MASK | now.0 & SECOND_MASK)
    }

    /// Checks an id. Returns `None` if the id was not issued to this address or has expired. An IPv4-mapped address
    /// counts as IPv4.
    pub fn prove(&self, id: ConnectionId, now: UnixTime, address: IpAddr) -> Option<Proven> {
        let latest = now.0.wrapping_add(Self::MAX_AHEAD.into());
        let since_latest = latest.wrapping_sub(id.0) & SECOND_MASK;
        let issued = UnixTime(latest.wrapping_sub(since_latest));
        let address = address.to_canonical();
        // A comparison of a single word takes the same time for every guess, so its time reveals nothing about correct
        // bits.
        let forged = (self.mac(issued, address) ^ id.0) & !SECOND_MASK != 0;
        let expired = since_latest > (Self::MAX_AHEAD + self.lifetime).into();
        (!forged && !expired).then_some(Proven(address))
    }

    fn mac(&self, issued: UnixTime, canonical: IpAddr) -> u64 {
        let address = match canonical {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        let mut message = [0; 24];
        message[..16].copy_from_slice(&address.octets());
        message[16..].copy_from_slice(&issued.0.to_be_bytes());
        self.mac.hash(&message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tracker::rng::Rng;

    const NOW: u64 = 1_790_000_000;

    fn ids(lifetime: u32) -> ConnectionIds {
        ConnectionIds::new(&Secret(*b"sixteen secrets!"), lifetime)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    /// Returns whether an id that was issued at `issued` is valid at `now`.
    fn is_valid(lifetime: u32, issued: u64, now: u64) -> bool {
        let id = ids(lifetime).issue(UnixTime(issued), ip("192.0.2.1"));
        ids(lifetime)
            .prove(id, UnixTime(now), ip("192.0.2.1"))
            .is_some()
    }

    #[test]
    fn id_is_valid_for_its_lifetime() {
        for age in [0, 1, 60, 119, 120] {
            assert!(is_valid(120, NOW, NOW + age), "{age}");
        }
        for age in [121, 122, 300, 3600, 4036, 4095, 4096, 4097, 8192] {
            assert!(!is_valid(120, NOW, NOW + age), "{age}");
        }
        assert!(is_valid(3600, NOW, NOW + 3600));
        assert!(!is_valid(3600, NOW, NOW + 3601));
        assert!(is_valid(0, NOW, NOW));
        assert!(!is_valid(0, NOW, NOW + 1));
    }

    #[test]
    fn lifetime_is_at_most_an_hour() {
        assert!(is_valid(u32::MAX, NOW, NOW + 3600));
        for age in 3601..20_000 {
            assert!(!is_valid(u32::MAX, NOW, NOW + age), "{age}");
        }
    }

    #[test]
    fn lifetime_is_exact_for_every_second_of_issue() {
        for issued in NOW..NOW + 4096 {
            assert!(is_valid(120, issued, issued + 120), "{issued}");
            assert!(!is_valid(120, issued, issued + 121), "{issued}");
        }
    }

    #[test]
    fn clock_set_back_by_up_to_60_seconds_keeps_ids_valid() {
        for back in [1, 59, 60] {
            assert!(is_valid(120, NOW, NOW - back), "{back}");
        }
    }

    #[test]
    fn clock_set_back_further_invalidates_old_ids_only() {
        for back in [61, 120, 3600, 4096, 86_400, NOW] {
            assert!(!is_valid(120, NOW, NOW - back), "{back}");
            assert!(is_valid(120, NOW - back, NOW - back), "{back}");
            assert!(is_valid(120, NOW - back, NOW - back + 120), "{back}");
        }
    }

    #[test]
    fn clock_set_back_does_not_extend_total_validity() {
        let valid = (NOW - 20_000..NOW + 20_000)
            .filter(|&now| is_valid(120, NOW, now))
            .count();
        assert_eq!(valid, 60 + 1 + 120);
    }

    #[test]
    fn id_is_bound_to_its_address() {
        let addresses = [
            "192.0.2.1",
            "192.0.2.2",
            "::192.0.2.1",
            "2001:db8::1",
            "2001:db8::2",
        ]
        .map(ip);
        for issued_to in addresses {
            let id = ids(120).issue(UnixTime(NOW), issued_to);
            for sender in addresses {
                let proven = ids(120).prove(id, UnixTime(NOW), sender);
                assert_eq!(
                    proven.map(Proven::address),
                    (sender == issued_to).then_some(sender)
                );
            }
        }
    }

    #[test]
    fn mapped_address_counts_as_ipv4() {
        let (v4, mapped) = (ip("192.0.2.1"), ip("::ffff:192.0.2.1"));
        let id = ids(120).issue(UnixTime(NOW), mapped);
        assert_eq!(id, ids(120).issue(UnixTime(NOW), v4));
        for sender in [v4, mapped] {
            let proven = ids(120).prove(id, UnixTime(NOW), sender);
            assert_eq!(proven.map(Proven::address), Some(v4));
        }
    }

    #[test]
    fn id_depends_on_the_secret() {
        let address = ip("2001:db8::1");
        let id = ids(120).issue(UnixTime(NOW), address);
        let other = ConnectionIds::new(&Secret(*b"another secrets!"), 120);
        assert!(ids(3600).prove(id, UnixTime(NOW), address).is_some());
        assert_eq!(other.prove(id, UnixTime(NOW), address), None);
        // If an upgrade changed this value, all issued ids would become invalid.
        assert_eq!(id, ConnectionId(0xf308_1d19_d23f_db80));
    }

    #[test]
    fn every_bit_matters() {
        let address = ip("192.0.2.1");
        let id = ids(3600).issue(UnixTime(NOW), address);
        for bit in 0..64 {
            let forged = ConnectionId(id.0 ^ 1 << bit);
            assert_eq!(
                ids(3600).prove(forged, UnixTime(NOW), address),
                None,
                "{bit}"
            );
        }
    }

    #[test]
    fn a_million_guesses_fail() {
        let mut random = Rng::new(5);
        let ids = ids(3600);
        for _ in 0..1_000_000 {
            let guess = ConnectionId(random.next_u64());
            assert_eq!(ids.prove(guess, UnixTime(NOW), ip("192.0.2.1")), None);
        }
    }
}
