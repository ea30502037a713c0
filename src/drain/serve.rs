//! Serving connections with a function.

use super::accept::{Accepted, Acceptor};
use super::core::Work;
use super::guard::{DrainSignal, since};
use super::handle::Drain;
use super::limit::Limit;
use super::listening::Listening;
use super::peer::Peer;
use super::stream::Stream;
use crate::error::{Error, Kind, Result};
use crate::metrics::{Counted, Protocol};
use crate::sys::peer::peer_credentials;
use crate::systemd::activation::PassedConnection;
use std::any::Any;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::AsFd as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// An accepted connection, for its handler.
///
/// It is counted until the handler returns. Take it apart: the fields are used side by side.
#[derive(Debug)]
#[non_exhaustive]
pub struct Connection<S = Stream> {
    /// The socket.
    pub stream: S,
    /// Who is at the other end.
    pub peer: Peer,
    /// Resolves when the drain begins: time to come to an end, to say goodbye.
    pub drain: DrainSignal,
}

/// Settings for the connections of one name; the defaults are right for most.
#[derive(Debug, Clone)]
pub struct StreamOptions {
    max_connections: Option<usize>,
    limit: Option<Limit>,
    nodelay: bool,
    keepalive: Option<Duration>,
}

impl StreamOptions {
    /// Returns the defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Limits how many connections are open at a time, over all sockets of the name. More are not
    /// refused: they wait in the backlog until others have gone. The number counts in one
    /// generation, so while an old one drains there may be more in all. By default there is no
    /// limit but `LimitNOFILE=`.
    #[must_use]
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.max_connections = Some(connections);
        self
    }

    /// Shares a limit with others, instead of [`max_connections`](Self::max_connections).
    #[must_use]
    pub fn limit(mut self, limit: &Limit) -> Self {
        self.limit = Some(limit.clone());
        self
    }

    /// Sets [`Acceptor::nodelay`]. The default is true.
    #[must_use]
    pub fn nodelay(mut self, nodelay: bool) -> Self {
        self.nodelay = nodelay;
        self
    }

    /// Sets [`Acceptor::keepalive`]. By default none is set.
    #[must_use]
    pub fn keepalive(mut self, time: Duration) -> Self {
        self.keepalive = Some(time);
        self
    }
}

impl Default for StreamOptions {
    fn default() -> Self {
        Self { max_connections: None, limit: None, nodelay: true, keepalive: None }
    }
}

/// Serves each connection of these listeners with a function, in a task of its own: what
/// [`Service::serve_stream`](crate::Service::serve_stream) does, where activation and notify are
/// your own.
///
/// The gate of the drain decides when it accepts. A connection is counted until its handler
/// returns. The handler is dropped, wherever it waits, when the hammer falls; what was cut is in
/// [`Drain::hammer`]'s list. A handler that panics ends its own connection, and is logged (not
/// where the program was built with `panic = "abort"`). What it returns as an error is logged at
/// the debug level.
///
/// ```no_run
/// # async fn example(listeners: Vec<handover::systemd::activation::Listener>) -> handover::Result<()> {
/// use handover::drain::{Connection, Drain, StreamOptions};
/// use std::time::Duration;
/// use tokio::io::AsyncWriteExt;
///
/// let drain = Drain::new();
/// handover::drain::serve_stream(&drain, "time", listeners, StreamOptions::new(), |connection| async move {
///     let Connection { mut stream, mut drain, .. } = connection;
///     loop {
///         tokio::select! {
///             () = &mut drain => return stream.write_all(b"goodbye\n").await,
///             () = tokio::time::sleep(Duration::from_secs(1)) => stream.write_all(b"tick\n").await?,
///         }
///     }
/// })?;
/// drain.accept(true);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// Outside of a tokio runtime, and with a setting that cannot work.
pub fn serve_stream<L, H, F>(
    drain: &Drain,
    name: &str,
    listeners: Vec<L>,
    options: StreamOptions,
    handler: H,
) -> Result<()>
where
    L: Listening,
    H: Fn(Connection<L::Stream>) -> F + Send + Sync + 'static,
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    serve_admitted(drain, name, listeners, options, |_, _| true, handler)
}

