//! Comments are no wider than a reader's column.

use crate::{read_all, report};

/// Characters of a line that has a comment, indentation included.
const WIDTH: usize = 100;

#[test]
fn comments_fit_100_columns() {
    let files = read_all(&["src", "cli", "load", "tests", "examples", "benches"]);
    let mut broken = Vec::new();
    for (name, text) in &files {
        let wide = wide_comments(text);
        broken.extend(wide.iter().map(|(n, width)| format!("{name}:{n}: {width} columns, at most {WIDTH}")));
    }
    report(&broken);
}

/// The numbers of the lines that are comments and wider than that, and their widths.
fn wide_comments(text: &str) -> Vec<(usize, usize)> {
    let (mut code_block, mut found) = (false, Vec::new());
    for (n, line) in text.lines().enumerate() {
        let words = line.trim_start();
        let Some(comment) = words.strip_prefix("//") else {
            // As in `#![cfg_attr(feature = "http", doc = "```no_run")]`.
            code_block = words.contains(r#"doc = "```"#);
            continue;
        };
        let said = comment.trim_start_matches(['/', '!']).trim_start();
        code_block ^= said.starts_with("```");
        let width = line.chars().count();
        // What cannot be broken: code and its output, a row of a table, a word, the address of a
        // link.
        let address = said.starts_with('[') && said.contains("]: http");
        let whole = code_block || address || said.starts_with('|') || !said.contains(' ');
        if width > WIDTH && !whole {
            found.push((n + 1, width));
        }
    }
    found
}

#[test]
fn wide_comments_are_seen() {
    let wide = "x ".repeat(50);
    for (text, found) in [
        (format!("/// {wide}"), 1),
        (format!("    // {wide}"), 1),
        (format!("let x = \"{wide}\";"), 0),
        (format!("/// | {wide} |"), 0),
        (format!("/// ```\n/// {wide}\n/// ```\n/// {wide}"), 1),
        (format!("#[doc = \"```sh\"]\n/// {wide}\n/// ```"), 0),
        (format!("/// [`x`]({}://y)", "x".repeat(100)), 0),
    ] {
        assert_eq!(wide_comments(&text).len(), found, "{text}");
    }
}
