//! Strict bencode (BEP 3): each value has exactly one valid encoding, the whole file is checked, and every error has its
//! offset.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use serde::de::DeserializeOwned;

/// Maximum nesting depth of lists and dictionaries, the same as the default of libtorrent.
const MAX_DEPTH: usize = 100;

/// An error in a `.torrent` file: its offset, and a single-line message for the publisher of the file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MetainfoError {
    /// Bytes from the start of the file.
    pub offset: usize,
    pub reason: String,
}

impl fmt::Display for MetainfoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at byte {}: {}", self.offset, self.reason)
    }
}

impl std::error::Error for MetainfoError {}

/// Returns an error at `offset`.
pub(super) fn fail<T>(offset: usize, reason: impl Into<String>) -> Result<T, MetainfoError> {
    let reason = reason.into();
    Err(MetainfoError { offset, reason })
}

/// A value to write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BencodeValue {
    Integer(i64),
    Bytes(Vec<u8>),
    List(Vec<Self>),
    /// Sorted by key, as bencode requires.
    Dict(BTreeMap<Vec<u8>, Self>),
    /// A value that is already encoded and valid.
    Raw(Vec<u8>),
}

impl BencodeValue {
    pub fn text(text: &str) -> Self {
        Self::Bytes(text.into())
    }

    /// Returns an integer.
    ///
    /// # Panics
    /// Panics from 2^63 on, a length that no file system supports.
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

/// A dictionary in a file. All its values are checked to be valid bencode.
pub(crate) struct Dict<'a> {
    bytes: &'a [u8],
    /// The position of the dictionary in the file, from its `d` to its `e`.
    pub(crate) span: Range<usize>,
    /// Keys with the positions of their values, sorted by key.
    entries: Vec<(&'a [u8], Range<usize>)>,
}

impl<'a> Dict<'a> {
    /// Parses a file, which must be a single dictionary.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, MetainfoError> {
        let mut scanner = Scanner { bytes, at: 0 };
        let dict = scanner.dict(0)?;
        if scanner.at != bytes.len() {
            return fail(scanner.at, "unexpected data after the end");
        }
        Ok(dict)
    }

    /// Returns the encoded dictionary.
    pub(crate) fn raw(&self) -> &'a [u8] {
        &self.bytes[self.span.clone()]
    }

    /// Returns the keys and the encoded values, sorted by key.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.entries
            .iter()
            .map(|(key, span)| (*key, &self.bytes[span.clone()]))
    }

    pub(crate) fn has(&self, key: impl AsRef<[u8]>) -> bool {
        self.find(key).is_some()
    }

    /// Returns the offset of a value, or of this dictionary if the key is missing.
    pub(crate) fn offset(&self, key: impl AsRef<[u8]>) -> usize {
        self.find(key).map_or(self.span.start, |span| span.start)
    }

    /// Returns an encoded value.
    pub(crate) fn value(&self, key: impl AsRef<[u8]>) -> Option<&'a [u8]> {
        self.find(key).map(|span| &self.bytes[span.clone()])
    }

    /// Parses an optional value.
    pub(crate) fn read<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, MetainfoError> {
        let Some(value) = self.value(key) else {
            return Ok(None);
        };
        match serde_bencode::from_bytes(value) {
            Ok(value) => Ok(Some(value)),
            Err(error) => fail(self.offset(key), format!("`{key}`: {error}")),
        }
    }

    /// Parses a required value.
    pub(crate) fn require<T: DeserializeOwned>(&self, key: &str) -> Result<T, MetainfoError> {
        match self.read(key)? {
            Some(value) => Ok(value),
            None => fail(self.span.start, format!("`{key}` is missing")),
        }
    }

    /// Returns a string without copying it, because `pieces` may have megabytes.
    pub(crate) fn string(&self, key: impl AsRef<[u8]>) -> Result<Option<&'a [u8]>, MetainfoError> {
        match self.find(key.as_ref()) {
            Some(span) => self.scanner(span).string().map(Some),
            None => Ok(None),
        }
    }

    /// Returns the dictionary that is the value of a key.
    pub(crate) fn dict(&self, key: &str) -> Result<Option<Self>, MetainfoError> {
        match self.find(key) {
            Some(span) => self.scanner(span).dict(1).map(Some),
            None => Ok(None),
        }
    }

    fn find(&self, key: impl AsRef<[u8]>) -> Option<&Range<usize>> {
        let found = self
            .entries
            .binary_search_by_key(&key.as_ref(), |(key, _)| key);
        Some(&self.entries[found.ok()?].1)
    }

    fn scanner(&self, span: &Range<usize>) -> Scanner<'a> {
        let (bytes, at) = (self.bytes, span.start);
        Scanner { bytes, at }
    }
}

