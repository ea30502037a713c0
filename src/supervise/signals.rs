//! The signals that are the supervisor's own.

use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};

use crate::error::Result;
use crate::reload::arrivals::Arrivals;

/// All of them, the most urgent first.
pub(crate) const OWN_SIGNALS: [Signal; 6] =
    [Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2];

/// Installs the handlers, and unblocks all signals: they are blocked if an older version of this
/// program was in this process before.
pub(crate) fn install() -> Result<Arrivals<Signal>> {
    let signals = Arrivals::of(OWN_SIGNALS.map(|signal| (signal, signal)))?;
    let _ = pthread_sigmask(SigmaskHow::SIG_UNBLOCK, Some(&SigSet::all()), None);
    Ok(signals)
}
