//! What happened over time: how many answers by which generation, and how long they took, in steps
//! and around each reload.
//!
//! Memory grows by the steps that time has, not by the requests.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::kind::Kind;

/// Three digits: 0.1 %.
const DIGITS: u8 = 3;
/// Beyond that, a wait is counted as that long.
const LONGEST: Duration = Duration::from_secs(3600);

#[derive(Debug)]
pub struct Flow {
    started: Instant,
    pub step: Duration,
    pub steps: Vec<Step>,
    current: Waits,
    part: Part,
    /// The one before, for answers that came after its end.
    before: Option<Part>,
    pub parts: Vec<Finished>,
    /// All answers of a kind.
    pub kinds: BTreeMap<Kind, Waits>,
    /// Outside of all windows.
    pub quiet: Waits,
}

/// How long requests waited, in µs.
#[derive(Debug, Clone)]
pub struct Waits {
    waits: Histogram<u64>,
    /// To the last digit.
    max: Duration,
}

#[derive(Debug, Clone, Copy, Default)]
pub struct Percentiles {
    pub count: u64,
    pub p50: Duration,
    pub p99: Duration,
    pub p999: Duration,
    pub max: Duration,
}

/// A stretch of the time that a plot shows as one point.
#[derive(Debug, Clone, Default)]
pub struct Step {
    /// By generation; 0 where it is not known.
    pub answered: BTreeMap<u32, u64>,
    pub lost: u64,
    pub waits: Percentiles,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    Quiet,
    /// Just as long before a reload as its window is after.
    Before(u32),
    Within(u32),
}

#[derive(Debug)]
struct Part {
    when: When,
    from: Instant,
    to: Option<Instant>,
    /// Of the kinds that tell latency.
    waits: Waits,
    /// Of all kinds but the probes.
    answered: u64,
}

/// The answers of such a stretch.
#[derive(Debug, Clone, Copy)]
pub struct Finished {
    pub when: When,
    pub took: Duration,
    pub answered: u64,
    pub waits: Percentiles,
}

impl Default for Waits {
    fn default() -> Self {
        // Only a precision above 5 digits is refused.
        let waits = Histogram::new(DIGITS).unwrap_or_else(|_| unreachable!("{DIGITS} digits"));
        Self { waits, max: Duration::ZERO }
    }
}

impl Waits {
    pub fn record(&mut self, wait: Duration) {
        let micros = u64::try_from(wait.min(LONGEST).as_micros()).unwrap_or(u64::MAX);
        // It grows as values need it, up to the limit above.
        let _ = self.waits.record(micros);
        self.max = self.max.max(wait);
    }

    fn reset(&mut self) {
        self.waits.reset();
        self.max = Duration::ZERO;
    }

    pub fn percentiles(&self) -> Percentiles {
        let at = |q: f64| Duration::from_micros(self.waits.value_at_quantile(q));
        let (count, max) = (self.waits.len(), self.max);
        // The bucket's upper edge may lie above what was ever seen.
        Percentiles { count, p50: at(0.5).min(max), p99: at(0.99).min(max), p999: at(0.999).min(max), max }
    }
}

impl Part {
    fn new(when: When) -> Self {
        Self { when, from: Instant::now(), to: None, waits: Waits::default(), answered: 0 }
    }

    fn finish(self) -> Option<Finished> {
        let took = self.to.unwrap_or_else(Instant::now) - self.from;
        let Self { when, answered, .. } = self;
        (when != When::Quiet).then(|| Finished { when, took, answered, waits: self.waits.percentiles() })
    }
}

impl Flow {
    pub fn new(step: Duration) -> Self {
        Self {
            started: Instant::now(),
            step,
            steps: Vec::new(),
            current: Waits::default(),
            part: Part::new(When::Quiet),
            before: None,
            parts: Vec::new(),
            kinds: BTreeMap::new(),
            quiet: Waits::default(),
        }
    }

    pub fn started(&self) -> Instant {
        self.started
    }

    /// From now on answers belong to that.
    pub fn turn(&mut self, when: When) {
        let mut part = std::mem::replace(&mut self.part, Part::new(when));
        part.to = Some(self.part.from);
        let older = self.before.replace(part);
        self.parts.extend(older.and_then(Part::finish));
    }

    /// `wait` is `None` where it tells nothing of reloads, because it met a kill.
    pub(super) fn answered(&mut self, kind: Kind, by: Option<u32>, begun: Instant, wait: Option<Duration>) {
        if kind != Kind::Probe {
            self.part.answered += 1;
        }
        let (step, waits) = self.now();
        *step.answered.entry(by.unwrap_or(0)).or_default() += 1;
        let Some(wait) = wait else { return };
        if kind.tells_latency() {
            waits.record(wait);
            self.part.waits.record(wait);
            // A request that was stuck over the end of the window is one of its own.
            if let Some(before) =
                self.before.as_mut().filter(|p| matches!(p.when, When::Within(_)) && p.to.is_some_and(|to| begun < to))
            {
                before.waits.record(wait);
            }
            if self.part.when == When::Quiet {
                self.quiet.record(wait);
            }
        }
        self.kinds.entry(kind).or_default().record(wait);
    }

    pub(super) fn lost(&mut self) {
        self.now().0.lost += 1;
    }

    fn now(&mut self) -> (&mut Step, &mut Waits) {
        let number = self.started.elapsed().as_nanos() / self.step.as_nanos().max(1);
        let number = usize::try_from(number).unwrap_or(usize::MAX);
        if number >= self.steps.len() {
            if let Some(last) = self.steps.last_mut() {
                last.waits = self.current.percentiles();
            }
            self.current.reset();
            self.steps.resize_with(number + 1, Step::default);
        }
        (&mut self.steps[number], &mut self.current)
    }

    /// Ends all that is under way.
    pub(super) fn finish(&mut self) {
        self.turn(When::Quiet);
        self.turn(When::Quiet);
        if let Some(last) = self.steps.last_mut() {
            last.waits = self.current.percentiles();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_belong_to_the_window_that_they_met() {
        let mut flow = Flow::new(Duration::from_secs(60));
        let ms = Duration::from_millis;
        flow.turn(When::Before(1));
        flow.answered(Kind::KeepAlive, Some(1), Instant::now(), Some(ms(1)));
        flow.turn(When::Within(1));
        let begun = Instant::now();
        flow.answered(Kind::KeepAlive, Some(2), begun, Some(ms(2)));
        flow.answered(Kind::Probe, Some(2), begun, Some(ms(2)));
        flow.turn(When::Quiet);
        flow.answered(Kind::KeepAlive, Some(2), begun, Some(ms(3000)));
        flow.answered(Kind::KeepAlive, Some(2), Instant::now(), Some(ms(1)));
        flow.finish();
        let [before, within] = flow.parts[..] else { panic!("{:?}", flow.parts) };
        assert_eq!((before.when, before.answered, before.waits.max), (When::Before(1), 1, ms(1)));
        assert_eq!((within.when, within.answered, within.waits.count), (When::Within(1), 1, 2));
        assert_eq!(within.waits.max, ms(3000));
        assert_eq!(flow.quiet.percentiles().count, 2);
        assert_eq!(flow.steps[0].answered, BTreeMap::from([(1, 1), (2, 4)]));
    }
}
