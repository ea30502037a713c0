//! What the parts of one connection know of each other, and the drain of it.
//!
//! The socket wrapper and the service wrapper both live inside hyper's connection and are polled
//! by the connection's own task, one after the other; so plain atomics do. Only the hammer looks
//! from outside.

mod work;

use super::active::Requests;
use super::body::{RequestBody, Rest};
use super::progress::{Progress, Stall};
use super::stage::{AtomicStage, Stage};
use super::upgraded::Upgrade;
use super::wakers::Wakers;
use crate::drain::Peer;
use crate::drain::{Drain, Phase};
use crate::metrics::{Counted, Protocol};
use crate::transit::Permit;
use http::Request;
use http_body::Body;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;

#[derive(Debug)]
pub(super) struct Conn {
    pub(super) drain: Drain,
    pub(super) peer: Peer,
    pub(super) progress: Progress,
    pub(super) body: RequestBody,
    pub(super) wakers: Wakers,
    /// Whether there may be a second request.
    keep_alive: bool,
    /// Whether it may go to the next generation; what it speaks and does may still forbid it.
    may_move: AtomicBool,
    /// Why it may not, if it never might.
    stays: &'static str,
    /// What it was elsewhere, if it came from there.
    before: Before,
    metrics: Counted,
    listener: Arc<str>,
    opened: Instant,
    stage: AtomicStage,
    requests: AtomicU64,
    held: AtomicBool,
    last: AtomicBool,
    close_idle: AtomicBool,
    closes: AtomicBool,
    http2: AtomicBool,
    /// HTTP/2: some streams were upgraded. hyper does not tell when they close.
    tunnels: AtomicBool,
    /// HTTP/1: the request in `active` is not over yet. Saves a lock per request.
    answering: AtomicBool,
    active: Mutex<Requests>,
    /// A WebSocket, or what may become one. Most connections never have one.
    upgrade: OnceLock<Box<Upgrade>>,
    /// Requests that were read in a pause, and wait for its end.
    waiting: AtomicUsize,
    /// It is of somebody who asks about the service.
    aside: bool,
}

/// What is known of a connection from where it was served before.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Before {
    pub(super) requests: u64,
    pub(super) open: Duration,
    /// For how long it has been idle, or has had half a head.
    pub(super) quiet: Duration,
    pub(super) half: bool,
    pub(super) http2: bool,
    pub(super) moves: u64,
}

impl Conn {
    /// Makes one that was just accepted; `may_move` says whether it may go elsewhere, or why not.
    pub(super) fn new(
        drain: Drain,
        listener: Arc<str>,
        peer: Peer,
        keep_alive: bool,
        may_move: Result<(), &'static str>,
    ) -> Self {
        let metrics = drain.metrics().connection(Arc::clone(&listener), Protocol::Unknown);
        let conn = Self::with(drain, listener, peer, keep_alive, may_move.is_ok(), metrics, Before::default());
        Self { stays: may_move.err().unwrap_or("off"), ..conn }
    }

    /// Sets whether it is of somebody who asks about the service, in a pause, too.
    pub(super) fn aside(self, aside: bool) -> Self {
        Self { aside, ..self }
    }

    /// Makes one that was served elsewhere before, or has come back, which is not new.
    pub(super) fn adopted(
        drain: Drain,
        listener: Arc<str>,
        peer: Peer,
        keep_alive: bool,
        (may_move, is_new): (bool, bool),
        before: Before,
    ) -> Self {
        let protocol = match before {
            Before { http2: true, .. } => Protocol::Http2,
            Before { requests: 1.., .. } => Protocol::Http1,
            _ => Protocol::Unknown,
        };
        let metrics = drain.metrics().adopted(Arc::clone(&listener), protocol, is_new);
        Self::with(drain, listener, peer, keep_alive, may_move, metrics, before)
    }

    fn with(
        drain: Drain,
        listener: Arc<str>,
        peer: Peer,
        keep_alive: bool,
        may_move: bool,
        metrics: Counted,
        before: Before,
    ) -> Self {
        let now = Instant::now();
        Self {
            drain,
            peer,
            progress: Progress::default(),
            body: RequestBody::default(),
            wakers: Wakers::default(),
            keep_alive,
            may_move: AtomicBool::new(may_move),
            stays: "off",
            metrics,
            listener,
            opened: now.checked_sub(before.open).unwrap_or(now),
            stage: AtomicStage::default(),
            requests: AtomicU64::new(before.requests),
            held: AtomicBool::new(false),
            last: AtomicBool::new(false),
            close_idle: AtomicBool::new(false),
            closes: AtomicBool::new(false),
            http2: AtomicBool::new(false),
            tunnels: AtomicBool::new(false),
            answering: AtomicBool::new(false),
            active: Mutex::default(),
            upgrade: OnceLock::new(),
            waiting: AtomicUsize::new(0),
            aside: false,
            before,
        }
    }

