//! Telling what is open that the drain has got on.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::sleep;

use super::core::{DrainCore, Phase, Work};
use super::moving::Route;

/// How many are told in one go, at least.
const AT_ONCE: usize = 64;
/// The pause between two goes.
const PAUSE: Duration = Duration::from_millis(1);
/// The most goes in which all are told, however many they are: that takes a quarter of a second, as
/// each pause is about two milliseconds.
const GOES: usize = 128;

impl DrainCore {
    pub(super) fn wake_all(&self) {
        self.wake_some(0, u64::MAX, usize::MAX, |_| true);
    }

    /// Wakes those that can move, `most` of them, from that one on; returns the first that was left
    /// out.
    pub(super) fn wake_movable(&self, route: &Route, from: u64, most: usize) -> Option<u64> {
        self.wake_some(from, u64::MAX, most, |work| route.is_for(work))
    }

    /// Returns whether something can move, or is just coming that may.
    pub(super) fn has_movable(&self, route: &Route) -> bool {
        let state = self.lock();
        let can = |work: &dyn Work| route.is_for(work) || work.is_coming();
        state.accepting > 0 || state.open.values().any(|entry| can(&*entry.work))
    }

    /// Tells what is open of the drain, one slice after the other. No connection has to know at
    /// once: its next request shows it, or the end of its linger. To wake ten thousand takes
    /// milliseconds of all processors, just when the next generation wants to answer for the first
    /// time.
    pub(super) fn wake_in_turn(self: &Arc<Self>) {
        if self.hurried.load(Ordering::Acquire) {
            return self.wake_all();
        }
        let (until, most) = {
            let state = self.lock();
            (state.next, state.open.len().div_ceil(GOES).max(AT_ONCE))
        };
        // Whoever moves is asked to in a turn of its own.
        let moving = self.moving.is_open();
        let who = move |work: &dyn Work| !moving || work.movable().is_err();
        let Some(mut from) = self.wake_some(0, until, most, who) else { return };
        let Ok(runtime) = Handle::try_current() else { return self.wake_all() };
        let core = Arc::clone(self);
        runtime.spawn(async move {
            // the hammer wakes all by itself
            while core.phase() == Phase::Draining {
                sleep(PAUSE).await;
                match core.wake_some(from, until, most, who) {
                    Some(next) => from = next,
                    None => return,
                }
            }
        });
    }

    /// Wakes the oldest of these, `most` of them, and returns the first that was left out.
    fn wake_some(&self, from: u64, until: u64, most: usize, who: impl Fn(&dyn Work) -> bool) -> Option<u64> {
        // not under the lock: a waker may drop a task and with it a guard
        let (work, next) = {
            let state = self.lock();
            let mut open = state.open.range(from..until).filter(|(_, entry)| who(&*entry.work));
            let work: Vec<Arc<dyn Work>> = open.by_ref().take(most).map(|(_, entry)| Arc::clone(&entry.work)).collect();
            (work, open.next().map(|(id, _)| *id))
        };
        for work in work {
            work.wake();
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::drain::{Drain, Guard};

    struct Counting(Arc<AtomicUsize>);

    impl Work for Counting {
        fn wake(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
        fn doing(&self) -> Option<String> {
            None
        }
    }

    fn open(drain: &Drain, count: usize) -> (Arc<AtomicUsize>, Vec<Guard>) {
        let woken = Arc::new(AtomicUsize::new(0));
        let guards = (0..count).map(|_| drain.track(Arc::new(Counting(Arc::clone(&woken))))).collect();
        (woken, guards)
    }

    #[tokio::test(start_paused = true)]
    async fn few_are_told_at_once_and_many_in_turn() {
        let drain = Drain::new();
        let (woken, guards) = open(&drain, AT_ONCE);
        drain.begin(Duration::ZERO);
        assert_eq!(woken.load(Ordering::Relaxed), AT_ONCE);
        drop(guards);

        let drain = Drain::new();
        let count = AT_ONCE * GOES * 2 + 1;
        let (woken, mut guards) = open(&drain, count);
        drain.begin(Duration::ZERO);
        let first = woken.load(Ordering::Relaxed);
        assert!((AT_ONCE..count / 10).contains(&first), "{first}");
        guards.drain(count / 2..).for_each(drop);
        sleep(PAUSE * 3 * u32::try_from(GOES).unwrap()).await;
        assert_eq!(woken.load(Ordering::Relaxed), count / 2, "each once, but for who had ended");
    }

    #[tokio::test(start_paused = true)]
    async fn in_a_hurry_and_by_the_hammer_all_are_told_at_once() {
        let steps: [fn(&Drain); 2] = [Drain::hurry, |drain| drop(drain.hammer())];
        for step in steps {
            let drain = Drain::new();
            let (woken, _guards) = open(&drain, 1000);
            drain.begin(Duration::ZERO);
            let first = woken.load(Ordering::Relaxed);
            step(&drain);
            assert_eq!(woken.load(Ordering::Relaxed), first + 1000);

            let drain = Drain::new();
            let (woken, _guards) = open(&drain, 1000);
            step(&drain);
            drain.begin(Duration::ZERO);
            assert_eq!(woken.load(Ordering::Relaxed), 1000, "also if it came before");
        }
    }

    #[test]
    fn without_a_runtime_all_are_told_at_once() {
        let drain = Drain::new();
        let (woken, _guards) = open(&drain, 1000);
        drain.begin(Duration::ZERO);
        assert!(woken.load(Ordering::Relaxed) >= 1000);
    }
}
