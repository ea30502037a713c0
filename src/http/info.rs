//! What a request's handler may know of the connection.

use super::conn::Conn;
use super::upgraded::Given;
use crate::drain::{DrainSignal, Inherited, Peer, state_of};
#[cfg(feature = "tls")]
use crate::tls::TlsInfo;
use crate::transit::Permit;
use serde::Serialize;
use std::future::poll_fn;
use std::io;
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
    conn: Arc<Conn>,
    #[cfg(feature = "tls")]
    tls: Option<TlsInfo>,
}

impl ConnectionInfo {
    pub(super) fn new(conn: Arc<Conn>, #[cfg(feature = "tls")] tls: Option<TlsInfo>) -> Self {
        let inner = ConnectionInner {
            peer: conn.peer,
            drain: conn.drain.signal(),
            conn,
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

    /// Resolves when it is the turn of this WebSocket to go to the next generation. `None` means
    /// that the drain has begun, and that it has to come to its end here: nobody takes it, it was
    /// not taken and has come back, or it is no WebSocket over HTTP/1.1. Until the drain begins it
    /// waits.
    ///
    /// One handler of the connection waits for it, beside its messages, from its beginning on. What
    /// it has left is [inherited](Self::inherited) by the handler that the next generation's router
    /// calls with the same request: to the client nothing has happened.
    ///
    /// ```no_run
    /// use axum::extract::ws::{Message, WebSocketUpgrade};
    /// use axum::response::Response;
    /// use axum::{Extension, Router, routing::any};
    /// use handover::http::ConnectionInfo;
    ///
    /// /// Answers each message with how many there have been, over any number of reloads.
    /// async fn count(upgrade: WebSocketUpgrade, Extension(info): Extension<ConnectionInfo>) -> Response {
    ///     upgrade.on_upgrade(async move |mut socket| {
    ///         let mut count: u64 = info.inherited().and_then(|state| state.state().ok()).unwrap_or(0);
    ///         loop {
    ///             tokio::select! {
    ///                 Some(pass) = info.ready_to_move() => return drop(pass.give(&count)),
    ///                 Some(Ok(Message::Text(_))) = socket.recv() => count += 1,
    ///                 else => return,
    ///             }
    ///             if socket.send(Message::text(count.to_string())).await.is_err() {
    ///                 return;
    ///             }
    ///         }
    ///     })
    /// }
    /// let router: Router = Router::new().route("/count", any(count));
    /// ```
    ///
    /// It resolves only between two messages of the client, when all that was read is used and all
    /// that was written is flushed. So somebody must wait for the client's next message, in the
    /// same task or in another one. What the handler sends must be flushed when it gives, as it is
    /// after `send`.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn ready_to_move(&self) -> Option<UpgradePass> {
        let conn = &self.inner.conn;
        let Some(upgrade) = conn.upgrade() else {
            self.drain().await;
            return None;
        };
        let permit = poll_fn(|cx| conn.poll_turn(upgrade, cx)).await?;
        Some(UpgradePass { conn: Arc::clone(conn), permit: Some(permit) })
    }

    /// Returns what the handler of the previous generation has given with this WebSocket; `None` if
    /// it began here. Nothing of it is [unread](Inherited::unread).
    #[must_use]
    pub fn inherited(&self) -> Option<Inherited> {
        self.inner.conn.upgrade()?.inherited().cloned()
    }

    /// Returns what was agreed on in the handshake; `None` if there was none.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(&self) -> Option<&TlsInfo> {
        self.inner.tls.as_ref()
    }
}

/// Lets one WebSocket go to the next generation now.
///
/// Nothing more is read from it, until this is dropped. There are few at a time: use it at once, or
/// drop it.
#[derive(Debug)]
#[must_use = "the connection stays until it is given"]
pub struct UpgradePass {
    conn: Arc<Conn>,
    permit: Option<Permit>,
}

impl UpgradePass {
    /// Gives the WebSocket to the next generation, with the state that the handler there shall
    /// know. It goes when it is dropped, all halves of it: close it not, and write nothing more.
    ///
    /// If the next generation does not take it, the router of this one is called with it once
    /// more, and what was given is [inherited](ConnectionInfo::inherited) there. If the router of
    /// the next one does not upgrade it, as it knows the path no longer, the client is told that
    /// the service restarts: close code 1012.
    ///
    /// # Errors
    /// The state cannot be written as JSON. Then the connection stays.
    pub fn give(mut self, state: &impl Serialize) -> io::Result<()> {
        let state = state_of(state)?;
        if let (Some(permit), Some(upgrade)) = (self.permit.take(), self.conn.upgrade()) {
            upgrade.leave(Given { state, permit });
        }
        Ok(())
    }
}

impl Drop for UpgradePass {
    fn drop(&mut self) {
        if self.permit.is_some()
            && let Some(upgrade) = self.conn.upgrade()
        {
            upgrade.release();
            self.conn.wakers.wake_reader();
        }
    }
}
