//! What carries the bytes of a connection: a socket, or TLS over it.

use crate::drain::Stream;
use crate::sys::look::{Look, look};
use std::os::fd::AsFd as _;
use tokio::io::{AsyncRead, AsyncWrite};

/// Which HTTP a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HttpVersion {
    Http1,
    Http2,
}

pub(super) trait Transport: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// A client that wanted the close itself sends something more when we close.
    const ANSWERS_CLOSE: bool = false;

    /// Returns what was received and cannot be known from a read that would have to wait.
    fn look(&mut self) -> Look;

    /// Returns whether a part is here of what can be read only as a whole.
    fn is_partial(&self) -> bool {
        false
    }

    /// Returns what client and server have agreed on.
    fn protocol(&self) -> Option<HttpVersion> {
        None
    }

    /// Says that this end is meant to be one, if that can be said at once.
    fn last_word(&mut self) {}

    #[cfg(feature = "tls")]
    fn tls(&self) -> Option<crate::tls::TlsInfo> {
        None
    }
}

impl Transport for Stream {
    fn look(&mut self) -> Look {
        look(self.as_fd())
    }
}
