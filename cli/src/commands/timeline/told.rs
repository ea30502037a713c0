//! What the processes of one reload say of it. Two of them write, and the journal has their entries
//! in whichever order they came: so nothing here depends on an order.

use handover::service::events;

use super::journal::{Entry, Stamp};
use super::model::{Drain, DrainEnd, Outcome, Reload, Said, Teller};

/// Of the reload with one `HANDOVER_ID`.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// `None`: all that is known of it comes after its end, so it began before what is read
    /// (`--since`).
    began: Option<Began>,
    /// The latest entry.
    last: Stamp,
    said: Said,
    old: Numbers,
    new: Numbers,
    failed: Option<Failed>,
    reclaimed: bool,
    in_place: Option<u64>,
    /// The new generation says that it is main.
    main: Option<Stamp>,
    drain: DrainTold,
}

#[derive(Debug)]
struct Failed {
    after_ms: u64,
    /// What went wrong with the next generation.
    reason: Option<String>,
    message: String,
}

#[derive(Debug, Clone, Copy, Default)]
struct Numbers {
    generation: Option<u64>,
    pid: Option<u64>,
}

/// When the request was, counted back from an entry that came so long after it.
#[derive(Debug, Clone, Copy)]
struct Began {
    /// `None`: the entry does not tell. Hooks run before it.
    after_ms: Option<u64>,
    at: Stamp,
}

#[derive(Debug, Default)]
struct DrainTold {
    started: Option<Stamp>,
    /// The beginning, counted back from the end.
    counted_back: Option<Stamp>,
    connections: Option<u64>,
    drained_ms: Option<u64>,
    hammered: Option<(Option<u64>, u64)>,
}

impl Told {
    /// Takes an entry in; false where it lacks what belongs to its kind.
    #[must_use]
    pub(super) fn read(&mut self, id: &str, at: Stamp, entry: &Entry) -> bool {
        let step = |field: &str| entry.number(field);
        match id {
            events::RELOAD_STARTED => self.count_back(None, at),
            events::MAIN => self.main = Some(at),
            events::RECLAIMED => self.reclaimed = true,
            events::DRAIN_STARTED | events::DRAINED | events::HAMMERED => self.drain.read(id, at, entry),
            _ => {
                let after_ms = match id {
                    events::SPAWNED => set(&mut self.said.spawned, step("SPAWN_MS")),
                    events::READY => set(&mut self.said.ready, step("READY_MS")),
                    events::SWITCHED => set(&mut self.said.switched, step("SWITCH_MS")),
                    events::HANDED_OVER => set(&mut self.said.handed_over, step("HANDOVER_MS")),
                    events::RELOADED_IN_PLACE => set(&mut self.in_place, step("RELOAD_MS")),
                    events::RELOAD_FAILED => self.fail(entry),
                    _ => None,
                };
                if after_ms.is_none() {
                    return false;
                }
                self.count_back(after_ms, at);
            }
        }
        self.name_both(id, entry);
        self.last = self.last.max(at);
        true
    }

    /// Something of it is known that came before its end.
    pub(super) fn has_begun(&self) -> bool {
        self.began.is_some()
    }

    fn fail(&mut self, entry: &Entry) -> Option<u64> {
        let after_ms = entry.number("RELOAD_MS")?;
        let reason = entry.get("REASON").map(|reason| reason.into_owned());
        let message = entry.get("MESSAGE").unwrap_or_default().into_owned();
        self.failed = Some(Failed { after_ms, reason, message });
        Some(after_ms)
    }

    fn count_back(&mut self, after_ms: Option<u64>, at: Stamp) {
        let from = Began { after_ms, at: at.earlier(after_ms.unwrap_or(0)) };
        let Some(known) = &mut self.began else {
            self.began = Some(from);
            return;
        };
        // Entries are logged some time after the fact, in milliseconds that are not full: so the
        // earliest is the nearest to the truth.
        let order = known.at.order.min(from.at.order);
        // The clock on the wall may have been set since: that of the nearest entry.
        let far = |began: &Began| began.after_ms.unwrap_or(u64::MAX);
        if far(&from) < far(known) {
            *known = from;
        }
        known.at.order = order;
    }

