//! How many programs of jobs run, and how long their end may take.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use super::output::OUTPUT_GRACE;
use crate::drain::FAR;

/// How long the end of a killed program is waited for: one that hangs in the kernel cannot be
/// helped.
pub const KILL_TIMEOUT: Duration = Duration::from_secs(2);

/// The programs that run.
#[derive(Debug, Default)]
pub(super) struct Children(watch::Sender<RunningPrograms>);

#[derive(Debug, Default, Clone, Copy)]
struct RunningPrograms {
    number: usize,
    /// The longest grace among them, or among those before: it is a bound, not a wait.
    grace: Duration,
}

impl Children {
    pub(super) fn enter(&self, grace: Duration) {
        self.0.send_modify(|running| {
            running.number += 1;
            running.grace = running.grace.max(grace).min(FAR);
        });
    }

    pub(super) fn leave(&self) {
        self.0.send_modify(|running| running.number -= 1);
    }

    pub(super) fn end_within(&self) -> Duration {
        let RunningPrograms { number, grace } = *self.0.borrow();
        if number == 0 { Duration::ZERO } else { grace + KILL_TIMEOUT + OUTPUT_GRACE }
    }

    pub(super) async fn ended(&self) -> bool {
        let mut running = self.0.subscribe();
        timeout(self.end_within(), running.wait_for(|running| running.number == 0)).await.is_ok()
    }
}
