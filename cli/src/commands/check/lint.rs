//! All rules over everything that was read.

use std::collections::BTreeSet;

use super::finding::{Finding, Fix, Severity};
use super::limits::Limits;
use super::pair::{Pair, World};
use super::rule::Rule;
use super::rules;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Report<'a> {
    pub(super) target: Option<u32>,
    pub(super) pairs: Vec<Checked<'a>>,
}

/// A service with its sockets, and what was found in them.
#[derive(Debug)]
pub(super) struct Checked<'a> {
    pub(super) pair: Pair<'a>,
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

impl Judged {
    /// What to do about it: as the finding knows, else as the rule says.
    pub(super) fn remedy(&self) -> String {
        self.finding.fix.as_ref().map_or_else(|| self.rule.remedy.to_owned(), Fix::text)
    }
}

impl Report<'_> {
    pub(super) fn findings(&self) -> impl Iterator<Item = &Judged> {
        self.pairs.iter().flat_map(|p| &p.findings)
    }

    pub(super) fn count(&self, severity: Severity) -> usize {
        self.findings().filter(|f| f.severity == severity).count()
    }
}

pub(super) fn lint<'a>(worlds: &'a [World], given: &'a Limits, level: Severity) -> Report<'a> {
    // A socket of two services is in two pairs; it is blamed once.
    let mut said = BTreeSet::new();
    let pairs = worlds.iter().flat_map(|world| world.pairs(given, |name| rules::find(name).is_some()));
    let pairs = pairs.map(|pair| {
        let mut findings = findings(&pair);
        findings.retain(|f| said.insert((f.rule.id, f.finding.place.clone(), f.finding.message.clone())));
        let before = findings.len();
        findings.retain(|f| f.severity >= level);
        Checked { pair, hidden: before - findings.len(), findings }
    });
    Report { pairs: pairs.collect(), target: given.target }
}

fn findings(pair: &Pair<'_>) -> Vec<Judged> {
    let ignored = pair.ignored();
    let mut findings = Vec::new();
    for rule in rules::all().filter(|rule| !ignored.iter().any(|name| rule.is_called(name))) {
        findings.extend(rule.apply(pair).into_iter().map(|finding| {
            let harmless = matches!(finding.fix, Some(Fix::Tidy(_)));
            let severity = if harmless { Severity::Info } else { rule.severity_for(pair.claim) };
            Judged { rule, severity, finding }
        }));
    }
    // The units of a pair in their order, within each the lines.
    let order: Vec<_> = pair.units().flat_map(|u| u.files.iter().map(|f| f.path.as_str())).collect();
    let rank = |f: &Judged| order.iter().position(|path| *path == f.finding.place.file);
    findings.sort_by_key(|f| (rank(f), f.finding.place.line, f.rule.id));
    findings
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::commands::check::cat;
    use crate::commands::check::report::{drop_in, json, sarif, text};

    /// From bytes to every form of the report, with the worst numbers of the command line.
    fn all_the_way(bytes: &[u8]) {
        let Ok(units) = cat::split(bytes) else { return };
        let asked = units.iter().map(|u| u.name.to_string()).collect();
        let worlds = [World::new(BTreeSet::new(), units)];
        let extreme = Limits {
            target: Some(1),
            assume: true,
            drain_timeout: Some(Duration::MAX),
            warm_up: Some(Duration::MAX),
            connections: Some(u64::MAX),
            memory: Some(u64::MAX),
            tasks: Some(u64::MAX),
            stored: Some(u64::MAX),
        };
        for given in [Limits::default(), extreme] {
            let report = lint(&worlds, &given, Severity::Info);
            assert!(report.findings().all(|f| f.finding.place.line >= 1));
            for shown in [text::report(&report, false), drop_in::report(&report, &asked).text] {
                assert!(!shown.contains(|c: char| c.is_control() && c != '\n'), "{shown:?}");
            }
            for shown in [json::report(&report), sarif::report(&report)] {
                assert!(serde_json::from_str::<serde_json::Value>(&shown).is_ok());
            }
        }
    }

    /// Settings of which the rules know something, and values right and wrong.
    fn assignments() -> impl Strategy<Value = String> {
        const KEYS: &str = "Type|PIDFile|KillMode|SendSIGHUP|KillSignal|WatchdogSignal|NotifyAccess|ExecReload|ExecStart|\
            ExecStopPost|Restart|TimeoutSec|TimeoutStartSec|TimeoutStopSec|WatchdogSec|RuntimeMaxSec|\
            JobTimeoutSec|MemoryMax|TasksMax|LimitNPROC|LimitNOFILE|Delegate|FileDescriptorStoreMax|\
            FileDescriptorStorePreserve|StartLimitBurst|StartLimitInterval|Sockets|Requires|PropagatesReloadTo|\
            ReloadPropagatedFrom|Accept|FileDescriptorName|ListenStream|TriggerLimitBurst|\
            TriggerLimitIntervalSec|Service|RestrictAddressFamilies|SystemCallFilter|NoExecPaths|ExecPaths|\
            BindPaths|TemporaryFileSystem|RuntimeDirectory|NonBlocking|Ignore|DrainTimeout|WarmUp|Stored|Memory|\
            UnsetEnvironment";
        const VALUES: &str = "|notify|notify-reload|mixed|yes|no|SIGHUP|1|0|18446744073709551615|1.5h 3|99999999999999999999|\
            infinity|10%|-1|%i|%|web.service|web@%i.service|web.socket|/usr/bin/web|\
            +/bin/sh -c 'kill -HUP $MAINPID|@/bin/kill kill -s ; ; kill|/|~|~@process execve|@system-service|\
            AF_UNIX|~AF_UNIX|-/run:/x:ro|/run|/a.b|:::|\"|'\\x|é\u{1b}[31m|a:b|HO101 no-such|NOTIFY_SOCKET";
        let one_of = |all: &'static str| prop::sample::select(all.split('|').collect::<Vec<_>>());
        (one_of(KEYS), one_of(VALUES)).prop_map(|(key, value)| format!("{key}={value}\n"))
    }

    fn units() -> impl Strategy<Value = String> {
        let path = "# /a/web(@?\\.service|(@1)?\\.socket|\\.service\\.d/x\\.conf)\n";
        let section = "\\[(Unit|Service|Socket|X-Handover|Install)\\]\n";
        let line = prop_oneof![1 => path, 1 => section, 6 => assignments()];
        prop::collection::vec(line, 0..30).prop_map(|lines| format!("# /a/web.service\n[Service]\n{}", lines.concat()))
    }

    proptest! {
        #![proptest_config(crate::commands::check::fixed_seed(13))]
        #[test]
        fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            all_the_way(&bytes);
            all_the_way(&[b"[Service]\n", bytes.as_slice()].concat());
        }

        #[test]
        fn any_settings(text in units()) {
            all_the_way(text.as_bytes());
        }
    }
}
