//! The monitoring plugin: one line with figures, and an exit status, as Nagios and its heirs expect them.

use std::path::Path;

use tbtt::cluster::report::{ClusterReport, ClusterState};
use tbtt::status::report::{Release, ReleaseHealth, StatusReport};
use tbtt::utc::UnixSecs;

use super::arguments::{Check, Thresholds};
use super::client;
use super::status::Healths;
use super::text::{count, duration};

/// How many releases are named at most: some systems cut a line at a kilobyte.
const NAMED: usize = 5;

/// Refusals below this many a second are no sign of anything.
const FEW_REFUSALS: f64 = 1.0;

/// How long a tracker may be without its cluster's engine, in seconds: a failover takes as long.
const ALONE_SECS: u64 = 60;

/// How many seconds it may be behind the others.
const LAG_MOST: f64 = 10.0;

/// For how many seconds it is told that changes were dropped.
const DROPPED_SECS: u64 = 300;

/// What a plugin exits with.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum State {
    Ok = 0,
    Warning = 1,
    Critical = 2,
    Unknown = 3,
}

/// Asks and judges.
pub(super) fn check(socket: &Path, thresholds: &Check) -> (String, State) {
    match client::get(socket, super::STATUS) {
        Ok(figures) => judge(&figures, thresholds),
        Err(error @ client::Error::NotRunning(_)) => {
            (format!("TBTT CRITICAL - {error}\n"), State::Critical)
        }
        Err(error) => {
            let line = error.to_string().replace('\n', "; ");
            (format!("TBTT UNKNOWN - {line}\n"), State::Unknown)
        }
    }
}

fn judge(figures: &StatusReport, thresholds: &Check) -> (String, State) {
    let mut verdict = Verdict::default();
    let healths = Healths::of(&figures.releases);
    if !figures.last_reload_successful {
        verdict.add(State::Warning, "the last reload was refused".to_owned());
    }
    for (is, number, limits, words) in [
        (
            ReleaseHealth::LostSeeds,
            healths.lost_seeds,
            thresholds.lost_seeds,
            "lost its seeds",
        ),
        (
            ReleaseHealth::NeverSeeded,
            healths.never_seeded,
            thresholds.never_seeded,
            "published without a seed",
        ),
    ] {
        let names = || {
            let of = figures
                .releases
                .iter()
                .filter(|r| r.overdue && r.health == is);
            names(of, number)
        };
        verdict.measure(number, limits, || format!("{words}: {}", names()));
    }

    let age = figures.snapshot.interval.map(|interval| {
        let since = figures.snapshot.last.unwrap_or(figures.started);
        let interval = u64::from(interval);
        let limits = thresholds.snapshot_age.unwrap_or(Thresholds {
            warning: Some(3 * interval),
            critical: Some(12 * interval),
        });
        (figures.now.saturating_sub(since), limits)
    });
    if let Some((age, limits)) = age {
        verdict.measure(age, limits, || {
            format!("the last snapshot is {} old", duration(age))
        });
    }

    let (refused, answered) = (figures.refusals_per_second, figures.announces_per_second);
    let percent = match refused > FEW_REFUSALS {
        true => (100.0 * refused / (refused + answered)) as u64,
        false => 0,
    };
    verdict.measure(percent, thresholds.refusals, || {
        format!("{percent} % of all requests are refused")
    });

    if let Some(cluster) = &figures.cluster {
        verdict.cluster(cluster, figures.now);
    }

    let said = match &verdict.said[..] {
        [] => format!(
            "{}, {}",
            count(figures.releases.len() as u64, "release"),
            count(
                figures.totals.peers_ipv4 + figures.totals.peers_ipv6,
                "peer"
            ),
        ),
        faults => faults.join("; "),
    };
    let mut data = vec![
        with("lost_seeds", healths.lost_seeds, "", thresholds.lost_seeds),
        with(
            "never_seeded",
            healths.never_seeded,
            "",
            thresholds.never_seeded,
        ),
        with("refusals", percent, "%", thresholds.refusals),
    ];
    data.extend(age.map(|(age, limits)| with("snapshot_age", age, "s", limits)));
    data.extend([
        format!("releases={}", figures.releases.len()),
        format!("seeders={}", figures.totals.seeders),
        format!("leechers={}", figures.totals.leechers),
        format!("announces_per_second={answered:.1}"),
    ]);
    if let Some(cluster) = &figures.cluster {
        data.push(format!(
            "cluster_lag={:.1}s;{LAG_MOST};;0",
            cluster.lag_seconds
        ));
        data.push(format!("cluster_nodes={}", cluster.nodes.len()));
    }
    let state = verdict.state;
    let word = format!("{state:?}").to_uppercase();
    // What follows the bar is read as figures.
    let said = said.replace('|', "/");
    (
        format!("TBTT {word} - {said} | {}\n", data.join(" ")),
        state,
    )
}

