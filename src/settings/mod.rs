//! The settings of a service, of which one table says everything, and the defaults of its other
//! waits.
//!
//! All that is public of it is found in [`service::settings`](crate::service::settings).

pub(crate) mod duration;
mod idle;
mod migrate;
mod pressure;
mod read;
pub(crate) mod signals;
pub(crate) mod table;
#[cfg(feature = "settings")]
mod toml;
mod value;

use std::fmt;
use std::time::Duration;

pub use idle::ExitOnIdle;
pub use migrate::{KeepOnStop, Migrate};
pub use pressure::HurryUnderPressure;
pub use table::*;

use crate::drain::FAR;
use crate::lifecycle::Config;
use value::SettingValue;

/// How long a failed next generation may take from SIGTERM until SIGKILL, beyond the drain of what
/// it accepted.
pub const END_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a pidfile may take to be written or removed, before the service goes on without it.
pub const PIDFILE_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest time that a pause may be asked for. In a longer one most clients have gone.
pub const MAX_PAUSE: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a child that ended may be left unwaited for, where this process is the one that adopts
/// orphans. After that it is taken for nobody's.
pub const REAP_AFTER: Duration = Duration::from_secs(10);

/// The shortest watchdog interval that is not odd. The first ping of a new main generation has what
/// is left of the interval, and a busy machine misses a shorter one.
const SHORT_WATCHDOG: Duration = Duration::from_secs(1);
/// Below this, starts by clients can reach the start limit that systemd has by default.
const SHORT_IDLE: Duration = Duration::from_secs(3);
const A_DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl Effective {
    /// Gives each by name, as it is written in a file.
    pub(crate) fn named(&self) -> Vec<(&'static str, String)> {
        self.all().map(|(row, value)| (row.key, shown(&value))).collect()
    }

    /// Lists what works and is hardly meant. `said` is what these were made of: nobody is to blame
    /// for a default.
    pub(crate) fn oddities(&self, said: &Settings, watchdog: Option<Duration>) -> Vec<String> {
        let show = duration::show;
        let (linger, drain) = (("linger", self.linger), ("drain_timeout", self.drain_timeout));
        let (stop, hurry) = (("stop_linger", self.stop_linger), ("hurry_timeout", self.hurry_timeout));
        let (hook, ready) = (("hook_timeout", self.hook_timeout), ("ready_timeout", self.ready_timeout));
        let cut = "idle connections are cut before their time, and their next request is lost";
        let mut odd = Vec::new();
        for (said, (key, time), (other, limit), so) in [
            (true, linger, drain, cut),
            (said.stop_linger.is_some(), stop, linger, "linger holds for both"),
            (said.hurry_timeout.is_some(), hurry, drain, "to hurry has no effect"),
            (said.hook_timeout.is_some(), hook, ready, "the reload fails first"),
        ] {
            if said && time > limit {
                odd.push(format!("{key} ({}) is longer than {other} ({}): {so}", show(time), show(limit)));
            }
        }
        for (row, value) in self.all() {
            if let SettingValue::Time(time) = value
                && time > A_DAY
                && time < FAR
            {
                odd.push(format!("{} is {}, longer than a day", row.key, show(time)));
            }
        }
        if let ExitOnIdle::After(time) = self.exit_on_idle
            && time < SHORT_IDLE
        {
            odd.push(format!(
                "exit_on_idle is {}: clients with pauses of that length start the service as often, and systemd's start \
                 limit (5 in 10 s, if the unit has no StartLimitIntervalSec=0) closes the .socket unit",
                show(time)
            ));
        }
        if let Some(interval) = watchdog.filter(|interval| *interval < SHORT_WATCHDOG) {
            odd.push(format!(
                "WatchdogSec= is {interval:?}, below {SHORT_WATCHDOG:?}: a handover on a busy machine can miss a ping, and \
                 systemd kills the service"
            ));
        }
        odd
    }

    /// How long a reload may take at most, by its own deadlines.
    pub(crate) fn reload_limit(&self) -> Duration {
        let times =
            [self.ready_timeout, self.switch_timeout, self.switch_timeout, self.probation, self.handover_timeout];
        times.into_iter().fold(self.hook_timeout, Duration::saturating_add)
    }

    /// Gives the lifecycle its times.
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

/// As one line, for the log.
impl fmt::Display for Effective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (row, value)) in self.all().enumerate() {
            let space = if at == 0 { "" } else { " " };
            match value {
                SettingValue::Number(number) => write!(f, "{space}{}={number}", row.key)?,
                value => write!(f, "{space}{}={:?}", row.key, shown(&value))?,
            }
        }
        Ok(())
    }
}

fn shown(value: &SettingValue) -> String {
    if *value == SettingValue::Time(FAR) { "for ever".into() } else { value.to_string() }
}
