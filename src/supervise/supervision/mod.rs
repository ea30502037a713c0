//! A foreign program, kept running: the parts that the driver drives, for all generations of it.
//!
//! Here inputs become events; in `actions` what the lifecycles ask for is handed to the parts;
//! `whole` is about all workers at once.

mod actions;
mod whole;

use std::os::fd::OwnedFd;
use std::time::Instant;

use nix::sys::signal::Signal;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tracing::{debug, warn};

use crate::drain::{Drain, FAR};
use crate::error::Result;
use crate::lifecycle::{Action, Event, LifeState, ReloadPhase};
use crate::reload::arrivals::Arrivals;
use crate::reload::clock::now;
use crate::reload::driver::{Driver, Lifecycles, Parts};
use crate::reload::handle::{Asker, ServiceRequest};
use crate::reload::history::History;
use crate::reload::hook_runner::HookRunner;
use crate::reload::hooks::Hooks;
use crate::reload::moment::{Facts, Moment};
use crate::reload::narrator::Narrator;
use crate::reload::outbox::Outbox;
use crate::reload::watchdog::{Pinger, Pings};
use crate::service::reap;
use crate::settings::{END_TIMEOUT, Effective, REAP_AFTER};
use crate::supervise::child::Recipe;
use crate::supervise::crash::Crashes;
use crate::supervise::generation::ProgramGeneration;
use crate::supervise::inheritance::Inheritance;
use crate::supervise::notified::{self, Inbox, Letter, Notification, Right};
use crate::supervise::place::NotifyPlace;
use crate::supervise::ready::{Probe, Ready};
use crate::supervise::record::ago;
use crate::supervise::renew::{Renewal, Resumed};
use crate::supervise::rolling::{Reloads, refuse};
use crate::supervise::signals;
use crate::supervise::terms::{Foundation, Terms};
use crate::supervise::watches::{Happening, Watches};
use crate::supervise::workers::Workers;
use crate::sys::pidfd::Ended;
use crate::systemd::notify::Message;
use crate::wire::notify::{store, store_remove};

/// A program, as its supervisor sees it.
#[derive(Debug)]
pub(crate) struct Supervision {
    terms: Terms,
    settings: Effective,
    recipe: Recipe,
    probe: Option<Probe>,
    workers: Workers,
    crashes: Crashes,
    reloads: Reloads,
    renewal: Renewal,
    inheritance: Inheritance,
    narrator: Narrator,
    outbox: Outbox,
    pinger: Pinger,
    inbox: Inbox,
    /// Where the inbox's socket is, until the end.
    _place: NotifyPlace,
    watches: Watches,
    /// Asks the service manager for time, while a reload is under way.
    extending: Option<AbortHandle>,
    signals: Arrivals<Signal>,
    asked: mpsc::UnboundedReceiver<ServiceRequest>,
    drain: Drain,
    control: Option<OwnedFd>,

    /// What is left to do when all that followed from an input is done.
    afterwards: Option<Afterwards>,
    /// The service manager was told that the service is ready.
    served: bool,
    stopping: bool,
    stop_told: bool,
    /// Why the supervisor ends with an error.
    failed: Option<String>,
}

#[derive(Debug, Clone, Copy)]
enum Afterwards {
    /// The first process of a generation has ended: what it said before that comes before.
    Ended(u64, Ended),
    /// No process of a generation is left.
    Gone(u64),
}

impl Supervision {
    /// Keeps the program running until the service has been stopped.
    pub(crate) async fn run(foundation: Foundation) -> Result<()> {
        let signals = signals::install()?;
        // Whose parent ends becomes ours, so that it is found and ended with its generation.
        if let Err(error) = nix::sys::prctl::set_child_subreaper(true) {
            warn!(%error, "processes that lose their parent cannot be followed");
        }
        let (mut own, resumed) = Self::new(foundation, signals);
        own.watches.run(reap::reap(REAP_AFTER));
        let mut lives = Lifecycles::default();
        match resumed {
            Some(resumed) => own.resume(&mut lives, resumed),
            None => own.begin(&mut lives)?,
        }
        Driver::new(lives, own).run().await.finish().await
    }

