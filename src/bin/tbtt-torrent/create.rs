//! A file or directory to a torrent: what is found, hashed, written; and refused, if it would surprise.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use glob::{MatchOptions, Pattern};
use tbtt::bytes::parse_hex;
use tbtt::metainfo::builder::{Around, Info, NewFile, NewInfo};
use tbtt::metainfo::merkle::{BLOCK, layer_root};
use tbtt::metainfo::pieces::{Layout, choose_length};
use tbtt::tracker::InfoHash;

use crate::arguments::{Create, Format};
use crate::file::Target;
use crate::hash::{Hashed, Job};
use crate::{Exit, Failed, fail, print, urls};

pub(crate) fn run(create: &Create) -> Result<(), Failed> {
    let common = Common::of(create)?;
    // What is wrong with any of them is told before the first is read.
    let mut plans = Vec::new();
    for path in &create.paths {
        plans.push(Plan::of(path, create, &common)?);
    }
    for plan in &plans {
        let begin = Instant::now();
        let info = plan.hash(create)?;
        let ids = ids(&info);
        plan.target.write(&info.torrent(&plan.around))?;
        if let (Target::File(target), false) = (&plan.target, create.work.quiet) {
            let seconds = begin.elapsed().as_secs_f64();
            let rate = plan.size() as f64 / 1e6 / seconds.max(1e-6);
            print(&format!("{}\n{ids}", target.display()));
            print(&format!(
                "  {} pieces of {} bytes, {rate:.0} MB/s\n",
                plan.layout.pieces(),
                plan.layout.piece_length()
            ));
        }
    }
    Ok(())
}

fn ids(info: &EncodedInfo) -> String {
    let v1 = info.v1.map(|id| format!("  v1 {id}\n")).unwrap_or_default();
    let v2 = info.v2.map(|id| format!("  v2 {id}\n")).unwrap_or_default();
    v1 + &v2
}

/// What all torrents of one call have in common.
struct Common {
    excluded: Vec<Pattern>,
    similar: Vec<InfoHash>,
    trackers: Vec<Vec<String>>,
    nodes: Vec<(String, u16)>,
    creation_date: Option<i64>,
}

impl Common {
    fn of(create: &Create) -> Result<Self, Failed> {
        if create.name.is_some() && create.paths.len() > 1 {
            return Err(fail(Exit::Usage, "--name is for one torrent"));
        }
        let pattern = |given: &String| {
            Pattern::new(given).map_err(|error| fail(Exit::Usage, format!("`{given}`: {error}")))
        };
        let id = |given: &String| {
            parse_hex(given.as_bytes()).map(InfoHash).ok_or_else(|| {
                fail(
                    Exit::Usage,
                    format!("`{given}` is no v1 info-hash of 40 hexadecimal digits"),
                )
            })
        };
        // https://reproducible-builds.org/specs/source-date-epoch
        let creation_date = match env::var("SOURCE_DATE_EPOCH") {
            Ok(seconds) => Some(seconds.parse().map_err(|_| {
                fail(
                    Exit::Usage,
                    format!("SOURCE_DATE_EPOCH is `{seconds}`, not seconds since 1970"),
                )
            })?),
            Err(_) => None,
        };
        Ok(Self {
            excluded: create
                .exclude
                .iter()
                .map(pattern)
                .collect::<Result<_, _>>()?,
            similar: create.similar.iter().map(id).collect::<Result<_, _>>()?,
            trackers: urls::tiers(&create.announce)?,
            nodes: create
                .node
                .iter()
                .map(|node| urls::node(node))
                .collect::<Result<_, _>>()?,
            creation_date,
        })
    }
}

/// One torrent to be made.
struct Plan {
    name: String,
    root: PathBuf,
    found: Vec<Found>,
    is_single: bool,
    layout: Layout,
    similar: Vec<InfoHash>,
    excluded: Vec<Pattern>,
    around: OuterFields,
    target: Target,
}

