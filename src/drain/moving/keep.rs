//! Keeping connections while there is no process: the last thing that a service does before it is
//! started anew.
//!
//! Nobody reads from a connection between the moment when it leaves its task and the next start. So
//! all are served until nothing else is left to be waited for; then all leave at once. If one of
//! them has just begun a long request, they come back and are served until it is finished.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::settle::settled;
use super::{Leaving, Route};
use crate::drain::core::{DrainCore, Phase};
use crate::drain::guard::Guard;
use crate::drain::handle::Drain;
use crate::error::{Error, Kind, Result};
use crate::systemd::fdstore::{FdStore, Kept, MAILBOX, STORE_TIMEOUT};
use crate::transit::mailbox::{self, Filling};
use crate::transit::{Parcel, Policy};
use crate::wire::parcel::MAX_PARCELS;

/// How long connections wait for one that has begun a request meanwhile, before they come back and
/// are served on. It counts from the last one that has left: thousands take their time.
pub(crate) const PARK_TIMEOUT: Duration = Duration::from_millis(250);
/// No longer in all.
const PARK_AT_MOST: Duration = Duration::from_secs(2);
/// Whoever could not leave is asked again after so long.
const ASK_AGAIN: Duration = Duration::from_millis(10);
/// Whether something is left that cannot be kept is looked at so often.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Where connections are kept, and for whom.
#[derive(Debug)]
pub(crate) struct Keep {
    pub(crate) store: FdStore,
    /// The generation that keeps them.
    pub(crate) generation: u64,
    /// Until then what is in hand may be finished before.
    pub(crate) until: Instant,
}

/// Connections that have left their tasks, in their order. Each counts, and is insured, until it is
/// in the store.
struct Parked {
    /// The queues that the first of them are in, which nobody knows of so far.
    filling: Filling,
    /// Why no more goes in.
    full: Option<Error>,
    queued: Vec<Parcel>,
    waiting: VecDeque<Parcel>,
    guards: Vec<Guard>,
    policies: Vec<Option<Policy>>,
}

pub(super) async fn keep_all(
    drain: Drain,
    keep: Keep,
    mut queue: mpsc::UnboundedReceiver<Leaving>,
    replaced: oneshot::Receiver<Infallible>,
) {
    let Some(route) = drain.route_in_use(replaced).await else { return };
    drain.note_stays();
    let mut parked;
    let began = loop {
        others_ended(&drain.core, &route, keep.until).await;
        settled(&drain.core, keep.until).await;
        let began = Instant::now();
        parked = park(&drain, &route, &mut queue, keep.generation).await;
        // To look for what is in hand among thousands takes time, in which nobody is served.
        let all = parked.len() >= drain.active();
        if all || Instant::now() >= keep.until || drain.phase() == Phase::Hammered {
            break began;
        }
        let in_hand = drain.core.in_hand();
        if in_hand.is_empty() {
            break began;
        }
        tracing::debug!(parked = parked.len(), in_hand = in_hand.len(), "a request is finished first");
        route.permits.refill(0);
        for (parcel, guard) in parked.come_back() {
            drain.goes_on(parcel, guard, true);
        }
    };
    // Whoever comes later is not kept.
    route.shut();
    queue.close();
    while let Some(leaving) = queue.recv().await {
        drain.stayed(leaving, "late");
    }
    store(&drain, keep, parked, began).await;
    drain.core.moving.summary.end();
    drain.core.wake_in_turn();
}

/// Has all leave that can, for some time.
async fn park(drain: &Drain, route: &Route, queue: &mut mpsc::UnboundedReceiver<Leaving>, generation: u64) -> Parked {
    let at_most = Instant::now() + PARK_AT_MOST;
    let mut until = Instant::now() + PARK_TIMEOUT;
    let mut parked = Parked::new(generation, drain.active());
    route.permits.refill(usize::MAX);
    drain.core.wake_movable(route, 0, usize::MAX);
    let mut again = Instant::now() + ASK_AGAIN;
    let mut some = Vec::new();
    while parked.len() < drain.active() && drain.phase() != Phase::Hammered {
        tokio::select! {
            biased;
            _ = queue.recv_many(&mut some, MAX_PARCELS) => {
                some.drain(..).for_each(|leaving| parked.add(leaving));
                parked.fill(MAX_PARCELS, drain.active());
                let now = Instant::now();
                until = (now + PARK_TIMEOUT).min(at_most);
                again = now + ASK_AGAIN;
            }
            () = sleep_until(again.min(until)) => {
                if Instant::now() >= until {
                    break;
                }
                drain.core.wake_movable(route, 0, usize::MAX);
                again = Instant::now() + ASK_AGAIN;
            }
        }
    }
    parked
}