    fn new(foundation: Foundation, signals: Arrivals<Signal>) -> (Self, Option<Resumed>) {
        let Foundation { terms, settings, recipe, notifier, drain, mut resumed, .. } = foundation;
        let (mut reloads, mut crashes, mut renewals) = (0, 0, 0);
        let mut history = History::open(None);
        let mut workers = Workers::new(terms.workers, 0, None);
        if let Some(Resumed { record, good, .. }) = &mut resumed {
            (reloads, crashes, renewals) = (record.reloads, record.crashes, record.renewals + 1);
            history = History::resumed(std::mem::take(&mut record.past), ago(record.age_ms));
            workers = Workers::new(terms.workers, record.last_number, good.take());
        }
        let pings = foundation.watchdog.map(|watchdog| Pings {
            generation: 0,
            watchdog,
            notifier: notifier.clone(),
            check: None,
            metrics: drain.metrics().clone(),
            driver: foundation.requests,
        });
        let mut pinger = Pinger::new(pings);
        pinger.start();
        let hooks = HookRunner::open(Hooks::default(), settings.hook_timeout);
        let own = Self {
            workers,
            crashes: Crashes::new(terms.workers, terms.good_after, crashes),
            reloads: Reloads::new(terms.at_a_time, reloads),
            renewal: Renewal::new(foundation.own, recipe.env.clone(), renewals),
            terms,
            settings,
            recipe,
            probe: foundation.probe,
            inheritance: foundation.inheritance,
            narrator: Narrator::new(foundation.listeners, hooks, drain.metrics().clone(), history),
            outbox: Outbox::open(notifier, || {}),
            pinger,
            inbox: foundation.inbox,
            _place: foundation.place,
            watches: Watches::new(),
            extending: None,
            signals,
            asked: foundation.asked,
            drain,
            control: foundation.control,
            afterwards: None,
            served: false,
            stopping: false,
            stop_told: false,
            failed: None,
        };
        (own, resumed)
    }

    /// The first start: each worker gets a process.
    fn begin(&mut self, lives: &mut Lifecycles) -> Result<()> {
        for (name, fd) in self.inheritance.bound()? {
            self.outbox.pass(store(&name, false).into_bytes(), vec![fd]);
        }
        for slot in 0..self.workers.count() {
            if let Err(reason) = self.launch(lives, slot, None, false) {
                self.failed = Some(format!("the program did not start: {reason}"));
                self.stop_all(lives, &Event::Stop);
                break;
            }
        }
        Ok(())
    }
}

impl Parts for Supervision {
    type Input = Happening;

    async fn next(&mut self) -> Happening {
        // In no order: a program that says a lot, or a client that asks a lot, must not keep the
        // rest waiting.
        tokio::select! {
            signal = self.signals.next() => Happening::Signal(signal),
            happening = self.watches.next() => happening,
            message = self.inbox.next() => Happening::Notified(message),
            Some(request) = self.asked.recv() => Happening::Asked(request),
        }
    }

    fn take(&mut self, lives: &mut Lifecycles, input: Happening) {
        match input {
            Happening::Signal(signal) => self.on_signal(lives, signal),
            Happening::Asked(ServiceRequest::Reload(asker)) => self.on_reload(Some(asker)),
            Happening::Asked(ServiceRequest::Stop) => self.on_stop(lives, &Event::Stop, "stop"),
            Happening::Asked(ServiceRequest::Status(answer)) => _ = answer.send(self.status(lives)),
            Happening::Asked(ServiceRequest::Alive(answer)) => _ = answer.send(()),
            Happening::Asked(ServiceRequest::Pause(_, answer) | ServiceRequest::Resume(answer)) => {
                let why = "a program under `handover run` accepts by itself: it cannot be paused from outside";
                _ = answer.send(Err(crate::error::Error::new(crate::error::Kind::State, why)));
            }
            Happening::Notified(Ok(letter)) => self.on_letter(lives, letter),
            Happening::Notified(Err(error)) => debug!(%error, "a notification cannot be read"),
            Happening::Ready(number) => {
                if self.workers.get_mut(number).is_some_and(ProgramGeneration::is_ready) {
                    lives.push(number, Event::Started);
                }
            }
            Happening::Ended(number, how) => {
                for letter in self.inbox.last() {
                    self.on_letter(lives, letter);
                }
                self.afterwards = Some(Afterwards::Ended(number, how));
            }
            Happening::Gone(number) => {
                lives.push(number, Event::Drained);
                self.afterwards = Some(Afterwards::Gone(number));
            }
            Happening::MayRenew(answer) => self.renew(lives, answer),
        }
    }

