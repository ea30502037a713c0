//! One state, as the application has it, and the methods that block.

use crate::error::{BoxError, Error, Kind, Result, in_full};
use crate::state::cell::{CellForm, CellOutput, LockedCell, Trouble};
use crate::state::outcome::{Loaded, Updated};
use crate::state::payload::StateReader;
use crate::state::turn::{StatePlace, StateTurn};
use crate::systemd::fdstore::Kept;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::convert::Infallible;
use std::fmt;
use std::io::{BufReader, Read};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tracing::warn;

/// How long a state's JSON may be, unless set otherwise: 4 GiB.
pub const STATE_LIMIT: u64 = 4 << 30;

type Migrate<T> = Arc<dyn Fn(u32, &mut dyn Read) -> Result<T, BoxError> + Send + Sync>;

/// A named, versioned state of type `T`. Clones are the same, with one copy of the value between
/// them.
///
/// Every use of it can wait: for other threads, for another generation that holds it, for the
/// manager. So its methods are asynchronous, and do their work on a thread for blocking calls.
/// Those that begin with `blocking_` are for programs without a runtime, and for threads of one's
/// own; `f` may borrow there.
pub struct State<T> {
    pub(super) target: StatePlace,
    version: u32,
    limit: u64,
    migrate: Option<Migrate<T>>,
    cache: Arc<Mutex<Option<Cached<T>>>>,
}

/// The value as it was, so that an unchanged one need not be read again.
struct Cached<T> {
    cell: u64,
    sequence: u64,
    value: T,
}

enum FoundValue<T> {
    None,
    Current(T),
    Migrated(T, u32),
    Older(u32, StateReader),
    Newer(u32),
}

impl<T> State<T> {
    pub(super) fn new(target: StatePlace) -> Self {
        target.known.version.fetch_max(1, Ordering::Relaxed);
        Self { target, version: 1, limit: STATE_LIMIT, migrate: None, cache: Arc::default() }
    }

    /// Sets the version of `T`'s form, to be raised when an older JSON would not be read as a `T`.
    /// The default is 1.
    #[must_use]
    pub fn version(mut self, version: u32) -> Self {
        self.target.known.version.fetch_max(version, Ordering::Relaxed);
        self.version = version;
        self.cache = Arc::default();
        self
    }

    /// Sets how long the JSON may be. The default is [`STATE_LIMIT`].
    #[must_use]
    pub fn limit(mut self, bytes: u64) -> Self {
        self.limit = bytes;
        self
    }

    /// Makes a `T` of the JSON of an older version, whose number it gets. It runs under the lock of
    /// the state.
    #[must_use]
    pub fn migrate(
        mut self,
        migrate: impl Fn(u32, &mut dyn Read) -> Result<T, BoxError> + Send + Sync + 'static,
    ) -> Self {
        self.migrate = Some(Arc::new(migrate));
        self.cache = Arc::default();
        self
    }

    /// Returns its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.target.name
    }

    /// Removes it as [`remove`](Self::remove) does, and blocks this thread.
    ///
    /// # Blocking
    /// It must not be called on a worker of a tokio runtime: it waits there for as long as others
    /// hold the state, at most [`States::lock_timeout`](crate::state::States::lock_timeout) (5 s).
    /// One that waits long on a thread of a runtime is logged.
    ///
    /// # Errors
    ///
    /// It fails as [`remove`](Self::remove) does.
    pub fn blocking_remove(&self) -> Result<bool> {
        let mut turn = self.target.enter()?;
        let locked = match turn.lock(true) {
            Ok(locked) => locked,
            Err(Trouble::Damaged(_)) => None,
            Err(Trouble::Error(error)) => return Err(error),
        };
        let had_value = locked.as_ref().is_none_or(|locked| locked.version().is_some());
        let had_entry = self.target.store.remove(&self.target.entry())?;
        if let Some(mut locked) = locked.filter(|_| had_value) {
            locked.clear(&self.form(), self.target.keeps_previous())?;
        }
        Ok(had_entry && had_value)
    }

    pub(super) fn form(&self) -> CellForm {
        CellForm { name: self.target.name.clone(), version: self.version, limit: self.limit }
    }

    /// Locks the copy of the value. No code of `T`'s runs meanwhile.
    fn cache(&self) -> MutexGuard<'_, Option<Cached<T>>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, locked: &LockedCell, value: T) {
        let new = Cached { cell: locked.id(), sequence: locked.header.current.sequence, value };
        let old = self.cache().replace(new);
        drop(old);
    }
}

