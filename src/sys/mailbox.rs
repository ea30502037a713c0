//! A socket that processes send sd_notify(3) messages to, with who each is from and the fds that
//! come along.
//!
//! # References
//! unix(7): `SO_PASSCRED`, `SCM_CREDENTIALS`, `SCM_RIGHTS`; an address of no length makes the
//! kernel choose an abstract name.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use nix::sys::socket::{
    self, AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, UnixCredentials, getsockname,
    recvmsg,
};

use crate::sys::peer::pass_credentials;

/// As many fds as the kernel lets a message have (`SCM_MAX_FD`).
const MAX_FDS: usize = 253;

/// A message, and its sender as the kernel vouches for it.
#[derive(Debug)]
pub struct Letter {
    /// What it says: lines such as `READY=1`.
    pub bytes: Vec<u8>,
    /// The sender, or `None` if it is of a PID namespace that ours cannot see.
    pub pid: Option<u32>,
    /// What came along. Dropped, that of a `BARRIER=1` tells its sender that all before it was
    /// read.
    pub fds: Vec<OwnedFd>,
}

impl Letter {
    /// Returns the value of the first line `NAME=…`, or `None` if there is no such line, or the
    /// message is no text.
    pub fn field(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(&self.bytes).ok()?.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
    }
}

/// Opens a socket, nonblocking and close-on-exec, of an abstract [name] that nobody else has.
///
/// # Errors
/// There are no fds left.
pub fn open() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket::socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
    socket::bind(fd.as_raw_fd(), &UnixAddr::new_unnamed())?;
    pass_credentials(fd.as_fd())?;
    Ok(fd)
}

/// Opens a blocking socket at a path.
///
/// # Errors
/// There is something at the path already, or it cannot be made there.
pub fn bind(path: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::bind(path)?;
    pass_credentials(socket.as_fd())?;
    Ok(socket)
}

/// Returns the name of a socket that [`open`] made, as `NOTIFY_SOCKET` has it.
///
/// # Errors
/// It is another socket.
pub fn name(fd: BorrowedFd<'_>) -> io::Result<String> {
    let address: UnixAddr = getsockname(fd.as_raw_fd())?;
    let name = address.as_abstract().and_then(|name| std::str::from_utf8(name).ok());
    Ok(format!("@{}", name.ok_or(io::ErrorKind::InvalidData)?))
}

/// Receives the next letter. systemd takes at most 4,096 bytes.
///
/// # Errors
/// With `WouldBlock` if there is none, and the socket is nonblocking or its timeout is over; with
/// `InvalidData` if it is longer than `limit`: then it is gone.
pub fn receive(socket: impl AsFd, limit: usize) -> io::Result<Letter> {
    let socket = socket.as_fd();
    let mut bytes = vec![0; limit + 1];
    let mut space = nix::cmsg_space!([RawFd; MAX_FDS], UnixCredentials);
    let (length, truncated, pid, fds) = {
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
        let (mut pid, mut fds) = (None, Vec::new());
        for control in message.cmsgs()? {
            match control {
                ControlMessageOwned::ScmRights(all) => {
                    // SAFETY: the kernel just installed these fds for us; nobody else knows them.
                    fds.extend(all.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
                }
                ControlMessageOwned::ScmCredentials(of) => pid = u32::try_from(of.pid()).ok().filter(|pid| *pid > 0),
                _ => {}
            }
        }
        let truncated = message.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC);
        (message.bytes, truncated, pid, fds)
    };
    if truncated || length > limit {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message that is too long, or has too many fds"));
    }
    bytes.truncate(length);
    Ok(Letter { bytes, pid, fds })
}

#[cfg(test)]
mod tests {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::SocketAddr;

    use super::*;

    #[test]
    fn it_tells_who_has_sent_what() {
        let (fd, other) = (open().unwrap(), open().unwrap());
        let name = name(fd.as_fd()).unwrap();
        assert_ne!(super::name(other.as_fd()).unwrap(), name, "a name of its own");
        let address = SocketAddr::from_abstract_name(name.strip_prefix('@').unwrap()).unwrap();
        let client = UnixDatagram::unbound().unwrap();
        client.connect_addr(&address).unwrap();
        client.send(b"READY=1").unwrap();
        let letter = receive(fd.as_fd(), 4096).unwrap();
        assert_eq!((letter.bytes.as_slice(), letter.pid), (&b"READY=1"[..], Some(std::process::id())));
        crate::sys::scm::send(client.as_fd(), b"FDSTORE=1", &[client.as_fd()]).unwrap();
        assert_eq!(receive(fd.as_fd(), 4096).unwrap().fds.len(), 1);
        client.send(&[b'x'; 100]).unwrap();
        assert_eq!(receive(fd.as_fd(), 99).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(receive(fd.as_fd(), 99).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
