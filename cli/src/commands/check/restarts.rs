//! The pauses before the restarts of a service that fails again and again.
//!
//! # References
//! `service_restart_usec_next` in systemd's source; systemd.service(5), `RestartSteps=`.

use std::time::Duration;

use super::directives::SERVICE;
use super::unit::Unit;
use super::value;

/// `RestartSec=`, where the unit says nothing.
const DEFAULT_PAUSE: Duration = Duration::from_millis(100);
/// What is not reached after so many restarts is not reached by a loop of failures.
const MOST_RESTARTS: u64 = 10_000;

#[derive(Debug, Clone, Copy)]
pub(super) struct Restarts {
    /// The pause before the first restart.
    pub(super) first: Duration,
    /// So many steps, up to that pause.
    growth: Option<(u64, Duration)>,
}

impl Unit {
    /// How systemd starts the service again by itself after a failure. A client at its socket does
    /// so too, where `Restart=` does not.
    pub(super) fn restarts(&self) -> Restarts {
        let first = self.read(SERVICE, "RestartSec", value::span).map_or(DEFAULT_PAUSE, |(pause, _)| pause);
        let steps = self.read(SERVICE, "RestartSteps", value::count).filter(|(steps, _)| *steps > 0);
        let longest =
            self.read(SERVICE, "RestartMaxDelaySec", value::span).filter(|(most, _)| *most != value::INFINITY);
        let growth = steps.zip(longest).map(|((steps, _), (longest, _))| (steps, longest));
        Restarts { first, growth: growth.filter(|(_, longest)| *longest > first && !first.is_zero()) }
    }
}

impl Restarts {
    /// Whether the pauses become longer.
    pub(super) fn grows(&self) -> bool {
        self.growth.is_some()
    }

    /// How long so many restarts take, if that is less than `within`.
    pub(super) fn take(&self, restarts: u64, within: Duration) -> Option<Duration> {
        let mut taken = Duration::ZERO;
        for number in 0..restarts.min(MOST_RESTARTS) {
            taken = taken.checked_add(self.pause(number))?;
            if taken >= within {
                return None;
            }
        }
        (restarts <= MOST_RESTARTS).then_some(taken)
    }

    /// The pause before a restart, of which the first has number 0.
    fn pause(&self, number: u64) -> Duration {
        let Some((steps, longest)) = self.growth else { return self.first };
        if number >= steps {
            return longest;
        }
        #[expect(clippy::cast_precision_loss, reason = "a pause to compare")]
        let power = number as f64 / steps as f64;
        let factor = (longest.as_secs_f64() / self.first.as_secs_f64()).powf(power);
        Duration::try_from_secs_f64(self.first.as_secs_f64() * factor).map_or(longest, |pause| pause.min(longest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_as_in_systemd() {
        let growing = Restarts { first: Duration::from_secs(10), growth: Some((4, Duration::from_secs(160))) };
        let pauses: Vec<_> = (0..6).map(|number| growing.pause(number).as_secs_f64().round()).collect();
        assert_eq!(pauses, [10.0, 20.0, 40.0, 80.0, 160.0, 160.0]);
        let same = Restarts { first: DEFAULT_PAUSE, growth: None };
        assert_eq!(same.take(5, Duration::from_secs(10)), Some(Duration::from_millis(500)));
        assert_eq!(growing.take(5, Duration::from_secs(10)), None);
        assert_eq!(same.take(u64::MAX, Duration::MAX), None);
    }
}
