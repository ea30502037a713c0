//! A generation of a foreign program: its process, and what the supervisor knows of it. Where it is
//! in its life, its lifecycle knows.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio::task::AbortHandle;

use crate::lifecycle::LifeState;
use crate::reload::clock::{millis, now};
use crate::supervise::child::ProgramProcess;
use crate::supervise::notified::Notification;
use crate::supervise::record::{GenerationRecord, PassedFds, ago};
use crate::supervise::stop::{Departure, StopSignals};

/// A next generation can keep so many things for when it is main.
const MAX_STAGED: usize = 256;
/// Longest status text that is kept of a program, in characters.
const MAX_STATUS: usize = 300;

#[derive(Debug)]
pub(crate) struct ProgramGeneration {
    pub(crate) number: u64,
    pub(crate) slot: usize,
    pub(crate) process: ProgramProcess,
    /// The reload that it came with or, later, left by.
    pub(crate) handover_id: Option<Arc<str>>,
    pub(crate) began: Instant,
    pub(crate) main_since: Option<Instant>,
    pub(crate) drains_since: Option<Instant>,
    /// It is a version that was good, started instead of what is at the path.
    pub(crate) went_back: bool,
    pub(crate) status: Option<String>,
    pub(crate) says_stopping: bool,
    /// It failed, or was rolled back: its end is no event.
    pub(crate) dismissed: bool,
    pub(crate) ended: bool,
    /// The rest of its processes is not given any time.
    pub(crate) killed: bool,
    /// It has served long enough to be gone back to.
    pub(crate) good: bool,
    /// Nobody else waits for it to get ready: until then it must be.
    pub(crate) ready_by: Option<Instant>,
    pub(crate) waiting: Option<AbortHandle>,
    /// How often it wants to be heard of, and when it last was. It is not watched before its first
    /// ping.
    watchdog: Option<Duration>,
    pinged: Option<Instant>,
    /// What it put in the store before it was main.
    staged: Vec<Notification>,
    departure: Option<Departure>,
}

