//! Sockets: what a passed fd is, binding, and connecting to the service manager.

use listenfd::ListenFd;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrLike, SockaddrStorage, UnixAddr, VsockAddr, bind, connect,
    getpeername, getsockopt, listen, setsockopt, socket, sockopt,
};
use nix::sys::stat::{Mode, fchmod, fstat};
use nix::sys::statfs::{FsType, PROC_SUPER_MAGIC, SYSFS_MAGIC, fstatfs};
use nix::unistd::{SysconfVar, sysconf};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// What an fd is, as far as it matters for taking it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum File {
    /// The numbers of socket(2), and whether it listens.
    Socket {
        family: i32,
        kind: i32,
        protocol: i32,
        listening: bool,
    },
    Fifo,
    MessageQueue,
    /// A device, or a file that the kernel makes up (/proc, /sys).
    Special,
    Other,
}

pub(crate) fn inspect(fd: BorrowedFd<'_>) -> io::Result<File> {
    Ok(match fstat(fd)?.st_mode & libc::S_IFMT {
        libc::S_IFSOCK => File::Socket {
            family: int_option(fd, libc::SO_DOMAIN)?,
            kind: int_option(fd, libc::SO_TYPE)?,
            protocol: int_option(fd, libc::SO_PROTOCOL)?,
            listening: getsockopt(&fd, sockopt::AcceptConn)?,
        },
        libc::S_IFIFO => File::Fifo,
        libc::S_IFCHR | libc::S_IFBLK => File::Special,
        libc::S_IFREG => match fstatfs(fd)?.filesystem_type() {
            MQUEUE_MAGIC => File::MessageQueue,
            PROC_SUPER_MAGIC | SYSFS_MAGIC => File::Special,
            _ => File::Other,
        },
        _ => File::Other,
    })
}

/// Returns the address that a TCP socket is connected to; `None`: it is a Unix socket.
pub(crate) fn inet_peer(fd: BorrowedFd<'_>) -> io::Result<Option<SocketAddr>> {
    let peer = match getpeername::<SockaddrStorage>(fd.as_raw_fd()) {
        Ok(peer) => peer,
        Err(Errno::ENOTCONN) if int_option(fd, libc::SO_DOMAIN)? == libc::AF_UNIX => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    let v4 = || peer.as_sockaddr_in().map(|v4| SocketAddr::V4((*v4).into()));
    let v6 = || peer.as_sockaddr_in6().map(|v6| SocketAddr::V6((*v6).into()));
    match (v4().or_else(v6), peer.family()) {
        (Some(address), _) => Ok(Some(address)),
        (None, Some(AddressFamily::Unix)) => Ok(None),
        (None, _) => Err(io::Error::new(io::ErrorKind::InvalidInput, "neither a TCP nor a Unix socket")),
    }
}

/// The file system of POSIX message queues; see mq_overview(7).
const MQUEUE_MAGIC: FsType = FsType(0x1980_0202);

/// Returns whether both are the same socket, or else the same open file description.
///
/// Where kcmp(2) is missing or forbidden, files that are no sockets count as different.
pub(crate) fn same(a: BorrowedFd<'_>, b: BorrowedFd<'_>) -> io::Result<bool> {
    let (stat_a, stat_b) = (fstat(a)?, fstat(b)?);
    if (stat_a.st_dev, stat_a.st_ino) != (stat_b.st_dev, stat_b.st_ino) {
        return Ok(false);
    }
    // Of other files one inode may be open twice, and eventfds and their like all share one inode.
    if stat_a.st_mode & libc::S_IFMT == libc::S_IFSOCK {
        return Ok(true);
    }
    const KCMP_FILE: libc::c_int = 0;
    let pid = nix::unistd::getpid().as_raw();
    // SAFETY: kcmp reads no memory of ours; both fds are borrowed, so open, for the whole call.
    let order = unsafe { libc::syscall(libc::SYS_kcmp, pid, pid, KCMP_FILE, a.as_raw_fd(), b.as_raw_fd()) };
    Ok(order == 0)
}

/// Returns whether there is an open fd of that number.
pub(crate) fn is_open(number: i32) -> bool {
    // SAFETY: F_GETFD has no argument and touches nothing; an unused number is answered by EBADF.
    unsafe { libc::fcntl(number, libc::F_GETFD) >= 0 }
}

/// Returns whether the fd of that number is closed by execve(2).
pub(crate) fn is_cloexec(number: RawFd) -> bool {
    // SAFETY: F_GETFD has no argument and touches nothing; an unused number is answered by EBADF.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    flags >= 0 && flags & libc::FD_CLOEXEC != 0
}

/// Takes the fd at `index` out of `fds`, close-on-exec from now on. It is `None` if there is none,
/// or it was taken.
pub(crate) fn take(fds: &mut ListenFd, index: usize) -> io::Result<Option<OwnedFd>> {
    let Some(number) = fds.take_raw_fd(index)? else {
        return Ok(None);
    };
    close_on_exec(number)?;
    // SAFETY: it is open, passed to this process to own, and ListenFd gives each out once per
    // process, because it removes LISTEN_FDS when it reads it.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(number) }))
}

pub(crate) fn set_cloexec(fd: BorrowedFd<'_>) -> io::Result<()> {
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    Ok(())
}

/// Makes the fd of that number close-on-exec, which fails with EBADF unless it is open.
fn close_on_exec(number: RawFd) -> io::Result<()> {
    // SAFETY: F_SETFD reads and writes no memory of ours; an unused number is answered by EBADF.
    Errno::result(unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    Ok(())
}

/// Makes a copy whose number is at least `above`, close-on-exec.
pub(crate) fn duplicate_above(fd: BorrowedFd<'_>, above: RawFd) -> io::Result<OwnedFd> {
    let copy = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(above))?;
    // SAFETY: F_DUPFD_CLOEXEC just returned this fd; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Makes the fd nonblocking, for all who share the open file description.
pub(crate) fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    if !flags.contains(OFlag::O_NONBLOCK) {
        fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    }
    Ok(())
}

/// Tells whether the fd is nonblocking.
#[cfg(test)]
pub(crate) fn is_nonblocking(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?).contains(OFlag::O_NONBLOCK))
}

