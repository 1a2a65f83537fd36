//! Tests of UDP packets.

use super::*;
use crate::protocol::http;
use crate::tracker::rng::Rng;
use crate::tracker::settings as tracker;
use crate::tracker::types::Admission;

const NOW: Time = Time(1000);
const UNIX: UnixTime = UnixTime(1_790_000_000);
const TORRENT: [u8; 20] = *b"a torrent's 20 bytes";
const OTHER: [u8; 20] = *b"another's 20 bytes__";
const V4: &str = "192.0.2.1:1001";
const V6: &str = "[2001:db8::1]:1001";
const MAPPED: &str = "[::ffff:192.0.2.1]:1001";

/// The outcome of every accepted announce in these tests. The tests check the tracker's counts instead of its contents.
const ANNOUNCED: UdpOutcome = UdpOutcome::Announced(ANY, NOTHING);
const NOTHING: AnnounceEffect = AnnounceEffect {
    update: None,
    new_download: false,
};
const ANY: Announce = Announce {
    info_hash: InfoHash(TORRENT),
    peer_id: PeerId([0; 20]),
    key: None,
    address: IpAddr::V4(Ipv4Addr::LOCALHOST),
    port: NonZeroU16::MIN,
    event: Event::None,
    complete: false,
    numwant: None,
};

/// A tracker with two listed torrents, and its responder.
struct TestTracker {
    tracker: Tracker,
    responder: Responder,
}

impl TestTracker {
    fn new() -> Self {
        Self::with(Settings::default(), tracker::Settings::default())
    }

    fn with(settings: Settings, tracking: tracker::Settings) -> Self {
        let tracker = Tracker::new(tracking, 7);
        for torrent in [TORRENT, OTHER] {
            tracker.set_admission(&InfoHash(torrent), Admission::Listed);
        }
        let responder = Responder::new(settings, &Secret([7; 16]));
        Self { tracker, responder }
    }

    fn respond(&self, from: &str, packet: &[u8]) -> (UdpOutcome, Vec<u8>) {
        self.respond_at(UNIX, from.parse().expect("an endpoint"), packet)
    }

    fn respond_at(&self, unix: UnixTime, from: SocketAddr, packet: &[u8]) -> (UdpOutcome, Vec<u8>) {
        let mut out = b"earlier".to_vec();
        let outcome = self
            .responder
            .respond(&self.tracker, NOW, unix, from, packet, &mut out);
        let response = out
            .strip_prefix(b"earlier")
            .expect("only appended")
            .to_vec();
        assert_eq!(
            response.is_empty(),
            matches!(outcome, UdpOutcome::Silent(_))
        );
        let outcome = match outcome {
            UdpOutcome::Announced(..) => ANNOUNCED,
            same => same,
        };
        (outcome, response)
    }

    /// Connects, then sends a request with the connection id.
    fn request(&self, from: &str, request: impl Fn(u64) -> Vec<u8>) -> (UdpOutcome, Vec<u8>) {
        self.respond(from, &request(self.id(from)))
    }

    fn id(&self, from: &str) -> u64 {
        let (outcome, response) = self.respond(from, &connect());
        assert_eq!((outcome, response.len()), (UdpOutcome::Connected, 16));
        u64::from_be_bytes(field(response.first_chunk::<16>().unwrap(), 8))
    }

    /// Complete, downloaded, incomplete.
    fn counts(&self) -> [u32; 3] {
        let entry = self.tracker.scrape(&InfoHash(TORRENT)).unwrap();
        [entry.complete, entry.downloaded, entry.incomplete]
    }
}

fn connect() -> Vec<u8> {
    b"\x00\x00\x04\x17\x27\x10\x19\x80\x00\x00\x00\x00tran".to_vec()
}

/// Returns a seeder's announce.
fn announce(id: u64) -> Vec<u8> {
    let mut packet = vec![0; 98];
    packet[..8].copy_from_slice(&id.to_be_bytes());
    packet[8..12].copy_from_slice(&1u32.to_be_bytes());
    packet[12..16].copy_from_slice(b"tran");
    packet[16..36].copy_from_slice(&TORRENT);
    packet[36..56].copy_from_slice(b"-XX0001-abcdefghijkl");
    packet[92..96].copy_from_slice(&(-1i32).to_be_bytes());
    packet[96..98].copy_from_slice(&6881u16.to_be_bytes());
    packet
}

