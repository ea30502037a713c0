//! An inquiry: who waits for a status until the older generations have told what they hold.

use std::collections::BTreeMap;

use tokio::sync::oneshot;

use crate::drain::Drain;
use crate::reload::status::{MAX_WORK, Moves, Status};

#[derive(Debug, Clone)]
pub(crate) struct Holding {
    pub(crate) connections: usize,
    pub(crate) work: Vec<String>,
    pub(crate) moved: Option<usize>,
    pub(crate) stayed: BTreeMap<String, usize>,
}

/// Longest description of a piece of work that is told, in characters.
const MAX_DESCRIPTION: usize = 300;

impl Holding {
    pub(crate) fn of(drain: &Drain) -> Self {
        let work = drain.work(MAX_WORK).into_iter();
        let Moves { moved, stayed, .. } = Moves::of(drain);
        Self {
            connections: drain.active(),
            work: work.map(|what| what.chars().take(MAX_DESCRIPTION).collect()).collect(),
            moved: drain.moved().map(|_| moved),
            stayed,
        }
    }
}

/// Those who wait, and what is known so far.
#[derive(Debug, Default)]
pub(crate) struct Inquiry {
    waiting: Vec<oneshot::Sender<Status>>,
    told: BTreeMap<u64, Holding>,
}

impl Inquiry {
    /// Adds one who waits. True: it is the first, so the older generations must be asked.
    pub(crate) fn add(&mut self, answer: oneshot::Sender<Status>) -> bool {
        let first = self.waiting.is_empty();
        self.waiting.push(answer);
        if first {
            self.told.clear();
        }
        first
    }

    pub(crate) fn tell(&mut self, generation: u64, holding: Holding) {
        self.told.insert(generation, holding);
    }

    pub(crate) fn told(&self, generation: u64) -> Option<&Holding> {
        self.told.get(&generation)
    }

    /// Those to be answered now; the inquiry is over.
    pub(crate) fn close(&mut self) -> Vec<oneshot::Sender<Status>> {
        std::mem::take(&mut self.waiting)
    }
}
