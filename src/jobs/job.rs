//! One job: its place in the drain, its context, its outcome.

use std::any::Any;
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::thread;

use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tracing::{debug, warn};

use super::core::{JobsCore, runtime};
use super::report::Counts;
use crate::drain::{Cutting, DrainSignal, Guard, Phase, Work, since};
use crate::error::{Error, Kind};

/// What a job is told, and starts other jobs with.
///
/// It is of use while the job runs: jobs that it starts are part of it. They may start while a
/// drain is on, and the job is over when they are, too. It is cheap to clone.
#[derive(Debug, Clone)]
pub struct Job {
    core: Arc<JobsCore>,
    tracked: Arc<Tracked>,
    /// How many jobs this one has started that are not over.
    nested: Arc<watch::Sender<usize>>,
}

impl Job {
    /// Returns its name; that of a job which another one started is both: `parent > child`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.tracked.name
    }

    /// Resolves when the drain begins: finish soon, at the latest by the drain timeout. A job that
    /// can stop half-way without harm stops then. [`DrainSignal::has_begun`] is for code that
    /// blocks.
    pub fn draining(&self) -> DrainSignal {
        self.core.drain.signal()
    }

    /// Starts a job, as [`Jobs::spawn`](super::Jobs::spawn) does, as a part of this one.
    ///
    /// # Errors
    /// The hammer has fallen, or this job is over and a drain has begun.
    pub fn spawn<F, Fut>(&self, name: impl AsRef<str>, job: F) -> Result<JobHandle<Fut::Output>, Refused<F>>
    where
        F: FnOnce(Self) -> Fut + Send + 'static,
        Fut: Future + Send + 'static,
        Fut::Output: Send + 'static,
    {
        match Seat::take(&self.core, Some(self), self.name_of(name.as_ref())) {
            Ok(seat) => Ok(seat.launch(job, |_| None)),
            Err(error) => Err(Refused::new(error, job)),
        }
    }

    /// Starts a job that blocks, as [`Jobs::spawn_blocking`](super::Jobs::spawn_blocking) does, as
    /// a part of this one.
    ///
    /// # Errors
    /// The hammer has fallen, this job is over and a drain has begun, or there is no room for one
    /// more thread.
    pub fn spawn_blocking<F, T>(&self, name: impl AsRef<str>, job: F) -> Result<JobHandle<T>, Refused<F>>
    where
        F: FnOnce(Self) -> T + Send + 'static,
        T: Send + 'static,
    {
        match Seat::take(&self.core, Some(self), self.name_of(name.as_ref())) {
            Ok(seat) => seat.launch_blocking(job),
            Err(error) => Err(Refused::new(error, job)),
        }
    }

    pub(super) fn core(&self) -> &Arc<JobsCore> {
        &self.core
    }

    pub(super) fn name_of(&self, child: &str) -> String {
        format!("{} > {child}", self.name())
    }

    async fn nested_are_over(&self) {
        // the sender is ours, so it cannot be closed
        let _ = self.nested.subscribe().wait_for(|open| *open == 0).await;
    }
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome<T> {
    /// It returned this.
    Finished(T),
    /// It panicked, with this text.
    Panicked(String),
    /// The hammer fell before it was over; what it had done by then is unknown.
    Cut,
}

impl<T> Outcome<T> {
    /// Returns what the job returned, if it did.
    #[must_use]
    pub fn finished(self) -> Option<T> {
        match self {
            Self::Finished(value) => Some(value),
            Self::Panicked(_) | Self::Cut => None,
        }
    }
}

/// A job that was started; resolves to its [`Outcome`]. Dropping it does not end the job.
#[must_use = "dropping it does not end the job; await it, or `drop` it to say that the outcome is of no interest"]
pub struct JobHandle<T> {
    name: Arc<str>,
    told: oneshot::Receiver<Outcome<T>>,
    /// The cut of a blocking job: nobody else would tell of it.
    cut: Option<Cutting>,
}

impl<T> JobHandle<T> {
    /// Returns the job's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl<T> Future for JobHandle<T> {
    type Output = Outcome<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome<T>> {
        if let Poll::Ready(told) = Pin::new(&mut self.told).poll(cx) {
            // Nothing was told: the runtime has ended under it.
            return Poll::Ready(told.unwrap_or(Outcome::Cut));
        }
        match &mut self.cut {
            Some(cut) => Pin::new(cut).poll(cx).map(|()| Outcome::Cut),
            None => Poll::Pending,
        }
    }
}

