//! HO0xx: what systemd does not read as it was meant. For every unit, whether it uses handover or
//! not.

use super::{Check, Link, Rule, Scope};
use crate::commands::check::finding::{Finding, Severity};
use crate::commands::check::pair::Pair;
use crate::commands::check::rules;
use crate::commands::check::unit::{INSTALL, OURS, SERVICE, SOCKET, Setting, UNIT, Unit};
use crate::commands::check::{directives, known};
use crate::safe::short;

/// Settings that went before this version are in no systemd that is still about.
const OLDEST: u32 = 252;

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
    Rule {
        id: "HO004",
        name: "unknown-setting",
        severity: Severity::Warning,
        scope: Scope::Any,
        title: "a setting that systemd does not know, or the target's does not",
        why: "systemd ignores a setting that it has no name for, with one line in the journal that nobody reads.",
        remedy: "Correct the name, which has its capitals; or put what is yours under a name that begins with X-.",
        link: Link::Man("systemd.directives"),
        check: Check::EachAll(unknown_settings),
    },
    Rule {
        id: "HO005",
        name: "not-loaded",
        severity: Severity::Error,
        scope: Scope::Any,
        title: "systemd refuses to load the unit",
        why: "A unit whose LoadState= is bad-setting or error can neither be started nor reloaded; one that runs already runs on as it was.",
        remedy: "Correct what systemd refuses; `systemctl status` shows its reason.",
        link: Link::Man("systemd.service#ExecStart"),
        check: Check::EachAll(super::loads::refused),
    },
];

/// Of one rule in one file; the rest is counted. Junk can have millions of such lines.
const MOST_FINDINGS: usize = 100;

/// All of them, or the first ones and how many more there are: those are counted and not looked
/// into.
fn bounded<T>(mut items: impl Iterator<Item = T>, finding: impl Fn(T) -> Finding) -> Vec<Finding> {
    let mut all: Vec<_> = items.by_ref().take(MOST_FINDINGS).map(finding).collect();
    let more = items.count();
    if let Some(last) = all.last_mut().filter(|_| more > 0) {
        last.message = format!("{}; and {more} more of this kind", last.message);
    }
    all
}

fn ignored_lines(unit: &Unit, _: &Pair<'_>) -> Vec<Finding> {
    let sections = [UNIT, own_section(unit), INSTALL];
    let unknown =
        unit.headers().filter(|(_, h)| !sections.contains(&h.section.as_str()) && !h.section.starts_with("X-"));
    let mut findings = bounded(unknown, |(place, h)| {
        Finding::on(place, format!("[{}] is no section of a {}", short(&h.section, 60), kind(unit)))
            .advice("Remove it, or correct its name.")
    });
    // What ends the reading of the unit's own file is more than an ignored line: HO005 says so.
    let lines = unit.ignored().filter(|(place, ignored)| !(ignored.why.is_fatal() && unit.is_own_file(&place.file)));
    findings.extend(bounded(lines, |(place, ignored)| {
        Finding::on(place, format!("systemd ignores this line: {}", ignored.why.text()))
            .advice("Correct or remove the line.")
    }));
    findings
}

/// Settings that systemd does not know where they stand.
fn unknown(unit: &Unit) -> impl Iterator<Item = Setting<'_>> {
    let own = own_section(unit);
    // Of an unknown section, or of one that is no part of such a unit, nothing is read: HO001 says
    // so.
    let read = move |s: &Setting<'_>| [UNIT, own, INSTALL].contains(&s.at.section);
    let known = |s: &Setting<'_>| s.key().starts_with("X-") || directives::find(s.at.section, s.at.number).is_some();
    unit.all().filter(move |s| read(s) && !known(s))
}

fn wrong_sections(unit: &Unit, _: &Pair<'_>) -> Vec<Finding> {
    let own = own_section(unit);
    let misplaced = unknown(unit).filter_map(|setting| Some((setting, known::section(setting.at.number, own)?)));
    bounded(misplaced, |(setting, right)| {
        let (section, key) = (setting.at.section, setting.key());
        let finding = Finding::at(&setting, format!("{key}= belongs under [{right}], not [{section}]"));
        match right {
            // A drop-in can say it where it is heard, but only a person can take the line away.
            _ if unit.list(right, key).iter().any(|other| other.value() == setting.value()) => {
                finding.tidy(format!("Remove the line: the same stands under [{right}]."))
            }
            _ if unit.says(right, key) => {
                finding.advice(format!("Remove the line: {key}= stands under [{right}] too."))
            }
            UNIT | SERVICE | SOCKET if right == own || right == UNIT => finding.set(right, key, setting.value()),
            INSTALL => finding.advice(format!("Move it to [{INSTALL}], which only the unit's own file can have.")),
            _ => finding.advice(format!("It is a setting of another kind of unit: put it there under [{right}].")),
        }
    })
}

