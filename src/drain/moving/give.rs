//! The old generation's side: parcels out, answers back.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::pace::pace;
use super::{Leaving, Permit};
use crate::drain::guard::Guard;
use crate::drain::handle::Drain;
use crate::transit::{Channel, Parcel};
use crate::wire::parcel::{MAX_PARCELS, Refusal};

/// The next generation takes what has come within this time, or no more is given to it.
pub(crate) const TAKE_TIMEOUT: Duration = Duration::from_secs(1);

/// What counts, and what may be out, until it is taken.
type Keeping = (Guard, Permit);

struct Giving<'a> {
    drain: &'a Drain,
    began: Instant,
    /// When something was sent or answered last, or there came something to send.
    last: Instant,
    /// Why nothing is given any more, in one word; what is out may still be taken.
    shut: Option<&'static str>,
    /// The other end can still be heard.
    hears: bool,
    /// The number of the next parcel.
    next: u64,
    /// To be sent. Its keeping is at the same place in `kept`.
    waiting: VecDeque<Parcel>,
    kept: VecDeque<Keeping>,
    /// Sent, and not answered yet.
    out: VecDeque<Leaving>,
}

/// Gives what is put into the queue, until nothing is left that could be, or nobody takes it.
/// That may begin later, or never: another route may take the place of this one before.
pub(super) async fn give_all(
    drain: Drain,
    channel: Channel,
    mut queue: mpsc::UnboundedReceiver<Leaving>,
    replaced: oneshot::Receiver<Infallible>,
) {
    let Some(route) = drain.route_in_use(replaced).await else { return };
    let mut giving = Giving { began: Instant::now(), ..Giving::new(&drain) };
    drain.note_stays();
    let gone = tokio::select! {
        () = giving.run(&channel, &mut queue) => true,
        () = pace(&drain.core, &route) => false,
    };
    // Nobody gets a permit from here on; whoever has one may still be on the way to the queue.
    route.shut();
    queue.close();
    // What is cut is not ours to serve, and may still be taken: its fd is in the other's queue.
    while gone && let Some(leaving) = giving.take_back() {
        drain.stayed(leaving, "gone");
    }
    while let Some(leaving) = queue.recv().await {
        drain.stayed(leaving, if gone { "gone" } else { "late" });
    }
    if let Some(reason) = giving.shut.or(gone.then_some("gone")) {
        drain.note_left(&route, reason);
    }
    drain.core.moving.summary.end();
    drain.core.wake_in_turn();
}

impl<'a> Giving<'a> {
    fn new(drain: &'a Drain) -> Self {
        Self {
            drain,
            began: Instant::now(),
            last: Instant::now(),
            shut: None,
            hears: true,
            next: 0,
            waiting: VecDeque::new(),
            kept: VecDeque::new(),
            out: VecDeque::new(),
        }
    }

    /// Returns when the other end is gone, and all that it has said is heard.
    async fn run(&mut self, channel: &Channel, queue: &mut mpsc::UnboundedReceiver<Leaving>) {
        // Reused: an allocator with many free pieces, as here, is slow.
        let mut some = Vec::with_capacity(MAX_PARCELS);
        loop {
            tokio::select! {
                biased;
                answers = channel.answers(), if self.hears => match answers {
                    Ok(Some((took, refused))) => self.answered(&took, &refused),
                    Ok(None) => return,
                    Err(error) => {
                        // Not one of those that are out comes back: each may have been taken.
                        self.hears = error.is_protocol();
                        tracing::warn!(%error, "the next generation cannot be understood");
                        self.shut("broken");
                    }
                },
                sent = channel.send(&self.waiting), if !self.waiting.is_empty() => match sent {
                    Ok(count) => self.sent(count),
                    Err(error) => {
                        tracing::debug!(%error, "no more connections can be sent");
                        self.shut("broken");
                    }
                },
                // Few are out at a time: a permit is needed to get here.
                _ = queue.recv_many(&mut some, MAX_PARCELS) => self.add(&mut some),
                () = sleep_until(self.last + TAKE_TIMEOUT), if self.is_waiting() => self.stall(),
            }
        }
    }

    /// Returns whether something is to be sent, or to be answered, before a deadline.
    fn is_waiting(&self) -> bool {
        self.shut.is_none() && !(self.waiting.is_empty() && self.out.is_empty())
    }

    fn add(&mut self, leaving: &mut Vec<Leaving>) {
        if let Some(reason) = self.shut {
            return leaving.drain(..).for_each(|leaving| self.drain.stayed(leaving, reason));
        }
        if !self.is_waiting() {
            self.last = Instant::now();
        }
        for Leaving { mut parcel, guard, permit, policy } in leaving.drain(..) {
            // Once it is sent it may be the other's, whose insurance it has then.
            drop(policy);
            parcel.number(self.next);
            self.next += 1;
            self.waiting.push_back(parcel);
            self.kept.push_back((guard, permit));
        }
    }

    fn sent(&mut self, count: usize) {
        self.last = Instant::now();
        for (parcel, (guard, permit)) in self.waiting.drain(..count).zip(self.kept.drain(..count)) {
            self.out.push_back(Leaving { parcel, guard, permit, policy: None });
        }
    }

    fn answered(&mut self, took: &[u64], refused: &[Refusal]) {
        self.last = Instant::now();
        for id in took {
            if let Some(Leaving { guard, .. }) = self.out_with(*id) {
                self.drain.core.moving.summary.moved(1, self.began);
                guard.moved();
            }
        }
        for Refusal { id, reason } in refused {
            if let Some(leaving) = self.out_with(*id) {
                self.drain.stayed(leaving, known(reason));
            }
        }
    }

    /// They are answered in their order, as a rule.
    fn out_with(&mut self, id: u64) -> Option<Leaving> {
        let at = self.out.iter().position(|leaving| leaving.parcel.record().id == id)?;
        self.out.remove(at)
    }

    /// The other end hangs, or is stopped. What it has in its queue it will find there.
    fn stall(&mut self) {
        let out = self.out.len();
        tracing::warn!(out, "the next generation takes no connections: those that are left drain here");
        self.shut("stalled");
    }

    /// Gives nothing more. What was not sent is served here.
    fn shut(&mut self, reason: &'static str) {
        let reason = *self.shut.get_or_insert(reason);
        if let Some(route) = self.drain.core.moving.route() {
            route.shut();
        }
        while let Some(leaving) = self.take_waiting() {
            self.drain.stayed(leaving, reason);
        }
        self.drain.core.wake_in_turn();
    }

    fn take_waiting(&mut self) -> Option<Leaving> {
        let parcel = self.waiting.pop_front()?;
        let (guard, permit) = self.kept.pop_front()?;
        Some(Leaving { parcel, guard, permit, policy: None })
    }

    fn take_back(&mut self) -> Option<Leaving> {
        self.out.pop_front().or_else(|| self.take_waiting())
    }
}

/// A reason in our own words: it is a label of a metric.
fn known(reason: &str) -> &'static str {
    const REASONS: [&str; 9] =
        ["listener", "protocol", "full", "client", "no_fds", "damaged", "socket", "draining", "refused"];
    REASONS.into_iter().find(|known| *known == reason).unwrap_or("refused")
}
