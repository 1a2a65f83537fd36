//! Lists as operators keep them in files: one entry a line, `#` begins a comment.

use std::fmt;

/// What is wrong with a list, and in which line; the first line is 1.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListFault {
    pub line: usize,
    pub reason: String,
}

impl fmt::Display for ListFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.reason)
    }
}

impl std::error::Error for ListFault {}

/// Reads each entry with `parse`, whose error is a sentence for the operator.
pub(crate) fn parse_lines<T>(
    text: &str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, ListFault> {
    let mut entries = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let entry = line.split_once('#').map_or(line, |(entry, _)| entry).trim();
        if entry.is_empty() {
            continue;
        }
        let line = index + 1;
        entries.push(parse(entry).map_err(|reason| ListFault { line, reason })?);
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_without_comments_and_faults_with_their_line() {
        let parse = |entry: &str| entry.parse::<u8>().map_err(|_| format!("`{entry}`"));
        assert_eq!(
            parse_lines("# one\n1\n\n 2 # two\r\n\t3#\n#", parse),
            Ok(vec![1, 2, 3])
        );
        assert_eq!(parse_lines("", parse), Ok(vec![]));
        let fault = parse_lines("1\n#\nx # y\nz", parse).unwrap_err();
        assert_eq!(fault.to_string(), "line 3: `x`");
    }
}