fn unknown_settings(unit: &Unit, pair: &Pair<'_>) -> Vec<Finding> {
    let own = own_section(unit);
    let mut findings = bounded(unknown(unit).filter(|s| known::section(s.at.number, own).is_none()), |setting| {
        let (section, key) = (setting.at.section, setting.key());
        let finding = Finding::at(&setting, format!("systemd knows no {}= under [{section}]", short(key, 60)));
        let elsewhere = || directives::nearest(&[UNIT, own, INSTALL], key);
        match (directives::nearest(&[section], key), elsewhere()) {
            (Some(near), _) => finding.advice(format!("Did you mean {near}=?")),
            (None, Some(near)) => {
                let right = known::section(directives::key(near), own).unwrap_or(own);
                finding.advice(format!("Did you mean {near}= under [{right}]?"))
            }
            (None, None) => finding,
        }
    });
    let target = pair.limits.target;
    let of_others = unit.all().filter_map(|setting| {
        let directive = directives::find(setting.at.section, setting.at.number)?;
        let too_new = target.is_some_and(|target| target < directive.since);
        let gone = directive.until.is_some_and(|until| until < OLDEST || target.is_some_and(|target| target > until));
        // HO223 has more to say of that one.
        let said = setting.key() == "FileDescriptorStorePreserve"
            && unit.text(setting.at.section, setting.key()).is_some_and(|last| last.is(&setting));
        let read = [UNIT, own, INSTALL].contains(&setting.at.section);
        ((too_new || gone) && !said && read).then_some((setting, directive))
    });
    findings.extend(bounded(of_others, |(setting, directive)| {
        let key = setting.key();
        let (message, advice) = match (directive.until, target) {
            (Some(until), _) if until < OLDEST => {
                (format!("{key}= was taken out of systemd long ago, and is ignored"), "Remove the line.")
            }
            (Some(until), Some(target)) if target > until => (
                format!("{key}= is ignored from systemd {} on", until + 1),
                "Remove the line, or write what took its place.",
            ),
            _ => (
                format!(
                    "{key}= came with systemd {}, but the target is {}",
                    directive.since,
                    target.unwrap_or_default()
                ),
                "Nothing, if the target can do without it; else a newer systemd.",
            ),
        };
        Finding::at(&setting, message).advice(advice)
    }));
    findings
}

fn unreadable_values(unit: &Unit, _: &Pair<'_>) -> Vec<Finding> {
    let unreadable = unit.all().filter(|s| !s.value().is_empty()).filter_map(|setting| {
        let kind = known::kind(setting.at.section, setting.at.number, setting.key())?;
        // A specifier is replaced only at run time.
        let text = setting.expanded();
        (!text.contains('%') && !kind.reads(&text)).then_some((setting, kind))
    });
    let mut findings =
        bounded(unreadable, |(setting, kind)| Finding::of(&setting).advice(format!("Write {}.", kind.wanted())));
    let rules = unit.list(OURS, "Ignore").into_iter().filter_map(|setting| {
        let unknown: Vec<_> = setting.words().into_iter().filter(|w| rules::find(w).is_none()).collect();
        (!unknown.is_empty()).then(|| (setting, unknown.join(" ")))
    });
    findings.extend(bounded(rules, |(setting, unknown)| {
        let message = format!("Ignore={}: there is no such rule", short(&unknown, 200));
        Finding::at(&setting, message).advice("`handover check --list` shows all.")
    }));
    findings
}

fn own_section(unit: &Unit) -> &'static str {
    if unit.name.is_socket() { SOCKET } else { SERVICE }
}

fn kind(unit: &Unit) -> &'static str {
    if unit.name.is_socket() { "socket unit" } else { "service unit" }
}
