//! What others ask for: requests, signals, and the status.

use tokio::sync::oneshot;
use tracing::{debug, info};

use crate::lifecycle::{Event, LifeState, RequestId};
use crate::reload::clock::millis;
use crate::reload::driver::Lifecycles;
use crate::reload::handle::ServiceRequest;
use crate::reload::hooks::{self, When};
use crate::reload::input::Input;
use crate::reload::inquiry::Holding;
use crate::reload::moment::{Facts, Moment};
use crate::reload::status::{ASK_TIMEOUT, Moves, Open, Status, StoreEntry};
use crate::service::own::OwnGeneration;
use crate::service::sockets::lock;
use crate::settings::KeepOnStop;
use crate::settings::signals::{Response, Signal};
use crate::systemd::follows;
use crate::wire::frame::Frame;

/// Requests, and signals.
impl OwnGeneration {
    pub(super) fn on_request(&mut self, lives: &mut Lifecycles, request: ServiceRequest) {
        match request {
            ServiceRequest::Reload(asker) => {
                let id = self.requests.add(Some(asker));
                self.reload(lives, id);
            }
            ServiceRequest::Stop => self.on_stop(lives, "stop"),
            ServiceRequest::Status(answer) => self.asked_for_status(lives, answer),
            ServiceRequest::Pause(at_most, answer) => _ = answer.send(self.pause(lives.state(self.number), at_most)),
            ServiceRequest::Resume(answer) => _ = answer.send(self.asked_to_resume(lives.state(self.number))),
            ServiceRequest::Alive(answer) => _ = answer.send(()),
        }
    }

    /// Stops never wait for a hook; everything else waits for those before a signal.
    pub(super) fn on_signal(&mut self, lives: &mut Lifecycles, signal: Signal, response: Response) {
        let before = self.about_signal(When::BeforeSignal, signal);
        match self.narrator.hooks().before_signal(before, response.is_urgent()) {
            None => self.respond(lives, signal, response),
            Some(done) => {
                let inputs = self.inputs.clone();
                self.tasks.spawn(async move {
                    done.await;
                    let _ = inputs.send(Input::SignalReady(signal, response));
                });
            }
        }
    }

    pub(super) fn respond(&mut self, lives: &mut Lifecycles, signal: Signal, response: Response) {
        let state = lives.state(self.number);
        let finishes = matches!(state, LifeState::Draining | LifeState::Leaving | LifeState::Stopping);
        match response {
            Response::Reload if state == LifeState::Draining => {
                debug!(generation = self.number, "{signal}: another generation is main by now");
            }
            Response::Reload => {
                let id = self.requests.add(None);
                self.reload(lives, id);
            }
            Response::Finish if finishes => {
                debug!(generation = self.number, "{signal}: what was accepted is being finished already");
            }
            Response::Stop | Response::Finish => self.on_stop(lives, &signal.to_string()),
            Response::Hammer => lives.push(self.number, Event::Quit),
            Response::HammerDrain => {
                self.on_drain_signal(signal, &Frame::Hammer);
                if finishes {
                    lives.push(self.number, Event::Quit);
                }
            }
            Response::HurryDrain => {
                self.on_drain_signal(signal, &Frame::Hurry);
                // The lifecycle knows a hurry only of a drain after a handover.
                if finishes {
                    self.drain.hurry();
                }
            }
            Response::Hooks => {}
        }
        self.responded.push(signal);
    }

    pub(super) fn about_signal(&self, when: When, signal: Signal) -> hooks::Event {
        hooks::Event { signal: Some(signal), ..hooks::Event::new(when, self.number) }
    }

    fn on_stop(&mut self, lives: &mut Lifecycles, cause: &str) {
        let detail = &format!("{cause}; connections open: {}", self.drain.active());
        self.narrator.tell(Moment::Stop, &Facts { detail, ..self.facts() });
        match self.keeps_connections(lives.state(self.number)) {
            // Another stop while it is asked: there is a hurry.
            Some(KeepOnStop::Ask) if !self.asking => {
                self.asking = true;
                let inputs = self.inputs.clone();
                self.tasks.spawn(async move { _ = inputs.send(Input::Follows(follows::ask().await)) });
                return;
            }
            Some(KeepOnStop::Always) => lives.push(self.number, Event::Restart),
            _ => lives.push(self.number, Event::Stop),
        }
        // They come to nothing, and are told so.
        self.release_reloads(lives);
    }

