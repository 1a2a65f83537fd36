//! `create`: finds and hashes the files of a release, and writes its torrent.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use glob::{MatchOptions, Pattern};
use tbtt::bytes::parse_hex;
use tbtt::metainfo::builder::{EncodedInfo, NewFile, NewInfo, OuterFields};
use tbtt::metainfo::merkle::{BLOCK, layer_root};
use tbtt::metainfo::pieces::{Layout, choose_length};
use tbtt::tracker::types::InfoHash;

use crate::arguments::{Create, Format};
use crate::file::{Target, invalid, unreadable};
use crate::hash::{Hashed, Job, Piece};
use crate::{Exit, Failed, count, fail, print, urls};

pub(crate) fn run(create: &Create) -> Result<(), Failed> {
    let common = Common::new(create)?;
    // All arguments are checked before the first file is read, which may take long.
    let mut plans = Vec::new();
    for path in &create.paths {
        plans.push(Plan::new(path, create, &common)?);
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
                "  {} of {}, {rate:.0} MB/s\n",
                count(plan.layout.pieces(), "piece"),
                count(plan.layout.piece_length(), "byte")
            ));
        }
    }
    Ok(())
}

/// Returns the info-hashes, each on a line.
fn ids(info: &EncodedInfo) -> String {
    let v1 = info.v1.map(|id| format!("  v1 {id}\n")).unwrap_or_default();
    let v2 = info.v2.map(|id| format!("  v2 {id}\n")).unwrap_or_default();
    v1 + &v2
}

/// The parsed options that apply to all torrents.
struct Common {
    excluded: Vec<Pattern>,
    similar: Vec<InfoHash>,
    trackers: Vec<Vec<String>>,
    nodes: Vec<(String, u16)>,
    creation_date: Option<i64>,
}

