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

/// Reads a signal as units and people write it, `HUP`, `SIGHUP` or `1`, and returns its name
/// without `SIG`: `HUP`, `RTMIN+3`. `None`: there is no such signal; names are in capitals.
pub fn signal_name(text: &str) -> Option<String> {
    let text = text.trim();
    if let Ok(number @ 32..=64) = text.parse::<i32>() {
        return Some(format!("RTMIN+{}", (number - 34).max(0)));
    }
    let numbered = text.parse::<i32>().ok().and_then(|number| Signal::try_from(number).ok());
    let name = numbered.map_or(text, |signal| signal.as_str());
    let name = name.strip_prefix("SIG").unwrap_or(name);
    let counted = name.strip_prefix("RTMIN+").or_else(|| name.strip_prefix("RTMAX-"));
    let is_real_time = matches!(name, "RTMIN" | "RTMAX") || counted.is_some_and(|n| n.parse::<u64>().is_ok());
    (is_real_time || format!("SIG{name}").parse::<Signal>().is_ok()).then(|| name.to_owned())
}

/// Reads the name or number of a signal, in any case. Those for real time are none.
fn signal(text: &str) -> Option<Signal> {
    format!("SIG{}", signal_name(&text.to_ascii_uppercase())?).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_read() {
        assert_eq!(signal_name("SIGHUP").as_deref(), Some("HUP"));
        assert_eq!((signal_name("HUP"), signal_name("1")), (Some("HUP".into()), Some("HUP".into())));
        assert_eq!((signal_name("31").as_deref(), signal_name("35").as_deref()), (Some("SYS"), Some("RTMIN+1")));
        assert_eq!(signal_name("SIGRTMIN+4").as_deref(), Some("RTMIN+4"));
        for none in ["hup", "0", "-1", "65", "SIG", "", "HANGUP", "RTMIN+x"] {
            assert_eq!(signal_name(none), None, "{none}");
        }
        assert_eq!((signal("sigterm"), signal("15")), (Some(Signal::SIGTERM), Some(Signal::SIGTERM)));
        assert_eq!(signal("RTMIN+1"), None);
    }

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
