//! How fast connections move: all at once would take the processors from those who ask just now.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Route;
use crate::drain::core::{DrainCore, Phase};
use crate::transit::permits::WINDOW;

/// Some may leave, and then there is a pause of so long.
const TICK: Duration = Duration::from_millis(5);
/// So many may leave in a tick at least.
const AT_LEAST: usize = 24;
/// Whoever could not leave is asked again after so long, at the earliest.
const LAP: Duration = Duration::from_millis(50);
/// In a hurry, or if they are very many.
const FASTEST: (usize, Duration) = (WINDOW, Duration::from_millis(1));

/// How many are asked to leave before each pause: as many as it takes to be through in time, also
/// where pauses last longer than they should, as they do where processors are busy.
struct Pace {
    began: Instant,
    open: usize,
    within: Duration,
    asked: usize,
}

impl Pace {
    fn new(open: usize, within: Duration) -> Self {
        Self { began: Instant::now(), open, within, asked: 0 }
    }

    /// Never more than may be out at a time: the others would find no place, and have to be asked
    /// once more.
    fn step(&mut self) -> (usize, Duration) {
        let ticks = usize::try_from(self.within.as_millis() / TICK.as_millis()).unwrap_or(usize::MAX);
        if self.open / WINDOW >= ticks {
            return FASTEST;
        }
        let part = (self.began.elapsed() + TICK).as_secs_f64() / self.within.as_secs_f64();
        let due = (self.open as f64 * part) as usize;
        let some = due.saturating_sub(self.asked).clamp(AT_LEAST, WINDOW);
        self.asked += some;
        (some, TICK)
    }
}

/// Has those that can move asked to, again and again. Returns when there is none and none is on its
/// way, or they were cut.
pub(super) async fn pace(core: &Arc<DrainCore>, route: &Route) {
    // The first to be told are those that have been silent for longest, as a rule: the oldest.
    let mut from = 0;
    let mut lap = Instant::now();
    let open = core.lock().open.len();
    let mut usual = Pace::new(open, route.within);
    while core.phase() == Phase::Draining {
        let shut = route.shut.load(Ordering::Relaxed);
        let (some, pause) = if core.hurried.load(Ordering::Acquire) { FASTEST } else { usual.step() };
        let next = if shut {
            None // those that are on their way may still be taken
        } else {
            route.permits.refill(some);
            core.wake_movable(route, from, some)
        };
        let Some(next) = next else {
            if route.permits.out() == 0 && (shut || !core.has_movable(route)) {
                return;
            }
            tokio::select! {
                () = sleep(LAP.saturating_sub(lap.elapsed()).max(pause)) => {}
                () = core.stepped.notified() => {}
            }
            lap = Instant::now();
            from = 0;
            continue;
        };
        from = next;
        sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn all_are_asked_in_time_and_no_more_than_find_a_place() {
        let within = Duration::from_secs(2);
        for (open, pause, took) in [(10_000, TICK, 2000), (10_000, 2 * TICK, 2000), (1000, TICK, 205), (1, TICK, 0)] {
            let mut pace = Pace::new(open, within);
            loop {
                assert!((AT_LEAST..=WINDOW).contains(&pace.step().0));
                if pace.asked >= open {
                    break;
                }
                sleep(pause).await;
            }
            let late = pace.began.elapsed().as_millis();
            assert!(late <= took + 20, "{open} connections, a pause of {pause:?}: after {late} ms");
        }
        for (open, within) in [(25_601, within), (10_000, Duration::ZERO), (usize::MAX, within)] {
            assert_eq!(Pace::new(open, within).step(), FASTEST);
        }
        assert_eq!(Pace::new(10_000, Duration::MAX).step(), (AT_LEAST, TICK));
    }
}
