//! UDP packets to a tracker: a sender that has not proven its address gets no more bytes than it sent.
#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use libfuzzer_sys::fuzz_target;
use tbtt::protocol::connection_id::{ConnectionIds, Secret};
use tbtt::protocol::udp::{Responder, Settings, UdpOutcome};
use tbtt::tracker::Tracker;
use tbtt::tracker::types::{Time, UnixTime};

const SECRET: Secret = Secret([7; 16]);

fuzz_target!(|input: &[u8]| {
    let tracker = Tracker::new(
        tbtt::tracker::settings::Settings {
            open: true,
            ..Default::default()
        },
        1,
    );
    let settings = Settings::default();
    let ids = ConnectionIds::new(&SECRET, settings.connection_lifetime);
    let responder = Responder::new(settings, &SECRET);
    let mut out = Vec::new();
    let mut seconds = 1_000_000;
    let mut rest = input;
    // Before each packet are its length, and a byte that selects the sender, the time since the last packet, and
    // whether the packet gets a valid connection id.
    while let Some((&[length_high, length_low, options], after)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes([length_high & 7, length_low]));
        let (packet, after) = after.split_at(length.min(after.len()));
        rest = after;
        seconds += u64::from(options >> 5) * 30;
        let address: IpAddr = match options & 3 {
            0 => Ipv4Addr::new(192, 0, 2, 1).into(),
            1 => Ipv4Addr::new(192, 0, 2, 2).to_ipv6_mapped().into(),
            2 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
            _ => Ipv4Addr::BROADCAST.into(),
        };
        let unix = UnixTime(seconds);
        let mut packet = packet.to_vec();
        if let (true, Some(id)) = (options & 4 != 0, packet.first_chunk_mut()) {
            *id = ids.issue(unix, address.to_canonical()).0.to_be_bytes();
        }
        out.clear();
        let now = Time(seconds as u32);
        let from = SocketAddr::new(address, 6881 * u16::from(options & 8 == 0));
        let outcome = responder.respond(&tracker, now, unix, from, &packet, &mut out);
        let proven = packet.first_chunk().is_some_and(|id| {
            let id = tbtt::protocol::connection_id::ConnectionId(u64::from_be_bytes(*id));
            ids.prove(id, unix, address.to_canonical()).is_some()
        });
        if !proven {
            assert!(out.len() <= packet.len(), "amplified: {outcome:?}");
        }
        assert!(out.len() <= 1232, "a response that may be fragmented");
        if let UdpOutcome::Silent(_) = outcome {
            assert!(out.is_empty());
        }
    }
});
