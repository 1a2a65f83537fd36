//! The status report: the numbers for the page, JSON, metrics and the control socket.
//!
//! Its JSON form is documented in tbtt-status(7). Fields may be added, but are not changed or removed.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize, Serializer};

use crate::cluster::report::ClusterReport;
use crate::counter::Histogram;
use crate::utc::UnixSecs;

/// The state of the tracker at a moment.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug, Default)]
#[serde(default)]
pub struct StatusReport {
    pub version: String,
    /// When the process started.
    pub started: UnixSecs,
    /// When this report was taken.
    pub now: UnixSecs,
    /// Whether the last reload applied the configuration. True before the first reload.
    pub last_reload_successful: bool,
    pub totals: ReportTotals,
    /// Accepted announces, averaged over the last ten seconds.
    pub announces_per_second: f64,
    /// Announces and scrapes that were refused for any reason, averaged over the last ten seconds.
    pub refusals_per_second: f64,
    /// The process's counters by name; see [`crate::server::counters::Counters`].
    pub counters: BTreeMap<String, u64>,
    /// Durations by protocol: `http` and `udp`.
    pub request_duration: BTreeMap<String, RequestDurations>,
    pub snapshot: SnapshotReport,
    pub history: History,
    /// `None` if the tracker is not in a cluster.
    pub cluster: Option<ClusterReport>,
    /// The listed torrents, ordered by name.
    pub releases: Vec<Release>,
}

/// Numbers for the whole tracker. A peer is an endpoint here: a host that announces over IPv4 and IPv6 counts twice.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug, Default)]
#[serde(default)]
pub struct ReportTotals {
    /// Torrents that have peers or are listed. The two IDs of a hybrid torrent count separately.
    pub torrents: u64,
    pub peers_ipv4: u64,
    pub peers_ipv6: u64,
    /// Peers that are seeders.
    pub seeders: u64,
    /// Peers that are leechers.
    pub leechers: u64,
    pub seeders_ipv4: u64,
    pub seeders_ipv6: u64,
    /// Open connections over TCP and Unix sockets.
    pub connections: u64,
}

/// A histogram of request durations. It holds a sample of the requests: one of 16 HTTP announces, and for each batch of UDP
/// packets their mean.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug, Default)]
#[serde(default)]
pub struct RequestDurations {
    /// The upper bounds of the intervals. The last interval has none.
    pub up_to_seconds: Vec<f64>,
    /// The number of samples in each interval: longer than the bound before, and up to this bound.
    pub counts: Vec<u64>,
    /// The sum of all samples.
    pub seconds: f64,
}

/// How current the saved state is.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug, Default)]
#[serde(default)]
pub struct SnapshotReport {
    /// When the last snapshot was written, by this process or the one before it.
    pub last: Option<UnixSecs>,
    /// Seconds between snapshots; `None` if no state is kept.
    pub interval: Option<u32>,
}

/// Samples of the last day, oldest first. All lists have the same length.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug, Default)]
#[serde(default)]
pub struct History {
    /// Seconds between samples.
    pub interval: u64,
    /// When the newest sample was taken.
    pub last: UnixSecs,
    pub peers_ipv4: Vec<u64>,
    pub peers_ipv6: Vec<u64>,
    /// Averages over the time since the sample before.
    pub announces_per_second: Vec<f64>,
}

/// A listed torrent; a hybrid torrent is a single release. Its peers are hosts: a host that announces over IPv4 and
/// IPv6, or under both IDs, counts once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug, Default)]
#[serde(default)]
pub struct Release {
    pub name: String,
    /// The size of all its files together, in bytes.
    pub size: u64,
    /// The v1 info-hash: 40 hexadecimal digits.
    pub v1: Option<String>,
    /// The v2 info-hash: 64 hexadecimal digits.
    pub v2: Option<String>,
    pub seeders: u32,
    pub leechers: u32,
    pub downloads: u32,
    pub listed_since: UnixSecs,
    /// When a seeder was first seen.
    pub first_seed: Option<UnixSecs>,
    /// When a seeder was last seen.
    pub last_seed: Option<UnixSecs>,
    pub health: ReleaseHealth,
    /// Whether the release has been without a seeder for longer than `[torrents] seedless_after` allows.
    pub overdue: bool,
    /// One of the `.torrent` files that list the release. Only the control socket shows the path; the public page and JSON
    /// leave it out.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "lossy")]
    pub file: Option<PathBuf>,
}

