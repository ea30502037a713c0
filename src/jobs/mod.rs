//! Work that is not a connection: jobs, workers that fetch them from a queue, and the programs that they run.
//!
//! A job is counted in the [`Drain`] like a connection: a reload or a stop waits for it, under the drain timeout. From the moment
//! a drain begins no new job starts; those that run are told ([`Job::draining`]) and finish, and jobs that they start themselves
//! are finished too. At the drain timeout the hammer falls: what still runs is cut, counted and named.
//!
//! ```
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use handover::Drain;
//! use handover::jobs::{Jobs, Outcome};
//!
//! let jobs = Jobs::new(&Drain::new()); // of a service: service.jobs()
//! let sum = jobs.spawn("sum", |_job| async { 1 + 1 })?;
//! let lines = jobs.spawn_blocking("count lines", |_job| "a\nb\n".lines().count())?;
//! assert_eq!(sum.await, Outcome::Finished(2));
//! assert_eq!(lines.await, Outcome::Finished(2));
//! # Ok(())
//! # }
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(example()).unwrap();
//! ```
//!
//! | for | use | at the hammer |
//! |---|---|---|
//! | a future | [`Jobs::spawn`] | dropped at its next `.await` |
//! | code that blocks | [`Jobs::spawn_blocking`] | cannot be stopped; named, and the process exits without it |
//! | a program | [`Jobs::command`] | SIGTERM, and SIGKILL after a grace |
//! | a queue | [`Jobs::worker`] | its items are jobs; it has stopped fetching long before |
//!
//! # A scope for each program
//! With the feature `scope` a program can run in a transient scope of its own (`JobCommand::scope` and the module
//! `handover::systemd::scope`): another cgroup, which a stop of the service does not reach. [`JobCommand`] says what else does.
//!
//! # Limitations
//! A blocking job has a thread of its own: bound their number where you start them, or use a worker.

mod child;
mod command;
mod job;
mod output;
mod program;
#[cfg(feature = "scope")]
mod scoped;
mod spawner;
mod worker;

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;

pub use self::child::{CommandReport, End, KILL_TIMEOUT, TERM_GRACE};
pub use self::command::JobCommand;
pub use self::job::{Job, JobHandle, Outcome, Refused};
pub use self::output::{Captured, LINE_LIMIT, OUTPUT_GRACE, OUTPUT_LIMIT, Output};
pub use self::worker::{FETCH_RETRY_MAX, FETCH_RETRY_MIN, IDLE_PAUSE, Worker, WorkerHandle, WorkerReport};

use self::child::Children;
use self::job::Seat;
use self::spawner::Lanes;
use crate::drain::{Drain, DrainSignal};
use crate::error::{Error, Kind};

/// Starts jobs, and knows them until they are over. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Jobs {
    pub(crate) core: Arc<Core>,
}

#[derive(Debug)]
pub(crate) struct Core {
    drain: Drain,
    counts: Arc<Counts>,
    children: Children,
    lanes: Lanes,
    #[cfg(feature = "scope")]
    scopes: crate::systemd::scope::Scopes,
}

impl Jobs {
    /// Jobs that this drain waits for. Of a service take [`Service::jobs`](crate::Service::jobs), which also sees to the end of
    /// cut programs before the process exits.
    #[must_use]
    pub fn new(drain: &Drain) -> Self {
        Self {
            core: Arc::new(Core {
                drain: drain.clone(),
                counts: Arc::default(),
                children: Children::default(),
                lanes: Lanes::default(),
                #[cfg(feature = "scope")]
                scopes: crate::systemd::scope::Scopes::default(),
            }),
        }
    }

    /// Starts a job; `name` names it in the log and if it must be cut.
    ///
    /// At the hammer the future is dropped, at the latest at its next `.await`. A panic in it ends it alone. If the handle is
    /// dropped the job goes on.
    ///
    /// # Errors
    /// A drain has begun, or there is no tokio runtime: [`Refused`] gives the closure back, which was not called.
    pub fn spawn<F, Fut>(&self, name: impl Into<String>, job: F) -> Result<JobHandle<Fut::Output>, Refused<F>>
    where
        F: FnOnce(Job) -> Fut + Send + 'static,
        Fut: Future + Send + 'static,
        Fut::Output: Send + 'static,
    {
        match Seat::take(&self.core, None, name.into()) {
            Ok(seat) => Ok(seat.launch(job, |_| None)),
            Err(error) => Err(Refused::new(error, job)),
        }
    }

