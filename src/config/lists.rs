//! The files that a configuration names: lists of networks, of torrents, and of what to tell these.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use crate::tracker::InfoHash;
use crate::tracker::access::{AccessList, Localities, Networks, parse_list};
use crate::tracker::catalogue::{Notice, parse_hash, parse_hashes};
use crate::tracker::list::{ListFault, parse_lines};

use super::rule::Source;
use super::{Config, Remark};

/// What all the lists say, files read.
#[derive(Clone, Debug, Default)]
pub struct Lists {
    pub allow: Vec<InfoHash>,
    pub deny: Vec<InfoHash>,
    pub notices: Vec<(InfoHash, Notice)>,
    pub announce: AccessList,
    pub scrape: AccessList,
    pub localities: Localities,
    pub believed: Networks,
    pub exempt: Networks,
    pub trusted: Networks,
}

impl Lists {
    /// Reads every list that `config` names. All or nothing: what is wrong with any goes to `faults`, and the lists are then
    /// not to be used.
    pub(super) fn read(config: &Config, faults: &mut Vec<Remark>) -> Self {
        let Config {
            torrents,
            access,
            limits,
            proxy,
            ..
        } = config;
        let mut reader = Reader { faults };
        Self {
            allow: reader.files(&torrents.allow, parse_hashes),
            deny: reader.files(&torrents.deny, parse_hashes),
            notices: reader.files(&torrents.notices, parse_notices),
            announce: AccessList::new(
                reader.networks(&access.announce_allow),
                reader.networks(&access.announce_deny),
            ),
            scrape: AccessList::new(
                reader.networks(&access.scrape_allow),
                reader.networks(&access.scrape_deny),
            ),
            localities: Localities::new(reader.networks(&access.local_networks)),
            believed: Networks::new(reader.networks(&access.believe_ip_from)),
            exempt: Networks::new(reader.networks(&limits.exempt)),
            trusted: Networks::new(reader.networks(&proxy.trusted)),
        }
    }
}

struct Reader<'a> {
    faults: &'a mut Vec<Remark>,
}

impl Reader<'_> {
    fn networks(&mut self, sources: &[Source]) -> Vec<IpNet> {
        let mut networks = Vec::new();
        for source in sources {
            match source {
                Source::Network(network) => networks.push(*network),
                Source::File(path) => networks.extend(self.file(path, parse_list)),
            }
        }
        networks
    }

    fn files<T>(
        &mut self,
        paths: &[PathBuf],
        parse: fn(&str) -> Result<Vec<T>, ListFault>,
    ) -> Vec<T> {
        paths
            .iter()
            .flat_map(|path| self.file(path, parse))
            .collect()
    }

    fn file<T>(&mut self, path: &Path, parse: fn(&str) -> Result<Vec<T>, ListFault>) -> Vec<T> {
        let (line, text) = match fs::read_to_string(path).map(|text| parse(&text)) {
            Ok(Ok(entries)) => return entries,
            Ok(Err(fault)) => (Some(fault.line), fault.reason),
            Err(error) => (None, why_unreadable(&error)),
        };
        self.faults.push(Remark {
            file: Some(path.to_owned()),
            line,
            text,
        });
        Vec::new()
    }
}

fn why_unreadable(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "there is no such list; make it, empty if nothing is to be on it".to_owned()
        }
        io::ErrorKind::InvalidData => "is not text in UTF-8".to_owned(),
        _ => format!("this list cannot be read: {error}"),
    }
}

/// Reads `HASH warning TEXT` and `HASH failure TEXT`, one a line.
fn parse_notices(text: &str) -> Result<Vec<(InfoHash, Notice)>, ListFault> {
    parse_lines(text, |entry| {
        let mut words = entry.splitn(3, char::is_whitespace);
        let id = parse_hash(words.next().unwrap_or_default())?;
        let kind = words.next().unwrap_or_default();
        let text = words.next().map(str::trim).filter(|text| !text.is_empty());
        let text = text.ok_or("after the id, write `warning` or `failure`, and the text")?;
        if text.len() > 255 {
            return Err(format!(
                "the text has {} bytes; at most 255 are sent",
                text.len()
            ));
        }
        let notice = match kind {
            "warning" => Notice {
                warning: Some(text.to_owned()),
                failure: None,
            },
            "failure" => Notice {
                warning: None,
                failure: Some(text.to_owned()),
            },
            _ => {
                return Err(format!(
                    "`{}` is neither `warning` nor `failure`",
                    kind.escape_debug()
                ));
            }
        };
        Ok((id, notice))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_has_an_id_a_kind_and_a_text() {
        let id = "0123456789abcdef0123456789abcdef01234567";
        let read = |entry: &str| parse_notices(&format!("# first\n{entry}\n"));
        let (hash, notice) = read(&format!("{id} warning  this one is old"))
            .unwrap()
            .remove(0);
        assert_eq!(hash.to_string(), id);
        assert_eq!(notice.warning.as_deref(), Some("this one is old"));
        assert_eq!(
            read(&format!("{id} failure withdrawn")).unwrap()[0]
                .1
                .failure
                .as_deref(),
            Some("withdrawn")
        );
        for wrong in [
            "0123 warning x".to_owned(),
            format!("{id} remark x"),
            format!("{id} warning"),
            id.to_owned(),
        ] {
            assert_eq!(read(&wrong).unwrap_err().line, 2, "{wrong}");
        }
        assert!(read(&format!("{id} warning {}", "x".repeat(255))).is_ok());
        assert!(read(&format!("{id} warning {}", "x".repeat(256))).is_err());
    }
}
