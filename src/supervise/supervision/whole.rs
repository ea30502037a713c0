//! The program as a whole, of all its workers: its reload, what is told of it, the way to a newer
//! version of its supervisor, and its end.

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::error;

use crate::error::{Error, Kind, Result};
use crate::lifecycle::{Event, LifeState, Machine};
use crate::metrics::{DRAINING, GENERATION};
use crate::reload::clock::millis;
use crate::reload::driver::Lifecycles;
use crate::reload::extend;
use crate::reload::moment::{Facts, Moment};
use crate::reload::recovery;
use crate::reload::status::{Moves, Older, Status, Supervising};
use crate::settings::duration;
use crate::supervise::generation::ProgramGeneration;
use crate::supervise::own_port;
use crate::supervise::ready::Ready;
use crate::supervise::record::{FORMAT, PassedFds, SupervisorRecord, ahead, until};
use crate::supervise::renew::Resumed;
use crate::supervise::rolling::{NextMove, Rolling};
use crate::supervise::supervision::Supervision;
use crate::sys::pidfd::Ended;
use crate::systemd::notify::{Message, NOTIFY_TIMEOUT, monotonic_usec};

/// How long clients of the control interface are given to read their last answer.
const LAST_ANSWERS: Duration = Duration::from_millis(500);

impl Supervision {
    pub(super) fn begin_reload(&mut self, lives: &mut Lifecycles) {
        let main = self.workers.newest_main();
        let (generation, old_pid) = (main.map_or(0, |of| of.number), main.map(ProgramGeneration::pid));
        self.reloads.begin(self.workers.count(), main.and_then(|main| main.process.image.clone()));
        let next = self.workers.last_number() + 1;
        let (program, handover_id) = (self.recipe.command.program.display().to_string(), self.reloads.handover_id());
        let facts = Facts { next, old_pid, handover_id, ..Facts::said(generation, &program) };
        self.narrator.tell(Moment::Starting, &facts);
        let detail = &format!("starting generation {next}");
        let status = Moment::Reloading.status(&Facts { serves: self.serves(), detail, ..Facts::default() });
        self.outbox.send(&Message::new().status(status).reloading(monotonic_usec()));
        // One worker after the other, each within these.
        let workers = u32::try_from(self.workers.count()).unwrap_or(u32::MAX);
        let limit = self.settings.reload_limit().saturating_mul(workers);
        let asking = self.watches.run(extend::while_reloading(self.outbox.sender(), limit));
        self.extending = Some(asking);
        self.roll_on(lives);
    }

    /// The worker of that generation has a new main one, or has failed to get one.
    pub(super) fn replaced(&mut self, lives: &mut Lifecycles, number: u64, outcome: Result<(), String>) {
        if let Some(slot) = self.workers.slot_of(number) {
            self.slot_done(lives, slot, outcome);
        }
    }

    pub(super) fn slot_done(&mut self, lives: &mut Lifecycles, slot: usize, outcome: Result<(), String>) {
        self.reloads.done(slot, outcome);
        self.roll_on(lives);
    }

    fn roll_on(&mut self, lives: &mut Lifecycles) {
        loop {
            match self.reloads.next_move() {
                NextMove::Wait => return,
                NextMove::Replace(slot) => {
                    // A next one is being started anew just now, perhaps from the old file: what it
                    // becomes is not what was asked for.
                    match self.workers.main(slot).or_else(|| self.workers.next(slot)) {
                        Some(generation) => lives.push(generation.number, Event::Reload(self.reloads.request())),
                        None => self.restart(lives, slot, true),
                    }
                }
                NextMove::Over(ended) => self.end_reload(*ended),
            }
        }
    }

    /// No more time is asked for.
    pub(super) fn reload_is_over(&mut self) {
        if let Some(asking) = self.extending.take() {
            asking.abort();
        }
    }

    fn end_reload(&mut self, ended: Rolling) {
        self.reload_is_over();
        let main = self.workers.newest_main();
        let (generation, pid) = main.map_or((0, 0), |main| (main.number, main.pid()));
        let (handover_id, began) = (Some(Arc::clone(&ended.handover_id)), Some(ended.began));
        let reason = ended.failed.as_deref();
        let told = Facts { handover_id, new_pid: None, asked: began, since: began, ..self.facts(generation) };
        let told = Facts { of_worker: false, reason, detail: reason.unwrap_or_default(), ..told };
        let moment = if reason.is_some() { Moment::RolledBack } else { Moment::AllReplaced };
        let status = self.narrator.tell(moment, &told);
        self.outbox.send(&Message::new().status(status).ready());
        ended.answer(generation, pid);
    }
}

/// What is told of it.
impl Supervision {
    /// The number of the newest main generation; 0: there is none.
    pub(super) fn newest_main(&self) -> u64 {
        self.workers.newest_main().map_or(0, |of| of.number)
    }

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

