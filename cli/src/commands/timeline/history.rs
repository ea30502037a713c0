//! Entries, one after the other, become rows. Pure.

use std::collections::BTreeMap;

use handover::service::events;

use super::journal::Entry;
use super::known::{Kind, kind};
use super::model::{Drain, DrainEnd, Job, Mark, Outcome, Reload, Row, Teller};
use super::when::Moment;

/// `ExecReload=/bin/kill` only asks: systemd may call its job done before the service has begun. Within this time they are one, also on a busy machine.
const JOB_BELONGS_MS: u64 = 5_000;

/// Of one unit.
#[derive(Debug, Default)]
pub(super) struct History {
    rows: Vec<Row>,
    /// Where the reload of a `HANDOVER_ID` is.
    by_id: BTreeMap<String, usize>,
    /// The latest job of systemd.
    job: Option<usize>,
    /// That job is nobody's yet.
    job_is_free: bool,
    /// Why a process that systemd ran for a reload failed.
    exec_reload: Option<String>,
    /// The service itself wrote some of it.
    pub(super) uses_handover: bool,
    /// Entries without a time, or without what belongs to their kind.
    pub(super) odd: usize,
}

/// The unit that an entry is about.
pub(super) fn unit_of(entry: &Entry) -> Option<String> {
    let fields = match kind(&entry.get("MESSAGE_ID")?)? {
        Kind::Ours(_) => ["_SYSTEMD_USER_UNIT", "_SYSTEMD_UNIT"],
        _ => ["USER_UNIT", "UNIT"],
    };
    fields.iter().find_map(|field| entry.get(field)).map(|unit| unit.into_owned())
}

impl History {
    pub(super) fn read(&mut self, entry: &Entry) {
        let Some(kind) = entry.get("MESSAGE_ID").and_then(|id| kind(&id)) else { return };
        let Some(time) = entry.time() else {
            self.odd += 1;
            return;
        };
        match kind {
            Kind::Ours(id) => self.ours(id, time, entry),
            _ => self.systemd(kind, time, entry),
        }
    }

    /// How many reloads there are of it.
    pub(super) fn reloads(&self) -> usize {
        self.rows.iter().filter(|row| matches!(row, Row::Reload(_))).count()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty() && !self.uses_handover
    }

    /// All rows. What is still under way now is so in truth, as far as the journal goes.
    pub(super) fn finish(mut self) -> Vec<Row> {
        let mut number = 0;
        for row in &mut self.rows {
            if let Row::Reload(reload) = row {
                number += 1;
                reload.number = number;
                reload.settle();
            }
        }
        self.rows
    }

    fn ours(&mut self, id: &str, time: Moment, entry: &Entry) {
        self.uses_handover = true;
        let message = || entry.get("MESSAGE").unwrap_or_default().into_owned();
        match id {
            events::SERVES => self.unit_is_new(),
            events::RECLAIMED => {
                self.mark(time, "reclaimed", true, message());
                self.of_reload(entry, time, 0, |reload| reload.outcome = Outcome::RolledBack);
            }
            events::UNHEALTHY => self.mark(time, "unhealthy", true, message()),
            events::HEALTHY => self.mark(time, "healthy", false, message()),
            events::TOO_MANY_DRAIN => self.mark(time, "too_many_drain", true, message()),
            events::DRAINER_KILLED => {
                self.mark(time, "drainer_killed", true, message());
                let pid = entry.number("OLD_PID");
                if let Some(drain) = self.drain_of(|reload| reload.old.pid == pid) {
                    drain.end = DrainEnd::Killed;
                    drain.ms = Some(time.since(drain.began));
                }
            }
            events::RELOAD_STARTED => self.of_reload(entry, time, 0, |_| {}),
            events::SPAWNED => self.step(entry, time, "SPAWN_MS", |reload, ms| reload.said.spawned = Some(ms)),
            events::READY => self.step(entry, time, "READY_MS", |reload, ms| reload.said.ready = Some(ms)),
            events::SWITCHED => self.step(entry, time, "SWITCH_MS", |reload, ms| reload.said.switched = Some(ms)),
            events::HANDED_OVER => self.step(entry, time, "HANDOVER_MS", |reload, ms| {
                reload.said.handed_over = Some(ms);
                reload.reload_ms = Some(ms);
                reload.outcome = Outcome::HandedOver;
            }),
            // Said by the new one. Where the old one could not say any more that it handed over, this is what is known.
            events::MAIN => self.of_reload(entry, time, 0, |reload| {
                if matches!(reload.outcome, Outcome::UnderWay | Outcome::Interrupted) {
                    let ms = time.since(reload.began);
                    reload.said.handed_over = Some(ms);
                    reload.reload_ms = Some(ms);
                    reload.outcome = Outcome::HandedOver;
                }
            }),
            events::RELOADED_IN_PLACE => self.step(entry, time, "RELOAD_MS", |reload, ms| {
                reload.reload_ms = Some(ms);
                reload.outcome = Outcome::InPlace;
                reload.new = reload.old;
            }),
            events::RELOAD_FAILED => {
                let reason = entry.get("REASON").map(|reason| reason.into_owned());
                self.step(entry, time, "RELOAD_MS", |reload, ms| {
                    reload.reload_ms = Some(ms);
                    reload.outcome = Outcome::RolledBack;
                    let next = reload.new.number.map_or_else(String::new, |n| format!("generation {n} "));
                    reload.reason = Some(reason.map_or_else(message, |reason| format!("{next}{reason}")));
                });
            }
            events::DRAIN_STARTED | events::DRAINED | events::HAMMERED => self.drain(id, time, entry),
            _ => {}
        }
    }

