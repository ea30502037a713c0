//! Taking connections from a listener.

use super::Drain;
use super::guard::{Entering, Guard};
use super::limit::Limit;
use super::stream::Peer;
use super::turn::Turn;
use crate::sys::socket;
use crate::systemd::activation::Listener;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A listening socket that an [`Acceptor`] takes connections from. Not to be implemented elsewhere.
pub trait Listening: Into<OwnedFd> + Sized + 'static {
    /// An accepted connection.
    type Stream: AsFd + Send + 'static;
    /// What is known of the listener, beyond its fd, to make a stream of what it accepts.
    #[doc(hidden)]
    type Form: Copy + fmt::Debug + Send + Sync;

    #[doc(hidden)]
    fn form(&self) -> Self::Form;
    /// Takes the next connection from the listener of that form, which is nonblocking.
    #[doc(hidden)]
    fn accept(listener: BorrowedFd<'_>, form: Self::Form) -> io::Result<(Self::Stream, Peer)>;
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

    /// Accepts only while fewer connections than that are open. Default: no limit but `LimitNOFILE=`.
    #[must_use]
    pub fn limit(mut self, limit: &Limit) -> Self {
        self.turn.limit(limit);
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
