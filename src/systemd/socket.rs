//! A passed fd, and a listener.

use crate::error::{Error, Kind, Result};
use crate::sys::socket::{File, inspect};
use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::UnixListener;

/// What kind of file a passed fd is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SocketKind {
    /// A listening TCP socket (`ListenStream=` with an address or a port).
    TcpListener,
    /// A TCP socket that does not listen: a connection, or one that is only bound.
    TcpStream,
    /// A listening Unix stream socket (`ListenStream=` with a path or `@name`).
    UnixListener,
    /// A Unix stream socket that does not listen.
    UnixStream,
    /// A listening Unix seqpacket socket (`ListenSequentialPacket=`).
    UnixSeqpacketListener,
    /// A Unix seqpacket socket that does not listen.
    UnixSeqpacket,
    /// A Unix datagram socket (`ListenDatagram=` with a path or `@name`).
    UnixDatagram,
    /// A UDP socket (`ListenDatagram=` with an address or a port).
    Udp,
    /// A fifo or the end of a pipe (`ListenFIFO=`).
    Fifo,
    /// A netlink socket (`ListenNetlink=`).
    Netlink,
    /// A POSIX message queue (`ListenMessageQueue=`).
    MessageQueue,
    /// A device, or a file of /proc or /sys (`ListenSpecial=`).
    Special,
    /// Another kind of socket, for example SCTP or vsock.
    OtherSocket,
    /// None of these, for example a memfd or a regular file.
    Other,
}

/// With the article, for use in a sentence.
impl fmt::Display for SocketKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TcpListener => "a listening TCP socket",
            Self::TcpStream => "a TCP socket that does not listen",
            Self::UnixListener => "a listening Unix stream socket",
            Self::UnixStream => "a Unix stream socket that does not listen",
            Self::UnixSeqpacketListener => "a listening Unix seqpacket socket",
            Self::UnixSeqpacket => "a Unix seqpacket socket that does not listen",
            Self::UnixDatagram => "a Unix datagram socket",
            Self::Udp => "a UDP socket",
            Self::Fifo => "a fifo",
            Self::Netlink => "a netlink socket",
            Self::MessageQueue => "a message queue",
            Self::Special => "a special file",
            Self::OtherSocket => "another kind of socket",
            Self::Other => "not a socket",
        })
    }
}

impl SocketKind {
    pub(crate) fn of(fd: BorrowedFd<'_>) -> std::io::Result<Self> {
        let (family, kind, protocol, listening) = match inspect(fd)? {
            File::Socket { family, kind, protocol, listening } => (family, kind, protocol, listening),
            File::Fifo => return Ok(Self::Fifo),
            File::MessageQueue => return Ok(Self::MessageQueue),
            File::Special => return Ok(Self::Special),
            File::Other => return Ok(Self::Other),
        };
        let inet = family == libc::AF_INET || family == libc::AF_INET6;
        let unix = family == libc::AF_UNIX;
        // To a server MPTCP is TCP.
        let tcp = protocol == libc::IPPROTO_TCP || protocol == libc::IPPROTO_MPTCP;
        Ok(match kind {
            libc::SOCK_STREAM if inet && tcp && listening => Self::TcpListener,
            libc::SOCK_STREAM if inet && tcp => Self::TcpStream,
            libc::SOCK_STREAM if unix && listening => Self::UnixListener,
            libc::SOCK_STREAM if unix => Self::UnixStream,
            libc::SOCK_SEQPACKET if unix && listening => Self::UnixSeqpacketListener,
            libc::SOCK_SEQPACKET if unix => Self::UnixSeqpacket,
            libc::SOCK_DGRAM if unix => Self::UnixDatagram,
            libc::SOCK_DGRAM if inet && protocol == libc::IPPROTO_UDP => Self::Udp,
            _ if family == libc::AF_NETLINK => Self::Netlink,
            _ => Self::OtherSocket,
        })
    }
}

/// An fd that was passed under a name: a socket of any kind, or something else.
///
/// It is close-on-exec. Whether it is nonblocking is left as it came: that is a property of the
/// open file description, which whoever passed it has too.
#[derive(Debug)]
pub struct Socket {
    name: String,
    kind: SocketKind,
    fd: OwnedFd,
}

impl Socket {
    pub(crate) fn new(name: String, fd: OwnedFd) -> std::io::Result<Self> {
        let kind = SocketKind::of(fd.as_fd())?;
        Ok(Self { name, kind, fd })
    }

    /// The name under which it was passed.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is.
    #[must_use]
    pub fn kind(&self) -> SocketKind {
        self.kind
    }

