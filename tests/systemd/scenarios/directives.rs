//! The table of systemd's settings that `handover check` has, beside those that a systemd has.
//!
//! With a newer systemd in the lab it is made anew by one command, which a failure names.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use crate::TOP;
use crate::lab::{Container, Outcome};

/// The sections of services and sockets; of others the table has only what these have not.
const COMPARED: [&str; 4] = ["Unit", "Service", "Socket", "Install"];
/// Where systemd's own manual says which version brought a setting.
const PAGES: &str = "zcat -f /usr/share/man/man5/systemd.{unit,service,socket,exec,kill,resource-control}.5*";

/// By section the settings, and what is said of each: kind, `since=`, `until=`.
pub(super) type Sections = BTreeMap<String, BTreeMap<String, String>>;

fn path() -> PathBuf {
    PathBuf::from(TOP).join("cli/src/commands/check/directives.txt")
}

/// The table as it is.
pub(super) fn table() -> Outcome<Sections> {
    let mut sections = Sections::new();
    let mut section = String::new();
    for line in fs::read_to_string(path())?.lines().filter(|line| !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']').to_owned();
            continue;
        }
        let (key, said) = line.split_once(' ').unwrap_or((line, ""));
        sections.entry(section.clone()).or_default().insert(key.to_owned(), said.to_owned());
    }
    Ok(sections)
}

/// Compares the table with what this systemd has; or makes it so.
pub(super) fn compare(lab: &Container) -> Outcome {
    let binary = "$(ls /usr/lib/systemd/systemd /lib/systemd/systemd 2>/dev/null | head -n 1)";
    let dump = lab.sh_ok(&format!("{binary} --dump-configuration-items 2>/dev/null"))?;
    assert!(dump.lines().count() > 1000, "no list of settings: {dump}");
    let mut table = table()?;
    let stale = renew(&mut table, &dump, lab)?;
    if stale.is_empty() {
        return Ok(());
    }
    if std::env::var_os("HANDOVER_BLESS").is_none() {
        let how = "HANDOVER_BLESS=1 cargo test --workspace --all-features --test systemd -- check_knows_every_setting";
        return Err(format!("directives.txt is stale ({stale:?}): {how}").into());
    }
    write(&table)
}

/// Adds what this systemd has, and marks what it has not any more. Returns what has changed.
fn renew(table: &mut Sections, dump: &str, lab: &Container) -> Outcome<Vec<String>> {
    let (mut has, mut section) = (BTreeSet::new(), "");
    let (mut changed, mut pages) = (Vec::new(), None);
    for line in dump.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
        }
        let Some((key, kind)) = line.split_once('=').filter(|_| COMPARED.contains(&section)) else { continue };
        has.insert((section, key));
        if table.get(section).is_some_and(|keys| keys.contains_key(key)) {
            continue;
        }
        let pages = match &mut pages {
            Some(pages) => pages,
            none => none.insert(lab.sh_ok(&format!("bash -c '{PAGES}'")).unwrap_or_default()),
        };
        let since = format!("since={}", added(pages, key).unwrap_or(lab.version()));
        let said: Vec<_> = word(kind).into_iter().chain([since.as_str()]).collect();
        table.entry(section.to_owned()).or_default().insert(key.to_owned(), said.join(" "));
        changed.push(format!("[{section}] {key}"));
    }
    for (section, keys) in table.iter_mut().filter(|(section, _)| COMPARED.contains(&section.as_str())) {
        for (key, said) in keys.iter_mut().filter(|(key, _)| !has.contains(&(section.as_str(), key.as_str()))) {
            if since(said) <= lab.version() && number(said, "until=").is_none_or(|until| until >= lab.version()) {
                *said = format!("{said} until={}", lab.version() - 1).trim_start().to_owned();
                changed.push(format!("[{section}] {key}, which is gone"));
            }
        }
    }
    Ok(changed)
}

fn write(table: &Sections) -> Outcome {
    let old = fs::read_to_string(path())?;
    let mut text: String = old.lines().filter(|line| line.starts_with('#')).map(|line| format!("{line}\n")).collect();
    // The order of the sections is the file's own.
    for section in old.lines().filter_map(|line| line.strip_prefix('[')?.strip_suffix(']')) {
        text.push_str(&format!("[{section}]\n"));
        for (key, said) in table.get(section).into_iter().flatten() {
            text.push_str(format!("{key} {said}").trim_end());
            text.push('\n');
        }
    }
    Ok(fs::write(path(), text)?)
}

/// What systemd calls the kind of a value, in the table's word.
fn word(kind: &str) -> Option<&'static str> {
    match kind {
        "BOOLEAN" => Some("boolean"),
        "SECONDS" => Some("span"),
        "UNSIGNED" => Some("count"),
        "SIGNAL" => Some("signal"),
        _ => None,
    }
}

/// The version that brought a setting: the first one that is named below its heading.
fn added(pages: &str, key: &str) -> Option<u32> {
    let (_, entry) = pages.split_once(&format!("\n\\fI{key}=\\fR"))?;
    let (_, version) = entry.split_once("Added in version ")?;
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// The version that brought a setting; 0: all have it.
pub(super) fn since(said: &str) -> u32 {
    number(said, "since=").unwrap_or_default()
}

fn number(said: &str, key: &str) -> Option<u32> {
    said.split(' ').find_map(|word| word.strip_prefix(key)?.parse().ok())
}
