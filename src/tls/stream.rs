//! A TLS stream that knows what it has received and not yet shown.

use std::fmt;
use std::io::{self, IoSlice, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::{HandshakeKind, ProtocolVersion, ServerConnection};
use tokio_rustls::server;

use crate::drain::Stream;

/// A connection after its handshake. Shutting it down sends TLS's own end (close_notify); dropping
/// it does not.
pub struct TlsStream {
    inner: server::TlsStream<Records>,
    info: TlsInfo,
}

impl TlsStream {
    pub(super) fn new(inner: server::TlsStream<Records>) -> Self {
        let info = TlsInfo::of(inner.get_ref().1);
        Self { inner, info }
    }

    /// Returns what was agreed on in the handshake.
    #[must_use]
    pub fn info(&self) -> &TlsInfo {
        &self.info
    }

    /// Returns whether a part of a record has been received, and not all of it: the client is
    /// sending.
    #[cfg(feature = "http")]
    pub(crate) fn is_partial(&self) -> bool {
        self.inner.get_ref().0.is_partial()
    }

    /// Returns what was received, by the kernel or by us, and not yet read from here.
    #[cfg(feature = "http")]
    pub(crate) fn look(&mut self) -> crate::sys::look::Look {
        use crate::sys::look::{Look, look};
        let (records, session) = self.inner.get_mut();
        let unread = session.process_new_packets().is_ok_and(|state| state.plaintext_bytes_to_read() > 0);
        if unread || records.is_partial() { Look::Bytes } else { look(records.as_fd()) }
    }

    /// Sends TLS's end, if the socket takes it now: for a connection that is dropped.
    #[cfg(feature = "http")]
    pub(crate) fn last_word(&mut self) {
        let (records, session) = self.inner.get_mut();
        session.send_close_notify();
        while session.wants_write() && session.write_tls(&mut Now(&records.stream)).is_ok_and(|written| written > 0) {}
    }
}

/// What was agreed on in the handshake. HTTP handlers find it in the request's `ConnectionInfo`.
/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct TlsInfo {
    agreed: Arc<Agreed>,
}

#[derive(Debug)]
struct Agreed {
    server_name: Option<String>,
    protocol: Option<Vec<u8>>,
    version: Option<ProtocolVersion>,
    resumed: bool,
    certificates: Vec<CertificateDer<'static>>,
}

impl TlsInfo {
    fn of(session: &ServerConnection) -> Self {
        let agreed = Agreed {
            server_name: session.server_name().map(str::to_owned),
            protocol: session.alpn_protocol().map(<[u8]>::to_vec),
            version: session.protocol_version(),
            resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
            certificates: session.peer_certificates().map(<[_]>::to_vec).unwrap_or_default(),
        };
        Self { agreed: Arc::new(agreed) }
    }

    /// Returns the name that the client asked for (SNI).
    #[must_use]
    pub fn server_name(&self) -> Option<&str> {
        self.agreed.server_name.as_deref()
    }

    /// Returns the application protocol that was chosen (ALPN), for example `h2`.
    #[must_use]
    pub fn protocol(&self) -> Option<&[u8]> {
        self.agreed.protocol.as_deref()
    }

    /// Returns whether it is TLS 1.2 or 1.3.
    #[must_use]
    pub fn version(&self) -> Option<ProtocolVersion> {
        self.agreed.version
    }

    /// Returns whether the client came back with a session ticket.
    #[must_use]
    pub fn is_resumed(&self) -> bool {
        self.agreed.resumed
    }

    /// Returns the client's certificate and its chain, if [one was asked
    /// for](super::TlsOptions::client_verifier).
    #[must_use]
    pub fn client_certificates(&self) -> &[CertificateDer<'static>] {
        &self.agreed.certificates
    }
}

impl AsFd for TlsStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.get_ref().0.as_fd()
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl fmt::Debug for TlsStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsStream").field("info", &self.info).finish_non_exhaustive()
    }
}

/// The socket below TLS. It follows the records, because rustls does not say whether it has part of
/// one: that is a request on its way, as half a head is.
#[derive(Debug)]
pub(super) struct Records {
    stream: Stream,
    at: At,
}

#[derive(Debug, Default)]
struct At {
    /// Bytes of a record's header that are here; above 0 and below [`HEADER`]: in the middle of
    /// one.
    header: usize,
    length: [u8; 2],
    /// How much of its body is still to come.
    body: usize,
}

/// The length of a record's header: type, version, length.
const HEADER: usize = 5;

impl Records {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, at: At::default() }
    }

    pub(super) fn into_stream(self) -> Stream {
        self.stream
    }

    #[cfg(any(feature = "http", test))]
    fn is_partial(&self) -> bool {
        self.at.is_partial()
    }
}

impl At {
    #[cfg(any(feature = "http", test))]
    fn is_partial(&self) -> bool {
        self.header > 0 || self.body > 0
    }

    fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let skipped = self.body.min(bytes.len());
            self.body -= skipped;
            bytes = &bytes[skipped..];
            while self.body == 0
                && let Some((byte, rest)) = bytes.split_first()
            {
                if let Some(at) = self.header.checked_sub(3) {
                    self.length[at] = *byte;
                }
                self.header += 1;
                bytes = rest;
                if self.header == HEADER {
                    self.header = 0;
                    self.body = usize::from(u16::from_be_bytes(self.length));
                }
            }
        }
    }
}

impl AsFd for Records {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl AsyncRead for Records {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        self.at.feed(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Records {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Writes what the socket takes without waiting.
#[cfg_attr(not(feature = "http"), expect(dead_code, reason = "only HTTP says a last word"))]
struct Now<'a>(&'a Stream);

impl Write for Now<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0 {
            Stream::Tcp(stream) => stream.try_write(bytes),
            Stream::Unix(stream) => stream.try_write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_followed_at_any_split() {
        let records =
            [&b"\x17\x03\x03\x00\x03abc"[..], b"\x17\x03\x03\x01\x02", &[7; 258], b"\x15\x03\x03\x00\x00"].concat();
        let ends = [8, 8 + 5 + 258, 8 + 5 + 258 + 5];
        for first in 0..=records.len() {
            for second in [first, (first + 1).min(records.len()), (first + 7).min(records.len()), records.len()] {
                let mut at = At::default();
                at.feed(&records[..first]);
                assert_eq!(at.is_partial(), first != 0 && !ends.contains(&first), "after {first}");
                at.feed(&records[first..second]);
                assert_eq!(at.is_partial(), second != 0 && !ends.contains(&second), "after {first} and {second}");
            }
        }
    }
}