/// Sets whether the fd stays open over an exec(2).
#[cfg(feature = "supervise")]
pub(crate) fn set_inherited(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    fcntl(fd, FcntlArg::F_SETFD(if on { FdFlag::empty() } else { FdFlag::FD_CLOEXEC }))?;
    Ok(())
}

/// Takes an fd that an earlier program of this process left open for us; close-on-exec from now on.
#[cfg(feature = "supervise")]
pub(crate) fn adopt(number: RawFd) -> io::Result<OwnedFd> {
    if number < 3 {
        return Err(Errno::EBADF.into());
    }
    close_on_exec(number)?;
    // SAFETY: it is open, and the caller, who was told of it, takes each once.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Makes the fd blocking, for all who share the open file description.
#[cfg(feature = "supervise")]
pub(crate) fn set_blocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags - OFlag::O_NONBLOCK))?;
    Ok(())
}

/// Returns how many fds this process may have open (`LimitNOFILE=`).
pub(crate) fn max_open_files() -> usize {
    let limit = sysconf(SysconfVar::OPEN_MAX).ok().flatten();
    limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}

/// Binds a nonblocking TCP listener, or UDP socket. `[::]` takes IPv4 too.
pub(crate) fn bind_inet(address: SocketAddr, kind: SockType) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
    if kind == SockType::Stream {
        // Not for UDP, where it would let two servers have one port.
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    }
    if address.is_ipv6() {
        // The default is a sysctl; a specific IPv6 address never takes IPv4.
        setsockopt(&fd, sockopt::Ipv6V6Only, &!address.ip().is_unspecified())?;
    }
    bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
    listen_unless_datagram(&fd, kind)?;
    Ok(fd)
}

/// Binds a nonblocking Unix socket, which listens unless it is one of datagrams. The file of a path
/// gets `mode` from the start.
pub(crate) fn bind_unix(address: &UnixAddr, kind: SockType, mode: Mode) -> io::Result<OwnedFd> {
    let fd = unix_socket(kind)?;
    // bind(2) gives the file the mode of the socket, less the umask: no moment with a wider one,
    // and no change of the umask, which is the whole process's.
    fchmod(&fd, mode)?;
    bind(fd.as_raw_fd(), address)?;
    listen_unless_datagram(&fd, kind)?;
    Ok(fd)
}

fn listen_unless_datagram(fd: &OwnedFd, kind: SockType) -> nix::Result<()> {
    if kind == SockType::Datagram { Ok(()) } else { listen(fd, Backlog::MAXCONN) }
}

/// Returns whether somebody listens or receives there. An answer that says neither yes nor no is an
/// error.
pub(crate) fn is_listened_to(address: &UnixAddr) -> io::Result<bool> {
    let fd = unix_socket(SockType::Stream)?;
    match connect(fd.as_raw_fd(), address) {
        // EAGAIN: its queue is full; EPROTOTYPE: a datagram or seqpacket socket.
        Ok(()) | Err(Errno::EAGAIN | Errno::EPROTOTYPE) => Ok(true),
        Err(Errno::ECONNREFUSED) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn unix_socket(kind: SockType) -> nix::Result<OwnedFd> {
    socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)
}

/// Where the service manager receives notifications.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Receiver {
    Unix(UnixAddr),
    /// Without a kind, the first of datagram, seqpacket and stream that the transport has.
    Vsock {
        address: VsockAddr,
        kind: Option<SockType>,
    },
}

