//! One connection's task: which protocol, then hyper, and the clock that linger goes by.

use super::conn::Conn;
use super::framed::Framed;
use super::h2::http2;
use super::observe::Observed;
use super::options::HttpOptions;
use super::progress::Stall;
use super::stage::Stage;
use super::transport::{HttpVersion, Transport};
use crate::drain::{Work as _, later};
use crate::error::BoxError;
use crate::metrics::Protocol;
use crate::transit::Permit;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::TokioIo;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::io::AsyncWrite;
use tokio::time::{Instant, Sleep, sleep_until};

/// How long we wait after the last reply for the client to close, but never beyond the hammer. A
/// client that has read `Connection: close` closes at once.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// The kernel has bytes for us that epoll has not told of yet: look again after this, at most.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Pipelined requests that are answered before other connections get their turn.
const ROUNDS: usize = 16;

pub(super) async fn connection<T, S, B>(mut framed: Framed<T>, conn: Arc<Conn>, service: S, options: Arc<HttpOptions>)
where
    T: Transport,
    S: Service<Request<Incoming>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let first = options.header_read_timeout.min(options.keep_alive_timeout);
    let sleep = pin!(sleep_until(later(conn.quiet_since(), first)));
    let mut clock = Clock::new(&conn, &options, sleep);
    let protocol = loop {
        match poll_fn(|cx| poll_protocol(&mut framed, &conn, &mut clock, cx)).await {
            Ok(First::Speaks(version)) => break Ok(Some(version)),
            Ok(First::Closed) => break Ok(None),
            Ok(First::Leaves(permit)) => match framed.leave(&[], false, clock.quiet(), permit) {
                Ok(()) => return,
                Err(stays) => framed = *stays,
            },
            Err(error) => break Err(error),
        }
    };
    match protocol {
        Ok(Some(HttpVersion::Http1)) => conn.speaks(Protocol::Http1),
        Ok(Some(HttpVersion::Http2)) => {
            conn.speaks(Protocol::Http2);
            if !options.migrate_http2 {
                conn.may_not_move();
            }
        }
        Ok(None) | Err(_) => {}
    }
    let service = Observed::new(service, Arc::clone(&conn), options.extensions(|| framed.info()));
    let result = match protocol {
        Ok(None) => Ok(()),
        Err(error) => Err(error.into()),
        Ok(Some(HttpVersion::Http1)) => http1(framed, service, &conn, &mut clock).await,
        // boxed: it is larger than an HTTP/1 connection, which would have to carry the difference
        Ok(Some(HttpVersion::Http2)) => Box::pin(http2(framed, service, &conn, &mut clock)).await,
    };
    if let Err(error) = result {
        tracing::debug!(peer = %conn.peer, %error, "connection ended");
    }
}

async fn http1<T, S, B>(
    mut framed: Framed<T>,
    mut service: Observed<S>,
    conn: &Conn,
    clock: &mut Clock<'_>,
) -> Result<(), BoxError>
where
    T: Transport,
    S: Service<Request<Incoming>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    loop {
        // our clock does what hyper's header timeout does, without a timer per request
        let mut hyper = http1::Builder::new()
            .header_read_timeout(None)
            .serve_connection(TokioIo::new(framed), service)
            .with_upgrades();
        let mut told = false;
        let driven = poll_fn(|cx| {
            drive(conn, clock, cx, |cx| {
                if !told && conn.stage() == Stage::Unframed && conn.is_draining() {
                    told = true;
                    Pin::new(&mut hyper).graceful_shutdown();
                }
                Pin::new(&mut hyper).poll(cx)
            })
        });
        let Ended::Leaves(permit) = driven.await? else { return Ok(()) };
        // Nothing is in progress: all that hyper has is what it has read of the next head.
        let Some(parts) = hyper.into_parts() else { return Ok(()) };
        match parts.io.into_inner().leave(&parts.read_buf, true, clock.quiet(), permit) {
            Ok(()) => return Ok(()),
            Err(stays) => (framed, service) = (*stays, parts.service),
        }
    }
}

/// Waits until the first bytes tell the protocol, with the same linger and the same last look as
/// later.
fn poll_protocol<T: Transport>(
    framed: &mut Framed<T>,
    conn: &Conn,
    clock: &mut Clock<'_>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<First>> {
    clock.register(cx);
    for _ in 0..ROUNDS {
        if conn.is_hammered() {
            return Poll::Ready(Ok(First::Closed));
        }
        if conn.stage() == Stage::Closing {
            if Pin::new(&mut *framed).poll_shutdown(cx)?.is_ready() {
                return Poll::Ready(Ok(First::Closed));
            }
        } else if let Poll::Ready(known) = framed.poll_protocol(cx)? {
            if let Some(known) = known {
                return Poll::Ready(Ok(First::Speaks(known)));
            }
            conn.set_stage(Stage::Closing);
            continue;
        } else if let Some(permit) = conn.leave() {
            return Poll::Ready(Ok(First::Leaves(permit)));
        }
        match clock.poll(cx) {
            Due::Later => return Poll::Pending,
            Due::CloseIdle => conn.close_idle(true),
            Due::Close => return Poll::Ready(Ok(First::Closed)),
        }
    }
    // the reactor must have its turn: it has not told yet what the last look has seen
    cx.waker().wake_by_ref();
    Poll::Pending
}

