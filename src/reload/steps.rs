//! What happens to a service, told as it happens, and the reloads that are over.

use std::sync::{Arc, OnceLock};

use serde::Serialize;
use tokio::sync::broadcast;

pub use crate::reload::history::{Past, ReloadOutcome};

/// A listener that is so many steps behind misses the oldest of them.
pub const STEPS_KEPT: usize = 256;

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
    /// The connections of this generation that could move to the next one have: [`Step::moved`].
    Moved,
    /// The connections of this generation that can be are kept for the next start of the service:
    /// [`Step::moved`].
    Kept,
    /// Connections that have waited for this start are served: [`Step::moved`].
    Resumed,
    /// Nothing new is taken, for some time: clients wait.
    Paused,
    /// In that pause nothing is in hand any more.
    AtRest,
    /// The pause is over: who has waited is served.
    PauseOver,
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
    /// [`What::Moved`]: how many connections went to the next generation. [`What::Kept`]: how many
    /// wait for the next start. [`What::Resumed`]: how many have waited for this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub moved: Option<usize>,
    /// How many did not, and are finished by this generation; of [`What::Resumed`], how many were
    /// closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stayed: Option<usize>,
}

/// Who wants to know each step. The channel is made for the first of them: it has room for
/// [`STEPS_KEPT`].
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
