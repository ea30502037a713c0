//! Having nothing to do, and ending for that reason without losing who comes in that moment.

use super::handle::Drain;
use std::future::Future;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// It is looked at so many times within the time that something must be idle.
const LOOKS: u32 = 8;
/// But no more often, and no less often than this.
const SHORTEST_LOOK: Duration = Duration::from_millis(5);
const LONGEST_LOOK: Duration = Duration::from_secs(60);

/// How much work was taken until a moment in which there was none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Idle(u64);

impl Drain {
    /// Resolves when there has been no work for that long.
    pub(crate) fn idle_for(&self, time: Duration) -> impl Future<Output = Idle> + Send + 'static {
        let drain = self.clone();
        async move {
            let look = (time / LOOKS).clamp(SHORTEST_LOOK, LONGEST_LOOK);
            let mut since = Instant::now();
            let mut before = drain.idle();
            loop {
                sleep(look.min(time)).await;
                let now = drain.idle();
                if now.is_none() || now != before {
                    since = Instant::now();
                }
                before = now;
                if let Some(idle) = now.filter(|_| since.elapsed() >= time) {
                    return idle;
                }
            }
        }
    }

    /// Shuts the gate, if there is still no work and there was none since then. Whoever comes from
    /// here on is in the kernel's queue, and was not accepted.
    pub(crate) fn shut_if_idle(&self, since: Idle) -> bool {
        let mut state = self.core.lock();
        if state.idle() != Some(since) || !state.gate {
            return false;
        }
        state.gate = false;
        self.core.tell_gate(&state);
        true
    }

    fn idle(&self) -> Option<Idle> {
        self.core.lock().idle()
    }
}

impl super::core::Register {
    fn idle(&self) -> Option<Idle> {
        let works = self.open.values().any(|entry| !entry.work.is_aside());
        (!works && self.entering() == 0).then_some(Idle(self.taken))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    const TIME: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn who_comes_in_between_begins_the_time_anew_and_who_comes_at_the_end_keeps_the_gate_open() {
        let drain = Drain::new();
        drain.accept(true);
        let idle = tokio::spawn(drain.idle_for(TIME));
        sleep(TIME * 9 / 10).await;
        drop(drain.register("short"));
        let begun = Instant::now();
        let idle = timeout(TIME * 2, idle).await.unwrap().unwrap();
        assert!(begun.elapsed() >= TIME, "{:?}", begun.elapsed());
        drop(drain.register("in that moment"));
        assert!(!drain.shut_if_idle(idle));
        assert!(drain.enter(false).is_some());
        let idle = timeout(TIME * 2, drain.idle_for(TIME)).await.unwrap();
        let entering = drain.enter(false);
        assert!(!drain.shut_if_idle(idle), "one is just accepted");
        drop(entering);
        assert!(drain.shut_if_idle(idle));
        assert!(drain.enter(false).is_none());
    }
}
