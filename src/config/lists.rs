//! List files: the networks, torrents and notices that a configuration names.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use crate::tracker::access::{AccessList, LocalNetworks, Networks};
use crate::tracker::settings::Notice;
use crate::tracker::types::{InfoHash, parse_hash};

use super::address_types::NetworkSource;
use super::diagnostics::Diagnostic;
use super::list_file::{ListError, parse_hashes, parse_lines, parse_networks};
use super::schema::Config;

/// Maximum length of a notice's text, in bytes. It is the same as for `warning` in `[tracker]`.
const MAX_NOTICE_BYTES: usize = 255;

/// The lists of a configuration, with the content of the files that it names.
#[derive(Clone, Debug, Default)]
pub struct Lists {
    pub allow: Vec<InfoHash>,
    pub deny: Vec<InfoHash>,
    pub notices: Vec<(InfoHash, Notice)>,
    pub announce: AccessList,
    pub scrape: AccessList,
    pub status: AccessList,
    pub metrics: AccessList,
    pub local_networks: LocalNetworks,
    pub trust_ip_params_from: Networks,
    pub exempt: Networks,
    pub trusted: Networks,
}

impl Lists {
    /// Reads every list that `config` names.
    ///
    /// Errors in the files are added to `errors`. If there are any, the returned lists are incomplete and must not be
    /// used.
    pub(super) fn read(config: &Config, errors: &mut Vec<Diagnostic>) -> Self {
        let Config {
            torrents,
            access,
            limits,
            proxy,
            ..
        } = config;
        let mut reader = ListReader { errors };
        Self {
            allow: reader.read_files(&torrents.allow, parse_hashes),
            deny: reader.read_files(&torrents.deny, parse_hashes),
            notices: reader.read_files(&torrents.notices, parse_notices),
            announce: AccessList::new(
                reader.read_networks(&access.announce_allow),
                reader.read_networks(&access.announce_deny),
            ),
            scrape: AccessList::new(
                reader.read_networks(&access.scrape_allow),
                reader.read_networks(&access.scrape_deny),
            ),
            status: AccessList::new(
                reader.read_networks(&access.status_allow),
                reader.read_networks(&access.status_deny),
            ),
            metrics: AccessList::new(
                reader.read_networks(&access.metrics_allow),
                reader.read_networks(&access.metrics_deny),
            ),
            local_networks: LocalNetworks::new(reader.read_networks(&access.local_networks)),
            trust_ip_params_from: Networks::new(reader.read_networks(&access.trust_ip_params_from)),
            exempt: Networks::new(reader.read_networks(&limits.exempt)),
            trusted: Networks::new(reader.read_networks(&proxy.trusted)),
        }
    }
}

impl Config {
    /// Returns the path of every list file.
    pub fn list_files(&self) -> impl Iterator<Item = &Path> {
        let Self {
            torrents,
            access,
            limits,
            proxy,
            ..
        } = self;
        let torrent_files = [&torrents.allow, &torrents.deny, &torrents.notices]
            .into_iter()
            .flatten();
        let network_sources = [
            &access.announce_allow,
            &access.announce_deny,
            &access.scrape_allow,
            &access.scrape_deny,
            &access.status_allow,
            &access.status_deny,
            &access.metrics_allow,
            &access.metrics_deny,
            &access.local_networks,
            &access.trust_ip_params_from,
            &limits.exempt,
            &proxy.trusted,
        ];
        let network_files =
            network_sources
                .into_iter()
                .flatten()
                .filter_map(|source| match source {
                    NetworkSource::File(path) => Some(path),
                    NetworkSource::Network(_) => None,
                });
        torrent_files.chain(network_files).map(PathBuf::as_path)
    }
}

/// Reads list files, and collects their errors.
struct ListReader<'a> {
    errors: &'a mut Vec<Diagnostic>,
}

impl ListReader<'_> {
    /// Returns the networks of a key, with those of the files that it names.
    fn read_networks(&mut self, sources: &[NetworkSource]) -> Vec<IpNet> {
        let mut networks = Vec::new();
        for source in sources {
            match source {
                NetworkSource::Network(network) => networks.push(*network),
                NetworkSource::File(path) => networks.extend(self.read_file(path, parse_networks)),
            }
        }
        networks
    }

    /// Returns the entries of several files.
    fn read_files<T>(
        &mut self,
        paths: &[PathBuf],
        parse: fn(&str) -> Result<Vec<T>, ListError>,
    ) -> Vec<T> {
        paths
            .iter()
            .flat_map(|path| self.read_file(path, parse))
            .collect()
    }

    /// Returns the entries of a file, or none if it has an error.
    fn read_file<T>(
        &mut self,
        path: &Path,
        parse: fn(&str) -> Result<Vec<T>, ListError>,
    ) -> Vec<T> {
        let (line, text) = match fs::read_to_string(path).map(|text| parse(&text)) {
            Ok(Ok(entries)) => return entries,
            Ok(Err(error)) => (Some(error.line), error.reason),
            Err(error) => (None, unreadable_list(&error)),
        };
        self.errors.push(Diagnostic {
            file: Some(path.to_owned()),
            line,
            text,
        });
        Vec::new()
    }
}

fn unreadable_list(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "no such list; create the file, empty if it has no entries".to_owned()
        }
        io::ErrorKind::InvalidData => "the list is not UTF-8; save it as UTF-8".to_owned(),
        _ => format!("cannot read the list: {error}"),
    }
}

/// Parses a list of notices. Each line is `HASH warning TEXT` or `HASH failure TEXT`.
fn parse_notices(text: &str) -> Result<Vec<(InfoHash, Notice)>, ListError> {
    parse_lines(text, |entry| {
        let mut words = entry.splitn(3, char::is_whitespace);
        let info_hash = parse_hash(words.next().unwrap_or_default())?;
        let kind = words.next().unwrap_or_default();
        let text = words.next().map(str::trim).filter(|text| !text.is_empty());
        let text =
            text.ok_or("write `warning` or `failure` after the info-hash, and then the text")?;
        if text.len() > MAX_NOTICE_BYTES {
            return Err(format!(
                "the text has {} bytes; shorten it to {MAX_NOTICE_BYTES} or fewer",
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
        Ok((info_hash, notice))
    })
}

#[cfg(test)]
mod tests;
