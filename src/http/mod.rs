//! HTTP by hyper, drained without losing a request.
//!
//! HTTP/1 and HTTP/2 (with prior knowledge) on one port, upgrades included. While a
//! [`Drain`] lasts, a connection that is fresh, idle or has sent half a request head is not closed
//! but answered once more, with `Connection: close`; pipelined requests are all answered, and only
//! the last reply says `close`; HTTP/2 gets a GOAWAY and finishes its streams; an upgraded stream
//! counts until it is dropped. The chapter [`docs::http`](crate::docs::http) has more.
//!
//! Handlers find a [`ConnectInfo`] in the request's extensions.

mod active;
mod conn;
mod executor;
mod framed;
mod info;
mod observe;
mod scan;
mod task;
#[cfg(feature = "tls")]
mod tls;
mod transport;

pub use self::info::ConnectInfo;
#[cfg(feature = "tls")]
pub use self::tls::{serve_hyper_tls, serve_tls};
pub use crate::drain::Peer;

use self::conn::Conn;
use self::framed::Framed;
use crate::drain::{Accepted, Acceptor, Drain, Limit};
use crate::error::{Error, Kind, Result};
use crate::service::Service;
use crate::systemd::activation::Listener;
use ::http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper_util::service::TowerToHyperService;
use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

type BoxError = Box<dyn StdError + Send + Sync>;

/// Settings of an HTTP server; the defaults are right for most.
#[derive(Debug, Clone, Copy)]
pub struct HttpOptions {
    header_read_timeout: Duration,
    keep_alive_timeout: Duration,
    http2_max_concurrent_streams: u32,
    http2_keep_alive_interval: Option<Duration>,
    max_connections: Option<usize>,
    keep_alive: bool,
    tcp_nodelay: bool,
    connect_info: bool,
}

impl HttpOptions {
    /// 30 seconds.
    pub const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(30);
    /// 75 seconds.
    pub const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(75);
    /// 200 streams.
    pub const HTTP2_MAX_CONCURRENT_STREAMS: u32 = 200;
    /// 60 seconds.
    pub const HTTP2_KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(60);

    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How long a client may take for a request head, from its first byte, and from connecting to
    /// the end of its first head. Then the connection is closed, in a drain as otherwise.
    /// Default [30 s](Self::HEADER_READ_TIMEOUT).
    #[must_use]
    pub fn header_read_timeout(mut self, timeout: Duration) -> Self {
        self.header_read_timeout = timeout;
        self
    }

    /// A connection that has been idle this long is closed, after a last look for bytes received, before twice this time.
    /// HTTP/2 is told so by a GOAWAY, unless one of its streams was upgraded. Default [75 s](Self::KEEP_ALIVE_TIMEOUT).
    #[must_use]
    pub fn keep_alive_timeout(mut self, timeout: Duration) -> Self {
        self.keep_alive_timeout = timeout;
        self
    }

    /// Requests that one HTTP/2 connection may have in flight.
    /// Default [200](Self::HTTP2_MAX_CONCURRENT_STREAMS).
    #[must_use]
    pub fn http2_max_concurrent_streams(mut self, streams: u32) -> Self {
        self.http2_max_concurrent_streams = streams;
        self
    }

    /// How often an HTTP/2 client is asked whether it is still there; one that does not answer
    /// within 20 s is gone. `None`: never. Default [60 s](Self::HTTP2_KEEP_ALIVE_INTERVAL).
    #[must_use]
    pub fn http2_keep_alive_interval(mut self, interval: Option<Duration>) -> Self {
        self.http2_keep_alive_interval = interval;
        self
    }

    /// At most so many connections at a time, over all sockets of the name, idle ones included. More are not refused: they
    /// wait in the backlog until others have gone. It counts in one generation, so while an old one drains there may be
    /// more in all. Default: no limit but `LimitNOFILE=`.
    #[must_use]
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.max_connections = Some(connections);
        self
    }

    /// Whether an HTTP/1 connection serves more than one request. `false`: the first reply says `Connection: close`. HTTP/2
    /// is one connection for many requests by design, and unaffected. Default `true`.
    #[must_use]
    pub fn keep_alive(mut self, keep_alive: bool) -> Self {
        self.keep_alive = keep_alive;
        self
    }

    /// Whether TCP sends small writes at once (`TCP_NODELAY`), rather than wait for the client to acknowledge those before.
    /// `false` leaves it as the listener has it (`NoDelay=` in the .socket unit). Default `true`.
    #[must_use]
    pub fn tcp_nodelay(mut self, nodelay: bool) -> Self {
        self.tcp_nodelay = nodelay;
        self
    }

    /// Whether each request has a [`ConnectInfo`] in its extensions. Without it, a handler knows neither its peer nor the beginning of a drain, and a small
    /// HTTP/2 request takes some 3 % less of a processor. Default `true`.
    #[must_use]
    pub fn connect_info(mut self, connect_info: bool) -> Self {
        self.connect_info = connect_info;
        self
    }

    fn check(&self) -> Result<()> {
        if self.header_read_timeout.is_zero() || self.keep_alive_timeout.is_zero() {
            let message = "header_read_timeout and keep_alive_timeout must be above 0: no client could send a request";
            return Err(Error::new(Kind::Invalid, message));
        }
        if self.max_connections == Some(0) {
            return Err(Error::new(Kind::Invalid, "max_connections must be above 0: no client would ever be served"));
        }
        if self.http2_max_concurrent_streams == 0 {
            return Err(Error::new(Kind::Invalid, "http2_max_concurrent_streams must be above 0"));
        }
        if self.http2_keep_alive_interval.is_some_and(|interval| interval.is_zero()) {
            return Err(Error::new(Kind::Invalid, "http2_keep_alive_interval must be above 0; None turns it off"));
        }
        Ok(())
    }
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            header_read_timeout: Self::HEADER_READ_TIMEOUT,
            keep_alive_timeout: Self::KEEP_ALIVE_TIMEOUT,
            http2_max_concurrent_streams: Self::HTTP2_MAX_CONCURRENT_STREAMS,
            http2_keep_alive_interval: Some(Self::HTTP2_KEEP_ALIVE_INTERVAL),
            max_connections: None,
            keep_alive: true,
            tcp_nodelay: true,
            connect_info: true,
        }
    }
}

