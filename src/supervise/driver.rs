//! The event loop: everything that happens, one at a time, through the lifecycle of the generation that it happens to.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::{debug, warn};

use crate::drain::Drain;
use crate::error::{Error, Kind, Result};
use crate::lifecycle::{Event, RequestId};
use crate::service::clock::{at, now};
use crate::service::driver::Input;
use crate::service::status::Asking;
use crate::service::steps::{Listeners, Past};
use crate::service::{Handle, reap, watch, watchdog};
use crate::settings::{END_TIMEOUT, Effective, REAP_AFTER};
use crate::supervise::builder::{OnCrash, Senders};
use crate::supervise::child::Recipe;
use crate::supervise::crash::Pause;
use crate::supervise::estate::Estate;
use crate::supervise::generation::Generation;
use crate::supervise::image::Image;
use crate::supervise::manager::Manager;
use crate::supervise::ready::{Probe, Ready};
use crate::supervise::renew::{Own, Resumed};
use crate::supervise::rolling::{Asker, Rolling};
use crate::supervise::signals::Signals;
use crate::supervise::stop::StopSignals;
use crate::supervise::tree::Family;
use crate::sys::mailbox::{self, Letter};
use crate::sys::pidfd::Ended;
use crate::sys::socket::register;
use crate::systemd::notify::{Message, NOTIFY_TIMEOUT, Notifier};
use crate::systemd::watchdog::Watchdog;
use crate::wire::notify::{MAX_DATAGRAM, store};

/// How long clients of the control interface are given to read their last answer.
const LAST_ANSWERS: Duration = Duration::from_millis(500);

/// So many notifications at most are read before the end of a process is dealt with.
const LAST_LETTERS: usize = 64;

/// What it was told, which does not change.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) recipe: Recipe,
    pub(crate) ready: Ready,
    pub(crate) probe: Option<Probe>,
    pub(crate) senders: Senders,
    pub(crate) stop_signals: StopSignals,
    pub(crate) on_crash: OnCrash,
    pub(crate) good_after: Duration,
    pub(crate) at_a_time: usize,
    pub(crate) settings: Effective,
    pub(crate) watchdog: Option<Watchdog>,
    /// Our own program, or why it cannot be started anew.
    pub(crate) own: Result<Own, String>,
}

/// What a driver is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) plan: Plan,
    pub(crate) estate: Estate,
    pub(crate) workers: usize,
    pub(crate) notifier: Notifier,
    pub(crate) mail: OwnedFd,
    /// The listener of the control interface.
    pub(crate) control: Option<OwnedFd>,
    pub(crate) resumed: Option<Resumed>,
    pub(crate) drain: Drain,
}

/// From the tasks that watch the generations.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Happening {
    Ready(u64),
    /// The first process of a generation has ended.
    Ended(u64, Ended),
    /// No process of it is left.
    Gone(u64),
}

/// One of the workers, by whatever generation.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    pub(crate) main: Option<u64>,
    /// On its way to be main.
    pub(crate) next: Option<u64>,
    /// There is neither.
    pub(crate) pause: Option<Pause>,
    /// In a row.
    pub(crate) crashes: u32,
    pub(crate) last_image: Option<Image>,
    /// It went back to the last good version, and takes no other before a reload asks for one.
    pub(crate) stays_back: bool,
    /// The newest generation that was tried.
    pub(crate) newest: u64,
}

#[derive(Debug)]
pub(crate) struct Driver {
    pub(crate) plan: Plan,
    pub(crate) estate: Estate,
    notifier: Notifier,
    pub(crate) manager: Manager,
    pub(crate) mail: AsyncFd<OwnedFd>,
    /// The listener of the control interface.
    pub(crate) control: Option<OwnedFd>,
    /// It shall be, as soon as it can.
    pub(crate) renewing: bool,
    pub(crate) renewals: u64,
    /// How often it could not be, and why the last time.
    pub(crate) not_renewed: (u64, Option<String>),
    resumed: Option<Resumed>,
    pub(crate) drain: Drain,
    pub(crate) generations: BTreeMap<u64, Generation>,
    pub(crate) slots: Vec<Slot>,
    pub(crate) last_number: u64,
    pub(crate) requests: RequestId,
    pub(crate) rolling: Option<Rolling>,
    /// Why the workers that were replaced go back.
    pub(crate) going_back: Option<String>,
    /// Who waits for the next reload.
    pub(crate) pending: Vec<Asker>,
    /// There shall be one more.
    pub(crate) wanted: bool,
    pub(crate) reloads: u64,
    pub(crate) crashes: u64,
    /// The last version that was good.
    pub(crate) good: Option<Image>,
    /// The service manager was told that the service is ready.
    pub(crate) served: bool,
    pub(crate) stopping: bool,
    pub(crate) stop_told: bool,
    pub(crate) extend_at: Option<Instant>,
    pub(crate) failed: Option<String>,
    /// Notifications of processes that may send none.
    pub(crate) strangers: u64,
    pub(crate) began: Instant,
    pub(crate) past: Vec<Past>,
    pub(crate) steps: Listeners,
    queue: VecDeque<(u64, Event)>,
    inputs: mpsc::UnboundedSender<Input>,
    waiting: mpsc::UnboundedReceiver<Input>,
    pub(crate) happenings: mpsc::UnboundedSender<Happening>,
    happened: mpsc::UnboundedReceiver<Happening>,
    pub(crate) tasks: JoinSet<()>,
}

