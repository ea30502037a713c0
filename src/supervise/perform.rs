//! What the lifecycles ask for, done.

use std::time::Duration;

use tracing::{error, info, warn};

use crate::lifecycle::{Action, End, Event, Machine, Outcome, Phase, State};
use crate::metrics::{DRAINING, GENERATION};
use crate::service::clock::{millis, now};
use crate::service::events;
use crate::service::steps::What;
use crate::settings::END_TIMEOUT;
use crate::supervise::driver::Driver;
use crate::supervise::generation::Generation;
use crate::supervise::image::Image;
use crate::systemd::notify::Message;

impl Driver {
    pub(crate) fn perform(&mut self, number: u64, action: Action) {
        match action {
            Action::Spawn => self.spawn_next(number),
            Action::SayReady => self.tell_previous(number, Event::NextReady),
            Action::SaySwitched => self.tell_previous(number, Event::NextSwitched),
            Action::SendSwitch => self.tell_next(number, Event::Switch),
            Action::SendMain { stop, .. } => self.send_main(number, stop),
            // The sockets are shared, and a program that knows nothing of gates has none: it accepts as soon as it can, and until it is
            // told to go.
            Action::ShutGate => self.push(number, Event::GateShut),
            Action::OpenGate => {}
            // The main process stays the same: there is nothing that the service manager would have to confirm.
            Action::TellHandover => self.push(number, Event::Barrier),
            Action::BecomeMain => self.become_main(number),
            Action::BeginDrain { .. } => self.begin_drain(number),
            Action::Hammer => self.hammer(number),
            Action::EndNext { grace } => self.end_next(number, grace),
            Action::TellRolledBack(reason) => self.rolled_back(number, &reason),
            Action::TellStopping => self.tell_stopping(),
            Action::TellReady => self.tell_serves(number),
            Action::TellReclaim => warn!(
                message_id = events::RECLAIMED,
                generation = number,
                "the other generation is gone: generation {number} serves"
            ),
            Action::Answer(_, outcome) => self.answered(number, &outcome),
            Action::Exit(end) => self.exited(number, &end),
            // The reload of the service is told of by the whole of it.
            Action::TellReloading | Action::TellReloadedInPlace => {}
            // It was told to go when the drain began, and knows no other word.
            Action::Hurry => {}
        }
    }

    /// Starts a generation. With a predecessor it waits for it; without, it is main as soon as it is ready.
    pub(crate) fn launch(&mut self, slot: usize, image: Option<&Image>, successor: bool) -> Result<u64, String> {
        self.last_number += 1;
        let number = self.last_number;
        self.slots[slot].newest = number;
        let items = self.estate.for_generation().map_err(|e| e.to_string())?;
        let before = self.slots[slot].main.and_then(|main| self.generations.get(&main)).map(|main| main.child.pid);
        let child = self.plan.recipe.start(number, &items, image, before).map_err(|e| e.to_string())?;
        let pidfd = child.pidfd.try_clone().map_err(|e| e.to_string());
        let (pid, family) = (child.pid, child.family.clone());
        self.slots[slot].last_image.clone_from(&child.image);
        // Nobody restarts a generation but us: it is never too late for it to take over.
        let machine = Machine::new(self.plan.settings.machine(false, successor));
        let mut generation = Generation::new(number, slot, machine, child, now());
        generation.watchdog = self.plan.recipe.watchdog;
        generation.went_back = image.is_some();
        generation.ready_by = (!successor).then(|| now() + self.plan.settings.ready_timeout);
        generation.handover_id =
            self.rolling.as_ref().filter(|_| self.is_rolling(slot)).map(|rolling| rolling.handover_id.clone());
        let handover_id = generation.handover_id.clone();
        self.generations.insert(number, generation);
        self.slots[slot].next = Some(number);
        // A step of the reload is the previous generation's.
        let teller = self.slots[slot].main.filter(|_| successor).unwrap_or(number);
        info!(
            message_id = events::SPAWNED,
            generation = teller,
            handover_id,
            old_pid = before.filter(|_| successor),
            new_pid = pid,
            spawn_ms = self.rolling.as_ref().map(|r| millis(r.began)),
            "started generation {number}"
        );
        self.tell_step(What::Started, teller, None);
        match pidfd {
            Ok(pidfd) => self.watch(number, pidfd, family),
            Err(error) => self.on_failed(number, format!("cannot be watched: {error}")),
        }
        Ok(number)
    }

    fn spawn_next(&mut self, number: u64) {
        let Some(slot) = self.generations.get(&number).map(|g| g.slot) else { return };
        self.tell_step(What::Reloading, number, None);
        let image = self.rolling.as_ref().and_then(|rolling| rolling.image.clone());
        if let Err(reason) = self.launch(slot, image.as_ref(), true) {
            self.push(number, Event::NextFailed(format!("did not start: {reason}")));
        }
    }