/// Does what [`serve_stream`] does with the connections that `admit` returns true for. Others are
/// closed when it returns, and are never counted.
pub(crate) fn serve_admitted<L, A, H, F>(
    drain: &Drain,
    name: &str,
    listeners: Vec<L>,
    options: StreamOptions,
    admit: A,
    handler: H,
) -> Result<()>
where
    L: Listening,
    A: Fn(&L::Stream, &Peer) -> bool + Send + Sync + 'static,
    H: Fn(Connection<L::Stream>) -> F + Send + Sync + 'static,
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    if options.max_connections == Some(0) {
        return Err(Error::new(Kind::Invalid, "max_connections must be above 0: no client would ever be served"));
    }
    let runtime = runtime(name)?;
    let limit = options.limit.or_else(|| options.max_connections.map(Limit::new));
    let acceptor = |listener| {
        let acceptor = Acceptor::new(drain, name, listener).nodelay(options.nodelay).keepalive(options.keepalive);
        match &limit {
            Some(limit) => acceptor.limit(limit),
            None => acceptor,
        }
    };
    let acceptors: Vec<Acceptor<L>> = listeners.into_iter().map(acceptor).collect();
    let (admit, handler) = (Arc::new(admit), Arc::new(handler));
    for mut acceptor in acceptors {
        let (drain, admit, handler) = (drain.clone(), Arc::clone(&admit), Arc::clone(&handler));
        runtime.spawn(async move {
            while let Some(Accepted { stream, peer, entering }) = acceptor.accept().await {
                if !admit(&stream, &peer) {
                    continue;
                }
                let job = Handled::new(Arc::clone(acceptor.name()), peer).counted(&drain);
                let guard = entering.track(Arc::new(job));
                let connection = Connection { stream, peer, drain: drain.signal() };
                let (handler, name) = (Arc::clone(&handler), Arc::clone(acceptor.name()));
                tokio::spawn(async move {
                    tokio::select! {
                        biased;
                        () = guard.cut() => {}
                        ended = contained(async move { handler(connection).await }) => log(&name, &peer, ended),
                    }
                });
            }
        });
    }
    Ok(())
}

/// Serves the one connection of a process that `Accept=yes` started. Whoever waits for the handle
/// knows when it is over.
pub(crate) fn serve_passed<H, F>(
    drain: &Drain,
    name: &str,
    passed: PassedConnection,
    handler: H,
) -> Result<JoinHandle<()>>
where
    H: FnOnce(Connection) -> F + Send + 'static,
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let runtime = runtime(name)?;
    let unusable = |e| Error::os(format!("the connection {name:?} cannot be used"), e);
    let (stream, peer) = match passed {
        PassedConnection::Tcp(stream) => {
            stream.set_nonblocking(true).map_err(unusable)?;
            let peer = Peer::Tcp(stream.peer_addr().map_err(unusable)?);
            (Stream::Tcp(TcpStream::from_std(stream).map_err(unusable)?), peer)
        }
        PassedConnection::Unix(stream) => {
            stream.set_nonblocking(true).map_err(unusable)?;
            let peer = Peer::unix(peer_credentials(stream.as_fd()).ok());
            (Stream::Unix(UnixStream::from_std(stream).map_err(unusable)?), peer)
        }
        PassedConnection::Seqpacket(_) => {
            let why = format!("the connection {name:?} is one of packets, not a stream: take it with Service::fds");
            return Err(Error::new(Kind::Socket, why));
        }
    };
    let name: Arc<str> = name.into();
    let guard = drain.track(Arc::new(Handled::new(Arc::clone(&name), peer).counted(drain)));
    let connection = Connection { stream, peer, drain: drain.signal() };
    Ok(runtime.spawn(async move {
        tokio::select! {
            biased;
            () = guard.cut() => {}
            ended = contained(async move { handler(connection).await }) => log(&name, &peer, ended),
        }
    }))
}

pub(crate) fn runtime(name: &str) -> Result<tokio::runtime::Handle> {
    tokio::runtime::Handle::try_current().map_err(|_| {
        Error::new(Kind::State, format!("cannot serve {name:?} outside of a tokio runtime: call it within one"))
    })
}

/// What a handler works on, for the hammer's list.
pub(crate) struct Handled<P> {
    listener: Arc<str>,
    peer: P,
    since: Instant,
    counted: Option<Counted>,
}

impl<P> Handled<P> {
    pub(crate) fn new(listener: Arc<str>, peer: P) -> Self {
        Self { listener, peer, since: Instant::now(), counted: None }
    }

    /// Has it counted as a connection.
    fn counted(mut self, drain: &Drain) -> Self {
        self.counted = Some(drain.metrics().connection(Arc::clone(&self.listener), Protocol::Stream));
        self
    }
}

impl<P: fmt::Display + Send + Sync> Work for Handled<P> {
    fn wake(&self) {}

    fn connection(&self) -> Option<&Counted> {
        self.counted.as_ref()
    }

    fn doing(&self) -> Option<String> {
        let name = self.listener.escape_debug();
        Some(format!("{name}: {}, open for {:?}", self.peer, since(self.since)))
    }

    fn kind(&self) -> (String, &'static str) {
        (self.listener.to_string(), if self.counted.is_some() { "stream" } else { "datagram" })
    }
}

/// Returns the future's outcome, or the text that it panicked with.
pub(crate) async fn contained<T>(future: impl Future<Output = T>) -> std::result::Result<T, String> {
    let mut future = pin!(future);
    // After a panic it is not polled again, only dropped.
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(poll) => poll.map(Ok),
        Err(panic) => Poll::Ready(Err(text(&*panic))),
    })
    .await
}

fn text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no text".to_owned())
}

pub(crate) fn log(listener: &str, peer: &dyn fmt::Display, ended: std::result::Result<io::Result<()>, String>) {
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(listener, %peer, %error, "the handler ended with an error"),
        Err(panic) => tracing::error!(listener, %peer, "the handler panicked: {panic}"),
    }
}
