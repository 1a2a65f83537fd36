//! Connection ids (BEP 15): what a UDP client must send back to show that it hears us at the address that it claims.

use std::net::IpAddr;

use siphasher::sip::SipHasher24;

use crate::tracker::UnixTime;

/// What ids are made with. Saved across a restart, so that clients can keep theirs. Has no `Debug`, to be in no log.
#[derive(Clone)]
pub struct Secret(pub [u8; 16]);

/// An id as the wire has it, eight bytes in network order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConnectionId(pub u64);

/// An address that has shown that it hears us: only [`ConnectionIds::prove`] makes one. What may be larger than its
/// request, or be remembered, asks for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Proven(IpAddr);

impl Proven {
    pub fn address(self) -> IpAddr {
        self.0
    }
}

/// Issues ids and checks them, with nothing kept for each client.
///
/// Whoever forges a sender's address can have answers, up to twelve times the size of his question, sent to a victim,
/// or have a victim handed out as a peer. The id that he would need is sent to the victim, so he must guess it:
///
/// ```text
/// bits 63..12  the top of SipHash-2-4(secret, address as IPv6, second of issue)
/// bits 11..0   the low end of the second of issue
/// ```
///
/// The low end tells which of the last 4,096 seconds to check, so one hash decides, and the age is exact. The hash covers
/// the whole second: an id does not come back when the low end does. A guess of the 52 bits hits once in 4.5 * 10^15.
/// A 1 Gbit/s line carries 760,000 announces a second: one hit, hence one answer, in 190 years, at 100 Gbit/s in two,
/// and no more with a longer lifetime. Were the second written out in 32 bits, that first hit would come after an hour
/// and a half. Were it left out, all seconds (or coarse steps) of the lifetime would have to be tried.
///
/// SipHash-2-4 is what its authors offer as a MAC; the rounds that 1-3 saves are worth 10 ns of an announce's
/// microseconds. The port is left out: a NAT may change it between two packets (BEP 15 asks for the address only).
#[derive(Clone)]
pub struct ConnectionIds {
    mac: SipHasher24,
    lifetime: u32,
}

/// How much of the second of issue an id carries.
const SECOND_BITS: u32 = 12;
const SECOND_MASK: u64 = (1 << SECOND_BITS) - 1;

impl ConnectionIds {
    /// What BEP 15 asks for, in seconds.
    pub const DEFAULT_LIFETIME: u32 = 120;

    /// For clients that keep their id for long, in seconds.
    pub const MAX_LIFETIME: u32 = 3600;

    /// How far in the future an id may have been issued, in seconds: so far a clock may be set back and every client
    /// keep its id. Set back further, ids issued before are bad until the clock has come to 60 seconds before their
    /// issue; their owners ask for new ones, which are good at once, within the minute for which BEP 15 lets them use
    /// one.
    pub const MAX_AHEAD: u32 = 60;

    /// `lifetime` is in seconds; beyond [`Self::MAX_LIFETIME`] it counts as that.
    pub fn new(secret: &Secret, lifetime: u32) -> Self {
        const { assert!(((Self::MAX_LIFETIME + Self::MAX_AHEAD) as u64) < SECOND_MASK) };
        Self {
            mac: SipHasher24::new_with_key(&secret.0),
            lifetime: lifetime.min(Self::MAX_LIFETIME),
        }
    }

    pub fn issue(&self, now: UnixTime, address: IpAddr) -> ConnectionId {
        let mac = self.mac(now, address.to_canonical());
        ConnectionId(mac & !SECOND_MASK | now.0 & SECOND_MASK)
    }

