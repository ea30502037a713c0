//! A limit to how many connections, or datagrams in hand, there are at a time.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// A full listener is logged, and then not again before this time has passed.
const TOLD_AGAIN: Duration = Duration::from_secs(60);

/// Limits how many connections, or datagrams in hand, one generation has; clones share the number.
/// See [`Acceptor::limit`](super::Acceptor::limit) and
/// [`Datagrams::limit`](super::Datagrams::limit).
///
/// Clients beyond it are not refused: they wait in the kernel's backlog until others have gone.
/// (Datagrams wait in the socket's receive buffer; what that has no room for, the kernel drops.) It
/// is per generation, so while an old one drains there may be more in all.
#[derive(Clone)]
pub struct Limit {
    shared: Arc<LimitSlots>,
}

struct LimitSlots {
    max: usize,
    taken: AtomicUsize,
    freed: Notify,
    told: Mutex<Option<Instant>>,
}

/// One place within the limit, taken until it is dropped.
#[derive(Debug)]
pub(crate) struct LimitSlot {
    limit: Limit,
}

impl Limit {
    /// Makes a limit of `max`. With 0 nothing is ever accepted.
    #[must_use]
    pub fn new(max: usize) -> Self {
        let told = Mutex::default();
        Self { shared: Arc::new(LimitSlots { max, taken: AtomicUsize::new(0), freed: Notify::new(), told }) }
    }

    /// Returns how many places are taken.
    #[must_use]
    pub fn active(&self) -> usize {
        self.shared.taken.load(Ordering::Relaxed)
    }

    pub(crate) fn take(&self) -> Option<LimitSlot> {
        let less = |taken| (taken < self.shared.max).then_some(taken + 1);
        let taken = self.shared.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
        taken.is_ok().then(|| LimitSlot { limit: self.clone() })
    }

    /// Takes a place, if there is a limit.
    ///
    /// # Errors
    /// There is none left, in the word that the next generation refuses with.
    pub(crate) fn slot_of(limit: Option<&Self>) -> Result<Option<LimitSlot>, &'static str> {
        limit.map(|limit| limit.take().ok_or("full")).transpose()
    }

    /// Resolves when a slot may be free.
    pub(crate) async fn freed(&self) {
        let freed = self.shared.freed.notified();
        tokio::pin!(freed);
        freed.as_mut().enable();
        if self.active() >= self.shared.max {
            freed.await;
        }
    }

    pub(crate) fn tell_full(&self, listener: &str) {
        let mut told = self.shared.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|at| at.elapsed() >= TOLD_AGAIN) {
            *told = Some(Instant::now());
            let max = self.shared.max;
            tracing::warn!(listener, max, "{max} are open, which is the limit; clients wait in the kernel's queue");
        }
    }
}

impl Drop for LimitSlot {
    fn drop(&mut self) {
        self.limit.shared.taken.fetch_sub(1, Ordering::AcqRel);
        self.limit.shared.freed.notify_waiters();
    }
}

impl fmt::Debug for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limit").field("max", &self.shared.max).field("active", &self.active()).finish()
    }
}
