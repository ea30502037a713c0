//! `--fix`: a drop-in for each unit, with what a machine can decide; the rest stands in it as comments.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use crate::commands::check::finding::Fix;
use crate::commands::check::lint::{Judged, Report};
use crate::commands::check::unit::{SERVICE, SOCKET, UNIT};
use crate::safe::terminal;

const FILE: &str = "50-handover.conf";

/// For the units that were asked for: the answer to a question about one unit can be written to one file as it is.
pub(in crate::commands::check) fn report(report: &Report, asked: &BTreeSet<String>) -> String {
    let mut units: BTreeMap<&str, Vec<&Judged>> = BTreeMap::new();
    for judged in report.findings() {
        units.entry(&judged.finding.place.unit).or_default().push(judged);
    }
    let (asked, others): (Vec<_>, Vec<_>) = units.iter().partition(|(unit, _)| asked.contains(**unit));
    let mut parts: Vec<_> = asked.into_iter().map(|(unit, findings)| drop_in(unit, findings)).collect();
    if parts.is_empty() {
        parts.push("# Nothing to fix.\n".to_owned());
    }
    let others = others.into_iter().map(|(unit, findings)| {
        let n = findings.len();
        format!("# {unit} has {n} {} too: handover check --fix {unit}\n", if n == 1 { "finding" } else { "findings" })
    });
    parts.extend(others);
    parts.join("\n").trim_end().to_owned()
}

fn drop_in(unit: &str, findings: &[&Judged]) -> String {
    // With a path, as `systemctl cat` prints it, so that several of them can be told apart by machine.
    let mut out = format!("# /etc/systemd/system/{unit}.d/{FILE}\n");
    for judged in findings {
        if !matches!(judged.finding.fix, Some(Fix::Lines { .. })) {
            let text = judged.finding.fix.as_ref().map_or_else(|| judged.rule.remedy.to_owned(), Fix::text);
            comment(&mut out, judged, &format!(": {text}"));
        }
    }
    let mut written: Vec<&[String]> = Vec::new();
    for wanted in [UNIT, SERVICE, SOCKET] {
        let mut begun = false;
        for judged in findings {
            let Some(Fix::Lines { section, lines }) = &judged.finding.fix else { continue };
            if *section != wanted || written.contains(&lines.as_slice()) {
                continue;
            }
            if !std::mem::replace(&mut begun, true) {
                let _ = writeln!(out, "\n[{wanted}]");
            }
            comment(&mut out, judged, "");
            for line in lines {
                // Copied from the unit: nothing in it may speak to the terminal, and changed it would mean something else.
                let safe = terminal(line);
                let mark = if safe == *line { "" } else { "# " };
                let _ = writeln!(out, "{mark}{safe}");
            }
            written.push(lines);
        }
    }
    out
}

fn comment(out: &mut String, judged: &Judged, more: &str) {
    let Judged { rule, finding, .. } = judged;
    let _ = writeln!(out, "# {} {}: {}", rule.id, rule.name, terminal(&format!("{}{more}", finding.message)));
}
