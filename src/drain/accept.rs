//! Taking connections from a listener.

use super::entering::Entering;
use super::guard::Guard;
use super::handle::Drain;
use super::limit::Limit;
use super::listening::Listening;
use super::peer::Peer;
use super::stream::Stream;
use super::turn::Turn;
use crate::error::{Error, Result};
use crate::systemd::activation::Listener;
use std::sync::Arc;
use std::time::Duration;

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
/// use handover::Acceptor;
///
/// for listener in service.listeners("echo")? {
///     let mut acceptor = Acceptor::new(service.drain(), "echo", listener)?;
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
    turn: Turn<L::Registered>,
    listener: L,
    nodelay: bool,
    keepalive: Option<Duration>,
}

impl<L: Listening> Acceptor<L> {
    /// Makes an accept loop for this listener; `name` is for the log.
    ///
    /// # Errors
    /// The listener cannot be made nonblocking.
    pub fn new(drain: &Drain, name: &str, listener: L) -> Result<Self> {
        // accept(2) shall never block, whoever passed the socket
        crate::sys::socket::set_nonblocking(listener.as_fd())
            .map_err(|e| Error::os(format!("cannot make the listener {name:?} nonblocking"), e))?;
        Ok(Self { turn: Turn::new(drain, name, ("accept", "accepting")), listener, nodelay: true, keepalive: None })
    }

    /// Accepts only while fewer connections than that are open. By default there is no limit but
    /// `LimitNOFILE=`.
    #[must_use]
    pub fn limit(mut self, limit: &Limit) -> Self {
        self.turn.limit(limit);
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
        let Self { turn, listener, .. } = self;
        let ((stream, peer), mut entering) =
            turn.next(|| listener.registered(), |socket, cx| L::poll_accept(socket, cx)).await?;
        entering.listener = Some(Arc::clone(self.turn.name()));
        L::tune(&stream, self.nodelay, self.keepalive);
        Some(Accepted { stream, peer, entering })
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        self.turn.name()
    }
}
