//! Text from a `.torrent` file, made safe to print.

/// Longer text is cut to this number of characters.
const MAX_CHARS: usize = 255;

/// Makes untrusted text safe for a terminal, a log line and a table: on a single line, without control characters, at most
/// 255 characters and an ellipsis. The result is not escaped for HTML.
pub fn shown(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let mut out = String::new();
    for (count, char) in text.chars().enumerate() {
        if count == MAX_CHARS {
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

/// Returns whether a character is a control character, a line separator, invisible, or changes the direction of text.
fn is_deceptive(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        || matches!(char, '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}
