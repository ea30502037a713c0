//! HO0xx: what systemd does not read as it was meant, in every unit.

use crate::commands::check::directives::{self, INSTALL, OURS, section};
use crate::commands::check::rule::{Each, Finding, Pair, Row, SERVICE, SOCKET, Setting, UNIT, Unit};
use crate::safe::short;

/// Settings that went before this version are in no systemd that is still about.
const OLDEST: u32 = 252;

pub(super) const RULES: &[Row] = &[
    ("HO001", Each(ignored_lines)),
    ("HO002", Each(wrong_sections)),
    ("HO003", Each(unreadable_values)),
    ("HO004", Each(unknown_settings)),
    ("HO005", Each(super::loads::refused)),
];

/// Settings that a unit for all versions has: where they are ignored, nothing else is missing.
const PORTABLE: [&str; 3] = ["RestartSteps", "RestartMaxDelaySec", "RestartMode"];

/// Of one rule in one file; the rest is counted. Junk can have millions of such lines.
const MOST_FINDINGS: usize = 100;

/// All of them, or the first ones and how many more there are, which are not looked into.
fn bounded<T>(mut items: impl Iterator<Item = T>, finding: impl Fn(T) -> Finding) -> Vec<Finding> {
    let mut all: Vec<_> = items.by_ref().take(MOST_FINDINGS).map(finding).collect();
    let more = items.count();
    if let Some(last) = all.last_mut().filter(|_| more > 0) {
        last.message = format!("{}; and {more} more of this kind", last.message);
    }
    all
}

fn ignored_lines(unit: &Unit, _: &Pair<'_>) -> Vec<Finding> {
    let unknown = unit.headers().filter(|(_, h)| !is_read(unit, &h.section) && !h.section.starts_with("X-"));
    let mut findings = bounded(unknown, |(place, h)| {
        let kind = if unit.name.is_socket() { "socket unit" } else { "service unit" };
        Finding::on(place, format!("[{}] is no section of a {kind}", short(&h.section, 60)))
            .advice("Remove it, or correct its name.")
    });
    // What ends the reading of the unit's own file is more than an ignored line: HO005 says so.
    let lines = unit.ignored().filter(|(place, ignored)| !(ignored.why.is_fatal() && unit.is_own_file(&place.file)));
    findings.extend(bounded(lines, |(place, ignored)| {
        Finding::on(place, format!("systemd ignores this line: {}", ignored.why.text()))
    }));
    findings
}

fn is_read(unit: &Unit, section: &str) -> bool {
    [UNIT, unit.own_section(), INSTALL].contains(&section)
}

/// Settings that systemd does not know where they stand.
fn unknown(unit: &Unit) -> impl Iterator<Item = Setting<'_>> {
    let known = |s: &Setting<'_>| s.key().starts_with("X-") || directives::find(s.at.section, s.at.number).is_some();
    // Of a section that is no part of such a unit nothing is read: HO001 says so.
    unit.all().filter(move |s| is_read(unit, s.at.section) && !known(s))
}

fn wrong_sections(unit: &Unit, _: &Pair<'_>) -> Vec<Finding> {
    let own = unit.own_section();
    let misplaced = unknown(unit).filter_map(|setting| Some((setting, section(setting.at.number, own)?)));
    bounded(misplaced, |(setting, right)| {
        let key = setting.key();
        let finding = Finding::at(&setting, format!("{key}= belongs under [{right}], not [{}]", setting.at.section));
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
    let own = unit.own_section();
    let mut findings = bounded(unknown(unit).filter(|s| section(s.at.number, own).is_none()), |setting| {
        let (here, key) = (setting.at.section, setting.key());
        let finding = Finding::at(&setting, format!("systemd knows no {}= under [{here}]", short(key, 60)));
        if let Some(near) = directives::nearest(&[here], key) {
            return finding.advice(format!("Did you mean {near}=?"));
        }
        let Some(near) = directives::nearest(&[UNIT, own, INSTALL], key) else { return finding };
        let right = section(directives::key(near), own).unwrap_or(own);
        finding.advice(format!("Did you mean {near}= under [{right}]?"))
    });
    let of_others = unit.all().filter(|s| is_read(unit, s.at.section)).filter_map(|setting| {
        // HO223 has more to say of that one.
        let said = setting.key() == "FileDescriptorStorePreserve"
            && unit.text(setting.at.section, setting.key()).is_some_and(|last| last.is(&setting));
        Some((setting, not_in_target(&setting, pair.limits.target).filter(|_| !said)?))
    });
    findings.extend(bounded(of_others, |(setting, (more, advice))| {
        let finding = Finding::at(&setting, format!("{}= {more}", setting.key()));
        match PORTABLE.contains(&setting.key()) {
            true => finding.tidy("Nothing: it is ignored there, and pauses stay as short as RestartSec=."),
            false => finding.advice(advice),
        }
    }));
    findings
}

/// Why the target does not mind a setting, and what to do about it.
fn not_in_target(setting: &Setting<'_>, target: Option<u32>) -> Option<(String, &'static str)> {
    let directive = directives::find(setting.at.section, setting.at.number)?;
    if directive.until.is_some_and(|until| until < OLDEST) {
        return Some(("was taken out of systemd long ago, and is ignored".to_owned(), "Remove the line."));
    }
    let target = target?;
    if let Some(until) = directive.until.filter(|until| target > *until) {
        let advice = "Remove the line, or write what took its place.";
        return Some((format!("is ignored from systemd {} on", until + 1), advice));
    }
    let message = format!("came with systemd {}, but the target is {target}", directive.since);
    (target < directive.since).then_some((message, "Nothing, if the target can do without it; else a newer systemd."))
}

fn unreadable_values(unit: &Unit, pair: &Pair<'_>) -> Vec<Finding> {
    let unreadable = unit.all().filter(|s| !s.value().is_empty()).filter_map(|setting| {
        let kind = directives::find(setting.at.section, setting.at.number)?.kind.as_ref()?;
        // A specifier is replaced only at run time.
        let text = setting.expanded();
        (!text.contains('%') && !kind.reads(&text)).then_some((setting, kind))
    });
    let mut findings =
        bounded(unreadable, |(setting, kind)| Finding::of(&setting).advice(format!("Write {}.", kind.wanted())));
    let too_new = unit.all().filter_map(|setting| {
        let directive = directives::find(setting.at.section, setting.at.number)?;
        let since = directive.kind.as_ref()?.since(&setting.expanded());
        // Of a setting that is not there at all HO004 speaks.
        let target = pair.limits.target_below(since).filter(|target| *target >= directive.since)?;
        Some((setting, since, target))
    });
    findings.extend(bounded(too_new, |(setting, since, target)| {
        Finding::of(&setting)
            .but(format!(", a value that came with systemd {since}, but the target is {target}"))
            .advice("Another value: the target ignores the line, and does as by default.")
    }));
    let rules = unit.list(OURS, "Ignore").into_iter().filter_map(|setting| {
        let unknown: Vec<_> = setting.words().into_iter().filter(|word| !(pair.is_rule)(word)).collect();
        (!unknown.is_empty()).then(|| (setting, unknown.join(" ")))
    });
    findings.extend(bounded(rules, |(setting, unknown)| {
        let message = format!("Ignore={}: there is no such rule", short(&unknown, 200));
        Finding::at(&setting, message).advice("`handover check --list` shows all.")
    }));
    findings
}
