//! A pause: nothing new is taken, what is in hand is finished, and clients wait.
//!
//! It is beside the phases of the drain, which only go forward: a pause comes and goes, and a
//! generation that drains may be in one, too.

use super::core::DrainCore;
use super::handle::Drain;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// Whether something is still in hand in a pause is looked at so often.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// Nothing is in hand when so many looks in a row find nothing: what was taken just before the
/// pause is on its way from one thread to another at the first.
const LOOKS: usize = 2;

/// Whether there is a pause.
#[derive(Debug)]
pub(super) struct Pausing {
    /// It is read for each request, without a lock.
    on: AtomicBool,
    changes: watch::Sender<bool>,
    ended: Mutex<Option<Instant>>,
}

impl Default for Pausing {
    fn default() -> Self {
        Self { on: AtomicBool::new(false), changes: watch::Sender::new(false), ended: Mutex::default() }
    }
}

/// What is in hand in a pause: how much, and some of it in words, the oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct InHand {
    pub(crate) count: usize,
    pub(crate) work: Vec<String>,
}

impl Drain {
    /// Takes nothing more until [`resume`](Self::resume): accept loops wait as at a gate that is
    /// shut, connections of HTTP are not read between two requests, and a request that was read
    /// all the same waits before its handler has it.
    pub(crate) fn pause(&self) {
        let mut state = self.core.lock();
        state.paused = true;
        self.core.pausing.on.store(true, Ordering::SeqCst);
        self.core.tell_gate(&state);
        drop(state);
        self.core.pausing.changes.send_replace(true);
    }

    /// Ends the pause, if there is one.
    pub(crate) fn resume(&self) {
        let mut state = self.core.lock();
        if !std::mem::replace(&mut state.paused, false) {
            return;
        }
        *self.core.pausing.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        self.core.pausing.on.store(false, Ordering::SeqCst);
        self.core.tell_gate(&state);
        drop(state);
        self.core.pausing.changes.send_replace(false);
        // each looks whether something has come meanwhile
        self.core.wake_all();
    }

    #[cfg(any(feature = "http", test))]
    #[inline]
    pub(crate) fn is_paused(&self) -> bool {
        self.core.pausing.on.load(Ordering::Relaxed)
    }

    /// Returns when the last pause ended.
    #[cfg(feature = "http")]
    pub(crate) fn resumed_at(&self) -> Option<Instant> {
        *self.core.pausing.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resolves when there is no pause any more.
    #[cfg(feature = "http")]
    pub(crate) fn resumed(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut changes = self.core.pausing.changes.subscribe();
        // without a drain there is no pause
        async move { _ = changes.wait_for(|paused| !paused).await }
    }

    /// Tells what is in the middle of something, and names no more than `most` of it.
    pub(crate) fn in_hand_now(&self, most: usize) -> InHand {
        let state = self.core.lock();
        let busy: Vec<_> = state.open.values().filter(|entry| entry.work.is_busy() && !entry.work.is_aside()).collect();
        let work = busy.iter().filter_map(|entry| entry.work.held()).take(most).collect();
        InHand { count: busy.len() + state.entering(), work }
    }

    /// Resolves when nothing is in hand any more.
    pub(crate) fn at_rest(&self) -> impl Future<Output = ()> + Send + 'static {
        let core = Arc::clone(&self.core);
        async move {
            let mut quiet = 0;
            while quiet < LOOKS {
                sleep(LOOK_AGAIN).await;
                quiet = if is_at_rest(&core) { quiet + 1 } else { 0 };
            }
        }
    }
}

fn is_at_rest(core: &DrainCore) -> bool {
    let state = core.lock();
    state.entering() == 0 && !state.open.values().any(|entry| entry.work.is_busy() && !entry.work.is_aside())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    const LONG: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn a_pause_shuts_the_gate_but_for_who_asks_and_waits_for_what_is_in_hand() {
        let drain = Drain::new();
        drain.accept(true);
        let job = drain.register("job");
        drain.pause();
        assert!(drain.is_paused());
        assert!(drain.enter(false).is_none(), "nothing is taken");
        assert!(drain.enter(true).is_some(), "but who asks about the service is heard");
        assert_eq!(drain.in_hand_now(9).count, 1);
        assert!(timeout(LONG, drain.at_rest()).await.is_err(), "the job goes on");
        drop(job);
        timeout(LONG, drain.at_rest()).await.unwrap();
        drain.accept(false);
        drain.accept(true);
        assert!(drain.enter(false).is_none(), "a reload that failed does not end it");
        drain.resume();
        assert!(drain.enter(false).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_is_over_in_a_pause_and_comes_again() {
        let drain = Drain::new();
        drain.accept(true);
        let mut gate = drain.turn().await.unwrap();
        drain.pause();
        timeout(LONG, gate.shut()).await.unwrap();
        let waiting = tokio::spawn(drain.turn());
        tokio::task::yield_now().await;
        drain.resume();
        assert!(timeout(LONG, waiting).await.unwrap().unwrap().is_some());
        drain.pause();
        drain.begin(LONG);
        assert!(timeout(LONG, drain.turn()).await.unwrap().is_none(), "a drain is no pause");
    }
}