impl Parked {
    fn new(generation: u64, expected: usize) -> Self {
        Self {
            filling: Filling::new(generation),
            full: None,
            queued: Vec::with_capacity(expected),
            waiting: VecDeque::new(),
            guards: Vec::with_capacity(expected),
            policies: Vec::with_capacity(expected),
        }
    }

    fn len(&self) -> usize {
        self.guards.len()
    }

    fn add(&mut self, leaving: Leaving) {
        let Leaving { mut parcel, guard, policy, .. } = leaving;
        parcel.number(u64::try_from(self.len()).unwrap_or(u64::MAX));
        self.waiting.push_back(parcel);
        self.guards.push(guard);
        self.policies.push(policy);
    }

    /// Puts what waits into queues, as long as there are so many, or until no more goes in.
    fn fill(&mut self, at_least: usize, expected: usize) {
        while self.full.is_none() && self.waiting.len() >= at_least.max(1) {
            let all = expected.saturating_sub(self.queued.len()).max(self.waiting.len());
            match self.filling.put(&self.waiting, all) {
                Ok(count) => self.queued.extend(self.waiting.drain(..count)),
                Err(error) => self.full = Some(error),
            }
        }
    }

    /// They are to be served here again, and get other insurances; what was queued is forgotten.
    fn come_back(self) -> impl Iterator<Item = (Parcel, Guard)> {
        self.queued.into_iter().chain(self.waiting).zip(self.guards)
    }
}

/// Puts all into mailboxes and those into the store. What finds no place is served here again, and
/// comes to its end.
async fn store(drain: &Drain, keep: Keep, mut parked: Parked, began: Instant) {
    parked.fill(1, 0);
    if let Some(error) = &parked.full {
        tracing::warn!(%error, left = parked.waiting.len(), "not all connections can be kept for the next start");
    }
    let Parked { filling, queued, waiting, mut guards, mut policies, .. } = parked;
    policies.truncate(queued.len());
    for (parcel, guard) in waiting.into_iter().zip(guards.split_off(queued.len())) {
        drain.note_stay(&guard, "no_fds");
        drain.goes_on(parcel, guard, false);
    }
    if queued.is_empty() {
        return;
    }
    let readers = Arc::new(filling.into_readers());
    let (store, theirs) = (keep.store, Arc::clone(&readers));
    let putting = tokio::task::spawn_blocking(move || put(&store, &theirs));
    let error = match timeout(STORE_TIMEOUT, putting).await {
        Ok(Ok(Ok(()))) => {
            drop(policies);
            drain.core.moving.summary.moved(queued.len(), began);
            let ended = Guard::all_kept(&guards);
            return free_meanwhile((queued, guards, ended));
        }
        Ok(Ok(Err(error))) => error.to_string(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("the service manager does not answer within {STORE_TIMEOUT:?}"),
    };
    tracing::warn!(error, "connections cannot be kept for the next start, and are closed as at a stop");
    // The store may have them all the same, and what is served here is not to be found there.
    for reader in readers.iter() {
        if let Err(error) = mailbox::empty(reader.as_fd()) {
            tracing::warn!(%error, "what is closed here may still be open");
        }
    }
    drop(policies);
    for (parcel, guard) in queued.into_iter().zip(guards) {
        drain.note_stay(&guard, "store");
        drain.goes_on(parcel, guard, false);
    }
}

/// Closes and frees what is here of them: the next start waits for the end of this process, which
/// need not wait for that.
fn free_meanwhile(kept: impl Send + 'static) {
    // Where there is no thread, it is dropped at once.
    let _ = thread::Builder::new().name("handover-close".into()).spawn(move || drop(kept));
}

fn put(store: &FdStore, readers: &[OwnedFd]) -> Result<()> {
    // What this process was started with is read, and perhaps not removed yet.
    store.remove_inherited(MAILBOX)?;
    match store.put_unpolled(MAILBOX, readers)? {
        Kept::Stored => Ok(()),
        Kept::HeldOnly => {
            let why =
                "the service has no fd store: set FileDescriptorStoreMax= in the [Service] section, for example to 64";
            Err(Error::new(Kind::Store, why))
        }
    }
}

/// Resolves when nothing is open but what can be kept, or at that time.
async fn others_ended(core: &DrainCore, route: &Route, until: Instant) {
    let some = || {
        let state = core.lock();
        state.accepting > 0 || !state.open.values().all(|entry| route.is_for(&*entry.work))
    };
    while core.phase() != Phase::Hammered && Instant::now() < until && some() {
        sleep(LOOK_EVERY).await;
    }
}
