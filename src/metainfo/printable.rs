//! Text from a `.torrent` file, made safe to print.

/// Characters of a name that are kept.
const MAX_SHOWN: usize = 255;

/// Text that was written by a stranger, made fit for a terminal, a log line and a table.
pub fn shown(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let mut out = String::new();
    for (count, char) in text.chars().enumerate() {
        if count == MAX_SHOWN {
            out.push('…');
            break;
        }
        out.push(if is_deceptive(char) {
            char::REPLACEMENT_CHARACTER
        } else {
            char
        });
    }
    out
}

/// Controls, line separators, and what turns the direction of the text around it or cannot be seen.
fn is_deceptive(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        || matches!(char, '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}
