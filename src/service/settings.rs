//! The named defaults of every wait.

use std::time::Duration;

use crate::drain::FAR;
use crate::error::{Error, Kind, Result};
use crate::lifecycle::Config;

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

#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) ready_timeout: Duration,
    pub(crate) probation: Duration,
    pub(crate) drain_timeout: Duration,
    pub(crate) hurry_timeout: Duration,
    pub(crate) linger: Duration,
    pub(crate) stop_linger: Duration,
    pub(crate) max_draining: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ready_timeout: READY_TIMEOUT,
            probation: PROBATION,
            drain_timeout: DRAIN_TIMEOUT,
            hurry_timeout: HURRY_TIMEOUT,
            linger: LINGER,
            stop_linger: STOP_LINGER,
            max_draining: MAX_DRAINING,
        }
    }
}

impl Settings {
    /// Refuses what cannot work, and makes "for ever" a time that can be added to any other.
    pub(crate) fn checked(mut self) -> Result<Self> {
        let waits = [("ready_timeout", self.ready_timeout), ("drain_timeout", self.drain_timeout)];
        if let Some((name, _)) = waits.iter().find(|(_, value)| value.is_zero()) {
            return Err(Error::new(
                Kind::Invalid,
                format!("{name} is 0, which would fail every reload or cut every request: give it a time"),
            ));
        }
        if self.max_draining == 0 {
            return Err(Error::new(
                Kind::Invalid,
                "max_draining is 0: the generation that hands over could not finish its requests; give it 1 or more",
            ));
        }
        for time in [
            &mut self.ready_timeout,
            &mut self.probation,
            &mut self.drain_timeout,
            &mut self.hurry_timeout,
            &mut self.linger,
            &mut self.stop_linger,
        ] {
            *time = FAR.min(*time);
        }
        Ok(self)
    }

    pub(crate) fn machine(&self, managed: bool, successor: bool) -> Config {
        Config {
            ready_timeout: self.ready_timeout,
            switch_timeout: SWITCH_TIMEOUT,
            probation: self.probation,
            handover_timeout: HANDOVER_TIMEOUT,
            standby_timeout: STANDBY_TIMEOUT,
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
