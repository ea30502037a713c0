//! The other end of `NOTIFY_SOCKET`, without blocking: datagrams together with who sent them.

use std::io;
use std::path::Path;

use handover::supervise::mailbox::{self, ProcessMessage};
use tokio::io::Interest;
use tokio::net::UnixDatagram;

/// systemd's own limit.
const MAX_DATAGRAM: usize = 4096;

#[derive(Debug)]
pub(super) struct NotifyReceiver {
    socket: UnixDatagram,
}

/// A message is to be dropped when it was processed: closing a barrier's fd is what tells its
/// sender that the messages before it were. Nothing is kept in a store here.
#[derive(Debug)]
pub(super) struct Message {
    /// From the kernel (`SCM_CREDENTIALS`), not from the sender's mouth.
    pub(super) sender: u32,
    pub(super) text: String,
    _fds: Vec<std::os::fd::OwnedFd>,
}

impl NotifyReceiver {
    pub(super) fn bind(path: &Path) -> io::Result<Self> {
        let socket = mailbox::bind(path)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket: UnixDatagram::from_std(socket)? })
    }

    /// The next message of which the sender is known.
    ///
    /// # Cancel safety
    ///
    /// Cancelled, it has read nothing.
    pub(super) async fn receive(&self) -> io::Result<Message> {
        loop {
            let read = self.socket.async_io(Interest::READABLE, || mailbox::receive(&self.socket, MAX_DATAGRAM)).await;
            match read {
                Ok(ProcessMessage { bytes, pid: Some(sender), fds }) => {
                    let text = String::from_utf8_lossy(&bytes).into_owned();
                    return Ok(Message { sender, text, _fds: fds });
                }
                Ok(_) => {}
                // Too long, and gone.
                Err(e) if e.kind() == io::ErrorKind::InvalidData => {}
                Err(e) => return Err(e),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;

    use nix::sys::socket::MsgFlags;

    use super::*;

    #[tokio::test]
    async fn a_message_comes_with_its_sender_and_its_fd_is_closed_after_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let receiver = NotifyReceiver::bind(&path).unwrap();
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let sender = std::os::unix::net::UnixDatagram::unbound().unwrap();
        sender.connect(&path).unwrap();
        let fds = [writer.as_raw_fd()];
        let control = [nix::sys::socket::ControlMessage::ScmRights(&fds)];
        let text = [io::IoSlice::new(b"BARRIER=1")];
        nix::sys::socket::sendmsg::<()>(sender.as_raw_fd(), &text, &control, MsgFlags::empty(), None).unwrap();
        drop(writer);

        let message = receiver.receive().await.unwrap();
        assert_eq!((message.sender, message.text.as_str()), (std::process::id(), "BARRIER=1"));
        nix::fcntl::fcntl(&reader, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK)).unwrap();
        assert_eq!(nix::unistd::read(&reader, &mut [0]), Err(nix::Error::EAGAIN), "still open");
        drop(message);
        assert_eq!(nix::unistd::read(&reader, &mut [0]), Ok(0), "hung up");
    }
}