impl<T: DeserializeOwned> State<T> {
    /// Loads as [`load`](Self::load) does, and blocks this thread.
    ///
    /// # Blocking
    /// It must not be called on a worker of a tokio runtime: it waits there for as long as others
    /// hold the state, at most [`States::lock_timeout`](crate::state::States::lock_timeout) (5 s).
    /// One that waits long on a thread of a runtime is logged.
    ///
    /// # Errors
    ///
    /// It fails as [`load`](Self::load) does.
    pub fn blocking_load(&self) -> Result<Loaded<T>> {
        let mut turn = self.target.enter()?;
        let found = turn.lock(false).and_then(|locked| match locked {
            Some(locked) => self.value(&locked).map(|value| match value {
                // The memory may change as soon as the lock is gone.
                FoundValue::Older(version, reader) => reader.detach().map(|reader| FoundValue::Older(version, reader)),
                value => Ok(value),
            }),
            None => Ok(Ok(FoundValue::None)),
        });
        let why = match found {
            Ok(Err(error)) => {
                let what = format!("no memory for a copy of the state {:?}, which is of an older version", self.name());
                return Err(Error::os(what, error));
            }
            Ok(Ok(FoundValue::None)) => return Ok(Loaded::None),
            Ok(Ok(FoundValue::Current(value))) => return Ok(Loaded::Current(value)),
            Ok(Ok(FoundValue::Migrated(value, from))) => return Ok(Loaded::Migrated { value, from }),
            Ok(Ok(FoundValue::Older(version, reader))) => return Ok(Loaded::Older { version, reader }),
            Ok(Ok(FoundValue::Newer(version))) => {
                let why =
                    format!("is of version {version}, of a newer program; this one knows version {}", self.version);
                if turn.is_shared() {
                    let reason = format!("the state {:?} {why}; that program runs, so it stays", self.name());
                    warn!("{reason}");
                    return Ok(Loaded::Damaged { reason, aside: None });
                }
                why
            }
            Err(Trouble::Damaged(why)) => why,
            Err(Trouble::Error(error)) => return Err(error),
        };
        let reason = format!("the state {:?} {why}", self.name());
        // It was logged.
        let aside = turn.put_aside(Trouble::Damaged(why)).ok();
        Ok(Loaded::Damaged { reason, aside })
    }

    fn value(&self, locked: &LockedCell) -> Result<FoundValue<T>, Trouble> {
        let version = match locked.version() {
            None => return Ok(FoundValue::None),
            Some(newer) if newer > self.version => return Ok(FoundValue::Newer(newer)),
            Some(version) => version,
        };
        let mut reader = locked.reader(self.limit)?;
        if version == self.version {
            return serde_json::from_reader(BufReader::new(reader)).map(FoundValue::Current).map_err(|e| {
                Trouble::Damaged(format!(
                    "is of version {version} but does not read as one ({e}): a change of its type needs a new State::version"
                ))
            });
        }
        let Some(migrate) = &self.migrate else { return Ok(FoundValue::Older(version, reader)) };
        match migrate(version, &mut BufReader::new(&mut reader)) {
            Ok(value) => Ok(FoundValue::Migrated(value, version)),
            Err(e) => {
                Err(Trouble::Damaged(format!("is of version {version}, and its migration failed: {}", in_full(&*e))))
            }
        }
    }

    /// Returns the value, and the lock under which it stays as it is.
    fn begin(&self, turn: &mut StateTurn<'_>, exclusive: bool) -> Result<(Option<LockedCell>, Option<T>)> {
        let found = turn.lock(exclusive).and_then(|locked| {
            let value = locked.as_ref().map(|locked| self.cached_or_read(locked)).transpose()?;
            Ok((locked, value.flatten()))
        });
        found.or_else(|trouble| turn.put_aside(trouble).map(|_| (None, None)))
    }

    fn cached_or_read(&self, locked: &LockedCell) -> Result<Option<T>, Trouble> {
        self.target.check_version(locked, self.version)?;
        // Out of the cache: when what is done with it panics, it is not there half done.
        let cached = self.cache().take();
        let current =
            |cached: &Cached<T>| (cached.cell, cached.sequence) == (locked.id(), locked.header.current.sequence);
        if let Some(cached) = cached.filter(current) {
            return Ok(Some(cached.value));
        }
        match self.value(locked)? {
            FoundValue::Current(value) | FoundValue::Migrated(value, _) => Ok(Some(value)),
            FoundValue::None | FoundValue::Newer(_) => Ok(None),
            FoundValue::Older(version, _) => {
                let why = format!(
                    "the state {:?} is of version {version}, older than {}, and there is no State::migrate; State::load returns it",
                    self.name(),
                    self.version
                );
                Err(Error::new(Kind::State, why).into())
            }
        }
    }
}

