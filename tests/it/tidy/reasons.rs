//! The reasons for which a connection stays, in the code and in the chapter.

use std::collections::BTreeSet;
use std::fs;

use crate::{read_all, report, top};

const CHAPTER: &str = "src/docs/migration.md";
/// Where the old generation reads the reasons that the next one gives.
const GIVER: &str = "src/drain/moving/give.rs";
/// Where connections are that may move.
const ROOMS: &[&str] = &["src/drain", "src/http", "src/transit"];
/// What stands before a reason.
const BEFORE: &[&str] = &["Err(", "ok_or(", "map_err(|_| ", ".shut("];
/// All words of such a line are reasons, which the old generation finds by itself.
const OWN: &[&str] = &["stayed(", "note_stay(", ".stay("];
/// And of such a line, which the next one gives.
const TAKEN: &[&str] = &["Arrival::Broken("];

#[test]
fn reasons_are_those_of_the_chapter() {
    let all = read_all(ROOMS);
    let read = |file: &str| fs::read_to_string(top().join(file)).expect("it is there");
    let (documented, known) = (documented(&read(CHAPTER)), known(&read(GIVER)));
    assert!(documented.len() > 10 && known.len() > 5, "{documented:?} {known:?}");
    let mut broken = Vec::new();
    let mut given = known.clone();
    for (file, text) in &all {
        let here = reasons(text, &[OWN, TAKEN].concat());
        broken.extend(here.difference(&documented).map(|r| format!("{file}: `{r}` is not in the table of {CHAPTER}")));
        // What is said to another process has to be known there, or is counted as `refused`.
        if text.contains("fn prepare(") || text.contains("Arrival::Broken(record") {
            let said = reasons(text, TAKEN);
            broken.extend(said.difference(&known).map(|r| format!("{file}: `{r}` is not known in {GIVER}")));
        }
        given.extend(here);
    }
    broken.extend(documented.difference(&given).map(|r| format!("{CHAPTER}: nothing gives `{r}`")));
    report(&broken);
}

/// The first cells of the table of reasons.
fn documented(chapter: &str) -> BTreeSet<String> {
    let section = chapter.split("\n## ").find(|section| section.starts_with("What stays")).unwrap_or_default();
    let cells = section.lines().filter_map(|line| line.strip_prefix("| `")?.split('|').next());
    cells.flat_map(|cell| cell.split(',')).map(|word| word.trim().trim_matches('`').to_owned()).collect()
}

/// The reasons of another process that are counted under their own names.
fn known(giver: &str) -> BTreeSet<String> {
    let list = giver.split_once("const REASONS:").and_then(|(_, rest)| rest.split_once(';').map(|(_, rest)| rest));
    let list = list.and_then(|rest| rest.split(';').next()).unwrap_or_default();
    words(list).into_iter().map(|(_, word)| word.to_owned()).collect()
}

/// The reasons that stand in the source, without its tests; all words are that in lines with these
/// marks.
fn reasons(source: &str, lines: &[&str]) -> BTreeSet<String> {
    let code = source.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let code = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let of_line = |line: &str| -> Vec<String> {
        let all = lines.iter().any(|mark| line.contains(mark));
        let found = words(line).into_iter().filter(|(at, _)| all || BEFORE.iter().any(|b| line[..*at].ends_with(b)));
        found.map(|(_, word)| word.to_owned()).collect()
    };
    code.flat_map(of_line).collect()
}

/// The strings that are one word, and where each begins.
fn words(line: &str) -> Vec<(usize, &str)> {
    let is_word = |text: &str| !text.is_empty() && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_'));
    let mut found = Vec::new();
    let mut at = 0;
    for (number, piece) in line.split('"').enumerate() {
        if number % 2 == 1 && is_word(piece) {
            found.push((at - 1, piece));
        }
        at += piece.len() + 1;
    }
    found
}

#[test]
fn reasons_are_seen() {
    let source = r#"
        fn a() { if b { return Err("one"); } c.ok_or("two")?.map_err(|_| "three")?; say("none"); }
        // Err("comment")
        drain.stayed(d, if e { "four" } else { "five" });
#[cfg(test)]
mod tests { Err("test") }
    "#;
    let found: Vec<_> = reasons(source, OWN).into_iter().collect();
    assert_eq!(found, ["five", "four", "one", "three", "two"]);
    let giver = "const REASONS: [&str; 2] = [\"one\", \"two\"];\n    call(\"three\");";
    assert_eq!(known(giver).into_iter().collect::<Vec<_>>(), ["one", "two"]);
    let chapter =
        "## What moves\n| `a` | b |\n\n## What stays, and why\n| reason | x |\n| `c`, `d` | e |\n\n## F\n| `g` |";
    assert_eq!(documented(chapter).into_iter().collect::<Vec<_>>(), ["c", "d"]);
}
