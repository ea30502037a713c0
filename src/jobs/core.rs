//! What all jobs of a service share.

use std::sync::Arc;

use tokio::runtime::Handle;

use super::children::Children;
use super::report::Counts;
use super::spawner::Lanes;
use crate::drain::Drain;
use crate::error::{Error, Kind};

/// The jobs of a service, as each of them knows it.
#[derive(Debug)]
pub(super) struct JobsCore {
    pub(super) drain: Drain,
    pub(super) counts: Arc<Counts>,
    pub(super) children: Children,
    pub(super) lanes: Lanes,
    #[cfg(feature = "scope")]
    pub(super) scopes: crate::systemd::scope::Scopes,
}

impl JobsCore {
    pub(super) fn new(drain: &Drain) -> Self {
        Self {
            drain: drain.clone(),
            counts: Arc::default(),
            children: Children::default(),
            lanes: Lanes::default(),
            #[cfg(feature = "scope")]
            scopes: crate::systemd::scope::Scopes::default(),
        }
    }
}

pub(super) fn runtime() -> Result<Handle, Error> {
    Handle::try_current().map_err(|_| Error::new(Kind::State, "a job needs a tokio runtime: start it in an async fn"))
}
