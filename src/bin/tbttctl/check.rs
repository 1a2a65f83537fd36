//! The plugin for monitoring: prints a line with performance data and sets the exit status, as Nagios and compatible
//! systems expect.

use std::path::Path;

use tbtt::cluster::report::{ClusterReport, ClusterState};
use tbtt::status::report::{Release, ReleaseHealth, StatusReport};
use tbtt::utc::UnixSecs;

use super::arguments::{Check, Thresholds};
use super::client;
use super::status::HealthCounts;
use super::text::{count, duration};

/// Maximum number of releases that are named: some monitoring systems cut a line at a kilobyte.
const MAX_NAMED: usize = 5;

/// Refusals at or below this rate, per second, do not raise an alert.
const MIN_REFUSALS_PER_SECOND: f64 = 1.0;

/// Seconds for which a tracker may be disconnected from the cluster's store. A failover of the store takes that long.
const MAX_DISCONNECTED_SECS: u64 = 60;

/// Number of seconds by which the tracker may be behind the other trackers.
const MAX_LAG_SECS: f64 = 10.0;

/// Seconds for which dropped changes are reported.
const REPORT_DROPPED_SECS: u64 = 300;

/// The state of the service. The values are the exit statuses of a plugin.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum State {
    Ok = 0,
    Warning = 1,
    Critical = 2,
    Unknown = 3,
}

/// Requests a report and checks it. Returns the line to print and the state.
pub(super) fn check(socket: &Path, thresholds: &Check) -> (String, State) {
    match client::get(socket, super::STATUS) {
        Ok(report) => judge(&report, thresholds),
        Err(error @ client::Error::NotRunning(_)) => {
            (format!("TBTT CRITICAL - {error}\n"), State::Critical)
        }
        Err(error) => {
            let line = error.to_string().replace('\n', "; ");
            (format!("TBTT UNKNOWN - {line}\n"), State::Unknown)
        }
    }
}

fn judge(report: &StatusReport, thresholds: &Check) -> (String, State) {
    let mut verdict = Verdict::default();
    if !report.last_reload_successful {
        verdict.add(State::Warning, "last reload failed".to_owned());
    }
    let counts = HealthCounts::of(&report.releases);
    verdict.check_releases(&report.releases, counts, thresholds);
    let age = snapshot_age(report, thresholds);
    if let Some((age, limits)) = age {
        verdict.check(age, limits, || {
            format!("last snapshot is {} old", duration(age))
        });
    }
    let refused = refused_percent(report);
    verdict.check(refused, thresholds.refusals, || {
        format!("{refused}% of requests are refused")
    });
    if let Some(cluster) = &report.cluster {
        verdict.check_cluster(cluster, report.now);
    }

    let totals = &report.totals;
    let text = match &verdict.problems[..] {
        [] => format!(
            "{}, {}",
            count(report.releases.len() as u64, "release"),
            count(totals.peers_ipv4 + totals.peers_ipv6, "peer"),
        ),
        problems => problems.join("; "),
    };
    let mut data = vec![
        performance_data("lost_seeds", counts.lost_seeds, "", thresholds.lost_seeds),
        performance_data(
            "never_seeded",
            counts.never_seeded,
            "",
            thresholds.never_seeded,
        ),
        performance_data("refusals", refused, "%", thresholds.refusals),
    ];
    data.extend(age.map(|(age, limits)| performance_data("snapshot_age", age, "s", limits)));
    data.extend([
        format!("releases={}", report.releases.len()),
        format!("seeders={}", totals.seeders),
        format!("leechers={}", totals.leechers),
        format!("announces_per_second={:.1}", report.announces_per_second),
    ]);
    if let Some(cluster) = &report.cluster {
        let lag = cluster.lag_seconds;
        data.push(format!("cluster_lag={lag:.1}s;{MAX_LAG_SECS};;0"));
        data.push(format!("cluster_nodes={}", cluster.nodes.len()));
    }
    let state = verdict.state;
    let word = format!("{state:?}").to_uppercase();
    // A bar in the text would start the performance data.
    let text = text.replace('|', "/");
    (
        format!("TBTT {word} - {text} | {}\n", data.join(" ")),
        state,
    )
}