impl Driver {
    pub(crate) fn new(parts: Parts) -> Result<Self> {
        let (inputs, waiting) = mpsc::unbounded_channel();
        let (happenings, happened) = mpsc::unbounded_channel();
        let mail = register(parts.mail, Interest::READABLE)
            .map_err(|e| Error::os("the notifications of the program cannot be watched", e))?;
        Ok(Self {
            plan: parts.plan,
            estate: parts.estate,
            manager: Manager::open(parts.notifier.clone()),
            notifier: parts.notifier,
            mail,
            control: parts.control,
            renewing: false,
            renewals: 0,
            not_renewed: (0, None),
            resumed: parts.resumed,
            drain: parts.drain,
            generations: BTreeMap::new(),
            slots: (0..parts.workers).map(|_| Slot::default()).collect(),
            last_number: 0,
            requests: 0,
            rolling: None,
            going_back: None,
            pending: Vec::new(),
            wanted: false,
            reloads: 0,
            crashes: 0,
            good: None,
            served: false,
            stopping: false,
            stop_told: false,
            extend_at: None,
            failed: None,
            strangers: 0,
            began: now(),
            past: Vec::new(),
            steps: Listeners::default(),
            queue: VecDeque::new(),
            inputs,
            waiting,
            happenings,
            happened,
            tasks: JoinSet::new(),
        })
    }

    pub(crate) fn handle(&self) -> Handle {
        Handle { inputs: self.inputs.clone(), steps: self.steps.clone() }
    }

    pub(crate) async fn run(mut self) -> Result<()> {
        let mut signals = Signals::install()?;
        // Whose parent ends becomes ours, so that it is found and ended with its generation.
        if let Err(error) = nix::sys::prctl::set_child_subreaper(true) {
            warn!(%error, "processes that lose their parent cannot be followed");
        }
        self.tasks.spawn(reap::reap(REAP_AFTER));
        signals.unblock();
        let resumed = self.resumed.take();
        let first = resumed.is_none();
        if let Some(resumed) = resumed {
            resumed.restore(&mut self);
            self.manager.tell(&Message::new().status(self.serves()));
        }
        for (name, fd) in self.estate.bound()?.into_iter().filter(|_| first) {
            self.manager.pass(store(&name, false).into_bytes(), vec![fd]);
        }
        if let Some(watchdog) = self.plan.watchdog {
            let (notifier, metrics) = (self.notifier.clone(), self.drain.metrics().clone());
            self.tasks.spawn(watchdog::ping(0, watchdog, notifier, None, metrics, self.inputs.clone()));
        }
        for slot in (0..self.slots.len()).filter(|_| first) {
            if let Err(reason) = self.launch(slot, None, false) {
                self.failed = Some(format!("the program did not start: {reason}"));
                self.stop_all(&Event::Stop);
                break;
            }
        }
        loop {
            self.settle();
            if self.stopping && self.generations.is_empty() {
                break;
            }
            if self.renewing && self.may_renew() {
                self.renewing = false;
                self.renew().await;
            }
            let deadline = self.deadline();
            // In no order: a program that says a lot, or a client that asks a lot, must not keep the rest waiting.
            tokio::select! {
                asked = signals.next() => self.on_signal(asked),
                Some(happening) = self.happened.recv() => self.on_happening(happening),
                letter = next_letter(&self.mail) => self.on_letter(letter),
                Some(input) = self.waiting.recv() => self.on_input(input),
                () = at(deadline) => self.on_time(now()),
                Some(_) = self.tasks.join_next() => {}
            }
        }
        self.finish().await
    }

    fn on_input(&mut self, input: Input) {
        match input {
            Input::Reload(asker) => self.ask_for_reload(asker),
            Input::Stop => self.on_stop("stop"),
            Input::Status(Asking::Answer(answer)) => _ = answer.send(self.status()),
            Input::Alive(answer) => _ = answer.send(()),
            other => debug!(?other, "means nothing to a supervisor"),
        }
    }

