//! The event loop: inputs in, one at a time, through the lifecycle, to actions.

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinHandle, JoinSet};
use tracing::{debug, info, warn};

use crate::drain::{Drain, FAR};
use crate::error::{Error, Result};
use crate::generation::{Next, Origin};
use crate::jobs::Jobs;
use crate::lifecycle::{Action, End, Event, Machine, Phase, RequestId, State};
use crate::metrics::Carried;
use crate::service::builder::StateFn;
use crate::service::clock::{at, millis, now};
use crate::service::handle::Reloaded;
use crate::service::keeper::{Keeper, Prepared};
pub(crate) use crate::service::parties::{Coming, Draining, Reload};
use crate::service::pidfile::Pidfile;
use crate::service::runner::{Decision, Runner};
use crate::service::signals::Signals;
use crate::service::sockets::Sockets;
use crate::service::status::{Asked, Asking};
use crate::service::steps::{Chronicle, What};
use crate::service::tell::Outbox;
use crate::service::watchdog::Check;
use crate::service::{Service, events, lock, reap, watch};
use crate::settings::signals::{Response, Signal};
use crate::settings::{END_TIMEOUT, Effective, REAP_AFTER};
use crate::state::States;
use crate::sys::spawn::Parent;
use crate::systemd::fdstore::Snapshot;
use crate::systemd::notify::Notifier;
use crate::systemd::watchdog::Watchdog;
use crate::wire::frame::Frame;

mod finish;
mod hammer;

/// The one stream of everything that happens to a service.
#[derive(Debug)]
pub(crate) enum Input {
    Event(Event),
    Reload(Option<oneshot::Sender<Result<Reloaded>>>),
    Stop,
    Status(Asking),
    /// A signal, whose hooks have been called.
    Signal(Signal, Response),
    /// What the hooks of a reload say.
    Decided(u64, Result<Decision, String>),
    /// The next generation was started, or could not be.
    Spawned(u64, Result<(Next, Snapshot)>),
    FromNext(u64, Frame, Vec<OwnedFd>),
    NextFailed(u64, String),
    /// The fd store is ready for the switch.
    Prepared(u64, Result<Prepared>),
    /// The previous generation passes what it got since we were started.
    Entries(Vec<String>, Vec<OwnedFd>),
    /// The previous generation removed what we were started with.
    Gone(Vec<String>),
    /// Counts of an older generation.
    Counted(Carried),
    DrainerGone(u64),
    OwnDrainDone,
    /// The watchdog asks whether the driver is alive.
    Alive(oneshot::Sender<()>),
}

#[derive(Debug)]
pub(crate) struct Driver {
    pub(crate) generation: u64,
    pub(crate) pid: u32,
    pub(crate) handover_id: Option<String>,
    pub(crate) settings: Effective,
    pub(crate) hooks: Runner,
    /// While it is ours to write.
    pub(crate) pidfile: Option<Pidfile>,
    /// The last that was done to it.
    pub(crate) pidfile_done: Option<JoinHandle<()>>,
    reaps: bool,
    pub(crate) sockets: Arc<Mutex<Sockets>>,
    pub(crate) states: States,
    pub(crate) keeper: Keeper,
    pub(crate) drain: Drain,
    pub(crate) jobs: Jobs,
    pub(crate) notifier: Notifier,
    pub(crate) outbox: Outbox,
    pub(crate) watchdog: Option<Watchdog>,
    pub(crate) check: Option<Check>,
    pub(crate) pinging: Option<AbortHandle>,
    pub(crate) state_fn: Option<StateFn>,
    pub(crate) origin: Origin,
    pub(crate) parent: Parent,
    pub(crate) predecessor: Option<Draining>,
    pub(crate) drainers: Vec<Draining>,
    pub(crate) drainer_watchers: Vec<AbortHandle>,
    pub(crate) reload: Option<Reload>,
    pub(crate) reloads: u64,
    pub(crate) chronicle: Chronicle,
    pub(crate) asked: Asked,
    /// Next generations that are being started just now.
    pub(crate) starting: usize,
    pub(crate) requests: RequestId,
    pub(crate) answers: HashMap<RequestId, oneshot::Sender<Result<Reloaded>>>,
    /// Events that actions cause at once.
    pub(crate) follow_ups: VecDeque<Event>,
    pub(crate) own_drain_done: bool,
    /// The service stops, and no generation comes after this one.
    pub(crate) stopping: bool,
    pub(crate) began: Instant,
    pub(crate) end: Option<End>,
    pub(crate) inputs: mpsc::UnboundedSender<Input>,
    pub(crate) tasks: JoinSet<()>,
    /// Generations that failed, on their way out.
    pub(crate) enders: JoinSet<()>,
    machine: Machine,
    pub(crate) signals: Signals,
    waiting: mpsc::UnboundedReceiver<Input>,
}

