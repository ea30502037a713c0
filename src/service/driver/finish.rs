//! The end of the process: each thing that is still under way ends within a deadline of its own.

use tracing::warn;

use super::{Driver, Input};
use crate::error::{Error, Kind, Result};
use crate::lifecycle::End;
use crate::settings::END_TIMEOUT;
use crate::sys::background;
use crate::systemd::notify::NOTIFY_TIMEOUT;

impl Driver {
    pub(super) async fn finish(mut self) -> Result<()> {
        // Whoever is just being started must be told to go: without a manager it would take over a stopped service.
        let last_start = async {
            while self.starting > 0 {
                match self.waiting.recv().await {
                    Some(Input::Spawned(id, result)) => self.on_spawned(id, result),
                    Some(_) => {}
                    None => break,
                }
            }
        };
        if tokio::time::timeout(END_TIMEOUT, last_start).await.is_err() {
            warn!(generation = self.generation, "a next generation was not started within {END_TIMEOUT:?}");
        }
        self.end_jobs().await;
        self.tasks.abort_all();
        self.last_hooks().await;
        // Each has its own deadline, with SIGKILL at its end.
        while self.enders.join_next().await.is_some() {}
        let replaced = !self.stopping && self.next_pid().is_some();
        self.outbox.close(NOTIFY_TIMEOUT).await;
        if replaced {
            // freeing a large heap takes long, and the next one's first clients would wait for a processor meanwhile
            background::enter();
        }
        match self.end {
            Some(End::Failed(why)) => {
                Err(Error::new(Kind::Generation, format!("generation {} never came to serve: {why}", self.generation)))
            }
            _ => Ok(()),
        }
    }
}