impl Plan {
    fn of(path: &Path, create: &Create, common: &Common) -> Result<Self, Failed> {
        let unreadable = |error| fail(Exit::NoInput, format!("{}: {error}", path.display()));
        let root = fs::canonicalize(path).map_err(unreadable)?;
        // A link's own name, rather than that of what it leads to.
        let own = path.file_name().or(root.file_name()).unwrap_or_default();
        let name = check_name(create.name.as_deref().map_or(own, OsStr::new), path)?;

        let is_single = root.is_file();
        let found = find(&root, &common.excluded)?;
        let size: u64 = found.iter().map(|file| file.stamp.size).sum();
        if size == 0 {
            return Err(fail(
                Exit::Data,
                format!("{}: there is no data in it", path.display()),
            ));
        }
        let piece_length = create.piece_length.unwrap_or_else(|| choose_length(size));
        if create.format != Format::V1 && !(piece_length.is_power_of_two() && piece_length >= BLOCK)
        {
            let reason = format!(
                "version 2 needs a piece length that is a power of two from {BLOCK} on, not {piece_length}"
            );
            return Err(fail(Exit::Usage, reason));
        }
        let lengths = found.iter().map(|file| file.stamp.size);
        let layout = match create.format {
            Format::V1 => Layout::packed(lengths.map(|length| (length, false)), piece_length),
            Format::V2 | Format::Hybrid => Layout::aligned(lengths, piece_length),
        };

        // Beside it, and for `.` or `..` beside what that is.
        let beside = path.file_name().map_or(&*root, |_| path);
        let mut default = own.to_owned();
        default.push(".torrent");
        let default = beside.with_file_name(default);
        let several = create.paths.len() > 1;
        let target = Target::new(create.output.as_deref(), &default, several)?;
        if !create.force {
            target.check_absent()?;
        }
        target.check_outside(&root)?;

        let seed = |given: &String| {
            urls::web_seed(given, &name, is_single).map_err(|fault| fail(Exit::Usage, fault))
        };
        let around = OuterFields {
            trackers: Some(common.trackers.clone()),
            web_seeds: Some(create.web_seed.iter().map(seed).collect::<Result<_, _>>()?),
            nodes: Some(common.nodes.clone()),
            comment: create.comment.clone(),
            creation_date: Some(common.creation_date),
            ..OuterFields::default()
        };
        Ok(Self {
            name,
            root,
            found,
            is_single,
            layout,
            similar: common.similar.clone(),
            excluded: common.excluded.clone(),
            around,
            target,
        })
    }

    fn size(&self) -> u64 {
        self.found.iter().map(|file| file.stamp.size).sum()
    }

    fn hash(&self, create: &Create) -> Result<EncodedInfo, Failed> {
        let (v1, v2) = (create.format != Format::V2, create.format != Format::V1);
        let files: Vec<_> = self
            .found
            .iter()
            .map(|file| (file.path.clone(), file.stamp.size))
            .collect();
        let job = Job {
            layout: &self.layout,
            files: &files,
            v1,
            v2,
            go_on: false,
        };
        let Hashed { pieces, faults } = job.run(&create.work);
        // A change tells more than that a file has become too short.
        self.check_unchanged()?;
        if let Some((file, error)) = faults.first_key_value() {
            return Err(fail(
                Exit::NoInput,
                format!("{}: {error}", files[*file].0.display()),
            ));
        }

        let mut sha1 = Vec::new();
        let mut new: Vec<NewFile> = self
            .found
            .iter()
            .map(|file| NewFile {
                path: if self.is_single {
                    vec![self.name.clone()]
                } else {
                    file.below.clone()
                },
                length: file.stamp.size,
                layer: Vec::new(),
                root: None,
            })
            .collect();
        for (number, piece) in pieces.iter().enumerate() {
            let piece = piece.as_ref().expect("a piece that was read");
            if v1 {
                sha1.extend(piece.v1);
            }
            if let Some(file) = self
                .layout
                .piece(number as u64)
                .find_map(|part| part.file)
                .filter(|_| v2)
            {
                new[file].layer.extend(piece.v2);
            }
        }
        for file in &mut new {
            file.root = (!file.layer.is_empty())
                .then(|| layer_root(&file.layer, self.layout.piece_length()));
        }
        let info = NewInfo {
            name: &self.name,
            is_single: self.is_single,
            files: &new,
            layout: &self.layout,
            v1: v1.then_some(sha1),
            v2,
            private: create.private,
            source: create.source.as_deref(),
            similar: &self.similar,
            collections: &create.collection,
        };
        Ok(info.write())
    }

    fn check_unchanged(&self) -> Result<(), Failed> {
        let now = find(&self.root, &self.excluded)?;
        let differs = self.found.iter().find(|file| !has(&now, file));
        let appeared = || now.iter().find(|file| !has(&self.found, file));
        match differs.or_else(appeared) {
            Some(file) => Err(fail(
                Exit::NoInput,
                format!("{}: changed while it was read", file.path.display()),
            )),
            None => Ok(()),
        }
    }
}

fn check_name(name: &OsStr, path: &Path) -> Result<String, Failed> {
    let Some(name) = name.to_str() else {
        let reason = format!("{}: the name is not UTF-8", path.display());
        return Err(fail(Exit::Data, reason));
    };
    if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
        let reason = format!("`{name}` can be no torrent's name; --name gives it one");
        return Err(fail(Exit::Usage, reason));
    }
    Ok(name.to_owned())
}

