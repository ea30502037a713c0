//! An upgrade, as the application has it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::drain::Drain;
use crate::error::Result;
use crate::upgrade::plan::UpgradeShared;
use crate::upgrade::progress::Done;
use crate::upgrade::{run, schedule};

/// The shortest time between two looks of [`Upgrade::poll`].
pub const MIN_POLL: Duration = Duration::from_secs(1);

/// Upgrades one program from one source. It is cheap to clone.
#[derive(Debug, Clone)]
pub struct Upgrade {
    inner: Arc<UpgradeShared>,
}

impl Upgrade {
    pub(super) fn new(inner: UpgradeShared) -> Self {
        Self { inner: Arc::new(inner) }
    }

    pub(super) fn hold(&mut self, drain: Drain) {
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            inner.drain = Some(drain);
        }
    }

    /// Returns the program's path.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.inner.plan.program
    }

    /// Looks for a new program, and upgrades to it if there is one. First an upgrade that was cut
    /// short is brought to its end.
    ///
    /// # Errors
    /// - [`is_fetch`](crate::Error::is_fetch): the source could not be read; nothing has changed.
    /// - [`is_candidate`](crate::Error::is_candidate): what is there is not what it should be;
    ///   nothing has changed.
    /// - [`is_generation`](crate::Error::is_generation): the service did not take it; the old
    ///   program is back in place, and the new one is not tried again.
    /// - [`is_timeout`](crate::Error::is_timeout): it is not known whether the service takes it;
    ///   the old program is back in place.
    /// - [`is_state`](crate::Error::is_state): another upgrade of the program is running, or
    ///   somebody else has replaced it meanwhile.
    /// - [`is_invalid`](crate::Error::is_invalid): the program's path, or what is remembered of it,
    ///   cannot be used.
    ///
    /// # Cancel safety
    /// Dropped before the install, nothing has changed. From there to the outcome it goes on in a
    /// task of its own.
    pub async fn run(&self) -> Result<Done> {
        run::run(&self.inner, false).await
    }

    /// Does what [`run`](Self::run) does, up to the check of the candidate; the program is not
    /// touched.
    ///
    /// # Errors
    /// It fails as [`run`](Self::run) does.
    ///
    /// # Cancel safety
    /// Nothing is left.
    pub async fn look(&self) -> Result<Done> {
        run::run(&self.inner, true).await
    }

    /// Goes back to the program before this one, and does not take this one again.
    ///
    /// # Errors
    /// It fails as [`run`](Self::run) does, with [`is_state`](crate::Error::is_state), too, if
    /// there is none.
    ///
    /// # Cancel safety
    /// It is that of [`run`](Self::run).
    pub async fn back(&self) -> Result<Done> {
        run::back(&self.inner).await
    }

    /// Waits until nothing is under way that was installed and whose outcome is not on the disk,
    /// but not longer than that. It is for who has dropped [`run`](Self::run), and is about to
    /// exit.
    ///
    /// # Cancel safety
    /// It is cancel-safe.
    pub async fn settled(&self, timeout: Duration) {
        let mut committing = self.inner.committing.subscribe();
        let _ = tokio::time::timeout(timeout, committing.wait_for(|count| *count == 0)).await;
    }

    /// Runs again and again, this often (at least [`MIN_POLL`]) with some
    /// [`JITTER`](super::JITTER), and less often while it fails, down to
    /// [`MAX_BACK_OFF`](super::MAX_BACK_OFF). Each outcome is told; what came of a new program is
    /// logged, too.
    ///
    /// # Cancel safety
    /// It is that of [`run`](Self::run).
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