impl<T> fmt::Debug for JobHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobHandle").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A job that was not started, with the reason.
pub struct Refused<F> {
    // boxed: the good way shall not pay for it
    what: Box<(Error, F)>,
}

impl<F> Refused<F> {
    pub(super) fn new(error: Error, job: F) -> Self {
        Self { what: Box::new((error, job)) }
    }

    /// Returns why it was refused; [`Error::is_state`] tells that a drain has begun.
    #[must_use]
    pub fn error(&self) -> &Error {
        &self.what.0
    }

    /// Returns the job as it was given: to be run in place, or given back to where it came from.
    #[must_use]
    pub fn into_job(self) -> F {
        self.what.1
    }
}

impl<F> From<Refused<F>> for Error {
    fn from(refused: Refused<F>) -> Self {
        refused.what.0
    }
}

impl<F> fmt::Display for Refused<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.what.0.fmt(f)
    }
}

impl<F> fmt::Debug for Refused<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refused").field("error", &self.what.0).finish_non_exhaustive()
    }
}

impl<F> std::error::Error for Refused<F> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.what.0.source()
    }
}

const RUNNING: u8 = 0;
const OVER: u8 = 1;
const CUT: u8 = 2;

/// A job as the drain sees it. Either it is over or it was cut: what the log says of it and what
/// its handle says agree.
#[derive(Debug)]
pub(super) struct Tracked {
    name: Arc<str>,
    since: Instant,
    state: AtomicU8,
    counts: Arc<Counts>,
    /// A part of another job, which is over only after it: that one is counted and named.
    part: bool,
}

impl Tracked {
    fn words(&self) -> String {
        format!("job {}, running for {:?}", self.name.escape_debug(), since(self.since))
    }

    fn is_running(&self) -> bool {
        self.state.load(Ordering::Acquire) == RUNNING
    }

