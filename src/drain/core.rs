//! What a drain counts, and how far it has got: all that the handle and the guards share.

use super::moving::Moving;
use super::pause::Pausing;
use crate::metrics::{Counted, Metrics};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// What is left of the linger in a hurry: whoever has just connected is just sending.
pub const HURRY_LINGER: Duration = Duration::from_millis(100);

/// The time that longer ones are cut to: thirty years are for ever, and no clock overflows.
pub(crate) const FAR: Duration = Duration::from_secs(60 * 60 * 24 * 365 * 30);

/// Returns `at + by`, at most [`FAR`] ahead.
pub(crate) fn later(at: Instant, by: Duration) -> Instant {
    at + by.min(FAR)
}

/// How far a drain has got. It is read once per poll of a connection, without a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Open,
    Draining,
    Hammered,
}

/// What the drain needs from the thing it counts.
pub(crate) trait Work: Send + Sync {
    /// Tells the work to look again: the phase has changed, or hurry was asked for.
    fn wake(&self);
    /// Returns what a cut would break off, in words; `None` if there is nothing to lose.
    fn doing(&self) -> Option<String>;
    /// Returns how it is counted, if it is a connection.
    fn connection(&self) -> Option<&Counted> {
        None
    }
    /// Returns whether it can go to the next generation, now or when nothing of it is in progress;
    /// else the reason, in one word.
    fn movable(&self) -> Result<(), &'static str> {
        Err("handler")
    }
    /// Returns whether it is about to be a connection that may go to the next generation.
    fn is_coming(&self) -> bool {
        false
    }
    /// Returns the number of the request that it is in the middle of, if it is a connection that
    /// can go elsewhere afterwards.
    fn in_hand(&self) -> Option<u64> {
        None
    }
    /// Returns what there is to lose just now. Unlike [`doing`](Self::doing) it changes nothing.
    fn held(&self) -> Option<String> {
        self.doing()
    }
    /// Returns whether it is in the middle of something that a pause waits for. Of what is not
    /// known better, that is so.
    fn is_busy(&self) -> bool {
        true
    }
    /// Returns whether it is of somebody who asks about the service, and none of its work.
    fn is_aside(&self) -> bool {
        false
    }
    /// Returns the listener that it came from, and the protocol that it speaks.
    fn kind(&self) -> (String, &'static str) {
        self.connection().map_or((String::new(), "job"), Counted::kind)
    }
}

pub(crate) struct DrainCore {
    pub(super) phase: AtomicU8,
    pub(super) hurried: AtomicBool,
    pub(super) begun: OnceLock<Begun>,
    /// Whether it is this generation's turn.
    pub(super) gate: watch::Sender<bool>,
    /// Whether it is, and there is no pause.
    pub(super) taking: watch::Sender<bool>,
    pub(super) pausing: Pausing,
    /// The listeners for who asks about the service.
    pub(super) aside: Mutex<BTreeSet<String>>,
    /// It is notified when the drain begins, in a hurry, and when the hammer falls.
    pub(super) stepped: Arc<Notify>,
    /// It is notified when the last guard goes.
    pub(super) emptied: Notify,
    pub(super) state: Mutex<Register>,
    pub(super) metrics: Metrics,
    pub(super) moving: Moving,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Begun {
    pub(super) at: Instant,
    pub(super) linger: Duration,
}

#[derive(Default)]
pub(super) struct Register {
    pub(super) gate: bool,
    pub(super) paused: bool,
    /// Accept loops inside accept(2): what they return is not in `open` yet, but counts.
    pub(super) accepting: usize,
    /// Those of them that are for who asks about the service.
    pub(super) accepting_aside: usize,
    /// So much of the work of the service was counted so far.
    pub(super) taken: u64,
    pub(super) next: u64,
    /// What is open, by age.
    pub(super) open: BTreeMap<u64, OpenWork>,
}

pub(super) struct OpenWork {
    pub(super) work: Arc<dyn Work>,
    pub(super) cut: bool,
}

impl DrainCore {
    pub(super) fn new() -> Self {
        Self {
            phase: AtomicU8::new(Phase::Open as u8),
            hurried: AtomicBool::new(false),
            begun: OnceLock::new(),
            gate: watch::Sender::new(false),
            taking: watch::Sender::new(false),
            pausing: Pausing::default(),
            aside: Mutex::default(),
            stepped: Arc::new(Notify::new()),
            emptied: Notify::new(),
            state: Mutex::default(),
            metrics: Metrics::default(),
            moving: Moving::default(),
        }
    }

    #[inline]
    pub(super) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Open,
            1 => Phase::Draining,
            _ => Phase::Hammered,
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Register> {
        // nothing in a critical section can panic half-way
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells who waits whether the gate is open.
    pub(super) fn tell_gate(&self, state: &Register) {
        self.gate.send_replace(state.gate);
        self.taking.send_replace(state.takes(false));
    }

    /// Notes that the work ends by itself, unless it was cut. From here on the hammer does not name
    /// it.
    #[cfg(feature = "metrics")]
    pub(super) fn note_end(&self, id: u64) {
        if self.phase() == Phase::Open {
            return;
        }
        if let Some(work) = self.end(id)
            && let Some(connection) = work.connection()
        {
            connection.drained();
        }
    }

    /// Takes it from the hammer's list, unless it was cut.
    pub(super) fn end(&self, id: u64) -> Option<Arc<dyn Work>> {
        match self.lock().open.get_mut(&id) {
            Some(entry) => (!std::mem::replace(&mut entry.cut, true)).then(|| Arc::clone(&entry.work)),
            None => None,
        }
    }

    pub(super) fn release(&self, from: impl FnOnce(&mut Register)) {
        let mut state = self.lock();
        from(&mut state);
        let empty = state.is_empty();
        drop(state);
        if empty && self.phase() != Phase::Open {
            self.emptied.notify_waiters();
        }
    }
}

impl Register {
    /// Whether something may be taken; `aside`: by who asks about the service.
    pub(super) fn takes(&self, aside: bool) -> bool {
        self.gate && (aside || !self.paused)
    }

    /// Accept loops that are just taking some work of the service.
    pub(super) fn entering(&self) -> usize {
        self.accepting - self.accepting_aside
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty() && self.accepting == 0
    }
}
