//! What an upgrade is to be.

use std::fmt;
use std::future::Future;
#[cfg(feature = "upgrade-remote")]
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Kind, Result};
use crate::service::{Handle, Reloaded, Service};
use crate::upgrade::fetch::{Fetcher, Limits};
#[cfg(feature = "upgrade-remote")]
use crate::upgrade::remote;
use crate::upgrade::source::Source;
use crate::upgrade::trust::{Sum, Trust, checked_hex};
use crate::upgrade::{Inner, Step, Upgrade};

/// How many programs before the running one are kept.
pub const KEEP: usize = 3;
/// How long the check of a candidate may take.
pub const CHECK_TIMEOUT: Duration = Duration::from_secs(30);
/// The shortest time between two looks of [`Upgrade::poll`].
pub const MIN_POLL: Duration = Duration::from_secs(1);

/// How a service took its new program.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// It runs now.
    Taken,
    /// The old one serves on, because of the new one. The old file is put back, and the new one is not tried again.
    Refused(String),
    /// Nobody could be asked, or there was no answer in time. The old file is put back; the new one may be tried again.
    Unknown(String),
}

type Asked = Pin<Box<dyn Future<Output = Verdict> + Send>>;

#[derive(Clone)]
pub(crate) struct Reload(pub(crate) Arc<dyn Fn() -> Asked + Send + Sync>);

#[derive(Clone)]
pub(crate) struct OnStep(pub(crate) Arc<dyn Fn(&Step) + Send + Sync>);

impl fmt::Debug for Reload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reload")
    }
}

impl fmt::Debug for OnStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnStep")
    }
}

/// What the upgrade was told, which does not change.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) program: PathBuf,
    pub(crate) source: Source,
    pub(crate) trust: Trust,
    pub(crate) sum: Option<Sum>,
    pub(crate) check: Option<String>,
    pub(crate) check_timeout: Duration,
    pub(crate) keep: usize,
    pub(crate) any_format: bool,
    pub(crate) retry: bool,
    /// None: what is installed is not asked for.
    pub(crate) reload: Option<Reload>,
    pub(crate) on_step: Option<OnStep>,
}

/// Makes an [`Upgrade`].
#[derive(Debug, Clone)]
#[must_use]
pub struct Builder {
    plan: Plan,
    limits: Limits,
    #[cfg(feature = "upgrade-remote")]
    network: remote::Network,
}

impl Builder {
    pub(crate) fn new(program: PathBuf, source: Source, trust: Trust) -> Self {
        let plan = Plan {
            program,
            source,
            trust,
            sum: None,
            check: None,
            check_timeout: CHECK_TIMEOUT,
            keep: KEEP,
            any_format: false,
            retry: false,
            reload: None,
            on_step: None,
        };
        Self {
            plan,
            limits: Limits::default(),
            #[cfg(feature = "upgrade-remote")]
            network: remote::Network::default(),
        }
    }

    /// The SHA-256 that the candidate must have, as 64 hexadecimal digits.
    ///
    /// # Errors
    /// With [`Error::is_invalid`]: it is none.
    pub fn sha256(mut self, digits: &str) -> Result<Self> {
        self.plan.sum = Some(Sum::Given(checked_hex(digits)?));
        Ok(self)
    }

    /// The SHA-256 stands in a list of this name, such as `SHA256SUMS`, which lies where the candidate does.
    pub fn sha256_in(mut self, name: impl Into<String>) -> Self {
        self.plan.sum = Some(Sum::In(name.into()));
        self
    }

    /// A command of the shell that the candidate must pass; `{}` in it, or `"$CANDIDATE"`, is the candidate's path. It runs as this
    /// process's user, outside the service. Default: none.
    pub fn check(mut self, command: impl Into<String>) -> Self {
        self.plan.check = Some(command.into());
        self
    }

    /// Default [`CHECK_TIMEOUT`].
    pub fn check_timeout(mut self, timeout: Duration) -> Self {
        self.plan.check_timeout = timeout;
        self
    }

    /// How many programs before the running one are kept; at least the last one is. Default [`KEEP`].
    pub fn keep(mut self, programs: usize) -> Self {
        self.plan.keep = programs.max(1);
        self
    }

    /// Takes files that are no ELF programs of this machine, such as scripts.
    pub fn any_format(mut self) -> Self {
        self.plan.any_format = true;
        self
    }

    /// Tries again what is known to be bad.
    pub fn retry(mut self) -> Self {
        self.plan.retry = true;
        self
    }

    /// How large the program may be, in bytes. Default [`MAX_SIZE`](crate::upgrade::MAX_SIZE).
    pub fn max_size(mut self, bytes: u64) -> Self {
        self.limits.size = bytes;
        self
    }

    /// How long all of it may take to come. Default [`FETCH_TIMEOUT`](crate::upgrade::FETCH_TIMEOUT).
    pub fn fetch_timeout(mut self, timeout: Duration) -> Self {
        self.limits.total = timeout;
        self
    }

