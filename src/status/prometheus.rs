//! StatusReport in Prometheus's text format (version 0.0.4), which those who read OpenMetrics read too.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Write};

use crate::status::report::{Cluster, ClusterState, Handling, Health, Release, StatusReport};

/// Counters that are one metric: the metric, its help, its label, and the label's value for each counter.
type Group = (
    &'static str,
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
);

const GROUPS: &[Group] = &[
    (
        "tbtt_announces_total",
        "Announces that were answered.",
        "protocol",
        &[("http_announces", "http"), ("udp_announces", "udp")],
    ),
    (
        "tbtt_scrapes_total",
        "Scrapes that were answered.",
        "protocol",
        &[("http_scrapes", "http"), ("udp_scrapes", "udp")],
    ),
    (
        "tbtt_refusals_total",
        "Announces and scrapes that were refused.",
        "reason",
        &[
            ("unknown_torrents", "unknown_torrent"),
            ("denied_torrents", "denied_torrent"),
            ("too_many_torrents", "too_many_torrents"),
            ("withdrawn_torrents", "withdrawn_torrent"),
            ("unwelcome_addresses", "unwelcome_address"),
            ("too_often", "too_often"),
        ],
    ),
    (
        "tbtt_connections_refused_total",
        "Connections closed unheard.",
        "reason",
        &[
            ("connections_over_limit", "over_limit"),
            ("connections_too_often", "too_often"),
            ("untrusted_proxies", "untrusted_proxy"),
            ("bad_preambles", "bad_preamble"),
        ],
    ),
    (
        "tbtt_udp_lost_total",
        "Packets lost on this machine, by who dropped them and on what way.",
        "at",
        &[
            ("udp_dropped_by_kernel", "receive"),
            ("udp_unsent", "send"),
            ("udp_unanswerable", "route"),
        ],
    ),
];

/// Counters that are metrics of their own; what is neither here nor above is shown under its name, without more help.
const HELP: &[(&str, &str)] = &[
    (
        "malformed",
        "Requests of the tracker's protocol that could not be read.",
    ),
    (
        "foreign_requests",
        "Requests for other paths, or by other methods.",
    ),
    ("connections", "Connections over TCP and Unix sockets."),
    (
        "connections_timed_out",
        "Connections cut because a request took too long to come.",
    ),
    (
        "accept_errors",
        "Times that the system had no descriptor or memory for a connection.",
    ),
    (
        "udp_connects",
        "Connect requests over UDP that were answered.",
    ),
    (
        "udp_bad_ids",
        "Requests over UDP with a forged or old connection id.",
    ),
    ("udp_ignored", "Packets that were no request."),
    (
        "udp_receive_errors",
        "Times that the system failed to receive.",
    ),
];

/// `per_torrent` gives each release series of its own.
pub fn text(figures: &StatusReport, per_torrent: bool) -> String {
    let mut text = Text::default();
    let StatusReport { totals, .. } = figures;
    text.one(
        "tbtt_build_info",
        "gauge",
        "The version that runs.",
        &[("version", &figures.version)],
        1,
    );
    text.one(
        "process_start_time_seconds",
        "gauge",
        "When the process started, in Unix time.",
        &[],
        figures.started,
    );
    let help = "Whether the configuration found by the last reload was taken over.";
    text.one(
        "tbtt_config_last_reload_successful",
        "gauge",
        help,
        &[],
        u8::from(figures.configuration_good),
    );
    if let Some(last) = figures.snapshot.last {
        let help = "When the last snapshot was written, in Unix time.";
        text.one("tbtt_snapshot_timestamp_seconds", "gauge", help, &[], last);
    }
    let help = "Torrents that have peers or are listed; a hybrid's two ids are two.";
    text.one("tbtt_torrents", "gauge", help, &[], totals.torrents);
    text.one(
        "tbtt_connections_open",
        "gauge",
        "Connections that are open.",
        &[],
        totals.connections,
    );

    text.family("tbtt_peers", "gauge", "Endpoints in all swarms.");
    for (family, peers, seeders) in [
        ("ipv4", totals.peers_ipv4, totals.seeders_ipv4),
        ("ipv6", totals.peers_ipv6, totals.seeders_ipv6),
    ] {
        text.sample(
            "tbtt_peers",
            &[("family", family), ("role", "seeder")],
            seeders,
        );
        text.sample(
            "tbtt_peers",
            &[("family", family), ("role", "leecher")],
            peers.saturating_sub(seeders),
        );
    }

    text.family(
        "tbtt_releases",
        "gauge",
        "Listed torrents by whether they have seeds; a hybrid is one.",
    );
    for health in [Health::Seeded, Health::LostSeeds, Health::NeverSeeded] {
        let count = figures
            .releases
            .iter()
            .filter(|release| release.health == health)
            .count();
        text.sample("tbtt_releases", &[("health", health.as_str())], count);
    }

    let overdue = figures.releases.iter().filter(|release| release.overdue);
    text.one(
        "tbtt_releases_overdue",
        "gauge",
        "Listed torrents without a seed for longer than seedless_after allows.",
        &[],
        overdue.count(),
    );

    text.counters(&figures.counters);
    if let Some(cluster) = &figures.cluster {
        text.cluster(cluster);
    }
    text.handling(&figures.handling);
    if per_torrent {
        text.releases(&figures.releases);
    }
    text.0
}

