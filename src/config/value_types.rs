//! Types of the values of keys: each parses a value, describes the allowed values, and writes a value.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use toml::Spanned;

use super::suggest::nearest;
use super::toml_value::TomlValue;

/// The type of a key's value. The table in `schema.rs` names the type of each key.
pub(super) trait ValueType {
    type Value;

    /// Returns the allowed values, as text to follow "allowed: ".
    fn allowed(&self) -> String;

    /// Parses a value of a file.
    ///
    /// # Errors
    /// Returns every problem of the value. A list can have several.
    fn parse(&self, value: &Spanned<TomlValue>) -> Result<Self::Value, Vec<InvalidValue>>;

    /// Writes `value` as TOML. Parsing that returns `value` again.
    fn write(&self, value: &Self::Value) -> String;
}

/// A problem of a value.
pub(super) struct InvalidValue {
    /// The position of the value in the file, in bytes.
    pub(super) span: Range<usize>,
    /// The problem, as text to follow the value.
    pub(super) problem: String,
    /// The remedy; `None` if it is only to correct the value or to remove the key.
    pub(super) remedy: Option<String>,
}

impl InvalidValue {
    /// Returns the problem as the only problem of `value`.
    pub(super) fn single(
        value: &Spanned<TomlValue>,
        problem: impl Into<String>,
        remedy: Option<String>,
    ) -> Vec<Self> {
        vec![Self {
            span: value.span(),
            problem: problem.into(),
            remedy,
        }]
    }
}

fn wrong_type(
    value: &Spanned<TomlValue>,
    expected: &str,
    remedy: Option<String>,
) -> Vec<InvalidValue> {
    let problem = format!("is {}, not {expected}", value.get_ref().type_name());
    InvalidValue::single(value, problem, remedy)
}

/// Writes text as TOML, in double quotes.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// Returns the text of a value.
///
/// # Errors
/// Returns a problem if the value is not text.
pub(super) fn text_of(value: &Spanned<TomlValue>) -> Result<&str, Vec<InvalidValue>> {
    match value.get_ref() {
        TomlValue::Text(text) => Ok(text),
        TomlValue::Number(_) | TomlValue::Fraction | TomlValue::Date | TomlValue::Boolean(_) => {
            Err(wrong_type(
                value,
                "text",
                Some("write it in double quotes".to_owned()),
            ))
        }
        TomlValue::List(_) | TomlValue::Table(_) => Err(wrong_type(value, "text", None)),
    }
}

/// `true` or `false`.
pub(super) struct Boolean;

impl ValueType for Boolean {
    type Value = bool;

    fn allowed(&self) -> String {
        "true or false".to_owned()
    }

    fn parse(&self, value: &Spanned<TomlValue>) -> Result<bool, Vec<InvalidValue>> {
        match value.get_ref() {
            TomlValue::Boolean(value) => Ok(*value),
            TomlValue::Text(text) if text == "true" || text == "false" => Err(wrong_type(
                value,
                "true or false",
                Some("write it without quotes".to_owned()),
            )),
            _ => Err(wrong_type(value, "true or false", None)),
        }
    }

    fn write(&self, value: &bool) -> String {
        value.to_string()
    }
}

/// A whole number in an inclusive range, with a unit.
pub(super) struct WholeNumber {
    range: RangeInclusive<u32>,
    unit: &'static str,
}

/// Returns the type of numbers in `range`. The unit is written after the range, so it is in the plural.
pub(super) fn number(range: RangeInclusive<u32>, unit: &'static str) -> WholeNumber {
    WholeNumber { range, unit }
}

/// Returns the type of times in whole seconds.
pub(super) fn seconds(range: RangeInclusive<u32>) -> WholeNumber {
    number(range, "seconds")
}

impl ValueType for WholeNumber {
    type Value = u32;

    fn allowed(&self) -> String {
        let (low, high) = (self.range.start(), self.range.end());
        format!("{low} to {high} {}", self.unit)
    }

