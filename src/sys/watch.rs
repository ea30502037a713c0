//! Watching an fd in the runtime.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::unix::AsyncFd;

/// Registers an fd that we own with the runtime that we are in. It must be nonblocking, or a pidfd.
pub(crate) fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd names the same open fd from here until it is dropped, and only `AsyncFd` can drop it.
    unsafe { AsyncFd::register(fd) }.map_err(Into::into)
}
