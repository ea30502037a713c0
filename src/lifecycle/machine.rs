use std::time::{Duration, Instant};

use super::terms::{Action, Config, Event, LifeEnd, LifeState, ReloadAnswer, ReloadPhase, RequestId};

/// After taking the main role without the manager's confirmation, a stop within this time is taken
/// as the manager's restart, which waits for us: hurry.
const CONTESTED_FOR: Duration = Duration::from_secs(10);

/// One generation. Feed it events and the passing of time; do what it says.
#[derive(Debug)]
pub(crate) struct Machine {
    config: Config,
    state: LifeState,
    deadline: Option<Instant>,
    /// The requests that the running reload answers.
    current: Vec<RequestId>,
    /// The requests that came meanwhile: one more reload answers them all.
    pending: Vec<RequestId>,
    /// A stop that came while the main role was between two generations.
    stop_pending: bool,
    /// The previous generation died before it could hand over, and nobody tracks us.
    orphan: bool,
    /// A drain was told to hurry by a stop: the next stop is the hammer.
    hurried: bool,
    contested_until: Option<Instant>,
    /// We were told to stop while accepting and not main yet.
    stopped_on_trial: bool,
}

impl Machine {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            config,
            state: LifeState::Starting,
            deadline: None,
            current: Vec::new(),
            pending: Vec::new(),
            stop_pending: false,
            orphan: false,
            hurried: false,
            contested_until: None,
            stopped_on_trial: false,
        }
    }

    /// One that was in that state in another process, by the same events.
    #[cfg(feature = "supervise")]
    pub(crate) fn resumed(config: Config, state: LifeState, deadline: Option<Instant>) -> Self {
        Self { state, deadline: deadline.filter(|_| state != LifeState::Serving), ..Self::new(config) }
    }

    pub(crate) fn state(&self) -> LifeState {
        self.state
    }

    /// When [`Machine::timeout`] must be called, if nothing happens before.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// The next generation asks for more time to get ready.
    #[cfg(feature = "supervise")]
    pub(crate) fn extend(&mut self, until: Instant) {
        if self.state == LifeState::Reloading(ReloadPhase::Spawned) {
            self.deadline = self.deadline.map(|at| at.max(until));
        }
    }

    /// What is left in a drain waits so much longer until it is cut.
    pub(crate) fn postpone(&mut self, by: Duration) {
        if self.state == LifeState::Draining {
            self.deadline = self.deadline.map(|at| at + by);
        }
    }

    #[must_use]
    pub(crate) fn handle(&mut self, now: Instant, event: Event) -> Vec<Action> {
        let mut out = Vec::new();
        self.step(now, event, &mut out);
        out
    }

    /// The deadline of the present state has passed.
    #[must_use]
    pub(crate) fn timeout(&mut self, now: Instant) -> Vec<Action> {
        let mut out = Vec::new();
        if self.deadline.is_none_or(|at| now < at) {
            return out;
        }
        self.deadline = None;
        match self.state {
            LifeState::Reloading(ReloadPhase::Spawned) => {
                let reason = format!("was not ready within {:?}", self.config.ready_timeout);
                self.roll_back(now, reason, &mut out);
            }
            LifeState::Reloading(ReloadPhase::Ready | ReloadPhase::Switched) => {
                let reason = format!("did not confirm the switch within {:?}", self.config.switch_timeout);
                self.roll_back(now, reason, &mut out);
            }
            LifeState::Reloading(ReloadPhase::Probation) => self.hand_over(now, &mut out),
            LifeState::HandingOver => self.finish_handover(now, &mut out),
            LifeState::Standby => {
                self.exit(LifeEnd::Failed("the previous generation never told us to switch"), &mut out)
            }
            LifeState::Leaving => {
                out.extend([Action::ShutGate, Action::BeginDrain { linger: self.config.stop_linger }]);
                self.hammer(&mut out);
            }
            LifeState::Draining | LifeState::Stopping => self.hammer(&mut out),
            LifeState::Starting | LifeState::Trial | LifeState::Serving | LifeState::Exited => {}
        }
        out
    }

    fn step(&mut self, now: Instant, event: Event, out: &mut Vec<Action>) {
        use LifeState::{
            Draining, Exited, HandingOver, Leaving, Reloading, Serving, Standby, Starting, Stopping, Trial,
        };
        match (self.state, event) {
            // Reload requests: run, queue, or refuse; never forget.
            (Serving, Event::Reload(id)) => {
                self.pending.push(id);
                self.reload(now, out);
            }
            (Starting | Standby | Trial | Reloading(_) | HandingOver, Event::Reload(id)) => self.pending.push(id),
            (Draining, Event::Reload(id)) => {
                out.push(Action::Answer(vec![id], ReloadAnswer::Refused("another generation is main by now")));
            }
            (Leaving | Stopping | Exited, Event::Reload(id)) => {
                out.push(Action::Answer(vec![id], ReloadAnswer::Refused("the service is stopping")));
            }

            // Stop: TERM once is "finish", twice is "now".
            (Starting | Standby, Event::Stop | Event::Quit) => self.exit(LifeEnd::Failed("told to stop"), out),
            (Trial, Event::Stop) => {
                self.stopped_on_trial = true;
                self.drain(now, Draining, self.config.stop_linger, out);
            }
            (Serving | Reloading(_), Event::Restart) if !self.is_contested(now) => self.restart(now, out),
            (Serving | Reloading(_), Event::Stop | Event::Restart) => self.stop(now, out),
            (HandingOver, Event::Stop | Event::Restart) => self.stop_pending = true,
            (Leaving, Event::Settled) => {
                out.extend([Action::ShutGate, Action::BeginDrain { linger: self.config.stop_linger }]);
                self.state = Stopping;
            }
            (Leaving, Event::Stop | Event::Quit) => {
                out.extend([Action::ShutGate, Action::BeginDrain { linger: self.config.stop_linger }]);
                self.hammer(out);
            }
            (Stopping, Event::Kept) => {
                out.push(Action::Hurry);
                self.shorten(now + self.config.hurry_timeout);
            }
            (Draining, Event::Stop) if !self.hurried => {
                self.hurried = true;
                out.push(Action::Hurry);
            }
            (Draining | Stopping, Event::Stop | Event::Quit) => self.hammer(out),
            (Serving | Reloading(_), Event::Quit) => {
                self.stop(now, out);
                self.hammer(out);
            }
            (Trial | HandingOver, Event::Quit) => self.hammer(out),

            // The first generation, or one whose predecessor died before it could hand over.
            (Starting, Event::Started) if !self.config.successor || self.orphan => {
                out.extend([Action::OpenGate, Action::TellReady]);
                self.become_main(now, out);
            }
            // A successor.
            (Starting, Event::Started) => {
                out.push(Action::SayReady);
                self.enter(Standby, Some(now + self.config.standby_timeout));
            }
            (Standby, Event::Switch) => {
                out.extend([Action::OpenGate, Action::SaySwitched]);
                self.enter(Trial, None);
            }
            (Standby | Trial, Event::Main { reload, stop }) => {
                if self.state == Standby {
                    out.push(Action::OpenGate);
                }
                self.crowned(now, reload, stop, out);
            }
            // We were told to stop while not main yet, and are main now: the stop is the service's.
            (Draining, Event::Main { .. }) if self.stopped_on_trial => {
                out.push(Action::TellStopping);
                self.state = Stopping;
            }
            (Starting | Standby, Event::Dismissed) => {
                self.exit(LifeEnd::Failed("dismissed by the previous generation"), out)
            }
            (Trial, Event::Dismissed) => self.drain(now, Draining, self.config.stop_linger, out),
            // Died before the switch. A manager restarts the whole service, and waits for us: go.
            // Without one, take over.
            (Starting | Standby, Event::PredecessorGone) if self.config.managed => {
                self.exit(LifeEnd::Failed("the previous generation died before it handed over"), out);
            }
            (Starting, Event::PredecessorGone) => self.orphan = true,
            (Standby, Event::PredecessorGone) => {
                out.push(Action::OpenGate);
                self.reclaim(now, out);
                self.become_main(now, out);
            }
            // Died after the switch: it may or may not have named us main, and we hold clients.
            // Serve; if the manager does not know us as main, it stops the unit, and we hurry then.
            (Trial, Event::PredecessorGone) => {
                self.reclaim(now, out);
                self.become_main(now, out);
            }

            // The main generation, reloading.
            (Reloading(ReloadPhase::Spawned), Event::NextReady) => {
                out.push(Action::SendSwitch);
                self.enter(Reloading(ReloadPhase::Ready), Some(now + self.config.switch_timeout));
            }
            (Reloading(ReloadPhase::Spawned), Event::ReloadedInPlace) => {
                out.push(Action::TellReloadedInPlace);
                out.push(Action::Answer(std::mem::take(&mut self.current), ReloadAnswer::InPlace));
                self.enter(Serving, None);
                self.next_reload(now, out);
            }
            (Reloading(ReloadPhase::Ready), Event::NextSwitched) => {
                out.push(Action::ShutGate);
                self.enter(Reloading(ReloadPhase::Switched), Some(now + self.config.switch_timeout));
            }
            (Reloading(ReloadPhase::Switched), Event::GateShut) if self.config.probation.is_zero() => {
                self.hand_over(now, out)
            }
            (Reloading(ReloadPhase::Switched), Event::GateShut) => {
                self.enter(Reloading(ReloadPhase::Probation), Some(now + self.config.probation));
            }
            (Reloading(_), Event::NextFailed(reason)) => self.roll_back(now, reason, out),
            (HandingOver, Event::Barrier) => self.finish_handover(now, out),
            // It died after we may have named it main. If the manager knew, it restarts the unit
            // and stops us; if it did not, we still are main. Accept meanwhile in both cases.
            (HandingOver, Event::NextFailed(reason)) => {
                out.push(Action::OpenGate);
                self.reclaim(now, out);
                self.fail_reload(now, reason, out);
            }

            // The end.
            (Draining, Event::Hurry) => out.push(Action::Hurry),
            (Draining, Event::SuccessorGone | Event::NextFailed(_)) => {
                out.push(Action::Hurry);
                self.shorten(now + self.config.hurry_timeout);
            }
            (Draining | Stopping, Event::Drained) => self.exit(LifeEnd::Done, out),

            // All else comes late, twice, or is meaningless in this state: decided, and nothing.
            (_, _) => {}
        }
    }

    fn enter(&mut self, state: LifeState, deadline: Option<Instant>) {
        self.state = state;
        self.deadline = deadline;
    }

    fn become_main(&mut self, now: Instant, out: &mut Vec<Action>) {
        out.push(Action::BecomeMain);
        self.enter(LifeState::Serving, None);
        self.next_reload(now, out);
    }

    fn crowned(&mut self, now: Instant, reload: bool, stop: bool, out: &mut Vec<Action>) {
        if stop {
            out.push(Action::BecomeMain);
            self.stop(now, out);
            return;
        }
        if reload && self.pending.is_empty() {
            // The asker got its answer ("passed on") from the previous generation; nobody waits for
            // this one.
            out.push(Action::BecomeMain);
            self.enter(LifeState::Serving, None);
            self.reload(now, out);
        } else {
            self.become_main(now, out);
        }
    }

    fn reclaim(&mut self, now: Instant, out: &mut Vec<Action>) {
        out.push(Action::TellReclaim);
        // Without a manager nobody restarts us.
        self.contested_until = self.config.managed.then(|| now + CONTESTED_FOR);
    }

    fn next_reload(&mut self, now: Instant, out: &mut Vec<Action>) {
        if !self.pending.is_empty() {
            self.reload(now, out);
        }
    }

    fn reload(&mut self, now: Instant, out: &mut Vec<Action>) {
        self.current = std::mem::take(&mut self.pending);
        self.contested_until = None;
        out.extend([Action::TellReloading, Action::Spawn]);
        self.enter(LifeState::Reloading(ReloadPhase::Spawned), Some(now + self.config.ready_timeout));
    }

    fn roll_back(&mut self, now: Instant, reason: String, out: &mut Vec<Action>) {
        if matches!(self.state, LifeState::Reloading(ReloadPhase::Switched | ReloadPhase::Probation)) {
            out.push(Action::OpenGate);
        }
        out.push(Action::EndNext { grace: self.end_grace() });
        out.push(Action::TellRolledBack(reason.clone()));
        self.fail_reload(now, reason, out);
    }

    fn fail_reload(&mut self, now: Instant, reason: String, out: &mut Vec<Action>) {
        out.push(Action::Answer(std::mem::take(&mut self.current), ReloadAnswer::RolledBack(reason)));
        self.enter(LifeState::Serving, None);
        if std::mem::take(&mut self.stop_pending) {
            self.stop(now, out);
        } else {
            self.next_reload(now, out);
        }
    }

    fn hand_over(&mut self, now: Instant, out: &mut Vec<Action>) {
        out.push(Action::TellHandover);
        self.enter(LifeState::HandingOver, Some(now + self.config.handover_timeout));
    }

    fn finish_handover(&mut self, now: Instant, out: &mut Vec<Action>) {
        let reload = !self.pending.is_empty();
        out.push(Action::SendMain { reload, stop: self.stop_pending });
        out.push(Action::Answer(std::mem::take(&mut self.current), ReloadAnswer::HandedOver));
        if reload {
            out.push(Action::Answer(std::mem::take(&mut self.pending), ReloadAnswer::PassedOn));
        }
        self.drain(now, LifeState::Draining, self.config.linger, out);
    }

    /// The service stops, by this generation's hand.
    fn stop(&mut self, now: Instant, out: &mut Vec<Action>) {
        self.begin_to_stop(out);
        self.drain(now, LifeState::Stopping, self.config.stop_linger, out);
        if self.is_contested(now) {
            out.push(Action::Hurry);
            self.shorten(now + self.config.hurry_timeout);
        }
    }

    /// The service stops, and its clients shall not notice: one that is idle waits only once
    /// nothing else has to be waited for.
    fn restart(&mut self, now: Instant, out: &mut Vec<Action>) {
        if matches!(self.state, LifeState::Reloading(ReloadPhase::Switched | ReloadPhase::Probation)) {
            out.push(Action::OpenGate);
        }
        self.begin_to_stop(out);
        out.push(Action::Settle);
        self.enter(LifeState::Leaving, Some(now + self.config.drain_timeout));
    }

    fn begin_to_stop(&mut self, out: &mut Vec<Action>) {
        if let LifeState::Reloading(_) = self.state {
            out.push(Action::EndNext { grace: self.end_grace() });
        }
        self.refuse_all("the service is stopping", out);
        out.push(Action::TellStopping);
    }

    fn is_contested(&self, now: Instant) -> bool {
        self.contested_until.is_some_and(|until| now < until)
    }

    fn drain(&mut self, now: Instant, state: LifeState, linger: Duration, out: &mut Vec<Action>) {
        self.refuse_all("another generation is main by now", out);
        out.extend([Action::ShutGate, Action::BeginDrain { linger }]);
        self.enter(state, Some(now + self.config.drain_timeout));
    }

    fn hammer(&mut self, out: &mut Vec<Action>) {
        out.push(Action::Hammer);
        self.exit(LifeEnd::Hammered, out);
    }

    fn exit(&mut self, end: LifeEnd, out: &mut Vec<Action>) {
        self.refuse_all("the service is stopping", out);
        out.push(Action::Exit(end));
        self.enter(LifeState::Exited, None);
    }

    fn refuse_all(&mut self, why: &'static str, out: &mut Vec<Action>) {
        let mut ids = std::mem::take(&mut self.current);
        ids.append(&mut self.pending);
        if !ids.is_empty() {
            out.push(Action::Answer(ids, ReloadAnswer::Refused(why)));
        }
    }

    fn shorten(&mut self, to: Instant) {
        self.deadline = Some(self.deadline.map_or(to, |at| at.min(to)));
    }

    /// Before the switch the next generation holds no client; after it, it is let to finish what it
    /// accepted.
    fn end_grace(&self) -> Duration {
        match self.state {
            LifeState::Reloading(ReloadPhase::Spawned) => self.config.end_timeout,
            _ => self.config.drain_timeout + self.config.end_timeout,
        }
    }
}
