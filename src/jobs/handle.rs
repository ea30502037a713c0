//! Starting jobs, programs and workers.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::command::JobCommand;
use super::core::JobsCore;
use super::job::{Job, JobHandle, Refused, Seat};
use super::report::JobReport;
use super::worker::Worker;
use crate::drain::{Drain, DrainSignal};

/// Starts jobs, and knows them until they are over. It is cheap to clone.
#[derive(Debug, Clone)]
pub struct Jobs {
    core: Arc<JobsCore>,
}

impl Jobs {
    /// Jobs that this drain waits for. Of a service take [`Service::jobs`](crate::Service::jobs),
    /// which also sees to the end of cut programs before the process exits.
    #[must_use]
    pub fn new(drain: &Drain) -> Self {
        Self { core: Arc::new(JobsCore::new(drain)) }
    }

    /// Starts a job; `name` names it in the log and if it must be cut.
    ///
    /// At the hammer the future is dropped, at the latest at its next `.await`. A panic in it ends
    /// it alone. If the handle is dropped the job goes on.
    ///
    /// # Errors
    /// A drain has begun, or there is no tokio runtime: [`Refused`] gives the closure back, which
    /// was not called.
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

    /// Starts a job on a thread of its own, where it may block, and may use
    /// [`Handle::current`](tokio::runtime::Handle::current).
    ///
    /// A thread cannot be stopped from outside: look at [`Job::draining`] between two steps of long
    /// work. At the hammer the job is named as cut, its handle says so, and the process exits
    /// without waiting for it. (On tokio's own blocking threads it could not: a runtime waits for
    /// those when it is dropped.)
    ///
    /// # Errors
    /// A drain has begun, there is no tokio runtime, or the system has no room for one more thread:
    /// [`Refused`] gives the closure back.
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

    /// Prepares a program as a job, to be set up further and then [spawned](JobCommand::spawn) or
    /// [run](JobCommand::run).
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

    /// Prepares a loop that fetches items from a queue and runs each as a job, `concurrency` at a
    /// time (at least one).
    ///
    /// It fetches only while this generation is the one that serves: it begins when the [`Drain`]'s
    /// gate opens, and pauses while that is shut. See [`Worker`] for what becomes of an item that
    /// was fetched and not started.
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
        Worker::new(Arc::clone(&self.core), name.into(), concurrency, fetch, run)
    }

    /// Returns what has become of the jobs so far.
    #[must_use]
    pub fn report(&self) -> JobReport {
        self.core.counts.lock().clone()
    }

    /// Resolves when the drain begins.
    pub fn draining(&self) -> DrainSignal {
        self.core.drain.signal()
    }

    /// Resolves when no program of a job runs any more: after the hammer those that were cut still
    /// have their [grace](super::TERM_GRACE). Bounded by that and
    /// [`KILL_TIMEOUT`](super::KILL_TIMEOUT); whether none is left.
    ///
    /// A service does so before it exits. Without a service do it between [`Drain::hammer`] and the
    /// end of `main`.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn programs_ended(&self) -> bool {
        self.core.children.ended().await
    }

    /// Kills what a process of this service left in scopes when it died, and says how many scopes
    /// that were. A program in a scope dies with us, but not what it had started itself, which
    /// systemd does not end either. To be called before the work of a crashed process is done
    /// again: by the first generation.
    ///
    /// # Errors
    /// With [`Error::is_notify`](crate::Error::is_notify): there is no service manager, or it
    /// refuses.
    #[cfg(feature = "scope")]
    pub async fn kill_orphans(&self) -> crate::error::Result<usize> {
        self.core.scopes.kill_orphans().await
    }

    /// Returns how long [`programs_ended`](Self::programs_ended) may take; 0 if none runs.
    pub(crate) fn programs_end_within(&self) -> Duration {
        self.core.children.end_within()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_runtime_is_an_error_and_no_panic() {
        let jobs = Jobs::new(&Drain::new());
        let refused = jobs.spawn("a", |_| async { 7 }).unwrap_err();
        assert!(refused.error().is_state(), "{refused}");
        assert!(jobs.spawn_blocking("b", |_| 7).is_err());
        assert_eq!(jobs.report().started, 0);
    }
}
