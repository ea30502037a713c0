//! The service manager's watchdog: whether it wants pings, and how often.
//!
//! Sending them, while the service is alive, is up to the caller; [`Service`](crate::Service) does
//! it by itself.
//!
//! ```
//! use handover::systemd::environment::Environment;
//! use handover::systemd::watchdog::Watchdog;
//! use std::time::Duration;
//!
//! # fn main() -> handover::Result<()> {
//! let environment = Environment::from_pairs([("WATCHDOG_USEC", "10000000")]);
//! let watchdog = Watchdog::from_env(&environment)?.expect("it is on");
//! assert_eq!(watchdog.timeout(), Duration::from_secs(10));
//! assert_eq!(watchdog.ping_interval(), Duration::from_secs(4));
//! # Ok(())
//! # }
//! ```
//!
//! # References
//!
//! [sd_watchdog_enabled(3)](https://www.freedesktop.org/software/systemd/man/latest/sd_watchdog_enabled.html),
//! `WatchdogSec=` in
//! [systemd.service(5)](https://www.freedesktop.org/software/systemd/man/latest/systemd.service.html)

use crate::error::{Error, Kind, Result};
use crate::systemd::environment::Environment;
use std::time::Duration;

/// Pings never come faster than this, whatever `WATCHDOG_USEC` says.
pub const MIN_PING_INTERVAL: Duration = Duration::from_millis(1);

/// The watchdog is on for this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[doc(alias = "WATCHDOG_USEC")]
#[doc(alias = "sd_watchdog_enabled")]
pub struct Watchdog {
    timeout: Duration,
}

impl Watchdog {
    /// Reads `WATCHDOG_USEC` and `WATCHDOG_PID`. None: the watchdog is off, or meant for another
    /// process.
    ///
    /// # Errors
    ///
    /// One of the variables is not a number, or `WATCHDOG_USEC` is 0 or infinite.
    pub fn from_env(environment: &Environment) -> Result<Option<Self>> {
        Self::parse(environment, std::process::id())
    }

    fn parse(environment: &Environment, pid: u32) -> Result<Option<Self>> {
        let Some(usec) = number(environment, "WATCHDOG_USEC")? else {
            return Ok(None);
        };
        if number(environment, "WATCHDOG_PID")?.is_some_and(|owner| owner != u64::from(pid)) {
            return Ok(None);
        }
        if usec == 0 || usec == u64::MAX {
            let why = format!("WATCHDOG_USEC={usec} is no interval; see WatchdogSec= in the unit");
            return Err(Error::new(Kind::Invalid, why));
        }
        Ok(Some(Self { timeout: Duration::from_micros(usec) }))
    }

    /// After so long without a ping the service manager kills the service.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// How often to ping: 0.4 of the timeout, but at least [`MIN_PING_INTERVAL`].
    ///
    /// sd_watchdog_enabled(3) recommends half. Less leaves room for a timer that fires late, and
    /// for a new main generation, which has for its first ping only what is left of its
    /// predecessor's interval.
    #[must_use]
    pub fn ping_interval(&self) -> Duration {
        (self.timeout / 5 * 2).max(MIN_PING_INTERVAL)
    }
}

fn number(environment: &Environment, name: &str) -> Result<Option<u64>> {
    let Some(value) = environment.get(name).filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    let number = value.to_str().and_then(|text| text.parse().ok());
    number.map(Some).ok_or_else(|| Error::new(Kind::Invalid, format!("{name}={value:?} is not a number")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<Option<Watchdog>> {
        Watchdog::parse(&Environment::from_pairs(pairs.iter().copied()), 7)
    }

    #[test]
    fn on_and_off() {
        let on = Some(Watchdog { timeout: Duration::from_millis(200) });
        assert_eq!(parse(&[]).expect("valid"), None);
        assert_eq!(parse(&[("WATCHDOG_PID", "7")]).expect("valid"), None);
        assert_eq!(parse(&[("WATCHDOG_USEC", "")]).expect("valid"), None);
        assert_eq!(parse(&[("WATCHDOG_USEC", "200000")]).expect("valid"), on);
        assert_eq!(parse(&[("WATCHDOG_USEC", "200000"), ("WATCHDOG_PID", "7")]).expect("valid"), on);
        assert_eq!(parse(&[("WATCHDOG_USEC", "200000"), ("WATCHDOG_PID", "8")]).expect("valid"), None);
    }

    #[test]
    fn malformed_names_the_variable() {
        for (name, value) in
            [("WATCHDOG_USEC", "soon"), ("WATCHDOG_USEC", "0"), ("WATCHDOG_USEC", "-1"), ("WATCHDOG_PID", "me")]
        {
            let error = parse(&[(name, value), ("WATCHDOG_USEC", "5")]).expect_err("malformed");
            assert!(error.is_invalid());
            assert!(error.to_string().starts_with(name), "{error}");
        }
        assert!(parse(&[("WATCHDOG_USEC", &u64::MAX.to_string())]).is_err());
    }

    #[test]
    fn pings_come_at_less_than_half() {
        for usec in [2_500, 200_000, 10_000_000, u64::MAX - 1] {
            let watchdog = Watchdog { timeout: Duration::from_micros(usec) };
            assert!(watchdog.ping_interval() * 2 < watchdog.timeout(), "{usec}");
        }
        assert_eq!(Watchdog { timeout: Duration::from_micros(1) }.ping_interval(), MIN_PING_INTERVAL);
    }
}
