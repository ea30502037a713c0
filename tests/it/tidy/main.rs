//! The repository's own rules, checked.

mod chapters;
mod circles;
mod comments;
mod features;
mod names;
mod packages;
mod reasons;
mod sleeps;
mod tokens;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// A module may import what stands in an earlier row; modules of one row do not know each other.
const LAYERS: &[&[&str]] = &[
    &["error"],
    &["metrics"],
    &["lifecycle", "wire", "sys"],
    &["systemd"],
    &["generation", "state", "transit"],
    &["drain"],
    &["jobs", "settings"],
    &["reload"],
    &["service"],
    &["tls", "logging"],
    &["http"],
    &["control", "upgrade"],
    &["admin"],
    &["supervise"],
    &["internal"],
];
/// The packages that others get, by their directories.
const PUBLISHED: &[&str] = &["", "cli", "load"];
/// Not counting unit tests. "Rarely over 400", with some room to finish the thought.
const MAX_LINES: usize = 450;

/// Whoever is new reads of the rooms there.
#[test]
fn the_map_shows_the_layers() {
    let map = fs::read_to_string(top().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let rows = map.lines().filter(|line| line.starts_with("| ") && line.as_bytes()[2].is_ascii_digit());
    let shown: Vec<Vec<String>> = rows
        .filter_map(|row| row.split('|').nth(2))
        .map(|rooms| rooms.split(',').map(|room| room.trim().trim_matches('`').to_owned()).collect())
        .collect();
    assert_eq!(shown, LAYERS, "ARCHITECTURE.md, the table of rooms");
}

#[test]
fn modules_import_only_from_the_layers_below() {
    let roots = crate_root_names();
    let mut broken = Vec::new();
    for file in sources() {
        let Some(module) = file.module() else { continue };
        let Some(own) = layer(module) else {
            broken.push(format!("{}: say in LAYERS where `{module}` belongs", file.name));
            continue;
        };
        for (line, name) in imports(&file.code) {
            let imported = roots.get(&name).map_or(name.as_str(), String::as_str);
            match layer(imported) {
                _ if imported == module => {}
                Some(theirs) if theirs < own => {}
                Some(_) => broken.push(format!("{}:{line}: `{module}` must not know `{imported}`", file.name)),
                None => broken.push(format!("{}:{line}: `crate::{name}` is in no layer", file.name)),
            }
        }
        if file.code.contains("super::super::") {
            broken.push(format!("{}: `super::super::` hides what is imported; write `crate::`", file.name));
        }
    }
    report(&broken);
}

#[test]
fn only_the_service_performs_actions() {
    let broken: Vec<_> = sources()
        .iter()
        .filter(|f| !matches!(f.module(), Some("lifecycle" | "reload" | "service" | "supervise")))
        .filter(|f| f.code.contains("lifecycle::") && words(&f.code).any(|w| w == "Action"))
        .map(|f| format!("{}: actions of the lifecycle are for the service alone", f.name))
        .collect();
    report(&broken);
}

#[test]
fn unsafe_only_in_sys() {
    let broken: Vec<_> = sources()
        .iter()
        .filter(|f| f.module() != Some("sys"))
        .flat_map(|f| {
            let lines = f.all.lines().enumerate().filter(|(_, l)| words(l).any(|w| w == "unsafe"));
            lines.map(|(n, _)| format!("{}:{}: unsafe outside src/sys", f.name, n + 1)).collect::<Vec<_>>()
        })
        .collect();
    report(&broken);
}

#[test]
fn a_file_belongs_to_one_crate() {
    // In two halves, or this file would have it.
    let back_door = concat!("#[pa", "th");
    let rust = tracked().into_iter().filter(|name| name.ends_with(".rs"));
    let broken: Vec<_> = rust
        .filter(|name| fs::read_to_string(top().join(name)).is_ok_and(|text| text.contains(back_door)))
        .map(|name| format!("{name}: {back_door} …]; what several crates need has a crate"))
        .collect();
    report(&broken);
}

#[test]
fn files_are_short_enough_to_be_read() {
    let broken: Vec<_> = sources()
        .iter()
        .map(|f| (f, f.code.lines().count()))
        .filter(|(_, lines)| *lines > MAX_LINES)
        .map(|(f, lines)| format!("{}: {lines} lines, at most {MAX_LINES}", f.name))
        .collect();
    report(&broken);
}

#[test]
fn nothing_unfinished_and_no_machine_of_ours() {
    // In two halves, or this file would name them.
    let macros = [concat!("to", "do!("), concat!("unimple", "mented!(")];
    let paths = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/fa", "rm/"), concat!("/tmp/", "wt/")];
    let mut broken = Vec::new();
    for name in tracked() {
        let Ok(text) = fs::read_to_string(top().join(&name)) else { continue };
        for (n, line) in text.lines().enumerate() {
            // `$dir/work/` is somebody's variable, not this machine.
            let absolute = |path: &&str| {
                line.match_indices(*path).any(|(at, _)| {
                    let before = line[..at].chars().next_back();
                    before.is_none_or(|c| !(c.is_alphanumeric() || "_-.}*".contains(c)))
                })
            };
            if let Some(path) = paths.iter().find(|p| absolute(p)) {
                broken.push(format!("{name}:{}: names {path}, a path of one machine", n + 1));
            }
            if let Some(name_of) = macros.iter().find(|m| line.contains(**m)) {
                broken.push(format!("{name}:{}: {name_of}…)", n + 1));
            }
        }
    }
    report(&broken);
}

#[test]
fn changelog_has_this_version() {
    let changelog = fs::read_to_string(top().join("CHANGELOG.md")).expect("CHANGELOG.md");
    let version = env!("CARGO_PKG_VERSION");
    let heading = changelog.lines().any(|l| l.starts_with("## ") && l.contains(version));
    assert!(heading, "CHANGELOG.md has no `## … {version}` heading");
}

#[test]
fn readme_is_compiled() {
    assert!(top().join("README.md").exists(), "README.md is missing");
    let hooked = sources().iter().any(|f| f.all.contains(r#"include_str!("../README.md")"#));
    assert!(hooked, "no `#![doc = include_str!(\"../README.md\")]` in src: its Rust code is not doc-tested");
}

#[test]
fn shell_scripts_stop_at_the_first_error() {
    let mut broken = Vec::new();
    for name in tracked() {
        let Ok(text) = fs::read_to_string(top().join(&name)) else { continue };
        let shebang = text.lines().next().unwrap_or_default();
        let shell = shebang.starts_with("#!") && (shebang.ends_with("sh") || shebang.contains("sh "));
        let strict = text.lines().any(|l| {
            l.strip_prefix("set -").is_some_and(|rest| {
                let flags = rest.split_whitespace().next().unwrap_or_default();
                flags.contains('e') && flags.contains('u')
            })
        });
        if shell && !strict {
            broken.push(format!("{name}: has no `set -eu`"));
        }
    }
    report(&broken);
}

/// A dependency that needs a newer compiler breaks users who hold to our `rust-version`.
#[test]
fn dependencies_accept_our_rust_version() {
    let ours = env!("CARGO_PKG_RUST_VERSION");
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked", "--offline", "--all-features"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(top())
        .output()
        .expect("cargo metadata");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let needed = not_only_for_tests(&metadata);
    let broken: Vec<_> = array(&metadata["packages"])
        .iter()
        .filter(|p| needed.contains(text(&p["id"])))
        .filter(|p| version_key(text(&p["rust_version"])) > version_key(ours))
        .map(|p| format!("{} {} needs Rust {}", p["name"], p["version"], p["rust_version"]))
        .collect();
    report(&broken);
}

/// Ids of the packages that the published ones need to build, dev-dependencies aside.
fn not_only_for_tests(metadata: &Value) -> BTreeSet<&str> {
    let nodes: BTreeMap<_, _> = array(&metadata["resolve"]["nodes"]).iter().map(|n| (text(&n["id"]), n)).collect();
    // Members that are not published have `publish = []`.
    let members: BTreeSet<_> = array(&metadata["workspace_members"]).iter().map(text).collect();
    let published = array(&metadata["packages"]).iter().filter(|p| p["publish"].is_null()).map(|p| text(&p["id"]));
    let mut open: Vec<_> = published.filter(|id| members.contains(id)).collect();
    assert_eq!(open.len(), PUBLISHED.len(), "{open:?}");
    let mut seen = BTreeSet::new();
    while let Some(id) = open.pop() {
        if !seen.insert(id) {
            continue;
        }
        for dep in nodes.get(id).map(|n| array(&n["deps"])).unwrap_or_default() {
            if array(&dep["dep_kinds"]).iter().any(|k| k["kind"] != "dev") {
                open.push(text(&dep["pkg"]));
            }
        }
    }
    seen
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn version_key(version: &str) -> Vec<u32> {
    let mut key: Vec<u32> = version.split('.').map(|part| part.parse().unwrap_or(0)).collect();
    key.resize(3, 0);
    key
}

struct Source {
    /// Relative to the top, as it is printed.
    name: String,
    /// Without comments; line numbers kept.
    all: String,
    /// The same without the unit tests at the end.
    code: String,
}

impl Source {
    /// The library's top-level module that it belongs to; none for the crate root and for other
    /// packages, which may know everything.
    fn module(&self) -> Option<&str> {
        let first = self.name.strip_prefix("src/")?.split('/').next()?;
        let module = first.strip_suffix(".rs").unwrap_or(first);
        (module != "lib").then_some(module)
    }
}

fn sources() -> Vec<Source> {
    let mut files = Vec::new();
    for package in PUBLISHED {
        let before = files.len();
        walk(&top().join(package).join("src"), &mut files);
        assert!(files.len() > before, "no sources below {package:?}");
    }
    files.into_iter().filter(|f| f.extension().is_some_and(|e| e == "rs")).map(|f| read(&f)).collect()
}

/// The name and the text of each Rust file below these directories, comments and all.
fn read_all(directories: &[&str]) -> Vec<(String, String)> {
    let mut files = Vec::new();
    for directory in directories {
        walk(&top().join(directory), &mut files);
    }
    let rust = files.iter().filter(|f| f.extension().is_some_and(|e| e == "rs"));
    rust.map(|f| {
        let name = f.strip_prefix(top()).expect("below the top").display().to_string();
        (name, fs::read_to_string(f).expect("a source file"))
    })
    .collect()
}

fn read(path: &Path) -> Source {
    let text = fs::read_to_string(path).expect("a source file");
    let all: String = text.lines().map(|line| format!("{}\n", strip(line))).collect();
    let end = all.find("#[cfg(test)]\nmod ").filter(|at| all[*at..].contains('{')).unwrap_or(all.len());
    let name = path.strip_prefix(top()).expect("below the top").display().to_string();
    Source { name, code: all[..end].to_owned(), all }
}

/// Cuts a comment off the line. A `//` within a string, as in a URL, stays.
fn strip(line: &str) -> &str {
    let mut from = 0;
    while let Some(at) = line[from..].find("//").map(|at| from + at) {
        if line[..at].matches('"').count().is_multiple_of(2) {
            return line[..at].trim_end();
        }
        from = at + 2;
    }
    line
}

/// What follows `crate::`, with groups taken apart: `crate::{sys::pidfd, error::Error}` gives `sys`
/// and `error`.
fn imports(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        // `pub(in crate::x)` and `$crate::x` are no imports, but name a module as well: counted
        // alike.
        let line = code[..at].matches('\n').count() + 1;
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            None => found.extend(words(rest).next().map(|w| (line, w.to_owned()))),
            Some(group) => found.extend(heads(group).into_iter().map(|w| (line, w))),
        }
    }
    found
}

/// The first word of each member of a `{…}` group, nested groups skipped.
fn heads(group: &str) -> Vec<String> {
    let (mut depth, mut expect, mut found) = (0, true, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => expect = true,
            c if expect && !c.is_whitespace() => {
                found.extend(words(&group[at..]).next().map(str::to_owned));
                expect = false;
            }
            _ => {}
        }
    }
    found
}

/// `Error` → `error`, from the `pub use crate::error::{Error, Result}` of the crate root.
fn crate_root_names() -> BTreeMap<String, String> {
    let lib = read(&top().join("src/lib.rs"));
    let mut names = BTreeMap::new();
    for statement in lib.code.split(';').filter_map(|s| s.split_once("use ").map(|(_, path)| path)) {
        let mut path = words(statement).skip_while(|w| *w == "crate");
        let Some(module) = path.next() else { continue };
        names.extend(path.map(|name| (name.to_owned(), module.to_owned())));
    }
    names
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|row| row.contains(&module))
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|w| !w.is_empty())
}

