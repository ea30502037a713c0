//! What follows when a process of the program ends that nobody told to: a pause, and after a loop
//! of crashes the last version that was good.

use std::time::{Duration, Instant};

/// A generation that has served for this long is good: the pauses begin anew after it, and its
/// version is the one to go back to.
pub const GOOD_AFTER: Duration = Duration::from_secs(10);
/// The pause before a generation is started again that was not good. It doubles each time.
pub const MIN_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause: connections wait for it.
pub const MAX_PAUSE: Duration = Duration::from_secs(2);
/// After so many crashes in a row the last good version is started instead of what is at the path.
pub const CRASH_LOOP: u32 = 3;

/// The crashes of all workers.
#[derive(Debug)]
pub(crate) struct Crashes {
    good_after: Duration,
    count: u64,
    workers: Vec<Streak>,
}

/// The crashes of one worker, in a row.
#[derive(Debug, Clone, Default)]
struct Streak {
    crashes: u32,
    /// The worker has no process until then.
    paused_until: Option<Instant>,
    /// It went back to the last good version, and takes no other before a reload asks for one.
    stays_back: bool,
}

/// The version that a worker could go back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LastGood {
    /// None served for long enough, or it is not there any more.
    Missing,
    /// It is the one that the worker ran last.
    Same,
    Older,
}

/// How a worker is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Restart {
    /// Its program is what is at the path.
    FromPath,
    /// The same, after a loop of crashes, as there is no version to go back to.
    NothingGood,
    /// It runs the last version that was good.
    LastGood,
    /// The same, for the first time in this loop of crashes.
    GoesBack,
}

impl Crashes {
    pub(crate) fn new(workers: usize, good_after: Duration, count: u64) -> Self {
        Self { good_after, count, workers: vec![Streak::default(); workers] }
    }

    /// How often a process ended that nobody had told to.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// When a generation is good that is main since then.
    pub(crate) fn good_at(&self, main_since: Instant) -> Instant {
        main_since + self.good_after
    }

    /// A generation of the worker is good: the pauses begin anew.
    pub(crate) fn is_good(&mut self, slot: usize) {
        self.workers[slot].crashes = 0;
    }

    /// A generation of the worker has crashed that served for this long, if it ever did.
    pub(crate) fn crashed(&mut self, slot: usize, served: Option<Duration>) {
        self.count += 1;
        if served.is_some_and(|served| served >= self.good_after) {
            self.workers[slot].crashes = 0;
        }
    }

    /// The worker has no process: it pauses for the returned time.
    pub(crate) fn pause(&mut self, slot: usize, now: Instant) -> Duration {
        let worker = &mut self.workers[slot];
        let pause = match worker.crashes {
            0 => Duration::ZERO,
            n => MAX_PAUSE.min(MIN_PAUSE * 2_u32.saturating_pow((n - 1).min(16))),
        };
        worker.crashes = worker.crashes.saturating_add(1);
        worker.paused_until = Some(now + pause);
        pause
    }

    /// The worker is started now. What a reload has `asked` for is what is at the path.
    pub(crate) fn restart(&mut self, slot: usize, asked: bool, good: LastGood) -> Restart {
        let worker = &mut self.workers[slot];
        worker.paused_until = None;
        if asked {
            worker.crashes = 0;
            return Restart::FromPath;
        }
        let loops_now = worker.crashes == CRASH_LOOP && !worker.stays_back;
        match good {
            _ if worker.crashes < CRASH_LOOP && !worker.stays_back => Restart::FromPath,
            LastGood::Missing if loops_now => Restart::NothingGood,
            LastGood::Missing => Restart::FromPath,
            LastGood::Older if loops_now => {
                worker.stays_back = true;
                Restart::GoesBack
            }
            LastGood::Older | LastGood::Same => Restart::LastGood,
        }
    }

    /// The worker has a main generation, of the last good version or of what is at the path.
    pub(crate) fn serves(&mut self, slot: usize, went_back: bool) {
        self.workers[slot].paused_until = None;
        self.workers[slot].stays_back &= went_back;
    }

    /// Nobody is started any more.
    pub(crate) fn stop(&mut self) {
        self.workers.iter_mut().for_each(|worker| worker.paused_until = None);
    }

    /// When a pause is over.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.workers.iter().filter_map(|worker| worker.paused_until).min()
    }

    /// The workers whose pause is over.
    pub(crate) fn due(&self, now: Instant) -> Vec<usize> {
        let due = self.workers.iter().enumerate().filter(|(_, w)| w.paused_until.is_some_and(|until| until <= now));
        due.map(|(slot, _)| slot).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crash(crashes: &mut Crashes, served: Duration) -> Duration {
        crashes.crashed(0, Some(served));
        crashes.pause(0, Instant::now())
    }

    #[test]
    fn pauses_grow_until_a_generation_is_good() {
        let mut crashes = Crashes::new(1, GOOD_AFTER, 0);
        let pauses: Vec<u128> = (0..8).map(|_| crash(&mut crashes, Duration::ZERO).as_millis()).collect();
        assert_eq!(pauses, [0, 100, 200, 400, 800, 1600, 2000, 2000]);
        assert_eq!(crash(&mut crashes, GOOD_AFTER), Duration::ZERO);
        assert_eq!(crash(&mut crashes, Duration::ZERO), MIN_PAUSE);
        crashes.is_good(0);
        assert_eq!(crash(&mut crashes, Duration::ZERO), Duration::ZERO);
        assert_eq!(crashes.count(), 11);
        crashes.stop();
        assert_eq!(crashes.deadline(), None);
    }

    #[test]
    fn a_worker_goes_back_once_and_stays_there_until_a_reload() {
        let mut crashes = Crashes::new(2, GOOD_AFTER, 0);
        for _ in 0..CRASH_LOOP {
            assert_eq!(crashes.restart(0, false, LastGood::Older), Restart::FromPath);
            crash(&mut crashes, Duration::ZERO);
        }
        assert_eq!(crashes.restart(0, false, LastGood::Older), Restart::GoesBack);
        crashes.serves(0, true);
        crashes.is_good(0);
        assert_eq!(crashes.restart(0, false, LastGood::Older), Restart::LastGood);
        assert_eq!(crashes.restart(1, false, LastGood::Older), Restart::FromPath, "the other worker is well");
        assert_eq!(crashes.restart(0, true, LastGood::Older), Restart::FromPath);
        crashes.serves(0, false);
        assert_eq!(crashes.restart(0, false, LastGood::Older), Restart::FromPath);
    }

    #[test]
    fn without_a_good_version_that_is_said_once() {
        let mut crashes = Crashes::new(1, GOOD_AFTER, 0);
        for _ in 0..CRASH_LOOP {
            crash(&mut crashes, Duration::ZERO);
        }
        assert_eq!(crashes.restart(0, false, LastGood::Same), Restart::LastGood);
        assert_eq!(crashes.restart(0, false, LastGood::Missing), Restart::NothingGood);
        crash(&mut crashes, Duration::ZERO);
        assert_eq!(crashes.restart(0, false, LastGood::Missing), Restart::FromPath);
    }
}
