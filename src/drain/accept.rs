//! Taking connections from a listener.

use super::entering::Entering;
use super::guard::Guard;
use super::handle::Drain;
use super::limit::Limit;
use super::listening::Listening;
use super::peer::Peer;
use super::stream::Stream;
use super::turn::Turn;
use crate::sys::socket;
use crate::systemd::activation::Listener;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A connection that is served in any case, and counted from before accept(2) returned it.
#[derive(Debug)]
pub struct Accepted<S = Stream> {
    pub(crate) stream: S,
    pub(crate) peer: Peer,
    pub(crate) entering: Entering,
}

impl<S> Accepted<S> {
    /// Returns who is at the other end.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// Returns the stream, and the guard that counts it until it is dropped; `what` names the
    /// connection if it must be cut. The guard's [`cut`](Guard::cut) resolves when that happens:
    /// stop then.
    #[must_use = "it is counted until the guard is dropped"]
    pub fn register(self, what: impl Into<String>) -> (S, Guard) {
        (self.stream, self.entering.register(what.into()))
    }
}

/// Accepts from one listener, while the drain's gate is open, and through a shortage of file
/// descriptors.
///
/// A generation accepts only while it is its turn: from ready, or from the switch on, until the
/// next switch. So take connections from here rather than from the listener, whatever protocol they
/// speak; [`Service::serve_stream`](crate::Service::serve_stream) does so for handlers that are
/// functions:
///
/// ```no_run
/// # async fn example(service: &handover::Service) -> handover::Result<()> {
/// use handover::drain::Acceptor;
///
/// for listener in service.listeners("echo")? {
///     let mut acceptor = Acceptor::new(service.drain(), "echo", listener);
///     tokio::spawn(async move {
///         while let Some(accepted) = acceptor.accept().await {
///             let peer = accepted.peer();
///             let (mut stream, guard) = accepted.register(format!("echo to {peer}"));
///             tokio::spawn(async move {
///                 let (mut from, mut to) = tokio::io::split(&mut stream);
///                 tokio::select! {
///                     () = guard.cut() => {} // the drain timeout is over
///                     _ = tokio::io::copy(&mut from, &mut to) => {}
///                 }
///             });
///         }
///     });
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Acceptor<L: Listening = Listener> {
    turn: Turn<AsyncFd<Arc<OwnedFd>>>,
    /// The one fd of this loop. The reactor shares it while it is this generation's turn; so it is
    /// still there for another try when the reactor has no room for it.
    listener: Arc<OwnedFd>,
    form: L::Form,
    nodelay: bool,
    keepalive: Option<Duration>,
}

impl<L: Listening> Acceptor<L> {
    /// Makes an accept loop for this listener; `name` is for the log. The listener becomes
    /// nonblocking, whoever made it.
    #[must_use]
    pub fn new(drain: &Drain, name: &str, listener: L) -> Self {
        let (form, turn) = (listener.form(), Turn::new(drain, name, ("accept", "accepting")));
        Self { turn, listener: Arc::new(listener.into()), form, nodelay: true, keepalive: None }
    }

    /// Accepts only while fewer connections than that are open. By default there is no limit but
    /// `LimitNOFILE=`.
    #[must_use]
    pub fn limit(mut self, limit: &Limit) -> Self {
        self.turn.limit(limit);
        self
    }

    /// Accepts those who ask about the service, in a pause, too.
    #[cfg(any(feature = "control", feature = "admin"))]
    pub(crate) fn aside(mut self) -> Self {
        self.turn.aside();
        self
    }

    /// Sets whether TCP connections get `TCP_NODELAY`. With false they keep what the listener has
    /// (`NoDelay=` in the .socket unit). The default is true.
    #[must_use]
    pub fn nodelay(mut self, nodelay: bool) -> Self {
        self.nodelay = nodelay;
        self
    }

    /// Sets after how long a silence a TCP client is asked whether it is still there. One that is
    /// not is noticed within twice this time. It is in whole seconds, at least 1. With `None`, the
    /// default, connections keep what the listener has (`KeepAlive=` in the .socket unit).
    #[must_use]
    pub fn keepalive(mut self, time: Option<Duration>) -> Self {
        self.keepalive = time;
        self
    }

    /// Returns the next connection, or `None` once the drain has begun. It waits while the gate is
    /// shut or the limit is reached, and through errors of accept(2): those of one connection are
    /// skipped; after others (no file descriptor is left) it logs and tries again.
    ///
    /// It must be called within a tokio runtime.
    ///
    /// # Cancel safety
    /// A connection that the kernel has handed over is returned, never lost.
    pub async fn accept(&mut self) -> Option<Accepted<L::Stream>> {
        let Self { turn, listener, form, .. } = self;
        let register = || {
            // Whether it blocks is a property of the socket, which is shared with other processes:
            // one of them may have made it blocking since it came in, or while it was not our turn,
            // as the other program of a `handover run` does. accept(2) must not block here, so the
            // flag is looked at each time; it is set again only where somebody has cleared it.
            socket::set_nonblocking(listener.as_fd())?;
            socket::register_shared(Arc::clone(listener), Interest::READABLE)
        };
        let ((stream, peer), mut entering) = turn.next(register, |fd, cx| poll_accept::<L>(fd, *form, cx)).await?;
        entering.listener = Some(Arc::clone(self.turn.name()));
        L::tune(&stream, self.nodelay, self.keepalive);
        Some(Accepted { stream, peer, entering })
    }

    #[cfg(feature = "tonic")]
    pub(super) fn drain(&self) -> &Drain {
        self.turn.drain()
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        self.turn.name()
    }
}

fn poll_accept<L: Listening>(
    listener: &AsyncFd<Arc<OwnedFd>>,
    form: L::Form,
    cx: &mut Context<'_>,
) -> Poll<io::Result<(L::Stream, Peer)>> {
    loop {
        let mut ready = ready!(listener.poll_read_ready(cx))?;
        if let Ok(accepted) = ready.try_io(|fd| L::accept(fd.as_fd(), form)) {
            return Poll::Ready(accepted);
        }
    }
}
