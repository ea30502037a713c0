//! Where clients connect to, and how.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;

#[derive(Debug, Clone)]
pub enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

#[derive(Clone)]
pub struct Tls {
    pub connector: TlsConnector,
    pub name: ServerName<'static>,
}

/// A server, as all clients of one load see it.
#[derive(Debug, Clone)]
pub struct Target {
    pub address: Address,
    /// For the `Host` header, or `:authority`.
    pub host: String,
    pub tls: Option<Tls>,
    pub http2: bool,
    /// The response header that names the generation.
    pub generation_header: Option<String>,
}

impl Target {
    /// HTTP/1 without TLS.
    pub fn tcp(address: SocketAddr) -> Arc<Self> {
        let (host, address) = (address.to_string(), Address::Tcp(address));
        Arc::new(Self { address, host, tls: None, http2: false, generation_header: None })
    }

    pub(super) async fn connect(&self) -> io::Result<Stream> {
        let stream = match &self.address {
            Address::Unix(path) => return UnixStream::connect(path).await.map(Stream::Unix),
            Address::Tcp(address) => TcpStream::connect(address).await?,
        };
        // Requests written in pieces are meant to arrive in pieces.
        stream.set_nodelay(true)?;
        match &self.tls {
            None => Ok(Stream::Tcp(stream)),
            Some(tls) => {
                let stream = tls.connector.connect(tls.name.clone(), stream).await?;
                if self.http2 && stream.get_ref().1.alpn_protocol() != Some(b"h2") {
                    return Err(io::Error::other("the server does not choose h2 by ALPN"));
                }
                Ok(Stream::Tls(Box::new(stream)))
            }
        }
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("name", &self.name).finish_non_exhaustive()
    }
}

#[derive(Debug)]
pub enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// Ends the connection, with all that was asked for answered, by a reset: it leaves no port
    /// behind in TIME_WAIT, of which a client that connects anew for each request would soon have
    /// none left.
    pub(super) fn end(self) {
        if let Self::Tcp(stream) = &self {
            // Where it fails, the port waits.
            let _ = stream.set_zero_linger();
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
            Self::Tls(stream) => stream.get_ref().0.as_fd(),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
