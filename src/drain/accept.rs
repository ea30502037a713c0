//! Taking connections from a listener: at the gate, within a limit, and through a shortage of descriptors.

use super::Drain;
use super::guard::{Entering, Guard};
use super::limit::ConnectionLimit;
use super::stream::Peer;
use crate::error::{Error, Result};
use crate::systemd::activation::Listener;
use std::future::poll_fn;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::watch;

/// First pause after accept(2) failed for want of descriptors or memory; doubled each time.
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// Longest pause: a client waits no longer than this in the backlog once the shortage is over.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// A listening socket that an [`Acceptor`] takes connections from. Not to be implemented elsewhere.
pub trait Listening: AsFd + Send + Sync + Sized + 'static {
    /// An accepted connection.
    type Stream: AsFd + Send + 'static;
    #[doc(hidden)]
    type Registered: Send + Sync;

    /// In the reactor, as long as that lives.
    #[doc(hidden)]
    fn registered(&self) -> io::Result<Self::Registered>;
    #[doc(hidden)]
    fn poll_accept(listener: &Self::Registered, cx: &mut Context<'_>) -> Poll<io::Result<(Self::Stream, Peer)>>;
    #[doc(hidden)]
    fn tune(stream: &Self::Stream, nodelay: bool, keepalive: Option<Duration>);
}

/// A connection that is served in any case, and counted from before accept(2) returned it.
#[derive(Debug)]
pub struct Accepted<S = super::Stream> {
    pub(crate) stream: S,
    pub(crate) peer: Peer,
    pub(crate) entering: Entering,
}

impl<S> Accepted<S> {
    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// The stream, and the guard that counts it until dropped; `what` names the connection if it must be cut. The guard's
    /// [`cut`](Guard::cut) resolves when that happens: stop then.
    #[must_use = "it is counted until the guard is dropped"]
    pub fn register(self, what: impl Into<String>) -> (S, Guard) {
        (self.stream, self.entering.register(what.into()))
    }
}

/// One listener's accept loop: at the drain's gate, and through a shortage of file descriptors.
///
/// A generation accepts only while it is its turn: from ready, or from the switch on, until the next switch. So take
/// connections from here rather than from the listener, whatever protocol they speak;
/// [`Service::serve_stream`](crate::Service::serve_stream) does so for handlers that are functions:
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
    name: Arc<str>,
    drain: Drain,
    gate: watch::Receiver<bool>,
    listener: L,
    /// Out of the reactor while the gate is shut: another generation accepts from the same socket
    /// then, and each of its connections would wake us.
    registered: Option<L::Registered>,
    limit: Option<ConnectionLimit>,
    nodelay: bool,
    keepalive: Option<Duration>,
    /// The pause after the next failure; above the least one: an episode is going on.
    pause: Duration,
}

impl<L: Listening> Acceptor<L> {
    /// An accept loop for this listener; `name` is for the log.
    ///
    /// # Errors
    /// The listener cannot be made nonblocking.
    pub fn new(drain: &Drain, name: &str, listener: L) -> Result<Self> {
        crate::sys::socket::set_nonblocking(listener.as_fd())
            .map_err(|e| Error::os(format!("cannot make the listener {name:?} nonblocking"), e))?;
        Ok(Self {
            name: name.into(),
            drain: drain.clone(),
            gate: drain.core.gate.subscribe(),
            listener,
            registered: None,
            limit: None,
            nodelay: true,
            keepalive: None,
            pause: PAUSE_MIN,
        })
    }

    /// Accepts only while fewer connections than that are open. Default: no limit but `LimitNOFILE=`.
    #[must_use]
    pub fn limit(mut self, limit: &ConnectionLimit) -> Self {
        self.limit = Some(limit.clone());
        self
    }

    /// Whether TCP connections get `TCP_NODELAY`. False leaves it as the listener has it (`NoDelay=` in the .socket
    /// unit). Default true.
    #[must_use]
    pub fn nodelay(mut self, nodelay: bool) -> Self {
        self.nodelay = nodelay;
        self
    }