    fn perform(&mut self, lives: &mut Lifecycles, number: u64, action: Action) {
        self.carry_out(lives, number, action);
    }

    /// How far the reload has come, the main generation knows.
    fn entered(&mut self, number: u64, state: LifeState) {
        let has_next = self.workers.next_beside(number).is_some();
        match state {
            LifeState::Reloading(ReloadPhase::Ready) if has_next => self.tell_since_asked(Moment::Ready, number),
            LifeState::Reloading(ReloadPhase::Switched) if has_next => self.tell_since_asked(Moment::Switched, number),
            _ => {}
        }
    }

    fn overdue(&self, number: u64, state: LifeState) -> Option<Event> {
        (state == LifeState::Reloading(ReloadPhase::Spawned)).then(|| Event::NextFailed(self.not_ready(number)))
    }

    fn deadline(&self, lives: &Lifecycles) -> Option<Instant> {
        let generations = self.workers.all().flat_map(|of| [of.deadline(), self.good_at(lives, of)]);
        generations.chain([self.crashes.deadline()]).flatten().min()
    }

    fn on_time(&mut self, lives: &mut Lifecycles, now: Instant) {
        for number in self.workers.numbers() {
            let Some(generation) = self.workers.get_mut(number) else { continue };
            generation.go_on(&self.terms.stop_signals, now);
            if generation.is_late(now) {
                self.on_failed(lives, number, self.not_ready(number));
            } else if generation.hangs(now) {
                self.abort(number, "sent no WATCHDOG=1 in time");
            }
            let Some(generation) = self.workers.get(number) else { continue };
            if self.good_at(lives, generation).is_some_and(|at| at <= now) {
                self.crashes.is_good(generation.slot);
                self.workers.is_good(number);
            }
        }
        for slot in self.crashes.due(now) {
            self.restart(lives, slot, false);
        }
    }

    fn settled(&mut self, lives: &mut Lifecycles) {
        match self.afterwards.take() {
            Some(Afterwards::Ended(number, how)) => self.has_ended(lives, number, how),
            Some(Afterwards::Gone(number)) => {
                self.workers.remove(number);
                self.inbox.expect(!self.workers.is_empty());
                lives.remove(number);
                self.measure();
            }
            None => {}
        }
        if lives.is_idle() && self.reloads.is_due() && self.served && !self.stopping {
            self.begin_reload(lives);
        }
        if lives.is_idle() && self.renewal.is_due() && self.may_renew() {
            let asking = self.renewal.ask();
            self.watches.spawn(async move { Happening::MayRenew(asking.await) });
        }
    }

    fn is_over(&self, _: &Lifecycles) -> bool {
        self.stopping && self.workers.is_empty()
    }
}

impl Supervision {
    fn on_signal(&mut self, lives: &mut Lifecycles, signal: Signal) {
        match signal {
            Signal::SIGQUIT => self.on_stop(lives, &Event::Quit, "SIGQUIT: cutting what is left"),
            Signal::SIGHUP => self.on_reload(None),
            Signal::SIGUSR2 => self.renewal.want(),
            // Logs are reopened on it by custom.
            Signal::SIGUSR1 => {
                let main = self.workers.all().filter(|of| lives.state(of.number).is_main());
                main.for_each(|of| of.process.signal(signal));
            }
            stop => self.on_stop(lives, &Event::Stop, stop.as_str()),
        }
    }

    fn on_reload(&mut self, asker: Option<Asker>) {
        if !self.stopping {
            self.reloads.want(asker);
        } else if let Some(asker) = asker {
            refuse(asker);
        }
    }

    fn on_stop(&mut self, lives: &mut Lifecycles, event: &Event, cause: &str) {
        self.narrator.tell(Moment::Stop, &Facts::said(self.newest_main(), cause));
        self.stop_all(lives, event);
    }

