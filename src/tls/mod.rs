//! TLS by rustls: a certificate that is replaced in place, and sessions that outlive a generation.
//!
//! ```no_run
//! # fn example() -> handover::Result<()> {
//! use handover::tls::Tls;
//!
//! let tls = Tls::from_files("/etc/ssl/example/fullchain.pem", "/etc/ssl/example/privkey.pem")?;
//! # Ok(())
//! # }
//! ```
//!
//! With the feature `http`, `Service::serve_https` serves with it; for other protocols see [`Tls::accept`]. A pair that
//! cannot serve is refused before a client sees it: one of the two files missing, unreadable or half written, a key that is
//! not the certificate's, a certificate out of its time. At the start that is an error. So the first generation does not
//! start with an expired certificate either ([unless told to](TlsOptions::ignore_validity)): clients would refuse it, and
//! a service that says that it is up would hide it.
//!
//! # The certificate is replaced in place
//!
//! The files are [looked at](TlsOptions::poll) every 10 s: a rename over them, another target of a symlink (as certbot and
//! Kubernetes do it) and a plain write are all seen, and used once they have not changed for a second. From then on
//! handshakes get the new pair, and nothing else changes. A bad pair is refused with its reason in the log, once for each
//! change of the files; the pair before serves on. [`Tls::reload`] does it at once. SIGHUP starts a new generation, as ever,
//! which reads the files; if they are bad, that reload fails and the old generation serves on with the pair that it has.
//!
//! # Sessions
//!
//! Clients resume with tickets, in TLS 1.2 and 1.3. Their keys are random, are used for [6 h](TlsOptions::ticket_rotation),
//! and known for 12 h. [`Tls::share_tickets`], which `serve_https` does by itself, keeps them where the next generation finds
//! them, and after a crash the restarted one: in memory that only the service's processes and the service manager have.
//! Sessions of clients whose certificates are [verified](TlsOptions::client_verifier) are an exception.
//!
//! # In a drain
//!
//! A connection counts from accept(2) on. A handshake that has begun is finished, within its
//! [timeout](TlsOptions::handshake_timeout); after it, the connection is a fresh one, and lingers. Half a record is half a
//! request. Each close is TLS's own (close_notify), so that no client takes it for an attack; only what the hammer cuts in the
//! middle of an answer ends without it, and that is to be seen. More in the chapter [TLS](crate::docs::tls).

mod accept;
mod options;
mod pair;
mod stream;
mod tickets;
mod watch;

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use ring::digest;
use tokio_rustls::rustls::crypto::{self, CryptoProvider};
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use zeroize::Zeroizing;

pub use tokio_rustls::rustls;

pub use self::options::TlsOptions;
pub use self::stream::{TlsInfo, TlsStream};
pub use self::tickets::TicketKeys;

use self::pair::{Files, Judge, Pair, Pem, Stamp};
use self::tickets::Tickets;
use crate::drain::Drain;
use crate::error::{Error, Kind, Result};
use crate::state::{State, States};

/// The name of the state in which ticket keys are.
const TICKETS: &str = "tls-ticket-keys";

/// A certificate with its key, and everything else that a TLS server needs. Clones are the same one.
#[derive(Clone)]
pub struct Tls {
    inner: Arc<Inner>,
}

struct Inner {
    files: Option<Files>,
    judge: Judge,
    serving: Arc<Serving>,
    config: Arc<rustls::ServerConfig>,
    /// The same, with HTTP's protocols.
    #[cfg_attr(not(feature = "http"), expect(dead_code, reason = "only HTTP has protocols of its own"))]
    http: Arc<rustls::ServerConfig>,
    handshake_timeout: Duration,
    tickets: Option<Arc<Tickets>>,
    #[cfg(feature = "http")]
    verifies_clients: bool,
    /// Where ticket keys outlive this process.
    share: Mutex<Option<State<TicketKeys>>>,
    /// Told already that the keys cannot be shared.
    unshared: AtomicBool,
    /// One reload at a time.
    seen: Mutex<Seen>,
    /// While one of these is open, and while there is none, the files and keys are looked after.
    drains: Mutex<Vec<Drain>>,
    /// Its end ends the watcher's thread.
    _watcher: mpsc::Sender<()>,
}

/// The files as they were when they were last read.
#[derive(Debug, Default)]
struct Seen {
    loaded: Option<Stamp>,
    refused: Option<Stamp>,
}

/// The pair that handshakes get.
struct Serving(RwLock<Arc<CertifiedKey>>);