pub(super) fn drive(
    conn: &Conn,
    clock: &mut Clock<'_>,
    cx: &mut Context<'_>,
    mut hyper: impl FnMut(&mut Context<'_>) -> Poll<hyper::Result<()>>,
) -> Poll<hyper::Result<Ended>> {
    clock.register(cx);
    for _ in 0..ROUNDS {
        if conn.is_hammered() {
            return Poll::Ready(Ok(Ended::Closed));
        }
        if let Poll::Ready(result) = hyper(cx) {
            return Poll::Ready(result.map(|()| Ended::Closed));
        }
        if let Some(permit) = conn.leave() {
            return Poll::Ready(Ok(Ended::Leaves(permit)));
        }
        if conn.stage() == Stage::Idle && conn.has_held() && !conn.is_paused() {
            continue; // the next pipelined request; hyper was told that there is nothing to read
        }
        match clock.poll(cx) {
            Due::Later => return Poll::Pending,
            Due::CloseIdle => conn.close_idle(true),
            Due::Close => {
                tracing::debug!(what = conn.doing(), "closed: the client has taken too long");
                return Poll::Ready(Ok(Ended::Closed));
            }
        }
    }
    cx.waker().wake_by_ref();
    Poll::Pending
}

/// What the first bytes tell, or what comes before them.
enum First {
    Speaks(HttpVersion),
    Closed,
    /// It goes to the next generation.
    Leaves(Permit),
}

pub(super) enum Ended {
    Closed,
    Leaves(Permit),
}

enum Due {
    Later,
    /// Close unless a last look finds something.
    CloseIdle,
    Close,
}

/// All the deadlines of a connection on one timer that is left alone while requests come and go:
/// it is only ever set earlier, or anew when it has fired.
pub(super) struct Clock<'a> {
    conn: &'a Conn,
    options: &'a HttpOptions,
    sleep: Pin<&'a mut Sleep>,
    armed: Instant,
    /// From which request number on, and since when, a stage has been seen.
    idle: (u64, Instant),
    half: Option<(u64, Instant)>,
    closing: Option<Instant>,
    /// HTTP/2, once it is told to go: since when it has been so, and since when nothing is left.
    told: Option<Instant>,
    quiet: Option<Instant>,
    /// What the client makes us wait for, how far it had got, and since when it has not moved.
    stall: Option<(Stall, u64, Instant)>,
    waker: Option<Waker>,
}

impl<'a> Clock<'a> {
    fn new(conn: &'a Conn, options: &'a HttpOptions, sleep: Pin<&'a mut Sleep>) -> Self {
        let armed = sleep.deadline();
        Self {
            conn,
            options,
            sleep,
            armed,
            idle: (conn.requests(), conn.quiet_since()),
            half: None,
            closing: None,
            told: None,
            quiet: None,
            stall: None,
            waker: None,
        }
    }

