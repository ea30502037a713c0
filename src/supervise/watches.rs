//! The tasks that watch the processes of the program, and tell the supervision what they see.

use std::future::pending;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::io::Interest;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

use crate::error::Result;
use crate::reload::handle::ServiceRequest;
use crate::reload::watch;
use crate::supervise::notified::Letter;
use crate::supervise::ready::{self, Probe, Ready};
use crate::supervise::tree::ProcessFamily;
use crate::sys::pidfd::Ended;
use crate::sys::socket::register;

/// Everything that happens to a supervision, one at a time.
#[derive(Debug)]
pub(crate) enum Happening {
    Signal(Signal),
    Asked(ServiceRequest),
    Notified(io::Result<Letter>),
    Ready(u64),
    Ended(u64, Ended),
    /// No process of a generation is left.
    Gone(u64),
    /// The newer version of the supervisor can go on where this one is, or cannot.
    MayRenew(Result<()>),
}

/// The tasks, and where they leave what has happened.
#[derive(Debug)]
pub(crate) struct Watches {
    tasks: JoinSet<()>,
    happenings: mpsc::UnboundedSender<Happening>,
    happened: mpsc::UnboundedReceiver<Happening>,
}

impl Watches {
    pub(crate) fn new() -> Self {
        let (happenings, happened) = mpsc::unbounded_channel();
        Self { tasks: JoinSet::new(), happenings, happened }
    }

    /// Waits for what the tasks have found out.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(crate) async fn next(&mut self) -> Happening {
        loop {
            tokio::select! {
                // It is never closed: a sender is ours.
                Some(happening) = self.happened.recv() => return happening,
                Some(_) = self.tasks.join_next() => {}
            }
        }
    }

    /// Leaves something that has happened, behind everything that happened before.
    pub(crate) fn push(&self, happening: Happening) {
        let _ = self.happenings.send(happening);
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.happened.is_empty()
    }

    /// Waits until a generation is ready, if it does not say so itself.
    pub(crate) fn until_ready(
        &mut self,
        number: u64,
        family: ProcessFamily,
        ready: &Ready,
        probe: Option<&Probe>,
    ) -> Option<AbortHandle> {
        if *ready == Ready::Notify {
            return None;
        }
        let (ready, probe) = (ready.clone(), probe.cloned());
        Some(self.spawn(async move {
            match (ready, probe) {
                (Ready::Delay(time), _) => tokio::time::sleep(time).await,
                (Ready::Command(command), _) => ready::ask(command, number, family.leader).await,
                (_, Some(probe)) => probe.succeed(&family).await,
                (_, None) => pending().await,
            }
            Happening::Ready(number)
        }))
    }

    pub(crate) fn until_ended(&mut self, number: u64, pidfd: OwnedFd) {
        self.spawn(async move {
            let how = match register(pidfd, Interest::READABLE) {
                Ok(pidfd) => watch::end_of(&pidfd).await,
                Err(_) => Ended::Unknown,
            };
            Happening::Ended(number, how)
        });
    }

    pub(crate) fn end(&mut self, number: u64, family: ProcessFamily, grace: Duration) {
        self.spawn(async move {
            family.end(number, grace).await;
            Happening::Gone(number)
        });
    }

    /// Runs a task whose result happens.
    pub(crate) fn spawn(&mut self, task: impl Future<Output = Happening> + Send + 'static) -> AbortHandle {
        let happenings = self.happenings.clone();
        self.tasks.spawn(async move { _ = happenings.send(task.await) })
    }

    /// Runs a task beside the supervision that tells it nothing.
    pub(crate) fn run(&mut self, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        self.tasks.spawn(task)
    }

    pub(crate) fn abort_all(&mut self) {
        self.tasks.abort_all();
    }
}
