//! The pages that people read: their width, their links, and the index of the traps.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::{report, top};

const WIDTH: usize = 100;
/// Where the library's documentation is read, from wherever a page is.
const RENDERED: &str = "https://docs.rs/handover/latest/handover/";
/// Chapters that the code writes in part, with lines as long as their texts.
const WRITTEN_BY_CODE: [&str; 2] = ["src/docs/check.md", "src/docs/lifecycle.md"];

/// Chapters with links that only rustdoc understands.
const LINKED_BY_RUSTDOC: [&str; 4] =
    ["src/docs/check.md", "src/docs/http.md", "src/docs/protocols.md", "src/docs/upgrade.md"];

/// The name and the text of each page.
fn pages() -> Vec<(String, String)> {
    let mut names: Vec<_> = chapters().iter().map(|name| format!("src/docs/{name}.md")).collect();
    names.extend(
        ["README.md", "CONTRIBUTING.md", "ARCHITECTURE.md", "cli/README.md", "load/README.md"].map(str::to_owned),
    );
    // A published package has not all of them.
    let there = names.into_iter().filter(|name| top().join(name).exists());
    there.map(|name| (name.clone(), fs::read_to_string(top().join(&name)).expect("a page"))).collect()
}

fn chapters() -> BTreeSet<String> {
    let files = fs::read_dir(top().join("src/docs")).expect("src/docs").flatten();
    files.filter_map(|file| Some(file.file_name().to_str()?.strip_suffix(".md")?.to_owned())).collect()
}

/// The lines that are no code, with their numbers.
fn prose(page: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut code = false;
    (1..).zip(page.lines()).filter(move |(_, line)| {
        let fence = line.starts_with("```");
        code ^= fence;
        !code && !fence
    })
}

#[test]
fn chapters_fit_100_columns() {
    let mut broken = Vec::new();
    for (name, page) in pages().iter().filter(|(name, _)| !WRITTEN_BY_CODE.contains(&name.as_str())) {
        // What cannot be broken: a row of a table, a word, the address of a link.
        let whole = |line: &str| {
            line.starts_with('|') || !line.contains(' ') || (line.starts_with('[') && line.contains("]: "))
        };
        let wide = prose(page).filter(|(_, line)| line.chars().count() > WIDTH && !whole(line));
        broken.extend(wide.map(|(n, line)| format!("{name}:{n}: {} columns, at most {WIDTH}", line.chars().count())));
    }
    report(&broken);
}

/// On the registry's page and in the rendered chapters a link to a file of the checkout leads
/// nowhere.
#[test]
fn links_lead_somewhere_wherever_a_page_is_read() {
    let chapters = chapters();
    let mut broken = Vec::new();
    for (name, page) in &pages() {
        let published = name.starts_with("src/docs/") || name.ends_with("README.md");
        let anchors: BTreeSet<_> = prose(page).filter_map(|(_, line)| heading(line)).collect();
        let beside = top().join(name);
        for (n, target) in prose(page).flat_map(|(n, line)| targets(line).into_iter().map(move |target| (n, target))) {
            let fault = match target.split_once(':') {
                _ if target.starts_with(RENDERED) => match target[RENDERED.len()..].strip_prefix("docs/") {
                    Some(chapter) => {
                        let chapter = chapter.split(['/', '#']).next().unwrap_or_default();
                        (!chapters.contains(chapter)).then_some("there is no such chapter")
                    }
                    None => (!is_rendered(&target[RENDERED.len()..]))
                        .then_some("cargo doc --no-deps --all-features has written no such page or heading"),
                },
                // Rustdoc looks at them; in a checkout they lead nowhere.
                Some(("crate" | "tokio", _)) if LINKED_BY_RUSTDOC.contains(&name.as_str()) => None,
                Some(("http" | "https", _)) => None,
                _ if target.starts_with('#') => (!anchors.contains(&target[1..])).then_some("there is no such heading"),
                _ if published => Some("it leads to nothing outside of a checkout; give it the address of docs.rs"),
                _ => {
                    let file = target.split('#').next().unwrap_or_default();
                    let there = beside.parent().unwrap_or(Path::new("")).join(file).exists();
                    (!there).then_some("there is no such file")
                }
            };
            broken.extend(fault.map(|fault| format!("{name}:{n}: {target}: {fault}")));
        }
    }
    report(&broken);
}