impl<T: DeserializeOwned + Default> State<T> {
    /// Reads as [`read`](Self::read) does, and blocks this thread, on which it calls `f`.
    ///
    /// # Blocking
    /// It must not be called on a worker of a tokio runtime: it waits there for as long as others
    /// hold the state, at most [`States::lock_timeout`](crate::state::States::lock_timeout) (5 s).
    /// One that waits long on a thread of a runtime is logged.
    ///
    /// # Errors
    ///
    /// It fails as [`read`](Self::read) does.
    pub fn blocking_read<R>(&self, f: impl FnOnce(&T) -> R) -> Result<R> {
        let mut turn = self.target.enter()?;
        let (locked, value) = self.begin(&mut turn, false)?;
        let value = value.unwrap_or_default();
        let result = f(&value);
        if let Some(locked) = locked {
            self.remember(&locked, value);
        }
        Ok(result)
    }
}

impl<T: Serialize + DeserializeOwned + Default> State<T> {
    /// Updates as [`update`](Self::update) does, and blocks this thread, on which it calls `f`.
    ///
    /// # Blocking
    /// It must not be called on a worker of a tokio runtime: it waits there for as long as others
    /// hold the state, at most [`States::lock_timeout`](crate::state::States::lock_timeout) (5 s).
    /// One that waits long on a thread of a runtime is logged.
    ///
    /// # Errors
    ///
    /// It fails as [`update`](Self::update) does.
    ///
    /// # Panics
    ///
    /// When `f` does. Then nothing is saved, and all goes on with the value before.
    pub fn blocking_update<R>(&self, f: impl FnOnce(&mut T) -> R) -> Result<Updated<R>> {
        match self.blocking_try_update(|value| Ok::<R, Infallible>(f(value)))? {
            Ok(updated) => Ok(updated),
            Err(never) => match never {},
        }
    }

    /// Updates as [`try_update`](Self::try_update) does, and blocks this thread, on which it calls
    /// `f`.
    ///
    /// # Blocking
    /// It must not be called on a worker of a tokio runtime: it waits there for as long as others
    /// hold the state, at most [`States::lock_timeout`](crate::state::States::lock_timeout) (5 s).
    /// One that waits long on a thread of a runtime is logged.
    ///
    /// # Errors
    ///
    /// It fails as [`update`](Self::update) does.
    pub fn blocking_try_update<R, E>(&self, f: impl FnOnce(&mut T) -> Result<R, E>) -> Result<Result<Updated<R>, E>> {
        let mut turn = self.target.enter()?;
        let (locked, value) = self.begin(&mut turn, true)?;
        let mut value = value.unwrap_or_default();
        let result = match f(&mut value) {
            Ok(result) => result,
            Err(refused) => return Ok(Err(refused)),
        };
        let produce = |output: &mut CellOutput<'_>| serde_json::to_writer(output, &value);
        let kept = match locked {
            Some(mut locked) => {
                locked.write(&self.form(), self.target.keeps_previous(), produce)?;
                self.remember(&locked, value);
                turn.kept()
            }
            None => turn.create(&self.form(), produce)?,
        };
        Ok(Ok(Updated { result, kept }))
    }
}

impl<T: Serialize> State<T> {
    /// Saves as [`save`](Self::save) does, without a copy of the JSON, and blocks this thread.
    ///
    /// # Blocking
    /// It must not be called on a worker of a tokio runtime: it waits there for as long as others
    /// hold the state, at most [`States::lock_timeout`](crate::state::States::lock_timeout) (5 s).
    /// One that waits long on a thread of a runtime is logged.
    ///
    /// # Errors
    ///
    /// It fails as [`save`](Self::save) does.
    pub fn blocking_save(&self, value: &T) -> Result<Kept> {
        let ticket = self.ticket();
        self.target.publish(&self.form(), ticket, |output| serde_json::to_writer(output, value))
    }

    pub(super) fn ticket(&self) -> u64 {
        // What is remembered is of no use from now on.
        let old = self.cache().take();
        drop(old);
        self.target.known.begun.fetch_add(1, Ordering::Relaxed) + 1
    }
}

impl<T> fmt::Debug for State<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("name", &self.target.name).field("version", &self.version).finish_non_exhaustive()
    }
}

impl<T> Clone for State<T> {
    fn clone(&self) -> Self {
        let Self { target, version, limit, migrate, cache } = self;
        Self {
            target: target.clone(),
            version: *version,
            limit: *limit,
            migrate: migrate.clone(),
            cache: Arc::clone(cache),
        }
    }
}
