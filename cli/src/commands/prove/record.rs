//! What was seen of a run, before it is put in order.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::prober::{Seen, Teller};
use super::usage::{Point, Usage};
use handover_load::{Stats, Waits};

/// Something that can be asked for a reload.
pub(crate) trait Reloads {
    /// Asks, and waits for the end of the asking.
    async fn ask(&mut self, limit: Duration) -> Asked;

    /// The main process, where there is somebody to say so.
    async fn main(&self) -> Option<u32> {
        None
    }

    /// The process that answered before has a successor.
    fn answered(&mut self, _before: Option<u32>, _now: u32) {}
}

/// How asking for a reload ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asked {
    Done,
    Failed(String),
    /// It failed as it was meant to: nobody new is to answer.
    Refused(String),
}

impl Asked {
    pub(crate) fn failed(&self) -> Option<&str> {
        match self {
            Self::Done => None,
            Self::Failed(why) | Self::Refused(why) => Some(why),
        }
    }
}

/// One reload, as it was seen until its window was over and somebody new had answered.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) number: u32,
    pub(crate) at: Instant,
    /// The same moment, by the clock that the journal goes by.
    pub(crate) wall: SystemTime,
    pub(crate) took: Duration,
    pub(crate) asked: Asked,
    pub(crate) seen: Seen,
    /// How long somebody new was waited for in vain; of a reload that nobody need answer, not.
    pub(crate) unseen: Option<Unseen>,
    pub(crate) before: Held,
    /// Just after the first answer of the new one.
    pub(crate) after: Held,
}

/// Nobody new answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unseen {
    pub(crate) waited: Duration,
    /// No process had been started, either.
    pub(crate) nobody: bool,
}

/// What was held at one moment.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Held {
    /// By all processes; afterwards, by the new one alone.
    pub(crate) usage: Option<Usage>,
    /// By all of them.
    pub(crate) pss: Option<u64>,
}

/// The same reload, once the next one begins or the run ends.
#[derive(Debug)]
pub(crate) struct Reloaded {
    pub(crate) watched: Watched,
    pub(crate) peak: Usage,
    /// The main process afterwards.
    pub(crate) main: Option<u32>,
}

/// Everything that was seen.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) stats: Arc<Stats>,
    pub(crate) teller: Teller,
    pub(crate) reloads: Vec<Reloaded>,
    /// `None`: the prober's thread has panicked.
    pub(crate) periods: Option<Waits>,
    pub(crate) points: Vec<Point>,
    pub(crate) problems: Vec<String>,
    pub(crate) notes: Vec<String>,
    pub(crate) took: Duration,
}