struct Verdict {
    state: State,
    said: Vec<String>,
}

impl Default for Verdict {
    fn default() -> Self {
        Self {
            state: State::Ok,
            said: Vec::new(),
        }
    }
}

impl Verdict {
    fn add(&mut self, state: State, what: String) {
        self.state = self.state.max(state);
        self.said.push(what);
    }

    fn cluster(&mut self, cluster: &ClusterReport, now: UnixSecs) {
        let for_secs = now.saturating_sub(cluster.state_since);
        if cluster.state == ClusterState::Disconnected {
            if for_secs > ALONE_SECS {
                let alone = duration(for_secs);
                self.add(State::Warning, format!("serving alone for {alone}"));
            }
        } else if cluster.lag_seconds > LAG_MOST {
            let lag = cluster.lag_seconds;
            self.add(State::Warning, format!("{lag:.0} s behind the cluster"));
        }
        let dropped = cluster.last_dropped;
        if dropped.is_some_and(|last| now.saturating_sub(last) < DROPPED_SECS) {
            let text = "the cluster's engine is too slow: changes are dropped";
            self.add(State::Warning, text.to_owned());
        }
    }

    fn measure(&mut self, value: u64, limits: Thresholds, what: impl Fn() -> String) {
        let over = |limit: Option<u64>| limit.is_some_and(|limit| value > limit);
        if over(limits.critical) {
            self.add(State::Critical, what());
        } else if over(limits.warning) {
            self.add(State::Warning, what());
        }
    }
}

fn names<'a>(of: impl Iterator<Item = &'a Release>, number: u64) -> String {
    let names: Vec<_> = of
        .take(NAMED)
        .map(|release| release.name.as_str())
        .collect();
    match number.checked_sub(NAMED as u64) {
        Some(more @ 1..) => format!("{} and {more} more", names.join(", ")),
        _ => names.join(", "),
    }
}

