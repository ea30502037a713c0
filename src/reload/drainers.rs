//! The older generations: they drain, within bounds.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::drain::FAR;
use crate::error::Result;
use crate::generation::Link;
use crate::generation::link::Idle;
use crate::reload::clock::{millis, now};
use crate::reload::input::InputSender;
use crate::reload::moment::{Facts, Moment};
use crate::reload::status::Older;
use crate::reload::{inquiry::Inquiry, watch};
use crate::settings::END_TIMEOUT;
use crate::wire::frame::{Drainer, Frame};

/// Whoever is third from the cap is told to hurry, so that it has only requests in flight left when
/// it is hammered.
const HURRY_BEFORE_CAP: usize = 2;

/// What becomes of a generation because others drain, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bound {
    Within,
    Hurry,
    Hammer,
}

/// Judges a generation that `younger` others have drained for a shorter time than.
pub(crate) fn bound(younger: usize, cap: usize) -> Bound {
    match younger {
        younger if younger >= cap => Bound::Hammer,
        younger if younger > 0 && younger + HURRY_BEFORE_CAP >= cap => Bound::Hurry,
        _ => Bound::Within,
    }
}

/// An older generation, and the link to it. It is gone when the link is closed.
#[derive(Debug)]
pub(crate) struct OlderGeneration {
    generation: u64,
    pid: u32,
    /// Since when it drains; of the predecessor, since before it was told to.
    since: Instant,
    limit: Duration,
    link: Arc<Link>,
}

impl OlderGeneration {
    pub(crate) fn new(generation: u64, pid: u32, draining: Duration, limit: Duration, link: Idle) -> Result<Self> {
        let since = now().checked_sub(draining).unwrap_or_else(now);
        Ok(Self { generation, pid, since, limit: limit.min(FAR), link: Arc::new(link.into_link()?) })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    pub(crate) fn link(&self) -> &Arc<Link> {
        &self.link
    }

    fn to_wire(&self) -> Drainer {
        let drain_timeout_ms = u64::try_from(self.limit.as_millis()).ok();
        Drainer { generation: self.generation, pid: self.pid, draining_ms: millis(self.since), drain_timeout_ms }
    }
}

/// The older generations that drain, as the main one knows them.
#[derive(Debug)]
pub(crate) struct Drainers {
    /// The oldest first.
    all: Vec<OlderGeneration>,
    watchers: JoinSet<()>,
    /// Not ended with the watchers: whoever was told to go is followed to its end.
    hammers: JoinSet<()>,
    inputs: InputSender,
}

impl Drainers {
    pub(crate) fn new(all: Vec<OlderGeneration>, inputs: InputSender) -> Self {
        Self { all, watchers: JoinSet::new(), hammers: JoinSet::new(), inputs }
    }

    pub(crate) fn push(&mut self, predecessor: OlderGeneration) {
        self.all.push(OlderGeneration { since: now(), ..predecessor });
    }

    /// This generation is main: it watches them, each until its end.
    pub(crate) fn watch(&mut self) {
        for older in &self.all {
            // One that has said nothing more for so long hangs.
            let overdue = older.since + older.limit + END_TIMEOUT;
            let (link, inputs) = (Arc::clone(&older.link), self.inputs.clone());
            self.watchers.spawn(watch::drainer(older.generation, older.pid, link, overdue.into(), inputs));
        }
    }

    /// Another generation is main, and holds the links: they must see its end, not ours.
    pub(crate) fn leave(&mut self) {
        self.all.clear();
        self.watchers.abort_all();
    }

    pub(crate) fn remove(&mut self, generation: u64) {
        self.all.retain(|older| older.generation != generation);
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Tells all of them. The number that could be told; one that is gone has nothing left.
    pub(crate) fn tell(&self, frame: &Frame) -> usize {
        self.all.iter().filter(|older| older.link.send(frame).is_ok()).count()
    }

    /// Too many must not drain at once.
    pub(crate) fn keep_in_bounds(&mut self, cap: usize) {
        for (younger, older) in self.all.iter().rev().enumerate() {
            match bound(younger, cap) {
                Bound::Within => {}
                Bound::Hurry => _ = older.link.send(&Frame::Hurry),
                Bound::Hammer => {
                    let (generation, pid) = (older.generation, older.pid);
                    let detail = &cap.to_string();
                    Moment::TooManyDrain.log(&Facts { generation, old_pid: Some(pid), detail, ..Facts::default() });
                    let (link, inputs) = (Arc::clone(&older.link), self.inputs.clone());
                    self.hammers.spawn(watch::hammer(generation, pid, link, inputs));
                }
            }
        }
    }

    pub(crate) fn to_wire(&self) -> Vec<Drainer> {
        self.all.iter().map(OlderGeneration::to_wire).collect()
    }

    /// A link to each, for the next generation.
    pub(crate) fn links(&self) -> Result<Vec<OwnedFd>> {
        self.all.iter().map(|older| older.link.try_clone_fd()).collect()
    }

    pub(crate) fn have_told(&self, inquiry: &Inquiry) -> bool {
        self.all.iter().all(|older| inquiry.told(older.generation).is_some())
    }

    pub(crate) fn listed(&self, inquiry: &Inquiry) -> Vec<Older> {
        let listed = |older: &OlderGeneration| {
            let told = inquiry.told(older.generation);
            Older {
                generation: older.generation,
                pid: older.pid,
                draining_ms: millis(older.since),
                connections: told.map(|told| told.connections),
                work: told.map(|told| told.work.clone()).unwrap_or_default(),
                moved: told.and_then(|told| told.moved),
                stayed: told.map(|told| told.stayed.clone()).unwrap_or_default(),
            }
        };
        self.all.iter().map(listed).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_are_hammered_and_those_before_them_hurried() {
        let bounds: Vec<_> = (0..6).map(|younger| bound(younger, 4)).collect();
        use Bound::{Hammer, Hurry, Within};
        assert_eq!(bounds, [Within, Within, Hurry, Hurry, Hammer, Hammer]);
        assert_eq!([bound(0, 1), bound(1, 1)], [Within, Hammer], "the newest is never hurried by itself");
    }
}
