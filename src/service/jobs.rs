//! The jobs of a service: counted in its drain, and seen to the end.

use tracing::{info, warn};

use crate::jobs::Jobs;
use crate::service::Service;
use crate::service::driver::Driver;

impl Service {
    /// Starts jobs that a reload and a stop wait for, as they wait for connections. See [`jobs`](crate::jobs).
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> handover::Result<()> {
    /// let service = handover::Service::builder().start()?;
    /// let jobs = service.jobs();
    /// jobs.spawn("nightly report", |job| async move {
    ///     for part in 0..100 {
    ///         if job.draining().has_begun() {
    ///             return part; // the next generation goes on from here
    ///         }
    ///         tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    ///     }
    ///     100
    /// })?;
    /// service.run().await
    /// # }
    /// ```
    #[must_use]
    pub fn jobs(&self) -> Jobs {
        self.jobs.clone()
    }
}

impl Driver {
    /// Programs of cut jobs end within their grace; they must not outlive us.
    pub(crate) async fn end_jobs(&self) {
        // One that never came to serve has not drained: what it started ends with it.
        for what in self.drain.hammer() {
            warn!(generation = self.generation, "cut {what}");
        }
        if !self.jobs.programs_ended().await {
            warn!(generation = self.generation, "programs of jobs are left behind");
        }
        let report = self.jobs.report();
        if report.started > 0 {
            info!(generation = self.generation, old_pid = self.pid, "generation {}, jobs: {report}", self.generation);
        }
    }
}
