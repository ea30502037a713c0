//! The drain itself: its gate, and the steps that it takes.

use super::core::{Begun, DrainCore, HURRY_LINGER, Phase, Register, Work, later};
use super::guard::{Cut, DrainSignal, Guard, NamedWork};
use crate::metrics::Metrics;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// The connections and jobs of one generation, and whether it accepts.
///
/// It is cheap to clone; all clones are the same drain.
#[derive(Clone)]
pub struct Drain {
    pub(super) core: Arc<DrainCore>,
}

impl Drain {
    /// Makes a drain that has not begun: the gate is shut, and nothing is counted.
    #[must_use]
    pub fn new() -> Self {
        Self { core: Arc::new(DrainCore::new()) }
    }

    /// Opens or shuts the gate that accept loops wait at. While it is shut nobody accepts, and
    /// listeners stay open.
    ///
    /// It can be opened and shut any number of times until the drain [begins](Self::begin), which
    /// shuts it for good. A connection that accept(2) has already returned is served in any case.
    pub fn accept(&self, on: bool) {
        let mut state = self.core.lock();
        state.gate = on && self.phase() == Phase::Open;
        self.core.tell_gate(&state);
    }

    /// Begins the drain: the gate is shut for good, and for `linger` an idle or fresh connection is
    /// not closed but answered once more.
    ///
    /// Only the first call counts, so a second one cannot prolong a drain.
    ///
    /// In a tokio runtime, whose timer must be enabled, many connections of HTTP and TLS are told
    /// one slice after the other within a quarter of a second: to wake them all would take the
    /// processors from the next generation. Otherwise all are told at once.
    pub fn begin(&self, linger: Duration) {
        let mut state = self.core.lock();
        let stepped = self.step(&mut state, Phase::Draining, linger);
        drop(state);
        if stepped {
            self.tell_step();
            self.core.wake_in_turn();
        }
        tracing::debug!(active = self.active(), ?linger, "drain begun");
    }

    /// Ends the linger: connections that have been idle for [`HURRY_LINGER`](super::HURRY_LINGER)
    /// are closed after their last look, and requests in flight go on.
    ///
    /// Before [`begin`](Self::begin) it is kept in mind: the drain will then have no longer linger
    /// than that.
    pub fn hurry(&self) {
        self.core.hurried.store(true, Ordering::Release);
        if self.phase() != Phase::Open {
            self.core.stepped.notify_waiters();
            self.core.wake_all();
        }
    }

    /// Cuts what is left and says what it was. Each connection and job is named once, however
    /// often the hammer falls. Connections that have had their last reply and only wait for the
    /// client to close are cut, too, but lose nothing and are not named.
    pub fn hammer(&self) -> Vec<Cut> {
        let mut cuts = Vec::new();
        let mut works = Vec::new();
        let mut state = self.core.lock();
        let stepped = self.step(&mut state, Phase::Hammered, Duration::ZERO);
        // Under the same lock as the step: whoever sees that leaves the list at once, on another
        // thread, and would not be named.
        for entry in state.open.values_mut() {
            if !std::mem::replace(&mut entry.cut, true) {
                let doing = entry.work.doing();
                works.push((Arc::clone(&entry.work), doing.is_some()));
                cuts.extend(doing.map(Cut::new));
            }
        }
        drop(state);
        for (work, loses) in &works {
            match work.connection() {
                Some(connection) if *loses => connection.hammered(),
                Some(connection) => connection.drained(),
                None => {}
            }
        }
        if stepped {
            self.tell_step();
        }
        self.core.wake_all();
        cuts
    }

    /// Returns how many connections and jobs are open.
    #[must_use]
    pub fn active(&self) -> usize {
        self.core.lock().open.len()
    }

    /// Returns how many are open of each listener and protocol.
    pub(crate) fn open(&self) -> Vec<(String, &'static str, usize)> {
        let mut counts = BTreeMap::new();
        for entry in self.core.lock().open.values() {
            *counts.entry(entry.work.kind()).or_insert(0) += 1;
        }
        counts.into_iter().map(|((listener, protocol), count)| (listener, protocol, count)).collect()
    }