/// Checks a file value by value.
struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    fn peek(&self) -> Result<u8, MetainfoError> {
        match self.bytes.get(self.at) {
            Some(byte) => Ok(*byte),
            None => fail(self.at, "unexpected end of file"),
        }
    }

    fn value(&mut self, depth: usize) -> Result<(), MetainfoError> {
        match self.peek()? {
            b'i' => self.integer(),
            b'l' => self.list(depth),
            b'd' => self.dict(depth).map(drop),
            b'0'..=b'9' => self.string().map(drop),
            _ => fail(self.at, "invalid start of a value"),
        }
    }

    fn integer(&mut self) -> Result<(), MetainfoError> {
        let start = self.at;
        self.at += 1;
        let negative = self.peek()? == b'-';
        self.at += usize::from(negative);
        let digits = self.digits()?;
        if self.peek()? != b'e' {
            return fail(
                self.at,
                "an integer contains a character that is not a digit",
            );
        }
        self.at += 1;
        if negative && digits == "0" {
            return fail(start, "-0 is not a valid integer");
        }
        // serde_bencode does not support wider integers, and no field of a torrent needs them.
        let number = std::str::from_utf8(&self.bytes[start + 1..self.at - 1]).unwrap_or_default();
        match number.parse::<i64>() {
            Ok(_) => Ok(()),
            Err(_) => fail(start, "an integer does not fit into 64 bits"),
        }
    }

    fn string(&mut self) -> Result<&'a [u8], MetainfoError> {
        let start = self.at;
        if !self.peek()?.is_ascii_digit() {
            return fail(start, "expected a string");
        }
        let digits = self.digits()?;
        if self.peek()? != b':' {
            return fail(self.at, "expected a colon after the length of a string");
        }
        self.at += 1;
        let length = digits.parse::<usize>().ok();
        let end = length.and_then(|length| self.at.checked_add(length));
        let Some(string) = end.and_then(|end| self.bytes.get(self.at..end)) else {
            return fail(start, "a string extends past the end of the file");
        };
        self.at += string.len();
        Ok(string)
    }

    fn digits(&mut self) -> Result<&'a str, MetainfoError> {
        let rest = &self.bytes[self.at..];
        let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let digits = std::str::from_utf8(&rest[..count]).unwrap_or_default();
        if digits.is_empty() {
            self.peek()?;
            return fail(self.at, "expected a digit");
        }
        if digits.len() > 1 && digits.starts_with('0') {
            return fail(self.at, "a number has a leading zero");
        }
        self.at += count;
        Ok(digits)
    }

    fn list(&mut self, depth: usize) -> Result<(), MetainfoError> {
        self.enter(depth)?;
        while self.peek()? != b'e' {
            self.value(depth + 1)?;
        }
        self.at += 1;
        Ok(())
    }

    fn dict(&mut self, depth: usize) -> Result<Dict<'a>, MetainfoError> {
        let start = self.at;
        if self.peek()? != b'd' {
            return fail(start, "expected a dictionary");
        }
        self.enter(depth)?;
        let mut entries: Vec<(&[u8], Range<usize>)> = Vec::new();
        while self.peek()? != b'e' {
            let at = self.at;
            if !self.peek()?.is_ascii_digit() {
                return fail(at, "a dictionary key is not a string");
            }
            let key = self.string()?;
            match entries.last() {
                Some((last, _)) if *last == key => {
                    return fail(at, format!("duplicate key `{}`", key.escape_ascii()));
                }
                Some((last, _)) if *last > key => {
                    return fail(
                        at,
                        format!(
                            "key `{}` is out of order after `{}`",
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

    fn enter(&mut self, depth: usize) -> Result<(), MetainfoError> {
        if depth == MAX_DEPTH {
            return fail(
                self.at,
                format!("lists and dictionaries are nested more than {MAX_DEPTH} deep"),
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
        let error = Dict::parse(bytes).err().expect("an error");
        assert!(error.reason.contains(reason), "{error}");
        assert_eq!(error.offset, offset, "{error}");
    }

    #[test]
    fn finds_values_and_their_offsets() {
        let file = Dict::parse(b"d1:ai-7e1:bd1:xlee2:\xff\xfe3:a\0be").unwrap();
        assert_eq!(file.read::<i64>("a").unwrap(), Some(-7));
        assert_eq!(file.read::<i64>("c").unwrap(), None);
        assert_eq!(file.require::<u64>("a").unwrap_err().offset, 4);
        assert_eq!(
            file.require::<i64>("c").unwrap_err().to_string(),
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
    fn refuses_other_encodings_of_values() {
        refused(b"", 0, "unexpected end");
        refused(b"i1e", 0, "expected a dictionary");
        refused(b"<html>", 0, "expected a dictionary");
        refused(b"d", 1, "unexpected end");
        refused(b"di1e1:ae", 1, "key is not a string");
        refused(b"d1:a1:b1:a1:be", 7, "duplicate key `a`");
        refused(b"d1:b1:b1:a1:be", 7, "`a` is out of order after `b`");
        refused(b"d2:aa1:b1:a1:be", 8, "out of order");
        refused(b"d01:a1:be", 1, "leading zero");
        refused(b"d1:a01:be", 4, "leading zero");
        refused(b"d1:ai01ee", 5, "leading zero");
        refused(b"d1:ai00ee", 5, "leading zero");
        refused(b"d1:ai-01ee", 6, "leading zero");
        refused(b"d1:ai-0ee", 4, "-0 is not");
        refused(b"d1:ai+1ee", 5, "expected a digit");
        refused(b"d1:ai ee", 5, "expected a digit");
        refused(b"d1:aiee", 5, "expected a digit");
        refused(b"d1:ai-ee", 6, "expected a digit");
        refused(b"d1:ai1.5ee", 6, "not a digit");
        refused(b"d1:ai9223372036854775808ee", 4, "64 bits");
        refused(b"d1:ai-9223372036854775809ee", 4, "64 bits");
        refused(b"d1:a-1:be", 4, "invalid start");
        refused(b"d1:a2 bbe", 5, "colon");
        refused(b"d1:a9:be", 4, "past the end");
        refused(b"d1:a18446744073709551615:be", 4, "past the end");
        refused(b"d1:a18446744073709551616:be", 4, "past the end");
        refused(b"d1:ax", 4, "invalid start");
        refused(b"d1:a", 4, "unexpected end");
        refused(b"d1:a1", 5, "unexpected end");
        refused(b"d1:ai1", 6, "unexpected end");
        refused(b"d1:al", 5, "unexpected end");
        refused(b"d1:ae", 4, "invalid start");
        refused(b"d1:a1:be\n", 8, "after the end");
        refused(b"d1:a1:bede", 8, "after the end");
        assert!(Dict::parse(b"d1:ai9223372036854775807e1:bi-9223372036854775808e1:ci0ee").is_ok());
    }

    #[test]
    fn written_value_is_valid() {
        let value = BencodeValue::dict([
            (
                "b",
                BencodeValue::List(vec![BencodeValue::Integer(-7), BencodeValue::text("x")]),
            ),
            ("a", BencodeValue::length(1)),
            ("c", BencodeValue::Raw(b"le".to_vec())),
        ]);
        let mut out = Vec::new();
        value.write(&mut out);
        assert_eq!(out.escape_ascii().to_string(), "d1:ai1e1:bli-7e1:xe1:clee");
        assert!(Dict::parse(&out).is_ok());
    }

    #[test]
    fn limits_nesting_depth() {
        let nested =
            |depth: usize| format!("d1:x{}{}e", "l".repeat(depth - 1), "e".repeat(depth - 1));
        assert!(Dict::parse(nested(MAX_DEPTH).as_bytes()).is_ok());
        refused(nested(MAX_DEPTH + 1).as_bytes(), 103, "100 deep");
        refused(nested(1_000_000).as_bytes(), 103, "100 deep");
        refused("d1:a".repeat(1_000_000).as_bytes(), 400, "100 deep");
    }
}
