//! What an accept loop needs from a listening socket.

use super::peer::Peer;
use std::io;
use std::os::fd::AsFd;
use std::task::{Context, Poll};
use std::time::Duration;

/// A listening socket that an [`Acceptor`](super::Acceptor) takes connections from. Not to be
/// implemented elsewhere.
pub trait Listening: AsFd + Send + Sync + Sized + 'static {
    /// An accepted connection.
    type Stream: AsFd + Send + 'static;
    #[doc(hidden)]
    type Registered: Send + Sync;

    /// Registers the listener with the reactor, for as long as the returned value lives.
    #[doc(hidden)]
    fn registered(&self) -> io::Result<Self::Registered>;
    #[doc(hidden)]
    fn poll_accept(listener: &Self::Registered, cx: &mut Context<'_>) -> Poll<io::Result<(Self::Stream, Peer)>>;
    #[doc(hidden)]
    fn tune(stream: &Self::Stream, nodelay: bool, keepalive: Option<Duration>);
}
