//! Checks the source tree: the imports between files, the purity of the core, the length of files and functions, and
//! that no two types have the same name. `docs/ARCHITECTURE.md` explains the rules.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

/// The folders and files of `src/`, by layer. A file imports from its own folder and from lower layers only.
const LAYERS: &[(&str, u8)] = &[
    ("bytes", 0),
    ("counter", 0),
    ("lock", 0),
    ("utc", 0),
    ("tracker", 1),
    ("log", 1),
    ("os", 2),
    ("clock", 2),
    ("protocol", 3),
    ("metainfo", 3),
    ("snapshot", 3),
    ("cluster", 4),
    ("torrents", 4),
    ("status", 5),
    ("server", 6),
    ("config", 7),
    ("app", 9),
    ("main", 10),
];

/// The pure core. It never reads a clock, opens a socket or a file, or uses a runtime: time, randomness and bytes are
/// parameters.
const PURE: &[&str] = &[
    "tracker/",
    "protocol/",
    "metainfo/",
    "torrents/catalog",
    "torrents/seed_health",
];

/// Names that must not occur in the pure core.
const IMPURE: &[&str] = &[
    "tokio",
    "hyper",
    "std::fs",
    "UdpSocket",
    "TcpListener",
    "::now()",
];

/// Maximum lengths in lines of code, without blank lines, comments and tests.
const MAX_FILE_LINES: usize = 700;
const MAX_FUNCTION_LINES: usize = 70;

/// Files and functions that are longer now, with their length. No entry may be added.
const LONG_FILES: &[(&str, usize)] = &[];
const LONG_FUNCTIONS: &[(&str, &str, usize)] = &[];

/// A file of `src/`, or of a tool below `src/bin/`.
struct Source {
    /// The path below `src/`, with slashes.
    path: String,
    /// The text without comments, the contents of strings, and tests.
    code: String,
}

fn sources() -> Vec<Source> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    collect(&src, &mut paths);
    paths.sort();
    let sources = paths.iter().filter_map(|path| {
        let below = path.strip_prefix(&src).unwrap().to_str().unwrap();
        let is_rust = path.extension().is_some_and(|extension| extension == "rs");
        let is_test = below.ends_with("/tests.rs") || below.contains("/tests/");
        (is_rust && !is_test).then(|| Source {
            path: below.to_owned(),
            code: without_tests(&blanked(&fs::read_to_string(path).unwrap())),
        })
    });
    sources.collect()
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => collect(&path, paths),
            false => paths.push(path),
        }
    }
}

/// Replaces comments and the contents of strings by spaces. The numbers of lines do not change.
fn blanked(text: &str) -> String {
    let bytes: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    let keep = |c: char| if c == '\n' { '\n' } else { ' ' };
    while at < bytes.len() {
        let rest = &bytes[at..];
        let end = match rest {
            ['/', '/', ..] => rest.iter().position(|&c| c == '\n').unwrap_or(rest.len()),
            ['/', '*', ..] => block_comment(rest),
            ['r', '"' | '#', ..] if !bytes[..at].last().is_some_and(|c| c.is_alphanumeric()) => {
                raw_string(rest).unwrap_or(0)
            }
            ['"', ..] => string(rest),
            ['\'', '\\', ..] => 2 + rest[2..].iter().skip(1).position(|&c| c == '\'').unwrap() + 2,
            ['\'', _, '\'', ..] => 3,
            _ => 0,
        };
        if end == 0 {
            out.push(rest[0]);
            at += 1;
        } else {
            out.extend(rest[..end].iter().map(|&c| keep(c)));
            at += end;
        }
    }
    out
}

