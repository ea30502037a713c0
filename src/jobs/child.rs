//! A program of a job, from its start to its end, whatever becomes of the job.

use std::fmt;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};
use tracing::info;

use super::core::JobsCore;
use super::output::{Captured, OUTPUT_GRACE, Output, Reader};
use super::program::{Reaped, RunningProgram};
use super::spec::ProgramSpec;
use crate::drain::FAR;
use crate::error::{Error, Kind, Result};
use crate::sys::pidfd::Ended;

/// What came of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CommandReport {
    /// How it ended.
    pub end: End,
    /// Its exit status, if the kernel told it; also that of a program that ran into its timeout.
    pub status: Option<ExitStatus>,
    /// How long it ran.
    pub took: Duration,
    /// What it wrote to stdout, see [`Output`].
    pub stdout: Captured,
    /// What it wrote to stderr.
    pub stderr: Captured,
}

impl CommandReport {
    /// Returns whether it exited with 0, in time.
    #[must_use]
    pub fn success(&self) -> bool {
        self.end == End::Exited(0)
    }
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum End {
    /// It exited with this status.
    Exited(i32),
    /// It was killed by this signal, not by us. 15 (SIGTERM) in a stop: see
    /// [`JobCommand`](super::JobCommand).
    Killed(i32),
    /// It ran longer than its timeout, and was ended.
    TimedOut(Duration),
    /// It ended, and somebody else in this process took its status (`waitpid(-1)`).
    Unknown,
    /// It did not end on SIGKILL, within [`KILL_TIMEOUT`](super::KILL_TIMEOUT).
    Stuck,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => Ended::Exited(*code).fmt(f),
            Self::Killed(number) => Ended::Killed(*number).fmt(f),
            Self::TimedOut(limit) => write!(f, "ran longer than its timeout of {limit:?}, and was ended"),
            Self::Unknown => f.write_str("ended, and somebody else took its status"),
            Self::Stuck => f.write_str("hangs in the kernel, and cannot be killed"),
        }
    }
}

/// A program that runs. It also keeps the thread that the program is tied to.
#[derive(Debug)]
struct Alive(Arc<JobsCore>);

impl Alive {
    fn new(core: &Arc<JobsCore>, grace: Duration) -> Self {
        core.children.enter(grace);
        Self(Arc::clone(core))
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.children.leave();
    }
}

/// Runs it to its end. If this future is dropped the program is ended, in order: by a task of its
/// own.
pub(super) async fn run(core: Arc<JobsCore>, command: ProgramSpec) -> Result<CommandReport> {
    let alive = Alive::new(&core, command.term_grace);
    let (mut tell, told) = oneshot::channel();
    tokio::spawn(async move {
        let result = supervise(&core, command, &mut tell).await;
        let _ = tell.send(result);
        drop(alive);
    });
    told.await.unwrap_or_else(|_| Err(Error::new(Kind::State, "the runtime has ended")))
}

type Tell = oneshot::Sender<Result<CommandReport>>;

async fn supervise(core: &Arc<JobsCore>, mut command: ProgramSpec, tell: &mut Tell) -> Result<CommandReport> {
    let began = Instant::now();
    command.prepare();
    let stdin = command.stdin.take();
    let (name, output, grace): (Arc<str>, _, _) = (command.name.as_str().into(), command.output, command.term_grace);
    let limit = command.timeout;
    let mut program = RunningProgram::start(core, command).await?;
    if let (Some(bytes), Some(mut pipe)) = (stdin, program.child.stdin.take()) {
        // a program that does not read has closed it when it ends: this ends, too
        tokio::spawn(async move { pipe.write_all(&bytes).await.is_ok() });
    }
    let (stdout, stderr) = (program.child.stdout.take(), program.child.stderr.take());
    let readers = match output {
        Output::Capture(limit) => {
            (stdout.map(|o| Reader::capture(o, limit)), stderr.map(|e| Reader::capture(e, limit)))
        }
        Output::Log => (
            stdout.map(|o| Reader::log(o, Arc::clone(&name), "stdout")),
            stderr.map(|e| Reader::log(e, Arc::clone(&name), "stderr")),
        ),
        Output::Inherit | Output::AsGiven => (None, None),
    };
    let timed_out = tokio::select! {
        biased;
        () = program.ended() => false,
        () = tell.closed() => {
            info!(job = &*name, child = program.pid, "the program of {name:?} is cut: it gets SIGTERM, and SIGKILL after {grace:?}");
            program.end(grace).await;
            false
        }
        () = sleep_until(began + limit.unwrap_or(FAR).min(FAR)) => {
            program.end(grace).await;
            true
        }
    };
    let reaped = program.reap(core).await;
    let until = Instant::now() + OUTPUT_GRACE;
    let captured = |reader: Option<Reader>| async move {
        match reader {
            Some(reader) => reader.end(until).await,
            None => Captured::default(),
        }
    };
    let (stdout, stderr) = (captured(readers.0).await, captured(readers.1).await);
    let (status, end) = match reaped {
        Reaped::Status(status) => match (status.code(), status.signal()) {
            (Some(code), _) => (Some(status), End::Exited(code)),
            (None, signal) => (Some(status), End::Killed(signal.unwrap_or_default())),
        },
        Reaped::ByOthers => (None, End::Unknown),
        Reaped::Not => (None, End::Stuck),
    };
    let end = timed_out.then_some(limit).flatten().map_or(end, End::TimedOut);
    if tell.is_closed() {
        info!(job = &*name, child = program.pid, "the program of {name:?} {end}");
    }
    Ok(CommandReport { end, status, took: began.elapsed(), stdout, stderr })
}
