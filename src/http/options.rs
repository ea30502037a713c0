//! What can be set of an HTTP server.

use super::info::ConnectionInfo;
use crate::error::{Error, Kind, Result};
use http::Extensions;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Settings of an HTTP server; the defaults are right for most.
///
/// ```no_run
/// # fn example(service: &handover::Service, router: axum::Router) -> handover::Result<()> {
/// use handover::http::HttpOptions;
///
/// service.serve_http_with("http", HttpOptions::new().max_connections(10_000), router)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct HttpOptions {
    pub(super) header_read_timeout: Duration,
    pub(super) keep_alive_timeout: Duration,
    pub(super) body_read_timeout: Duration,
    pub(super) write_timeout: Duration,
    pub(super) http2_max_concurrent_streams: u32,
    pub(super) http2_keep_alive_interval: Option<Duration>,
    pub(super) max_connections: Option<usize>,
    pub(super) keep_alive: bool,
    pub(super) tcp_nodelay: bool,
    pub(super) connection_info: bool,
    pub(super) migrate: bool,
    pub(super) migrate_http2: bool,
    pub(super) http2_move_within: Duration,
    /// It is for who asks about the service: served in a pause, too, and none of its work.
    pub(super) aside: bool,
    on_connect: Vec<OnConnect>,
}

type OnConnectFn = dyn Fn(&ConnectionInfo, &mut Extensions) + Send + Sync;

/// A function of the application.
#[derive(Clone)]
struct OnConnect(Arc<OnConnectFn>);

impl fmt::Debug for OnConnect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnConnect")
    }
}

impl HttpOptions {
    /// The default of [`header_read_timeout`](Self::header_read_timeout).
    pub const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(30);
    /// The default of [`keep_alive_timeout`](Self::keep_alive_timeout).
    pub const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(75);
    /// The default of [`body_read_timeout`](Self::body_read_timeout).
    pub const BODY_READ_TIMEOUT: Duration = Duration::from_secs(60);
    /// The default of [`write_timeout`](Self::write_timeout).
    pub const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
    /// The default of [`http2_max_concurrent_streams`](Self::http2_max_concurrent_streams).
    pub const HTTP2_MAX_CONCURRENT_STREAMS: u32 = 200;
    /// The default of [`http2_keep_alive_interval`](Self::http2_keep_alive_interval).
    pub const HTTP2_KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(60);

    /// The default of [`http2_move_within`](Self::http2_move_within).
    pub const HTTP2_MOVE_WITHIN: Duration = Duration::from_millis(500);

    /// Returns the defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Serves who asks about the service: in a pause, too, and as none of its work.
    #[cfg(feature = "admin")]
    pub(crate) fn aside(mut self) -> Self {
        self.aside = true;
        self
    }

    /// Sets how long a client may take for a request head, from its first byte, and from connecting
    /// to the end of its first head. Then the connection is closed, in a drain as otherwise. The
    /// default is [30 s](Self::HEADER_READ_TIMEOUT).
    #[must_use]
    pub fn header_read_timeout(mut self, timeout: Duration) -> Self {
        self.header_read_timeout = timeout;
        self
    }

    /// Sets how long a connection may be idle, since its last reply. It is closed after a last look
    /// for bytes received. HTTP/2 is told so by a GOAWAY, before twice this time, unless one of its
    /// streams was upgraded. The default is [75 s](Self::KEEP_ALIVE_TIMEOUT).
    #[must_use]
    pub fn keep_alive_timeout(mut self, timeout: Duration) -> Self {
        self.keep_alive_timeout = timeout;
        self
    }

    /// Sets how long an HTTP/1 client may send nothing of the body of its request, while it could
    /// and nothing is answered yet. Each byte begins the time anew, so a long upload has no limit.
    /// Then the connection is closed, in a drain as otherwise. [`Duration::MAX`] is for ever. The
    /// default is [60 s](Self::BODY_READ_TIMEOUT).
    ///
    /// HTTP/2 has no such limit: its streams may be conversations, as those of gRPC are, and a
    /// handler that waits for its client sets a limit itself.
    #[must_use]
    pub fn body_read_timeout(mut self, timeout: Duration) -> Self {
        self.body_read_timeout = timeout;
        self
    }

