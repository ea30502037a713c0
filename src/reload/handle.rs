//! Asking a running service for things.

use std::time::Duration;

use tokio::sync::{broadcast, mpsc, oneshot};

use crate::error::{Error, Kind, Result};
use crate::reload::status::Status;
use crate::reload::steps::{Listeners, Step};

/// Who waits for the outcome of a reload.
pub(crate) type Asker = oneshot::Sender<Result<Reloaded>>;

/// Who waits for what comes of a pause, or of its end.
pub(crate) type Answer = oneshot::Sender<Result<()>>;

/// What a driver is asked for from elsewhere in the program.
#[derive(Debug)]
pub(crate) enum ServiceRequest {
    Reload(Asker),
    Stop,
    Status(oneshot::Sender<Status>),
    /// For so long at most.
    Pause(Duration, Answer),
    Resume(Answer),
    /// Whether the driver is alive, as the watchdog wants to know.
    Alive(oneshot::Sender<()>),
}

/// Where requests are left.
pub(crate) type RequestSender = mpsc::UnboundedSender<ServiceRequest>;

/// Asks a running [`Service`](crate::Service) for things from elsewhere in the program. It is cheap
/// to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    requests: RequestSender,
    steps: Listeners,
}

/// How a reload came out.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reloaded {
    /// The next generation is main; this one drains.
    HandedOver {
        /// Its number.
        generation: u64,
        /// Its pid.
        pid: u32,
    },
    /// This generation has reloaded itself, by
    /// [`Builder::on_reload_in_place`](crate::Builder::on_reload_in_place).
    InPlace,
    /// Another reload was running; it ended in a handover, and the new main generation now runs one
    /// more.
    PassedOn,
}

impl Handle {
    pub(crate) fn new(requests: RequestSender, steps: Listeners) -> Self {
        Self { requests, steps }
    }

    fn ask(&self, request: ServiceRequest) -> Result<()> {
        self.requests.send(request).map_err(|_| over())
    }

    /// Tells what the service is doing just now.
    ///
    /// # Errors
    /// With [`Error::is_state`]: the service is over.
    pub async fn status(&self) -> Result<Status> {
        let (answer, status) = oneshot::channel();
        self.ask(ServiceRequest::Status(answer))?;
        status.await.map_err(|_| over())
    }

    /// Reloads the service, as SIGHUP does, and waits for the outcome.
    ///
    /// Requests during a reload coalesce into one more, which answers them all.
    ///
    /// # Errors
    /// With [`Error::is_generation`]: the next generation failed, and this one serves on; the
    /// message says why. With [`Error::is_state`]: this generation stops or is not main any more.
    ///
    /// # Cancel safety
    /// The reload goes on if this future is dropped.
    pub async fn reload(&self) -> Result<Reloaded> {
        self.ask_for_reload()?.await.map_err(|_| over())?
    }

    /// The request is made when this returns.
    pub(crate) fn ask_for_reload(&self) -> Result<oneshot::Receiver<Result<Reloaded>>> {
        let (answer, outcome) = oneshot::channel();
        self.ask(ServiceRequest::Reload(answer)).map(|()| outcome)
    }

    /// Every [`Step`] of this generation from now on. It ends with the generation; the next one has
    /// steps of its own.
    ///
    /// Who reads them too slowly misses some ([`STEPS_KEPT`](crate::service::steps::STEPS_KEPT)),
    /// and is told how many.
    #[must_use]
    pub fn steps(&self) -> broadcast::Receiver<Step> {
        self.steps.subscribe()
    }

    /// Pauses the service, for a migration of its data in place: no connection is accepted, no
    /// datagram is received, no work is fetched, and none of the connections of HTTP begins a
    /// request. Clients wait. What is in hand is finished; when that is so, [`Status::paused`] says
    /// it. Streams and WebSockets that are open are in hand until they end.
    ///
    /// The pause ends with [`resume`](Self::resume), and by itself after this time, at most
    /// [`MAX_PAUSE`](crate::service::settings::MAX_PAUSE). Another call in a pause says anew how
    /// long it lasts from then on. A reload keeps the pause: the next generation is in it, too. A
    /// stop, a restart and a crash end it.
    ///
    /// # Errors
    /// With [`Error::is_invalid`]: the time is 0, or longer than that. With [`Error::is_state`]:
    /// the service does not serve yet, reloads, stops, or this generation is not main any more.
    pub async fn pause(&self, at_most: Duration) -> Result<()> {
        let (answer, outcome) = oneshot::channel();
        self.ask(ServiceRequest::Pause(at_most, answer))?;
        outcome.await.map_err(|_| over())?
    }

    /// Ends a pause: who has waited is served. Where there is none, nothing happens.
    ///
    /// # Errors
    /// With [`Error::is_state`]: this generation is not main any more, or the service is over.
    pub async fn resume(&self) -> Result<()> {
        let (answer, outcome) = oneshot::channel();
        self.ask(ServiceRequest::Resume(answer))?;
        outcome.await.map_err(|_| over())?
    }

    /// Stops the service, as SIGTERM does; a second call cuts what is left.
    ///
    /// # Errors
    /// With [`Error::is_state`]: the service is over.
    pub fn stop(&self) -> Result<()> {
        self.ask(ServiceRequest::Stop)
    }
}

fn over() -> Error {
    Error::new(Kind::State, "the service is over")
}
