//! Errors and warnings about the configuration, as lines for the operator.

use std::error::Error;
use std::fmt::{self, Write as _};
use std::path::PathBuf;

/// An error or warning. It is displayed as `file:line: [section] key: problem; remedy`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Diagnostic {
    /// The file that the text is about; `None` if the text is about a default.
    pub file: Option<PathBuf>,
    /// The line, from 1; `None` if the text is about the whole file.
    pub line: Option<usize>,
    pub text: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}:", file.display())?;
            if let Some(line) = self.line {
                write!(f, "{line}:")?;
            }
            f.write_str(" ")?;
        }
        // The text may quote the file. Control characters are escaped, so that a terminal does not interpret them.
        self.text
            .chars()
            .try_for_each(|char| match char.is_control() {
                true => write!(f, "{}", char.escape_default()),
                false => f.write_char(char),
            })
    }
}

/// All errors of a configuration. It is never empty, and is displayed with a line for each error.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Errors(pub Vec<Diagnostic>);

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            let newline = if i > 0 { "\n" } else { "" };
            write!(f, "{newline}{error}")?;
        }
        Ok(())
    }
}

impl Error for Errors {}
