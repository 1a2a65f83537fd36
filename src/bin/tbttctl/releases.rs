//! Selects, sorts and prints releases.

use std::cmp::Reverse;
use std::fmt::Write;

use serde::Serialize;
use tbtt::status::report::{Release, ReleaseHealth};
use tbtt::utc::UnixSecs;

use super::arguments::{Sort, Torrents};
use super::text::{Style, ago, date, size};

/// Maximum number of releases listed in an error about an ambiguous name.
const MAX_NAMED: usize = 10;

/// Returns the releases that the options select, in order.
pub(super) fn select<'a>(releases: &'a [Release], options: &Torrents) -> Vec<&'a Release> {
    let pattern = options.pattern.as_deref().map(str::to_lowercase);
    let mut selected: Vec<_> = releases
        .iter()
        .filter(|release| !options.unseeded || release.health != ReleaseHealth::Seeded)
        .filter(|release| {
            pattern
                .as_ref()
                .is_none_or(|p| matches_pattern(&release.name, p))
        })
        .collect();
    sort(&mut selected, options.sort);
    if options.reverse {
        selected.reverse();
    }
    selected
}

/// Sorts by name from A to Z, or by anything else from the largest or latest, and then by name.
pub(super) fn sort(releases: &mut [&Release], by: Sort) {
    releases.sort_by(|a, b| {
        let largest_first = |of: fn(&Release) -> u64| Reverse(of(a)).cmp(&Reverse(of(b)));
        let order = match by {
            Sort::Name => std::cmp::Ordering::Equal,
            Sort::Size => largest_first(|r| r.size),
            Sort::Seeders => largest_first(|r| r.seeders.into()),
            Sort::Leechers => largest_first(|r| r.leechers.into()),
            Sort::Downloads => largest_first(|r| r.downloads.into()),
            Sort::Listed => largest_first(|r| r.listed_since),
            Sort::LastSeed => largest_first(|r| r.last_seed.unwrap_or_default()),
        };
        order.then_with(|| a.name.cmp(&b.name))
    });
}

/// Returns whether a name contains the pattern, or whether the whole name matches a pattern with `*` or `?`. The
/// pattern is in lower case.
fn matches_pattern(name: &str, pattern: &str) -> bool {
    let name = name.to_lowercase();
    match pattern.contains(['*', '?']) {
        false => name.contains(pattern),
        true => matches_glob(
            &name.chars().collect::<Vec<_>>(),
            &pattern.chars().collect::<Vec<_>>(),
        ),
    }
}

/// Matches a pattern with `*` and `?` as in a shell. On a mismatch it goes back to the last `*` only, so the time is
/// bounded by the product of both lengths.
fn matches_glob(name: &[char], pattern: &[char]) -> bool {
    let (mut in_name, mut in_pattern) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while in_name < name.len() {
        match pattern.get(in_pattern) {
            Some('*') => {
                star = Some((in_name, in_pattern));
                in_pattern += 1;
            }
            Some(&c) if c == '?' || c == name[in_name] => {
                (in_name, in_pattern) = (in_name + 1, in_pattern + 1);
            }
            _ => match &mut star {
                Some((from, star_at)) => {
                    *from += 1;
                    (in_name, in_pattern) = (*from, *star_at + 1);
                }
                None => return false,
            },
        }
    }
    pattern[in_pattern..].iter().all(|&c| c == '*')
}

/// Finds a release by its name, by an info-hash or at least its first six digits, or by a part of the name that no other
/// release has.
pub(super) fn find<'a>(releases: &'a [Release], which: &str) -> Result<&'a Release, String> {
    let lower = which.to_lowercase();
    let has_id = |release: &&Release| {
        let ids = [&release.v1, &release.v2];
        let is_hex = lower.len() >= 6 && lower.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_hex && ids.into_iter().flatten().any(|id| id.starts_with(&lower))
    };
    let is_named = |release: &&Release| release.name == which;
    let has_part = |release: &&Release| release.name.to_lowercase().contains(&lower);
    let criteria: [&dyn Fn(&&Release) -> bool; 3] = [&is_named, &has_id, &has_part];
    for criterion in criteria {
        let found: Vec<_> = releases.iter().filter(criterion).collect();
        match found[..] {
            [] => {}
            [release] => return Ok(release),
            _ => {
                let mut error = format!("{} releases match \"{which}\":", found.len());
                for release in found.iter().take(MAX_NAMED) {
                    let _ = write!(error, "\n  {}  {}", release.id(), release.name);
                }
                if found.len() > MAX_NAMED {
                    error += "\n  ...";
                }
                return Err(error);
            }
        }
    }
    Err(format!(
        "no release has the info-hash or name \"{which}\"; to list all releases, run tbttctl torrents"
    ))
}

pub(super) fn json(releases: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(releases).unwrap_or_default()
}

/// The headings of [`table`].
pub(super) const HEADINGS: &str =
    "  SEEDERS  LEECHERS  DOWNLOADS        SIZE  LAST SEEDED      NAME";