    /// Returns since when it has been in the stage that it came here in.
    pub(super) fn quiet_since(&self) -> Instant {
        self.opened + self.before.open.saturating_sub(self.before.quiet)
    }

    pub(super) fn before(&self) -> &Before {
        &self.before
    }

    pub(super) fn listener(&self) -> &Arc<str> {
        &self.listener
    }

    /// Returns whether it goes to the next generation, as soon as nothing of it is in progress.
    #[inline]
    pub(super) fn moves(&self) -> bool {
        self.may_move.load(Relaxed) && self.is_draining() && self.drain.moves(&self.listener)
    }

    /// Returns whether nothing forbids that it goes to the next generation.
    pub(super) fn may_move(&self) -> bool {
        self.may_move.load(Relaxed)
    }

    /// Returns whether it begins no request, as there is a pause.
    #[inline]
    pub(super) fn is_paused(&self) -> bool {
        self.drain.is_paused() && !self.aside
    }

    /// Counts a request that was read in a pause, until it does not wait any more.
    pub(super) fn count_waiting(&self, waits: bool) {
        if waits {
            self.waiting.fetch_add(1, Relaxed)
        } else {
            self.waiting.fetch_sub(1, Relaxed)
        };
    }

    /// Returns whether it has to come to its end here.
    pub(super) fn drains(&self) -> bool {
        self.is_draining() && !self.moves()
    }

    /// Returns the permit to go, if it may go at this moment.
    #[inline]
    pub(super) fn leave(&self) -> Option<Permit> {
        let quiet = matches!(self.stage(), Stage::Idle | Stage::Half | Stage::Preface) && !self.is_replaying();
        if quiet && self.moves() { self.drain.permit() } else { None }
    }

    /// Notes that it stays here.
    pub(super) fn may_not_move(&self) {
        self.may_move.store(false, Relaxed);
    }

    /// Has the request replayed that it was upgraded with elsewhere.
    pub(super) fn replay(&self, upgrade: Upgrade) {
        let _ = self.upgrade.set(Box::new(upgrade));
    }

    pub(super) fn is_replaying(&self) -> bool {
        self.upgrade.get().is_some_and(|upgrade| upgrade.is_replaying())
    }

    pub(super) fn upgrade(&self) -> Option<&Upgrade> {
        self.upgrade.get().map(|upgrade| &**upgrade)
    }

    /// Returns the permit to go when an upgraded connection may, and its reader waits; `None` when
    /// the drain has begun and it will not.
    pub(super) fn poll_turn(&self, upgrade: &Upgrade, cx: &mut Context<'_>) -> Poll<Option<Permit>> {
        // First the waker, then the look: the drain does it the other way round.
        upgrade.ask(cx.waker());
        if !self.is_draining() {
            return Poll::Pending;
        }
        if !self.moves() || upgrade.stays() {
            return Poll::Ready(None);
        }
        // What the socket does not take would be lost.
        if self.stage() != Stage::Upgraded || self.progress.is_blocked() || !upgrade.wants() {
            return Poll::Pending;
        }
        // Whoever gets none is asked again.
        let Some(permit) = self.drain.permit() else { return Poll::Pending };
        if upgrade.hold() { Poll::Ready(Some(permit)) } else { Poll::Pending }
    }

    pub(super) fn opened(&self) -> Instant {
        self.opened
    }

    #[inline]
    pub(super) fn stage(&self) -> Stage {
        self.stage.load()
    }

    #[inline]
    pub(super) fn set_stage(&self, stage: Stage) {
        self.stage.store(stage);
        if stage == Stage::Http2 {
            self.http2.store(true, Relaxed);
        }
    }

    #[inline]
    pub(super) fn is_draining(&self) -> bool {
        self.drain.phase() != Phase::Open
    }

    #[inline]
    pub(super) fn is_hammered(&self) -> bool {
        self.drain.phase() == Phase::Hammered
    }

