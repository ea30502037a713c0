//! `--fix`: a drop-in for each unit, with what a machine can decide; the rest in comments.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use crate::commands::check::directives::{SERVICE, SOCKET, UNIT};
use crate::commands::check::finding::{Fix, Severity};
use crate::commands::check::lint::{Checked, Judged, Report};
use crate::commands::check::pair::{Pair, Trust};
use crate::commands::check::rule::Scope;
use crate::safe::terminal;

const FILE: &str = "50-handover.conf";

/// What is to be written, and what a person has to do.
pub(in crate::commands::check) struct Fixes {
    pub(in crate::commands::check) text: String,
    /// The gravest of what is left of the units that were asked for.
    pub(in crate::commands::check) left: Option<Severity>,
}

/// A finding with its service, which says how far it may be mended by a machine.
type Case<'a> = (&'a Pair<'a>, &'a Judged);

/// For the units that were asked for: what is said of one can be its file as it is.
pub(in crate::commands::check) fn report(report: &Report<'_>, asked: &BTreeSet<String>) -> Fixes {
    let mut units: BTreeMap<&str, Vec<Case<'_>>> = BTreeMap::new();
    for Checked { pair, findings, .. } in &report.pairs {
        for judged in findings {
            units.entry(&judged.finding.place.unit).or_default().push((pair, judged));
        }
    }
    let (asked, others): (Vec<_>, Vec<_>) = units.iter().partition(|(unit, _)| asked.contains(**unit));
    let left = asked.iter().flat_map(|(_, cases)| *cases).filter(|case| written(case).is_none());
    let left = left.map(|(_, judged)| judged.severity).max();
    let mut parts: Vec<_> = asked.into_iter().map(|(unit, cases)| drop_in(unit, cases)).collect();
    if parts.is_empty() {
        parts.push("# Nothing to fix.\n".to_owned());
    }
    let others = others.into_iter().map(|(unit, cases)| {
        let n = cases.len();
        format!("# {unit} has {n} {} too: handover check --fix {unit}\n", if n == 1 { "finding" } else { "findings" })
    });
    parts.extend(others);
    Fixes { text: parts.join("\n").trim_end().to_owned(), left }
}

/// The lines that are written for it: none where only somebody can decide who knows the service,
/// and none that would break a service which does not hand over, or does not speak sd_notify.
fn written<'a>((pair, judged): &Case<'a>) -> Option<(&'a str, &'a [String])> {
    let Some(Fix::Lines { section, lines }) = &judged.finding.fix else { return None };
    let harmless = match pair.trust() {
        Trust::Told => true,
        Trust::Assumed => !judged.rule.breaks_others(),
        Trust::Signs => judged.rule.scope == Scope::Any && !judged.rule.breaks_others(),
    };
    // What is copied from the unit may not speak to the terminal.
    let plain = lines.iter().all(|line| terminal(line) == *line);
    (harmless && plain).then_some((section.as_str(), lines.as_slice()))
}

fn drop_in(unit: &str, cases: &[Case<'_>]) -> String {
    // With a path, as `systemctl cat` prints it, so that a machine can tell them apart.
    let mut out = format!("# /etc/systemd/system/{unit}.d/{FILE}\n");
    let left = || cases.iter().filter(|case| written(case).is_none());
    if let Some((pair, _)) = left().find(|(_, judged)| matches!(judged.finding.fix, Some(Fix::Lines { .. }))) {
        assumption(&mut out, pair);
    }
    for (_, judged) in left() {
        comment(&mut out, judged, &format!(": {}", judged.remedy()));
    }
    let mut so_far: Vec<&[String]> = Vec::new();
    for wanted in [UNIT, SERVICE, SOCKET] {
        let mut begun = false;
        for (judged, (section, lines)) in cases.iter().filter_map(|case| Some((case.1, written(case)?))) {
            if section != wanted || so_far.contains(&lines) {
                continue;
            }
            if !std::mem::replace(&mut begun, true) {
                let _ = writeln!(out, "\n[{wanted}]");
            }
            comment(&mut out, judged, "");
            lines.iter().for_each(|line| _ = writeln!(out, "{line}"));
            so_far.push(lines);
        }
    }
    out
}

/// Why what follows is not written, and what would be done instead.
fn assumption(out: &mut String, pair: &Pair<'_>) {
    let (name, run) =
        (terminal(&pair.name()), terminal(&format!("ExecStart=/usr/bin/handover run -- {}", pair.program())));
    let text = match pair.trust() {
        Trust::Told => return,
        Trust::Assumed => format!(
            "# Assumed, by {}: handover reloads {name}.\n# Not assumed: that its program speaks sd_notify. Type=notify, and what goes with it, stands in comments: without READY=1 a start\n# fails after TimeoutStartSec=. A section [X-Handover] in the unit says that it does.",
            terminal(&pair.signs.join(", "))
        ),
        Trust::Signs => format!(
            "# Assumed: handover does not reload {name}, as nothing says so. What only such a service needs stands in comments.\n# A section [X-Handover] in the unit says that it does."
        ),
    };
    let _ = writeln!(
        out,
        "{text}\n# A program that does not hand over by itself is reloaded by handover run, which speaks sd_notify for it:\n#   {run}"
    );
}

fn comment(out: &mut String, judged: &Judged, more: &str) {
    let Judged { rule, finding, .. } = judged;
    let _ = writeln!(out, "# {} {}: {}", rule.id, rule.name, terminal(&format!("{}{more}", finding.message)));
}
