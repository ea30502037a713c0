//! `handover::systemd` from outside: what the service manager would receive, and what a process
//! that was started with sockets does with them.
#![expect(unsafe_code, reason = "fds are put in their places between fork and exec, as systemd does")]
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    reason = "tests fail by panics and report by printing"
)]

mod bind;
mod child;
mod notify;
mod passed;

use std::time::Duration;

/// Long enough for the slowest machine; nothing waits for so long that works.
const PATIENCE: Duration = Duration::from_secs(20);

fn not_run(why: &str) {
    eprintln!("not run: {why}");
}