    /// Says why the generation, or the next one beside it, has failed.
    pub(super) fn not_ready(&self, number: u64) -> String {
        let (within, why) = (self.settings.ready_timeout, self.terms.ready.unmet());
        let generation = self.workers.next_beside(number).or_else(|| self.workers.get(number));
        let Some(family) = generation.map(|of| &of.process.family) else {
            return format!("was not ready within {within:?}: {why}");
        };
        let hears = self.terms.ready != Ready::Notify || self.terms.notify_group.is_some();
        let unheard = family
            .other_user()
            .filter(|_| !hears)
            .map(|user| format!("; it runs as user {user}, who cannot reach the socket for that: --notify-group"));
        let first_fd = self.recipe.command.first_fd;
        let hint = unheard.or_else(|| own_port::while_it_runs(family, &self.inheritance.items, first_fd));
        format!("was not ready within {within:?}: {why}{}", hint.unwrap_or_default())
    }

    /// Says how it ended that was never ready.
    pub(super) fn ended_early(&self, how: Ended) -> String {
        // Once something has served, the program knows its sockets.
        let wrong = matches!(how, Ended::Exited(status) if status != 0) && !self.served;
        let hint = wrong.then(|| own_port::after_exit(&self.inheritance.items, self.recipe.command.first_fd));
        format!("{how}{}", hint.flatten().unwrap_or_default())
    }

    pub(super) fn status(&self, lives: &Lifecycles) -> Status {
        let main = self.workers.newest_main();
        let state = match main {
            _ if self.stopping => LifeState::Stopping.name(),
            _ if self.reloads.is_running() => "reloading",
            Some(main) => lives.state(main.number).name(),
            None if self.served => "crashed",
            None => LifeState::Starting.name(),
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
            moves: Moves::default(),
            reloads: self.reloads.count(),
            handover_id: self.reloads.handover_id().as_deref().map(str::to_owned),
            draining: draining.map(older).collect(),
            sockets: self.inheritance.listed(),
            store: self.inheritance.stored(),
            reload_signals: vec!["SIGHUP".to_owned()],
            reloads_in_place: false,
            settings: self.named(),
            paused: None,
            past: history.past().to_vec(),
            failed_program: None,
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
        all.insert("drain_delay".into(), duration::show(self.terms.drain_delay));
        all.insert("workers".into(), self.workers.count().to_string());
        all
    }
}

/// The way to a newer version of the supervisor, and the end.
impl Supervision {
    pub(super) fn may_renew(&self) -> bool {
        self.served && !self.stopping && self.reloads.is_idle() && self.workers.all_serve()
    }

    /// Goes on as the newer version, if it can. What came while that was asked comes first: then it
    /// is asked again.
    pub(super) fn renew(&mut self, lives: &Lifecycles, answer: Result<()>) {
        self.renewal.answered();
        // An end that a task has seen already would be lost, and the process with it.
        if answer.is_ok() && !(self.may_renew() && self.watches.is_idle()) {
            return self.renewal.want();
        }
        let mut fds = PassedFds::default();
        let executed = answer.and_then(|()| {
            let record = self.record(lives, &mut fds);
            self.renewal.execute(&record, &fds)
        });
        // It returns only to say why it is still here.
        let Err(error) = executed;
        error!(generation = self.newest_main(), "handover run stays as it is: {error}");
        self.renewal.failed(&error);
    }

    fn record<'a>(&'a self, lives: &Lifecycles, fds: &mut PassedFds<'a>) -> SupervisorRecord {
        let history = self.narrator.history();
        let alive = self.workers.all().filter(|of| !of.ended);
        SupervisorRecord {
            format: FORMAT,
            pid: std::process::id(),
            run: self.recipe.run.clone(),
            mail: fds.add(self.inbox.as_fd()),
            control: self.control.as_ref().map(|fd| fds.add(fd.as_fd())),
            items: self.inheritance.record(fds),
            good: self.workers.good().map(|image| fds.add(image.as_fd())),
            generations: alive.map(|of| of.record(lives.deadline_of(of.number).map(until), fds)).collect(),
            last_number: self.workers.last_number(),
            reloads: self.reloads.count(),
            crashes: self.crashes.count(),
            renewals: self.renewal.count(),
            age_ms: millis(history.launched()),
            past: history.past().to_vec(),
        }
    }

    /// Goes on where an older version was.
    pub(super) fn resume(&mut self, lives: &mut Lifecycles, resumed: Resumed) {
        self.served = true;
        self.watches.run(recovery::forget_restarts(self.outbox.sender(), self.terms.good_after));
        self.inbox.expect(true);
        for (of, process) in resumed.generations {
            let state = if of.draining_ms.is_some() { LifeState::Draining } else { LifeState::Serving };
            let machine = Machine::resumed(self.settings.machine(false, false), state, of.left_ms.map(ahead));
            lives.insert(of.number, machine);
            match process.pidfd.try_clone() {
                Ok(pidfd) => self.watches.until_ended(of.number, pidfd),
                Err(error) => error!(%error, "generation {} ({:?}) cannot be watched", of.number, process.family),
            }
            self.workers.adopt(ProgramGeneration::resumed(of, process));
        }
        let detail = &format!("handover run goes on as version {}", env!("CARGO_PKG_VERSION"));
        self.narrator.tell(Moment::Renewed, &Facts { new_pid: Some(std::process::id()), ..Facts::said(0, detail) });
        self.outbox.send(&Message::new().status(self.serves()));
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
        moved: None,
        stayed: BTreeMap::new(),
    }
}
