//! What systemd reads where: the settings that matter here, their sections and their kinds.

use super::unit::{OURS, SERVICE, SOCKET, UNIT};
use super::value;

/// The section that a setting belongs to, in a unit whose own section is that one. `None` of a setting that is not known here.
pub(super) fn section(key: &str, own: &'static str) -> Option<&'static str> {
    let one = KNOWN.iter().find(|(_, known, _)| *known == key).map(|(section, ..)| *section);
    one.or_else(|| KNOWN_IN_BOTH.iter().any(|(known, _)| *known == key).then_some(own))
}

pub(super) fn kind(section: &str, key: &str) -> Option<&'static Kind> {
    let one = KNOWN.iter().find(|(s, k, _)| *s == section && *k == key).map(|(.., kind)| kind);
    one.or_else(|| KNOWN_IN_BOTH.iter().find(|(k, _)| *k == key && section != UNIT).map(|(_, kind)| kind))
}

impl Kind {
    /// Whether systemd can read that; if not, it goes on as if the line were not there.
    pub(super) fn reads(&self, text: &str) -> bool {
        match self {
            Self::Boolean => value::boolean(text).is_some(),
            Self::Span => value::span(text).is_some(),
            Self::Count => value::count(text).is_some(),
            Self::Signal => crate::signals::name(text).is_some(),
            Self::OneOf(all) => all.contains(&text),
            Self::Other => true,
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
            Self::Other => "something else".to_owned(),
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
    /// Not looked into here.
    Other,
}

/// Settings of one section that the rules read, or that are often put into another one.
const KNOWN: &[(&str, &str, Kind)] = &[
    (UNIT, "Requires", Kind::Other),
    (UNIT, "Wants", Kind::Other),
    (UNIT, "BindsTo", Kind::Other),
    (UNIT, "After", Kind::Other),
    (UNIT, "Before", Kind::Other),
    (UNIT, "Conflicts", Kind::Other),
    (UNIT, "PropagatesReloadTo", Kind::Other),
    (UNIT, "ReloadPropagatedFrom", Kind::Other),
    (UNIT, "StartLimitIntervalSec", Kind::Span),
    (UNIT, "JobTimeoutSec", Kind::Span),
    (UNIT, "JobRunningTimeoutSec", Kind::Span),
    (
        SERVICE,
        "Type",
        Kind::OneOf(&["simple", "exec", "forking", "oneshot", "dbus", "notify", "notify-reload", "idle"]),
    ),
    (SERVICE, "ExitType", Kind::OneOf(&["main", "cgroup"])),
    (
        SERVICE,
        "Restart",
        Kind::OneOf(&["no", "on-success", "on-failure", "on-abnormal", "on-watchdog", "on-abort", "always"]),
    ),
    (SERVICE, "RestartSec", Kind::Span),
    (SERVICE, "RestartSteps", Kind::Count),
    (SERVICE, "RestartMaxDelaySec", Kind::Span),
    (SERVICE, "TimeoutStartSec", Kind::Span),
    (SERVICE, "TimeoutStopSec", Kind::Span),
    (SERVICE, "TimeoutAbortSec", Kind::Span),
    (SERVICE, "RuntimeMaxSec", Kind::Span),
    (SERVICE, "WatchdogSec", Kind::Span),
    (SERVICE, "NotifyAccess", Kind::OneOf(&["none", "main", "exec", "all"])),
    (SERVICE, "ExecReload", Kind::Other),
    (SERVICE, "ExecStart", Kind::Other),
    (SERVICE, "ReloadSignal", Kind::Signal),
    (SERVICE, "PIDFile", Kind::Other),
    (SERVICE, "RemainAfterExit", Kind::Boolean),
    (SERVICE, "NonBlocking", Kind::Boolean),
    (SERVICE, "OOMPolicy", Kind::OneOf(&["continue", "stop", "kill"])),
    (SERVICE, "FileDescriptorStoreMax", Kind::Count),
    (
        SERVICE,
        "FileDescriptorStorePreserve",
        Kind::OneOf(&["no", "yes", "restart", "true", "false", "1", "0", "on", "off"]),
    ),
    (SOCKET, "ListenStream", Kind::Other),
    (SOCKET, "ListenDatagram", Kind::Other),
    (SOCKET, "FileDescriptorName", Kind::Other),
    (SOCKET, "Accept", Kind::Boolean),
    (SOCKET, "FlushPending", Kind::Boolean),
    (SOCKET, "RemoveOnStop", Kind::Boolean),
    (SOCKET, "ReusePort", Kind::Boolean),
    (SOCKET, "TriggerLimitIntervalSec", Kind::Span),
    (SOCKET, "TriggerLimitBurst", Kind::Count),
    (SOCKET, "MaxConnections", Kind::Count),
    (OURS, "DrainTimeout", Kind::Span),
    (OURS, "WarmUp", Kind::Span),
    (OURS, "Connections", Kind::Count),
    (OURS, "Tasks", Kind::Count),
    (OURS, "Stored", Kind::Count),
];

/// Of several sections.
const KNOWN_IN_BOTH: &[(&str, Kind)] = &[
    ("KillMode", Kind::OneOf(&["control-group", "process", "mixed", "none"])),
    ("KillSignal", Kind::Signal),
    ("RestartKillSignal", Kind::Signal),
    ("WatchdogSignal", Kind::Signal),
    ("SendSIGHUP", Kind::Boolean),
    ("SendSIGKILL", Kind::Boolean),
    ("DynamicUser", Kind::Boolean),
    ("TasksMax", Kind::Other),
    ("MemoryMax", Kind::Other),
    ("LimitNOFILE", Kind::Other),
    ("RestrictAddressFamilies", Kind::Other),
    ("SystemCallFilter", Kind::Other),
    ("RuntimeDirectory", Kind::Other),
];
