//! A socket that processes send sd_notify(3) messages to, with who each is from and the fds that
//! come along.
//!
//! # References
//! unix(7): `SO_PASSCRED`, `SCM_CREDENTIALS`, `SCM_RIGHTS`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use crate::sys::peer::pass_credentials;
use crate::sys::scm;

/// A message, and its sender as the kernel vouches for it.
#[derive(Debug)]
pub struct ProcessMessage {
    /// What it says: lines such as `READY=1`.
    pub bytes: Vec<u8>,
    /// The sender, or `None` if it is of a PID namespace that ours cannot see.
    pub pid: Option<u32>,
    /// What came along. Dropped, that of a `BARRIER=1` tells its sender that all before it was
    /// read.
    pub fds: Vec<OwnedFd>,
}

impl ProcessMessage {
    /// Returns the value of a line `NAME=…`, the first if there are several. It is `None`, too, if
    /// the message is no text.
    pub fn field(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(&self.bytes).ok()?.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
    }
}

/// Makes a blocking socket at a path.
///
/// # Errors
/// There is something at the path already, or it cannot be made there.
pub fn bind(path: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::bind(path)?;
    pass_credentials(socket.as_fd())?;
    Ok(socket)
}

/// Receives the next message. systemd takes at most 4,096 bytes.
///
/// Fds that came along with a message that is too long are closed here, and the close(2) of a
/// socket can take as long as its sender likes (`SO_LINGER`).
///
/// # Errors
/// With `WouldBlock` if there is none, and the socket is nonblocking or its timeout is over; with
/// `InvalidData` if it is longer than `limit`: then it is gone.
pub fn receive(socket: impl AsFd, limit: usize) -> io::Result<ProcessMessage> {
    match take(socket.as_fd(), limit)? {
        (message, true) => Ok(message),
        (_, false) => {
            Err(io::Error::new(io::ErrorKind::InvalidData, "a message that is too long, or has too many fds"))
        }
    }
}

/// Receives the next message, and whether it is whole: what came with one that is not is the
/// caller's to close.
pub(crate) fn take(socket: BorrowedFd<'_>, limit: usize) -> io::Result<(ProcessMessage, bool)> {
    let mut bytes = vec![0; limit + 1];
    let scm::Received { length, truncated, fds, credentials } = scm::receive(socket, &mut bytes, scm::MAX_FDS)?;
    let whole = !truncated && length <= limit;
    bytes.truncate(length);
    let pid = credentials.and_then(|of| u32::try_from(of.pid?).ok());
    Ok((ProcessMessage { bytes, pid, fds }, whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_tells_who_has_sent_what() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        let client = UnixDatagram::unbound().unwrap();
        client.connect(&path).unwrap();
        client.send(b"READY=1").unwrap();
        let letter = receive(&socket, 4096).unwrap();
        assert_eq!((letter.bytes.as_slice(), letter.pid), (&b"READY=1"[..], Some(std::process::id())));
        scm::send(client.as_fd(), b"FDSTORE=1", &[client.as_fd()]).unwrap();
        assert_eq!(receive(&socket, 4096).unwrap().fds.len(), 1);
        client.send(&[b'x'; 100]).unwrap();
        assert_eq!(receive(&socket, 99).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(receive(&socket, 99).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
