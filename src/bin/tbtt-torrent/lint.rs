//! Torrents as they are to be published: what would keep them from being shared, told before others find it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Display;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use sha2::{Sha256, Sha512};
use tbtt::bytes::Hex;
use tbtt::metainfo::{Details, Metainfo, shown};
use tbtt::tracker::InfoHash;

use crate::arguments::Lint;
use crate::urls::{check_http_seed, check_tracker, check_web_seed};
use crate::{Exit, Failed, fail, file, print, urls, verify};

/// What is wrong, by classes that add up to the exit status.
#[derive(Clone, Copy, Debug)]
enum Class {
    /// It cannot be read, or is no torrent.
    Torrent = 1,
    /// Clients would not ask our trackers, or others, or those alone.
    Tracker = 2,
    /// Another torrent has the same info-hash.
    Id = 4,
    /// The files are not those beside it.
    Files = 8,
    /// A mirror's URL is wrong.
    WebSeed = 16,
    /// A list of checksums has another one, or none.
    Checksum = 32,
}

pub(crate) fn run(lint: &Lint) -> Result<(), Failed> {
    let ours: BTreeSet<String> = urls::tiers(&lint.announce)?.into_iter().flatten().collect();
    let mut linter = Linter {
        lint,
        ours,
        seen: HashMap::new(),
        faults: 0,
        classes: 0,
    };
    let (mut torrents, mut directories) = (BTreeSet::new(), BTreeSet::new());
    for path in &lint.paths {
        linter.find(path, &mut torrents, &mut directories);
    }
    if torrents.is_empty() && linter.faults == 0 {
        return Err(fail(Exit::NoInput, "there is no torrent to check"));
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
        let faults = match linter.faults {
            0 => "nothing is wrong".to_owned(),
            1 => "1 fault".to_owned(),
            count => format!("{count} faults"),
        };
        print(&format!("{} torrents checked, {faults}\n", torrents.len()));
    }
    match linter.classes {
        0 => Ok(()),
        classes => Err(fail(Exit::Lint(classes), "")),
    }
}

struct Linter<'a> {
    lint: &'a Lint,
    ours: BTreeSet<String>,
    /// By what is announced: the first 20 bytes of a v2 info-hash.
    seen: HashMap<InfoHash, PathBuf>,
    faults: u64,
    classes: u8,
}

