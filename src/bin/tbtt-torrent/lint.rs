//! `lint`: finds errors in torrents that would keep clients from sharing them, before the torrents are published.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Display;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use sha2::{Sha256, Sha512};
use tbtt::bytes::Hex;
use tbtt::metainfo::printable::shown;
use tbtt::metainfo::{Details, Metainfo};
use tbtt::tracker::types::InfoHash;

use crate::arguments::Lint;
use crate::urls::{check_http_seed, check_tracker, check_web_seed};
use crate::{Exit, Failed, count, fail, file, print, urls, verify};

/// Classes of errors. The exit status is the sum of the classes that were found.
#[derive(Clone, Copy, Debug)]
enum Class {
    /// The torrent cannot be read or is not valid.
    Torrent = 1,
    /// The trackers are missing, not valid, or not those given; or the torrent is private.
    Tracker = 2,
    /// Another torrent has the same info-hash.
    Id = 4,
    /// Files are missing or differ in size, or have names that clients cannot use.
    Files = 8,
    /// Clients do not find the files at a web seed.
    WebSeed = 16,
    /// SHA256SUMS or SHA512SUMS does not match the torrents.
    Checksum = 32,
}

pub(crate) fn run(lint: &Lint) -> Result<(), Failed> {
    let announce: BTreeSet<String> = urls::tiers(&lint.announce)?.into_iter().flatten().collect();
    let mut linter = Linter {
        lint,
        announce,
        seen: HashMap::new(),
        errors: 0,
        classes: 0,
    };
    let (mut torrents, mut directories) = (BTreeSet::new(), BTreeSet::new());
    for path in &lint.paths {
        linter.find(path, &mut torrents, &mut directories);
    }
    if torrents.is_empty() && linter.errors == 0 {
        return Err(fail(Exit::NoInput, "no torrent found"));
    }
    for torrent in &torrents {
        linter.check(torrent);
    }
    let mut by_directory: BTreeMap<&Path, Vec<&Path>> = BTreeMap::new();
    for torrent in &torrents {
        let directory = torrent.parent().unwrap_or(Path::new(""));
        by_directory.entry(directory).or_default().push(torrent);
    }
    for (directory, torrents) in by_directory {
        linter.check_sums::<Sha256>(directory, "SHA256SUMS", &torrents);
        linter.check_sums::<Sha512>(directory, "SHA512SUMS", &torrents);
    }
    if !lint.quiet {
        let errors = match linter.errors {
            0 => "no errors".to_owned(),
            errors => count(errors, "error"),
        };
        let torrents = count(torrents.len() as u64, "torrent");
        print(&format!("{torrents} checked, {errors}\n"));
    }
    match linter.classes {
        0 => Ok(()),
        classes => Err(fail(Exit::Lint(classes), "")),
    }
}

struct Linter<'a> {
    lint: &'a Lint,
    /// The trackers that each torrent must have; empty if none were given.
    announce: BTreeSet<String>,
    /// The torrents by the info-hashes that clients announce. For version 2, these are the first 20 bytes.
    seen: HashMap<InfoHash, PathBuf>,
    errors: u64,
    /// The classes of the errors, added.
    classes: u8,
}

