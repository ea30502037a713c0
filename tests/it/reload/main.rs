//! Reloads by real processes, with nothing but this test binary: by `handover_testing` it is the
//! service, the service manager, and the client. What only a real systemd can show is in
//! `tests/systemd`.
//!
//! Started with [`service::DIRECTORY`] in its environment it is one generation of a service, whose
//! behaviour that directory says; otherwise it runs the tests, as the parent of all generations.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "tests fail by panics, and print figures")]

mod crashes;
mod drains;
mod environment;
mod failures;
mod faults;
mod http2;
mod keeps;
mod killed;
mod moved;
mod moves;
mod placement;
mod program;
mod reloads;
mod requests;
mod secured;
mod sessions;
mod stops;
mod talks;
mod watchdog;

use std::path::Path;
use std::process::ExitCode;

use handover_testing::processes;
use handover_testing::service::{self, Extension};
use libtest_mimic::{Arguments, Trial};

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

/// What these tests add to the service.
const EXTENSION: Extension = Extension {
    builder: |builder, directory, extra| {
        let builder = (moved::EXTENSION.builder)(builder, directory, extra);
        let builder = (secured::EXTENSION.builder)(builder, directory, extra);
        (sessions::EXTENSION.builder)(builder, directory, extra)
    },
    started: |service, extra| {
        (moved::EXTENSION.started)(service, extra)?;
        (secured::EXTENSION.started)(service, extra)?;
        (sessions::EXTENSION.started)(service, extra)
    },
};

fn main() -> ExitCode {
    if let Some(directory) = std::env::var_os(service::DIRECTORY) {
        return service::main(Path::new(&directory), EXTENSION);
    }
    if let Some(result) = std::env::var_os(placement::RESULT) {
        return placement::main(Path::new(&result));
    }
    processes::adopt_orphans();
    let mut args = Arguments::from_args();
    args.test_threads.get_or_insert(PARALLEL_CASES);
    let all: &[&[Case]] = &[
        program::CASES,
        placement::CASES,
        reloads::CASES,
        requests::CASES,
        failures::CASES,
        faults::CASES,
        drains::CASES,
        stops::CASES,
        keeps::CASES,
        killed::CASES,
        crashes::CASES,
        moves::CASES,
        http2::CASES,
        sessions::CASES,
        talks::CASES,
        secured::CASES,
        watchdog::CASES,
    ];
    let cases = all.iter().copied().flatten().chain(environment::CASES);
    let trials = cases.map(|(name, case)| {
        let name = name.trim_start_matches("reload::");
        Trial::test(name, move || {
            case();
            Ok(())
        })
    });
    libtest_mimic::run(&args, trials.collect()).exit_code()
}
