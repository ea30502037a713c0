//! Types for a passed fd, what it is, and the listener that it may become.

use crate::error::{Error, Kind, Result};
use crate::sys::socket::{self as sys, File, inspect};
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

/// The text has the article, for use in a sentence.
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
    /// Looks up what an fd is.
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

/// What is asked of a passed fd: that it is of one of these kinds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Need {
    /// `None` admits every kind.
    kinds: Option<&'static [SocketKind]>,
    /// What is needed, with the article, for use in a sentence.
    what: &'static str,
    /// The setting of the .socket unit that provides it.
    setting: &'static str,
}

impl Need {
    /// Admits whatever was passed.
    pub(crate) const ANYTHING: Self = Self { kinds: None, what: "anything", setting: "" };

    pub(crate) const fn new(kinds: &'static [SocketKind], what: &'static str, setting: &'static str) -> Self {
        Self { kinds: Some(kinds), what, setting }
    }
}

/// A type that a passed fd can become.
pub(crate) trait FromPassed: Sized {
    /// The kinds of fd that can become one.
    const NEED: Need;

    /// Converts a socket that [`NEED`](Self::NEED) admits, which the caller has checked.
    fn from_passed(socket: Socket) -> Result<Self>;
}

/// An fd that was passed under a name: a socket of any kind, or something else.
///
/// It is close-on-exec. Whether it is nonblocking is left as it came: that is a property of the
/// open file description, which whoever passed it has too.
#[derive(Debug)]
pub struct Socket {
    name: String,
    /// It was looked up once, when the fd came in: an open file does not become one of another
    /// kind.
    kind: SocketKind,
    blocking: Blocking,
    fd: OwnedFd,
}

/// What is known of the flag `O_NONBLOCK` of a [`Socket`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blocking {
    /// Whoever passed it has decided.
    AsItCame,
    /// This process made it nonblocking.
    Never,
}

impl Socket {
    /// Takes an fd that came in, and looks up what it is.
    pub(crate) fn new(name: String, fd: OwnedFd) -> std::io::Result<Self> {
        let kind = SocketKind::of(fd.as_fd())?;
        Ok(Self::of_kind(name, kind, fd))
    }

    /// Takes an fd that came in, of which somebody has looked up already what it is.
    pub(crate) fn of_kind(name: String, kind: SocketKind, fd: OwnedFd) -> Self {
        Self { name, kind, blocking: Blocking::AsItCame, fd }
    }

    /// Takes a socket that this process has just made, which is nonblocking and of that kind.
    pub(crate) fn made(name: String, kind: SocketKind, fd: OwnedFd) -> Self {
        Self { name, kind, blocking: Blocking::Never, fd }
    }

    /// Returns the name under which it was passed.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns what it is.
    #[must_use]
    pub fn kind(&self) -> SocketKind {
        self.kind
    }

    /// Fails unless it is of a kind that is needed, with an error that says what is needed and
    /// where to set it.
    pub(crate) fn check(&self, need: &Need) -> Result<()> {
        if need.kinds.is_none_or(|kinds| kinds.contains(&self.kind)) {
            return Ok(());
        }
        let (fd, name, kind, Need { what, setting, .. }) = (self.fd.as_raw_fd(), &self.name, self.kind, need);
        let why = format!(
            "LISTEN_FDS: fd {fd} named {name:?} is {kind}; {what} is needed: check {setting} in the .socket unit"
        );
        Err(Error::new(Kind::Socket, why))
    }

    /// Converts it, if it is of a kind that can be converted.
    pub(crate) fn into_checked<T: FromPassed>(self) -> Result<T> {
        self.check(&T::NEED)?;
        T::from_passed(self)
    }

    /// Returns the fd of a listener, nonblocking from now on.
    pub(crate) fn into_nonblocking(self) -> Result<OwnedFd> {
        if self.blocking == Blocking::AsItCame {
            let set = sys::set_nonblocking(self.fd.as_fd());
            set.map_err(|error| Error::os("cannot make a listener nonblocking", error))?;
        }
        Ok(self.fd)
    }

    /// Makes a second fd of the same open file.
    pub(crate) fn try_clone(&self) -> Result<Self> {
        let fd = self.fd.try_clone().map_err(|error| {
            Error::os(format!("the fd named {:?} cannot be duplicated (LimitNOFILE=)", self.name), error)
        })?;
        Ok(Self { name: self.name.clone(), fd, ..*self })
    }

    /// Converts it into a listener, which is nonblocking from now on.
    ///
    /// # Errors
    ///
    /// It is not a listening TCP or Unix stream socket.
    pub fn into_listener(self) -> Result<Listener> {
        self.into_checked()
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
///
/// It is as async runtimes need it: `tokio::net::TcpListener::from_std` takes what is in it. Loops
/// of std's kind, with threads, take what [`into_blocking`](Self::into_blocking) returns: without
/// it the first `incoming()` ends with `WouldBlock`.
#[derive(Debug)]
#[non_exhaustive]
pub enum Listener {
    /// TCP over IPv4, IPv6 or both.
    Tcp(TcpListener),
    /// A Unix stream socket, by path or abstract.
    Unix(UnixListener),
}

impl FromPassed for Listener {
    const NEED: Need =
        Need::new(&[SocketKind::TcpListener, SocketKind::UnixListener], "a listening stream socket", "ListenStream=");

    fn from_passed(socket: Socket) -> Result<Self> {
        let kind = socket.kind;
        let fd = socket.into_nonblocking()?;
        Ok(if kind == SocketKind::UnixListener { Self::Unix(fd.into()) } else { Self::Tcp(fd.into()) })
    }
}

impl Listener {
    /// Returns where it listens.
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

    /// Makes accepting from it wait for a client, as std's `incoming()` does elsewhere.
    ///
    /// ```no_run
    /// use handover::systemd::activation::{Listener, bind};
    /// use std::io::Write as _;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// for listener in bind("127.0.0.1:8080")? {
    ///     let Listener::Tcp(listener) = listener.into_blocking()? else { continue };
    ///     for connection in listener.incoming() {
    ///         connection?.write_all(b"hello\n")?;
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Whether it blocks is a property of the socket, not of the fd: it holds for all processes
    /// that have it. An [`Acceptor`](crate::drain::Acceptor) makes it nonblocking again when it
    /// accepts, so this is for programs that are not a [`Service`](crate::Service).
    ///
    /// # Errors
    ///
    /// The operating system refuses, which it does not do for a listener.
    pub fn into_blocking(self) -> Result<Self> {
        let set = match &self {
            Self::Tcp(listener) => listener.set_nonblocking(false),
            Self::Unix(listener) => listener.set_nonblocking(false),
        };
        set.map_err(|error| Error::os("cannot make a listener blocking", error))?;
        Ok(self)
    }

    /// Makes a second fd of the same socket.
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
/// It is displayed as `127.0.0.1:8080`, `[::]:80`, `unix:/run/web.sock` or `unix:@web`, which
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

/// Writes the text with its control characters escaped: anyone may bind an address with a
/// terminal's escape sequence in it.
fn printable(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    text.chars().try_for_each(|c| if c.is_control() { write!(f, "{}", c.escape_default()) } else { write!(f, "{c}") })
}
