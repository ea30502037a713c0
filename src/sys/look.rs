//! A look at what a socket has received, without taking it.

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use std::os::fd::{AsRawFd, BorrowedFd};

/// What the receive buffer of a stream socket holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// At least one byte is there.
    Bytes,
    /// Nothing is there so far.
    Nothing,
    /// The peer has closed its side, or the connection is broken.
    End,
}

/// Asks the kernel, not the reactor, whose news may be a moment old.
///
/// # References
/// - recv(2), `MSG_PEEK`
pub(crate) fn look(socket: BorrowedFd<'_>) -> Look {
    let mut byte = [0];
    loop {
        return match recv(socket.as_raw_fd(), &mut byte, MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT) {
            Ok(0) => Look::End,
            Ok(_) => Look::Bytes,
            Err(Errno::EINTR) => continue,
            Err(Errno::EAGAIN) => Look::Nothing,
            Err(_) => Look::End,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn it_sees_bytes_and_the_end_and_takes_nothing() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        assert_eq!(look(ours.as_fd()), Look::Nothing);
        theirs.write_all(b"x").unwrap();
        assert_eq!(look(ours.as_fd()), Look::Bytes);
        assert_eq!(look(ours.as_fd()), Look::Bytes);
        drop(theirs);
        assert_eq!(look(ours.as_fd()), Look::Bytes, "bytes before the end");
        drop(ours);
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        assert_eq!(look(ours.as_fd()), Look::End);
    }
}
