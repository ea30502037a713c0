//! Watchdog pings, only while there is somebody alive to vouch for.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::error;

use crate::metrics::Metrics;
use crate::reload::handle::{RequestSender, ServiceRequest};
use crate::reload::moment::{Facts, Moment};
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

/// The watchdog, and whether this process pings it.
#[derive(Debug)]
pub(crate) struct Pinger {
    pings: Option<Pings>,
    running: Option<JoinHandle<()>>,
}

/// What it takes to ping.
#[derive(Debug, Clone)]
pub(crate) struct Pings {
    /// Whose pings they are; 0: a supervisor's.
    pub(crate) generation: u64,
    pub(crate) watchdog: Watchdog,
    pub(crate) notifier: Notifier,
    pub(crate) check: Option<Check>,
    pub(crate) metrics: Metrics,
    /// The driver, which must be alive.
    pub(crate) driver: RequestSender,
}

impl Pinger {
    /// `None`: there is no watchdog.
    pub(crate) fn new(pings: Option<Pings>) -> Self {
        Self { pings, running: None }
    }

    /// Pings from now on, if there is a watchdog. This process is main.
    pub(crate) fn start(&mut self) {
        if let (Some(pings), None) = (&self.pings, &self.running) {
            self.running = Some(tokio::spawn(pings.clone().ping()));
        }
    }

    /// Ends the pings. True: there were some, so that a last one is due.
    pub(crate) fn stop(&mut self) -> bool {
        let running = self.running.take();
        running.inspect(JoinHandle::abort).is_some()
    }
}

impl Drop for Pinger {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Pings {
    /// Pings until it is aborted: at once, then at the watchdog's ping interval. Each ping is
    /// earned: the runtime runs new tasks, the driver answers, and the application's check passes,
    /// all within one interval.
    async fn ping(self) {
        let every = self.watchdog.ping_interval();
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut healthy = true;
        loop {
            ticks.tick().await;
            let verdict = match timeout(every, vouch(self.check.as_ref(), &self.driver)).await {
                Ok(verdict) => verdict,
                Err(_) => Err(format!("no answer within {every:?}")),
            };
            self.metrics.ping(verdict.is_ok());
            match verdict {
                Ok(()) => {
                    if !std::mem::replace(&mut healthy, true) {
                        self.tell(Moment::Healthy, "", "").await;
                    }
                    if let Err(error) = self.notifier.send_async(&Message::new().watchdog()).await {
                        error!(%error, "the watchdog ping could not be sent");
                    }
                }
                Err(reason) if std::mem::take(&mut healthy) => {
                    let until = "unhealthy: no watchdog pings until that is over, or the service manager ends us";
                    self.tell(Moment::Unhealthy, &reason, until).await;
                }
                Err(_) => {}
            }
        }
    }

    async fn tell(&self, moment: Moment, reason: &str, detail: &str) {
        let facts = Facts { generation: self.generation, reason: Some(reason), detail, ..Facts::default() };
        moment.log(&facts);
        let _ = self.notifier.send_async(&Message::new().status(moment.status(&facts))).await;
    }
}

async fn vouch(check: Option<&Check>, driver: &RequestSender) -> Result<(), String> {
    let (answer, answered) = oneshot::channel();
    let asked = driver.send(ServiceRequest::Alive(answer)).is_ok();
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
