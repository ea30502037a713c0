//! The driver.
use crate::drain::Drain;
use crate::error::Result;
use crate::systemd::activation::Listener;
use std::time::Duration;

/// A service.
#[derive(Debug)]
pub struct Service {
    drain: Drain,
}

/// Settings of a service.
#[derive(Debug)]
pub struct Builder {}

/// Asks a running service for things from elsewhere in the program.
#[derive(Debug, Clone)]
pub struct Handle {}

impl Service {
    /// A builder with the defaults.
    #[must_use]
    pub fn builder() -> Builder {
        Builder {}
    }
    /// Takes the listeners of that name, all of them; a second take of one name is an error.
    pub fn listeners(&self, _name: &str) -> Result<Vec<Listener>> {
        Ok(Vec::new())
    }
    /// The connections of this generation.
    #[must_use]
    pub fn drain(&self) -> &Drain {
        &self.drain
    }
    /// Number of this generation, from 1.
    #[must_use]
    pub fn generation(&self) -> u64 {
        1
    }
    /// For other tasks.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle {}
    }
    /// Reports ready and runs until the service has stopped or handed over and drained.
    pub async fn run(self) -> Result<()> {
        Ok(())
    }
}

impl Builder {
    /// The socket's name in the .socket unit; the address is used only without systemd.
    #[must_use]
    pub fn listen(self, _name: &str, _address: &str) -> Self {
        self
    }
    /// Default 30 s.
    #[must_use]
    pub fn drain_timeout(self, _timeout: Duration) -> Self {
        self
    }
    /// Takes the sockets and installs the signal handlers. Within a tokio runtime.
    pub fn start(self) -> Result<Service> {
        Ok(Service { drain: Drain::new() })
    }
}
