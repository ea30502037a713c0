//! `--fix`: a drop-in for each unit, with what a machine can decide; the rest stands in it as comments.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::check::finding::Fix;
use crate::check::lint::{Judged, Report};
use crate::check::unit::{SERVICE, SOCKET, UNIT};

const FILE: &str = "50-handover.conf";

pub(in crate::check) fn report(report: &Report) -> String {
    let mut units: BTreeMap<&str, Vec<&Judged>> = BTreeMap::new();
    for judged in report.findings() {
        units.entry(&judged.finding.place.unit).or_default().push(judged);
    }
    if units.is_empty() {
        return "# Nothing to fix.".to_owned();
    }
    let drop_ins: Vec<_> = units.iter().map(|(unit, findings)| drop_in(unit, findings)).collect();
    drop_ins.join("\n")
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
                let mark = if line.contains(char::is_control) { "# " } else { "" };
                let _ = writeln!(out, "{mark}{}", clean(line));
            }
            written.push(lines);
        }
    }
    out
}

fn comment(out: &mut String, judged: &Judged, more: &str) {
    let Judged { rule, finding, .. } = judged;
    let _ = writeln!(out, "# {} {}: {}", rule.id, rule.name, clean(&format!("{}{more}", finding.message)));
}

fn clean(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}
