//! A pause: nothing new is taken for some time, and clients wait.
//!
//! It belongs to the service, and not to a generation: in a reload the next one is started in it.
//! What the old one keeps waiting until then it finishes when it hears that the pause is over.

use std::time::{Duration, Instant};

use tokio::task::AbortHandle;

use crate::drain::Phase;
use crate::error::{Error, Kind, Result};
use crate::lifecycle::LifeState;
use crate::metrics::PAUSED;
use crate::reload::clock::{millis, now};
use crate::reload::input::Input;
use crate::reload::moment::{Facts, Moment};
use crate::reload::status::{MAX_WORK, Paused};
use crate::service::own::OwnGeneration;
use crate::settings::MAX_PAUSE;
use crate::settings::duration::show;
use crate::systemd::notify::Message;
use crate::wire::frame::{Frame, PauseLeft};

/// Whether there is a pause.
#[derive(Debug, Default)]
pub(super) struct Pausing {
    /// So many there were: what is heard of another one comes too late.
    number: u64,
    current: Option<Pause>,
}

#[derive(Debug)]
struct Pause {
    since: Instant,
    until: Instant,
    /// Nothing is in hand in this generation.
    own_at_rest: bool,
    told_at_rest: bool,
    /// The attempt of a reload whose generation keeps the pause.
    kept_by: Option<u64>,
    waits: [AbortHandle; 2],
}

impl Pausing {
    /// Returns after how long it ends by itself.
    pub(super) fn left(&self) -> Duration {
        self.current.as_ref().map_or(Duration::ZERO, |pause| pause.until.saturating_duration_since(now()))
    }

    pub(super) fn is_on(&self) -> bool {
        self.current.is_some()
    }

    pub(super) fn to_wire(&self) -> Option<PauseLeft> {
        let pause = self.current.as_ref()?;
        let left_ms = u64::try_from(self.left().as_millis()).unwrap_or(u64::MAX);
        Some(PauseLeft { since_ms: millis(pause.since), left_ms })
    }

    /// The next generation says that it keeps the pause.
    pub(super) fn is_kept(&mut self, attempt: u64) {
        if let Some(pause) = &mut self.current {
            pause.kept_by = Some(attempt);
        }
    }

    /// Returns whether the next generation may accept: it keeps the pause, or there is none.
    pub(super) fn may_go_on(&self, attempt: u64) -> bool {
        self.current.as_ref().is_none_or(|pause| pause.kept_by == Some(attempt))
    }
}

impl OwnGeneration {
    /// What it does as long as nothing happens.
    pub(super) fn serves(&self) -> String {
        match &self.pausing.current {
            Some(pause) => {
                let at_most = show(pause.until.saturating_duration_since(pause.since));
                format!("generation {} is paused, for {at_most} at most", self.number)
            }
            None => format!("generation {} serves", self.number),
        }
    }

    pub(super) fn pause(&mut self, state: LifeState, at_most: Duration) -> Result<()> {
        let refused = |why: &str| Err(Error::new(Kind::State, format!("cannot pause: {why}")));
        if at_most.is_zero() || at_most > MAX_PAUSE {
            let why = format!("a pause of {} cannot be: write a time up to {}", show(at_most), show(MAX_PAUSE));
            return Err(Error::new(Kind::Invalid, why));
        }
        match state {
            LifeState::Serving => {}
            LifeState::Reloading(_) | LifeState::HandingOver => return refused("a reload is under way"),
            LifeState::Starting | LifeState::Standby | LifeState::Trial => return refused("it is not main yet"),
            LifeState::Draining => return refused("another generation is main by now"),
            LifeState::Leaving | LifeState::Stopping | LifeState::Exited => return refused("the service is stopping"),
        }
        if self.pausing.is_on() && !self.drainers.is_empty() {
            // They were told of its end, and would be heard of before it.
            return refused("it is paused already, and older generations wait for the end of that");
        }
        let since = self.pausing.current.as_ref().map_or_else(now, |pause| pause.since);
        self.begin_pause(since, at_most);
        let detail = &format!(
            "is paused, for {} at most: clients wait; in hand: {}",
            show(at_most),
            self.drain.in_hand_now(0).count
        );
        let status = self.narrator.tell(Moment::Paused, &Facts { detail, ..self.facts() });
        self.outbox.send(&Message::new().status(status));
        Ok(())
    }

