//! The named defaults of every wait, and [`Settings`], which hold others.
//!
//! The precedence: what the [`Builder`](crate::Builder) is told by a call, then what [`Builder::settings`](crate::Builder::settings) was
//! given (let the environment win over a file), then these defaults. The settings that hold are logged when they begin to.

mod duration;
mod file;
#[cfg(feature = "settings")]
mod toml;

pub use file::Settings;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::drain::FAR;
use crate::error::{Error, Kind, Result};
use crate::lifecycle::Config;
use crate::service::signals::SignalMap;

/// How long a next generation may take until it is ready.
pub const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a ready generation may take to confirm that it accepts.
pub const SWITCH_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a next generation serves under the eyes of the old one before it becomes main.
pub const PROBATION: Duration = Duration::ZERO;
/// How long the service manager may take to read of its new main process, before the old one goes on without knowing.
pub const HANDOVER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a ready generation waits to be told to accept.
pub const STANDBY_TIMEOUT: Duration = Duration::from_secs(60);
/// How long accepted work may take to finish before it is cut.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// How long accepted work may take when the manager's restart of the service waits for it.
pub const HURRY_TIMEOUT: Duration = Duration::from_millis(500);
/// How long a failed next generation may take from SIGTERM until SIGKILL, beyond the drain of what it accepted.
pub const END_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an idle connection is kept for one more request after a handover.
pub const LINGER: Duration = Duration::from_secs(5);
/// The same when the service stops: a restart waits for it.
pub const STOP_LINGER: Duration = Duration::from_secs(1);
/// How many old generations may drain at once before the oldest is hammered.
pub const MAX_DRAINING: usize = 8;
/// How long a hook may take that has no timeout of its own.
pub const HOOK_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a pidfile may take to be written or removed, before the service goes on without it.
pub const PIDFILE_TIMEOUT: Duration = Duration::from_secs(2);
/// A child that ended and that nobody has waited for this long is nobody's, where this process is the one to adopt orphans.
pub const REAP_AFTER: Duration = Duration::from_secs(10);

/// The highest [`MAX_DRAINING`]: each is a process, and a link to each comes beside one message.
const MOST_DRAINING: usize = 128;
/// Longer is odd.
const A_DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// A new main generation's first ping has what is left of the interval; a shorter one is missed by a busy machine.
const SHORT_WATCHDOG: Duration = Duration::from_secs(1);

/// What holds: everything has a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Effective {
    pub(crate) ready_timeout: Duration,
    pub(crate) switch_timeout: Duration,
    pub(crate) probation: Duration,
    pub(crate) handover_timeout: Duration,
    pub(crate) standby_timeout: Duration,
    pub(crate) drain_timeout: Duration,
    pub(crate) hurry_timeout: Duration,
    pub(crate) linger: Duration,
    pub(crate) stop_linger: Duration,
    pub(crate) hook_timeout: Duration,
    pub(crate) max_draining: usize,
    pub(crate) signals: Option<String>,
    pub(crate) pidfile: Option<PathBuf>,
}

/// Why a time cannot be 0; `None`: it can.
pub(crate) fn why_not_zero(key: &str) -> Option<&'static str> {
    Some(match key {
        "ready_timeout" => "is 0, which would fail every reload; write a time such as \"30s\"",
        "switch_timeout" => "is 0, which would fail every reload; write a time such as \"5s\"",
        "drain_timeout" => "is 0, which would cut every request; write a time such as \"30s\"",
        "handover_timeout" => "is 0, which would not wait for systemd at all; write a time such as \"10s\"",
        "standby_timeout" => "is 0, which would end every next generation; write a time such as \"60s\"",
        "hook_timeout" => "is 0, which would fail every hook; write a time such as \"10s\"",
        _ => return None,
    })
}

impl Effective {
    /// Refuses what cannot work, and makes "for ever" a time that can be added to any other.
    pub(crate) fn of(said: Settings) -> Result<Self> {
        let effective = Self {
            ready_timeout: said.ready_timeout.unwrap_or(READY_TIMEOUT),
            switch_timeout: said.switch_timeout.unwrap_or(SWITCH_TIMEOUT),
            probation: said.probation.unwrap_or(PROBATION),
            handover_timeout: said.handover_timeout.unwrap_or(HANDOVER_TIMEOUT),
            standby_timeout: said.standby_timeout.unwrap_or(STANDBY_TIMEOUT),
            drain_timeout: said.drain_timeout.unwrap_or(DRAIN_TIMEOUT),
            hurry_timeout: said.hurry_timeout.unwrap_or(HURRY_TIMEOUT),
            linger: said.linger.unwrap_or(LINGER),
            stop_linger: said.stop_linger.unwrap_or(STOP_LINGER),
            hook_timeout: said.hook_timeout.unwrap_or(HOOK_TIMEOUT),
            max_draining: said.max_draining.unwrap_or(MAX_DRAINING),
            signals: said.signals,
            pidfile: said.pidfile,
        };
        effective.checked()
    }