fn with<const N: usize>(mut packet: Vec<u8>, at: usize, bytes: [u8; N]) -> Vec<u8> {
    packet[at..at + N].copy_from_slice(&bytes);
    packet
}

fn leecher(id: u64) -> Vec<u8> {
    with(announce(id), 64, 1u64.to_be_bytes())
}

fn scrape(id: u64, hashes: &[[u8; 20]]) -> Vec<u8> {
    let head = [&id.to_be_bytes()[..], &2u32.to_be_bytes(), b"tran"].concat();
    [head, hashes.concat()].concat()
}

fn error(reason: &str) -> Vec<u8> {
    [b"\x00\x00\x00\x03tran", reason.as_bytes()].concat()
}

/// Returns the response to an announce, as BEP 15 describes it.
fn announced(leechers: u32, seeders: u32, peers: &[u8]) -> Vec<u8> {
    let mut response = b"\x00\x00\x00\x01tran\x00\x00\x07\x08".to_vec();
    response.extend(leechers.to_be_bytes());
    response.extend(seeders.to_be_bytes());
    response.extend(peers);
    response
}

#[test]
fn connect_ignores_trailing_bytes() {
    let tracker = TestTracker::new();
    for len in [16, 17, 98, MAX_PACKET_LEN] {
        let mut packet = connect();
        packet.resize(len, 0xff);
        let (outcome, response) = tracker.respond(V4, &packet);
        assert_eq!(
            (outcome, response.len()),
            (UdpOutcome::Connected, 16),
            "{len}"
        );
        assert_eq!(response[..8], *b"\x00\x00\x00\x00tran");
    }
}

