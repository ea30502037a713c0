//! This process as one generation of its service: the parts that the driver drives.
//!
//! Here inputs become events; in `actions` what the lifecycle asks for is handed to the parts;
//! `asked` has what others ask for, `refusal` what cannot be, `moving` the connections that go and
//! come, `keeping` those that wait for a start, `insuring` those that survive a crash; in
//! `draining` and `end` the process comes to its end, which `pressure` may hasten.

mod actions;
mod asked;
mod draining;
mod end;
mod idling;
mod insuring;
mod keeping;
mod moving;
mod next;
mod pausing;
mod pressure;
mod refusal;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tracing::warn;

use crate::drain::Drain;
use crate::drain::moving::Resuming;
use crate::error::Result;
use crate::generation::{FailedFile, Origin};
use crate::jobs::Jobs;
use crate::lifecycle::{Event, LifeEnd, LifeState, Machine, ReloadPhase};
use crate::metrics::{GENERATION, PAUSED};
use crate::reload::clock::now;
use crate::reload::custody::Custody;
use crate::reload::drainers::{Drainers, OlderGeneration};
use crate::reload::driver::{Driver, Lifecycles, Parts};
use crate::reload::handle::ServiceRequest;
use crate::reload::hook_runner::{Decision, HookRunner};
use crate::reload::hooks::When;
use crate::reload::input::{Input, InputSender};
use crate::reload::inquiry::Inquiry;
use crate::reload::moment::{Facts, Moment};
use crate::reload::narrator::Narrator;
use crate::reload::outbox::Outbox;
use crate::reload::requests::ReloadRequests;
use crate::reload::successor::Successor;
use crate::reload::watch;
use crate::reload::watchdog::{Pinger, Pings};
use crate::service::assembly::{Assembly, StateFn};
use crate::service::handlers::Signals;
use crate::service::own::pausing::Pausing;
use crate::service::pidfile::Pidfile;
use crate::service::reap;
use crate::service::sockets::{Sockets, lock};
use crate::settings::signals::Signal;
use crate::settings::{Effective, REAP_AFTER};
use crate::sys::spawn::Parent;
use crate::systemd::pressure::PressureSource;

/// One generation of a service, as it sees itself.
#[derive(Debug)]
pub(crate) struct OwnGeneration {
    number: u64,
    pid: u32,
    /// The reload that it came with.
    came_with: Option<Arc<str>>,
    settings: Effective,
    sockets: Arc<Mutex<Sockets>>,
    drain: Drain,
    jobs: Jobs,
    /// How the next generation is started, whose child it becomes, and what it is given by the
    /// application.
    origin: Origin,
    parent: Parent,
    state: Option<StateFn>,
    /// What the next generation of the running reload is started from.
    suspect: Option<PathBuf>,
    /// What the last reload failed with.
    failed: Option<FailedFile>,
    /// A service manager takes the end of this process for that of the service, and cannot be told
    /// otherwise.
    untold: bool,
    /// A service manager starts the service.
    managed: bool,
    /// PID 1 of the container, which ends with this process.
    ending_init: Option<String>,

    successor: Successor,
    predecessor: Option<OlderGeneration>,
    drainers: Drainers,
    custody: Custody,
    requests: ReloadRequests,
    inquiry: Inquiry,
    narrator: Narrator,
    outbox: Outbox,
    pinger: Pinger,
    /// Where pressure is told under which the drain of this generation hurries.
    pressure: Vec<PressureSource>,
    pidfile: Option<Pidfile>,

    signals: Signals,
    inputs: InputSender,
    heard: mpsc::UnboundedReceiver<Input>,
    asked: mpsc::UnboundedReceiver<ServiceRequest>,
    tasks: JoinSet<()>,
    /// Asks the service manager for time, while a reload is under way.
    extending: Option<AbortHandle>,
    /// Has the service manager forget restarts, while this generation is main.
    recovering: Option<AbortHandle>,
    /// The previous generation was asked for one more reload in its last moment.
    passed_on: bool,
    /// Signals that were responded to, whose hooks are to be called.
    responded: Vec<Signal>,

