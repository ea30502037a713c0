//! What the lifecycles ask for, handed to the part whose job it is; and what follows when a process
//! starts, ends or fails.

use std::time::Duration;

use tracing::{error, info, warn};

use crate::lifecycle::{Action, Event, LifeEnd, LifeState, Machine, ReloadAnswer};
use crate::reload::clock::now;
use crate::reload::drainers::{Bound, bound};
use crate::reload::driver::Lifecycles;
use crate::reload::extend;
use crate::reload::moment::{Facts, Moment};
use crate::reload::recovery;
use crate::settings::END_TIMEOUT;
use crate::supervise::crash::{CRASH_LOOP, Restart};
use crate::supervise::generation::ProgramGeneration;
use crate::supervise::image::Image;
use crate::supervise::supervision::Supervision;
use crate::supervise::terms::OnCrash;
use crate::sys::pidfd::Ended;
use crate::systemd::notify::Message;

impl Supervision {
    pub(super) fn carry_out(&mut self, lives: &mut Lifecycles, number: u64, action: Action) {
        match action {
            Action::Spawn => self.spawn_next(lives, number),
            Action::SayReady => self.tell_main(lives, number, Event::NextReady),
            Action::SaySwitched => self.tell_main(lives, number, Event::NextSwitched),
            Action::SendSwitch => self.tell_next(lives, number, Event::Switch),
            Action::SendMain { stop, .. } => {
                self.tell_next(lives, number, Event::Main { reload: false, stop });
                self.tell_since_asked(Moment::HandedOver, number);
            }
            // The sockets are shared, and a program that knows nothing of gates has none: it
            // accepts as soon as it can, and until it is told to go.
            Action::ShutGate => lives.push(number, Event::GateShut),
            // The main process stays the same: there is nothing that the service manager would have
            // to confirm.
            Action::TellHandover => lives.push(number, Event::Barrier),
            Action::BecomeMain => self.become_main(lives, number),
            Action::BeginDrain { .. } => self.begin_drain(lives, number),
            Action::Hammer => self.hammer(number),
            Action::EndNext { grace } => {
                if let Some(next) = self.workers.take_next(number) {
                    self.dismiss(lives, next, grace);
                }
            }
            Action::TellRolledBack(reason) => {
                let reason = format!("generation {} {reason}", self.workers.newest_beside(number));
                error!(generation = number, "{reason}; generation {number} serves on");
                self.replaced(lives, number, Err(reason));
            }
            Action::TellStopping => self.tell_stopping(),
            // What its processes have open is theirs.
            Action::Settle => lives.push(number, Event::Settled),
            Action::TellReady => {
                let Some(generation) = self.workers.get(number) else { return };
                let detail = if generation.went_back { ", of the last version that was good" } else { "" };
                let (since, facts) = (Some(generation.began), self.facts(number));
                let (new_pid, reload_signal) = (Some(facts.pid), Some("SIGHUP".into()));
                let facts = Facts { since, detail, new_pid, reload_signal, ..facts };
                self.narrator.tell(Moment::Serves, &facts);
            }
            Action::TellReclaim => _ = self.narrator.tell(Moment::Reclaimed, &Facts::said(number, "")),
            Action::Answer(_, ReloadAnswer::Refused(why)) => self.replaced(lives, number, Err(why.to_owned())),
            Action::Exit(end) => self.exited(lives, number, &end),
            // The gate is always open. The reload of the service is told of by the whole of it. A
            // generation was told to go when the drain began, and knows no other word. A handover
            // is over when the other one is main; a rollback was told of already.
            Action::OpenGate
            | Action::TellReloading
            | Action::TellReloadedInPlace
            | Action::Hurry
            | Action::Answer(..) => {}
        }
    }

    /// Tells a moment whose duration counts from the request to reload.
    pub(super) fn tell_since_asked(&mut self, moment: Moment, number: u64) {
        let facts = Facts { since: self.reloads.began(), ..self.facts(number) };
        self.narrator.tell(moment, &facts);
    }

    fn tell_main(&self, lives: &mut Lifecycles, number: u64, event: Event) {
        if let Some(main) = self.workers.main_beside(number) {
            lives.push(main.number, event);
        }
    }

    fn tell_next(&self, lives: &mut Lifecycles, number: u64, event: Event) {
        if let Some(next) = self.workers.next_beside(number) {
            lives.push(next.number, event);
        }
    }

