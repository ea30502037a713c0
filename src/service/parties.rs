//! The other generations, as the main one knows them.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::AbortHandle;

use crate::generation::Link;
use crate::generation::program::Process;
use crate::service::keeper::Prepared;
use crate::systemd::fdstore::Snapshot;

/// A next generation on its way.
#[derive(Debug)]
pub(crate) struct Coming {
    pub(crate) process: Process,
    pub(crate) link: Arc<Link>,
    pub(crate) watcher: AbortHandle,
    /// It has called the library.
    pub(crate) started: bool,
}

/// An older generation that drains.
#[derive(Debug)]
pub(crate) struct Draining {
    pub(crate) generation: u64,
    pub(crate) pid: u32,
    /// Since when; of the predecessor, since before it was told to.
    pub(crate) since: Instant,
    /// Its own drain timeout.
    pub(crate) limit: Duration,
    pub(crate) link: Arc<Link>,
}

/// The reload that is running, for the log and for its answers.
#[derive(Debug)]
pub(crate) struct Reload {
    /// Tells messages about this one from messages about those before.
    pub(crate) id: u64,
    pub(crate) handover_id: String,
    pub(crate) began: Instant,
    /// When the next generation was ready.
    pub(crate) ready: Option<Instant>,
    pub(crate) coming: Option<Coming>,
    /// Of the next generation, once it is started.
    pub(crate) new_pid: Option<u32>,
    /// Rolled back or stopped: what still comes of it is too late.
    pub(crate) ended: bool,
    /// What of the fd store it was started with.
    pub(crate) snapshot: Snapshot,
    /// What it has put there itself.
    pub(crate) additions: Vec<(String, OwnedFd)>,
    /// The fd store is frozen for it.
    pub(crate) prepared: Option<Prepared>,
    /// In the store for one that failed before, to be removed.
    pub(crate) stray: Vec<String>,
}
