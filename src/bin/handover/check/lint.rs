//! All rules over everything that was read.

use std::collections::BTreeSet;

use super::finding::{Finding, Severity};
use super::pair::{Claim, Given, Pair, World};
use super::rules::{self, Rule};

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) target: Option<u32>,
    pub(super) pairs: Vec<Checked>,
}

/// One service with its sockets.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) name: String,
    pub(super) units: Vec<String>,
    pub(super) claim: Claim,
    pub(super) signs: Vec<String>,
    /// In the order of files and lines.
    pub(super) findings: Vec<Judged>,
    /// Findings below the level that was asked for.
    pub(super) hidden: usize,
}

/// A finding with its weight.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) rule: &'static Rule,
    pub(super) severity: Severity,
    pub(super) finding: Finding,
}

impl Report {
    pub(super) fn findings(&self) -> impl Iterator<Item = &Judged> {
        self.pairs.iter().flat_map(|p| &p.findings)
    }

    pub(super) fn count(&self, severity: Severity) -> usize {
        self.findings().filter(|f| f.severity == severity).count()
    }
}

pub(super) fn lint(world: &World, given: &Given, level: Severity) -> Report {
    // A socket of two services is in two pairs; it is blamed once.
    let mut said = BTreeSet::new();
    let mut pairs: Vec<_> = world.pairs(given).iter().map(checked).collect();
    for pair in &mut pairs {
        pair.findings.retain(|f| said.insert((f.rule.id, f.finding.place.clone(), f.finding.message.clone())));
        let before = pair.findings.len();
        pair.findings.retain(|f| f.severity >= level);
        pair.hidden = before - pair.findings.len();
    }
    Report { target: given.target, pairs }
}

fn checked(pair: &Pair<'_>) -> Checked {
    let applies = |rule: &&Rule| !pair.ignored.iter().any(|name| rule.is_called(name));
    let mut findings: Vec<_> = rules::all()
        .filter(applies)
        .flat_map(|rule| {
            let severity = rule.severity_for(pair.claim);
            rule.apply(pair).into_iter().map(move |finding| Judged { rule, severity, finding })
        })
        .collect();
    // The units of a pair in their order, within each the lines.
    let order: Vec<_> = pair.units().flat_map(|u| u.files.iter().map(|f| f.path.clone())).collect();
    let rank = |f: &Judged| order.iter().position(|path| *path == f.finding.place.file);
    findings.sort_by_key(|f| (rank(f), f.finding.place.line, f.rule.id));
    Checked {
        name: pair.name(),
        units: pair.units().map(|u| u.name.to_string()).collect(),
        claim: pair.claim,
        signs: pair.signs.clone(),
        findings,
        hidden: 0,
    }
}
