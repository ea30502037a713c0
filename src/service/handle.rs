//! Asking a running service for things.

use tokio::sync::{broadcast, mpsc, oneshot};

use crate::error::{Error, Kind, Result};
use crate::service::driver::Input;
use crate::service::status::{Asking, Status};
use crate::service::steps::{Listeners, Step};

/// Asks a running [`Service`](crate::Service) for things from elsewhere in the program. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(crate) inputs: mpsc::UnboundedSender<Input>,
    pub(crate) steps: Listeners,
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
    /// This generation has reloaded itself, by [`Builder::on_reload_in_place`](crate::Builder::on_reload_in_place).
    InPlace,
    /// Another reload was running; it ended in a handover, and the new main generation now runs one more.
    PassedOn,
}

impl Handle {
    /// What the service is doing just now.
    ///
    /// # Errors
    /// With [`Error::is_state`]: the service is over.
    pub async fn status(&self) -> Result<Status> {
        let (answer, status) = oneshot::channel();
        let over = || Error::new(Kind::State, "the service is over");
        self.inputs.send(Input::Status(Asking::Answer(answer))).map_err(|_| over())?;
        status.await.map_err(|_| over())
    }

    /// Reloads the service, as SIGHUP does, and waits for the outcome.
    ///
    /// Requests during a reload coalesce into one more, which answers them all.
    ///
    /// # Errors
    /// With [`Error::is_generation`]: the next generation failed, and this one serves on; the message says why.
    /// With [`Error::is_state`]: this generation stops or is not main any more.
    ///
    /// # Cancel safety
    /// The reload goes on if this future is dropped.
    pub async fn reload(&self) -> Result<Reloaded> {
        self.ask_for_reload()?.await.map_err(|_| Error::new(Kind::State, "the service is over"))?
    }

    /// The request is made when this returns.
    pub(crate) fn ask_for_reload(&self) -> Result<oneshot::Receiver<Result<Reloaded>>> {
        let (answer, outcome) = oneshot::channel();
        let asked = self.inputs.send(Input::Reload(Some(answer)));
        asked.map(|()| outcome).map_err(|_| Error::new(Kind::State, "the service is over"))
    }

    /// Every [`Step`] of this generation from now on. It ends with the generation; the next one has steps of its own.
    ///
    /// Who reads them too slowly misses some ([`STEPS_KEPT`](crate::service::steps::STEPS_KEPT)), and is told how many.
    #[must_use]
    pub fn steps(&self) -> broadcast::Receiver<Step> {
        self.steps.subscribe()
    }

    /// Stops the service, as SIGTERM does; a second call cuts what is left.
    ///
    /// # Errors
    /// With [`Error::is_state`]: the service is over.
    pub fn stop(&self) -> Result<()> {
        self.inputs.send(Input::Stop).map_err(|_| Error::new(Kind::State, "the service is over"))
    }
}