/// What git tracks; of a published package, where there is no git, everything but build output.
fn tracked() -> Vec<String> {
    let listed = Command::new("git").args(["ls-files", "-z"]).current_dir(top()).output();
    if let Ok(output) = listed
        && output.status.success()
        && !output.stdout.is_empty()
    {
        return String::from_utf8_lossy(&output.stdout).split_terminator('\0').map(str::to_owned).collect();
    }
    let mut files = Vec::new();
    walk(&top(), &mut files);
    files.iter().filter_map(|f| Some(f.strip_prefix(top()).ok()?.display().to_string())).collect()
}

fn walk(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a directory").flatten() {
        let path = entry.path();
        let skipped = path == top().join("target") || path.ends_with(".git");
        if path.is_dir() && !skipped {
            walk(&path, files);
        } else if path.is_file() {
            files.push(path);
        }
    }
    files.sort();
}

fn top() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

#[track_caller]
fn report(broken: &[String]) {
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

#[test]
fn the_parser_sees_what_it_must() {
    let names = |code: &str| imports(code).into_iter().map(|(_, n)| n).collect::<Vec<_>>();
    assert_eq!(names("use crate::sys::pidfd::PidFd;"), ["sys"]);
    assert_eq!(
        names("use crate::{\n  error::{Error, Result},\n  wire::frame,\n Service};"),
        ["error", "wire", "Service"]
    );
    assert_eq!(names("let x = crate::drain::Drain::new();"), ["drain"]);
    assert_eq!(strip("let x = 1; // crate::http"), "let x = 1;");
    assert_eq!(strip("let x = \"http://y\";"), "let x = \"http://y\";");
    assert!(version_key("1.88") < version_key("1.88.1") && version_key("1.9") < version_key("1.10"));
}
