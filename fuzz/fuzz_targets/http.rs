//! HTTP queries, one to a line, to a living tracker: every answer is one canonical bencoded dictionary.
#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libfuzzer_sys::fuzz_target;
use serde_bencode::value::Value;
use tbtt::protocol::http::request::Action;
use tbtt::protocol::http::{Outcome, Reply, Settings, respond};
use tbtt::tracker::access::Networks;
use tbtt::tracker::{Time, Tracker};

/// A dictionary with an answer of the most peers, and then some.
const LONGEST_ANSWER: usize = 16 * 1024;

fuzz_target!(|input: &[u8]| {
    let tracker = Tracker::new(
        tbtt::tracker::Settings {
            open: true,
            ..Default::default()
        },
        1,
    );
    let settings = Settings {
        believed: Networks::new(vec!["10.0.0.0/8".parse().unwrap()]),
        max_scrape: 100,
        full_scrape: true,
    };
    let mut reply = Reply::default();
    let mut now = Time(10_000);
    for line in input.split(|&byte| byte == b'\n') {
        // The first byte says who asks, how much later, and for what.
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
        let outcome = respond(&tracker, &settings, now, from, action, query, &mut reply);
        assert!(reply.body.len() <= LONGEST_ANSWER);
        let value: Value = serde_bencode::from_bytes(&reply.body).expect("bencode");
        let Value::Dict(answer) = &value else {
            panic!("not a dictionary");
        };
        // Written anew its keys are sorted, and the same key is there once.
        assert_eq!(serde_bencode::to_bytes(&value).unwrap(), reply.body);
        let failed = matches!(outcome, Outcome::Refused(_) | Outcome::Invalid(_));
        assert_eq!(failed, answer.contains_key(&b"failure reason"[..]));
        if let Outcome::Announced(..) = outcome {
            assert!(answer.contains_key(&b"interval"[..]));
            assert!(answer.contains_key(&b"peers"[..]));
        }
        tracker.expire(now, usize::from(first));
    }
});