    /// Starts a job on a thread of its own, where it may block, and may use [`Handle::current`].
    ///
    /// A thread cannot be stopped from outside: look at [`Job::draining`] between two steps of long work. At the hammer the job is
    /// named as cut, its handle says so, and the process exits without waiting for it. (On tokio's own blocking threads it could
    /// not: a runtime waits for those when it is dropped.)
    ///
    /// # Errors
    /// A drain has begun, there is no tokio runtime, or the system has no room for one more thread: [`Refused`] gives
    /// the closure back.
    pub fn spawn_blocking<F, T>(&self, name: impl Into<String>, job: F) -> Result<JobHandle<T>, Refused<F>>
    where
        F: FnOnce(Job) -> T + Send + 'static,
        T: Send + 'static,
    {
        match Seat::take(&self.core, None, name.into()) {
            Ok(seat) => seat.launch_blocking(job),
            Err(error) => Err(Refused::new(error, job)),
        }
    }

    /// A program as a job, to be set up further and then [spawned](JobCommand::spawn) or [run](JobCommand::run).
    ///
    /// ```no_run
    /// # async fn example(jobs: &handover::jobs::Jobs) -> handover::Result<()> {
    /// use std::process::Command;
    /// use std::time::Duration;
    ///
    /// let mut tar = Command::new("tar");
    /// tar.args(["-cf", "/backup/home.tar", "/home"]);
    /// let report = jobs.command("backup", tar).timeout(Duration::from_secs(600)).run().await?;
    /// if !report.success() {
    ///     eprintln!("the backup {}: {}", report.end, report.stderr.text());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn command(&self, name: impl Into<String>, command: impl Into<tokio::process::Command>) -> JobCommand {
        JobCommand::new(Arc::clone(&self.core), None, name.into(), command.into())
    }

    /// A loop that fetches items from a queue and runs each as a job, `concurrency` at a time (at least one).
    ///
    /// It fetches only while this generation is the one that serves: it begins when the [`Drain`]'s gate opens, and pauses while
    /// that is shut. See [`Worker`] for what becomes of an item that was fetched and not started.
    ///
    /// ```no_run
    /// # struct Queue;
    /// # impl Queue {
    /// #     async fn next(&self) -> Result<Option<u64>, std::io::Error> { Ok(None) }
    /// #     async fn put_back(&self, _: u64) -> Result<(), std::io::Error> { Ok(()) }
    /// #     async fn done(&self, _: u64) -> Result<(), std::io::Error> { Ok(()) }
    /// # }
    /// # fn example(service: &handover::Service, queue: &'static Queue) -> handover::Result<()> {
    /// service
    ///     .jobs()
    ///     .worker("orders", 4, || queue.next(), move |order, _job| async move { queue.done(order).await })
    ///     .give_back(move |order| queue.put_back(order))
    ///     .start()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn worker<I, Fetch, Fetched, FetchError, Run, Ran, RunError>(
        &self,
        name: impl Into<String>,
        concurrency: usize,
        fetch: Fetch,
        run: Run,
    ) -> Worker<I>
    where
        I: Send + 'static,
        Fetch: FnMut() -> Fetched + Send + 'static,
        Fetched: Future<Output = Result<Option<I>, FetchError>> + Send + 'static,
        FetchError: fmt::Display,
        Run: Fn(I, Job) -> Ran + Send + Sync + 'static,
        Ran: Future<Output = Result<(), RunError>> + Send + 'static,
        RunError: fmt::Display,
    {
        Worker::new(self.clone(), name.into(), concurrency, fetch, run)
    }

    /// What has become of the jobs so far.
    #[must_use]
    pub fn report(&self) -> JobReport {
        self.core.counts.lock().clone()
    }

    /// Resolves when the drain begins.
    pub fn draining(&self) -> DrainSignal {
        self.core.drain.signal()
    }

    /// Resolves when no program of a job runs any more: after the hammer those that were cut still have their
    /// [grace](TERM_GRACE). Bounded by that and [`KILL_TIMEOUT`]; whether none is left.
    ///
    /// A service does so before it exits. Without a service do it between [`Drain::hammer`] and the end of `main`.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn programs_ended(&self) -> bool {
        self.core.children.ended().await
    }

    /// Kills what a process of this service left in scopes when it died, and says how many scopes that were. A program in a scope
    /// dies with us, but not what it had started itself, which systemd does not end either. To be called before the work of a
    /// crashed process is done again: by the first generation.
    ///
    /// # Errors
    /// With [`Error::is_notify`]: there is no service manager, or it refuses.
    #[cfg(feature = "scope")]
    pub async fn kill_orphans(&self) -> crate::error::Result<usize> {
        self.core.scopes.kill_orphans().await
    }

    /// How long [`programs_ended`](Self::programs_ended) may take; 0 if none runs.
    pub(crate) fn programs_end_within(&self) -> Duration {
        self.core.children.end_within()
    }
}

