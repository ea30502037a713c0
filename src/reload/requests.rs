//! The requests to reload: who asked, and who is answered. Each is answered exactly once.

use std::collections::HashMap;

use crate::error::{Error, Kind};
use crate::lifecycle::{ReloadAnswer, RequestId};
use crate::reload::handle::{Asker, Reloaded};

#[derive(Debug, Default)]
pub(crate) struct ReloadRequests {
    last: RequestId,
    waiting: HashMap<RequestId, Asker>,
    /// As many older generations drain as may: these wait until there is room for one more.
    held: Vec<RequestId>,
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

    /// Holds it back; returns whether it is the first.
    pub(crate) fn hold(&mut self, id: RequestId) -> bool {
        self.held.push(id);
        self.held.len() == 1
    }

    /// Lets those go that were held back: one reload serves them all.
    pub(crate) fn release(&mut self) -> Vec<RequestId> {
        std::mem::take(&mut self.held)
    }

    /// Answers these, with the generation that the reload was to bring; pid 0: it has no process.
    pub(crate) fn answer(&mut self, ids: &[RequestId], outcome: &ReloadAnswer, generation: u64, pid: u32) {
        for id in ids {
            let Some(asker) = self.waiting.remove(id) else { continue };
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
