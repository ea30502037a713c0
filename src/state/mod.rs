//! State that outlives the process: saved into memory that systemd keeps, and passed to the next generation.
//!
//! ```no_run
//! use handover::state::{Loaded, States};
//! # use handover::systemd::{activation::Activation, environment::Environment, fdstore::{FdStore, Names}, notify::Notifier};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize, Default)]
//! struct Sessions {
//!     count: u64,
//! }
//!
//! # fn main() -> handover::Result<()> {
//! # let environment = Environment::capture();
//! # let notifier = Notifier::from_env(&environment)?;
//! # let mut activation = Activation::from_env(&environment)?;
//! # let store = FdStore::open(&environment, &notifier, &mut activation, &Names::new())?;
//! let sessions = States::new(store).state::<Sessions>("sessions").version(2).migrate(|_older, reader| {
//!     Ok(Sessions { count: serde_json::from_reader(reader)? }) // version 1 was only a number
//! });
//! let mut current = match sessions.load()? {
//!     Loaded::Current(sessions) | Loaded::Migrated { value: sessions, .. } => sessions,
//!     _ => Sessions::default(), // nothing there, or nothing that can be read: that was logged
//! };
//! current.count += 1;
//! sessions.save(&current)?; // from here on it survives a SIGKILL
//! # Ok(())
//! # }
//! ```
//!
//! A state is JSON in a sealed memory file, after a header with its name, version, sequence number, length and checksum (CRC-32:
//! it finds damage, not malice; only processes of the service can put anything there). Each [`save`](State::save) makes a new
//! file and [replaces](crate::systemd::fdstore::FdStore::replace) the one before, so that a crash at any moment leaves one
//! of the two, whole. It counts as memory of the service (`MemoryMax=`), twice for the moment of the replacement.

mod file;

pub use file::StateReader;

use crate::error::{Error, Kind, Result};
use crate::systemd::fdstore::{FdStore, Kept};
use crate::wire::state::MAX_NAME;
use crate::wire::store::RESERVED;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{BufReader, Read};
use std::marker::PhantomData;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use tracing::warn;

/// How long a state's JSON may be, unless set otherwise: 4 GiB.
pub const STATE_LIMIT: u64 = 4 << 30;

/// What a migration may fail with.
pub type MigrationError = Box<dyn std::error::Error + Send + Sync>;

type Migrate<T> = Arc<dyn Fn(u32, &mut dyn Read) -> Result<T, MigrationError> + Send + Sync>;

/// The states of a service. Clones are the same.
#[derive(Debug, Clone)]
pub struct States {
    store: FdStore,
    /// By name, so that two handles of one state do not overtake each other.
    turns: Arc<Mutex<BTreeMap<String, Arc<Mutex<Turn>>>>>,
}

#[derive(Debug, Default)]
struct Turn {
    /// Of the newest save that was begun.
    begun: u64,
    /// Of the newest that is in the store.
    saved: u64,
}

impl States {
    /// The states that are kept in this store.
    #[must_use]
    pub fn new(store: FdStore) -> Self {
        Self { store, turns: Arc::default() }
    }

    /// The state of that name. A name that cannot be used is told by [`State::load`] and [`State::save`].
    #[must_use]
    pub fn state<T>(&self, name: impl Into<String>) -> State<T> {
        let name = name.into();
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = Arc::clone(turns.entry(name.clone()).or_default());
        let target = Target { store: self.store.clone(), name, turn };
        State { target, version: 1, limit: STATE_LIMIT, migrate: None, value: PhantomData }
    }

    /// Memory of that many bytes, zero at first, for the application to map: what is written to it is kept as it is written.
    ///
    /// Its size is sealed. The previous generation, while it drains, has the same memory.
    ///
    /// # Errors
    ///
    /// [`Error::is_invalid`]: there is memory of another size under that name, or the name cannot be used. Else as for
    /// [`FdStore::put`].
    pub fn raw(&self, name: &str, size: u64) -> Result<RawState> {
        check_name(name)?;
        let entry = format!("{RESERVED}raw.{name}");
        if let Some(fd) = self.store.get(&entry)?.pop() {
            match file::raw_size(&fd) {
                Ok(there) if there == size => return Ok(RawState { fd, fresh: false }),
                Ok(there) => {
                    let why = format!(
                        "the raw state {name:?} has {there} bytes, not {size}: its size never changes; use another name, \
                         and remove this one"
                    );
                    return Err(Error::new(Kind::Invalid, why));
                }
                Err(why) => {
                    put_aside(&self.store, &entry, name, &why);
                }
            }
        }
        let fd = file::raw(name, size)?;
        self.store.put(&entry, &[&fd])?;
        Ok(RawState { fd, fresh: true })
    }

