//! Which signal does what, with the habits of other tools ready to be used.
//!
//! All handlers are installed first thing in [`Builder::start`](crate::Builder::start). A next generation is started with the
//! signals that mean a reload, or nothing, *ignored*, so that none of them can kill it before it has come so far; a first start
//! can still be killed by a signal that comes before `start`, as every process can.

use std::fmt;
use std::future::poll_fn;
use std::task::Poll;

use nix::sys::signal::Signal as Number;
use tokio::signal::unix::{self, SignalKind};
use tracing::{debug, info};

use crate::error::{Error, Kind, Result};
use crate::lifecycle::{Event, State};
use crate::service::driver::{Driver, Input};
use crate::service::events;
use crate::service::hooks::When;
use crate::wire::frame::Frame;

/// A signal that a service can be controlled with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Signal {
    /// `SIGHUP`
    Hup,
    /// `SIGINT`
    Int,
    /// `SIGQUIT`
    Quit,
    /// `SIGUSR1`
    Usr1,
    /// `SIGUSR2`
    Usr2,
    /// `SIGTERM`
    Term,
    /// `SIGWINCH`
    Winch,
}

impl Signal {
    const ALL: [Self; 7] = [Self::Hup, Self::Int, Self::Quit, Self::Usr1, Self::Usr2, Self::Term, Self::Winch];

    fn kind(self) -> SignalKind {
        match self {
            Self::Hup => SignalKind::hangup(),
            Self::Int => SignalKind::interrupt(),
            Self::Quit => SignalKind::quit(),
            Self::Usr1 => SignalKind::user_defined1(),
            Self::Usr2 => SignalKind::user_defined2(),
            Self::Term => SignalKind::terminate(),
            Self::Winch => SignalKind::window_change(),
        }
    }

    fn number(self) -> Number {
        match self {
            Self::Hup => Number::SIGHUP,
            Self::Int => Number::SIGINT,
            Self::Quit => Number::SIGQUIT,
            Self::Usr1 => Number::SIGUSR1,
            Self::Usr2 => Number::SIGUSR2,
            Self::Term => Number::SIGTERM,
            Self::Winch => Number::SIGWINCH,
        }
    }
}

/// As kill(1) lists it: `SIGHUP`.
impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.number().as_str())
    }
}

/// What a signal does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Response {
    /// One reload. A generation that drains takes no notice: another one is main.
    Reload,
    /// Finish what was accepted, then exit; a second one cuts what is left.
    Stop,
    /// As [`Response::Stop`], but however often it comes, nothing is cut before the drain timeout.
    Finish,
    /// Cut what is left, and exit.
    Hammer,
    /// Cut what a drain has left: this generation's own, if it drains, and the older ones'. The main generation serves on.
    HammerDrain,
    /// End the linger of a drain, this generation's own and the older ones': idle connections go, requests in flight finish.
    /// The main generation serves on.
    HurryDrain,
    /// Nothing but the [hooks](crate::service::hooks::When::BeforeSignal): for example to open log files anew.
    Hooks,
}

impl Response {
    /// Whether it is seen before everything else that waits for the driver.
    fn is_urgent(self) -> bool {
        matches!(self, Self::Stop | Self::Finish | Self::Hammer)
    }
}

/// Which signal does what. The default: `SIGHUP` reloads, `SIGTERM` and `SIGINT` stop (twice: cut), `SIGQUIT` cuts at once.
///
/// ```
/// use handover::service::signals::{Response, Signal, SignalMap};
///
/// let map = SignalMap::nginx().on(Signal::Usr1, Response::Reload).without(Signal::Winch);
/// assert_eq!(map.get(Signal::Usr2), Some(Response::Reload));
/// # let _ = handover::Service::builder().signals(map);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct SignalMap {
    responses: Vec<(Signal, Response)>,
}

impl Default for SignalMap {
    fn default() -> Self {
        let responses = vec![
            (Signal::Hup, Response::Reload),
            (Signal::Int, Response::Stop),
            (Signal::Quit, Response::Hammer),
            (Signal::Term, Response::Stop),
        ];
        Self { responses }
    }
}

/// The presets. In all of them `SIGHUP` reloads, also where the model would die of it: `systemctl reload` of a unit with
/// `Type=notify-reload` sends it.
impl SignalMap {
    /// endless, and beego, which has it built in: `SIGUSR2` cuts what a drain has left, and is ignored by who serves.
    pub fn endless() -> Self {
        Self::default().on(Signal::Usr1, Response::Hooks).on(Signal::Usr2, Response::HammerDrain)
    }

