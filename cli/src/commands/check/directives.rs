//! Every setting that systemd reads, from the table `directives.txt`: its section, its kind, the
//! versions that have it.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::known::Kind;

const TABLE: &str = include_str!("directives.txt");
/// What may differ in a name for it to be a mistyped one.
const MOST_EDITS: usize = 2;

/// One setting of one section.
#[derive(Debug, Clone, Copy)]
pub(super) struct Directive {
    /// `None`: not looked into here.
    pub(super) kind: Option<&'static Kind>,
    /// The version that brought it; 0: all have it that are still about.
    pub(super) since: u32,
    /// The last version that minded it, where one stopped to.
    pub(super) until: Option<u32>,
}

#[derive(Debug, Default)]
struct Table {
    /// A number for each key, also for those of this tool's own section.
    numbers: HashMap<&'static str, u16>,
    /// By number: the key, and the sections that have it, in the order of the table.
    keys: Vec<(&'static str, Vec<(&'static str, Directive)>)>,
}

static DIRECTIVES: LazyLock<Table> = LazyLock::new(|| {
    let (mut table, mut section) = (Table::default(), "");
    for line in TABLE.lines().filter(|line| !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
            continue;
        }
        let mut words = line.split(' ');
        let Some(key) = words.next() else { continue };
        let mut directive = Directive { kind: None, since: 0, until: None };
        for word in words {
            match word.split_once('=') {
                Some(("since", version)) => directive.since = version.parse().unwrap_or_default(),
                Some((_, version)) => directive.until = version.parse().ok(),
                None => directive.kind = Kind::named(word),
            }
        }
        let number = table.number(key);
        table.keys[number].1.push((section, directive));
    }
    super::known::own_keys().for_each(|key| _ = table.number(key));
    table
});

impl Table {
    /// Of a key that may be new.
    fn number(&mut self, key: &'static str) -> usize {
        let next = u16::try_from(self.keys.len()).unwrap_or(u16::MAX);
        let number = *self.numbers.entry(key).or_insert(next);
        if number == next {
            self.keys.push((key, Vec::new()));
        }
        number.into()
    }
}

/// The number of a key that some section has; for comparing.
pub(super) fn key(key: &str) -> Option<u16> {
    DIRECTIVES.numbers.get(key).copied()
}

/// A setting of that section, by the number of its key.
pub(super) fn find(section: &str, number: Option<u16>) -> Option<Directive> {
    let (_, sections) = &DIRECTIVES.keys[usize::from(number?)];
    sections.iter().find(|(other, _)| *other == section).map(|(_, directive)| *directive)
}

/// The sections that have the setting of that number.
pub(super) fn sections(number: Option<u16>) -> impl Iterator<Item = &'static str> {
    let found = number.map(|number| &DIRECTIVES.keys[usize::from(number)].1);
    found.into_iter().flatten().map(|(section, _)| *section)
}

/// The setting of these sections whose name is nearest, where one is near enough to have been
/// meant.
pub(super) fn nearest(sections: &[&str], key: &str) -> Option<&'static str> {
    // What is longer than any name is none that was mistyped.
    if key.len() > 64 {
        return None;
    }
    let known = DIRECTIVES.keys.iter().filter(|(_, of)| of.iter().any(|(section, _)| sections.contains(section)));
    let near = known.filter_map(|(known, _)| Some((edits(key, known)?, *known)));
    near.min().map(|(_, known)| known)
}

/// How many letters have to be changed, put in, taken out or swapped; letters of the other case
/// count for nothing. `None`: too many.
fn edits(typed: &str, known: &str) -> Option<usize> {
    let lower = |text: &str| text.chars().map(|c| c.to_ascii_lowercase()).collect::<Vec<_>>();
    let (a, b) = (lower(typed), lower(known));
    // Of a short name two letters are most of it.
    let most = MOST_EDITS.min(b.len() / 4);
    if a.len().abs_diff(b.len()) > most {
        return None;
    }
    let mut rows = vec![(0..=b.len()).collect::<Vec<_>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let differs = usize::from(a[i - 1] != b[j - 1]);
            let mut least = (rows[i - 1][j - 1] + differs).min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows.last().and_then(|row| row.last()).copied().filter(|edits| *edits <= most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_read() {
        let found = find("Service", key("FileDescriptorStorePreserve")).unwrap();
        assert_eq!((found.since, found.until), (254, None));
        assert_eq!(find("Service", key("CPUShares")).unwrap().until, Some(257));
        assert!(matches!(find("Service", key("SendSIGHUP")).unwrap().kind, Some(Kind::Boolean)));
        assert!(find("Unit", key("Restart")).is_none() && find("Service", key("restart")).is_none());
        assert_eq!(sections(key("Restart")).collect::<Vec<_>>(), ["Service"]);
        assert_eq!(sections(key("OnCalendar")).collect::<Vec<_>>(), ["Timer"]);
    }

    #[test]
    fn a_mistyped_name_is_known_again() {
        let meant = |key| nearest(&["Service"], key);
        for (typed, known) in [
            ("restart", "Restart"),
            ("ExecReloads", "ExecReload"),
            ("TimeoutStpoSec", "TimeoutStopSec"),
            ("FileDescriptorStoresMax", "FileDescriptorStoreMax"),
            ("KilMode", "KillMode"),
            ("type", "Type"),
        ] {
            assert_eq!(meant(typed), Some(known), "{typed}");
        }
        for unlike in ["Foo", "Nicer5", "ExecPrepare", "", "é", &"x".repeat(10_000)] {
            assert_eq!(meant(unlike), None, "{unlike}");
        }
    }
}
