//! The sockets of connections.

use super::listening::{Accepting, Listening};
use super::peer::Peer;
use crate::sys::accept::{accept, accept_inet};
use crate::sys::{peer as sys, socket};
use crate::systemd::activation::Listener;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// The socket of an accepted connection.
#[derive(Debug)]
#[non_exhaustive]
pub enum Stream {
    /// A TCP connection, with `TCP_NODELAY` unless [asked otherwise](super::Acceptor::nodelay).
    Tcp(TcpStream),
    /// A Unix stream socket.
    Unix(UnixStream),
}

impl Stream {
    /// Takes a connected socket of another process, which may be blocking: whoever shares it, a
    /// child of a handler for example, can change that.
    pub(crate) fn adopted(fd: OwnedFd) -> io::Result<(Self, Peer)> {
        socket::set_nonblocking(fd.as_fd())?;
        if let Some(address) = socket::inet_peer(fd.as_fd())? {
            return Ok((Self::Tcp(TcpStream::from_std(fd.into())?), Peer::Tcp(address)));
        }
        let peer = Peer::unix(sys::peer_credentials(fd.as_fd()).ok());
        Ok((Self::Unix(UnixStream::from_std(fd.into())?), peer))
    }

    /// Writes what the socket takes without waiting.
    #[cfg(all(feature = "http", feature = "tls"))]
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write(bytes),
            Self::Unix(stream) => stream.try_write(bytes),
        }
    }

    /// Takes the socket out of the runtime.
    pub(crate) fn into_fd(self) -> io::Result<OwnedFd> {
        match self {
            Self::Tcp(stream) => stream.into_std().map(Into::into),
            Self::Unix(stream) => stream.into_std().map(Into::into),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

/// What kind of connection a [`Listener`] accepts.
#[derive(Debug, Clone, Copy)]
pub enum Form {
    Tcp,
    Unix,
}

impl Listening for Listener {
    type Stream = Stream;
}

impl Accepting for Listener {
    const MOVES: bool = true;
    type Connected = Stream;
    type Form = Form;

    fn adopted(fd: OwnedFd) -> io::Result<(Stream, Peer)> {
        Stream::adopted(fd)
    }

    fn form(&self) -> Form {
        match self {
            Self::Tcp(_) => Form::Tcp,
            Self::Unix(_) => Form::Unix,
        }
    }

    fn accept(listener: BorrowedFd<'_>, form: Form) -> io::Result<(Stream, Peer)> {
        Ok(match form {
            Form::Tcp => {
                let (fd, address) = accept_inet(listener)?;
                (Stream::Tcp(TcpStream::from_std(fd.into())?), Peer::Tcp(address))
            }
            Form::Unix => {
                let fd = accept(listener)?;
                let peer = Peer::unix(sys::peer_credentials(fd.as_fd()).ok());
                (Stream::Unix(UnixStream::from_std(fd.into())?), peer)
            }
        })
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
