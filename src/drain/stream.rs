//! The sockets of connections.

use super::listening::Listening;
use super::peer::Peer;
use crate::sys::peer as sys;
use crate::systemd::activation::Listener;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// The socket of an accepted connection.
#[derive(Debug)]
#[non_exhaustive]
pub enum Stream {
    /// A TCP connection, with `TCP_NODELAY` unless [asked otherwise](super::Acceptor::nodelay).
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

#[derive(Debug)]
pub enum Registered {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listening for Listener {
    type Stream = Stream;
    type Registered = Registered;

    fn registered(&self) -> io::Result<Registered> {
        // accept(2) shall never block, whoever passed the socket
        Ok(match self {
            Self::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                Registered::Tcp(TcpListener::from_std(listener.try_clone()?)?)
            }
            Self::Unix(listener) => {
                listener.set_nonblocking(true)?;
                Registered::Unix(UnixListener::from_std(listener.try_clone()?)?)
            }
        })
    }

    fn poll_accept(listener: &Registered, cx: &mut Context<'_>) -> Poll<io::Result<(Stream, Peer)>> {
        Poll::Ready(Ok(match listener {
            Registered::Tcp(listener) => {
                let (stream, address) = ready!(listener.poll_accept(cx))?;
                (Stream::Tcp(stream), Peer::Tcp(address))
            }
            Registered::Unix(listener) => {
                let (stream, _) = ready!(listener.poll_accept(cx))?;
                let peer = Peer::unix(sys::peer_credentials(stream.as_fd()).ok());
                (Stream::Unix(stream), peer)
            }
        }))
    }

    // Both fail only if the peer is gone already, which the first read tells better.
    fn tune(stream: &Stream, nodelay: bool, keepalive: Option<Duration>) {
        let Stream::Tcp(stream) = stream else { return };
        if nodelay {
            let _ = stream.set_nodelay(true);
        }
        if let Some(time) = keepalive {
            let _ = sys::keepalive(stream.as_fd(), time);
        }
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
