//! By which signals a generation is told to go, and when each is due.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::error::{Error, Kind, Result};
use crate::settings::duration;
use crate::supervise::record::{DepartureRecord, ahead, until};

/// Signals, and how long to wait after each: `TERM`, or `TERM,10s,QUIT,5s,KILL`. Whatever is left
/// when the drain timeout is over is killed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StopSignals {
    steps: Vec<(Signal, Duration)>,
}

/// How far a generation has been told to go.
#[derive(Debug)]
pub(crate) struct Departure {
    step: usize,
    next: Option<Instant>,
    /// When the generation is killed at the latest.
    kill: Option<Instant>,
}

impl StopSignals {
    /// Returns the signal of step `n`, and how long until the next one; `None`: there is no more.
    fn step(&self, n: usize) -> Option<(Signal, Option<Duration>)> {
        let (signal, wait) = *self.steps.get(n)?;
        Some((signal, (n + 1 < self.steps.len()).then_some(wait)))
    }
}

impl Default for StopSignals {
    fn default() -> Self {
        Self { steps: vec![(Signal::SIGTERM, Duration::ZERO)] }
    }
}

impl FromStr for StopSignals {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |why: String| Error::new(Kind::Invalid, format!("stop signals {text:?}: {why}"));
        let mut steps = Vec::new();
        let mut parts = text.split(',').map(str::trim).peekable();
        while let Some(part) = parts.next() {
            let signal = signal(part).ok_or_else(|| wrong(format!("{part:?} is no signal; write TERM, QUIT, INT…")))?;
            let mut wait = Duration::ZERO;
            if let Some(next) = parts.peek().filter(|next| next.starts_with(|c: char| c.is_ascii_digit())) {
                wait = duration::parse(next).map_err(|why| wrong(format!("{next:?}: {why}")))?;
                parts.next();
                if parts.peek().is_none() {
                    return Err(wrong("a time comes before another signal; at the end the drain timeout holds".into()));
                }
            }
            steps.push((signal, wait));
        }
        Ok(Self { steps })
    }
}

impl fmt::Display for StopSignals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps = self.steps.iter().map(|(signal, wait)| match signal.as_str().trim_start_matches("SIG") {
            signal if wait.is_zero() => signal.to_owned(),
            signal => format!("{signal},{}ms", wait.as_millis()),
        });
        f.write_str(&steps.collect::<Vec<_>>().join(","))
    }
}

impl Departure {
    /// Begins, with the first signal, which is sent now.
    pub(crate) fn begin(signals: &StopSignals, now: Instant, kill: Option<Instant>) -> (Self, Option<Signal>) {
        let mut departure = Self { step: 0, next: None, kill };
        let first = departure.advance(signals, now);
        (departure, first)
    }

    /// Begins with a pause: the first signal is due then.
    pub(crate) fn later(at: Instant) -> Self {
        Self { step: 0, next: Some(at), kill: None }
    }

    /// The first signal is due now, if it was not sent yet.
    pub(crate) fn at_once(&mut self, now: Instant) {
        if self.step == 0 {
            self.next = Some(now);
        }
    }

    /// Nothing comes after SIGKILL.
    pub(crate) fn killed() -> Self {
        Self { step: usize::MAX, next: None, kill: None }
    }

    pub(crate) fn on_time(&mut self, signals: &StopSignals, now: Instant) -> Option<Signal> {
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if is_due(self.kill) {
            return Some(Signal::SIGKILL);
        }
        if is_due(self.next) { self.advance(signals, now) } else { None }
    }

    fn advance(&mut self, signals: &StopSignals, now: Instant) -> Option<Signal> {
        self.next = None;
        let (signal, wait) = signals.step(self.step)?;
        self.step += 1;
        self.next = wait.map(|wait| now + wait);
        Some(signal)
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        [self.next, self.kill].into_iter().flatten().min()
    }

    pub(crate) fn record(&self) -> DepartureRecord {
        DepartureRecord { step: self.step, next_ms: self.next.map(until), kill_ms: self.kill.map(until) }
    }

    pub(crate) fn resumed(of: &DepartureRecord) -> Self {
        Self { step: of.step, next: of.next_ms.map(ahead), kill: of.kill_ms.map(ahead) }
    }
}

/// Reads the name of a signal, with or without `SIG`, in any case.
pub(crate) fn signal(name: &str) -> Option<Signal> {
    let name = name.to_ascii_uppercase();
    format!("SIG{}", name.trim_start_matches("SIG")).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_are_read() {
        let stop: StopSignals = "TERM,10s,sigquit, 500ms,KILL".parse().unwrap();
        assert_eq!(stop.step(0), Some((Signal::SIGTERM, Some(Duration::from_secs(10)))));
        assert_eq!(stop.step(1), Some((Signal::SIGQUIT, Some(Duration::from_millis(500)))));
        assert_eq!(stop.step(2), Some((Signal::SIGKILL, None)));
        assert_eq!(stop.step(3), None);
        assert_eq!(stop.to_string().parse::<StopSignals>().unwrap(), stop);
        assert_eq!(StopSignals::default().to_string(), "TERM");
    }

    #[test]
    fn each_signal_comes_in_its_time_and_the_last_one_at_the_latest() {
        let (signals, start) = ("TERM,10s,QUIT".parse().unwrap(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        let (mut departure, first) = Departure::begin(&signals, start, Some(after(60)));
        assert_eq!((first, departure.deadline()), (Some(Signal::SIGTERM), Some(after(10))));
        assert_eq!(departure.on_time(&signals, after(9)), None);
        assert_eq!(departure.on_time(&signals, after(10)), Some(Signal::SIGQUIT));
        assert_eq!((departure.on_time(&signals, after(59)), departure.deadline()), (None, Some(after(60))));
        assert_eq!(departure.on_time(&signals, after(60)), Some(Signal::SIGKILL));
        assert_eq!(Departure::killed().deadline(), None);
    }

    #[test]
    fn a_pause_comes_before_the_first_signal_unless_there_is_no_time() {
        let (signals, start) = ("TERM,10s,QUIT".parse().unwrap(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut departure = Departure::later(after(5));
        assert_eq!((departure.on_time(&signals, after(4)), departure.deadline()), (None, Some(after(5))));
        departure.at_once(after(4));
        assert_eq!(departure.on_time(&signals, after(4)), Some(Signal::SIGTERM));
        departure.at_once(after(5));
        assert_eq!(departure.deadline(), Some(after(14)), "it is sent once");
    }

    #[test]
    fn what_is_none_is_said() {
        for bad in ["", "TERM,", "10s", "TERM,10s", "TERM,10,KILL", "TERM,x", "TERM,10y,KILL", "TERM,5s,5s,KILL"] {
            let error = bad.parse::<StopSignals>().unwrap_err();
            assert!(error.is_invalid() && error.to_string().contains(bad), "{error}");
        }
    }
}