/// Whether rustdoc has written this page, and that heading on it. Where it has not run with all
/// features, which `tests/run` has done before, nobody can tell.
fn is_rendered(target: &str) -> bool {
    let rendered = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("doc").join("handover");
    if !["tls", "supervise", "docs"].iter().all(|module| rendered.join(module).exists()) {
        return true;
    }
    let (page, heading) = target.split_once('#').unwrap_or((target, ""));
    let text = fs::read_to_string(rendered.join(page)).unwrap_or_default();
    !text.is_empty() && (heading.is_empty() || text.contains(&format!("id=\"{heading}\"")))
}

/// What the links of a line lead to: `[text](target)`, and `[name]: target`.
fn targets(line: &str) -> Vec<&str> {
    let defined = line.strip_prefix('[').and_then(|rest| rest.split_once("]: ")).map(|(_, target)| target);
    let inline = line.split("](").skip(1).filter_map(|rest| rest.split_once(')').map(|(target, _)| target));
    inline.chain(defined).collect()
}

/// The anchor of a heading, as rustdoc and code hosts make it.
fn heading(line: &str) -> Option<String> {
    let text = line.strip_prefix('#')?.trim_start_matches('#').strip_prefix(' ')?;
    let kept = text.chars().filter(|c| c.is_alphanumeric() || "-_ ".contains(*c));
    Some(kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect())
}

/// Each entry is found by what is seen, and has all three parts.
#[test]
fn the_index_of_the_traps_has_each_entry_once() {
    let page = fs::read_to_string(top().join("src/docs/traps.md")).expect("src/docs/traps.md");
    let (index, entries) = page.split_once("\n## The main process\n").expect("the first subject");
    let rows: Vec<_> = index.lines().filter_map(|line| line.strip_prefix("| ")?.rsplit_once("](#")).collect();
    let named: Vec<_> = rows.iter().filter_map(|(_, target)| target.strip_suffix(") |")).collect();
    let mut broken = Vec::new();
    let mut seen = BTreeSet::new();
    for entry in entries.split("\n### ").skip(1) {
        let title = entry.lines().next().unwrap_or_default();
        let anchor = heading(&format!("### {title}")).unwrap_or_default();
        let times = named.iter().filter(|name| **name == anchor).count();
        if times != 1 {
            broken.push(format!("{title}: {times} rows of the index lead to it"));
        }
        let parts = ["**Symptom.**", "**Cause.**", "**Choice.**"].iter().filter(|part| !entry.contains(**part));
        broken.extend(parts.map(|part| format!("{title}: there is no {part}")));
        if !seen.insert(anchor) {
            broken.push(format!("{title}: this entry is there twice"));
        }
    }
    assert!(seen.len() > 90, "{} entries", seen.len());
    broken.extend(
        named.iter().filter(|name| !seen.contains(**name)).map(|name| format!("#{name}: there is no such entry")),
    );
    report(&broken);
}

/// Two builds of a program speak to each other: what they may say is written down.
#[test]
fn the_design_names_each_frame() {
    let read = |name: &str| fs::read_to_string(top().join(name)).expect("a file");
    let (source, page) = (read("src/wire/frame.rs"), read("src/docs/design.md"));
    let begin = source.find("enum Frame {").expect("the frames");
    let frames = source[begin..].lines().skip(1).take_while(|line| *line != "}").filter_map(|line| {
        let name = line.strip_prefix("    ").filter(|name| name.starts_with(|c: char| c.is_ascii_uppercase()))?;
        name.split(|c: char| !c.is_alphanumeric()).next().filter(|name| *name != "Unknown").map(str::to_ascii_lowercase)
    });
    let frames: Vec<_> = frames.collect();
    assert!(frames.len() > 10, "{frames:?}");
    let rows: Vec<_> = page.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next()).collect();
    let missing = frames.iter().filter(|frame| !rows.iter().any(|row| row.contains(&format!("`{frame}`"))));
    report(&missing.map(|frame| format!("src/docs/design.md: no row has the frame `{frame}`")).collect::<Vec<_>>());
}

#[test]
fn links_and_anchors_are_seen() {
    assert_eq!(heading("### `PIDFile=`, and `a_b`: what's *it*?").as_deref(), Some("pidfile-and-a_b-whats-it"));
    assert_eq!((heading("#[test]"), heading("text")), (None, None));
    assert_eq!(targets("see [a](b.md) and [c](#d)."), ["b.md", "#d"]);
    assert_eq!(targets("[docs]: https://example.com/x"), ["https://example.com/x"]);
}
