//! The status report in Prometheus's text format, version 0.0.4. Programs that read OpenMetrics read it as well.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Write};

use crate::cluster::report::{ClusterReport, ClusterState};
use crate::status::report::{Release, ReleaseHealth, RequestDurations, StatusReport};

/// Counters that are shown as a single metric with a label.
struct LabeledCounters {
    metric: &'static str,
    help: &'static str,
    label: &'static str,
    /// The name of each counter, and its value of the label.
    values: &'static [(&'static str, &'static str)],
}

const LABELED: &[LabeledCounters] = &[
    LabeledCounters {
        metric: "tbtt_announces_total",
        help: "Announces that were answered.",
        label: "protocol",
        values: &[("http_announces", "http"), ("udp_announces", "udp")],
    },
    LabeledCounters {
        metric: "tbtt_scrapes_total",
        help: "Scrapes that were answered.",
        label: "protocol",
        values: &[("http_scrapes", "http"), ("udp_scrapes", "udp")],
    },
    LabeledCounters {
        metric: "tbtt_refusals_total",
        help: "Announces and scrapes that were refused.",
        label: "reason",
        values: &[
            ("unknown_torrents", "unknown_torrent"),
            ("denied_torrents", "denied_torrent"),
            ("too_many_torrents", "too_many_torrents"),
            ("withdrawn_torrents", "withdrawn_torrent"),
            ("denied_addresses", "denied_address"),
            ("rate_limited", "rate_limited"),
        ],
    },
    LabeledCounters {
        metric: "tbtt_connections_refused_total",
        help: "Connections closed before a request was read.",
        label: "reason",
        values: &[
            ("connections_over_limit", "over_limit"),
            ("connections_rate_limited", "rate_limited"),
            ("untrusted_proxies", "untrusted_proxy"),
            ("invalid_proxy_headers", "invalid_proxy_header"),
        ],
    },
    LabeledCounters {
        metric: "tbtt_udp_lost_total",
        help: "UDP packets lost on this machine: received faster than they were read, without room to send, or without a route.",
        label: "at",
        values: &[
            ("udp_dropped_by_kernel", "receive"),
            ("udp_unsent", "send"),
            ("udp_unanswerable", "route"),
        ],
    },
];

/// The help of counters that are metrics of their own. A counter that is neither here nor in [`LABELED`] is shown as
/// well, with [`DEFAULT_HELP`].
const HELP: &[(&str, &str)] = &[
    ("malformed", "Announces and scrapes that could not be read."),
    (
        "unhandled_requests",
        "HTTP requests for other paths, or by other methods.",
    ),
    ("connections", "Connections over TCP and Unix sockets."),
    (
        "connections_timed_out",
        "Connections closed because a request, a response or the next request took too long.",
    ),
    (
        "accept_errors",
        "How often the system had no file descriptor or memory for a connection.",
    ),
    (
        "udp_connects",
        "Connect requests over UDP that were answered with a connection ID.",
    ),
    (
        "udp_invalid_connection_ids",
        "Requests over UDP with a forged or expired connection ID.",
    ),
    (
        "udp_ignored",
        "UDP packets that were ignored: not a request, or from an address that no client can have.",
    ),
    (
        "udp_receive_errors",
        "How often the system failed to receive packets.",
    ),
];

const DEFAULT_HELP: &str = "The counter of this name in the log.";

/// Renders the metrics. With `per_torrent`, each release has series of its own.
pub fn render(report: &StatusReport, per_torrent: bool) -> String {
    let mut text = Exposition::default();
    text.write_process(report);
    text.write_totals(report);
    text.write_health(&report.releases);
    text.write_counters(&report.counters);
    if let Some(cluster) = &report.cluster {
        text.write_cluster(cluster);
    }
    text.write_durations(&report.request_duration);
    if per_torrent {
        text.write_releases(&report.releases);
    }
    text.0
}