/// Whether a release can be downloaded. The variants are ordered: those that need attention come first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Debug, Default)]
#[serde(rename_all = "snake_case")]
pub enum ReleaseHealth {
    /// No seeder has been seen since the release was listed.
    #[default]
    NeverSeeded,
    /// The release had a seeder, but has none now.
    LostSeeds,
    Seeded,
}

impl ReleaseHealth {
    /// Returns the health of a release with this number of seeders now, which last had a seeder at `last_seed`.
    pub fn new(seeders: u32, last_seed: Option<UnixSecs>) -> Self {
        match last_seed {
            _ if seeders > 0 => Self::Seeded,
            Some(_) => Self::LostSeeds,
            None => Self::NeverSeeded,
        }
    }

    /// Returns the word used in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NeverSeeded => "never_seeded",
            Self::LostSeeds => "lost_seeds",
            Self::Seeded => "seeded",
        }
    }
}

impl From<&Histogram> for RequestDurations {
    fn from(histogram: &Histogram) -> Self {
        Self {
            up_to_seconds: Histogram::BOUNDS
                .map(|nanoseconds| nanoseconds as f64 / 1e9)
                .into(),
            counts: histogram.counts(),
            seconds: histogram.total_seconds(),
        }
    }
}

impl Release {
    /// Returns the info-hashes, v1 before v2.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.v1.iter().chain(&self.v2).map(String::as_str)
    }

    /// Returns the first info-hash. It names the release in metrics and in the URL of its `.torrent` file.
    pub fn id(&self) -> &str {
        self.ids().next().unwrap_or_default()
    }
}

/// Serializes a path, with replacement characters where it is not UTF-8: such a path must not make the report fail.
fn lossy<S: Serializer>(file: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
    file.as_ref()
        .map(|file| file.to_string_lossy())
        .serialize(serializer)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;
    use crate::cluster::report::NodeReport;

    fn collect_keys(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(object) => object.iter().for_each(|(key, value)| {
                found.insert(key.clone());
                collect_keys(value, found);
            }),
            Value::Array(array) => array.iter().for_each(|value| collect_keys(value, found)),
            _ => {}
        }
    }

    #[test]
    fn manual_describes_every_field() {
        let manual = include_str!("../../man/tbtt-status.7");
        let json = manual.split_once(".Sh JSON").unwrap().1;
        let json = json.split_once(".Sh METRICS").unwrap().0;
        let described: BTreeSet<_> = json
            .lines()
            .filter(|line| line.starts_with(".Cm ") || line.starts_with(".It Cm "))
            .flat_map(|line| line.split(' ').map(str::to_owned))
            .filter(|word| word.len() > 1 && !word.starts_with('.') && word != "Cm")
            .collect();
        let report = StatusReport {
            request_duration: ["http", "udp"]
                .map(|protocol| (protocol.to_owned(), RequestDurations::default()))
                .into(),
            releases: vec![Release::default()],
            cluster: Some(ClusterReport {
                nodes: vec![NodeReport::default()],
                ..ClusterReport::default()
            }),
            ..StatusReport::default()
        };
        let mut serialized = BTreeSet::new();
        collect_keys(&serde_json::to_value(report).unwrap(), &mut serialized);
        assert_eq!(described, serialized);
    }

    #[test]
    fn missing_fields_get_defaults_and_unknown_ones_are_ignored() {
        let report: StatusReport =
            serde_json::from_str(r#"{"version":"9","later":1,"releases":[{"name":"a"}]}"#).unwrap();
        assert_eq!(
            (report.version.as_str(), report.releases[0].health),
            ("9", ReleaseHealth::NeverSeeded)
        );
    }
}
