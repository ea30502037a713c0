//! The next generation, and what it says.

use std::os::fd::OwnedFd;

use tracing::debug;

use crate::error::Result;
use crate::generation::Next;
use crate::lifecycle::Event;
use crate::reload::driver::Lifecycles;
use crate::reload::moment::{Facts, Moment};
use crate::reload::successor::Start;
use crate::service::own::OwnGeneration;
use crate::systemd::fdstore::{Snapshot, Transfer};
use crate::wire::frame::Frame;

impl OwnGeneration {
    pub(super) fn next_failed(&self, lives: &mut Lifecycles, reason: impl Into<String>) {
        lives.push(self.number, Event::NextFailed(reason.into()));
    }

    pub(super) fn on_spawned(&mut self, lives: &mut Lifecycles, attempt: u64, started: Result<(Next, Snapshot)>) {
        let (next, snapshot) = match started {
            Ok((next, snapshot)) => (Ok(next), snapshot),
            Err(error) => {
                // That program was not started, and a crash would start another one.
                if error.is_state() && self.successor.is_current(attempt) {
                    self.suspect = None;
                }
                (Err(error), Snapshot::default())
            }
        };
        match self.successor.started(attempt, next) {
            Start::Running => {
                self.custody.spawned(snapshot);
                let facts = Facts { since: self.successor.began(), ..self.facts() };
                self.narrator.tell(Moment::Spawned, &facts);
            }
            Start::Failed(reason) => self.next_failed(lives, reason),
            Start::TooLate => {}
        }
    }

    pub(super) fn on_frame(&mut self, lives: &mut Lifecycles, attempt: u64, frame: Frame, fds: Vec<OwnedFd>) {
        match frame {
            Frame::Started { version } => {
                debug!(version, "the next generation has started");
                self.successor.has_started();
            }
            Frame::Entries { names } => {
                if let Err(error) = self.custody.add(names, fds) {
                    self.next_failed(lives, format!("cannot be understood: {error}"));
                }
            }
            Frame::Paused => self.pausing.is_kept(attempt),
            Frame::Takes { names, records } => self.successor.takes(records, names),
            Frame::Ready if !self.pausing.may_go_on(attempt) => {
                let why =
                    "has a version of handover that knows nothing of a pause, and would serve: end the pause first";
                self.next_failed(lives, why);
            }
            Frame::Ready => {
                if let Some(transfer) = self.custody.prepare(attempt) {
                    self.on_prepared(lives, attempt, transfer);
                }
            }
            Frame::Switched => lives.push(self.number, Event::NextSwitched),
            other => debug!(?other, "a frame that means nothing here"),
        }
    }

    pub(super) fn on_prepared(&mut self, lives: &mut Lifecycles, attempt: u64, transfer: Result<Transfer>) {
        if !self.successor.is_current(attempt) {
            return self.custody.lend_too_late(transfer, self.successor.is_running());
        }
        match self.custody.lend(transfer) {
            Ok(changes) => {
                self.successor.prepare(changes);
                lives.push(self.number, Event::NextReady);
            }
            Err(error) => self.next_failed(lives, format!("could not be given the fd store: {error}")),
        }
    }
}
