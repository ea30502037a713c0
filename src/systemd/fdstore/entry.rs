//! What can be said of the store's entries, and copies of their fds.

use crate::error::{Error, Result};
use std::os::fd::{AsFd, OwnedFd};

/// Who keeps an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kept {
    /// The service manager: it outlives the process. (Or the .socket unit that it came from.)
    Stored,
    /// This process alone, because there is no fd store, or [not yet](super::FdStore::standby): the
    /// next generation gets it, a crash loses it.
    HeldOnly,
}

/// A name, and what is kept under it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// The plain name.
    pub name: String,
    /// How many fds it has.
    pub fds: usize,
    /// Who keeps them.
    pub kept: Kept,
}

/// What [`FdStore::sync`](super::FdStore::sync) did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Synced {
    /// Who keeps what there is.
    pub kept: Kept,
    /// How many fds were not in the store before.
    pub pushed: usize,
    /// How many names were removed.
    pub removed: usize,
    /// How many fds there are.
    pub entries: usize,
}

/// An entry that came in at the start and was of no use, so that it was closed and is removed from
/// the store.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rejected {
    /// What it was called.
    pub name: String,
    /// What is wrong with it, as a sentence about it.
    pub why: String,
}

/// Whether systemd drops an fd when it hangs up, or is in error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Polling {
    /// It looks, and drops the fd.
    On,
    /// It does not look (`FDPOLL=0`).
    Off,
}

/// Duplicates the fds of an entry.
pub(super) fn copies<F: AsFd>(name: &str, fds: &[F]) -> Result<Vec<OwnedFd>> {
    let copy = |fd: &F| fd.as_fd().try_clone_to_owned();
    fds.iter()
        .map(copy)
        .collect::<std::io::Result<_>>()
        .map_err(|e| Error::os(format!("an fd of {name:?} cannot be duplicated for the fd store (LimitNOFILE=)"), e))
}
