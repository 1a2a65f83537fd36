use std::fmt::{Display, Write as _};

/// The longest line in bytes, its prefix and newline included: `PIPE_BUF`, the most that a pipe takes whole or not
/// at all (pipe(7)). A longer one is cut and ends in `cut=yes`.
pub const LINE_MAX: usize = 4096;

/// Kept free for what stands before the sentence: priority, name and pid, or time and level.
pub(super) const PREFIX_MAX: usize = 64;

pub(super) const CUT_MARK: &str = " cut=yes";

/// What a line says after its sentence: `key=value`, keys in lower case, in the order given.
pub type Fields<'a> = &'a [(&'a str, &'a dyn Display)];

/// The sentence and its fields as one line's text: no newline or other control character gets through, and it always fits.
pub(super) fn compose(sentence: &str, fields: Fields<'_>) -> String {
    let mut line = Line {
        text: String::with_capacity(256),
        cut: false,
    };
    for character in sentence.chars() {
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

pub(super) struct Line {
    text: String,
    /// Full: nothing more is added but the mark that says so.
    cut: bool,
}

impl Line {
    /// The last bytes are for a closing quote, the mark and the newline.
    pub(super) const ROOM: usize = LINE_MAX - PREFIX_MAX - CUT_MARK.len() - 2;

    fn push(&mut self, piece: impl Display) {
        let before = self.text.len();
        if !self.cut && (write!(self.text, "{piece}").is_err() || self.text.len() > Self::ROOM) {
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
        // Written where it belongs; taken out again only if it cannot stand there bare.
        let start = self.text.len();
        let told = write!(self.text, "{value}");
        let bare = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'=');
        let value = &self.text[start..];
        if told.is_ok()
            && !value.is_empty()
            && value.bytes().all(bare)
            && self.text.len() <= Self::ROOM
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

    /// Control characters, line separators, text-direction marks and the like are written as Rust writes them.
    fn push_escaped(&mut self, character: char) {
        match character {
            '"' | '\'' | '\\' => self.push(character),
            _ => self.push(character.escape_debug()),
        }
    }
}
