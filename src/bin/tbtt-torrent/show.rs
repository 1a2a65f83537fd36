//! `show`: prints the content of torrents, for people or as JSON.

use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;
use tbtt::bytes::Hex;
use tbtt::metainfo::printable::shown;
use tbtt::metainfo::{Details, Metainfo};
use tbtt::utc::Utc;

use crate::arguments::Show;
use crate::{Failed, count, file, print};

pub(crate) fn run(show: &Show) -> Result<(), Failed> {
    for (number, path) in show.torrents.iter().enumerate() {
        let bytes = file::read(path)?;
        let (metainfo, details) =
            Details::parse(&bytes).map_err(|error| file::invalid(path, error))?;
        let report = Report::new(path, &metainfo, &details);
        if show.json {
            let json = serde_json::to_string(&report).expect("strings and numbers are valid JSON");
            print(&format!("{json}\n"));
        } else {
            print(if number > 0 { "\n" } else { "" });
            print(&report.text());
        }
    }
    Ok(())
}

/// The content of a torrent. Control characters and invisible characters are replaced. Empty lists stay in the JSON.
#[derive(Serialize)]
struct Report {
    torrent: String,
    name: String,
    /// Bytes in all files, without padding files.
    size: u64,
    v1: Option<String>,
    v2: Option<String>,
    piece_length: u64,
    pieces: u64,
    private: bool,
    trackers: Vec<Vec<String>>,
    web_seeds: Vec<String>,
    http_seeds: Vec<String>,
    nodes: Vec<String>,
    /// Seconds since 1970.
    creation_date: Option<i64>,
    created_by: Option<String>,
    comment: Option<String>,
    source: Option<String>,
    similar: Vec<String>,
    collections: Vec<String>,
    magnet: String,
    files: Vec<ReportFile>,
}

#[derive(Serialize)]
struct ReportFile {
    path: String,
    length: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pieces_root: Option<String>,
}

impl Report {
    fn new(path: &Path, metainfo: &Metainfo, details: &Details<'_>) -> Self {
        let lines = |texts: &[Vec<u8>]| texts.iter().map(|text| shown(text)).collect::<Vec<_>>();
        let text = |text: &Option<Vec<u8>>| text.as_deref().map(shown);
        let report_file = |file: &tbtt::metainfo::files::FileEntry| {
            let parts: Vec<String> = file.path.iter().map(|part| shown(part)).collect();
            ReportFile {
                path: parts.join("/"),
                length: file.length,
                pieces_root: file.root.map(|root| Hex(&root).to_string()),
            }
        };
        Self {
            torrent: shown(path.as_os_str().as_encoded_bytes()),
            name: metainfo.name.clone(),
            size: metainfo.size,
            v1: metainfo.v1.map(|id| id.to_string()),
            v2: metainfo.v2.map(|id| id.to_string()),
            piece_length: metainfo.piece_length,
            pieces: details.layout(metainfo.piece_length).pieces(),
            private: metainfo.private,
            trackers: metainfo.trackers.clone(),
            web_seeds: metainfo.web_seeds.clone(),
            http_seeds: lines(&details.http_seeds),
            nodes: details
                .nodes
                .iter()
                .map(|(host, port)| format!("{}:{port}", shown(host)))
                .collect(),
            creation_date: metainfo.creation_date,
            created_by: text(&details.created_by),
            comment: text(&details.comment),
            source: text(&details.source),
            similar: details
                .similar
                .iter()
                .map(|id| Hex(id).to_string())
                .collect(),
            collections: lines(&details.collections),
            magnet: crate::magnet::link(metainfo, details, false),
            files: details.files().map(report_file).collect(),
        }
    }

    fn text(&self) -> String {
        let mut out = String::new();
        let mut line = |key: &str, value: &str| {
            let _ = writeln!(out, "{key:<12}  {value}");
        };
        line("torrent", &self.torrent);
        line("name", &self.name);
        line(
            "size",
            &format!("{} ({})", count(self.size, "byte"), human(self.size)),
        );
        for (key, id) in [("v1", &self.v1), ("v2", &self.v2)] {
            if let Some(id) = id {
                line(key, id);
            }
        }
        let bytes = count(self.piece_length, "byte");
        let length = human(self.piece_length);
        line("pieces", &format!("{} of {bytes} ({length})", self.pieces));
        if self.private {
            line("private", "yes");
        }
        for (number, tier) in self.trackers.iter().enumerate() {
            for url in tier {
                line(&format!("tracker {}", number + 1), url);
            }
        }
        for (key, texts) in [
            ("web seed", &self.web_seeds),
            ("http seed", &self.http_seeds),
            ("node", &self.nodes),
            ("similar", &self.similar),
            ("collection", &self.collections),
        ] {
            texts.iter().for_each(|text| line(key, text));
        }
        if let Some(seconds) = self.creation_date {
            line(
                "created",
                &format!("{} ({seconds})", Utc::from_unix(seconds)),
            );
        }
        for (key, text) in [
            ("created by", &self.created_by),
            ("comment", &self.comment),
            ("source", &self.source),
        ] {
            if let Some(text) = text {
                line(key, text);
            }
        }
        line("files", &self.files.len().to_string());
        for file in &self.files {
            let _ = writeln!(out, "{:>14}  {}", file.length, file.path);
        }
        out
    }
}

/// Returns a size in KiB, MiB and so on.
fn human(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}
