//! How fast connections move: all at once would take the processors from those who ask just now.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::sleep;

use super::Route;
use crate::drain::core::{DrainCore, Phase};
use crate::transit::permits::WINDOW;

/// Some may leave, and then there is a pause of so long.
const TICK: Duration = Duration::from_millis(5);
/// The pause in a hurry, or if they are very many.
const SHORT_TICK: Duration = Duration::from_millis(1);
/// So many may leave in a tick at least.
const AT_LEAST: usize = 24;
/// Whoever could not leave is asked again after so long, at the earliest.
const LAP: Duration = Duration::from_millis(50);

/// How many are asked to leave before each pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Step {
    some: usize,
    pause: Duration,
}

impl Step {
    /// Never more than may be out at a time: the others would find no place, and have to be asked
    /// once more.
    const FASTEST: Self = Self { some: WINDOW, pause: SHORT_TICK };

    fn of(open: usize, within: Duration) -> Self {
        let ticks = usize::try_from(within.as_millis() / TICK.as_millis()).unwrap_or(usize::MAX).max(1);
        match open.div_ceil(ticks).max(AT_LEAST) {
            WINDOW.. => Self::FASTEST,
            some => Self { some, pause: TICK },
        }
    }
}

/// Has those that can move asked to, again and again. Returns when there is none and none is on its
/// way, or they were cut.
pub(super) async fn pace(core: &Arc<DrainCore>, route: &Route) {
    // The first to be told are those that have been silent for longest, as a rule: the oldest.
    let mut from = 0;
    let mut lap = tokio::time::Instant::now();
    let open = core.lock().open.len();
    let usual = Step::of(open, route.within);
    while core.phase() == Phase::Draining {
        let shut = route.shut.load(Ordering::Relaxed);
        let step = if core.hurried.load(Ordering::Acquire) { Step::FASTEST } else { usual };
        let next = if shut {
            None // those that are on their way may still be taken
        } else {
            route.permits.refill(step.some);
            core.wake_movable(route, from, step.some)
        };
        let Some(next) = next else {
            if route.permits.out() == 0 && (shut || !core.has_movable(route)) {
                return;
            }
            tokio::select! {
                () = sleep(LAP.saturating_sub(lap.elapsed()).max(step.pause)) => {}
                () = core.stepped.notified() => {}
            }
            lap = tokio::time::Instant::now();
            from = 0;
            continue;
        };
        from = next;
        sleep(step.pause).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_are_asked_than_find_a_place() {
        let within = Duration::from_secs(2);
        let usual = |some| Step { some, pause: TICK };
        assert_eq!(Step::of(1, within), usual(AT_LEAST));
        assert_eq!(Step::of(10_000, within), usual(25));
        assert_eq!(Step::of(25_000, within), usual(63));
        for (open, within) in [(25_601, within), (10_000, Duration::ZERO), (usize::MAX, within)] {
            assert_eq!(Step::of(open, within), Step::FASTEST);
        }
        assert_eq!(Step::of(10_000, Duration::MAX), usual(AT_LEAST));
    }
}
