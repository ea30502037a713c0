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
use crate::upgrade::progress::Step;
use crate::upgrade::source::Source;
use crate::upgrade::trust::{Sum, Trust};

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

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) plan: Plan,
    pub(crate) fetcher: Fetcher,
    /// Of the service that upgrades itself.
    pub(crate) drain: Option<Drain>,
    /// How many of the parts that must not be cut short are under way.
    pub(crate) committing: watch::Sender<usize>,
}

impl Inner {
    /// Tells whoever asked for it that this step is done.
    pub(crate) fn tell(&self, step: &Step) {
        if let Some(told) = &self.plan.on_step {
            (told.0)(step);
        }
    }
}
