//! Asking a service over its control interface.

use std::os::fd::AsFd as _;
use std::path::Path;

use serde_json::{Map, Value};
use tokio::net::UnixStream;

use super::wire::{Call, INTERFACE, MAX_REPLY, Reply, Wire};
use crate::error::{Error, Kind, Result};
use crate::sys::peer::peer_credentials;

/// A connection to the [control interface](crate::control) of a service. One call at a time;
/// nothing here has a deadline of its own.
#[derive(Debug)]
pub struct Client {
    wire: Wire<UnixStream>,
}

/// Who listens at a control interface, as the kernel says (`SO_PEERCRED`): who called listen(2),
/// which is the service manager for a socket that came from there, and an earlier generation for
/// one that was handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Server {
    /// The process, if it is one of our own PID namespace. It may be gone.
    pub pid: Option<u32>,
    /// Its user.
    pub uid: u32,
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
    /// It fails as connect(2) does; [`Error::io`] tells a missing
    /// socket from one that this user may not use.
    pub async fn connect(path: &Path) -> Result<Self> {
        let stream = UnixStream::connect(path).await.map_err(|e| {
            Error::caused(Kind::Os, format!("cannot connect to the control interface at {}", path.display()), e)
        })?;
        Ok(Self { wire: Wire::new(stream, MAX_REPLY) })
    }

    /// Returns who listens there; `None` if the kernel does not say. Whoever has privileges that
    /// the service has not should ask before believing what is answered.
    #[must_use]
    pub fn server(&self) -> Option<Server> {
        let of = peer_credentials(self.wire.stream().as_fd()).ok()?;
        Some(Server { pid: of.pid.and_then(|pid| u32::try_from(pid).ok()), uid: of.uid })
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
        self.call_with(method, Map::new(), more).await
    }

    /// Calls a method as [`call`](Self::call) does, with parameters.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    ///
    /// # Cancel safety
    /// As [`call`](Self::call).
    pub async fn call_with(&mut self, method: &str, parameters: Map<String, Value>, more: bool) -> Result<Answer> {
        let method = format!("{INTERFACE}.{method}");
        let call = Call { method, parameters: Some(parameters), more, oneway: false, upgrade: false };
        // Who is refused is told so, and not listened to.
        let _ = self.wire.send(&call).await;
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
                return Err(Error::caused(Kind::Protocol, "the control interface says what cannot be understood", e));
            }
            Ok(None) | Err(_) => Answer::Gone,
        })
    }
}
