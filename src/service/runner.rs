//! Calls the hooks beside the event loop, and tells it what they decide.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::{error, info};

use crate::error::{Error, Kind, Result};
use crate::lifecycle::{self, Phase, State};
use crate::service::clock::millis;
use crate::service::driver::{Driver, Input};
use crate::service::hooks::{Event, Hooks, InPlace, Launch, When};
use crate::service::steps::What;
use crate::service::{events, lock};
use crate::settings::signals::Signal;
use crate::systemd::notify::Message;

/// What the hooks of a reload say, taken together.
#[derive(Debug)]
pub(crate) enum Decision {
    /// It is done already, in place.
    Done,
    /// Start the next generation in this way.
    Start(Box<Launch>),
}

/// The hooks of a running service.
#[derive(Debug)]
pub(crate) struct Runner {
    hooks: Arc<Hooks>,
    timeout: Duration,
    events: mpsc::UnboundedSender<Event>,
    caller: JoinHandle<()>,
}

impl Hooks {
    pub(crate) fn checked(self) -> Result<Self> {
        let on = self.on.iter().map(|(when, hook)| (format!("{when:?}"), hook.limit(Duration::MAX)));
        let before_spawn = self.before_spawn.iter().map(|h| ("before_spawn".into(), h.limit(Duration::MAX)));
        let in_place = self.in_place.iter().map(|h| ("on_reload_in_place".into(), h.limit(Duration::MAX)));
        match on.chain(before_spawn).chain(in_place).find(|(_, limit)| limit.is_zero()) {
            Some((name, _)) => Err(Error::new(
                Kind::Invalid,
                format!("the timeout of the hook {name} is 0, so that it would always fail: give it a time"),
            )),
            None => Ok(self),
        }
    }

    fn at(&self, when: When) -> impl Iterator<Item = &crate::service::hooks::Hook<Event>> {
        self.on.iter().filter(move |(w, _)| *w == when).map(|(_, hook)| hook)
    }

    async fn call_all(&self, event: &Event, timeout: Duration) {
        for hook in self.at(event.when) {
            if let Err(reason) = hook.call(event.clone(), timeout).await {
                error!(generation = event.generation, hook = ?event.when, "the hook {:?} failed: {reason}", event.when);
            }
        }
    }

    async fn decide(&self, event: Event, mut launch: Box<Launch>, timeout: Duration) -> Result<Decision, String> {
        for hook in self.at(When::BeforeReload) {
            let asked = hook.call(event.clone(), timeout).await;
            asked.map_err(|reason| format!("was not started: vetoed before the reload: {reason}"))?;
        }
        if let Some(hook) = &self.in_place {
            match hook.call(event, timeout).await {
                Ok(InPlace::Done) => return Ok(Decision::Done),
                Ok(InPlace::NewGeneration) => {}
                Err(reason) => return Err(format!("was not started: the reload in place failed: {reason}")),
            }
        }
        for hook in &self.before_spawn {
            let changed = hook.call(*launch, timeout).await;
            launch = Box::new(changed.map_err(|reason| format!("was not started: before_spawn: {reason}"))?);
        }
        Ok(Decision::Start(launch))
    }
}

impl Runner {
    pub(crate) fn open(hooks: Hooks, timeout: Duration) -> Self {
        let hooks = Arc::new(hooks);
        let (events, mut waiting) = mpsc::unbounded_channel::<Event>();
        let called = Arc::clone(&hooks);
        let caller = tokio::spawn(async move {
            while let Some(event) = waiting.recv().await {
                called.call_all(&event, timeout).await;
            }
        });
        Self { hooks, timeout, events, caller }
    }

    /// Nobody waits for it.
    pub(crate) fn fire(&self, event: Event) {
        if self.hooks.at(event.when).next().is_some() {
            let _ = self.events.send(event);
        }
    }

    pub(crate) fn is_in_place(&self) -> bool {
        self.hooks.in_place.is_some()
    }

    /// To be waited for before the response, if there is anything.
    pub(crate) fn before_signal(
        &self,
        event: Event,
        urgent: bool,
    ) -> Option<impl Future<Output = ()> + Send + 'static> {
        self.hooks.at(When::BeforeSignal).next()?;
        if urgent {
            self.fire(event);
            return None;
        }
        let (hooks, timeout) = (Arc::clone(&self.hooks), self.timeout);
        Some(async move { hooks.call_all(&event, timeout).await })
    }

    /// What the hooks of a reload say; `None`: there are none.
    fn decide(
        &self,
        event: Event,
        launch: Box<Launch>,
    ) -> Result<impl Future<Output = Result<Decision, String>> + Send + 'static, Box<Launch>> {
        let asks = self.hooks.at(When::BeforeReload).next().is_some();
        if !asks && self.hooks.in_place.is_none() && self.hooks.before_spawn.is_empty() {
            return Err(launch);
        }
        let (hooks, timeout) = (Arc::clone(&self.hooks), self.timeout);
        Ok(async move { hooks.decide(event, launch, timeout).await })
    }

    /// How long [`Runner::close`] may take: one hook that is running, and then those before the exit.
    pub(crate) fn exit_allowance(&self) -> Duration {
        let limits = |when: Option<When>| {
            let hooks = self.hooks.on.iter().filter(move |(w, _)| when.is_none_or(|when| *w == when));
            hooks.map(|(_, hook)| hook.limit(self.timeout))
        };
        let last: Duration = limits(Some(When::BeforeExit)).fold(Duration::ZERO, Duration::saturating_add);
        last.saturating_add(limits(None).max().unwrap_or_default())
    }

    /// Lets the hooks end that were called for, within their time.
    ///
    /// # Cancel safety
    /// They go on; nothing new is called.
    async fn close(&mut self) {
        let limit = self.exit_allowance().min(crate::drain::FAR);
        self.events = mpsc::unbounded_channel().0;
        if limit.is_zero() {
            return; // there are none
        }
        if tokio::time::timeout(limit, &mut self.caller).await.is_err() {
            error!("hooks were not over within {limit:?}: exiting without them");
        }
    }
}

