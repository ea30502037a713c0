//! Jobs, workers and programs, with a drain and real processes, but without a service manager.
#![expect(clippy::unwrap_used, reason = "tests fail by panics")]

mod alone;
mod commands;
mod ends;
mod workers;

use std::future::Future;
use std::time::Duration;

use handover::Jobs;
use handover::drain::Drain;
use tokio::time::{Instant, sleep, timeout};

/// Long enough for the slowest machine; nothing that works waits for so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn jobs() -> (Drain, Jobs) {
    let drain = Drain::new();
    let jobs = Jobs::new(&drain);
    (drain, jobs)
}

/// Its result, in time.
#[track_caller]
pub(crate) fn soon<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let caller = std::panic::Location::caller();
    async move {
        match timeout(PATIENCE, future).await {
            Ok(result) => result,
            Err(_) => panic!("not within {PATIENCE:?}: {caller}"),
        }
    }
}

#[track_caller]
pub(crate) fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> impl Future<Output = T> {
    let deadline = Instant::now() + PATIENCE;
    async move {
        loop {
            if let Some(answer) = ask() {
                return answer;
            }
            assert!(Instant::now() < deadline, "still not: {what}");
            sleep(Duration::from_millis(2)).await;
        }
    }
}
