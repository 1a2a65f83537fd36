//! The tracker as a whole, on one screen.

use std::fmt::Write;

use tbtt::cluster::report::ClusterState;
use tbtt::status::report::{Release, ReleaseHealth, StatusReport};

use super::text::{Style, ago, count, duration};

/// How many releases are named at most.
const NAMED: usize = 10;

/// Counters of what was refused, and what to call it.
const REFUSALS: [(&str, &str); 7] = [
    ("unknown_torrents", "unknown torrent"),
    ("denied_torrents", "denied torrent"),
    ("too_many_torrents", "too many torrents"),
    ("withdrawn_torrents", "withdrawn torrent"),
    ("denied_addresses", "unwelcome address"),
    ("rate_limited", "too often"),
    ("malformed", "malformed"),
];

/// How many releases are of each health.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Healths {
    pub(super) seeded: u64,
    /// Without a seed, but not for longer than they may be.
    pub(super) waiting: u64,
    pub(super) never_seeded: u64,
    pub(super) lost_seeds: u64,
}

impl Healths {
    pub(super) fn of(releases: &[Release]) -> Self {
        let mut healths = Self::default();
        for release in releases {
            *match (release.health, release.overdue) {
                (ReleaseHealth::Seeded, _) => &mut healths.seeded,
                (_, false) => &mut healths.waiting,
                (ReleaseHealth::NeverSeeded, true) => &mut healths.never_seeded,
                (ReleaseHealth::LostSeeds, true) => &mut healths.lost_seeds,
            } += 1;
        }
        healths
    }
}

/// What `status` prints.
pub(super) fn overview(figures: &StatusReport, style: Style) -> String {
    let mut text = head(figures, style);
    let overdue: Vec<_> = figures.releases.iter().filter(|r| r.overdue).collect();
    if !overdue.is_empty() {
        text += "\nWithout a seed for too long:\n";
    }
    for release in overdue.iter().take(NAMED) {
        let health = style.health(release.health, release.overdue);
        let _ = writeln!(text, "  {} ({health})", release.name);
    }
    if let Some(more @ 1..) = overdue.len().checked_sub(NAMED) {
        let _ = writeln!(text, "  and {more} more: tbttctl torrents --unseeded");
    }
    text
}

/// The figures that are not of single releases.
pub(super) fn head(figures: &StatusReport, style: Style) -> String {
    let StatusReport {
        version,
        now,
        totals,
        ..
    } = figures;
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{} {value}", style.bold(&format!("{name:<10}")));
    };
    let up = duration(now.saturating_sub(figures.started));
    let configuration = match figures.last_reload_successful {
        true => String::new(),
        false => format!(", {}", style.red("the last reload was refused")),
    };
    line("tbtt", &format!("{version}, up {up}{configuration}"));

    let healths = Healths::of(&figures.releases);
    let mut said = vec![style.green(&format!("{} seeded", healths.seeded))];
    if healths.waiting > 0 {
        said.push(style.yellow(&format!("{} waiting for a seed", healths.waiting)));
    }
    if healths.never_seeded > 0 {
        said.push(style.red(&format!("{} never seeded", healths.never_seeded)));
    }
    if healths.lost_seeds > 0 {
        said.push(style.red(&format!("{} lost their seeds", healths.lost_seeds)));
    }
    let releases = figures.releases.len();
    line("releases", &format!("{releases}: {}", said.join(", ")));

    let peers = totals.peers_ipv4 + totals.peers_ipv6;
    line(
        "peers",
        &format!(
            "{peers}: {} IPv4, {} IPv6; {}, {}; in {}",
            totals.peers_ipv4,
            totals.peers_ipv6,
            count(totals.seeders, "seeder"),
            count(totals.leechers, "leecher"),
            count(totals.torrents, "torrent"),
        ),
    );
    let counter = |name: &str| figures.counters.get(name).copied().unwrap_or_default();
    let announces = counter("http_announces") + counter("udp_announces");
    line(
        "announces",
        &format!(
            "{announces} since the start, {:.1} a second now",
            figures.announces_per_second
        ),
    );
    let refused = REFUSALS.map(|(name, words)| (words, counter(name)));
    let total: u64 = refused.iter().map(|(_, count)| count).sum();
    let by_reason: Vec<_> = refused
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(words, count)| format!("{words} {count}"))
        .collect();
    let by_reason = match &by_reason[..] {
        [] => String::new(),
        reasons => format!(": {}", reasons.join(", ")),
    };
    line(
        "refusals",
        &format!(
            "{total} since the start, {:.1} a second now{by_reason}",
            figures.refusals_per_second
        ),
    );
    line(
        "snapshot",
        &match figures.snapshot.interval {
            None => "none: no state is kept".to_owned(),
            Some(_) => ago(*now, figures.snapshot.last),
        },
    );
    if let Some(of) = &figures.cluster {
        let since = duration(now.saturating_sub(of.state_since));
        let state = format!("{} for {since}", of.state.as_str());
        let state = match of.state {
            ClusterState::Joined => style.green(&state),
            ClusterState::CatchingUp => style.yellow(&state),
            ClusterState::Disconnected => style.red(&state),
        };
        let others = count(of.nodes.len() as u64, "other tracker");
        let lag = match of.state {
            ClusterState::Disconnected => String::new(),
            _ => format!(", {:.1} s behind", of.lag_seconds),
        };
        line(
            "cluster",
            &format!(
                "{state}; {others}{lag}, {} waiting, {} dropped",
                of.queue_length, of.dropped
            ),
        );
    }
    text
}
