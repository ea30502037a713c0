//! `BARRIER=1` tells when the manager has dealt with everything that was sent before.

use crate::error::{Error, Kind, Result};
use crate::sys::socket;
use crate::systemd::notify::{Delivery, Notifier, after};
use crate::wire::notify::BARRIER;
use nix::fcntl::OFlag;
use nix::poll::PollFlags;
use nix::unistd::pipe2;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;
use tokio::io::Interest;
use tokio::time::Instant;

impl Notifier {
    /// Blocks until the service manager has processed all messages that were sent before.
    ///
    /// It also returns when the manager throws its queue away, for example because it dies.
    ///
    /// # Errors
    ///
    /// It fails as [`send`](Self::send) does, and with [`Error::is_timeout`] when the manager does
    /// not answer in time. The whole call takes no longer than `timeout`.
    #[doc(alias = "BARRIER")]
    #[doc(alias = "sd_notify_barrier")]
    pub fn barrier(&self, timeout: Duration) -> Result<Delivery> {
        let deadline = after(timeout);
        let (ours, theirs) = pipe()?;
        if self.transmit(BARRIER, &[theirs.as_fd()], deadline)? == Delivery::NoManager {
            return Ok(Delivery::NoManager);
        }
        drop(theirs);
        // Nobody writes into the pipe: what wakes us is that the manager closed the last copy of
        // its end.
        match socket::wait(ours.as_fd(), PollFlags::POLLIN, deadline) {
            Ok(true) => Ok(Delivery::Sent),
            Ok(false) => Err(timed_out(timeout)),
            Err(error) => Err(Error::os("cannot wait for the service manager's barrier", error)),
        }
    }

    /// Waits as [`barrier`](Self::barrier) does, for a tokio runtime with I/O and time.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, the barrier may have been sent; that does no harm, and a new one
    /// can be sent.
    ///
    /// # Errors
    ///
    /// It fails as [`barrier`](Self::barrier) does.
    ///
    /// # Panics
    ///
    /// Without a tokio runtime, or in one without I/O or time.
    pub async fn barrier_async(&self, timeout: Duration) -> Result<Delivery> {
        let deadline = Instant::from_std(after(timeout));
        let (ours, theirs) = pipe()?;
        if self.transmit_async(BARRIER, &[theirs.as_fd()], timeout).await? == Delivery::NoManager {
            return Ok(Delivery::NoManager);
        }
        drop(theirs);
        let failed = |error| Error::os("cannot wait for the service manager's barrier", error);
        let ours = socket::register(ours, Interest::READABLE).map_err(failed)?;
        match tokio::time::timeout_at(deadline, ours.readable()).await {
            Ok(closed) => closed.map(|_| Delivery::Sent).map_err(failed),
            Err(_) => Err(timed_out(timeout)),
        }
    }
}

fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).map_err(|error| Error::os("cannot make a pipe for a barrier", error))
}

fn timed_out(timeout: Duration) -> Error {
    Error::new(Kind::Timeout, format!("the service manager did not pass the barrier (BARRIER=1) within {timeout:?}"))
}
