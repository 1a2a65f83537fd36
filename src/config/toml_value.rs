//! TOML values with their position in the file, before they are checked.

use std::fmt;
use std::ops::Range;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use toml::Spanned;

/// A value of a file. It replaces `toml::Value`, which does not keep the position: errors name the line.
#[derive(Debug)]
pub(super) enum TomlValue {
    Text(String),
    Number(i128),
    Fraction,
    Boolean(bool),
    Date,
    List(Vec<Spanned<Self>>),
    Table(Vec<(String, Spanned<Self>)>),
}

impl TomlValue {
    /// Returns the name of the type, as text to follow "X is ".
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Number(_) => "a number",
            Self::Fraction => "a fraction",
            Self::Boolean(_) => "a boolean",
            Self::Date => "a date or time",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        }
    }
}

/// The top-level names and values of a file.
///
/// They have no positions, because toml 0.8 reports none for a section that exists only as `section.key = value`.
pub(super) struct Document(pub(super) Vec<(String, TomlValue)>);

/// The reason why a text is not TOML.
pub(super) struct SyntaxError {
    pub(super) message: String,
    pub(super) span: Option<Range<usize>>,
}

/// Parses the text of a file.
pub(super) fn parse(text: &str) -> Result<Document, SyntaxError> {
    toml::from_str(text).map_err(|error| SyntaxError {
        message: error.message().lines().collect::<Vec<_>>().join(": "),
        span: error.span(),
    })
}

/// Returns the line of the byte at `offset`, from 1.
pub(super) fn line_at(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().iter().take(offset);
    1 + before.filter(|byte| **byte == b'\n').count()
}

/// Returns the first line that starts with `name`, with or without brackets.
///
/// It is probably the line of a section, or of a key outside of a section, for which the parser has no position.
pub(super) fn line_of_name(text: &str, name: &str) -> Option<usize> {
    let starts = |line: &str| {
        let rest = line.trim_start_matches(['[', ' ', '\t', '"', '\'', '\u{feff}']);
        let rest = rest.strip_prefix(name)?;
        (!rest.starts_with(|c: char| c.is_alphanumeric() || "_-".contains(c))).then_some(())
    };
    Some(1 + text.lines().position(|line| starts(line).is_some())?)
}

// The toml crate passes a date as a map with this single name to code that has no type for dates.
const DATE: &str = "$__toml_private_datetime";

impl<'de> Deserialize<'de> for TomlValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TomlVisitor)
    }
}

struct TomlVisitor;

impl<'de> Visitor<'de> for TomlVisitor {
    type Value = TomlValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_str<E>(self, text: &str) -> Result<TomlValue, E> {
        Ok(TomlValue::Text(text.to_owned()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<TomlValue, E> {
        Ok(TomlValue::Number(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<TomlValue, E> {
        Ok(TomlValue::Number(number.into()))
    }

    fn visit_i128<E>(self, number: i128) -> Result<TomlValue, E> {
        Ok(TomlValue::Number(number))
    }

    fn visit_u128<E>(self, _: u128) -> Result<TomlValue, E> {
        Ok(TomlValue::Number(i128::MAX))
    }

    fn visit_f64<E>(self, _: f64) -> Result<TomlValue, E> {
        Ok(TomlValue::Fraction)
    }

    fn visit_bool<E>(self, value: bool) -> Result<TomlValue, E> {
        Ok(TomlValue::Boolean(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<TomlValue, A::Error> {
        let mut list = Vec::new();
        while let Some(element) = access.next_element()? {
            list.push(element);
        }
        Ok(TomlValue::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<TomlValue, A::Error> {
        let mut table = Vec::new();
        while let Some(name) = access.next_key::<String>()? {
            if name == DATE {
                access.next_value::<String>()?;
                return Ok(TomlValue::Date);
            }
            table.push((name, access.next_value()?));
        }
        Ok(TomlValue::Table(table))
    }
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct DocumentVisitor;

        impl<'de> Visitor<'de> for DocumentVisitor {
            type Value = Document;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table of sections")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Document, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = access.next_entry()? {
                    entries.push(entry);
                }
                Ok(Document(entries))
            }
        }

        deserializer.deserialize_map(DocumentVisitor)
    }
}
