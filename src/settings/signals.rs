//! Which signal does what, and the habits of other tools as presets.

use std::fmt;

use nix::sys::signal::Signal as Number;

use crate::error::{Error, Kind, Result};

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
    pub(crate) fn number(self) -> Number {
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
    /// Reloads once. A generation that drains takes no notice: another one is main.
    Reload,
    /// Finishes what was accepted, then exits; a second signal cuts what is left.
    Stop,
    /// Stops as [`Response::Stop`] does, but however often the signal comes, nothing is cut before
    /// the drain timeout.
    Finish,
    /// Cuts what is left, and exits.
    Hammer,
    /// Cuts what a drain has left: this generation's own, if it drains, and the older ones'. The
    /// main generation serves on.
    HammerDrain,
    /// Ends the linger of a drain, this generation's own and the older ones': idle connections go,
    /// requests in flight finish. The main generation serves on.
    HurryDrain,
    /// Calls the [hooks](crate::service::hooks::When::BeforeSignal) and does nothing else: for
    /// example to open log files anew.
    Hooks,
}

impl Response {
    /// Whether it is seen before everything else that waits for the driver.
    pub(crate) fn is_urgent(self) -> bool {
        matches!(self, Self::Stop | Self::Finish | Self::Hammer)
    }
}

/// Which signal does what. The default: `SIGHUP` reloads, `SIGTERM` and `SIGINT` stop (twice: cut),
/// `SIGQUIT` cuts at once.
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

/// In all presets `SIGHUP` reloads, also where the model would die of it: `systemctl reload`
/// of a unit with `Type=notify-reload` sends it.
impl SignalMap {
    /// Answers as endless does, and beego, which has it built in: `SIGUSR2` cuts what a drain has
    /// left, and a generation that serves ignores it.
    pub fn endless() -> Self {
        Self::default().on(Signal::Usr1, Response::Hooks).on(Signal::Usr2, Response::HammerDrain)
    }

    /// Answers as facebook's grace does: `SIGUSR2` reloads.
    pub fn grace() -> Self {
        Self::default().on(Signal::Usr2, Response::Reload)
    }

    /// Answers as overseer does: `SIGUSR2` reloads; `SIGUSR1` is for the program's hooks.
    pub fn overseer() -> Self {
        Self::grace().on(Signal::Usr1, Response::Hooks)
    }

    /// Answers as goframe does: `SIGUSR1` reloads, `SIGQUIT` stops as `SIGTERM` does.
    pub fn goframe() -> Self {
        Self::default().on(Signal::Usr1, Response::Reload).on(Signal::Quit, Response::Stop)
    }

    /// Answers as nginx does: `SIGHUP` and `SIGUSR2` reload (a reload always is an upgrade, too),
    /// `SIGQUIT` finishes and stops, `SIGTERM` and `SIGINT` cut and stop, `SIGUSR1` is for hooks
    /// that open log files anew.
    ///
    /// `SIGWINCH` is sent to an old nginx master after `SIGUSR2`, to end its workers gracefully.
    /// Here the old generation drains by itself; `SIGWINCH`, to it or to the main one, ends its
    /// linger.
    pub fn nginx() -> Self {
        Self::php_fpm().on(Signal::Winch, Response::HurryDrain)
    }

    /// Answers as php-fpm does: `SIGUSR2` reloads, `SIGQUIT` finishes and stops, `SIGTERM` and
    /// `SIGINT` cut and stop, `SIGUSR1` is for hooks that open log files anew.
    pub fn php_fpm() -> Self {
        let responses = vec![
            (Signal::Hup, Response::Reload),
            (Signal::Int, Response::Hammer),
            (Signal::Quit, Response::Finish),
            (Signal::Usr1, Response::Hooks),
            (Signal::Usr2, Response::Reload),
            (Signal::Term, Response::Hammer),
        ];
        Self { responses }
    }

    /// The names of the presets.
    pub const PRESETS: [&str; 7] = ["default", "endless", "grace", "overseer", "goframe", "nginx", "php-fpm"];

    /// Finds the preset of this name: `default`, `endless`, `grace`, `overseer`, `goframe`, `nginx`
    /// or `php-fpm`.
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

    /// Gives a signal this response.
    pub fn on(mut self, signal: Signal, response: Response) -> Self {
        self = self.without(signal);
        self.responses.push((signal, response));
        self
    }

    /// Leaves a signal to the system. By default most end the process, without a drain.
    pub fn without(mut self, signal: Signal) -> Self {
        self.responses.retain(|(s, _)| *s != signal);
        self
    }

    /// Says what a signal does. `None`: what the system does by default.
    #[must_use]
    pub fn get(&self, signal: Signal) -> Option<Response> {
        self.responses.iter().find(|(s, _)| *s == signal).map(|(_, response)| *response)
    }

    /// The signals that reload, as kill(1) lists them.
    pub(crate) fn reloads(&self) -> Vec<String> {
        let reloads = self.iter().filter(|(_, response)| *response == Response::Reload);
        reloads.map(|(signal, _)| signal.to_string()).collect()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Signal, Response)> {
        self.responses.iter().copied()
    }

    /// Lists what is ignored by a next generation until it has handlers. A stop must end even one
    /// that never comes so far.
    pub(crate) fn ignored_at_first(&self) -> Vec<Number> {
        self.iter().filter(|(_, response)| !response.is_urgent()).map(|(signal, _)| signal.number()).collect()
    }

    /// Refuses a service that nobody could end but by SIGKILL.
    pub(crate) fn checked(self) -> Result<Self> {
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
