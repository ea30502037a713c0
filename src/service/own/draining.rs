//! The drain of this process, and its last words.

use std::time::Duration;

use crate::drain::moving::Keep;
use crate::lifecycle::{Event, LifeEnd, LifeState};
use crate::metrics::DRAIN_SECONDS;
use crate::reload::clock::now;
use crate::reload::driver::Lifecycles;
use crate::reload::extend;
use crate::reload::input::Input;
use crate::reload::moment::{Facts, Moment};
use crate::service::own::OwnGeneration;
use crate::service::sockets::lock;
use crate::systemd::notify::Message;
use crate::wire::frame::Frame;

/// Most connections that the hammer names, one a line; of more it gives the number.
const MAX_CUT_LINES: usize = 100;

/// The drain, and its end.
impl OwnGeneration {
    pub(super) fn begin_drain(&mut self, state: LifeState, linger: Duration) {
        if let (LifeState::Stopping, Some(until)) = (state, self.keeping) {
            let store = lock(&self.sockets).store().clone();
            self.drain.keep_in(Keep { store, generation: self.number, until });
        }
        self.leave_insurance(state);
        self.drain.begin(linger);
        let (limit, open) = (self.settings.drain_timeout, self.drain.active());
        let detail = &format!("drains within {limit:?}, connections open: {open}");
        self.narrator.tell(Moment::DrainStarted, &Facts { detail, ..self.facts() });
        self.began = now();
        if state == LifeState::Draining {
            if self.successor.pid().is_some() {
                lock(&self.sockets).leave();
            }
            self.narrator.tell(Moment::Draining, &self.facts());
            self.drainers.leave();
            self.watch_pressure();
        } else {
            self.ask_for_time();
            // Who is kept for the next start waits until it is there; the others are answered.
            if self.keeping.is_none() {
                self.end_pause("it stops");
            }
        }
        let (moved, inputs) = (self.drain.all_moved(), self.inputs.clone());
        self.tasks.spawn(async move {
            moved.await;
            let _ = inputs.send(Input::AllMoved);
        });
        let (drained, inputs) = (self.drain.drained(), self.inputs.clone());
        self.tasks.spawn(async move {
            drained.await;
            let _ = inputs.send(Input::OwnDrainDone);
        });
    }

    /// Until the end of the drain, once.
    pub(super) fn ask_for_time(&mut self) {
        if !std::mem::replace(&mut self.asks_for_time, true) {
            self.tasks.spawn(extend::while_stopping(self.outbox.sender(), self.settings.drain_timeout));
        }
    }

    /// A stop is over only when the older generations are gone too: our exit makes systemd hurry
    /// them.
    pub(super) fn all_drained(&self, lives: &mut Lifecycles) {
        let waits_for_drainers = lives.state(self.number) == LifeState::Stopping && !self.drainers.is_empty();
        if self.drained && !waits_for_drainers {
            lives.push(self.number, Event::Drained);
        }
    }

    pub(super) fn hammer(&mut self) {
        let cut: Vec<String> = self.drain.hammer().iter().map(ToString::to_string).collect();
        for what in cut.iter().take(MAX_CUT_LINES) {
            Moment::Cut.log(&Facts { detail: what, ..self.facts() });
        }
        if let Some(more @ 1..) = cut.len().checked_sub(MAX_CUT_LINES) {
            tracing::warn!(generation = self.number, "cut {more} more like these");
        }
        let detail = &format!("connections cut: {}", cut.len());
        let facts = Facts { since: Some(self.began), cut: &cut, detail, ..self.facts() };
        self.narrator.tell(Moment::Hammered, &facts);
        self.drainers.tell(&Frame::Hammer);
        // Programs of jobs get SIGTERM, and time for it.
        let grace = self.jobs.programs_end_within();
        if !self.successor.is_running() && !grace.is_zero() {
            self.outbox.send(&Message::new().extend_timeout(grace + Duration::from_secs(1)));
        }
    }

    pub(super) fn exit(&mut self, end: LifeEnd) {
        if self.successor.pid().is_some() {
            self.narrator.metrics().pass_time(DRAIN_SECONDS, now().saturating_duration_since(self.began));
            self.send_counts();
        }
        if self.stopping {
            lock(&self.sockets).remove_paths();
        }
        self.end_insurance();
        self.tell_moved();
        match &end {
            LifeEnd::Done => {
                let facts = Facts { since: Some(self.began), ..self.facts() };
                self.narrator.tell(Moment::Drained, &facts);
            }
            LifeEnd::Hammered => {}
            LifeEnd::Failed(why) => {
                let detail = &format!("exits: {why}");
                self.narrator.tell(Moment::Failed, &Facts { detail, ..self.facts() });
            }
        }
        self.narrator.tell(Moment::Exits, &self.facts());
        self.end = Some(end);
    }
}
