//! Connections that go to the next generation.
//!
//! The old generation gives: a connection asks for a permit when nothing of it is in progress, and
//! leaves its task as a parcel. The new one takes, has it served by whoever serves the listener of
//! that name, and says so. Until then it counts here.

mod give;
mod keep;
mod pace;
mod prepare;
mod resume;
mod settle;
mod summary;
mod take;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
#[cfg(feature = "http")]
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::core::{Phase, Work};
use super::guard::Guard;
use super::handle::Drain;
use super::limit::LimitSlot;
#[cfg(feature = "http")]
use crate::transit::marks::State;
use crate::transit::{Channel, Contents, Insurance, Parcel, Permit, Permits, Policy};
use crate::wire::parcel::Record;

pub(crate) use self::keep::Keep;
pub(crate) use self::keep::PARK_TIMEOUT;
pub(crate) use self::resume::{Left, Resuming, owners_ended};
pub(crate) use self::summary::Moved;
use self::summary::Summary;

/// Who serves the connections that come to one listener from another generation.
pub(crate) trait Adopter: Send + Sync {
    /// Gets ready to serve it, without reading from it.
    ///
    /// # Errors
    /// With the reason why it cannot be, in one word. Its fd was a copy, and is closed.
    fn prepare(&self, arrival: Arrived) -> Result<Adoption, &'static str>;

    /// Takes a place within the limit of its listener, where there is one, for a connection that
    /// was not ours.
    ///
    /// # Errors
    /// There is none left, or it speaks something else than is served, in one word.
    fn slot(&self, record: &Record) -> Result<Option<LimitSlot>, &'static str>;

    /// Returns whether its connections take keys along. Those go from process to process, and are
    /// kept nowhere.
    fn has_keys(&self) -> bool {
        false
    }
}

/// Serves it, from now on.
pub(crate) type Adoption = Box<dyn FnOnce() + Send>;

/// A connection that has come, or has come back.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) record: Record,
    pub(crate) fd: OwnedFd,
    pub(crate) contents: Contents,
    /// It was ours before, and still counts.
    pub(crate) was: Option<Guard>,
    /// Its place within the limit of its listener, if it was not ours.
    pub(crate) slot: Option<LimitSlot>,
    /// It was ours before, and shall try to go once more.
    pub(crate) again: bool,
    /// It has waited for a process, and is nobody else's.
    #[cfg_attr(not(feature = "http"), expect(dead_code, reason = "connections of HTTP are those that are insured"))]
    pub(crate) waited: bool,
}

impl Arrived {
    /// One that has come back, and stays.
    fn back(record: Record, fd: OwnedFd, contents: Contents, was: Guard) -> Self {
        Self { record, fd, contents, was: Some(was), slot: None, again: false, waited: false }
    }
}

/// A connection that goes. It counts here until it is taken.
#[derive(Debug)]
pub(crate) struct Leaving {
    pub(crate) parcel: Parcel,
    pub(crate) guard: Guard,
    pub(crate) permit: Permit,
    /// It is insured until somebody else may have it.
    pub(crate) policy: Option<Policy>,
}

/// What a drain knows of moving.
#[derive(Default)]
pub(super) struct Moving {
    adopters: Mutex<BTreeMap<String, Arc<dyn Adopter>>>,
    /// To the next generation, once there is one that is main. A handover that fails at its last
    /// step leaves one that leads nowhere, and the next handover replaces it.
    route: RwLock<Option<Arc<Route>>>,
    summary: Summary,
    /// How many were taken from another generation.
    adopted: AtomicUsize,
    /// Against a crash, if there is one.
    insurance: OnceLock<Arc<Insurance>>,
}

pub(super) struct Route {
    queue: mpsc::UnboundedSender<Leaving>,
    /// Names of listeners whose connections the next generation takes.
    takes: BTreeSet<String>,
    /// Why those of the others stay.
    others: &'static str,
    permits: Arc<Permits>,
    within: Duration,
    /// Nobody leaves any more.
    shut: AtomicBool,
    /// When that was; who is left lingers from then on.
    shut_at: OnceLock<Instant>,
    /// It is dropped with the route, and tells its task that there is another one.
    _in_use: oneshot::Sender<Infallible>,
}

impl Moving {
    fn adopter(&self, listener: &str) -> Option<Arc<dyn Adopter>> {
        self.adopters.lock().unwrap_or_else(PoisonError::into_inner).get(listener).cloned()
    }