impl Tls {
    /// With a chain (the server's own certificate first) and its private key, both in PEM.
    ///
    /// # Errors
    /// The files cannot be read, or the pair cannot serve ([`Error::is_invalid`]); the message names the file, the reason,
    /// and what to do.
    pub fn from_files(chain: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Result<Self> {
        Self::from_files_with(chain, key, TlsOptions::default())
    }

    /// [`from_files`](Self::from_files) with settings.
    ///
    /// # Errors
    /// As [`from_files`](Self::from_files); and a setting that cannot work.
    pub fn from_files_with(chain: impl Into<PathBuf>, key: impl Into<PathBuf>, options: TlsOptions) -> Result<Self> {
        let files = Files { chain: chain.into(), key: key.into() };
        let (stamp, pem) = files.read();
        Self::new(&pem?, Some((files, stamp)), options)
    }

    /// With PEM that you have already; see [`replace_pem`](Self::replace_pem).
    ///
    /// # Errors
    /// As [`from_files`](Self::from_files).
    pub fn from_pem(chain: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Result<Self> {
        Self::from_pem_with(chain, key, TlsOptions::default())
    }

    /// [`from_pem`](Self::from_pem) with settings.
    ///
    /// # Errors
    /// As [`from_files`](Self::from_files); and a setting that cannot work.
    pub fn from_pem_with(chain: impl AsRef<[u8]>, key: impl AsRef<[u8]>, options: TlsOptions) -> Result<Self> {
        Self::new(&given(chain.as_ref(), key.as_ref()), None, options)
    }

    /// Reads the files again and serves with them from the next handshake on. False: they hold the same chain as before.
    /// It blocks for as long as reading two small files takes.
    ///
    /// # Errors
    /// As [`from_files`](Self::from_files); the pair before serves on. [`Error::is_state`]: it was not made from files.
    pub fn reload(&self) -> Result<bool> {
        self.inner.renew(true)
    }

    /// Serves with this pair from the next handshake on. False: it is the same chain as before. One that was made from files
    /// serves with those again when they change.
    ///
    /// # Errors
    /// As [`from_pem`](Self::from_pem); the pair before serves on.
    pub fn replace_pem(&self, chain: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Result<bool> {
        let pair = self.inner.judge.judge(&given(chain.as_ref(), key.as_ref()))?;
        Ok(self.inner.serving.replace(pair))
    }

    /// The configuration for rustls, in which the certificate is replaced and tickets are shared as everywhere: for accept
    /// loops of your own. They should have a [timeout](Self::handshake_timeout).
    #[must_use]
    pub fn config(&self) -> Arc<rustls::ServerConfig> {
        Arc::clone(&self.inner.config)
    }

    /// See [`TlsOptions::handshake_timeout`].
    #[must_use]
    pub fn handshake_timeout(&self) -> Duration {
        self.inner.handshake_timeout
    }

    /// The keys that session tickets are made with now; `None` if there are no tickets.
    #[must_use]
    pub fn ticket_keys(&self) -> Option<TicketKeys> {
        self.inner.tickets.as_ref().map(|tickets| tickets.keys())
    }

    /// Makes session tickets with these keys from now on, and new ones when they are used up; other generations do as well, if
    /// tickets are [shared](Self::share_tickets). Tickets that were made before can still be read.
    ///
    /// # Errors
    /// [`Error::is_state`]: there are no tickets. As for [`State::update`](crate::state::State::update), if tickets are
    /// shared; then nothing has changed. Else: no random numbers.
    pub fn set_ticket_keys(&self, keys: &TicketKeys) -> Result<()> {
        let tickets = self.inner.tickets()?;
        if let Some(share) = self.inner.share() {
            share.update(|shared| shared.give_way_to(keys))?;
        }
        tickets.adopt(keys, pair::now()).map_err(|_| no_random())?;
        self.inner.share_tickets()
    }

    /// Keeps the keys of session tickets among these states, where other generations of the service find them, and takes
    /// those that are there. From then on they are compared once a minute. `Service::serve_https` does it, unless there is a
    /// [`client_verifier`](TlsOptions::client_verifier).
    ///
    /// With one, a client that comes back with a ticket is not verified again: with shared keys also not by a new generation, which
    /// may trust others, or know that the client's certificate was revoked. Only whether a certificate was asked for, was
    /// needed, and the names of those who may have issued it are part of a ticket, and must be the same.
    ///
    /// # Errors
    /// [`Error::is_state`]: there are no tickets. As for [`State::update`](crate::state::State::update): then this process
    /// makes tickets with its own keys until it can share them, which it tries again.
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
        self.inner.tickets.is_some() && !self.inner.verifies_clients
    }

    /// Nothing needs looking after once this drain has begun.
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
        let verifies_clients = options.client_verifier.is_some();
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
        let inner = Arc::new(Inner {
            files,
            judge,
            serving,
            config: Arc::new(config),
            http: Arc::new(http),
            handshake_timeout,
            tickets,
            #[cfg(feature = "http")]
            verifies_clients,
            share: Mutex::default(),
            unshared: AtomicBool::new(false),
            seen: Mutex::new(Seen { loaded, refused: None }),
            drains: Mutex::default(),
            _watcher: watcher,
        });
        watch::start(&inner, end, poll)?;
        Ok(Self { inner })
    }
}

impl Inner {
    fn share(&self) -> Option<State<TicketKeys>> {
        lock(&self.share).clone()
    }

    fn tickets(&self) -> Result<&Arc<Tickets>> {
        self.tickets.as_ref().ok_or_else(|| Error::new(Kind::State, "ticket_rotation(None) means: no session tickets"))
    }
}

impl Serving {
    /// False: the same chain, and so the same key.
    fn replace(&self, pair: Pair) -> bool {
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

/// Rustls resumes a session without a word to the verifier, so a session of those that were not verified must not be one of
/// those that must be.
fn realm(verifier: Option<&dyn ClientCertVerifier>) -> Vec<u8> {
    let Some(verifier) = verifier.filter(|verifier| verifier.offer_client_auth()) else { return vec![0] };
    let mut issuers = digest::Context::new(&digest::SHA256);
    for issuer in verifier.root_hint_subjects() {
        issuers.update(&issuer.as_ref().len().to_le_bytes());
        issuers.update(issuer.as_ref());
    }
    [&[1 + u8::from(verifier.client_auth_mandatory())], issuers.finish().as_ref()].concat()
}

fn no_random() -> Error {
    Error::new(Kind::Os, "no random numbers for session tickets (getrandom)")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
