//! Which process has the other end of a connection: the kernel is asked for the socket, and `/proc` for who holds it.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, AsRawFd as _};

use nix::sys::socket::{SockaddrIn, SockaddrIn6, getpeername, getsockname};
use nix::sys::stat::fstat;

use handover::supervise::proc::Diag;
use handover_load::Stream;

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
