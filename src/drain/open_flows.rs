//! The flows that one generation has open, as their owner and the router share them.

use super::handle::Drain;
use std::collections::HashSet;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;

/// Returns the key of the flow that a datagram belongs to, or `None` if it may begin one.
pub(super) type KeyFn = Box<dyn Fn(&[u8], SocketAddr) -> Option<Vec<u8>> + Send + Sync>;

/// The flows that this generation has open.
pub(super) struct OpenFlows {
    pub(super) name: Arc<str>,
    pub(super) drain: Drain,
    pub(super) own: Mutex<HashSet<Vec<u8>>>,
    pub(super) changes: mpsc::UnboundedSender<Change>,
}

impl OpenFlows {
    pub(super) fn own(&self) -> MutexGuard<'_, HashSet<Vec<u8>>> {
        // nothing in a critical section can panic half-way
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for OpenFlows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flows").field("name", &self.name).field("open", &self.own().len()).finish_non_exhaustive()
    }
}

/// A change of the flows that are open here.
#[derive(Debug)]
pub(super) enum Change {
    Added(Vec<u8>),
    Removed(Vec<u8>),
}