    /// When it began to start or, later, to drain.
    began: Instant,
    drained: bool,
    told_moved: bool,
    asks_for_time: bool,
    /// The service manager is asked what follows the stop.
    asking: bool,
    /// Connections are kept for the next start, and until then what is in hand may be finished.
    keeping: Option<tokio::time::Instant>,
    /// What was in hand when that began is finished.
    settled: bool,
    /// What has waited for this start.
    resuming: Option<Resuming>,
    /// What has waited is being insured, and then served.
    securing: Option<AbortHandle>,
    /// Nothing new is taken.
    pausing: Pausing,
    /// The service stops, and no generation comes after this one.
    stopping: bool,
    end: Option<LifeEnd>,
}

impl OwnGeneration {
    /// Runs a service until this generation of it is over.
    pub(crate) async fn run(assembly: Assembly) -> Result<()> {
        let reaps = assembly.reaps;
        let config = assembly.settings.machine(assembly.managed, assembly.inherited.is_some());
        let mut own = Self::new(assembly)?;
        own.close_unclaimed()?;
        own.warn_of_oddities();
        if reaps && reap::adopts() {
            own.tasks.spawn(reap::reap(REAP_AFTER));
        }
        own.insure();
        let insurance = own.drain.insurance().cloned();
        own.custody
            .make_ready(own.predecessor.is_none(), move |store| insuring::provide(insurance.as_ref(), store))
            .await;
        own.look_at_kept();
        own.narrator.metrics().set_gauge(GENERATION, own.number as f64);
        own.narrator.metrics().set_gauge(PAUSED, f64::from(u8::from(own.pausing.is_on())));
        let mut lives = Lifecycles::default();
        lives.insert(own.number, Machine::new(config));
        lives.push(own.number, Event::Started);
        Driver::new(lives, own).run().await.finish().await
    }

    fn new(assembly: Assembly) -> Result<Self> {
        let Assembly { settings, inputs, number, notifier, sockets, drain, .. } = assembly;
        let mut tasks = JoinSet::new();
        let mut older = Vec::new();
        let (mut predecessor, mut pause) = (None, None);
        if let Some(inherited) = assembly.inherited {
            for drainer in inherited.drainers {
                let limit = drainer.drain_timeout.unwrap_or(settings.drain_timeout);
                let link = crate::generation::link::Idle::from_fd(drainer.link);
                older.push(OlderGeneration::new(drainer.generation, drainer.pid, drainer.draining, limit, link)?);
            }
            let limit = inherited.hello.drain_timeout_ms.map_or(settings.drain_timeout, Duration::from_millis);
            let (before, pid) = (number.saturating_sub(1), inherited.hello.pid);
            let previous = OlderGeneration::new(before, pid, Duration::ZERO, limit, inherited.link)?;
            tasks.spawn(watch::predecessor(Arc::clone(previous.link()), inputs.clone()));
            predecessor = Some(previous);
            pause = inherited.hello.pause;
        }
        let hooks = HookRunner::open(assembly.hooks, settings.hook_timeout);
        let metrics = drain.metrics().clone();
        let pings = assembly.watchdog.map(|watchdog| Pings {
            generation: number,
            watchdog,
            notifier: notifier.clone(),
            check: assembly.check,
            metrics: metrics.clone(),
            driver: assembly.requests,
        });
        let (confirmed, store) = (inputs.clone(), lock(&sockets).store().clone());
        let mut own = Self {
            number,
            pid: std::process::id(),
            came_with: assembly.handover_id,
            custody: Custody::open(store, assembly.states, inputs.clone()),
            successor: Successor::new(number + 1, inputs.clone()),
            predecessor,
            drainers: Drainers::new(older, inputs.clone()),
            requests: ReloadRequests::default(),
            inquiry: Inquiry::default(),
            narrator: Narrator::new(assembly.listeners, hooks, metrics, assembly.history),
            outbox: Outbox::open(notifier, move || _ = confirmed.send(Input::Event(Event::Barrier))),
            pinger: Pinger::new(pings),
            pressure: assembly.pressure,
            pidfile: assembly.pidfile,
            settings,
            sockets,
            drain,
            jobs: assembly.jobs,
            origin: assembly.origin,
            parent: assembly.parent,
            suspect: None,
            failed: None,
            untold: assembly.untold,
            managed: assembly.managed,
            ending_init: assembly.ending_init,
            state: assembly.state,
            signals: assembly.signals,
            inputs,
            heard: assembly.heard,
            asked: assembly.asked,
            tasks,
            extending: None,
            recovering: None,
            passed_on: false,
            responded: Vec::new(),
            began: now(),
            drained: false,
            told_moved: false,
            asks_for_time: false,
            asking: false,
            keeping: None,
            settled: false,
            resuming: None,
            securing: None,
            pausing: Pausing::default(),
            stopping: false,
            end: None,
        };
        own.keep_pause(pause);
        Ok(own)
    }

