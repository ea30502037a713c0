//! The service manager's count of restarts, forgotten when the service has been healthy for long.
//!
//! systemd makes the pause before a restart longer from one to the next (`RestartSteps=`), and
//! counts them for as long as the unit is active: without a word from the service, crashes that are
//! months apart end with the longest pause.

use std::time::Duration;

use crate::reload::outbox::OutboxSender;
use crate::systemd::notify::Message;

/// Tells the service manager, after that time, to begin its count anew. Whoever is no longer main
/// by then must have aborted this.
pub(crate) async fn forget_restarts(outbox: OutboxSender, healthy_after: Duration) {
    tokio::time::sleep(healthy_after).await;
    outbox.send(&Message::new().restart_reset());
}
