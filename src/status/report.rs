//! What operators are shown: one set of figures for the page, JSON, metrics and the control socket.
//!
//! Written as JSON this is the documented form (tbtt-status(7)): fields are added, never changed or taken away.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize, Serializer};

use crate::counter::Histogram;

/// Seconds since 1970 (UTC).
pub type Unix = u64;

/// The tracker as it was at one moment.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug, Default)]
#[serde(default)]
pub struct StatusReport {
    pub version: String,
    /// When the process started.
    pub started: Unix,
    /// When these figures were taken.
    pub now: Unix,
    /// Whether the configuration that the last reload found was taken over.
    pub configuration_good: bool,
    pub totals: Totals,
    /// Over the last ten seconds or so.
    pub announces_per_second: f64,
    /// Announces and scrapes, whyever they were refused, and likewise.
    pub refusals_per_second: f64,
    /// Of the process, by name.
    pub counters: BTreeMap<String, u64>,
    /// How long it took to handle requests, by `http` and `udp`.
    pub handling: BTreeMap<String, Handling>,
    pub snapshot: Snapshot,
    pub history: History,
    /// `None` where there is none.
    pub cluster: Option<Cluster>,
    /// In the order of their names.
    pub releases: Vec<Release>,
}

/// Peers are endpoints here: a host on both families is two.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug, Default)]
#[serde(default)]
pub struct Totals {
    /// That have peers or are listed; each of a hybrid's two ids is one.
    pub torrents: u64,
    pub peers_ipv4: u64,
    pub peers_ipv6: u64,
    /// Of the peers.
    pub seeders: u64,
    pub leechers: u64,
    pub seeders_ipv4: u64,
    pub seeders_ipv6: u64,
    /// Open ones, over TCP and Unix sockets.
    pub connections: u64,
}

/// A histogram of samples: of HTTP one announce in sixteen, of UDP each batch of packets with its mean.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug, Default)]
#[serde(default)]
pub struct Handling {
    /// The upper bound of each count but the last, which has none.
    pub up_to_seconds: Vec<f64>,
    /// How many samples took up to their bound, and longer than the one before.
    pub counts: Vec<u64>,
    /// All samples together.
    pub seconds: f64,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug, Default)]
#[serde(default)]
pub struct Snapshot {
    /// When the last one was written, by this process or the one before.
    pub last: Option<Unix>,
    /// Seconds between two; `None` if no state is kept.
    pub interval: Option<u32>,
}

/// The other trackers with the same swarms, and how far this one keeps up with them. Counts are of changes since the start.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug, Default)]
#[serde(default)]
pub struct Cluster {
    pub state: ClusterState,
    pub state_since: Unix,
    /// 16 hexadecimal digits.
    pub node: String,
    /// Others that were heard of in the last minute.
    pub nodes: Vec<Node>,
    /// How old what was read last was then; alone, for how long it has been that.
    pub lag_seconds: f64,
    /// Changes that wait for the engine.
    pub queue_length: u64,
    pub sent: u64,
    pub received: u64,
    /// Of the received, those that were news.
    pub applied: u64,
    /// Those that were not, or came too late.
    pub older: u64,
    /// Those of torrents or addresses that are not welcome here.
    pub refused: u64,
    /// Batches of changes that could not be read.
    pub malformed: u64,
    /// Those that found the queue full; they are told later, from memory.
    pub dropped: u64,
    /// When that last happened.
    pub last_dropped: Option<Unix>,
    /// How often the engine was reached again.
    pub reconnects: u64,
}

/// Another tracker of the cluster.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug, Default)]
#[serde(default)]
pub struct Node {
    /// 16 hexadecimal digits.
    pub node: String,
    pub last_heard: Unix,
}

/// Whether a tracker and its cluster know of each other's peers.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug, Default)]
#[serde(rename_all = "lowercase")]
pub enum ClusterState {
    /// The engine is out of reach.
    #[default]
    Lone,
    #[serde(rename = "catching up")]
    CatchingUp,
    Joined,
}

