//! What carries the bytes of a connection: a socket, or TLS over it.

use crate::drain::Stream;
use crate::sys::look::{Look, look};
use crate::sys::secret::Secret;
use nix::sys::socket::{Shutdown, shutdown};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use tokio::io::{AsyncRead, AsyncWrite};

/// What a client that knows HTTP/2 sends first.
pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// So much of it is not the beginning of any request of HTTP/1.
pub(super) const PREFACE_ALONE: usize = b"PRI * H".len();

/// Pieces of a reply of no more than this are written as one: to copy them costs less than
/// writev(2) does over send(2).
pub(super) const GATHERED: usize = 1024;

/// hyper reads at least this much at once, if it is there.
pub(super) const HYPER_READS: usize = 8192;

/// The most that is read to learn the protocol.
pub(super) const FIRST_READ: usize = 16 << 10;

/// Which HTTP a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HttpVersion {
    Http1,
    Http2,
}

/// What goes to another process of what carries a connection.
#[derive(Debug)]
pub(super) struct Detached {
    /// A copy of the socket.
    pub(super) fd: OwnedFd,
    /// The state of TLS; empty without it.
    pub(super) tls: Secret,
}

pub(super) trait Transport: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// It is TLS.
    const TLS: bool = false;

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

    /// Returns what goes to another process. If it went, this one is to be dropped, and nothing of
    /// it used before; else it goes on here.
    ///
    /// # Errors
    /// There is no fd for it, and this one goes on.
    fn detach(&mut self) -> io::Result<Detached>;

    /// Says that this end is meant to be one, if that can be said at once.
    fn last_word(&mut self) {}

    /// Ends the connection, also where there is a copy of its socket.
    fn end(&self) {}

    #[cfg(feature = "tls")]
    fn tls(&self) -> Option<crate::tls::TlsInfo> {
        None
    }
}

impl Transport for Stream {
    fn detach(&mut self) -> io::Result<Detached> {
        Ok(Detached { fd: self.as_fd().try_clone_to_owned()?, tls: Secret::default() })
    }

    fn look(&mut self) -> Look {
        look(self.as_fd())
    }

    fn end(&self) {
        // If it is not connected any more, it has ended.
        let _ = shutdown(self.as_fd().as_raw_fd(), Shutdown::Both);
    }
}

/// Gathers the pieces into one, unless they are too large.
pub(super) fn gather<'a>(bufs: &[IoSlice<'_>], space: &'a mut [u8; GATHERED]) -> Option<&'a [u8]> {
    let mut end = 0;
    for buf in bufs {
        space.get_mut(end..end + buf.len())?.copy_from_slice(buf);
        end += buf.len();
    }
    Some(&space[..end])
}