/// The text that is rendered.
#[derive(Default)]
struct Exposition(String);

impl Exposition {
    fn write_process(&mut self, report: &StatusReport) {
        self.single(
            "tbtt_build_info",
            "gauge",
            "Always 1; the label has the version of tbtt.",
            &[("version", &report.version)],
            1,
        );
        self.single(
            "process_start_time_seconds",
            "gauge",
            "When the process started, in Unix time.",
            &[],
            report.started,
        );
        self.single(
            "tbtt_config_last_reload_successful",
            "gauge",
            "1 if the last reload succeeded, 0 if the configuration has errors.",
            &[],
            u8::from(report.last_reload_successful),
        );
        if let Some(last) = report.snapshot.last {
            let help = "When the last snapshot was written, in Unix time.";
            self.single("tbtt_snapshot_timestamp_seconds", "gauge", help, &[], last);
        }
    }

    fn write_totals(&mut self, report: &StatusReport) {
        let totals = &report.totals;
        let help = "Torrents that have peers or are listed. The two IDs of a hybrid torrent count separately.";
        self.single("tbtt_torrents", "gauge", help, &[], totals.torrents);
        self.single(
            "tbtt_connections_open",
            "gauge",
            "Open connections over TCP and Unix sockets.",
            &[],
            totals.connections,
        );
        self.family("tbtt_peers", "gauge", "Peers in all swarms.");
        for (family, peers, seeders) in [
            ("ipv4", totals.peers_ipv4, totals.seeders_ipv4),
            ("ipv6", totals.peers_ipv6, totals.seeders_ipv6),
        ] {
            self.sample(
                "tbtt_peers",
                &[("family", family), ("role", "seeder")],
                seeders,
            );
            self.sample(
                "tbtt_peers",
                &[("family", family), ("role", "leecher")],
                peers.saturating_sub(seeders),
            );
        }
    }

    fn write_health(&mut self, releases: &[Release]) {
        self.family(
            "tbtt_releases",
            "gauge",
            "Listed torrents by whether they have seeders. A hybrid torrent counts once.",
        );
        for health in [
            ReleaseHealth::Seeded,
            ReleaseHealth::LostSeeds,
            ReleaseHealth::NeverSeeded,
        ] {
            let count = releases
                .iter()
                .filter(|release| release.health == health)
                .count();
            self.sample("tbtt_releases", &[("health", health.as_str())], count);
        }
        let overdue = releases.iter().filter(|release| release.overdue);
        self.single(
            "tbtt_releases_overdue",
            "gauge",
            "Listed torrents that have been without a seeder for longer than seedless_after allows.",
            &[],
            overdue.count(),
        );
    }

    fn write_cluster(&mut self, cluster: &ClusterReport) {
        let joined = u8::from(cluster.state == ClusterState::Joined);
        let nodes = cluster.nodes.len();
        let gauges: [(&str, &str, &dyn Display); 4] = [
            (
                "joined",
                "1 if this tracker has joined its cluster, 0 if it is disconnected or catching up.",
                &joined,
            ),
            (
                "nodes",
                "Other trackers that were seen in the last minute.",
                &nodes,
            ),
            (
                "lag_seconds",
                "Age of the last batch when it was read; while disconnected, for how long.",
                &cluster.lag_seconds,
            ),
            (
                "queue_length",
                "Changes that wait to be sent to the store.",
                &cluster.queue_length,
            ),
        ];
        for (name, help, value) in gauges {
            self.single(&format!("tbtt_cluster_{name}"), "gauge", help, &[], value);
        }
        for (name, help, count) in [
            ("sent", "Changes sent to other trackers.", cluster.sent),
            (
                "received",
                "Changes received from other trackers.",
                cluster.received,
            ),
            (
                "applied",
                "Received changes that were applied.",
                cluster.applied,
            ),
            (
                "stale",
                "Received changes that were already known or came too late.",
                cluster.stale,
            ),
            (
                "refused",
                "Received changes that were refused because of their torrent, address or network.",
                cluster.refused,
            ),
            (
                "malformed",
                "Batches of changes that could not be read.",
                cluster.malformed,
            ),
            (
                "dropped",
                "Changes for which the queue had no room. They are sent later.",
                cluster.dropped,
            ),
            (
                "reconnects",
                "How often the store was reached again.",
                cluster.reconnects,
            ),
        ] {
            let name = format!("tbtt_cluster_{name}_total");
            self.single(&name, "counter", help, &[], count);
        }
    }