impl Service {
    /// Serves HTTP on all listeners of that name with any tower service, an axum `Router` included.
    ///
    /// Accepting starts when the service is ready. Connections are counted and drained.
    ///
    /// # Errors
    /// As [`listeners`](Self::listeners); and outside of a tokio runtime.
    pub fn serve_http<S, B>(&self, name: &str, service: S) -> Result<()>
    where
        S: tower_service::Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send + 'static,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        self.serve_http_with(name, service, HttpOptions::default())
    }

    /// [`serve_http`](Self::serve_http) with settings.
    ///
    /// # Errors
    /// As [`serve_http`](Self::serve_http); and a setting that cannot work.
    pub fn serve_http_with<S, B>(&self, name: &str, service: S, options: HttpOptions) -> Result<()>
    where
        S: tower_service::Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send + 'static,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        serve(self.drain(), name, self.listeners(name)?, service, options)
    }

    /// [`serve_http`](Self::serve_http) with hyper's own kind of service.
    ///
    /// # Errors
    /// As [`serve_http`](Self::serve_http).
    pub fn serve_hyper<S, B>(&self, name: &str, service: S) -> Result<()>
    where
        S: hyper::service::Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send + 'static,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        serve_hyper(self.drain(), name, self.listeners(name)?, service, HttpOptions::default())
    }
}

/// Serves HTTP on these listeners, with nothing but a [`Drain`]: for programs that do their own
/// activation and notification. `name` is for log lines.
///
/// Returns at once; accepting starts when the drain's gate [opens](Drain::accept).
///
/// ```
/// # async fn example() -> handover::Result<()> {
/// use axum::{Router, routing::get};
/// use handover::http::{self, HttpOptions};
/// use handover::{Drain, systemd::activation};
/// use std::time::Duration;
///
/// let drain = Drain::new();
/// let router = Router::new().route("/", get(|| async { "hello" }));
/// http::serve(&drain, "http", activation::bind("127.0.0.1:0")?, router, HttpOptions::new())?;
/// drain.accept(true);
/// // ... and in the end
/// drain.begin(Duration::from_secs(5));
/// if tokio::time::timeout(Duration::from_secs(30), drain.drained()).await.is_err() {
///     for cut in drain.hammer() {
///         eprintln!("cut: {cut}");
///     }
/// }
/// # Ok(())
/// # }
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(example()).unwrap();
/// ```
///
/// # Errors
/// Outside of a tokio runtime, and a setting that cannot work.
pub fn serve<S, B>(drain: &Drain, name: &str, listeners: Vec<Listener>, service: S, options: HttpOptions) -> Result<()>
where
    S: tower_service::Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    serve_hyper(drain, name, listeners, TowerToHyperService::new(service), options)
}

/// [`serve`] with hyper's own kind of service.
///
/// # Errors
/// As [`serve`].
pub fn serve_hyper<S, B>(
    drain: &Drain,
    name: &str,
    listeners: Vec<Listener>,
    service: S,
    options: HttpOptions,
) -> Result<()>
where
    S: hyper::service::Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let (runtime, acceptors) = prepare(drain, name, listeners, &options)?;
    let drain = drain.clone();
    accept(&runtime, acceptors, move |Accepted { stream, peer, entering }, name| {
        let conn = Arc::new(Conn::new(drain.clone(), name, peer, options.keep_alive));
        let guard = entering.track(Arc::clone(&conn) as _);
        let framed = Framed::new(stream, Arc::clone(&conn), guard);
        task::connection(framed, conn, service.clone(), options)
    });
    Ok(())
}

/// Each connection in a task of its own.
fn accept<F>(
    runtime: &tokio::runtime::Handle,
    acceptors: Vec<Acceptor>,
    serve: impl Fn(Accepted, Arc<str>) -> F + Clone + Send + 'static,
) where
    F: Future<Output = ()> + Send + 'static,
{
    for mut acceptor in acceptors {
        let serve = serve.clone();
        runtime.spawn(async move {
            while let Some(accepted) = acceptor.accept().await {
                tokio::spawn(serve(accepted, Arc::clone(acceptor.name())));
            }
        });
    }
}

fn prepare(
    drain: &Drain,
    name: &str,
    listeners: Vec<Listener>,
    options: &HttpOptions,
) -> Result<(tokio::runtime::Handle, Vec<Acceptor>)> {
    options.check()?;
    let runtime = tokio::runtime::Handle::try_current().map_err(|_| {
        Error::new(Kind::State, format!("cannot serve {name:?} outside of a tokio runtime: call it within one"))
    })?;
    let limit = options.max_connections.map(Limit::new);
    let acceptor = |listener| {
        let acceptor = Acceptor::new(drain, name, listener).nodelay(options.tcp_nodelay);
        if let Some(limit) = &limit { acceptor.limit(limit) } else { acceptor }
    };
    Ok((runtime, listeners.into_iter().map(acceptor).collect()))
}
