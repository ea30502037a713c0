//! Kinds of values, and the settings whose values are one of a few words.

use super::directives;
use super::unit::OURS;
use super::value;

/// The section that a setting belongs to, in a unit whose own section is that one. `None` of a
/// setting that systemd does not know.
pub(super) fn section(number: Option<u16>, own: &'static str) -> Option<&'static str> {
    directives::sections(number).find(|section| *section == own).or_else(|| directives::sections(number).next())
}

/// By the number of the key, and its name.
pub(super) fn kind(section: &str, number: Option<u16>, key: &str) -> Option<&'static Kind> {
    let of_words = || WORDS.iter().find(|(words, _)| *words == key).map(|(_, kind)| kind);
    match section {
        OURS => OWN.iter().find(|(own, _)| *own == key).map(|(_, kind)| kind),
        _ => {
            let directive = directives::find(section, number)?;
            directive.kind.or_else(of_words)
        }
    }
}

/// Keys of the section that is this tool's own.
pub(super) fn own_keys() -> impl Iterator<Item = &'static str> {
    OWN.iter().map(|(key, _)| *key)
}

impl Kind {
    /// By the word that the table of settings has for it.
    pub(super) fn named(name: &str) -> Option<&'static Self> {
        Some(match name {
            "boolean" => &Self::Boolean,
            "span" => &Self::Span,
            "count" => &Self::Count,
            "signal" => &Self::Signal,
            _ => return None,
        })
    }

    /// Whether systemd can read that; if not, it goes on as if the line were not there.
    pub(super) fn reads(&self, text: &str) -> bool {
        match self {
            Self::Boolean => value::boolean(text).is_some(),
            Self::Span => value::span(text).is_some(),
            Self::Count => value::count(text).is_some(),
            Self::Signal => crate::signals::name(text).is_some(),
            Self::OneOf(all) => all.contains(&text),
            Self::Any => true,
        }
    }

    /// For people.
    pub(super) fn wanted(&self) -> String {
        match self {
            Self::Boolean => "yes or no".to_owned(),
            Self::Span => "a time as `1min 30s` or `infinity`".to_owned(),
            Self::Count => "a number".to_owned(),
            Self::Signal => "a signal as `SIGTERM`, in capitals".to_owned(),
            Self::OneOf(all) => format!("one of {}", all.join(", ")),
            Self::Any => "something else".to_owned(),
        }
    }
}

#[derive(Debug)]
pub(super) enum Kind {
    Boolean,
    Span,
    Count,
    Signal,
    OneOf(&'static [&'static str]),
    /// Read by whoever asks for it.
    Any,
}

/// Settings that take one of a few words.
const WORDS: &[(&str, Kind)] = &[
    ("Type", Kind::OneOf(&["simple", "exec", "forking", "oneshot", "dbus", "notify", "notify-reload", "idle"])),
    ("ExitType", Kind::OneOf(&["main", "cgroup"])),
    ("Restart", Kind::OneOf(&["no", "on-success", "on-failure", "on-abnormal", "on-watchdog", "on-abort", "always"])),
    ("NotifyAccess", Kind::OneOf(&["none", "main", "exec", "all"])),
    ("OOMPolicy", Kind::OneOf(&["continue", "stop", "kill"])),
    (
        "FileDescriptorStorePreserve",
        Kind::OneOf(&["no", "yes", "restart", "true", "false", "1", "0", "on", "off", "y", "n", "t", "f"]),
    ),
    ("KillMode", Kind::OneOf(&["control-group", "process", "mixed", "none"])),
    ("TimeoutStopSec", Kind::Span),
    ("TimeoutAbortSec", Kind::Span),
    ("TimeoutSec", Kind::Span),
    ("JobTimeoutSec", Kind::Span),
    ("JobRunningTimeoutSec", Kind::Span),
];

/// Settings of `[X-Handover]`.
const OWN: &[(&str, Kind)] = &[
    ("DrainTimeout", Kind::Span),
    ("WarmUp", Kind::Span),
    ("Connections", Kind::Count),
    ("Tasks", Kind::Count),
    ("Stored", Kind::Count),
    ("ReloadSignal", Kind::Signal),
    ("Memory", Kind::Any),
    ("Ignore", Kind::Any),
];
