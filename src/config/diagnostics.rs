//! Lines for the operator about the configuration.

use std::fmt::{self, Write as _};
use std::path::PathBuf;

/// A line for the operator about the configuration: `file:line: [section] key: what; what to do`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Diagnostic {
    /// `None` where a default is to blame.
    pub file: Option<PathBuf>,
    /// From 1; `None` where the file as a whole is meant.
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
        // It may quote the file, which a terminal is not to take for commands.
        self.text
            .chars()
            .try_for_each(|char| match char.is_control() {
                true => write!(f, "{}", char.escape_default()),
                false => f.write_char(char),
            })
    }
}

/// All that keeps a configuration from being used, one line each. Never empty.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Errors(pub Vec<Diagnostic>);

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, fault) in self.0.iter().enumerate() {
            let newline = if i > 0 { "\n" } else { "" };
            write!(f, "{newline}{fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Errors {}
