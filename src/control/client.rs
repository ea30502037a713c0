//! Asking a service over its control interface.

use std::path::Path;

use serde_json::{Map, Value};
use tokio::net::UnixStream;

use super::wire::{Call, INTERFACE, MAX_REPLY, Reply, Wire};
use crate::error::{Error, Kind, Result};

/// A connection to the [control interface](crate::control) of a service. One call at a time;
/// nothing here has a deadline of its own.
#[derive(Debug)]
pub struct Client {
    wire: Wire<UnixStream>,
}

/// What was answered.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Answer {
    /// More comes: call [`Client::next`].
    Step(Value),
    /// The last one.
    Done(Value),
    /// The service has refused.
    Failed(Failed),
    /// The service ended the connection: it was handed over meanwhile, or is gone. What was asked
    /// for may or may not be done.
    Gone,
}

/// A refusal.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Failed {
    /// The name of the Varlink error.
    pub error: String,
    /// What it says.
    pub parameters: Value,
}

impl Failed {
    /// Returns the reason in words, if it has some.
    #[must_use]
    pub fn reason(&self) -> &str {
        self.parameters.get("reason").and_then(Value::as_str).unwrap_or(&self.error)
    }
}

impl Client {
    /// Connects to the socket at that path.
    ///
    /// # Errors
    /// It fails as connect(2) does; the [`source`](std::error::Error::source) tells a missing
    /// socket from one that this user may not use.
    pub async fn connect(path: &Path) -> Result<Self> {
        let stream = UnixStream::connect(path).await.map_err(|e| {
            Error::io(Kind::Os, format!("cannot connect to the control interface at {}", path.display()), e)
        })?;
        Ok(Self { wire: Wire::new(stream, MAX_REPLY) })
    }

    /// Calls a method of `io.handover.Service` that has no parameters, and waits for the first
    /// answer. With `more` there may be several.
    ///
    /// # Errors
    /// With [`Error::is_protocol`]: the answer makes no sense.
    ///
    /// # Cancel safety
    /// It is not cancel-safe: drop the client with the future.
    pub async fn call(&mut self, method: &str, more: bool) -> Result<Answer> {
        let method = format!("{INTERFACE}.{method}");
        let call = Call { method, parameters: Some(Map::new()), more, oneway: false, upgrade: false };
        if self.wire.send(&call).await.is_err() {
            return Ok(Answer::Gone);
        }
        self.next().await
    }

    /// Waits for the answer after an [`Answer::Step`].
    ///
    /// # Errors
    /// With [`Error::is_protocol`]: it makes no sense.
    ///
    /// # Cancel safety
    /// No answer is lost.
    pub async fn next(&mut self) -> Result<Answer> {
        Ok(match self.wire.receive().await {
            Ok(Some(Reply { error: Some(error), parameters, .. })) => Answer::Failed(Failed { error, parameters }),
            Ok(Some(Reply { parameters, continues: true, .. })) => Answer::Step(parameters),
            Ok(Some(Reply { parameters, .. })) => Answer::Done(parameters),
            Err(e) if e.kind() == std::io::ErrorKind::InvalidData => {
                return Err(Error::io(Kind::Protocol, "the control interface says what cannot be understood", e));
            }
            Ok(None) | Err(_) => Answer::Gone,
        })
    }
}
