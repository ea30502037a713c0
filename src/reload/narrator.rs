//! The narrator: whoever wants to know of a moment is told by it, from the one table of [`moment`].
//!
//! [`moment`]: crate::reload::moment

use crate::metrics::Metrics;
use crate::reload::clock::millis;
use crate::reload::history::{History, Past, ReloadOutcome};
use crate::reload::hook_runner::HookRunner;
use crate::reload::hooks;
use crate::reload::moment::{Facts, Moment};
use crate::reload::steps::{Listeners, Step, What};

/// Tells the journal, the listeners to steps, the hooks, the metrics and the history.
#[derive(Debug)]
pub(crate) struct Narrator {
    listeners: Listeners,
    hooks: HookRunner,
    metrics: Metrics,
    history: History,
}

impl Narrator {
    pub(crate) fn new(listeners: Listeners, hooks: HookRunner, metrics: Metrics, history: History) -> Self {
        Self { listeners, hooks, metrics, history }
    }

    /// Tells a moment to all that its row names, and returns what `systemctl status` says of it.
    pub(crate) fn tell(&mut self, moment: Moment, facts: &Facts<'_>) -> String {
        let row = moment.row();
        moment.log(facts);
        if let Some(outcome) = row.counts.filter(|_| !facts.of_worker) {
            self.metrics.reload(outcome.code());
        }
        if let Some(what) = row.step {
            self.step(what, facts);
        }
        if let Some(outcome) = row.remembers.filter(|_| !facts.of_worker) {
            self.remember(outcome, facts);
        }
        if let Some(when) = row.hook {
            self.hooks.fire(hooks::Event {
                handover_id: facts.handover_id.as_deref().map(str::to_owned),
                accepts: moment == Moment::Accepts,
                reason: facts.reason.map(str::to_owned),
                connections: facts.connections,
                cut: facts.cut.to_vec(),
                ..hooks::Event::new(when, facts.generation)
            });
        }
        moment.status(facts)
    }

    fn step(&mut self, what: What, facts: &Facts<'_>) {
        if matches!(what, What::Serves | What::Main) {
            self.history.is_main_now();
        }
        let counts_connections = matches!(what, What::Moved | What::Kept | What::Resumed);
        self.listeners.tell(Step {
            what,
            generation: facts.generation,
            pid: facts.pid,
            next_pid: facts.new_pid.filter(|pid| *pid != facts.pid),
            next: Some(facts.next).filter(|next| *next > facts.generation + 1),
            handover_id: facts.handover_id.as_deref().map(str::to_owned),
            reload_ms: facts.asked.map(millis),
            reason: facts.reason.map(str::to_owned),
            connections: facts.connections,
            moved: Some(facts.moved).filter(|_| counts_connections),
            stayed: Some(facts.stayed).filter(|_| counts_connections),
        });
    }

    fn remember(&mut self, outcome: ReloadOutcome, facts: &Facts<'_>) {
        let came_with_it = outcome == ReloadOutcome::HandedOver;
        let came_in = self.history.came_in().filter(|_| came_with_it);
        let Some(took_ms) = came_in.or_else(|| facts.asked.map(millis)) else { return };
        let generation = facts.generation.saturating_sub(u64::from(came_with_it));
        let handover_id = facts.handover_id.as_deref().unwrap_or_default();
        self.history.remember(Past::now(handover_id, generation, outcome, facts.reason, took_ms));
    }

    pub(crate) fn history(&self) -> &History {
        &self.history
    }

    pub(crate) fn hooks(&self) -> &HookRunner {
        &self.hooks
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// As [`HookRunner::close`].
    pub(crate) async fn close(&mut self) {
        self.hooks.close().await;
    }
}
