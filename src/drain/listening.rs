//! What an accept loop needs from a listening socket.

use super::peer::Peer;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// A listening socket that an [`Acceptor`](super::Acceptor) takes connections from. Not to be
/// implemented elsewhere.
pub trait Listening: Into<OwnedFd> + Sized + 'static {
    /// An accepted connection.
    type Stream: AsFd + Send + 'static;
    /// What is known of the listener, beyond its fd, to make a stream of what it accepts.
    #[doc(hidden)]
    type Form: Copy + fmt::Debug + Send + Sync;

    #[doc(hidden)]
    fn form(&self) -> Self::Form;
    /// Takes the next connection from the listener of that form, which is nonblocking.
    #[doc(hidden)]
    fn accept(listener: BorrowedFd<'_>, form: Self::Form) -> io::Result<(Self::Stream, Peer)>;
    #[doc(hidden)]
    fn tune(stream: &Self::Stream, nodelay: bool, keepalive: Option<Duration>);
}