    /// A TCP client that has been silent for this long is asked whether it is still there; one that is not is noticed
    /// within twice this time. Whole seconds, at least 1. `None` leaves it as the listener has it (`KeepAlive=` in the
    /// .socket unit), which is the default.
    #[must_use]
    pub fn keepalive(mut self, time: Option<Duration>) -> Self {
        self.keepalive = time;
        self
    }

    /// The next connection; `None` once the drain has begun. Waits while the gate is shut or the limit is reached, and
    /// through errors of accept(2): those of one connection are skipped, for others (no file descriptors left) it logs
    /// and tries again.
    ///
    /// Within a tokio runtime.
    ///
    /// # Cancel safety
    /// A connection that the kernel has handed over is returned, never lost.
    pub async fn accept(&mut self) -> Option<Accepted<L::Stream>> {
        loop {
            let open = *self.gate.borrow_and_update();
            if self.drain.phase() != super::Phase::Open {
                return None;
            }
            if !open {
                self.registered = None;
                // the sender lives in our own `drain`, so this cannot fail
                let _ = self.gate.changed().await;
                continue;
            }
            let accepted = match self.register() {
                Ok(()) => {
                    let Self { drain, gate, registered, limit, .. } = self;
                    tokio::select! {
                        biased;
                        _ = gate.changed() => continue,
                        accepted = poll_fn(|cx| poll_accept::<L>(drain, registered.as_ref(), limit.as_ref(), cx)) => accepted,
                    }
                }
                Err(error) => Err(error),
            };
            match accepted {
                Ok(Some(accepted)) => {
                    if self.pause > PAUSE_MIN {
                        self.pause = PAUSE_MIN;
                        tracing::info!(listener = &*self.name, "accepting again");
                    }
                    L::tune(&accepted.stream, self.nodelay, self.keepalive);
                    return Some(accepted);
                }
                Ok(None) => self.full().await,
                Err(error) if is_of_that_connection(&error) => {
                    tracing::debug!(listener = &*self.name, %error, "a connection was gone before it was accepted");
                }
                Err(error) => self.starved(&error).await,
            }
        }
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn register(&mut self) -> io::Result<()> {
        if self.registered.is_none() {
            self.registered = Some(self.listener.registered()?);
        }
        Ok(())
    }

    async fn full(&mut self) {
        let Some(limit) = &self.limit else { return };
        limit.tell_full(&self.name);
        tokio::select! {
            _ = self.gate.changed() => {}
            () = limit.freed() => {}
        }
    }

    async fn starved(&mut self, error: &io::Error) {
        if self.pause == PAUSE_MIN {
            tracing::error!(
                listener = &*self.name, %error,
                "cannot accept; clients wait in the backlog until it works again (for \"too many open files\" raise LimitNOFILE=)"
            );
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }
}

/// `None`: there are as many connections as there may be.
fn poll_accept<L: Listening>(
    drain: &Drain,
    registered: Option<&L::Registered>,
    limit: Option<&ConnectionLimit>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<Option<Accepted<L::Stream>>>> {
    let Some(mut entering) = drain.enter() else {
        return Poll::Pending; // shut just now: the gate's change wakes us
    };
    let Some(registered) = registered else { return Poll::Pending };
    if let Some(limit) = limit {
        // Held only while we look: a listener that nobody connects to shall not keep the last slot from another one.
        let Some(slot) = limit.take() else { return Poll::Ready(Ok(None)) };
        entering.slot = Some(slot);
    }
    let (stream, peer) = ready!(L::poll_accept(registered, cx))?;
    Poll::Ready(Ok(Some(Accepted { stream, peer, entering })))
}

/// See accept(2), "Error handling": these concern one connection, not the listener.
fn is_of_that_connection(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNABORTED
                | libc::ECONNRESET
                | libc::ECONNREFUSED
                | libc::EINTR
                | libc::EPROTO
                | libc::EPERM
                | libc::ENETDOWN
                | libc::ENOPROTOOPT
                | libc::EHOSTDOWN
                | libc::ENONET
                | libc::EHOSTUNREACH
                | libc::EOPNOTSUPP
                | libc::ENETUNREACH
                | libc::ETIMEDOUT
        )
    )
}