    /// Whether [`into_listener`](Self::into_listener) would take it.
    pub(crate) fn check_listener(&self) -> Result<()> {
        let wanted = [SocketKind::TcpListener, SocketKind::UnixListener];
        self.check(&wanted, "a listening stream socket", "ListenStream=")
    }

    /// Whether it is one of these; else an error that says what is needed and where to set it.
    pub(crate) fn check(&self, wanted: &[SocketKind], needed: &str, setting: &str) -> Result<()> {
        if wanted.contains(&self.kind) {
            return Ok(());
        }
        let (fd, name, kind) = (self.fd.as_raw_fd(), &self.name, self.kind);
        let why = format!(
            "LISTEN_FDS: fd {fd} named {name:?} is {kind}; {needed} is needed: check {setting} in the .socket unit"
        );
        Err(Error::new(Kind::Socket, why))
    }

    /// A second fd of the same open file.
    pub(crate) fn try_clone(&self) -> Result<Self> {
        let fd = self.fd.try_clone().map_err(|error| {
            Error::os(format!("the fd named {:?} cannot be duplicated (LimitNOFILE=)", self.name), error)
        })?;
        Ok(Self { name: self.name.clone(), kind: self.kind, fd })
    }

    /// The listener, nonblocking from now on.
    ///
    /// # Errors
    ///
    /// It is not a listening TCP or Unix stream socket.
    pub fn into_listener(self) -> Result<Listener> {
        self.check_listener()?;
        let listener = match self.kind {
            SocketKind::TcpListener => Listener::Tcp(self.fd.into()),
            _ => Listener::Unix(self.fd.into()),
        };
        listener.set_nonblocking()?;
        Ok(listener)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<Socket> for OwnedFd {
    fn from(socket: Socket) -> Self {
        socket.fd
    }
}

/// A listening stream socket: bound, listening, close-on-exec and nonblocking.
#[derive(Debug)]
#[non_exhaustive]
pub enum Listener {
    /// TCP over IPv4, IPv6 or both.
    Tcp(TcpListener),
    /// A Unix stream socket, by path or abstract.
    Unix(UnixListener),
}

impl Listener {
    /// Where it listens.
    ///
    /// # Errors
    ///
    /// The operating system refuses, which it does not do for a listener.
    pub fn local_addr(&self) -> Result<LocalAddr> {
        let address = match self {
            Self::Tcp(listener) => listener.local_addr().map(LocalAddr::Tcp),
            Self::Unix(listener) => listener.local_addr().map(LocalAddr::Unix),
        };
        address.map_err(|error| Error::os("cannot read a listener's address", error))
    }

    /// A second fd of the same socket.
    ///
    /// # Errors
    ///
    /// There is no fd left, see `LimitNOFILE=`.
    pub fn try_clone(&self) -> Result<Self> {
        let clone = match self {
            Self::Tcp(listener) => listener.try_clone().map(Self::Tcp),
            Self::Unix(listener) => listener.try_clone().map(Self::Unix),
        };
        clone.map_err(|error| Error::os("cannot duplicate a listener's fd", error))
    }

    fn set_nonblocking(&self) -> Result<()> {
        let done = match self {
            Self::Tcp(listener) => listener.set_nonblocking(true),
            Self::Unix(listener) => listener.set_nonblocking(true),
        };
        done.map_err(|error| Error::os("cannot make a listener nonblocking", error))
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        }
    }
}

impl From<Listener> for OwnedFd {
    fn from(listener: Listener) -> Self {
        match listener {
            Listener::Tcp(listener) => listener.into(),
            Listener::Unix(listener) => listener.into(),
        }
    }
}

/// The address of a [`Listener`].
///
/// Displayed as `127.0.0.1:8080`, `[::]:80`, `unix:/run/web.sock` or `unix:@web`, which
/// [`bind`](super::activation::bind) reads.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum LocalAddr {
    /// An IPv4 or IPv6 address and a port.
    Tcp(SocketAddr),
    /// A path, an abstract name, or none.
    Unix(std::os::unix::net::SocketAddr),
}

impl fmt::Display for LocalAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(address) => {
                f.write_str("unix:")?;
                if let Some(path) = address.as_pathname() {
                    printable(f, &path.to_string_lossy())
                } else if let Some(name) = address.as_abstract_name() {
                    f.write_str("@")?;
                    printable(f, &String::from_utf8_lossy(name))
                } else {
                    Ok(())
                }
            }
        }
    }
}

/// Anyone may bind an address with a terminal's escape sequence in it.
fn printable(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    text.chars().try_for_each(|c| if c.is_control() { write!(f, "{}", c.escape_default()) } else { write!(f, "{c}") })
}