    fn close_unclaimed(&self) -> Result<()> {
        let unclaimed = lock(&self.sockets).close_unclaimed()?;
        if !unclaimed.is_empty() {
            let names = unclaimed.join(", ");
            warn!(generation = self.number, "closed sockets that nobody asked for: {names}");
        }
        Ok(())
    }

    /// What every moment is told with.
    fn facts(&self) -> Facts<'static> {
        Facts {
            generation: self.number,
            pid: self.pid,
            next: self.successor.generation(),
            old_pid: Some(self.pid),
            new_pid: self.successor.last_pid(),
            handover_id: self.successor.handover_id().or_else(|| self.came_with.clone()),
            asked: self.successor.began(),
            connections: self.drain.active(),
            serves: self.serves(),
            ..Facts::default()
        }
    }
}

impl Parts for OwnGeneration {
    type Input = Input;

    async fn next(&mut self) -> Input {
        loop {
            tokio::select! {
                // A stop is seen before everything else.
                biased;
                (signal, response) = self.signals.urgent.next() => return Input::Signal(signal, response),
                // Neither is ever closed: a sender of each is ours.
                Some(input) = self.heard.recv() => return input,
                Some(request) = self.asked.recv() => return Input::ServiceRequest(request),
                (signal, response) = self.signals.others.next() => return Input::Signal(signal, response),
                Some(_) = self.tasks.join_next() => {}
                () = self.successor.task_ended() => {}
            }
        }
    }

