//! A program as a job: how it is set up.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::process::Command;

use super::child::{self, CommandReport};
use super::core::JobsCore;
use super::job::{Job, JobHandle, Outcome, Refused, Seat};
use super::output::Output;
use super::spec::ProgramSpec;
use crate::error::{Error, Kind, Result};

/// A program to be run as a job; made by [`Jobs::command`](super::Jobs::command) or
/// [`Job::command`].
///
/// The program leads a session and a process group of its own, so a terminal's Ctrl-C does not
/// reach it. It ends with the process that started it ([`survives_us`](Self::survives_us) changes
/// that), and so a crash leaves no orphan. Variables that are meant for the service
/// (`NOTIFY_SOCKET`, `LISTEN_FDS`, `WATCHDOG_USEC`, …) are taken out of its environment.
///
/// When its time is over (its own [`timeout`](Self::timeout), or the hammer) its process group gets
/// SIGTERM, and what is left of it after the [grace](Self::term_grace) SIGKILL. When it has ended
/// by itself, what it left behind in its group is killed.
///
/// # What a stop of the service does to it
/// systemd signals every process of the unit's *cgroup*, and a session is no protection from that.
/// A reload sends nothing. For a stop or a restart there are three ways:
///
/// | unit | the program of a job gets |
/// |---|---|
/// | `KillMode=control-group`, the default | SIGTERM at once: it fails, killed by that signal, unless it handles it |
/// | the same, with an `ExecStop=` that tells the main process to stop and *waits* for its end | nothing until the jobs are over; needs no right |
/// | the same, and a [scope](crate::jobs#a-scope-for-each-program) for the program | nothing; needs root, or the user's manager |
/// | `KillMode=mixed` | nothing in a stop; but SIGKILL, without a word, if the main process dies, and old generations with it: wrong here |
///
/// # Limitations
/// Starting copies the page tables of this process (fork): 50 ms per GiB of heap, on a thread of
/// its own. A program that changes its user (set-uid) loses the tie to our end.
#[must_use = "it does nothing until spawned or run"]
pub struct JobCommand {
    core: Arc<JobsCore>,
    parent: Option<Job>,
    spec: ProgramSpec,
}

impl JobCommand {
    pub(super) fn new(core: Arc<JobsCore>, parent: Option<Job>, name: String, command: Command) -> Self {
        Self { core, parent, spec: ProgramSpec::new(name, command) }
    }

    /// Sets how long it may run until it is ended. By default that is as long as the service lets
    /// it.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.spec.timeout = Some(timeout);
        self
    }

    /// Sets how long it may take from SIGTERM until SIGKILL. The default is
    /// [`TERM_GRACE`](super::TERM_GRACE). After the hammer the service waits for so long, so
    /// `TimeoutStopSec=` must have room for it beyond the drain timeout; and a generation that has
    /// handed over is killed 5 s after its drain timeout.
    pub fn term_grace(mut self, grace: Duration) -> Self {
        self.spec.term_grace = grace;
        self
    }

    /// Sets what it reads from stdin. By default that is nothing: stdin is `/dev/null`.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.spec.stdin = Some(bytes.into());
        self
    }

    /// Sets where its stdout and stderr go. By default the last 64 KiB of each go into the report.
    pub fn output(mut self, output: Output) -> Self {
        self.spec.output = output;
        self
    }

    /// Lets it go on if this process dies. That is for a program in a scope (in the unit's own
    /// cgroup systemd ends it) whose work another process can account for, with an [`Output`] that
    /// does not need us. By default it is killed (`PR_SET_PDEATHSIG`): nobody would know how it
    /// ended, and the service that is started next might do its work a second time.
    pub fn survives_us(mut self) -> Self {
        self.spec.survives = true;
        self
    }

    /// Runs it in a transient scope of its own, out of reach of the unit's stop: see [the
    /// module](crate::jobs).
    #[cfg(feature = "scope")]
    pub fn scope(mut self, scope: crate::systemd::scope::Scope) -> Self {
        self.spec.scope = Some(scope);
        self
    }

    /// Starts it. The handle resolves to what came of it; an error there says that it could not be
    /// started.
    ///
    /// # Errors
    /// A drain has begun, or there is no tokio runtime: [`Refused`] gives the command back.
    pub fn spawn(self) -> Result<JobHandle<Result<CommandReport>>, Refused<Self>> {
        match Seat::take(&self.core, self.parent.as_ref(), self.spec.name.clone()) {
            Ok(seat) => Ok(seat.launch(move |job| child::run(Arc::clone(job.core()), self.spec), failure)),
            Err(error) => Err(Refused::new(error, self)),
        }
    }

    /// Starts it, and waits for its end.
    ///
    /// # Errors
    /// With [`Error::is_state`]: it was not started because a drain has begun, or it was cut.
    /// Otherwise it could not be started, and the message says why. That it fails or runs into its
    /// timeout is no error but in the report.
    ///
    /// # Cancel safety
    /// The program goes on as a job if this future is dropped; unless this happens because the job
    /// around it is cut.
    pub async fn run(self) -> Result<CommandReport> {
        let name = self.spec.name.clone();
        match self.spawn()?.await {
            Outcome::Finished(result) => result,
            Outcome::Panicked(why) => Err(Error::new(Kind::State, format!("the job {name:?} panicked: {why}"))),
            Outcome::Cut => Err(Error::new(Kind::State, format!("the job {name:?} was cut"))),
        }
    }
}

impl Job {
    /// Prepares a program, as [`Jobs::command`](super::Jobs::command) does, as a part of this job.
    pub fn command(&self, name: impl AsRef<str>, command: impl Into<Command>) -> JobCommand {
        let name = self.name_of(name.as_ref());
        JobCommand::new(Arc::clone(self.core()), Some(self.clone()), name, command.into())
    }
}

fn failure(result: &Result<CommandReport>) -> Option<String> {
    match result {
        Ok(report) if report.success() => None,
        Ok(report) => Some(report.end.to_string()),
        Err(error) => Some(error.to_string()),
    }
}

impl fmt::Debug for JobCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // not the command: its arguments and variables may hold secrets
        f.debug_struct("JobCommand").field("name", &self.spec.name).finish_non_exhaustive()
    }
}
