//! Takes connections from a listening socket.

use crate::sys::message::{Address, Name};
use nix::errno::Errno;
use nix::sys::socket::{SockFlag, accept4};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

const FLAGS: SockFlag = SockFlag::SOCK_CLOEXEC.union(SockFlag::SOCK_NONBLOCK);

/// Takes the next connection, close-on-exec and nonblocking.
pub(crate) fn accept(listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let fd = accept4(listener.as_raw_fd(), FLAGS)?;
    // SAFETY: the kernel just installed this fd for us; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Takes the next connection of a TCP listener, as [`accept`] does, with the address of the client.
pub(crate) fn accept_inet(listener: BorrowedFd<'_>) -> io::Result<(OwnedFd, SocketAddr)> {
    let (fd, name) = Name::filled_in(|name, length| {
        // SAFETY: the caller says that `name` has room for `length` bytes, which both live on; the
        // fd is open while it is borrowed.
        Errno::result(unsafe { libc::accept4(listener.as_raw_fd(), name, length, FLAGS.bits()) })
    })?;
    // SAFETY: the kernel just installed this fd for us; nobody else knows it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    match name.address() {
        Some(Address::Inet(address)) => Ok((fd, address)),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "the client of a TCP listener has no internet address")),
    }
}
