//! The sockets of connections, and who is at their other end.

use super::accept::Listening;
use crate::sys::accept::{accept, accept_inet};
use crate::sys::peer as sys;
use crate::systemd::activation::Listener;
use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Peer {
    /// A TCP client.
    Tcp(SocketAddr),
    /// A client on a Unix socket, as the kernel names it (`SO_PEERCRED`): who it was when it connected.
    Unix {
        /// The process that connected, if the kernel knows it: not one of another PID namespace.
        pid: Option<i32>,
        /// Its user, likewise.
        uid: Option<u32>,
        /// Its group, likewise.
        gid: Option<u32>,
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

    pub(crate) fn unix(credentials: Option<sys::Credentials>) -> Self {
        let (pid, uid, gid) = (credentials.and_then(|c| c.pid), credentials.map(|c| c.uid), credentials.map(|c| c.gid));
        Self::Unix { pid, uid, gid }
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
    /// TCP, with `TCP_NODELAY` unless [asked otherwise](super::Acceptor::nodelay).
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

/// What kind of connection a [`Listener`] accepts.
#[derive(Debug, Clone, Copy)]
pub enum Form {
    Tcp,
    Unix,
}

impl Listening for Listener {
    type Stream = Stream;
    type Form = Form;

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
