//! The signals that are the supervisor's own.

use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};
use tokio::signal::unix::{Signal as Arrivals, SignalKind, signal};
use tracing::info;

use crate::error::{Error, Result};
use crate::lifecycle::Event;
use crate::service::events;
use crate::supervise::driver::Driver;

/// From the moment it runs.
#[derive(Debug)]
pub(crate) struct Signals {
    reload: Arrivals,
    stop: Arrivals,
    interrupt: Arrivals,
    quit: Arrivals,
    passed: Arrivals,
    renew: Arrivals,
}

impl Signals {
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

    /// They were blocked if this is the program after another one in the same process.
    pub(crate) fn unblock(&self) {
        let _ = pthread_sigmask(SigmaskHow::SIG_UNBLOCK, Some(&SigSet::all()), None);
    }

    /// # Cancel safety
    /// None is lost.
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

impl Driver {
    pub(crate) fn on_signal(&mut self, signal: Signal) {
        match signal {
            Signal::SIGQUIT => {
                info!(message_id = events::STOP, generation = self.newest_main(), "SIGQUIT: cutting what is left");
                self.stop_all(&Event::Quit);
            }
            Signal::SIGHUP => self.ask_for_reload(None),
            Signal::SIGUSR2 => self.renewing = true,
            // Logs are reopened on it by custom.
            Signal::SIGUSR1 => self.generations.values().filter(|g| g.is_main()).for_each(|g| g.child.signal(signal)),
            stop => self.on_stop(stop.as_str()),
        }
    }

    pub(crate) fn on_stop(&mut self, cause: &str) {
        info!(message_id = events::STOP, generation = self.newest_main(), "{cause}");
        self.stop_all(&Event::Stop);
    }
}