impl Receiver {
    /// Makes a nonblocking socket, its connection made or being made.
    pub(crate) fn connect(&self) -> io::Result<OwnedFd> {
        match self {
            Self::Unix(address) => connect_to(AddressFamily::Unix, SockType::Datagram, address),
            Self::Vsock { address, kind: Some(kind) } => connect_to(AddressFamily::Vsock, *kind, address),
            Self::Vsock { address, kind: None } => {
                let connect = |kind| connect_to(AddressFamily::Vsock, kind, address);
                connect(SockType::Datagram)
                    .or_else(|error| if is_unsupported(&error) { connect(SockType::SeqPacket) } else { Err(error) })
                    .or_else(|error| if is_unsupported(&error) { connect(SockType::Stream) } else { Err(error) })
            }
        }
    }
}

fn connect_to(family: AddressFamily, kind: SockType, address: &dyn SockaddrLike) -> io::Result<OwnedFd> {
    let fd = socket(family, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
    match connect(fd.as_raw_fd(), address) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(fd),
        Err(error) => Err(error.into()),
    }
}

fn is_unsupported(error: &io::Error) -> bool {
    let unsupported = [libc::EOPNOTSUPP, libc::EPROTONOSUPPORT, libc::ESOCKTNOSUPPORT, libc::ENODEV];
    error.raw_os_error().is_some_and(|errno| unsupported.contains(&errno))
}

/// Returns the pending error of a socket, for example that of a connection that could not be made.
pub(crate) fn pending_error(fd: BorrowedFd<'_>) -> io::Result<()> {
    match getsockopt(&fd, sockopt::SocketError)? {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// Blocks until one of the events, an error or a hangup. It returns false when the deadline has
/// passed.
pub(crate) fn wait(fd: BorrowedFd<'_>, events: PollFlags, deadline: Instant) -> io::Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // Rounded up: 0 ms would spin through the last fraction of a millisecond.
        let millis = i32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(i32::MAX);
        let timeout = PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(fd, events)], timeout) {
            Ok(0) if left == Duration::ZERO => return Ok(false),
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Tells whether waiting for the fd is of no use.
pub(crate) fn is_in_error(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let mut fds = [PollFd::new(fd, PollFlags::empty())];
    poll(&mut fds, PollTimeout::ZERO)?;
    Ok(fds.iter().filter_map(PollFd::revents).any(|told| told.intersects(PollFlags::POLLERR | PollFlags::POLLNVAL)))
}

/// Has the tokio runtime that we are in watch the fd, which is nonblocking, or a pidfd.
pub(crate) fn register(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd keeps one and the same fd open for as long as it lives.
    Ok(unsafe { AsyncFd::register_with_interest(fd, interest) }?)
}

/// Does what [`register`] does with an fd that has other owners too. The reactor takes each fd
/// once: whoever registers it a second time, before the first registration is dropped, gets an
/// error. So a socket of datagrams, which waits to receive and to send at the same time, is
/// duplicated for each.
pub(crate) fn register_shared(fd: Arc<OwnedFd>, interest: Interest) -> io::Result<AsyncFd<Arc<OwnedFd>>> {
    // SAFETY: an OwnedFd keeps one and the same fd open for as long as it lives, and an Arc keeps
    // it alive.
    Ok(unsafe { AsyncFd::register_with_interest(fd, interest) }?)
}

/// Returns the number that the kernel gives a socket for its life, whoever has it open.
///
/// # References
/// - socket(7), `SO_COOKIE`
pub(crate) fn cookie(fd: BorrowedFd<'_>) -> io::Result<u64> {
    let mut value: u64 = 0;
    const LENGTH: libc::socklen_t = 8;
    const { assert!(size_of::<u64>() == LENGTH as usize) };
    let mut length = LENGTH;
    // SAFETY: value and length are ours, length is that of value, and the fd is open while it is
    // borrowed.
    let result = unsafe {
        libc::getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_COOKIE, (&raw mut value).cast(), &raw mut length)
    };
    Errno::result(result)?;
    Ok(value)
}

fn int_option(fd: BorrowedFd<'_>, option: libc::c_int) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    const LENGTH: libc::socklen_t = 4;
    const { assert!(size_of::<libc::c_int>() == LENGTH as usize) };
    let mut length = LENGTH;
    // SAFETY: value and length are ours, length is that of value, and the fd is open while it is
    // borrowed.
    let result =
        unsafe { libc::getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, option, (&raw mut value).cast(), &raw mut length) };
    Errno::result(result)?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd as _;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_peer_has_an_address_or_is_of_a_unix_socket() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, address) = listener.accept().unwrap();
        assert_eq!(inet_peer(accepted.as_fd()).unwrap(), Some(address));
        assert!(inet_peer(listener.as_fd()).is_err(), "it has no peer");
        drop(client);
        let (ours, theirs) = UnixStream::pair().unwrap();
        assert_eq!(inet_peer(ours.as_fd()).unwrap(), None);
        drop(theirs);
        assert_eq!(inet_peer(ours.as_fd()).unwrap(), None, "also when that is gone");
    }
}
