//! Formatting of numbers and text for the status page.

use std::fmt::{self, Display, Write};

use percent_encoding::{
    AsciiSet, NON_ALPHANUMERIC, PercentEncode, percent_decode, utf8_percent_encode,
};

/// All characters except the unreserved characters of RFC 3986, section 2.3.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Formats a number of seconds in the largest unit of which there are at least two: `119 s`, `2 min`, `2 days`.
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

/// Formats a number of bytes in powers of 1024, as BitTorrent clients do: `4.7 GiB`.
pub(super) struct ByteSize(pub(super) u64);

impl Display for ByteSize {
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

/// Formats a number with commas between groups of three digits: `1,234,567`.
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

/// Formats a number with one decimal if it is below ten and not whole, and else rounded: `0.2`, `9`, `1,235`.
pub(super) struct Rounded(pub(super) f64);

impl Display for Rounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            number if number < 10.0 && number.fract() != 0.0 => write!(f, "{number:.1}"),
            number => Grouped(number.round() as u64).fmt(f),
        }
    }
}

/// Escapes text for HTML, both between tags and in quoted attributes.
pub(super) struct HtmlEscaped<'a>(pub(super) &'a str);

impl Display for HtmlEscaped<'_> {
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

/// Encodes text as a value in the query of a URL.
pub(super) fn percent_encode(text: &str) -> PercentEncode<'_> {
    utf8_percent_encode(text, RESERVED)
}

/// Decodes a value in the query of a URL, as browsers encode a form: a space is `+`. Replaces invalid UTF-8, and keeps
/// a `%` that is not followed by two hexadecimal digits.
pub(super) fn decode_form_value(value: &str) -> String {
    let value = value.replace('+', " ");
    percent_decode(value.as_bytes())
        .decode_utf8_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn formatted(values: &[&dyn Display]) -> Vec<String> {
        values.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn groups_digits_in_threes() {
        assert_eq!(
            formatted(&[
                &Grouped(0),
                &Grouped(999),
                &Grouped(1000),
                &Grouped(1_234_567)
            ]),
            ["0", "999", "1,000", "1,234,567"]
        );
    }

    #[test]
    fn formats_byte_sizes_in_powers_of_1024() {
        assert_eq!(
            formatted(&[
                &ByteSize(0),
                &ByteSize(1023),
                &ByteSize(1024),
                &ByteSize(700 << 20),
                &ByteSize(5_000_000_000),
                &ByteSize(9 << 40)
            ]),
            ["0 B", "1023 B", "1.0 KiB", "700 MiB", "4.7 GiB", "9.0 TiB"]
        );
    }

    #[test]
    fn formats_spans_in_the_largest_unit_with_at_least_two() {
        assert_eq!(
            formatted(&[&Span(119), &Span(120), &Span(7200), &Span(172_800)]),
            ["119 s", "2 min", "2 h", "2 days"]
        );
    }

    #[test]
    fn rounds_numbers_from_ten_on() {
        assert_eq!(
            formatted(&[
                &Rounded(0.0),
                &Rounded(0.25),
                &Rounded(9.0),
                &Rounded(1234.6)
            ]),
            ["0", "0.2", "9", "1,235"]
        );
    }

    #[test]
    fn percent_encodes_all_but_unreserved_characters() {
        assert_eq!(
            percent_encode("aZ09-._~ +/%é").to_string(),
            "aZ09-._~%20%2B%2F%25%C3%A9"
        );
    }

    #[test]
    fn decodes_form_values_and_keeps_invalid_escapes() {
        for (value, decoded) in [
            ("a+b%20c%2Bd", "a b c+d"),
            ("%C3%9cb", "Üb"),
            ("%fF%%c3%9cb", "\u{fffd}%Üb"),
            ("100%", "100%"),
            ("%2", "%2"),
            ("%zz", "%zz"),
            ("", ""),
        ] {
            assert_eq!(decode_form_value(value), decoded, "{value}");
        }
    }
}
