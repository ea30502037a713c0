//! Serving connections that are not HTTP.

use std::future::Future;
use std::io;

use tracing::info;

use crate::drain::{Connection, Seqpacket, StreamOptions, serve_passed, serve_stream};
use crate::error::Result;
use crate::service::api::Service;
use crate::systemd::activation::SeqpacketListener;

impl Service {
    /// Serves each connection to the TCP and Unix stream sockets of that name with a function, in a
    /// task of its own.
    ///
    /// Accepting starts when the service is ready. A connection is counted from before it is
    /// accepted until its handler returns; a handler that waits long listens to the
    /// [`drain`](Connection::drain) signal, so that it can come to an end. Whatever is left when
    /// the drain timeout is over is dropped, and named in the log. See [`serve_stream`].
    ///
    /// ```no_run
    /// # fn example(service: &handover::Service) -> handover::Result<()> {
    /// use tokio::io::{copy, split};
    ///
    /// service.serve_stream("echo", |connection| async move {
    ///     let (mut from, mut to) = split(connection.stream);
    ///     copy(&mut from, &mut to).await?;
    ///     Ok(())
    /// })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`listeners`](Self::listeners); and outside of a tokio runtime.
    pub fn serve_stream<H, F>(&self, name: &str, handler: H) -> Result<()>
    where
        H: Fn(Connection) -> F + Send + Sync + 'static,
        F: Future<Output = io::Result<()>> + Send + 'static,
    {
        self.serve_stream_with(name, StreamOptions::default(), handler)
    }

    /// Serves connections as [`serve_stream`](Self::serve_stream) does, with settings.
    ///
    /// # Errors
    /// As [`serve_stream`](Self::serve_stream); and a setting that cannot work.
    pub fn serve_stream_with<H, F>(&self, name: &str, options: StreamOptions, handler: H) -> Result<()>
    where
        H: Fn(Connection) -> F + Send + Sync + 'static,
        F: Future<Output = io::Result<()>> + Send + 'static,
    {
        serve_stream(self.drain(), name, self.listeners(name)?, options, handler)
    }

    /// Serves connections as [`serve_stream`](Self::serve_stream) does, of Unix sockets that keep
    /// packets apart (`ListenSequentialPacket=`,
    /// [`Builder::listen_seqpacket`](crate::Builder::listen_seqpacket)).
    ///
    /// ```no_run
    /// # fn example(service: &handover::Service) -> handover::Result<()> {
    /// service.serve_seqpacket("control", |connection| async move {
    ///     let mut buffer = vec![0; 4096];
    ///     loop {
    ///         match connection.stream.recv(&mut buffer).await? {
    ///             0 => return Ok(()),
    ///             n => connection.stream.send(&buffer[..n]).await?,
    ///         }
    ///     }
    /// })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`seqpacket_listeners`](Self::seqpacket_listeners); and outside of a tokio runtime.
    pub fn serve_seqpacket<H, F>(&self, name: &str, handler: H) -> Result<()>
    where
        H: Fn(Connection<Seqpacket>) -> F + Send + Sync + 'static,
        F: Future<Output = io::Result<()>> + Send + 'static,
    {
        self.serve_seqpacket_with(name, StreamOptions::default(), handler)
    }

    /// Serves connections as [`serve_seqpacket`](Self::serve_seqpacket) does, with settings.
    ///
    /// # Errors
    /// As [`serve_seqpacket`](Self::serve_seqpacket); and a setting that cannot work.
    pub fn serve_seqpacket_with<H, F>(&self, name: &str, options: StreamOptions, handler: H) -> Result<()>
    where
        H: Fn(Connection<Seqpacket>) -> F + Send + Sync + 'static,
        F: Future<Output = io::Result<()>> + Send + 'static,
    {
        serve_stream(self.drain(), name, self.seqpacket_listeners(name)?, options, handler)
    }

    /// Returns the listening seqpacket sockets of that name, as [`listeners`](Self::listeners) has
    /// those of streams. Accept from them with an [`Acceptor`](crate::drain::Acceptor).
    ///
    /// # Errors
    /// With [`Error::is_socket`](crate::Error::is_socket): nobody passed a socket of that name, it
    /// is of another kind, or the name was taken before.
    pub fn seqpacket_listeners(&self, name: &str) -> Result<Vec<SeqpacketListener>> {
        self.sockets().take_as(name)
    }

    /// Serves the one connection of a process that a .socket unit with `Accept=yes` started, in the
    /// way of inetd; when the handler returns, the service stops. systemd calls the connection
    /// `connection`, unless `FileDescriptorName=` says otherwise.
    ///
    /// Each connection has a process of its own, and an upgrade is for those that come after it: a
    /// reload does not apply, and a request for one is refused with that reason.
    ///
    /// ```no_run
    /// # async fn example() -> handover::Result<()> {
    /// use tokio::io::AsyncWriteExt;
    ///
    /// let service = handover::Service::builder().start()?;
    /// service.serve_connection("connection", |mut connection| async move {
    ///     connection.stream.write_all(b"hello\n").await
    /// })?;
    /// service.run().await
    /// # }
    /// ```
    ///
    /// # Errors
    /// With [`Error::is_socket`](crate::Error::is_socket): nobody passed a connection of that name,
    /// or it is of another kind. And outside of a tokio runtime.
    pub fn serve_connection<H, F>(&self, name: &str, handler: H) -> Result<()>
    where
        H: FnOnce(Connection) -> F + Send + 'static,
        F: Future<Output = io::Result<()>> + Send + 'static,
    {
        let connection = self.sockets().take_connection(name)?;
        let served = serve_passed(self.drain(), name, connection, handler)?;
        info!("this process serves the one connection {name:?} (Accept=yes): reloads do not apply to it");
        let handle = self.handle();
        tokio::spawn(async move {
            let _ = served.await;
            // Whoever stops it otherwise is welcome.
            let _ = handle.stop();
        });
        Ok(())
    }
}
