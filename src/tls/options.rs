//! Settings of TLS.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;

use crate::error::{Error, Kind, Result};

/// Settings of [`Tls`](super::Tls); the defaults are right for most.
#[derive(Clone)]
#[must_use]
pub struct TlsOptions {
    pub(super) handshake_timeout: Duration,
    pub(super) alpn: Option<Vec<Vec<u8>>>,
    pub(super) poll: Option<Duration>,
    pub(super) ticket_rotation: Option<Duration>,
    pub(super) ignore_validity: bool,
    pub(super) client_verifier: Option<Arc<dyn ClientCertVerifier>>,
    pub(super) moved_clients: MovedClients,
    pub(super) configure: Option<Configure>,
}

/// Whose connections a generation takes from the one before it, if it [verifies
/// clients](TlsOptions::client_verifier). One that is not taken drains where it is: it is answered
/// once more, and told that it closes; its client connects anew, and is verified as any other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum MovedClients {
    /// Those of clients whose certificates the verifier accepts again, at the time of the move; of
    /// clients that have shown none, if it does not insist on one.
    #[default]
    Verify,
    /// All: who was let in by the generation before stays in.
    Take,
    /// None: each client is verified by a handshake of its own. For where one of them may be known
    /// as revoked only in a handshake.
    Leave,
}

pub(super) type Configure = Arc<dyn Fn(&mut ServerConfig) + Send + Sync>;

impl TlsOptions {
    /// The default of [`handshake_timeout`](Self::handshake_timeout).
    pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
    /// The default of [`poll`](Self::poll).
    pub const POLL: Duration = Duration::from_secs(10);
    /// The default of [`ticket_rotation`](Self::ticket_rotation).
    pub const TICKET_ROTATION: Duration = Duration::from_secs(6 * 60 * 60);
    /// No client keeps a ticket longer: 7 days.
    const TICKET_ROTATION_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);

    /// Returns the defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how long a client may take from connecting to the end of its handshake, in a drain as
    /// otherwise. The default is [10 s](Self::HANDSHAKE_TIMEOUT).
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.handshake_timeout = timeout;
        self
    }

    /// Sets the application protocols to choose from, the best first. The default is `h2`,
    /// `http/1.1` where HTTP is served, and none elsewhere. A client that offers others, and none
    /// of these, is refused; one that offers none is served.
    pub fn alpn<P: Into<Vec<u8>>>(mut self, protocols: impl IntoIterator<Item = P>) -> Self {
        self.alpn = Some(protocols.into_iter().map(Into::into).collect());
        self
    }

    /// Sets how often the files are looked at. Replaced ones, by a write, a rename or another
    /// target of a symlink, are used after at most twice that. With `None` they are looked at only
    /// when told to. The default is [10 s](Self::POLL).
    pub fn poll(mut self, interval: Option<Duration>) -> Self {
        self.poll = interval;
        self
    }

    /// Sets how long one key makes session tickets. A client can come back with its ticket for that
    /// long at least, and for twice that at most. With `None` there are no tickets, and no session
    /// is resumed. The default is [6 h](Self::TICKET_ROTATION), the most is 7 days.
    pub fn ticket_rotation(mut self, interval: Option<Duration>) -> Self {
        self.ticket_rotation = interval;
        self
    }

    /// Takes certificates that have expired or are not valid yet, which else are refused: for
    /// machines whose clock is wrong. The default is false.
    pub fn ignore_validity(mut self, ignore: bool) -> Self {
        self.ignore_validity = ignore;
        self
    }

    /// Asks clients for a certificate, and has it verified by this. By default they are not asked.
    /// With it, `Service::serve_https` does not [share tickets](super::Tls::share_tickets), so that
    /// each generation verifies each client for itself. See
    /// [`WebPkiClientVerifier`](tokio_rustls::rustls::server::WebPkiClientVerifier).
    pub fn client_verifier(mut self, verifier: Arc<dyn ClientCertVerifier>) -> Self {
        self.client_verifier = Some(verifier);
        self
    }

    /// Sets which connections of another generation are taken where a
    /// [`client_verifier`](Self::client_verifier) is asked. It has no effect without one. The
    /// default is [`MovedClients::Verify`].
    pub fn moved_clients(mut self, clients: MovedClients) -> Self {
        self.moved_clients = clients;
        self
    }

    /// Changes what has no setting here. It is called once. With another `cert_resolver` than ours,
    /// reloading has no effect; with another `ticketer`, tickets are not shared.
    pub fn configure(mut self, configure: impl Fn(&mut ServerConfig) + Send + Sync + 'static) -> Self {
        self.configure = Some(Arc::new(configure));
        self
    }

    pub(super) fn check(&self) -> Result<()> {
        let invalid = |why: &'static str| Err(Error::new(Kind::Invalid, why));
        if self.handshake_timeout.is_zero() {
            return invalid("handshake_timeout must be above 0: no client could connect");
        }
        if self.poll.is_some_and(|interval| interval.is_zero()) {
            return invalid("poll must be above 0; None turns it off");
        }
        let rotation = self.ticket_rotation.unwrap_or(Self::TICKET_ROTATION);
        if !(Duration::from_secs(1)..=Self::TICKET_ROTATION_MAX).contains(&rotation) {
            return invalid("ticket_rotation must be from 1 s to 7 days; None turns tickets off");
        }
        if self.alpn.iter().flatten().any(|protocol| protocol.is_empty() || protocol.len() > 255) {
            return invalid("a protocol in alpn must have 1 to 255 bytes");
        }
        Ok(())
    }
}

impl Default for TlsOptions {
    fn default() -> Self {
        Self {
            handshake_timeout: Self::HANDSHAKE_TIMEOUT,
            alpn: None,
            poll: Some(Self::POLL),
            ticket_rotation: Some(Self::TICKET_ROTATION),
            ignore_validity: false,
            client_verifier: None,
            moved_clients: MovedClients::Verify,
            configure: None,
        }
    }
}

impl fmt::Debug for TlsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsOptions")
            .field("handshake_timeout", &self.handshake_timeout)
            .field("alpn", &self.alpn)
            .field("poll", &self.poll)
            .field("ticket_rotation", &self.ticket_rotation)
            .field("ignore_validity", &self.ignore_validity)
            .field("moved_clients", &self.moved_clients)
            .finish_non_exhaustive()
    }
}
