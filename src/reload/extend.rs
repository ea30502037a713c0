//! More time from the service manager, while a service reloads, or stops and still drains.

use std::time::Duration;

use tokio::time::{Instant, interval};

use crate::reload::outbox::OutboxSender;
use crate::systemd::notify::Message;

/// How much more time is asked for, again and again…
const EXTEND_BY: Duration = Duration::from_secs(10);
/// …and how often.
const EXTEND_EVERY: Duration = Duration::from_secs(5);

/// Asks for time within `limit`, which is the sum of the service's own deadlines, and not beyond.
pub(crate) async fn within(outbox: OutboxSender, limit: Duration) {
    let until = Instant::now() + limit;
    let mut ticks = interval(EXTEND_EVERY);
    while Instant::now() < until {
        ticks.tick().await;
        let left = until.saturating_duration_since(Instant::now());
        outbox.send(&Message::new().extend_timeout(left.min(EXTEND_BY) + Duration::from_secs(1)));
    }
}
