//! What an upgrade is to be.

use std::future::Future;
#[cfg(feature = "upgrade-remote")]
use std::net::SocketAddr;
#[cfg(feature = "upgrade-remote")]
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Kind, Result};
use crate::service::{Handle, Reloaded, Service};
use crate::upgrade::fetch::{Fetcher, Limits};
use crate::upgrade::handle::Upgrade;
use crate::upgrade::plan::{AskReload, OnStep, UpgradePlan, UpgradeShared, Verdict};
use crate::upgrade::progress::UpgradeStep;
#[cfg(feature = "upgrade-remote")]
use crate::upgrade::remote;
use crate::upgrade::source::ProgramSource;
use crate::upgrade::trust::{Sum, Trust, checked_hex};

/// How many programs before the running one are kept.
pub const KEEP: usize = 3;
/// How long the check of a candidate may take.
pub const CHECK_TIMEOUT: Duration = Duration::from_secs(30);

/// Makes an [`Upgrade`].
#[derive(Debug, Clone)]
#[must_use]
pub struct UpgradeBuilder {
    plan: UpgradePlan,
    limits: Limits,
    #[cfg(feature = "upgrade-remote")]
    network: remote::Network,
}

impl Upgrade {
    /// Prepares upgrades of the program at this path, which is absolute and no symbolic link, from
    /// that source, if it is signed by those.
    pub fn builder(program: impl Into<PathBuf>, source: ProgramSource, trust: Trust) -> UpgradeBuilder {
        UpgradeBuilder::new(program.into(), source, trust)
    }
}