impl ClusterState {
    /// As JSON has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lone => "lone",
            Self::CatchingUp => "catching up",
            Self::Joined => "joined",
        }
    }
}

/// The last day, oldest first; each list has one value for each sample, and they are equally long.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug, Default)]
#[serde(default)]
pub struct History {
    /// Seconds between two samples.
    pub interval: u64,
    /// When the newest was taken.
    pub last: Unix,
    pub peers_ipv4: Vec<u64>,
    pub peers_ipv6: Vec<u64>,
    /// On average since the sample before.
    pub announces_per_second: Vec<f64>,
}

/// One listed torrent; a hybrid is one. Its peers are hosts: one on both families, or under both ids, counts once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug, Default)]
#[serde(default)]
pub struct Release {
    pub name: String,
    /// Bytes of all its files.
    pub size: u64,
    /// 40 hexadecimal digits.
    pub v1: Option<String>,
    /// 64 hexadecimal digits.
    pub v2: Option<String>,
    pub seeders: u32,
    pub leechers: u32,
    pub downloads: u32,
    pub listed_since: Unix,
    pub first_seed: Option<Unix>,
    pub last_seed: Option<Unix>,
    pub health: Health,
    /// It has been without a seed for longer than `[torrents] seedless_after` allows.
    pub overdue: bool,
    /// One of the `.torrent` files that list it: for the control socket alone, the public are not told.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "lossy")]
    pub file: Option<PathBuf>,
}

/// Whether a release can be downloaded.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Debug, Default)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// It has been listed without any seed so far.
    #[default]
    NeverSeeded,
    /// It had seeds, and has none.
    LostSeeds,
    Seeded,
}

impl Health {
    pub fn of(seeders: u32, last_seed: Option<Unix>) -> Self {
        match last_seed {
            _ if seeders > 0 => Self::Seeded,
            Some(_) => Self::LostSeeds,
            None => Self::NeverSeeded,
        }
    }

    /// As JSON has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NeverSeeded => "never_seeded",
            Self::LostSeeds => "lost_seeds",
            Self::Seeded => "seeded",
        }
    }
}

impl From<&Histogram> for Handling {
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
    /// Its ids as JSON has them.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.v1.iter().chain(&self.v2).map(String::as_str)
    }
}

/// A path of bytes that are no text must not keep the rest from being shown.
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

    fn keys(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(object) => object.iter().for_each(|(key, value)| {
                found.insert(key.clone());
                keys(value, found);
            }),
            Value::Array(array) => array.iter().for_each(|value| keys(value, found)),
            _ => {}
        }
    }

    #[test]
    fn the_manual_tells_of_every_field() {
        let manual = include_str!("../../man/tbtt-status.7");
        let json = manual.split_once(".Sh JSON").unwrap().1;
        let json = json.split_once(".Sh METRICS").unwrap().0;
        let told = json
            .lines()
            .filter(|line| line.starts_with(".Cm ") || line.starts_with(".It Cm "));
        let told: BTreeSet<_> = told
            .flat_map(|line| line.split(' ').map(str::to_owned))
            .filter(|word| word.len() > 1 && !word.starts_with('.') && word != "Cm")
            .collect();
        let figures = StatusReport {
            handling: ["http", "udp"]
                .map(|of| (of.to_owned(), Handling::default()))
                .into(),
            releases: vec![Release::default()],
            cluster: Some(Cluster {
                nodes: vec![Node::default()],
                ..Cluster::default()
            }),
            ..StatusReport::default()
        };
        let mut shown = BTreeSet::new();
        keys(&serde_json::to_value(figures).unwrap(), &mut shown);
        assert_eq!(told, shown);
    }

    #[test]
    fn what_was_not_told_yet_reads_as_nothing() {
        let figures: StatusReport =
            serde_json::from_str(r#"{"version":"9","later":1,"releases":[{"name":"a"}]}"#).unwrap();
        assert_eq!(
            (figures.version.as_str(), figures.releases[0].health),
            ("9", Health::NeverSeeded)
        );
    }
}
