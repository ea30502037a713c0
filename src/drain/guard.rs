//! What holds a drain open, and what tells its holders.

use super::core::{DrainCore, OpenWork, Phase, Register, Work};
use super::limit::LimitSlot;
use crate::metrics::Counted;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::futures::OwnedNotified;
use tokio::time::Instant;

/// Holds a drain open until dropped.
#[must_use = "it is counted until the guard is dropped"]
pub struct Guard {
    core: Arc<DrainCore>,
    id: u64,
    _slot: Option<LimitSlot>,
}

impl Guard {
    pub(super) fn new(core: Arc<DrainCore>, id: u64) -> Self {
        Self { core, id, _slot: None }
    }

    /// Holds the slot of a limit, too, until it is dropped.
    pub(crate) fn holding(mut self, slot: Option<LimitSlot>) -> Self {
        self._slot = slot;
        self
    }

    /// Passes the slot within the limit on to the guard of the work that follows this one.
    pub(crate) fn continues_as(mut self, mut next: Self) -> Self {
        next._slot = self._slot.take();
        // How it ends is counted when that ends.
        self.core.end(self.id);
        next
    }

    /// The connection is another generation's now: it ends here, and was not drained.
    pub(super) fn moved(self) {
        if let Some(work) = self.core.end(self.id)
            && let Some(connection) = work.connection()
        {
            connection.moved();
        }
    }

    /// The connections of all these wait for the next start of the service: they end here, and were
    /// not drained. What is returned holds nothing open; to free it takes time.
    pub(super) fn all_kept(guards: &[Self]) -> Vec<OpenWork> {
        let Some(Self { core, .. }) = guards.first() else { return Vec::new() };
        let ended: Vec<OpenWork> = {
            let mut state = core.lock();
            guards.iter().filter_map(|guard| state.open.remove(&guard.id)).collect()
        };
        for connection in ended.iter().filter(|entry| !entry.cut).filter_map(|entry| entry.work.connection()) {
            connection.kept();
        }
        core.release(|_| ());
        ended
    }

    /// Notes that the connection does not move, and why.
    pub(super) fn stayed(&self, reason: &'static str) {
        let work = self.core.lock().open.get(&self.id).map(|entry| Arc::clone(&entry.work));
        if let Some(connection) = work.as_ref().and_then(|work| work.connection()) {
            connection.stayed(reason);
        }
    }

    /// Resolves when the hammer falls: what is not done by now should stop.
    pub fn cut(&self) -> Cutting {
        Cutting { step: PhaseWait::new(Arc::clone(&self.core), Phase::Hammered) }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        #[cfg(feature = "metrics")]
        self.core.note_end(self.id);
        // dropped after the lock is released: the work may hold wakers, and they tasks
        let mut entry = None;
        self.core.release(|state| entry = state.open.remove(&self.id));
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("id", &self.id).finish_non_exhaustive()
    }
}

impl DrainCore {
    pub(super) fn count(self: &Arc<Self>, state: &mut Register, work: Arc<dyn Work>) -> Guard {
        let id = state.next;
        state.next += 1;
        state.taken += u64::from(!work.is_aside());
        state.open.insert(id, OpenWork { work, cut: false });
        Guard::new(Arc::clone(self), id)
    }
}

/// Resolves when a drain begins; cheap to clone.
#[must_use = "futures do nothing unless polled"]
#[derive(Debug, Clone)]
pub struct DrainSignal {
    step: PhaseWait,
}

impl DrainSignal {
    pub(super) fn new(core: Arc<DrainCore>) -> Self {
        Self { step: PhaseWait::new(core, Phase::Draining) }
    }

    /// Returns whether the drain has begun, without waiting.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.step.is_past()
    }
}

impl Future for DrainSignal {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.step.poll(cx)
    }
}

/// Resolves when the hammer falls; see [`Guard::cut`].
#[must_use = "futures do nothing unless polled"]
#[derive(Debug, Clone)]
pub struct Cutting {
    step: PhaseWait,
}

impl Future for Cutting {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.step.poll(cx)
    }
}

/// Waits for a phase. Allocates only if it must wait.
struct PhaseWait {
    /// The drain, in an Arc of its own: a connection clones its signal for each request, and the
    /// threads of all connections would else write to one cache line.
    #[expect(clippy::redundant_allocation, reason = "not for its size, but for its count")]
    core: Arc<Arc<DrainCore>>,
    phase: Phase,
    waiting: Option<Pin<Box<OwnedNotified>>>,
}

impl PhaseWait {
    fn new(core: Arc<DrainCore>, phase: Phase) -> Self {
        Self { core: Arc::new(core), phase, waiting: None }
    }

    fn is_past(&self) -> bool {
        self.core.phase() >= self.phase
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            // made before the look at the phase, so that no step is missed between the two
            let waiting = self.waiting.get_or_insert_with(|| Box::pin(Arc::clone(&self.core.stepped).notified_owned()));
            if self.core.phase() >= self.phase {
                self.waiting = None;
                return Poll::Ready(());
            }
            ready!(waiting.as_mut().poll(cx));
            self.waiting = None;
        }
    }
}

impl Clone for PhaseWait {
    fn clone(&self) -> Self {
        Self { core: Arc::clone(&self.core), phase: self.phase, waiting: None }
    }
}

impl fmt::Debug for PhaseWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PhaseWait").field("for", &self.phase).field("now", &self.core.phase()).finish_non_exhaustive()
    }
}

/// What the hammer cut: `Display` names the peer and what it was doing, with nothing unescaped.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cut {
    what: String,
}

impl Cut {
    pub(super) fn new(what: String) -> Self {
        Self { what }
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// Work that is known by a name alone.
pub(super) struct NamedWork {
    what: String,
    since: Instant,
    connection: Option<Counted>,
}

impl NamedWork {
    pub(super) fn new(what: String, connection: Option<Counted>) -> Self {
        Self { what, since: Instant::now(), connection }
    }
}

impl Work for NamedWork {
    fn wake(&self) {}

    fn doing(&self) -> Option<String> {
        Some(format!("{}, open for {:?}", self.what.escape_debug(), since(self.since)))
    }

    fn connection(&self) -> Option<&Counted> {
        self.connection.as_ref()
    }
}

/// Returns how long ago that was, to a tenth of a second: a log line needs no more.
pub(crate) fn since(then: Instant) -> Duration {
    let tenths = then.elapsed().as_millis() / 100;
    Duration::from_millis(u64::try_from(tenths).unwrap_or(u64::MAX / 100).saturating_mul(100))
}