    fn dismiss(&mut self, lives: &mut Lifecycles, number: u64, grace: Duration) {
        let Some(generation) = self.workers.get_mut(number) else { return };
        generation.dismiss(&self.terms.stop_signals, grace);
        lives.push(number, Event::Dismissed);
    }
}

/// The start of a generation, and its way to be main.
impl Supervision {
    /// Starts a generation. With a predecessor it waits for it; without, it is main as soon as it
    /// is ready.
    pub(super) fn launch(
        &mut self,
        lives: &mut Lifecycles,
        slot: usize,
        image: Option<&Image>,
        successor: bool,
    ) -> Result<(), String> {
        let number = self.workers.number_next(slot);
        let items = self.inheritance.for_generation().map_err(|e| e.to_string())?;
        let main = self.workers.main(slot).map(|main| (main.number, main.pid()));
        let before = main.map(|(_, pid)| pid);
        self.inbox.expect(true);
        let process = self.recipe.start(number, &items, image, before).map_err(|e| e.to_string())?;
        let (pidfd, family) = (process.pidfd.try_clone(), process.family.clone());
        // Nobody restarts a generation but us: it is never too late for it to take over.
        lives.insert(number, Machine::new(self.settings.machine(false, successor)));
        let handover_id = self.reloads.handover_id().filter(|_| self.reloads.replaces(slot));
        let mut generation = ProgramGeneration::new(number, slot, process, self.recipe.watchdog);
        generation.handover_id.clone_from(&handover_id);
        generation.went_back = image.is_some();
        generation.ready_by = (!successor).then(|| now() + self.settings.ready_timeout);
        if pidfd.is_ok() {
            generation.waiting = self.watches.until_ready(number, family, &self.terms.ready, self.probe.as_ref());
        }
        self.workers.started(generation);
        // A step of the reload is the previous generation's.
        let teller = main.filter(|_| successor).map_or(number, |(main, _)| main);
        let old_pid = before.filter(|_| successor);
        let facts = Facts { handover_id, old_pid, since: self.reloads.began(), ..self.facts(teller) };
        self.narrator.tell(Moment::Spawned, &facts);
        match pidfd {
            Ok(pidfd) => self.watches.until_ended(number, pidfd),
            Err(error) => self.on_failed(lives, number, format!("cannot be watched: {error}")),
        }
        Ok(())
    }

    fn spawn_next(&mut self, lives: &mut Lifecycles, number: u64) {
        let Some(slot) = self.workers.slot_of(number) else { return };
        self.narrator.tell(Moment::Reloading, &self.facts(number));
        let image = self.reloads.image();
        if let Err(reason) = self.launch(lives, slot, image.as_ref(), true) {
            lives.push(number, Event::NextFailed(format!("did not start: {reason}")));
        }
    }

    fn become_main(&mut self, lives: &mut Lifecycles, number: u64) {
        let Some(generation) = self.workers.get_mut(number) else { return };
        let (slot, went_back) = (generation.slot, generation.went_back);
        let handover_id = generation.handover_id.clone();
        let staged = generation.becomes_main();
        let old_pid = self.workers.crown(slot, number);
        self.crashes.serves(slot, went_back);
        let moment = if handover_id.is_some() { Moment::Main } else { Moment::FirstMain };
        let facts = self.facts(number);
        let handover_id = handover_id.or_else(|| facts.handover_id.clone());
        self.narrator.tell(moment, &Facts { handover_id, old_pid, new_pid: Some(facts.pid), ..facts });
        for notification in staged {
            self.keep(notification);
        }
        self.measure();
        // Otherwise it reloads again: it was started before that was asked for.
        if lives.state(number) == LifeState::Serving {
            self.replaced(lives, number, Ok(()));
        }
        if !self.served && !self.stopping && self.workers.all_serve() {
            self.served = true;
            self.outbox.send(&Message::new().status(self.serves()).ready());
            self.watches.run(recovery::forget_restarts(self.outbox.sender(), self.terms.good_after));
        } else if self.served && !self.reloads.is_running() {
            self.outbox.send(&Message::new().status(self.serves()));
        }
    }
}

