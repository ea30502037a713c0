//! Which socket is at the other end of a connection within this machine: its inode, as `/proc/PID/fd` names it.
//!
//! # References
//! sock_diag(7). An exact lookup, not a dump: its cost does not grow with the number of connections.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::PollFlags;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};
use nix::sys::stat::fstat;

use crate::sys::socket::wait;

/// The kernel answers at once.
const TIMEOUT: Duration = Duration::from_secs(1);
const HEADER: usize = 16;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
// As the requests have them; of libc they are ints.
const AF_UNIX: u8 = 1;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
const TCP_ESTABLISHED: u8 = 1;
const TCP_CLOSE_WAIT: u8 = 8;
const UDIAG_SHOW_PEER: u32 = 4;
const UNIX_DIAG_PEER: u16 = 2;
/// "I have no cookie."
const NO_COOKIE: [u8; 8] = [0xff; 8];

/// The inode of the socket that a process of this machine accepted from the client `local`, which connected to `remote`. `None`: nobody has
/// accepted it yet.
pub(crate) fn tcp_acceptor(local: SocketAddr, remote: SocketAddr) -> io::Result<Option<u64>> {
    let mut request = Vec::with_capacity(56);
    request.push(if remote.is_ipv4() { AF_INET } else { AF_INET6 });
    request.extend([IPPROTO_TCP, 0, 0]);
    request.extend(u32::MAX.to_ne_bytes());
    request.extend(remote.port().to_be_bytes());
    request.extend(local.port().to_be_bytes());
    request.extend(address(remote.ip()));
    request.extend(address(local.ip()));
    request.extend(0_u32.to_ne_bytes());
    request.extend(NO_COOKIE);
    // struct inet_diag_msg: state at 1, inode at 68.
    let Some(answer) = ask(&request)? else { return Ok(None) };
    let established = matches!(answer.get(1), Some(&TCP_ESTABLISHED | &TCP_CLOSE_WAIT));
    let inode = number(&answer, 68)?;
    // The listener itself is found where there is no connection of that address yet.
    Ok(Some(u64::from(inode)).filter(|inode| established && *inode != 0))
}

/// The same for a connected Unix socket of ours.
pub(crate) fn unix_acceptor(client: BorrowedFd<'_>) -> io::Result<Option<u64>> {
    let own = u32::try_from(fstat(client)?.st_ino).map_err(|_| io::ErrorKind::InvalidData)?;
    let mut request = Vec::with_capacity(24);
    request.extend([AF_UNIX, 0, 0, 0]);
    request.extend(u32::MAX.to_ne_bytes());
    request.extend(own.to_ne_bytes());
    request.extend(UDIAG_SHOW_PEER.to_ne_bytes());
    request.extend(NO_COOKIE);
    let Some(answer) = ask(&request)? else { return Ok(None) };
    // struct unix_diag_msg has 16 bytes; attributes follow, each with its length and type.
    let mut rest = answer.get(16..).unwrap_or_default();
    while let (Ok(length), Ok(kind)) = (half(rest, 0), half(rest, 2)) {
        if kind == UNIX_DIAG_PEER {
            return Ok(Some(u64::from(number(rest, 4)?)).filter(|inode| *inode != 0));
        }
        rest = rest.get(usize::from(length).max(4).next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(None)
}

/// `None`: there is no such socket.
fn ask(request: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let fd: OwnedFd =
        socket(AddressFamily::Netlink, SockType::Datagram, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkSockDiag)?;
    let length = u32::try_from(HEADER + request.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(request);
    send(fd.as_raw_fd(), &message, MsgFlags::empty())?;
    if !wait(std::os::fd::AsFd::as_fd(&fd), PollFlags::POLLIN, Instant::now() + TIMEOUT)? {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let mut answer = vec![0; 4096];
    let got = recv(fd.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    answer.truncate(got);
    if half(&answer, 4)? != NLMSG_ERROR {
        answer.drain(..HEADER.min(got));
        return Ok(Some(answer));
    }
    match number(&answer, HEADER)?.cast_signed().wrapping_neg() {
        libc::ENOENT => Ok(None),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

fn address(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V6(ip) => ip.octets(),
        IpAddr::V4(ip) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&ip.octets());
            bytes
        }
    }
}

fn number(bytes: &[u8], at: usize) -> io::Result<u32> {
    let four = bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok(u32::from_ne_bytes(four))
}

fn half(bytes: &[u8], at: usize) -> io::Result<u16> {
    let two = bytes.get(at..at + 2).and_then(|b| b.try_into().ok()).ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok(u16::from_ne_bytes(two))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    fn inode(fd: impl AsFd) -> u64 {
        fstat(fd).unwrap().st_ino
    }

    #[test]
    fn a_connection_has_an_acceptor_once_it_is_accepted() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let asked = || tcp_acceptor(client.local_addr().unwrap(), client.peer_addr().unwrap()).unwrap();
            assert_eq!(asked(), None);
            let (server, _) = listener.accept().unwrap();
            assert_eq!(asked(), Some(inode(&server)), "{address}");
        }
    }

    #[test]
    fn so_has_one_over_ipv4_of_a_listener_for_both() {
        let Ok(listener) = TcpListener::bind("[::]:0") else { return };
        let port = listener.local_addr().unwrap().port();
        let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (server, _) = listener.accept().unwrap();
        let asked = tcp_acceptor(client.local_addr().unwrap(), client.peer_addr().unwrap()).unwrap();
        assert_eq!(asked, Some(inode(&server)));
    }

    #[test]
    fn so_has_a_unix_socket() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let client = UnixStream::connect(&path).unwrap();
        assert_eq!(unix_acceptor(client.as_fd()).unwrap(), None);
        let (server, _) = listener.accept().unwrap();
        assert_eq!(unix_acceptor(client.as_fd()).unwrap(), Some(inode(&server)));
    }
}
