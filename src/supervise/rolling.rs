//! A reload of the whole program: of its one worker, or of one after the other.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use tracing::warn;

use crate::lifecycle::RequestId;
use crate::reload::clock::now;
use crate::reload::handle::{Asker, Reloaded};
use crate::reload::requests::{failed, refused};
use crate::supervise::image::Image;
use crate::sys::random;

/// The reloads, one at a time, and who waits for them.
#[derive(Debug)]
pub(crate) struct Reloads {
    at_a_time: usize,
    count: u64,
    last_request: RequestId,
    running: Option<Rolling>,
    /// There shall be one more, and these wait for it.
    wanted: bool,
    waiting: Vec<Asker>,
}

/// A reload that is running, or over.
#[derive(Debug)]
pub(crate) struct Rolling {
    pub(crate) handover_id: Arc<str>,
    pub(crate) began: Instant,
    /// Why it failed, if it did.
    pub(crate) failed: Option<String>,
    asked: Vec<Asker>,
    left: VecDeque<usize>,
    running: BTreeSet<usize>,
    replaced: Vec<usize>,
    /// The version that the workers had before.
    before: Option<Image>,
    /// The workers that were replaced go back to that version, and why.
    back_to: Option<(Image, String)>,
}

/// What must happen next in a reload.
#[derive(Debug)]
pub(crate) enum NextMove {
    /// Nothing, before something has happened.
    Wait,
    /// The worker is to be replaced.
    Replace(usize),
    Over(Box<Rolling>),
}

impl Reloads {
    pub(crate) fn new(at_a_time: usize, count: u64) -> Self {
        Self { at_a_time, count, last_request: 0, running: None, wanted: false, waiting: Vec::new() }
    }

    /// Wants one more reload. A request during a reload is answered by the one after it.
    pub(crate) fn want(&mut self, asker: Option<Asker>) {
        self.waiting.extend(asker);
        self.wanted = true;
    }

    /// Whether a reload is to begin, as none is running.
    pub(crate) fn is_due(&self) -> bool {
        self.wanted && self.running.is_none()
    }

    /// Whether no reload is running or wanted.
    pub(crate) fn is_idle(&self) -> bool {
        !self.wanted && self.running.is_none()
    }

    pub(crate) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Whether the worker is being replaced.
    pub(crate) fn replaces(&self, slot: usize) -> bool {
        self.running.as_ref().is_some_and(|rolling| rolling.running.contains(&slot))
    }

    /// How many there were.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    pub(crate) fn handover_id(&self) -> Option<Arc<str>> {
        self.running.as_ref().map(|rolling| Arc::clone(&rolling.handover_id))
    }

    pub(crate) fn began(&self) -> Option<Instant> {
        self.running.as_ref().map(|rolling| rolling.began)
    }

    /// The version to start, if it is not the one at the path.
    pub(crate) fn image(&self) -> Option<Image> {
        let (image, _) = self.running.as_ref()?.back_to.as_ref()?;
        Some(image.clone())
    }

    /// Numbers a request to a lifecycle. Who asked is answered by the whole, not by it.
    pub(crate) fn request(&mut self) -> RequestId {
        self.last_request += 1;
        self.last_request
    }

    /// Begins a reload of so many workers, which are of the version `before`.
    pub(crate) fn begin(&mut self, workers: usize, before: Option<Image>) {
        self.wanted = false;
        self.count += 1;
        self.running = Some(Rolling {
            handover_id: random::id().into(),
            began: now(),
            asked: std::mem::take(&mut self.waiting),
            left: (0..workers).collect(),
            running: BTreeSet::new(),
            replaced: Vec::new(),
            failed: None,
            before,
            back_to: None,
        });
    }

    /// The worker has a new main generation, or failed to get one.
    pub(crate) fn done(&mut self, slot: usize, outcome: Result<(), String>) {
        let Some(rolling) = self.running.as_mut().filter(|rolling| rolling.running.contains(&slot)) else { return };
        rolling.running.remove(&slot);
        match outcome {
            Ok(()) => rolling.replaced.push(slot),
            Err(reason) => _ = rolling.failed.get_or_insert(reason),
        }
    }

    /// Tells what must happen next. To be asked until it says that it waits.
    pub(crate) fn next_move(&mut self) -> NextMove {
        let Some(rolling) = &mut self.running else { return NextMove::Wait };
        let may_go_on = rolling.failed.is_none() && rolling.running.len() < self.at_a_time;
        if may_go_on && let Some(slot) = rolling.left.pop_front() {
            rolling.running.insert(slot);
            return NextMove::Replace(slot);
        }
        if !rolling.running.is_empty() {
            return NextMove::Wait;
        }
        if rolling.goes_back() {
            return self.next_move();
        }
        self.running.take().map_or(NextMove::Wait, |rolling| NextMove::Over(Box::new(rolling)))
    }

    /// The service stops: whoever waits is told.
    pub(crate) fn stop(&mut self) {
        let asked = self.running.take().into_iter().flat_map(|rolling| rolling.asked);
        for asker in asked.chain(self.waiting.drain(..)) {
            refuse(asker);
        }
        self.wanted = false;
    }
}