    /// Returns who serves one that was not ours, and its place within the limit.
    fn taker(&self, record: &Record) -> Result<(Arc<dyn Adopter>, Option<LimitSlot>), &'static str> {
        let adopter = self.adopter(&record.listener).ok_or("listener")?;
        let slot = adopter.slot(record)?;
        Ok((adopter, slot))
    }

    fn has_keys(&self, listener: &str) -> bool {
        self.adopter(listener).is_some_and(|adopter| adopter.has_keys())
    }

    fn route(&self) -> Option<Arc<Route>> {
        self.route.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn open_route(&self) -> Option<Arc<Route>> {
        self.route().filter(|route| route.is_open())
    }

    pub(super) fn is_open(&self) -> bool {
        self.open_route().is_some()
    }

    /// Returns when moving ended while there was something left, if it has.
    pub(super) fn shut_at(&self) -> Option<Instant> {
        self.route()?.shut_at.get().copied()
    }
}

impl Route {
    /// Returns whether the next generation takes this, now or later.
    pub(super) fn is_for(&self, work: &dyn Work) -> bool {
        work.movable().is_ok() && work.connection().is_some_and(|one| self.takes.contains(one.listener()))
    }

    fn is_open(&self) -> bool {
        !self.shut.load(Ordering::Relaxed)
    }

    fn shut(&self) {
        self.shut_at.get_or_init(Instant::now);
        self.shut.store(true, Ordering::Relaxed);
    }
}

/// The old generation's side.
impl Drain {
    /// Returns whether connections of this listener go to the next generation now.
    #[inline]
    pub(crate) fn moves(&self, listener: &str) -> bool {
        self.phase() == Phase::Draining
            && self.core.moving.open_route().is_some_and(|route| route.takes.contains(listener))
    }

    /// Returns whether one connection may go now.
    pub(crate) fn permit(&self) -> Option<Permit> {
        self.core.moving.open_route()?.permits.take()
    }

    /// Returns whether one connection may get ready to go now.
    #[cfg(feature = "http")]
    pub(crate) fn turn_to_leave(&self) -> bool {
        self.core.moving.open_route().is_some_and(|route| route.permits.turn())
    }

    /// Returns the permit for one that has had its turn.
    #[cfg(feature = "http")]
    pub(crate) fn place(&self) -> Option<Permit> {
        self.core.moving.open_route()?.permits.place()
    }

    /// Sends a connection on its way. If it is not taken, it comes back to whoever serves its
    /// listener here.
    pub(crate) fn give(&self, leaving: Leaving) {
        let Some(route) = self.core.moving.route() else { return };
        if let Err(mpsc::error::SendError(leaving)) = route.queue.send(leaving) {
            self.stayed(leaving, "late");
        }
    }

    /// Packs a connection, and sends it on its way. One that cannot be packed is served here again.
    pub(crate) fn send_off(&self, record: Record, fd: OwnedFd, contents: Contents, guard: Guard, permit: Permit) {
        match Parcel::new(record.clone(), fd, contents) {
            Ok(parcel) => self.give(Leaving { parcel, guard, permit, policy: None }),
            Err(returned) => {
                let (error, fd, contents) = *returned;
                tracing::warn!(listener = record.listener, %error, "a connection cannot move, and stays");
                self.note_stay(&guard, "contents");
                self.serve_again(Arrived::back(record, fd, contents, guard));
            }
        }
    }

    /// From now on, and once the drain begins, connections of these listeners go by this channel,
    /// all within about that time. Before the drain has begun it takes the place of another one.
    pub(crate) fn move_to(&self, channel: Channel, takes: BTreeSet<String>, within: Duration) {
        if let Some((leaving, replaced)) = self.set_route(takes, "listener", Permits::default(), within) {
            tokio::spawn(give::give_all(self.clone(), channel, leaving, replaced));
        }
    }

    /// From now on, and once the drain begins, connections are kept for the next start of the
    /// service. Before the drain has begun this takes the place of a way to another generation.
    pub(crate) fn keep_in(&self, keep: Keep) {
        let takes = self.takes().into_iter().filter(|name| !self.core.moving.has_keys(name)).collect();
        if let Some((leaving, replaced)) = self.set_route(takes, "tls", Permits::of_any_number(), Duration::ZERO) {
            tokio::spawn(keep::keep_all(self.clone(), keep, leaving, replaced));
        }
    }

    /// Returns what comes by the new route, and what ends when another one replaces it. `None`: the
    /// drain has begun, and connections are on their way by the one that there is.
    fn set_route(
        &self,
        takes: BTreeSet<String>,
        others: &'static str,
        permits: Permits,
        within: Duration,
    ) -> Option<(mpsc::UnboundedReceiver<Leaving>, oneshot::Receiver<Infallible>)> {
        let (queue, leaving) = mpsc::unbounded_channel();
        let (permits, shut) = (Arc::new(permits), AtomicBool::new(false));
        let (_in_use, replaced) = oneshot::channel();
        let route = Route { queue, takes, others, permits, within, shut, shut_at: OnceLock::new(), _in_use };
        let mut current = self.core.moving.route.write().unwrap_or_else(PoisonError::into_inner);
        let free = current.is_none() || self.phase() == Phase::Open;
        free.then(|| {
            *current = Some(Arc::new(route));
            (leaving, replaced)
        })
    }

