//! How a generation ends.

use tracing::{info, warn};

use crate::error::{Error, Kind, Result};
use crate::lifecycle::LifeEnd;
use crate::reload::input::Input;
use crate::reload::moment::Moment;
use crate::service::own::OwnGeneration;
use crate::settings::END_TIMEOUT;
use crate::sys::background;
use crate::systemd::notify::NOTIFY_TIMEOUT;

/// The end of the process: each thing that is still under way ends within a deadline of its own.
impl OwnGeneration {
    pub(super) async fn finish(mut self) -> Result<()> {
        // Whoever is just being started must be told to go: without a manager it would take over a
        // stopped service.
        let last_start = async {
            while self.successor.is_starting() {
                match self.heard.recv().await {
                    Some(Input::Spawned(attempt, started)) => {
                        // The service is over: whatever has become of it, it is not needed.
                        _ = self.successor.started(attempt, started.map(|(next, _)| next));
                    }
                    Some(_) => {}
                    None => break,
                }
            }
        };
        if tokio::time::timeout(END_TIMEOUT, last_start).await.is_err() {
            warn!(generation = self.number, "a next generation was not started within {END_TIMEOUT:?}");
        }
        self.end_jobs().await;
        self.tasks.abort_all();
        self.last_hooks().await;
        self.successor.all_ended().await;
        let replaced = !self.stopping && self.successor.pid().is_some();
        self.outbox.close(NOTIFY_TIMEOUT).await;
        if replaced {
            // Freeing a large heap takes long, and the next one's first clients would wait for a
            // processor meanwhile.
            background::enter();
        }
        match self.end {
            Some(LifeEnd::Failed(why)) => {
                Err(Error::new(Kind::Generation, format!("generation {} never came to serve: {why}", self.number)))
            }
            _ => Ok(()),
        }
    }

    /// Programs of cut jobs end within their grace; they must not outlive us.
    async fn end_jobs(&self) {
        // One that never came to serve has not drained: what it started ends with it.
        for what in self.drain.hammer() {
            warn!(generation = self.number, "cut {what}");
        }
        if !self.jobs.programs_ended().await {
            warn!(generation = self.number, "programs of jobs are left behind");
        }
        let report = self.jobs.report();
        if report.started > 0 {
            info!(generation = self.number, old_pid = self.pid, "generation {}, jobs: {report}", self.number);
        }
    }

    /// Those before the exit, and what was called before. One more signal to stop ends that, too.
    async fn last_hooks(&mut self) {
        self.narrator.tell(Moment::BeforeExit, &self.facts());
        tokio::select! {
            () = self.narrator.close() => {}
            (signal, _) = self.signals.urgent.next() => {
                info!(generation = self.number, "{signal}: exiting without the hooks");
            }
        }
        if let Some(pidfile) = self.pidfile.take() {
            pidfile.end().await;
        }
    }
}
