//! The certificate and everything else that a TLS server needs, as the application has it.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use ring::digest;
use tokio_rustls::rustls;
use tokio_rustls::rustls::crypto::{self, CryptoProvider};
use tokio_rustls::rustls::server::NoServerSessionStorage;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use zeroize::Zeroizing;

use super::inner::{SeenFiles, Serving, TlsShared, lock, no_random};
#[cfg(feature = "http")]
use super::options::MovedClients;
use super::options::TlsOptions;
use super::pair::{self, Files, Judge, Pem, Stamp};
use super::tickets::{TicketKeys, Tickets};
use super::watch;
#[cfg(feature = "http")]
use crate::drain::Drain;
use crate::error::{Error, Kind, Result};
use crate::state::States;

/// The name of the state in which ticket keys are.
const TICKETS: &str = "tls-ticket-keys";

/// A certificate with its key, and everything else that a TLS server needs. Clones are the same
/// one.
#[derive(Clone)]
pub struct Tls {
    inner: Arc<TlsShared>,
}

impl Tls {
    /// Reads a chain (the server's own certificate first) and its private key, both in PEM.
    ///
    /// # Errors
    /// The files cannot be read, or the pair cannot serve ([`Error::is_invalid`]); the message
    /// names the file, the reason, and what to do.
    pub fn from_files(chain: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Result<Self> {
        Self::from_files_with(chain, key, TlsOptions::default())
    }

    /// Reads both files as [`from_files`](Self::from_files) does, with settings.
    ///
    /// # Errors
    /// It fails as [`from_files`](Self::from_files) does; and with a setting that cannot work.
    pub fn from_files_with(chain: impl Into<PathBuf>, key: impl Into<PathBuf>, options: TlsOptions) -> Result<Self> {
        let files = Files { chain: chain.into(), key: key.into() };
        let (stamp, pem) = files.read();
        Self::new(&pem?, Some((files, stamp)), options)
    }

    /// Takes PEM that you have already; see [`replace_pem`](Self::replace_pem).
    ///
    /// # Errors
    /// It fails as [`from_files`](Self::from_files) does.
    pub fn from_pem(chain: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Result<Self> {
        Self::from_pem_with(chain, key, TlsOptions::default())
    }

    /// Takes PEM as [`from_pem`](Self::from_pem) does, with settings.
    ///
    /// # Errors
    /// It fails as [`from_files`](Self::from_files) does; and with a setting that cannot work.
    pub fn from_pem_with(chain: impl AsRef<[u8]>, key: impl AsRef<[u8]>, options: TlsOptions) -> Result<Self> {
        Self::new(&given(chain.as_ref(), key.as_ref()), None, options)
    }

    /// Reads the files again and serves with them from the next handshake on. It returns false if
    /// they hold the same chain as before. It blocks for as long as reading two small files takes.
    ///
    /// # Errors
    /// It fails as [`from_files`](Self::from_files) does; the pair before serves on.
    /// [`Error::is_state`]: it was not made from files.
    pub fn reload(&self) -> Result<bool> {
        self.inner.renew(true)
    }

    /// Serves with this pair from the next handshake on. It returns false if it is the same chain
    /// as before. One that was made from files serves with those again when they change.
    ///
    /// # Errors
    /// It fails as [`from_pem`](Self::from_pem) does; the pair before serves on.
    pub fn replace_pem(&self, chain: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Result<bool> {
        let pair = self.inner.judge.judge(&given(chain.as_ref(), key.as_ref()))?;
        Ok(self.inner.serving.replace(pair))
    }

    /// Returns the configuration for rustls, in which the certificate is replaced and tickets are
    /// shared as everywhere. It is for accept loops of your own, which should have a
    /// [timeout](Self::handshake_timeout).
    #[must_use]
    pub fn config(&self) -> Arc<rustls::ServerConfig> {
        Arc::clone(&self.inner.config)
    }

    /// Returns what [`TlsOptions::handshake_timeout`] has set.
    #[must_use]
    pub fn handshake_timeout(&self) -> Duration {
        self.inner.handshake_timeout
    }

    /// Returns the keys that session tickets are made with now; `None` if there are no tickets.
    #[must_use]
    pub fn ticket_keys(&self) -> Option<TicketKeys> {
        self.inner.tickets.as_ref().map(|tickets| tickets.keys())
    }

    /// Makes session tickets with these keys from now on, and new ones when they are used up; other
    /// generations do as well, if tickets are [shared](Self::share_tickets). Tickets that were made
    /// before can still be read.
    ///
    /// It blocks for as long as another generation holds the keys, at most 5 s.
    ///
    /// # Errors
    /// [`Error::is_state`]: there are no tickets. As for
    /// [`State::update`](crate::state::State::update), if tickets are shared; then nothing has
    /// changed. Otherwise there are no random numbers.
    pub fn set_ticket_keys(&self, keys: &TicketKeys) -> Result<()> {
        let tickets = self.inner.tickets()?;
        if let Some(share) = self.inner.share() {
            share.blocking_update(|shared| shared.give_way_to(keys))?;
        }
        tickets.adopt(keys, pair::now()).map_err(|_| no_random())?;
        self.inner.share_tickets()
    }

    /// Keeps the keys of session tickets among these states, where other generations of the service
    /// find them, and takes those that are there. From then on they are compared once a minute.
    /// `Service::serve_https` does it, unless there is a
    /// [`client_verifier`](TlsOptions::client_verifier).
    ///
    /// With a verifier, a client that comes back with a ticket is not verified again: with shared
    /// keys also not by a new generation, which may trust others, or know that the client's
    /// certificate was revoked. Only whether a certificate was asked for, was needed, and the names
    /// of those who may have issued it are part of a ticket, and must be the same.
    ///
    /// It blocks for as long as another generation holds the keys, at most 5 s.
    ///
    /// # Errors
    /// [`Error::is_state`]: there are no tickets. As for
    /// [`State::update`](crate::state::State::update): then this process makes tickets with its own
    /// keys until it can share them, which it tries again.
    pub fn share_tickets(&self, states: &States) -> Result<()> {
        self.inner.tickets()?;
        *lock(&self.inner.share) = Some(states.state(TICKETS));
        self.inner.share_tickets()
    }

    #[cfg(feature = "http")]
    pub(crate) fn http_config(&self) -> Arc<rustls::ServerConfig> {
        Arc::clone(&self.inner.http)
    }

    #[cfg(feature = "http")]
    pub(crate) fn may_share_tickets(&self) -> bool {
        self.inner.tickets.is_some() && self.inner.client_verifier.is_none()
    }

    #[cfg(feature = "http")]
    pub(super) fn client_verifier(&self) -> Option<&dyn ClientCertVerifier> {
        self.inner.client_verifier.as_deref()
    }

    #[cfg(feature = "http")]
    pub(super) fn moved_clients(&self) -> MovedClients {
        self.inner.moved_clients
    }

    /// Ends the care for files and keys once this drain has begun, and all others that were named
    /// before.
    #[cfg(feature = "http")]
    pub(crate) fn serves_for(&self, drain: &Drain) {
        lock(&self.inner.drains).push(drain.clone());
    }

    fn new(pem: &Pem, files: Option<(Files, Stamp)>, options: TlsOptions) -> Result<Self> {
        options.check()?;
        let TlsOptions { handshake_timeout, alpn, poll, ticket_rotation, ignore_validity, .. } = options;
        let provider =
            CryptoProvider::get_default().cloned().unwrap_or_else(|| Arc::new(crypto::ring::default_provider()));
        let judge = Judge { provider: Arc::clone(&provider), ignore_validity };
        let serving = Arc::new(Serving(RwLock::new(judge.judge(pem)?.key)));
        #[cfg(feature = "http")]
        let (client_verifier, moved_clients) = (options.client_verifier.clone(), options.moved_clients);
        let realm = realm(options.client_verifier.as_deref());
        let tickets = ticket_rotation.map(|rotation| Tickets::new(rotation, realm)).transpose();
        let tickets = tickets.map_err(|_| no_random())?.map(Arc::new);

        let builder = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| Error::new(Kind::Invalid, format!("the process's CryptoProvider cannot be used: {e}")))?;
        let builder = match options.client_verifier {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::clone(&serving) as _);
        match &tickets {
            Some(tickets) => config.ticketer = Arc::clone(tickets) as _,
            // sessions that this process alone remembers would only hide that there are none
            None => config.session_storage = Arc::new(NoServerSessionStorage {}),
        }
        if let Some(configure) = options.configure {
            configure(&mut config);
        }
        if let Some(alpn) = alpn {
            config.alpn_protocols = alpn;
        }
        let mut http = config.clone();
        if http.alpn_protocols.is_empty() {
            http.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        }
        let (files, loaded) = files.unzip();
        let (watcher, end) = mpsc::channel();
        let inner = Arc::new(TlsShared {
            files,
            judge,
            serving,
            config: Arc::new(config),
            http: Arc::new(http),
            handshake_timeout,
            tickets,
            #[cfg(feature = "http")]
            client_verifier,
            #[cfg(feature = "http")]
            moved_clients,
            share: Mutex::default(),
            unshared: AtomicBool::new(false),
            seen: Mutex::new(SeenFiles { loaded, refused: None }),
            drains: Mutex::default(),
            _watcher: watcher,
        });
        watch::start(&inner, end, poll)?;
        Ok(Self { inner })
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("files", &self.inner.files)
            .field("handshake_timeout", &self.inner.handshake_timeout)
            .finish_non_exhaustive()
    }
}

fn given(chain: &[u8], key: &[u8]) -> Pem {
    let key = Zeroizing::new(key.to_vec());
    Pem { chain: chain.to_vec(), key, chain_name: "that was given".into(), key_name: "that was given".into() }
}

/// Rustls resumes a session without a word to the verifier, so a session of those that were not
/// verified must not be one of those that must be.
fn realm(verifier: Option<&dyn ClientCertVerifier>) -> Vec<u8> {
    let Some(verifier) = verifier.filter(|verifier| verifier.offer_client_auth()) else { return vec![0] };
    let mut issuers = digest::Context::new(&digest::SHA256);
    for issuer in verifier.root_hint_subjects() {
        issuers.update(&issuer.as_ref().len().to_le_bytes());
        issuers.update(issuer.as_ref());
    }
    [&[1 + u8::from(verifier.client_auth_mandatory())], issuers.finish().as_ref()].concat()
}
