//! What the lifecycle asks for, done. The only place where a decision becomes an effect.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant as Tick, interval};
use tracing::{error, info, warn};

use crate::error::{Error, Kind, Result};
use crate::generation::{Estate, Origin};
use crate::lifecycle::{Action, Event, Outcome, RequestId, State};
use crate::service::clock::{millis, now};
use crate::service::driver::{Coming, Draining, Driver, Input, Reload};
use crate::service::handle::Reloaded;
use crate::service::hooks::When;
use crate::service::keeper::restore;
use crate::service::settings::END_TIMEOUT;
use crate::service::steps::What;
use crate::service::{events, lock, watch, watchdog};
use crate::sys::spawn::Parent;
use crate::systemd::fdstore::Snapshot;
use crate::systemd::notify::{Message, monotonic_usec};
use crate::wire::frame::{Drainer, Frame, Hello};

/// While the service stops and still drains, the manager is asked for this much more time, again and again…
const EXTEND_BY: Duration = Duration::from_secs(10);
/// …this often, until the drain timeout.
const EXTEND_EVERY: Duration = Duration::from_secs(5);

/// Whoever is third from the cap is told to hurry, so that it has only requests in flight left when it is hammered.
const HURRY_BEFORE_CAP: usize = 2;

impl Driver {
    pub(crate) fn perform(&mut self, action: Action) {
        match action {
            Action::TellReady => {
                info!(
                    message_id = events::SERVES,
                    generation = self.generation,
                    new_pid = self.pid,
                    start_ms = millis(self.began),
                    "generation {} serves",
                    self.generation
                );
                self.outbox.send(Message::new().status(self.serves()).ready());
                self.fire(When::Ready, |_| {});
                self.tell(What::Serves);
            }
            Action::TellReloading => {
                let text = match self.hooks.is_in_place() {
                    true => format!("{}; reloading", self.serves()),
                    false => format!("{}; starting generation {}", self.serves(), self.generation + 1),
                };
                self.outbox.send(Message::new().status(text).reloading(monotonic_usec()));
            }
            Action::TellRolledBack(reason) => self.tell_rolled_back(&reason),
            Action::TellReloadedInPlace => self.tell_reloaded_in_place(),
            Action::TellHandover => self.tell_handover(),
            Action::TellReclaim => {
                warn!(
                    message_id = events::RECLAIMED,
                    generation = self.generation,
                    handover_id = self.own_handover(),
                    "the other generation is gone: generation {} serves",
                    self.generation
                );
                self.outbox.send(Message::new().status(self.serves()).main_pid(self.pid).ready());
                self.start_pinging();
                self.reclaim_store();
                self.write_pidfile();
            }
            Action::TellStopping => self.tell_stopping(),
            Action::Spawn => self.spawn_next(),
            Action::SendSwitch => self.send_switch(),
            Action::SendMain { reload, stop } => self.send_main(reload, stop),
            Action::EndNext { grace } => self.end_next(grace),
            Action::SayReady => {
                self.say_additions();
                self.say(&Frame::Ready);
                self.fire(When::Ready, |_| {});
            }
            Action::SaySwitched => {
                self.say(&Frame::Switched);
                self.fire(When::Switch, |event| event.accepts = true);
            }
            Action::OpenGate => self.drain.accept(true),
            Action::ShutGate => {
                self.drain.accept(false);
                self.follow_ups.push_back(Event::GateShut);
                if matches!(self.state(), State::Reloading(_)) {
                    self.fire(When::Switch, |_| {});
                    self.tell(What::Switched);
                }
            }
            Action::BecomeMain => self.become_main(),
            Action::BeginDrain { linger } => self.begin_drain(linger),
            Action::Hurry => self.drain.hurry(),
            Action::Hammer => self.hammer(),
            Action::Answer(ids, outcome) => self.answer(&ids, &outcome),
            Action::Exit(end) => self.exit(end),
        }
    }

    /// What `systemctl status` says of the main generation.
    pub(crate) fn serves(&self) -> String {
        format!("generation {} serves", self.generation)
    }

    fn spawn_next(&mut self) {
        self.reloads += 1;
        let id = self.reloads;
        let handover_id = handover_id();
        self.reload = Some(Reload {
            id,
            handover_id: handover_id.clone(),
            began: now(),
            ready: None,
            coming: None,
            new_pid: None,
            ended: false,
            snapshot: Snapshot::default(),
            additions: Vec::new(),
            prepared: None,
            stray: Vec::new(),
        });
        self.tell(What::Reloading);
        self.ask_hooks(id, &handover_id);
    }

