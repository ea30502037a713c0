//! Tells the manager's fd store what to do, and asks it the one question that it answers: is there
//! room?

use crate::error::{Error, Result};
use crate::sys::socket;
use crate::systemd::fdstore::entry::Polling;
use crate::systemd::notify::{Notifier, after};
use crate::wire::{notify, store};
use nix::fcntl::OFlag;
use nix::poll::PollFlags;
use nix::unistd::pipe2;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// How many fds go in one datagram. The kernel allows 253 (`SCM_MAX_FD`); with half of it nothing
/// depends on that limit.
pub(super) const BATCH: usize = 128;

/// Returns the name of what only asks whether there is room.
pub(super) fn probe_name() -> String {
    format!("{}probe", store::RESERVED)
}

/// The way to the store.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) notifier: Notifier,
    pub(super) timeout: Duration,
}

impl Line {
    /// Sends fds for a slot. The barrier after the last datagram is the caller's.
    pub(super) fn push(&self, slot: &str, fds: &[BorrowedFd<'_>], polling: Polling) -> Result<()> {
        let datagram = notify::store(slot, polling == Polling::On);
        for (index, batch) in fds.chunks(BATCH).enumerate() {
            if index > 0 {
                // Fds under way count against RLIMIT_NOFILE.
                self.barrier()?;
            }
            self.notifier.transmit(datagram.as_bytes(), batch, after(self.timeout))?;
        }
        Ok(())
    }

    pub(super) fn remove(&self, slot: &str) -> Result<()> {
        self.notifier.transmit(notify::store_remove(slot).as_bytes(), &[], after(self.timeout)).map(drop)
    }

    pub(super) fn barrier(&self) -> Result<()> {
        self.notifier.barrier(self.timeout).map(drop)
    }

    /// Finds out how many of `wanted` fds the store would take: so many pipes are put in, and those
    /// that it refused show by a hangup at our end. Nothing else of the store changes.
    ///
    /// systemd closes what it refuses before it passes the barrier, but from 254 on in a helper
    /// process that the barrier does not wait for: then only `grace` tells "kept" from "not closed
    /// yet".
    pub(super) fn room(&self, wanted: usize, grace: Duration) -> Result<usize> {
        let name = probe_name();
        let mut ours: Vec<OwnedFd> = Vec::with_capacity(wanted);
        let asked = (0..wanted.div_ceil(BATCH)).try_for_each(|batch| {
            let mut theirs = Vec::new();
            for _ in 0..BATCH.min(wanted - batch * BATCH) {
                let pipe = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK);
                let (read, write) =
                    pipe.map_err(|e| Error::os("no pipe to ask the fd store for room (LimitNOFILE=)", e))?;
                ours.push(read);
                theirs.push(write);
            }
            let fds: Vec<_> = theirs.iter().map(|fd| fd.as_fd()).collect();
            // Polled, so that none stays when this process ends right now.
            self.push(&name, &fds, Polling::On)?;
            drop(theirs);
            self.barrier()
        });
        let kept = asked.and_then(|()| kept(&ours, grace));
        self.remove(&name)?;
        kept
    }
}

fn kept(ours: &[OwnedFd], grace: Duration) -> Result<usize> {
    let deadline = Instant::now() + grace;
    let mut kept: Vec<_> = ours.iter().map(|fd| fd.as_fd()).collect();
    loop {
        let mut still = Vec::with_capacity(kept.len());
        for fd in kept {
            if !is_dead(fd)? {
                still.push(fd);
            }
        }
        kept = still;
        let Some(one) = kept.first() else { return Ok(0) };
        // Refused ones that are not closed yet may be behind one that is kept: look at all of them
        // now and then.
        let slice = (Instant::now() + Duration::from_millis(5)).min(deadline);
        let hung_up = socket::wait(*one, PollFlags::empty(), slice).map_err(unpollable)?;
        if !hung_up && Instant::now() >= deadline {
            return Ok(kept.len());
        }
    }
}

/// Tells whether it has hung up or is in error: what systemd drops from the store, unless it was
/// told not to look.
pub(super) fn is_dead(fd: BorrowedFd<'_>) -> Result<bool> {
    socket::wait(fd, PollFlags::empty(), Instant::now()).map_err(unpollable)
}

fn unpollable(error: std::io::Error) -> Error {
    Error::os("cannot look at an fd of the fd store", error)
}
