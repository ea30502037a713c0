//! What the processes of one reload say of it. Two of them write, and the journal has their entries
//! in whichever order they came: so nothing here depends on an order.

use handover::service::events;

use super::journal::{Entry, Stamp};
use super::model::{Drain, DrainEnd, Generation, Moves, Outcome, Reload, Teller};

/// The ends of the phases, in their order.
const PHASES: [&str; 4] = [events::SPAWNED, events::READY, events::SWITCHED, events::HANDED_OVER];

/// Of the reload with one `HANDOVER_ID`.
#[derive(Debug, Default)]
pub(super) struct Told(Vec<Word>);

/// What one entry says.
#[derive(Debug)]
struct Word {
    id: &'static str,
    at: Stamp,
    /// How long after the request; of a drain, how long after its beginning.
    ms: Option<u64>,
    generation: Option<u64>,
    old_pid: Option<u64>,
    new_pid: Option<u64>,
    connections: Option<u64>,
    cut: Option<u64>,
    moves: Option<Moves>,
    /// What went wrong with the next generation, and the whole sentence.
    failure: Option<(Option<String>, String)>,
}

impl Word {
    /// When the request was, if this entry tells: one that is said before any other, or counts from
    /// there.
    fn began(&self) -> Option<Stamp> {
        match self.id {
            // Hooks run before it.
            events::RELOAD_STARTED => Some(self.at),
            id if counts(id).is_some_and(|field| field != "DRAIN_MS") => Some(self.at.earlier(self.ms?)),
            _ => None,
        }
    }
}

/// The field with the time that an entry counts.
fn counts(id: &str) -> Option<&'static str> {
    Some(match id {
        events::SPAWNED => "SPAWN_MS",
        events::READY => "READY_MS",
        events::SWITCHED => "SWITCH_MS",
        events::HANDED_OVER => "HANDOVER_MS",
        events::RELOADED_IN_PLACE | events::RELOAD_FAILED => "RELOAD_MS",
        events::DRAINED | events::HAMMERED => "DRAIN_MS",
        _ => return None,
    })
}

fn moves(entry: &Entry) -> Option<Moves> {
    Some(Moves { moved: entry.number("MOVED")?, stayed: entry.number("STAYED")?, ms: entry.number("MOVE_MS")? })
}

/// Whether entries of this kind belong to one reload, which they name.
pub(super) fn is_of_a_reload(id: &str) -> bool {
    let others = [events::RELOAD_STARTED, events::MAIN, events::RECLAIMED, events::DRAIN_STARTED, events::MOVED];
    counts(id).is_some() || others.contains(&id)
}

impl Told {
    /// Takes an entry in; false where it lacks what belongs to its kind.
    #[must_use]
    pub(super) fn read(&mut self, id: &'static str, at: Stamp, entry: &Entry) -> bool {
        let field = counts(id);
        let ms = field.and_then(|field| entry.number(field));
        let lacks_time = ms.is_none() && field.is_some_and(|field| field != "DRAIN_MS");
        if lacks_time || (id == events::MOVED && moves(entry).is_none()) {
            return false;
        }
        let text = |field: &str| entry.get(field).map(|text| text.into_owned());
        self.0.push(Word {
            id,
            at,
            ms,
            generation: entry.number("GENERATION"),
            old_pid: entry.number("OLD_PID"),
            new_pid: entry.number("NEW_PID"),
            connections: entry.number("CONNECTIONS"),
            cut: entry.number("CUT"),
            moves: moves(entry).filter(|_| id == events::MOVED),
            failure: (id == events::RELOAD_FAILED).then(|| (text("REASON"), text("MESSAGE").unwrap_or_default())),
        });
        true
    }

    /// Something of it is known that came before its end.
    pub(super) fn has_begun(&self) -> bool {
        self.0.iter().any(|word| word.began().is_some())
    }

