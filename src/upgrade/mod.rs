//! New programs: fetched, verified, put in place of the running one, and put back if the service does not take them.
//!
//! ```text
//! fetch → size, SHA-256, signature, ELF → check → keep the old one → install → reload ─┬─ taken:   remember, forget the oldest
//!                                                                                    └─ refused: put the old one back, remember the bad one
//! ```
//!
//! The tool does it as `handover upgrade`. A service can do it by itself:
//!
#![cfg_attr(feature = "upgrade-remote", doc = "```no_run")]
#![cfg_attr(not(feature = "upgrade-remote"), doc = "```ignore")]
//! use handover::upgrade::{Source, Trust, Upgrade};
//! use std::time::Duration;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> handover::Result<()> {
//! let service = handover::Service::builder().listen("http", "127.0.0.1:8080").start()?;
//! let source = Source::url("https://releases.example.com/web/web")?;
//! let trust = Trust::keys(["RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3"])?;
//! let upgrade = Upgrade::builder("/opt/web/web", source, trust).check("{} --version").service(&service)?;
//! let drains = service.drain().signal();
//! tokio::spawn(async move {
//!     tokio::select! {
//!         () = drains => {} // the next generation looks from now on
//!         never = upgrade.poll(Duration::from_secs(60), |_| ()) => never,
//!     }
//! });
//! service.run().await
//! # }
//! ```
//!
//! The feature `upgrade` takes programs from files of this machine; `upgrade-remote` adds the sources that are elsewhere ([`Source::url`],
//! [`GitHub`], [`S3`]), and with them a client for HTTP and TLS.
//!
//! What lies where, what a crash at which moment leaves, and whom to trust is in [`docs::upgrade`](crate::docs::upgrade).
//!
//! # Limitations
//! - The candidate is the program itself, no archive: what is signed is what is executed.
//! - A signature does not tell what is newest: who can put files in the source's place can put an older one there, signed and good.
//! - File capabilities, extended attributes and set-user-id bits are not carried over.

mod builder;
mod check;
mod elf;
mod fetch;
mod place;
mod record;
#[cfg(feature = "upgrade-remote")]
mod remote;
mod run;
mod schedule;
mod source;
mod trust;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;

pub use builder::{Builder, CHECK_TIMEOUT, KEEP, MIN_POLL, Verdict};
pub use fetch::{FETCH_TIMEOUT, MAX_SIZE};
pub use record::BAD_KEPT;
#[cfg(feature = "upgrade-remote")]
pub use remote::{CONNECT_TIMEOUT, GITHUB_API, GitHub, Http, MAX_REDIRECTS, READ_TIMEOUT, Remote, S3};
pub use schedule::{JITTER, MAX_BACK_OFF};
pub use source::Source;
pub use trust::Trust;

use crate::drain::Drain;
use crate::error::Result;
use builder::Plan;
use fetch::Fetcher;

/// Upgrades one program from one source. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Upgrade {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    plan: Plan,
    fetcher: Fetcher,
    /// Of the service that upgrades itself.
    drain: Option<Drain>,
    /// How many of the parts that must not be cut short are under way.
    committing: watch::Sender<usize>,
}

/// How an upgrade ended that did not fail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Done {
    /// The source has the program that runs.
    UpToDate {
        /// The SHA-256 of the program, as hexadecimal digits.
        sha256: String,
    },
    /// The source has a program that the service would not have before: it is not tried again.
    KnownBad {
        /// Its SHA-256.
        sha256: String,
        /// What it did.
        reason: String,
    },
    /// A new program passed all that can be looked at without installing it: [`Upgrade::look`].
    Available {
        /// Its SHA-256.
        sha256: String,
        /// That of the program.
        current: String,
    },
    /// The service runs the new program.
    Upgraded {
        /// Its SHA-256.
        sha256: String,
        /// That of the one before.
        previous: String,
    },
    /// The new program is in place; nobody was asked to reload: [`Builder::install_only`].
    Installed {
        /// Its SHA-256.
        sha256: String,
        /// That of the one before.
        previous: String,
    },
}

