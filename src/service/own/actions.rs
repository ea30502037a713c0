//! What the lifecycle asks for, handed to the part whose job it is.

use crate::error::{Error, Kind, Result};
use crate::generation::{Estate, FailedFile, Origin};
use crate::lifecycle::{Action, Event, LifeState};
use crate::metrics::{DRAINING, READY_SECONDS, SWITCH_SECONDS};
use crate::reload::driver::Lifecycles;
use crate::reload::extend;
use crate::reload::history::shared_usec;
use crate::reload::hooks::{self, Launch, When};
use crate::reload::input::Input;
use crate::reload::moment::{Facts, Moment};
use crate::reload::recovery;
use crate::service::own::{OwnGeneration, insuring};
use crate::service::sockets::{self, lock};
use crate::settings::Migrate;
use crate::sys::pidfd;
use crate::sys::spawn::Parent;
use crate::systemd::fdstore::FdStore;
use crate::systemd::notify::{Message, monotonic_usec};
use crate::wire::frame::{Frame, Hello, MAX_NAMES};
use crate::wire::parcel::RECORDS;

impl OwnGeneration {
    pub(super) fn carry_out(&mut self, lives: &mut Lifecycles, action: Action) {
        if ends_reload(&action)
            && let Some(asking) = self.extending.take()
        {
            asking.abort();
        }
        match action {
            Action::TellReady => {
                let status = self.tell_by_new(Moment::Serves, None);
                self.outbox.send(&Message::new().status(status).ready());
                self.resume();
            }
            Action::TellReloading => {
                let next = format!("starting generation {}", self.successor.generation());
                let detail = if self.narrator.hooks().is_in_place() { "reloading" } else { &next };
                let status = Moment::Reloading.status(&Facts { detail, ..self.facts() });
                self.outbox.send(&Message::new().status(status).reloading(monotonic_usec()));
                // TimeoutStartSec= is the manager's limit of a reload, too, and may be shorter than
                // ours.
                let asking = extend::while_reloading(self.outbox.sender(), self.settings.reload_limit());
                self.extending = Some(self.tasks.spawn(asking));
            }
            Action::TellRolledBack(reason) => self.tell_rolled_back(&reason),
            Action::TellReloadedInPlace => {
                let status = self.tell_since_asked(Moment::InPlace);
                self.successor.close();
                self.outbox.send(&Message::new().status(status).ready());
            }
            Action::TellHandover => self.tell_handover(),
            Action::TellReclaim => {
                let status = self.narrator.tell(Moment::Reclaimed, &self.facts());
                self.outbox.send(&names_main(self.pid, pidfd::own_id()).status(status).ready());
                self.pinger.start();
                self.recover();
                self.custody.reclaim();
                self.write_pidfile();
            }
            Action::TellStopping => {
                self.stopping = true;
                let detail = &format!("; connections to finish: {}", self.drain.active());
                let status = self.narrator.tell(Moment::Stopping, &Facts { detail, ..self.facts() });
                self.outbox.send(&Message::new().status(status).stopping());
            }
            Action::Spawn => self.spawn_next(),
            Action::SendSwitch => {
                let told = self.successor.switch();
                self.or_next_failed(lives, told);
            }
            Action::SendMain { reload, stop } => {
                self.tell_since_asked(Moment::HandedOver);
                self.pass_counts();
                self.open_channel();
                let told = self.successor.hand_over(&Frame::Main { reload, stop });
                if let Some(pidfile) = &mut self.pidfile {
                    pidfile.leave();
                }
                self.or_next_failed(lives, told);
            }
            Action::EndNext { grace } => {
                self.custody.reclaim();
                self.successor.end(grace, self.custody.restorer());
            }
            Action::SayReady => {
                self.say_additions();
                self.say_takes();
                self.say_paused();
                self.say(&Frame::Ready);
                self.narrator.tell(Moment::Standby, &self.facts());
            }
            Action::SaySwitched => {
                self.say(&Frame::Switched);
                self.narrator.tell(Moment::Accepts, &self.facts());
            }
            Action::OpenGate => self.drain.accept(true),
            Action::ShutGate => {
                self.drain.accept(false);
                lives.push(self.number, Event::GateShut);
                if matches!(lives.state(self.number), LifeState::Reloading(_)) {
                    self.tell_since_asked(Moment::Switched);
                }
            }
            Action::BecomeMain => self.become_main(),
            Action::Settle => self.settle(),
            Action::BeginDrain { linger } => {
                let state = lives.state(self.number);
                self.begin_drain(state, linger);
                // What waits for the end of the pause is not cut before.
                lives.postpone(self.number, self.pausing.left());
            }
            Action::Hurry => self.drain.hurry(),
            Action::Hammer => self.hammer(),
            Action::Answer(ids, outcome) => {
                let (generation, pid) = (self.successor.generation(), self.successor.pid().unwrap_or(0));
                self.requests.answer(&ids, &outcome, generation, pid);
            }
            Action::Exit(end) => self.exit(end),
        }
    }

