//! Unix sockets that keep packets apart (`SOCK_SEQPACKET`).

use super::listening::{Accepting, Listening};
use super::peer::Peer;
use crate::sys::accept::accept;
use crate::sys::{peer, seqpacket, socket};
use crate::systemd::activation::SeqpacketListener;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A connection of sequential packets: each arrives whole and in order, as it was sent.
#[derive(Debug)]
pub struct Seqpacket {
    fd: AsyncFd<OwnedFd>,
}

impl Seqpacket {
    /// Takes a connected `SOCK_SEQPACKET` socket, which becomes nonblocking. It must be called
    /// within a tokio runtime.
    ///
    /// # Errors
    /// It cannot be registered with the runtime.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        socket::set_nonblocking(fd.as_fd())?;
        Self::of_nonblocking(fd)
    }

    fn of_nonblocking(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self { fd: socket::register(fd, Interest::READABLE | Interest::WRITABLE)? })
    }

    /// Receives the next packet into the buffer, and returns its length. 0 means that the peer has
    /// closed, or that it has sent a packet of no bytes, which cannot be told from that.
    ///
    /// # Errors
    /// With [`InvalidData`](io::ErrorKind::InvalidData): the packet is longer than the buffer. It
    /// is gone then; the next one can be received.
    ///
    /// # Cancel safety
    /// No packet is lost.
    pub async fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = |fd: &OwnedFd| seqpacket::receive(fd.as_fd(), buffer);
        let length = self.fd.async_io(Interest::READABLE, read).await?;
        if length > buffer.len() {
            let why = format!("a packet of {length} bytes does not fit into a buffer of {}", buffer.len());
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        Ok(length)
    }

    /// Sends one packet; waits while the peer's queue is full.
    ///
    /// # Errors
    /// The peer is gone, or the packet is longer than the socket's send buffer
    /// (`net.core.wmem_default`).
    ///
    /// # Cancel safety
    /// The packet is sent whole or not at all.
    pub async fn send(&self, packet: &[u8]) -> io::Result<()> {
        self.fd.async_io(Interest::WRITABLE, |fd| seqpacket::send_packet(fd.as_fd(), packet)).await
    }
}

impl AsFd for Seqpacket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Listening for SeqpacketListener {
    type Stream = Seqpacket;
}

impl Accepting for SeqpacketListener {
    type Connected = Seqpacket;
    type Form = ();

    fn form(&self) {}

    fn accept(listener: BorrowedFd<'_>, (): ()) -> io::Result<(Seqpacket, Peer)> {
        let fd = accept(listener)?;
        let peer = Peer::unix(peer::peer_credentials(fd.as_fd()).ok());
        Ok((Seqpacket::of_nonblocking(fd)?, peer))
    }

    fn tune(_: &Seqpacket, _: bool, _: Option<Duration>) {}
}