    fn write_counters(&mut self, counters: &BTreeMap<String, u64>) {
        let mut rest = counters.clone();
        for group in LABELED {
            self.family(group.metric, "counter", group.help);
            for (counter, value) in group.values {
                let count = rest.remove(*counter).unwrap_or_default();
                self.sample(group.metric, &[(group.label, value)], count);
            }
        }
        for (counter, count) in rest {
            let help = HELP.iter().find(|(name, _)| *name == counter);
            let help = help.map_or(DEFAULT_HELP, |(_, help)| help);
            let name = format!("tbtt_{counter}_total");
            self.single(&name, "counter", help, &[], count);
        }
    }

    fn write_durations(&mut self, durations: &BTreeMap<String, RequestDurations>) {
        let name = "tbtt_request_duration_seconds";
        let help = "Time to handle a request, without reading and sending. A sample: one of 16 HTTP announces, the mean of each UDP batch.";
        self.family(name, "histogram", help);
        for (protocol, durations) in durations {
            let mut sum = 0;
            let bounds = durations.up_to_seconds.iter().map(f64::to_string);
            for (bound, count) in bounds.chain(["+Inf".to_owned()]).zip(&durations.counts) {
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
                durations.seconds,
            );
            self.sample(&format!("{name}_count"), &[("protocol", protocol)], sum);
        }
    }

    fn write_releases(&mut self, releases: &[Release]) {
        let mut family =
            |name: &str, kind: &str, help: &str, value: fn(&Release) -> Option<u64>| {
                self.family(name, kind, help);
                for release in releases {
                    if let Some(value) = value(release) {
                        let labels = [("id", release.id()), ("name", &release.name)];
                        self.sample(name, &labels, value);
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
            "How often clients reported that they completed a download of a release.",
            |release| Some(release.downloads.into()),
        );
        family(
            "tbtt_release_last_seed_timestamp_seconds",
            "gauge",
            "When a seeder of a release was last seen, in Unix time.",
            |release| release.last_seed,
        );
    }

    /// Writes a metric that has a single sample.
    fn single(
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

    /// Writes the head of a metric. Its samples follow.
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<_> = labels
            .iter()
            .map(|(label, value)| format!("{label}=\"{}\"", LabelValue(value)))
            .collect();
        match labels.is_empty() {
            true => self.line(format_args!("{name} {value}")),
            false => self.line(format_args!("{name}{{{}}} {value}", labels.join(","))),
        }
    }

    fn line(&mut self, line: fmt::Arguments<'_>) {
        // Writing to a String does not fail.
        let _ = writeln!(self.0, "{line}");
    }
}

/// The value of a label, escaped as the format requires.
struct LabelValue<'a>(&'a str);

impl Display for LabelValue<'_> {
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
    use crate::status::report::SnapshotReport;

    fn release(name: &str, seeders: u32, last_seed: Option<u64>) -> Release {
        Release {
            name: name.to_owned(),
            v2: Some("ab".repeat(32)),
            seeders,
            last_seed,
            health: ReleaseHealth::new(seeders, last_seed),
            ..Release::default()
        }
    }

