//! Bencode as BEP 3 has it and no other: the one way to write a value, checked over the whole file, every fault with its place.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use serde::de::DeserializeOwned;

/// Lists and dictionaries inside one another, at most: as many as libtorrent reads by default.
const MAX_DEPTH: usize = 100;

/// What is wrong with a file, and where: one line for its publisher.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// Bytes from the start of the file.
    pub offset: usize,
    pub reason: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at byte {}: {}", self.offset, self.reason)
    }
}

impl std::error::Error for Fault {}

pub(crate) fn fault<T>(offset: usize, reason: impl Into<String>) -> Result<T, Fault> {
    let reason = reason.into();
    Err(Fault { offset, reason })
}

/// A value to be written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    Integer(i64),
    Bytes(Vec<u8>),
    List(Vec<Self>),
    /// Sorted as it must be written.
    Dict(BTreeMap<Vec<u8>, Self>),
    /// Written before, and well.
    Raw(Vec<u8>),
}

impl Value {
    pub fn text(text: &str) -> Self {
        Self::Bytes(text.into())
    }

    /// A length or a size.
    ///
    /// # Panics
    ///
    /// At 2^63, which no file system knows.
    pub fn length(length: u64) -> Self {
        Self::Integer(length.try_into().expect("a length below 2^63"))
    }

    pub fn dict<const N: usize>(entries: [(&str, Self); N]) -> Self {
        let owned = entries.map(|(key, value)| (key.into(), value));
        Self::Dict(owned.into())
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Integer(number) => out.extend(format!("i{number}e").into_bytes()),
            Self::Bytes(bytes) => write_string(bytes, out),
            Self::List(values) => {
                out.push(b'l');
                values.iter().for_each(|value| value.write(out));
                out.push(b'e');
            }
            Self::Dict(entries) => {
                out.push(b'd');
                for (key, value) in entries {
                    write_string(key, out);
                    value.write(out);
                }
                out.push(b'e');
            }
            Self::Raw(written) => out.extend(written),
        }
    }
}

fn write_string(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend(format!("{}:", bytes.len()).into_bytes());
    out.extend(bytes);
}

/// A dictionary's entries as they lie in the file, each value checked down to the last byte.
pub(crate) struct Dict<'a> {
    bytes: &'a [u8],
    /// Where the dictionary is, its `d` and its `e` included.
    pub(crate) span: Range<usize>,
    /// In the order of the keys.
    entries: Vec<(&'a [u8], Range<usize>)>,
}

impl<'a> Dict<'a> {
    /// Reads a whole file, which is one dictionary.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, Fault> {
        let mut walk = Walk { bytes, at: 0 };
        let dict = walk.dict(0)?;
        if walk.at != bytes.len() {
            return fault(walk.at, "there is more after the end");
        }
        Ok(dict)
    }

    /// The dictionary as it is written.
    pub(crate) fn raw(&self) -> &'a [u8] {
        &self.bytes[self.span.clone()]
    }

    /// Keys and values as they are written, in the order of the keys.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.entries
            .iter()
            .map(|(key, span)| (*key, &self.bytes[span.clone()]))
    }

    pub(crate) fn has(&self, key: impl AsRef<[u8]>) -> bool {
        self.find(key).is_some()
    }

    /// Where the value is, or else the dictionary that lacks it.
    pub(crate) fn offset(&self, key: impl AsRef<[u8]>) -> usize {
        self.find(key).map_or(self.span.start, |span| span.start)
    }

    /// The value as it is written.
    pub(crate) fn value(&self, key: impl AsRef<[u8]>) -> Option<&'a [u8]> {
        self.find(key).map(|span| &self.bytes[span.clone()])
    }

    pub(crate) fn read<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Fault> {
        let Some(value) = self.value(key) else {
            return Ok(None);
        };
        match serde_bencode::from_bytes(value) {
            Ok(value) => Ok(Some(value)),
            Err(error) => fault(self.offset(key), format!("`{key}`: {error}")),
        }
    }

    pub(crate) fn need<T: DeserializeOwned>(&self, key: &str) -> Result<T, Fault> {
        match self.read(key)? {
            Some(value) => Ok(value),
            None => fault(self.span.start, format!("`{key}` is missing")),
        }
    }

    /// A string without a copy of it, for `pieces` may be megabytes.
    pub(crate) fn string(&self, key: impl AsRef<[u8]>) -> Result<Option<&'a [u8]>, Fault> {
        match self.find(key.as_ref()) {
            Some(span) => self.walk(span).string().map(Some),
            None => Ok(None),
        }
    }

    pub(crate) fn dict(&self, key: &str) -> Result<Option<Self>, Fault> {
        match self.find(key) {
            Some(span) => self.walk(span).dict(1).map(Some),
            None => Ok(None),
        }
    }

    fn find(&self, key: impl AsRef<[u8]>) -> Option<&Range<usize>> {
        let found = self
            .entries
            .binary_search_by_key(&key.as_ref(), |(key, _)| key);
        Some(&self.entries[found.ok()?].1)
    }

    fn walk(&self, span: &Range<usize>) -> Walk<'a> {
        let (bytes, at) = (self.bytes, span.start);
        Walk { bytes, at }
    }
}