    fn leave(&self, to: u8) -> bool {
        self.state.compare_exchange(RUNNING, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    fn end<T>(&self, result: Result<T, String>, failure: impl Fn(&T) -> Option<String>) -> Outcome<T> {
        if !self.leave(OVER) {
            return Outcome::Cut;
        }
        let (outcome, failure) = match result {
            Ok(value) => {
                let failure = failure(&value);
                (Outcome::Finished(value), failure)
            }
            Err(panic) => (Outcome::Panicked(panic.clone()), Some(format!("panicked: {panic}"))),
        };
        let took = since(self.since);
        match failure {
            Some(why) if self.part => debug!(job = &*self.name, ?took, "a part of a job failed: {why}"),
            None if self.part => {}
            None => {
                self.counts.lock().finished += 1;
                debug!(job = &*self.name, ?took, "job finished");
            }
            Some(why) => {
                self.counts.lock().failed += 1;
                warn!(job = &*self.name, ?took, "job {:?} failed: {why}", self.name);
            }
        }
        outcome
    }
}

impl Work for Tracked {
    fn wake(&self) {}

    fn doing(&self) -> Option<String> {
        (self.leave(CUT) && !self.part).then(|| {
            self.counts.lock().cut.push(self.name.to_string());
            self.words()
        })
    }

    fn held(&self) -> Option<String> {
        (self.is_running() && !self.part).then(|| self.words())
    }
}

/// A job that is counted, and not started yet.
pub(super) struct Seat {
    job: Job,
    guard: Guard,
    part: Option<Part>,
    runtime: Handle,
}

/// Counts a job that is part of another one, until dropped.
struct Part(Arc<watch::Sender<usize>>);

impl Part {
    fn of(parent: &Job) -> Self {
        parent.nested.send_modify(|open| *open += 1);
        Self(Arc::clone(&parent.nested))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
    }
}

impl Seat {
    pub(super) fn take(core: &Arc<JobsCore>, parent: Option<&Job>, name: String) -> Result<Self, Error> {
        // before the look at the parent, which waits for its parts before it is over
        let part = parent.map(Part::of);
        // of a parent that is over it is none
        let part = part.filter(|_| parent.is_some_and(|parent| parent.tracked.is_running()));
        let until = if part.is_some() { Phase::Hammered } else { Phase::Draining };
        Self::take_until(core, until, part, name)
    }

    /// Takes a seat for an item that was fetched. It is run even if a drain has begun meanwhile.
    pub(super) fn take_late(core: &Arc<JobsCore>, name: String) -> Result<Self, Error> {
        Self::take_until(core, Phase::Hammered, None, name)
    }

    fn take_until(core: &Arc<JobsCore>, until: Phase, part: Option<Part>, name: String) -> Result<Self, Error> {
        let runtime = runtime()?;
        let name: Arc<str> = name.into();
        let counts = Arc::clone(&core.counts);
        let tracked = Arc::new(Tracked {
            name,
            since: Instant::now(),
            state: AtomicU8::new(RUNNING),
            counts,
            part: part.is_some(),
        });
        let Some(guard) = core.drain.track_before(until, Arc::<Tracked>::clone(&tracked)) else {
            let why = if until == Phase::Hammered { "what is left is being cut" } else { "a drain has begun" };
            return Err(Error::new(Kind::State, format!("the job {:?} does not start: {why}", tracked.name)));
        };
        if part.is_none() {
            core.counts.lock().started += 1;
        }
        let job = Job { core: Arc::clone(core), tracked, nested: Arc::new(watch::Sender::new(0)) };
        Ok(Self { job, guard, part, runtime })
    }

    /// Starts the job as a task. `failure` says of a result that it is one.
    pub(super) fn launch<F, Fut>(
        self,
        work: F,
        failure: impl Fn(&Fut::Output) -> Option<String> + Send + 'static,
    ) -> JobHandle<Fut::Output>
    where
        F: FnOnce(Job) -> Fut + Send + 'static,
        Fut: Future + Send + 'static,
        Fut::Output: Send + 'static,
    {
        let Self { job, guard, part, runtime } = self;
        let (tell, told) = oneshot::channel();
        let name = Arc::clone(&job.tracked.name);
        runtime.spawn(async move {
            let context = job.clone();
            let result = tokio::select! {
                biased;
                () = guard.cut() => None,
                result = contained(async move { work(context).await }) => Some(result),
            };
            let outcome = match result {
                Some(result) => {
                    tokio::select! {
                        biased;
                        () = guard.cut() => {}
                        () = job.nested_are_over() => {}
                    }
                    job.tracked.end(result, failure)
                }
                None => Outcome::Cut,
            };
            let _ = tell.send(outcome);
            drop((guard, part));
        });
        JobHandle { name, told, cut: None }
    }

    pub(super) fn launch_blocking<F, T>(self, work: F) -> Result<JobHandle<T>, Refused<F>>
    where
        F: FnOnce(Job) -> T + Send + 'static,
        T: Send + 'static,
    {
        let Self { job, guard, part, runtime } = self;
        let (tell, told) = oneshot::channel();
        let (name, cut) = (Arc::clone(&job.tracked.name), Some(guard.cut()));
        // so that it can be given back if there is no thread for it
        let work = Arc::new(Mutex::new(Some(work)));
        let (theirs, tracked) = (Arc::clone(&work), Arc::clone(&job.tracked));
        // the kernel shows 15 bytes of it
        let builder = thread::Builder::new().name(name.chars().filter(|c| *c != '\0').take(15).collect());
        let started = builder.spawn(move || {
            let taken = theirs.lock().unwrap_or_else(PoisonError::into_inner).take();
            let Some(work) = taken else { return };
            let _entered = runtime.enter();
            let context = job.clone();
            let result = catch_unwind(AssertUnwindSafe(|| work(context))).map_err(|panic| text_of(&*panic));
            // panics only if the runtime is gone: then nobody waits for us either
            let _ = catch_unwind(AssertUnwindSafe(|| runtime.block_on(job.nested_are_over())));
            let _ = tell.send(job.tracked.end(result, |_| None));
            drop((guard, part));
        });
        let Err(error) = started else { return Ok(JobHandle { name, told, cut }) };
        let error = Error::os(format!("no thread for the job {name:?} (TasksMax=, LimitNPROC=)"), error);
        if tracked.leave(OVER) && !tracked.part {
            tracked.counts.lock().started -= 1;
        }
        let back = work.lock().unwrap_or_else(PoisonError::into_inner).take();
        match back {
            Some(work) => Err(Refused::new(error, work)),
            // cannot be: only the thread takes it
            None => Ok(JobHandle { name, told, cut }),
        }
    }
}

/// Returns the future's result, or the text of its panic.
pub(super) async fn contained<F: Future>(future: F) -> Result<F::Output, String> {
    let mut future = pin!(future);
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(poll) => poll.map(Ok),
        Err(panic) => Poll::Ready(Err(text_of(&*panic))),
    })
    .await
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("with no text").to_owned()
}