    /// `None` if the id was not issued to this address, or too long ago. IPv4-mapped addresses are their IPv4 selves.
    pub fn prove(&self, id: ConnectionId, now: UnixTime, address: IpAddr) -> Option<Proven> {
        let latest = now.0.wrapping_add(Self::MAX_AHEAD.into());
        let since_latest = latest.wrapping_sub(id.0) & SECOND_MASK;
        let issued = UnixTime(latest.wrapping_sub(since_latest));
        let address = address.to_canonical();
        // One comparison of one word: its time does not tell how many bits were right.
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
    use crate::tracker::Rng;

    const NOW: u64 = 1_790_000_000;

    fn ids(lifetime: u32) -> ConnectionIds {
        ConnectionIds::new(&Secret(*b"sixteen secrets!"), lifetime)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    /// Whether an id that was issued at `issued` is good at `now`.
    fn good(lifetime: u32, issued: u64, now: u64) -> bool {
        let id = ids(lifetime).issue(UnixTime(issued), ip("192.0.2.1"));
        ids(lifetime)
            .prove(id, UnixTime(now), ip("192.0.2.1"))
            .is_some()
    }

    #[test]
    fn lives_as_long_as_configured() {
        for age in [0, 1, 60, 119, 120] {
            assert!(good(120, NOW, NOW + age), "{age}");
        }
        for age in [121, 122, 300, 3600, 4036, 4095, 4096, 4097, 8192] {
            assert!(!good(120, NOW, NOW + age), "{age}");
        }
        assert!(good(3600, NOW, NOW + 3600));
        assert!(!good(3600, NOW, NOW + 3601));
        assert!(good(0, NOW, NOW));
        assert!(!good(0, NOW, NOW + 1));
    }

    #[test]
    fn never_lives_longer_than_an_hour() {
        assert!(good(u32::MAX, NOW, NOW + 3600));
        for age in 3601..20_000 {
            assert!(!good(u32::MAX, NOW, NOW + age), "{age}");
        }
    }

    #[test]
    fn lives_across_any_carry_of_the_second() {
        for issued in NOW..NOW + 4096 {
            assert!(good(120, issued, issued + 120), "{issued}");
            assert!(!good(120, issued, issued + 121), "{issued}");
        }
    }

    #[test]
    fn a_clock_set_back_a_little_costs_nobody_his_id() {
        for back in [1, 59, 60] {
            assert!(good(120, NOW, NOW - back), "{back}");
        }
    }

    #[test]
    fn a_clock_set_back_far_costs_old_ids_but_no_new_ones() {
        for back in [61, 120, 3600, 4096, 86_400, NOW] {
            assert!(!good(120, NOW, NOW - back), "{back}");
            assert!(good(120, NOW - back, NOW - back), "{back}");
            assert!(good(120, NOW - back, NOW - back + 120), "{back}");
        }
    }

    #[test]
    fn a_clock_set_back_lets_no_id_live_for_ever() {
        let lived = (NOW - 20_000..NOW + 20_000)
            .filter(|&now| good(120, NOW, now))
            .count();
        assert_eq!(lived, 60 + 1 + 120);
    }

    #[test]
    fn is_bound_to_the_address() {
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
    fn a_mapped_address_is_its_ipv4_self() {
        let (plain, mapped) = (ip("192.0.2.1"), ip("::ffff:192.0.2.1"));
        let id = ids(120).issue(UnixTime(NOW), mapped);
        assert_eq!(id, ids(120).issue(UnixTime(NOW), plain));
        for sender in [plain, mapped] {
            let proven = ids(120).prove(id, UnixTime(NOW), sender);
            assert_eq!(proven.map(Proven::address), Some(plain));
        }
    }

    #[test]
    fn survives_a_restart_with_the_secret_and_only_with_it() {
        let address = ip("2001:db8::1");
        let id = ids(120).issue(UnixTime(NOW), address);
        let other = ConnectionIds::new(&Secret(*b"another secrets!"), 120);
        assert!(ids(3600).prove(id, UnixTime(NOW), address).is_some());
        assert_eq!(other.prove(id, UnixTime(NOW), address), None);
        // An upgrade that changed this would cost every client its id.
        assert_eq!(id, ConnectionId(0xf308_1d19_d23f_db80));
    }

    #[test]
    fn no_bit_is_spare() {
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
    fn a_million_guesses_are_not_enough() {
        let mut random = Rng::new(5);
        let ids = ids(3600);
        for _ in 0..1_000_000 {
            let guess = ConnectionId(random.next_u64());
            assert_eq!(ids.prove(guess, UnixTime(NOW), ip("192.0.2.1")), None);
        }
    }
}