    /// Sets how long a client may take nothing of a reply that is ready for it. Whatever it takes
    /// begins the time anew, so a long download has no limit, and a handler may be silent for as
    /// long as it likes. Then the connection is closed, in a drain as otherwise; one of HTTP/2 when
    /// all of its requests wait for the client. [`Duration::MAX`] is for ever. The default is [60
    /// s](Self::WRITE_TIMEOUT).
    #[must_use]
    pub fn write_timeout(mut self, timeout: Duration) -> Self {
        self.write_timeout = timeout;
        self
    }

    /// Limits how many requests one HTTP/2 connection may have in flight.
    /// The default is [200](Self::HTTP2_MAX_CONCURRENT_STREAMS).
    #[must_use]
    pub fn http2_max_concurrent_streams(mut self, streams: u32) -> Self {
        self.http2_max_concurrent_streams = streams;
        self
    }

    /// Sets how often an HTTP/2 client is asked whether it is still there; one that does not answer
    /// within 20 s is gone. With `None` it is never asked. The default is [60
    /// s](Self::HTTP2_KEEP_ALIVE_INTERVAL).
    #[must_use]
    pub fn http2_keep_alive_interval(mut self, interval: Option<Duration>) -> Self {
        self.http2_keep_alive_interval = interval;
        self
    }