    fn take(&mut self, lives: &mut Lifecycles, input: Input) {
        match input {
            // A service manager does not accept a main process that is dead already, and would be
            // without one when we are gone.
            Input::Event(Event::Barrier) if self.successor.has_ended() => {
                self.next_failed(lives, "ended while it was handed over to");
            }
            // It may have to wait for a generation that drains.
            Input::Event(Event::Main { reload: true, stop: false }) => {
                lives.push(self.number, Event::Main { reload: false, stop: false });
                self.passed_on = true;
            }
            Input::Event(Event::SuccessorGone) => {
                self.end_pause("the next generation is gone");
                lives.push(self.number, Event::SuccessorGone);
            }
            Input::Event(event) => lives.push(self.number, event),
            Input::ServiceRequest(request) => self.on_request(lives, request),
            Input::Signal(signal, response) => self.on_signal(lives, signal, response),
            Input::SignalReady(signal, response) => self.respond(lives, signal, response),
            // Rolled back or stopped meanwhile: nothing was started.
            Input::Decided(attempt, decided) if self.successor.is_current(attempt) => match decided {
                Ok(Decision::Start(launch)) => self.start_next(launch.origin),
                Ok(Decision::Done) => lives.push(self.number, Event::ReloadedInPlace),
                Err(reason) => self.next_failed(lives, reason),
            },
            Input::Spawned(attempt, started) => self.on_spawned(lives, attempt, started),
            Input::FromNext(attempt, frame, fds) if self.successor.is_current(attempt) => {
                self.on_frame(lives, attempt, frame, fds);
            }
            Input::NextFailed(attempt, reason) if self.successor.is_current(attempt) => {
                self.next_failed(lives, reason);
            }
            Input::Decided(..) | Input::FromNext(..) | Input::NextFailed(..) => {}
            Input::Prepared(attempt, transfer) => self.on_prepared(lives, attempt, transfer),
            Input::Entries(names, fds) => self.custody.adopt(names, fds),
            Input::Gone(names) => self.custody.forget(&names),
            Input::Moving(fds) => self.take_connections(fds),
            Input::Follows(follows) => self.on_follows(lives, follows),
            Input::Settled => {
                self.settled = true;
                self.leave_if_settled(lives);
            }
            Input::Left => self.look_at_left(),
            Input::Secured(resuming) => self.serve_kept(resuming),
            Input::AllMoved => {
                self.tell_moved();
                // What waits and can go nowhere is finished here.
                if self.stopping {
                    self.end_pause("it stops");
                }
                if self.keeping.is_some() {
                    lives.push(self.number, Event::Kept);
                }
            }
            Input::Counted(carried) => self.narrator.metrics().adopt(carried),
            Input::Asked => self.tell_main(),
            Input::Told(generation, holding) => {
                self.inquiry.tell(generation, holding);
                if self.drainers.have_told(&self.inquiry) {
                    self.answer_status(lives);
                }
            }
            Input::AskedLongEnough => self.answer_status(lives),
            Input::Idle(idle) => self.on_idle(lives, idle),
            Input::Pressure(resource) => self.on_pressure(lives, resource),
            Input::AtRest(pause) => self.on_at_rest(pause),
            Input::PausedLongEnough(pause) => self.on_paused_long_enough(pause),
            Input::Resumed => self.end_pause("so another generation has told"),
            Input::DrainerGone(generation) => {
                self.drainers.remove(generation);
                self.tell_at_rest();
                self.expect_left();
                if self.drainers.len() < self.settings.max_draining {
                    self.release_reloads(lives);
                }
                self.measure_draining();
                self.leave_if_settled(lives);
                self.all_drained(lives);
            }
            Input::HeldLongEnough => self.release_reloads(lives),
            Input::Failed(file, status) => self.on_failed_file(lives, file, &status),
            Input::OwnDrainDone => {
                self.drained = true;
                self.all_drained(lives);
            }
        }
    }

    fn perform(&mut self, lives: &mut Lifecycles, _: u64, action: crate::lifecycle::Action) {
        self.carry_out(lives, action);
    }

    fn entered(&mut self, _: u64, state: LifeState) {
        if state == LifeState::Reloading(ReloadPhase::Ready) {
            self.successor.is_ready();
            let facts = Facts { since: self.successor.began(), ..self.facts() };
            self.narrator.tell(Moment::Ready, &facts);
        }
    }

    fn overdue(&self, _: u64, state: LifeState) -> Option<Event> {
        // A program that knows nothing of us, or hangs before it gets to us: a reason of its own
        // for the operator.
        let silent = state == LifeState::Reloading(ReloadPhase::Spawned) && self.successor.is_silent();
        let limit = self.settings.ready_timeout;
        silent.then(|| {
            Event::NextFailed(format!(
                "was not ready within {limit:?}: it never took up the handover link; \
                 does it reach Service::builder().start() in time?"
            ))
        })
    }

    fn settled(&mut self, lives: &mut Lifecycles) {
        // One that has begun meanwhile, as we were asked ourselves, is the one more.
        if std::mem::take(&mut self.passed_on) && !matches!(lives.state(self.number), LifeState::Reloading(_)) {
            let id = self.requests.add(None);
            self.reload(lives, id);
        }
        for signal in std::mem::take(&mut self.responded) {
            self.narrator.hooks().fire(self.about_signal(When::AfterSignal, signal));
        }
    }

    fn is_over(&self, _: &Lifecycles) -> bool {
        self.end.is_some()
    }
}
