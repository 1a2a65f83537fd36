//! What a file says, before anyone asks whether it may: TOML values that remember where they stood.

use std::fmt;
use std::ops::Range;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use toml::Spanned;

/// A value as written. `toml::Value` would do, but it forgets the place, and an operator needs the line.
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
    /// What it is, as the second half of "X is ...".
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Number(_) => "a number",
            Self::Fraction => "a fraction",
            Self::Boolean(_) => "true or false",
            Self::Date => "a date or time",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        }
    }
}

/// A whole file: its top-level names. These have no place of their own, because toml 0.8 refuses to tell that of
/// a section which only `section.key = value` brought about.
pub(super) struct Document(pub(super) Vec<(String, TomlValue)>);

/// Why a text is no TOML.
pub(super) struct SyntaxError {
    pub(super) message: String,
    pub(super) span: Option<Range<usize>>,
}

pub(super) fn parse(text: &str) -> Result<Document, SyntaxError> {
    toml::from_str(text).map_err(|error| SyntaxError {
        message: error.message().lines().collect::<Vec<_>>().join(": "),
        span: error.span(),
    })
}

/// The line of `offset`, from 1.
pub(super) fn line_at(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().iter().take(offset);
    1 + before.filter(|byte| **byte == b'\n').count()
}

/// The first line that opens with `name`, in brackets or not: where a section or a stray key is likely to stand.
pub(super) fn line_of_name(text: &str, name: &str) -> Option<usize> {
    let opens = |line: &str| {
        let rest = line.trim_start_matches(['[', ' ', '\t', '"', '\'', '\u{feff}']);
        let rest = rest.strip_prefix(name)?;
        (!rest.starts_with(|c: char| c.is_alphanumeric() || "_-".contains(c))).then_some(())
    };
    Some(1 + text.lines().position(|line| opens(line).is_some())?)
}

// How the toml crate hands a date to code that knows no dates.
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

    fn visit_bool<E>(self, switch: bool) -> Result<TomlValue, E> {
        Ok(TomlValue::Boolean(switch))
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
                f.write_str("sections")
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