    fn parse(&self, value: &Spanned<TomlValue>) -> Result<u32, Vec<InvalidValue>> {
        let number = match value.get_ref() {
            TomlValue::Number(number) => *number,
            TomlValue::Text(text) if text.parse::<i128>().is_ok() => {
                let remedy = "write it without quotes".to_owned();
                return Err(wrong_type(value, "a number", Some(remedy)));
            }
            TomlValue::Text(text) if text.starts_with(|c: char| c.is_ascii_digit()) => {
                let remedy = "write the number alone, without quotes".to_owned();
                return Err(wrong_type(value, "a number", Some(remedy)));
            }
            TomlValue::Fraction => return Err(wrong_type(value, "a whole number", None)),
            _ => return Err(wrong_type(value, "a number", None)),
        };
        if number < i128::from(*self.range.start()) {
            return Err(InvalidValue::single(value, "is too small", None));
        }
        match u32::try_from(number) {
            Ok(number) if self.range.contains(&number) => Ok(number),
            _ => Err(InvalidValue::single(value, "is too large", None)),
        }
    }

    fn write(&self, value: &u32) -> String {
        value.to_string()
    }
}

/// One of a few keywords, which `T` parses and displays.
pub(super) struct Keyword<T> {
    keywords: &'static [&'static str],
    value: PhantomData<T>,
}

/// Returns the type of values of `T` that are written as one of `keywords`.
pub(super) fn keyword<T>(keywords: &'static [&'static str]) -> Keyword<T> {
    Keyword {
        keywords,
        value: PhantomData,
    }
}

impl<T: FromStr + fmt::Display> ValueType for Keyword<T> {
    type Value = T;

    fn allowed(&self) -> String {
        let words: Vec<_> = self.keywords.iter().map(|word| quoted(word)).collect();
        match words.split_last() {
            Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
            _ => words.concat(),
        }
    }

    fn parse(&self, value: &Spanned<TomlValue>) -> Result<T, Vec<InvalidValue>> {
        let text = text_of(value)?;
        let known = self.keywords.contains(&text);
        let parsed = text.parse().ok().filter(|_| known);
        parsed.ok_or_else(|| {
            let near = nearest(text, self.keywords.iter().copied());
            let remedy = near.map(|word| format!("did you mean {}?", quoted(word)));
            InvalidValue::single(value, "is not an allowed word", remedy)
        })
    }

    fn write(&self, value: &T) -> String {
        quoted(&value.to_string())
    }
}

/// A line of text for people.
pub(super) struct TextLine {
    max_bytes: usize,
}

/// Returns the type of text of up to `max_bytes` bytes.
pub(super) fn text(max_bytes: usize) -> TextLine {
    TextLine { max_bytes }
}

impl ValueType for TextLine {
    type Value = String;

    fn allowed(&self) -> String {
        format!("one line of text, up to {} bytes", self.max_bytes)
    }

    fn parse(&self, value: &Spanned<TomlValue>) -> Result<String, Vec<InvalidValue>> {
        let text = text_of(value)?;
        if text.len() > self.max_bytes {
            let problem = format!("is too long: {} bytes", text.len());
            Err(InvalidValue::single(value, problem, None))
        } else if text.contains(char::is_control) {
            Err(InvalidValue::single(
                value,
                "contains a line break or another control character",
                None,
            ))
        } else {
            Ok(text.to_owned())
        }
    }

    fn write(&self, value: &String) -> String {
        quoted(value)
    }
}

/// The absolute path of a file or directory, which does not depend on the working directory of the daemon.
pub(super) struct AbsolutePath;

impl ValueType for AbsolutePath {
    type Value = PathBuf;

    fn allowed(&self) -> String {
        "an absolute path".to_owned()
    }

    fn parse(&self, value: &Spanned<TomlValue>) -> Result<PathBuf, Vec<InvalidValue>> {
        let text = text_of(value)?;
        let path = Path::new(text);
        if !path.is_absolute() {
            let remedy = "write the whole path, starting with /".to_owned();
            Err(InvalidValue::single(
                value,
                "is not an absolute path",
                Some(remedy),
            ))
        } else if text.contains('\0') {
            Err(InvalidValue::single(
                value,
                "contains a NUL character",
                None,
            ))
        } else {
            Ok(path.to_owned())
        }
    }

    fn write(&self, value: &PathBuf) -> String {
        quoted(&value.to_string_lossy())
    }
}

/// A value, or empty text, which means no value.
pub(super) struct OrEmpty<T>(pub(super) T);