    fn on_happening(&mut self, happening: Happening) {
        match happening {
            Happening::Ready(number) => self.on_ready(number),
            Happening::Ended(number, how) => {
                let Some(generation) = self.generations.get(&number) else { return };
                let (family, killed) = (generation.child.family.clone(), generation.killed.clone());
                let happenings = self.happenings.clone();
                // What it said before comes before.
                for _ in 0..LAST_LETTERS {
                    match mailbox::receive(self.mail.get_ref().as_fd(), MAX_DATAGRAM) {
                        Ok(letter) => self.on_letter(Ok(letter)),
                        Err(_) => break,
                    }
                }
                self.settle();
                self.on_ended(number, how);
                self.tasks.spawn(async move {
                    let killed = killed.load(std::sync::atomic::Ordering::Relaxed);
                    family.end(number, if killed { Duration::ZERO } else { END_TIMEOUT }).await;
                    let _ = happenings.send(Happening::Gone(number));
                });
            }
            Happening::Gone(number) => {
                self.push(number, Event::Drained);
                self.settle();
                self.generations.remove(&number);
                self.measure();
            }
        }
    }

    /// Until it is ready it is not main, and until it has ended it is watched.
    pub(crate) fn watch(&mut self, number: u64, pidfd: OwnedFd, family: Family) {
        let happenings = self.happenings.clone();
        let ready = match (&self.plan.ready, self.plan.probe.clone()) {
            (Ready::Notify, _) | (Ready::Accept(_) | Ready::Http { .. }, None) => None,
            (Ready::Delay(time), _) => {
                let time = *time;
                Some(self.tasks.spawn(async move {
                    tokio::time::sleep(time).await;
                    let _ = happenings.send(Happening::Ready(number));
                }))
            }
            (Ready::Command(command), _) => {
                let asking = crate::supervise::ready::ask(command.clone(), number, family.leader);
                Some(self.tasks.spawn(async move {
                    asking.await;
                    let _ = happenings.send(Happening::Ready(number));
                }))
            }
            (_, Some(probe)) => Some(self.tasks.spawn(async move {
                probe.succeed(&family).await;
                let _ = happenings.send(Happening::Ready(number));
            })),
        };
        if let Some(generation) = self.generations.get_mut(&number) {
            generation.waiting = ready;
        }
        self.watch_end(number, pidfd);
    }

    pub(crate) fn watch_end(&mut self, number: u64, pidfd: OwnedFd) {
        let happenings = self.happenings.clone();
        self.tasks.spawn(async move {
            let how = match register(pidfd, Interest::READABLE) {
                Ok(pidfd) => watch::end_of(&pidfd).await,
                Err(_) => Ended::Unknown,
            };
            let _ = happenings.send(Happening::Ended(number, how));
        });
    }

    pub(crate) fn push(&mut self, number: u64, event: Event) {
        self.queue.push_back((number, event));
    }

    /// All that follows from what has happened.
    pub(crate) fn settle(&mut self) {
        loop {
            while let Some((number, event)) = self.queue.pop_front() {
                let Some(generation) = self.generations.get_mut(&number) else { continue };
                let before = generation.state();
                let shown = format!("{event:?}");
                let actions = generation.machine.handle(now(), event);
                let after = generation.state();
                if before != after {
                    debug!(generation = number, ?before, ?after, event = shown, "state");
                    self.tell_progress(number, after);
                }
                for action in actions {
                    self.perform(number, action);
                }
            }
            self.begin_reload();
            if self.queue.is_empty() {
                return;
            }
        }
    }

    /// Of all generations, each as far as it is.
    pub(crate) fn stop_all(&mut self, event: &Event) {
        self.stopping = true;
        self.refuse_reloads();
        for slot in &mut self.slots {
            slot.pause = None;
        }
        for number in self.generations.keys().copied().collect::<Vec<_>>() {
            self.push(number, event.clone());
        }
    }

    async fn finish(mut self) -> Result<()> {
        self.tell_stopping();
        self.estate.remove_paths();
        self.drain.accept(false);
        self.drain.begin(Duration::ZERO);
        let _ = tokio::time::timeout(LAST_ANSWERS, self.drain.drained()).await;
        self.drain.hammer();
        self.tasks.abort_all();
        self.manager.close(NOTIFY_TIMEOUT).await;
        match self.failed {
            Some(why) => Err(Error::new(Kind::Generation, why)),
            None => Ok(()),
        }
    }
}

async fn next_letter(mail: &AsyncFd<OwnedFd>) -> io::Result<Letter> {
    mail.async_io(Interest::READABLE, |fd| mailbox::receive(fd.as_fd(), MAX_DATAGRAM)).await
}
