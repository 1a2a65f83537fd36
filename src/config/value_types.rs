//! The kinds of value that a key may hold: how each is read, what it allows, how it is written.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use toml::Spanned;

use super::suggest::nearest;
use super::toml_value::TomlValue;

/// One kind of value. The table in `config.rs` names one for each key.
pub(super) trait ValueType {
    type Value;

    /// What may be written, to follow "allowed: ".
    fn allowed(&self) -> String;

    /// The value, or each thing that is wrong with it.
    fn read(&self, given: &Spanned<TomlValue>) -> Result<Self::Value, Vec<InvalidValue>>;

    /// `value` as TOML; reading it back gives `value`.
    fn write(&self, value: &Self::Value) -> String;
}

/// Something wrong with a value: where, what (to follow the value), and what to do if better advice is at hand than
/// to correct it.
pub(super) struct InvalidValue {
    pub(super) span: Range<usize>,
    pub(super) what: String,
    pub(super) advice: Option<String>,
}

impl InvalidValue {
    pub(super) fn one(
        given: &Spanned<TomlValue>,
        what: impl Into<String>,
        advice: Option<String>,
    ) -> Vec<Self> {
        vec![Self {
            span: given.span(),
            what: what.into(),
            advice,
        }]
    }
}

fn wrong_kind(
    given: &Spanned<TomlValue>,
    wanted: &str,
    advice: Option<String>,
) -> Vec<InvalidValue> {
    let what = format!("is {}, not {wanted}", given.get_ref().kind());
    InvalidValue::one(given, what, advice)
}

pub(super) fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

pub(super) fn text_of(given: &Spanned<TomlValue>) -> Result<&str, Vec<InvalidValue>> {
    match given.get_ref() {
        TomlValue::Text(text) => Ok(text),
        TomlValue::Number(_) | TomlValue::Fraction | TomlValue::Date | TomlValue::Boolean(_) => {
            Err(wrong_kind(
                given,
                "text",
                Some("write it in double quotes".to_owned()),
            ))
        }
        TomlValue::List(_) | TomlValue::Table(_) => Err(wrong_kind(given, "text", None)),
    }
}

/// `true` or `false`.
pub(super) struct Boolean;

impl ValueType for Boolean {
    type Value = bool;

    fn allowed(&self) -> String {
        "true or false".to_owned()
    }

    fn read(&self, given: &Spanned<TomlValue>) -> Result<bool, Vec<InvalidValue>> {
        match given.get_ref() {
            TomlValue::Boolean(switch) => Ok(*switch),
            TomlValue::Text(text) if text == "true" || text == "false" => Err(wrong_kind(
                given,
                "true or false",
                Some("write it without quotes".to_owned()),
            )),
            _ => Err(wrong_kind(given, "true or false", None)),
        }
    }

    fn write(&self, value: &bool) -> String {
        value.to_string()
    }
}

/// A whole number of something, both ends of the range allowed.
pub(super) struct Number {
    range: RangeInclusive<u32>,
    unit: &'static str,
}

/// A number of `unit`s (plural).
pub(super) fn number(range: RangeInclusive<u32>, unit: &'static str) -> Number {
    Number { range, unit }
}

/// A time in whole seconds.
pub(super) fn seconds(range: RangeInclusive<u32>) -> Number {
    number(range, "seconds")
}

impl ValueType for Number {
    type Value = u32;

    fn allowed(&self) -> String {
        let (low, high) = (self.range.start(), self.range.end());
        format!("{low} to {high} {}", self.unit)
    }