    /// Keeps the pause that the previous generation is in.
    pub(super) fn keep_pause(&mut self, pause: Option<PauseLeft>) {
        if let Some(PauseLeft { since_ms, left_ms }) = pause {
            let since = now().checked_sub(Duration::from_millis(since_ms)).unwrap_or_else(now);
            self.begin_pause(since, Duration::from_millis(left_ms).min(MAX_PAUSE));
        }
    }

    fn begin_pause(&mut self, since: Instant, left: Duration) {
        self.stop_waiting();
        self.drain.pause();
        self.pausing.number += 1;
        let (number, at_rest) = (self.pausing.number, self.drain.at_rest());
        let [first, second] = [self.inputs.clone(), self.inputs.clone()];
        let waits = [
            self.tasks.spawn(async move {
                at_rest.await;
                let _ = first.send(Input::AtRest(number));
            }),
            self.tasks.spawn(async move {
                tokio::time::sleep(left).await;
                let _ = second.send(Input::PausedLongEnough(number));
            }),
        ];
        let until = now() + left;
        let pause = Pause { since, until, own_at_rest: false, told_at_rest: false, kept_by: None, waits };
        self.pausing.current = Some(pause);
        self.narrator.metrics().set_gauge(PAUSED, 1.0);
    }

    fn stop_waiting(&mut self) {
        if let Some(pause) = self.pausing.current.take() {
            pause.waits.iter().for_each(AbortHandle::abort);
        }
    }

    /// To the previous generation, before it is told that we are ready.
    pub(super) fn say_paused(&self) {
        if self.pausing.is_on() {
            self.say(&Frame::Paused);
        }
    }

    pub(super) fn on_at_rest(&mut self, number: u64) {
        if let Some(pause) = self.pausing.current.as_mut().filter(|_| number == self.pausing.number) {
            pause.own_at_rest = true;
        }
        self.tell_at_rest();
    }

    /// Once, when the older generations have nothing in hand either: they are gone.
    pub(super) fn tell_at_rest(&mut self) {
        let Some(pause) = &mut self.pausing.current else { return };
        if !pause.own_at_rest || !self.drainers.is_empty() || std::mem::replace(&mut pause.told_at_rest, true) {
            return;
        }
        let detail = "has nothing in hand any more, and is paused";
        let _ = self.narrator.tell(Moment::AtRest, &Facts { detail, ..self.facts() });
    }

    pub(super) fn on_paused_long_enough(&mut self, number: u64) {
        if number == self.pausing.number {
            self.end_pause("nobody has ended its pause in time");
        }
    }

    pub(super) fn asked_to_resume(&mut self, state: LifeState) -> Result<()> {
        if state == LifeState::Draining {
            return Err(Error::new(Kind::State, "cannot resume: another generation is main by now"));
        }
        self.end_pause("it was told to");
        Ok(())
    }

    /// Serves again, and so does every other generation.
    pub(super) fn end_pause(&mut self, why: &str) {
        let Some(since) = self.pausing.current.as_ref().map(|pause| pause.since) else { return };
        self.stop_waiting();
        self.drain.resume();
        self.drainers.tell(&Frame::Resume);
        // There may be no next one, or one that has heard of it.
        let _ = self.successor.send(&Frame::Resume);
        self.narrator.metrics().set_gauge(PAUSED, 0.0);
        if self.drain.phase() != Phase::Open && self.successor.pid().is_some() {
            return; // The next generation tells.
        }
        let tenths = millis(since) / 100 * 100;
        let reason = &*format!("{why}, after a pause of {}", show(Duration::from_millis(tenths)));
        let status = self.narrator.tell(Moment::PauseOver, &Facts { reason: Some(reason), ..self.facts() });
        let is_main = self.narrator.history().main_since().is_some() && !self.stopping;
        if is_main {
            self.outbox.send(&Message::new().status(status));
        }
    }

    pub(super) fn paused(&self) -> Option<Paused> {
        let pause = self.pausing.current.as_ref()?;
        let in_hand = self.drain.in_hand_now(MAX_WORK);
        Some(Paused {
            since_ms: millis(pause.since),
            left_ms: u64::try_from(self.pausing.left().as_millis()).unwrap_or(u64::MAX),
            at_rest: pause.told_at_rest,
            in_hand: in_hand.count,
            work: in_hand.work,
        })
    }
}
