//! For programs: one object, whose fields stay.

use serde_json::{Value, json};

use crate::commands::check::finding::{Fix, Severity};
use crate::commands::check::lint::{Checked, Judged, Report};
use crate::commands::check::rules;
use crate::safe;

/// Grows when a field changes its meaning; new fields do not count.
const FORMAT: u32 = 1;

pub(in crate::commands::check) fn report(report: &Report<'_>) -> String {
    let pairs = report.pairs.iter().map(|Checked { pair, hidden, .. }| {
        let units: Vec<_> = pair.units().map(|unit| unit.name.to_string()).collect();
        json!({"name": pair.name(), "units": units, "handover": pair.claim, "signs": pair.signs, "hidden": hidden})
    });
    let value = json!({
        "format": FORMAT,
        "target_version": report.target,
        "pairs": pairs.collect::<Vec<_>>(),
        "findings": report.findings().map(finding).collect::<Vec<_>>(),
        "errors": report.count(Severity::Error),
        "warnings": report.count(Severity::Warning),
        "infos": report.count(Severity::Info),
    });
    safe::json(&format!("{value:#}"))
}

fn finding(Judged { rule, severity, finding }: &Judged) -> Value {
    let fix = match &finding.fix {
        Some(Fix::Lines { section, lines }) => json!({"section": section, "lines": lines}),
        Some(Fix::Advice(text) | Fix::Tidy(text)) => json!({"advice": text}),
        None => json!({"advice": rule.remedy}),
    };
    let place = &finding.place;
    json!({
        "id": rule.id,
        "name": rule.name,
        "severity": severity,
        "unit": place.unit,
        "file": place.file,
        "line": place.line,
        "section": place.section,
        "key": place.key,
        "message": finding.message,
        "why": rule.why,
        "fix": fix,
        "link": rule.link,
    })
}

pub(in crate::commands::check) fn rules() -> String {
    format!("{:#}", json!({"format": FORMAT, "rules": rules::all().collect::<Vec<_>>()}))
}
