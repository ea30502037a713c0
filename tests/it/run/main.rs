//! `handover run` with real processes, and a service manager that reads what it is told.
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "tests fail by panics and say why")]

mod conventions;
mod crashes;
#[path = "../reload/manager.rs"]
#[expect(dead_code, reason = "what only the tests of reloads need")]
mod manager;
mod notified;
mod probes;
mod reloads;
mod renews;
mod watch;
mod workers;
mod world;

use std::time::Duration;

/// Long enough for the slowest machine.
const PATIENCE: Duration = Duration::from_secs(60);

mod processes {
    use std::time::{Duration, Instant};

    /// Looks again and again.
    #[track_caller]
    pub(crate) fn until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + crate::PATIENCE;
        loop {
            if let Some(found) = found() {
                return found;
            }
            assert!(Instant::now() < deadline, "waited in vain for {what}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