#[derive(Default)]
struct Text(String);

impl Text {
    fn cluster(&mut self, cluster: &Cluster) {
        let joined = u8::from(cluster.state == ClusterState::Joined);
        let nodes = cluster.nodes.len();
        let gauges: [(&str, &str, &dyn Display); 4] = [
            (
                "joined",
                "Whether this tracker and its cluster know each other's peers.",
                &joined,
            ),
            (
                "nodes",
                "Other trackers heard of in the last minute.",
                &nodes,
            ),
            (
                "lag_seconds",
                "How old what was last read was; alone, for how long.",
                &cluster.lag_seconds,
            ),
            (
                "queue_length",
                "Changes that wait for the engine.",
                &cluster.queue_length,
            ),
        ];
        for (name, help, value) in gauges {
            self.one(&format!("tbtt_cluster_{name}"), "gauge", help, &[], value);
        }
        for (name, help, count) in [
            ("sent", "Changes told to others.", cluster.sent),
            ("received", "Changes told by others.", cluster.received),
            (
                "applied",
                "Of these, those that were news.",
                cluster.applied,
            ),
            ("older", "Of these, those that were not.", cluster.older),
            (
                "refused",
                "Of these, those of torrents or addresses not welcome here.",
                cluster.refused,
            ),
            (
                "malformed",
                "Batches that could not be read.",
                cluster.malformed,
            ),
            (
                "dropped",
                "Changes that found the queue full.",
                cluster.dropped,
            ),
            (
                "reconnects",
                "Times that the engine was reached again.",
                cluster.reconnects,
            ),
        ] {
            let name = format!("tbtt_cluster_{name}_total");
            self.one(&name, "counter", help, &[], count);
        }
    }

    /// What every metric begins with; the samples follow.
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<_> = labels
            .iter()
            .map(|(label, value)| format!("{label}=\"{}\"", Escaped(value)))
            .collect();
        match labels.is_empty() {
            true => self.line(format_args!("{name} {value}")),
            false => self.line(format_args!("{name}{{{}}} {value}", labels.join(","))),
        }
    }

    fn one(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        labels: &[(&str, &str)],
        value: impl Display,
    ) {
        self.family(name, kind, help);
        self.sample(name, labels, value);
    }

    fn counters(&mut self, counters: &BTreeMap<String, u64>) {
        let mut single = counters.clone();
        for (name, help, label, values) in GROUPS {
            self.family(name, "counter", help);
            for (counter, value) in *values {
                let count = single.remove(*counter).unwrap_or_default();
                self.sample(name, &[(label, value)], count);
            }
        }
        for (counter, count) in single {
            let help = HELP.iter().find(|(name, _)| *name == counter);
            let help = help.map_or("Counted as in the log.", |(_, help)| help);
            self.one(
                &format!("tbtt_{counter}_total"),
                "counter",
                help,
                &[],
                count,
            );
        }
    }

    fn handling(&mut self, handling: &BTreeMap<String, Handling>) {
        let name = "tbtt_handling_seconds";
        let help = "Time to handle a request, system calls left out: one HTTP announce in 16, the mean of each UDP batch.";
        self.family(name, "histogram", help);
        for (protocol, handling) in handling {
            let mut sum = 0;
            let bounds = handling.up_to_seconds.iter().map(f64::to_string);
            for (bound, count) in bounds.chain(["+Inf".to_owned()]).zip(&handling.counts) {
                sum += count;
                self.sample(
                    &format!("{name}_bucket"),
                    &[("protocol", protocol), ("le", &bound)],
                    sum,
                );
            }
            self.sample(
                &format!("{name}_sum"),
                &[("protocol", protocol)],
                handling.seconds,
            );
            self.sample(&format!("{name}_count"), &[("protocol", protocol)], sum);
        }
    }

    fn releases(&mut self, releases: &[Release]) {
        let mut family =
            |name: &str, kind: &str, help: &str, value: fn(&Release) -> Option<u64>| {
                self.family(name, kind, help);
                for release in releases {
                    if let Some(value) = value(release) {
                        let id = release.ids().next().unwrap_or_default();
                        self.sample(name, &[("id", id), ("name", &release.name)], value);
                    }
                }
            };
        family(
            "tbtt_release_seeders",
            "gauge",
            "Hosts that have all of a release.",
            |release| Some(release.seeders.into()),
        );
        family(
            "tbtt_release_leechers",
            "gauge",
            "Hosts that do not have all of a release.",
            |release| Some(release.leechers.into()),
        );
        family(
            "tbtt_release_downloads_total",
            "counter",
            "Downloads of a release that were completed.",
            |release| Some(release.downloads.into()),
        );
        family(
            "tbtt_release_last_seed_timestamp_seconds",
            "gauge",
            "When a release last had a seed, in Unix time.",
            |release| release.last_seed,
        );
    }

    fn line(&mut self, line: fmt::Arguments<'_>) {
        // Writing to a String does not fail.
        let _ = writeln!(self.0, "{line}");
    }
}

