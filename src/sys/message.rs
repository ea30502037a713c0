//! Datagrams with their senders, and what else comes in pieces: message queues, pipes.

use crate::sys::closer;
use crate::sys::peer::Credentials;
use crate::sys::scm::{self, UCRED};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::socket::{MsgFlags, SockaddrStorage, UnixAddr, sendto};
use std::ffi::OsStr;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::SocketAddr as UnixSocketAddr;

/// A datagram that is in the caller's buffer.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) length: usize,
    /// It was longer than the buffer; the rest is gone.
    pub(crate) truncated: bool,
    pub(crate) from: Option<Address>,
    pub(crate) credentials: Option<Credentials>,
}

/// Where an answer goes to.
#[derive(Debug, Clone)]
pub(crate) enum Address {
    Inet(SocketAddr),
    Unix(UnixSocketAddr),
}

/// Receives a message, with its sender. It never blocks. Fds that somebody has sent along are
/// closed in another thread: the close(2) of a socket can take as long as its sender likes
/// (`SO_LINGER`), also the one that the kernel does itself where a control buffer has no room.
///
/// It does not use nix, whose `recvmsg` takes the length of a Unix address for known, and leaves
/// that of a nameless sender uninitialized.
pub(crate) fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Received> {
    // SAFETY: all zeroes is a valid sockaddr_storage: of no family.
    let mut from = Name { storage: unsafe { std::mem::zeroed() }, length: 0 };
    let mut space = Space([0; SPACE]);
    // Beyond that the kernel closes them: nobody shall use up the fds that this process may have.
    let room = if closer::has_room() { SPACE } else { OF_CREDENTIALS };
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: all zeroes is a valid msghdr.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    let length = loop {
        message.msg_name = (&raw mut from.storage).cast();
        message.msg_namelen = STORAGE;
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = (&raw mut space).cast();
        message.msg_controllen = room;
        // SAFETY: each pointer in the header is to something of ours that lives on, with its own
        // length beside it; the fd is open while it is borrowed.
        match usize::try_from(unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) }) {
            Ok(length) => break length,
            Err(_) => match Errno::last() {
                Errno::EINTR => {}
                error => return Err(error.into()),
            },
        }
    };
    let (fds, credentials) = scm::controls(&message);
    closer::close_elsewhere(fds);
    // A datagram from before credentials were asked for has none.
    let credentials = credentials.filter(|of| of.pid.is_some());
    from.length = message.msg_namelen as usize;
    let truncated = message.msg_flags & libc::MSG_TRUNC != 0;
    Ok(Received { length, truncated, from: from.address(), credentials })
}

/// The length of any address.
const STORAGE: libc::socklen_t = 128;
const _: () = assert!(size_of::<libc::sockaddr_storage>() == STORAGE as usize);

/// The room for one `SCM_CREDENTIALS`.
// SAFETY: this only computes.
const OF_CREDENTIALS: usize = unsafe { libc::CMSG_SPACE(UCRED) } as usize;
/// The length of as many fds as there can be.
const RIGHTS: libc::c_uint = 1012;
const _: () = assert!(RIGHTS as usize == scm::MAX_FDS * size_of::<RawFd>());
/// The room for credentials, and for one `SCM_RIGHTS`.
// SAFETY: this only computes.
const SPACE: usize = OF_CREDENTIALS + unsafe { libc::CMSG_SPACE(RIGHTS) } as usize;

/// Aligned as control messages must be.
#[repr(C, align(8))]
struct Space([u8; SPACE]);

/// An address as the kernel writes it.
pub(super) struct Name {
    storage: libc::sockaddr_storage,
    length: usize,
}

impl Name {
    /// Has a system call write an address, into that many bytes at most.
    pub(super) fn filled_in<T>(
        call: impl FnOnce(*mut libc::sockaddr, *mut libc::socklen_t) -> nix::Result<T>,
    ) -> io::Result<(T, Self)> {
        // SAFETY: all zeroes is a valid sockaddr_storage: of no family.
        let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
        let mut length = STORAGE;
        let done = call((&raw mut storage).cast(), &raw mut length)?;
        Ok((done, Self { storage, length: length as usize }))
    }