/// Tells who asked that the service is stopping.
pub(crate) fn refuse(asker: Asker) {
    let _ = asker.send(Err(refused("the service is stopping")));
}

impl Rolling {
    /// If some workers are of the new version, and one of them failed, none shall stay. True: they
    /// are to be replaced by the version of before.
    fn goes_back(&mut self) -> bool {
        let count = self.replaced.len();
        if let Some((_, reason)) = &self.back_to {
            self.failed = Some(reason.clone());
            return false;
        }
        let Some(reason) = self.failed.take_if(|_| count > 0) else { return false };
        let Some(before) = self.before.clone().filter(Image::is_intact) else {
            self.failed = Some(format!("{reason}; {count} workers stay on the new version, the old one is not kept"));
            return false;
        };
        warn!(handover_id = &*self.handover_id, "reload failed: {reason}; {count} workers go back");
        self.left = std::mem::take(&mut self.replaced).into();
        self.back_to = Some((before, format!("{reason}; {count} workers that were replaced went back")));
        true
    }

    /// Answers those who waited, with the newest main generation.
    pub(crate) fn answer(self, generation: u64, pid: u32) {
        for asker in self.asked {
            let _ = asker.send(match &self.failed {
                None => Ok(Reloaded::HandedOver { generation, pid }),
                Some(reason) => Err(failed(reason)),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use tokio::sync::oneshot;

    use super::*;

    fn image() -> Image {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"\x7fELF").unwrap();
        Image::of(file).unwrap()
    }

    fn begun(before: Option<Image>) -> (Reloads, oneshot::Receiver<crate::error::Result<Reloaded>>) {
        let mut reloads = Reloads::new(2, 0);
        let (asker, answer) = oneshot::channel();
        reloads.want(Some(asker));
        assert!(reloads.is_due());
        reloads.begin(3, before);
        for slot in [0, 1] {
            assert!(matches!(reloads.next_move(), NextMove::Replace(of) if of == slot));
        }
        assert!(matches!(reloads.next_move(), NextMove::Wait), "two at a time");
        (reloads, answer)
    }

    #[test]
    fn workers_are_replaced_one_after_the_other() {
        let (mut reloads, mut answer) = begun(None);
        reloads.want(None);
        reloads.done(1, Ok(()));
        assert!(matches!(reloads.next_move(), NextMove::Replace(2)));
        reloads.done(0, Ok(()));
        reloads.done(0, Err("told twice".into()));
        assert!(matches!(reloads.next_move(), NextMove::Wait));
        reloads.done(2, Ok(()));
        let NextMove::Over(over) = reloads.next_move() else { panic!("it is over") };
        over.answer(6, 66);
        assert_eq!(answer.try_recv().unwrap().unwrap(), Reloaded::HandedOver { generation: 6, pid: 66 });
        assert!(reloads.is_due(), "what was asked for meanwhile");
    }

    #[test]
    fn those_that_were_replaced_go_back() {
        let (mut reloads, mut answer) = begun(Some(image()));
        reloads.done(0, Ok(()));
        reloads.done(1, Err("exited".into()));
        assert!(matches!(reloads.next_move(), NextMove::Replace(0)) && reloads.image().is_some());
        reloads.done(0, Ok(()));
        let NextMove::Over(over) = reloads.next_move() else { panic!("it is over") };
        over.answer(6, 66);
        let said = answer.try_recv().unwrap().unwrap_err().to_string();
        assert!(said.contains("exited; 1 workers that were replaced went back"), "{said}");
    }

    #[test]
    fn without_the_old_version_they_stay() {
        let (mut reloads, _) = begun(None);
        reloads.done(0, Ok(()));
        reloads.done(1, Err("exited".into()));
        let NextMove::Over(over) = reloads.next_move() else { panic!("it is over") };
        assert_eq!(over.failed.unwrap(), "exited; 1 workers stay on the new version, the old one is not kept");
        let (mut reloads, mut answer) = begun(None);
        reloads.stop();
        assert!(reloads.is_idle() && answer.try_recv().unwrap().unwrap_err().is_state());
    }
}
