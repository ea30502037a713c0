//! HO0xx: what systemd does not read as it was meant. For every unit, whether it uses handover or not.

use super::{Check, Link, Rule, Scope};
use crate::commands::check::finding::{Finding, Severity};
use crate::commands::check::known;
use crate::commands::check::pair::Pair;
use crate::commands::check::rules;
use crate::commands::check::unit::{OURS, SERVICE, SOCKET, UNIT, Unit};

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

fn ignored_lines(unit: &Unit, _: &Pair<'_>) -> Vec<Finding> {
    let sections: &[&str] =
        if unit.name.is_socket() { &[UNIT, SOCKET, "Install"] } else { &[UNIT, SERVICE, "Install"] };
    let unknown =
        unit.headers().filter(|(_, h)| !sections.contains(&h.section.as_str()) && !h.section.starts_with("X-"));
    let unknown = unknown.map(|(place, h)| {
        Finding::on(place, format!("[{}] is no section of a {}", h.section, kind(unit)))
            .advice("Remove it, or correct its name.")
    });
    let lines = unit.ignored().map(|(place, ignored)| {
        Finding::on(place, format!("systemd ignores this line: {}", ignored.why.text()))
            .advice("Correct or remove the line.")
    });
    unknown.chain(lines).collect()
}

fn wrong_sections(unit: &Unit, _: &Pair<'_>) -> Vec<Finding> {
    let own = if unit.name.is_socket() { SOCKET } else { SERVICE };
    let mut findings = Vec::new();
    for setting in unit.all() {
        let (section, key) = (setting.at.section.as_str(), setting.key());
        if ![UNIT, SERVICE, SOCKET, "Install"].contains(&section)
            || section != own && [SERVICE, SOCKET].contains(&section)
        {
            // Of an unknown section, or of one that is no part of such a unit, nothing is read: HO001 says so.
            continue;
        }
        match known::section(setting.key(), own) {
            Some(right) if right != section => {
                let finding = Finding::at(&setting, format!("{key}= belongs under [{right}], not [{section}]"));
                findings.push(match right == own || right == UNIT {
                    true => finding.set(right, key, setting.value()),
                    false => finding
                        .advice(format!("It is a setting of another kind of unit: put it there under [{right}].")),
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
        let text = setting.expanded();
        // A specifier is replaced only at run time.
        let kind = known::kind(&setting.at.section, setting.key()).filter(|_| !text.contains('%'));
        if let Some(kind) = kind.filter(|kind| !kind.reads(&text)) {
            findings.push(Finding::of(&setting).advice(format!("Write {}.", kind.wanted())));
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