/// Goes over the bytes, value by value.
struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Walk<'a> {
    fn peek(&self) -> Result<u8, Fault> {
        match self.bytes.get(self.at) {
            Some(byte) => Ok(*byte),
            None => fault(self.at, "the file ends too early"),
        }
    }

    fn value(&mut self, depth: usize) -> Result<(), Fault> {
        match self.peek()? {
            b'i' => self.integer(),
            b'l' => self.list(depth),
            b'd' => self.dict(depth).map(drop),
            b'0'..=b'9' => self.string().map(drop),
            _ => fault(self.at, "no value begins like this"),
        }
    }

    fn integer(&mut self) -> Result<(), Fault> {
        let start = self.at;
        self.at += 1;
        let negative = self.peek()? == b'-';
        self.at += usize::from(negative);
        let digits = self.digits()?;
        if self.peek()? != b'e' {
            return fault(self.at, "an integer holds something other than digits");
        }
        self.at += 1;
        if negative && digits == "0" {
            return fault(start, "an integer is -0");
        }
        // serde_bencode knows no wider integers, and nothing in a torrent needs one.
        let number = std::str::from_utf8(&self.bytes[start + 1..self.at - 1]).unwrap_or_default();
        match number.parse::<i64>() {
            Ok(_) => Ok(()),
            Err(_) => fault(start, "an integer does not fit into 64 bits"),
        }
    }

    fn string(&mut self) -> Result<&'a [u8], Fault> {
        let start = self.at;
        if !self.peek()?.is_ascii_digit() {
            return fault(start, "a string should stand here");
        }
        let digits = self.digits()?;
        if self.peek()? != b':' {
            return fault(self.at, "a string's length does not end in a colon");
        }
        self.at += 1;
        let length = digits.parse::<usize>().ok();
        let end = length.and_then(|length| self.at.checked_add(length));
        let Some(string) = end.and_then(|end| self.bytes.get(self.at..end)) else {
            return fault(start, "a string is longer than what is left of the file");
        };
        self.at += string.len();
        Ok(string)
    }

    fn digits(&mut self) -> Result<&'a str, Fault> {
        let rest = &self.bytes[self.at..];
        let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let digits = std::str::from_utf8(&rest[..count]).unwrap_or_default();
        if digits.is_empty() {
            self.peek()?;
            return fault(self.at, "a digit should stand here");
        }
        if digits.len() > 1 && digits.starts_with('0') {
            return fault(self.at, "a number has a leading zero");
        }
        self.at += count;
        Ok(digits)
    }

    fn list(&mut self, depth: usize) -> Result<(), Fault> {
        self.enter(depth)?;
        while self.peek()? != b'e' {
            self.value(depth + 1)?;
        }
        self.at += 1;
        Ok(())
    }

    fn dict(&mut self, depth: usize) -> Result<Dict<'a>, Fault> {
        let start = self.at;
        if self.peek()? != b'd' {
            return fault(start, "a dictionary should stand here");
        }
        self.enter(depth)?;
        let mut entries: Vec<(&[u8], Range<usize>)> = Vec::new();
        while self.peek()? != b'e' {
            let at = self.at;
            if !self.peek()?.is_ascii_digit() {
                return fault(at, "a dictionary's key is not a string");
            }
            let key = self.string()?;
            match entries.last() {
                Some((last, _)) if *last == key => {
                    return fault(at, format!("the key `{}` comes twice", key.escape_ascii()));
                }
                Some((last, _)) if *last > key => {
                    return fault(
                        at,
                        format!(
                            "the key `{}` is out of order after `{}`",
                            key.escape_ascii(),
                            last.escape_ascii()
                        ),
                    );
                }
                _ => {}
            }
            let value = self.at;
            self.value(depth + 1)?;
            entries.push((key, value..self.at));
        }
        self.at += 1;
        Ok(Dict {
            bytes: self.bytes,
            span: start..self.at,
            entries,
        })
    }

    fn enter(&mut self, depth: usize) -> Result<(), Fault> {
        if depth == MAX_DEPTH {
            return fault(
                self.at,
                format!("lists and dictionaries lie more than {MAX_DEPTH} deep"),
            );
        }
        self.at += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(bytes: &[u8], offset: usize, reason: &str) {
        let error = Dict::parse(bytes).err().expect("a fault");
        assert!(error.reason.contains(reason), "{error}");
        assert_eq!(error.offset, offset, "{error}");
    }

    #[test]
    fn finds_values_where_they_lie() {
        let file = Dict::parse(b"d1:ai-7e1:bd1:xlee2:\xff\xfe3:a\0be").unwrap();
        assert_eq!(file.read::<i64>("a").unwrap(), Some(-7));
        assert_eq!(file.read::<i64>("c").unwrap(), None);
        assert_eq!(file.need::<u64>("a").unwrap_err().offset, 4);
        assert_eq!(
            file.need::<i64>("c").unwrap_err().to_string(),
            "at byte 0: `c` is missing"
        );
        let inner = file.dict("b").unwrap().unwrap();
        assert_eq!((inner.raw(), inner.span.clone()), (&b"d1:xlee"[..], 11..18));
        assert_eq!(
            (inner.value("x"), inner.offset("x"), inner.offset("y")),
            (Some(&b"le"[..]), 15, 11)
        );
        assert_eq!(file.string(b"\xff\xfe").unwrap(), Some(&b"a\0b"[..]));
        assert_eq!(file.string("a").unwrap_err().offset, 4);
        assert_eq!(file.dict("a").err().unwrap().offset, 4);
        assert!(file.has("a") && !file.has("A") && !file.has(""));
    }

    #[test]
    fn refuses_what_another_reader_may_write_differently() {
        refused(b"", 0, "too early");
        refused(b"i1e", 0, "dictionary");
        refused(b"<html>", 0, "dictionary");
        refused(b"d", 1, "too early");
        refused(b"di1e1:ae", 1, "key is not a string");
        refused(b"d1:a1:b1:a1:be", 7, "`a` comes twice");
        refused(b"d1:b1:b1:a1:be", 7, "`a` is out of order after `b`");
        refused(b"d2:aa1:b1:a1:be", 8, "out of order");
        refused(b"d01:a1:be", 1, "leading zero");
        refused(b"d1:a01:be", 4, "leading zero");
        refused(b"d1:ai01ee", 5, "leading zero");
        refused(b"d1:ai00ee", 5, "leading zero");
        refused(b"d1:ai-01ee", 6, "leading zero");
        refused(b"d1:ai-0ee", 4, "-0");
        refused(b"d1:ai+1ee", 5, "digit should stand");
        refused(b"d1:ai ee", 5, "digit should stand");
        refused(b"d1:aiee", 5, "digit should stand");
        refused(b"d1:ai-ee", 6, "digit should stand");
        refused(b"d1:ai1.5ee", 6, "other than digits");
        refused(b"d1:ai9223372036854775808ee", 4, "64 bits");
        refused(b"d1:ai-9223372036854775809ee", 4, "64 bits");
        refused(b"d1:a-1:be", 4, "no value begins");
        refused(b"d1:a2 bbe", 5, "colon");
        refused(b"d1:a9:be", 4, "longer than what is left");
        refused(
            b"d1:a18446744073709551615:be",
            4,
            "longer than what is left",
        );
        refused(
            b"d1:a18446744073709551616:be",
            4,
            "longer than what is left",
        );
        refused(b"d1:ax", 4, "no value begins");
        refused(b"d1:a", 4, "too early");
        refused(b"d1:a1", 5, "too early");
        refused(b"d1:ai1", 6, "too early");
        refused(b"d1:al", 5, "too early");
        refused(b"d1:ae", 4, "no value begins");
        refused(b"d1:a1:be\n", 8, "more after the end");
        refused(b"d1:a1:bede", 8, "more after the end");
        assert!(Dict::parse(b"d1:ai9223372036854775807e1:bi-9223372036854775808e1:ci0ee").is_ok());
    }

    #[test]
    fn what_is_written_is_read() {
        let value = Value::dict([
            ("b", Value::List(vec![Value::Integer(-7), Value::text("x")])),
            ("a", Value::length(1)),
            ("c", Value::Raw(b"le".to_vec())),
        ]);
        let mut out = Vec::new();
        value.write(&mut out);
        assert_eq!(out.escape_ascii().to_string(), "d1:ai1e1:bli-7e1:xe1:clee");
        assert!(Dict::parse(&out).is_ok());
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |deep: usize| format!("d1:x{}{}e", "l".repeat(deep - 1), "e".repeat(deep - 1));
        assert!(Dict::parse(nested(MAX_DEPTH).as_bytes()).is_ok());
        refused(nested(MAX_DEPTH + 1).as_bytes(), 103, "100 deep");
        refused(nested(1_000_000).as_bytes(), 103, "100 deep");
        refused("d1:a".repeat(1_000_000).as_bytes(), 400, "100 deep");
    }
}
