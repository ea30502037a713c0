//! The other end of `NOTIFY_SOCKET`: datagrams together with who sent them.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixCredentials, recvmsg, setsockopt, sockopt};
use tokio::io::Interest;
use tokio::net::UnixDatagram;

/// systemd's own limit.
const MAX_DATAGRAM: usize = 4096;

#[derive(Debug)]
pub(super) struct NotifyReceiver {
    socket: UnixDatagram,
}

#[derive(Debug)]
pub(super) struct Message {
    /// From the kernel (`SCM_CREDENTIALS`), not from the sender's mouth.
    pub(super) sender: u32,
    pub(super) text: String,
    fds: Vec<RawFd>,
}

impl Drop for Message {
    /// Closing a barrier's fd is what tells its sender that the messages before it were processed, so a message is to be
    /// dropped after that. Nothing is kept in a store here.
    fn drop(&mut self) {
        for fd in self.fds.drain(..) {
            let _ = nix::unistd::close(fd);
        }
    }
}

impl NotifyReceiver {
    pub(super) fn bind(path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::bind(path)?;
        setsockopt(&socket, sockopt::PassCred, &true)?;
        Ok(Self { socket })
    }

    /// The next message of which the sender is known.
    ///
    /// # Cancel safety
    ///
    /// Cancelled, it has read nothing.
    pub(super) async fn receive(&self) -> io::Result<Message> {
        loop {
            let message = self.socket.async_io(Interest::READABLE, || self.read()).await?;
            if let Some(message) = message {
                return Ok(message);
            }
        }
    }

    fn read(&self) -> io::Result<Option<Message>> {
        let mut bytes = [0; MAX_DATAGRAM];
        let mut control = nix::cmsg_space!(UnixCredentials, [RawFd; 253]);
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let fd = self.socket.as_raw_fd();
        let received =
            recvmsg::<()>(fd, &mut parts, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT)?;
        let (length, truncated) = (received.bytes, received.flags.contains(MsgFlags::MSG_TRUNC));
        let mut message = Message { sender: 0, text: String::new(), fds: Vec::new() };
        for control in received.cmsgs()? {
            match control {
                ControlMessageOwned::ScmCredentials(sender) => {
                    message.sender = u32::try_from(sender.pid()).unwrap_or_default()
                }
                ControlMessageOwned::ScmRights(fds) => message.fds.extend(fds),
                _ => {}
            }
        }
        message.text = String::from_utf8_lossy(&bytes[..length]).into_owned();
        Ok((message.sender != 0 && !truncated).then_some(message))
    }
}

#[cfg(test)]
mod tests {
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
