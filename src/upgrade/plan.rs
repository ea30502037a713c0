//! What an upgrade was told, and what it needs for its work.

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::drain::Drain;
use crate::upgrade::fetch::Fetcher;
use crate::upgrade::progress::UpgradeStep;
use crate::upgrade::source::ProgramSource;
use crate::upgrade::trust::{Sum, Trust};

/// How a service took its new program.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// It runs now.
    Taken,
    /// The old one serves on, because of the new one. The old file is put back, and the new one is
    /// not tried again.
    Refused(String),
    /// Nobody could be asked, or there was no answer in time. The old file is put back; the new one
    /// may be tried again.
    Unknown(String),
}

type VerdictFuture = Pin<Box<dyn Future<Output = Verdict> + Send>>;

#[derive(Clone)]
pub(crate) struct AskReload(pub(crate) Arc<dyn Fn() -> VerdictFuture + Send + Sync>);

#[derive(Clone)]
pub(crate) struct OnStep(pub(crate) Arc<dyn Fn(&UpgradeStep) + Send + Sync>);

impl fmt::Debug for AskReload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AskReload")
    }
}

impl fmt::Debug for OnStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnStep")
    }
}

/// What the upgrade was told, which does not change.
#[derive(Debug, Clone)]
pub(crate) struct UpgradePlan {
    pub(crate) program: PathBuf,
    pub(crate) source: ProgramSource,
    pub(crate) trust: Trust,
    pub(crate) sum: Option<Sum>,
    pub(crate) check: Option<String>,
    pub(crate) check_timeout: Duration,
    pub(crate) keep: usize,
    pub(crate) any_format: bool,
    pub(crate) retry: bool,
    /// A signature may be of another file, or made before that of a program that ran already.
    pub(crate) any_name: bool,
    pub(crate) allow_older: bool,
    /// How the service is asked for a reload; none if what is installed is not asked for.
    pub(crate) reload: Option<AskReload>,
    pub(crate) on_step: Option<OnStep>,
}

#[derive(Debug)]
pub(crate) struct UpgradeShared {
    pub(crate) plan: UpgradePlan,
    pub(crate) fetcher: Fetcher,
    /// The drain of the service that upgrades itself.
    pub(crate) drain: Option<Drain>,
    /// How many of the parts that must not be cut short are under way.
    pub(crate) committing: watch::Sender<usize>,
}

impl UpgradeShared {
    /// Tells whoever asked for it that this step is done.
    pub(crate) fn tell(&self, step: &UpgradeStep) {
        if let Some(told) = &self.plan.on_step {
            (told.0)(step);
        }
    }
}
