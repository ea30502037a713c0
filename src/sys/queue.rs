//! How many connections wait to be accepted, and where a socket is bound.

use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::sys::socket::{AddressFamily, SockaddrLike, SockaddrStorage, getsockname};

/// Returns how many connections wait at a listening TCP socket, and how many may.
///
/// # References
/// - tcp(7), `TCP_INFO`: of a listener the kernel tells its queue in `tcpi_unacked` and
///   `tcpi_sacked`
pub(crate) fn tcp_backlog(listener: BorrowedFd<'_>) -> Option<(u32, u32)> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = libc::socklen_t::try_from(size_of::<libc::tcp_info>()).ok()?;
    // SAFETY: the buffer is `length` bytes long and outlives the call; an older kernel fills less
    // of it, and the rest is zeroed.
    let info = unsafe {
        let (fd, to) = (listener.as_raw_fd(), info.as_mut_ptr().cast());
        if libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, to, &raw mut length) != 0 {
            return None;
        }
        // All bits of it may be anything.
        info.assume_init()
    };
    Some((info.tcpi_unacked, info.tcpi_sacked))
}

/// Returns the socket's address in the forms of [`bind`](crate::systemd::activation::bind), or
/// `None` if it has none.
pub(crate) fn bound_to(socket: BorrowedFd<'_>) -> Option<String> {
    let address: SockaddrStorage = getsockname(socket.as_raw_fd()).ok()?;
    if let Some(unix) = address.as_unix_addr() {
        let of = |prefix: &str, name: &[u8]| format!("unix:{prefix}{}", name.escape_ascii());
        return match (unix.path(), unix.as_abstract()) {
            (Some(path), _) => Some(of("", path.as_os_str().as_encoded_bytes())),
            (None, Some(name)) => Some(of("@", name)),
            (None, None) => None,
        };
    }
    let inet = matches!(address.family(), Some(AddressFamily::Inet | AddressFamily::Inet6));
    inet.then(|| address.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    #[test]
    fn who_waits_is_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(bound_to(listener.as_fd()), Some(address.to_string()));
        let (none, room) = tcp_backlog(listener.as_fd()).unwrap();
        assert!(none == 0 && room > 0);
        let _waiting = [TcpStream::connect(address).unwrap(), TcpStream::connect(address).unwrap()];
        assert_eq!(tcp_backlog(listener.as_fd()).unwrap().0, 2);
    }

    #[test]
    fn unix_names_are_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert_eq!(bound_to(listener.as_fd()), Some(format!("unix:{}", path.display())));
        assert_eq!(tcp_backlog(listener.as_fd()), None);
    }
}
