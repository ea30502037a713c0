//! `handover run` with real processes, and a service manager that reads what it is told.
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "tests fail by panics and say why")]

mod conventions;
mod crashes;
mod metrics;
mod mistakes;
mod notified;
mod pid_one;
mod probes;
mod reloads;
mod renews;
mod strangers;
mod table;
mod watch;
mod workers;
mod world;

use std::time::Duration;

/// Long enough for the slowest machine.
const PATIENCE: Duration = Duration::from_secs(60);
