//! The private socket between two generations: datagrams in order, with fds.
//!
//! # References
//! unix(7), cmsg(3). `SOCK_SEQPACKET` keeps each frame together with its fds.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, recv, socketpair};

use crate::sys::scm;

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
    let scm::Received { length, truncated, fds, .. } = scm::receive(socket, &mut bytes, max_fds)?;
    if truncated || fds.len() > max_fds {
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

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;
    use crate::sys::scm::send;

    #[test]
    fn a_datagram_with_too_many_fds_leaves_none_behind() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().canonicalize().unwrap().join("file");
        let file = std::fs::File::create(&path).unwrap();
        let (ours, theirs) = pair().unwrap();
        let open = || {
            let all = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
            all.filter(|fd| std::fs::read_link(fd.path()).is_ok_and(|target| target == path)).count()
        };
        for count in [3, 5, 50] {
            send(theirs.as_fd(), b"frame", &vec![file.as_fd(); count]).unwrap();
            let error = receive(ours.as_fd(), 100, 2).unwrap_err();
            assert_eq!((error.kind(), open()), (io::ErrorKind::InvalidData, 1), "{count}");
        }
        send(theirs.as_fd(), b"frame", &[file.as_fd(); 2]).unwrap();
        let (bytes, fds) = receive(ours.as_fd(), 100, 2).unwrap().unwrap();
        assert_eq!((bytes.as_slice(), fds.len()), (&b"frame"[..], 2));
    }
}