    /// An event of a reload that tells how long after the request it is.
    fn step(&mut self, entry: &Entry, time: Moment, field: &str, tell: impl FnOnce(&mut Reload, u64)) {
        match entry.number(field) {
            Some(ms) => self.of_reload(entry, time, ms, |reload| {
                // Exact: the first event comes after the hooks, and the clock may have been set since.
                if reload.said.spawned.is_none() {
                    reload.began = time.earlier(ms);
                }
                tell(reload, ms);
            }),
            None => self.odd += 1,
        }
    }

    fn of_reload(&mut self, entry: &Entry, time: Moment, ms: u64, tell: impl FnOnce(&mut Reload)) {
        let Some(id) = entry.get("HANDOVER_ID") else {
            self.odd += 1;
            return;
        };
        let known = self.by_id.get(&*id).copied();
        // What comes after the end is not the first that one hears of a reload, unless it began before what is read (`--since`).
        let late = [events::MAIN, events::RECLAIMED, events::DRAIN_STARTED, events::DRAINED, events::HAMMERED];
        let message_id = entry.get("MESSAGE_ID").unwrap_or_default();
        if known.is_none() && late.contains(&&*message_id) {
            return;
        }
        let index = known.unwrap_or_else(|| self.begin(time.earlier(ms), &id));
        let Some(Row::Reload(reload)) = self.rows.get_mut(index) else { return };
        let said_by_new = message_id == events::MAIN;
        if let Some(generation) = entry.number("GENERATION") {
            let old = if said_by_new { generation.saturating_sub(1) } else { generation };
            reload.old.number.get_or_insert(old);
            reload.new.number.get_or_insert(old.saturating_add(1));
        }
        reload.old.pid = reload.old.pid.or(entry.number("OLD_PID"));
        reload.new.pid = reload.new.pid.or(entry.number("NEW_PID"));
        tell(reload);
    }

    /// The row of a reload that is new. If systemd began a job for it, it is that job's row.
    fn begin(&mut self, began: Moment, id: &str) -> usize {
        // Only one reload of a unit is under way at a time: of an older one, the end was not logged.
        self.interrupt();
        let mut reload = Reload::new(began, Teller::Handover);
        reload.handover_id = Some(id.to_owned());
        let claimed = self.job.filter(|_| std::mem::take(&mut self.job_is_free)).filter(|index| {
            let Some(Row::Reload(row)) = self.rows.get(*index) else { return false };
            let Some(job) = &row.job else { return false };
            job.ms.is_none_or(|ms| began.since(job.began) <= ms.saturating_add(JOB_BELONGS_MS))
        });
        let index = claimed.unwrap_or(self.rows.len());
        match self.rows.get_mut(index) {
            Some(Row::Reload(row)) => {
                reload.job = row.job.take();
                **row = reload;
            }
            _ => self.rows.push(Row::Reload(Box::new(reload))),
        }
        self.by_id.insert(id.to_owned(), index);
        index
    }

    fn drain(&mut self, id: &str, time: Moment, entry: &Entry) {
        let (ms, cut) = (entry.number("DRAIN_MS"), entry.number("CUT").unwrap_or(0));
        // Without a next generation it is the service that stops, with the id of the reload that brought it.
        if entry.number("NEW_PID").is_none() {
            if cut > 0 {
                let after = ms.map(super::when::duration).unwrap_or_default();
                self.mark(time, "hammered", true, format!("connections cut at the stop: {cut}, after {after}"));
            }
            return;
        }
        let began = time.earlier(ms.unwrap_or(0));
        self.of_reload(entry, time, 0, |reload| {
            let drain = reload.drain.get_or_insert(Drain {
                began,
                connections: None,
                ms: None,
                end: DrainEnd::Draining,
                cut: 0,
            });
            match id {
                events::DRAIN_STARTED => drain.connections = entry.number("CONNECTIONS"),
                events::DRAINED if matches!(drain.end, DrainEnd::Draining | DrainEnd::Unknown) => {
                    (drain.ms, drain.end) = (ms, DrainEnd::Drained);
                }
                events::HAMMERED => (drain.ms, drain.end, drain.cut) = (ms, DrainEnd::Hammered, cut),
                _ => {}
            }
        });
    }

