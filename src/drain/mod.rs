//! Finish what was accepted, under a timeout: counting, linger, deadline, hammer.
//!
//! CONTRACT (the HTTP helper implements this; the driver in `service/` calls it):
use std::fmt;
use std::future::Future;
use std::time::Duration;

/// The connections and jobs of one generation, and whether it accepts.
#[derive(Debug, Clone)]
pub struct Drain {}

/// What the hammer cut: `Display` names the peer and what it was doing, with nothing unescaped.
#[derive(Debug)]
#[non_exhaustive]
pub struct Cut {}

impl fmt::Display for Cut {
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

/// Resolves when a drain begins; cheap to clone.
#[derive(Debug, Clone)]
pub struct DrainSignal {}

impl Drain {
    /// A fresh one: the gate is shut, nothing is counted.
    #[must_use]
    pub fn new() -> Self {
        Self {}
    }
    /// Opens or shuts the gate that accept loops wait at. Shut: nobody accepts, listeners stay open.
    pub fn accept(&self, _on: bool) {}
    /// The drain begins; `linger` as in the vocabulary.
    pub fn begin(&self, _linger: Duration) {}
    /// Linger ends now: idle connections are closed after their last look, requests in flight go on.
    pub fn hurry(&self) {}
    /// Cuts what is left and says what it was.
    pub fn hammer(&self) -> Vec<Cut> {
        Vec::new()
    }
    /// How many connections and jobs are open.
    #[must_use]
    pub fn active(&self) -> usize {
        0
    }
    /// Resolves once a drain has begun and nothing is left.
    pub fn drained(&self) -> impl Future<Output = ()> + Send + 'static {
        async {}
    }
    /// A future that resolves when the drain begins.
    #[must_use]
    pub fn signal(&self) -> DrainSignal {
        DrainSignal {}
    }
}
