//! Unit files, read as systemd reads them. Pure: bytes in, sections and assignments out, for any
//! bytes.
//!
//! # References
//! systemd.syntax(7); `config_parse`, `parse_line` and `read_line_full` in systemd's source.

use std::borrow::Cow;

use super::directives;

/// Longest line, continuations included; systemd gives up on the file there.
const LONGEST_LINE: usize = 1024 * 1024;
/// Headers and unreadable lines that are kept of one file.
const MOST_REMARKS: usize = 1000;
const WHITESPACE: [char; 4] = [' ', '\t', '\n', '\r'];

/// One file.
///
/// What is no unit can be large, and mostly line ends: the texts of all assignments stand in one
/// buffer, since three strings for each would make gigabytes of 16 MiB.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Parsed {
    /// Of the same section and its like at most [`MOST_REMARKS`]: nobody reads more.
    pub(super) headers: Vec<Header>,
    /// What systemd passes over, in the order of the lines; also at most [`MOST_REMARKS`], but for
    /// the one that ends the reading.
    pub(super) ignored: Vec<Ignored>,
    /// Names of sections, once each.
    sections: Vec<String>,
    text: String,
    spans: Vec<Spans>,
    /// Numbers of the assignments whose keys systemd knows, by key and then by line.
    by_key: Vec<(u16, u32)>,
}

/// `[Section]`. The same one may come several times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) section: String,
    pub(super) line: u32,
}

/// Where an assignment's parts are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Spans {
    section: u32,
    /// Where the key begins, right behind it the value, and where that ends.
    key: u32,
    value: u32,
    end: u32,
    line: u32,
    number: Option<u16>,
}

/// `Key=value`, both stripped, continuations joined; quotes and specifiers as they stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Assignment<'a> {
    pub(super) section: &'a str,
    pub(super) key: &'a str,
    pub(super) value: &'a str,
    /// Where it begins, from 1.
    pub(super) line: u32,
    /// The key's number in the table of settings, if any section has it.
    pub(super) number: Option<u16>,
}

/// A line that means nothing to systemd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ignored {
    pub(super) line: u32,
    pub(super) why: Why,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Why {
    NoEquals,
    NoKey,
    OutsideOfSection,
    /// These end the reading of the whole file.
    BadHeader,
    NotUtf8,
    TooLong,
}

impl Why {
    pub(super) fn text(&self) -> &'static str {
        match self {
            Self::NoEquals => "there is no `=`",
            Self::NoKey => "there is no name before `=`",
            Self::OutsideOfSection => "it stands before any [Section]",
            Self::BadHeader => "it is no [Section], and systemd stops reading the file here",
            Self::NotUtf8 => "it is not UTF-8, and systemd stops reading the file here",
            Self::TooLong => "it is longer than 1 MiB, and systemd stops reading the file here",
        }
    }

    pub(super) fn is_fatal(&self) -> bool {
        matches!(self, Self::BadHeader | Self::NotUtf8 | Self::TooLong)
    }
}

pub(super) fn parse(bytes: &[u8]) -> Parsed {
    let mut parsed = Parsed::default();
    let mut section = None;
    let mut begun: Option<(u32, Vec<u8>)> = None;
    let mut bom_seen = false;
    for (number, raw) in lines(bytes) {
        // Also within a continuation, which goes on after the comment.
        let first = raw.iter().find(|c| !b" \t\n\r".contains(c));
        if first.is_some_and(|c| b"#;".contains(c)) || raw.is_empty() && begun.is_none() {
            continue;
        }
        let mut rest = raw;
        if !bom_seen && let Some(after) = rest.strip_prefix(b"\xef\xbb\xbf") {
            (rest, bom_seen) = (after, true);
        }
        let (line, text) = match begun.take() {
            // Most lines stand alone, and are read where they are.
            None => (number, Cow::Borrowed(rest)),
            Some((line, mut text)) => {
                text.extend_from_slice(rest);
                (line, Cow::Owned(text))
            }
        };
        let too_long = text.len() > LONGEST_LINE;
        if !too_long && ends_escaped(&text) {
            // The next line is joined by a space.
            let mut text = text.into_owned();
            text.pop();
            text.push(b' ');
            begun = Some((line, text));
            continue;
        }
        let read = if too_long { Err(Why::TooLong) } else { parsed.line(line, &text, &mut section) };
        if !parsed.goes_on(line, read) {
            begun = None;
            break;
        }
    }
    if let Some((line, text)) = begun {
        let read = parsed.line(line, &text, &mut section);
        parsed.goes_on(line, read);
    }
    // Stable: of one key the lines stay in their order.
    parsed.by_key.sort_by_key(|(key, _)| *key);
    parsed
}

