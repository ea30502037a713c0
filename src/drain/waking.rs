//! Telling what is open that the drain has got on.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::sleep;

use super::{Core, Phase, Work};

/// So many are told in one go.
const AT_ONCE: usize = 64;
/// The pause between two goes.
const PAUSE: Duration = Duration::from_millis(1);
/// However many there are, they are told in so many goes: a quarter of a second, as each pause is about two milliseconds.
const GOES: usize = 128;

impl Core {
    pub(super) fn wake_all(&self) {
        self.wake_some(0, u64::MAX, usize::MAX);
    }

    /// A drain has begun. No connection has to know at once: its next request shows it, or the end of its linger. To wake ten
    /// thousand takes milliseconds of all processors, just when the next generation wants to answer for the first time.
    pub(super) fn wake_in_turn(self: &Arc<Self>) {
        let (until, goes) = {
            let state = self.lock();
            (state.next, state.open.len().div_ceil(GOES).max(AT_ONCE))
        };
        let Some(mut from) = self.wake_some(0, until, goes) else { return };
        let Ok(runtime) = Handle::try_current() else { return self.wake_all() };
        let core = Arc::clone(self);
        runtime.spawn(async move {
            // in a hurry all have been woken
            while core.phase() == Phase::Draining && !core.hurried.load(Ordering::Acquire) {
                sleep(PAUSE).await;
                match core.wake_some(from, until, goes) {
                    Some(next) => from = next,
                    None => return,
                }
            }
        });
    }

    /// The oldest, `most` of them; the first that was left out.
    fn wake_some(&self, from: u64, until: u64, most: usize) -> Option<u64> {
        // not under the lock: a waker may drop a task and with it a guard
        let (work, next) = {
            let state = self.lock();
            let mut open = state.open.range(from..until);
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

    use super::super::Drain;
    use super::*;

    struct Counting(Arc<AtomicUsize>);

    impl Work for Counting {
        fn wake(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
        fn doing(&self) -> Option<String> {
            None
        }
    }

    fn open(drain: &Drain, count: usize) -> (Arc<AtomicUsize>, Vec<super::super::Guard>) {
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
    async fn in_a_hurry_all_are_told_at_once_and_none_again() {
        for hammer in [false, true] {
            let drain = Drain::new();
            let (woken, _guards) = open(&drain, 1000);
            drain.begin(Duration::ZERO);
            let first = woken.load(Ordering::Relaxed);
            if hammer {
                drain.hammer();
            } else {
                drain.hurry();
            }
            assert_eq!(woken.load(Ordering::Relaxed), first + 1000);
            sleep(Duration::from_secs(1)).await;
            assert!(woken.load(Ordering::Relaxed) <= first + 1000 + AT_ONCE, "a go may have been under way");
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