    /// It says so, a probe does, or its time has come.
    pub(crate) fn on_ready(&mut self, number: u64) {
        let Some(generation) = self.generations.get_mut(&number) else { return };
        if let Some(waiting) = generation.waiting.take() {
            waiting.abort();
        }
        generation.ready_by = None;
        self.push(number, Event::Started);
    }

    fn tell_previous(&mut self, number: u64, event: Event) {
        let main = self.generations.get(&number).and_then(|g| self.slots[g.slot].main);
        if let Some(main) = main {
            self.push(main, event);
        }
    }

    fn tell_next(&mut self, number: u64, event: Event) {
        let next = self.generations.get(&number).and_then(|g| self.slots[g.slot].next);
        if let Some(next) = next {
            self.push(next, event);
        }
    }

    fn send_main(&mut self, number: u64, stop: bool) {
        self.tell_next(number, Event::Main { reload: false, stop });
        let Some(generation) = self.generations.get(&number) else { return };
        let next = self.slots[generation.slot].next;
        let rolling = self.rolling.as_ref();
        info!(
            message_id = events::HANDED_OVER,
            generation = number,
            handover_id = rolling.map(|r| r.handover_id.as_str()),
            old_pid = generation.child.pid,
            new_pid = next.and_then(|next| Some(self.generations.get(&next)?.child.pid)),
            handover_ms = rolling.map(|r| millis(r.began)),
            "handed over to generation {}",
            next.unwrap_or(0)
        );
        self.tell_step(What::HandedOver, number, None);
    }

    fn become_main(&mut self, number: u64) {
        let Some(generation) = self.generations.get_mut(&number) else { return };
        let slot = generation.slot;
        generation.main_since = Some(now());
        generation.ready_by = None;
        let reloads_again = generation.state() != State::Serving;
        let staged = std::mem::take(&mut generation.staged);
        let (came_with, went_back) = (generation.handover_id.is_some(), generation.went_back);
        let (pid, handover_id) = (generation.child.pid, generation.handover_id.clone());
        let old = self.slots[slot].main.replace(number);
        self.slots[slot].next = None;
        self.slots[slot].pause = None;
        self.slots[slot].stays_back &= went_back;
        if came_with {
            info!(
                message_id = events::MAIN,
                generation = number,
                handover_id,
                old_pid = old.and_then(|old| Some(self.generations.get(&old)?.child.pid)),
                new_pid = pid,
                "generation {number} is main"
            );
        }
        self.tell_step(What::Main, number, None);
        for said in staged {
            self.keep(said);
        }
        self.measure();
        if !reloads_again {
            self.slot_done(slot, Ok(()));
        }
        if self.rolling.is_none() && self.served {
            self.manager.tell(&Message::new().status(self.serves()));
        }
        self.all_ready();
    }

    pub(crate) fn measure(&self) {
        let draining = self.generations.values().filter(|g| g.drains_since.is_some()).count();
        self.drain.metrics().set_gauge(DRAINING, draining as f64);
        self.drain.metrics().set_gauge(GENERATION, self.newest_main().unwrap_or(0) as f64);
    }

    /// The first time that each worker has a main generation.
    fn all_ready(&mut self) {
        if !self.served && !self.stopping && self.slots.iter().all(|slot| slot.main.is_some()) {
            self.served = true;
            self.manager.tell(&Message::new().status(self.serves()).ready());
        }
    }

    fn tell_serves(&mut self, number: u64) {
        let Some(generation) = self.generations.get(&number) else { return };
        info!(
            message_id = events::SERVES,
            generation = number,
            new_pid = generation.child.pid,
            start_ms = millis(generation.began),
            "generation {number} serves{}",
            if generation.went_back { ", of the last version that was good" } else { "" }
        );
        self.tell_step(What::Serves, number, None);
    }

    fn begin_drain(&mut self, number: u64) {
        let (limit, signals) = (self.plan.settings.drain_timeout, self.plan.stop_signals.clone());
        let Some(generation) = self.generations.get_mut(&number) else { return };
        generation.drains_since = Some(now());
        // As with the library: the reload that it left by.
        if let Some(rolling) = &self.rolling {
            generation.handover_id = Some(rolling.handover_id.clone());
        }
        let (silently, state) = (generation.says_stopping, generation.state());
        generation.tell_to_go(&signals, now(), None, silently);
        info!(
            message_id = events::DRAIN_STARTED,
            generation = number,
            handover_id = self.rolling.as_ref().map(|r| r.handover_id.as_str()),
            old_pid = generation.child.pid,
            "generation {number} was told to go by {signals}, and drains within {limit:?}"
        );
        self.measure();
        self.tell_step(if state == State::Stopping { What::Stopping } else { What::Draining }, number, None);
        self.keep_drainers_in_bounds();
    }

