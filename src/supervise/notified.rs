//! What generations say by sd_notify(3), each with the rights that it has.
//!
//! | who | may say |
//! |---|---|
//! | the main one | `STATUS`, `WATCHDOG`, `EXTEND_TIMEOUT_USEC`, `FDSTORE`, `FDSTOREREMOVE`, `STOPPING`, `BARRIER` |
//! | the next one | `READY`, `STATUS`, `EXTEND_TIMEOUT_USEC`; what it stores counts when it is main |
//! | one that drains | `BARRIER` |
//!
//! `MAINPID`, `RELOADING` and `NOTIFYACCESS` are nobody's: who is main is the supervisor's to say.

use std::io;
use std::time::Duration;

use tracing::{debug, warn};

use crate::lifecycle::State;
use crate::service::clock::now;
use crate::supervise::builder::Senders;
use crate::supervise::driver::{Driver, Happening};
use crate::supervise::letters::{Said, read};
use crate::supervise::ready::Ready;
use crate::sys::mailbox::Letter;
use crate::systemd::notify::Message;
use crate::wire::notify::{store, store_remove};

/// Of a status text, so much is kept.
const STATUS_KEPT: usize = 300;
/// A next generation can keep so many things for when it is main.
const MAX_STAGED: usize = 256;

impl Driver {
    pub(crate) fn on_letter(&mut self, letter: io::Result<Letter>) {
        let letter = match letter {
            Ok(letter) => letter,
            Err(error) => return debug!(%error, "a notification cannot be read"),
        };
        let Some(number) = letter.pid.and_then(|pid| self.sender(pid)) else {
            self.strangers += 1;
            if self.strangers.is_power_of_two() {
                let pid = letter.pid;
                warn!(
                    pid,
                    "notifications of processes that may not send any are ignored (--notify-access): {}",
                    self.strangers
                );
            }
            return;
        };
        for said in read(&letter.bytes, letter.fds) {
            self.on_said(number, said);
        }
    }

    fn sender(&self, pid: u32) -> Option<u64> {
        let own = self.generations.values().find(|g| g.child.pid == pid && !g.ended);
        let any = || self.generations.values().find(|g| self.plan.senders == Senders::All && g.child.family.has(pid));
        own.or_else(any).map(|g| g.number)
    }

    fn on_said(&mut self, number: u64, said: Said) {
        let served = self.served;
        let Some(generation) = self.generations.get_mut(&number) else { return };
        let (main, state) = (generation.is_main(), generation.state());
        let coming = matches!(state, State::Starting | State::Standby | State::Trial);
        match said {
            Said::Ready if state == State::Starting && self.plan.ready == Ready::Notify => {
                let _ = self.happenings.send(Happening::Ready(number));
            }
            Said::Status(text) => {
                let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c });
                generation.status = Some(clean.take(STATUS_KEPT).collect());
                if main && self.rolling.is_none() {
                    self.manager.tell_if_room(&Message::new().status(self.serves()));
                } else if !served {
                    let text =
                        format!("generation {number} starts: {}", text.chars().take(STATUS_KEPT).collect::<String>());
                    self.manager.tell_if_room(&Message::new().status(text));
                }
            }
            Said::Watchdog if generation.watchdog.is_some() => generation.pinged = Some(now()),
            Said::Unhealthy if main => self.abort(number, "said WATCHDOG=trigger"),
            Said::WatchdogEvery(every) => {
                let on = !every.is_zero() && every != Duration::from_micros(u64::MAX);
                generation.watchdog = on.then_some(every);
                generation.pinged = on.then(now);
            }
            Said::Extend(by) => self.extend(number, by),
            Said::Store { .. } | Said::Unstore(_) if main => self.keep(said),
            Said::Store { .. } | Said::Unstore(_) if coming && generation.staged.len() < MAX_STAGED => {
                generation.staged.push(said);
            }
            Said::Stopping if main => generation.says_stopping = true,
            // What came with it is closed here: all that was sent before has been read.
            Said::Barrier => {}
            Said::Refused(field) => debug!(generation = number, "{field} is not for a program to say, and ignored"),
            other => debug!(generation = number, ?state, ?other, "means nothing now"),
        }
    }

    /// For as long as a generation gets ready, its own time; else that of whatever the service manager waits for.
    fn extend(&mut self, number: u64, by: Duration) {
        let Some(generation) = self.generations.get_mut(&number) else { return };
        let (until, slot) = (now() + by.min(crate::drain::FAR), generation.slot);
        match generation.state() {
            State::Starting => {
                if let Some(ready_by) = &mut generation.ready_by {
                    *ready_by = until.max(*ready_by);
                }
                let main = self.slots[slot].main.and_then(|main| self.generations.get_mut(&main));
                if let Some(main) = main {
                    main.machine.extend(until);
                }
            }
            State::Serving | State::Reloading(_) | State::Stopping => {}
            _ => return,
        }
        self.manager.tell_if_room(&Message::new().extend_timeout(by));
    }

    /// In the store of the service manager, which outlives us, and in ours, for the generations to come.
    pub(crate) fn keep(&mut self, said: Said) {
        match said {
            Said::Store { name, poll, fds } => {
                let copies: io::Result<Vec<_>> = fds.iter().map(|fd| fd.try_clone()).collect();
                match copies {
                    Ok(copies) => self.manager.pass_if_room(store(&name, poll).into_bytes(), copies),
                    Err(error) => warn!(%error, "{name:?} cannot be stored"),
                }
                self.estate.store(&name, poll, fds);
            }
            Said::Unstore(name) => {
                self.estate.unstore(&name);
                self.manager.pass_if_room(store_remove(&name).into_bytes(), Vec::new());
            }
            _ => {}
        }
    }
}
