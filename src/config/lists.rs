//! The files that a configuration names: lists of networks, of torrents, and of what to tell these.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use crate::torrents::catalog::parse_hashes;
use crate::tracker::InfoHash;
use crate::tracker::access::{AccessList, LocalNetworks, Networks, parse_list};
use crate::tracker::list::{ListFault, parse_lines};
use crate::tracker::settings::Notice;
use crate::tracker::types::parse_hash;

use super::address_types::Source;
use super::diagnostics::Diagnostic;
use super::schema::Config;

/// What all the lists say, files read.
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
    pub believed: Networks,
    pub exempt: Networks,
    pub trusted: Networks,
}

impl Lists {
    /// Reads every list that `config` names. All or nothing: what is wrong with any goes to `faults`, and the lists are then
    /// not to be used.
    pub(super) fn read(config: &Config, faults: &mut Vec<Diagnostic>) -> Self {
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
            status: AccessList::new(
                reader.networks(&access.status_allow),
                reader.networks(&access.status_deny),
            ),
            metrics: AccessList::new(
                reader.networks(&access.metrics_allow),
                reader.networks(&access.metrics_deny),
            ),
            local_networks: LocalNetworks::new(reader.networks(&access.local_networks)),
            believed: Networks::new(reader.networks(&access.believe_ip_from)),
            exempt: Networks::new(reader.networks(&limits.exempt)),
            trusted: Networks::new(reader.networks(&proxy.trusted)),
        }
    }
}

impl Config {
    /// Every file that a key names beside the configuration itself.
    pub fn list_files(&self) -> impl Iterator<Item = &Path> {
        let Self {
            torrents,
            access,
            limits,
            proxy,
            ..
        } = self;
        let of_torrents = [&torrents.allow, &torrents.deny, &torrents.notices]
            .into_iter()
            .flatten();
        let of_networks = [
            &access.announce_allow,
            &access.announce_deny,
            &access.scrape_allow,
            &access.scrape_deny,
            &access.status_allow,
            &access.status_deny,
            &access.metrics_allow,
            &access.metrics_deny,
            &access.local_networks,
            &access.believe_ip_from,
            &limits.exempt,
            &proxy.trusted,
        ];
        let of_networks = of_networks
            .into_iter()
            .flatten()
            .filter_map(|source| match source {
                Source::File(path) => Some(path),
                Source::Network(_) => None,
            });
        of_torrents.chain(of_networks).map(PathBuf::as_path)
    }
}

