//! Bytes and hexadecimal digits: reading a fixed number of bytes, and ids as text.

use std::fmt;

/// Removes the first `N` bytes of `rest` and returns them. Returns `None`, and leaves `rest` as it is, if there are fewer.
pub fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(*first)
}

/// Returns the value of one hexadecimal digit of either case.
pub fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' | b'A'..=b'F' => Some((digit | 0x20) - b'a' + 10),
        _ => None,
    }
}

/// Parses exactly `2 * N` hexadecimal digits of either case.
pub fn parse_hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = hex_digit(pair[0])? << 4 | hex_digit(pair[1])?;
    }
    Some(bytes)
}

/// Displays bytes as lower-case hexadecimal digits.
///
/// Formats 20 bytes at once. Formatting each byte on its own takes tens of times as long, and the status page shows ten
/// thousand ids.
#[derive(Clone, Copy, Debug)]
pub struct Hex<'a>(pub &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        self.0.chunks(20).try_for_each(|bytes| {
            let mut hex = [0; 40];
            for (pair, byte) in hex.chunks_exact_mut(2).zip(bytes) {
                pair[0] = DIGITS[usize::from(byte >> 4)];
                pair[1] = DIGITS[usize::from(byte & 15)];
            }
            f.write_str(std::str::from_utf8(&hex[..2 * bytes.len()]).map_err(|_| fmt::Error)?)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_fixed_sizes_until_too_few_are_left() {
        let mut rest: &[u8] = &[1, 2, 3];
        assert_eq!(take::<2>(&mut rest), Some([1, 2]));
        assert_eq!(take::<2>(&mut rest), None);
        assert_eq!(rest, [3]);
        assert_eq!(take::<0>(&mut rest), Some([]));
    }

    #[test]
    fn hex_round_trips_and_rejects_other_digits() {
        let bytes: Vec<u8> = (0..=255).collect();
        let text = Hex(&bytes).to_string();
        assert!(text.starts_with("000102") && text.ends_with("fdfeff"));
        assert_eq!(parse_hex::<256>(text.as_bytes()).unwrap()[..], bytes);
        assert_eq!(parse_hex(b"aF"), Some([0xaf]));
        for wrong in [&b"a"[..], b"abc", b"ag", b"-1", b" 1", b""] {
            assert_eq!(parse_hex::<1>(wrong), None, "{}", wrong.escape_ascii());
        }
    }
}
