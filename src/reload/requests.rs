//! The requests to reload: who asked, and who is answered. Each is answered exactly once.

use std::collections::HashMap;

use crate::error::{Error, Kind};
use crate::lifecycle::{ReloadAnswer, RequestId};
use crate::reload::handle::{Asker, Reloaded};

/// Those who wait for the outcome of a reload.
#[derive(Debug, Default)]
pub(crate) struct ReloadRequests {
    last: RequestId,
    waiting: HashMap<RequestId, Asker>,
}

/// The generation that a reload is to bring.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected {
    pub(crate) generation: u64,
    /// 0: it has no process.
    pub(crate) pid: u32,
}

impl ReloadRequests {
    /// Numbers a request. Nobody waits for that of a signal.
    pub(crate) fn add(&mut self, asker: Option<Asker>) -> RequestId {
        self.last += 1;
        if let Some(asker) = asker {
            self.waiting.insert(self.last, asker);
        }
        self.last
    }

    pub(crate) fn answer(&mut self, ids: &[RequestId], outcome: &ReloadAnswer, next: Expected) {
        for id in ids {
            let Some(asker) = self.waiting.remove(id) else { continue };
            let Expected { generation, pid } = next;
            // Whoever has gone away in the meantime wants no answer.
            let _ = asker.send(match outcome {
                ReloadAnswer::HandedOver => Ok(Reloaded::HandedOver { generation, pid }),
                ReloadAnswer::InPlace => Ok(Reloaded::InPlace),
                ReloadAnswer::PassedOn => Ok(Reloaded::PassedOn),
                ReloadAnswer::RolledBack(reason) => Err(failed(&format!("generation {generation} {reason}"))),
                ReloadAnswer::Refused(why) => Err(refused(why)),
            });
        }
    }
}

/// The answer to a request whose reload was rolled back.
pub(crate) fn failed(reason: &str) -> Error {
    Error::new(Kind::Generation, format!("reload failed: {reason}"))
}

/// The answer to a request that comes to nothing.
pub(crate) fn refused(why: &str) -> Error {
    Error::new(Kind::State, format!("no reload: {why}"))
}
