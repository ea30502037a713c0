//! What happens to a service, told as it happens, and the reloads that are over.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use tokio::sync::broadcast;

use crate::service::clock::{millis, now};
use crate::service::driver::Driver;
pub use crate::service::past::Past;
use crate::systemd::notify::monotonic_usec;
use crate::wire::frame::{HISTORY, Hello};

/// A listener that is so many steps behind misses the oldest of them.
pub const STEPS_KEPT: usize = 256;

/// Of a reason that is remembered; the journal has all of it.
const REASON_KEPT: usize = 300;

/// What a [`Step`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum What {
    /// The first generation serves.
    Serves,
    /// A reload begins.
    Reloading,
    /// The next generation was started.
    Started,
    /// The next generation is ready.
    Ready,
    /// The next generation accepts, and this one does not any more.
    Switched,
    /// The next generation is main.
    HandedOver,
    /// The next generation failed: [`Step::reason`]. This one serves on.
    RolledBack,
    /// This generation has reloaded itself.
    InPlace,
    /// This generation, which was the next one, is main.
    Main,
    /// This generation finishes what it has accepted: it handed over.
    Draining,
    /// This generation finishes what it has accepted: the service stops.
    Stopping,
    /// What was left has been cut.
    Hammered,
    /// A process of a supervised program has ended that nobody had told to: [`Step::reason`].
    Crashed,
    /// This generation is over.
    Exits,
}

/// One step in the life of a service, as the generation that takes it tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Step {
    /// What it is.
    pub what: What,
    /// The number of the generation that tells it.
    pub generation: u64,
    /// The pid of that generation.
    pub pid: u32,
    /// Of the next generation, once it is started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_pid: Option<u32>,
    /// Its number, where that is not one more: of a supervised program with several workers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
    /// Of the reload, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handover_id: Option<String>,
    /// Since that reload was asked for, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reload_ms: Option<u64>,
    /// [`What::RolledBack`]: why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How many connections are open, and how much other work is counted.
    pub connections: usize,
}

/// Who wants to know each step. The channel is made for the first of them: it has room for [`STEPS_KEPT`].
#[derive(Debug, Clone, Default)]
pub(crate) struct Listeners(Arc<OnceLock<broadcast::Sender<Step>>>);

impl Listeners {
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Step> {
        self.0.get_or_init(|| broadcast::Sender::new(STEPS_KEPT)).subscribe()
    }

    /// Nobody need listen.
    pub(crate) fn tell(&self, step: Step) {
        if let Some(listeners) = self.0.get() {
            let _ = listeners.send(step);
        }
    }
}

/// What a generation remembers, and whom it tells.
#[derive(Debug)]
pub(crate) struct Chronicle {
    pub(crate) listeners: Listeners,
    /// The oldest first.
    pub(crate) past: Vec<Past>,
    pub(crate) launched: Instant,
    pub(crate) main_since: Option<Instant>,
    /// When the reload that we came with was asked for, on the clock that all processes share.
    came_usec: u64,
}

impl Chronicle {
    pub(crate) fn open(came_with: Option<&Hello>) -> Self {
        Self {
            listeners: Listeners::default(),
            past: came_with.map(|hello| hello.past.iter().cloned().map(Past::from).collect()).unwrap_or_default(),
            launched: now(),
            main_since: None,
            came_usec: came_with.map_or(0, |hello| hello.asked_usec),
        }
    }

    fn remember(&mut self, past: Past) {
        self.past.push(past);
        let over = self.past.len().saturating_sub(HISTORY);
        self.past.drain(..over);
    }
}

impl Driver {
    pub(crate) fn tell(&mut self, what: What) {
        self.tell_why(what, None);
    }

    /// To whoever listens. What ends a reload is remembered, too.
    pub(crate) fn tell_why(&mut self, what: What, reason: Option<&str>) {
        let (id, ms) = match &self.reload {
            Some(reload) => (Some(reload.handover_id.clone()), Some(millis(reload.began))),
            None => (self.handover_id.clone(), None),
        };
        let outcome = match what {
            What::Main => {
                self.chronicle.main_since = Some(now());
                self.came_in().map(|took| (self.generation.saturating_sub(1), took, "handed_over"))
            }
            What::Serves => {
                self.chronicle.main_since = Some(now());
                None
            }
            What::RolledBack => ms.map(|ms| (self.generation, ms, "rolled_back")),
            What::InPlace => ms.map(|ms| (self.generation, ms, "in_place")),
            _ => None,
        };
        if let Some((generation, took_ms, outcome)) = outcome {
            self.chronicle.remember(Past {
                handover_id: id.clone().unwrap_or_default(),
                generation,
                outcome: outcome.to_owned(),
                reason: reason.map(|reason| reason.chars().take(REASON_KEPT).collect()),
                took_ms,
                ended_unix_ms: unix_ms(),
            });
        }
        let step = Step {
            what,
            generation: self.generation,
            pid: self.pid,
            next_pid: self.next_pid().or_else(|| self.reload.as_ref()?.new_pid),
            next: None,
            handover_id: id,
            reload_ms: ms,
            reason: reason.map(str::to_owned),
            connections: self.drain.active(),
        };
        self.chronicle.listeners.tell(step);
    }

    fn came_in(&self) -> Option<u64> {
        let came = Some(self.chronicle.came_usec).filter(|usec| *usec > 0)?;
        Some(monotonic_usec().saturating_sub(came) / 1000)
    }

    /// When the running reload was asked for, on the clock that all processes share.
    pub(crate) fn asked_usec(&self) -> u64 {
        let ago = self.reload.as_ref().map_or(Duration::ZERO, |r| now().saturating_duration_since(r.began));
        monotonic_usec().saturating_sub(u64::try_from(ago.as_micros()).unwrap_or(0))
    }
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
