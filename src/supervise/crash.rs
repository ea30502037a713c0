//! A generation that ended and was not told to.

use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use crate::lifecycle::{Event, State};
use crate::service::clock::now;
use crate::service::events;
use crate::service::steps::What;
use crate::supervise::builder::OnCrash;
use crate::supervise::driver::Driver;
use crate::sys::pidfd::Ended;
use crate::systemd::notify::Message;

/// A generation that has served for this long is good: the pauses begin anew after it, and its version is the one to go back to.
pub const GOOD_AFTER: Duration = Duration::from_secs(10);
/// The pause before a generation is started again that was not good. It doubles each time.
pub const MIN_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause: connections wait for it.
pub const MAX_PAUSE: Duration = Duration::from_secs(2);
/// After so many crashes in a row the last good version is started instead of what is at the path.
pub const CRASH_LOOP: u32 = 3;

/// A worker that has no process at the moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pause {
    pub(crate) until: Instant,
}

impl Driver {
    /// Its first process has ended. The others of it are being ended.
    pub(crate) fn on_ended(&mut self, number: u64, how: Ended) {
        let Some(generation) = self.generations.get_mut(&number) else { return };
        generation.ended = true;
        generation.telling = None;
        if let Some(waiting) = generation.waiting.take() {
            waiting.abort();
        }
        let (slot, pid, state) = (generation.slot, generation.child.pid, generation.state());
        let (dismissed, says_stopping) = (generation.dismissed, generation.says_stopping);
        if dismissed {
            info!(
                message_id = events::NEXT_ENDED,
                generation = number,
                new_pid = pid,
                "rolled-back generation {number} {how}"
            );
            return;
        }
        match state {
            // When the last of its processes is gone, so is what it had accepted.
            State::Draining | State::Stopping | State::Exited => {}
            State::Starting | State::Standby | State::Trial => self.on_failed(number, how.to_string()),
            State::Serving | State::Reloading(_) | State::HandingOver => {
                if says_stopping && how == Ended::Exited(0) {
                    info!(generation = number, "generation {number} has stopped by itself: so does the service");
                    return self.stop_all(&Event::Stop);
                }
                self.crashed(slot, number, how);
            }
        }
    }

    /// It never came to be main.
    pub(crate) fn on_failed(&mut self, number: u64, reason: String) {
        let Some(generation) = self.generations.get_mut(&number) else { return };
        let slot = generation.slot;
        match self.slots[slot].main {
            Some(main) => self.push(main, Event::NextFailed(reason)),
            None => {
                generation.dismissed = true;
                generation.kill();
                self.slots[slot].next = None;
                self.start_failed(slot, number, &reason);
            }
        }
    }

    fn crashed(&mut self, slot: usize, number: u64, how: Ended) {
        let Some(generation) = self.generations.get(&number) else { return };
        let served = generation.main_since.map(|since| now().saturating_duration_since(since)).unwrap_or_default();
        error!(
            message_id = events::CRASHED,
            generation = number,
            old_pid = generation.child.pid,
            served_ms = u64::try_from(served.as_millis()).unwrap_or(u64::MAX),
            "generation {number} {how} after {served:.1?}, which nobody told it to"
        );
        self.crashes += 1;
        self.tell_step(What::Crashed, number, Some(&how.to_string()));
        self.slots[slot].main = None;
        if served >= self.plan.good_after {
            self.slots[slot].crashes = 0;
        }
        if self.plan.on_crash == OnCrash::Exit {
            self.failed = Some(format!("generation {number} {how}"));
            return self.stop_all(&Event::Stop);
        }
        match self.slots[slot].next {
            // It is on its way already, and starts as if it were the first, or accepts already.
            Some(next) => self.push(next, Event::PredecessorGone),
            None => self.pause(slot, number, &how.to_string()),
        }
    }

    /// No generation was there to fall back to.
    pub(crate) fn start_failed(&mut self, slot: usize, number: u64, reason: &str) {
        if !self.served {
            error!(message_id = events::FAILED, generation = number, "generation {number} {reason}");
            self.failed = Some(format!("generation {number} {reason}"));
            return self.stop_all(&Event::Stop);
        }
        error!(message_id = events::CRASHED, generation = number, "generation {number} {reason}, and no other serves");
        self.crashes += 1;
        self.tell_step(What::Crashed, number, Some(reason));
        self.slot_done(slot, Err(format!("generation {number} {reason}")));
        self.pause(slot, number, reason);
    }

    fn pause(&mut self, slot: usize, number: u64, why: &str) {
        if self.stopping {
            return;
        }
        let crashes = self.slots[slot].crashes;
        let pause = match crashes {
            0 => Duration::ZERO,
            n => MAX_PAUSE.min(MIN_PAUSE * 2_u32.saturating_pow((n - 1).min(16))),
        };
        self.slots[slot].crashes = crashes.saturating_add(1);
        self.slots[slot].pause = Some(Pause { until: now() + pause });
        let waits = if pause.is_zero() { "at once".to_owned() } else { format!("in {pause:?}") };
        self.manager.tell(
            &Message::new()
                .status(format!("generation {number} {why}; the next one is started {waits}, connections wait")),
        );
        if !pause.is_zero() {
            warn!(generation = number, "the next generation is started {waits}; connections wait in the backlog");
        }
    }

    /// A worker without a process gets one. After a loop of crashes: of the last good version, unless a reload asked.
    pub(crate) fn restart(&mut self, slot: usize, asked: bool) {
        self.slots[slot].pause = None;
        if asked {
            self.slots[slot].crashes = 0;
        }
        let crashes = self.slots[slot].crashes;
        let back = !asked && (crashes >= CRASH_LOOP || self.slots[slot].stays_back);
        let good = self.good.clone().filter(|image| back && image.is_intact());
        if crashes == CRASH_LOOP && !self.slots[slot].stays_back {
            match &good {
                Some(good) if self.slots[slot].last_image.as_ref().is_some_and(|last| last.is(good)) => {}
                Some(_) => {
                    warn!(
                        message_id = events::WENT_BACK,
                        "{CRASH_LOOP} crashes in a row: going back to the last version that was good"
                    );
                    self.slots[slot].stays_back = true;
                }
                None => warn!(
                    "{CRASH_LOOP} crashes in a row, and no version to go back to: none served for {:?}, or it is a script",
                    self.plan.good_after
                ),
            }
        }
        if let Err(reason) = self.launch(slot, good.as_ref(), false) {
            let number = self.last_number;
            self.start_failed(slot, number, &format!("did not start: {reason}"));
        }
    }
}