impl Linter<'_> {
    fn fault(&mut self, class: Class, path: &Path, reason: impl Display) {
        self.faults += 1;
        self.classes |= class as u8;
        let path = shown(path.as_os_str().as_bytes());
        print(&format!("{path}: {reason}\n"));
    }

    /// The torrents at a path, or in the directory there; as the tracker finds them, without names that begin with a dot.
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
            Err(error) => return self.fault(Class::Torrent, path, error),
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
                self.faults += 1;
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
            Err(fault) => self.fault(Class::Torrent, torrent, fault),
        }
    }

    fn check_trackers(&mut self, torrent: &Path, metainfo: &Metainfo, details: &Details<'_>) {
        let text = |url: &Vec<u8>| String::from_utf8_lossy(url).into_owned();
        let its: BTreeSet<String> = details.trackers.iter().flatten().map(text).collect();
        if its.is_empty() {
            self.fault(Class::Tracker, torrent, "it names no tracker");
        }
        for url in &its {
            if let Err(fault) = check_tracker(url) {
                self.fault(Class::Tracker, torrent, shown(fault.as_bytes()));
            }
        }
        let mut differences = Vec::new();
        if !self.ours.is_empty() {
            let missing = self.ours.difference(&its);
            differences.extend(missing.map(|url| format!("the tracker `{url}` is missing")));
            let others = its.difference(&self.ours).map(|url| shown(url.as_bytes()));
            differences.extend(others.map(|url| format!("the tracker `{url}` is not ours")));
        }
        for difference in differences {
            self.fault(Class::Tracker, torrent, difference);
        }
        if metainfo.private {
            let reason = "it is private, so clients without our trackers find nobody";
            self.fault(Class::Tracker, torrent, reason);
        }
    }

    fn check_ids(&mut self, torrent: &Path, metainfo: &Metainfo) {
        for id in metainfo.torrent().ids() {
            if let Some(other) = self.seen.insert(id, torrent.to_owned()) {
                let other = shown(other.as_os_str().as_bytes());
                self.fault(
                    Class::Id,
                    torrent,
                    format!("`{other}` has the info-hash {id} as well"),
                );
            }
        }
    }

    fn check_files(&mut self, torrent: &Path, details: &Details<'_>) {
        let root = match &self.lint.data {
            Some(directory) => verify::beside(&directory.join("x"), &details.name),
            None => verify::beside(torrent, &details.name),
        };
        let listed = details.v2.as_ref().or(details.v1.as_ref());
        let listed = listed.map_or(&[][..], Vec::as_slice);
        let files = root.and_then(|root| verify::paths(listed, &root, details.is_single));
        let files = match files {
            Ok(files) => files,
            Err(reason) => return self.fault(Class::Files, torrent, reason),
        };
        for ((path, length), file) in files.iter().zip(listed).filter(|(_, file)| !file.pad) {
            let is_text = file
                .path
                .iter()
                .all(|part| std::str::from_utf8(part).is_ok());
            if !is_text {
                let path = shown(path.as_os_str().as_bytes());
                self.fault(
                    Class::Files,
                    torrent,
                    format!("the name of `{path}` is not UTF-8"),
                );
            }
            if let Some(fault) = verify::fault(path, *length) {
                let path = shown(path.as_os_str().as_bytes());
                self.fault(Class::Files, torrent, format!("`{path}` {fault}"));
            }
        }
    }

    fn check_web_seeds(&mut self, torrent: &Path, details: &Details<'_>) {
        for seed in &details.http_seeds {
            if let Err(fault) = check_http_seed(&String::from_utf8_lossy(seed)) {
                self.fault(Class::WebSeed, torrent, shown(fault.as_bytes()));
            }
        }
        for seed in &details.web_seeds {
            let seed = String::from_utf8_lossy(seed);
            match check_web_seed(&seed, &details.name, details.is_single) {
                Err(fault) => self.fault(Class::WebSeed, torrent, shown(fault.as_bytes())),
                #[cfg(feature = "online")]
                Ok(()) if self.lint.online => {
                    for (url, length) in crate::online::files(&seed, details) {
                        if let Err(fault) = crate::online::ask(&url, length) {
                            let fault = shown(format!("`{url}` {fault}").as_bytes());
                            self.fault(Class::WebSeed, torrent, fault);
                        }
                    }
                }
                Ok(()) => {}
            }
        }
    }

    /// A list of checksums that has torrents has all of this directory, and right.
    fn check_sums<D: sha2::Digest>(&mut self, directory: &Path, name: &str, torrents: &[&Path]) {
        let sums = directory.join(name);
        let text = match fs::read(&sums) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return,
            Err(error) => return self.fault(Class::Checksum, &sums, error),
        };
        let listed: BTreeMap<&[u8], &[u8]> = text
            .split(|byte| *byte == b'\n')
            .filter_map(sum)
            .filter(|(name, _)| name.ends_with(b".torrent"))
            .collect();
        if listed.is_empty() {
            return;
        }
        let mut there = BTreeSet::new();
        for torrent in torrents {
            let own = torrent.file_name().unwrap_or_default().as_bytes();
            there.insert(own);
            let hash = fs::read(torrent).map(|bytes| Hex(&D::digest(&bytes)).to_string());
            match (listed.get(own), hash) {
                (None, _) => {
                    self.fault(Class::Checksum, torrent, format!("{name} does not list it"))
                }
                (Some(sum), Ok(hash)) if !sum.eq_ignore_ascii_case(hash.as_bytes()) => {
                    self.fault(
                        Class::Checksum,
                        torrent,
                        format!("{name} has another checksum"),
                    );
                }
                _ => {}
            }
        }
        for name in listed.keys().filter(|name| !there.contains(*name)) {
            let path = directory.join(std::ffi::OsStr::from_bytes(name));
            if path.symlink_metadata().is_err() {
                self.fault(
                    Class::Checksum,
                    &sums,
                    format!("`{}` is missing", shown(name)),
                );
            }
        }
    }
}

/// Name and checksum of a line as sha256sum writes it.
fn sum(line: &[u8]) -> Option<(&[u8], &[u8])> {
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
    fn checksums_are_read_as_they_are_written() {
        assert_eq!(
            sum(b"ab  a b.torrent"),
            Some((&b"a b.torrent"[..], &b"ab"[..]))
        );
        assert_eq!(sum(b"ab *./a"), Some((&b"a"[..], &b"ab"[..])));
        assert_eq!(sum(b"# made today"), None);
        assert_eq!(sum(b""), None);
    }
}
