//! For programs: one object, whose fields stay.

use serde_json::{Value, json};

use crate::commands::check::finding::{Fix, Severity};
use crate::commands::check::lint::{Judged, Report};
use crate::commands::check::pair::Claim;
use crate::commands::check::rules::{self, Rule, Scope};
use crate::safe;

/// Grows when a field changes its meaning; new fields do not count.
const FORMAT: u32 = 1;

pub(in crate::commands::check) fn report(report: &Report) -> String {
    let pairs = report.pairs.iter().map(|pair| {
        let claim = match pair.claim {
            Claim::No => "no",
            Claim::Likely => "likely",
            Claim::Yes => "yes",
        };
        json!({"name": pair.name, "units": pair.units, "handover": claim, "signs": pair.signs, "hidden": pair.hidden})
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

fn finding(judged: &Judged) -> Value {
    let Judged { rule, severity, finding } = judged;
    let place = &finding.place;
    let fix = match &finding.fix {
        Some(Fix::Lines { section, lines }) => json!({"section": section, "lines": lines}),
        Some(Fix::Advice(text) | Fix::Tidy(text)) => json!({"advice": text}),
        None => json!({"advice": rule.remedy}),
    };
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
        "link": rule.link.url(),
    })
}

pub(in crate::commands::check) fn rules() -> String {
    let rule = |rule: &Rule| {
        json!({
            "id": rule.id,
            "name": rule.name,
            "severity": rule.severity,
            "scope": match rule.scope { Scope::Any => "any", Scope::Rolling => "rolling" },
            "title": rule.title,
            "why": rule.why,
            "remedy": rule.remedy,
            "link": rule.link.url(),
        })
    };
    format!("{:#}", json!({"format": FORMAT, "rules": rules::all().map(rule).collect::<Vec<_>>()}))
}
