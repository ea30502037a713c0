//! The requests to reload: who asked, and who is answered. Each is answered exactly once.

use std::collections::HashMap;

use crate::error::{Error, Kind};
use crate::lifecycle::{Outcome, RequestId};
use crate::reload::handle::{Asker, Reloaded};

/// Those who wait for the outcome of a reload.
#[derive(Debug, Default)]
pub(crate) struct Requests {
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

impl Requests {
    /// Numbers a request. Nobody waits for that of a signal.
    pub(crate) fn add(&mut self, asker: Option<Asker>) -> RequestId {
        self.last += 1;
        if let Some(asker) = asker {
            self.waiting.insert(self.last, asker);
        }
        self.last
    }

    pub(crate) fn answer(&mut self, ids: &[RequestId], outcome: &Outcome, next: Expected) {
        for id in ids {
            let Some(asker) = self.waiting.remove(id) else { continue };
            let Expected { generation, pid } = next;
            // Whoever has gone away in the meantime wants no answer.
            let _ = asker.send(match outcome {
                Outcome::HandedOver => Ok(Reloaded::HandedOver { generation, pid }),
                Outcome::InPlace => Ok(Reloaded::InPlace),
                Outcome::PassedOn => Ok(Reloaded::PassedOn),
                Outcome::RolledBack(reason) => Err(failed(&format!("generation {generation} {reason}"))),
                Outcome::Refused(why) => Err(refused(why)),
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