    pub(crate) fn estate(&self, handover_id: String, origin: &Origin) -> Result<Estate> {
        if self.pid == 1 {
            return Err(Error::new(
                Kind::Generation,
                "this process is PID 1 (PrivatePIDs=yes, or a container without an init): when it ends, all end; \
                 turn PrivatePIDs= off, start the container with an init, or reload in place \
                 (Builder::on_reload_in_place)",
            ));
        }
        let around = self.settings.drain_timeout.saturating_add(self.hooks.exit_allowance());
        Ok(Estate {
            sockets: lock(&self.sockets).estate()?,
            links: self.drainers.iter().map(|d| d.link.try_clone_fd()).collect::<Result<_>>()?,
            state: None,
            hello: Hello {
                version: env!("CARGO_PKG_VERSION").into(),
                generation: self.generation + 1,
                handover_id,
                pid: self.pid,
                program: origin.program.to_string_lossy().into_owned(),
                drain_timeout_ms: u64::try_from(around.as_millis()).ok(),
                settings: Some(self.settings.to_string()),
                managed: self.parent == Parent::Manager,
                drainers: self.drainers.iter().map(Draining::to_wire).collect(),
                state: false,
                told: false,
                asked_usec: self.asked_usec(),
                past: self.chronicle.past.iter().cloned().map(Into::into).collect(),
            },
        })
    }

    fn coming(&self) -> Option<&Coming> {
        self.reload.as_ref()?.coming.as_ref()
    }

    pub(crate) fn send_next(&mut self, frame: &Frame) {
        let sent = match self.coming() {
            Some(coming) => coming.link.send(frame),
            None => Err(Error::new(Kind::Generation, "the next generation is gone")),
        };
        if let Err(error) = sent {
            self.follow_ups.push_back(Event::NextFailed(error.to_string()));
        }
    }

    /// To the previous generation. If it is gone, that is an event of its own.
    fn say(&self, frame: &Frame) {
        if let Some(previous) = &self.predecessor
            && let Err(error) = previous.link.send(frame)
        {
            warn!(%error, "the previous generation cannot be told");
        }
    }

    fn tell_handover(&mut self) {
        // From here on only the new main's pings count; it has what is left of the interval for its first.
        if let Some(pinging) = self.pinging.take() {
            pinging.abort();
            self.outbox.send(Message::new().watchdog());
        }
        if let Some(pid) = self.coming().map(|c| c.process.pid()) {
            let text = format!("generation {} takes over", self.generation + 1);
            self.outbox.send(Message::new().status(text).main_pid(pid).ready());
        }
        self.outbox.barrier();
    }

    fn send_main(&mut self, reload: bool, stop: bool) {
        self.pass_counts();
        self.send_next(&Frame::Main { reload, stop });
        self.pidfile = None; // The next one's to write and to remove.
        self.fire(When::HandedOver, |_| {});
        self.tell(What::HandedOver);
        let Some(reload) = &mut self.reload else { return };
        if let Some(coming) = &reload.coming {
            info!(
                message_id = events::HANDED_OVER,
                generation = self.generation,
                handover_id = %reload.handover_id,
                old_pid = self.pid,
                new_pid = coming.process.pid(),
                handover_ms = millis(reload.began),
                "handed over to generation {}", self.generation + 1
            );
            coming.watcher.abort();
            self.tasks.spawn(watch::successors(Arc::clone(&coming.link), self.inputs.clone()));
        }
    }

    fn tell_rolled_back(&mut self, reason: &str) {
        let next = self.generation + 1;
        self.drain.metrics().reload("rolled_back");
        self.fire(When::RolledBack, |event| event.reason = Some(reason.to_owned()));
        self.tell_why(What::RolledBack, Some(reason));
        if let Some(reload) = self.reload.take() {
            error!(
                message_id = events::RELOAD_FAILED,
                generation = self.generation,
                handover_id = %reload.handover_id,
                old_pid = self.pid,
                new_pid = reload.new_pid,
                reload_ms = millis(reload.began),
                reason,
                "reload failed: generation {next} {reason}; generation {} serves on", self.generation
            );
        }
        let text = format!("{}; reload failed: generation {next} {reason}", self.serves());
        self.outbox.send(Message::new().status(text).ready());
    }

    fn end_next(&mut self, grace: Duration) {
        self.reclaim_store();
        let Some(reload) = &mut self.reload else { return };
        reload.ended = true;
        let Some(coming) = reload.coming.take() else { return };
        coming.watcher.abort();
        let (generation, states) = (self.generation + 1, self.states.clone());
        self.enders.spawn(async move {
            watch::end(generation, coming.process, Some(coming.link), grace).await;
            // Once more: what it still finished may have changed them again.
            let _ = tokio::task::spawn_blocking(move || restore(&states)).await;
        });
    }

    fn become_main(&mut self) {
        self.start_pinging();
        self.keep();
        self.write_pidfile();
        self.fire(When::Main, |_| {});
        if let Some(previous) = self.predecessor.take() {
            self.take_over_from(previous);
        }
        for drainer in &self.drainers {
            let overdue = drainer.since + drainer.limit + END_TIMEOUT;
            let Draining { generation, pid, ref link, .. } = *drainer;
            let watcher = watch::drainer(generation, pid, Arc::clone(link), overdue.into(), self.inputs.clone());
            self.drainer_watchers.push(self.tasks.spawn(watcher));
        }
        self.measure_draining();
        self.keep_drainers_in_bounds();
    }