    /// Told of each [`Step`] as it is done, in the upgrade's own task: it must not block.
    pub fn on_step(mut self, told: impl Fn(&Step) + Send + Sync + 'static) -> Self {
        self.plan.on_step = Some(OnStep(Arc::new(told)));
        self
    }

    /// For a service that upgrades itself. Its generation lives until the outcome is on the disk.
    ///
    /// # Errors
    /// As [`reload_with`](Self::reload_with).
    pub fn service(self, service: &Service) -> Result<Upgrade> {
        let drain = service.drain().clone();
        let mut upgrade = self.handle(service.handle())?;
        upgrade.hold(drain);
        Ok(upgrade)
    }

    /// For the program of a [`Supervisor`](crate::supervise::Supervisor) in this process, or whatever else this reloads.
    ///
    /// # Errors
    /// As [`reload_with`](Self::reload_with).
    pub fn handle(self, handle: Handle) -> Result<Upgrade> {
        self.reload_with(move || {
            let handle = handle.clone();
            async move { verdict(&handle).await }
        })
    }

    /// For another process's service: `ask` asks it for a reload, and tells the outcome. It needs a deadline of its own.
    ///
    /// # Errors
    /// With [`Error::is_invalid`]: the program's path is not absolute, a certificate cannot be read, or what is unsigned would come over
    /// plain `http://` without a checksum.
    pub fn reload_with<F>(mut self, ask: impl Fn() -> F + Send + Sync + 'static) -> Result<Upgrade>
    where
        F: Future<Output = Verdict> + Send + 'static,
    {
        self.plan.reload = Some(Reload(Arc::new(move || Box::pin(ask()))));
        self.build()
    }

    /// For a service that is not running: its next start takes the new program. There is no outcome that could be waited for.
    ///
    /// # Errors
    /// As [`reload_with`](Self::reload_with).
    pub fn install_only(self) -> Result<Upgrade> {
        self.build()
    }

    fn build(self) -> Result<Upgrade> {
        if !self.plan.program.is_absolute() {
            return Err(Error::new(Kind::Invalid, format!("{} is not absolute", self.plan.program.display())));
        }
        let pinned = matches!(self.plan.sum, Some(Sum::Given(_)));
        if self.plan.trust.is_unsigned() && !pinned && self.plan.source.is_plain_http() {
            let why = "neither signed nor encrypted: trust a key, give the SHA-256, or use https";
            return Err(Error::new(Kind::Invalid, format!("{}: {why}", self.plan.source)));
        }
        let has_names = match &self.plan.source {
            Source::File(_) => false,
            #[cfg(feature = "upgrade-remote")]
            Source::Remote(remote) => {
                remote.check()?;
                remote.has_names_of_its_own()
            }
        };
        if self.plan.source.file_name().is_empty() && !has_names {
            return Err(Error::new(Kind::Invalid, format!("{} names no file", self.plan.source)));
        }
        let fetcher = Fetcher {
            limits: self.limits,
            #[cfg(feature = "upgrade-remote")]
            client: remote::Client::new(&self.network)?,
        };
        Ok(Upgrade::new(Inner {
            plan: self.plan,
            fetcher,
            drain: None,
            committing: tokio::sync::watch::Sender::new(0),
        }))
    }
}

#[cfg(feature = "upgrade-remote")]
impl Builder {
    /// How long a connection may take to be made. Default [`CONNECT_TIMEOUT`](crate::upgrade::CONNECT_TIMEOUT).
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.network.connect = timeout;
        self
    }

    /// How long nothing may come. Default [`READ_TIMEOUT`](crate::upgrade::READ_TIMEOUT).
    pub fn read_timeout(mut self, timeout: Duration) -> Self {
        self.network.read = timeout;
        self
    }

    /// Trusts the certificates in this PEM file in place of the system's.
    pub fn ca_file(mut self, path: impl AsRef<std::path::Path>) -> Self {
        self.network.ca = Some(path.as_ref().to_owned());
        self
    }

    /// Connects to this address for that host; a port of 0 is that of the URL.
    pub fn resolve(mut self, host: impl Into<String>, address: SocketAddr) -> Self {
        self.network.resolve.push((host.into(), address));
        self
    }
}

async fn verdict(handle: &Handle) -> Verdict {
    match handle.reload().await {
        Ok(Reloaded::HandedOver { .. }) => Verdict::Taken,
        Ok(Reloaded::InPlace) => {
            Verdict::Unknown("the service reloads itself in place, and does not start a new program".into())
        }
        Ok(Reloaded::PassedOn) => Verdict::Unknown("another reload was running".into()),
        Err(error) if error.is_generation() => Verdict::Refused(error.to_string()),
        Err(error) => Verdict::Unknown(error.to_string()),
    }
}
