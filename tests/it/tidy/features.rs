//! The tables of the crate's first page have every feature and every module.

use std::collections::BTreeMap;
use std::fs;

use crate::{report, top};

#[test]
fn the_feature_table_is_that_of_the_manifest() {
    let manifest = fs::read_to_string(top().join("Cargo.toml")).expect("Cargo.toml");
    let page = page();
    let features = features(&manifest);
    let rows = rows(section(&page, "# Features"));
    assert!(features.len() > 5, "{features:?}");
    let mut broken = Vec::new();
    for (name, enables) in &features {
        let Some(row) = rows.get(name) else {
            broken.push(format!("src/lib.rs: the table of features has no `{name}`"));
            continue;
        };
        let silent =
            enables.iter().filter(|other| features.contains_key(*other) && !row.contains(&format!("`{other}`")));
        broken.extend(silent.map(|other| format!("src/lib.rs: `{name}` has `{other}`, and the table does not say so")));
    }
    let unknown = rows.keys().filter(|row| !features.contains_key(*row));
    broken.extend(unknown.map(|row| format!("src/lib.rs: Cargo.toml has no feature `{row}`")));
    report(&broken);
}

#[test]
fn each_public_module_is_in_a_table() {
    let lib = fs::read_to_string(top().join("src/lib.rs")).expect("src/lib.rs");
    let page = page();
    let (layers, features) = (section(&page, "# Each layer alone"), section(&page, "# Features"));
    let shown = lib.replace("#[doc(hidden)]\npub mod", "#[doc(hidden)]\nmod");
    let modules = shown.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    let systemd = fs::read_to_string(top().join("src/systemd/mod.rs")).expect("src/systemd/mod.rs");
    let of_systemd = systemd.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    // What the environment is read into is used by all of them.
    let of_systemd = of_systemd.filter(|module| *module != "environment").map(|module| format!("systemd::{module}"));
    let all: Vec<_> = modules.filter(|module| *module != "systemd").map(str::to_owned).chain(of_systemd).collect();
    assert!(all.len() > 12, "{all:?}");
    let named = |module: &String| [layers, features].iter().any(|table| table.contains(&format!("`{module}`")));
    let missing = all.iter().filter(|module| !named(module));
    report(&missing.map(|module| format!("src/lib.rs: neither table has `{module}`")).collect::<Vec<_>>());
}

/// The first page: the text at the top of src/lib.rs.
fn page() -> String {
    let lib = fs::read_to_string(top().join("src/lib.rs")).expect("src/lib.rs");
    lib.lines()
        .filter_map(|line| line.strip_prefix("//! ").or((line == "//!").then_some("")))
        .map(|line| format!("{line}\n"))
        .collect()
}

/// What is under a heading, to the next one.
fn section<'a>(page: &'a str, heading: &str) -> &'a str {
    let begin = page.find(&format!("{heading}\n")).unwrap_or_else(|| panic!("no {heading:?}")) + heading.len();
    let end = page[begin..].find("\n# ").map_or(page.len(), |length| begin + length);
    &page[begin..end]
}

/// The rows of a table whose first column is one `name`.
fn rows(section: &str) -> BTreeMap<&str, &str> {
    section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |")).collect()
}

/// The features, each with what it enables.
fn features(manifest: &str) -> BTreeMap<&str, Vec<&str>> {
    let begin = manifest.find("\n[features]\n").expect("[features]") + "\n[features]\n".len();
    let lines = manifest[begin..].lines().take_while(|line| !line.starts_with('['));
    let features = lines.filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(" = "));
    features
        .filter(|(name, _)| *name != "default")
        .map(|(name, list)| (name, list.split('"').skip(1).step_by(2).collect()))
        .collect()
}

#[test]
fn a_manifest_and_a_table_are_read_as_they_are_meant() {
    let manifest =
        "[package]\n\n[features]\ndefault = []\n# of b\na = [\"dep:x\", \"b\"]\nb = []\n\n[dependencies]\nc = []\n";
    assert_eq!(features(manifest), [("a", vec!["dep:x", "b"]), ("b", vec![])].into());
    let page = "# One\n\n| `x` | y |\n\n# Features\n\n| feature | adds |\n|---|---|\n| `a` | has `b` |\n\n# Two\n";
    assert_eq!(rows(section(page, "# Features")), [("a", " has `b` |")].into());
}