    /// Requests so far.
    #[inline]
    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Relaxed)
    }

    /// Returns whether bytes are held back that hyper has not asked for.
    #[inline]
    pub(super) fn has_held(&self) -> bool {
        self.held.load(Relaxed)
    }

    #[inline]
    pub(super) fn set_held(&self, held: bool) {
        self.held.store(held, Relaxed);
    }

    /// Notes, while draining, whether nothing has been received behind the current request.
    #[inline]
    pub(super) fn set_last(&self, last: bool) {
        self.last.store(last, Relaxed);
    }

    /// Returns whether the connection should close if a last look finds nothing.
    #[inline]
    pub(super) fn closes_idle(&self) -> bool {
        self.close_idle.load(Relaxed)
    }

    #[inline]
    pub(super) fn close_idle(&self, close: bool) {
        self.close_idle.store(close, Relaxed);
    }

    /// Returns whether it is us who want to close: the client may just be sending.
    pub(super) fn closes(&self) -> bool {
        self.closes.load(Relaxed) || self.closes_idle()
    }

    /// Notes that hyper calls the service.
    pub(super) fn called<B: Body>(&self, request: &Request<B>) -> usize {
        let http2 = self.http2.load(Relaxed);
        let number = self.requests.load(Relaxed) + 1;
        self.requests.store(number, Relaxed);
        if http2 {
            return self.active().begin(number, request);
        }
        // hyper's own, for an upgrade: the others come later
        if self.may_move.load(Relaxed) && !request.extensions().is_empty() && self.upgrade.get().is_none() {
            let _ = Upgrade::of(request).map(|upgrade| self.upgrade.set(Box::new(upgrade)));
        }
        self.body.begin(request.body().size_hint().exact());
        self.last.store(false, Relaxed);
        self.progress.set_starved(false);
        let agreed = self.stage() == Stage::Head;
        self.set_stage(if agreed { Stage::Called } else { Stage::Unframed });
        let slot = self.active().only(number, request);
        self.answering.store(true, Relaxed);
        slot
    }

    /// Notes that the service has answered; returns whether the reply must carry
    /// `Connection: close`.
    #[inline]
    pub(super) fn answered(&self, upgrade: bool) -> bool {
        if self.http2.load(Relaxed) {
            self.tunnels.fetch_or(upgrade, Relaxed);
            return false;
        }
        if upgrade {
            self.metrics.speaks(Protocol::Upgraded);
            self.set_stage(Stage::Upgraded);
            return false;
        }
        if let Some(upgrade) = self.upgrade() {
            upgrade.stay();
        }
        if self.stage() == Stage::Called {
            self.set_stage(Stage::Replying);
        }
        // A body that is answered before it is here is not read to its end, as a rule, and then
        // hyper closes. It would not say so.
        let rest = self.body.rest();
        let framed = self.stage() != Stage::Unframed;
        let unread = framed && rest == Rest::Coming;
        // Only after a look: if the drain has begun since, this reply says nothing and the
        // connection lingers for one more.
        let nothing_behind = self.last.load(Relaxed) || rest != Rest::None || !framed;
        let close = !self.keep_alive || unread || (nothing_behind && self.is_draining() && !self.moves());
        if close {
            self.closes.store(true, Relaxed);
        }
        close
    }

    /// Notes the protocol that the first bytes have told.
    pub(super) fn speaks(&self, protocol: Protocol) {
        self.metrics.speaks(protocol);
    }

    /// Returns what is waited for if only the client can end that, and how far it has got. Over
    /// HTTP/2 that must be so for all requests: none waits for its handler.
    pub(super) fn stall(&self) -> Option<(Stall, u64)> {
        let stall = if self.progress.is_blocked() {
            Some(Stall::Reply)
        } else if self.http2.load(Relaxed) {
            let sending = self.progress.sending();
            let all = sending > 0 && !self.tunnels.load(Relaxed) && self.active().count() <= sending;
            all.then_some(Stall::Reply)
        } else {
            // who has answered may be in a conversation
            (self.progress.is_starved() && self.stage() == Stage::Called).then_some(Stall::Body)
        };
        stall.map(|stall| (stall, self.progress.moves()))
    }

    /// Notes that h2 has all of the answer, and may not send it yet.
    pub(super) fn unsent(&self, slot: usize) {
        self.active().unsent(slot);
    }

    /// Returns whether a stream was upgraded, which may be one still.
    pub(super) fn has_tunnels(&self) -> bool {
        self.tunnels.load(Relaxed)
    }

    /// Returns whether no request is being answered, all answers are sent, and no stream was
    /// upgraded.
    pub(super) fn is_quiet(&self) -> bool {
        !self.tunnels.load(Relaxed) && !self.progress.is_blocked() && self.active().count() == 0
    }

    /// Notes that hyper has let go of the reply's body; over HTTP/2, of its last piece.
    #[inline]
    pub(super) fn ended(&self, slot: usize) {
        match self.stage() {
            Stage::Upgraded => return, // the request lives on in the stream
            Stage::Called | Stage::Replying => self.set_stage(Stage::Replied),
            _ => {}
        }
        if self.http2.load(Relaxed) {
            self.active().end(slot);
            if self.is_draining() {
                // perhaps in a task of its own: the clock shall see that nothing is left
                self.wakers.wake_task();
            }
        } else {
            self.answering.store(false, Relaxed);
        }
    }

    #[inline]
    fn active(&self) -> MutexGuard<'_, Requests> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
