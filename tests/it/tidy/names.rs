//! A public name means one thing in all of the crate.

use std::collections::BTreeMap;

use crate::{read_all, report, tokens};

/// Public names that stand twice, each with the reason.
const EXPLAINED: &[(&str, &str)] = &[];

#[test]
fn public_names_are_unique() {
    let mut named = BTreeMap::<String, Vec<String>>::new();
    for (file, text) in read_all(&["src"]) {
        for name in public_types(&tokens::code(&text)) {
            named.entry(name.to_owned()).or_default().push(file.clone());
        }
    }
    let is_explained = |name: &String| EXPLAINED.iter().any(|(explained, _)| explained == name);
    let twice = named.iter().filter(|(name, files)| files.len() > 1 && !is_explained(name));
    let mut broken: Vec<_> = twice.map(|(name, files)| format!("`{name}` is in {}", files.join(" and "))).collect();
    let idle = EXPLAINED.iter().filter(|(name, _)| named.get(*name).is_none_or(|files| files.len() < 2));
    broken.extend(idle.map(|(name, _)| format!("`{name}` stands once: take it off EXPLAINED")));
    report(&broken);
}

/// The structs, enums, traits and type aliases that are `pub` without bounds.
fn public_types<'a>(code: &[&'a str]) -> Vec<&'a str> {
    let items = code.windows(3).filter(|w| w[0] == "pub" && matches!(w[1], "struct" | "enum" | "trait" | "type"));
    items.map(|item| item[2]).collect()
}

#[test]
fn public_types_are_seen() {
    let source = "pub struct A; pub(crate) struct B; struct C; pub enum D {} pub trait E { type F; } // pub type G\npub fn h() {}";
    assert_eq!(public_types(&tokens::code(source)), ["A", "D", "E"]);
}
