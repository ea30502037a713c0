//! The successor: the next generation, from its start until it is main.
//!
//! ```text
//! Spawned ──prepare──► Prepared ──switch──► Switched ──hand_over──► HandedOver
//! ```
//!
//! Each step consumes the stage before it, so another order does not compile. From any of them but
//! the last, the generation can be ended.

use std::collections::BTreeSet;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::{AbortHandle, JoinSet};

use crate::error::{Error, Kind, Result};
use crate::generation::program::Process;
use crate::generation::{Link, Next};
use crate::reload::clock::now;
use crate::reload::input::InputSender;
use crate::reload::watch;
use crate::settings::END_TIMEOUT;
use crate::sys::random;
use crate::systemd::fdstore::Changes;
use crate::transit::Channel;
use crate::wire::frame::{Frame, MAX_NAMES};
use crate::wire::parcel::KNOWS_COPIES;

/// A process that was started, the link to it, and the task that watches both until it is main.
#[derive(Debug)]
struct NextProcess {
    process: Process,
    link: Arc<Link>,
    watcher: AbortHandle,
}

/// It runs, and gets ready.
#[derive(Debug)]
#[must_use]
struct Spawned {
    next: NextProcess,
    started: bool,
}

/// It is ready, and the fd store is its.
#[derive(Debug)]
#[must_use]
struct Prepared {
    next: NextProcess,
    changes: Changes,
}

/// It was told to accept.
#[derive(Debug)]
#[must_use]
struct Switched {
    next: NextProcess,
}

/// It was told that it is main.
#[derive(Debug)]
#[must_use]
struct HandedOver {
    next: NextProcess,
}

impl Spawned {
    fn prepare(self, changes: Changes) -> Prepared {
        Prepared { next: self.next, changes }
    }
}

impl Prepared {
    /// Passes on what has come since it was started, and then the word to accept.
    fn switch(self) -> (Switched, Result<()>) {
        let Self { next, changes } = self;
        let gone = || changes.gone.chunks(MAX_NAMES).map(|names| Frame::Gone { names: names.to_vec() });
        let told = next.link.send_entries(&changes.entries);
        let told = told.and_then(|()| gone().try_for_each(|frame| next.link.send(&frame)));
        let told = told.map_err(|e| Error::new(Kind::Generation, format!("could not be given the fd store: {e}")));
        let told = told.and_then(|()| next.link.send(&Frame::Switch));
        (Switched { next }, told)
    }
}

impl Switched {
    fn hand_over(self, main: &Frame) -> (HandedOver, Result<()>) {
        let told = self.next.link.send(main);
        self.next.watcher.abort();
        (HandedOver { next: self.next }, told)
    }
}

#[derive(Debug, Default)]
enum NextStage {
    /// There is no process: hooks are asked, it is being started, or it failed.
    #[default]
    Absent,
    Spawned(Spawned),
    Prepared(Prepared),
    Switched(Switched),
    HandedOver(HandedOver),
}

impl NextStage {
    fn next(&self) -> Option<&NextProcess> {
        match self {
            Self::Absent => None,
            Self::Spawned(Spawned { next, .. }) | Self::Prepared(Prepared { next, .. }) => Some(next),
            Self::Switched(Switched { next }) | Self::HandedOver(HandedOver { next }) => Some(next),
        }
    }
}

#[derive(Debug)]
struct Attempt {
    handover_id: Arc<str>,
    began: Instant,
    ready: Option<Instant>,
    stage: NextStage,
    /// The listeners whose connections it takes.
    takes: BTreeSet<String>,
    /// The version of records that it knows.
    records: u32,
    /// The pid of the next generation, also when it has ended.
    pid: Option<u32>,
    /// Rolled back or stopped: what still comes of it is too late.
    ended: bool,
}

/// The reload that is running, or that this generation left the main role with.
#[derive(Debug)]
pub(crate) struct Successor {
    generation: u64,
    /// The number of reloads so far, which is that of the attempt.
    attempts: u64,
    attempt: Option<Attempt>,
    /// Next generations that are being started just now.
    starting: usize,
    watchers: JoinSet<()>,
    /// Next generations that failed, on their way out.
    enders: JoinSet<()>,
    inputs: InputSender,
}

/// What has become of a start.
#[derive(Debug)]
pub(crate) enum Start {
    Running,
    /// There is no process, or it cannot be watched.
    Failed(String),
    /// The reload was over before, and it is told to go.
    TooLate,
}

