//! Looking after the files and the ticket keys, on a thread of its own: reading files and saving states block, and a runtime
//! would wait for them when it ends.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use super::pair::{self, Age, Files, Stamp};
use super::{Inner, lock};
use crate::drain::Phase;
use crate::error::{Error, Kind, Result};

/// Files are read when they have not changed for this long: a pair is written one file after the other.
const SETTLED: Duration = Duration::from_secs(1);
/// They are read anyway after so many looks.
const SETTLING: usize = 10;
/// Ticket keys are looked at that often, if nothing else asks for it more often.
const TICKETS: Duration = Duration::from_secs(60);

pub(super) fn start(inner: &Arc<Inner>, end: Receiver<()>, poll: Option<Duration>) -> Result<()> {
    let poll = poll.filter(|_| inner.files.is_some());
    let weak = Arc::downgrade(inner);
    let started = thread::Builder::new().name("handover-tls".into()).spawn(move || run(&weak, &end, poll));
    started.map(drop).map_err(|e| Error::os("no thread can be started to look after the certificate", e))
}

fn run(inner: &Weak<Inner>, end: &Receiver<()>, poll: Option<Duration>) {
    let interval = poll.unwrap_or(TICKETS).min(TICKETS);
    let mut due = poll.unwrap_or(Duration::MAX);
    loop {
        if end.recv_timeout(interval) == Err(RecvTimeoutError::Disconnected) {
            return;
        }
        let Some(inner) = inner.upgrade() else { return };
        if inner.is_over() {
            continue;
        }
        if let Some(tickets) = &inner.tickets {
            if tickets.advance(pair::now()).is_err() {
                tracing::warn!("no random numbers for the next key of session tickets (getrandom)");
            }
            inner.save_tickets();
        }
        due = due.saturating_sub(interval);
        if due.is_zero()
            && let Some(poll) = poll
        {
            due = poll;
            inner.look(poll);
        }
    }
}

impl Inner {
    /// Reads the files again. `log`: also that they are refused.
    pub(super) fn renew(&self, log: bool) -> Result<bool> {
        let Some(files) = &self.files else {
            let why = "the certificate was not read from files, so it cannot be read again: see replace_pem";
            return Err(Error::new(Kind::State, why));
        };
        let mut seen = lock(&self.seen);
        let (stamp, pem) = files.read();
        match pem.and_then(|pem| self.judge.judge(&pem)) {
            Ok(pair) => {
                (seen.loaded, seen.refused) = (Some(stamp), None);
                let left = pair.not_after.map(|not_after| Age(not_after.saturating_sub(pair::now())));
                let changed = self.serving.replace(pair);
                if changed {
                    let left = left.map_or_else(String::new, |left| format!(", valid for {left} more"));
                    tracing::info!("the TLS certificate was replaced: {}{left}", files.chain.display());
                }
                Ok(changed)
            }
            Err(error) => {
                seen.refused = Some(stamp);
                if log {
                    tracing::warn!("the new TLS certificate is refused, the one before serves on: {error}");
                }
                Err(error)
            }
        }
    }

    /// Reads the files if others are there now than those that were loaded.
    fn look(&self, poll: Duration) {
        let Some(files) = &self.files else { return };
        let stamp = files.stamp();
        let known = {
            let seen = lock(&self.seen);
            if seen.loaded.as_ref() == Some(&stamp) {
                return;
            }
            // Tried again each time, for what is not in the files: a clock, a directory's permissions. Told once.
            seen.refused.as_ref() == Some(&stamp)
        };
        if !known {
            settle(files, stamp, poll.min(SETTLED));
        }
        let _ = self.renew(!known);
    }

    pub(super) fn save_tickets(&self) {
        let (Some(tickets), Some(share)) = (&self.tickets, &*lock(&self.share)) else { return };
        if !tickets.take_unshared() {
            return;
        }
        match share.save(&tickets.keys()) {
            Ok(()) => self.unsaved.store(false, Relaxed),
            Err(error) => {
                tickets.set_unshared();
                // In a generation that does not serve yet, or no longer: nothing is wrong with that.
                if !error.is_state() && !self.unsaved.swap(true, Relaxed) {
                    tracing::warn!(%error, "the keys of session tickets are not kept over a crash");
                }
            }
        }
    }

    fn is_over(&self) -> bool {
        let drains = lock(&self.drains);
        !drains.is_empty() && drains.iter().all(|drain| drain.phase() != Phase::Open)
    }
}

fn settle(files: &Files, mut stamp: Stamp, pause: Duration) {
    for _ in 0..SETTLING {
        thread::sleep(pause);
        let now = files.stamp();
        if now == stamp {
            return;
        }
        stamp = now;
    }
}
