//! Parses the bencode of a tracker's responses, and reports errors of form.
//!
//! The library's parser stops at the first error. This parser continues as long as the meaning is clear, because the probe
//! must describe the errors.

/// Maximum nesting. Responses of trackers have less.
const MAX_DEPTH: usize = 16;

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Value {
    Integer(i128),
    Bytes(Vec<u8>),
    List(Vec<Self>),
    Dict(Dict),
}

/// Entries in the order in which they were sent.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Dict(pub(crate) Vec<(Vec<u8>, Value)>);

impl Dict {
    /// Returns the first value of a key, as most parsers do.
    pub(crate) fn get(&self, key: impl AsRef<[u8]>) -> Option<&Value> {
        let key = key.as_ref();
        let found = self.0.iter().find(|(name, _)| name == key);
        found.map(|(_, value)| value)
    }

    pub(crate) fn integer(&self, key: &str) -> Option<i128> {
        match self.get(key)? {
            Value::Integer(number) => Some(*number),
            _ => None,
        }
    }

    pub(crate) fn bytes(&self, key: &str) -> Option<&[u8]> {
        match self.get(key)? {
            Value::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    pub(crate) fn dict(&self, key: impl AsRef<[u8]>) -> Option<&Self> {
        match self.get(key)? {
            Value::Dict(dict) => Some(dict),
            _ => None,
        }
    }
}

/// Parses a dictionary, and returns it with its errors of form.
///
/// # Errors
/// If the dictionary cannot be parsed to its end.
pub(crate) fn parse(bytes: &[u8]) -> Result<(Dict, Vec<String>), String> {
    let mut parser = Parser {
        bytes,
        at: 0,
        errors: Vec::new(),
    };
    let Value::Dict(dict) = parser.value(0)? else {
        return Err("not a dictionary".to_owned());
    };
    let rest = bytes.len() - parser.at;
    if rest > 0 {
        let error = match rest {
            1 => "1 byte follows the dictionary".to_owned(),
            rest => format!("{rest} bytes follow the dictionary"),
        };
        parser.errors.push(error);
    }
    Ok((dict, parser.errors))
}

struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
    errors: Vec<String>,
}

impl Parser<'_> {
    fn peek(&self) -> Result<u8, String> {
        let byte = self.bytes.get(self.at).copied();
        byte.ok_or_else(|| "it is truncated".to_owned())
    }

    fn value(&mut self, depth: usize) -> Result<Value, String> {
        if depth > MAX_DEPTH {
            return Err(format!("it is nested more than {MAX_DEPTH} deep"));
        }
        match self.peek()? {
            b'i' => {
                self.at += 1;
                self.number(b'e').map(Value::Integer)
            }
            b'0'..=b'9' => self.string().map(Value::Bytes),
            b'l' => {
                self.at += 1;
                let mut list = Vec::new();
                while self.peek()? != b'e' {
                    list.push(self.value(depth + 1)?);
                }
                self.at += 1;
                Ok(Value::List(list))
            }
            b'd' => {
                self.at += 1;
                let mut dict = Dict::default();
                while self.peek()? != b'e' {
                    let key = self.string()?;
                    self.check_order(&dict, &key);
                    let value = self.value(depth + 1)?;
                    dict.0.push((key, value));
                }
                self.at += 1;
                Ok(Value::Dict(dict))
            }
            _ => Err(format!("byte {} is not the start of a value", self.at)),
        }
    }

    fn check_order(&mut self, dict: &Dict, key: &[u8]) {
        let key_text = key.escape_ascii();
        if dict.get(key).is_some() {
            self.errors.push(format!("the key {key_text} occurs twice"));
        } else if let Some((last, _)) = dict.0.last().filter(|(last, _)| last.as_slice() > key) {
            let last = last.escape_ascii();
            self.errors
                .push(format!("the key {key_text} follows the key {last}"));
        }
    }

    fn string(&mut self) -> Result<Vec<u8>, String> {
        if !self.peek()?.is_ascii_digit() {
            return Err(format!("byte {} is not the start of a string", self.at));
        }
        let length = self.number(b':')?;
        let end = usize::try_from(length)
            .ok()
            .and_then(|length| self.at.checked_add(length));
        let string = end.and_then(|end| self.bytes.get(self.at..end));
        let string = string.ok_or("a string is longer than the rest of the data")?;
        self.at += string.len();
        Ok(string.to_vec())
    }

    /// Parses a number and the byte that ends it.
    fn number(&mut self, end: u8) -> Result<i128, String> {
        let rest = &self.bytes[self.at..];
        let length = rest.iter().position(|&byte| byte == end);
        let text = length.and_then(|length| std::str::from_utf8(&rest[..length]).ok());
        let text = text.ok_or_else(|| format!("the number at byte {} has no end", self.at))?;
        let digits = text.strip_prefix('-').unwrap_or(text);
        let number: i128 = match digits.bytes().all(|byte| byte.is_ascii_digit()) {
            true => text.parse().ok(),
            false => None,
        }
        .ok_or_else(|| format!("\"{}\" is not a number", text.escape_default()))?;
        if number.to_string() != text {
            self.errors.push(format!("{number} is written as {text}"));
        }
        self.at += text.len() + 1;
        Ok(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_valid_bencode_without_errors() {
        let (dict, errors) = parse(b"d1:ai-7e1:bl1:xi0ee1:cd0:2:\xff\0ee").unwrap();
        assert_eq!(errors, [""; 0]);
        assert_eq!(dict.integer("a"), Some(-7));
        assert_eq!(dict.dict("c").unwrap().bytes(""), Some(&b"\xff\0"[..]));
        assert_eq!(dict.get("d"), None);
    }

    #[test]
    fn reports_errors_of_form_and_continues() {
        let errors = |bytes: &[u8]| parse(bytes).unwrap().1.join("; ");
        assert_eq!(errors(b"d1:b0:1:a0:e"), "the key a follows the key b");
        assert_eq!(errors(b"d1:b0:1:b0:e"), "the key b occurs twice");
        assert_eq!(
            errors(b"d1:ad1:b0:1:b0:ee\r\n"),
            "the key b occurs twice; 2 bytes follow the dictionary"
        );
        assert_eq!(
            errors(b"d01:ai007ee"),
            "1 is written as 01; 7 is written as 007"
        );
        assert_eq!(errors(b"d1:ai-0ee"), "0 is written as -0");
    }

    #[test]
    fn rejects_invalid_bencode() {
        for invalid in [
            &b""[..],
            b"<html>",
            b"i1e",
            b"d",
            b"d1:a",
            b"d1:ae",
            b"d1:a9:be",
            b"d1:ai1",
            b"d1:aiee",
            b"d1:ai+1ee",
            b"d1:ai1.5ee",
            b"di1e0:e",
            b"d99999999999999999999999999999999999999999:ae",
        ] {
            assert!(parse(invalid).is_err(), "{}", invalid.escape_ascii());
        }
        let deep = format!("d1:a{}{}e", "l".repeat(99), "e".repeat(99));
        assert!(parse(deep.as_bytes()).is_err());
    }
}
