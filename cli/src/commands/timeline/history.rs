//! Entries, in any order, become rows. Pure.
//!
//! Several processes and systemd write about one reload, each when it comes to it. So what belongs
//! together is found by what it names ([`Told`], [`jobs`]), never by what stands before or behind
//! it.

use std::collections::BTreeMap;

use handover::service::events;

use super::jobs::{self, Timed};
use super::journal::{Clock, Entry, Stamp};
use super::known::{Kind, kind, mark};
use super::model::{DrainEnd, Mark, Outcome, Reload, Row, Teller};
use super::told::{Finished, Told, is_of_a_reload};

/// systemd says that a unit has started after the service has said that it serves, and a reload may
/// begin between.
const STARTED_LATE_MS: u64 = 10_000;

/// Of one unit.
#[derive(Debug, Default)]
pub(super) struct History {
    clock: Clock,
    /// By `HANDOVER_ID`.
    told: BTreeMap<String, Told>,
    jobs: jobs::Logged,
    marks: Vec<(Stamp, Mark)>,
    ends: Ends,
    /// Why processes that systemd ran for a reload failed.
    exec_reload: Vec<(Stamp, String)>,
    /// Generations that hung in their drain, by their pid.
    killed: Vec<(Stamp, u64)>,
    /// The service itself wrote some of it.
    pub(super) uses_handover: bool,
    /// Entries without a time, or without what belongs to their kind.
    pub(super) odd: usize,
}

/// Where the service's processes end, and with them what they were doing.
#[derive(Debug, Default)]
struct Ends {
    /// A run of the unit begins or is over: nobody is left.
    runs: Vec<Stamp>,
    /// Its first generation says that it serves.
    serves: Vec<Stamp>,
    started: Vec<Stamp>,
    /// The main process ends; older generations may go on.
    main: Vec<Stamp>,
}

/// The unit that an entry is about.
pub(super) fn unit_of(entry: &Entry) -> Option<String> {
    let fields = match kind(&entry.get("MESSAGE_ID")?)? {
        Kind::Ours(_) => ["_SYSTEMD_USER_UNIT", "_SYSTEMD_UNIT"],
        // Every process can say `UNIT=`; of the system's units only the system's manager speaks.
        _ if entry.get("USER_UNIT").is_none() && entry.get("_PID").is_some_and(|pid| pid != "1") => return None,
        _ => ["USER_UNIT", "UNIT"],
    };
    fields.iter().find_map(|field| entry.get(field)).map(|unit| unit.into_owned())
}

impl History {
    pub(super) fn read(&mut self, entry: &Entry) {
        let Some(kind) = entry.get("MESSAGE_ID").and_then(|id| kind(&id)) else { return };
        let Some(at) = self.clock.stamp(entry) else {
            self.odd += 1;
            return;
        };
        self.uses_handover |= matches!(kind, Kind::Ours(_));
        let message = || entry.get("MESSAGE").unwrap_or_default().into_owned();
        match kind {
            Kind::ProcessExit if entry.get("COMMAND").is_some_and(|command| command == "ExecReload") => {
                self.exec_reload.push((at, message()));
                return;
            }
            Kind::Ours(id) => self.ours(id, at, entry),
            Kind::Reloading => self.jobs.began(at, entry),
            Kind::Reloaded => self.jobs.ended(at, entry),
            Kind::Started => self.ends.started.push(at),
            Kind::Stopped | Kind::Failed => self.ends.runs.push(at),
            Kind::Stopping | Kind::ProcessExit => self.ends.main.push(at),
            Kind::StartFailed | Kind::RestartScheduled | Kind::OutOfMemory => {}
        }
        if let Some((name, bad)) = mark(kind) {
            let is_said = !matches!(kind, Kind::Started | Kind::Stopped);
            self.mark(at, name, bad, if is_said { message() } else { name.to_owned() });
        }
    }

    pub(super) fn has_reloads(&self) -> bool {
        !self.jobs.is_empty() || self.told.values().any(Told::has_begun)
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.has_reloads() && self.marks.is_empty() && !self.uses_handover
    }