    /// Limits how many connections are open at a time, over all sockets of the name, idle ones
    /// included. More are not refused: they wait in the backlog until others have gone. The number
    /// counts in one generation, so while an old one drains there may be more in all. By default
    /// there is no limit but `LimitNOFILE=`.
    #[must_use]
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.max_connections = Some(connections);
        self
    }

    /// Sets whether an HTTP/1 connection serves more than one request. With `false` the first reply
    /// says `Connection: close`. HTTP/2 is one connection for many requests by design, and
    /// unaffected. The default is `true`.
    #[must_use]
    pub fn keep_alive(mut self, keep_alive: bool) -> Self {
        self.keep_alive = keep_alive;
        self
    }

    /// Sets whether TCP sends small writes at once (`TCP_NODELAY`), rather than wait for the client
    /// to acknowledge those before. `false` leaves it as the listener has it (`NoDelay=` in the
    /// .socket unit). The default is `true`.
    #[must_use]
    pub fn tcp_nodelay(mut self, nodelay: bool) -> Self {
        self.tcp_nodelay = nodelay;
        self
    }

    /// Sets whether each request has a [`ConnectionInfo`](super::ConnectionInfo) in its extensions.
    /// Without it, a handler knows neither its peer nor the beginning of a drain, and a small
    /// HTTP/2 request takes some 3 % less of a processor. The default is `true`.
    #[must_use]
    pub fn connection_info(mut self, connection_info: bool) -> Self {
        self.connection_info = connection_info;
        self
    }

    /// Sets whether connections go to the next generation in a reload. With `false` they drain: an
    /// idle one is answered once more, and closed. So do all where the
    /// [setting](crate::service::settings::Migrate) says never. The default is `true`.
    #[must_use]
    pub fn migrate(mut self, migrate: bool) -> Self {
        self.migrate = migrate;
        self
    }

    /// Sets whether those of HTTP/2 are among the connections that go to the next generation. With
    /// `false` they drain: they get a GOAWAY, and finish their streams. The default is `true`.
    #[must_use]
    pub fn migrate_http2(mut self, migrate: bool) -> Self {
        self.migrate_http2 = migrate;
        self
    }

    /// Limits how long new streams of an HTTP/2 connection are held back in a reload while those in
    /// flight come to their end, counted anew whenever one of those ends, and four times as long in
    /// all; then it goes, and the next generation answers what was held. If they take longer, what
    /// was held is answered here. Where they end within four times as long, there is another turn,
    /// up to three of them; else the client gets a GOAWAY. With zero only those go that have no
    /// stream in flight when it is their turn. The default is [500 ms](Self::HTTP2_MOVE_WITHIN).
    #[must_use]
    pub fn http2_move_within(mut self, time: Duration) -> Self {
        self.http2_move_within = time;
        self
    }

    /// Puts the address of a TCP client into the extensions of each of its requests, as what this
    /// function makes of it. By default it is only in the [`ConnectionInfo`].
    ///
    /// So axum's own extractor works:
    ///
    /// ```no_run
    /// use axum::{Router, extract::ConnectInfo, routing::get};
    /// use handover::http::HttpOptions;
    /// use std::net::SocketAddr;
    ///
    /// async fn whoami(ConnectInfo(client): ConnectInfo<SocketAddr>) -> String {
    ///     format!("{client}\n")
    /// }
    /// # fn example(service: &handover::Service) -> handover::Result<()> {
    /// let router = Router::new().route("/whoami", get(whoami));
    /// service.serve_http_with("http", HttpOptions::new().with_address(ConnectInfo), router)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// A client of a Unix socket has no address, and its requests get nothing: for them there is
    /// [`on_connect`](Self::on_connect).
    #[must_use]
    pub fn with_address<T: Clone + Send + Sync + 'static>(
        self,
        wrap: impl Fn(SocketAddr) -> T + Send + Sync + 'static,
    ) -> Self {
        self.on_connect(move |info, extensions| {
            if let Some(address) = info.peer().address() {
                extensions.insert(wrap(address));
            }
        })
    }

    /// Gives all requests of a connection what this function puts into the extensions. It is called
    /// once for each connection, after the TLS handshake and before the first request; each request
    /// gets a clone. There may be several, which are called in the order that they were given. By
    /// default there is nothing but the [`ConnectionInfo`].
    ///
    /// ```
    /// use axum::extract::ConnectInfo;
    /// use handover::{drain::Peer, http::HttpOptions};
    ///
    /// // For handlers that take a `ConnectInfo<Peer>`: clients of TCP and of Unix sockets alike.
    /// let options = HttpOptions::new().on_connect(|info, extensions| {
    ///     extensions.insert(ConnectInfo(info.peer()));
    /// });
    /// # drop(options);
    /// ```
    #[must_use]
    pub fn on_connect(mut self, extend: impl Fn(&ConnectionInfo, &mut Extensions) + Send + Sync + 'static) -> Self {
        self.on_connect.push(OnConnect(Arc::new(extend)));
        self
    }

    /// Returns what each request of a connection gets.
    pub(super) fn extensions(&self, info: impl FnOnce() -> ConnectionInfo) -> Extensions {
        let mut extensions = Extensions::new();
        if !self.connection_info && self.on_connect.is_empty() {
            return extensions;
        }
        let info = info();
        for OnConnect(extend) in &self.on_connect {
            extend(&info, &mut extensions);
        }
        if self.connection_info {
            extensions.insert(info);
        }
        extensions
    }

    /// Returns whether connections may go to the next generation, or why not.
    pub(super) fn may_move(&self) -> Result<(), &'static str> {
        if self.migrate { Ok(()) } else { Err("off") }
    }

    pub(super) fn check(&self) -> Result<()> {
        if self.header_read_timeout.is_zero() || self.keep_alive_timeout.is_zero() {
            let message = "header_read_timeout and keep_alive_timeout must be above 0: no client could send a request";
            return Err(Error::new(Kind::Invalid, message));
        }
        if self.body_read_timeout.is_zero() || self.write_timeout.is_zero() {
            let message = "body_read_timeout and write_timeout must be above 0; Duration::MAX is for ever";
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
            body_read_timeout: Self::BODY_READ_TIMEOUT,
            write_timeout: Self::WRITE_TIMEOUT,
            http2_max_concurrent_streams: Self::HTTP2_MAX_CONCURRENT_STREAMS,
            http2_keep_alive_interval: Some(Self::HTTP2_KEEP_ALIVE_INTERVAL),
            max_connections: None,
            keep_alive: true,
            tcp_nodelay: true,
            connection_info: true,
            migrate: true,
            migrate_http2: true,
            http2_move_within: Self::HTTP2_MOVE_WITHIN,
            aside: false,
            on_connect: Vec::new(),
        }
    }
}
