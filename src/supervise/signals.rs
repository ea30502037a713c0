//! The signals that are the supervisor's own.

use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};
use tokio::signal::unix::{Signal as Arrivals, SignalKind, signal};

use crate::error::{Error, Result};

/// The signals that a supervisor handles from the moment it runs.
#[derive(Debug)]
pub(crate) struct SupervisorSignals {
    reload: Arrivals,
    stop: Arrivals,
    interrupt: Arrivals,
    quit: Arrivals,
    passed: Arrivals,
    renew: Arrivals,
}

impl SupervisorSignals {
    pub(crate) fn install() -> Result<Self> {
        let on = |kind, name: &str| {
            signal(kind).map_err(|e| Error::os(format!("no handler for {name} can be installed"), e))
        };
        Ok(Self {
            reload: on(SignalKind::hangup(), "SIGHUP")?,
            stop: on(SignalKind::terminate(), "SIGTERM")?,
            interrupt: on(SignalKind::interrupt(), "SIGINT")?,
            quit: on(SignalKind::quit(), "SIGQUIT")?,
            passed: on(SignalKind::user_defined1(), "SIGUSR1")?,
            renew: on(SignalKind::user_defined2(), "SIGUSR2")?,
        })
    }

    /// Unblocks all signals. They are blocked if an older version of this program was in this
    /// process before.
    pub(crate) fn unblock(&self) {
        let _ = pthread_sigmask(SigmaskHow::SIG_UNBLOCK, Some(&SigSet::all()), None);
    }

    /// Waits for the next signal.
    ///
    /// # Cancel safety
    /// No signal is lost.
    pub(crate) async fn next(&mut self) -> Signal {
        tokio::select! {
            biased;
            Some(()) = self.quit.recv() => Signal::SIGQUIT,
            Some(()) = self.stop.recv() => Signal::SIGTERM,
            Some(()) = self.interrupt.recv() => Signal::SIGINT,
            Some(()) = self.reload.recv() => Signal::SIGHUP,
            Some(()) = self.passed.recv() => Signal::SIGUSR1,
            Some(()) = self.renew.recv() => Signal::SIGUSR2,
        }
    }
}
