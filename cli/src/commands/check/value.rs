//! The values of settings, read as systemd reads them. Pure, and total: what it would refuse is
//! `None`.
//!
//! # References
//! systemd.time(7); `parse_boolean`, `parse_sec`, `parse_size`, `signal_from_string`,
//! `extract_first_word` in systemd's source.

use std::time::Duration;

/// The time that has no end; also what is longer than systemd can count (584,942 years).
pub(super) const INFINITY: Duration = Duration::MAX;

pub(super) fn boolean(text: &str) -> Option<bool> {
    let is = |all: &[&str]| all.iter().any(|word| word.eq_ignore_ascii_case(text));
    if is(&["1", "yes", "y", "true", "t", "on"]) {
        return Some(true);
    }
    is(&["0", "no", "n", "false", "f", "off"]).then_some(false)
}

pub(super) fn is_on(text: &str) -> bool {
    boolean(text) == Some(true)
}

pub(super) fn is_off(text: &str) -> bool {
    boolean(text) == Some(false)
}

/// `1min 30s`, `0.5`, `infinity`; seconds where there is no unit.
pub(super) fn span(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if rest == "infinity" {
        return Some(INFINITY);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let number: f64 = number.parse().ok()?;
        let after = after.trim_start();
        let letters = after.find(|c: char| !c.is_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        total += number * seconds(unit)?;
        rest = after.trim_start();
    }
    Some(Duration::try_from_secs_f64(total).unwrap_or(INFINITY))
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
    let (number, unit) = (&text[..digits], text[digits..].trim());
    let power = ["", "K", "M", "G", "T", "P", "E"].iter().position(|name| *name == unit || unit == "B")?;
    number.parse::<u64>().ok()?.checked_mul(1 << (10 * power))
}

/// A whole number as `safe_atou` reads it: also `0x40`, `0o100`, `0b1000000` and octal `0100`.
pub(super) fn count(text: &str) -> Option<u64> {
    let text = text.trim();
    let lower = text.strip_prefix('+').unwrap_or(text).to_ascii_lowercase();
    let radixes = [("0x", 16), ("0o", 8), ("0b", 2), ("0", 8)];
    let prefixed = radixes.iter().find_map(|(prefix, radix)| Some((lower.strip_prefix(prefix)?, *radix)));
    let (digits, radix) = prefixed.filter(|(digits, _)| !digits.is_empty()).unwrap_or((&lower, 10));
    // from_str_radix takes a sign of its own.
    u64::from_str_radix(digits, radix).ok().filter(|_| !digits.starts_with('+'))
}

/// Words, with quotes and backslashes taken off. An open quote ends at the end.
pub(super) fn words(text: &str) -> Vec<String> {
    split(text).0
}

/// Whether a quote is never closed.
pub(super) fn has_open_quote(text: &str) -> bool {
    split(text).1
}

fn split(text: &str) -> (Vec<String>, bool) {
    let mut all = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (_, '\\') => word.get_or_insert_default().push_str(&unescape(&mut chars)),
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => all.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    all.extend(word);
    (all, quote.is_some())
}

/// What follows a backslash; an escape that nobody knows stays as it is.
fn unescape(chars: &mut std::str::Chars<'_>) -> String {
    let Some(c) = chars.next() else { return "\\".to_owned() };
    let known = match c {
        '\\' | '"' | '\'' | ' ' => Some(c),
        's' => Some(' '),
        't' => Some('\t'),
        'n' => Some('\n'),
        'x' => {
            let digits = chars.as_str().get(..2).unwrap_or_default();
            let byte = u8::from_str_radix(digits, 16).ok().filter(|byte| byte.is_ascii() && !digits.starts_with('+'));
            byte.inspect(|_| _ = chars.nth(1)).map(char::from)
        }
        _ => None,
    };
    known.map_or_else(|| format!("\\{c}"), String::from)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn booleans_in_any_case() {
        let read = ["yes", "On", "1", "T", "no", "OFF", "", "maybe", "yes "].map(boolean);
        let (yes, no) = (Some(true), Some(false));
        assert_eq!(read, [yes, yes, yes, yes, no, no, None, None, None]);
    }

    #[test]
    fn times_with_and_without_units() {
        for (text, ms) in [
            ("1min 30s", 90_000),
            ("1min30s", 90_000),
            ("5", 5_000),
            ("2.5 s", 2_500),
            ("100ms", 100),
            ("2h 1M", 7_200_000 + 2_629_800_000),
        ] {
            assert_eq!(span(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for wrong in ["", "abc", "-5", "5 parsecs", "s", ".", "1..2", "1min,", "5 infinity"] {
            assert_eq!(span(wrong), None, "{wrong}");
        }
        assert_eq!([span("infinity"), span("9999999999999y")], [Some(INFINITY); 2]);
    }

    #[test]
    fn sizes_and_numbers_of_all_bases() {
        let sizes = ["64K", "2G", "7", "infinity", "10%", "K", "99999999E"].map(size);
        assert_eq!(sizes, [Some(65536), Some(2 << 30), Some(7), None, None, None, None]);
        let counts = ["64", "0x40", "0X4f", "0o100", "0b11", "010", "0", "+5"].map(count);
        assert_eq!(counts, [64, 64, 79, 64, 3, 8, 0, 5].map(Some));
        for wrong in ["", "x", "0x", "08", "-1", "++1", "0x+1", "1K", "1 2"] {
            assert_eq!(count(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn words_are_taken_apart_as_a_shell_would() {
        assert_eq!(words(r#" a "b c"d 'e"f' \x2d \" g\sh "#), ["a", "b cd", "e\"f", "-", "\"", "g h"]);
        assert_eq!(words("'open"), ["open"]);
        assert_eq!(words("''"), [""]);
        assert_eq!(words(r"\xé \xz\"), ["\\xé", "\\xz\\"]);
        assert!(has_open_quote("a 'b") && has_open_quote("\"\\\"") && !has_open_quote("a 'b\"' \\'"));
    }

    proptest! {
        #![proptest_config(crate::commands::check::fixed_seed(9))]
        #[test]
        fn nothing_panics(text in "\\PC{0,40}", time in "([0-9.]{0,4} ?(s|ms|min|h|x|infinity)? ?){0,4}") {
            let _ = (boolean(&text), span(&text), size(&text), count(&text), handover::supervise::signal_name(&text), words(&text));
            let _ = span(&time);
        }
    }
}
