//! Passed fds that are no listening stream sockets, by their kinds.

use crate::error::{Error, Kind, Result};
use crate::sys::socket as sys;
use crate::systemd::activation::Activation;
use crate::systemd::socket::{Socket, SocketKind};
use std::fs::File;
use std::net::{TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};

const CONNECTED: &[SocketKind] = &[SocketKind::TcpStream, SocketKind::UnixStream, SocketKind::UnixSeqpacket];
const DATAGRAM: &[SocketKind] = &[SocketKind::Udp, SocketKind::UnixDatagram];

/// A listening Unix socket that keeps packets apart (`ListenSequentialPacket=`): close-on-exec and
/// nonblocking.
///
/// An [`Acceptor`](crate::Acceptor) accepts from it.
#[derive(Debug)]
pub struct SeqpacketListener {
    fd: OwnedFd,
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
    /// A connected Unix seqpacket socket, for [`Seqpacket::new`](crate::Seqpacket::new).
    Seqpacket(OwnedFd),
}

impl Socket {
    pub(crate) fn check_seqpacket(&self) -> Result<()> {
        self.check(&[SocketKind::UnixSeqpacketListener], "a listening seqpacket socket", "ListenSequentialPacket=")
    }

    pub(crate) fn check_datagram(&self) -> Result<()> {
        self.check(DATAGRAM, "a datagram socket", "ListenDatagram=")
    }

    /// For [`Datagrams`](crate::Datagrams).
    pub(crate) fn check_received(&self) -> Result<()> {
        const RECEIVED: &[SocketKind] = &[
            SocketKind::Udp,
            SocketKind::UnixDatagram,
            SocketKind::Fifo,
            SocketKind::MessageQueue,
            SocketKind::Netlink,
        ];
        let needed = "a datagram socket, a fifo, a message queue or a netlink socket";
        self.check(RECEIVED, needed, "ListenDatagram= and its like")
    }

    pub(crate) fn check_connection(&self) -> Result<()> {
        self.check(CONNECTED, "a connection", "Accept=yes and ListenStream=")
    }

    /// Anything.
    pub(crate) fn check_nothing(&self) -> Result<()> {
        Ok(())
    }

    /// The listener, nonblocking from now on.
    ///
    /// # Errors
    ///
    /// It is not a listening seqpacket socket.
    pub fn into_seqpacket_listener(self) -> Result<SeqpacketListener> {
        self.check_seqpacket()?;
        let fd = OwnedFd::from(self);
        sys::set_nonblocking(fd.as_fd()).map_err(|e| Error::os("cannot make a listener nonblocking", e))?;
        Ok(SeqpacketListener { fd })
    }

    /// The connection of a process that `Accept=yes` started.
    ///
    /// # Errors
    ///
    /// It is no connection.
    pub fn into_connection(self) -> Result<PassedConnection> {
        self.check_connection()?;
        Ok(match self.kind() {
            SocketKind::TcpStream => PassedConnection::Tcp(OwnedFd::from(self).into()),
            SocketKind::UnixStream => PassedConnection::Unix(OwnedFd::from(self).into()),
            _ => PassedConnection::Seqpacket(self.into()),
        })
    }

    /// Whether it is a connection rather than something to take connections from.
    pub(crate) fn is_connection(&self) -> bool {
        CONNECTED.contains(&self.kind())
    }
}

/// Each of these takes everything of a name, at least one fd, or nothing: the errors are those of
/// [`take`](Activation::take), and one of them is of another kind.
impl Activation {
    /// The listening Unix seqpacket sockets (`ListenSequentialPacket=`), nonblocking from now on.
    ///
    /// # Errors
    ///
    /// See above.
    pub fn seqpacket_listeners(&mut self, name: &str) -> Result<Vec<SeqpacketListener>> {
        let sockets = self.take_checked(name, Socket::check_seqpacket)?;
        sockets.into_iter().map(Socket::into_seqpacket_listener).collect()
    }

    /// The UDP sockets (`ListenDatagram=` with a port).
    ///
    /// # Errors
    ///
    /// See above.
    pub fn udp_sockets(&mut self, name: &str) -> Result<Vec<UdpSocket>> {
        self.typed(name, |s| s.check(&[SocketKind::Udp], "a UDP socket", "ListenDatagram="))
    }

    /// The Unix datagram sockets (`ListenDatagram=` with a path or `@name`).
    ///
    /// # Errors
    ///
    /// See above.
    pub fn unix_datagrams(&mut self, name: &str) -> Result<Vec<UnixDatagram>> {
        self.typed(name, |s| s.check(&[SocketKind::UnixDatagram], "a Unix datagram socket", "ListenDatagram="))
    }

    /// The FIFOs (`ListenFIFO=`). systemd has opened them for reading and writing, so they never
    /// end.
    ///
    /// # Errors
    ///
    /// See above.
    pub fn fifos(&mut self, name: &str) -> Result<Vec<File>> {
        self.typed(name, |s| s.check(&[SocketKind::Fifo], "a fifo", "ListenFIFO="))
    }

    /// The netlink sockets (`ListenNetlink=`).
    ///
    /// # Errors
    ///
    /// See above.
    pub fn netlinks(&mut self, name: &str) -> Result<Vec<OwnedFd>> {
        self.typed(name, |s| s.check(&[SocketKind::Netlink], "a netlink socket", "ListenNetlink="))
    }

    /// The POSIX message queues (`ListenMessageQueue=`), for mq_receive(3).
    ///
    /// # Errors
    ///
    /// See above.
    pub fn message_queues(&mut self, name: &str) -> Result<Vec<OwnedFd>> {
        self.typed(name, |s| s.check(&[SocketKind::MessageQueue], "a message queue", "ListenMessageQueue="))
    }

    /// The special files (`ListenSpecial=`): devices, or files of /proc and /sys.
    ///
    /// # Errors
    ///
    /// See above.
    pub fn specials(&mut self, name: &str) -> Result<Vec<File>> {
        self.typed(name, |s| s.check(&[SocketKind::Special], "a special file", "ListenSpecial="))
    }

    /// The one connection of a process that `Accept=yes` started. systemd calls it `connection`
    /// unless `FileDescriptorName=` says otherwise. `REMOTE_ADDR` and `REMOTE_PORT` say what its
    /// `peer_addr()` does.
    ///
    /// # Errors
    ///
    /// See above; and there are several.
    #[doc(alias = "inetd")]
    pub fn connection(&mut self, name: &str) -> Result<PassedConnection> {
        let mut sockets = self.take_checked(name, Socket::check_connection)?;
        match (sockets.pop(), sockets.is_empty()) {
            (Some(socket), true) => socket.into_connection(),
            _ => {
                let why = format!("there are several connections named {name:?}; Accept=yes passes one");
                Err(Error::new(Kind::Socket, why))
            }
        }
    }

    fn typed<T: From<OwnedFd>>(&mut self, name: &str, check: fn(&Socket) -> Result<()>) -> Result<Vec<T>> {
        Ok(self.take_checked(name, check)?.into_iter().map(|socket| OwnedFd::from(socket).into()).collect())
    }
}
