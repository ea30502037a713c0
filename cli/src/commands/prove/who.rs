//! Which process has the other end of a connection: the kernel is asked for the socket, and `/proc`
//! for who holds it.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, AsRawFd as _};

use nix::sys::socket::{SockaddrIn, SockaddrIn6, getpeername, getsockname};
use nix::sys::stat::fstat;

use handover::supervise::proc::Diag;
use handover_load::{Address, Stream};

/// The inode of the socket at the other end, as long as a process has it.
pub(super) fn peer(diag: &Diag, stream: &Stream) -> io::Result<Option<u64>> {
    if let Stream::Unix(stream) = stream {
        return diag.unix_peer(fstat(stream)?.st_ino);
    }
    let fd = stream.as_fd().as_raw_fd();
    let (client, server) = match getsockname::<SockaddrIn>(fd) {
        Ok(client) => (SocketAddr::V4(client.into()), SocketAddr::V4(getpeername::<SockaddrIn>(fd)?.into())),
        Err(_) => (
            SocketAddr::V6(getsockname::<SockaddrIn6>(fd)?.into()),
            SocketAddr::V6(getpeername::<SockaddrIn6>(fd)?.into()),
        ),
    };
    // A server that has said its last may be asked for, too: what it holds, it holds.
    Ok(diag.tcp(server, client)?.map(|found| found.inode))
}

/// The inodes of the sockets that listen there.
pub(super) fn listeners(address: &Address) -> Vec<u64> {
    let table = |path: &str| fs::read_to_string(path).unwrap_or_default();
    match address {
        Address::Tcp(address) => ["/proc/net/tcp", "/proc/net/tcp6"]
            .iter()
            .flat_map(|path| table(path).lines().filter_map(|line| tcp(line, address.port())).collect::<Vec<_>>())
            .collect(),
        Address::Unix(path) => {
            let text = table("/proc/net/unix");
            text.lines().filter_map(|line| unix(line, &path.to_string_lossy())).collect()
        }
    }
}

/// proc_pid_net(5): `sl local_address rem_address st tx:rx tr:tm retrnsmt uid timeout inode`.
fn tcp(line: &str, port: u16) -> Option<u64> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let (_, own) = fields.get(1)?.rsplit_once(':')?;
    let listens = *fields.get(3)? == "0A" && u16::from_str_radix(own, 16) == Ok(port);
    listens.then(|| fields.get(9)?.parse().ok()).flatten()
}

/// `Num RefCount Protocol Flags Type St Inode Path`, with a flag for those that accept.
fn unix(line: &str, path: &str) -> Option<u64> {
    let mut fields = line.split_ascii_whitespace();
    let (flags, inode) = (fields.nth(3)?, fields.nth(2)?);
    let listens = flags == "00010000" && fields.next() == Some(path);
    listens.then(|| inode.parse().ok()).flatten()
}

/// What a process is called.
pub(super) fn name(pid: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use handover::supervise::proc::holds;

    #[test]
    fn what_listens_is_found() {
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        let _other_end = std::net::TcpStream::connect(address).unwrap();
        let found = listeners(&Address::Tcp(address));
        assert!(matches!(found[..], [inode] if holds(std::process::id(), inode)), "{found:?}");
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let _unix = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let found = listeners(&Address::Unix(path));
        assert!(matches!(found[..], [inode] if holds(std::process::id(), inode)), "{found:?}");
    }
}
