//! Who may go now: so many at a time, and so many in a while.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The connections that are on their way at a time and not taken yet. They are not served
/// meanwhile, which is why there are few of them.
pub(crate) const WINDOW: usize = 64;

/// A connection leaves its task only with a permit: who is in the queue of a process that does not
/// read it, as it is stopped, is served by nobody.
#[derive(Debug)]
pub(crate) struct Permits {
    /// How many may be on their way at a time.
    window: usize,
    /// On their way.
    out: AtomicUsize,
    /// How many more may leave until the next [`refill`](Self::refill).
    left: AtomicUsize,
}

/// A place among those that are on their way, until it is dropped.
#[derive(Debug)]
pub(crate) struct Permit(Arc<Permits>);

impl Default for Permits {
    fn default() -> Self {
        Self::of_window(WINDOW)
    }
}

impl Permits {
    fn of_window(window: usize) -> Self {
        Self { window, out: AtomicUsize::new(0), left: AtomicUsize::new(0) }
    }

    /// Any number may be on their way at a time: nobody serves them until all have left.
    pub(crate) fn of_any_number() -> Self {
        Self::of_window(usize::MAX)
    }

    /// Says how many may leave until this is said again.
    pub(crate) fn refill(&self, left: usize) {
        self.left.store(left, Ordering::Relaxed);
    }

    pub(crate) fn take(self: &Arc<Self>) -> Option<Permit> {
        let permit = self.place()?;
        self.turn().then_some(permit)
    }

    /// Takes a turn: one of those that may leave in this while gets ready to, and goes when it has
    /// a [`place`](Self::place).
    pub(crate) fn turn(&self) -> bool {
        let less = |count: usize| count.checked_sub(1);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }

    /// Takes a place for one that has had its turn.
    pub(crate) fn place(self: &Arc<Self>) -> Option<Permit> {
        let more = |out: usize| (out < self.window).then_some(out + 1);
        self.out.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Permit(Arc::clone(self)))
    }

    /// Returns how many are on their way.
    pub(crate) fn out(&self) -> usize {
        self.out.load(Ordering::Relaxed)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.out.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_leave_in_a_while_and_few_are_out() {
        let permits = Arc::new(Permits::default());
        assert!(permits.take().is_none(), "nobody may before it is said");
        permits.refill(2);
        let first = permits.take().unwrap();
        let _second = permits.take().unwrap();
        assert!(permits.take().is_none() && permits.out() == 2, "who gets none is not counted");
        drop(first);
        assert!(permits.take().is_none() && permits.out() == 1, "a place that is free again is none more in a while");
        permits.refill(1);
        assert!(permits.turn() && !permits.turn(), "whoever gets ready first has had its turn");
        assert!(permits.take().is_none() && permits.place().is_some());
        permits.refill(usize::MAX);
        let all: Vec<_> = std::iter::from_fn(|| permits.take()).collect();
        assert_eq!((all.len(), permits.out()), (WINDOW - 1, WINDOW));
    }
}