/// Formats releases as a table with a line for each.
pub(super) fn table(releases: &[&Release], now: UnixSecs, style: Style) -> String {
    let mut text = format!("{}\n", style.bold(HEADINGS));
    for release in releases {
        text += &row(release, now, style);
        text += "\n";
    }
    text
}

/// Formats a line of the table.
pub(super) fn row(release: &Release, now: UnixSecs, style: Style) -> String {
    let last_seed = match release.health {
        ReleaseHealth::Seeded => "now".to_owned(),
        _ => ago(now, release.last_seed),
    };
    let last_seed = format!("{last_seed:<15}");
    let last_seed = match (release.health, release.overdue) {
        (ReleaseHealth::Seeded, _) => last_seed,
        (_, false) => style.yellow(&last_seed),
        (_, true) => style.red(&last_seed),
    };
    format!(
        "{:>9} {:>9} {:>10}  {:>10}  {last_seed}  {}",
        release.seeders,
        release.leechers,
        release.downloads,
        size(release.size),
        release.name,
    )
}

/// Formats everything about a release.
pub(super) fn details(release: &Release, now: UnixSecs, style: Style) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{} {value}", style.bold(&format!("{name:<13}")));
    };
    let when = |at: Option<UnixSecs>| match at {
        Some(at) => format!("{} ({})", date(at), ago(now, Some(at))),
        None => "never".to_owned(),
    };
    line("name", &release.name);
    line(
        "size",
        &format!("{} ({} bytes)", size(release.size), release.size),
    );
    for (name, id) in [("v1", &release.v1), ("v2", &release.v2)] {
        if let Some(id) = id {
            line(name, id);
        }
    }
    if let Some(file) = &release.file {
        line("file", &file.display().to_string());
    }
    line("health", &style.health(release.health, release.overdue));
    line("seeders", &release.seeders.to_string());
    line("leechers", &release.leechers.to_string());
    line("downloads", &release.downloads.to_string());
    line("listed", &when(Some(release.listed_since)));
    line("first seeded", &when(release.first_seed));
    line("last seeded", &when(release.last_seed));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(name: &str, id: &str, seeders: u32) -> Release {
        Release {
            name: name.to_owned(),
            v1: Some(id.to_owned()),
            seeders,
            ..Release::default()
        }
    }

    #[test]
    fn patterns_match_parts_or_whole_names() {
        let name = "Debian-13.1.0-amd64-netinst.iso";
        for (pattern, expected) in [
            ("amd64", true),
            ("debian-13", true),
            ("arm64", false),
            ("*.iso", true),
            ("*.ISO", true),
            ("debian-1?.*netinst.iso", true),
            ("debian-*-*-*", true),
            ("netinst*", false),
            ("*", true),
            ("?", false),
            ("", true),
        ] {
            assert_eq!(
                matches_pattern(name, &pattern.to_lowercase()),
                expected,
                "{pattern}"
            );
        }
        let many: Vec<char> = "a".repeat(5000).chars().collect();
        let slow: Vec<char> = "*a*a*a*a*a*a*a*a*b".chars().collect();
        assert!(!matches_glob(&many, &slow));
    }

    #[test]
    fn finds_a_release_by_unique_name_or_id() {
        let all = [
            release("disc", "aabbcc00", 1),
            release("disc two", "aabbcc11", 2),
            release("abcdef", "00ddee22", 3),
        ];
        let found = |which: &str| find(&all, which).map(|release| release.seeders).ok();
        assert_eq!(found("disc"), Some(1), "a whole name wins over a part");
        assert_eq!(found("DISC T"), Some(2));
        assert_eq!(found("aabbcc1"), Some(2));
        assert_eq!(found("AABBCC00"), Some(1));
        assert_eq!(found("aabbcc"), None, "ambiguous");
        assert_eq!(found("aabb"), None, "too short for an ID");
        assert_eq!(found("abcdef"), Some(3));
        let error = find(&all, "aabbcc").unwrap_err();
        assert!(error.contains("\n  aabbcc11  disc two"), "{error}");
    }

    #[test]
    fn sorts_numbers_descending_and_names_ascending() {
        let all = [
            release("b", "", 5),
            release("a", "", 5),
            release("c", "", 7),
        ];
        let sorted = |by| {
            let mut sorted: Vec<_> = all.iter().collect();
            sort(&mut sorted, by);
            sorted.iter().map(|r| r.name.as_str()).collect::<String>()
        };
        assert_eq!(sorted(Sort::Name), "abc");
        assert_eq!(sorted(Sort::Seeders), "cab");
    }

    #[test]
    fn columns_align_with_headings() {
        let row = row(&release("x", "", 12), 0, Style::of_stdout());
        let at = |text: &str, part: &str| text.find(part).unwrap();
        assert_eq!(at(&row, "x"), at(HEADINGS, "NAME"));
        assert_eq!(at(&row, "never"), at(HEADINGS, "LAST SEEDED"));
        assert_eq!(at(&row, "12") + 2, at(HEADINGS, "SEEDERS") + 7);
    }
}