/// A figure in the form of the Monitoring Plugins' guidelines.
fn with(label: &str, value: u64, unit: &str, limits: Thresholds) -> String {
    let limit = |limit: Option<u64>| limit.map_or_else(String::new, |limit| limit.to_string());
    format!(
        "{label}={value}{unit};{};{};0",
        limit(limits.warning),
        limit(limits.critical)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use tbtt::status::report::SnapshotReport;

    use super::super::arguments::{Arguments, Command};

    fn thresholds(options: &[&str]) -> Check {
        let all = ["tbttctl", "check"].iter().chain(options);
        match Arguments::try_parse_from(all).unwrap().command {
            Command::Check(check) => check,
            other => panic!("{other:?}"),
        }
    }

    fn releases(health: ReleaseHealth, overdue: bool, number: usize) -> Vec<Release> {
        let release = |number| Release {
            name: format!("r{number}"),
            health,
            overdue,
            ..Release::default()
        };
        (0..number).map(release).collect()
    }

    fn figures() -> StatusReport {
        StatusReport {
            last_reload_successful: true,
            started: 1_000,
            now: 2_000,
            releases: releases(ReleaseHealth::Seeded, false, 2),
            ..StatusReport::default()
        }
    }

    fn judged(figures: &StatusReport, options: &[&str]) -> (String, State) {
        judge(figures, &thresholds(options))
    }

    #[test]
    fn all_is_well_by_default() {
        let (line, state) = judged(&figures(), &[]);
        assert_eq!(state, State::Ok);
        assert_eq!(
            line,
            "TBTT OK - 2 releases, 0 peers | lost_seeds=0;;0;0 never_seeded=0;0;;0 refusals=0%;50;90;0 releases=2 \
             seeders=0 leechers=0 announces_per_second=0.0\n"
        );
    }

    #[test]
    fn releases_without_a_seed_are_named_once_they_are_overdue() {
        let mut figures = figures();
        figures
            .releases
            .extend(releases(ReleaseHealth::NeverSeeded, false, 3));
        assert_eq!(judged(&figures, &[]).1, State::Ok);
        figures
            .releases
            .extend(releases(ReleaseHealth::NeverSeeded, true, 7));
        let (line, state) = judged(&figures, &[]);
        assert_eq!(state, State::Warning);
        let said = "TBTT WARNING - published without a seed: r0, r1, r2, r3, r4 and 2 more | ";
        assert!(line.starts_with(said), "{line}");
        assert_eq!(judged(&figures, &["--never-seeded=7"]).1, State::Ok);
        assert_eq!(judged(&figures, &["--never-seeded=1,6"]).1, State::Critical);
        figures
            .releases
            .extend(releases(ReleaseHealth::LostSeeds, true, 1));
        let (line, state) = judged(&figures, &[]);
        assert_eq!(state, State::Critical);
        let said = "TBTT CRITICAL - lost its seeds: r0; published without a seed: ";
        assert!(line.starts_with(said), "{line}");
    }

    #[test]
    fn a_bar_in_a_name_begins_no_figures() {
        let mut figures = figures();
        figures.releases = releases(ReleaseHealth::LostSeeds, true, 1);
        figures.releases[0].name = "a|b=1".to_owned();
        let line = judged(&figures, &[]).0;
        assert_eq!(line.matches('|').count(), 1, "{line}");
    }

    #[test]
    fn a_snapshot_is_too_old_by_what_is_configured() {
        let mut figures = figures();
        figures.snapshot = SnapshotReport {
            last: Some(1_100),
            interval: Some(300),
        };
        assert_eq!(judged(&figures, &[]).1, State::Ok);
        figures.snapshot.last = Some(1_099);
        assert_eq!(judged(&figures, &[]).1, State::Warning);
        let (line, state) = judged(&figures, &["--snapshot-age=600,900"]);
        assert_eq!(state, State::Critical);
        assert!(line.contains(" snapshot_age=901s;600;900;0 "), "{line}");
        // None yet: it counts from the start.
        figures.snapshot.last = None;
        assert_eq!(judged(&figures, &[]).1, State::Warning);
    }

    #[test]
    fn refusals_count_by_their_share_and_not_when_few() {
        let mut figures = figures();
        for (refused, answered, state) in [
            (0.9, 0.0, State::Ok),
            (10.0, 10.0, State::Ok),
            (11.0, 10.0, State::Warning),
            (99.0, 1.0, State::Critical),
        ] {
            figures.refusals_per_second = refused;
            figures.announces_per_second = answered;
            assert_eq!(judged(&figures, &[]).1, state, "{refused} {answered}");
        }
    }

    #[test]
    fn a_cluster_out_of_reach_or_too_slow_warns() {
        let mut figures = figures();
        let cluster = ClusterReport {
            state: ClusterState::Joined,
            state_since: 1_100,
            lag_seconds: 0.25,
            ..ClusterReport::default()
        };
        let judged = |of: ClusterReport| {
            figures.cluster = Some(of);
            judged(&figures, &[])
        };
        let mut judged = judged;
        let (line, state) = judged(cluster.clone());
        assert_eq!(state, State::Ok);
        assert!(
            line.ends_with(" cluster_lag=0.2s;10;;0 cluster_nodes=0\n"),
            "{line}"
        );
        let lone = |state_since| ClusterReport {
            state: ClusterState::Disconnected,
            state_since,
            ..cluster.clone()
        };
        assert_eq!(judged(lone(1_940)).1, State::Ok);
        let (line, state) = judged(lone(1_939));
        assert_eq!(state, State::Warning);
        assert!(line.contains("WARNING - serving alone for 1 min"), "{line}");
        let slow = ClusterReport {
            lag_seconds: 11.0,
            ..cluster.clone()
        };
        assert_eq!(judged(slow).1, State::Warning);
        for (last, state) in [(1_700, State::Ok), (1_701, State::Warning)] {
            let dropping = ClusterReport {
                last_dropped: Some(last),
                ..cluster.clone()
            };
            assert_eq!(judged(dropping).1, state);
        }
    }

    #[test]
    fn a_refused_reload_warns() {
        let mut figures = figures();
        figures.last_reload_successful = false;
        assert_eq!(judged(&figures, &[]).1, State::Warning);
    }
}
