//! What has become of the connections that were to move.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// How many went to the next generation, and how many stayed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Moved {
    /// Taken by the next generation.
    pub(crate) moved: usize,
    /// Drained here, by the reason in one word.
    pub(crate) stayed: BTreeMap<&'static str, usize>,
    /// From the handover to the last one that was taken.
    pub(crate) took: Duration,
}

impl Moved {
    pub(crate) fn stayed(&self) -> usize {
        self.stayed.values().sum()
    }
}

#[derive(Debug)]
pub(super) struct Summary {
    counts: Mutex<Moved>,
    ended: watch::Sender<bool>,
}

impl Default for Summary {
    fn default() -> Self {
        Self { counts: Mutex::default(), ended: watch::Sender::new(false) }
    }
}

impl Summary {
    pub(super) fn moved(&self, count: usize, began: Instant) {
        let mut counts = self.counts();
        counts.moved += count;
        counts.took = began.elapsed();
    }

    pub(super) fn stayed(&self, reason: &'static str) {
        *self.counts().stayed.entry(reason).or_default() += 1;
    }

    pub(super) fn end(&self) {
        self.ended.send_replace(true);
    }

    pub(super) async fn ended(&self) {
        // the sender is ours
        let _ = self.ended.subscribe().wait_for(|ended| *ended).await;
    }

    pub(super) fn counts(&self) -> MutexGuard<'_, Moved> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