impl Parsed {
    /// Every assignment, in the order of the lines.
    pub(super) fn assignments(&self) -> impl Iterator<Item = Assignment<'_>> {
        self.spans.iter().map(|spans| self.assignment(*spans))
    }

    /// Those of one key that systemd, or this tool, knows somewhere.
    pub(super) fn of_key(&self, key: &str) -> impl Iterator<Item = Assignment<'_>> {
        let range = directives::key(key).map(|number| {
            let begin = self.by_key.partition_point(|(key, _)| *key < number);
            begin..self.by_key.partition_point(|(key, _)| *key <= number)
        });
        let found = range.map(|range| &self.by_key[range]).unwrap_or_default();
        found.iter().map(|(_, at)| self.assignment(self.spans[*at as usize]))
    }

    fn assignment(&self, spans: Spans) -> Assignment<'_> {
        let Spans { section, key, value, end, line, number } = spans;
        let (key, value) = (&self.text[key as usize..value as usize], &self.text[value as usize..end as usize]);
        Assignment { section: &self.sections[section as usize], key, value, line, number }
    }

    /// Takes the outcome of a line; false: it was the last one.
    fn goes_on(&mut self, line: u32, read: Result<(), Why>) -> bool {
        let Err(why) = read else { return true };
        let fatal = why.is_fatal();
        if fatal || self.ignored.len() < MOST_REMARKS {
            self.ignored.push(Ignored { line, why });
        }
        !fatal
    }

    fn line(&mut self, line: u32, text: &[u8], section: &mut Option<u32>) -> Result<(), Why> {
        let text = std::str::from_utf8(text).map_err(|_| Why::NotUtf8)?.trim_matches(WHITESPACE);
        // A comment after a byte order mark comes here.
        if text.is_empty() || text.starts_with(['#', ';']) {
            return Ok(());
        }
        if let Some(header) = text.strip_prefix('[') {
            // As `string_is_safe` of systemd.
            let is_safe = |c: char| c >= ' ' && !"\\\"'\x7f".contains(c);
            let name = header.strip_suffix(']').filter(|name| name.chars().all(is_safe)).ok_or(Why::BadHeader)?;
            let known = self.sections.iter().position(|known| known == name);
            // More kinds of sections than any unit has: the rest is one kind.
            if known.is_none() && self.sections.len() <= MOST_REMARKS {
                self.sections.push(name.to_owned());
            }
            let number = known.unwrap_or(self.sections.len() - 1);
            if self.headers.len() < MOST_REMARKS || known.is_none() && self.headers.len() < 2 * MOST_REMARKS {
                self.headers.push(Header { section: name.to_owned(), line });
            }
            *section = Some(u32::try_from(number).unwrap_or(u32::MAX));
            return Ok(());
        }
        let section = section.ok_or(Why::OutsideOfSection)?;
        let (key, value) = text.split_once('=').ok_or(Why::NoEquals)?;
        let (key, value) = (key.trim_matches(WHITESPACE), value.trim_matches(WHITESPACE));
        if key.is_empty() {
            return Err(Why::NoKey);
        }
        let at = |n: usize| u32::try_from(n).map_err(|_| Why::TooLong);
        let (start, middle) = (self.text.len(), self.text.len() + key.len());
        let (key_at, value_at, end) = (at(start)?, at(middle)?, at(middle + value.len())?);
        let number = directives::key(key);
        if let Some(number) = number {
            self.by_key.push((number, at(self.spans.len())?));
        }
        self.spans.push(Spans { section, key: key_at, value: value_at, end, line, number });
        self.text.push_str(key);
        self.text.push_str(value);
        Ok(())
    }
}

/// A backslash at the end that is not itself escaped.
fn ends_escaped(text: &[u8]) -> bool {
    text.iter().rev().take_while(|c| **c == b'\\').count() % 2 == 1
}