    /// A moment whose duration counts from the request to reload.
    fn tell_since_asked(&mut self, moment: Moment) -> String {
        let facts = Facts { since: self.successor.began(), ..self.facts() };
        self.narrator.tell(moment, &facts)
    }

    /// A moment of the new generation, which this one is.
    fn tell_by_new(&mut self, moment: Moment, old_pid: Option<u32>) -> String {
        let reload_signal = Some(self.signals.map.reloads().join(" ").into());
        let facts = Facts { old_pid, new_pid: Some(self.pid), since: Some(self.began), reload_signal, ..self.facts() };
        self.narrator.tell(moment, &facts)
    }

    fn or_next_failed(&self, lives: &mut Lifecycles, told: Result<()>) {
        if let Err(error) = told {
            lives.push(self.number, Event::NextFailed(error.to_string()));
        }
    }
}

/// Names a process as the main one, beyond doubt where kernel and service manager know how.
fn names_main(pid: u32, id: Option<u64>) -> Message {
    let message = Message::new().main_pid(pid);
    id.into_iter().fold(message, Message::main_pid_id)
}

/// Whether the service manager is told now that no reload is under way any more.
fn ends_reload(action: &Action) -> bool {
    use Action::{TellHandover, TellReclaim, TellReloadedInPlace, TellRolledBack, TellStopping};
    matches!(action, TellRolledBack(_) | TellReloadedInPlace | TellHandover | TellReclaim | TellStopping)
}

/// The way to the next generation.
impl OwnGeneration {
    /// The hooks first, if there are any: then the next generation, if they say so.
    fn spawn_next(&mut self) {
        let handover_id = self.successor.begin();
        self.suspect = None;
        self.custody.begin();
        self.narrator.tell(Moment::Reloading, &self.facts());
        let event = hooks::Event {
            handover_id: Some(handover_id.to_string()),
            ..hooks::Event::new(When::BeforeReload, self.number)
        };
        match self.narrator.hooks().decide(event, Box::new(Launch { origin: self.origin.clone() })) {
            Err(launch) => self.start_next(launch.origin),
            Ok(decision) => {
                let (attempt, inputs) = (self.successor.attempts(), self.inputs.clone());
                self.tasks.spawn(async move {
                    let _ = inputs.send(Input::Decided(attempt, decision.await));
                });
            }
        }
    }

    /// Starts the next generation of the running reload, in this way.
    pub(super) fn start_next(&mut self, origin: Origin) {
        let Some(handover_id) = self.successor.handover_id() else { return };
        let program = origin.program.display().to_string();
        self.narrator.tell(Moment::Starting, &Facts { detail: &program, ..self.facts() });
        let (parent, state) = (self.parent, self.state.clone());
        let directory = origin.directory().to_str().map(str::to_owned);
        let estate = self.estate(&handover_id, program, directory);
        // What we refuse ourselves says nothing of the program.
        self.suspect = estate.is_ok().then(|| origin.program.clone());
        let store = lock(&self.sockets).store().clone();
        let (attempt, inputs, over) = (self.successor.attempts(), self.inputs.clone(), self.inputs.clone());
        let starting = tokio::task::spawn_blocking(move || {
            let mut estate = estate?;
            let (entries, snapshot) = store.estate()?;
            estate.sockets.extend(entries);
            estate.hello.told = store.was_told();
            estate.state = state.map(|state| (state.0)());
            if over.is_closed() {
                return Err(Error::new(Kind::State, "the service is over"));
            }
            origin.start(estate, parent).map(|next| (next, snapshot))
        });
        self.successor.starting();
        self.tasks.spawn(async move {
            let result = starting.await.unwrap_or_else(|e| {
                Err(Error::new(Kind::Generation, format!("the application's handover state failed: {e}")))
            });
            let _ = inputs.send(Input::Spawned(attempt, result));
        });
    }

    fn estate(&self, handover_id: &str, program: String, directory: Option<String>) -> Result<Estate> {
        self.check_handover()?;
        let around = self.settings.drain_timeout.saturating_add(self.narrator.hooks().exit_allowance());
        let around = around.saturating_add(self.pausing.left());
        Ok(Estate {
            sockets: lock(&self.sockets).estate()?,
            links: self.drainers.links()?,
            state: None,
            hello: Hello {
                version: env!("CARGO_PKG_VERSION").into(),
                generation: self.successor.generation(),
                handover_id: handover_id.to_owned(),
                pid: self.pid,
                program,
                directory,
                drain_timeout_ms: u64::try_from(around.as_millis()).ok(),
                settings: Some(self.settings.to_string()),
                managed: self.parent == Parent::Manager,
                drainers: self.drainers.to_wire(),
                state: false,
                told: false,
                asked_usec: shared_usec(self.successor.began()),
                past: self.narrator.history().past().iter().cloned().map(Into::into).collect(),
                pause: self.pausing.to_wire(),
            },
        })
    }

