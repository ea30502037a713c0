//! Which file of a room imports which, and the circles in that.

use std::collections::{BTreeMap, BTreeSet};

use crate::{read_all, report, tokens};

/// Circles that are known, by a module that they go through, and the reason why each stays.
const EXPLAINED: &[(&str, &str)] = &[
    ("drain::moving", "a drain has the way out of its connections, and what is on it holds that drain open"),
    ("http::conn", "one type in two files, whose fields are private to them"),
    ("http::framed", "one type in several files, whose fields are private to them"),
    ("http::h2", "two types in several files, whose fields are private to them; its constants are of all"),
    ("service::own", "one type in three files, whose fields are private to them"),
    ("tls::record::layer", "one type in several files, whose fields are private to them"),
    ("transit::insurance", "one type in two files, whose fields are private to them"),
    ("supervise::supervision", "one type in several files, whose fields are private to them"),
];

/// Where there are rooms: the sources of a package, and how many names of a module's path are its
/// room's.
const PACKAGES: &[(&str, usize)] = &[("src", 1), ("cli/src", 2), ("load/src", 0)];

/// From each module that has a file to those that its code names.
type Graph = BTreeMap<String, BTreeSet<String>>;

#[test]
fn no_circles_within_a_room() {
    let (mut broken, mut used) = (Vec::new(), BTreeSet::new());
    let rooms = PACKAGES.iter().flat_map(|(package, names)| {
        let files = read_all(&[package]).into_iter();
        let files = files.filter_map(|(name, text)| Some((name.split_once("src/")?.1.to_owned(), text)));
        rooms(&files.collect::<Vec<_>>(), *names).into_values()
    });
    let rooms: Vec<_> = rooms.collect();
    for circle in rooms.iter().flat_map(circles) {
        match EXPLAINED.iter().find(|(of, _)| circle.iter().any(|module| is_within(module, of))) {
            Some((of, _)) => _ = used.insert(*of),
            None => broken.push(circle.join(" → ")),
        }
    }
    let idle = EXPLAINED.iter().filter(|(of, _)| !used.contains(of));
    broken.extend(idle.map(|(of, _)| format!("{of} has no circle any more: take it off EXPLAINED")));
    report(&broken);
}

