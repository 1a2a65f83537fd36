//! Bencode as a tracker sends it: read on where the meaning is clear, with every fault of form told.
//!
//! Not the library's reader, which must refuse what this one has to describe.

/// Nothing that a tracker sends lies deeper.
const MAX_DEPTH: usize = 16;

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Value {
    Integer(i128),
    Bytes(Vec<u8>),
    List(Vec<Self>),
    Dict(Dict),
}

/// In the order in which it was sent.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Dict(pub(crate) Vec<(Vec<u8>, Value)>);

impl Dict {
    /// The first value of a key, as most readers take it.
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

/// Reads one dictionary, and what is wrong with its form; `Err` where it cannot be read at all.
pub(crate) fn read(bytes: &[u8]) -> Result<(Dict, Vec<String>), String> {
    let mut reader = Reader {
        bytes,
        at: 0,
        faults: Vec::new(),
    };
    let Value::Dict(dict) = reader.value(0)? else {
        return Err("it is no dictionary".to_owned());
    };
    let rest = bytes.len() - reader.at;
    if rest > 0 {
        reader.faults.push(format!("{rest} bytes follow its end"));
    }
    Ok((dict, reader.faults))
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    faults: Vec<String>,
}

impl Reader<'_> {
    fn peek(&self) -> Result<u8, String> {
        let byte = self.bytes.get(self.at).copied();
        byte.ok_or_else(|| "it ends too early".to_owned())
    }

    fn value(&mut self, depth: usize) -> Result<Value, String> {
        if depth > MAX_DEPTH {
            return Err(format!("it is more than {MAX_DEPTH} deep"));
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
            _ => Err(format!("no value begins like byte {}", self.at)),
        }
    }

    fn check_order(&mut self, dict: &Dict, key: &[u8]) {
        let shown = key.escape_ascii();
        if dict.get(key).is_some() {
            self.faults.push(format!("the key {shown} comes twice"));
        } else if let Some((last, _)) = dict.0.last().filter(|(last, _)| last.as_slice() > key) {
            let last = last.escape_ascii();
            self.faults
                .push(format!("the key {shown} comes after {last}"));
        }
    }

    fn string(&mut self) -> Result<Vec<u8>, String> {
        if !self.peek()?.is_ascii_digit() {
            return Err(format!("a string should be at byte {}", self.at));
        }
        let length = self.number(b':')?;
        let end = usize::try_from(length)
            .ok()
            .and_then(|length| self.at.checked_add(length));
        let string = end.and_then(|end| self.bytes.get(self.at..end));
        let string = string.ok_or("a string is longer than the rest")?;
        self.at += string.len();
        Ok(string.to_vec())
    }

    /// Up to and with its end.
    fn number(&mut self, end: u8) -> Result<i128, String> {
        let rest = &self.bytes[self.at..];
        let length = rest.iter().position(|&byte| byte == end);
        let text = length.and_then(|length| std::str::from_utf8(&rest[..length]).ok());
        let text = text.ok_or_else(|| format!("a number at byte {} has no end", self.at))?;
        let digits = text.strip_prefix('-').unwrap_or(text);
        let number: i128 = match digits.bytes().all(|byte| byte.is_ascii_digit()) {
            true => text.parse().ok(),
            false => None,
        }
        .ok_or_else(|| format!("\"{}\" is no number", text.escape_default()))?;
        if number.to_string() != text {
            self.faults.push(format!("{number} is written as {text}"));
        }
        self.at += text.len() + 1;
        Ok(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_is_right_without_a_word() {
        let (dict, faults) = read(b"d1:ai-7e1:bl1:xi0ee1:cd0:2:\xff\0ee").unwrap();
        assert_eq!(faults, [""; 0]);
        assert_eq!(dict.integer("a"), Some(-7));
        assert_eq!(dict.dict("c").unwrap().bytes(""), Some(&b"\xff\0"[..]));
        assert_eq!(dict.get("d"), None);
    }

    #[test]
    fn tells_faults_of_form_and_reads_on() {
        let faults = |bytes: &[u8]| read(bytes).unwrap().1.join("; ");
        assert_eq!(faults(b"d1:b0:1:a0:e"), "the key a comes after b");
        assert_eq!(faults(b"d1:b0:1:b0:e"), "the key b comes twice");
        assert_eq!(
            faults(b"d1:ad1:b0:1:b0:ee\r\n"),
            "the key b comes twice; 2 bytes follow its end"
        );
        assert_eq!(
            faults(b"d01:ai007ee"),
            "1 is written as 01; 7 is written as 007"
        );
        assert_eq!(faults(b"d1:ai-0ee"), "0 is written as -0");
    }

    #[test]
    fn refuses_what_cannot_be_read() {
        for bad in [
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
            assert!(read(bad).is_err(), "{}", bad.escape_ascii());
        }
        let deep = format!("d1:a{}{}e", "l".repeat(99), "e".repeat(99));
        assert!(read(deep.as_bytes()).is_err());
    }
}
