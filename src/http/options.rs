//! What can be set of an HTTP server.

use crate::error::{Error, Kind, Result};
use std::time::Duration;

/// Settings of an HTTP server; the defaults are right for most.
#[derive(Debug, Clone, Copy)]
pub struct HttpOptions {
    pub(super) header_read_timeout: Duration,
    pub(super) keep_alive_timeout: Duration,
    pub(super) http2_max_concurrent_streams: u32,
    pub(super) http2_keep_alive_interval: Option<Duration>,
    pub(super) max_connections: Option<usize>,
    pub(super) keep_alive: bool,
    pub(super) tcp_nodelay: bool,
    pub(super) connect_info: bool,
}

impl HttpOptions {
    /// The default of [`header_read_timeout`](Self::header_read_timeout).
    pub const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(30);
    /// The default of [`keep_alive_timeout`](Self::keep_alive_timeout).
    pub const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(75);
    /// The default of [`http2_max_concurrent_streams`](Self::http2_max_concurrent_streams).
    pub const HTTP2_MAX_CONCURRENT_STREAMS: u32 = 200;
    /// The default of [`http2_keep_alive_interval`](Self::http2_keep_alive_interval).
    pub const HTTP2_KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(60);

    /// Returns the defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how long a client may take for a request head, from its first byte, and from connecting
    /// to the end of its first head. Then the connection is closed, in a drain as otherwise. The
    /// default is [30 s](Self::HEADER_READ_TIMEOUT).
    #[must_use]
    pub fn header_read_timeout(mut self, timeout: Duration) -> Self {
        self.header_read_timeout = timeout;
        self
    }

    /// Sets how long a connection may be idle. It is closed after a last look for bytes received,
    /// before twice this time. HTTP/2 is told so by a GOAWAY, unless one of its streams was
    /// upgraded. The default is [75 s](Self::KEEP_ALIVE_TIMEOUT).
    #[must_use]
    pub fn keep_alive_timeout(mut self, timeout: Duration) -> Self {
        self.keep_alive_timeout = timeout;
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

    /// Sets whether each request has a [`ConnectInfo`](super::ConnectInfo) in its extensions.
    /// Without it, a handler knows neither its peer nor the beginning of a drain, and a small
    /// HTTP/2 request takes some 3 % less of a processor. The default is `true`.
    #[must_use]
    pub fn connect_info(mut self, connect_info: bool) -> Self {
        self.connect_info = connect_info;
        self
    }

    pub(super) fn check(&self) -> Result<()> {
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
