//! A reload of the whole service: of its one worker, or of one after the other.

use std::collections::{BTreeSet, VecDeque};
use std::time::Instant;

use tokio::sync::oneshot;
use tracing::{error, info, warn};

use crate::error::{Error, Kind, Result};
use crate::lifecycle::Event;
use crate::service::Reloaded;
use crate::service::actions::handover_id;
use crate::service::clock::{millis, now};
use crate::service::events;
use crate::service::steps::What;
use crate::supervise::driver::Driver;
use crate::supervise::image::Image;
use crate::systemd::notify::{Message, monotonic_usec};

/// Who waits for the outcome.
pub(crate) type Asker = oneshot::Sender<Result<Reloaded>>;

/// A reload that is running.
#[derive(Debug)]
pub(crate) struct Rolling {
    pub(crate) handover_id: String,
    pub(crate) began: Instant,
    asked: Vec<Asker>,
    left: VecDeque<usize>,
    running: BTreeSet<usize>,
    done: Vec<usize>,
    failed: Option<String>,
    /// The version to start, if it is not the one at the path: the workers that were replaced go back.
    pub(crate) image: Option<Image>,
    /// What the workers were before.
    before: Option<Image>,
}

impl Driver {
    /// A request during a reload is answered by one more.
    pub(crate) fn ask_for_reload(&mut self, asker: Option<Asker>) {
        if self.stopping {
            if let Some(asker) = asker {
                let _ = asker.send(Err(Error::new(Kind::State, "no reload: the service is stopping")));
            }
            return;
        }
        self.pending.extend(asker);
        self.wanted = true;
    }

    /// Called when nothing else is left to do.
    pub(crate) fn begin_reload(&mut self) {
        if !self.wanted || self.rolling.is_some() || !self.served || self.stopping {
            return;
        }
        self.wanted = false;
        self.reloads += 1;
        let asked = std::mem::take(&mut self.pending);
        let main = self.slots.iter().filter_map(|slot| slot.main).max();
        let before = main.and_then(|main| self.generations.get(&main)?.child.image.clone());
        let handover_id = handover_id();
        info!(
            message_id = events::RELOAD_STARTED,
            generation = main,
            handover_id,
            old_pid = main.and_then(|main| Some(self.generations.get(&main)?.child.pid)),
            "reload: starting generation {} from {}",
            self.last_number + 1,
            self.plan.recipe.program.display()
        );
        let text = format!("{}; starting generation {}", self.serves(), self.last_number + 1);
        self.manager.tell(&Message::new().status(text).reloading(monotonic_usec()));
        self.rolling = Some(Rolling {
            handover_id,
            began: now(),
            asked,
            left: (0..self.slots.len()).collect(),
            running: BTreeSet::new(),
            done: Vec::new(),
            failed: None,
            image: None,
            before,
        });
        self.roll_on();
    }

    /// As many workers at a time as may be.
    fn roll_on(&mut self) {
        loop {
            let at_a_time = self.plan.at_a_time;
            let Some(rolling) = &mut self.rolling else { return };
            if rolling.failed.is_some() || rolling.running.len() >= at_a_time {
                break;
            }
            let Some(slot) = rolling.left.pop_front() else { break };
            rolling.running.insert(slot);
            match (self.slots[slot].main, self.slots[slot].next) {
                (Some(main), _) => {
                    self.requests += 1;
                    self.push(main, Event::Reload(self.requests));
                }
                // It is being started anew just now, perhaps from the old file: what it becomes is not what was asked for.
                (None, Some(next)) => {
                    self.requests += 1;
                    self.push(next, Event::Reload(self.requests));
                }
                (None, None) => self.restart(slot, true),
            }
        }
        let over =
            self.rolling.as_ref().is_some_and(|r| r.running.is_empty() && (r.left.is_empty() || r.failed.is_some()));
        if over {
            self.end_reload();
        }
    }

    /// One worker has a new main generation, or has failed to get one.
    pub(crate) fn slot_done(&mut self, slot: usize, outcome: Result<(), String>) {
        let Some(rolling) = &mut self.rolling else { return };
        if !rolling.running.remove(&slot) {
            return;
        }
        match outcome {
            Ok(()) => rolling.done.push(slot),
            Err(reason) => rolling.failed = Some(rolling.failed.take().unwrap_or(reason)),
        }
        self.roll_on();
    }

    pub(crate) fn is_rolling(&self, slot: usize) -> bool {
        self.rolling.as_ref().is_some_and(|rolling| rolling.running.contains(&slot))
    }

    fn end_reload(&mut self) {
        let Some(mut rolling) = self.rolling.take() else { return };
        if let (Some(reason), None, false) = (&rolling.failed, &rolling.image, rolling.done.is_empty()) {
            // Some workers are of the new version, and one of them failed: none shall stay.
            let count = rolling.done.len();
            match rolling.before.clone().filter(Image::is_intact) {
                Some(before) => {
                    warn!(handover_id = %rolling.handover_id, "reload failed: {reason}; {count} workers go back");
                    rolling.failed = Some(format!("{reason}; {count} workers that were replaced went back"));
                    rolling.left = std::mem::take(&mut rolling.done).into();
                    let reason = rolling.failed.take();
                    self.rolling = Some(Rolling { image: Some(before), ..rolling });
                    self.going_back = reason;
                    return self.roll_on();
                }
                None => {
                    let stay = format!("{reason}; {count} workers stay on the new version, the old one is not kept");
                    rolling.failed = Some(stay);
                }
            }
        }
        let failed = self.going_back.take().or(rolling.failed);
        let generation = self.slots.iter().filter_map(|slot| slot.main).max();
        let pid = generation.and_then(|main| Some(self.generations.get(&main)?.child.pid));
        let mut text = self.serves();
        match &failed {
            None => self.drain.metrics().reload("handed_over"),
            Some(reason) => {
                text = format!("{text}; reload failed: {reason}");
                error!(
                    message_id = events::RELOAD_FAILED,
                    generation,
                    handover_id = %rolling.handover_id,
                    old_pid = pid,
                    reload_ms = millis(rolling.began),
                    reason,
                    "reload failed: {reason}; {} on", self.serves()
                );
                self.drain.metrics().reload("rolled_back");
                self.tell_step(What::RolledBack, generation.unwrap_or(0), Some(reason));
            }
        }
        self.remember(&rolling.handover_id, millis(rolling.began), failed.as_deref());
        self.manager.tell(&Message::new().status(text).ready());
        for asker in rolling.asked {
            let outcome = match &failed {
                None => Ok(Reloaded::HandedOver { generation: generation.unwrap_or(0), pid: pid.unwrap_or(0) }),
                Some(reason) => Err(Error::new(Kind::Generation, format!("reload failed: {reason}"))),
            };
            let _ = asker.send(outcome);
        }
    }

    /// The service stops: whoever waits is told.
    pub(crate) fn refuse_reloads(&mut self) {
        let rolling = self.rolling.take();
        let asked = rolling.into_iter().flat_map(|rolling| rolling.asked).chain(self.pending.drain(..));
        for asker in asked.collect::<Vec<_>>() {
            let _ = asker.send(Err(Error::new(Kind::State, "no reload: the service is stopping")));
        }
        self.wanted = false;
    }
}