    fn keep_drainers_in_bounds(&mut self) {
        let cap = self.plan.settings.max_draining.saturating_mul(self.slots.len());
        let draining: Vec<u64> =
            self.generations.values().filter(|g| g.state() == State::Draining).map(|g| g.number).collect();
        for number in draining.iter().take(draining.len().saturating_sub(cap)) {
            warn!(
                message_id = events::TOO_MANY_DRAIN,
                generation = number,
                "more than {cap} generations drain: hammering generation {number}"
            );
            self.push(*number, Event::Quit);
        }
    }

    fn hammer(&mut self, number: u64) {
        let Some(generation) = self.generations.get_mut(&number) else { return };
        let processes = generation.child.family.members().len();
        warn!(
            message_id = events::HAMMERED,
            generation = number,
            old_pid = generation.child.pid,
            drain_ms = generation.drains_since.map(millis),
            "hammered; processes of generation {number} that were killed: {processes}"
        );
        generation.kill();
        self.tell_step(What::Hammered, number, None);
    }

    fn end_next(&mut self, number: u64, grace: Duration) {
        let Some(slot) = self.generations.get(&number).map(|g| g.slot) else { return };
        if let Some(next) = self.slots[slot].next.take() {
            self.dismiss(next, grace);
        }
    }

    fn dismiss(&mut self, number: u64, grace: Duration) {
        let signals = self.plan.stop_signals.clone();
        let Some(generation) = self.generations.get_mut(&number) else { return };
        generation.dismissed = true;
        generation.ready_by = None;
        if let Some(waiting) = generation.waiting.take() {
            waiting.abort();
        }
        generation.tell_to_go(&signals, now(), Some(now() + grace), false);
        self.push(number, Event::Dismissed);
    }

    fn rolled_back(&mut self, number: u64, reason: &str) {
        let Some(generation) = self.generations.get(&number) else { return };
        let slot = generation.slot;
        let next = self.slots[slot].newest;
        error!(generation = number, "generation {next} {reason}; generation {number} serves on");
        self.slot_done(slot, Err(format!("generation {next} {reason}")));
    }

    fn answered(&mut self, number: u64, outcome: &Outcome) {
        let slot = self.generations.get(&number).map(|g| g.slot);
        // A handover is over when the other one is main; a rollback was told of already.
        if let (Some(slot), Outcome::Refused(why)) = (slot, outcome) {
            self.slot_done(slot, Err((*why).to_owned()));
        }
    }

    fn exited(&mut self, number: u64, end: &End) {
        let Some(generation) = self.generations.get(&number) else { return };
        match end {
            End::Done if generation.main_since.is_some() => info!(
                message_id = events::DRAINED,
                generation = number,
                handover_id = generation.handover_id,
                old_pid = generation.child.pid,
                drain_ms = generation.drains_since.map(millis),
                "generation {number} has drained and exits"
            ),
            End::Done | End::Hammered => {}
            End::Failed(why) => {
                info!(generation = number, "generation {number} is ended: {why}");
                self.dismiss(number, END_TIMEOUT);
            }
        }
        self.tell_step(What::Exits, number, None);
    }

    pub(crate) fn tell_stopping(&mut self) {
        if !std::mem::replace(&mut self.stop_told, true) {
            self.manager.tell(&Message::new().status("stopping").stopping());
            self.extend_at = Some(now());
        }
    }

    /// How far the reload has come, which the main generation knows.
    pub(crate) fn tell_progress(&mut self, number: u64, state: State) {
        let Some(generation) = self.generations.get(&number) else { return };
        let Some(next) = self.slots[generation.slot].next else { return };
        let new_pid = self.generations.get(&next).map(|g| g.child.pid);
        let (handover_id, ms) =
            self.rolling.as_ref().map(|r| (r.handover_id.as_str(), millis(r.began))).unwrap_or_default();
        let old_pid = generation.child.pid;
        match state {
            State::Reloading(Phase::Ready) => {
                info!(
                    message_id = events::READY,
                    generation = number,
                    handover_id,
                    old_pid,
                    new_pid,
                    ready_ms = ms,
                    "generation {next} is ready"
                );
                self.tell_step(What::Ready, number, None);
            }
            State::Reloading(Phase::Switched) => {
                info!(
                    message_id = events::SWITCHED,
                    generation = number,
                    handover_id,
                    old_pid,
                    new_pid,
                    switch_ms = ms,
                    "generation {next} accepts"
                );
                self.tell_step(What::Switched, number, None);
            }
            _ => {}
        }
    }
}