/// Returns the age of the last snapshot in seconds, and its limits; `None` if no state is kept. Before the first
/// snapshot, the age counts from the start of the process.
fn snapshot_age(report: &StatusReport, thresholds: &Check) -> Option<(u64, Thresholds)> {
    let interval = u64::from(report.snapshot.interval?);
    let since = report.snapshot.last.unwrap_or(report.started);
    let limits = thresholds.snapshot_age.unwrap_or(Thresholds {
        warning: Some(3 * interval),
        critical: Some(12 * interval),
    });
    Some((report.now.saturating_sub(since), limits))
}

/// Returns the refusals as a percentage of refusals and announces together, or 0 if there are few refusals.
fn refused_percent(report: &StatusReport) -> u64 {
    let (refused, answered) = (report.refusals_per_second, report.announces_per_second);
    match refused > MIN_REFUSALS_PER_SECOND {
        true => (100.0 * refused / (refused + answered)) as u64,
        false => 0,
    }
}

/// The worst state so far, and all problems.
struct Verdict {
    state: State,
    problems: Vec<String>,
}

impl Default for Verdict {
    fn default() -> Self {
        Self {
            state: State::Ok,
            problems: Vec::new(),
        }
    }
}

impl Verdict {
    fn add(&mut self, state: State, problem: String) {
        self.state = self.state.max(state);
        self.problems.push(problem);
    }

    /// Adds a problem if the value exceeds a limit.
    fn check(&mut self, value: u64, limits: Thresholds, problem: impl Fn() -> String) {
        let exceeds = |limit: Option<u64>| limit.is_some_and(|limit| value > limit);
        if exceeds(limits.critical) {
            self.add(State::Critical, problem());
        } else if exceeds(limits.warning) {
            self.add(State::Warning, problem());
        }
    }

    fn check_releases(&mut self, releases: &[Release], counts: HealthCounts, thresholds: &Check) {
        for (health, count, limits, text) in [
            (
                ReleaseHealth::LostSeeds,
                counts.lost_seeds,
                thresholds.lost_seeds,
                "releases that lost their last seeder",
            ),
            (
                ReleaseHealth::NeverSeeded,
                counts.never_seeded,
                thresholds.never_seeded,
                "releases that never had a seeder",
            ),
        ] {
            self.check(count, limits, || {
                let overdue = releases.iter().filter(|r| r.overdue && r.health == health);
                format!("{text}: {}", names(overdue, count))
            });
        }
    }

    fn check_cluster(&mut self, cluster: &ClusterReport, now: UnixSecs) {
        let for_secs = now.saturating_sub(cluster.state_since);
        if cluster.state == ClusterState::Disconnected {
            if for_secs > MAX_DISCONNECTED_SECS {
                let time = duration(for_secs);
                let problem = format!("disconnected from the cluster store for {time}");
                self.add(State::Warning, problem);
            }
        } else if cluster.lag_seconds > MAX_LAG_SECS {
            let lag = cluster.lag_seconds;
            self.add(State::Warning, format!("{lag:.0} s behind the cluster"));
        }
        let dropped = cluster.last_dropped;
        if dropped.is_some_and(|last| now.saturating_sub(last) < REPORT_DROPPED_SECS) {
            let problem = "cluster store is too slow; changes are dropped and sent later";
            self.add(State::Warning, problem.to_owned());
        }
    }
}

/// Lists the names of releases, up to [`MAX_NAMED`]. `count` is the number of all of them.
fn names<'a>(releases: impl Iterator<Item = &'a Release>, count: u64) -> String {
    let names: Vec<_> = releases
        .take(MAX_NAMED)
        .map(|release| release.name.as_str())
        .collect();
    match count.checked_sub(MAX_NAMED as u64) {
        Some(more @ 1..) => format!("{} and {more} more", names.join(", ")),
        _ => names.join(", "),
    }
}

