//! Formats one log line: no control characters, and no longer than [`MAX_LINE_LEN`].

use std::fmt::{Display, Write as _};

/// Maximum length of a line in bytes, with prefix and newline. This is `PIPE_BUF`: a pipe accepts a write of up to this
/// size completely or not at all (pipe(7)). A longer line is cut and ends in `cut=yes`.
pub const MAX_LINE_LEN: usize = 4096;

/// Bytes reserved for the prefix: priority, name and pid, or time and level.
pub(super) const MAX_PREFIX_LEN: usize = 64;

pub(super) const CUT_MARK: &str = " cut=yes";

/// Details that follow the message of a line, as `key=value` in the given order. Keys are in lower case.
pub type Fields<'a> = &'a [(&'a str, &'a dyn Display)];

/// Returns the message and its fields as the text of one line, without prefix and newline.
pub(super) fn compose(message: &str, fields: Fields<'_>) -> String {
    let mut line = LineBuffer {
        text: String::with_capacity(256),
        cut: false,
    };
    for character in message.chars() {
        line.push_escaped(character);
    }
    for (key, value) in fields {
        line.push_field(key, value);
    }
    if line.cut {
        line.text.push_str(CUT_MARK);
    }
    line.text
}

/// The text of a line, up to its maximum length.
pub(super) struct LineBuffer {
    text: String,
    /// The line is full: only the mark that reports the cut is added.
    cut: bool,
}

impl LineBuffer {
    /// Maximum length of the text. The bytes after that are for a closing quote, the mark and the newline.
    pub(super) const MAX_TEXT_LEN: usize = MAX_LINE_LEN - MAX_PREFIX_LEN - CUT_MARK.len() - 2;

    fn push(&mut self, piece: impl Display) {
        let before = self.text.len();
        if !self.cut
            && (write!(self.text, "{piece}").is_err() || self.text.len() > Self::MAX_TEXT_LEN)
        {
            self.text.truncate(before);
            self.cut = true;
        }
    }

    fn push_field(&mut self, key: &str, value: &dyn Display) {
        let before = self.text.len();
        self.push(format_args!(" {key}="));
        if self.cut {
            return;
        }
        // Most values need no quotes, so the value is written in place first, and removed if it needs them.
        let start = self.text.len();
        let written = write!(self.text, "{value}");
        let is_bare = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'=');
        let value = &self.text[start..];
        if written.is_ok()
            && !value.is_empty()
            && value.bytes().all(is_bare)
            && self.text.len() <= Self::MAX_TEXT_LEN
        {
            return;
        }
        let value = self.text.split_off(start);
        self.push('"');
        if self.cut {
            self.text.truncate(before);
            return;
        }
        for character in value.chars() {
            match character {
                '"' | '\\' => self.push(format_args!("\\{character}")),
                _ => self.push_escaped(character),
            }
        }
        self.text.push('"');
    }

    /// Appends a character. Control characters, line separators, marks for the direction of text and the like are
    /// written as Rust escapes.
    fn push_escaped(&mut self, character: char) {
        match character {
            '"' | '\'' | '\\' => self.push(character),
            _ => self.push(character.escape_debug()),
        }
    }
}
