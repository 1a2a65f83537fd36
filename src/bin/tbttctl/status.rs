//! The output of `status`.

use std::fmt::Write;

use tbtt::cluster::report::{ClusterReport, ClusterState};
use tbtt::status::report::{Release, ReleaseHealth, ReportTotals, StatusReport};
use tbtt::utc::UnixSecs;

use super::text::{Style, ago, count, duration};

/// Maximum number of releases without a seeder that are listed.
const MAX_NAMED: usize = 10;

/// The counters of refusals, and their names in the output.
const REFUSALS: [(&str, &str); 7] = [
    ("unknown_torrents", "unknown torrent"),
    ("denied_torrents", "denied torrent"),
    ("too_many_torrents", "too many torrents"),
    ("withdrawn_torrents", "withdrawn torrent"),
    ("denied_addresses", "denied address"),
    ("rate_limited", "rate limited"),
    ("malformed", "malformed"),
];

/// The number of releases by health.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct HealthCounts {
    pub(super) seeded: u64,
    /// Releases without a seeder, but not yet for longer than `seedless_after` allows.
    pub(super) waiting: u64,
    pub(super) never_seeded: u64,
    pub(super) lost_seeds: u64,
}

impl HealthCounts {
    pub(super) fn of(releases: &[Release]) -> Self {
        let mut counts = Self::default();
        for release in releases {
            *match (release.health, release.overdue) {
                (ReleaseHealth::Seeded, _) => &mut counts.seeded,
                (_, false) => &mut counts.waiting,
                (ReleaseHealth::NeverSeeded, true) => &mut counts.never_seeded,
                (ReleaseHealth::LostSeeds, true) => &mut counts.lost_seeds,
            } += 1;
        }
        counts
    }
}

/// Formats the output of `status`.
pub(super) fn overview(report: &StatusReport, style: Style) -> String {
    let mut text = summary(report, style);
    let overdue: Vec<_> = report.releases.iter().filter(|r| r.overdue).collect();
    if !overdue.is_empty() {
        text += "\nWithout a seeder for too long:\n";
    }
    for release in overdue.iter().take(MAX_NAMED) {
        let health = style.health(release.health, release.overdue);
        let _ = writeln!(text, "  {} ({health})", release.name);
    }
    if let Some(more @ 1..) = overdue.len().checked_sub(MAX_NAMED) {
        let _ = writeln!(text, "  and {more} more; run tbttctl torrents --unseeded");
    }
    text
}

/// Formats the state of the tracker, without single releases: a line for each subject.
pub(super) fn summary(report: &StatusReport, style: Style) -> String {
    let now = report.now;
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{} {value}", style.bold(&format!("{name:<10}")));
    };
    let up = duration(now.saturating_sub(report.started));
    let reload = match report.last_reload_successful {
        true => String::new(),
        false => format!(", {}", style.red("last reload failed")),
    };
    line("tbtt", &format!("{}, up {up}{reload}", report.version));
    line("releases", &releases(&report.releases, style));
    line("peers", &peers(&report.totals));
    line("announces", &announces(report));
    line("refusals", &refusals(report));
    line(
        "snapshot",
        &match report.snapshot.interval {
            None => "none: no state is kept".to_owned(),
            Some(_) => ago(now, report.snapshot.last),
        },
    );
    if let Some(of_cluster) = &report.cluster {
        line("cluster", &cluster(of_cluster, now, style));
    }
    text
}

fn releases(releases: &[Release], style: Style) -> String {
    let counts = HealthCounts::of(releases);
    let mut parts = vec![style.green(&format!("{} seeded", counts.seeded))];
    if counts.waiting > 0 {
        parts.push(style.yellow(&format!("{} waiting for a seeder", counts.waiting)));
    }
    if counts.never_seeded > 0 {
        parts.push(style.red(&format!("{} never seeded", counts.never_seeded)));
    }
    if counts.lost_seeds > 0 {
        parts.push(style.red(&format!("{} lost the last seeder", counts.lost_seeds)));
    }
    format!("{}: {}", releases.len(), parts.join(", "))
}

fn peers(totals: &ReportTotals) -> String {
    format!(
        "{}: {} IPv4, {} IPv6; {}, {}; in {}",
        totals.peers_ipv4 + totals.peers_ipv6,
        totals.peers_ipv4,
        totals.peers_ipv6,
        count(totals.seeders, "seeder"),
        count(totals.leechers, "leecher"),
        count(totals.torrents, "torrent"),
    )
}

fn announces(report: &StatusReport) -> String {
    let total = counter(report, "http_announces") + counter(report, "udp_announces");
    let rate = report.announces_per_second;
    format!("{total} since start, {rate:.1} per second")
}

fn refusals(report: &StatusReport) -> String {
    let counts = REFUSALS.map(|(name, reason)| (reason, counter(report, name)));
    let total: u64 = counts.iter().map(|(_, count)| count).sum();
    let reasons: Vec<_> = counts
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(reason, count)| format!("{reason} {count}"))
        .collect();
    let reasons = match &reasons[..] {
        [] => String::new(),
        reasons => format!(": {}", reasons.join(", ")),
    };
    let rate = report.refusals_per_second;
    format!("{total} since start, {rate:.1} per second{reasons}")
}

fn cluster(cluster: &ClusterReport, now: UnixSecs, style: Style) -> String {
    let since = duration(now.saturating_sub(cluster.state_since));
    let state = format!("{} for {since}", cluster.state.as_str());
    let state = match cluster.state {
        ClusterState::Joined => style.green(&state),
        ClusterState::CatchingUp => style.yellow(&state),
        ClusterState::Disconnected => style.red(&state),
    };
    let others = count(cluster.nodes.len() as u64, "other tracker");
    let lag = match cluster.state {
        ClusterState::Disconnected => String::new(),
        _ => format!(", {:.1} s behind", cluster.lag_seconds),
    };
    let (waiting, dropped) = (count(cluster.queue_length, "change"), cluster.dropped);
    format!("{state}; {others}{lag}, {waiting} waiting, {dropped} dropped")
}

fn counter(report: &StatusReport, name: &str) -> u64 {
    report.counters.get(name).copied().unwrap_or_default()
}