    #[test]
    fn shows_every_counter_once() {
        let counters = Counters::default().all();
        let numbered = (100..).zip(&counters);
        let mut report = StatusReport {
            counters: numbered
                .map(|(number, (name, _))| (name.to_string(), number))
                .collect(),
            ..StatusReport::default()
        };
        report
            .counters
            .insert("unknown_to_this_version".to_owned(), 99);
        let text = render(&report, false);
        for number in 99..100 + counters.len() {
            let lines = text
                .lines()
                .filter(|line| line.ends_with(&format!(" {number}")));
            assert_eq!(lines.count(), 1, "{number} in {text}");
        }
        assert!(text.contains("\ntbtt_unknown_to_this_version_total 99\n"));
        assert!(text.contains("\ntbtt_refusals_total{reason=\"unknown_torrent\"} "));
    }

    #[test]
    fn labels_and_help_name_existing_counters() {
        let counters = Counters::default().all();
        let labeled = LABELED
            .iter()
            .flat_map(|group| group.values.iter().map(|(name, _)| *name));
        for name in labeled.chain(HELP.iter().map(|(name, _)| *name)) {
            assert!(
                counters.iter().any(|(counter, _)| *counter == name),
                "{name}"
            );
        }
    }

    #[test]
    fn histogram_buckets_are_cumulative() {
        let durations = RequestDurations {
            up_to_seconds: vec![5e-7, 0.001],
            counts: vec![3, 4, 5],
            seconds: 1.5,
        };
        let report = StatusReport {
            request_duration: [("udp".to_owned(), durations)].into(),
            ..StatusReport::default()
        };
        let text = render(&report, false);
        let lines: Vec<_> = text
            .lines()
            .filter(|line| line.starts_with("tbtt_request_duration"))
            .collect();
        assert_eq!(
            lines,
            [
                "tbtt_request_duration_seconds_bucket{protocol=\"udp\",le=\"0.0000005\"} 3",
                "tbtt_request_duration_seconds_bucket{protocol=\"udp\",le=\"0.001\"} 7",
                "tbtt_request_duration_seconds_bucket{protocol=\"udp\",le=\"+Inf\"} 12",
                "tbtt_request_duration_seconds_sum{protocol=\"udp\"} 1.5",
                "tbtt_request_duration_seconds_count{protocol=\"udp\"} 12",
            ]
        );
    }

    #[test]
    fn releases_have_series_only_with_per_torrent() {
        let report = StatusReport {
            releases: vec![release("a\\b\"c\nd", 2, Some(7)), release("e", 0, None)],
            ..StatusReport::default()
        };
        let few = render(&report, false);
        assert!(
            !few.contains("tbtt_release_")
                && few.contains("tbtt_releases{health=\"never_seeded\"} 1\n"),
            "{few}"
        );
        let all = render(&report, true);
        let id = "ab".repeat(32);
        assert!(
            all.contains(&format!(
                "tbtt_release_seeders{{id=\"{id}\",name=\"a\\\\b\\\"c\\nd\"}} 2\n"
            )),
            "{all}"
        );
        let last = "tbtt_release_last_seed_timestamp_seconds{";
        assert_eq!(
            all.matches(last).count(),
            1,
            "no sample for a release that never had a seeder: {all}"
        );
    }

    #[test]
    fn manual_lists_every_metric() {
        let manual = include_str!("../../man/tbtt-status.7");
        let listed: BTreeSet<_> = manual
            .lines()
            .filter(|line| line.starts_with(".It Cm tbtt_") || line.starts_with(".It Cm process_"))
            .flat_map(|line| line[7..].split(" , "))
            .collect();
        let counters = Counters::default().all().into_iter();
        let report = StatusReport {
            counters: counters
                .map(|(name, count)| (name.to_owned(), count))
                .collect(),
            snapshot: SnapshotReport {
                last: Some(1),
                ..SnapshotReport::default()
            },
            cluster: Some(ClusterReport::default()),
            ..StatusReport::default()
        };
        let text = render(&report, true);
        let shown = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        let shown: BTreeSet<_> = shown.filter_map(|line| line.split(' ').next()).collect();
        assert_eq!(listed, shown);
    }
}