impl Common {
    fn new(create: &Create) -> Result<Self, Failed> {
        if create.name.is_some() && create.paths.len() > 1 {
            let reason = "--name cannot be used with several paths";
            return Err(fail(Exit::Usage, reason));
        }
        let pattern = |given: &String| {
            Pattern::new(given).map_err(|error| {
                let reason = format!("`{given}` is not a valid pattern: {error}");
                fail(Exit::Usage, reason)
            })
        };
        let id = |given: &String| {
            let id = parse_hex(given.as_bytes()).map(InfoHash);
            id.ok_or_else(|| {
                let reason = format!(
                    "`{given}` is not a version 1 info-hash, which has 40 hexadecimal digits"
                );
                fail(Exit::Usage, reason)
            })
        };
        // https://reproducible-builds.org/specs/source-date-epoch
        let creation_date = match env::var("SOURCE_DATE_EPOCH") {
            Ok(seconds) => Some(seconds.parse().map_err(|_| {
                let reason = format!(
                    "SOURCE_DATE_EPOCH is `{seconds}`; set it to a number of seconds since 1970"
                );
                fail(Exit::Usage, reason)
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

/// A torrent to create: its files are found, and nothing is read yet.
struct Plan {
    name: String,
    root: PathBuf,
    found: Vec<FoundFile>,
    is_single: bool,
    layout: Layout,
    similar: Vec<InfoHash>,
    excluded: Vec<Pattern>,
    around: OuterFields,
    target: Target,
}

impl Plan {
    fn new(path: &Path, create: &Create, common: &Common) -> Result<Self, Failed> {
        let root = fs::canonicalize(path).map_err(|error| unreadable(path, error))?;
        // For a symbolic link: the name of the link, not that of its destination.
        let own_name = path.file_name().or(root.file_name()).unwrap_or_default();
        let name = check_name(create.name.as_deref().map_or(own_name, OsStr::new), path)?;

        let is_single = root.is_file();
        let found = find(&root, &common.excluded)?;
        let layout = layout(path, &found, create)?;
        let target = target(path, &root, own_name, create)?;
        let seed = |given: &String| {
            urls::web_seed(given, &name, is_single).map_err(|reason| fail(Exit::Usage, reason))
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

    /// Returns the number of bytes in all files.
    fn size(&self) -> u64 {
        size(&self.found)
    }

    /// Reads and hashes the files.
    fn hash(&self, create: &Create) -> Result<EncodedInfo, Failed> {
        let (v1, v2) = (create.format != Format::V2, create.format != Format::V1);
        let files: Vec<_> = self
            .found
            .iter()
            .map(|file| (file.path.clone(), file.version.size))
            .collect();
        let job = Job {
            layout: &self.layout,
            files: &files,
            v1,
            v2,
            continue_after_error: false,
        };
        let Hashed { pieces, errors } = job.run(&create.work);
        // A file that became shorter also causes a read error. That it changed is the better message.
        self.check_unchanged()?;
        if let Some((file, error)) = errors.first_key_value() {
            return Err(unreadable(&files[*file].0, error));
        }

        let pieces: Vec<Piece> = pieces
            .into_iter()
            .map(|piece| piece.expect("without an error, each piece has been read"))
            .collect();
        let info = NewInfo {
            name: &self.name,
            is_single: self.is_single,
            files: &self.new_files(&pieces, v2),
            layout: &self.layout,
            v1: v1.then(|| pieces.iter().flat_map(|piece| piece.v1).collect()),
            v2,
            private: create.private,
            source: create.source.as_deref(),
            similar: &self.similar,
            collections: &create.collection,
        };
        Ok(info.write())
    }

    /// Returns the files as the torrent lists them, for version 2 with their piece layers.
    fn new_files(&self, pieces: &[Piece], v2: bool) -> Vec<NewFile> {
        let new_file = |file: &FoundFile| NewFile {
            path: match self.is_single {
                true => vec![self.name.clone()],
                false => file.below.clone(),
            },
            length: file.version.size,
            layer: Vec::new(),
            root: None,
        };
        let mut files: Vec<NewFile> = self.found.iter().map(new_file).collect();
        if v2 {
            for (number, piece) in pieces.iter().enumerate() {
                let mut parts = self.layout.piece(number as u64);
                if let Some(file) = parts.find_map(|part| part.file) {
                    files[file].layer.extend(piece.v2);
                }
            }
        }
        for file in &mut files {
            file.root = (!file.layer.is_empty())
                .then(|| layer_root(&file.layer, self.layout.piece_length()));
        }
        files
    }

    /// Fails if a file has changed, appeared or disappeared since the files were found.
    fn check_unchanged(&self) -> Result<(), Failed> {
        let now = find(&self.root, &self.excluded)?;
        let differs = self.found.iter().find(|file| !contains(&now, file));
        let appeared = || now.iter().find(|file| !contains(&self.found, file));
        match differs.or_else(appeared) {
            Some(file) => {
                let reason = format!("{}: changed while it was read", file.path.display());
                Err(fail(Exit::NoInput, reason))
            }
            None => Ok(()),
        }
    }
}

fn check_name(name: &OsStr, path: &Path) -> Result<String, Failed> {
    let Some(name) = name.to_str() else {
        return Err(invalid(path, "the name is not UTF-8"));
    };
    if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
        let reason = format!("`{name}` cannot be the name of a torrent; give another --name");
        return Err(fail(Exit::Usage, reason));
    }
    Ok(name.to_owned())
}

/// Divides the files into pieces.
fn layout(path: &Path, found: &[FoundFile], create: &Create) -> Result<Layout, Failed> {
    let size = size(found);
    if size == 0 {
        return Err(invalid(path, "contains no data"));
    }
    let piece_length = create.piece_length.unwrap_or_else(|| choose_length(size));
    if create.format != Format::V1 && !(piece_length.is_power_of_two() && piece_length >= BLOCK) {
        let reason = format!(
            "--piece-length is {piece_length}; version 2 and hybrid torrents require a power of two of at least {BLOCK}"
        );
        return Err(fail(Exit::Usage, reason));
    }
    let lengths = found.iter().map(|file| file.version.size);
    Ok(match create.format {
        Format::V1 => Layout::packed(lengths.map(|length| (length, false)), piece_length),
        Format::V2 | Format::Hybrid => Layout::aligned(lengths, piece_length),
    })
}

/// Returns the place for the torrent, by default next to `path`. For `.` or `..`, it is next to the directory itself.
fn target(path: &Path, root: &Path, own_name: &OsStr, create: &Create) -> Result<Target, Failed> {
    let neighbor = path.file_name().map_or(root, |_| path);
    let mut default = own_name.to_owned();
    default.push(".torrent");
    let default = neighbor.with_file_name(default);
    let several = create.paths.len() > 1;
    let target = Target::new(create.output.as_deref(), &default, several)?;
    if !create.force {
        target.check_absent()?;
    }
    target.check_outside(root)?;
    Ok(target)
}

/// A file that was found.
#[derive(Clone, PartialEq, Eq, Debug)]
struct FoundFile {
    /// The path below the root; empty if the file is the root.
    below: Vec<String>,
    path: PathBuf,
    version: FileVersion,
}

fn size(found: &[FoundFile]) -> u64 {
    found.iter().map(|file| file.version.size).sum()
}

/// Returns whether the same version of the file is in `found`. Searches in its order, because there may be many files.
fn contains(found: &[FoundFile], file: &FoundFile) -> bool {
    let at = found.binary_search_by(|other| other.below.cmp(&file.below));
    at.is_ok_and(|at| found[at] == *file)
}

/// The metadata by which a change of a file is noticed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct FileVersion {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl FileVersion {
    fn new(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

/// Returns all files in the order in which both versions list them: by path, component by component.
fn find(root: &Path, excluded: &[Pattern]) -> Result<Vec<FoundFile>, Failed> {
    let mut found = Vec::new();
    let mut below = Vec::new();
    walk(root, &mut below, excluded, &mut found)?;
    found.sort_unstable_by(|left, right| left.below.cmp(&right.below));
    Ok(found)
}

fn walk(
    path: &Path,
    below: &mut Vec<String>,
    excluded: &[Pattern],
    found: &mut Vec<FoundFile>,
) -> Result<(), Failed> {
    let failed = |error| unreadable(path, error);
    let metadata = fs::symlink_metadata(path).map_err(failed)?;
    if metadata.is_file() {
        found.push(FoundFile {
            below: below.clone(),
            path: path.to_owned(),
            version: FileVersion::new(&metadata),
        });
        return Ok(());
    }
    if !metadata.is_dir() {
        let reason = "neither a regular file nor a directory; leave it out with --exclude";
        return Err(invalid(path, reason));
    }
    for entry in fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().into_string();
        below.push(name.map_err(|_| invalid(&entry.path(), "the name is not UTF-8"))?);
        if !is_excluded(below, excluded) {
            walk(&entry.path(), below, excluded, found)?;
        }
        below.pop();
    }
    Ok(())
}

/// Compares each pattern with the name or, if the pattern contains a slash, with the path below the root.
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
    fn detects_changes_while_files_are_read() {
        let directory = env::temp_dir().join(format!("tbtt-torrent-{}", std::process::id()));
        let file = directory.join("a");
        fs::create_dir_all(&directory).unwrap();
        fs::write(&file, b"data").unwrap();
        let matches = command()
            .try_get_matches_from(["tbtt-torrent", "create", directory.to_str().unwrap(), "-q"])
            .unwrap();
        let Command::Create(create) = Arguments::from_arg_matches(&matches).unwrap().command else {
            panic!("not the create command");
        };
        let plan = || Plan::new(&directory, &create, &Common::new(&create).unwrap()).unwrap();
        let reason = |plan: Plan| plan.hash(&create).unwrap_err().reason;

        assert!(plan().hash(&create).is_ok());
        let longer = plan();
        let mut open = fs::OpenOptions::new().append(true).open(&file).unwrap();
        open.write_all(b"more").unwrap();
        assert!(reason(longer).ends_with("/a: changed while it was read"));
        let shorter = plan();
        open.set_len(1).unwrap();
        assert!(reason(shorter).ends_with("/a: changed while it was read"));
        let touched = plan();
        open.set_modified(std::time::UNIX_EPOCH).unwrap();
        assert!(reason(touched).ends_with("/a: changed while it was read"));
        let more = plan();
        fs::write(directory.join("b"), b"").unwrap();
        assert!(reason(more).ends_with("/b: changed while it was read"));
        let fewer = plan();
        fs::remove_file(directory.join("b")).unwrap();
        assert!(reason(fewer).ends_with("/b: changed while it was read"));
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn patterns_match_names_or_paths() {
        let is = |path: &str, pattern: &str| {
            let below: Vec<String> = path.split('/').map(str::to_owned).collect();
            is_excluded(&below, &[Pattern::new(pattern).unwrap()])
        };
        assert!(is("a/b~", "*~") && is("a/.git", ".git") && is("a/b", "b"));
        assert!(is("a/b", "a/*") && is("a/b/c", "a/**/c") && is("a/b/c", "**/c"));
        assert!(!is("a/b", "a") && !is("a/b/c", "a/*") && !is("x/a/b", "a/*"));
    }
}
