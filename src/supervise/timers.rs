//! What is due when nothing happens.

use std::time::{Duration, Instant};

use tracing::error;

use nix::sys::signal::Signal;

use crate::lifecycle::State;
use crate::service::events;
use crate::settings::END_TIMEOUT;
use crate::supervise::driver::Driver;
use crate::supervise::generation::Generation;
use crate::supervise::ready::Ready;
use crate::supervise::stop::StopSignals;
use crate::systemd::notify::Message;

/// While the service stops and still drains, the manager is asked for this much more time, again and again…
const EXTEND_BY: Duration = Duration::from_secs(10);
/// …this often. The drain timeout ends it.
const EXTEND_EVERY: Duration = Duration::from_secs(5);

impl Driver {
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let generations = self.generations.values().flat_map(|g| [g.deadline(), self.good_at(g)]);
        let slots = self.slots.iter().map(|slot| slot.pause.map(|pause| pause.until));
        generations.chain(slots).chain([self.extend_at]).flatten().min()
    }

    pub(crate) fn on_time(&mut self, now: Instant) {
        let signals = self.plan.stop_signals.clone();
        for number in self.generations.keys().copied().collect::<Vec<_>>() {
            self.on_time_of(number, now, &signals);
        }
        for slot in 0..self.slots.len() {
            if self.slots[slot].pause.is_some_and(|pause| pause.until <= now) {
                self.restart(slot, false);
            }
        }
        if self.extend_at.is_some_and(|at| at <= now) {
            self.extend_at = Some(now + EXTEND_EVERY);
            self.manager.tell(&Message::new().extend_timeout(EXTEND_BY));
        }
    }

    fn on_time_of(&mut self, number: u64, now: Instant, signals: &StopSignals) {
        let Some(generation) = self.generations.get_mut(&number) else { return };
        generation.keep_telling(signals, now);
        if generation.ready_by.is_some_and(|at| at <= now) {
            generation.ready_by = None;
            let reason = self.not_ready();
            return self.on_failed(number, reason);
        }
        if generation.machine.state() == State::Reloading(crate::lifecycle::Phase::Spawned)
            && generation.machine.deadline().is_some_and(|at| at <= now)
        {
            let reason = self.not_ready();
            return self.push(number, crate::lifecycle::Event::NextFailed(reason));
        }
        if generation.watched_until().is_some_and(|at| at <= now) {
            generation.pinged = None;
            self.abort(number, "sent no WATCHDOG=1 in time");
        }
        let Some(generation) = self.generations.get_mut(&number) else { return };
        let actions = generation.machine.timeout(now);
        for action in actions {
            self.perform(number, action);
        }
        let Some(generation) = self.generations.get(&number) else { return };
        if self.good_at(generation).is_some_and(|at| at <= now) {
            let (slot, image) = (generation.slot, generation.child.image.clone());
            self.slots[slot].crashes = 0;
            if let Some(generation) = self.generations.get_mut(&number) {
                generation.good = true;
            }
            if image.is_some() {
                self.good = image;
            }
        }
    }

    /// As systemd does when a watchdog is not fed: SIGABRT, and SIGKILL if that does not help. It counts as a crash.
    pub(crate) fn abort(&mut self, number: u64, why: &str) {
        let signals: StopSignals = StopSignals::default();
        let Some(generation) = self.generations.get_mut(&number) else { return };
        error!(message_id = events::UNHEALTHY, generation = number, reason = why, "generation {number} {why}: SIGABRT");
        generation.tell_to_go(&signals, Instant::now(), Some(Instant::now() + END_TIMEOUT), true);
        generation.child.signal(Signal::SIGABRT);
    }

    fn good_at(&self, generation: &Generation) -> Option<Instant> {
        let since = generation.main_since.filter(|_| !generation.good && generation.is_main())?;
        Some(since + self.plan.good_after)
    }

    fn not_ready(&self) -> String {
        let within = self.plan.settings.ready_timeout;
        let why = match &self.plan.ready {
            Ready::Notify => {
                "it never said READY=1 (sd_notify); for a program that does not, choose another --ready, such as accept"
            }
            Ready::Accept(_) => "it accepted no connection",
            Ready::Http { .. } => "it answered no probe",
            Ready::Command(_) => "the command never ended with 0",
            Ready::Delay(_) => "the delay is longer than that",
        };
        format!("was not ready within {within:?}: {why}")
    }
}