    fn name_both(&mut self, id: &str, entry: &Entry) {
        if let Some(generation) = entry.number("GENERATION") {
            let old = if id == events::MAIN { generation.saturating_sub(1) } else { generation };
            self.old.generation.get_or_insert(old);
            self.new.generation.get_or_insert(old.saturating_add(1));
        }
        self.old.pid = self.old.pid.or(entry.number("OLD_PID"));
        self.new.pid = self.new.pid.or(entry.number("NEW_PID"));
    }

    /// The row, with its `HANDOVER_ID`. `None`: it began before what was read.
    pub(super) fn finish(self, id: String) -> Option<Finished> {
        let began = self.began?.at;
        let mut reload = Reload::new(began.wall, Teller::Handover);
        reload.handover_id = Some(id);
        reload.said = self.said;
        (reload.old.number, reload.old.pid) = (self.old.generation, self.old.pid);
        (reload.new.number, reload.new.pid) = (self.new.generation, self.new.pid);
        if let Some(ms) = self.in_place {
            (reload.outcome, reload.reload_ms) = (Outcome::InPlace, Some(ms));
            reload.new = reload.old;
        }
        // Where the old one could not say any more that it handed over, the new one's word is what
        // is known.
        let by_new = self.main.map(|main| main.since(began));
        if let Some(ms) = reload.said.handed_over.or(by_new.filter(|_| self.in_place.is_none())) {
            reload.said.handed_over = Some(ms);
            (reload.outcome, reload.reload_ms) = (Outcome::HandedOver, Some(ms));
        }
        if self.reclaimed {
            reload.outcome = Outcome::RolledBack;
        }
        if let Some(Failed { after_ms, reason, message }) = self.failed {
            (reload.outcome, reload.reload_ms) = (Outcome::RolledBack, Some(after_ms));
            let next = reload.new.number.map_or_else(String::new, |n| format!("generation {n} "));
            reload.reason = Some(reason.map_or(message, |reason| format!("{next}{reason}")));
        }
        reload.drain = self.drain.finish();
        Some(Finished { began, last: self.last, reload })
    }
}

/// A reload with its place in time.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) began: Stamp,
    pub(super) last: Stamp,
    pub(super) reload: Reload,
}

impl Finished {
    /// When it was over, as far as it was said.
    pub(super) fn ended(&self) -> Stamp {
        self.reload.reload_ms.map_or(self.last, |ms| self.began.later(ms))
    }
}

impl DrainTold {
    fn read(&mut self, id: &str, at: Stamp, entry: &Entry) {
        let ms = entry.number("DRAIN_MS");
        match id {
            events::DRAIN_STARTED => {
                self.started = Some(at);
                self.connections = entry.number("CONNECTIONS");
            }
            events::DRAINED => self.drained_ms = Some(ms.unwrap_or(0)),
            _ => self.hammered = Some((ms, entry.number("CUT").unwrap_or(0))),
        }
        if id != events::DRAIN_STARTED {
            self.counted_back = Some(at.earlier(ms.unwrap_or(0)));
        }
    }

    fn finish(self) -> Option<Drain> {
        let began = self.started.or(self.counted_back)?.wall;
        let (ms, end, cut) = match (self.hammered, self.drained_ms) {
            (Some((ms, cut)), _) => (ms, DrainEnd::Hammered, cut),
            (None, Some(ms)) => (Some(ms), DrainEnd::Drained, 0),
            (None, None) => (None, DrainEnd::Draining, 0),
        };
        Some(Drain { began, connections: self.connections, ms, end, cut })
    }
}

fn set(slot: &mut Option<u64>, value: Option<u64>) -> Option<u64> {
    *slot = value.or(*slot);
    value
}
