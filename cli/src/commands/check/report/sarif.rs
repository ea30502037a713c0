//! SARIF 2.1.0, which code hosts show beside the lines.

use serde_json::{Value, json};

use crate::commands::check::finding::Severity;
use crate::commands::check::lint::{Judged, Report};
use crate::commands::check::rules;
use crate::safe;

const SCHEMA: &str = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";

pub(in crate::commands::check) fn report(report: &Report<'_>) -> String {
    let rules = rules::all().map(|rule| {
        json!({
            "id": rule.id,
            "name": rule.name,
            "shortDescription": {"text": rule.title},
            "fullDescription": {"text": rule.why},
            "help": {"text": rule.remedy},
            "helpUri": rule.link,
            "defaultConfiguration": {"level": level(rule.severity)},
        })
    });
    let log = json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "handover check",
                "version": env!("CARGO_PKG_VERSION"),
                "informationUri": "https://docs.rs/handover",
                "rules": rules.collect::<Vec<_>>(),
            }},
            "columnKind": "unicodeCodePoints",
            "results": results(report),
        }],
    });
    safe::json(&format!("{log:#}"))
}

/// Without the rules, which are the same in every report, and 50 KB.
pub(in crate::commands::check) fn findings(report: &Report<'_>) -> String {
    safe::json(&format!("{:#}", results(report)))
}

fn results(report: &Report<'_>) -> Value {
    report.findings().map(result).collect()
}

fn result(judged: &Judged) -> Value {
    let Judged { rule, severity, finding } = judged;
    let (place, fix) = (&finding.place, judged.remedy());
    json!({
        "ruleId": rule.id,
        "ruleIndex": rules::all().position(|other| other.id == rule.id),
        "level": level(*severity),
        "message": {"text": format!("{}. {} Fix: {fix}", finding.message, rule.why)},
        "locations": [{
            "physicalLocation": {
                "artifactLocation": {"uri": uri(&place.file)},
                "region": {"startLine": place.line},
            },
            "logicalLocations": [{"fullyQualifiedName": place.unit, "kind": "module"}],
        }],
    })
}

fn level(severity: Severity) -> String {
    if severity == Severity::Info { "note".to_owned() } else { severity.to_string() }
}

/// A path as a URI: relative ones stay so, since they are looked up in the repository.
fn uri(path: &str) -> String {
    let mut out = String::from(if path.starts_with('/') { "file://" } else { "" });
    for byte in path.strip_prefix("./").unwrap_or(path).bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'.' | b'_' | b'~' | b'@' => out.push(byte.into()),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_uris() {
        assert_eq!(uri("./units/a b@.service"), "units/a%20b@.service");
        assert_eq!(uri("/etc/systemd/system/a:b.socket"), "file:///etc/systemd/system/a%3Ab.socket");
    }
}
