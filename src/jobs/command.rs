//! A program as a job: how it is set up.

use std::fmt;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::process::Command;

use super::child::{self, CommandReport, TERM_GRACE};
use super::job::{JobHandle, Outcome, Refused, Seat};
use super::output::Output;
use super::{Core, Job};
use crate::error::{Error, Kind, Result};

/// Meant for the service itself: a program that took them up would speak for it, or wait for sockets that it does not have.
const OURS: [&str; 13] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "LISTEN_PID",
    "LISTEN_PIDFDID",
    "FDSTORE",
    "MAINPID",
    "MANAGERPID",
    "SYSTEMD_EXEC_PID",
    "HANDOVER_FD",
    "HANDOVER_PID",
];

/// A program to be run as a job; made by [`Jobs::command`](super::Jobs::command) or [`Job::command`].
///
/// The program leads a session and a process group of its own, so a terminal's Ctrl-C does not reach it. It ends with the process
/// that started it ([`survives_us`](Self::survives_us) changes that), and so a crash leaves no orphan. Variables
/// that are meant for the service (`NOTIFY_SOCKET`, `LISTEN_FDS`, `WATCHDOG_USEC`, …) are taken out of its environment.
///
/// When its time is over (its own [`timeout`](Self::timeout), or the hammer) its process group gets SIGTERM, and what is left of
/// it after the [grace](Self::term_grace) SIGKILL. When it has ended by itself, what it left behind in its group is killed.
///
/// # What a stop of the service does to it
/// systemd signals every process of the unit's *cgroup*, and a session is no protection from that. A reload sends nothing. For a
/// stop or a restart there are three ways:
///
/// | unit | the program of a job gets |
/// |---|---|
/// | `KillMode=control-group`, the default | SIGTERM at once: it fails, killed by that signal, unless it handles it |
/// | the same, with an `ExecStop=` that tells the main process to stop and *waits* for its end | nothing until the jobs are over; needs no right |
/// | the same, and a [scope](crate::jobs#a-scope-for-each-program) for the program | nothing; needs root, or the user's manager |
/// | `KillMode=mixed` | nothing in a stop; but SIGKILL, without a word, if the main process dies, and old generations with it: wrong here |
///
/// # Limitations
/// Starting copies the page tables of this process (fork): 50 ms per GiB of heap, on a thread of its own. A program that changes its
/// user (set-uid) loses the tie to our end.
#[must_use = "it does nothing until spawned or run"]
pub struct JobCommand {
    core: Arc<Core>,
    parent: Option<Job>,
    pub(super) name: String,
    pub(super) command: Command,
    pub(super) stdin: Option<Vec<u8>>,
    pub(super) output: Output,
    pub(super) timeout: Option<Duration>,
    pub(super) term_grace: Duration,
    pub(super) survives: bool,
    #[cfg(feature = "scope")]
    pub(super) scope: Option<crate::systemd::scope::Scope>,
}

impl JobCommand {
    pub(super) fn new(core: Arc<Core>, parent: Option<Job>, name: String, command: Command) -> Self {
        Self {
            core,
            parent,
            name,
            command,
            stdin: None,
            output: Output::default(),
            timeout: None,
            term_grace: TERM_GRACE,
            survives: false,
            #[cfg(feature = "scope")]
            scope: None,
        }
    }

    /// How long it may run until it is ended. Default: as long as the service lets it.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// How long it may take from SIGTERM until SIGKILL. Default [`TERM_GRACE`]. After the hammer the service waits for so long,
    /// so `TimeoutStopSec=` must have room for it beyond the drain timeout; and a generation that has handed over is killed 5 s
    /// after its drain timeout.
    pub fn term_grace(mut self, grace: Duration) -> Self {
        self.term_grace = grace;
        self
    }

    /// What it reads from stdin. Default: nothing, stdin is `/dev/null`.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(bytes.into());
        self
    }

    /// Where its stdout and stderr go. Default: the last 64 KiB of each into the report.
    pub fn output(mut self, output: Output) -> Self {
        self.output = output;
        self
    }

    /// It goes on if this process dies. For a program in a scope (in the unit's own cgroup systemd ends it), whose work another
    /// process can account for; with an [`Output`] that does not need us. Default: it is killed (`PR_SET_PDEATHSIG`), for
    /// nobody would know how it ended, and the service that is started next might do its work a second time.
    pub fn survives_us(mut self) -> Self {
        self.survives = true;
        self
    }

    /// It runs in a transient scope of its own, out of reach of the unit's stop: see [the module](crate::jobs).
    #[cfg(feature = "scope")]
    pub fn scope(mut self, scope: crate::systemd::scope::Scope) -> Self {
        self.scope = Some(scope);
        self
    }

    /// Starts it. The handle resolves to what came of it; an error there says that it could not be started.
    ///
    /// # Errors
    /// A drain has begun, or there is no tokio runtime: [`Refused`] gives the command back.
    pub fn spawn(self) -> Result<JobHandle<Result<CommandReport>>, Refused<Self>> {
        match Seat::take(&self.core, self.parent.as_ref(), self.name.clone()) {
            Ok(seat) => Ok(seat.launch(move |job| child::run(Arc::clone(job.core()), self), failure)),
            Err(error) => Err(Refused::new(error, self)),
        }
    }

    /// Starts it, and waits for its end.
    ///
    /// # Errors
    /// With [`Error::is_state`]: it was not started because a drain has begun, or it was cut. Otherwise it could not be
    /// started, and the message says why. That it fails or runs into its timeout is no error but in the report.
    ///
    /// # Cancel safety
    /// The program goes on as a job if this future is dropped; unless this happens because the job around it is cut.
    pub async fn run(self) -> Result<CommandReport> {
        let name = self.name.clone();
        match self.spawn()?.await {
            Outcome::Finished(result) => result,
            Outcome::Panicked(why) => Err(Error::new(Kind::State, format!("the job {name:?} panicked: {why}"))),
            Outcome::Cut => Err(Error::new(Kind::State, format!("the job {name:?} was cut"))),
        }
    }

    /// Applies all that is known before the start.
    pub(super) fn prepare(&mut self) {
        let given: Vec<_> = self.command.as_std().get_envs().map(|(name, _)| name.to_owned()).collect();
        for name in OURS.iter().filter(|name| !given.iter().any(|g| g == **name)) {
            self.command.env_remove(name);
        }
        self.command.stdin(if self.stdin.is_some() { Stdio::piped() } else { Stdio::null() });
        let output = match self.output {
            Output::Capture(_) | Output::Log => Stdio::piped,
            Output::Inherit => Stdio::inherit,
            Output::AsGiven => return,
        };
        self.command.stdout(output()).stderr(output());
    }

    pub(super) fn death_signal(&self) -> Option<Signal> {
        (!self.survives).then_some(Signal::SIGKILL)
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
        f.debug_struct("JobCommand").field("name", &self.name).finish_non_exhaustive()
    }
}
