//! For people.

use std::fmt::Write;

use clap::builder::styling::{AnsiColor, Style};

use crate::commands::check::finding::Severity;
use crate::commands::check::lint::{Checked, Judged, Report};
use crate::commands::check::pair::Claim;
use crate::out;
use crate::safe::terminal;

/// Whether there are colours.
#[derive(Debug, Clone, Copy)]
pub(in crate::commands::check) struct Paint(bool);

impl Paint {
    /// Only on a terminal that has colours, and not with `NO_COLOR`.
    pub(in crate::commands::check) fn detect() -> Self {
        Self(out::colours())
    }

    #[cfg(test)]
    pub(in crate::commands::check) fn none() -> Self {
        Self(false)
    }

    fn with(self, style: Style, text: &str) -> String {
        if self.0 { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }

    fn severity(self, severity: Severity) -> String {
        let colour = match severity {
            Severity::Error => AnsiColor::Red,
            Severity::Warning => AnsiColor::Yellow,
            Severity::Info => AnsiColor::Cyan,
        };
        self.with(Style::new().bold().fg_color(Some(colour.into())), &severity.to_string())
    }

    fn bold(self, text: &str) -> String {
        self.with(Style::new().bold(), text)
    }

    fn dim(self, text: &str) -> String {
        self.with(Style::new().dimmed(), text)
    }
}

pub(in crate::commands::check) fn report(report: &Report, paint: Paint) -> String {
    let mut out = String::new();
    for pair in &report.pairs {
        if !pair.findings.is_empty() {
            heading(&mut out, pair, paint);
            for judged in &pair.findings {
                finding(&mut out, judged, paint);
            }
            out.push('\n');
        }
    }
    out + &summary(report)
}

fn heading(out: &mut String, pair: &Checked, paint: Paint) {
    let units = pair.units.join(", ");
    let signs = terminal(&pair.signs.join(", "));
    let remark = match pair.claim {
        Claim::Yes => format!("reloaded by handover ({signs})"),
        Claim::Likely => format!(
            "signs of a rolling reload ({signs}), so errors are shown as warnings; --assume-handover if it is one"
        ),
        Claim::No => "no rolling reload by handover, so only what systemd ignores is an error".to_owned(),
    };
    // A String takes whatever is written.
    let _ = writeln!(out, "{} {}", paint.bold(&units), paint.dim(&format!("– {remark}")));
}

fn finding(out: &mut String, judged: &Judged, paint: Paint) {
    let Judged { rule, severity, finding } = judged;
    let place = format!("{}:{}", terminal(&finding.place.file), finding.place.line);
    let name = paint.dim(&format!("[{} {}]", rule.id, rule.name));
    // A unit is somebody's text: nothing in it may speak to the terminal.
    let _ = writeln!(out, "{place}: {}: {} {name}", paint.severity(*severity), terminal(&finding.message));
    let _ = writeln!(out, "    why: {}\n    fix: {}", rule.why, terminal(&judged.remedy()));
}

fn summary(report: &Report) -> String {
    let count = |severity, name: &str| match report.count(severity) {
        1 => format!("1 {name}"),
        n => format!("{n} {name}s"),
    };
    let units: usize = report.pairs.iter().map(|p| p.units.len()).sum();
    let counts = [count(Severity::Error, "error"), count(Severity::Warning, "warning")];
    let mut text = format!("{} in {units} {}", counts.join(", "), if units == 1 { "unit" } else { "units" });
    let add = |text: &mut String, n: usize, what: &str| {
        if n > 0 {
            let _ = write!(text, "; {n} {what}");
        }
    };
    add(&mut text, report.count(Severity::Info), "for information");
    add(&mut text, report.pairs.iter().map(|p| p.hidden).sum(), "below --level not shown");
    let others: Vec<_> = report.pairs.iter().filter(|p| p.claim == Claim::No && p.hidden > 0).collect();
    let others = match others.as_slice() {
        [] => return text,
        [one] => format!("{} shows", one.name),
        several => format!("{} services show", several.len()),
    };
    format!("{text}\n{others} no rolling reload by handover; --assume-handover tells what one would need")
}
