//! What several tests of this repository share: a service whose reloads they watch, and the service
//! manager, the clients and the processes around it.
#![expect(missing_docs, reason = "for the tests of this repository alone")]
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::exit,
    reason = "tests fail by panics and report by printing; a service under test may exit as it likes"
)]

pub mod certs;
pub mod client;
pub mod manager;
pub mod processes;
pub mod schema;
pub mod service;
pub mod waiting;
pub mod world;

pub use handover::supervise::mailbox;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

static PATIENCE_SECS: AtomicU64 = AtomicU64::new(20);

/// Long enough for the slowest machine; nothing that works waits for so long.
pub fn patience() -> Duration {
    Duration::from_secs(PATIENCE_SECS.load(Ordering::Relaxed))
}

/// For tests whose programs take longer than the 20 s that are enough for most.
pub fn set_patience(patience: Duration) {
    PATIENCE_SECS.store(patience.as_secs(), Ordering::Relaxed);
}