    fn take_over_from(&mut self, previous: Draining) {
        info!(
            message_id = events::MAIN,
            generation = self.generation,
            handover_id = self.handover_id,
            old_pid = previous.pid,
            new_pid = self.pid,
            start_ms = millis(self.began),
            "generation {} is main",
            self.generation
        );
        self.outbox.send(Message::new().status(self.serves()));
        self.tell(What::Main);
        self.drainers.push(Draining { since: now(), ..previous });
    }

    fn start_pinging(&mut self) {
        let (Some(watchdog), None) = (self.watchdog, &self.pinging) else { return };
        let (notifier, check, metrics) = (self.notifier.clone(), self.check.clone(), self.drain.metrics().clone());
        let ping = watchdog::ping(self.generation, watchdog, notifier, check, metrics, self.inputs.clone());
        self.pinging = Some(self.tasks.spawn(ping));
    }

    fn keep_drainers_in_bounds(&mut self) {
        let cap = self.settings.max_draining;
        for (age, Draining { generation, pid, link, .. }) in self.drainers.iter().rev().enumerate() {
            if age >= cap {
                warn!(
                    message_id = events::TOO_MANY_DRAIN,
                    generation,
                    old_pid = pid,
                    "more than {cap} generations drain: hammering generation {generation}"
                );
                self.tasks.spawn(watch::hammer(*generation, *pid, Arc::clone(link), self.inputs.clone()));
            } else if age + HURRY_BEFORE_CAP >= cap && age > 0 {
                let _ = link.send(&Frame::Hurry);
            }
        }
    }

    fn tell_stopping(&mut self) {
        let text = format!("stopping; connections to finish: {}", self.drain.active());
        self.outbox.send(Message::new().status(text).stopping());
        self.stopping = true;
        self.tell(What::Stopping);
    }

    fn begin_drain(&mut self, linger: Duration) {
        self.drain.begin(linger);
        let (state, open) = (self.state(), self.drain.active());
        let limit = self.settings.drain_timeout;
        info!(
            message_id = events::DRAIN_STARTED,
            generation = self.generation,
            handover_id = self.own_handover(),
            old_pid = self.pid,
            new_pid = self.next_pid(),
            connections = open,
            "generation {} drains within {limit:?}, connections open: {open}",
            self.generation
        );
        self.fire(When::DrainStarted, |event| event.connections = open);
        self.began = now();
        if state == State::Draining {
            self.tell(What::Draining);
            // The new main holds the links to older drainers. They must see its end, not ours.
            self.drainers.clear();
            self.drainer_watchers.drain(..).for_each(|watcher| watcher.abort());
        } else {
            self.tasks.spawn(extend_timeout(self.outbox.sender(), Tick::now() + limit));
        }
        let (drained, inputs) = (self.drain.drained(), self.inputs.clone());
        self.tasks.spawn(async move {
            drained.await;
            let _ = inputs.send(Input::OwnDrainDone);
        });
    }

    /// The one that this generation left the main role with; of a stop, the one that it came with.
    pub(crate) fn own_handover(&self) -> Option<&str> {
        self.reload.as_ref().map(|r| r.handover_id.as_str()).or(self.handover_id.as_deref())
    }

    fn answer(&mut self, ids: &[RequestId], outcome: &Outcome) {
        for id in ids {
            let Some(answer) = self.answers.remove(id) else { continue };
            let next = self.generation + 1;
            let pid = self.coming().map_or(0, |c| c.process.pid());
            let _ = answer.send(match outcome {
                Outcome::HandedOver => Ok(Reloaded::HandedOver { generation: next, pid }),
                Outcome::InPlace => Ok(Reloaded::InPlace),
                Outcome::PassedOn => Ok(Reloaded::PassedOn),
                Outcome::RolledBack(reason) => {
                    Err(Error::new(Kind::Generation, format!("reload failed: generation {next} {reason}")))
                }
                Outcome::Refused(why) => Err(Error::new(Kind::State, format!("no reload: {why}"))),
            });
        }
    }
}

impl Draining {
    fn to_wire(&self) -> Drainer {
        let drain_timeout_ms = u64::try_from(self.limit.as_millis()).ok();
        Drainer { generation: self.generation, pid: self.pid, draining_ms: millis(self.since), drain_timeout_ms }
    }
}

/// Asks the manager for time while the service's own drain timeout lasts, and not beyond.
async fn extend_timeout(outbox: crate::service::tell::Sender, until: Tick) {
    let mut ticks = interval(EXTEND_EVERY);
    while Tick::now() < until {
        ticks.tick().await;
        let left = until.saturating_duration_since(Tick::now());
        outbox.send(Message::new().extend_timeout(left.min(EXTEND_BY) + Duration::from_secs(1)));
    }
}

/// 128 random bits, as systemd writes its own ids.
pub(crate) fn handover_id() -> String {
    use std::io::Read as _;
    let mut bytes = [0_u8; 16];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut f| f.read_exact(&mut bytes));
    if let Err(error) = read {
        warn!(%error, "no random handover id");
    }
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