    pub(super) fn options(&self) -> &'a HttpOptions {
        self.options
    }

    /// Returns for how long it has been idle, or has had half a head.
    pub(super) fn quiet(&self) -> Duration {
        let requests = self.conn.requests();
        let since = match self.conn.stage() {
            Stage::Half => self.half_since(),
            _ if self.idle.0 == requests => self.idle.1,
            _ => Instant::now(),
        };
        since.elapsed()
    }

    /// Returns since when there is half a head: what was idle before does not count.
    fn half_since(&self) -> Instant {
        let (requests, before) = (self.conn.requests(), self.conn.before());
        match self.half {
            Some((of, since)) if of == requests => since,
            _ if before.half && requests == before.requests => self.conn.quiet_since(),
            _ if requests == 0 => self.conn.opened(),
            _ => Instant::now(),
        }
    }

    /// In a pause nobody could say anything: whoever was idle is idle from its end on.
    fn unless_paused(&self, at: Instant, due: &Due) -> Instant {
        match (due, self.conn.drain.resumed_at()) {
            (Due::CloseIdle, Some(resumed)) if !self.conn.is_draining() => {
                at.max(later(resumed, self.options.keep_alive_timeout))
            }
            _ => at,
        }
    }

    /// Nothing was read in a pause: what had begun before it begins anew.
    fn after_pause(&self, since: Instant) -> Instant {
        self.conn.drain.resumed_at().map_or(since, |resumed| resumed.max(since))
    }

    /// Lets the drain and the timer wake this task.
    #[inline]
    fn register(&mut self, cx: &mut Context<'_>) {
        if !self.waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            self.waker = Some(cx.waker().clone());
            self.conn.wakers.set_task(cx.waker().clone());
            // only for its waker; `poll` asks whether it has fired
            let _ = self.sleep.as_mut().poll(cx);
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Due {
        let fired = self.sleep.is_elapsed();
        let (at, due) = match self.deadline(fired) {
            Some((at, due)) => (at, due),
            None if fired => (later(Instant::now(), self.options.keep_alive_timeout), Due::Later),
            None => return Due::Later,
        };
        if !fired && at >= self.armed {
            return Due::Later;
        }
        let now = Instant::now();
        let at = if at <= now { self.unless_paused(at, &due) } else { at };
        if at <= now {
            self.arm(now + LOOK_AGAIN, cx);
            return due;
        }
        self.arm(at, cx);
        Due::Later
    }

    fn arm(&mut self, at: Instant, cx: &mut Context<'_>) {
        self.armed = at;
        self.sleep.as_mut().reset(at);
        if self.sleep.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
    }

    fn deadline(&mut self, fired: bool) -> Option<(Instant, Due)> {
        let requests = self.conn.requests();
        match self.conn.stage() {
            // Who waits for the end of a pause may have sent all that there is to send.
            Stage::Idle | Stage::Half | Stage::Preface if self.conn.is_paused() => {
                Some((later(Instant::now(), self.options.keep_alive_timeout), Due::Later))
            }
            Stage::Idle => {
                let draining = self.conn.is_draining() && !self.conn.moves();
                // The end of its last reply, which goes along to the next generation. To look at
                // the clock takes some 25 ns of a request; to set a timer, ten times that.
                if self.idle.0 != requests {
                    self.idle = (requests, Instant::now());
                }
                let end = if draining {
                    self.conn.drain.linger_end(self.idle.1)
                } else {
                    let timeout = match requests {
                        0 => self.options.header_read_timeout,
                        _ => self.options.keep_alive_timeout,
                    };
                    later(self.idle.1, timeout)
                };
                Some((end, Due::CloseIdle))
            }
            Stage::Half => {
                let since = self.half_since();
                self.half = Some((requests, since));
                Some((later(self.after_pause(since), self.options.header_read_timeout), Due::Close))
            }
            // half of it is no request that anybody waits for
            Stage::Preface => {
                let end = later(self.after_pause(self.conn.opened()), self.options.header_read_timeout);
                let linger = self.conn.drains().then(|| self.conn.drain.linger_end(self.conn.opened()));
                Some((linger.map_or(end, |linger| end.min(linger)), Due::Close))
            }
            Stage::Http2 if requests == 0 && self.conn.drains() && !self.conn.closes_idle() => {
                Some((self.conn.drain.linger_end(self.conn.opened()), Due::CloseIdle))
            }
            Stage::Http2 if self.conn.drains() || self.conn.closes_idle() => {
                let end = [self.mute(), self.stalled()].into_iter().flatten().min();
                end.map(|at| (at, Due::Close))
            }
            Stage::Http2 if self.conn.stall().is_some() => self.stalled().map(|at| (at, Due::Close)),
            // told to go when it has been quiet for long; one look per fired timer, not per request
            Stage::Http2 if fired => {
                if self.idle.0 != requests || !self.conn.is_quiet() {
                    self.idle = (requests, Instant::now());
                }
                Some((later(self.idle.1, self.options.keep_alive_timeout), Due::CloseIdle))
            }
            Stage::Closing => {
                let since = *self.closing.get_or_insert_with(Instant::now);
                Some((since + CLOSE_TIMEOUT, Due::Close))
            }
            Stage::Upgraded => None,
            _ => self.stalled().map(|at| (at, Due::Close)),
        }
    }

    /// Returns when a client is given up that sends no more of its body, or takes no more of its
    /// reply.
    fn stalled(&mut self) -> Option<Instant> {
        let Some((stall, progress)) = self.conn.stall() else {
            self.stall = None;
            return None;
        };
        let since = match self.stall {
            Some((kind, at, since)) if kind == stall && at == progress => since,
            _ => Instant::now(),
        };
        self.stall = Some((stall, progress, since));
        let timeout = match stall {
            Stall::Body => self.options.body_read_timeout,
            Stall::Reply => self.options.write_timeout,
        };
        Some(later(since, timeout))
    }

    /// Returns when an HTTP/2 connection that was told to go is closed if the client says nothing
    /// more. hyper waits for its answer to a ping, which a client that is gone, or stopped, or
    /// wants it so, never sends.
    fn mute(&mut self) -> Option<Instant> {
        let now = Instant::now();
        let told = *self.told.get_or_insert(now);
        if !self.conn.is_quiet() {
            self.quiet = None;
            return None;
        }
        let quiet = *self.quiet.get_or_insert(now);
        let end = if !self.conn.drains() {
            later(quiet, self.options.keep_alive_timeout)
        } else if self.conn.requests() > 0 {
            self.conn.drain.linger_end(quiet)
        } else {
            // it has had its linger, and gets time for the ping
            self.conn.drain.linger_end(told).min(told + CLOSE_TIMEOUT)
        };
        // not before hyper has had one more turn: the last answer may just have been made
        Some(end.max(quiet + LOOK_AGAIN))
    }
}