fn block_comment(rest: &[char]) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        match rest[at..] {
            ['/', '*', ..] => (depth, at) = (depth + 1, at + 2),
            ['*', '/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn string(rest: &[char]) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != '"' {
        at += if rest[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

fn raw_string(rest: &[char]) -> Option<usize> {
    let hashes = rest[1..].iter().take_while(|&&c| c == '#').count();
    if rest.get(1 + hashes) != Some(&'"') {
        return None;
    }
    let body = &rest[2 + hashes..];
    let closes = |at: &usize| {
        body[*at] == '"'
            && body[at + 1..]
                .iter()
                .take(hashes)
                .filter(|&&c| c == '#')
                .count()
                == hashes
    };
    let end = (0..body.len()).find(closes)?;
    Some(2 + hashes + end + 1 + hashes)
}

/// Removes each item below `#[cfg(test)]`.
fn without_tests(code: &str) -> String {
    let mut out = String::new();
    let mut lines = code.lines();
    while let Some(line) = lines.next() {
        if line.trim() != "#[cfg(test)]" {
            out.push_str(line);
            out.push('\n');
            continue;
        }
        let indent = line.len() - line.trim_start().len();
        for line in lines.by_ref() {
            let is_end =
                line.starts_with(&" ".repeat(indent)) && line[indent..].starts_with(['}', ')']);
            let is_short =
                line.trim_end().ends_with(';') && line.len() - line.trim_start().len() == indent;
            if is_end || is_short {
                break;
            }
        }
    }
    out
}

/// Returns the crate's modules by path (`server::http::stream`), with their file.
fn modules(sources: &[Source]) -> HashMap<String, &str> {
    let library = sources
        .iter()
        .filter(|source| !source.path.starts_with("bin/"));
    library
        .map(|source| {
            let stem = source.path.trim_end_matches(".rs");
            let module = stem.trim_end_matches("/mod").replace('/', "::");
            (module, source.path.as_str())
        })
        .collect()
}

/// Returns every path that a file names after `crate::`, `super::`, `self::` or (in `main.rs`) `tbtt::`, from the
/// crate's root, and whether it is re-exported with `pub use`.
fn paths(source: &Source) -> Vec<(String, bool)> {
    let module = source.path.trim_end_matches(".rs").trim_end_matches("/mod");
    let module: Vec<_> = module.split('/').collect();
    let mut found = Vec::new();
    for (start, word) in ["crate::", "super::", "self::", "tbtt::"]
        .iter()
        .flat_map(|word| source.code.match_indices(word))
    {
        let before = source.code[..start].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
            continue;
        }
        if word == "tbtt::" && source.path != "main.rs" {
            continue;
        }
        let root = match word {
            "super::" => module[..module.len() - 1].join("::"),
            "self::" => module.join("::"),
            _ => String::new(),
        };
        let statement = source.code[..start]
            .rfind([';', '}', '{'])
            .map_or(0, |at| at + 1);
        let is_exported = source.code[statement..start]
            .trim_start()
            .starts_with("pub use");
        expand(&source.code[start + word.len()..], &root, &mut |path| {
            found.push((path, is_exported));
        });
    }
    found
}

/// Calls `each` with every path of a use tree: `a::{b, c::d}` names `a::b` and `a::c::d`.
fn expand(tree: &str, root: &str, each: &mut impl FnMut(String)) {
    let join = |name: &str| match (root, name) {
        ("", _) => name.to_owned(),
        (_, "self" | "") => root.to_owned(),
        _ => format!("{root}::{name}"),
    };
    let tree = tree.trim_start();
    let Some(inner) = tree.strip_prefix('{') else {
        let end = tree
            .find(|c: char| !c.is_alphanumeric() && c != '_')
            .unwrap_or(tree.len());
        let (name, rest) = tree.split_at(end);
        return match rest.strip_prefix("::") {
            Some(below) => expand(below, &join(name), each),
            None => each(join(name)),
        };
    };
    let mut depth = 0;
    let mut begin = 0;
    for (at, c) in inner.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                if !inner[begin..at].trim().is_empty() {
                    expand(&inner[begin..at], root, each);
                }
                begin = at + 1;
                if c == '}' {
                    return;
                }
            }
            _ => {}
        }
    }
}

/// Returns the module that a path leads into, which is its longest prefix that is a module, and the rest of the path.
fn module_of<'p>(path: &'p str, modules: &HashMap<String, &str>) -> Option<(&'p str, &'p str)> {
    let mut end = path.len();
    loop {
        if modules.contains_key(&path[..end]) {
            return Some((&path[..end], path[end..].trim_start_matches("::")));
        }
        end = path[..end].rfind("::")?;
    }
}

/// Returns for each file the files that it imports from. A name that a file re-exports with `pub use` is followed to
/// its owner.
fn imports(sources: &[Source]) -> BTreeMap<&str, BTreeSet<&str>> {
    let modules = modules(sources);
    let mut reexported = HashMap::new();
    for source in sources {
        let module = source.path.trim_end_matches(".rs").trim_end_matches("/mod");
        for (path, is_exported) in paths(source) {
            if is_exported {
                let name = path.rsplit("::").next().unwrap();
                reexported.insert(format!("{}::{name}", module.replace('/', "::")), path);
            }
        }
    }
    let mut imports: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for source in sources
        .iter()
        .filter(|source| !source.path.starts_with("bin/"))
    {
        let edges = imports.entry(&source.path).or_default();
        for (path, is_exported) in paths(source) {
            if is_exported {
                continue;
            }
            let mut path = path.as_str();
            while let Some(owner) = reexported.get(path) {
                path = owner;
            }
            if let Some((module, _)) = module_of(path, &modules) {
                let file = modules[module];
                if file != source.path {
                    edges.insert(file);
                }
            }
        }
    }
    let total: usize = imports.values().map(BTreeSet::len).sum();
    assert!(
        total > 150,
        "found only {total} imports: are they still written as this test reads them?"
    );
    imports
}

