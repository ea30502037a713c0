//! Connections for accept loops that are not ours: those of axum, tonic and others.

use super::accept::Acceptor;
use super::guard::{Cutting, Guard};
use super::handle::Drain;
use super::peer::Peer;
use super::stream::Stream;
use crate::systemd::activation::Listener;
use std::future::pending;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A listener for a framework that has its own accept loop: it accepts only while it is this
/// generation's turn, and what it accepts is counted until it is dropped.
///
/// axum's `serve` takes it with the feature `axum`, tonic's `serve_with_incoming` takes
/// [`into_stream`](Self::into_stream) with the feature `tonic`, and a loop of your own calls
/// [`accept`](Self::accept). A server that wants a socket and nothing else waits for
/// [`Drain::turn`].
///
/// Accepting is not all: a framework closes connections its own way when it is told to stop. Tell
/// it when the linger is over ([`Drain::lingered`]), and let replies say `Connection: close` from
/// the beginning of the drain on; the chapter [`docs::protocols`](crate::docs::protocols) shows it.
///
/// ```no_run
/// # async fn example(service: &handover::Service) -> handover::Result<()> {
/// use handover::drain::Incoming;
///
/// for listener in service.listeners("http")? {
///     let mut incoming = Incoming::new(service.drain(), "http", listener);
///     tokio::spawn(async move {
///         loop {
///             let (stream, peer) = incoming.accept().await;
///             # drop((stream, peer));
///             // what the framework does with a connection
///         }
///     });
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Incoming {
    acceptor: Acceptor,
    address: Option<SocketAddr>,
}

impl Incoming {
    /// Makes one of a listener; `name` is for the log, and for the names of connections that must
    /// be cut.
    #[must_use]
    pub fn new(drain: &Drain, name: &str, listener: Listener) -> Self {
        let address = match &listener {
            Listener::Tcp(listener) => listener.local_addr().ok(),
            Listener::Unix(_) => None,
        };
        Self { acceptor: Acceptor::new(drain, name, listener), address }
    }

    /// Returns the next connection. It waits while the gate is shut, through errors of accept(2),
    /// and for ever once the drain has begun: the framework is stopped by other means.
    ///
    /// It must be called within a tokio runtime.
    ///
    /// # Cancel safety
    /// A connection that the kernel has handed over is returned, never lost.
    pub async fn accept(&mut self) -> (CountedStream, Peer) {
        match self.next().await {
            Some(accepted) => accepted,
            None => pending().await,
        }
    }

    /// Returns the next connection, or `None` once the drain has begun.
    async fn next(&mut self) -> Option<(CountedStream, Peer)> {
        let accepted = self.acceptor.accept().await?;
        let peer = accepted.peer();
        let (stream, guard) = accepted.register(format!("{}: {peer}", self.acceptor.name()));
        Some((CountedStream { stream, peer, cutting: guard.cut(), _guard: guard }, peer))
    }

    /// Returns the address of the listener, if it is one of TCP.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }
}

/// A connection of an [`Incoming`], counted until it is dropped. When the hammer falls, its reads
/// and writes fail with [`ConnectionAborted`](io::ErrorKind::ConnectionAborted).
#[derive(Debug)]
pub struct CountedStream {
    stream: Stream,
    peer: Peer,
    cutting: Cutting,
    _guard: Guard,
}

impl CountedStream {
    /// Returns who is at the other end.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// Looks whether it must end: first what can go on does.
    fn or_cut<T>(&mut self, polled: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if polled.is_pending() && Pin::new(&mut self.cutting).poll(cx).is_ready() {
            let why = io::Error::new(io::ErrorKind::ConnectionAborted, "the drain timeout is over");
            return Poll::Ready(Err(why));
        }
        polled
    }
}

impl AsFd for CountedStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl AsyncRead for CountedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.or_cut(polled, cx)
    }
}

impl AsyncWrite for CountedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.or_cut(polled, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.or_cut(polled, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.or_cut(polled, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.or_cut(polled, cx)
    }
}

#[cfg(feature = "axum")]
impl axum::serve::Listener for Incoming {
    type Io = CountedStream;
    type Addr = Peer;

    async fn accept(&mut self) -> (CountedStream, Peer) {
        Self::accept(self).await
    }

    fn local_addr(&self) -> io::Result<Peer> {
        self.address.map(Peer::Tcp).ok_or_else(|| io::Error::new(io::ErrorKind::Unsupported, "a Unix socket"))
    }
}

#[cfg(feature = "tonic")]
pub use self::stream::IncomingStream;

#[cfg(feature = "tonic")]
mod stream {
    use crate::drain::incoming::{CountedStream, Incoming, Stream};
    use std::fmt;
    use std::io;
    use std::net::SocketAddr;
    use std::pin::Pin;
    use std::task::{Context, Poll, ready};

    type Next = Pin<Box<dyn Future<Output = Option<(Incoming, CountedStream)>> + Send>>;

    /// The connections of an [`Incoming`] as a stream, which ends when the linger is over.
    pub struct IncomingStream {
        next: Option<Next>,
    }

    impl Incoming {
        /// Returns the connections as a stream. It ends when the linger is over: a server stops
        /// then, and closes what is idle.
        #[must_use]
        pub fn into_stream(self) -> IncomingStream {
            IncomingStream { next: Some(next(self)) }
        }
    }

    fn next(mut incoming: Incoming) -> Next {
        Box::pin(async {
            match incoming.next().await {
                Some((stream, _)) => Some((incoming, stream)),
                None => {
                    incoming.acceptor.drain().lingered().await;
                    None
                }
            }
        })
    }

    impl futures_core::Stream for IncomingStream {
        type Item = io::Result<CountedStream>;

        fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
            let Some(future) = &mut self.next else { return Poll::Ready(None) };
            let accepted = ready!(future.as_mut().poll(cx));
            let (rest, stream) = accepted.unzip();
            self.next = rest.map(next);
            Poll::Ready(stream.map(Ok))
        }
    }

    impl fmt::Debug for IncomingStream {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("IncomingStream").finish_non_exhaustive()
        }
    }

    /// In the extensions of each request is a
    /// [`TcpConnectInfo`](tonic::transport::server::TcpConnectInfo), so that `Request::remote_addr`
    /// works.
    impl tonic::transport::server::Connected for CountedStream {
        type ConnectInfo = tonic::transport::server::TcpConnectInfo;

        fn connect_info(&self) -> Self::ConnectInfo {
            let local_addr: Option<SocketAddr> = match &self.stream {
                Stream::Tcp(stream) => stream.local_addr().ok(),
                Stream::Unix(_) => None,
            };
            Self::ConnectInfo { local_addr, remote_addr: self.peer.address() }
        }
    }
}
