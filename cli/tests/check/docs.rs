//! The chapter of the documentation lists the rules as they are.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::tool::{check, json};

const BEGIN: &str = "<!-- The rules, as the tool has them: a test compares, and says how to write them anew. -->\n";
/// Groups by the beginning of the ids.
const GROUPS: [(&str, &str); 7] = [
    ("HO00", "What systemd does not read as it was meant"),
    ("HO10 HO11 HO12", "Life and death"),
    ("HO13", "How a reload is asked for"),
    ("HO14", "Times"),
    ("HO15", "Limits: two generations run at once"),
    ("HO2", "Sockets and the fd store"),
    ("HO3", "The sandbox"),
];

#[test]
fn the_chapter_lists_every_rule() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let chapter = fs::read_to_string(top.join("src/docs/check.md")).unwrap();
    let (intro, rules) = chapter.split_once(BEGIN).expect("the mark that the rules begin after");
    let listed = json(&check(&["--list", "--format", "json"], b""));
    let wanted = rendered(listed["rules"].as_array().unwrap());
    if rules != wanted {
        let new = Path::new(env!("CARGO_TARGET_TMPDIR")).join("check.md");
        fs::write(&new, format!("{intro}{BEGIN}{wanted}")).unwrap();
        panic!("src/docs/check.md does not list the rules as they are: cp {} src/docs/check.md", new.display());
    }
}

fn rendered(rules: &[Value]) -> String {
    let text = |rule: &Value, key: &str| bracketed(rule[key].as_str().unwrap());
    let mut out = String::new();
    let mut listed = 0;
    for (prefixes, title) in GROUPS {
        let _ = writeln!(out, "\n## {title}");
        let in_group = |r: &&Value| prefixes.split(' ').any(|p| r["id"].as_str().unwrap().starts_with(p));
        for rule in rules.iter().filter(in_group) {
            let scope = if rule["scope"] == "any" { ", of every unit" } else { "" };
            let (id, name) = (text(rule, "id"), text(rule, "name"));
            let _ = writeln!(out, "\n### {id} {name}");
            let _ = writeln!(out, "**{}{scope}:** {}.", text(rule, "severity"), text(rule, "title"));
            let _ = writeln!(out, "\n- Why: {}", text(rule, "why"));
            let _ = writeln!(out, "- Fix: {}", text(rule, "remedy"));
            let _ = writeln!(out, "- [Read more]({})", text(rule, "link"));
            listed += 1;
        }
    }
    assert_eq!(listed, rules.len(), "a rule is in no group, or in two");
    out
}

/// Square brackets are links to rustdoc.
fn bracketed(text: &str) -> String {
    text.replace('[', "\\[").replace(']', "\\]")
}
