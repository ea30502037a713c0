//! The private socket between two generations: datagrams in order, with fds.
//!
//! # References
//! unix(7), cmsg(3). `SOCK_SEQPACKET` keeps each frame together with its fds.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, recv, recvmsg, socketpair,
};

/// Makes a connected pair, close-on-exec and nonblocking.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?)
}

/// Receives one datagram and its fds, close-on-exec; `None` when the other end is closed.
pub(crate) fn receive(
    socket: BorrowedFd<'_>,
    max_bytes: usize,
    max_fds: usize,
) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
    // as long as it is: to clear the longest for each would be a part of a reload that one can
    // measure
    let length = recv(socket.as_raw_fd(), &mut [], MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC)?;
    let mut bytes = vec![0; length.min(max_bytes)];
    let mut space = vec![0; nix::sys::socket::cmsg_space::<RawFd>() + max_fds * size_of::<RawFd>()];
    let (length, truncated, fds) = {
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let message =
            recvmsg::<UnixAddr>(socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
        let mut fds = Vec::new();
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(rights) = control {
                // SAFETY: the kernel just installed these fds for us; nobody else knows them.
                fds.extend(rights.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
        }
        let truncated = message.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC);
        (message.bytes, truncated, fds)
    };
    if truncated {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a datagram that is too long, or has too many fds"));
    }
    if length == 0 {
        return Ok(None);
    }
    bytes.truncate(length);
    Ok(Some((bytes, fds)))
}

/// Takes an fd that the environment promises to be ours. Fails if it is not open or not a Unix
/// socket.
pub(crate) fn adopt(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: only borrowed to be looked at; a closed fd answers EBADF.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    nix::sys::socket::getpeername::<UnixAddr>(fd)?;
    nix::fcntl::fcntl(borrowed, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))?;
    // SAFETY: it is open, and the environment says that it was opened for us; the caller adopts it
    // once.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
