//! How fast connections move: all at once would take the processors from those who ask just now.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Route;
use crate::drain::core::{DrainCore, Phase};
use crate::transit::permits::WINDOW;

/// Some may leave, and then there is a pause of so long, at most: each wakes both processes, so
/// that few long ones cost less.
const TICK: Duration = Duration::from_millis(8);
/// In a hurry, or if they are very many.
const SHORT_TICK: Duration = Duration::from_millis(1);
/// So many may leave before each pause at least.
const AT_LEAST: usize = 40;
/// Whoever could not leave is asked again after so long, at the earliest.
const LAP: Duration = Duration::from_millis(50);
const FASTEST: (usize, Duration) = (WINDOW, SHORT_TICK);

/// How many are asked to leave before each pause: as many as it takes to be through in time, also
/// where pauses last longer than they should, as they do where processors are busy.
struct Pace {
    began: Instant,
    open: usize,
    within: Duration,
    pause: Duration,
    asked: usize,
}

impl Pace {
    fn new(open: usize, within: Duration) -> Self {
        let rounds = u32::try_from(open / AT_LEAST).unwrap_or(u32::MAX).max(1);
        let pause = (within / rounds).clamp(SHORT_TICK, TICK);
        Self { began: Instant::now(), open, within, pause, asked: 0 }
    }

    /// Never more than may be out at a time: the others would find no place, and have to be asked
    /// once more.
    fn step(&mut self) -> (usize, Duration) {
        let passed = (self.began.elapsed() + self.pause).min(self.within).as_nanos();
        let due = passed.saturating_mul(self.open as u128) / self.within.as_nanos().max(1);
        let some = usize::try_from(due).unwrap_or(usize::MAX).saturating_sub(self.asked).clamp(AT_LEAST, WINDOW);
        self.asked = self.asked.saturating_add(some);
        (some, self.pause)
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
        for (open, late, took) in [
            (10_000, Duration::ZERO, 2000),
            (10_000, Duration::from_millis(4), 2000),
            (1000, Duration::ZERO, 200),
            (40_000, Duration::ZERO, 2000),
            (1, Duration::ZERO, 0),
        ] {
            let mut pace = Pace::new(open, within);
            loop {
                let (some, pause) = pace.step();
                assert!((AT_LEAST..=WINDOW).contains(&some));
                if pace.asked >= open {
                    break;
                }
                sleep(pause + late).await;
            }
            let took_really = pace.began.elapsed().as_millis();
            assert!(took_really <= took + 20, "{open} connections, {late:?} late: {took_really} ms");
        }
        let pause = |open, within| Pace::new(open, within).pause;
        assert_eq!((pause(10_000, within), pause(1, within), pause(10_000, Duration::MAX)), (TICK, TICK, TICK));
        assert_eq!((pause(20_000, within), pause(usize::MAX, within)), (within / 500, SHORT_TICK));
        for within in [Duration::ZERO, Duration::MAX] {
            assert!((AT_LEAST..=WINDOW).contains(&Pace::new(usize::MAX, within).step().0));
        }
    }
}
