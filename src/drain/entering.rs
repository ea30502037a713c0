//! Counting what an accept loop is just taking.

use super::core::Work;
use super::guard::{Guard, NamedWork};
use super::handle::Drain;
use super::limit::LimitSlot;
use crate::metrics::Protocol;
use std::sync::Arc;

/// What an accept loop holds around accept(2), so that what that returns is never uncounted.
#[derive(Debug)]
pub(crate) struct Entering {
    drain: Drain,
    /// For who asks about the service.
    aside: bool,
    pub(super) slot: Option<LimitSlot>,
    /// The listener, for the metrics of a connection that is not HTTP.
    pub(super) listener: Option<Arc<str>>,
}

impl Drain {
    /// Enters accept(2), unless the gate is shut, or there is a pause and this is not `aside` of
    /// the service's work.
    pub(crate) fn enter(&self, aside: bool) -> Option<Entering> {
        let mut state = self.core.lock();
        state.takes(aside).then(|| {
            state.accepting += 1;
            state.accepting_aside += usize::from(aside);
            Entering { drain: self.clone(), aside, slot: None, listener: None }
        })
    }
}

impl Entering {
    pub(super) fn register(self, what: String) -> Guard {
        let metrics = self.drain.metrics();
        let connection = self.listener.clone().map(|listener| metrics.connection(listener, Protocol::Stream));
        self.track(Arc::new(NamedWork::new(what, connection)))
    }

    /// Returns the drain that the connection will be counted by.
    #[cfg(feature = "tls")]
    pub(crate) fn drain(&self) -> &Drain {
        &self.drain
    }

    pub(crate) fn track(mut self, work: Arc<dyn Work>) -> Guard {
        self.drain.track(work).holding(self.slot.take())
    }
}

impl Drop for Entering {
    fn drop(&mut self) {
        self.drain.core.release(|state| {
            state.accepting -= 1;
            state.accepting_aside -= usize::from(self.aside);
        });
    }
}
