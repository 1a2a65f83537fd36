//! Suggestions for misspelled names.

/// Returns the known name that `name` is probably a misspelling of, if one is similar enough.
///
/// At most one character in three may differ. Letter case, and the difference between `-` and `_`, are ignored.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let name: Vec<char> = name.to_lowercase().replace('-', "_").chars().collect();
    let (distance, nearest) = known
        .map(|known| (edit_distance(&name, known), known))
        .min()?;
    (distance <= name.len().div_ceil(3)).then_some(nearest)
}

/// Returns the number of characters to add, remove or change to turn `a` into `b` (Levenshtein distance).
fn edit_distance(a: &[char], b: &str) -> usize {
    let mut row: Vec<usize> = (0..=a.len()).collect();
    for c in b.chars() {
        let mut diagonal = row[0];
        row[0] += 1;
        for (i, d) in a.iter().enumerate() {
            let change = diagonal + usize::from(c != *d);
            diagonal = row[i + 1];
            row[i + 1] = change.min(row[i] + 1).min(diagonal + 1);
        }
    }
    row[a.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_similar_name() {
        let known = || ["interval", "min_interval", "numwant"].into_iter();
        assert_eq!(nearest("intervall", known()), Some("interval"));
        assert_eq!(nearest("Min-Interval", known()), Some("min_interval"));
        assert_eq!(nearest("numwat", known()), Some("numwant"));
        assert_eq!(nearest("rotate", known()), None);
    }

    #[test]
    fn counts_edits() {
        let distance = |a: &str, b| edit_distance(&a.chars().collect::<Vec<_>>(), b);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", ""), 3);
        assert_eq!(distance("abc", "abc"), 0);
    }
}
