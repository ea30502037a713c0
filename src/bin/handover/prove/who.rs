//! Which process has the other end of a connection: the kernel is asked for the socket, and `/proc` for who holds it.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, getpeername,
    getsockname, recv, sendto, socket,
};

use crate::load::Stream;

/// `SOCK_DIAG_BY_FAMILY`, of a request and its answer.
const BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const HEADER: usize = 16;
/// Where the inode is in the answer about an internet socket, after the header.
const INET_INODE: usize = 68;
/// Asks for the other end of a Unix socket, and the attribute that has it.
const UDIAG_SHOW_PEER: u32 = 4;
const UNIX_DIAG_PEER: u16 = 2;
/// The fixed part of an answer about a Unix socket.
const UNIX_MESSAGE: usize = 16;

/// Asks the kernel about sockets (sock_diag(7)).
#[derive(Debug)]
pub(super) struct Diagnosis(OwnedFd);

impl Diagnosis {
    pub(super) fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC;
        Ok(Self(socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkSockDiag)?))
    }

    /// The inode of the socket at the other end.
    pub(super) fn peer(&self, stream: &Stream) -> io::Result<u64> {
        match stream {
            Stream::Unix(stream) => {
                // fstat of a socket gives its inode; /proc has the same number.
                let own = fs::metadata(format!("/proc/self/fd/{}", stream.as_fd().as_raw_fd()))?.ino();
                self.unix_peer(own)
            }
            stream => {
                let fd = stream.as_fd().as_raw_fd();
                let (client, server) = match getsockname::<SockaddrIn>(fd) {
                    Ok(client) => {
                        (SocketAddr::V4(client.into()), SocketAddr::V4(getpeername::<SockaddrIn>(fd)?.into()))
                    }
                    Err(_) => (
                        SocketAddr::V6(getsockname::<SockaddrIn6>(fd)?.into()),
                        SocketAddr::V6(getpeername::<SockaddrIn6>(fd)?.into()),
                    ),
                };
                self.inet(server, client)
            }
        }
    }

    fn inet(&self, own: SocketAddr, other: SocketAddr) -> io::Result<u64> {
        // struct inet_diag_req_v2: the family, TCP, no extensions, all states, then the socket.
        let family = if own.is_ipv4() { libc_family(AddressFamily::Inet) } else { libc_family(AddressFamily::Inet6) };
        let mut request = vec![family, 6, 0, 0];
        request.extend(u32::MAX.to_ne_bytes());
        request.extend(own.port().to_be_bytes());
        request.extend(other.port().to_be_bytes());
        for ip in [own.ip(), other.ip()] {
            match ip {
                IpAddr::V4(ip) => request.extend(ip.octets().into_iter().chain([0; 12])),
                IpAddr::V6(ip) => request.extend(ip.octets()),
            }
        }
        // Any interface, any cookie.
        request.extend([[0; 4], [0xff; 4], [0xff; 4]].concat());
        let answer = self.ask(&request)?;
        let inode = answer.get(INET_INODE..INET_INODE + 4).and_then(|b| b.try_into().ok());
        inode.map(|b| u64::from(u32::from_ne_bytes(b))).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    fn unix_peer(&self, inode: u64) -> io::Result<u64> {
        // struct unix_diag_req: the family, no protocol, padding, all states, the inode, what to show, any cookie.
        let mut request = vec![libc_family(AddressFamily::Unix), 0, 0, 0];
        request.extend(u32::MAX.to_ne_bytes());
        request.extend(u32::try_from(inode).map_err(io::Error::other)?.to_ne_bytes());
        request.extend(UDIAG_SHOW_PEER.to_ne_bytes());
        request.extend([0xff; 8]);
        let answer = self.ask(&request)?;
        let mut attributes = answer.get(UNIX_MESSAGE..).unwrap_or_default();
        while let [a, b, c, d, rest @ ..] = attributes {
            let (length, kind) = (usize::from(u16::from_ne_bytes([*a, *b])), u16::from_ne_bytes([*c, *d]));
            if let (UNIX_DIAG_PEER, [a, b, c, d, ..]) = (kind, rest) {
                return Ok(u64::from(u32::from_ne_bytes([*a, *b, *c, *d])));
            }
            attributes = attributes.get(length.max(4).next_multiple_of(4)..).unwrap_or_default();
        }
        Err(io::ErrorKind::NotFound.into())
    }

    /// The answer without its header.
    fn ask(&self, request: &[u8]) -> io::Result<Vec<u8>> {
        let length = u32::try_from(HEADER + request.len()).map_err(io::Error::other)?;
        let mut message = length.to_ne_bytes().to_vec();
        message.extend(BY_FAMILY.to_ne_bytes());
        message.extend(NLM_F_REQUEST.to_ne_bytes());
        message.extend([0; 8]);
        message.extend(request);
        let fd = self.0.as_raw_fd();
        sendto(fd, &message, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        let mut answer = vec![0; 4096];
        // The kernel has answered when sendto returns.
        let n = recv(fd, &mut answer, MsgFlags::MSG_DONTWAIT)?;
        answer.truncate(n);
        let kind = answer.get(4..6).map(|b| u16::from_ne_bytes([b[0], b[1]]));
        if kind != Some(BY_FAMILY) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(answer.split_off(HEADER))
    }
}

fn libc_family(family: AddressFamily) -> u8 {
    u8::try_from(family as i32).unwrap_or_default()
}

/// Whether that process holds the socket. One whose descriptors may not be read holds nothing that we know of.
pub(super) fn holds(pid: u32, inode: u64) -> bool {
    let wanted = format!("socket:[{inode}]");
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    entries.flatten().any(|e| fs::read_link(e.path()).is_ok_and(|link| link.as_os_str() == wanted.as_str()))
}
