//! Messages with fds (`SCM_RIGHTS`, see unix(7) and cmsg(3)).

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, UnixCredentials, sendmsg};

use crate::sys::peer::Credentials;

/// As many fds as the kernel lets a message have (`SCM_MAX_FD`).
pub(crate) const MAX_FDS: usize = 253;

/// Sends without ever blocking, and without SIGPIPE, to the peer that `socket` is connected to.
pub(crate) fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let numbers: Vec<_> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    // An empty SCM_RIGHTS is not the same as none: vsock refuses it.
    let control = if fds.is_empty() { &[][..] } else { &rights[..] };
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    Ok(sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], control, flags, None)?)
}

/// A message that is in the caller's buffer, and what came along.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) length: usize,
    /// Bytes or fds are missing: there was no room for them, or this process may have no more.
    pub(crate) truncated: bool,
    /// All that the kernel has installed, close-on-exec, also of a truncated message.
    pub(crate) fds: Vec<OwnedFd>,
    /// Who sent it, where the socket asks for that (`SO_PASSCRED`).
    #[cfg_attr(not(feature = "supervise"), expect(dead_code, reason = "only a supervisor asks who it was"))]
    pub(crate) credentials: Option<Credentials>,
}

/// Receives a message with at most about `max_fds` fds. It blocks if the socket does.
///
/// It does not use nix, whose `cmsgs` refuses a truncated message as a whole: the fds that the
/// kernel has installed by then would be nobody's, and stay open.
pub(crate) fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8], max_fds: usize) -> io::Result<Received> {
    receive_with(socket, buffer, max_fds, 0)
}

/// Looks at the next message without taking it out of the queue, and never blocks; the fds are
/// copies. Each look is at the message after the one before, from [`look_from_start`] on.
pub(crate) fn look(socket: BorrowedFd<'_>, buffer: &mut [u8], max_fds: usize) -> io::Result<Received> {
    receive_with(socket, buffer, max_fds, libc::MSG_PEEK | libc::MSG_DONTWAIT)
}

/// Has the next [`look`] begin with the oldest message. Who has looked before, and where that one
/// stopped, is the socket's own, and outlives the process.
///
/// # References
/// - socket(7), `SO_PEEK_OFF`
pub(crate) fn look_from_start(socket: BorrowedFd<'_>) -> io::Result<()> {
    let start: libc::c_int = 0;
    // SAFETY: pointer and length are those of one integer of ours; the fd is open while borrowed.
    let set = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEEK_OFF, (&raw const start).cast(), INT)
    };
    Errno::result(set)?;
    Ok(())
}

/// The length of an option that is a number.
const INT: libc::socklen_t = 4;
const _: () = assert!(size_of::<libc::c_int>() == INT as usize);

fn receive_with(socket: BorrowedFd<'_>, buffer: &mut [u8], max_fds: usize, flags: i32) -> io::Result<Received> {
    let mut space = control_space(max_fds);
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: all zeroes is a valid msghdr.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = space.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(space.as_slice());
    // SAFETY: each pointer in the header is to something of ours that lives on, with its own length
    // beside it; the fd is open while it is borrowed.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC | flags) };
    let length = usize::try_from(length).map_err(|_| Errno::last())?;
    // First of all: whatever fails from here on, each of them is closed.
    let (fds, credentials) = controls(&message);
    let truncated = message.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0;
    Ok(Received { length, truncated, fds, credentials })
}

/// Makes a buffer with room for that many fds and for credentials, aligned as control messages must
/// be.
fn control_space(max_fds: usize) -> Vec<u64> {
    let fds = libc::c_uint::try_from(max_fds * size_of::<RawFd>()).unwrap_or(libc::c_uint::MAX / 2);
    // SAFETY: this only computes.
    let bytes = unsafe { libc::CMSG_SPACE(fds) + libc::CMSG_SPACE(UCRED) };
    vec![0; (bytes as usize).div_ceil(size_of::<u64>())]
}

/// The length of credentials.
pub(super) const UCRED: libc::c_uint = 12;
const _: () = assert!(size_of::<libc::ucred>() == UCRED as usize);

/// The pidfd of the sender, as asked for by `SO_PASSPIDFD` (`PassPIDFD=` of a .socket unit).
const SCM_PIDFD: libc::c_int = 4;

