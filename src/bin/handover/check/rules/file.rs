//! HO0xx: what systemd does not read as it was meant. For every unit, whether it uses handover or not.

use super::{Check, Link, Rule, Scope};
use crate::check::finding::{Finding, Severity};
use crate::check::pair::Pair;
use crate::check::rules;
use crate::check::unit::{OURS, SERVICE, SOCKET, UNIT, Unit};
use crate::check::value;

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "HO001",
        name: "ignored-line",
        severity: Severity::Warning,
        scope: Scope::Any,
        title: "a line that systemd cannot read",
        why: "systemd logs such a line and goes on without it, so what it was to say does not hold.",
        remedy: "Correct or remove the line.",
        link: Link::Man("systemd.syntax"),
        check: Check::EachAll(ignored_lines),
    },
    Rule {
        id: "HO002",
        name: "wrong-section",
        severity: Severity::Error,
        scope: Scope::Any,
        title: "a setting in a section where systemd does not look for it (`Restart=` under [Unit] is the classic)",
        why: "systemd ignores a setting outside of its section, with one line in the journal that nobody reads.",
        remedy: "Move the setting to its section.",
        link: Link::Man("systemd.service#Restart"),
        check: Check::EachAll(wrong_sections),
    },
    Rule {
        id: "HO003",
        name: "unreadable-value",
        severity: Severity::Warning,
        scope: Scope::Any,
        title: "a value that systemd cannot read",
        why: "systemd ignores an assignment whose value it cannot parse, and what was set before, or the default, holds.",
        remedy: "Write a value of the setting's kind.",
        link: Link::Man("systemd.time"),
        check: Check::EachAll(unreadable_values),
    },
];

enum Kind {
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
    (SERVICE, "FileDescriptorStorePreserve", Kind::OneOf(&["no", "yes", "restart", "true", "false", "1", "0", "on", "off"])),
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

fn ignored_lines(unit: &Unit, _: &Pair<'_>) -> Vec<Finding> {
    let sections: &[&str] = if unit.name.is_socket() { &[UNIT, SOCKET, "Install"] } else { &[UNIT, SERVICE, "Install"] };
    let unknown = unit.headers().filter(|(_, h)| !sections.contains(&h.section.as_str()) && !h.section.starts_with("X-"));
    let unknown = unknown.map(|(place, h)| {
        Finding::on(place, format!("[{}] is no section of a {}", h.section, kind(unit))).advice("Remove it, or correct its name.")
    });
    let lines = unit.ignored().map(|(place, ignored)| {
        Finding::on(place, format!("systemd ignores this line: {}", ignored.why.text())).advice("Correct or remove the line.")
    });
    unknown.chain(lines).collect()
}

fn wrong_sections(unit: &Unit, _: &Pair<'_>) -> Vec<Finding> {
    let own = if unit.name.is_socket() { SOCKET } else { SERVICE };
    let mut findings = Vec::new();
    for setting in unit.all() {
        let (section, key) = (setting.at.section.as_str(), setting.key());
        if ![UNIT, SERVICE, SOCKET, "Install"].contains(&section) || section != own && [SERVICE, SOCKET].contains(&section) {
            // Of an unknown section, or of one that is no part of such a unit, nothing is read: HO001 says so.
            continue;
        }
        let place = KNOWN.iter().find(|(_, known, _)| *known == key).map(|(section, ..)| *section);
        let in_both = KNOWN_IN_BOTH.iter().any(|(known, _)| *known == key).then_some(own);
        match place.or(in_both) {
            Some(right) if right != section => {
                let finding = Finding::at(&setting, format!("{key}= belongs under [{right}], not [{section}]"));
                findings.push(match right == own || right == UNIT {
                    true => finding.set(right, key, setting.value()),
                    false => finding.advice(format!("It is a setting of another kind of unit: put it there under [{right}].")),
                });
            }
            _ => {}
        }
    }
    findings
}

fn unreadable_values(unit: &Unit, _: &Pair<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for setting in unit.all().filter(|s| !s.value().is_empty()) {
        let known = KNOWN.iter().find(|(section, key, _)| setting.at.section == *section && setting.key() == *key);
        let both = KNOWN_IN_BOTH.iter().find(|(key, _)| setting.key() == *key && setting.at.section != UNIT);
        let Some(kind) = known.map(|(.., kind)| kind).or(both.map(|(_, kind)| kind)) else { continue };
        let text = setting.expanded();
        let (good, wanted) = match kind {
            // A specifier is replaced only at run time.
            _ if text.contains('%') => continue,
            Kind::Other => (true, String::new()),
            Kind::Boolean => (value::boolean(&text).is_some(), "yes or no".to_owned()),
            Kind::Span => (value::span(&text).is_some(), "a time as `1min 30s` or `infinity`".to_owned()),
            Kind::Count => (value::count(&text).is_some(), "a number".to_owned()),
            Kind::Signal => (value::signal(&text).is_some(), "a signal as `SIGTERM`, in capitals".to_owned()),
            Kind::OneOf(all) => (all.contains(&text.as_str()), format!("one of {}", all.join(", "))),
        };
        if !good {
            findings.push(Finding::of(&setting).advice(format!("Write {wanted}.")));
        }
    }
    for setting in unit.list(OURS, "Ignore") {
        let unknown: Vec<_> = setting.words().into_iter().filter(|w| rules::find(w).is_none()).collect();
        if !unknown.is_empty() {
            let message = format!("Ignore={}: there is no such rule", unknown.join(" "));
            findings.push(Finding::at(&setting, message).advice("`handover check --list` shows all."));
        }
    }
    findings
}

fn kind(unit: &Unit) -> &'static str {
    if unit.name.is_socket() { "socket unit" } else { "service unit" }
}