    fn find(&self, id: &str) -> Option<&Word> {
        self.0.iter().rfind(|word| word.id == id)
    }

    /// When the request was. `None`: all that is known comes after its end, so it began before what
    /// is read (`--since`).
    fn began(&self) -> Option<Stamp> {
        // Entries are logged some time after the fact, in milliseconds that are not full: so the
        // earliest is the nearest to the truth.
        let order = self.0.iter().filter_map(|word| Some(word.began()?.order)).min()?;
        // The clock on the wall may have been set since: that of the nearest entry.
        let counted = self.0.iter().filter_map(|word| Some((word.ms.unwrap_or(u64::MAX), word.began()?.wall)));
        let (_, wall) = counted.min_by_key(|(ms, _)| *ms)?;
        Some(Stamp { order, wall })
    }

    /// The row, with its `HANDOVER_ID`. `None`: it began before what was read.
    pub(super) fn finish(self, id: String) -> Option<Finished> {
        let began = self.began()?;
        let last = self.0.iter().map(|word| word.at).max()?;
        let mut reload = Reload::new(began.wall, Teller::Handover);
        reload.handover_id = Some(id);
        reload.ends = PHASES.map(|id| self.find(id)?.ms);
        let old = |word: &Word| Some(word.generation?.saturating_sub(u64::from(word.id == events::MAIN)));
        let number = self.0.iter().find_map(old);
        reload.old = Generation { number, pid: self.0.iter().find_map(|word| word.old_pid) };
        let next = number.map(|old| old.saturating_add(1));
        reload.new = Generation { number: next, pid: self.0.iter().find_map(|word| word.new_pid) };
        let in_place = self.find(events::RELOADED_IN_PLACE);
        if let Some(word) = in_place {
            (reload.outcome, reload.reload_ms) = (Outcome::InPlace, word.ms);
            reload.new = reload.old;
        }
        // Where the old one could not say any more that it handed over, the new one's word is what
        // is known.
        let by_new = self.find(events::MAIN).map(|main| main.at.since(began)).filter(|_| in_place.is_none());
        if let Some(ms) = reload.ends[3].or(by_new) {
            reload.ends[3] = Some(ms);
            (reload.outcome, reload.reload_ms) = (Outcome::HandedOver, Some(ms));
        }
        if self.find(events::RECLAIMED).is_some() {
            reload.outcome = Outcome::RolledBack;
        }
        if let Some(Word { ms, failure: Some((reason, message)), .. }) = self.find(events::RELOAD_FAILED) {
            (reload.outcome, reload.reload_ms) = (Outcome::RolledBack, *ms);
            let next = reload.new.number.map_or_else(String::new, |n| format!("generation {n} "));
            reload.reason = Some(reason.as_ref().map_or_else(|| message.clone(), |reason| format!("{next}{reason}")));
        }
        reload.drain = self.drain();
        Some(Finished { began, last, reload })
    }

    fn drain(&self) -> Option<Drain> {
        let started = self.find(events::DRAIN_STARTED);
        let (drained, hammered) = (self.find(events::DRAINED), self.find(events::HAMMERED));
        // The beginning, counted back from the end.
        let ended = self.0.iter().rfind(|word| counts(word.id) == Some("DRAIN_MS"));
        let counted_back = ended.map(|word| word.at.earlier(word.ms.unwrap_or(0)));
        let began = started.map(|word| word.at).or(counted_back)?.wall;
        let (ms, end, cut) = match (hammered, drained) {
            (Some(word), _) => (word.ms, DrainEnd::Hammered, word.cut.unwrap_or(0)),
            (None, Some(word)) => (Some(word.ms.unwrap_or(0)), DrainEnd::Drained, 0),
            (None, None) => (None, DrainEnd::Draining, 0),
        };
        let moves = self.find(events::MOVED).and_then(|word| word.moves);
        Some(Drain { began, connections: started.and_then(|word| word.connections), ms, end, cut, moves })
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