/// Takes what the kernel has written to the control buffer, which is still alive. Fds of other
/// kinds, which nobody here asks for, are closed.
pub(super) fn controls(message: &libc::msghdr) -> (Vec<OwnedFd>, Option<Credentials>) {
    let (mut fds, mut credentials) = (Vec::new(), None);
    // SAFETY: the kernel has set msg_controllen to what it wrote to our aligned buffer, and the
    // macros stay within it. Each cmsg_len is of what is really there, also where it had no room
    // for all. Fds were installed for us, and nobody else knows them.
    unsafe {
        let mut next = libc::CMSG_FIRSTHDR(message);
        while let Some(control) = next.as_ref() {
            let length = control.cmsg_len.saturating_sub(libc::CMSG_LEN(0) as usize);
            match (control.cmsg_level, control.cmsg_type) {
                (libc::SOL_SOCKET, libc::SCM_RIGHTS) => {
                    let numbers = libc::CMSG_DATA(control).cast::<RawFd>();
                    let count = length / size_of::<RawFd>();
                    fds.extend((0..count).map(|at| OwnedFd::from_raw_fd(numbers.add(at).read_unaligned())));
                }
                (libc::SOL_SOCKET, SCM_PIDFD) if length >= size_of::<RawFd>() => {
                    let number = libc::CMSG_DATA(control).cast::<RawFd>().read_unaligned();
                    // Of a sender that is gone it may be an error.
                    if number >= 0 {
                        drop(OwnedFd::from_raw_fd(number));
                    }
                }
                (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) if length >= UCRED as usize => {
                    let of = libc::CMSG_DATA(control).cast::<libc::ucred>().read_unaligned();
                    credentials = Some(Credentials::from(UnixCredentials::from(of)));
                }
                _ => {}
            }
            next = libc::CMSG_NXTHDR(message, control);
        }
    }
    (fds, credentials)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd as _;
    use std::os::unix::net::UnixDatagram;
    use std::path::Path;

    use super::*;

    /// How many fds of this process are of that file: other tests have fds of their own.
    fn open_of(path: &Path) -> usize {
        let all = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        all.filter(|fd| std::fs::read_link(fd.path()).is_ok_and(|target| target == path)).count()
    }

    #[test]
    fn what_is_truncated_leaves_no_fd_behind() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().canonicalize().unwrap().join("file");
        let file = File::create(&path).unwrap();
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        send(theirs.as_fd(), b"many", &vec![file.as_fd(); 100]).unwrap();
        let received = receive(ours.as_fd(), &mut [0; 10], 20).unwrap();
        assert!(received.truncated && received.length == 4);
        assert_eq!(open_of(&path), 1 + received.fds.len(), "all that was installed is owned");
        assert!(received.fds.len() >= 20);
        drop(received);
        assert_eq!(open_of(&path), 1);
        // Bytes that do not fit cost no fd either.
        send(theirs.as_fd(), &[0; 100], &[file.as_fd()]).unwrap();
        let received = receive(ours.as_fd(), &mut [0; 10], 20).unwrap();
        assert!(received.truncated && received.fds.len() == 1);
        drop(received);
        assert_eq!(open_of(&path), 1);
    }

    /// A pidfd comes with each message to a socket that has `SO_PASSPIDFD`.
    #[test]
    fn the_pidfd_of_a_sender_is_not_kept() {
        const SO_PASSPIDFD: libc::c_int = 76;
        const MESSAGES: usize = 200;
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        let (on, length) = (1_i32, 4);
        // SAFETY: the value outlives the call, and is as long as is said.
        let set = unsafe {
            let value = (&raw const on).cast();
            libc::setsockopt(ours.as_raw_fd(), libc::SOL_SOCKET, SO_PASSPIDFD, value, length)
        };
        if set != 0 {
            return; // The kernel is older than 6.5.
        }
        let pidfds = || {
            let all = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
            all.filter(|fd| std::fs::read_link(fd.path()).is_ok_and(|to| to.to_string_lossy().contains("pidfd")))
                .count()
        };
        let before = pidfds();
        for _ in 0..MESSAGES {
            send(theirs.as_fd(), b"one", &[]).unwrap();
            assert!(receive(ours.as_fd(), &mut [0; 10], 1).unwrap().fds.is_empty());
        }
        // Other tests have some of their own.
        assert!(pidfds() < before + MESSAGES / 2);
    }
}
