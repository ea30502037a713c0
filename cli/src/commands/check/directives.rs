//! Every setting that systemd reads, from `directives.txt`: sections, kinds, versions.

use handover::supervise::signal_name;
use std::collections::HashMap;
use std::sync::LazyLock;

use super::value;

const TABLE: &str = include_str!("directives.txt");
/// What may differ in a name for it to be a mistyped one.
const MOST_EDITS: usize = 2;

pub(super) const UNIT: &str = "Unit";
pub(super) const SERVICE: &str = "Service";
pub(super) const SOCKET: &str = "Socket";
pub(super) const INSTALL: &str = "Install";
/// Ours; systemd ignores every section whose name begins so.
pub(super) const OURS: &str = "X-Handover";

/// One setting of one section.
#[derive(Debug, Default)]
pub(super) struct Directive {
    /// `None`: not looked into here.
    pub(super) kind: Option<Kind>,
    /// The version that brought it; 0: all have it that are still about.
    pub(super) since: u32,
    /// The last version that minded it, where one stopped to.
    pub(super) until: Option<u32>,
}

/// What a value has to be.
#[derive(Debug)]
pub(super) enum Kind {
    Boolean,
    Span,
    Count,
    Signal,
    /// Each with the version that brought it, where that is a later one than the setting's.
    OneOf(Vec<(&'static str, u32)>),
}

impl Kind {
    fn parse(word: &'static str) -> Self {
        match word {
            "boolean" => Self::Boolean,
            "span" => Self::Span,
            "count" => Self::Count,
            "signal" => Self::Signal,
            values => Self::OneOf(
                values
                    .split('|')
                    .map(|value| match value.split_once('@') {
                        Some((value, since)) => (value, since.parse().unwrap_or_default()),
                        None => (value, 0),
                    })
                    .collect(),
            ),
        }
    }

    /// Whether systemd can read that; if not, it goes on as if the line were not there.
    pub(super) fn reads(&self, text: &str) -> bool {
        match self {
            Self::Boolean => value::boolean(text).is_some(),
            Self::Span => value::span(text).is_some(),
            Self::Count => value::count(text).is_some(),
            Self::Signal => signal_name(text).is_some(),
            Self::OneOf(all) => {
                let is = |value: &str| value == text || value == "boolean" && value::boolean(text).is_some();
                all.iter().any(|(value, _)| is(value))
            }
        }
    }

    /// The version that brought this value, where it came later than the setting.
    pub(super) fn since(&self, text: &str) -> u32 {
        match self {
            Self::OneOf(all) => all.iter().find(|(value, _)| *value == text).map_or(0, |(_, since)| *since),
            _ => 0,
        }
    }

    /// For people.
    pub(super) fn wanted(&self) -> String {
        match self {
            Self::Boolean => "yes or no".to_owned(),
            Self::Span => "a time as `1min 30s` or `infinity`".to_owned(),
            Self::Count => "a number".to_owned(),
            Self::Signal => "a signal as `SIGTERM`, in capitals".to_owned(),
            Self::OneOf(all) => {
                let named = all.iter().map(|(value, _)| if *value == "boolean" { "yes, no" } else { value });
                format!("one of {}", named.collect::<Vec<_>>().join(", "))
            }
        }
    }
}

#[derive(Debug, Default)]
struct Table {
    /// A number for each key.
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
        let (key, words) = line.split_once(' ').unwrap_or((line, ""));
        let mut directive = Directive::default();
        for word in words.split_whitespace() {
            match word.split_once('=') {
                Some(("since", version)) => directive.since = version.parse().unwrap_or_default(),
                Some((_, version)) => directive.until = version.parse().ok(),
                None => directive.kind = Some(Kind::parse(word)),
            }
        }
        let next = u16::try_from(table.keys.len()).unwrap_or(u16::MAX);
        let number = *table.numbers.entry(key).or_insert(next);
        if number == next {
            table.keys.push((key, Vec::new()));
        }
        table.keys[usize::from(number)].1.push((section, directive));
    }
    table
});

/// The number of a key that some section has; for comparing.
pub(super) fn key(key: &str) -> Option<u16> {
    DIRECTIVES.numbers.get(key).copied()
}

/// A setting of that section, by the number of its key.
pub(super) fn find(section: &str, number: Option<u16>) -> Option<&'static Directive> {
    let (_, sections) = &DIRECTIVES.keys[usize::from(number?)];
    sections.iter().find(|(other, _)| *other == section).map(|(_, directive)| directive)
}

/// The section that systemd reads a setting in, in a unit whose own section is that one. `None` of
/// a setting that systemd does not know.
pub(super) fn section(number: Option<u16>, own: &str) -> Option<&'static str> {
    let sections = &DIRECTIVES.keys[usize::from(number?)].1;
    let mut all = sections.iter().map(|(section, _)| *section).filter(|section| *section != OURS);
    all.clone().find(|section| *section == own).or_else(|| all.next())
}

/// The setting of these sections whose name is nearest, letters of the other case alike, where one
/// is near enough to have been meant.
pub(super) fn nearest(sections: &[&str], typed: &str) -> Option<&'static str> {
    let (typed, length) = (typed.to_ascii_lowercase(), typed.chars().count());
    let known = DIRECTIVES.keys.iter().filter(|(_, of)| of.iter().any(|(section, _)| sections.contains(section)));
    let near = known.filter_map(|(known, _)| {
        // Of a short name two letters are most of it; and what is longer than any is not measured.
        let most = MOST_EDITS.min(known.len() / 4);
        let edits = (length.abs_diff(known.len()) <= most)
            .then(|| strsim::osa_distance(&typed, &known.to_ascii_lowercase()))?;
        (edits <= most).then_some((edits, *known))
    });
    near.min().map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_read() {
        let service = |name| find(SERVICE, key(name)).unwrap();
        let preserve = service("FileDescriptorStorePreserve");
        assert_eq!((preserve.since, preserve.until, service("CPUShares").until), (254, None, Some(257)));
        assert!(matches!(service("SendSIGHUP").kind, Some(Kind::Boolean)));
        assert!(find(UNIT, key("Restart")).is_none() && find(SERVICE, key("restart")).is_none());
        let of = |name| section(key(name), SERVICE);
        assert_eq!((of("Restart"), of("OnCalendar"), of("WarmUp")), (Some(SERVICE), Some("Timer"), None));
    }

    #[test]
    fn a_mistyped_name_is_known_again() {
        for (typed, known) in [
            ("restart", Some("Restart")),
            ("ExecReloads", Some("ExecReload")),
            ("TimeoutStpoSec", Some("TimeoutStopSec")),
            ("FileDescriptorStoresMax", Some("FileDescriptorStoreMax")),
            ("KilMode", Some("KillMode")),
            ("type", Some("Type")),
            ("Foo", None),
            ("Nicer5", None),
            ("ExecPrepare", None),
            ("", None),
            ("é", None),
            (&"x".repeat(10_000), None),
        ] {
            assert_eq!(nearest(&[SERVICE], typed), known, "{typed}");
        }
    }
}
