//! Upgrades: fetched from real servers on loopback, killed at each step, and taken or refused by
//! real services.
//!
//! Started with [`crash::DIRECTORY`] in its environment it is an upgrade that kills itself at one
//! step, with [`own::OWN`] a service; otherwise it runs the tests.
#![expect(clippy::unwrap_used, reason = "tests fail by panics")]

mod attack;
mod crash;
mod fetch;
mod github;
mod own;
mod parts;
mod s3;
mod serve;
mod service;
mod verify;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use libtest_mimic::{Arguments, Trial};

/// Long enough for the slowest machine; nothing that works waits for so long.
const PATIENCE: Duration = Duration::from_secs(40);

/// Most cases wait for processes, so more of them than there are processors.
const PARALLEL_CASES: usize = 4;

type Case = (&'static str, fn());

/// Names each function once.
macro_rules! cases {
    ($($function:ident),* $(,)?) => {
        &[$((concat!(module_path!(), "::", stringify!($function)), $function as fn())),*]
    };
}
pub(crate) use cases;

fn main() -> ExitCode {
    if let Some(directory) = std::env::var_os(crash::DIRECTORY) {
        return crash::main(Path::new(&directory));
    }
    if std::env::var_os(own::OWN).is_some() {
        return own::main();
    }
    // Not `adopt_orphans`: that reaps every child, and these tests wait for theirs.
    handover_testing::set_patience(PATIENCE);
    let mut args = Arguments::from_args();
    args.test_threads.get_or_insert(PARALLEL_CASES);
    let all: [&[Case]; 8] = [
        attack::CASES,
        fetch::CASES,
        github::CASES,
        s3::CASES,
        verify::CASES,
        crash::CASES,
        service::CASES,
        own::CASES,
    ];
    let trials = all.into_iter().flatten().map(|(name, case)| {
        let case = *case;
        Trial::test(name.trim_start_matches("upgrade::"), move || {
            case();
            Ok(())
        })
    });
    libtest_mimic::run(&args, trials.collect()).exit_code()
}