    /// Reads it; `None`: it is of none of the kinds that anything here has.
    pub(super) fn address(&self) -> Option<Address> {
        /// Where a Unix path begins.
        const PATH: usize = std::mem::offset_of!(libc::sockaddr_un, sun_path);
        let pointer = &raw const self.storage;
        let is = |size: usize| self.length >= size;
        match libc::c_int::from(self.storage.ss_family) {
            libc::AF_INET if is(size_of::<libc::sockaddr_in>()) => {
                // SAFETY: a sockaddr_storage has room and alignment for each kind of address, any
                // bytes are valid ones, and these were written by the kernel.
                let v4 = unsafe { &*pointer.cast::<libc::sockaddr_in>() };
                let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
                Some(Address::Inet(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into()))
            }
            libc::AF_INET6 if is(size_of::<libc::sockaddr_in6>()) => {
                // SAFETY: as above.
                let v6 = unsafe { &*pointer.cast::<libc::sockaddr_in6>() };
                let (ip, port) = (Ipv6Addr::from(v6.sin6_addr.s6_addr), u16::from_be(v6.sin6_port));
                Some(Address::Inet(SocketAddrV6::new(ip, port, v6.sin6_flowinfo, v6.sin6_scope_id).into()))
            }
            libc::AF_UNIX if self.length > PATH && self.length <= size_of::<libc::sockaddr_storage>() => {
                // SAFETY: as above; so many bytes of it were written.
                let bytes = unsafe { std::slice::from_raw_parts(pointer.cast::<u8>().add(PATH), self.length - PATH) };
                let address = match bytes {
                    [0, name @ ..] => UnixSocketAddr::from_abstract_name(name),
                    // With the NUL that ends it, or without.
                    path => UnixSocketAddr::from_pathname(OsStr::from_bytes(path.split(|b| *b == 0).next()?)),
                };
                Some(Address::Unix(address.ok()?))
            }
            // The sender is a nameless Unix socket, or netlink.
            _ => None,
        }
    }
}

/// Sends a message to that address. It never blocks, and raises no SIGPIPE.
pub(crate) fn send_to(socket: BorrowedFd<'_>, bytes: &[u8], to: &Address) -> io::Result<()> {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    loop {
        let sent = match to {
            Address::Inet(to) => sendto(socket.as_raw_fd(), bytes, &SockaddrStorage::from(*to), flags),
            Address::Unix(to) => sendto(socket.as_raw_fd(), bytes, &unix(to)?, flags),
        };
        match sent {
            Err(Errno::EINTR) => {}
            other => return Ok(other.map(drop)?),
        }
    }
}

/// Reads what is there. It never blocks if the fd is nonblocking.
pub(crate) fn read(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match nix::unistd::read(fd, buffer) {
            Err(Errno::EINTR) => {}
            other => return Ok(other?),
        }
    }
}

/// Receives one message of a POSIX message queue, and returns its length. The buffer must have
/// [`queue_message_size`]. It never blocks if the fd is nonblocking.
///
/// # References
/// - mq_receive(3). On Linux a queue's descriptor is a file descriptor.
pub(crate) fn receive_queued(queue: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        // SAFETY: pointer and length are those of one buffer of ours, and the fd is open while it
        // is borrowed; the priority may be null.
        let length = unsafe {
            libc::mq_receive(queue.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), std::ptr::null_mut())
        };
        match usize::try_from(length) {
            Ok(length) => return Ok(length),
            Err(_) => match Errno::last() {
                Errno::EINTR => {}
                error => return Err(error.into()),
            },
        }
    }
}

/// Returns the length of the longest message that the queue can have.
pub(crate) fn queue_message_size(queue: BorrowedFd<'_>) -> io::Result<usize> {
    let mut attributes = std::mem::MaybeUninit::<libc::mq_attr>::uninit();
    // SAFETY: mq_getattr writes a whole mq_attr or fails; the fd is open while it is borrowed.
    let attributes = unsafe {
        Errno::result(libc::mq_getattr(queue.as_raw_fd(), attributes.as_mut_ptr()))?;
        attributes.assume_init()
    };
    usize::try_from(attributes.mq_msgsize).map_err(|_| Errno::EINVAL.into())
}

/// Returns how much a pipe or FIFO can hold.
pub(crate) fn pipe_size(pipe: BorrowedFd<'_>) -> io::Result<usize> {
    let size = fcntl(pipe, FcntlArg::F_GETPIPE_SZ)?;
    usize::try_from(size).map_err(|_| Errno::EINVAL.into())
}

fn unix(of: &UnixSocketAddr) -> io::Result<UnixAddr> {
    let address = match (of.as_pathname(), of.as_abstract_name()) {
        (Some(path), _) => UnixAddr::new(path)?,
        (None, Some(name)) => UnixAddr::new_abstract(name)?,
        (None, None) => return Err(io::Error::new(io::ErrorKind::InvalidInput, "the sender has no address")),
    };
    Ok(address)
}