    fn read(&self, given: &Spanned<TomlValue>) -> Result<u32, Vec<InvalidValue>> {
        let number = match given.get_ref() {
            TomlValue::Number(number) => *number,
            TomlValue::Text(text) if text.parse::<i128>().is_ok() => {
                let advice = "write it without quotes".to_owned();
                return Err(wrong_kind(given, "a number", Some(advice)));
            }
            TomlValue::Text(text) if text.starts_with(|c: char| c.is_ascii_digit()) => {
                let advice = "write the number alone, without quotes".to_owned();
                return Err(wrong_kind(given, "a number", Some(advice)));
            }
            TomlValue::Fraction => return Err(wrong_kind(given, "a whole number", None)),
            _ => return Err(wrong_kind(given, "a number", None)),
        };
        if number < i128::from(*self.range.start()) {
            return Err(InvalidValue::one(given, "is too small", None));
        }
        match u32::try_from(number) {
            Ok(number) if self.range.contains(&number) => Ok(number),
            _ => Err(InvalidValue::one(given, "is too large", None)),
        }
    }

    fn write(&self, value: &u32) -> String {
        value.to_string()
    }
}

/// One of a few words, which are what `T` reads and shows itself as.
pub(super) struct Keyword<T> {
    words: &'static [&'static str],
    of: PhantomData<T>,
}

pub(super) fn words<T>(words: &'static [&'static str]) -> Keyword<T> {
    Keyword {
        words,
        of: PhantomData,
    }
}

impl<T: FromStr + fmt::Display> ValueType for Keyword<T> {
    type Value = T;

    fn allowed(&self) -> String {
        let words: Vec<_> = self.words.iter().map(|word| quoted(word)).collect();
        match words.split_last() {
            Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
            _ => words.concat(),
        }
    }

    fn read(&self, given: &Spanned<TomlValue>) -> Result<T, Vec<InvalidValue>> {
        let text = text_of(given)?;
        let known = self.words.contains(&text);
        let value = text.parse().ok().filter(|_| known);
        value.ok_or_else(|| {
            let near = nearest(text, self.words.iter().copied());
            let advice = near.map(|word| format!("did you mean {}?", quoted(word)));
            InvalidValue::one(given, "is none of the words", advice)
        })
    }

    fn write(&self, value: &T) -> String {
        quoted(&value.to_string())
    }
}

/// Keyword for people, in one line.
pub(super) struct Text {
    max_bytes: usize,
}

pub(super) fn text(max_bytes: usize) -> Text {
    Text { max_bytes }
}

impl ValueType for Text {
    type Value = String;

    fn allowed(&self) -> String {
        format!("one line of text, up to {} bytes", self.max_bytes)
    }

