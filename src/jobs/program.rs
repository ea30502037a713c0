//! A process of ours, by its pidfd and its process group.

use std::io;
use std::os::fd::OwnedFd;
use std::process::ExitStatus;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::process::Child;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::children::KILL_TIMEOUT;
use super::core::JobsCore;
#[cfg(feature = "scope")]
use super::scoped;
use super::spec::ProgramSpec;
use crate::error::{Error, Kind, Result};
use crate::sys::child::{Setup, set_up};
use crate::sys::pidfd;
use crate::sys::socket::register;
use crate::sys::stat;

/// How often it is looked whether the group of an ended program is empty, within its grace.
const GROUP_POLL: Duration = Duration::from_millis(50);

/// Runs. It is not reaped before [`reap`](Self::reap), so until then its number, also as that of
/// its group, is its own.
#[derive(Debug)]
pub(super) struct RunningProgram {
    pub(super) pid: u32,
    pub(super) child: Child,
    name: String,
    pidfd: AsyncFd<OwnedFd>,
    /// The scope that it is in.
    #[cfg(feature = "scope")]
    unit: Option<String>,
}

/// How it ended, as far as can be told.
#[derive(Debug)]
pub(super) enum Reaped {
    Status(ExitStatus),
    ByOthers,
    Not,
}

impl RunningProgram {
    pub(super) async fn start(core: &JobsCore, mut command: ProgramSpec) -> Result<Self> {
        let shown = command.command.as_std().get_program().display().to_string();
        let name = command.name.clone();
        let failed =
            |error| Error::caused(Kind::Os, format!("the program {shown:?} of the job {name:?} does not start"), error);
        command.command.kill_on_drop(!command.survives);
        #[cfg(feature = "scope")]
        let (mut child, unit) = match command.scope.take() {
            Some(scope) => scoped::start(core, command, &scope, failed).await?,
            None => (plain(core, command).await.map_err(failed)?, None),
        };
        #[cfg(not(feature = "scope"))]
        let mut child = plain(core, command).await.map_err(failed)?;
        let Some(pid) = child.id() else { return Err(failed(io::ErrorKind::NotFound.into())) };
        match pidfd::open(pid).and_then(|fd| register(fd, Interest::READABLE)) {
            Ok(pidfd) => Ok(Self {
                pid,
                child,
                name,
                pidfd,
                #[cfg(feature = "scope")]
                unit,
            }),
            Err(error) => {
                // one that we cannot watch must not run
                let _ = child.start_kill();
                Err(failed(error))
            }
        }
    }

    /// Waits until the program has ended.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(super) async fn ended(&self) {
        // readable when it has ended; an error means that the runtime has
        let _ = self.pidfd.readable().await;
    }

    /// Sends SIGTERM to the program's group, and SIGKILL after the grace to what is left of it.
    pub(super) async fn end(&self, grace: Duration) {
        self.signal(Signal::SIGTERM);
        // Not the leader alone: a shell dies at once, and what it runs may still be cleaning up.
        let all = async {
            self.ended().await;
            let pid = self.pid;
            while spawn_blocking(move || group_lives(pid)).await.unwrap_or(false) {
                sleep(GROUP_POLL).await;
            }
        };
        if timeout(grace, all).await.is_err() {
            let Self { name, pid, .. } = self;
            warn!(job = name, child = pid, "the program of {name:?} did not end within {grace:?}: killing it");
            self.signal(Signal::SIGKILL);
            let _ = timeout(KILL_TIMEOUT, self.ended()).await;
        }
    }

    /// Kills what it left behind, and asks how it ended.
    pub(super) async fn reap(&mut self, core: &JobsCore) -> Reaped {
        self.signal(Signal::SIGKILL);
        #[cfg(feature = "scope")]
        if let Some(unit) = &self.unit {
            core.scopes.kill(unit).await;
        }
        #[cfg(not(feature = "scope"))]
        let _ = core;
        match timeout(KILL_TIMEOUT, self.child.wait()).await {
            Ok(Ok(status)) => Reaped::Status(status),
            Ok(Err(_)) => Reaped::ByOthers,
            Err(_) => Reaped::Not,
        }
    }

    fn signal(&self, signal: Signal) {
        match killpg(Pid::from_raw(self.pid.cast_signed()), signal) {
            // no such group: it had ended, and somebody took its status
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => warn!(job = self.name, child = self.pid, %error, "cannot send {signal}"),
        }
    }
}

/// Returns whether a process of the group runs. kill(2) with signal 0 does not tell: it finds the
/// leader, too, which is not reaped yet.
fn group_lives(group: u32) -> bool {
    stat::all().any(|process| !process.dead && process.group == group)
}

pub(super) async fn plain(core: &JobsCore, mut command: ProgramSpec) -> io::Result<Child> {
    let setup = Setup { death_signal: command.death_signal(), hold: None };
    set_up(&mut command.command, setup);
    core.lanes.spawn(command.command).await
}