    fn checked(mut self) -> Result<Self> {
        for (key, time) in self.times() {
            if let (true, Some(why)) = (time.is_zero(), why_not_zero(key)) {
                return Err(Error::new(Kind::Invalid, format!("{key} {why}")));
            }
        }
        if self.max_draining == 0 {
            return Err(Error::new(
                Kind::Invalid,
                "max_draining is 0: the generation that hands over could not finish its requests; give it 1 or more",
            ));
        }
        if let Some(name) = self.signals.as_ref().filter(|name| SignalMap::preset(name).is_none()) {
            let known = SignalMap::PRESETS.join(", ");
            return Err(Error::new(Kind::Invalid, format!("signals {name:?} is no preset; there are {known}")));
        }
        for time in [
            &mut self.ready_timeout,
            &mut self.switch_timeout,
            &mut self.probation,
            &mut self.handover_timeout,
            &mut self.standby_timeout,
            &mut self.drain_timeout,
            &mut self.hurry_timeout,
            &mut self.linger,
            &mut self.stop_linger,
            &mut self.hook_timeout,
        ] {
            *time = FAR.min(*time);
        }
        Ok(self)
    }

    /// By name, as they are written in a file.
    pub(crate) fn named(&self) -> Vec<(&'static str, String)> {
        let shown = |time| if time == FAR { "for ever".into() } else { duration::show(time) };
        let mut named: Vec<_> = self.times().into_iter().map(|(key, time)| (key, shown(time))).collect();
        named.push(("max_draining", self.max_draining.to_string()));
        named.extend(self.signals.clone().map(|name| ("signals", name)));
        named.extend(self.pidfile.as_ref().map(|path| ("pidfile", path.display().to_string())));
        named
    }

    fn times(&self) -> [(&'static str, Duration); 10] {
        [
            ("ready_timeout", self.ready_timeout),
            ("switch_timeout", self.switch_timeout),
            ("probation", self.probation),
            ("handover_timeout", self.handover_timeout),
            ("standby_timeout", self.standby_timeout),
            ("drain_timeout", self.drain_timeout),
            ("hurry_timeout", self.hurry_timeout),
            ("linger", self.linger),
            ("stop_linger", self.stop_linger),
            ("hook_timeout", self.hook_timeout),
        ]
    }

    /// What works, and is hardly meant. `said` is what these were made of: nobody is to blame for a default.
    pub(crate) fn oddities(&self, said: &Settings, watchdog: Option<Duration>) -> Vec<String> {
        let show = duration::show;
        let mut odd = Vec::new();
        let mut longer = |a: (&str, Duration), b: (&str, Duration), so: &str| {
            if a.1 > b.1 {
                odd.push(format!("{} ({}) is longer than {} ({}): {so}", a.0, show(a.1), b.0, show(b.1)));
            }
        };
        let (linger, drain) = (("linger", self.linger), ("drain_timeout", self.drain_timeout));
        longer(linger, drain, "idle connections are cut before their time, and their next request is lost");
        if said.stop_linger.is_some() {
            longer(("stop_linger", self.stop_linger), linger, "linger holds for both");
        }
        if said.hurry_timeout.is_some() {
            longer(("hurry_timeout", self.hurry_timeout), drain, "to hurry has no effect");
        }
        if said.hook_timeout.is_some() {
            longer(
                ("hook_timeout", self.hook_timeout),
                ("ready_timeout", self.ready_timeout),
                "the reload fails first",
            );
        }
        for (key, time) in self.times() {
            if time > A_DAY && time < FAR {
                odd.push(format!("{key} is {}, longer than a day", show(time)));
            }
        }
        if let Some(interval) = watchdog.filter(|interval| *interval < SHORT_WATCHDOG) {
            odd.push(format!(
                "WatchdogSec= is {interval:?}, below {SHORT_WATCHDOG:?}: a handover on a busy machine can miss a ping, and \
                 systemd kills the service"
            ));
        }
        odd
    }

    pub(crate) fn machine(&self, managed: bool, successor: bool) -> Config {
        Config {
            ready_timeout: self.ready_timeout,
            switch_timeout: self.switch_timeout,
            probation: self.probation,
            handover_timeout: self.handover_timeout,
            standby_timeout: self.standby_timeout,
            drain_timeout: self.drain_timeout,
            hurry_timeout: self.hurry_timeout,
            end_timeout: END_TIMEOUT,
            linger: self.linger,
            stop_linger: self.stop_linger.min(self.linger),
            managed,
            successor,
        }
    }
}

/// One line, for the log.
impl fmt::Display for Effective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (key, time) in self.times() {
            let shown = if time == FAR { "for ever".into() } else { duration::show(time) };
            write!(f, "{key}={:?} ", shown)?;
        }
        write!(f, "max_draining={}", self.max_draining)?;
        if let Some(name) = &self.signals {
            write!(f, " signals={name:?}")?;
        }
        if let Some(path) = &self.pidfile {
            write!(f, " pidfile={:?}", path.display().to_string())?;
        }
        Ok(())
    }
}
