//! Who is at the other end of a connection, and whether it still is there.

use nix::errno::Errno;
use nix::sys::socket::{UnixCredentials, getsockopt, setsockopt, sockopt};
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::time::Duration;

/// Of Linux's socket.h, the same on all machines but SPARC, PA-RISC and Alpha.
const SO_PASSRIGHTS: libc::c_int = 83;

/// A process, as the kernel vouches for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Credentials {
    /// The process, or `None` if it is of a PID namespace that ours cannot see.
    pub(crate) pid: Option<i32>,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl From<UnixCredentials> for Credentials {
    fn from(of: UnixCredentials) -> Self {
        Self { pid: Some(of.pid()).filter(|pid| *pid > 0), uid: of.uid(), gid: of.gid() }
    }
}

/// Returns who connected (`SO_PEERCRED`, see unix(7)).
pub(crate) fn peer_credentials(socket: BorrowedFd<'_>) -> io::Result<Credentials> {
    Ok(getsockopt(&socket, sockopt::PeerCredentials)?.into())
}

/// Lets each datagram that arrives from now on tell who sent it (`SO_PASSCRED`). It holds for all
/// who share the socket.
pub(crate) fn pass_credentials(socket: BorrowedFd<'_>) -> io::Result<()> {
    Ok(setsockopt(&socket, sockopt::PassCred, &true)?)
}

/// Lets datagrams have fds, or not: then whoever sends one with fds fails (`SO_PASSRIGHTS`, from
/// Linux 6.16). Before that all may have some, and this changes nothing. It holds for all who share
/// the socket, and for what is sent from now on.
pub(crate) fn pass_fds(socket: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    /// Of an int.
    const LENGTH: libc::socklen_t = 4;
    if cfg!(any(target_arch = "sparc", target_arch = "sparc64")) {
        return Ok(()); // which have a number of their own for it
    }
    let value = libc::c_int::from(on);
    // SAFETY: the value outlives the call and is as long as is said; the fd is open while it is
    // borrowed.
    let set = unsafe {
        let (fd, value) = (socket.as_raw_fd(), (&raw const value).cast());
        libc::setsockopt(fd, libc::SOL_SOCKET, SO_PASSRIGHTS, value, LENGTH)
    };
    match Errno::result(set) {
        Ok(_) | Err(Errno::ENOPROTOOPT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Has the peer asked after `time` of silence, four times within as much time again; see tcp(7),
/// `TCP_KEEPIDLE`.
pub(crate) fn keepalive(socket: BorrowedFd<'_>, time: Duration) -> io::Result<()> {
    /// The kernel takes no more.
    const MAX: u64 = 32767;
    let seconds = u32::try_from(time.as_secs().clamp(1, MAX)).unwrap_or(u32::MAX);
    setsockopt(&socket, sockopt::TcpKeepIdle, &seconds)?;
    setsockopt(&socket, sockopt::TcpKeepInterval, &(seconds / 4).max(1))?;
    setsockopt(&socket, sockopt::TcpKeepCount, &4)?;
    Ok(setsockopt(&socket, sockopt::KeepAlive, &true)?)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;
    use std::os::unix::net::UnixDatagram;

    use super::*;
    use crate::sys::scm;

    #[test]
    fn fds_can_be_refused_where_the_kernel_knows_how() {
        let (client, socket) = UnixDatagram::pair().unwrap();
        let send = || scm::send(client.as_fd(), b"FDSTORE=1", &[client.as_fd()]).map_err(|e| e.raw_os_error());
        pass_fds(socket.as_fd(), false).unwrap();
        assert!(matches!(send(), Ok(9) | Err(Some(libc::EPERM))), "{:?}", send());
        pass_fds(socket.as_fd(), true).unwrap();
        assert_eq!(send(), Ok(9));
    }
}