impl Driver {
    pub(crate) fn new(service: Service) -> Result<Self> {
        let config = service.settings.machine(service.managed, service.inherited.is_some());
        let mut tasks = JoinSet::new();
        let mut drainers = Vec::new();
        let mut predecessor = None;
        if let Some(inherited) = service.inherited {
            for older in inherited.drainers {
                let link = Arc::new(crate::generation::link::Idle::from_fd(older.link).into_link()?);
                let since = now().checked_sub(older.draining).unwrap_or_else(now);
                let limit = older.drain_timeout.unwrap_or(service.settings.drain_timeout).min(FAR);
                drainers.push(Draining { generation: older.generation, pid: older.pid, since, limit, link });
            }
            let link = Arc::new(inherited.link.into_link()?);
            tasks.spawn(watch::predecessor(Arc::clone(&link), service.inputs.clone()));
            let generation = service.generation.saturating_sub(1);
            let limit =
                inherited.hello.drain_timeout_ms.map_or(service.settings.drain_timeout, Duration::from_millis).min(FAR);
            predecessor = Some(Draining { generation, pid: inherited.hello.pid, since: now(), limit, link });
        }
        let store = lock(&service.sockets).store().clone();
        Ok(Self {
            states: service.states,
            keeper: Keeper::open(store, service.inputs.clone()),
            generation: service.generation,
            pid: std::process::id(),
            handover_id: service.handover_id,
            hooks: Runner::open(service.hooks, service.settings.hook_timeout),
            pidfile: service.pidfile,
            pidfile_done: None,
            reaps: service.reaps,
            settings: service.settings,
            sockets: service.sockets,
            drain: service.drain,
            jobs: service.jobs,
            outbox: Outbox::open(service.notifier.clone(), service.inputs.clone()),
            notifier: service.notifier,
            watchdog: service.watchdog,
            check: service.check,
            pinging: None,
            state_fn: service.state,
            origin: service.origin,
            parent: service.parent,
            predecessor,
            drainers,
            drainer_watchers: Vec::new(),
            reload: None,
            reloads: 0,
            chronicle: service.chronicle,
            asked: Asked::default(),
            starting: 0,
            requests: 0,
            answers: HashMap::new(),
            follow_ups: VecDeque::new(),
            own_drain_done: false,
            stopping: false,
            began: now(),
            end: None,
            inputs: service.inputs,
            tasks,
            enders: JoinSet::new(),
            machine: Machine::new(config),
            signals: service.signals,
            waiting: service.waiting,
        })
    }

    pub(crate) async fn run(mut self) -> Result<()> {
        let unclaimed = lock(&self.sockets).close_unclaimed()?;
        if !unclaimed.is_empty() {
            warn!(generation = self.generation, "closed sockets that nobody asked for: {}", unclaimed.join(", "));
        }
        if self.reaps && reap::adopts() {
            self.tasks.spawn(reap::reap(REAP_AFTER));
        }
        self.make_ready().await;
        self.measure_start();
        self.feed(Event::Started);
        while self.end.is_none() {
            let deadline = self.machine.deadline();
            tokio::select! {
                biased;
                (signal, response) = self.signals.urgent.next() => self.on_signal(signal, response),
                // Never closed: we hold a sender.
                Some(input) = self.waiting.recv() => self.on_input(input),
                (signal, response) = self.signals.others.next() => self.on_signal(signal, response),
                () = at(deadline) => self.on_deadline(),
                Some(_) = self.tasks.join_next() => {}
                Some(_) = self.enders.join_next() => {}
            }
        }
        self.finish().await
    }

    fn on_deadline(&mut self) {
        // A program that knows nothing of us, or hangs before it gets to us: a reason of its own for the operator.
        let silent = self.reload.as_ref().and_then(|r| r.coming.as_ref()).is_some_and(|c| !c.started);
        if silent && self.machine.state() == State::Reloading(Phase::Spawned) {
            let limit = self.settings.ready_timeout;
            return self.feed(Event::NextFailed(format!(
                "was not ready within {limit:?}: it never took up the handover link; \
                 does it reach Service::builder().start() in time?"
            )));
        }
        let actions = self.machine.timeout(now());
        self.perform_all(actions);
        self.follow_up();
    }

