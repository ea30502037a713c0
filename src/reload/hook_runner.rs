//! Calls the hooks beside the event loop, and tells it what they decide.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::error;

use crate::error::{Error, Kind, Result};
use crate::reload::hooks::{Event, Hook, Hooks, InPlace, Launch, When};

/// What the hooks of a reload say, taken together.
#[derive(Debug)]
pub(crate) enum Decision {
    /// It is done already, in place.
    Done,
    /// Start the next generation in this way.
    Start(Box<Launch>),
}

#[derive(Debug)]
pub(crate) struct HookRunner {
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

    fn at(&self, when: When) -> impl Iterator<Item = &Hook<Event>> {
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

impl HookRunner {
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

    pub(crate) fn fire(&self, event: Event) {
        if self.hooks.at(event.when).next().is_some() {
            let _ = self.events.send(event);
        }
    }

    pub(crate) fn is_in_place(&self) -> bool {
        self.hooks.in_place.is_some()
    }

    /// To be waited for before the response, if there is anything.
    pub(crate) fn before_signal(&self, event: Event, urgent: bool) -> Option<impl Future<Output = ()> + use<>> {
        self.hooks.at(When::BeforeSignal).next()?;
        if urgent {
            self.fire(event);
            return None;
        }
        let (hooks, timeout) = (Arc::clone(&self.hooks), self.timeout);
        Some(async move { hooks.call_all(&event, timeout).await })
    }

    /// What the hooks of a reload say; `None`: there are none.
    pub(crate) fn decide(
        &self,
        event: Event,
        launch: Box<Launch>,
    ) -> Result<impl Future<Output = Result<Decision, String>> + use<>, Box<Launch>> {
        let asks = self.hooks.at(When::BeforeReload).next().is_some();
        if !asks && self.hooks.in_place.is_none() && self.hooks.before_spawn.is_empty() {
            return Err(launch);
        }
        let (hooks, timeout) = (Arc::clone(&self.hooks), self.timeout);
        Ok(async move { hooks.decide(event, launch, timeout).await })
    }

    /// How long [`HookRunner::close`] may take: one hook that is running, and then those before the
    /// exit.
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
    pub(crate) async fn close(&mut self) {
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
