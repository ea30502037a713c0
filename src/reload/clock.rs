//! The lifecycle's clock.

use std::future::pending;
use std::time::Instant;

/// tokio's clock, so that a paused one moves the lifecycle too.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// For the journal's fields.
pub(crate) fn millis(since: Instant) -> u64 {
    u64::try_from(now().saturating_duration_since(since).as_millis()).unwrap_or(u64::MAX)
}

/// Never, if there is no deadline.
pub(crate) async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => pending().await,
    }
}
