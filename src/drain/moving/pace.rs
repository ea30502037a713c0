//! How fast connections move: all at once would take the processors from those who ask just now.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::sleep;

use super::Route;
use crate::drain::core::{DrainCore, Phase};

/// Some may leave, and then there is a pause of so long.
const TICK: Duration = Duration::from_millis(5);
/// So many may leave in a tick at least.
const AT_LEAST: usize = 24;
/// Whoever could not leave is asked again after so long, at the earliest.
const LAP: Duration = Duration::from_millis(50);

/// Has those that can move asked to, again and again. Returns when there is none, or they were cut.
pub(super) async fn pace(core: &Arc<DrainCore>, route: &Route) {
    // The first to be told are those that have been silent for longest, as a rule: the oldest.
    let mut from = 0;
    let mut lap = tokio::time::Instant::now();
    let per_tick = |open: usize, ticks: u128| open.div_ceil(usize::try_from(ticks.max(1)).unwrap_or(usize::MAX));
    let open = core.lock().open.len();
    let some = per_tick(open, route.within.as_millis() / TICK.as_millis()).max(AT_LEAST);
    loop {
        if core.phase() != Phase::Draining {
            return;
        }
        if route.shut.load(Ordering::Relaxed) {
            // Those that are on their way may still be taken.
            return core.cut().await;
        }
        let most = if core.hurried.load(Ordering::Acquire) { usize::MAX } else { some };
        route.permits.refill(most);
        from = match core.wake_movable(from, most) {
            Some(next) => next,
            None => {
                if core.movable() == 0 && route.permits.out() == 0 {
                    return;
                }
                let rest = LAP.saturating_sub(lap.elapsed());
                tokio::select! {
                    () = sleep(rest) => {}
                    () = core.stepped.notified() => {}
                }
                lap = tokio::time::Instant::now();
                0
            }
        };
        sleep(TICK).await;
    }
}