#[test]
fn no_two_files_import_each_other() {
    let sources = sources();
    let imports = imports(&sources);
    // Removes files that import none of the remaining files, until every remaining file is in a cycle or imports from one.
    let mut left: BTreeSet<&str> = imports.keys().copied().collect();
    loop {
        let leaves: Vec<_> = left
            .iter()
            .filter(|file| imports[*file].is_disjoint(&left))
            .copied()
            .collect();
        if leaves.is_empty() {
            break;
        }
        left.retain(|file| !leaves.contains(file));
    }
    // Removes files that no remaining file imports, so that only cycles remain.
    loop {
        let roots: Vec<_> = left
            .iter()
            .filter(|file| !left.iter().any(|other| imports[other].contains(*file)))
            .copied()
            .collect();
        if roots.is_empty() {
            break;
        }
        left.retain(|file| !roots.contains(file));
    }
    let cycles: Vec<_> = left
        .iter()
        .map(|file| format!("{file} -> {:?}", imports[file].intersection(&left)))
        .collect();
    assert!(
        cycles.is_empty(),
        "files import each other in a cycle:\n{}",
        cycles.join("\n")
    );
}

#[test]
fn folders_import_downward() {
    let sources = sources();
    let layer = |path: &str| {
        let part = path.split(['/', '.']).next().unwrap();
        let known = LAYERS.iter().find(|(name, _)| *name == part);
        (
            part.to_owned(),
            known.unwrap_or_else(|| panic!("LAYERS lacks {part}")).1,
        )
    };
    let mut wrong = Vec::new();
    for (file, imported) in imports(&sources) {
        if file == "lib.rs" {
            continue;
        }
        let (part, own) = layer(file);
        for other in imported {
            let (other_part, theirs) = layer(other);
            let is_core = matches!(part.as_str(), "tracker" | "protocol" | "metainfo");
            let is_allowed = part == other_part
                || theirs < own
                    && !(is_core && matches!(other_part.as_str(), "log" | "os" | "clock"));
            if !is_allowed {
                wrong.push(format!("{file} imports {other}"));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "imports from a higher layer, or from the same layer:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn the_core_is_pure() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for source in sources() {
        if !PURE.iter().any(|pure| source.path.starts_with(pure)) {
            continue;
        }
        seen += 1;
        for (number, line) in source.code.lines().enumerate() {
            wrong.extend(
                IMPURE
                    .iter()
                    .filter(|word| line.contains(**word))
                    .map(|word| format!("{}:{}: {word}", source.path, number + 1)),
            );
        }
    }
    assert!(seen > 20, "found only {seen} files of the core");
    assert!(
        wrong.is_empty(),
        "the core is not pure:\n{}",
        wrong.join("\n")
    );
}

fn is_code(line: &&str) -> bool {
    !line.trim().is_empty()
}

/// Compares the items that are too long with the list of exceptions.
fn check_lengths<K: Ord + std::fmt::Debug + Clone>(
    found: &BTreeMap<K, usize>,
    listed: &BTreeMap<K, usize>,
    max: usize,
) {
    let mut wrong = Vec::new();
    for (item, lines) in found.iter().filter(|(_, lines)| **lines > max) {
        match listed.get(item) {
            None => wrong.push(format!(
                "{item:?} has {lines} lines of code; the maximum is {max}"
            )),
            Some(old) if lines > old => wrong.push(format!(
                "{item:?} grew from {old} to {lines} lines; split it"
            )),
            Some(old) if lines < old => wrong.push(format!(
                "{item:?} shrank from {old} to {lines} lines; lower its entry"
            )),
            Some(_) => {}
        }
    }
    for item in listed.keys() {
        if found.get(item).is_none_or(|lines| *lines <= max) {
            wrong.push(format!("{item:?} is no longer too long; remove its entry"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_are_short() {
    let lengths = sources()
        .iter()
        .map(|source| {
            (
                source.path.clone(),
                source.code.lines().filter(is_code).count(),
            )
        })
        .collect();
    let listed = LONG_FILES
        .iter()
        .map(|(path, lines)| ((*path).to_owned(), *lines))
        .collect();
    check_lengths(&lengths, &listed, MAX_FILE_LINES);
}

#[test]
fn functions_are_short() {
    let mut lengths = BTreeMap::new();
    for source in sources() {
        let lines: Vec<_> = source.code.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let Some(name) = function_name(line) else {
                continue;
            };
            let indent = line.len() - line.trim_start().len();
            let closing = format!("{}}}", " ".repeat(indent));
            let rest = &lines[at..];
            let Some(end) = rest.iter().position(|line| {
                line.starts_with(&closing)
                    || line.ends_with(';') && line.len() - line.trim_start().len() == indent
            }) else {
                continue;
            };
            let length = rest[..=end].iter().copied().filter(is_code).count();
            let longest: &mut usize = lengths
                .entry((source.path.clone(), name.to_owned()))
                .or_default();
            *longest = length.max(*longest);
        }
    }
    assert!(
        lengths.len() > 500,
        "found only {} functions",
        lengths.len()
    );
    let listed = LONG_FUNCTIONS
        .iter()
        .map(|(path, name, lines)| (((*path).to_owned(), (*name).to_owned()), *lines))
        .collect();
    check_lengths(&lengths, &listed, MAX_FUNCTION_LINES);
}

/// Returns the name of the function that begins in this line.
fn function_name(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace();
    loop {
        match words.next()? {
            "fn" => break,
            "async" | "const" | "unsafe" => {}
            word if word.starts_with("pub") => {}
            "in" => {}
            word if word.ends_with(')') => {}
            _ => return None,
        }
    }
    let name = words.next()?;
    name.split(['(', '<']).next()
}

#[test]
fn a_type_name_occurs_once() {
    let mut owners: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut seen = 0;
    for source in sources()
        .iter()
        .filter(|source| !source.path.starts_with("bin/"))
    {
        for line in source.code.lines() {
            let words: Vec<_> = line.split_whitespace().collect();
            let Some(at) = words
                .iter()
                .position(|word| matches!(*word, "struct" | "enum" | "trait" | "type" | "union"))
            else {
                continue;
            };
            // An associated type is indented.
            let is_item = words[..at]
                .iter()
                .all(|word| word.starts_with("pub") || *word == "in" || word.ends_with(')'));
            if !is_item || words[at] == "type" && line.starts_with(' ') {
                continue;
            }
            let name: String = words.get(at + 1).map_or_else(String::new, |name| {
                name.chars()
                    .take_while(|c| c.is_alphanumeric() || *c == '_')
                    .collect()
            });
            seen += 1;
            owners.entry(name).or_default().insert(source.path.clone());
        }
    }
    assert!(seen > 150, "found only {seen} types");
    // A build without the feature uses the stub instead of the other file.
    let is_stub =
        |files: &BTreeSet<String>| files.iter().all(|file| file.starts_with("cluster/redis"));
    let twice: Vec<_> = owners
        .iter()
        .filter(|(name, files)| files.len() > 1 && *name != "Settings" && !is_stub(files))
        .map(|(name, files)| format!("{name}: {files:?}"))
        .collect();
    assert!(
        twice.is_empty(),
        "type names that occur twice:\n{}",
        twice.join("\n")
    );
}

#[test]
fn this_test_reads_rust() {
    let code =
        blanked("a /* \" /* x */ */ b \"c\\\"d\" 'e' '\\'' '\\u{41}' r#\"f\"g\"# h<'i> // j\nk");
    assert_eq!(
        code.split_whitespace().collect::<Vec<_>>(),
        ["a", "b", "h<'i>", "k"]
    );
    let source = Source {
        path: "a/b.rs".to_owned(),
        code: "use crate::x::{self, y::{P, Q}, Z};\nuse super::c::D;\npub use self::e::F;"
            .to_owned(),
    };
    let found: Vec<_> = paths(&source).into_iter().collect();
    let expected = ["x", "x::y::P", "x::y::Q", "x::Z", "a::c::D", "a::b::e::F"];
    assert_eq!(
        found
            .iter()
            .map(|(path, _)| path.as_str())
            .collect::<Vec<_>>(),
        expected
    );
    assert!(
        found
            .iter()
            .all(|(path, is_exported)| *is_exported == path.ends_with('F'))
    );
    assert_eq!(
        without_tests("a\n#[cfg(test)]\nmod tests {\n    b\n}\nc\n"),
        "a\nc\n"
    );
    assert_eq!(
        function_name("    pub(in crate::server) async fn name<T>("),
        Some("name")
    );
    assert_eq!(function_name("    // fn name"), None);
}