/// A label's value as the format has it.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '\\' => f.write_str("\\\\"),
            '"' => f.write_str("\\\""),
            '\n' => f.write_str("\\n"),
            _ => f.write_char(c),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::server::counters::Counters;
    use crate::status::report::Snapshot;

    fn release(name: &str, seeders: u32, last_seed: Option<u64>) -> Release {
        Release {
            name: name.to_owned(),
            v2: Some("ab".repeat(32)),
            seeders,
            last_seed,
            health: Health::of(seeders, last_seed),
            ..Release::default()
        }
    }

    #[test]
    fn every_counter_is_shown_once_whatever_it_is_called() {
        let counters = Counters::default().all();
        let numbered = (100..).zip(&counters);
        let mut figures = StatusReport {
            counters: numbered
                .map(|(number, (name, _))| (name.to_string(), number))
                .collect(),
            ..StatusReport::default()
        };
        figures.counters.insert("of_tomorrow".to_owned(), 99);
        let text = text(&figures, false);
        for number in 99..100 + counters.len() {
            let lines = text
                .lines()
                .filter(|line| line.ends_with(&format!(" {number}")));
            assert_eq!(lines.count(), 1, "{number} in {text}");
        }
        assert!(text.contains("\ntbtt_of_tomorrow_total 99\n"));
        assert!(text.contains("\ntbtt_refusals_total{reason=\"unknown_torrent\"} "));
    }

    #[test]
    fn every_group_and_help_is_of_a_counter_that_is_there() {
        let counters = Counters::default().all();
        let grouped = GROUPS
            .iter()
            .flat_map(|(.., values)| values.iter().map(|(name, _)| *name));
        for name in grouped.chain(HELP.iter().map(|(name, _)| *name)) {
            assert!(
                counters.iter().any(|(counter, _)| *counter == name),
                "{name}"
            );
        }
    }

    #[test]
    fn a_histogram_adds_up() {
        let handling = Handling {
            up_to_seconds: vec![5e-7, 0.001],
            counts: vec![3, 4, 5],
            seconds: 1.5,
        };
        let figures = StatusReport {
            handling: [("udp".to_owned(), handling)].into(),
            ..StatusReport::default()
        };
        let text = text(&figures, false);
        let lines: Vec<_> = text
            .lines()
            .filter(|line| line.starts_with("tbtt_handling"))
            .collect();
        assert_eq!(
            lines,
            [
                "tbtt_handling_seconds_bucket{protocol=\"udp\",le=\"0.0000005\"} 3",
                "tbtt_handling_seconds_bucket{protocol=\"udp\",le=\"0.001\"} 7",
                "tbtt_handling_seconds_bucket{protocol=\"udp\",le=\"+Inf\"} 12",
                "tbtt_handling_seconds_sum{protocol=\"udp\"} 1.5",
                "tbtt_handling_seconds_count{protocol=\"udp\"} 12",
            ]
        );
    }

    #[test]
    fn releases_have_series_only_if_asked_for() {
        let figures = StatusReport {
            releases: vec![release("a\\b\"c\nd", 2, Some(7)), release("e", 0, None)],
            ..StatusReport::default()
        };
        let few = text(&figures, false);
        assert!(
            !few.contains("tbtt_release_")
                && few.contains("tbtt_releases{health=\"never_seeded\"} 1\n"),
            "{few}"
        );
        let all = text(&figures, true);
        let id = "ab".repeat(32);
        assert!(
            all.contains(&format!(
                "tbtt_release_seeders{{id=\"{id}\",name=\"a\\\\b\\\"c\\nd\"}} 2\n"
            )),
            "{all}"
        );
        let last = "tbtt_release_last_seed_timestamp_seconds{";
        assert_eq!(all.matches(last).count(), 1, "never is no time: {all}");
    }

    #[test]
    fn the_manual_lists_every_metric() {
        let manual = include_str!("../../man/tbtt-status.7");
        let listed: BTreeSet<_> = manual
            .lines()
            .filter(|line| line.starts_with(".It Cm tbtt_") || line.starts_with(".It Cm process_"))
            .flat_map(|line| line[7..].split(" , "))
            .collect();
        let counters = Counters::default().all().into_iter();
        let figures = StatusReport {
            counters: counters
                .map(|(name, count)| (name.to_owned(), count))
                .collect(),
            snapshot: Snapshot {
                last: Some(1),
                ..Snapshot::default()
            },
            cluster: Some(Cluster::default()),
            ..StatusReport::default()
        };
        let text = text(&figures, true);
        let shown = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        let shown: BTreeSet<_> = shown.filter_map(|line| line.split(' ').next()).collect();
        assert_eq!(listed, shown);
    }
}
