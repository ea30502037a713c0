//! Scenarios under a real systemd, each in a fresh container, once per systemd version: see
//! `tests/README.md`.
//!
//! A scenario × version is one ordinary case: `cargo test --workspace --all-features --test systemd
//! -- 257::reload`.
#![expect(clippy::print_stdout, reason = "the harness says what it could not run")]

mod flow_service;
mod lab;
mod load;
mod mailbox_service;
mod reloads;
mod scenarios;
mod sink_service;
mod store_service;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use crate::lab::{Machine, Outcome, Scenario, Target};

/// Where the library is, its units and this.
pub(crate) const TOP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
/// So many cases, of those that took longest, are named.
const SLOWEST: usize = 10;

type Ignored = Arc<Mutex<BTreeMap<String, usize>>>;
type Times = Arc<Mutex<Vec<(Duration, String)>>>;

fn main() -> ExitCode {
    if let Ok(port) = std::env::var(store_service::PORT) {
        return store_service::main(&port);
    }
    if std::env::var_os(flow_service::SERVICE).is_some() {
        return flow_service::main();
    }
    if std::env::var_os(mailbox_service::SERVICE).is_some() {
        return mailbox_service::main();
    }
    if let Ok(directory) = std::env::var(sink_service::DIRECTORY) {
        return sink_service::main(&directory);
    }
    let mut args = Arguments::from_args();
    let targets = lab::targets();
    // User units share one manager, so there their names would collide.
    let parallel = if targets.iter().any(Target::is_shared) { 1 } else { containers_at_a_time() };
    args.test_threads.get_or_insert(parallel);

    let (ignored, times, machine) = (Ignored::default(), Times::default(), Machine::watch());
    let scenarios = scenarios::all();
    let trials = targets
        .iter()
        .flat_map(|target| scenarios.iter().filter(|s| target.suits(s)).map(move |s| (target, *s)))
        .map(|(target, scenario)| trial(target, scenario, &ignored, &times, &machine))
        .collect();
    if !args.list {
        for note in targets.iter().filter_map(|t| t.note.as_deref()) {
            println!("note: {note}");
        }
    }

    let conclusion = libtest_mimic::run(&args, trials);
    for (reason, count) in &*ignored.lock().unwrap_or_else(PoisonError::into_inner) {
        println!("{count} scenarios could not run: {reason}");
    }
    if !args.list {
        say_slowest(&mut times.lock().unwrap_or_else(PoisonError::into_inner));
    }
    conclusion.exit_code()
}

/// One more than there are processors: a scenario waits for most of its time.
fn containers_at_a_time() -> usize {
    thread::available_parallelism().map_or(1, usize::from) + 1
}

/// Where a run spends its time.
fn say_slowest(times: &mut [(Duration, String)]) {
    times.sort_unstable_by(|a, b| b.cmp(a));
    let all: Duration = times.iter().map(|(took, _)| *took).sum();
    println!("{} scenarios took {:.0} s together; the slowest:", times.len(), all.as_secs_f64());
    for (took, name) in times.iter().take(SLOWEST) {
        println!("{:7.1} s  {name}", took.as_secs_f64());
    }
}

fn trial(target: &Target, scenario: Scenario, ignored: &Ignored, times: &Times, machine: &Machine) -> Trial {
    let name = format!("{}::{}", target.label, scenario.name);
    let (target, ignored, machine) = (target.for_scenario(&scenario), Arc::clone(ignored), machine.clone());
    let (times, timed) = (Arc::clone(times), name.clone());
    let missing = scenario.apps && lab::apps().is_none();
    let backend = match &target.backend {
        Ok(_) if missing => Err("the root of programs is not made yet: run tests/lab/rootfs apps".to_owned()),
        Ok(_) if scenario.host_tool.is_some_and(|tool| !lab::has_tool(tool)) => {
            let tool = scenario.host_tool.unwrap_or_default();
            Err(format!("{tool} is missing: apt-get install -y {tool}"))
        }
        backend => backend.clone().map(drop),
    };
    // Of a kernel's parts a test can install none, so that this is no failure anywhere.
    let has_no_loops = scenario.loops && !lab::has_loops();
    Trial::ignorable_test(name, move || match &backend {
        Ok(()) if has_no_loops => Ok(ignored_for("this machine has no loop devices".to_owned(), &ignored)),
        Ok(()) => {
            let began = Instant::now();
            let outcome = run(&target, scenario, &machine);
            times.lock().unwrap_or_else(PoisonError::into_inner).push((began.elapsed(), timed));
            outcome.map(|()| Completion::Completed)
        }
        // On a machine that is there to test, a scenario that cannot run has not passed.
        Err(reason) if ci() => Err(Failed::from(format!("could not run, and CI is set: {reason}"))),
        Err(reason) => Ok(ignored_for(reason.clone(), &ignored)),
    })
}

fn ignored_for(reason: String, ignored: &Ignored) -> Completion {
    *ignored.lock().unwrap_or_else(PoisonError::into_inner).entry(reason.clone()).or_default() += 1;
    Completion::ignored_with(reason)
}

/// A failure counts, but for one on a machine that stood still meanwhile: then it is run once more,
/// and said so.
fn run(target: &Target, scenario: Scenario, machine: &Machine) -> Outcome {
    let attempt = || {
        let began = Instant::now();
        let outcome = lab::run(target, scenario);
        let still = machine.stood_still(began);
        (outcome.map_err(|e| format!("{}{}", e.message().unwrap_or_default(), Machine::report(still)).into()), still)
    };
    let (outcome, still) = attempt();
    if outcome.is_ok() || still == Duration::ZERO {
        return outcome;
    }
    println!("note: {}::{} is run again: this machine stood still for {still:?} in it", target.label, scenario.name);
    attempt().0
}

fn ci() -> bool {
    std::env::var("CI").is_ok_and(|v| v == "true" || v == "1")
}
