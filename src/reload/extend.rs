//! More time from the service manager, while a service reloads, or stops and still drains.

use std::time::Duration;

use tokio::time::{Instant, interval};

use crate::reload::outbox::OutboxSender;
use crate::systemd::notify::{Message, after};

/// How much more time is asked for, again and again…
const EXTEND_BY: Duration = Duration::from_secs(10);
/// …and how often while it stops…
const EXTEND_EVERY: Duration = Duration::from_secs(5);
/// …and while it reloads. When the process of `ExecReload=` ends, systemd counts anew from
/// `TimeoutStartSec=`, whatever was asked for before (seen in 252): so this is below any such time.
const EXTEND_RELOAD_EVERY: Duration = Duration::from_millis(500);

/// Asks for time within `limit`, which is the service's own drain timeout, and not beyond.
pub(crate) async fn while_stopping(outbox: OutboxSender, limit: Duration) {
    within(limit, EXTEND_EVERY, outbox).await;
}

/// Asks for time within `limit`, which is the sum of the deadlines of a reload, and not beyond.
pub(crate) async fn while_reloading(outbox: OutboxSender, limit: Duration) {
    within(limit, EXTEND_RELOAD_EVERY, outbox).await;
}

async fn within(limit: Duration, every: Duration, outbox: OutboxSender) {
    let until = Instant::from_std(after(limit));
    let mut ticks = interval(every);
    while Instant::now() < until {
        ticks.tick().await;
        let left = until.saturating_duration_since(Instant::now());
        outbox.send(&Message::new().extend_timeout(left.min(EXTEND_BY) + Duration::from_secs(1)));
    }
}
