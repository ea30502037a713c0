//! The methods of a state that hold up nobody: what blocks is done on a thread for blocking calls.

use crate::error::{Error, Kind, Result};
use crate::state::handle::State;
use crate::state::outcome::{Loaded, Updated};
use crate::state::waiting::may_wait;
use crate::systemd::fdstore::Kept;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::Write as _;

impl<T> State<T> {
    /// Removes it, for all generations. It returns false if there was none.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped after it was first polled, the state is removed all the same.
    ///
    /// # Errors
    ///
    /// It fails as [`FdStore::remove`](crate::systemd::fdstore::FdStore::remove) does.
    /// [`Error::is_timeout`]: another generation holds it.
    ///
    /// # Panics
    ///
    /// Without a tokio runtime.
    pub async fn remove(&self) -> Result<bool>
    where
        T: Send + 'static,
    {
        let state = self.clone();
        aside(move || state.blocking_remove()).await
    }
}

impl<T: DeserializeOwned> State<T> {
    /// Loads the newest value that was saved, by any generation. To read 1 GiB takes seconds, and
    /// who wants to change it meanwhile waits.
    ///
    /// # Errors
    ///
    /// - [`Error::is_invalid`]: the name cannot be used.
    /// - [`Error::is_timeout`]: another generation, or another thread, holds it for longer than
    ///   [`States::lock_timeout`](crate::state::States::lock_timeout).
    /// - There is no fd left, or no `/proc`.
    ///
    /// What is wrong with a state is no error, but [`Loaded::Damaged`].
    ///
    /// # Panics
    ///
    /// Without a tokio runtime.
    pub async fn load(&self) -> Result<Loaded<T>>
    where
        T: Send + 'static,
    {
        let state = self.clone();
        aside(move || state.blocking_load()).await
    }
}

impl<T: DeserializeOwned + Default> State<T> {
    /// Looks at the value: never older than what any generation was told that it is saved. It is
    /// read again only when it has changed. Where there is none, or a damaged one, which is then
    /// put aside, it is the default.
    ///
    /// `f` runs on a thread for blocking calls, and holds the lock: others of this process wait
    /// meanwhile, and who wants to change it.
    ///
    /// # Errors
    ///
    /// It fails as [`load`](Self::load) does. [`Error::is_state`]: it is of a newer version, or of
    /// an older one, and there is no [`migrate`](Self::migrate). Damage that cannot be put aside is
    /// an error as well.
    ///
    /// # Panics
    ///
    /// When `f` does, and without a tokio runtime.
    pub async fn read<R: Send + 'static>(&self, f: impl FnOnce(&T) -> R + Send + 'static) -> Result<R>
    where
        T: Send + 'static,
    {
        let state = self.clone();
        aside(move || state.blocking_read(f)).await
    }
}

impl<T: Serialize + DeserializeOwned + Default> State<T> {
    /// Changes the value: it is locked, read again if another generation has changed it, changed by
    /// `f`, and saved as a whole. So of two generations that live at the same time none undoes what
    /// the other one did.
    ///
    /// When this returns, it is saved: a SIGKILL does not lose it ([`Kept`] says what a crash that
    /// ends all generations does). Where there is no value, or a damaged one, which is then put
    /// aside, `f` begins with the default; with an older version it begins with what
    /// [`migrate`](Self::migrate) returns.
    ///
    /// The value stays in the memory of the process, so that the next update only has to write. All
    /// of it happens on a thread for blocking calls, `f` included: it takes microseconds with a
    /// small value, as long as another generation holds the state, and the first time the manager's
    /// answer. `f` holds the lock, and must not use this state by another handle: that times out.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped after it was first polled, the change is done all the same.
    ///
    /// # Errors
    ///
    /// The value is as it was before, for everybody.
    ///
    /// - [`Error::is_timeout`]: another generation, or another thread, holds it for longer than
    ///   [`States::lock_timeout`](crate::state::States::lock_timeout). `f` was not called.
    /// - [`Error::is_state`]: it is of a newer version; or of an older one, and there is no
    ///   [`migrate`](Self::migrate); or there is none, and this generation cannot make one any
    ///   more, as it has handed over.
    /// - [`Error::is_invalid`]: it is no JSON, longer than the limit, or the name cannot be used.
    /// - For the first value of a state, as for
    ///   [`FdStore::put`](crate::systemd::fdstore::FdStore::put).
    ///
    /// # Panics
    ///
    /// When `f` does, and without a tokio runtime. Then nothing is saved, and all goes on with the
    /// value before.
    pub async fn update<R: Send + 'static>(&self, f: impl FnOnce(&mut T) -> R + Send + 'static) -> Result<Updated<R>>
    where
        T: Send + 'static,
    {
        let state = self.clone();
        aside(move || state.blocking_update(f)).await
    }

    /// Updates as [`update`](Self::update) does, but when `f` returns an error, which is the inner
    /// one, nothing is saved.
    ///
    /// # Cancel safety
    ///
    /// As that of [`update`](Self::update).
    ///
    /// # Errors
    ///
    /// It fails as [`update`](Self::update) does.
    ///
    /// # Panics
    ///
    /// When `f` does, and without a tokio runtime.
    pub async fn try_update<R, E>(
        &self,
        f: impl FnOnce(&mut T) -> Result<R, E> + Send + 'static,
    ) -> Result<Result<Updated<R>, E>>
    where
        T: Send + 'static,
        R: Send + 'static,
        E: Send + 'static,
    {
        let state = self.clone();
        aside(move || state.blocking_try_update(f)).await
    }
}

impl<T: Serialize> State<T> {
    /// Makes it the value, whatever was there. While two generations live, the last one that saves
    /// wins: to change a part of a value, use [`update`](Self::update).
    ///
    /// When this returns [`Kept::Stored`], it is there again after any crash. The value is
    /// serialized here, which takes as long as it takes and needs memory for the JSON, and written
    /// on a thread for blocking calls. Of several saves at the same time, the last one that was
    /// begun wins. The others then mean that this value, or a newer one, is kept.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped after it was first polled, it is saved all the same.
    ///
    /// # Errors
    ///
    /// It fails as [`update`](Self::update) does; an older version is replaced also without a
    /// migration.
    ///
    /// # Panics
    ///
    /// Without a tokio runtime.
    pub async fn save(&self, value: &T) -> Result<Kept> {
        let (ticket, target, form) = (self.ticket(), self.target.clone(), self.form());
        let json = serde_json::to_vec(value).map_err(|e| {
            Error::caused(Kind::Invalid, format!("the state {:?} cannot be written as JSON", form.name), e.into())
        })?;
        aside(move || target.publish(&form, ticket, |output| output.write_all(&json).map_err(serde_json::Error::io)))
            .await
    }
}

/// Calls it on a thread for blocking calls.
async fn aside<R: Send + 'static>(f: impl FnOnce() -> Result<R> + Send + 'static) -> Result<R> {
    match tokio::task::spawn_blocking(|| may_wait(f)).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(error) => Err(Error::new(Kind::State, format!("the state was not changed: {error}"))),
    }
}
