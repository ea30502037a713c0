//! `--list` and `--explain`.

use std::fmt::Write;

use crate::commands::check::rule::{Rule, Scope};
use crate::commands::check::rules;

pub(in crate::commands::check) fn list() -> String {
    let mut out = String::new();
    for rule in rules::all() {
        let severity = rule.severity.to_string().to_uppercase();
        let _ = writeln!(out, "{} {severity:.1} {:<22} {}", rule.id, rule.name, rule.title);
    }
    out + "\nE error, W warning, I information. handover check --explain ID tells more."
}

pub(in crate::commands::check) fn explain(rule: &Rule) -> String {
    let scope = match rule.scope {
        Scope::Any => "every unit",
        Scope::Rolling => "services that are reloaded by handover (handover check --help says how that is known)",
    };
    format!(
        "{} {} ({})\n\n  {}\n\nWhy:   {}\nFix:   {}\nFor:   {scope}\nRead:  {}\nQuiet: Ignore={} under [X-Handover], with a comment that says why",
        rule.id, rule.name, rule.severity, rule.title, rule.why, rule.remedy, rule.link, rule.id,
    )
}
