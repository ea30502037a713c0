//! Asking a running service for things.

use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use crate::error::{Error, Kind, Result};
use crate::lifecycle::State;
use crate::service::clock::millis;
use crate::service::driver::{Driver, Input};

/// Asks a running [`Service`](crate::Service) for things from elsewhere in the program. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(crate) inputs: mpsc::UnboundedSender<Input>,
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

/// What a service is doing just now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Status {
    /// The number of this generation.
    pub generation: u64,
    /// Its pid.
    pub pid: u32,
    /// Where it is in its life, as in [`docs::lifecycle`](crate::docs::lifecycle): `serving`, `reloading`, `draining`, …
    pub state: &'static str,
    /// How many connections are open, and how much other work is counted.
    pub connections: usize,
    /// How many reloads this generation has begun.
    pub reloads: u64,
    /// Of the last of them; before it, of the reload that it came with.
    pub handover_id: Option<String>,
    /// The older generations that drain, oldest first.
    pub draining: Vec<Older>,
}

/// An older generation that drains.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Older {
    /// Its number.
    pub generation: u64,
    /// Its pid.
    pub pid: u32,
    /// For how long it drains, in milliseconds.
    pub draining_ms: u64,
}

impl Handle {
    /// What the service is doing just now.
    ///
    /// # Errors
    /// With [`Error::is_state`]: the service is over.
    pub async fn status(&self) -> Result<Status> {
        let (answer, status) = oneshot::channel();
        let over = || Error::new(Kind::State, "the service is over");
        self.inputs.send(Input::Status(answer)).map_err(|_| over())?;
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
        let (answer, outcome) = oneshot::channel();
        let over = || Error::new(Kind::State, "the service is over");
        self.inputs.send(Input::Reload(Some(answer))).map_err(|_| over())?;
        outcome.await.map_err(|_| over())?
    }

    /// Stops the service, as SIGTERM does; a second call cuts what is left.
    ///
    /// # Errors
    /// With [`Error::is_state`]: the service is over.
    pub fn stop(&self) -> Result<()> {
        self.inputs.send(Input::Stop).map_err(|_| Error::new(Kind::State, "the service is over"))
    }
}

impl Driver {
    pub(crate) fn status(&self) -> Status {
        Status {
            generation: self.generation,
            pid: self.pid,
            state: match self.state() {
                State::Starting => "starting",
                State::Standby => "standby",
                State::Trial => "trial",
                State::Serving => "serving",
                State::Reloading(_) => "reloading",
                State::HandingOver => "handing over",
                State::Draining => "draining",
                State::Stopping => "stopping",
                State::Exited => "exited",
            },
            connections: self.drain.active(),
            reloads: self.reloads,
            handover_id: self.own_handover().map(str::to_owned),
            draining: self
                .drainers
                .iter()
                .map(|d| Older { generation: d.generation, pid: d.pid, draining_ms: millis(d.since) })
                .collect(),
        }
    }
}