    fn tell_handover(&mut self) {
        if let Some(recovering) = self.recovering.take() {
            recovering.abort();
        }
        // From here on only the new main's pings count; it has what is left of the interval for its
        // first.
        if self.pinger.stop() {
            self.outbox.send(&Message::new().watchdog());
        }
        if let Some(pid) = self.successor.pid() {
            let status = Moment::TakesOver.status(&self.facts());
            self.outbox.send(&names_main(pid, self.successor.pidfd_id()).status(status).ready());
        }
        self.outbox.barrier();
    }

    fn tell_rolled_back(&mut self, reason: &str) {
        let detail = &format!("generation {} {reason}", self.successor.generation());
        let facts = Facts { since: self.successor.began(), reason: Some(reason), detail, ..self.facts() };
        let status = self.narrator.tell(Moment::RolledBack, &facts);
        self.successor.close();
        self.outbox.send(&Message::new().status(status.clone()).ready());
        let file = self.suspect.take().and_then(|path| FailedFile::at(path, self.successor.generation()));
        if let Some(file) = file {
            let inputs = self.inputs.clone();
            let hashing = tokio::task::spawn_blocking(move || {
                let _ = inputs.send(Input::Failed(file.hashed(), status));
            });
            self.tasks.spawn(async { _ = hashing.await });
        }
    }

    /// A truthful rollback leaves a trap: the next crash starts what is at the path.
    pub(super) fn on_failed_file(&mut self, lives: &Lifecycles, file: FailedFile, status: &str) {
        if !file.is_still_there() {
            return;
        }
        tracing::warn!(generation = self.number, sha256 = file.sha256.as_deref(), "{file}; put the good one back");
        if lives.state(self.number) == LifeState::Serving {
            self.outbox.send(&Message::new().status(format!("{status}; {file}")));
        }
        self.failed = Some(file);
    }

    /// Before the next generation is told that it is main: from then on it is the one that is
    /// asked.
    fn pass_counts(&self) {
        if let Some((until_ready, since_then)) = self.successor.times() {
            self.narrator.metrics().pass_time(READY_SECONDS, until_ready);
            self.narrator.metrics().pass_time(SWITCH_SECONDS, since_then);
        }
        self.send_counts();
    }

    /// What this generation has counted since it told them last.
    pub(super) fn send_counts(&self) {
        for carried in self.narrator.metrics().take(MAX_NAMES) {
            if let Err(error) = self.successor.send(&Frame::Counted(carried)) {
                tracing::debug!(%error, "counts that end with this generation");
            }
        }
    }
}

/// The previous generation, and the main role.
impl OwnGeneration {
    /// To the previous generation. If it is gone, that is an event of its own.
    pub(super) fn say(&self, frame: &Frame) {
        if let Some(previous) = &self.predecessor
            && let Err(error) = previous.link().send(frame)
        {
            tracing::warn!(%error, "the previous generation cannot be told");
        }
    }

    /// To the previous generation, before it is told that we are ready.
    fn say_additions(&self) {
        let Some(previous) = &self.predecessor else { return };
        let additions = self.custody.own_additions();
        if let Err(error) = additions.and_then(|additions| previous.link().send_entries(&additions)) {
            tracing::warn!(%error, "what this generation adds to the fd store goes there only when it is main");
        }
    }

    /// To the previous generation, likewise: whose connections this one takes.
    fn say_takes(&self) {
        if self.settings.migrate == Migrate::Never {
            return;
        }
        for names in self.drain.takes().chunks(MAX_NAMES) {
            self.say(&Frame::Takes { records: RECORDS, names: names.to_vec() });
        }
    }

    fn become_main(&mut self) {
        self.pinger.start();
        self.recover();
        let wanted = lock(&self.sockets).entries();
        // Until what is in the mailbox is insured here, it stays there.
        let spent = self.securing.is_none();
        let insurance = self.drain.insurance().cloned();
        let provided = insurance.clone();
        let provide = move |store: &FdStore| insuring::provide_at_once(provided.as_ref(), store);
        self.custody.keep(self.number, self.came_with.clone(), provide, move |store| {
            if spent {
                sockets::remove_mailbox(store);
            }
            sockets::remove_stale(store, &wanted);
            insuring::confirm(insurance.as_ref(), store);
        });
        self.write_pidfile();
        self.narrator.tell(Moment::IsMain, &self.facts());
        if let Some(previous) = self.predecessor.take() {
            let status = self.tell_by_new(Moment::Main, Some(previous.pid()));
            self.outbox.send(&Message::new().status(status));
            self.drainers.push(previous);
        }
        self.watch_idleness();
        self.drainers.watch();
        self.measure_draining();
        self.drainers.keep_in_bounds(self.settings.max_draining);
    }

    /// From now on this generation is main, and counts as healthy in a while.
    fn recover(&mut self) {
        let recovering = recovery::forget_restarts(self.outbox.sender(), self.settings.healthy_after);
        if let Some(before) = self.recovering.replace(self.tasks.spawn(recovering)) {
            before.abort();
        }
    }

    fn write_pidfile(&mut self) {
        if let Some(pidfile) = &mut self.pidfile {
            pidfile.write();
        }
    }

    pub(super) fn measure_draining(&self) {
        self.narrator.metrics().set_gauge(DRAINING, self.drainers.len() as f64);
    }
}