    pub(crate) fn on_input(&mut self, input: Input) {
        match input {
            // A service manager does not accept a main process that is dead already, and would be without one when we are gone.
            Input::Event(Event::Barrier) if self.next_has_ended() => {
                self.feed(Event::NextFailed("ended while it was handed over to".into()));
            }
            Input::Event(event) => self.feed(event),
            Input::Reload(answer) => {
                self.requests += 1;
                if let Some(answer) = answer {
                    self.answers.insert(self.requests, answer);
                }
                self.feed(Event::Reload(self.requests));
            }
            Input::Stop => self.on_stop("stop"),
            Input::Status(asking) => self.on_asking(asking),
            Input::Signal(signal, response) => self.respond(signal, response),
            Input::Decided(id, decided) => self.on_decided(id, decided),
            Input::Spawned(id, result) => self.on_spawned(id, result),
            Input::FromNext(id, frame, fds) if self.is_current(id) => match frame {
                Frame::Started { version } => {
                    debug!(version, "the next generation has started");
                    if let Some(coming) = self.reload.as_mut().and_then(|r| r.coming.as_mut()) {
                        coming.started = true;
                    }
                }
                Frame::Entries { names } => self.on_additions(names, fds),
                Frame::Ready => self.prepare_switch(),
                Frame::Switched => self.feed(Event::NextSwitched),
                other => debug!(?other, "a frame that means nothing here"),
            },
            Input::NextFailed(id, reason) if self.is_current(id) => self.feed(Event::NextFailed(reason)),
            Input::FromNext(..) | Input::NextFailed(..) => {}
            Input::Prepared(id, prepared) => self.on_prepared(id, prepared),
            Input::Entries(names, fds) => self.on_passed_entries(names, fds),
            Input::Gone(names) => self.on_gone_entries(&names),
            Input::Counted(carried) => self.drain.metrics().adopt(carried),
            Input::DrainerGone(generation) => {
                self.drainers.retain(|d| d.generation != generation);
                self.measure_draining();
                self.all_drained();
            }
            Input::OwnDrainDone => {
                self.own_drain_done = true;
                self.all_drained();
            }
            Input::Alive(answer) => _ = answer.send(()),
        }
    }

    pub(crate) fn is_current(&self, id: u64) -> bool {
        self.reload.as_ref().is_some_and(|r| r.id == id && !r.ended)
    }

    fn on_spawned(&mut self, id: u64, result: Result<(Next, Snapshot)>) {
        self.starting -= 1;
        let (next, snapshot) = match result {
            Ok(next) => next,
            Err(error) if self.is_current(id) => {
                return self.feed(Event::NextFailed(format!("did not start: {error}")));
            }
            Err(_) => return,
        };
        let generation = self.generation + 1;
        let Next { process, link } = next;
        let ready = link.into_link().and_then(|link| {
            let pidfd = process.try_clone_pidfd().map_err(|e| Error::os("a pidfd cannot be duplicated", e))?;
            Ok((Arc::new(link), pidfd))
        });
        match ready {
            Ok((link, pidfd)) if self.is_current(id) => {
                let watcher = self.tasks.spawn(watch::next(id, Arc::clone(&link), pidfd, self.inputs.clone()));
                info!(
                    message_id = events::SPAWNED,
                    generation = self.generation,
                    handover_id = self.reload.as_ref().map(|r| r.handover_id.as_str()),
                    old_pid = self.pid,
                    new_pid = process.pid(),
                    spawn_ms = self.reload.as_ref().map(|r| millis(r.began)),
                    "started generation {generation}"
                );
                if let Some(reload) = &mut self.reload {
                    reload.new_pid = Some(process.pid());
                    reload.snapshot = snapshot;
                    reload.coming = Some(Coming { process, link, watcher, started: false });
                }
                self.tell(What::Started);
            }
            // Rolled back or stopped while it was being started: it holds no clients.
            Ok((link, _)) => _ = self.enders.spawn(watch::end(generation, process, Some(link), END_TIMEOUT)),
            Err(error) => {
                self.enders.spawn(watch::end(generation, process, None, END_TIMEOUT));
                if self.is_current(id) {
                    self.feed(Event::NextFailed(error.to_string()));
                }
            }
        }
    }

    /// A stop is over only when the older generations are gone too: our exit makes systemd hurry them.
    fn all_drained(&mut self) {
        let waits_for_drainers = self.machine.state() == State::Stopping && !self.drainers.is_empty();
        if self.own_drain_done && !waits_for_drainers {
            self.feed(Event::Drained);
        }
    }

    pub(crate) fn feed(&mut self, event: Event) {
        self.follow_ups.push_back(event);
        self.follow_up();
    }

    fn follow_up(&mut self) {
        while let Some(event) = self.follow_ups.pop_front() {
            let before = self.machine.state();
            let shown = format!("{event:?}");
            let actions = self.machine.handle(now(), event);
            let after = self.machine.state();
            if before != after {
                debug!(generation = self.generation, ?before, ?after, event = shown, "state");
                let ready = after == State::Reloading(Phase::Ready);
                if ready && let Some(reload) = &mut self.reload {
                    reload.ready = Some(now());
                }
                self.tell_progress(after);
                if ready {
                    self.tell(What::Ready);
                }
            }
            self.perform_all(actions);
        }
    }

    fn perform_all(&mut self, actions: Vec<Action>) {
        for action in actions {
            self.perform(action);
        }
    }

    pub(crate) fn state(&self) -> State {
        self.machine.state()
    }

    fn next_has_ended(&self) -> bool {
        self.reload.as_ref().and_then(|r| r.coming.as_ref()).is_some_and(|coming| coming.process.has_ended())
    }

    /// Of the generation that is being started, or that we handed over to.
    pub(crate) fn next_pid(&self) -> Option<u32> {
        Some(self.reload.as_ref()?.coming.as_ref()?.process.pid())
    }
}