/// What has just been done. Killed after any of them, an upgrade leaves a whole program in place, and the next one goes on from there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "step", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Step {
    /// No other upgrade of the program runs.
    Locked,
    /// An upgrade that was cut short after the install is taken up: the service is asked again.
    Resumed {
        /// The SHA-256 of what it installed.
        sha256: String,
    },
    /// The candidate has come.
    Fetched {
        /// Its SHA-256.
        sha256: String,
    },
    /// Its SHA-256, signature and format are good.
    Verified,
    /// It has passed the check.
    Checked,
    /// It is on the disk, among the versions.
    Kept,
    /// So is the program that it replaces.
    PreviousKept,
    /// What is going to be done is on the disk.
    Recorded,
    /// It is the program.
    Installed,
    /// The service has it.
    Taken,
    /// The service would not have it, or did not answer.
    NotTaken {
        /// Why.
        reason: String,
    },
    /// The program of before is the program again.
    Restored,
    /// The outcome is on the disk.
    Settled,
    /// Versions that are not kept are gone.
    Pruned,
}

impl Upgrade {
    /// Of the program at this path, which is absolute and no symbolic link, from there, if it is signed by those.
    pub fn builder(program: impl Into<PathBuf>, source: Source, trust: Trust) -> Builder {
        Builder::new(program.into(), source, trust)
    }

    fn new(inner: Inner) -> Self {
        Self { inner: Arc::new(inner) }
    }

    fn hold(&mut self, drain: Drain) {
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            inner.drain = Some(drain);
        }
    }

    /// The program's path.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.inner.plan.program
    }

    /// Looks for a new program, and upgrades to it if there is one. First an upgrade that was cut short is brought to its end.
    ///
    /// # Errors
    /// - [`is_fetch`](crate::Error::is_fetch): the source could not be read; nothing has changed.
    /// - [`is_candidate`](crate::Error::is_candidate): what is there is not what it should be; nothing has changed.
    /// - [`is_generation`](crate::Error::is_generation): the service did not take it; the old program is back in place, and the new one is not
    ///   tried again.
    /// - [`is_timeout`](crate::Error::is_timeout): it is not known whether the service takes it; the old program is back in place.
    /// - [`is_state`](crate::Error::is_state): another upgrade of the program is running, or somebody else has replaced it meanwhile.
    /// - [`is_invalid`](crate::Error::is_invalid): the program's path, or what is remembered of it, cannot be used.
    ///
    /// # Cancel safety
    /// Dropped before the install, nothing has changed. From there to the outcome it goes on in a task of its own.
    pub async fn run(&self) -> Result<Done> {
        run::run(&self.inner, false).await
    }

    /// As [`run`](Self::run), up to the check of the candidate; the program is not touched.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// Nothing is left.
    pub async fn look(&self) -> Result<Done> {
        run::run(&self.inner, true).await
    }

    /// Goes back to the program before this one, and does not take this one again.
    ///
    /// # Errors
    /// As [`run`](Self::run), with [`is_state`](crate::Error::is_state), too, if there is none.
    ///
    /// # Cancel safety
    /// As there.
    pub async fn back(&self) -> Result<Done> {
        run::back(&self.inner).await
    }

    /// Waits until nothing is under way that was installed and whose outcome is not on the disk; so long at most. For who has dropped
    /// [`run`](Self::run), and is about to exit.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn settled(&self, timeout: Duration) {
        let mut committing = self.inner.committing.subscribe();
        let _ = tokio::time::timeout(timeout, committing.wait_for(|count| *count == 0)).await;
    }

    /// Runs again and again, this often (at least [`MIN_POLL`]) with some [`JITTER`], and less often while it fails, down to
    /// [`MAX_BACK_OFF`]. Each outcome is told; what came of a new program is logged, too.
    ///
    /// # Cancel safety
    /// As [`run`](Self::run).
    pub async fn poll<T>(&self, every: Duration, mut told: impl FnMut(&Result<Done>)) -> T {
        let mut failures = 0_u32;
        loop {
            let outcome = self.run().await;
            failures = if outcome.is_ok() { 0 } else { failures.saturating_add(1) };
            told(&outcome);
            tokio::time::sleep(schedule::wait(every.max(MIN_POLL), failures, fastrand::f64())).await;
        }
    }
}
