//! Hooks, signals, settings, pidfiles, reaping, the admin endpoint and the control interface, by
//! real processes: the service, the service manager and the client of `tests/it/reload`, with what
//! [`extra`] adds to the service.
#![expect(
    clippy::unwrap_used,
    clippy::zombie_processes,
    reason = "tests fail by panics; the harness waits for all children"
)]

mod admin;
mod control;
mod extra;
mod habits;
mod hooks;
mod in_place;
mod mistakes;
mod pid_one;
mod pidfile;
mod reap;
mod settings;
mod signals;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use handover_testing::processes;
use handover_testing::service::{self, Extension};
use libtest_mimic::{Arguments, Trial};

use crate::extra::{extend, extend_started};

/// Long enough for the slowest machine; only a zombie takes 10 s of it.
const PATIENCE: Duration = Duration::from_secs(40);

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

fn main() -> ExitCode {
    if let Some(directory) = std::env::var_os(service::DIRECTORY) {
        return service::main(Path::new(&directory), Extension { builder: extend, started: extend_started });
    }
    handover_testing::set_patience(PATIENCE);
    let without = !pid_one::is_possible();
    processes::adopt_orphans();
    let mut args = Arguments::from_args();
    args.test_threads.get_or_insert(PARALLEL_CASES);
    let all: [&[Case]; 10] = [
        hooks::CASES,
        in_place::CASES,
        signals::CASES,
        settings::CASES,
        mistakes::CASES,
        pidfile::CASES,
        reap::CASES,
        admin::CASES,
        control::CASES,
        habits::CASES,
    ];
    let trial = |(name, case): &(&'static str, fn())| {
        let case = *case;
        Trial::test(name.trim_start_matches("service::"), move || {
            case();
            Ok(())
        })
    };
    let trials = all.into_iter().flatten().map(trial);
    let trials = trials.chain(pid_one::CASES.iter().map(|case| trial(case).with_ignored_flag(without)));
    libtest_mimic::run(&args, trials.collect()).exit_code()
}