    /// Removes the raw state of that name. False: there was none.
    ///
    /// # Errors
    ///
    /// As for [`FdStore::remove`].
    pub fn remove_raw(&self, name: &str) -> Result<bool> {
        self.store.remove(&format!("{RESERVED}raw.{name}"))
    }
}

/// Shared memory for the application.
#[derive(Debug)]
#[non_exhaustive]
pub struct RawState {
    /// The memory file, to be mapped with `MAP_SHARED`.
    pub fd: OwnedFd,
    /// Whether it was made just now, so all zero.
    pub fresh: bool,
}

/// What [`State::load`] found.
#[derive(Debug)]
#[non_exhaustive]
pub enum Loaded<T> {
    /// There is no state of that name: a first start, or the store was lost.
    None,
    /// A state of this version.
    Current(T),
    /// A state of an older version, and what [`State::migrate`] made of it. It is not saved yet.
    Migrated {
        /// What the migration returned.
        value: T,
        /// Its version before.
        from: u32,
    },
    /// A state of an older version, and no migration is set.
    Older {
        /// Its version.
        version: u32,
        /// Its JSON.
        reader: StateReader,
    },
    /// There is a state, but it cannot be used: truncated, foreign, too long, of a newer version. It was logged and put aside.
    Damaged {
        /// What is wrong with it, as a sentence.
        reason: String,
        /// The name in the fd store under which it is kept now, until another one of this state is.
        aside: Option<String>,
    },
}

impl<T> Loaded<T> {
    /// The value, if there is one: of this version or migrated.
    pub fn value(self) -> Option<T> {
        match self {
            Self::Current(value) | Self::Migrated { value, .. } => Some(value),
            _ => None,
        }
    }
}

/// A named, versioned state of type `T`.
pub struct State<T> {
    target: Target,
    version: u32,
    limit: u64,
    migrate: Option<Migrate<T>>,
    value: PhantomData<fn() -> T>,
}

/// Where it is saved.
#[derive(Debug, Clone)]
struct Target {
    store: FdStore,
    name: String,
    turn: Arc<Mutex<Turn>>,
}

impl<T> State<T> {
    /// The version of `T`'s form, to be raised when an older JSON would not be read as a `T`. Default: 1.
    #[must_use]
    pub fn version(mut self, version: u32) -> Self {
        self.version = version;
        self
    }

    /// How long the JSON may be. Default: [`STATE_LIMIT`].
    #[must_use]
    pub fn limit(mut self, bytes: u64) -> Self {
        self.limit = bytes;
        self
    }

    /// Makes a `T` of the JSON of an older version, whose number it gets.
    #[must_use]
    pub fn migrate(
        mut self,
        migrate: impl Fn(u32, &mut dyn Read) -> Result<T, MigrationError> + Send + Sync + 'static,
    ) -> Self {
        self.migrate = Some(Arc::new(migrate));
        self
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.target.name
    }

    /// Removes it. False: there was none.
    ///
    /// # Errors
    ///
    /// As for [`FdStore::remove`].
    pub fn remove(&self) -> Result<bool> {
        self.target.store.remove(&self.target.entry())
    }
}

impl<T: DeserializeOwned> State<T> {
    /// The newest state that was saved, by this process or one before it. Reading 1 GiB takes seconds and blocks.
    ///
    /// # Errors
    ///
    /// The name cannot be used ([`Error::is_invalid`]), or there is no fd left. What is wrong with a state is no error, but
    /// [`Loaded::Damaged`].
    pub fn load(&self) -> Result<Loaded<T>> {
        check_name(&self.target.name)?;
        let Some(fd) = newest(self.target.store.get(&self.target.entry())?) else { return Ok(Loaded::None) };
        let (header, mut reader) = match file::open(fd, &self.target.name, self.limit) {
            Ok(opened) => opened,
            Err(why) => return Ok(self.damaged(&why)),
        };
        self.target.seen(header.sequence);
        let version = header.version;
        Ok(match &self.migrate {
            _ if version == self.version => match serde_json::from_reader(BufReader::new(reader)) {
                Ok(value) => Loaded::Current(value),
                Err(e) => self.damaged(&format!(
                    "is of version {version} but does not read as one ({e}): a change of its type needs a new State::version"
                )),
            },
            _ if version > self.version => self.damaged(&format!(
                "is of version {version}, of a newer program; this one knows version {}",
                self.version
            )),
            None => Loaded::Older { version, reader },
            Some(migrate) => match migrate(version, &mut BufReader::new(&mut reader)) {
                Ok(value) => Loaded::Migrated { value, from: version },
                Err(e) => self.damaged(&format!("is of version {version}, and its migration failed: {e}")),
            },
        })
    }