/// The end of a generation.
impl Supervision {
    fn begin_drain(&mut self, lives: &mut Lifecycles, number: u64) {
        let Some(generation) = self.workers.get_mut(number) else { return };
        let (limit, signals) = (self.settings.drain_timeout, &self.terms.stop_signals);
        // Nobody else serves any more when all stop.
        let pause = if self.stopping { Duration::ZERO } else { self.terms.drain_delay };
        generation.drain(signals, pause, self.reloads.handover_id());
        let told = if pause.is_zero() { "was told to go" } else { "serves on" };
        let pause = if pause.is_zero() { String::new() } else { format!(" for {pause:?}, is then told to go") };
        let detail = &format!("{told}{pause} by {signals}, and drains within {limit:?}");
        let facts = self.facts(number);
        self.narrator.tell(Moment::DrainStarted, &Facts { new_pid: None, detail, ..facts.clone() });
        self.measure();
        let stops = lives.state(number) == LifeState::Stopping;
        self.narrator.tell(if stops { Moment::Stopping } else { Moment::Draining }, &facts);
        let cap = self.settings.max_draining.saturating_mul(self.workers.count());
        let draining = self.workers.all().rev().filter(|of| lives.state(of.number) == LifeState::Draining);
        let draining = draining.enumerate().filter(|(younger, _)| bound(*younger, cap) == Bound::Hammer);
        let too_many: Vec<u64> = draining.map(|(_, of)| of.number).collect();
        for number in too_many.into_iter().rev() {
            self.narrator.tell(Moment::TooManyDrain, &Facts::said(number, &cap.to_string()));
            lives.push(number, Event::Quit);
        }
    }

    fn hammer(&mut self, number: u64) {
        let Some(generation) = self.workers.get_mut(number) else { return };
        let processes = generation.process.family.members().len();
        generation.kill();
        let since = generation.drains_since;
        let detail = &format!("processes of generation {number} that were killed: {processes}");
        let facts = Facts { since, detail, ..self.facts(number) };
        self.narrator.tell(Moment::Hammered, &facts);
    }

    fn exited(&mut self, lives: &mut Lifecycles, number: u64, end: &LifeEnd) {
        let Some(generation) = self.workers.get(number) else { return };
        let facts = self.facts(number);
        match end {
            LifeEnd::Done if generation.main_since.is_some() => {
                let (handover_id, since) = (generation.handover_id.clone(), generation.drains_since);
                let drained = Facts { handover_id, since, new_pid: None, ..facts.clone() };
                self.narrator.tell(Moment::Drained, &drained);
            }
            LifeEnd::Done | LifeEnd::Hammered => {}
            LifeEnd::Failed(why) => {
                info!(generation = number, "generation {number} is ended: {why}");
                self.dismiss(lives, number, END_TIMEOUT);
            }
        }
        self.narrator.tell(Moment::Exits, &facts);
    }

    pub(super) fn tell_stopping(&mut self) {
        if std::mem::replace(&mut self.stop_told, true) {
            return;
        }
        self.reload_is_over();
        self.outbox.send(&Message::new().status("stopping").stopping());
        // After the drain timeout comes the end of what was killed.
        let limit = self.settings.drain_timeout + 3 * END_TIMEOUT;
        self.watches.run(extend::while_stopping(self.outbox.sender(), limit));
    }

    /// Its first process has ended. The others of it are being ended.
    pub(super) fn has_ended(&mut self, lives: &mut Lifecycles, number: u64, how: Ended) {
        let Some(generation) = self.workers.get_mut(number) else { return };
        generation.has_ended();
        let (pid, says_stopping) = (generation.pid(), generation.says_stopping);
        match lives.state(number) {
            _ if generation.dismissed => {
                let detail = &how.to_string();
                self.narrator.tell(Moment::NextEnded, &Facts { new_pid: Some(pid), ..Facts::said(number, detail) });
            }
            // When the last of its processes is gone, so is what it had accepted.
            LifeState::Draining | LifeState::Leaving | LifeState::Stopping | LifeState::Exited => {}
            LifeState::Starting | LifeState::Standby | LifeState::Trial => {
                self.on_failed(lives, number, self.ended_early(how));
            }
            _ if says_stopping && how == Ended::Exited(0) => {
                info!(generation = number, "generation {number} has stopped by itself: so does the service");
                self.stop_all(lives, &Event::Stop);
            }
            LifeState::Serving | LifeState::Reloading(_) | LifeState::HandingOver => self.crashed(lives, number, how),
        }
        let Some(generation) = self.workers.get(number) else { return };
        let grace = if generation.killed { Duration::ZERO } else { END_TIMEOUT };
        self.watches.end(number, generation.process.family.clone(), grace);
    }
}