/// How many of those that were cut a line names.
const NAMED: usize = 10;

/// How many jobs there were, and what has become of them. `Display` says it in a line, with the names of ten. Jobs that a job started are parts of it,
/// and not counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct JobReport {
    /// All that were started.
    pub started: u64,
    /// Those that returned well.
    pub finished: u64,
    /// Those that panicked; commands that could not start, or did not exit with 0; items of a worker that returned an error.
    pub failed: u64,
    /// The names of those that were cut, in no order.
    pub cut: Vec<String>,
}

impl JobReport {
    /// Those that are neither over nor cut.
    #[must_use]
    pub fn running(&self) -> u64 {
        let cut = u64::try_from(self.cut.len()).unwrap_or(u64::MAX);
        self.started.saturating_sub(self.finished).saturating_sub(self.failed).saturating_sub(cut)
    }
}

impl fmt::Display for JobReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { started, finished, failed, cut } = self;
        write!(f, "{started} started, {finished} finished, {failed} failed, {} cut", cut.len())?;
        if !cut.is_empty() {
            write!(f, " ({}", cut[..cut.len().min(NAMED)].join(", ").escape_debug())?;
            match cut.len().saturating_sub(NAMED) {
                0 => f.write_str(")")?,
                more => write!(f, " and {more} more)")?,
            }
        }
        match self.running() {
            0 => Ok(()),
            running => write!(f, ", {running} running"),
        }
    }
}

#[derive(Debug, Default)]
struct Counts(Mutex<JobReport>);

impl Counts {
    /// Nothing else is locked while this is: the drain locks it from within.
    fn lock(&self) -> std::sync::MutexGuard<'_, JobReport> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn runtime() -> Result<Handle, Error> {
    Handle::try_current().map_err(|_| Error::new(Kind::State, "a job needs a tokio runtime: start it in an async fn"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_it_in_a_line() {
        let cut = vec!["a\nb".to_owned()];
        let report = JobReport { started: 5, finished: 2, failed: 1, cut };
        assert_eq!(report.to_string(), "5 started, 2 finished, 1 failed, 1 cut (a\\nb), 1 running");
        let report = JobReport { started: 12, cut: vec!["x".to_owned(); 12], ..JobReport::default() };
        assert!(report.to_string().ends_with("12 cut (x, x, x, x, x, x, x, x, x, x and 2 more)"), "{report}");
    }

    #[test]
    fn no_runtime_is_an_error_and_no_panic() {
        let jobs = Jobs::new(&Drain::new());
        let refused = jobs.spawn("a", |_| async { 7 }).unwrap_err();
        assert!(refused.error().is_state(), "{refused}");
        assert!(jobs.spawn_blocking("b", |_| 7).is_err());
        assert_eq!(jobs.report().started, 0);
    }
}
