//! Waiting until what is in hand is finished, while everything is served on.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use crate::drain::core::{DrainCore, Phase};
use crate::drain::handle::Drain;

/// Whether a request is finished is looked at so often, at most.
const TICK: Duration = Duration::from_millis(2);
/// What has begun so short a time ago is not waited for: it is over soon, as a rule.
const YOUNG: Duration = Duration::from_millis(50);
/// How often is waited for what has begun while the others were waited for. In a service that
/// always has long requests in hand no moment is better than another.
const ROUNDS: usize = 3;

impl Drain {
    /// Resolves when the requests are finished that are in hand now, or at that time.
    pub(crate) fn settled(&self, until: Instant) -> impl Future<Output = ()> + Send + 'static {
        let core = Arc::clone(&self.core);
        async move { settled(&core, until).await }
    }
}

pub(super) async fn settled(core: &DrainCore, until: Instant) {
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let mut in_hand = core.in_hand();
        while !in_hand.is_empty() {
            if core.phase() == Phase::Hammered || Instant::now() >= until {
                return;
            }
            tokio::select! {
                () = sleep(TICK) => {}
                () = sleep_until(until) => {}
            }
            core.drop_finished(&mut in_hand);
        }
        if began.elapsed() <= YOUNG {
            return;
        }
    }
}

impl DrainCore {
    /// Lists what is in the middle of a request: which piece of work, and which request.
    pub(super) fn in_hand(&self) -> Vec<(u64, u64)> {
        let state = self.lock();
        state.open.iter().filter_map(|(id, entry)| Some((*id, entry.work.in_hand()?))).collect()
    }

    fn drop_finished(&self, in_hand: &mut Vec<(u64, u64)>) {
        let state = self.lock();
        in_hand.retain(|(id, request)| state.open.get(id).is_some_and(|entry| entry.work.in_hand() == Some(*request)));
    }
}
