//! Looking after the files and the ticket keys, on a thread of its own: reading files and saving
//! states block, and a runtime would wait for them when it ends.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use super::inner::{TlsShared, lock, no_random};
use super::pair::{self, Age, Files, Stamp};
use crate::drain::{FAR, Phase};
use crate::error::{Error, Kind, Result};

/// Files are read when they have not changed for this long: a pair is written one file after the
/// other.
const SETTLED: Duration = Duration::from_secs(1);
/// They are read anyway after so many looks.
const SETTLING: usize = 10;
/// Ticket keys are compared with the shared ones that often; four times in a rotation, if that is
/// more often.
const TICKETS: Duration = Duration::from_secs(60);

pub(super) fn start(inner: &Arc<TlsShared>, end: Receiver<()>, poll: Option<Duration>) -> Result<()> {
    let poll = poll.filter(|_| inner.files.is_some()).map(|every| every.min(FAR));
    let tickets = inner.tickets.as_ref().map(|tickets| TICKETS.min(tickets.rotation() / 4));
    if poll.is_none() && tickets.is_none() {
        return Ok(());
    }
    let weak = Arc::downgrade(inner);
    let watcher = move || run(&weak, &end, &[(tickets, TlsShared::look_at_tickets), (poll, TlsShared::look_at_files)]);
    let started = thread::Builder::new().name("handover-tls".into()).spawn(watcher);
    started.map(drop).map_err(|e| Error::os("no thread can be started to look after the certificate", e))
}

type Duty = (Option<Duration>, fn(&TlsShared, Duration));

fn run(inner: &Weak<TlsShared>, end: &Receiver<()>, duties: &[Duty]) {
    let first = Instant::now();
    let on = duties.iter().filter_map(|(every, duty)| Some(((*every)?, duty)));
    let mut due: Vec<_> = on.map(|(every, duty)| (first + every, every, duty)).collect();
    while let Some(next) = due.iter_mut().min_by_key(|(at, ..)| *at) {
        let (at, every, duty) = next;
        if end.recv_timeout(at.saturating_duration_since(Instant::now())) == Err(RecvTimeoutError::Disconnected) {
            return;
        }
        let Some(inner) = inner.upgrade() else { return };
        if !inner.is_over() {
            duty(&inner, *every);
        }
        *at = Instant::now() + *every;
    }
}

impl TlsShared {
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
    fn look_at_files(&self, poll: Duration) {
        let Some(files) = &self.files else { return };
        let stamp = files.stamp();
        let known = {
            let seen = lock(&self.seen);
            if seen.loaded.as_ref() == Some(&stamp) {
                return;
            }
            // Tried again each time, for what is not in the files: a clock, a directory's
            // permissions. It is logged once.
            seen.refused.as_ref() == Some(&stamp)
        };
        if !known {
            settle(files, stamp, poll.min(SETTLED));
        }
        let _ = self.renew(!known);
    }

    fn look_at_tickets(&self, _: Duration) {
        match self.share_tickets() {
            Ok(()) => self.unshared.store(false, Relaxed),
            // A generation that does not serve yet, or no longer, or a newer one's form: nothing is
            // wrong with that.
            Err(error) if error.is_state() => {}
            Err(error) => {
                if !self.unshared.swap(true, Relaxed) {
                    tracing::warn!(%error, "the keys of session tickets are not shared with other generations");
                }
            }
        }
    }

    /// Makes new keys in time, and with the other generations.
    pub(super) fn share_tickets(&self) -> Result<()> {
        let Some(tickets) = &self.tickets else { return Ok(()) };
        let now = pair::now();
        let Some(share) = self.share() else { return tickets.advance(now).map_err(|_| no_random()) };
        let shared = share.blocking_try_update(|shared| match tickets.meet(shared, now) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Ok(())), // nothing to write
            Err(_) => Err(Err(no_random())),
        });
        match shared {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(unchanged)) => unchanged,
            Err(error) => {
                let _ = tickets.advance(now);
                Err(error)
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
