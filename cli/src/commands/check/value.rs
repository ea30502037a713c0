//! The values of settings, read as systemd reads them. Pure, and total: what it would refuse is
//! `None`.
//!
//! # References
//! systemd.time(7); `parse_boolean`, `parse_sec`, `parse_size`, `signal_from_string`,
//! `extract_first_word` in systemd's source.

use std::time::Duration;

/// A length of time that may have no end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Span {
    Time(Duration),
    Infinity,
}

impl Span {
    /// For settings of which 0 means "no limit".
    pub(super) fn or_infinity(self) -> Self {
        if self == Self::Time(Duration::ZERO) { Self::Infinity } else { self }
    }

    pub(super) fn is_below(self, limit: Duration) -> bool {
        matches!(self, Self::Time(time) if time < limit)
    }
}

pub(super) fn boolean(text: &str) -> Option<bool> {
    let is = |all: &[&str]| all.iter().any(|word| word.eq_ignore_ascii_case(text));
    if is(&["1", "yes", "y", "true", "t", "on"]) {
        return Some(true);
    }
    is(&["0", "no", "n", "false", "f", "off"]).then_some(false)
}

/// `1min 30s`, `0.5`, `infinity`; seconds where there is no unit.
pub(super) fn span(text: &str) -> Option<Span> {
    let mut rest = text.trim();
    if rest == "infinity" {
        return Some(Span::Infinity);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        if number.is_empty() || number.starts_with('.') && number.len() == 1 {
            return None;
        }
        let number: f64 = number.parse().ok()?;
        let after = after.trim_start();
        let letters = after.find(|c: char| !c.is_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        total += number * seconds(unit)?;
        rest = after.trim_start();
    }
    // What is longer than systemd can count (584,942 years) is without end.
    Some(Duration::try_from_secs_f64(total).map_or(Span::Infinity, Span::Time))
}

fn seconds(unit: &str) -> Option<f64> {
    Some(match unit {
        "" | "seconds" | "second" | "sec" | "s" => 1.0,
        "minutes" | "minute" | "min" | "m" => 60.0,
        "hours" | "hour" | "hr" | "h" => 3600.0,
        "days" | "day" | "d" => 86_400.0,
        "weeks" | "week" | "w" => 604_800.0,
        "months" | "month" | "M" => 2_629_800.0,
        "years" | "year" | "y" => 31_557_600.0,
        "msec" | "ms" => 0.001,
        "usec" | "us" | "µs" | "μs" => 0.000_001,
        _ => return None,
    })
}

/// Bytes: `512M`, base 1024. Neither `infinity` nor percentages.
pub(super) fn size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim() {
        "" | "B" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        "P" => 50,
        "E" => 60,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// A whole number as `safe_atou` reads it: also `0x40`, `0o100`, `0b1000000`, and octal after a
/// leading 0.
pub(super) fn count(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.strip_prefix('+').unwrap_or(text);
    let lower = digits.to_ascii_lowercase();
    let (digits, radix) = match () {
        () if lower.starts_with("0x") => (&digits[2..], 16),
        () if lower.starts_with("0o") => (&digits[2..], 8),
        () if lower.starts_with("0b") => (&digits[2..], 2),
        () if digits.len() > 1 && digits.starts_with('0') => (&digits[1..], 8),
        () => (digits, 10),
    };
    // from_str_radix takes a sign of its own.
    u64::from_str_radix(digits, radix).ok().filter(|_| !digits.starts_with('+'))
}

/// Whether a quote is never closed.
pub(super) fn has_open_quote(text: &str) -> bool {
    let (mut quote, mut chars) = (None, text.chars());
    while let Some(c) = chars.next() {
        match (quote, c) {
            (_, '\\') => _ = chars.next(),
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            _ => {}
        }
    }
    quote.is_some()
}

/// Words, with quotes and backslashes taken off. An open quote ends at the end.
pub(super) fn words(text: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (_, '\\') => word.get_or_insert_default().push_str(&unescape(&mut chars)),
            (Some(open), c) if c == open => quote = None,
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => all.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    all.extend(word);
    all
}

/// What follows a backslash; an escape that nobody knows stays as it is.
fn unescape(chars: &mut std::str::Chars<'_>) -> String {
    let simple = |c: char| c.to_string();
    match chars.next() {
        None => "\\".to_owned(),
        Some(c @ ('\\' | '"' | '\'' | ' ')) => simple(c),
        Some('s') => simple(' '),
        Some('t') => simple('\t'),
        Some('n') => simple('\n'),
        Some('x') => {
            let digits: String = chars.clone().take(2).collect();
            match u8::from_str_radix(&digits, 16).ok().filter(|c| c.is_ascii() && digits.len() == 2) {
                Some(c) => {
                    chars.nth(1);
                    simple(c.into())
                }
                None => "\\x".to_owned(),
            }
        }
        Some(c) => format!("\\{c}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn booleans_in_any_case() {
        for (text, value) in [("yes", true), ("On", true), ("1", true), ("T", true), ("no", false), ("OFF", false)] {
            assert_eq!(boolean(text), Some(value));
        }
        assert_eq!((boolean(""), boolean("maybe"), boolean("yes ")), (None, None, None));
    }

    #[test]
    fn times_with_and_without_units() {
        let time = |ms| Some(Span::Time(Duration::from_millis(ms)));
        assert_eq!(span("1min 30s"), time(90_000));
        assert_eq!(span("1min30s"), time(90_000));
        assert_eq!(span("5"), time(5_000));
        assert_eq!(span("2.5 s"), time(2_500));
        assert_eq!(span("100ms"), time(100));
        assert_eq!(span("2h 1M"), time(7_200_000 + 2_629_800_000));
        assert_eq!(span("infinity"), Some(Span::Infinity));
        for wrong in ["", "abc", "-5", "5 parsecs", "s", ".", "1..2", "1min,", "5 infinity"] {
            assert_eq!(span(wrong), None, "{wrong}");
        }
        assert!(Span::Infinity > Span::Time(Duration::MAX));
    }

    #[test]
    fn sizes_and_signals() {
        assert_eq!((size("64K"), size("2G"), size("7")), (Some(65536), Some(2 << 30), Some(7)));
        assert_eq!((size("infinity"), size("10%"), size("K"), size("99999999E")), (None, None, None, None));
    }

    #[test]
    fn numbers_of_all_bases() {
        assert_eq!(
            (count("64"), count("0x40"), count("0X4f"), count("0o100")),
            (Some(64), Some(64), Some(79), Some(64))
        );
        assert_eq!((count("0b11"), count("010"), count("0"), count("+5")), (Some(3), Some(8), Some(0), Some(5)));
        for wrong in ["", "x", "0x", "08", "-1", "++1", "0x+1", "1K", "1 2"] {
            assert_eq!(count(wrong), None, "{wrong}");
        }
        assert!(has_open_quote("a 'b") && has_open_quote("\"\\\"") && !has_open_quote("a 'b\"' \\'"));
    }

    #[test]
    fn words_are_taken_apart_as_a_shell_would() {
        assert_eq!(words(r#" a "b c"d 'e"f' \x2d \" g\sh "#), ["a", "b cd", "e\"f", "-", "\"", "g h"]);
        assert_eq!(words("'open"), ["open"]);
        assert_eq!(words("''"), [""]);
        assert_eq!(words(r"\xé \xz\"), ["\\xé", "\\xz\\"]);
    }

    proptest! {
        #![proptest_config(crate::commands::check::fixed_seed(9))]
        #[test]
        fn nothing_panics(text in "\\PC{0,40}") {
            let _ = (boolean(&text), span(&text), size(&text), count(&text), crate::signals::name(&text), words(&text));
        }

        #[test]
        fn times_from_their_pieces(text in "([0-9.]{0,4} ?(s|ms|min|h|x|infinity)? ?){0,4}") {
            let _ = span(&text);
        }
    }
}
