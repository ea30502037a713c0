//! A generation of a foreign program: its process, and the lifecycle that the supervisor runs on its behalf.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio::task::AbortHandle;

use crate::lifecycle::{Machine, State};
use crate::supervise::child::Child;
use crate::supervise::letters::Said;
use crate::supervise::stop::StopSignals;

/// One process of the program, with all that came from it.
#[derive(Debug)]
pub(crate) struct Generation {
    pub(crate) number: u64,
    /// Which of the workers it is.
    pub(crate) slot: usize,
    pub(crate) machine: Machine,
    pub(crate) child: Child,
    /// Of the reload that it came with.
    pub(crate) handover_id: Option<String>,
    /// When it was started.
    pub(crate) began: Instant,
    pub(crate) main_since: Option<Instant>,
    /// Since when it drains.
    pub(crate) drains_since: Option<Instant>,
    /// Nobody else waits for it to get ready: until then it must be.
    pub(crate) ready_by: Option<Instant>,
    /// It is a version that was good, started instead of what is at the path.
    pub(crate) went_back: bool,
    /// What it said about itself.
    pub(crate) status: Option<String>,
    /// How often it wants to be heard of, and when it last was. It is not watched before its first ping.
    pub(crate) watchdog: Option<Duration>,
    pub(crate) pinged: Option<Instant>,
    /// What it put in the store before it was main.
    pub(crate) staged: Vec<Said>,
    /// It has served long enough to be gone back to.
    pub(crate) good: bool,
    /// It said that it is stopping.
    pub(crate) says_stopping: bool,
    pub(crate) telling: Option<Telling>,
    /// It failed, or was rolled back: its end is no event.
    pub(crate) dismissed: bool,
    pub(crate) ended: bool,
    /// The rest of its processes is not given any time.
    pub(crate) killed: Arc<AtomicBool>,
    /// Waits until it is ready.
    pub(crate) waiting: Option<AbortHandle>,
}

/// The signals that tell it to go.
#[derive(Debug)]
pub(crate) struct Telling {
    /// The next one's place in the sequence.
    pub(crate) step: usize,
    /// When the next one is due.
    pub(crate) next: Option<Instant>,
    /// When it is over at the latest.
    pub(crate) kill: Option<Instant>,
}

impl Generation {
    pub(crate) fn new(number: u64, slot: usize, machine: Machine, child: Child, now: Instant) -> Self {
        Self {
            number,
            slot,
            machine,
            child,
            handover_id: None,
            began: now,
            main_since: None,
            drains_since: None,
            ready_by: None,
            went_back: false,
            status: None,
            watchdog: None,
            pinged: None,
            staged: Vec::new(),
            good: false,
            says_stopping: false,
            telling: None,
            dismissed: false,
            ended: false,
            killed: Arc::new(AtomicBool::new(false)),
            waiting: None,
        }
    }

    pub(crate) fn state(&self) -> State {
        self.machine.state()
    }

    pub(crate) fn is_main(&self) -> bool {
        matches!(self.state(), State::Serving | State::Reloading(_) | State::HandingOver)
    }

    /// Begins to tell it to go. `silently`: it knows already, and a second signal could mean "at once" to it.
    pub(crate) fn tell_to_go(&mut self, signals: &StopSignals, now: Instant, kill: Option<Instant>, silently: bool) {
        if self.telling.is_some() || self.ended {
            return;
        }
        self.telling = Some(Telling { step: 0, next: None, kill });
        self.next_signal(signals, now, silently);
    }

    /// Time has passed.
    pub(crate) fn keep_telling(&mut self, signals: &StopSignals, now: Instant) {
        let Some(telling) = &self.telling else { return };
        if telling.kill.is_some_and(|at| at <= now) {
            self.kill();
        } else if telling.next.is_some_and(|at| at <= now) {
            self.next_signal(signals, now, false);
        }
    }

    fn next_signal(&mut self, signals: &StopSignals, now: Instant, silently: bool) {
        let Some(telling) = &mut self.telling else { return };
        telling.next = None;
        let Some((signal, wait)) = signals.step(telling.step) else { return };
        telling.step += 1;
        telling.next = wait.map(|wait| now + wait);
        if signal == Signal::SIGKILL {
            self.kill();
        } else if !silently {
            self.child.signal(signal);
        }
    }

    /// With all of its processes.
    pub(crate) fn kill(&mut self) {
        self.killed.store(true, Ordering::Relaxed);
        self.telling = Some(Telling { step: usize::MAX, next: None, kill: None });
        self.child.signal(Signal::SIGKILL);
        self.child.family.signal(Signal::SIGKILL);
    }

    /// When something is to be done about it, if nothing happens.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let telling = self.telling.iter().flat_map(|telling| [telling.next, telling.kill]);
        let watched = self.watched_until().filter(|_| !self.ended);
        telling.chain([self.machine.deadline(), self.ready_by, watched]).flatten().min()
    }

    /// When it is taken for hung.
    pub(crate) fn watched_until(&self) -> Option<Instant> {
        Some(self.pinged? + self.watchdog?)
    }
}
