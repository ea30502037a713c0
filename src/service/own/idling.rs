//! The end of a service that has nothing to do, whose sockets a service manager keeps: the next
//! client starts it again.

use tracing::warn;

use crate::drain::Idle;
use crate::lifecycle::{Event, LifeState};
use crate::reload::driver::Lifecycles;
use crate::reload::input::Input;
use crate::reload::moment::{Facts, Moment};
use crate::service::own::OwnGeneration;
use crate::service::sockets::lock;
use crate::settings::ExitOnIdle;

impl OwnGeneration {
    /// From now on this generation is main, and may end by itself.
    pub(super) fn watch_idleness(&mut self) {
        let ExitOnIdle::After(_) = self.settings.exit_on_idle else { return };
        if let Err(why) = self.may_exit() {
            return warn!(generation = self.number, "exit_on_idle has no effect: {why}");
        }
        self.wait_for_idleness();
    }

    /// Says why nobody would start the service again, or who would be refused until then.
    fn may_exit(&self) -> Result<(), String> {
        if !self.managed {
            return Err("no service manager would start the service again".into());
        }
        let sockets = lock(&self.sockets);
        let (passed, own) = sockets.by_whom(|name| self.drain.is_aside(name));
        match (passed.is_empty(), own.is_empty()) {
            (_, false) => Err(format!(
                "{} is bound by the service itself, and its clients would be refused: give it a .socket unit",
                own.join(", ")
            )),
            (true, true) => {
                Err("no socket comes from a .socket unit, so no client would start the service again".into())
            }
            (false, true) => Ok(()),
        }
    }

    fn wait_for_idleness(&mut self) {
        let ExitOnIdle::After(time) = self.settings.exit_on_idle else { return };
        let (idle, inputs) = (self.drain.idle_for(time), self.inputs.clone());
        self.tasks.spawn(async move { _ = inputs.send(Input::Idle(idle.await)) });
    }

    pub(super) fn on_idle(&mut self, lives: &mut Lifecycles, idle: Idle) {
        let state = lives.state(self.number);
        if !matches!(state, LifeState::Serving | LifeState::Reloading(_)) {
            return;
        }
        // A reload, a pause and generations that drain are work, too.
        let rests = state == LifeState::Serving && self.drainers.is_empty() && !self.pausing.is_on();
        if !rests || !self.drain.shut_if_idle(idle) {
            return self.wait_for_idleness();
        }
        let detail =
            &format!("has had nothing to do for {}: it exits until a client comes", self.settings.exit_on_idle);
        self.narrator.tell(Moment::Idle, &Facts { detail, ..self.facts() });
        lives.push(self.number, Event::Stop);
        self.release_reloads(lives);
    }
}
