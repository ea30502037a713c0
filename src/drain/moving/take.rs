//! The new generation's side.

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Adoption, Arrived};
use crate::drain::core::{DrainCore, Phase};
use crate::drain::handle::Drain;
use crate::sys::socket;
use crate::transit::channel::Arrival;
use crate::transit::{Channel, Parcel};
use crate::wire::parcel::Refusal;

/// So many fds are left to everything else: with fewer, this process could not accept any more.
const SPARE_FDS: usize = 64;

/// Keeps a drain from being over, but is no work: a generation that is itself handed over takes
/// what the one before it still gives, and passes it on. Who waited there for an answer would else
/// have nowhere to go. That one has a drain timeout, and so has this.
struct Expecting(Arc<DrainCore>);

impl Expecting {
    fn new(drain: &Drain) -> Self {
        drain.core.lock().accepting += 1;
        Self(Arc::clone(&drain.core))
    }
}

impl Drop for Expecting {
    fn drop(&mut self) {
        self.0.release(|state| state.accepting -= 1);
    }
}

/// Returns whether what comes is welcome: it is served here, or goes on.
fn is_welcome(drain: &Drain) -> bool {
    match drain.phase() {
        Phase::Open => true,
        Phase::Draining => drain.core.moving.open_route().is_some(),
        Phase::Hammered => false,
    }
}

pub(super) async fn take_all(drain: &Drain, channel: Channel) -> usize {
    let mut total = 0;
    let mut expecting = Some(Expecting::new(drain));
    loop {
        let stepped = drain.core.stepped.notified();
        if !is_welcome(drain) {
            expecting = None;
        }
        let arrivals = tokio::select! {
            biased;
            arrivals = channel.parcels() => arrivals,
            () = stepped, if expecting.is_some() => continue,
        };
        let arrivals = match arrivals {
            Ok(Some(arrivals)) => arrivals,
            Ok(None) => return total,
            Err(error) => {
                tracing::warn!(%error, "no more connections come from the previous generation");
                return total;
            }
        };
        let (mut took, mut refused, mut adoptions) = (Vec::new(), Vec::new(), Vec::new());
        let most_fds = socket::max_open_files();
        for arrival in arrivals {
            let (id, prepared) = match arrival {
                Arrival::Whole(parcel) => (parcel.record().id, prepare(drain, parcel, most_fds)),
                Arrival::Broken(record, reason) => (record.id, Err(reason)),
            };
            match prepared {
                Ok(adoption) => {
                    took.push(id);
                    adoptions.push(adoption);
                }
                Err(reason) => {
                    tracing::debug!(id, reason, "a connection of the previous generation is not taken");
                    refused.push(Refusal { id, reason: reason.into() });
                }
            }
        }
        total += took.len();
        drain.core.moving.adopted.fetch_add(took.len(), Ordering::Relaxed);
        // Told before any of them is read from: either of us has it, never both.
        if let Err(error) = channel.answer(took, refused).await {
            tracing::warn!(%error, "the previous generation cannot be told what was taken");
            return total;
        }
        adoptions.into_iter().for_each(|adoption| adoption());
        tokio::task::yield_now().await;
    }
}

fn prepare(drain: &Drain, parcel: Parcel, most_fds: usize) -> Result<Adoption, &'static str> {
    let (record, fd, contents) = parcel.into_parts();
    if is_last(fd.as_fd(), most_fds, 0) {
        return Err("no_fds");
    }
    if !is_welcome(drain) {
        return Err("draining");
    }
    let (adopter, slot) = drain.core.moving.taker(&record)?;
    adopter.prepare(Arrived { record, fd, contents, was: None, slot, again: false, waited: false })
}

/// Returns whether there are only so many fds left, of as many as may be open, as everything else
/// needs, and `more`. A new fd has the lowest number that is free.
pub(super) fn is_last(fd: BorrowedFd<'_>, most: usize, more: usize) -> bool {
    let number = usize::try_from(fd.as_raw_fd()).unwrap_or(usize::MAX);
    number.saturating_add(SPARE_FDS + more) >= most
}
