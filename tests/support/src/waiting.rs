//! Waiting in asynchronous tests: for an event, with a deadline.

use std::future::Future;
use std::time::Duration;

/// A test that waits longer than this for anything has failed.
pub const DEADLINE: Duration = Duration::from_secs(20);

pub async fn within<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(output) => output,
        Err(_) => panic!("waited too long: {what}"),
    }
}

/// Waits, without a fixed sleep, for something that has no event of its own.
pub async fn until(what: &str, mut done: impl FnMut() -> bool) {
    within(what, async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}
