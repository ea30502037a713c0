//! Reloads by real processes, with nothing but this test binary: it is the service, the service manager, and the
//! client. What only a real systemd can show is in `tests/systemd`.
//!
//! Started with [`service::DIRECTORY`] in its environment it is one generation of a service, whose behaviour that
//! directory says; otherwise it runs the tests, as the parent of all generations.
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::exit,
    reason = "tests fail by panics and report by printing; a service under test may exit as it likes"
)]

mod client;
mod drains;
mod environment;
mod failures;
mod keeps;
mod killed;
mod manager;
mod placement;
mod processes;
mod program;
mod reloads;
mod requests;
mod service;
mod stops;
mod watchdog;
mod world;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use libtest_mimic::{Arguments, Trial};

/// Long enough for the slowest machine; nothing that works waits for so long.
const PATIENCE: Duration = Duration::from_secs(20);

/// Most cases wait for processes, so more of them than there are processors.
const PARALLEL_CASES: usize = 6;

type Case = (&'static str, fn());

/// Names each function once.
macro_rules! cases {
    ($($function:ident),* $(,)?) => {
        &[$((concat!(module_path!(), "::", stringify!($function)), $function as fn())),*]
    };
}
pub(crate) use cases;

/// The service under test is used by other tests, too, which add to it.
fn extend(builder: handover::Builder, _: &Path, _: &serde_json::Value) -> handover::Builder {
    builder
}

fn extend_started(_: &handover::Service, _: &serde_json::Value) -> handover::Result<()> {
    Ok(())
}

fn main() -> ExitCode {
    if let Some(directory) = std::env::var_os(service::DIRECTORY) {
        return service::main(Path::new(&directory));
    }
    if let Some(result) = std::env::var_os(placement::RESULT) {
        return placement::main(Path::new(&result));
    }
    processes::adopt_orphans();
    let mut args = Arguments::from_args();
    args.test_threads.get_or_insert(PARALLEL_CASES);
    let all: [&[Case]; 10] = [
        program::CASES,
        placement::CASES,
        reloads::CASES,
        requests::CASES,
        failures::CASES,
        drains::CASES,
        stops::CASES,
        keeps::CASES,
        killed::CASES,
        watchdog::CASES,
    ];
    let cases = all.into_iter().flatten().chain(environment::CASES);
    let trials = cases.map(|(name, case)| {
        let name = name.trim_start_matches("reload::");
        Trial::test(name, move || {
            case();
            Ok(())
        })
    });
    libtest_mimic::run(&args, trials.collect()).exit_code()
}
