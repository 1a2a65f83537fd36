//! What it costs to tell other trackers, and to hear them: one thread, no engine.
//!
//! `cargo bench --bench changes`

use std::net::Ipv4Addr;
use std::num::NonZeroU16;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use tbtt::protocol::changes::{self, Batch, Record, Sender};
use tbtt::tracker::downloads::NodeId;
use tbtt::tracker::{
    Announce, Event, Heard, HostKey, InfoHash, Key, PeerId, Random, Settings, Time, Told, Tracker,
    Walk,
};

const PEERS: u32 = 1_000_000;
const NOW: Time = Time(100_000);
const BATCH: usize = 256;

/// Which torrent a peer is in.
type Spread = fn(peer: u32, random: &mut Random) -> u32;

const SPREADS: [(&str, Spread); 4] = [
    ("1 M peers in 100,000 torrents", |peer, _| peer % 100_000),
    ("1 M peers in 10,000 torrents by Zipf", |_, random| {
        zipf(random)
    }),
    ("1 M peers in a torrent each", |peer, _| peer),
    ("1 M peers in 1 torrent", |_, _| 0),
];

fn main() {
    for (name, spread) in SPREADS {
        println!("{name}");
        let mut random = Random::new(7);
        let announces: Vec<_> = (0..PEERS)
            .map(|peer| announce(peer, spread(peer, &mut random)))
            .collect();
        let source = tracker(true);
        let (told, took) = timed(|| tell(&source, &announces));
        println!("  announce, new      {took}");
        let (_, took) = timed(|| tell(&source, &announces));
        println!("  announce, known    {took}");
        let lone = tracker(false);
        tell(&lone, &announces);
        let (_, took) = timed(|| tell(&lone, &announces));
        println!("    without cluster  {took}");

        let (batches, took) = timed(|| pack(&told));
        let bytes: usize = batches.iter().map(Vec::len).sum();
        println!(
            "  write batches      {took}, {:.1} bytes a change",
            bytes as f64 / f64::from(PEERS)
        );
        let other = tracker(true);
        let ((), took) = timed(|| hear(&other, &batches, Heard::Taken));
        assert_eq!(other.totals(), source.totals());
        println!("  read and hear, new {took}");
        let ((), took) = timed(|| hear(&other, &batches, Heard::Taken));
        println!("  the same, known    {took}");

        let (again, took) = timed(|| {
            let (mut walk, mut told) = (Walk::default(), Vec::new());
            while source.recount(NOW, u32::MAX, &mut walk, &mut told) {}
            told
        });
        println!("  recount            {took}");
        let ((), took) = timed(|| hear(&other, &pack(&again), Heard::Older));
        println!("  tell it again      {took}");
        let gone: Vec<_> = told.into_iter().map(left).collect();
        let ((), took) = timed(|| hear(&other, &pack(&gone), Heard::Taken));
        assert_eq!(other.totals(), tracker(true).totals());
        println!("  write, hear leaves {took}");
    }
}

fn tracker(in_cluster: bool) -> Tracker {
    let settings = Settings {
        open: true,
        host_key: in_cluster.then(|| HostKey::new("tbtt")),
        ..Settings::default()
    };
    Tracker::new(settings, 7)
}

fn announce(peer: u32, torrent: u32) -> Announce {
    let mut info_hash = InfoHash([0; 20]);
    info_hash.0[..4].copy_from_slice(&torrent.to_be_bytes());
    let mut peer_id = PeerId([b'-'; 20]);
    peer_id.0[..4].copy_from_slice(&peer.to_be_bytes());
    Announce {
        info_hash,
        peer_id,
        key: Some(Key(peer)),
        address: Ipv4Addr::from(0x0a00_0000 + peer).into(),
        port: NonZeroU16::MIN,
        event: Event::None,
        complete: peer % 3 == 0,
        numwant: Some(50),
    }
}

/// One of 10,000: number n about 1/n as often as number 1.
fn zipf(random: &mut Random) -> u32 {
    let uniform = f64::from(random.next_u32()) / f64::from(u32::MAX);
    (10_000f64.powf(uniform) as u32).min(10_000) - 1
}

fn tell(tracker: &Tracker, announces: &[Announce]) -> Vec<Told> {
    let (mut told, mut peers) = (Vec::with_capacity(announces.len()), Vec::new());
    for announce in announces {
        peers.clear();
        let answer = tracker.announce(NOW, announce, &mut peers);
        told.extend(answer.expect("it is open").change.map(|change| Told {
            change,
            age_secs: 0,
            again: false,
        }));
    }
    told
}

fn left(mut told: Told) -> Told {
    told.change.class = None;
    told
}

fn pack(told: &[Told]) -> Vec<Vec<u8>> {
    let sender = Sender {
        node: NodeId(1),
        run: 1,
    };
    let batches = told.chunks(BATCH).map(|told| {
        let mut batch = Vec::new();
        changes::write_head(sender, &mut batch);
        for told in told {
            changes::write_record(&Record::Peer(*told), &mut batch);
        }
        batch
    });
    batches.collect()
}

fn hear(tracker: &Tracker, batches: &[Vec<u8>], expected: Heard) {
    for batch in batches {
        for record in Batch::parse(batch).expect("just written").records() {
            let Record::Peer(told) = record else { continue };
            assert_eq!(tracker.hear(NOW, 1, &told), expected);
        }
    }
}

/// Tells how much of the processor's time it took, and of that for one of a million: what others do on the machine shall not
/// count.
fn timed<T>(what: impl FnOnce() -> T) -> (T, String) {
    let cpu = || {
        let used = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID);
        Duration::from(used.expect("the clock is always there"))
    };
    let start = cpu();
    let result = what();
    let took = cpu() - start;
    let each = took.as_nanos() as f64 / f64::from(PEERS);
    (
        result,
        format!("{:.3} s, {each:.0} ns each", took.as_secs_f64()),
    )
}