    fn damaged(&self, why: &str) -> Loaded<T> {
        let Target { store, name, .. } = &self.target;
        let aside = put_aside(store, &self.target.entry(), name, why);
        Loaded::Damaged { reason: format!("the state {name:?} {why}"), aside }
    }
}

impl<T: Serialize> State<T> {
    /// Saves it instead of the one before. When this returns [`Kept::Stored`], the service manager has it, and it is there again
    /// after any crash.
    ///
    /// # Errors
    ///
    /// The one before is still there. [`Error::is_invalid`]: it is no JSON, or longer than the limit. Else as for
    /// [`FdStore::replace`].
    pub fn save(&self, value: &T) -> Result<Kept> {
        let (file, sequence) = self.write(value)?;
        self.target.publish(&file, sequence)
    }

    /// As [`save`](Self::save), for a tokio runtime: it is serialized here, which takes as long as it takes, and put into the store
    /// on a thread for blocking calls.
    ///
    /// Of saves at the same time the last one begun wins; the others then mean: this one, or a newer one, is kept.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped after it was first polled, it is saved all the same.
    ///
    /// # Errors
    ///
    /// As for [`save`](Self::save).
    ///
    /// # Panics
    ///
    /// Without a tokio runtime.
    pub async fn save_async(&self, value: &T) -> Result<Kept> {
        let (file, sequence) = self.write(value)?;
        let target = self.target.clone();
        let saved = tokio::task::spawn_blocking(move || target.publish(&file, sequence)).await;
        saved.unwrap_or_else(|e| Err(Error::new(Kind::State, format!("the state was not saved: {e}"))))
    }

    fn write(&self, value: &T) -> Result<(OwnedFd, u64)> {
        check_name(&self.target.name)?;
        let sequence = self.target.begin()?;
        Ok((file::write(value, &self.target.name, self.version, sequence, self.limit)?, sequence))
    }
}

impl<T> fmt::Debug for State<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("name", &self.target.name).field("version", &self.version).finish_non_exhaustive()
    }
}

impl<T> Clone for State<T> {
    fn clone(&self) -> Self {
        let Self { target, version, limit, migrate, value } = self;
        Self { target: target.clone(), version: *version, limit: *limit, migrate: migrate.clone(), value: *value }
    }
}

impl Target {
    fn entry(&self) -> String {
        format!("{RESERVED}state.{}", self.name)
    }

    fn seen(&self, sequence: u64) {
        let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        turn.begun = turn.begun.max(sequence);
    }

    fn begin(&self) -> Result<u64> {
        // Also when nobody has loaded what is there.
        let there = newest(self.store.get(&self.entry())?).and_then(|fd| file::header(&File::from(fd)).ok());
        let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        turn.begun = turn.begun.max(there.map_or(0, |header| header.sequence)).saturating_add(1);
        Ok(turn.begun)
    }

    fn publish(&self, file: &OwnedFd, sequence: u64) -> Result<Kept> {
        let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = self.entry();
        if sequence < turn.saved {
            let entries = self.store.list();
            return Ok(entries.iter().find(|e| e.name == entry).map_or(Kept::HeldOnly, |e| e.kept));
        }
        let kept = self.store.replace(&entry, &[file])?;
        turn.saved = sequence;
        Ok(kept)
    }
}

/// Of several, which only somebody else can have put there, the one that was saved last.
fn newest(fds: Vec<OwnedFd>) -> Option<OwnedFd> {
    let files = fds.into_iter().map(File::from);
    let sequence = |file: &File| file::header(file).map(|header| header.sequence).ok();
    files.max_by_key(sequence).map(OwnedFd::from)
}

/// Where it is kept now, if anywhere.
fn put_aside(store: &FdStore, entry: &str, name: &str, why: &str) -> Option<String> {
    let aside = format!("{RESERVED}aside.{name}");
    let done = store.put_aside(entry, &aside);
    match done {
        Ok(()) => {
            warn!("the state {name:?} {why}; it is kept aside as {aside:?} in the fd store");
            Some(aside)
        }
        Err(error) => {
            warn!(%error, "the state {name:?} {why}; it cannot be kept aside");
            None
        }
    }
}

fn check_name(name: &str) -> Result<()> {
    if name.len() > MAX_NAME {
        let why = format!("the state's name {name:?} has {} bytes, at most {MAX_NAME} are possible", name.len());
        return Err(Error::new(Kind::Invalid, why));
    }
    if name.is_empty() {
        return Err(Error::new(Kind::Invalid, "the state's name is empty"));
    }
    crate::wire::store::check(name)
}
