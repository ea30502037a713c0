//! What the service is doing, for those who ask or listen.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::lifecycle::State;
use crate::service::clock::millis;
use crate::service::steps::{Past, Step, What};
use crate::service::{Older, Status, StoreEntry, Supervising};
use crate::supervise::driver::Driver;
use crate::wire::frame::HISTORY;

/// Of a reason that is remembered; the journal has all of it.
const REASON_KEPT: usize = 300;

impl Driver {
    pub(crate) fn newest_main(&self) -> Option<u64> {
        self.slots.iter().filter_map(|slot| slot.main).max()
    }

    /// What `systemctl status` says.
    pub(crate) fn serves(&self) -> String {
        let Some(main) = self.newest_main() else { return "no generation serves".into() };
        let said = self.generations.get(&main).and_then(|g| g.status.as_deref());
        let workers = self.slots.iter().filter(|slot| slot.main.is_some()).count();
        let of = if self.slots.len() > 1 { format!(" as the newest of {workers}") } else { String::new() };
        match said {
            Some(said) => format!("generation {main} serves{of}: {said}"),
            None => format!("generation {main} serves{of}"),
        }
    }

    pub(crate) fn tell_step(&mut self, what: What, number: u64, reason: Option<&str>) {
        let generation = self.generations.get(&number);
        let next = generation.and_then(|g| self.generations.get(&self.slots[g.slot].next?));
        // A step of a reload is told by the generation before it.
        let (number, pid) = match generation {
            Some(g) => (g.number, g.child.pid),
            None => (number, 0),
        };
        let step = Step {
            what,
            generation: number,
            pid,
            next_pid: next.filter(|next| next.number != number).map(|g| g.child.pid),
            next: next.map(|next| next.number).filter(|next| *next > number + 1),
            handover_id: self.rolling.as_ref().map(|r| r.handover_id.clone()),
            reload_ms: self.rolling.as_ref().map(|r| millis(r.began)),
            reason: reason.map(str::to_owned),
            connections: 0,
        };
        self.steps.tell(step);
    }

    pub(crate) fn remember(&mut self, handover_id: &str, took_ms: u64, failed: Option<&str>) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let generation = self.newest_main().unwrap_or(0);
        self.past.push(Past {
            handover_id: handover_id.to_owned(),
            // As with the library: the one that the reload began in.
            generation: if failed.is_some() { generation } else { generation.saturating_sub(1) },
            outcome: if failed.is_some() { "rolled_back" } else { "handed_over" }.to_owned(),
            reason: failed.map(|reason| reason.chars().take(REASON_KEPT).collect()),
            took_ms,
            ended_unix_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        });
        let over = self.past.len().saturating_sub(HISTORY);
        self.past.drain(..over);
    }

    pub(crate) fn status(&self) -> Status {
        let main = self.newest_main().and_then(|main| self.generations.get(&main));
        let state = match main {
            _ if self.stopping => State::Stopping.name(),
            _ if self.rolling.is_some() => "reloading",
            Some(main) => main.state().name(),
            None if self.served => "crashed",
            None => State::Starting.name(),
        };
        let draining = self.generations.values().filter(|g| g.drains_since.is_some());
        let mut stored: Vec<StoreEntry> = Vec::new();
        for name in self.estate.stored() {
            match stored.iter_mut().find(|entry| entry.name == name) {
                Some(entry) => entry.fds += 1,
                None => stored.push(StoreEntry { name: name.to_owned(), fds: 1, stored: true }),
            }
        }
        Status {
            generation: main.map_or(0, |g| g.number),
            pid: main.map_or(0, |g| g.child.pid),
            state,
            age_ms: main.map_or(0, |g| millis(g.began)),
            main_ms: main.and_then(|g| g.main_since).map(millis),
            connections: 0,
            open: Vec::new(),
            reloads: self.reloads,
            handover_id: self.rolling.as_ref().map(|r| r.handover_id.clone()),
            draining: draining.map(|g| older(g.number, g.child.pid, g.drains_since)).collect(),
            sockets: self.estate.listed(),
            store: stored,
            settings: self.named(),
            past: self.past.clone(),
            version: env!("CARGO_PKG_VERSION"),
            supervisor: Some(Supervising {
                pid: std::process::id(),
                program: self.plan.recipe.program.display().to_string(),
                age_ms: millis(self.began),
                workers: self
                    .slots
                    .iter()
                    .filter_map(|slot| Some(self.generations.get(&slot.main?)?.child.pid))
                    .collect(),
                crashes: self.crashes,
                renewals: self.renewals,
                renewals_failed: self.not_renewed.0,
                renewal_failed: self.not_renewed.1.clone(),
                went_back: main.is_some_and(|g| g.went_back),
                says: main.and_then(|g| g.status.clone()),
            }),
        }
    }

    fn named(&self) -> std::collections::BTreeMap<String, String> {
        let counts = ["ready_timeout", "probation", "drain_timeout", "max_draining"];
        let named = self.plan.settings.named().into_iter().filter(|(key, _)| counts.contains(key));
        let mut all: std::collections::BTreeMap<_, _> = named.map(|(key, value)| (key.to_owned(), value)).collect();
        all.insert("stop_signals".into(), self.plan.stop_signals.to_string());
        all.insert("workers".into(), self.slots.len().to_string());
        all
    }
}

fn older(generation: u64, pid: u32, since: Option<Instant>) -> Older {
    Older { generation, pid, draining_ms: since.map_or(0, millis), connections: None, work: Vec::new() }
}