impl ProgramGeneration {
    pub(crate) fn new(number: u64, slot: usize, process: ProgramProcess, watchdog: Option<Duration>) -> Self {
        Self {
            number,
            slot,
            process,
            handover_id: None,
            began: now(),
            main_since: None,
            drains_since: None,
            went_back: false,
            status: None,
            says_stopping: false,
            dismissed: false,
            ended: false,
            killed: false,
            good: false,
            ready_by: None,
            waiting: None,
            watchdog,
            pinged: None,
            staged: Vec::new(),
            departure: None,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid
    }

    pub(crate) fn extend(&mut self, until: Instant) {
        self.ready_by = self.ready_by.map(|by| by.max(until));
    }

    /// It is ready. False: that means nothing, as it is on its way out.
    pub(crate) fn is_ready(&mut self) -> bool {
        self.wait_no_more();
        !self.dismissed && !self.ended
    }

    fn wait_no_more(&mut self) {
        if let Some(waiting) = self.waiting.take() {
            waiting.abort();
        }
        self.ready_by = None;
    }

    /// It is main now. What it stored until now is returned, and counts.
    pub(crate) fn becomes_main(&mut self) -> Vec<Notification> {
        self.main_since = Some(now());
        self.ready_by = None;
        std::mem::take(&mut self.staged)
    }

    /// When it was made main, of one that is not known to be good.
    pub(crate) fn unproven_since(&self, state: LifeState) -> Option<Instant> {
        self.main_since.filter(|_| !self.good && state.is_main())
    }

    /// Keeps the text, and returns it without control characters.
    pub(crate) fn says(&mut self, text: &str) -> &str {
        let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c });
        self.status.insert(clean.take(MAX_STATUS).collect())
    }

    pub(crate) fn pings(&mut self) {
        self.pinged = self.watchdog.map(|_| now());
    }

    pub(crate) fn watch_every(&mut self, every: Duration) {
        self.watchdog = Some(every).filter(|every| !every.is_zero() && *every != Duration::from_micros(u64::MAX));
        self.pings();
    }

    pub(crate) fn stage(&mut self, what: Notification) {
        if self.staged.len() < MAX_STAGED {
            self.staged.push(what);
        }
    }

    /// It drains, and is told so after a pause. One that says that it stops is not told to: a
    /// second signal could mean "at once".
    pub(crate) fn drain(&mut self, signals: &StopSignals, pause: Duration, handover_id: Option<Arc<str>>) {
        self.drains_since = Some(now());
        self.handover_id = handover_id.or(self.handover_id.take());
        if pause.is_zero() || self.says_stopping || self.departure.is_some() || self.ended {
            self.tell_to_go(signals, None, self.says_stopping);
        } else {
            self.departure = Some(Departure::later(now() + pause));
        }
    }

    /// There is no more time for a pause.
    pub(crate) fn go_at_once(&mut self) {
        if let Some(departure) = &mut self.departure {
            departure.at_once(now());
        }
    }

    /// It failed, and has `grace` to end.
    pub(crate) fn dismiss(&mut self, signals: &StopSignals, grace: Duration) {
        self.dismissed = true;
        self.wait_no_more();
        self.tell_to_go(signals, Some(now() + grace), false);
    }

    /// Ends it by SIGABRT, as systemd does, and by SIGKILL if that does not help.
    pub(crate) fn abort(&mut self, grace: Duration) {
        self.tell_to_go(&StopSignals::default(), Some(now() + grace), true);
        self.process.signal(Signal::SIGABRT);
    }

    fn tell_to_go(&mut self, signals: &StopSignals, kill: Option<Instant>, silently: bool) {
        if self.departure.is_some() || self.ended {
            return;
        }
        let (departure, first) = Departure::begin(signals, now(), kill);
        self.departure = Some(departure);
        self.send(first.filter(|first| !silently || *first == Signal::SIGKILL));
    }

    fn send(&mut self, signal: Option<Signal>) {
        match signal {
            Some(Signal::SIGKILL) => self.kill(),
            Some(signal) => self.process.signal(signal),
            None => {}
        }
    }

    pub(crate) fn kill(&mut self) {
        self.killed = true;
        self.departure = Some(Departure::killed());
        self.process.signal(Signal::SIGKILL);
        self.process.family.signal(Signal::SIGKILL);
    }

    pub(crate) fn has_ended(&mut self) {
        self.ended = true;
        self.departure = None;
        self.wait_no_more();
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        let departure = self.departure.as_ref().and_then(Departure::deadline);
        [departure, self.ready_by, self.watched_until()].into_iter().flatten().min()
    }

    fn watched_until(&self) -> Option<Instant> {
        Some(self.pinged? + self.watchdog?).filter(|_| !self.ended)
    }

    /// Sends the signal that is due.
    pub(crate) fn go_on(&mut self, signals: &StopSignals, now: Instant) {
        let due = self.departure.as_mut().and_then(|departure| departure.on_time(signals, now));
        self.send(due);
    }

    /// Whether it is not ready in time, said once.
    pub(crate) fn is_late(&mut self, now: Instant) -> bool {
        self.ready_by.take_if(|by| *by <= now).is_some()
    }

    /// Whether it sent no watchdog ping in time, said once.
    pub(crate) fn hangs(&mut self, now: Instant) -> bool {
        let hangs = self.watched_until().is_some_and(|until| until <= now);
        self.pinged.take_if(|_| hangs).is_some()
    }

    /// `left_ms` is what its lifecycle still gives it.
    pub(crate) fn record<'a>(&'a self, left_ms: Option<u64>, fds: &mut PassedFds<'a>) -> GenerationRecord {
        let draining = self.drains_since.or_else(|| self.dismissed.then_some(self.began));
        GenerationRecord {
            number: self.number,
            slot: self.slot,
            pid: self.process.pid,
            image: self.process.image.as_ref().map(|image| fds.add(image.as_fd())),
            handover_id: self.handover_id.as_deref().map(str::to_owned),
            age_ms: millis(self.began),
            main_ms: self.main_since.map(millis),
            draining_ms: draining.map(millis),
            left_ms,
            good: self.good,
            went_back: self.went_back,
            says_stopping: self.says_stopping,
            dismissed: self.dismissed,
            status: self.status.clone(),
            watchdog_us: self.watchdog.and_then(|every| u64::try_from(every.as_micros()).ok()),
            watched: self.pinged.is_some(),
            told: self.departure.as_ref().map(Departure::record),
        }
    }

    pub(crate) fn resumed(of: GenerationRecord, process: ProgramProcess) -> Self {
        Self {
            handover_id: of.handover_id.map(Arc::from),
            began: ago(of.age_ms),
            main_since: of.main_ms.map(ago),
            drains_since: of.draining_ms.map(ago),
            went_back: of.went_back,
            status: of.status,
            pinged: of.watched.then(now),
            good: of.good,
            says_stopping: of.says_stopping,
            departure: of.told.as_ref().map(Departure::resumed),
            dismissed: of.dismissed,
            ..Self::new(of.number, of.slot, process, of.watchdog_us.map(Duration::from_micros))
        }
    }
}
