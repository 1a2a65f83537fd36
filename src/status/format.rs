//! Numbers and text as the page writes them.

use std::fmt::{self, Display, Write};

use crate::bytes::hex_digit;

/// So many seconds, in the greatest unit that they fill twice.
#[derive(Clone, Copy)]
pub(super) struct Span(pub(super) u64);

impl Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            seconds @ 0..120 => write!(f, "{seconds} s"),
            seconds @ 120..7200 => write!(f, "{} min", seconds / 60),
            seconds @ 7200..172_800 => write!(f, "{} h", seconds / 3600),
            seconds => write!(f, "{} days", seconds / 86_400),
        }
    }
}

/// Bytes, as clients show them.
pub(super) struct Size(pub(super) u64);

impl Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut value = self.0 as f64;
        for unit in ["B", "KiB", "MiB", "GiB"] {
            if value < 1024.0 {
                let decimals = usize::from(unit != "B" && value < 100.0);
                return write!(f, "{value:.decimals$} {unit}");
            }
            value /= 1024.0;
        }
        write!(f, "{value:.1} TiB")
    }
}

/// A number with its digits in threes.
pub(super) struct Grouped(pub(super) u64);

impl Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        for (i, digit) in digits.chars().enumerate() {
            if i > 0 && (digits.len() - i) % 3 == 0 {
                f.write_char(',')?;
            }
            f.write_char(digit)?;
        }
        Ok(())
    }
}

/// With a decimal where that says something.
pub(super) struct Rate(pub(super) f64);

impl Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            rate if rate < 10.0 && rate.fract() != 0.0 => write!(f, "{rate:.1}"),
            rate => Grouped(rate.round() as u64).fmt(f),
        }
    }
}

/// Text within HTML, between tags and in quoted attributes.
pub(super) struct Escaped<'a>(pub(super) &'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            '\'' => f.write_str("&#39;"),
            _ => f.write_char(c),
        })
    }
}

/// Text within a query.
pub(super) struct Encoded<'a>(pub(super) &'a str);

impl Display for Encoded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.bytes().try_for_each(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                f.write_char(char::from(byte))
            }
            _ => write!(f, "%{byte:02X}"),
        })
    }
}

/// A value of a query as a form sends it.
pub(super) fn decoded(value: &str) -> String {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let [byte, after @ ..] = rest {
        let escaped = match rest {
            [b'%', high, low, after @ ..] => hex_digit(*high)
                .zip(hex_digit(*low))
                .map(|(high, low)| (high << 4 | low, after)),
            [b'+', after @ ..] => Some((b' ', after)),
            _ => None,
        };
        let (byte, after) = escaped.unwrap_or((*byte, after));
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_people_read_them() {
        let all =
            |values: &[&dyn Display]| values.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(
            all(&[
                &Grouped(0),
                &Grouped(999),
                &Grouped(1000),
                &Grouped(1_234_567)
            ]),
            ["0", "999", "1,000", "1,234,567"]
        );
        assert_eq!(
            all(&[
                &Size(0),
                &Size(1023),
                &Size(1024),
                &Size(700 << 20),
                &Size(5_000_000_000),
                &Size(9 << 40)
            ]),
            ["0 B", "1023 B", "1.0 KiB", "700 MiB", "4.7 GiB", "9.0 TiB"]
        );
        assert_eq!(
            all(&[&Span(119), &Span(120), &Span(7200), &Span(172_800)]),
            ["119 s", "2 min", "2 h", "2 days"]
        );
        assert_eq!(
            all(&[&Rate(0.0), &Rate(0.25), &Rate(9.0), &Rate(1234.6)]),
            ["0", "0.2", "9", "1,235"]
        );
    }
}
