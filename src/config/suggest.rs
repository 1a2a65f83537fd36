//! The known name that a text is likely a slip of.

/// The known name that `name` is likely a slip of, if one is near enough.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let name: Vec<char> = name.to_lowercase().replace('-', "_").chars().collect();
    let near = known.map(|known| (edits(&name, known), known)).min()?;
    (near.0 <= name.len().div_ceil(3)).then_some(near.1)
}

/// How many characters must be added, removed or changed to get from `a` to `b` (Levenshtein).
fn edits(a: &[char], b: &str) -> usize {
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