    /// facebook's grace: `SIGUSR2` reloads.
    pub fn grace() -> Self {
        Self::default().on(Signal::Usr2, Response::Reload)
    }

    /// overseer: `SIGUSR2` reloads; `SIGUSR1` is for the program's hooks.
    pub fn overseer() -> Self {
        Self::grace().on(Signal::Usr1, Response::Hooks)
    }

    /// goframe: `SIGUSR1` reloads, `SIGQUIT` stops as `SIGTERM` does.
    pub fn goframe() -> Self {
        Self::default().on(Signal::Usr1, Response::Reload).on(Signal::Quit, Response::Stop)
    }

    /// nginx: `SIGHUP` and `SIGUSR2` reload (a reload always is an upgrade, too), `SIGQUIT` finishes and stops, `SIGTERM` and
    /// `SIGINT` cut and stop, `SIGUSR1` is for hooks that open log files anew.
    ///
    /// `SIGWINCH` is sent to an old nginx master after `SIGUSR2`, to end its workers gracefully. Here the old generation drains
    /// by itself; `SIGWINCH`, to it or to the main one, ends its linger.
    pub fn nginx() -> Self {
        let responses = vec![
            (Signal::Hup, Response::Reload),
            (Signal::Int, Response::Hammer),
            (Signal::Quit, Response::Finish),
            (Signal::Usr1, Response::Hooks),
            (Signal::Usr2, Response::Reload),
            (Signal::Term, Response::Hammer),
            (Signal::Winch, Response::HurryDrain),
        ];
        Self { responses }
    }

    /// php-fpm: `SIGUSR2` reloads, `SIGQUIT` finishes and stops, `SIGTERM` and `SIGINT` cut and stop, `SIGUSR1` is for hooks
    /// that open log files anew.
    pub fn php_fpm() -> Self {
        Self::nginx().without(Signal::Winch)
    }

    /// What the preset of that name does: `default`, `endless`, `grace`, `overseer`, `goframe`, `nginx` or `php-fpm`.
    #[must_use]
    pub fn preset(name: &str) -> Option<Self> {
        Some(match name {
            "default" => Self::default(),
            "endless" => Self::endless(),
            "grace" => Self::grace(),
            "overseer" => Self::overseer(),
            "goframe" => Self::goframe(),
            "nginx" => Self::nginx(),
            "php-fpm" => Self::php_fpm(),
            _ => return None,
        })
    }
}

impl SignalMap {
    /// The names of the presets.
    pub const PRESETS: [&str; 7] = ["default", "endless", "grace", "overseer", "goframe", "nginx", "php-fpm"];

    /// This signal does that.
    pub fn on(mut self, signal: Signal, response: Response) -> Self {
        self = self.without(signal);
        self.responses.push((signal, response));
        self
    }

    /// This signal does what the system does by default. For most that is death, without a drain.
    pub fn without(mut self, signal: Signal) -> Self {
        self.responses.retain(|(s, _)| *s != signal);
        self
    }

    /// What it does; `None`: what the system does by default.
    #[must_use]
    pub fn get(&self, signal: Signal) -> Option<Response> {
        self.responses.iter().find(|(s, _)| *s == signal).map(|(_, response)| *response)
    }

    /// Ignored by a next generation until it has handlers. A stop must end even one that never comes so far.
    pub(crate) fn ignored_at_first(&self) -> Vec<Number> {
        let harmless = |s: &Signal| self.get(*s).is_some_and(|response| !response.is_urgent());
        Signal::ALL.into_iter().filter(harmless).map(Signal::number).collect()
    }

    /// Refuses a service that nobody could end but by SIGKILL.
    fn checked(self) -> Result<Self> {
        // Where TERM is not ours, the system's default ends the process: a rude stop, but one.
        if self.get(Signal::Term).is_some_and(|response| !response.is_urgent()) {
            return Err(Error::new(
                Kind::Invalid,
                "signals: SIGTERM, which systemd stops a service with, neither stops nor cuts: give it \
                 Response::Stop, Response::Finish or Response::Hammer",
            ));
        }
        Ok(self)
    }
}

#[derive(Debug)]
struct Handler {
    signal: Signal,
    response: Response,
    arrivals: unix::Signal,
}

/// The handlers, from the moment the service starts.
#[derive(Debug)]
pub(crate) struct Signals {
    pub(crate) urgent: Handlers,
    pub(crate) others: Handlers,
    pub(crate) map: SignalMap,
}

#[derive(Debug, Default)]
pub(crate) struct Handlers(Vec<Handler>);

