//! Releases: chosen, sorted, and shown as a table or one by one.

use std::cmp::Reverse;
use std::fmt::Write;

use serde::Serialize;
use tbtt::status::report::{Release, ReleaseHealth};
use tbtt::utc::UnixSecs;

use super::arguments::{Sort, Torrents};
use super::text::{Style, ago, date, size};

/// How many releases a refusal to choose among them names.
const NAMED: usize = 10;

/// Those that are wanted, in the order that is.
pub(super) fn chosen<'a>(releases: &'a [Release], wanted: &Torrents) -> Vec<&'a Release> {
    let pattern = wanted.pattern.as_deref().map(str::to_lowercase);
    let mut chosen: Vec<_> = releases
        .iter()
        .filter(|release| !wanted.unseeded || release.health != ReleaseHealth::Seeded)
        .filter(|release| pattern.as_ref().is_none_or(|p| is_like(&release.name, p)))
        .collect();
    sort(&mut chosen, wanted.sort);
    if wanted.reverse {
        chosen.reverse();
    }
    chosen
}

/// Names from A on, of anything else the most or the latest first; then by name.
pub(super) fn sort(releases: &mut [&Release], by: Sort) {
    releases.sort_by(|a, b| {
        let most_first = |of: fn(&Release) -> u64| Reverse(of(a)).cmp(&Reverse(of(b)));
        let order = match by {
            Sort::Name => std::cmp::Ordering::Equal,
            Sort::Size => most_first(|r| r.size),
            Sort::Seeders => most_first(|r| r.seeders.into()),
            Sort::Leechers => most_first(|r| r.leechers.into()),
            Sort::Downloads => most_first(|r| r.downloads.into()),
            Sort::Listed => most_first(|r| r.listed_since),
            Sort::LastSeed => most_first(|r| r.last_seed.unwrap_or_default()),
        };
        order.then_with(|| a.name.cmp(&b.name))
    });
}

/// Whether a name has the pattern, which is in lower case, or, if that has `*` or `?`, is like it as a whole.
fn is_like(name: &str, pattern: &str) -> bool {
    let name = name.to_lowercase();
    match pattern.contains(['*', '?']) {
        false => name.contains(pattern),
        true => matches(
            &name.chars().collect::<Vec<_>>(),
            &pattern.chars().collect::<Vec<_>>(),
        ),
    }
}

/// A shell's `*` and `?`. Goes back to the last `*` alone, so it takes no longer than both lengths multiplied.
fn matches(name: &[char], pattern: &[char]) -> bool {
    let (mut at, mut by) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while at < name.len() {
        match pattern.get(by) {
            Some('*') => {
                star = Some((at, by));
                by += 1;
            }
            Some(&c) if c == '?' || c == name[at] => (at, by) = (at + 1, by + 1),
            _ => match &mut star {
                Some((from, star_by)) => {
                    *from += 1;
                    (at, by) = (*from, *star_by + 1);
                }
                None => return false,
            },
        }
    }
    pattern[by..].iter().all(|&c| c == '*')
}

/// The one that is meant: by an id or its beginning, by its name, or by a part that no other name has.
pub(super) fn find<'a>(releases: &'a [Release], which: &str) -> Result<&'a Release, String> {
    let lower = which.to_lowercase();
    let has_id = |release: &&Release| {
        let ids = [&release.v1, &release.v2];
        let is_hex = lower.len() >= 6 && lower.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_hex && ids.into_iter().flatten().any(|id| id.starts_with(&lower))
    };
    let is_named = |release: &&Release| release.name == which;
    let has_part = |release: &&Release| release.name.to_lowercase().contains(&lower);
    let ways: [&dyn Fn(&&Release) -> bool; 3] = [&is_named, &has_id, &has_part];
    for way in ways {
        let found: Vec<_> = releases.iter().filter(way).collect();
        match found[..] {
            [] => {}
            [release] => return Ok(release),
            _ => {
                let mut why = format!("{} releases are like \"{which}\":", found.len());
                for release in found.iter().take(NAMED) {
                    let id = release.v1.as_ref().or(release.v2.as_ref());
                    let id = id.map_or("", String::as_str);
                    let _ = write!(why, "\n  {id}  {}", release.name);
                }
                if found.len() > NAMED {
                    why += "\n  ...";
                }
                return Err(why);
            }
        }
    }
    Err(format!(
        "no release has the info-hash or name \"{which}\"; tbttctl torrents lists all"
    ))
}

pub(super) fn json(releases: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(releases).unwrap_or_default()
}

/// What [`table`] has over its columns.
pub(super) const HEADINGS: &str =
    "  SEEDERS  LEECHERS  DOWNLOADS        SIZE  LAST SEED        NAME";

/// A line for each.
pub(super) fn table(releases: &[&Release], now: UnixSecs, style: Style) -> String {
    let mut text = format!("{}\n", style.bold(HEADINGS));
    for release in releases {
        text += &row(release, now, style);
        text += "\n";
    }
    text
}

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

/// All about one.
pub(super) fn card(release: &Release, now: UnixSecs, style: Style) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{} {value}", style.bold(&format!("{name:<12}")));
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
    line("first seed", &when(release.first_seed));
    line("last seed", &when(release.last_seed));
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
    fn patterns_are_parts_or_a_shells() {
        let name = "Debian-13.1.0-amd64-netinst.iso";
        for (pattern, is) in [
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
            assert_eq!(is_like(name, &pattern.to_lowercase()), is, "{pattern}");
        }
        let many: Vec<char> = "a".repeat(5000).chars().collect();
        let slow: Vec<char> = "*a*a*a*a*a*a*a*a*b".chars().collect();
        assert!(!matches(&many, &slow));
    }

    #[test]
    fn one_is_found_by_what_it_alone_has() {
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
        assert_eq!(found("aabbcc"), None, "of two");
        assert_eq!(found("aabb"), None, "too short for an id");
        assert_eq!(found("abcdef"), Some(3));
        let why = find(&all, "aabbcc").unwrap_err();
        assert!(why.contains("\n  aabbcc11  disc two"), "{why}");
    }

    #[test]
    fn the_most_come_first_and_names_from_a_on() {
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
    fn rows_stand_under_their_headings() {
        let row = row(&release("x", "", 12), 0, Style::of_stdout());
        let at = |text: &str, part: &str| text.find(part).unwrap();
        assert_eq!(at(&row, "x"), at(HEADINGS, "NAME"));
        assert_eq!(at(&row, "never"), at(HEADINGS, "LAST SEED"));
        assert_eq!(at(&row, "12") + 2, at(HEADINGS, "SEEDERS") + 7);
    }
}
