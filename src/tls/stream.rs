//! A TLS stream that knows what it has received and not yet shown.

use std::fmt;
use std::io::{self, IoSlice};
#[cfg(feature = "http")]
use std::mem;
#[cfg(feature = "http")]
use std::os::fd::OwnedFd;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server;

use super::info::TlsInfo;
#[cfg(feature = "http")]
use super::record::{Captured, Fields, Layer, RecordStream};
use super::records::Records;
#[cfg(feature = "http")]
use crate::drain::Stream;
#[cfg(feature = "http")]
use crate::sys::look::{Look, look};
#[cfg(feature = "http")]
use crate::sys::secret::Secret;

/// A connection after its handshake. Shutting it down sends TLS's own end (close_notify); dropping
/// it does not.
pub struct TlsStream {
    inner: Inner,
    info: TlsInfo,
    /// What it goes on with elsewhere, if it can.
    #[cfg(feature = "http")]
    captured: Option<Captured>,
}

#[cfg_attr(feature = "http", expect(clippy::large_enum_variant, reason = "most are the large one"))]
enum Inner {
    /// Its handshake was here.
    Rustls(server::TlsStream<Records>),
    /// Its handshake was in another process.
    #[cfg(feature = "http")]
    Moved(RecordStream),
    /// It could not be taken out of rustls.
    #[cfg(feature = "http")]
    Lost(OwnedFd),
}

/// Calls the same of whatever it is.
macro_rules! each {
    ($self:ident, $stream:ident => $call:expr, $lost:expr) => {
        match &mut $self.inner {
            Inner::Rustls($stream) => $call,
            #[cfg(feature = "http")]
            Inner::Moved($stream) => $call,
            #[cfg(feature = "http")]
            Inner::Lost(_) => $lost,
        }
    };
}

impl TlsStream {
    pub(super) fn new(inner: server::TlsStream<Records>) -> Self {
        let info = TlsInfo::of(inner.get_ref().1);
        Self {
            inner: Inner::Rustls(inner),
            info,
            #[cfg(feature = "http")]
            captured: None,
        }
    }

    /// Returns what was agreed on in the handshake.
    #[must_use]
    pub fn info(&self) -> &TlsInfo {
        &self.info
    }
}

/// The way to another process, and what is needed until then.
#[cfg(feature = "http")]
impl TlsStream {
    /// Notes what it can go on with elsewhere.
    pub(super) fn with(mut self, capture: &super::record::KeyCapture) -> Self {
        if let Inner::Rustls(stream) = &self.inner {
            self.captured = capture.captured(stream.get_ref().1);
        }
        self
    }

    /// Returns whether it can go to another process.
    pub(crate) fn can_move(&self) -> bool {
        match &self.inner {
            Inner::Rustls(_) => self.captured.is_some(),
            Inner::Moved(_) => true,
            Inner::Lost(_) => false,
        }
    }

    /// Goes on with one that [left](Self::leave) another process.
    ///
    /// # Errors
    /// Its state is damaged, or there is no memory for its keys.
    pub(super) fn moved(stream: Stream, state: &[u8]) -> io::Result<Self> {
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "the state of TLS is damaged");
        let fields = Fields::read(state).ok_or_else(damaged)?;
        let layer = Layer::unpack(&fields)?;
        let info = TlsInfo::unpack(&fields, layer.version()).ok_or_else(damaged)?;
        Ok(Self { inner: Inner::Moved(RecordStream::new(stream, layer)), info, captured: None })
    }

    /// Returns what another process goes on with. It need not: this one can go on as well, but not
    /// both.
    ///
    /// # Errors
    /// It cannot move, or was lost.
    pub(crate) fn leave(&mut self) -> io::Result<Secret> {
        self.leave_rustls()?;
        let Inner::Moved(moved) = &self.inner else { return Err(io::ErrorKind::NotConnected.into()) };
        let mut fields = Fields::default();
        self.info.pack(&mut fields);
        moved.layer().pack(&mut fields);
        Ok(fields.into_bytes())
    }

    fn leave_rustls(&mut self) -> io::Result<()> {
        let Inner::Rustls(stream) = &self.inner else { return Ok(()) };
        let captured = self.captured.take().ok_or(io::ErrorKind::Unsupported)?;
        let lost = Inner::Lost(stream.get_ref().0.as_fd().try_clone_to_owned()?);
        let Inner::Rustls(stream) = mem::replace(&mut self.inner, lost) else { return Ok(()) };
        let (records, session) = stream.into_inner();
        let (stream, sealed, recent) = records.into_parts();
        let layer = Layer::of(session, &captured, sealed, &recent)?;
        self.inner = Inner::Moved(RecordStream::new(stream, layer));
        Ok(())
    }

    /// Returns whether a part of a record has been received, and not all of it: the client is
    /// sending.
    pub(crate) fn is_partial(&self) -> bool {
        match &self.inner {
            Inner::Rustls(stream) => stream.get_ref().0.is_partial(),
            Inner::Moved(stream) => stream.layer().is_partial(),
            Inner::Lost(_) => false,
        }
    }

    /// Returns what was received, by the kernel or by us, and not yet read from here.
    pub(crate) fn look(&mut self) -> Look {
        let received = match &mut self.inner {
            Inner::Rustls(stream) => {
                let (records, session) = stream.get_mut();
                let state = session.process_new_packets();
                records.is_partial() || state.is_ok_and(|state| state.plaintext_bytes_to_read() > 0)
            }
            Inner::Moved(stream) => stream.layer().has_received(),
            Inner::Lost(_) => return Look::End,
        };
        if received { Look::Bytes } else { look(self.as_fd()) }
    }

    /// Sends TLS's end, if the socket takes it now: for a connection that is dropped.
    pub(crate) fn last_word(&mut self) {
        match &mut self.inner {
            Inner::Rustls(stream) => {
                let (records, session) = stream.get_mut();
                session.send_close_notify();
                let mut now = Now(records.stream());
                while session.wants_write() && session.write_tls(&mut now).is_ok_and(|written| written > 0) {}
            }
            Inner::Moved(stream) => stream.last_word(),
            Inner::Lost(_) => {}
        }
    }
}

impl AsFd for TlsStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.inner {
            Inner::Rustls(stream) => stream.get_ref().0.as_fd(),
            #[cfg(feature = "http")]
            Inner::Moved(stream) => stream.as_fd(),
            #[cfg(feature = "http")]
            Inner::Lost(stream) => stream.as_fd(),
        }
    }
}

/// Of one that was lost.
#[cfg(feature = "http")]
fn lost<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
}

impl AsyncRead for TlsStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_read(cx, buf), lost())
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write(cx, buf), lost())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write_vectored(cx, bufs), lost())
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_flush(cx), lost())
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_shutdown(cx), lost())
    }
}

impl fmt::Debug for TlsStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsStream").field("info", &self.info).finish_non_exhaustive()
    }
}

/// Writes what the socket takes without waiting.
#[cfg(feature = "http")]
struct Now<'a>(&'a Stream);

#[cfg(feature = "http")]
impl io::Write for Now<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
