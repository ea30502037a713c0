//! What an accept loop needs from a listening socket.

use super::peer::Peer;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// A listening socket that an [`Acceptor`](super::Acceptor) takes connections from:
/// [`Listener`](crate::systemd::activation::Listener) of streams, and
/// [`SeqpacketListener`](crate::systemd::activation::SeqpacketListener) of packets.
///
/// It is sealed: how a socket accepts is between the two of them and this crate.
pub trait Listening: Accepting<Connected = <Self as Listening>::Stream> + Into<OwnedFd> + Sized + 'static {
    /// An accepted connection.
    type Stream: AsFd + Send + 'static;
}

/// How a listening socket accepts. It is public in a module that is not, so that nobody else can
/// implement [`Listening`], nor call this.
pub trait Accepting {
    /// Its connections can go to another process.
    const MOVES: bool = false;
    /// An accepted connection.
    type Connected;
    /// What is known of the listener, beyond its fd, to make a stream of what it accepts.
    type Form: Copy + fmt::Debug + Send + Sync;

    fn form(&self) -> Self::Form;
    /// Takes the next connection from the listener of that form, which is nonblocking.
    fn accept(listener: BorrowedFd<'_>, form: Self::Form) -> io::Result<(Self::Connected, Peer)>;
    /// Takes a connection of another process.
    fn adopted(_: OwnedFd) -> io::Result<(Self::Connected, Peer)> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn tune(stream: &Self::Connected, nodelay: bool, keepalive: Option<Duration>);
}
