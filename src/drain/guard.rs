//! What holds a drain open, and what tells its holders.

use super::limit::Slot;
use super::{Core, Drain, Entry, Phase, State, Work};
use crate::metrics::{Counted, Protocol};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::futures::OwnedNotified;
use tokio::sync::watch;
use tokio::time::Instant;

/// Holds a drain open until dropped.
#[must_use = "it is counted until the guard is dropped"]
pub struct Guard {
    core: Arc<Core>,
    id: u64,
    _slot: Option<Slot>,
}

impl Guard {
    pub(super) fn new(core: Arc<Core>, id: u64) -> Self {
        Self { core, id, _slot: None }
    }

    /// Its work is over, and the other one's takes its place within the limit.
    #[cfg(all(feature = "http", feature = "tls"))]
    pub(crate) fn continues_as(mut self, mut next: Self) -> Self {
        next._slot = self._slot.take();
        next
    }

    /// Resolves when the hammer falls: what is not done by now should stop.
    pub fn cut(&self) -> Cutting {
        Cutting { step: Step::new(Arc::clone(&self.core), Phase::Hammered) }
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

/// Held by an accept loop around accept(2), so that what it returns is never uncounted.
#[derive(Debug)]
pub(crate) struct Entering {
    drain: Drain,
    pub(super) slot: Option<Slot>,
    /// The listener, for the metrics of a connection that is not HTTP.
    pub(super) listener: Option<Arc<str>>,
}

impl Drain {
    /// `None` while the gate is shut.
    pub(crate) fn enter(&self) -> Option<Entering> {
        let mut state = self.core.lock();
        state.gate.then(|| {
            state.accepting += 1;
            Entering { drain: self.clone(), slot: None, listener: None }
        })
    }

    /// Counts it, unless that phase has come: under the lock that phases change under, so nothing slips in.
    pub(crate) fn track_before(&self, phase: Phase, work: Arc<dyn Work>) -> Option<Guard> {
        let mut state = self.core.lock();
        (self.core.phase() < phase).then(|| self.core.count(&mut state, work))
    }

    /// Whether the gate is open, and when that changes.
    pub(crate) fn gate(&self) -> watch::Receiver<bool> {
        self.core.gate.subscribe()
    }
}

impl Core {
    pub(super) fn count(self: &Arc<Self>, state: &mut State, work: Arc<dyn Work>) -> Guard {
        let id = state.next;
        state.next += 1;
        state.open.insert(id, Entry { work, cut: false });
        Guard::new(Arc::clone(self), id)
    }
}

impl Entering {
    pub(super) fn register(self, what: String) -> Guard {
        let metrics = self.drain.metrics();
        let connection = self.listener.clone().map(|listener| metrics.connection(listener, Protocol::Stream));
        self.track(Arc::new(Job::new(what, connection)))
    }

    /// The drain that it will be counted by.
    #[cfg(feature = "tls")]
    pub(crate) fn drain(&self) -> &Drain {
        &self.drain
    }

    pub(crate) fn track(mut self, work: Arc<dyn Work>) -> Guard {
        let mut guard = self.drain.track(work);
        guard._slot = self.slot.take();
        guard
    }
}

impl Drop for Entering {
    fn drop(&mut self) {
        self.drain.core.release(|state| state.accepting -= 1);
    }
}

/// Resolves when a drain begins; cheap to clone.
#[must_use = "futures do nothing unless polled"]
#[derive(Debug, Clone)]
pub struct DrainSignal {
    step: Step,
}

impl DrainSignal {
    pub(super) fn new(core: Arc<Core>) -> Self {
        Self { step: Step::new(core, Phase::Draining) }
    }

    /// Whether the drain has begun, without waiting.
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
    step: Step,
}

impl Future for Cutting {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.step.poll(cx)
    }
}

/// Waits for a phase. Allocates only if it must wait.
struct Step {
    /// In an Arc of its own: a connection clones its signal for each request, and the threads of all connections would
    /// else write to one cache line.
    #[expect(clippy::redundant_allocation, reason = "not for its size, but for its count")]
    core: Arc<Arc<Core>>,
    phase: Phase,
    waiting: Option<Pin<Box<OwnedNotified>>>,
}

impl Step {
    fn new(core: Arc<Core>, phase: Phase) -> Self {
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

impl Clone for Step {
    fn clone(&self) -> Self {
        Self { core: Arc::clone(&self.core), phase: self.phase, waiting: None }
    }
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Step").field("for", &self.phase).field("now", &self.core.phase()).finish_non_exhaustive()
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
pub(super) struct Job {
    what: String,
    since: Instant,
    connection: Option<Counted>,
}

impl Job {
    pub(super) fn new(what: String, connection: Option<Counted>) -> Self {
        Self { what, since: Instant::now(), connection }
    }
}

impl Work for Job {
    fn wake(&self) {}

    fn doing(&self) -> Option<String> {
        Some(format!("{}, open for {:?}", self.what.escape_debug(), since(self.since)))
    }

    fn connection(&self) -> Option<&Counted> {
        self.connection.as_ref()
    }
}

/// For how long, to a tenth of a second: a log line needs no more.
pub(crate) fn since(then: Instant) -> Duration {
    let tenths = then.elapsed().as_millis() / 100;
    Duration::from_millis(u64::try_from(tenths).unwrap_or(u64::MAX / 100).saturating_mul(100))
}
