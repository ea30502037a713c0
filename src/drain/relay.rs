//! The socket between two generations that share datagrams: one end of a pair, with a queue for
//! what must not be lost.

use crate::sys::{link, seqpacket, socket};
use crate::wire::flows::{FlowMessage, MAX_MESSAGE, decode};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

#[derive(Debug)]
pub(super) struct Relay {
    fd: AsyncFd<OwnedFd>,
    queue: VecDeque<Vec<u8>>,
}

impl Relay {
    /// Makes both ends of a new pair.
    pub(super) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
        link::pair()
    }

    pub(super) fn new(fd: OwnedFd) -> io::Result<Self> {
        socket::set_nonblocking(fd.as_fd())?;
        Ok(Self { fd: socket::register(fd, Interest::READABLE | Interest::WRITABLE)?, queue: VecDeque::new() })
    }

    /// Receives the next message, or `None` when the other end is closed. It is cancel-safe.
    pub(super) async fn receive(&self) -> Option<FlowMessage> {
        loop {
            let mut buffer = vec![0; MAX_MESSAGE];
            let read = self.fd.async_io(Interest::READABLE, |fd| seqpacket::receive(fd.as_fd(), &mut buffer)).await;
            match read {
                Ok(0) | Err(_) => return None,
                // What cannot be read is somebody else's protocol: the next one, as for unknown
                // messages.
                Ok(length) => match buffer.get(..length).and_then(decode) {
                    Some(FlowMessage::Unknown) | None => {}
                    Some(message) => return Some(message),
                },
            }
        }
    }

    /// Queues messages, which [`flush`](Self::flush) sends in order.
    pub(super) fn queue(&mut self, messages: impl IntoIterator<Item = Vec<u8>>) {
        self.queue.extend(messages);
    }

    pub(super) fn has_queued(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Sends what is queued, and returns false if the other end is closed. It is cancel-safe: a
    /// message is sent whole, and then gone from the queue.
    pub(super) async fn flush(&mut self) -> bool {
        while let Some(message) = self.queue.front() {
            let sent = self.fd.async_io(Interest::WRITABLE, |fd| seqpacket::send_packet(fd.as_fd(), message)).await;
            if sent.is_err() {
                self.queue.clear();
                return false;
            }
            self.queue.pop_front();
        }
        true
    }

    /// Sends the message at once, or fails.
    pub(super) fn try_send(&self, message: &[u8]) -> io::Result<()> {
        seqpacket::send_packet(self.fd.get_ref().as_fd(), message)
    }
}