    fn read(&self, given: &Spanned<TomlValue>) -> Result<String, Vec<InvalidValue>> {
        let text = text_of(given)?;
        if text.len() > self.max_bytes {
            let what = format!("is too long, {} bytes", text.len());
            Err(InvalidValue::one(given, what, None))
        } else if text.contains(char::is_control) {
            Err(InvalidValue::one(
                given,
                "has a line break or another control character",
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

/// A file or directory, wherever the daemon was started from.
pub(super) struct AbsolutePath;

impl ValueType for AbsolutePath {
    type Value = PathBuf;

    fn allowed(&self) -> String {
        "an absolute path".to_owned()
    }

    fn read(&self, given: &Spanned<TomlValue>) -> Result<PathBuf, Vec<InvalidValue>> {
        let text = text_of(given)?;
        let path = Path::new(text);
        if !path.is_absolute() {
            let advice = "write the whole path, from / on".to_owned();
            Err(InvalidValue::one(given, "is not absolute", Some(advice)))
        } else if text.contains('\0') {
            Err(InvalidValue::one(given, "has a NUL character", None))
        } else {
            Ok(path.to_owned())
        }
    }

    fn write(&self, value: &PathBuf) -> String {
        quoted(&value.to_string_lossy())
    }
}

/// A value, or empty text for none.
pub(super) struct OrEmpty<R>(pub(super) R);

impl<R: ValueType> ValueType for OrEmpty<R> {
    type Value = Option<R::Value>;

    fn allowed(&self) -> String {
        format!("{} or \"\"", self.0.allowed())
    }

    fn read(&self, given: &Spanned<TomlValue>) -> Result<Self::Value, Vec<InvalidValue>> {
        match given.get_ref() {
            TomlValue::Text(text) if text.is_empty() => Ok(None),
            _ => self.0.read(given).map(Some),
        }
    }

    fn write(&self, value: &Self::Value) -> String {
        match value {
            Some(value) => self.0.write(value),
            None => quoted(""),
        }
    }
}

/// A path as it stands in a URL.
fn url_path<'a>(
    given: &'a Spanned<TomlValue>,
    example: &str,
) -> Result<&'a str, Vec<InvalidValue>> {
    let path = text_of(given)?;
    let in_a_url = |c: char| c.is_ascii_graphic() && !"?#\"<>\\^`{|}".contains(c);
    if !path.starts_with('/') {
        let advice = Some(format!("write for example {}", quoted(example)));
        Err(InvalidValue::one(given, "does not start with /", advice))
    } else if let Some(c) = path.chars().find(|c| !in_a_url(*c)) {
        Err(InvalidValue::one(
            given,
            format!("has {c:?}, which no path may have"),
            None,
        ))
    } else {
        Ok(path)
    }
}

/// The path of a URL at which something is shown.
pub(super) struct PagePath;

impl ValueType for PagePath {
    type Value = String;

    fn allowed(&self) -> String {
        "a path that starts with / and does not end with it".to_owned()
    }

    fn read(&self, given: &Spanned<TomlValue>) -> Result<String, Vec<InvalidValue>> {
        let path = url_path(given, "/status")?;
        match path.ends_with('/') {
            true => Err(InvalidValue::one(given, "ends with /", None)),
            false => Ok(path.to_owned()),
        }
    }

    fn write(&self, value: &String) -> String {
        quoted(value)
    }
}

/// The path of a URL at which clients announce.
pub(super) struct AnnouncePath;

impl ValueType for AnnouncePath {
    type Value = String;

    fn allowed(&self) -> String {
        "a path that starts with / and whose last part starts with announce".to_owned()
    }

    fn read(&self, given: &Spanned<TomlValue>) -> Result<String, Vec<InvalidValue>> {
        let path = url_path(given, "/announce")?;
        let last = path.rsplit('/').next().unwrap_or_default();
        if !last.starts_with("announce") {
            let example = format!("{}/announce", path.trim_end_matches('/'));
            let what = "leaves clients no scrape path, which they make by putting scrape for announce in the last part";
            let advice = Some(format!("write for example {}", quoted(&example)));
            Err(InvalidValue::one(given, what, advice))
        } else {
            Ok(path.to_owned())
        }
    }

    fn write(&self, value: &String) -> String {
        quoted(value)
    }
}

/// Any number of values of one kind.
pub(super) struct List<R>(pub(super) R);

impl<R: ValueType> ValueType for List<R> {
    type Value = Vec<R::Value>;

    fn allowed(&self) -> String {
        format!("a list, each {}", self.0.allowed())
    }

    fn read(&self, given: &Spanned<TomlValue>) -> Result<Vec<R::Value>, Vec<InvalidValue>> {
        let TomlValue::List(elements) = given.get_ref() else {
            let advice = match given.get_ref() {
                TomlValue::Table(_) => None,
                _ => Some("put it in brackets: [...]".to_owned()),
            };
            return Err(wrong_kind(given, "a list", advice));
        };
        let mut values = Vec::with_capacity(elements.len());
        let mut wrong = Vec::new();
        for element in elements {
            match self.0.read(element) {
                Ok(value) => values.push(value),
                Err(more) => wrong.extend(more),
            }
        }
        if wrong.is_empty() {
            Ok(values)
        } else {
            Err(wrong)
        }
    }

    fn write(&self, value: &Vec<R::Value>) -> String {
        let elements: Vec<_> = value.iter().map(|element| self.0.write(element)).collect();
        format!("[{}]", elements.join(", "))
    }
}