/// Crashes, and what follows.
impl Supervision {
    /// It never came to be main.
    pub(super) fn on_failed(&mut self, lives: &mut Lifecycles, number: u64, reason: String) {
        if let Some(main) = self.workers.main_beside(number) {
            return lives.push(main.number, Event::NextFailed(reason));
        }
        let Some(generation) = self.workers.get_mut(number) else { return };
        generation.dismissed = true;
        generation.kill();
        let slot = generation.slot;
        self.workers.take_next(number);
        self.start_failed(lives, slot, number, &reason);
    }

    fn crashed(&mut self, lives: &mut Lifecycles, number: u64, how: Ended) {
        let Some(generation) = self.workers.get(number) else { return };
        let (slot, since) = (generation.slot, generation.main_since);
        let served = since.map(|since| now().saturating_duration_since(since)).unwrap_or_default();
        let (how, detail) = (&how.to_string(), &format!("{how} after {served:.1?}, which nobody told it to"));
        let facts = Facts { since, detail, reason: Some(how), ..self.facts(number) };
        self.narrator.tell(Moment::Crashed, &facts);
        self.crashes.crashed(slot, Some(served));
        let next = self.workers.lose_main(slot);
        if self.terms.on_crash == OnCrash::Exit {
            self.failed = Some(format!("generation {number} {how}"));
            return self.stop_all(lives, &Event::Stop);
        }
        let Some(next) = next.and_then(|next| self.workers.get_mut(next)) else {
            return self.pause(slot, number, how);
        };
        // It is on its way already, and starts as if it were the first, or accepts already. The
        // reload is its own from now on, so nothing of it must come from the one that is dead.
        lives.remove(number);
        next.ready_by = Some(now() + self.settings.ready_timeout);
        lives.push(next.number, Event::PredecessorGone);
    }

    /// No generation was there to fall back to.
    fn start_failed(&mut self, lives: &mut Lifecycles, slot: usize, number: u64, reason: &str) {
        let why = format!("generation {number} {reason}");
        if !self.served {
            self.narrator.tell(Moment::Failed, &Facts::said(number, reason));
            self.failed = Some(why);
            return self.stop_all(lives, &Event::Stop);
        }
        let detail = &format!("{reason}, and no other serves");
        let facts = Facts { old_pid: None, detail, reason: Some(reason), ..self.facts(number) };
        self.narrator.tell(Moment::Crashed, &facts);
        self.crashes.crashed(slot, None);
        self.slot_done(lives, slot, Err(why));
        self.pause(slot, number, reason);
    }

    fn pause(&mut self, slot: usize, number: u64, why: &str) {
        if self.stopping {
            return;
        }
        let pause = self.crashes.pause(slot, now());
        let waits = if pause.is_zero() { "at once".to_owned() } else { format!("in {pause:?}") };
        let text = format!("generation {number} {why}; the next one is started {waits}, connections wait");
        self.outbox.send(&Message::new().status(text));
        if !pause.is_zero() {
            warn!(generation = number, "the next generation is started {waits}; connections wait in the backlog");
        }
    }

    /// Gives a process to a worker that has none: of the last good version after a loop of crashes,
    /// unless a reload `asked`.
    pub(super) fn restart(&mut self, lives: &mut Lifecycles, slot: usize, asked: bool) {
        let (relation, good) = self.workers.last_good(slot);
        let restart = self.crashes.restart(slot, asked, relation);
        match restart {
            Restart::GoesBack => {
                let detail = &format!("{CRASH_LOOP} crashes in a row: going back to the last version that was good");
                self.narrator.tell(Moment::WentBack, &Facts::said(0, detail));
            }
            Restart::NothingGood => warn!(
                "{CRASH_LOOP} crashes in a row, and no version to go back to: none served for {:?}, or it is a script",
                self.terms.good_after
            ),
            Restart::LastGood | Restart::FromPath => {}
        }
        let image = good.filter(|_| matches!(restart, Restart::LastGood | Restart::GoesBack));
        if let Err(reason) = self.launch(lives, slot, image.as_ref(), false) {
            let number = self.workers.last_number();
            self.start_failed(lives, slot, number, &format!("did not start: {reason}"));
        }
    }
}
