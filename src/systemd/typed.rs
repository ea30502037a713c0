//! Passed fds that are no listening stream sockets, by their kinds.

use crate::error::Result;
use crate::systemd::socket::{FromPassed, Need, Socket, SocketKind};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

/// Admits UDP and Unix datagram sockets.
pub(crate) const DATAGRAM: Need =
    Need::new(&[SocketKind::Udp, SocketKind::UnixDatagram], "a datagram socket", "ListenDatagram=");
/// Admits UDP sockets.
pub(crate) const UDP: Need = Need::new(&[SocketKind::Udp], "a UDP socket", "ListenDatagram=");
/// Admits Unix datagram sockets.
pub(crate) const UNIX_DATAGRAM: Need =
    Need::new(&[SocketKind::UnixDatagram], "a Unix datagram socket", "ListenDatagram=");
/// Admits FIFOs.
pub(crate) const FIFO: Need = Need::new(&[SocketKind::Fifo], "a fifo", "ListenFIFO=");
/// Admits netlink sockets.
pub(crate) const NETLINK: Need = Need::new(&[SocketKind::Netlink], "a netlink socket", "ListenNetlink=");
/// Admits POSIX message queues.
pub(crate) const MESSAGE_QUEUE: Need = Need::new(&[SocketKind::MessageQueue], "a message queue", "ListenMessageQueue=");
/// Admits special files.
pub(crate) const SPECIAL: Need = Need::new(&[SocketKind::Special], "a special file", "ListenSpecial=");
/// Admits what [`Datagrams`](crate::drain::Datagrams) receives from.
pub(crate) const RECEIVED: Need = Need::new(
    &[SocketKind::Udp, SocketKind::UnixDatagram, SocketKind::Fifo, SocketKind::MessageQueue, SocketKind::Netlink],
    "a datagram socket, a fifo, a message queue or a netlink socket",
    "ListenDatagram= and its like",
);

const CONNECTED: &[SocketKind] = &[SocketKind::TcpStream, SocketKind::UnixStream, SocketKind::UnixSeqpacket];

/// A listening Unix socket that keeps packets apart (`ListenSequentialPacket=`): close-on-exec and
/// nonblocking.
///
/// An [`Acceptor`](crate::drain::Acceptor) accepts from it.
#[derive(Debug)]
pub struct SeqpacketListener {
    fd: OwnedFd,
}

impl FromPassed for SeqpacketListener {
    const NEED: Need =
        Need::new(&[SocketKind::UnixSeqpacketListener], "a listening seqpacket socket", "ListenSequentialPacket=");

    fn from_passed(socket: Socket) -> Result<Self> {
        Ok(Self { fd: socket.into_nonblocking()? })
    }
}

impl AsFd for SeqpacketListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<SeqpacketListener> for OwnedFd {
    fn from(listener: SeqpacketListener) -> Self {
        listener.fd
    }
}

/// The one connection of a process that `Accept=yes` started. It blocks, until set otherwise.
#[derive(Debug)]
#[non_exhaustive]
pub enum PassedConnection {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix stream.
    Unix(UnixStream),
    /// A connected Unix seqpacket socket, for [`Seqpacket::new`](crate::drain::Seqpacket::new).
    Seqpacket(OwnedFd),
}

impl FromPassed for PassedConnection {
    const NEED: Need = Need::new(CONNECTED, "a connection", "Accept=yes and ListenStream=");

    fn from_passed(socket: Socket) -> Result<Self> {
        Ok(match socket.kind() {
            SocketKind::TcpStream => Self::Tcp(OwnedFd::from(socket).into()),
            SocketKind::UnixStream => Self::Unix(OwnedFd::from(socket).into()),
            _ => Self::Seqpacket(socket.into()),
        })
    }
}

impl Socket {
    /// Converts it into a listener, which is nonblocking from now on.
    ///
    /// # Errors
    ///
    /// It is not a listening seqpacket socket.
    pub fn into_seqpacket_listener(self) -> Result<SeqpacketListener> {
        self.into_checked()
    }

    /// Converts it into the connection of a process that `Accept=yes` started.
    ///
    /// # Errors
    ///
    /// It is no connection.
    pub fn into_connection(self) -> Result<PassedConnection> {
        self.into_checked()
    }

    /// Tells whether it is a connection rather than something to take connections from.
    pub(crate) fn is_connection(&self) -> bool {
        CONNECTED.contains(&self.kind())
    }
}