    fn systemd(&mut self, kind: Kind, time: Moment, entry: &Entry) {
        let message = || entry.get("MESSAGE").unwrap_or_default().into_owned();
        match kind {
            Kind::Reloading => {
                let mut reload = Reload::new(time, Teller::Systemd);
                reload.job = Some(Job { id: entry.number("JOB_ID"), began: time, ms: None, result: None });
                self.exec_reload = None;
                (self.job, self.job_is_free) = (Some(self.rows.len()), true);
                self.rows.push(Row::Reload(Box::new(reload)));
            }
            Kind::Reloaded => self.job_done(time, entry),
            Kind::Started => {
                self.unit_is_new();
                self.mark(time, "started", false, "started".into());
            }
            Kind::StartFailed => self.mark(time, "start_failed", true, message()),
            Kind::Stopping => self.interrupt(),
            Kind::Stopped => {
                self.unit_is_new();
                self.mark(time, "stopped", false, "stopped".into());
            }
            Kind::Failed => {
                self.unit_is_new();
                self.mark(time, "failed", true, message());
            }
            Kind::ProcessExit if entry.get("COMMAND").is_some_and(|command| command == "ExecReload") => {
                self.exec_reload = Some(message());
            }
            Kind::ProcessExit => {
                self.interrupt();
                self.mark(time, "process_exit", true, message());
            }
            Kind::RestartScheduled => self.mark(time, "restart", false, message()),
            Kind::OutOfMemory => self.mark(time, "out_of_memory", true, message()),
            Kind::Ours(_) => {}
        }
    }

    fn job_done(&mut self, time: Moment, entry: &Entry) {
        let reason = self.exec_reload.take();
        let row = self.job.and_then(|index| self.rows.get_mut(index));
        let Some(Row::Reload(reload)) = row else { return };
        let id = entry.number("JOB_ID");
        let Some(job) = reload.job.as_mut().filter(|job| job.result.is_none() && (job.id == id || id.is_none())) else {
            return;
        };
        let ms = time.since(job.began);
        let result = entry.get("JOB_RESULT").unwrap_or("done".into()).into_owned();
        if reload.told_by == Teller::Systemd {
            reload.reload_ms = Some(ms);
            if result == "done" {
                reload.outcome = Outcome::Reloaded;
            } else {
                reload.outcome = Outcome::Failed;
                reload.reason = Some(reason.unwrap_or_else(|| format!("systemd's job ended with: {result}")));
            }
        }
        (job.ms, job.result) = (Some(ms), Some(result));
    }

    /// The processes of before are gone, and with them what they were doing.
    fn unit_is_new(&mut self) {
        self.interrupt();
        while let Some(drain) = self.drain_of(|_| true) {
            drain.end = DrainEnd::Unknown;
        }
        if let Some(Row::Reload(reload)) = self.job.and_then(|index| self.rows.get_mut(index))
            && (reload.told_by, reload.outcome) == (Teller::Systemd, Outcome::UnderWay)
        {
            reload.outcome = Outcome::Interrupted;
        }
        (self.job, self.job_is_free) = (None, false);
    }

    /// The reload that is under way comes to nothing.
    fn interrupt(&mut self) {
        for row in self.rows.iter_mut().rev() {
            if let Row::Reload(reload) = row
                && reload.told_by == Teller::Handover
            {
                if reload.outcome == Outcome::UnderWay {
                    reload.outcome = Outcome::Interrupted;
                }
                break;
            }
        }
    }

    fn drain_of(&mut self, which: impl Fn(&Reload) -> bool) -> Option<&mut Drain> {
        self.rows.iter_mut().rev().find_map(|row| match row {
            Row::Reload(reload) if which(reload) => {
                reload.drain.as_mut().filter(|drain| drain.end == DrainEnd::Draining)
            }
            _ => None,
        })
    }

    fn mark(&mut self, time: Moment, kind: &'static str, bad: bool, text: String) {
        self.rows.push(Row::Event(Mark { time, kind, bad, text }));
    }
}