#[test]
fn other_packets_get_no_response() {
    let tracker = TestTracker::new();
    let silence = |packet: &[u8]| match tracker.respond(V4, packet).0 {
        UdpOutcome::Silent(reason) => reason,
        answered => panic!("{answered:?}"),
    };
    for len in 0..16 {
        assert_eq!(silence(&connect()[..len]), Silence::Length, "{len}");
    }
    let mut long = connect();
    long.resize(MAX_PACKET_LEN + 1, 0);
    assert_eq!(silence(&long), Silence::Length);
    for bit in 0..64 {
        let mut packet = connect();
        packet[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(silence(&packet), Silence::Magic, "{bit}");
    }
    let id = tracker.id(V4);
    for action in [3u32, 4, 5, 255, 256, 0x0100_0000, u32::MAX] {
        let packet = with(announce(id), 8, action.to_be_bytes());
        assert_eq!(silence(&packet), Silence::Action, "{action}");
        let packet = with(connect(), 8, action.to_be_bytes());
        assert_eq!(silence(&packet), Silence::Action, "{action}");
    }
}

#[test]
fn impossible_sources_get_no_response() {
    let tracker = TestTracker::new();
    for from in [
        "192.0.2.1:0",
        "[2001:db8::1]:0",
        "0.0.0.0:1",
        "255.255.255.255:1",
        "224.0.0.1:1",
        "239.255.255.255:1",
        "[::]:1",
        "[ff02::1]:1",
        "[::ffff:0.0.0.0]:1",
        "[::ffff:255.255.255.255]:1",
        "[::ffff:224.0.0.1]:1",
    ] {
        let outcome = tracker.respond(from, &connect()).0;
        assert_eq!(outcome, UdpOutcome::Silent(Silence::Source), "{from}");
    }
    for from in [V4, V6, MAPPED, "127.0.0.1:1", "[::1]:1", "[fe80::1]:65535"] {
        assert_eq!(
            tracker.respond(from, &connect()).0,
            UdpOutcome::Connected,
            "{from}"
        );
    }
}

#[test]
fn announce_returns_peers_of_the_packets_family() {
    for (from, other, peer) in [
        (V4, "192.0.2.9:1", &b"\xc0\x00\x02\x09\x1a\xe1"[..]),
        (MAPPED, "192.0.2.9:1", b"\xc0\x00\x02\x09\x1a\xe1"),
        (V4, "[::ffff:192.0.2.9]:1", b"\xc0\x00\x02\x09\x1a\xe1"),
        (
            V6,
            "[2001:db8::9]:1",
            b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x09\x1a\xe1",
        ),
    ] {
        let tracker = TestTracker::new();
        let first = tracker.request(other, announce);
        assert_eq!(first, (ANNOUNCED, announced(0, 1, b"")));
        let second = tracker.request(from, leecher);
        assert_eq!(second, (ANNOUNCED, announced(1, 1, peer)), "{from}");
        // A client of the other family gets both in the counts, but neither as a peer.
        let third_from = if from == V6 { V4 } else { V6 };
        let third = tracker.request(third_from, leecher);
        assert_eq!(third, (ANNOUNCED, announced(2, 1, b"")));
    }
}

#[test]
fn reads_left_and_ignores_downloaded_and_uploaded() {
    for (at, bytes, counts) in [
        // The fields `downloaded` and `uploaded`.
        (56, [0xff; 8], [1, 0, 0]),
        (72, [0xff; 8], [1, 0, 0]),
        (64, 0u64.to_be_bytes(), [1, 0, 0]),
        (64, 1u64.to_be_bytes(), [0, 0, 1]),
        (64, (1u64 << 31).to_be_bytes(), [0, 0, 1]),
        (64, (1u64 << 32).to_be_bytes(), [0, 0, 1]),
        (64, (1u64 << 63).to_be_bytes(), [0, 0, 1]),
        (64, u64::MAX.to_be_bytes(), [0, 0, 1]),
    ] {
        let tracker = TestTracker::new();
        let outcome = tracker.request(V4, |id| with(announce(id), at, bytes)).0;
        assert_eq!(
            (outcome, tracker.counts()),
            (ANNOUNCED, counts),
            "{at} {bytes:?}"
        );
    }
}

#[test]
fn events_change_counts() {
    let tracker = TestTracker::new();
    let after = |event: u32, left: u64| {
        let request = |id| {
            with(
                with(announce(id), 80, event.to_be_bytes()),
                64,
                left.to_be_bytes(),
            )
        };
        assert_eq!(tracker.request(V4, request).0, ANNOUNCED);
        let partial = tracker.tracker.scrape(&InfoHash(TORRENT)).unwrap().partial;
        (tracker.counts(), partial)
    };
    assert_eq!(after(2, 9), ([0, 0, 1], 0));
    assert_eq!(after(4, 9), ([0, 0, 1], 1));
    assert_eq!(after(5, 9), ([0, 0, 1], 0));
    assert_eq!(after(u32::MAX, 9), ([0, 0, 1], 0));
    assert_eq!(after(1, 0), ([1, 1, 0], 0));
    assert_eq!(after(1, 0), ([1, 1, 0], 0));
    assert_eq!(after(3, 0), ([0, 1, 0], 0));
    assert_eq!(after(3, 0), ([0, 1, 0], 0));
}

#[test]
fn ignores_ip_field_of_untrusted_client() {
    let tracker = TestTracker::new();
    tracker.request("192.0.2.9:1", |id| {
        with(announce(id), 84, [198, 51, 100, 7])
    });
    let (_, response) = tracker.request(V4, leecher);
    assert_eq!(response, announced(1, 1, b"\xc0\x00\x02\x09\x1a\xe1"));
}

#[test]
fn honors_ip_field_of_trusted_ipv4_client() {
    let trusted = ["192.0.2.0/24", "2001:db8::/32"].map(|network| network.parse().unwrap());
    let settings = Settings {
        trust_ip_params_from: Networks::new(trusted.into()),
        ..Settings::default()
    };
    let tracker = TestTracker::with(settings, tracker::Settings::default());
    let with_ip = |id| with(announce(id), 84, [198, 51, 100, 7]);
    tracker.request("192.0.2.9:1", with_ip);
    tracker.request("203.0.113.9:1", |id| with(with_ip(id), 96, [0, 1]));
    tracker.request("192.0.2.9:1", |id| with(announce(id), 84, [224, 0, 0, 1]));
    let (_, response) = tracker.request(V4, leecher);
    let mut peers: Vec<_> = response[20..].chunks(6).collect();
    peers.sort_unstable();
    let expected = [
        b"\xc0\x00\x02\x09\x1a\xe1",
        b"\xc6\x33\x64\x07\x1a\xe1",
        b"\xcb\x00\x71\x09\x00\x01",
    ];
    assert_eq!(peers, expected);
    tracker.request("[2001:db8::9]:1", announce);
    let (_, response) = tracker.request(V6, |id| with(leecher(id), 84, [198, 51, 100, 8]));
    assert_eq!(response.len(), 20 + 18);
}

/// Returns a tracker whose torrent has `leechers` of each family.
fn crowded(settings: Settings, leechers: u16, numwant: u32) -> TestTracker {
    let tracking = tracker::Settings {
        numwant,
        max_numwant: 1000,
        max_peers_per_network: 1000,
        ..tracker::Settings::default()
    };
    let tracker = TestTracker::with(settings, tracking);
    for port in 1..=leechers {
        for from in ["192.0.2.200:1", "[2001:db8::200]:1"] {
            tracker.request(from, |id| with(leecher(id), 96, port.to_be_bytes()));
        }
    }
    tracker
}

#[test]
fn num_want_is_signed_and_capped() {
    let tracker = crowded(Settings::default(), 100, 50);
    for (num_want, peers) in [
        (-1, 50),
        (i32::MIN, 50),
        (0, 0),
        (1, 1),
        (99, 99),
        (200, 100),
        (i32::MAX, 100),
    ] {
        let (_, response) =
            tracker.request(V4, |id| with(announce(id), 92, num_want.to_be_bytes()));
        assert_eq!(response.len(), 20 + 6 * peers, "{num_want}");
    }
}

#[test]
fn responses_fit_max_payload() {
    for (max_payload, v4, v6) in [(1232, 202, 67), (128, 18, 6), (1231, 201, 67), (0, 0, 0)] {
        let settings = Settings {
            max_payload,
            ..Settings::default()
        };
        let tracker = crowded(settings, 300, 1000);
        for num_want in [-1, 203, 1000] {
            for (from, peers, endpoint) in [(V4, v4, 6), (V6, v6, 18), (MAPPED, v4, 6)] {
                let request = |id| with(announce(id), 92, i32::to_be_bytes(num_want));
                let (_, response) = tracker.request(from, request);
                assert_eq!(
                    response.len(),
                    20 + endpoint * peers,
                    "{max_payload} {from}"
                );
                let mut peers_given: Vec<_> = response[20..].chunks_exact(endpoint).collect();
                peers_given.sort_unstable();
                peers_given.dedup();
                assert_eq!(peers_given.len(), peers);
            }
        }
    }
}

#[test]
fn refused_torrents_get_an_error() {
    let tracker = TestTracker::new();
    tracker
        .tracker
        .set_admission(&InfoHash(OTHER), Admission::Denied);
    for (hash, refusal) in [
        ([9; 20], Refusal::UnknownTorrent),
        (OTHER, Refusal::DeniedTorrent),
    ] {
        let (outcome, response) = tracker.request(V4, |id| with(announce(id), 16, hash));
        assert_eq!(outcome, UdpOutcome::Refused(refusal.clone()));
        assert_eq!(response, error(refusal.reason()));
    }
}

#[test]
fn truncates_long_reasons() {
    let header = PacketHeader::parse(&connect()).unwrap();
    for (reason, len) in [
        ("x".repeat(248), 248),
        ("x".repeat(249), 248),
        ("é".repeat(200), 248),
        ("xé".repeat(200), 247),
    ] {
        let mut out = Vec::new();
        write_error(&mut out, &header, &reason);
        assert_eq!(out, error(&reason[..len]));
    }
}

#[test]
fn malformed_requests_with_valid_id_get_an_error() {
    let tracker = TestTracker::new();
    let expect = |malformed: InvalidPacket, request: &dyn Fn(u64) -> Vec<u8>| {
        let response = tracker.request(V4, request);
        assert_eq!(
            response,
            (UdpOutcome::Invalid(malformed), error(malformed.reason()))
        );
    };
    for len in 16..98 {
        expect(InvalidPacket::AnnounceTooShort, &|id| {
            announce(id)[..len].to_vec()
        });
    }
    expect(InvalidPacket::PortZero, &|id| {
        with(announce(id), 96, [0, 0])
    });
    expect(InvalidPacket::ScrapeEmpty, &|id| scrape(id, &[]));
    for len in (17..MAX_PACKET_LEN).filter(|len| (len - 16) % 20 != 0) {
        expect(InvalidPacket::ScrapeUneven, &|id| {
            scrape(id, &[TORRENT; 102])[..len].to_vec()
        });
    }
    assert_eq!(tracker.counts(), [0, 0, 0]);
}

#[test]
fn scrape_keeps_order_and_duplicates() {
    for from in [V4, V6] {
        let tracker = TestTracker::new();
        tracker.request(V4, |id| with(announce(id), 80, 1u32.to_be_bytes()));
        tracker.request(V6, leecher);
        tracker
            .tracker
            .set_admission(&InfoHash(OTHER), Admission::Denied);
        let hashes = [[0xff; 20], TORRENT, OTHER, TORRENT, [0; 20]];
        let (outcome, response) = tracker.request(from, |id| scrape(id, &hashes));
        let tracked = [0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1];
        let expected = [[0; 12], tracked, [0; 12], tracked, [0; 12]].concat();
        assert_eq!(outcome, UdpOutcome::Scraped);
        assert_eq!(response, [b"\x00\x00\x00\x02tran", &expected[..]].concat());
    }
}

#[test]
fn scrape_is_limited_to_74_torrents() {
    let tracker = TestTracker::new();
    tracker.request(V4, announce);
    for (requested, expected) in [(1, 1), (2, 2), (73, 73), (74, 74), (75, 74), (101, 74)] {
        let (outcome, response) = tracker.request(V4, |id| scrape(id, &vec![TORRENT; requested]));
        assert_eq!(
            (outcome, response.len()),
            (UdpOutcome::Scraped, 8 + 12 * expected),
            "{requested}"
        );
        assert!(
            response[8..]
                .chunks(12)
                .all(|entry| entry == &response[8..20])
        );
    }
    let settings = Settings {
        max_payload: 128,
        ..Settings::default()
    };
    let tracker = TestTracker::with(settings, tracker::Settings::default());
    let (_, response) = tracker.request(V4, |id| scrape(id, &[TORRENT; 74]));
    assert_eq!(response.len(), 8 + 12 * 10);
}

#[test]
fn host_on_two_families_and_protocols_counts_once() {
    let tracker = TestTracker::new();
    let settings = http::Settings {
        trust_ip_params_from: Networks::default(),
        max_scrape: 1,
        full_scrape: false,
    };
    let query = b"info_hash=a%20torrent%27s%2020%20bytes&peer_id=-XX0001-abcdefghijkl\
            &port=6881&left=0&key=00ABCDEF";
    let outcome = http::respond(
        &tracker.tracker,
        &settings,
        NOW,
        V6.parse::<SocketAddr>().ok().map(|from| from.ip()),
        http::request::Action::Announce,
        query,
        &mut http::ResponseBuffer::default(),
    );
    assert!(matches!(outcome, http::HttpOutcome::Announced(..)));
    let with_key = |id| with(announce(id), 88, 0x00ab_cdef_u32.to_be_bytes());
    let (_, response) = tracker.request(V4, with_key);
    assert_eq!(response, announced(0, 1, b""));
    // Without the key, or with another key, it counts as another host.
    tracker.request("192.0.2.2:1", |id| with(announce(id), 88, [0; 4]));
    tracker.request("192.0.2.3:1", |id| with(announce(id), 88, [1; 4]));
    assert_eq!(tracker.counts(), [3, 0, 0]);
}

#[test]
fn invalid_ids_get_no_response_or_a_short_error() {
    let silent = TestTracker::new();
    let with_errors = TestTracker::with(
        Settings {
            invalid_connection_ids: InvalidConnectionIds::Error,
            ..Settings::default()
        },
        tracker::Settings::default(),
    );
    for bad in [
        0,
        1,
        MAGIC,
        u64::MAX,
        silent.id("192.0.2.2:1001"),
        silent.id(V6),
    ] {
        for len in 16..=MAX_PACKET_LEN {
            for action in [1u32, 2] {
                let mut packet = with(announce(bad), 8, action.to_be_bytes());
                packet.resize(len, 0);
                let outcome = silent.respond(V4, &packet).0;
                assert_eq!(outcome, UdpOutcome::Silent(Silence::InvalidConnectionId));
                let (outcome, response) = with_errors.respond(V4, &packet);
                assert_eq!(
                    (outcome, &response),
                    (UdpOutcome::InvalidConnectionId, &error("bad id"))
                );
                assert!(response.len() <= len);
            }
        }
    }
    assert_eq!(silent.counts(), [0, 0, 0]);
}

#[test]
fn id_is_valid_for_its_lifetime_from_any_port() {
    let tracker = TestTracker::new();
    let id = tracker.id(V4);
    for (seconds, port, outcome) in [
        (0, 1, ANNOUNCED),
        (60, 2, ANNOUNCED),
        (119, 65535, ANNOUNCED),
        (120, 1001, ANNOUNCED),
        (121, 1001, UdpOutcome::Silent(Silence::InvalidConnectionId)),
    ] {
        let from = (Ipv4Addr::new(192, 0, 2, 1), port).into();
        let later = UnixTime(UNIX.0 + seconds);
        assert_eq!(
            tracker.respond_at(later, from, &announce(id)).0,
            outcome,
            "{seconds}"
        );
    }
}

#[test]
fn options_are_ignored() {
    let tracker = TestTracker::new();
    tracker.request("192.0.2.9:1", announce);
    let plain = tracker.request(V4, leecher);
    for options in [
        &b"\x00"[..],
        b"\x01\x01\x00",
        b"\x02",
        b"\x02\x00",
        b"\x02\x09/announce",
        b"\x02\x05/anno\x02\x04unce\x00",
        b"\x02\xff/cut",
        b"\x03\x00\xff\x01\x00",
        &[0xff; MAX_PACKET_LEN - 98],
    ] {
        let response = tracker.request(V4, |id| [&leecher(id), options].concat());
        assert_eq!(response, plain, "{options:?}");
    }
}

#[test]
fn responses_never_exceed_their_limits() {
    let open = tracker::Settings {
        open: true,
        max_numwant: 1000,
        ..tracker::Settings::default()
    };
    for invalid_connection_ids in [InvalidConnectionIds::Silence, InvalidConnectionIds::Error] {
        let settings = Settings {
            invalid_connection_ids,
            ..Settings::default()
        };
        let tracker = TestTracker::with(settings, open.clone());
        let mut random = Rng::new(15);
        let mut answered = [0; 2];
        for round in 0..60_000 {
            let len = round % (MAX_PACKET_LEN + 2);
            let mut packet: Vec<u8> = (0..len.div_ceil(8))
                .flat_map(|_| random.next_u64().to_be_bytes())
                .take(len)
                .collect();
            let from = if random.below(2) == 0 { V4 } else { V6 };
            // Packets with random headers would nearly all be dropped at once.
            let proven = random.below(2) == 0;
            let id = match random.below(3) {
                _ if proven => tracker.id(from),
                0 => MAGIC,
                1 => tracker.id(if from == V4 { V6 } else { V4 }),
                _ => random.next_u64(),
            };
            if random.below(8) != 0 && len >= 16 {
                packet = with(packet, 0, id.to_be_bytes());
                packet = with(packet, 8, random.below(5).to_be_bytes());
            }
            let proven = proven && packet.first_chunk() == Some(&id.to_be_bytes());
            let (outcome, response) = tracker.respond(from, &packet);
            let limit = if proven { 1232 } else { packet.len() };
            assert!(
                response.len() <= limit,
                "{round}: {outcome:?} to {packet:?}"
            );
            answered[usize::from(proven)] += usize::from(!response.is_empty());
        }
        assert!(answered.iter().all(|&n| n > 1000), "{answered:?}");
    }
}
