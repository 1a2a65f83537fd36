//! HTTP queries to a tracker, separated by line ends: every response is a canonical bencoded dictionary.
#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libfuzzer_sys::fuzz_target;
use serde_bencode::value::Value;
use tbtt::protocol::http::request::Action;
use tbtt::protocol::http::{HttpOutcome, ResponseBuffer, Settings, respond};
use tbtt::tracker::Tracker;
use tbtt::tracker::access::Networks;
use tbtt::tracker::types::Time;

/// Maximum length of a response. A response with the maximum number of peers is shorter.
const MAX_RESPONSE_LEN: usize = 16 * 1024;

fuzz_target!(|input: &[u8]| {
    let tracker = Tracker::new(
        tbtt::tracker::settings::Settings {
            open: true,
            ..Default::default()
        },
        1,
    );
    let settings = Settings {
        trust_ip_params_from: Networks::new(vec!["10.0.0.0/8".parse().unwrap()]),
        max_scrape: 100,
        full_scrape: true,
    };
    let mut buffer = ResponseBuffer::default();
    let mut now = Time(10_000);
    for line in input.split(|&byte| byte == b'\n') {
        // The first byte selects the client, the time since the last request, and the action.
        let Some((&first, query)) = line.split_first() else {
            continue;
        };
        now.0 += u32::from(first >> 4) * 60;
        let last = first >> 1 & 3;
        let from: Option<IpAddr> = match first & 7 {
            0 => None,
            1 | 2 => Some(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last.into()).into()),
            3 => Some(Ipv4Addr::new(10, 0, 0, last).into()),
            _ => Some(Ipv4Addr::new(192, 0, 2, last).into()),
        };
        let action = match first & 8 {
            0 => Action::Announce,
            _ => Action::Scrape,
        };
        let outcome = respond(&tracker, &settings, now, from, action, query, &mut buffer);
        assert!(buffer.body.len() <= MAX_RESPONSE_LEN);
        let value: Value = serde_bencode::from_bytes(&buffer.body).expect("bencode");
        let Value::Dict(response) = &value else {
            panic!("not a dictionary");
        };
        // Encoding the value again sorts its keys and removes duplicates, so equal bytes mean a canonical dictionary.
        assert_eq!(serde_bencode::to_bytes(&value).unwrap(), buffer.body);
        let failed = matches!(outcome, HttpOutcome::Refused(_) | HttpOutcome::Invalid(_));
        assert_eq!(failed, response.contains_key(&b"failure reason"[..]));
        if let HttpOutcome::Announced(..) = outcome {
            assert!(response.contains_key(&b"interval"[..]));
            assert!(response.contains_key(&b"peers"[..]));
        }
        tracker.expire(now, usize::from(first));
    }
});