impl<T: ValueType> ValueType for OrEmpty<T> {
    type Value = Option<T::Value>;

    fn allowed(&self) -> String {
        format!("{} or \"\"", self.0.allowed())
    }

    fn parse(&self, value: &Spanned<TomlValue>) -> Result<Self::Value, Vec<InvalidValue>> {
        match value.get_ref() {
            TomlValue::Text(text) if text.is_empty() => Ok(None),
            _ => self.0.parse(value).map(Some),
        }
    }

    fn write(&self, value: &Self::Value) -> String {
        match value {
            Some(value) => self.0.write(value),
            None => quoted(""),
        }
    }
}

/// Parses the path of a URL.
fn url_path<'a>(
    value: &'a Spanned<TomlValue>,
    example: &str,
) -> Result<&'a str, Vec<InvalidValue>> {
    let path = text_of(value)?;
    let allowed = |c: char| c.is_ascii_graphic() && !"?#\"<>\\^`{|}".contains(c);
    if !path.starts_with('/') {
        let remedy = Some(format!("write, for example, {}", quoted(example)));
        Err(InvalidValue::single(value, "does not start with /", remedy))
    } else if let Some(c) = path.chars().find(|c| !allowed(*c)) {
        Err(InvalidValue::single(
            value,
            format!("contains {c:?}, which is not allowed in a path"),
            None,
        ))
    } else {
        Ok(path)
    }
}

/// The path of the URL of a page.
pub(super) struct PagePath;

impl ValueType for PagePath {
    type Value = String;

    fn allowed(&self) -> String {
        "a path that starts with / and does not end with it".to_owned()
    }

    fn parse(&self, value: &Spanned<TomlValue>) -> Result<String, Vec<InvalidValue>> {
        let path = url_path(value, "/status")?;
        match path.ends_with('/') {
            true => Err(InvalidValue::single(value, "ends with /", None)),
            false => Ok(path.to_owned()),
        }
    }

    fn write(&self, value: &String) -> String {
        quoted(value)
    }
}

/// The path of the announce URL. Clients derive the path of the scrape URL from its last part (BEP 48).
pub(super) struct AnnouncePath;

impl ValueType for AnnouncePath {
    type Value = String;

    fn allowed(&self) -> String {
        "a path that starts with / and whose last part starts with announce".to_owned()
    }

    fn parse(&self, value: &Spanned<TomlValue>) -> Result<String, Vec<InvalidValue>> {
        let path = url_path(value, "/announce")?;
        let last = path.rsplit('/').next().unwrap_or_default();
        if !last.starts_with("announce") {
            let example = format!("{}/announce", path.trim_end_matches('/'));
            let problem = "has a last part that does not start with announce, so clients cannot derive the scrape path";
            let remedy = Some(format!("write, for example, {}", quoted(&example)));
            Err(InvalidValue::single(value, problem, remedy))
        } else {
            Ok(path.to_owned())
        }
    }

    fn write(&self, value: &String) -> String {
        quoted(value)
    }
}

/// A list of values of the same type.
pub(super) struct ListOf<T>(pub(super) T);

impl<T: ValueType> ValueType for ListOf<T> {
    type Value = Vec<T::Value>;

    fn allowed(&self) -> String {
        format!("a list, each {}", self.0.allowed())
    }

    fn parse(&self, value: &Spanned<TomlValue>) -> Result<Vec<T::Value>, Vec<InvalidValue>> {
        let TomlValue::List(elements) = value.get_ref() else {
            let remedy = match value.get_ref() {
                TomlValue::Table(_) => None,
                _ => Some("write it in brackets: [...]".to_owned()),
            };
            return Err(wrong_type(value, "a list", remedy));
        };
        let mut values = Vec::with_capacity(elements.len());
        let mut invalid = Vec::new();
        for element in elements {
            match self.0.parse(element) {
                Ok(value) => values.push(value),
                Err(more) => invalid.extend(more),
            }
        }
        if invalid.is_empty() {
            Ok(values)
        } else {
            Err(invalid)
        }
    }

    fn write(&self, value: &Vec<T::Value>) -> String {
        let elements: Vec<_> = value.iter().map(|element| self.0.write(element)).collect();
        format!("[{}]", elements.join(", "))
    }
}