/// Formats a value as performance data, by the Monitoring Plugins' guidelines.
fn performance_data(label: &str, value: u64, unit: &str, limits: Thresholds) -> String {
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

    fn report() -> StatusReport {
        StatusReport {
            last_reload_successful: true,
            started: 1_000,
            now: 2_000,
            releases: releases(ReleaseHealth::Seeded, false, 2),
            ..StatusReport::default()
        }
    }

    fn judged(report: &StatusReport, options: &[&str]) -> (String, State) {
        judge(report, &thresholds(options))
    }

    #[test]
    fn reports_ok_with_performance_data() {
        let (line, state) = judged(&report(), &[]);
        assert_eq!(state, State::Ok);
        assert_eq!(
            line,
            "TBTT OK - 2 releases, 0 peers | lost_seeds=0;;0;0 never_seeded=0;0;;0 refusals=0%;50;90;0 releases=2 \
             seeders=0 leechers=0 announces_per_second=0.0\n"
        );
    }

    #[test]
    fn names_overdue_releases_without_a_seeder() {
        let mut report = report();
        report
            .releases
            .extend(releases(ReleaseHealth::NeverSeeded, false, 3));
        assert_eq!(judged(&report, &[]).1, State::Ok);
        report
            .releases
            .extend(releases(ReleaseHealth::NeverSeeded, true, 7));
        let (line, state) = judged(&report, &[]);
        assert_eq!(state, State::Warning);
        let text =
            "TBTT WARNING - releases that never had a seeder: r0, r1, r2, r3, r4 and 2 more | ";
        assert!(line.starts_with(text), "{line}");
        assert_eq!(judged(&report, &["--never-seeded=7"]).1, State::Ok);
        assert_eq!(judged(&report, &["--never-seeded=1,6"]).1, State::Critical);
        report
            .releases
            .extend(releases(ReleaseHealth::LostSeeds, true, 1));
        let (line, state) = judged(&report, &[]);
        assert_eq!(state, State::Critical);
        let text = "TBTT CRITICAL - releases that lost their last seeder: r0; releases that never had a seeder: ";
        assert!(line.starts_with(text), "{line}");
    }

    #[test]
    fn bar_in_a_name_does_not_start_performance_data() {
        let mut report = report();
        report.releases = releases(ReleaseHealth::LostSeeds, true, 1);
        report.releases[0].name = "a|b=1".to_owned();
        let line = judged(&report, &[]).0;
        assert_eq!(line.matches('|').count(), 1, "{line}");
    }

    #[test]
    fn checks_snapshot_age_by_interval_or_option() {
        let mut report = report();
        report.snapshot = SnapshotReport {
            last: Some(1_100),
            interval: Some(300),
        };
        assert_eq!(judged(&report, &[]).1, State::Ok);
        report.snapshot.last = Some(1_099);
        assert_eq!(judged(&report, &[]).1, State::Warning);
        let (line, state) = judged(&report, &["--snapshot-age=600,900"]);
        assert_eq!(state, State::Critical);
        assert!(line.contains(" snapshot_age=901s;600;900;0 "), "{line}");
        // Without a snapshot, the age counts from the start.
        report.snapshot.last = None;
        assert_eq!(judged(&report, &[]).1, State::Warning);
    }

    #[test]
    fn checks_percentage_of_refusals_unless_few() {
        let mut report = report();
        for (refused, answered, state) in [
            (0.9, 0.0, State::Ok),
            (10.0, 10.0, State::Ok),
            (11.0, 10.0, State::Warning),
            (99.0, 1.0, State::Critical),
        ] {
            report.refusals_per_second = refused;
            report.announces_per_second = answered;
            assert_eq!(judged(&report, &[]).1, state, "{refused} {answered}");
        }
    }

    #[test]
    fn warns_of_disconnected_slow_or_dropping_cluster() {
        let mut report = report();
        let cluster = ClusterReport {
            state: ClusterState::Joined,
            state_since: 1_100,
            lag_seconds: 0.25,
            ..ClusterReport::default()
        };
        let judged = |cluster: ClusterReport| {
            report.cluster = Some(cluster);
            judged(&report, &[])
        };
        let mut judged = judged;
        let (line, state) = judged(cluster.clone());
        assert_eq!(state, State::Ok);
        assert!(
            line.ends_with(" cluster_lag=0.2s;10;;0 cluster_nodes=0\n"),
            "{line}"
        );
        let disconnected = |state_since| ClusterReport {
            state: ClusterState::Disconnected,
            state_since,
            ..cluster.clone()
        };
        assert_eq!(judged(disconnected(1_940)).1, State::Ok);
        let (line, state) = judged(disconnected(1_939));
        assert_eq!(state, State::Warning);
        assert!(
            line.contains("WARNING - disconnected from the cluster store for 1 min"),
            "{line}"
        );
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
    fn warns_of_a_failed_reload() {
        let mut report = report();
        report.last_reload_successful = false;
        assert_eq!(judged(&report, &[]).1, State::Warning);
    }
}