    fn ours(&mut self, id: &'static str, at: Stamp, entry: &Entry) {
        match id {
            events::SERVES => self.ends.serves.push(at),
            events::DRAINER_KILLED => self.killed.extend(entry.number("OLD_PID").map(|pid| (at, pid))),
            // Without a next generation it is the service that stops, with the id of the reload
            // that brought it.
            events::DRAIN_STARTED | events::DRAINED | events::HAMMERED if entry.number("NEW_PID").is_none() => {
                if let Some(cut) = entry.number("CUT").filter(|cut| *cut > 0) {
                    let after = entry.number("DRAIN_MS").map(super::when::duration).unwrap_or_default();
                    self.mark(at, "hammered", true, format!("connections cut at the stop: {cut}, after {after}"));
                }
            }
            id if is_of_a_reload(id) => {
                let told = entry.get("HANDOVER_ID").map(|id| self.told.entry(id.into_owned()).or_default());
                self.odd += usize::from(!told.is_some_and(|told| told.read(id, at, entry)));
            }
            _ => {}
        }
    }

    fn mark(&mut self, at: Stamp, kind: &'static str, bad: bool, text: String) {
        self.marks.push((at, Mark { time: at.wall, kind, bad, text }));
    }

    /// All rows. What is still under way now is so in truth, as far as the journal goes.
    pub(super) fn finish(self) -> Vec<Row> {
        let Self { told, jobs, marks, ends, mut exec_reload, killed, .. } = self;
        let (runs, mains) = ends.finish();
        let mut reloads: Vec<Finished> = told.into_iter().filter_map(|(id, told)| told.finish(id)).collect();
        reloads.sort_by_key(|reload| reload.began);
        interrupt(&mut reloads, &mains);
        end_drains(&mut reloads, &runs, killed);

        let mut jobs = jobs.finish();
        let mut asked_before = None;
        for timed in &mut jobs {
            timed.meanwhile = under_way(&reloads, timed, asked_before.replace(timed.began));
        }
        let begun: Vec<Stamp> = reloads.iter().map(|reload| reload.began).collect();
        let pairs = jobs::pair(&jobs, &begun, &runs);
        exec_reload.sort();
        let mut rows: Vec<(Stamp, Row)> = Vec::with_capacity(reloads.len() + marks.len());
        for (timed, of) in jobs.into_iter().zip(pairs) {
            let (is_its_own, found) = (of.is_some(), of.or(timed.meanwhile).and_then(|place| reloads.get_mut(place)));
            match found {
                Some(found) if is_its_own => found.reload.job = Some(timed.job),
                Some(found) => found.reload.asked_again += 1,
                None => rows.push((timed.began, Row::Reload(Box::new(by_systemd(timed, &runs, &exec_reload))))),
            }
        }
        rows.extend(reloads.into_iter().map(|found| (found.began, Row::Reload(Box::new(found.reload)))));
        rows.extend(marks.into_iter().map(|(at, mark)| (at, Row::Event(mark))));
        rows.sort_by_key(|(at, _)| *at);
        let mut rows: Vec<Row> = rows.into_iter().map(|(_, row)| row).collect();
        let mut number = 0;
        for row in &mut rows {
            if let Row::Reload(reload) = row {
                number += 1;
                reload.number = number;
                reload.settle();
            }
        }
        rows
    }
}

impl Ends {
    /// The ends of the unit's runs, and those of its main processes, which the former are, too.
    fn finish(self) -> (Vec<Stamp>, Vec<Stamp>) {
        let Self { mut runs, mut serves, started, mut main } = self;
        serves.sort();
        // The service's own word is exact.
        let is_told = |at: &Stamp| {
            let last = serves.partition_point(|serves| serves <= at).checked_sub(1).and_then(|last| serves.get(last));
            last.is_some_and(|serves| at.since(*serves) <= STARTED_LATE_MS)
        };
        runs.extend(started.into_iter().filter(|at| !is_told(at)));
        runs.extend(serves.iter().copied());
        runs.sort();
        main.extend(runs.iter().copied());
        main.sort();
        (runs, main)
    }
}