impl Linter<'_> {
    fn error(&mut self, class: Class, path: &Path, reason: impl Display) {
        self.errors += 1;
        self.classes |= class as u8;
        let path = shown(path.as_os_str().as_bytes());
        print(&format!("{path}: {reason}\n"));
    }

    /// Adds the torrent at `path`, or all torrents below the directory at `path`. As in the tracker, names that start
    /// with a dot are skipped. `directories` holds the device and inode of each directory that was read, so that
    /// symbolic links cannot form a loop.
    fn find(
        &mut self,
        path: &Path,
        torrents: &mut BTreeSet<PathBuf>,
        directories: &mut BTreeSet<(u64, u64)>,
    ) {
        let found = fs::metadata(path).and_then(|metadata| {
            if !metadata.is_dir() {
                torrents.insert(path.to_owned());
                return Ok(Vec::new());
            }
            if !directories.insert((metadata.dev(), metadata.ino())) {
                return Ok(Vec::new());
            }
            fs::read_dir(path)?.collect::<Result<Vec<_>, _>>()
        });
        let entries = match found {
            Ok(entries) => entries,
            Err(error) => {
                return self.error(Class::Torrent, path, format!("cannot be read: {error}"));
            }
        };
        for entry in entries {
            let (name, path) = (entry.file_name(), entry.path());
            if name.as_bytes().starts_with(b".") {
                continue;
            }
            if path.is_dir() || name.as_bytes().ends_with(b".torrent") {
                self.find(&path, torrents, directories);
            }
        }
    }

    fn check(&mut self, torrent: &Path) {
        let bytes = match file::read(torrent) {
            Ok(bytes) => bytes,
            Err(failed) => {
                let reason = failed.reason;
                self.classes |= Class::Torrent as u8;
                self.errors += 1;
                return print(&format!("{reason}\n"));
            }
        };
        match Details::parse(&bytes) {
            Ok((metainfo, details)) => {
                self.check_trackers(torrent, &metainfo, &details);
                self.check_ids(torrent, &metainfo);
                self.check_files(torrent, &details);
                self.check_web_seeds(torrent, &details);
            }
            Err(error) => self.error(Class::Torrent, torrent, error),
        }
    }

    fn check_trackers(&mut self, torrent: &Path, metainfo: &Metainfo, details: &Details<'_>) {
        let text = |url: &Vec<u8>| String::from_utf8_lossy(url).into_owned();
        let trackers: BTreeSet<String> = details.trackers.iter().flatten().map(text).collect();
        if trackers.is_empty() {
            self.error(Class::Tracker, torrent, "has no tracker");
        }
        for url in &trackers {
            if let Err(reason) = check_tracker(url) {
                self.error(Class::Tracker, torrent, shown(reason.as_bytes()));
            }
        }
        let mut differences = Vec::new();
        if !self.announce.is_empty() {
            let missing = self.announce.difference(&trackers);
            differences.extend(missing.map(|url| format!("tracker `{url}` is missing")));
            let others = trackers.difference(&self.announce);
            differences.extend(others.map(|url| {
                let url = shown(url.as_bytes());
                format!("tracker `{url}` is not one of those given with --announce")
            }));
        }
        for difference in differences {
            self.error(Class::Tracker, torrent, difference);
        }
        if metainfo.private {
            let reason = "is private: clients get peers only from its trackers";
            self.error(Class::Tracker, torrent, reason);
        }
    }

    fn check_ids(&mut self, torrent: &Path, metainfo: &Metainfo) {
        for id in metainfo.torrent().ids() {
            if let Some(other) = self.seen.insert(id, torrent.to_owned()) {
                let other = shown(other.as_os_str().as_bytes());
                let reason = format!("has the same info-hash as `{other}`: {id}");
                self.error(Class::Id, torrent, reason);
            }
        }
    }

    fn check_files(&mut self, torrent: &Path, details: &Details<'_>) {
        let root = match &self.lint.data {
            Some(directory) => verify::next_to(&directory.join("x"), &details.name),
            None => verify::next_to(torrent, &details.name),
        };
        let listed = details.v2.as_ref().or(details.v1.as_ref());
        let listed = listed.map_or(&[][..], Vec::as_slice);
        let files = root.and_then(|root| verify::paths(listed, &root, details.is_single));
        let files = match files {
            Ok(files) => files,
            Err(reason) => return self.error(Class::Files, torrent, reason),
        };
        for ((path, length), file) in files.iter().zip(listed).filter(|(_, file)| !file.pad) {
            let is_utf8 = file
                .path
                .iter()
                .all(|part| std::str::from_utf8(part).is_ok());
            if !is_utf8 {
                let path = shown(path.as_os_str().as_bytes());
                let reason = format!("the name of `{path}` is not UTF-8");
                self.error(Class::Files, torrent, reason);
            }
            if let Err(reason) = verify::check_metadata(path, *length) {
                let path = shown(path.as_os_str().as_bytes());
                self.error(Class::Files, torrent, format!("`{path}` {reason}"));
            }
        }
    }

    fn check_web_seeds(&mut self, torrent: &Path, details: &Details<'_>) {
        for seed in &details.http_seeds {
            if let Err(reason) = check_http_seed(&String::from_utf8_lossy(seed)) {
                self.error(Class::WebSeed, torrent, shown(reason.as_bytes()));
            }
        }
        for seed in &details.web_seeds {
            let seed = String::from_utf8_lossy(seed);
            match check_web_seed(&seed, &details.name, details.is_single) {
                Err(reason) => self.error(Class::WebSeed, torrent, shown(reason.as_bytes())),
                #[cfg(feature = "online")]
                Ok(()) if self.lint.online => {
                    for (url, length) in crate::online::files(&seed, details) {
                        if let Err(reason) = crate::online::check(&url, length) {
                            let reason = shown(format!("`{url}` {reason}").as_bytes());
                            self.error(Class::WebSeed, torrent, reason);
                        }
                    }
                }
                Ok(()) => {}
            }
        }
    }

    /// Compares a checksum file with the torrents of its directory. A file that lists no torrents is ignored.
    fn check_sums<D: sha2::Digest>(&mut self, directory: &Path, name: &str, torrents: &[&Path]) {
        let sums = directory.join(name);
        let text = match fs::read(&sums) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return,
            Err(error) => {
                let reason = format!("cannot be read: {error}");
                return self.error(Class::Checksum, &sums, reason);
            }
        };
        let listed: BTreeMap<&[u8], &[u8]> = text
            .split(|byte| *byte == b'\n')
            .filter_map(checksum_line)
            .filter(|(name, _)| name.ends_with(b".torrent"))
            .collect();
        if listed.is_empty() {
            return;
        }
        let mut present = BTreeSet::new();
        for torrent in torrents {
            let own = torrent.file_name().unwrap_or_default().as_bytes();
            present.insert(own);
            let hash = fs::read(torrent).map(|bytes| Hex(&D::digest(&bytes)).to_string());
            match (listed.get(own), hash) {
                (None, _) => {
                    self.error(Class::Checksum, torrent, format!("is not listed in {name}"));
                }
                (Some(sum), Ok(hash)) if !sum.eq_ignore_ascii_case(hash.as_bytes()) => {
                    let reason = format!("has another checksum than in {name}");
                    self.error(Class::Checksum, torrent, reason);
                }
                _ => {}
            }
        }
        for name in listed.keys().filter(|name| !present.contains(*name)) {
            let path = directory.join(std::ffi::OsStr::from_bytes(name));
            if path.symlink_metadata().is_err() {
                let reason = format!("lists `{}`, which is missing", shown(name));
                self.error(Class::Checksum, &sums, reason);
            }
        }
    }
}

/// Parses a line of sha256sum into name and checksum.
fn checksum_line(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = line.iter().position(|byte| *byte == b' ')?;
    let (sum, name) = line.split_at(end);
    let name = name
        .strip_prefix(b"  ")
        .or_else(|| name.strip_prefix(b" *"))?;
    Some((name.strip_prefix(b"./").unwrap_or(name), sum))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_lines_of_sha256sum() {
        assert_eq!(
            checksum_line(b"ab  a b.torrent"),
            Some((&b"a b.torrent"[..], &b"ab"[..]))
        );
        assert_eq!(checksum_line(b"ab *./a"), Some((&b"a"[..], &b"ab"[..])));
        assert_eq!(checksum_line(b"# made today"), None);
        assert_eq!(checksum_line(b""), None);
    }
}