/// Numbered from 1. A line ends at `\n`, `\r` or NUL, and at any run of different ones: `\r\n` is
/// one end, `\n\n` are two.
fn lines(bytes: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    let mut rest = bytes;
    let mut number = 0;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let is_end = |c: &u8| b"\n\r\0".contains(c);
        let end = rest.iter().position(is_end).unwrap_or(rest.len());
        let (line, after) = rest.split_at(end);
        let run = match after {
            [one, two, three, ..] if is_end(two) && is_end(three) && one != two && one != three && two != three => 3,
            [one, two, ..] if is_end(two) && one != two => 2,
            _ => after.len().min(1),
        };
        rest = &after[run..];
        number += 1;
        Some((number, line))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ignored(text: &[u8]) -> Vec<(u32, Why)> {
        parse(text).ignored.into_iter().map(|i| (i.line, i.why)).collect()
    }

    #[test]
    fn assignments_are_read_as_systemd_reads_them() {
        for (text, assignments, why) in [
            ("# a=b\n; c=d\n\n [Unit] \n\t A  =  b c \t\n  # no=thing\n", &["5:Unit:A=b c"][..], "space means nothing"),
            ("[Unit]\nA=b # no comment\nB=\n", &["2:Unit:A=b # no comment", "3:Unit:B="], "a comment has its own line"),
            (
                "[S]\nA=b\\\n# x\n  c \\\n;y\n  d\nE=f\n",
                &["2:S:A=b   c    d", "7:S:E=f"],
                "a line goes on over comments",
            ),
            ("[S]\nA=b\\\\\nC=d", &["2:S:A=b\\\\", "3:S:C=d"], "an escaped backslash ends the line"),
            ("[S]\nA=b\\", &["2:S:A=b"], "the end of the file ends it too"),
            ("[S]\nA=b\\\n\nC=d", &["2:S:A=b", "4:S:C=d"], "so does an empty line"),
            ("[S]\r\nA=b\r\n\r\nC=d\r\n", &["2:S:A=b", "4:S:C=d"], "\\r\\n is one end"),
            ("[S]\rA=b\0C=d", &["2:S:A=b", "3:S:C=d"], "\\r and NUL are ends"),
            ("[S]\n\rA=b", &["2:S:A=b"], "a run of different ones is one end"),
            ("\u{feff}[S]\nA=b", &["2:S:A=b"], "a byte order mark is passed over"),
            ("\u{feff}# c\n[S]\nA=b", &["3:S:A=b"], "before a comment too"),
            ("[A]\nx=1\n[B]\ny=2\n[A]\nz=3", &["2:A:x=1", "4:B:y=2", "6:A:z=3"], "sections may come again"),
        ] {
            let all = parse(text.as_bytes());
            let read = all.assignments().map(|a| format!("{}:{}:{}={}", a.line, a.section, a.key, a.value));
            assert_eq!(read.collect::<Vec<_>>(), assignments, "{why}");
        }
    }

    #[test]
    fn what_is_no_assignment_is_named() {
        assert_eq!(
            ignored(b"a=b\n[S]\nnothing\n=x\n"),
            [(1, Why::OutsideOfSection), (3, Why::NoEquals), (4, Why::NoKey)]
        );
        assert_eq!(ignored(b"[S]\n[T\nA=b"), [(2, Why::BadHeader)]);
        assert_eq!(ignored(b"[S]\nA=\xff\nB=c"), [(2, Why::NotUtf8)]);
        assert!(ignored(b"[S]\n# \xff\nB=c").is_empty(), "systemd never looks at comments");
        let long = format!("[S]\nA={}\nB=c", "x".repeat(LONGEST_LINE));
        assert_eq!(ignored(long.as_bytes()), [(2, Why::TooLong)]);
    }

    /// The pieces that units are made of, in any order.
    fn pieces() -> impl Strategy<Value = Vec<u8>> {
        const PIECES: &str = "[Service]|[Unit|]|=|Type|notify|\\|\n|\r\n|\0|#|;| |\"|'|%i|\u{feff}|é";
        let piece = prop::sample::select(PIECES.split('|').collect::<Vec<_>>());
        prop::collection::vec(piece, 0..60).prop_map(|all| all.concat().into_bytes())
    }

    fn holds_for(bytes: &[u8]) {
        let parsed = parse(bytes);
        let ends = bytes.iter().filter(|c| b"\n\r\0".contains(c)).count();
        let in_range = |line: u32| line >= 1 && line as usize <= ends + 1;
        let all: Vec<_> = parsed.assignments().collect();
        assert!(all.windows(2).all(|two| two[0].line < two[1].line));
        for a in &all {
            assert!(in_range(a.line) && !a.key.is_empty() && !a.key.contains('='), "{a:?}");
            assert!(a.value.trim_matches(WHITESPACE) == a.value && a.key.trim_matches(WHITESPACE) == a.key, "{a:?}");
            assert!(parsed.headers.iter().any(|h| h.section == a.section && h.line < a.line), "{a:?}");
        }
        assert!(parsed.ignored.iter().all(|i| in_range(i.line)));
        // Written out again, it is read as the same. (But for backslashes at the ends of values.)
        if all.iter().all(|a| !a.value.ends_with('\\') && !a.key.starts_with(['[', '#', ';', '\u{feff}'])) {
            let text: String = all.iter().map(|a| format!("[{}]\n{}={}\n", a.section, a.key, a.value)).collect();
            let strip = |a: Assignment<'_>| (a.section.to_owned(), a.key.to_owned(), a.value.to_owned());
            let again: Vec<_> = parse(text.as_bytes()).assignments().map(strip).collect();
            assert_eq!(again, all.into_iter().map(strip).collect::<Vec<_>>());
        }
    }

    proptest! {
        #![proptest_config(crate::commands::check::fixed_seed(7))]
        #[test]
        fn any_bytes_and_any_pieces_of_units_are_read(bytes in prop::collection::vec(any::<u8>(), 0..300), unit in pieces()) {
            holds_for(&bytes);
            holds_for(&unit);
        }
    }
}
