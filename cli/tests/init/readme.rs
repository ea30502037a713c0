//! The first page, as a stranger follows it: its program is built, and its units are judged.

use std::fs;
use std::path::Path;

use crate::{TOP, handover, stranger};

/// What is in the fenced blocks of this language.
fn blocks<'a>(page: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("```{language}\n");
    page.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

fn page() -> String {
    fs::read_to_string(Path::new(TOP).join("README.md")).unwrap()
}

#[test]
fn its_program_builds_from_a_path_dependency() {
    let page = page();
    let ([dependencies], [program]) = (&blocks(&page, "toml")[..], &blocks(&page, "rust,no_run")[..]) else {
        panic!("one list of dependencies, and one program");
    };
    let published = format!("version = \"{}\"", env!("CARGO_PKG_VERSION").rsplit_once('.').unwrap().0);
    assert!(dependencies.contains(&published), "not this version: {dependencies}");
    let library = fs::canonicalize(TOP).unwrap();
    let dependencies = dependencies.replace(&published, &format!("path = {library:?}"));
    let dir = tempfile::tempdir().unwrap();
    let manifest = format!("[package]\nname = \"web\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n{dependencies}");
    fs::write(dir.path().join("Cargo.toml"), manifest).unwrap();
    fs::create_dir(dir.path().join("src")).unwrap();
    fs::write(dir.path().join("src/main.rs"), program).unwrap();
    stranger::build(dir.path());
    let code = program.lines().filter(|line| !line.is_empty()).count();
    assert!(code <= 15, "it is called a program of 15 lines, and has {code}");
}

#[test]
fn its_units_pass_our_check() {
    let page = page();
    let dir = tempfile::tempdir().unwrap();
    let units = blocks(&page, "ini");
    assert_eq!(units.len(), 2);
    for unit in units {
        let name = unit.lines().next().unwrap().strip_prefix("# /etc/systemd/system/").expect("where it belongs");
        fs::write(dir.path().join(name), unit).unwrap();
    }
    // The reload that it shows first only asks, and the text below says what waits.
    let (code, said) = handover(dir.path(), &["check", "--target-version", "252", "."]);
    assert!(code == Some(0) && said.contains("0 errors, 1 warning in 2 units") && said.contains("HO132"), "{said}");
}