    /// Begins a reload, unless as many generations drain as may: one more would cut requests that
    /// the oldest has in hand. Then it waits until that one is gone, for some time.
    pub(super) fn reload(&mut self, lives: &mut Lifecycles, id: RequestId) {
        let (draining, wait) = (self.drainers.len(), self.settings.draining_wait);
        if lives.state(self.number) != LifeState::Serving || draining < self.settings.max_draining || wait.is_zero() {
            return lives.push(self.number, Event::Reload(id));
        }
        if self.requests.hold(id) {
            info!(generation = self.number, "the reload waits for one of {draining} generations that drain");
            let inputs = self.inputs.clone();
            self.tasks.spawn(async move {
                tokio::time::sleep(wait).await;
                let _ = inputs.send(Input::HeldLongEnough);
            });
        }
    }

    pub(super) fn release_reloads(&mut self, lives: &mut Lifecycles) {
        for id in self.requests.release() {
            lives.push(self.number, Event::Reload(id));
        }
    }

    fn on_drain_signal(&self, signal: Signal, frame: &Frame) {
        let drainers = self.drainers.len();
        info!(generation = self.number, "{signal}; older generations that drain: {drainers}");
        self.drainers.tell(frame);
    }
}

/// The status.
impl OwnGeneration {
    fn asked_for_status(&mut self, lives: &Lifecycles, answer: oneshot::Sender<Status>) {
        if !self.inquiry.add(answer) {
            return; // They are being asked already.
        }
        // Their answers are heard only while we are main.
        let is_main = self.narrator.history().main_since().is_some();
        if !is_main || self.drainers.tell(&Frame::Ask) == 0 {
            return self.answer_status(lives);
        }
        let inputs = self.inputs.clone();
        self.tasks.spawn(async move {
            tokio::time::sleep(ASK_TIMEOUT).await;
            let _ = inputs.send(Input::AskedLongEnough);
        });
    }

    pub(super) fn answer_status(&mut self, lives: &Lifecycles) {
        let waiting = self.inquiry.close();
        if waiting.is_empty() {
            return;
        }
        let status = self.status(lives.state(self.number));
        for answer in waiting {
            let _ = answer.send(status.clone());
        }
    }

    /// The main generation wants to know what we still hold.
    pub(super) fn tell_main(&self) {
        let Holding { connections, work, moved, stayed } = Holding::of(&self.drain);
        // If it cannot be told, nobody waits for long.
        let holds = Frame::Holds { generation: self.number, connections, work, moved, stayed };
        let _ = self.successor.send(&holds);
    }

    fn status(&self, state: LifeState) -> Status {
        let sockets = lock(&self.sockets);
        let history = self.narrator.history();
        Status {
            generation: self.number,
            pid: self.pid,
            state: state.name(),
            age_ms: millis(history.launched()),
            main_ms: history.main_since().filter(|_| state != LifeState::Draining).map(millis),
            connections: self.drain.active(),
            open: Open::all(&self.drain),
            moves: Moves::of(&self.drain),
            reloads: self.successor.attempts(),
            handover_id: self.facts().handover_id.as_deref().map(str::to_owned),
            draining: self.drainers.listed(&self.inquiry),
            sockets: sockets.listed(),
            store: StoreEntry::all(sockets.store()),
            reload_signals: self.signals.map.reloads(),
            reloads_in_place: self.narrator.hooks().is_in_place(),
            settings: self.settings.named().into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
            paused: self.paused(),
            past: history.past().to_vec(),
            failed_program: self.failed.as_ref().filter(|file| file.is_still_there()).map(Into::into),
            version: env!("CARGO_PKG_VERSION"),
            supervisor: None,
        }
    }
}
