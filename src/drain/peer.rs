//! Who is at the other end of a connection, or of a datagram.

use crate::sys::message::{Address, Received};
use crate::sys::peer as sys;
use crate::systemd::activation::SocketKind;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::net::SocketAddr as UnixSocketAddr;

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Peer {
    /// A TCP client.
    Tcp(SocketAddr),
    /// A client on a Unix socket, as the kernel names it (`SO_PEERCRED`): who it was when it
    /// connected.
    Unix {
        /// The process that connected, if the kernel knows it: not one of another PID namespace.
        pid: Option<i32>,
        /// Its user, if the kernel knows it.
        uid: Option<u32>,
        /// Its group, if the kernel knows it.
        gid: Option<u32>,
    },
}

impl Peer {
    /// Returns the client's address and port, if it came over TCP.
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

/// Who sent a datagram.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum DatagramPeer {
    /// A UDP client.
    Udp(SocketAddr),
    /// A client on a Unix socket.
    Unix {
        /// Where it can be answered, if it has bound a path or a name.
        address: Option<UnixSocketAddr>,
        /// The process that sent it, if the kernel knows it: not one of another PID namespace, nor
        /// of what was sent before this socket was first read from (unless the .socket unit says
        /// `PassCredentials=yes`).
        pid: Option<i32>,
        /// Its user, if the kernel knows the process.
        uid: Option<u32>,
        /// Its group, if the kernel knows the process.
        gid: Option<u32>,
    },
    /// It came by a FIFO, a message queue or a netlink socket: there is nobody that can be
    /// answered.
    Unknown,
}

impl DatagramPeer {
    /// Returns the client's address and port, if it came over UDP.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Udp(address) => Some(*address),
            _ => None,
        }
    }

    pub(super) fn of(received: &Received, kind: SocketKind) -> Self {
        let credentials = received.credentials;
        match (&received.from, kind) {
            (Some(Address::Inet(address)), _) => Self::Udp(*address),
            (from, SocketKind::UnixDatagram) => Self::Unix {
                address: match from {
                    Some(Address::Unix(address)) => Some(address.clone()),
                    _ => None,
                },
                pid: credentials.and_then(|c| c.pid),
                uid: credentials.map(|c| c.uid),
                gid: credentials.map(|c| c.gid),
            },
            _ => Self::Unknown,
        }
    }

    pub(super) fn to(&self) -> io::Result<Address> {
        match self {
            Self::Udp(address) => Ok(Address::Inet(*address)),
            Self::Unix { address: Some(address), .. } => Ok(Address::Unix(address.clone())),
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "the sender has no address to answer at")),
        }
    }
}

impl fmt::Display for DatagramPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Udp(address) => address.fmt(f),
            Self::Unix { pid: Some(pid), .. } => write!(f, "pid {pid}"),
            Self::Unix { .. } => f.write_str("unix"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}
