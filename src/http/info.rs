//! What a request's handler may know of the connection.

use crate::drain::{DrainSignal, Peer};
#[cfg(feature = "tls")]
use crate::tls::TlsInfo;
use std::sync::Arc;

/// The connection that a request came by; in the extensions of each request. It is cheap to clone.
///
/// ```
/// use axum::{Extension, Router, routing::get};
/// use handover::http::ConnectionInfo;
///
/// async fn whoami(Extension(info): Extension<ConnectionInfo>) -> String {
///     format!("{}\n", info.peer())
/// }
/// let router: Router = Router::new().route("/whoami", get(whoami));
/// ```
// One value behind one pointer: each more that is inserted by itself costs a request one more
// allocation, 1 % of a small one.
#[derive(Debug, Clone)]
pub struct ConnectionInfo {
    inner: Arc<ConnectionInner>,
}

#[derive(Debug)]
struct ConnectionInner {
    peer: Peer,
    drain: DrainSignal,
    #[cfg(feature = "tls")]
    tls: Option<TlsInfo>,
}

impl ConnectionInfo {
    pub(super) fn new(peer: Peer, drain: DrainSignal, #[cfg(feature = "tls")] tls: Option<TlsInfo>) -> Self {
        let inner = ConnectionInner {
            peer,
            drain,
            #[cfg(feature = "tls")]
            tls,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Returns who is at the other end.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.inner.peer
    }

    /// Resolves when the generation begins to drain: time for a long reply to come to an end, for a
    /// WebSocket to say goodbye.
    pub fn drain(&self) -> DrainSignal {
        self.inner.drain.clone()
    }

    /// Returns what was agreed on in the handshake; `None` if there was none.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(&self) -> Option<&TlsInfo> {
        self.inner.tls.as_ref()
    }
}
