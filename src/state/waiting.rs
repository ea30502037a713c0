//! Notices who waits for a state on a thread that others may need.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tracing::warn;

/// A thread of a runtime that waits for longer holds up what else the runtime does.
const LONG: Duration = Duration::from_millis(100);

thread_local! {
    static MAY_WAIT: Cell<bool> = const { Cell::new(false) };
}

/// Calls it on a thread that nobody else needs: it may wait for a state.
pub(crate) fn may_wait<R>(f: impl FnOnce() -> R) -> R {
    struct Before(bool);
    impl Drop for Before {
        fn drop(&mut self) {
            MAY_WAIT.set(self.0);
        }
    }
    let _before = Before(MAY_WAIT.replace(true));
    f()
}

/// A wait for a state.
#[derive(Debug)]
pub(super) struct Wait<'a> {
    pub(super) name: &'a str,
    /// When it is too long; none, if that is nobody's business, or was said before.
    long: Option<Instant>,
    said: &'a AtomicBool,
}

impl<'a> Wait<'a> {
    /// Begins a wait; `said` is whether it was said of this state before.
    pub(super) fn begin(name: &'a str, said: &'a AtomicBool) -> Self {
        let matters = !MAY_WAIT.get() && !said.load(Ordering::Relaxed) && Handle::try_current().is_ok();
        Self { name, long: matters.then(|| Instant::now() + LONG), said }
    }

    /// Returns how long to sleep, rather than `pause`, so that a long wait is noticed.
    pub(super) fn at_most(&self, pause: Duration) -> Duration {
        self.long
            .map_or(pause, |long| pause.min(long.saturating_duration_since(Instant::now()) + Duration::from_millis(1)))
    }

    /// Says it, if it takes long. To be called whenever it has slept.
    pub(super) fn goes_on(&mut self) {
        // Known to be of a runtime; whether it is one of its threads for blocking calls, which may
        // wait, tokio does not tell.
        if self.long.take_if(|long| Instant::now() >= *long).is_some() && !self.said.swap(true, Ordering::Relaxed) {
            warn!(
                "a thread of the tokio runtime has been waiting for the state {:?} for {LONG:?}, and with it what else it has to do: \
                 unless it is one for blocking calls, use the asynchronous methods, without `blocking_`",
                self.name
            );
        }
    }
}
