//! Who is at the other end of a connection, and whether it still is there.

use nix::sys::socket::{UnixCredentials, getsockopt, setsockopt, sockopt};
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

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