fn is_within(module: &str, of: &str) -> bool {
    module.strip_prefix(of).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// The graph of each room, from files given as `room/part.rs` and their text.
fn rooms(files: &[(String, String)], names: usize) -> BTreeMap<String, Graph> {
    let room_of = |module: &str| module.split("::").take(names).collect::<Vec<_>>().join("::");
    let modules: BTreeSet<String> = files.iter().filter_map(|(name, _)| module(name)).collect();
    let mut rooms = BTreeMap::<String, Graph>::new();
    for (name, text) in files {
        let Some(module) = module(name) else { continue };
        let room = room_of(&module);
        let named = paths(&module, &tokens::code(text)).into_iter().filter_map(|path| file_of(path, &modules));
        let siblings = named.filter(|to| *to != module && room_of(to) == room).collect();
        rooms.entry(room).or_default().insert(module, siblings);
    }
    rooms
}

/// `a/b/mod.rs` and `a/b.rs` are `a::b`; the crate root is none.
fn module(file: &str) -> Option<String> {
    let path = file.strip_suffix(".rs")?;
    let path = path.strip_suffix("/mod").unwrap_or(path);
    (!["lib", "main"].contains(&path)).then(|| path.replace('/', "::"))
}

/// The module with a file of its own that the path leads into: what `mod.rs` exports again is of
/// `mod.rs`.
fn file_of(mut path: Vec<&str>, modules: &BTreeSet<String>) -> Option<String> {
    while !path.is_empty() {
        let name = path.join("::");
        if modules.contains(&name) {
            return Some(name);
        }
        path.pop();
    }
    None
}

/// All that the code of this module names: `mod child;`, and each path from `crate`, `super` or
/// `self`.
fn paths<'a>(module: &'a str, code: &[&'a str]) -> Vec<Vec<&'a str>> {
    let own: Vec<_> = module.split("::").collect();
    let mut found = Vec::new();
    for (at, token) in code.iter().enumerate() {
        let path = code.get(at + 1) == Some(&"::") && (at == 0 || code[at - 1] != "::");
        let visibility = at > 0 && code[at - 1] == "in";
        let start = match *token {
            "mod" if code.get(at + 2) == Some(&";") => {
                found.push([&own[..], &[code[at + 1]]].concat());
                continue;
            }
            "crate" if path && !visibility => &[],
            "super" if path && !visibility => &own[..own.len() - 1],
            "self" if path => &own[..],
            _ => continue,
        };
        members(start, &code[at + 2..], &mut found);
    }
    found
}

/// Adds the paths that begin with `start` and go on as the code does, one for each member of a
/// group; returns what follows.
fn members<'a, 'c>(start: &[&'a str], code: &'c [&'a str], found: &mut Vec<Vec<&'a str>>) -> &'c [&'a str] {
    let (mut path, mut code) = (start.to_vec(), code);
    loop {
        match code {
            ["{", group @ ..] => {
                let mut rest = group;
                while !matches!(rest, ["}", ..] | []) {
                    rest = members(&path, rest, found);
                    rest = rest.strip_prefix(&[","]).unwrap_or(rest);
                }
                return rest.get(1..).unwrap_or_default();
            }
            [word, rest @ ..] if word.starts_with(|c: char| c.is_alphabetic() || c == '_') => {
                match *word {
                    "self" => {}
                    "super" => drop(path.pop()),
                    word => path.push(word),
                }
                code = rest.strip_prefix(&["as"]).map_or(rest, |named| &named[1..]);
                match code {
                    ["::", rest @ ..] => code = rest,
                    _ => break,
                }
            }
            // A glob, or the arguments of a generic.
            [_, rest @ ..] => {
                code = rest;
                break;
            }
            [] => break,
        }
    }
    found.push(path);
    code
}

/// The shortest circle through each file that is in one; those that share a file are told once.
fn circles(graph: &Graph) -> Vec<Vec<&str>> {
    let mut found: Vec<Vec<&str>> = Vec::new();
    let mut circles: Vec<_> = graph.keys().filter_map(|from| circle(graph, from)).collect();
    circles.sort_by_key(Vec::len);
    for circle in circles {
        let told = found.iter().flatten().any(|file| circle.contains(file));
        if !told {
            found.push(circle);
        }
    }
    found
}

/// The shortest way from this file back to itself.
fn circle<'a>(graph: &'a Graph, from: &'a str) -> Option<Vec<&'a str>> {
    let mut ways = vec![vec![from]];
    let mut seen = BTreeSet::new();
    while !ways.is_empty() {
        let mut longer = Vec::new();
        for way in ways {
            for next in way.last().and_then(|last| graph.get(*last)).into_iter().flatten() {
                let further = [&way[..], &[next.as_str()]].concat();
                if next == from {
                    return Some(further);
                }
                if seen.insert(next.as_str()) {
                    longer.push(further);
                }
            }
        }
        ways = longer;
    }
    None
}

#[test]
fn circles_are_seen_through_groups_nested_modules_and_exports() {
    let told = |files: &[(&str, &str)]| {
        let files: Vec<_> = files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        let rooms = rooms(&files, 1);
        let circles = rooms.values().flat_map(circles).map(|circle| circle.join(" → ")).collect::<Vec<_>>();
        circles.join("; ")
    };
    let door = ("a/mod.rs", "mod b; mod c; pub use self::b::B;");
    assert_eq!(told(&[door, ("a/b.rs", "use super::c::C;"), ("a/c.rs", "use crate::x::Y;")]), "");
    assert_eq!(told(&[door, ("a/b.rs", ""), ("a/c.rs", "use crate::a::B;")]), "a → a::c → a");
    assert_eq!(told(&[door, ("a/b.rs", ""), ("a/c.rs", "use crate::{x, a::b::B};")]), "");
    assert_eq!(told(&[door, ("a/b.rs", "use crate::{e::F, a::{c::{self, C}, G}};"), ("a/c.rs", "")]), "a → a::b → a");
    assert_eq!(
        told(&[("a/b.rs", "fn f() { super::c::g(1) }"), ("a/c.rs", "use crate::a::b as other;")]),
        "a::b → a::c → a::b"
    );
    assert_eq!(
        told(&[("a/b/mod.rs", "mod d;"), ("a/b/d.rs", "use super::{E, F};"), ("a/mod.rs", "")]),
        "a::b → a::b::d → a::b"
    );
    assert_eq!(told(&[door, ("a/b.rs", "#[cfg(test)] mod tests { use super::super::B; }")]), "");
    assert_eq!(told(&[door, ("a/b.rs", "pub(in crate::a) struct B; pub(super) fn c() {}")]), "");
}