    /// Resolves when the drain begins, with the route that connections go by then; `None`: another
    /// one has taken the place of this one before.
    async fn route_in_use(&self, replaced: oneshot::Receiver<Infallible>) -> Option<Arc<Route>> {
        tokio::select! {
            biased;
            _ = replaced => None,
            () = self.signal() => self.core.moving.route(),
        }
    }

    /// Serves it again, as it was not taken.
    fn stayed(&self, leaving: Leaving, reason: &'static str) {
        self.note_stay(&leaving.guard, reason);
        self.come_back(leaving);
    }

    /// Notes that one of which that was not known does not move.
    pub(crate) fn note_stay(&self, guard: &Guard, reason: &'static str) {
        self.core.moving.summary.stayed(reason);
        guard.stayed(reason);
    }

    fn come_back(&self, leaving: Leaving) {
        let Leaving { parcel, guard, permit, policy } = leaving;
        drop(policy); // it gets another one
        self.goes_on(parcel, guard, false);
        drop(permit);
    }

    /// Serves it here again, and lets it go once more, or never.
    fn goes_on(&self, parcel: Parcel, guard: Guard, again: bool) {
        let (record, fd, contents) = parcel.into_parts();
        self.serve_again(Arrived { again, ..Arrived::back(record, fd, contents, guard) });
    }

    fn serve_again(&self, arrival: Arrived) {
        let listener = arrival.record.listener.clone();
        match self.core.moving.adopter(&listener).ok_or("listener").and_then(|adopter| adopter.prepare(arrival)) {
            Ok(adoption) => adoption(),
            // Its client has gone meanwhile, as a rule.
            Err(reason) => tracing::debug!(listener, reason, "a connection that was not taken is closed"),
        }
    }

    /// Notes which connections do not move, before any does.
    fn note_stays(&self) {
        let Some(route) = self.core.moving.route() else { return };
        let works: Vec<_> = self.core.lock().open.values().map(|entry| Arc::clone(&entry.work)).collect();
        for work in works {
            let Some(connection) = work.connection() else { continue };
            let reason = match work.movable() {
                Ok(()) if route.takes.contains(connection.listener()) => continue,
                Ok(()) => route.others,
                Err(reason) => reason,
            };
            self.core.moving.summary.stayed(reason);
            connection.stayed(reason);
        }
    }

    /// Notes those that could have moved, had moving not ended before their turn.
    fn note_left(&self, route: &Route, reason: &'static str) {
        let works: Vec<_> = self.core.lock().open.values().map(|entry| Arc::clone(&entry.work)).collect();
        for work in works.iter().filter(|work| route.is_for(&***work)) {
            self.core.moving.summary.stayed(reason);
            work.connection().inspect(|connection| connection.stayed(reason));
        }
    }

    /// Returns what has become of the connections that were to move; `None` if there was nobody to
    /// move to.
    pub(crate) fn moved(&self) -> Option<Moved> {
        self.core.moving.route()?;
        Some(self.core.moving.summary.counts().clone())
    }

    /// Resolves once none is left that can move.
    pub(crate) fn all_moved(&self) -> impl Future<Output = ()> + Send + 'static {
        let drain = self.clone();
        async move { drain.core.moving.summary.ended().await }
    }
}

/// Crash insurance.
impl Drain {
    /// Has connections insured from now on.
    pub(crate) fn insure_with(&self, insurance: Arc<Insurance>) {
        let _ = self.core.moving.insurance.set(insurance);
    }

    pub(crate) fn insurance(&self) -> Option<&Arc<Insurance>> {
        self.core.moving.insurance.get()
    }

    /// Insures a connection of HTTP/1 of this listener that has been open for so long, and says
    /// where it is.
    #[cfg(feature = "http")]
    pub(crate) fn insure(&self, fd: BorrowedFd<'_>, listener: &str, open: Duration, state: State) -> Option<Policy> {
        self.core.moving.insurance.get()?.insure(fd, listener, open, state)
    }
}

/// The new generation's side.
impl Drain {
    /// Says who serves the connections that come to that listener from another generation.
    pub(crate) fn adopt_with(&self, listener: &str, adopter: Arc<dyn Adopter>) {
        let mut adopters = self.core.moving.adopters.lock().unwrap_or_else(PoisonError::into_inner);
        adopters.insert(listener.to_owned(), adopter);
    }

    /// Returns the listeners whose connections are taken.
    pub(crate) fn takes(&self) -> Vec<String> {
        self.core.moving.adopters.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// Returns how many were taken so far.
    pub(crate) fn adopted(&self) -> usize {
        self.core.moving.adopted.load(Ordering::Relaxed)
    }

    /// Takes what comes by this channel, until no more does; returns how many were taken.
    pub(crate) async fn take_from(&self, channel: Channel) -> usize {
        take::take_all(self, channel).await
    }
}

#[cfg(test)]
mod tests;
