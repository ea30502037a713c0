//! What the supervisor is doing, for those who ask or listen; and its end.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::error::{Error, Kind, Result};
use crate::lifecycle::State;
use crate::metrics::{DRAINING, GENERATION};
use crate::reload::clock::millis;
use crate::reload::driver::Lifecycles;
use crate::reload::moment::Facts;
use crate::reload::status::{Older, Status, Supervising};
use crate::supervise::generation::ProgramGeneration;
use crate::supervise::supervision::Supervision;
use crate::systemd::notify::NOTIFY_TIMEOUT;

/// How long clients of the control interface are given to read their last answer.
const LAST_ANSWERS: Duration = Duration::from_millis(500);

impl Supervision {
    /// The number of the newest main generation; 0: there is none.
    pub(super) fn newest_main(&self) -> u64 {
        self.workers.newest_main().map_or(0, |of| of.number)
    }

    /// What `systemctl status` says.
    pub(super) fn serves(&self) -> String {
        let Some(main) = self.workers.newest_main() else { return "no generation serves".into() };
        let workers = self.workers.serving().count();
        let of = if self.workers.count() > 1 { format!(" as the newest of {workers}") } else { String::new() };
        let said = main.status.as_ref().map(|said| format!(": {said}")).unwrap_or_default();
        format!("generation {} serves{of}{said}", main.number)
    }

    /// What every moment of a generation is told with. A step of a reload is told by the generation
    /// before the one that it starts.
    pub(super) fn facts(&self, number: u64) -> Facts<'static> {
        let pid = self.workers.get(number).map(ProgramGeneration::pid);
        let next = self.workers.next_beside(number);
        Facts {
            generation: number,
            pid: pid.unwrap_or(0),
            next: next.map_or(0, |of| of.number),
            old_pid: pid,
            new_pid: next.map(ProgramGeneration::pid),
            handover_id: self.reloads.handover_id(),
            asked: self.reloads.began(),
            serves: self.serves(),
            of_worker: true,
            ..Facts::default()
        }
    }

    pub(super) fn measure(&self) {
        let draining = self.workers.all().filter(|of| of.drains_since.is_some()).count();
        self.drain.metrics().set_gauge(DRAINING, draining as f64);
        self.drain.metrics().set_gauge(GENERATION, self.newest_main() as f64);
    }

    /// When a generation will have served for long enough to be gone back to.
    pub(super) fn good_at(&self, lives: &Lifecycles, generation: &ProgramGeneration) -> Option<Instant> {
        let since = generation.unproven_since(lives.state(generation.number))?;
        Some(self.crashes.good_at(since))
    }

    pub(super) fn not_ready(&self) -> String {
        let (within, why) = (self.settings.ready_timeout, self.terms.ready.unmet());
        format!("was not ready within {within:?}: {why}")
    }

    pub(super) fn status(&self, lives: &Lifecycles) -> Status {
        let main = self.workers.newest_main();
        let state = match main {
            _ if self.stopping => State::Stopping.name(),
            _ if self.reloads.is_running() => "reloading",
            Some(main) => lives.state(main.number).name(),
            None if self.served => "crashed",
            None => State::Starting.name(),
        };
        let draining = self.workers.all().filter(|of| of.drains_since.is_some());
        let history = self.narrator.history();
        let (renewals_failed, renewal_failed) = self.renewal.failures();
        Status {
            generation: main.map_or(0, |of| of.number),
            pid: main.map_or(0, ProgramGeneration::pid),
            state,
            age_ms: main.map_or(0, |main| millis(main.began)),
            main_ms: main.and_then(|main| main.main_since).map(millis),
            connections: 0,
            open: Vec::new(),
            reloads: self.reloads.count(),
            handover_id: self.reloads.handover_id().as_deref().map(str::to_owned),
            draining: draining.map(older).collect(),
            sockets: self.inheritance.listed(),
            store: self.inheritance.stored(),
            settings: self.named(),
            past: history.past().to_vec(),
            version: env!("CARGO_PKG_VERSION"),
            supervisor: Some(Supervising {
                pid: std::process::id(),
                program: self.recipe.command.program.display().to_string(),
                age_ms: millis(history.launched()),
                workers: self.workers.serving().map(ProgramGeneration::pid).collect(),
                crashes: self.crashes.count(),
                renewals: self.renewal.count(),
                renewals_failed,
                renewal_failed,
                went_back: main.is_some_and(|main| main.went_back),
                says: main.and_then(|main| main.status.clone()),
            }),
        }
    }

    fn named(&self) -> BTreeMap<String, String> {
        let counts = ["ready_timeout", "probation", "drain_timeout", "max_draining"];
        let named = self.settings.named().into_iter().filter(|(key, _)| counts.contains(key));
        let mut all: BTreeMap<_, _> = named.map(|(key, value)| (key.to_owned(), value)).collect();
        all.insert("stop_signals".into(), self.terms.stop_signals.to_string());
        all.insert("workers".into(), self.workers.count().to_string());
        all
    }

    /// No process of the program is left.
    pub(super) async fn finish(mut self) -> Result<()> {
        self.tell_stopping();
        self.inheritance.remove_paths();
        self.drain.accept(false);
        self.drain.begin(Duration::ZERO);
        let _ = tokio::time::timeout(LAST_ANSWERS, self.drain.drained()).await;
        self.drain.hammer();
        self.watches.abort_all();
        self.pinger.stop();
        self.outbox.close(NOTIFY_TIMEOUT).await;
        match self.failed {
            Some(why) => Err(Error::new(Kind::Generation, why)),
            None => Ok(()),
        }
    }
}

fn older(generation: &ProgramGeneration) -> Older {
    Older {
        generation: generation.number,
        pid: generation.pid(),
        draining_ms: generation.drains_since.map_or(0, millis),
        connections: None,
        work: Vec::new(),
    }
}
