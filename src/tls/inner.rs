//! What a server serves with, and what it shares with other generations.

use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use tokio_rustls::rustls;
#[cfg(feature = "http")]
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;

#[cfg(feature = "http")]
use super::options::MovedClients;
use super::pair::{Files, Judge, Pair, Stamp};
use super::tickets::{TicketKeys, Tickets};
use crate::drain::Drain;
use crate::error::{Error, Kind, Result};
use crate::state::State;

/// What all clones of a [`Tls`](super::Tls) share.
pub(super) struct TlsShared {
    pub(super) files: Option<Files>,
    pub(super) judge: Judge,
    pub(super) serving: Arc<Serving>,
    pub(super) config: Arc<rustls::ServerConfig>,
    /// The same, with HTTP's protocols.
    #[cfg_attr(not(feature = "http"), expect(dead_code, reason = "only HTTP has protocols of its own"))]
    pub(super) http: Arc<rustls::ServerConfig>,
    pub(super) handshake_timeout: Duration,
    pub(super) tickets: Option<Arc<Tickets>>,
    #[cfg(feature = "http")]
    pub(super) client_verifier: Option<Arc<dyn ClientCertVerifier>>,
    #[cfg(feature = "http")]
    pub(super) moved_clients: MovedClients,
    /// Where ticket keys outlive this process.
    pub(super) share: Mutex<Option<State<TicketKeys>>>,
    /// Whether it was logged already that the keys cannot be shared.
    pub(super) unshared: AtomicBool,
    /// The files as they were last seen. Its lock lets one reload go on at a time.
    pub(super) seen: Mutex<SeenFiles>,
    /// While one of these is open, and while there is none, the files and keys are looked after.
    pub(super) drains: Mutex<Vec<Drain>>,
    /// Its end ends the watcher's thread.
    pub(super) _watcher: mpsc::Sender<()>,
}

/// The files as they were when they were last read.
#[derive(Debug, Default)]
pub(super) struct SeenFiles {
    pub(super) loaded: Option<Stamp>,
    pub(super) refused: Option<Stamp>,
}

/// The pair that handshakes get.
pub(super) struct Serving(pub(super) RwLock<Arc<CertifiedKey>>);

impl TlsShared {
    pub(super) fn share(&self) -> Option<State<TicketKeys>> {
        lock(&self.share).clone()
    }

    pub(super) fn tickets(&self) -> Result<&Arc<Tickets>> {
        self.tickets.as_ref().ok_or_else(|| Error::new(Kind::State, "ticket_rotation(None) means: no session tickets"))
    }
}

impl Serving {
    /// Serves with this pair. It returns false if it is the same chain, and so the same key.
    pub(super) fn replace(&self, pair: Pair) -> bool {
        let mut serving = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let other = serving.cert != pair.key.cert;
        *serving = pair.key;
        other
    }
}

impl ResolvesServerCert for Serving {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl fmt::Debug for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Serving")
    }
}

pub(super) fn no_random() -> Error {
    Error::new(Kind::Os, "no random numbers for session tickets (getrandom)")
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