    /// Ends all generations, each as far as it is.
    fn stop_all(&mut self, lives: &mut Lifecycles, event: &Event) {
        self.stopping = true;
        self.reloads.stop();
        self.crashes.stop();
        for number in self.workers.numbers() {
            if let Some(generation) = self.workers.get_mut(number) {
                generation.go_at_once();
            }
            lives.push(number, event.clone());
        }
    }
}

/// What the program says.
impl Supervision {
    /// Of a stranger nothing is read.
    fn on_letter(&mut self, lives: &mut Lifecycles, letter: Letter) {
        let sender = letter.pid.and_then(|pid| self.workers.sender(pid, self.terms.senders));
        let Some(number) = sender else { return self.inbox.ignore(letter) };
        if letter.damaged {
            return self.inbox.discard(number);
        }
        for notification in notified::read(&letter.bytes, letter.fds) {
            let state = lives.state(number);
            match notification.right(state) {
                Right::Counts => self.on_notification(lives, number, notification),
                Right::CountsWhenMain => {
                    if let Some(generation) = self.workers.get_mut(number) {
                        generation.stage(notification);
                    }
                }
                Right::Nobodys(field) => {
                    debug!(generation = number, "{field} is not for a program to say, and ignored")
                }
                Right::MeansNothing => debug!(generation = number, ?state, ?notification, "means nothing now"),
            }
        }
    }

    fn on_notification(&mut self, lives: &mut Lifecycles, number: u64, notification: Notification) {
        let Some(generation) = self.workers.get_mut(number) else { return };
        match notification {
            Notification::Ready if self.terms.ready == Ready::Notify => self.watches.push(Happening::Ready(number)),
            Notification::Status(text) => {
                let text = format!("generation {number} starts: {}", generation.says(&text));
                if lives.state(number).is_main() && !self.reloads.is_running() {
                    self.outbox.send_if_room(&Message::new().status(self.serves()));
                } else if !self.served {
                    self.outbox.send_if_room(&Message::new().status(text));
                }
            }
            Notification::Watchdog => generation.pings(),
            Notification::WatchdogEvery(every) => generation.watch_every(every),
            Notification::Unhealthy => self.abort(number, "said WATCHDOG=trigger"),
            Notification::Stopping => generation.says_stopping = true,
            Notification::Extend(by) => {
                // For as long as a generation gets ready, its own time; else that of whatever the
                // service manager waits for.
                if lives.state(number) == LifeState::Starting {
                    let until = now() + by.min(FAR);
                    generation.extend(until);
                    if let Some(main) = self.workers.main_beside(number) {
                        lives.extend(main.number, until);
                    }
                }
                self.outbox.send_if_room(&Message::new().extend_timeout(by));
            }
            Notification::Store { .. } | Notification::Unstore(_) => self.keep(notification),
            Notification::Ready | Notification::Barrier | Notification::Foreign(_) => {}
        }
    }

    /// Keeps it in the store of the service manager, which outlives us, and in ours, for the
    /// generations to come.
    fn keep(&mut self, what: Notification) {
        match what {
            Notification::Store { name, poll, fds } => {
                let copies: std::io::Result<Vec<_>> = fds.iter().map(OwnedFd::try_clone).collect();
                match copies {
                    Ok(copies) => self.outbox.pass_if_room(store(&name, poll).into_bytes(), copies),
                    Err(error) => warn!(%error, "{name:?} cannot be stored"),
                }
                self.inheritance.store(&name, poll, fds);
            }
            Notification::Unstore(name) => {
                drop(self.inbox.sent(self.inheritance.unstore(&name)));
                self.outbox.pass_if_room(store_remove(&name).into_bytes(), Vec::new());
            }
            _ => {}
        }
    }

    /// Aborts a generation, as systemd does when a watchdog is not fed. It counts as a crash.
    fn abort(&mut self, number: u64, why: &str) {
        let Some(generation) = self.workers.get_mut(number) else { return };
        let detail = &format!("generation {number} {why}: SIGABRT");
        self.narrator.tell(Moment::Unhealthy, &Facts { reason: Some(why), ..Facts::said(number, detail) });
        generation.abort(END_TIMEOUT);
    }
}