/// The first of them after that.
fn after(ends: &[Stamp], at: Stamp) -> Option<Stamp> {
    ends.get(ends.partition_point(|end| *end <= at)).copied()
}

/// Reloads whose end was not logged come to nothing with the main process. And one at a time is
/// under way: where another one began, those before it are over.
fn interrupt(reloads: &mut [Finished], mains: &[Stamp]) {
    let last = reloads.len().saturating_sub(1);
    for (number, found) in reloads.iter_mut().enumerate() {
        let is_over = number < last || after(mains, found.last).is_some();
        if found.reload.outcome == Outcome::UnderWay && is_over {
            found.reload.outcome = Outcome::Interrupted;
        }
    }
}

fn end_drains(reloads: &mut [Finished], runs: &[Stamp], killed: Vec<(Stamp, u64)>) {
    let drains = |found: &Finished| found.reload.drain.as_ref().is_some_and(|drain| drain.end == DrainEnd::Draining);
    for (at, pid) in killed {
        // Pids are used again: the latest.
        let hung = reloads.iter_mut().rev().find(|found| found.reload.old.pid == Some(pid) && found.began <= at);
        if let Some(drain) = hung.filter(|hung| drains(hung)).and_then(|hung| hung.reload.drain.as_mut()) {
            drain.end = DrainEnd::Killed;
            drain.ms = Some(at.wall.since(drain.began));
        }
    }
    for found in reloads {
        let is_over = after(runs, found.last).is_some();
        if let Some(drain) = found.reload.drain.as_mut().filter(|drain| is_over && drain.end == DrainEnd::Draining) {
            drain.end = DrainEnd::Unknown;
        }
    }
}

/// The place of the reload that was under way when the job asked for another; before it, somebody
/// else asked at `asked_before`.
fn under_way(reloads: &[Finished], timed: &Timed, asked_before: Option<Stamp>) -> Option<usize> {
    let next = reloads.partition_point(|found| found.began <= timed.began);
    let lasts = |found: &Finished| timed.began <= found.ended();
    let before = next.checked_sub(1).filter(|before| reloads.get(*before).is_some_and(lasts));
    // One that was asked for already may say so late.
    let is_asked_for = || {
        let ended = next.checked_sub(1).and_then(|before| reloads.get(before)).map(Finished::ended);
        asked_before.is_some_and(|asked| ended.is_none_or(|ended| ended < asked))
    };
    let late = |found: &Finished| found.began.since(timed.began) <= jobs::LOGGED_LATE_MS;
    let place = before.or_else(|| Some(next).filter(|next| reloads.get(*next).is_some_and(late) && is_asked_for()))?;
    timed.is_done().then_some(place)
}

/// A reload of which the service says nothing.
fn by_systemd(timed: Timed, runs: &[Stamp], exec_reload: &[(Stamp, String)]) -> Reload {
    let Timed { began, ended, job, .. } = timed;
    let mut reload = Reload::new(began.wall, Teller::Systemd);
    reload.reload_ms = job.ms;
    let restarted = after(runs, began).is_some_and(|end| ended.is_none_or(|ended| end < ended));
    reload.outcome = match job.result.as_deref() {
        _ if restarted => Outcome::Interrupted,
        None => Outcome::UnderWay,
        Some("done") => Outcome::Reloaded,
        Some(result) => {
            let until = exec_reload.partition_point(|(at, _)| ended.is_none_or(|ended| *at <= ended));
            let last = until.checked_sub(1).and_then(|last| exec_reload.get(last)).filter(|(at, _)| *at >= began);
            let reason = last.map(|(_, why)| why.clone());
            reload.reason = Some(reason.unwrap_or_else(|| format!("systemd's job ended with: {result}")));
            Outcome::Failed
        }
    };
    reload.job = Some(job);
    reload
}