impl Driver {
    /// For the hooks, about what happens now.
    pub(crate) fn fire(&self, when: When, tell: impl FnOnce(&mut Event)) {
        let mut event = Event::new(when, self.generation);
        event.handover_id = self.own_handover().map(str::to_owned);
        tell(&mut event);
        self.hooks.fire(event);
    }

    pub(crate) fn about_signal(&self, when: When, signal: Signal) -> Event {
        Event { signal: Some(signal), ..Event::new(when, self.generation) }
    }

    /// The hooks first, if there are any: then the next generation, if they say so.
    pub(crate) fn ask_hooks(&mut self, id: u64, handover_id: &str) {
        let event =
            Event { handover_id: Some(handover_id.to_owned()), ..Event::new(When::BeforeReload, self.generation) };
        match self.hooks.decide(event, Box::new(Launch { origin: self.origin.clone() })) {
            Err(launch) => self.start_next(id, *launch),
            Ok(decision) => {
                let inputs = self.inputs.clone();
                self.tasks.spawn(async move {
                    let _ = inputs.send(Input::Decided(id, decision.await));
                });
            }
        }
    }

    /// Of this reload, in this way.
    pub(crate) fn start_next(&mut self, id: u64, Launch { origin }: Launch) {
        let Some(handover_id) = self.reload.as_ref().map(|r| r.handover_id.clone()) else { return };
        info!(
            message_id = events::RELOAD_STARTED,
            generation = self.generation,
            handover_id = %handover_id,
            old_pid = self.pid,
            "reload: starting generation {} from {}", self.generation + 1, origin.program.display()
        );
        let (parent, state) = (self.parent, self.state_fn.clone());
        let estate = self.estate(handover_id, &origin);
        let store = lock(&self.sockets).store().clone();
        let (inputs, over) = (self.inputs.clone(), self.inputs.clone());
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
        self.starting += 1;
        self.tasks.spawn(async move {
            let result = starting.await.unwrap_or_else(|e| {
                Err(Error::new(Kind::Generation, format!("the application's handover state failed: {e}")))
            });
            let _ = inputs.send(Input::Spawned(id, result));
        });
    }

    /// Those before the exit, and what was called before. One more signal to stop ends that, too.
    pub(crate) async fn last_hooks(&mut self) {
        self.fire(When::BeforeExit, |_| {});
        tokio::select! {
            () = self.hooks.close() => {}
            (signal, _) = self.signals.urgent.next() => info!(generation = self.generation, "{signal}: exiting without the hooks"),
        }
        if let Some(done) = self.pidfile_done.take() {
            let _ = done.await; // has a deadline of its own
        }
        if let Some(pidfile) = self.pidfile.take() {
            pidfile.remove().await;
        }
    }

    /// We are main.
    pub(crate) fn write_pidfile(&mut self) {
        let Some(pidfile) = self.pidfile.clone() else { return };
        let before = self.pidfile_done.take();
        self.pidfile_done = Some(tokio::spawn(async move {
            if let Some(before) = before {
                let _ = before.await;
            }
            pidfile.write().await;
        }));
    }

    pub(crate) fn on_decided(&mut self, id: u64, decided: Result<Decision, String>) {
        if !self.is_current(id) {
            return; // Rolled back or stopped meanwhile: nothing was started.
        }
        match decided {
            Ok(Decision::Start(launch)) => self.start_next(id, *launch),
            Ok(Decision::Done) => self.feed(lifecycle::Event::ReloadedInPlace),
            Err(reason) => self.feed(lifecycle::Event::NextFailed(reason)),
        }
    }

    /// How far the next generation has come.
    pub(crate) fn tell_progress(&self, state: State) {
        let Some(reload) = &self.reload else { return };
        let (old_pid, new_pid, ms) = (self.pid, self.next_pid(), millis(reload.began));
        let (generation, next, handover_id) = (self.generation, self.generation + 1, &*reload.handover_id);
        match state {
            State::Reloading(Phase::Ready) => info!(
                message_id = events::READY,
                generation,
                handover_id,
                old_pid,
                new_pid,
                ready_ms = ms,
                "generation {next} is ready"
            ),
            State::Reloading(Phase::Switched) => info!(
                message_id = events::SWITCHED,
                generation,
                handover_id,
                old_pid,
                new_pid,
                switch_ms = ms,
                "generation {next} accepts"
            ),
            _ => {}
        }
    }

    pub(crate) fn tell_reloaded_in_place(&mut self) {
        self.tell(What::InPlace);
        self.drain.metrics().reload("in_place");
        if let Some(reload) = self.reload.take() {
            info!(
                message_id = events::RELOADED_IN_PLACE,
                generation = self.generation,
                handover_id = %reload.handover_id,
                reload_ms = millis(reload.began),
                "generation {} was reloaded in place", self.generation
            );
        }
        let text = format!("{}; reloaded in place", self.serves());
        self.outbox.send(Message::new().status(text).ready());
    }
}