/// A file that was found.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Found {
    /// Below the root; nothing, if it is the root.
    below: Vec<String>,
    path: PathBuf,
    stamp: Stamp,
}

/// Whether it is there and the same; by their order, as there may be many.
fn has(found: &[Found], file: &Found) -> bool {
    let at = found.binary_search_by(|other| other.below.cmp(&file.below));
    at.is_ok_and(|at| found[at] == *file)
}

/// By which a change is noticed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

/// All files, sorted as both versions list them: by path, part by part.
fn find(root: &Path, excluded: &[Pattern]) -> Result<Vec<Found>, Failed> {
    let mut found = Vec::new();
    let mut below = Vec::new();
    look(root, &mut below, excluded, &mut found)?;
    found.sort_unstable_by(|one, other| one.below.cmp(&other.below));
    Ok(found)
}

fn look(
    path: &Path,
    below: &mut Vec<String>,
    excluded: &[Pattern],
    found: &mut Vec<Found>,
) -> Result<(), Failed> {
    let unreadable = |error| fail(Exit::NoInput, format!("{}: {error}", path.display()));
    let metadata = fs::symlink_metadata(path).map_err(unreadable)?;
    if metadata.is_file() {
        found.push(Found {
            below: below.clone(),
            path: path.to_owned(),
            stamp: Stamp::of(&metadata),
        });
        return Ok(());
    }
    if !metadata.is_dir() {
        let reason = format!(
            "{}: neither a file nor a directory; --exclude leaves it out",
            path.display()
        );
        return Err(fail(Exit::Data, reason));
    }
    for entry in fs::read_dir(path).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let name = entry.file_name().into_string().map_err(|_| {
            fail(
                Exit::Data,
                format!("{}: the name is not UTF-8", entry.path().display()),
            )
        })?;
        below.push(name);
        if !is_excluded(below, excluded) {
            look(&entry.path(), below, excluded, found)?;
        }
        below.pop();
    }
    Ok(())
}

/// By its name, or by its whole path if the pattern has a slash.
fn is_excluded(below: &[String], excluded: &[Pattern]) -> bool {
    let options = MatchOptions {
        require_literal_separator: true,
        ..MatchOptions::new()
    };
    excluded
        .iter()
        .any(|pattern| match pattern.as_str().contains('/') {
            true => pattern.matches_with(&below.join("/"), options),
            false => below
                .last()
                .is_some_and(|name| pattern.matches_with(name, options)),
        })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use clap::FromArgMatches as _;

    use super::*;
    use crate::arguments::{Arguments, Command, command};

    #[test]
    fn a_change_while_it_is_read_is_told() {
        let directory = env::temp_dir().join(format!("tbtt-torrent-{}", std::process::id()));
        let file = directory.join("a");
        fs::create_dir_all(&directory).unwrap();
        fs::write(&file, b"data").unwrap();
        let matches = command()
            .try_get_matches_from(["tbtt-torrent", "create", directory.to_str().unwrap(), "-q"])
            .unwrap();
        let Command::Create(create) = Arguments::from_arg_matches(&matches).unwrap().command else {
            panic!("another command");
        };
        let plan = || Plan::of(&directory, &create, &Common::of(&create).unwrap()).unwrap();
        let told = |plan: Plan| plan.hash(&create).unwrap_err().reason;

        assert!(plan().hash(&create).is_ok());
        let longer = plan();
        let mut open = fs::OpenOptions::new().append(true).open(&file).unwrap();
        open.write_all(b"more").unwrap();
        assert!(told(longer).ends_with("/a: changed while it was read"));
        let shorter = plan();
        open.set_len(1).unwrap();
        assert!(told(shorter).ends_with("/a: changed while it was read"));
        let touched = plan();
        open.set_modified(std::time::UNIX_EPOCH).unwrap();
        assert!(told(touched).ends_with("/a: changed while it was read"));
        let more = plan();
        fs::write(directory.join("b"), b"").unwrap();
        assert!(told(more).ends_with("/b: changed while it was read"));
        let fewer = plan();
        fs::remove_file(directory.join("b")).unwrap();
        assert!(told(fewer).ends_with("/b: changed while it was read"));
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn patterns_are_of_names_or_of_paths() {
        let is = |path: &str, pattern: &str| {
            let below: Vec<String> = path.split('/').map(str::to_owned).collect();
            is_excluded(&below, &[Pattern::new(pattern).unwrap()])
        };
        assert!(is("a/b~", "*~") && is("a/.git", ".git") && is("a/b", "b"));
        assert!(is("a/b", "a/*") && is("a/b/c", "a/**/c") && is("a/b/c", "**/c"));
        assert!(!is("a/b", "a") && !is("a/b/c", "a/*") && !is("x/a/b", "a/*"));
    }
}