impl Successor {
    /// `generation` is the number that the next one will have.
    pub(crate) fn new(generation: u64, inputs: InputSender) -> Self {
        Self {
            generation,
            attempts: 0,
            attempt: None,
            starting: 0,
            watchers: JoinSet::new(),
            enders: JoinSet::new(),
            inputs,
        }
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    pub(crate) fn attempts(&self) -> u64 {
        self.attempts
    }

    /// Begins a reload, and names it.
    pub(crate) fn begin(&mut self) -> Arc<str> {
        self.attempts += 1;
        let handover_id: Arc<str> = random::id().into();
        self.attempt = Some(Attempt {
            handover_id: Arc::clone(&handover_id),
            began: now(),
            ready: None,
            stage: NextStage::Absent,
            takes: BTreeSet::new(),
            records: 0,
            pid: None,
            ended: false,
        });
        handover_id
    }

    /// Whether what is heard of that attempt still counts.
    pub(crate) fn is_current(&self, attempt: u64) -> bool {
        attempt == self.attempts && self.is_running()
    }

    /// Whether a reload runs, or has ended in a handover.
    pub(crate) fn is_running(&self) -> bool {
        self.attempt.as_ref().is_some_and(|attempt| !attempt.ended)
    }

    pub(crate) fn handover_id(&self) -> Option<Arc<str>> {
        self.attempt.as_ref().map(|attempt| Arc::clone(&attempt.handover_id))
    }

    pub(crate) fn began(&self) -> Option<Instant> {
        self.attempt.as_ref().map(|attempt| attempt.began)
    }

    /// The process of the next generation, as long as it may still be there.
    fn next(&self) -> Option<&NextProcess> {
        self.attempt.as_ref()?.stage.next()
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.next().map(|next| next.process.pid())
    }

    /// What tells the next generation from any later process with its pid.
    pub(crate) fn pidfd_id(&self) -> Option<u64> {
        self.next().and_then(|next| next.process.pidfd_id())
    }

    /// The pid of the next generation, also when that has failed.
    pub(crate) fn last_pid(&self) -> Option<u32> {
        self.attempt.as_ref()?.pid
    }

    pub(crate) fn starting(&mut self) {
        self.starting += 1;
    }

    /// Whether a start has not come to its end yet.
    pub(crate) fn is_starting(&self) -> bool {
        self.starting > 0
    }

    pub(crate) fn started(&mut self, attempt: u64, next: Result<Next>) -> Start {
        self.starting -= 1;
        let current = self.is_current(attempt);
        let failed = |reason: String| if current { Start::Failed(reason) } else { Start::TooLate };
        let Next { process, link } = match next {
            Ok(next) => next,
            Err(error) => return failed(format!("did not start: {error}")),
        };
        let watched = link.into_link().and_then(|link| {
            let pidfd = process.try_clone_pidfd().map_err(|e| Error::os("a pidfd cannot be duplicated", e))?;
            Ok((Arc::new(link), pidfd))
        });
        match (watched, &mut self.attempt) {
            (Ok((link, pidfd)), Some(running)) if current => {
                let watching = watch::next(attempt, Arc::clone(&link), pidfd, self.inputs.clone());
                let watcher = self.watchers.spawn(watching);
                running.pid = Some(process.pid());
                let next = NextProcess { process, link, watcher };
                running.stage = NextStage::Spawned(Spawned { next, started: false });
                Start::Running
            }
            // It holds no clients.
            (watched, _) => {
                let (link, error) = match watched {
                    Ok((link, _)) => (Some(link), None),
                    Err(error) => (None, Some(error)),
                };
                self.enders.spawn(watch::end(self.generation, process, link, END_TIMEOUT));
                error.map_or(Start::TooLate, |error| failed(error.to_string()))
            }
        }
    }

    pub(crate) fn has_started(&mut self) {
        if let Some(Attempt { stage: NextStage::Spawned(spawned), .. }) = &mut self.attempt {
            spawned.started = true;
        }
    }

    /// Whether it runs and has never called the library.
    pub(crate) fn is_silent(&self) -> bool {
        let stage = self.attempt.as_ref().map(|attempt| &attempt.stage);
        matches!(stage, Some(NextStage::Spawned(Spawned { started: false, .. })))
    }

    /// Whether its process has ended, which nobody may have heard of yet.
    pub(crate) fn has_ended(&self) -> bool {
        self.next().is_some_and(|next| next.process.has_ended())
    }

    pub(crate) fn is_ready(&mut self) {
        if let Some(attempt) = &mut self.attempt {
            attempt.ready = Some(now());
        }
    }

    /// It is ready, and gets these changes of the fd store before it accepts.
    pub(crate) fn prepare(&mut self, changes: Changes) {
        let _ = self.step(|stage| match stage {
            NextStage::Spawned(spawned) => (NextStage::Prepared(spawned.prepare(changes)), Ok(())),
            other => (other, Err(gone())),
        });
    }

    pub(crate) fn switch(&mut self) -> Result<()> {
        self.step(|stage| match stage {
            NextStage::Prepared(prepared) => {
                let (switched, told) = prepared.switch();
                (NextStage::Switched(switched), told)
            }
            other => (other, Err(gone())),
        })
    }

    pub(crate) fn hand_over(&mut self, main: &Frame) -> Result<()> {
        let told = self.step(|stage| match stage {
            NextStage::Switched(switched) => {
                let (handed_over, told) = switched.hand_over(main);
                (NextStage::HandedOver(handed_over), told)
            }
            other => (other, Err(gone())),
        });
        if let Some(Attempt { stage: NextStage::HandedOver(HandedOver { next }), .. }) = &self.attempt {
            self.watchers.spawn(watch::successors(Arc::clone(&next.link), self.inputs.clone()));
        }
        told
    }

    fn step(&mut self, change: impl FnOnce(NextStage) -> (NextStage, Result<()>)) -> Result<()> {
        let attempt = self.attempt.as_mut().ok_or_else(gone)?;
        let (stage, told) = change(std::mem::take(&mut attempt.stage));
        attempt.stage = stage;
        told
    }

    /// It takes the connections of these listeners, too, with records of that version.
    pub(crate) fn takes(&mut self, records: u32, names: Vec<String>) {
        if let Some(attempt) = &mut self.attempt {
            attempt.records = records;
            attempt.takes.extend(names);
        }
    }

    /// Whether it shuts down what it takes, as there are copies.
    pub(crate) fn knows_copies(&self) -> bool {
        self.attempt.as_ref().is_some_and(|attempt| attempt.records >= KNOWS_COPIES)
    }

    /// Opens a channel for connections to it, if it takes some; returns our end, and the listeners.
    pub(crate) fn channel(&self) -> Result<Option<(Channel, BTreeSet<String>)>> {
        let Some(attempt) = self.attempt.as_ref().filter(|attempt| !attempt.takes.is_empty()) else { return Ok(None) };
        let (ours, theirs) = Channel::pair()?;
        let link = &self.next().ok_or_else(gone)?.link;
        let ours = Channel::new(ours)?;
        link.send_with(&Frame::Moving, &[theirs.as_fd()])?;
        Ok(Some((ours, attempt.takes.clone())))
    }

    /// Tells it something on the way.
    pub(crate) fn send(&self, frame: &Frame) -> Result<()> {
        self.next().ok_or_else(gone)?.link.send(frame)
    }

    /// How long it took until it was ready, and since then.
    pub(crate) fn times(&self) -> Option<(Duration, Duration)> {
        let Attempt { began, ready, .. } = self.attempt.as_ref()?;
        let ready = (*ready)?;
        Some((ready.saturating_duration_since(*began), now().saturating_duration_since(ready)))
    }

    /// Ends it: it is dismissed, gets SIGTERM, and after the grace SIGKILL. `then` is called when
    /// it is gone, where it may block.
    pub(crate) fn end(&mut self, grace: Duration, then: impl FnOnce() + Send + 'static) {
        let Some(attempt) = &mut self.attempt else { return };
        attempt.ended = true;
        let NextProcess { process, link, watcher } = match std::mem::take(&mut attempt.stage) {
            NextStage::Absent | NextStage::HandedOver(_) => return,
            NextStage::Spawned(Spawned { next, .. }) | NextStage::Prepared(Prepared { next, .. }) => next,
            NextStage::Switched(Switched { next }) => next,
        };
        watcher.abort();
        let generation = self.generation;
        self.enders.spawn(async move {
            watch::end(generation, process, Some(link), grace).await;
            let _ = tokio::task::spawn_blocking(then).await;
        });
    }

    /// The reload is over, and this generation is still the main one.
    pub(crate) fn close(&mut self) {
        self.attempt = None;
    }

    /// Waits for those that failed. Each has a deadline of its own, with SIGKILL at its end.
    pub(crate) async fn all_ended(&mut self) {
        while self.enders.join_next().await.is_some() {}
    }

    /// Forgets a task that has ended; returns for each.
    ///
    /// # Cancel safety
    /// None is lost.
    pub(crate) async fn task_ended(&mut self) {
        tokio::select! {
            Some(_) = self.enders.join_next() => {}
            Some(_) = self.watchers.join_next() => {}
            else => std::future::pending().await,
        }
    }
}

fn gone() -> Error {
    Error::new(Kind::Generation, "the next generation is gone")
}