    /// Describes what a cut would break off now: the oldest pieces of work, and no more than
    /// `most`.
    pub(crate) fn work(&self, most: usize) -> Vec<String> {
        self.core.lock().open.values().filter_map(|entry| entry.work.held()).take(most).collect()
    }

    /// Resolves once a drain has begun and nothing is left, not even a connection that an accept
    /// loop is just taking.
    pub fn drained(&self) -> impl Future<Output = ()> + Send + 'static {
        let core = Arc::clone(&self.core);
        async move {
            loop {
                let mut emptied = pin!(core.emptied.notified());
                emptied.as_mut().enable();
                if core.phase() != Phase::Open && core.lock().is_empty() {
                    return;
                }
                emptied.await;
            }
        }
    }

    /// Returns a future that resolves when the drain begins.
    pub fn signal(&self) -> DrainSignal {
        DrainSignal::new(Arc::clone(&self.core))
    }

    /// Counts a piece of work until the guard is dropped; `what` names it if it must be cut.
    #[must_use = "it is counted until the guard is dropped"]
    pub fn register(&self, what: impl Into<String>) -> Guard {
        self.track(Arc::new(NamedWork::new(what.into(), None)))
    }

    pub(crate) fn track(&self, work: Arc<dyn Work>) -> Guard {
        let mut state = self.core.lock();
        self.core.count(&mut state, work)
    }

    /// Counts it, unless that phase has come: under the lock that phases change under, so nothing
    /// slips in.
    pub(crate) fn track_before(&self, phase: Phase, work: Arc<dyn Work>) -> Option<Guard> {
        let mut state = self.core.lock();
        (self.core.phase() < phase).then(|| self.core.count(&mut state, work))
    }

    /// Notes that a listener is for who asks about the service.
    #[cfg(any(feature = "control", feature = "admin"))]
    pub(super) fn note_aside(&self, listener: &str) {
        self.core.aside.lock().unwrap_or_else(PoisonError::into_inner).insert(listener.to_owned());
    }

    pub(crate) fn is_aside(&self, listener: &str) -> bool {
        self.core.aside.lock().unwrap_or_else(PoisonError::into_inner).contains(listener)
    }

    /// Returns a receiver that tells whether the gate is open and there is no pause, and when that
    /// changes.
    pub(crate) fn gate(&self) -> watch::Receiver<bool> {
        self.core.taking.subscribe()
    }

    #[inline]
    pub(crate) fn phase(&self) -> Phase {
        self.core.phase()
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.core.metrics
    }

    /// Returns when the linger ends for a connection that is idle since then. It is of use only
    /// while draining.
    pub(crate) fn linger_end(&self, idle_since: Instant) -> Instant {
        let Some(begun) = self.core.begun.get() else { return idle_since };
        let hurried = self.core.hurried.load(Ordering::Acquire);
        let linger = if hurried { begun.linger.min(HURRY_LINGER) } else { begun.linger };
        // Who could have moved and stays has its linger from when that is sure.
        let from = self.core.moving.shut_at().map_or(begun.at, |shut| shut.max(begun.at));
        later(idle_since.max(from), linger)
    }

    /// Moves the phase on, and returns whether that was a step. After one the caller calls
    /// [`tell_step`](Self::tell_step), without the lock.
    #[must_use]
    fn step(&self, state: &mut Register, to: Phase, linger: Duration) -> bool {
        if self.phase() >= to {
            return false;
        }
        state.gate = false;
        self.core.begun.get_or_init(|| Begun { at: Instant::now(), linger });
        self.core.phase.store(to as u8, Ordering::Release);
        true
    }

    fn tell_step(&self) {
        self.core.gate.send_replace(false);
        self.core.taking.send_replace(false);
        self.core.stepped.notify_waiters();
        self.core.emptied.notify_waiters();
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Drain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drain").field("phase", &self.phase()).field("active", &self.active()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Poll;
    use tokio::time::timeout;

    const LINGER: Duration = Duration::from_secs(5);

    async fn pending<F: Future + Unpin>(future: &mut F) -> bool {
        std::future::poll_fn(|cx| Poll::Ready(std::pin::Pin::new(&mut *future).poll(cx).is_pending())).await
    }

    #[tokio::test(start_paused = true)]
    async fn drained_waits_for_the_drain_and_for_the_last_guard() {
        let drain = Drain::new();
        let mut drained = Box::pin(drain.drained());
        assert!(pending(&mut drained).await, "nothing is open, but no drain has begun");
        let job = drain.register("job");
        drain.begin(LINGER);
        assert!(pending(&mut drained).await);
        assert_eq!(drain.active(), 1);
        drop(job);
        timeout(LINGER, drained).await.unwrap();
        timeout(LINGER, drain.drained()).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn drained_waits_for_what_an_accept_loop_is_just_taking() {
        let drain = Drain::new();
        assert!(drain.enter(false).is_none(), "the gate is shut");
        drain.accept(true);
        let entering = drain.enter(false).unwrap();
        drain.begin(LINGER);
        assert!(drain.enter(false).is_none());
        let mut drained = Box::pin(drain.drained());
        assert!(pending(&mut drained).await);
        drop(entering);
        timeout(LINGER, drained).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_first_begin_counts() {
        let drain = Drain::new();
        let begun = Instant::now();
        drain.begin(LINGER);
        tokio::time::advance(Duration::from_secs(2)).await;
        drain.begin(LINGER * 10);
        assert_eq!(drain.linger_end(begun), begun + LINGER);
        let idle = Instant::now();
        assert_eq!(drain.linger_end(idle), idle + LINGER, "measured from the moment it became idle");
        drain.hurry();
        assert_eq!(drain.linger_end(idle), idle + HURRY_LINGER);
    }

    #[tokio::test(start_paused = true)]
    async fn hurry_before_begin_leaves_a_short_linger() {
        let drain = Drain::new();
        drain.hurry();
        assert_eq!(drain.phase(), Phase::Open);
        drain.begin(LINGER);
        let now = Instant::now();
        assert_eq!(drain.linger_end(now), now + HURRY_LINGER);
    }

    /// Leaves as soon as it sees the hammer, as a connection's task does on another thread.
    #[test]
    fn whoever_flees_from_the_hammer_is_named() {
        for _ in 0..200 {
            let drain = Drain::new();
            let job = drain.register("job");
            let fleeing = std::thread::spawn({
                let drain = drain.clone();
                move || {
                    while drain.phase() != Phase::Hammered {
                        std::hint::spin_loop();
                    }
                    drop(job);
                }
            });
            assert_eq!(drain.hammer().len(), 1);
            fleeing.join().unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_gate_opens_again_until_the_drain_begins() {
        let drain = Drain::new();
        let gate = || drain.core.lock().gate;
        assert!(!gate());
        drain.accept(true);
        drain.accept(false);
        drain.accept(true);
        assert!(gate());
        drain.begin(LINGER);
        assert!(!gate());
        drain.accept(true);
        assert!(!gate(), "a drain has begun: for good");
    }

    #[tokio::test(start_paused = true)]
    async fn the_signal_resolves_at_begin_and_its_clones_too() {
        let drain = Drain::new();
        let mut signal = drain.signal();
        assert!(pending(&mut signal).await);
        let clone = signal.clone();
        drain.begin(LINGER);
        timeout(LINGER, signal).await.unwrap();
        timeout(LINGER, clone).await.unwrap();
        timeout(LINGER, drain.signal()).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn the_hammer_names_each_once_and_tells_the_job() {
        let drain = Drain::new();
        let job = drain.register("report\n\u{1b}[31m");
        let cutting = tokio::spawn(job.cut());
        tokio::time::advance(Duration::from_secs(3)).await;
        let cuts: Vec<_> = drain.hammer().iter().map(ToString::to_string).collect();
        assert_eq!(cuts, ["report\\n\\u{1b}[31m, open for 3s"]);
        assert!(drain.hammer().is_empty());
        timeout(LINGER, cutting).await.unwrap().unwrap();
        assert_eq!(drain.active(), 1, "still open until its owner lets go");
        drop(job);
        timeout(LINGER, drain.drained()).await.unwrap();
    }

    #[test]
    fn a_huge_linger_does_not_overflow() {
        let drain = Drain::new();
        drain.begin(Duration::MAX);
        assert!(drain.linger_end(Instant::now()) > Instant::now());
    }
}