impl UpgradeBuilder {
    fn new(program: PathBuf, source: ProgramSource, trust: Trust) -> Self {
        let plan = UpgradePlan {
            program,
            source,
            trust,
            sum: None,
            check: None,
            check_timeout: CHECK_TIMEOUT,
            keep: KEEP,
            any_format: false,
            retry: false,
            any_name: false,
            allow_older: false,
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

    /// Sets the SHA-256 that the candidate must have, as 64 hexadecimal digits.
    ///
    /// # Errors
    /// With [`Error::is_invalid`]: it is none.
    pub fn sha256(mut self, digits: &str) -> Result<Self> {
        self.plan.sum = Some(Sum::Given(checked_hex(digits)?));
        Ok(self)
    }

    /// Names a list, such as `SHA256SUMS`, which lies where the candidate does and has its SHA-256.
    pub fn sha256_in(mut self, name: impl Into<String>) -> Self {
        self.plan.sum = Some(Sum::In(name.into()));
        self
    }

    /// Sets a command of the shell that the candidate must pass; `{}` in it, or `"$CANDIDATE"`, is
    /// the candidate's path. It runs as this process's user, outside the service, with `PATH`,
    /// `HOME`, `TMPDIR`, `TZ` and what tells the user and the language, and nothing else of this
    /// process's environment. By default there is none.
    pub fn check(mut self, command: impl Into<String>) -> Self {
        self.plan.check = Some(command.into());
        self
    }

    /// Sets how long the check may take. The default is [`CHECK_TIMEOUT`].
    pub fn check_timeout(mut self, timeout: Duration) -> Self {
        self.plan.check_timeout = timeout;
        self
    }

    /// Sets how many programs before the running one are kept; at least the last one is. The
    /// default is [`KEEP`].
    pub fn keep(mut self, programs: usize) -> Self {
        self.plan.keep = programs.max(1);
        self
    }

    /// Takes files that are no ELF programs of this machine, such as scripts.
    pub fn any_format(mut self) -> Self {
        self.plan.any_format = true;
        self
    }

    /// Takes a signature that was made for a file of another name. By default the `file:` that
    /// minisign signs with the program must be the name of the program, or its name at the source.
    pub fn any_name(mut self) -> Self {
        self.plan.any_name = true;
        self
    }

    /// Takes a signature that was made before that of a program which the service has taken
    /// already. By default the `timestamp:` that minisign signs with the program must not be older.
    pub fn allow_older(mut self) -> Self {
        self.plan.allow_older = true;
        self
    }

    /// Tries again what is known to be bad.
    pub fn retry(mut self) -> Self {
        self.plan.retry = true;
        self
    }

    /// Sets how large the program may be, in bytes. The default is
    /// [`MAX_SIZE`](crate::upgrade::MAX_SIZE).
    pub fn max_size(mut self, bytes: u64) -> Self {
        self.limits.size = bytes;
        self
    }

    /// Sets how long all of it may take to come. The default is
    /// [`FETCH_TIMEOUT`](crate::upgrade::FETCH_TIMEOUT).
    pub fn fetch_timeout(mut self, timeout: Duration) -> Self {
        self.limits.total = timeout;
        self
    }

    /// Calls this with each [`UpgradeStep`] as it is done, in the upgrade's own task: it must not
    /// block.
    pub fn on_step(mut self, told: impl Fn(&UpgradeStep) + Send + Sync + 'static) -> Self {
        self.plan.on_step = Some(OnStep(Arc::new(told)));
        self
    }

    /// Makes the upgrade of a service that upgrades itself. Its generation lives until the outcome
    /// is on the disk.
    ///
    /// # Errors
    /// It fails as [`reload_with`](Self::reload_with) does.
    pub fn service(self, service: &Service) -> Result<Upgrade> {
        let drain = service.drain().clone();
        let mut upgrade = self.handle(service.handle())?;
        upgrade.hold(drain);
        Ok(upgrade)
    }

    /// Makes the upgrade for the program of a [`Supervisor`](crate::supervise::Supervisor) in this
    /// process, or for whatever else the handle reloads.
    ///
    /// # Errors
    /// It fails as [`reload_with`](Self::reload_with) does.
    pub fn handle(self, handle: Handle) -> Result<Upgrade> {
        self.reload_with(move || {
            let handle = handle.clone();
            async move { verdict(&handle).await }
        })
    }

    /// Makes the upgrade for another process's service: `ask` asks it for a reload, and tells the
    /// outcome. It needs a deadline of its own.
    ///
    /// # Errors
    /// With [`Error::is_invalid`]: the program's path is not absolute, a certificate cannot be
    /// read, or what is unsigned would come over plain `http://` without a checksum.
    pub fn reload_with<F>(mut self, ask: impl Fn() -> F + Send + Sync + 'static) -> Result<Upgrade>
    where
        F: Future<Output = Verdict> + Send + 'static,
    {
        self.plan.reload = Some(AskReload(Arc::new(move || Box::pin(ask()))));
        self.build()
    }

    /// Makes the upgrade for a service that is not running: its next start takes the new program.
    /// There is no outcome that could be waited for.
    ///
    /// # Errors
    /// It fails as [`reload_with`](Self::reload_with) does.
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
        let named_later = match &self.plan.source {
            ProgramSource::File(_) => false,
            #[cfg(feature = "upgrade-remote")]
            ProgramSource::Remote(remote) => {
                remote.check()?;
                remote.is_named_later()
            }
        };
        if self.plan.source.file_name().is_empty() && !named_later {
            return Err(Error::new(Kind::Invalid, format!("{} names no file", self.plan.source)));
        }
        let fetcher = Fetcher {
            limits: self.limits,
            #[cfg(feature = "upgrade-remote")]
            client: remote::HttpClient::new(&self.network)?,
        };
        Ok(Upgrade::new(UpgradeShared {
            plan: self.plan,
            fetcher,
            drain: None,
            committing: tokio::sync::watch::Sender::new(0),
        }))
    }
}

#[cfg(feature = "upgrade-remote")]
impl UpgradeBuilder {
    /// Sets how long a connection may take to be made. The default is
    /// [`CONNECT_TIMEOUT`](crate::upgrade::CONNECT_TIMEOUT).
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.network.connect = timeout;
        self
    }

    /// Sets for how long nothing may come. The default is
    /// [`READ_TIMEOUT`](crate::upgrade::READ_TIMEOUT).
    pub fn read_timeout(mut self, timeout: Duration) -> Self {
        self.network.read = timeout;
        self
    }

    /// Trusts the certificates in this PEM file in place of the system's.
    pub fn ca_file(mut self, path: impl AsRef<Path>) -> Self {
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
