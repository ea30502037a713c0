//! What a program of a job is to be started with.

use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::process::Command;

use super::output::Output;

/// How long a program may take from SIGTERM until SIGKILL, once its time is over.
pub const TERM_GRACE: Duration = Duration::from_secs(2);

/// Meant for the service itself: a program that took them up would speak for it, or wait for
/// sockets that it does not have.
const OURS: [&str; 14] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "LISTEN_PID",
    "LISTEN_PIDFDID",
    "FDSTORE",
    "MAINPID",
    "MAINPIDFDID",
    "MANAGERPID",
    "SYSTEMD_EXEC_PID",
    "HANDOVER_FD",
    "HANDOVER_PID",
];

/// A program of a job before its start, with all that was set for it.
pub(super) struct ProgramSpec {
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

impl ProgramSpec {
    pub(super) fn new(name: String, command: Command) -> Self {
        Self {
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
