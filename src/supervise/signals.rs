//! The signals that are the supervisor's own.

use std::future::poll_fn;
use std::task::Poll;

use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};
use tokio::signal::unix::{Signal as Arrivals, SignalKind, signal};

use crate::error::{Error, Result};

/// All of them, the most urgent first.
pub(crate) const OWN_SIGNALS: [Signal; 6] =
    [Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2];

/// The signals that a supervisor handles from the moment it runs.
#[derive(Debug)]
pub(crate) struct SupervisorSignals(Vec<(Signal, Arrivals)>);

impl SupervisorSignals {
    /// Installs the handlers, and unblocks all signals: they are blocked if an older version of
    /// this program was in this process before.
    pub(crate) fn install() -> Result<Self> {
        let on = |which: Signal| match signal(SignalKind::from_raw(which as i32)) {
            Ok(arrivals) => Ok((which, arrivals)),
            Err(error) => Err(Error::os(format!("no handler for {which} can be installed"), error)),
        };
        let signals = OWN_SIGNALS.into_iter().map(on).collect::<Result<_>>()?;
        let _ = pthread_sigmask(SigmaskHow::SIG_UNBLOCK, Some(&SigSet::all()), None);
        Ok(Self(signals))
    }

    /// Waits for the next signal.
    ///
    /// # Cancel safety
    /// No signal is lost.
    pub(crate) async fn next(&mut self) -> Signal {
        poll_fn(|context| {
            let arrived = self.0.iter_mut().find_map(|(signal, arrivals)| {
                matches!(arrivals.poll_recv(context), Poll::Ready(Some(()))).then_some(*signal)
            });
            arrived.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}
