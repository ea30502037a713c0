//! `handover check`: reads units as systemd does, and says what would break a rolling reload.

mod cat;
mod command;
mod directives;
mod facts;
mod finding;
mod limits;
mod lint;
mod load;
mod name;
mod pair;
mod parse;
mod program;
mod report;
mod restarts;
mod rule;
mod rules;
mod running;
mod unit;
mod value;

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::failure::{Failure, Outcome};
use crate::{out, safe};
use finding::Severity;
use limits::Limits;
use load::Sources;
use pair::World;
use report::{drop_in, json, manual, sarif, text};

/// Says what in unit files would break a rolling reload, why, and what to write instead.
///
/// Units are files, directories, names that systemd knows, or `-` for the output of `systemctl cat`
/// on stdin. Drop-ins beside a unit and the sockets beside a service are read too. Nothing is
/// changed, and nothing is started.
#[derive(Debug, Args)]
#[command(after_help = include_str!("after_help.txt").trim_end())]
pub(crate) struct Options {
    /// A file, a directory, the name of a unit, or `-` for stdin
    #[arg(value_name = "UNIT", required_unless_present_any = ["list", "explain"])]
    units: Vec<String>,
    #[command(flatten)]
    limits: Limits,
    /// Look for UNIT.d/*.conf in this directory too
    #[arg(long, value_name = "DIR")]
    drop_ins: Vec<PathBuf>,
    /// Ask the user's own systemd for units that are no files
    #[arg(long)]
    user: bool,
    /// What is shown at least
    #[arg(long, value_name = "LEVEL", default_value = "warning")]
    level: Severity,
    /// How findings are printed
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
    /// Print a drop-in for each unit that is named, with what a machine can decide; the rest is in
    /// its comments
    #[arg(long, conflicts_with = "format")]
    fix: bool,
    /// Exit with 1 on warnings too
    #[arg(long)]
    strict: bool,
    /// Print all rules
    #[arg(long, conflicts_with_all = ["units", "explain", "fix"])]
    list: bool,
    /// Print what a rule is about, by id or name
    #[arg(long, value_name = "RULE", conflicts_with_all = ["units", "fix", "format"])]
    explain: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Text,
    /// One object
    Json,
    /// SARIF 2.1.0, for code scanning
    Sarif,
}

pub(crate) async fn run(options: Options) -> Result<Outcome, Failure> {
    if let Some(name) = &options.explain {
        let rule = rules::find(name).ok_or_else(|| {
            Failure::usage(format!("there is no rule {}: handover check --list shows all", safe::terminal(name)))
        })?;
        out::line(manual::explain(rule));
        return Ok(Outcome::Success);
    }
    if options.list {
        out::line(match options.format {
            Format::Text => manual::list(),
            Format::Json => json::rules(),
            Format::Sarif => sarif::report(&lint::Report::default()),
        });
        return Ok(Outcome::Success);
    }
    let sources = Sources { drop_ins: options.drop_ins, user: options.user };
    let loaded = sources.load(&options.units).await;
    let mut limits = options.limits;
    if limits.target.is_none() && loaded.from_manager {
        limits.target = sources.version().await;
    }
    let report = lint::lint(&loaded.worlds, &limits, options.level);
    // Of nothing there is nothing to say to people; programs get what they can parse.
    let nothing = loaded.worlds.is_empty();
    let mut gravest = report.findings().map(|f| f.severity).max();
    match (options.fix, options.format) {
        (true, _) | (false, Format::Text) if nothing => {}
        (true, _) => {
            let fixes = drop_in::report(&report, &loaded.asked);
            out::line(fixes.text);
            gravest = fixes.left;
        }
        (false, Format::Text) => out::line(text::report(&report, out::colours())),
        (false, Format::Json) => out::line(json::report(&report)),
        (false, Format::Sarif) => out::line(sarif::report(&report)),
    }
    if !loaded.problems.is_empty() {
        // Names of files and what is in them are somebody's text.
        let problems: Vec<_> = loaded.problems.iter().map(|problem| safe::terminal(problem)).collect();
        return Err(Failure::cannot_run(problems.join("\n")));
    }
    let failing = if options.strict { Severity::Warning } else { Severity::Error };
    Ok(if gravest >= Some(failing) { Outcome::Bad } else { Outcome::Success })
}

/// What is found in `handover check -`, with all reports of it, as far as they differ.
pub(crate) fn fuzz(printed: &[u8]) {
    let Ok(mut units) = cat::split(printed) else { return };
    let mut asked = BTreeSet::new();
    units.retain(|unit| asked.insert(unit.name.to_string()));
    let (worlds, limits) = ([World::new(BTreeSet::new(), units)], Limits::default());
    let report = lint::lint(&worlds, &limits, Severity::Info);
    let _ = (text::report(&report, false), json::report(&report), sarif::findings(&report));
    let _ = drop_in::report(&report, &asked);
}

/// Of property tests: what failed once fails again.
#[cfg(test)]
fn fixed_seed(seed: u64) -> proptest::test_runner::Config {
    use proptest::test_runner::{Config, RngSeed};
    Config { cases: 128, failure_persistence: None, rng_seed: RngSeed::Fixed(seed), ..Config::default() }
}
