//! For people.

use std::fmt::Write;

use clap::builder::StyledStr;
use clap::builder::styling::{AnsiColor, Style};

use crate::commands::check::finding::Severity;
use crate::commands::check::lint::{Checked, Judged, Report};
use crate::commands::check::pair::Claim;
use crate::safe::terminal;

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();

pub(in crate::commands::check) fn report(report: &Report<'_>, colours: bool) -> String {
    let mut out = String::new();
    for checked in report.pairs.iter().filter(|checked| !checked.findings.is_empty()) {
        heading(&mut out, checked);
        checked.findings.iter().for_each(|judged| finding(&mut out, judged));
        out.push('\n');
    }
    out += &summary(report);
    if colours { out } else { StyledStr::from(out).to_string() }
}

fn heading(out: &mut String, checked: &Checked<'_>) {
    let units: Vec<_> = checked.pair.units().map(|unit| unit.name.to_string()).collect();
    let signs = terminal(&checked.pair.signs.join(", "));
    let remark = match checked.pair.claim {
        Claim::Yes => format!("reloaded by handover ({signs})"),
        Claim::Likely => format!(
            "signs of a rolling reload ({signs}), so errors are shown as warnings; --assume-handover if it is one"
        ),
        Claim::No => "no rolling reload by handover, so only what systemd ignores is an error".to_owned(),
    };
    // A String takes whatever is written.
    let _ = writeln!(out, "{BOLD}{}{BOLD:#} {DIM}– {remark}{DIM:#}", units.join(", "));
}

fn finding(out: &mut String, judged: &Judged) {
    let Judged { rule, severity, finding } = judged;
    let colour = match severity {
        Severity::Error => AnsiColor::Red,
        Severity::Warning => AnsiColor::Yellow,
        Severity::Info => AnsiColor::Cyan,
    };
    let style = Style::new().bold().fg_color(Some(colour.into()));
    // A unit is somebody's text: nothing in it may speak to the terminal.
    let (file, message) = (terminal(&finding.place.file), terminal(&finding.message));
    let (line, id, name) = (finding.place.line, rule.id, rule.name);
    let _ = writeln!(out, "{file}:{line}: {style}{severity}{style:#}: {message} {DIM}[{id} {name}]{DIM:#}");
    let _ = writeln!(out, "    why: {}\n    fix: {}", rule.why, terminal(&judged.remedy()));
}

fn summary(report: &Report<'_>) -> String {
    let count = |severity, name: &str| match report.count(severity) {
        1 => format!("1 {name}"),
        n => format!("{n} {name}s"),
    };
    let units: usize = report.pairs.iter().map(|p| p.pair.units().count()).sum();
    let counts = [count(Severity::Error, "error"), count(Severity::Warning, "warning")];
    let mut text = format!("{} in {units} {}", counts.join(", "), if units == 1 { "unit" } else { "units" });
    let add = |text: &mut String, n: usize, what: &str| {
        if n > 0 {
            let _ = write!(text, "; {n} {what}");
        }
    };
    add(&mut text, report.count(Severity::Info), "for information");
    add(&mut text, report.pairs.iter().map(|p| p.hidden).sum(), "below --level not shown");
    let others: Vec<_> = report.pairs.iter().filter(|p| p.pair.claim == Claim::No && p.hidden > 0).collect();
    let others = match others.as_slice() {
        [] => return text,
        [one] => format!("{} shows", one.pair.name()),
        several => format!("{} services show", several.len()),
    };
    format!("{text}\n{others} no rolling reload by handover; --assume-handover tells what one would need")
}
