//! The arrows between the parts point down, as the plan of the house has them.

use std::fs;
use std::path::{Path, PathBuf};

/// Each part, and what it may use of the others.
const MAY_USE: &[(&str, &[&str])] = &[
    ("tracker", &[]),
    ("log", &[]),
    ("os", &[]),
    ("protocol", &["tracker"]),
    ("metainfo", &["tracker"]),
    ("snapshot", &["tracker"]),
    ("publish", &["metainfo", "protocol", "tracker"]),
    ("server", &["metainfo", "protocol", "tracker"]),
    ("cluster", &["protocol", "server", "tracker"]),
    (
        "config",
        &["cluster", "log", "os", "protocol", "server", "tracker"],
    ),
    (
        "service",
        &[
            "cluster", "config", "log", "os", "protocol", "publish", "server", "snapshot",
            "tracker",
        ],
    ),
];

fn sources(below: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(below).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => sources(&path, found),
            false => found.push(path),
        }
    }
}

/// The file's part, by its first name below `src`.
fn part(path: &Path, src: &Path) -> String {
    let below = path.strip_prefix(src).unwrap().with_extension("");
    below.iter().next().unwrap().to_str().unwrap().to_owned()
}

#[test]
fn arrows_point_down() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let mut seen = 0;
    for file in files {
        let part = part(&file, &src);
        // A tool of `bin` is a crate of its own.
        if part == "lib" || part == "main" || part == "bin" {
            continue;
        }
        let (_, may_use) = MAY_USE
            .iter()
            .find(|(name, _)| *name == part)
            .expect("a part that the plan contains");
        // What stands below `mod tests` may look around.
        let text = fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        for (at, _) in code.match_indices("crate::") {
            let used = code[at + "crate::".len()..]
                .split(|c: char| !c.is_alphanumeric() && c != '_')
                .next()
                .unwrap();
            seen += 1;
            assert!(
                used == part || may_use.contains(&used),
                "{} uses {used}, which {part} may not",
                file.display()
            );
        }
    }
    assert!(
        seen > 50,
        "only {seen} uses were found: is this still how they are written?"
    );
}
