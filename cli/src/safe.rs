//! What the journal holds was written by anybody: none of it reaches a terminal, an SVG or an HTML
//! page as it is.

use std::fmt::Write as _;

/// For a terminal: one line, no escape sequences, nothing that turns the direction of the text.
pub(crate) fn terminal(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\t' => safe.push(' '),
            c if is_hostile(c) => _ = write!(safe, "{}", c.escape_unicode()),
            c => safe.push(c),
        }
    }
    safe
}

/// For text and attributes of XML and HTML. Characters that XML cannot hold are replaced.
pub(crate) fn markup(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            '\n' | '\t' => safe.push(' '),
            c if is_hostile(c) || matches!(c, '\u{fffe}' | '\u{ffff}') => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}

/// For JSON that may be read on a terminal: the same values, with what is hostile written as
/// escapes. Takes whole JSON, in which such characters can only be in strings.
pub(crate) fn json(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if is_hostile(c) && c != '\n' {
            c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| _ = write!(safe, "\\u{unit:04x}"));
        } else {
            safe.push(c);
        }
    }
    safe
}

/// Cut to so many characters, with an ellipsis where something is missing.
pub(crate) fn short(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

/// Lines of at most so many characters, broken at spaces where there are any.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<String> {
    let (mut lines, mut line, mut used) = (Vec::new(), String::new(), 0);
    for word in text.split(' ').filter(|w| !w.is_empty()) {
        let chars: Vec<char> = word.chars().collect();
        for (part, piece) in chars.chunks(width.max(1)).enumerate() {
            let space = usize::from(part == 0 && used > 0);
            if used > 0 && (part > 0 || used + space + piece.len() > width) {
                lines.push(std::mem::take(&mut line));
                used = 0;
            } else if space > 0 {
                line.push(' ');
                used += 1;
            }
            line.extend(piece);
            used += piece.len();
        }
    }
    lines.push(line);
    lines
}

/// Control characters, line separators, and marks that reorder or hide text.
fn is_hostile(c: char) -> bool {
    // What nearly all text is.
    if matches!(c, ' '..='~') {
        return false;
    }
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_reaches_a_terminal() {
        assert_eq!(terminal("a\u{1b}[31mb\u{9b}c\u{7f}\r\nd"), r"a\u{1b}[31mb\u{9b}c\u{7f}\u{d} d");
        assert_eq!(terminal("\u{202e}evil\u{2066}"), r"\u{202e}evil\u{2066}");
        assert_eq!(terminal("später → ✓"), "später → ✓");
    }

    #[test]
    fn json_keeps_its_values() {
        let value = serde_json::json!({"a": "x\u{202e}y\u{9b}\u{7f}\u{e0041}\n✓"});
        let safe = json(&format!("{value:#}"));
        assert!(safe.contains(r"x\u202ey\u009b\u007f\udb40\udc41\n✓"), "{safe}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&safe).unwrap(), value);
    }

    #[test]
    fn nothing_is_markup() {
        assert_eq!(markup("<script>&\"'\u{0}\u{1b}"), "&lt;script&gt;&amp;&quot;&#39;\u{fffd}\u{fffd}");
    }

    #[test]
    fn lines_fit() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("abcdefghij k", 4), ["abcd", "efgh", "ij k"]);
        assert_eq!(wrap("", 4), [""]);
        assert_eq!(short("abcdef", 4), "abc…");
        assert_eq!(short("abcd", 4), "abcd");
    }
}
