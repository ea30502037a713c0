//! Taking connections from a listener: at the gate, and through a shortage of descriptors.

use super::Drain;
use super::guard::{Entering, Guard};
use super::limit::Limit;
use crate::error::{Error, Result};
use crate::systemd::activation::Listener;
use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;

/// First pause after accept(2) failed for want of descriptors or memory; doubled each time.
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// Longest pause: a client waits no longer than this in the backlog once the shortage is over.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Peer {
    /// A TCP client.
    Tcp(SocketAddr),
    /// A client on a Unix socket, as the kernel names it (`SO_PEERCRED`).
    Unix {
        /// The process that connected, if the kernel knows it.
        pid: Option<i32>,
        /// Its user, likewise.
        uid: Option<u32>,
    },
}

impl Peer {
    /// The client's address and port, if it came over TCP.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix { .. } => None,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix { pid: Some(pid), .. } => write!(f, "pid {pid}"),
            Self::Unix { .. } => f.write_str("unix"),
        }
    }
}

/// The socket of an accepted connection.
#[derive(Debug)]
#[non_exhaustive]
pub enum Stream {
    /// TCP, with `TCP_NODELAY`.
    Tcp(TcpStream),
    /// A Unix stream socket.
    Unix(UnixStream),
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

/// A connection that is served in any case, and counted from before accept(2) returned it.
#[derive(Debug)]
pub struct Accepted {
    pub(crate) stream: Stream,
    pub(crate) peer: Peer,
    pub(crate) entering: Entering,
}

impl Accepted {
    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// The stream, and the guard that counts it until dropped; `what` names the connection if it must be cut. The guard's
    /// [`cut`](Guard::cut) resolves when that happens: stop then.
    #[must_use = "it is counted until the guard is dropped"]
    pub fn register(self, what: impl Into<String>) -> (Stream, Guard) {
        (self.stream, self.entering.register(what.into()))
    }
}

/// One listener's accept loop: at the drain's gate, and through a shortage of file descriptors.
///
/// A generation accepts only while it is its turn: from ready, or from the switch on, until the next switch. So take
/// connections from here rather than from the listener, whatever protocol they speak:
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
pub struct Acceptor {
    name: Arc<str>,
    drain: Drain,
    gate: watch::Receiver<bool>,
    socket: Socket,
    limit: Option<Limit>,
    /// The pause after the next failure; above the least one: an episode is going on.
    pause: Duration,
}

/// Out of the reactor while the gate is shut: another generation accepts from the same socket
/// then, and each of its connections would wake us.
#[derive(Debug)]
enum Socket {
    Out(Option<Listener>),
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Acceptor {
    /// An accept loop for this listener; `name` is for the log.
    ///
    /// # Errors
    /// The listener cannot be made nonblocking.
    pub fn new(drain: &Drain, name: &str, listener: Listener) -> Result<Self> {
        let nonblocking = match &listener {
            Listener::Tcp(listener) => listener.set_nonblocking(true),
            Listener::Unix(listener) => listener.set_nonblocking(true),
        };
        nonblocking.map_err(|e| Error::os(format!("cannot make the listener {name:?} nonblocking"), e))?;
        Ok(Self {
            name: name.into(),
            drain: drain.clone(),
            gate: drain.core.gate.subscribe(),
            socket: Socket::Out(Some(listener)),
            limit: None,
            pause: PAUSE_MIN,
        })
    }

    /// Accepts only while fewer connections than that are open. Default: no limit but `LimitNOFILE=`.
    #[must_use]
    pub fn limit(mut self, limit: &Limit) -> Self {
        self.limit = Some(limit.clone());
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
    pub async fn accept(&mut self) -> Option<Accepted> {
        loop {
            let open = *self.gate.borrow_and_update();
            if self.drain.phase() != super::Phase::Open {
                return None;
            }
            let accepted = if open {
                match self.socket.register() {
                    Ok(()) => {
                        let Self { drain, gate, socket, limit, .. } = self;
                        tokio::select! {
                            biased;
                            _ = gate.changed() => continue,
                            accepted = poll_fn(|cx| poll_accept(drain, socket, limit.as_ref(), cx)) => accepted,
                        }
                    }
                    Err(error) => Err(error),
                }
            } else {
                self.socket.deregister();
                // the sender lives in our own `drain`, so this cannot fail
                let _ = self.gate.changed().await;
                continue;
            };
            match accepted {
                Ok(None) => self.full().await,
                Ok(Some(mut accepted)) => {
                    accepted.entering.listener = Some(Arc::clone(&self.name));
                    if self.pause > PAUSE_MIN {
                        self.pause = PAUSE_MIN;
                        tracing::info!(listener = &*self.name, "accepting again");
                    }
                    return Some(accepted);
                }
                Err(error) if is_of_that_connection(&error) => {
                    tracing::debug!(listener = &*self.name, %error, "a connection was gone before it was accepted");
                }
                Err(error) => self.starved(&error).await,
            }
        }
    }

    #[cfg(feature = "http")]
    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
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

/// `None`: there are as many as there may be.
fn poll_accept(
    drain: &Drain,
    socket: &Socket,
    limit: Option<&Limit>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<Option<Accepted>>> {
    let Some(mut entering) = drain.enter() else {
        return Poll::Pending; // shut just now: the gate's change wakes us
    };
    if let Some(limit) = limit {
        entering.slot = limit.take();
        if entering.slot.is_none() {
            return Poll::Ready(Ok(None));
        }
    }
    let (stream, peer) = match socket {
        Socket::Out(_) => return Poll::Pending,
        Socket::Tcp(listener) => match std::task::ready!(listener.poll_accept(cx)) {
            Ok((stream, address)) => {
                // fails only if the peer is gone already, which the first read tells better
                let _ = stream.set_nodelay(true);
                (Stream::Tcp(stream), Peer::Tcp(address))
            }
            Err(error) => return Poll::Ready(Err(error)),
        },
        Socket::Unix(listener) => match std::task::ready!(listener.poll_accept(cx)) {
            Ok((stream, _)) => {
                let credentials = stream.peer_cred().ok();
                let peer = Peer::Unix { pid: credentials.and_then(|c| c.pid()), uid: credentials.map(|c| c.uid()) };
                (Stream::Unix(stream), peer)
            }
            Err(error) => return Poll::Ready(Err(error)),
        },
    };
    Poll::Ready(Ok(Some(Accepted { stream, peer, entering })))
}

impl Socket {
    fn register(&mut self) -> io::Result<()> {
        let Self::Out(listener) = self else { return Ok(()) };
        // a copy first: `from_std` would close the only descriptor if it failed
        *self = match listener {
            Some(Listener::Tcp(out)) => Self::Tcp(TcpListener::from_std(out.try_clone()?)?),
            Some(Listener::Unix(out)) => Self::Unix(UnixListener::from_std(out.try_clone()?)?),
            None => return Err(io::ErrorKind::NotConnected.into()),
        };
        Ok(())
    }

    fn deregister(&mut self) {
        let out = match std::mem::replace(self, Self::Out(None)) {
            Self::Out(out) => out,
            Self::Tcp(listener) => listener.into_std().ok().map(Listener::Tcp),
            Self::Unix(listener) => listener.into_std().ok().map(Listener::Unix),
        };
        *self = Self::Out(out);
    }
}

/// Passes a call on to whichever socket it is.
macro_rules! either {
    ($self:ident.$method:ident($($argument:expr),*)) => {
        match &mut *$self {
            Stream::Tcp(stream) => Pin::new(stream).$method($($argument),*),
            Stream::Unix(stream) => Pin::new(stream).$method($($argument),*),
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        either!(self.poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        either!(self.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.poll_shutdown(cx))
    }
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
