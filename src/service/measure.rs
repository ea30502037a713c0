//! What the driver tells the metrics, and how counts go from one generation to the next.

use crate::generation::Link;
use crate::metrics::{DRAIN_SECONDS, DRAINING, GENERATION, READY_SECONDS, SWITCH_SECONDS};
use crate::service::clock::now;
use crate::service::driver::Driver;
use crate::wire::frame::{Frame, MAX_NAMES};

impl Driver {
    pub(crate) fn measure_start(&self) {
        self.drain.metrics().set_gauge(GENERATION, self.generation as f64);
    }

    pub(crate) fn measure_draining(&self) {
        self.drain.metrics().set_gauge(DRAINING, self.drainers.len() as f64);
    }

    /// Before the next generation is told that it is main: from then on it is the one that is asked.
    pub(crate) fn pass_counts(&self) {
        let Some(reload) = &self.reload else { return };
        let Some(coming) = &reload.coming else { return };
        let metrics = self.drain.metrics();
        metrics.reload("handed_over");
        if let Some(ready) = reload.ready {
            metrics.pass_time(READY_SECONDS, ready.saturating_duration_since(reload.began));
            metrics.pass_time(SWITCH_SECONDS, now().saturating_duration_since(ready));
        }
        self.send_counts(&coming.link);
    }

    /// The generation that handed over is done: what it has counted since then.
    pub(crate) fn pass_last_counts(&self) {
        if let Some(coming) = self.reload.as_ref().and_then(|r| r.coming.as_ref()) {
            self.drain.metrics().pass_time(DRAIN_SECONDS, now().saturating_duration_since(self.began));
            self.send_counts(&coming.link);
        }
    }

    fn send_counts(&self, link: &Link) {
        for carried in self.drain.metrics().take(MAX_NAMES) {
            if let Err(error) = link.send(&Frame::Counted(carried)) {
                tracing::debug!(%error, "counts that end with this generation");
            }
        }
    }
}