struct Reader<'a> {
    faults: &'a mut Vec<Diagnostic>,
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
        self.faults.push(Diagnostic {
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
    use super::super::test_support::TestDirectory;
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef01234567";

    /// The lists, or the faults as told.
    fn read(config: &Config) -> Result<Lists, String> {
        let mut faults = Vec::new();
        let lists = Lists::read(config, &mut faults);
        let told: Vec<_> = faults.iter().map(Diagnostic::to_string).collect();
        if told.is_empty() {
            Ok(lists)
        } else {
            Err(told.join("\n"))
        }
    }

    #[test]
    fn networks_come_from_the_configuration_and_from_files() {
        let directory = TestDirectory::new("networks");
        let one = directory.write("one", "# mirrors\n192.0.2.0/24 # rack\n\n 2001:db8::7 \r\n");
        let two = directory.write("two", "198.51.100.7");
        let mut config = Config::default();
        config.proxy.trusted = vec![
            Source::File(one),
            Source::Network("203.0.113.0/24".parse().unwrap()),
            Source::File(two),
        ];
        let trusted = read(&config).unwrap().trusted;
        for (address, expected) in [
            ("192.0.2.255", true),
            ("2001:db8::7", true),
            ("203.0.113.1", true),
            ("198.51.100.7", true),
            ("192.0.3.0", false),
            ("2001:db8::8", false),
            ("198.51.100.8", false),
        ] {
            assert_eq!(
                trusted.hold(address.parse().unwrap()),
                expected,
                "{address}"
            );
        }
    }

    #[test]
    fn each_list_goes_where_its_key_says() {
        let mut config = Config::default();
        let networks = |text: &str| vec![Source::Network(text.parse().unwrap())];
        config.access.announce_allow = networks("192.0.2.0/24");
        config.access.announce_deny = networks("192.0.2.9/32");
        config.access.scrape_deny = networks("192.0.2.8/32");
        config.access.believe_ip_from = networks("192.0.2.7/32");
        config.limits.exempt = networks("192.0.2.6/32");
        config.proxy.trusted = networks("192.0.2.5/32");
        config.access.status_allow = networks("192.0.2.4/32");
        config.access.status_deny = networks("192.0.2.3/32");
        config.access.metrics_allow = networks("192.0.2.2/31");
        config.access.metrics_deny = networks("192.0.2.2/32");
        let lists = read(&config).unwrap();
        let of = |last: u8| {
            let address = [192, 0, 2, last].into();
            [
                lists.announce.admits(address),
                lists.scrape.admits(address),
                lists.believed.hold(address),
                lists.exempt.hold(address),
                lists.trusted.hold(address),
            ]
        };
        let views = |last: u8| {
            let address = [192, 0, 2, last].into();
            [lists.status.admits(address), lists.metrics.admits(address)]
        };
        assert_eq!(views(4), [true, false]);
        assert_eq!(views(3), [false, true]);
        assert_eq!(views(2), [false, false]);
        assert_eq!(of(9), [false, true, false, false, false]);
        assert_eq!(of(8), [true, false, false, false, false]);
        assert_eq!(of(7), [true, true, true, false, false]);
        assert_eq!(of(6), [true, true, false, true, false]);
        assert_eq!(of(5), [true, true, false, false, true]);
        assert!(!lists.announce.admits([192, 0, 3, 1].into()));
    }

    #[test]
    fn torrents_are_read_from_all_files_of_a_key() {
        let directory = TestDirectory::new("torrents");
        let v2 = format!("{}{}", ID.to_uppercase(), "f".repeat(24));
        let notice = format!("{ID} failure moved # to where\n");
        let mut config = Config::default();
        config.torrents.allow = vec![
            directory.write("a", format!("{ID}\n")),
            directory.write("b", format!("# v2\n{v2} # cut\n")),
        ];
        config.torrents.deny = vec![directory.write("c", "")];
        config.torrents.notices = vec![directory.write("d", notice)];
        let lists = read(&config).unwrap();
        let allowed: Vec<_> = lists.allow.iter().map(InfoHash::to_string).collect();
        assert_eq!(allowed, [ID, ID]);
        assert_eq!(lists.deny, []);
        assert_eq!(lists.notices[0].1.failure.as_deref(), Some("moved"));
    }

    #[test]
    fn all_faults_of_all_lists_are_told_at_once() {
        let directory = TestDirectory::new("list-faults");
        let networks = directory.write("networks", "::1\n\n10.0.0.1/8\n");
        let torrents = directory.write("torrents", format!("{ID} # fine\n{ID}0\n"));
        let notices = directory.write("notices", format!("{ID} note x"));
        let bytes = directory.write("bytes", b"# \xfc");
        let mut config = Config::default();
        config.torrents.allow = vec![torrents.clone(), directory.0.join("none")];
        config.torrents.deny = vec![bytes.clone()];
        config.torrents.notices = vec![notices.clone()];
        config.access.scrape_deny = vec![Source::File(networks.clone())];
        config.limits.exempt = vec![Source::File(directory.0.clone())];
        let told = read(&config).unwrap_err();
        let told: Vec<_> = told.lines().collect();
        assert_eq!(
            told[..5],
            [
                format!(
                    "{}:2: `{ID}0` has 41 digits; a torrent's id has 40 (v1) or 64 (v2)",
                    torrents.display()
                ),
                format!(
                    "{}/none: there is no such list; make it, empty if nothing is to be on it",
                    directory.0.display()
                ),
                format!("{}: is not text in UTF-8", bytes.display()),
                format!(
                    "{}:1: `note` is neither `warning` nor `failure`",
                    notices.display()
                ),
                format!(
                    "{}:3: `10.0.0.1/8` has bits set beyond its prefix; write 10.0.0.0/8 for the network \
                     or 10.0.0.1 for the address",
                    networks.display()
                ),
            ]
        );
        let unreadable = format!("{}: this list cannot be read: ", directory.0.display());
        assert!(told[5].starts_with(&unreadable), "{}", told[5]);
        assert_eq!(told.len(), 6);
    }

    #[test]
    fn a_notice_has_an_id_a_kind_and_a_text() {
        let id = ID;
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

    #[test]
    fn every_file_of_a_list_is_known() {
        let mut config = Config::default();
        let path = |name: &str| Path::new("/lists").join(name);
        config.torrents.allow = vec![path("a"), path("b")];
        config.torrents.deny = vec![path("c")];
        config.torrents.notices = vec![path("d")];
        let network = Source::Network("192.0.2.0/24".parse().unwrap());
        let sources = [
            &mut config.access.announce_allow,
            &mut config.access.announce_deny,
            &mut config.access.scrape_allow,
            &mut config.access.scrape_deny,
            &mut config.access.status_allow,
            &mut config.access.status_deny,
            &mut config.access.metrics_allow,
            &mut config.access.metrics_deny,
            &mut config.access.local_networks,
            &mut config.access.believe_ip_from,
            &mut config.limits.exempt,
            &mut config.proxy.trusted,
        ];
        let names = 'e'..='p';
        for (sources, name) in sources.into_iter().zip(names) {
            *sources = vec![network.clone(), Source::File(path(&name.to_string()))];
        }
        let mut files: Vec<_> = config.list_files().collect();
        files.sort();
        assert_eq!(files.len(), 16);
        assert_eq!(files[0], path("a"));
        files.dedup();
        assert_eq!((files.len(), files[15]), (16, &*path("p")));
    }
}