impl Signals {
    pub(crate) fn install(map: SignalMap) -> Result<Self> {
        let map = map.checked()?;
        let (mut urgent, mut others) = (Handlers::default(), Handlers::default());
        for (signal, response) in map.responses.iter().copied() {
            let arrivals = unix::signal(signal.kind())
                .map_err(|e| Error::os(format!("no handler for {signal} can be installed"), e))?;
            let handlers = if response.is_urgent() { &mut urgent } else { &mut others };
            handlers.0.push(Handler { signal, response, arrivals });
        }
        // What cuts comes first.
        urgent.0.sort_by_key(|h| h.response != Response::Hammer);
        Ok(Self { urgent, others, map })
    }
}

impl Handlers {
    /// The next one that came.
    ///
    /// # Cancel safety
    /// None is lost.
    pub(crate) async fn next(&mut self) -> (Signal, Response) {
        poll_fn(|cx| {
            for handler in &mut self.0 {
                if let Poll::Ready(Some(())) = handler.arrivals.poll_recv(cx) {
                    return Poll::Ready((handler.signal, handler.response));
                }
            }
            Poll::Pending
        })
        .await
    }
}

impl Driver {
    /// Stops never wait for a hook; everything else waits for those before a signal.
    pub(crate) fn on_signal(&mut self, signal: Signal, response: Response) {
        let before = self.about_signal(When::BeforeSignal, signal);
        match self.hooks.before_signal(before, response.is_urgent()) {
            None => self.respond(signal, response),
            Some(done) => {
                let inputs = self.inputs.clone();
                self.tasks.spawn(async move {
                    done.await;
                    let _ = inputs.send(Input::Signal(signal, response));
                });
            }
        }
    }

    pub(crate) fn respond(&mut self, signal: Signal, response: Response) {
        match response {
            Response::Reload if self.state() == State::Draining => {
                debug!(generation = self.generation, "{signal}: another generation is main by now");
            }
            Response::Reload => self.on_input(Input::Reload(None)),
            Response::Stop => self.on_stop(&signal.to_string()),
            Response::Finish if matches!(self.state(), State::Draining | State::Stopping) => {
                debug!(generation = self.generation, "{signal}: what was accepted is being finished already");
            }
            Response::Finish => self.on_stop(&signal.to_string()),
            Response::Hammer => self.feed(Event::Quit),
            Response::HammerDrain => self.on_drain_signal(signal, Event::Quit, &Frame::Hammer),
            Response::HurryDrain => self.on_drain_signal(signal, Event::Hurry, &Frame::Hurry),
            Response::Hooks => {}
        }
        self.hooks.fire(self.about_signal(When::AfterSignal, signal));
    }

    pub(crate) fn on_stop(&mut self, cause: &str) {
        let generation = self.generation;
        info!(message_id = events::STOP, generation, "{cause}; connections open: {}", self.drain.active());
        self.feed(Event::Stop);
    }

    fn on_drain_signal(&mut self, signal: Signal, own: Event, others: &Frame) {
        info!(generation = self.generation, "{signal}; older generations that drain: {}", self.drainers.len());
        for older in &self.drainers {
            // One that is gone has nothing left.
            let _ = older.link.send(others);
        }
        let hurries = matches!(self.state(), State::Draining | State::Stopping);
        match own {
            // The lifecycle knows a hurry only of a drain after a handover.
            Event::Hurry if hurries => self.drain.hurry(),
            own if hurries => self.feed(own),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_has_its_name() {
        for name in SignalMap::PRESETS {
            let map = SignalMap::preset(name).unwrap();
            assert_eq!(map.get(Signal::Hup), Some(Response::Reload), "{name}");
            assert!(map.checked().is_ok(), "{name}");
        }
        assert_eq!(SignalMap::preset("apache"), None);
    }

    #[test]
    fn what_stops_is_never_ignored() {
        let ignored = SignalMap::nginx().ignored_at_first();
        assert_eq!(ignored, [Number::SIGHUP, Number::SIGUSR1, Number::SIGUSR2, Number::SIGWINCH]);
        assert_eq!(SignalMap::default().ignored_at_first(), [Number::SIGHUP]);
    }

    #[test]
    fn a_service_that_term_does_not_stop_is_refused() {
        for response in [Response::Reload, Response::Hooks, Response::HurryDrain] {
            let error = SignalMap::default().on(Signal::Term, response).checked().unwrap_err();
            assert!(error.is_invalid() && error.to_string().contains("SIGTERM"), "{error}");
        }
        assert!(SignalMap::default().without(Signal::Term).checked().is_ok());
    }
}
