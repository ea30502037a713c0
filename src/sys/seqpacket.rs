//! Sequential packets on a Unix socket: what std has no types for.

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, SockFlag, accept4, recv, send};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Accepts the next connection, close-on-exec and nonblocking.
pub(crate) fn accept(listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let fd = accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK)?;
    // SAFETY: the kernel just installed this fd for us; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Receives one packet, and returns its real length, which is more than the buffer's if it did not
/// fit. It never blocks.
pub(crate) fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match recv(socket.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC) {
            Err(Errno::EINTR) => {}
            other => return Ok(other?),
        }
    }
}

/// Sends one packet, whole or not at all. It never blocks, and raises no SIGPIPE.
pub(crate) fn send_packet(socket: BorrowedFd<'_>, packet: &[u8]) -> io::Result<()> {
    loop {
        match send(socket.as_raw_fd(), packet, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL) {
            Err(Errno::EINTR) => {}
            other => return Ok(other.map(drop)?),
        }
    }
}
