//! Which socket is at the other end of a connection within this machine: its inode, as
//! `/proc/PID/fd` names it.
//!
//! # References
//! sock_diag(7). An exact lookup, not a dump: its cost does not grow with the number of
//! connections.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike as _};

/// The kernel has answered by the time that it has taken the question.
const TIMEOUT_SECS: i64 = 1;
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

/// A socket by which the kernel is asked about other sockets: see sock_diag(7).
#[derive(Debug)]
pub struct Diag(OwnedFd);

/// A TCP socket of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tcp {
    /// The inode of the socket.
    pub inode: u64,
    /// Its peer may still get what is sent to it. False of a listener, too, which is found where
    /// there is no connection.
    pub sends: bool,
}

impl Diag {
    /// Opens one.
    ///
    /// # Errors
    /// The kernel has no sock_diag(7), or there are no fds left.
    pub fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let fd = socket(AddressFamily::Netlink, SockType::Datagram, flags, SockProtocol::NetlinkSockDiag)?;
        setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::seconds(TIMEOUT_SECS))?;
        Ok(Self(fd))
    }

    /// Finds the socket bound to `own` whose peer is `other`. Without one it is whatever listens at
    /// `own`.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn tcp(&self, own: SocketAddr, other: SocketAddr) -> io::Result<Option<Tcp>> {
        let mut request = Vec::with_capacity(56);
        request.push(if own.is_ipv4() { AF_INET } else { AF_INET6 });
        request.extend([IPPROTO_TCP, 0, 0]);
        request.extend(u32::MAX.to_ne_bytes());
        request.extend(own.port().to_be_bytes());
        request.extend(other.port().to_be_bytes());
        request.extend(address(own.ip()));
        request.extend(address(other.ip()));
        request.extend(0_u32.to_ne_bytes());
        request.extend(NO_COOKIE);
        // struct inet_diag_msg: state at 1, inode at 68. Who is in no process any more has inode 0.
        let Some(answer) = self.ask(&request)? else { return Ok(None) };
        let sends = matches!(answer.get(1), Some(&TCP_ESTABLISHED | &TCP_CLOSE_WAIT));
        let inode = u64::from(number(&answer, 68)?);
        Ok((inode != 0).then_some(Tcp { inode, sends }))
    }

    /// Finds the inode at the other end of the Unix socket with that inode. It is `None` if nobody
    /// has accepted it, or there is no such socket.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn unix_peer(&self, own: u64) -> io::Result<Option<u64>> {
        let own = u32::try_from(own).map_err(|_| io::ErrorKind::InvalidData)?;
        let mut request = Vec::with_capacity(24);
        request.extend([AF_UNIX, 0, 0, 0]);
        request.extend(u32::MAX.to_ne_bytes());
        request.extend(own.to_ne_bytes());
        request.extend(UDIAG_SHOW_PEER.to_ne_bytes());
        request.extend(NO_COOKIE);
        let Some(answer) = self.ask(&request)? else { return Ok(None) };
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

    /// Returns the answer without its header, or `None` if there is no such socket.
    fn ask(&self, request: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let length = u32::try_from(HEADER + request.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut message = length.to_ne_bytes().to_vec();
        message.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        message.extend(NLM_F_REQUEST.to_ne_bytes());
        message.extend([0; 8]);
        message.extend(request);
        send(self.0.as_raw_fd(), &message, MsgFlags::empty())?;
        let mut answer = vec![0; 4096];
        let got = recv(self.0.as_raw_fd(), &mut answer, MsgFlags::empty())?;
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
}

/// Returns whether that process has that socket open. One whose descriptors may not be read has
/// none that we know of.
pub fn holds(pid: u32, inode: u64) -> bool {
    let wanted = format!("socket:[{inode}]");
    let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    fds.filter_map(|fd| std::fs::read_link(fd.path()).ok()).any(|to| to.as_os_str() == wanted.as_str())
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

    use nix::sys::stat::fstat;

    use super::*;

    fn inode(fd: impl AsFd) -> u64 {
        fstat(fd).unwrap().st_ino
    }

    fn acceptor(client: &TcpStream) -> Option<Tcp> {
        Diag::open().unwrap().tcp(client.peer_addr().unwrap(), client.local_addr().unwrap()).unwrap()
    }

    #[test]
    fn a_connection_has_an_acceptor_once_it_is_accepted() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            assert!(acceptor(&client).is_none_or(|found| !found.sends), "{address}");
            let (server, _) = listener.accept().unwrap();
            assert_eq!(acceptor(&client), Some(Tcp { inode: inode(&server), sends: true }), "{address}");
            assert!(holds(std::process::id(), inode(&server)));
            client.shutdown(std::net::Shutdown::Write).unwrap();
            assert_eq!(acceptor(&client), Some(Tcp { inode: inode(&server), sends: true }), "{address}, half closed");
        }
    }

    #[test]
    fn so_has_one_over_ipv4_of_a_listener_for_both() {
        let Ok(listener) = TcpListener::bind("[::]:0") else { return };
        let port = listener.local_addr().unwrap().port();
        let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (server, _) = listener.accept().unwrap();
        assert_eq!(acceptor(&client), Some(Tcp { inode: inode(&server), sends: true }));
    }

    #[test]
    fn so_has_a_unix_socket() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let client = UnixStream::connect(&path).unwrap();
        let diag = Diag::open().unwrap();
        assert_eq!(diag.unix_peer(inode(&client)).unwrap(), None);
        let (server, _) = listener.accept().unwrap();
        assert_eq!(diag.unix_peer(inode(&client)).unwrap(), Some(inode(&server)));
    }

    #[test]
    fn a_socket_that_is_not_there_is_none() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let diag = Diag::open().unwrap();
        assert_eq!(diag.tcp(address, address).unwrap(), None);
        assert_eq!(diag.unix_peer(1).unwrap(), None);
        assert!(!holds(0, 1));
    }
}
