//! Watchdog pings, only while there is somebody alive to vouch for.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{error, info};

use crate::metrics::Metrics;
use crate::service::driver::Input;
use crate::service::events;
use crate::systemd::notify::{Message, Notifier};
use crate::systemd::watchdog::Watchdog;

type Checked = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// The application's own idea of being alive.
#[derive(Clone)]
pub(crate) struct Check(pub(crate) Arc<dyn Fn() -> Checked + Send + Sync>);

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Check")
    }
}

/// Pings until it is aborted: at once, then at the watchdog's ping interval. Each ping is earned: the runtime runs new
/// tasks, the driver answers, and the application's check passes, all within one interval.
pub(crate) async fn ping(
    generation: u64,
    watchdog: Watchdog,
    notifier: Notifier,
    check: Option<Check>,
    metrics: Metrics,
    inputs: mpsc::UnboundedSender<Input>,
) {
    let every = watchdog.ping_interval();
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut healthy = true;
    loop {
        ticks.tick().await;
        let verdict = match timeout(every, vouch(check.as_ref(), &inputs)).await {
            Ok(verdict) => verdict,
            Err(_) => Err(format!("no answer within {every:?}")),
        };
        metrics.ping(verdict.is_ok());
        match verdict {
            Ok(()) => {
                if !std::mem::replace(&mut healthy, true) {
                    info!(message_id = events::HEALTHY, generation, "healthy again");
                    let _ = notifier
                        .send_async(&Message::new().status(format!("generation {generation} serves; healthy again")))
                        .await;
                }
                if let Err(error) = notifier.send_async(&Message::new().watchdog()).await {
                    error!(%error, "the watchdog ping could not be sent");
                }
            }
            Err(reason) if std::mem::take(&mut healthy) => {
                error!(
                    message_id = events::UNHEALTHY,
                    generation,
                    %reason, "unhealthy: no watchdog pings until that is over, or the service manager ends us"
                );
                let _ = notifier.send_async(&Message::new().status(format!("unhealthy: {reason}"))).await;
            }
            Err(_) => {}
        }
    }
}

async fn vouch(check: Option<&Check>, inputs: &mpsc::UnboundedSender<Input>) -> Result<(), String> {
    let (answer, answered) = oneshot::channel();
    let asked = inputs.send(Input::Alive(answer)).is_ok();
    if !asked || answered.await.is_err() {
        return Err("the service's driver is gone".into());
    }
    tokio::spawn(async {}).await.map_err(|e| format!("the runtime starts no tasks: {e}"))?;
    match check {
        Some(Check(check)) => {
            let verdict = tokio::spawn(check());
            verdict.await.unwrap_or_else(|e| Err(format!("the application's check panicked: {e}")))
        }
        None => Ok(()),
    }
}
