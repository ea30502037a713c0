//! State that outlives the process: in memory that systemd keeps, and that all generations share.
//!
//! ```no_run
//! use handover::state::States;
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
//! let count = sessions.update(|sessions| {
//!     sessions.count += 1;
//!     sessions.count
//! })?; // from here on it survives a SIGKILL
//! println!("session {}", count.result);
//! # Ok(())
//! # }
//! ```
//!
//! A state is one memory file, which is put into the fd store once, as `handover.state.NAME`, and passed to the next generation as
//! the same memory. It has a page with two headers (name, version, sequence number, where the value is, its length and
//! checksum: CRC-32, which finds damage, not malice), and the value as JSON.
//!
//! # What a change is
//!
//! Under a lock that ends with the process that has it, the new JSON is written where the current one is not. Then one write
//! to the header makes it the current one, a second one makes the header's copy, and the old JSON's memory is given back. So at
//! every instant, a SIGKILL or a failed write included, the old or the new value is there as a whole; and when the call returns,
//! it is the new one. A change is about ten system calls, and no message to the manager.
//!
//! Rejected: a sealed file for each save, which replaces the one before in the fd store. While a reload goes on, two
//! generations live: the new one accepts, the old one still answers what it had accepted. Both change the state, but the
//! manager listens to the main process only, and what one of them saves from its copy undoes what the other one did. A sealed file
//! also cost every save three messages to the manager. Rejected as well: a mapping, because a writer that is killed in
//! the middle leaves half of a change, and a value that is a plain struct, because the next version of the program has another one.
//!
//! # What survives
//!
//! | event | a value that was acknowledged |
//! |---|---|
//! | reload, rollback | there, and both generations change it |
//! | SIGKILL, panic, `systemctl restart`, watchdog | there, with an fd store ([`Kept::Stored`]) |
//! | the same without an fd store ([`Kept::HeldOnly`]) | there as long as one generation lives |
//! | stop and start | there with `FileDescriptorStorePreserve=yes` (systemd 254) |
//! | reboot | lost: it is memory |
//!
//! # Versions
//!
//! The first change by a program with a higher [`State::version`] raises that of the state; from then on a program with a lower one
//! cannot change it ([`Error::is_state`]). The value of the version before stays beside it until [`States::settle`], so that
//! [`States::restore`] can take it back when the new generation is rolled back.
//!
//! # Limitations
//!
//! - The memory counts as that of the service (`MemoryMax=`): the JSON once, twice for the moment of a change, and once more for
//!   the version before until `settle`. [`State::update`] and [`State::read`] also keep the value in the process.
//! - A change writes the whole value. What is big and changes in small parts belongs into [`States::raw`], or more states.
//! - It needs `/proc`. A generation that is stopped (SIGSTOP) in the middle of a change makes the others wait for
//!   [`STATE_LOCK_TIMEOUT`]; one that is killed does not.

mod cell;
mod handle;
mod payload;
mod raw;
mod turn;

pub use handle::State;
pub use payload::StateReader;
pub use raw::RawState;

use crate::error::{Error, Kind, Result};
use crate::systemd::fdstore::{FdStore, Kept};
use crate::wire::state::MAX_NAME;
use crate::wire::store::RESERVED;
use cell::{Form, Trouble};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tracing::warn;
use turn::{Known, Target, Turn};

/// How long a state's JSON may be, unless set otherwise: 4 GiB.
pub const STATE_LIMIT: u64 = 4 << 30;

/// How long a state may be held by others, other threads or another generation, unless set otherwise: 5 s.
pub const STATE_LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// What a migration may fail with.
pub type MigrationError = Box<dyn std::error::Error + Send + Sync>;

/// The states of a service. Clones are the same.
#[derive(Debug, Clone)]
pub struct States {
    store: FdStore,
    timeout: Duration,
    /// By name, so that the handles of one state take turns.
    known: Arc<Mutex<BTreeMap<String, Arc<Known>>>>,
    settled: Arc<AtomicBool>,
}

/// What [`State::update`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Updated<R> {
    /// What the closure returned.
    pub result: R,
    /// Who keeps the state.
    pub kept: Kept,
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
        /// Its JSON, in memory of its own, which counts as long as the reader is there.
        reader: StateReader,
    },
    /// There is a state, but it cannot be used: truncated, foreign, too long, of a newer version. It was logged and put aside.
    Damaged {
        /// What is wrong with it, as a sentence.
        reason: String,
        /// The name in the fd store under which it is kept now, until another one of this state is. None: it stays where it is,
        /// because that failed, or because a generation that runs uses it (it is of that one's newer version).
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

impl States {
    /// The states that are kept in this store.
    #[must_use]
    pub fn new(store: FdStore) -> Self {
        Self { store, timeout: STATE_LOCK_TIMEOUT, known: Arc::default(), settled: Arc::default() }
    }

    /// How long each use of a state waits for others, threads or generations, that hold it. For handles that are made from now on.
    /// Default: [`STATE_LOCK_TIMEOUT`]. To be raised for states whose change takes seconds: more than some 100 MiB.
    #[must_use]
    pub fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The state of that name. A name that cannot be used is told by the first use.
    #[must_use]
    pub fn state<T>(&self, name: impl Into<String>) -> State<T> {
        let name = name.into();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = Arc::clone(known.entry(name.clone()).or_default());
        State::new(self.target(name, known))
    }

    /// There is no handle of any.
    pub(crate) fn is_empty(&self) -> bool {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Makes an empty memory for each state of which there is a handle and no value yet, so that the next generation and
    /// this one have the same. To be called before the next generation gets the [entries](FdStore::entries) of the store.
    ///
    /// Without it, both may make one. Then that of the previous generation counts.
    ///
    /// # Errors
    ///
    /// As for [`FdStore::put`]; the first one, the other states have theirs.
    pub fn prepare(&self) -> Result<()> {
        self.each(|turn, form| match turn.lock(false)? {
            Some(_) => Ok(()),
            None => Ok(turn.create(form, |_| Ok(())).map(drop)?),
        })
    }

    /// No rollback will come any more: gives back the memory that values of an older version have, and keeps no such values from
    /// now on. To be called when this generation is the main one, and the previous one only drains; also by a first generation.
    ///
    /// # Errors
    ///
    /// [`Error::is_timeout`]: another generation holds one of them. The others are settled; the next [`restore`](Self::restore)
    /// or `settle` of any generation sees what is left.
    pub fn settle(&self) -> Result<()> {
        self.settled.store(true, Ordering::Relaxed);
        self.each(|turn, form| match turn.lock(true)? {
            // A newer version is that of a next generation, which may yet be rolled back.
            Some(mut locked) if locked.header.previous.is_some() && locked.header.current.version <= form.version => {
                Ok(locked.settle()?)
            }
            _ => Ok(()),
        })
    }

    /// After a rollback: each state of which there is a handle, and that the failed generation has raised to a newer version,
    /// gets back the value that it had before. What was changed since then is lost, and a warning says how many changes that were.
    ///
    /// To be called when the failed generation does not run any more. Returns how many states were set back.
    ///
    /// # Errors
    ///
    /// [`Error::is_timeout`]: another generation holds one of them. The others are set back.
    pub fn restore(&self) -> Result<usize> {
        let mut restored = 0;
        self.each(|turn, Form { name, version, .. }| {
            let Some(mut locked) = turn.lock(true)? else { return Ok(()) };
            let newer = locked.header.current.version;
            if newer <= *version {
                return Ok(());
            }
            let Some(previous) = locked.header.previous.filter(|previous| previous.version == *version) else {
                warn!("the state {name:?} stays at version {newer}: there is no value of version {version} any more");
                return Ok(());
            };
            let undone = locked.restore(&previous)?;
            restored += 1;
            warn!("the state {name:?} goes back from version {newer} to {version}: {undone} changes of it are lost");
            Ok(())
        })?;
        Ok(restored)
    }

    /// For each state of which there is a handle. Damage is for those who read it.
    fn each(&self, mut f: impl FnMut(&mut Turn<'_>, &Form) -> Result<(), Trouble>) -> Result<()> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut failed = Ok(());
        for (name, known) in known.into_iter().filter(|(name, _)| check_name(name).is_ok()) {
            let version = known.version.load(Ordering::Relaxed);
            let form = Form { name: name.clone(), version, limit: STATE_LIMIT };
            let target = self.target(name, known);
            let done = target.enter().map_err(Trouble::from).and_then(|mut turn| f(&mut turn, &form));
            match done {
                Ok(()) => {}
                Err(Trouble::Damaged(why)) => warn!("the state {:?} {why}", form.name),
                Err(Trouble::Error(error)) => failed = failed.and(Err(error)),
            }
        }
        failed
    }

    fn target(&self, name: String, known: Arc<Known>) -> Target {
        Target { store: self.store.clone(), name, known, timeout: self.timeout, settled: Arc::clone(&self.settled) }
    }
}

/// Where it is kept now.
fn put_aside(store: &FdStore, entry: &str, name: &str, why: &str) -> Result<String> {
    let aside = format!("{RESERVED}aside.{name}");
    match store.put_aside(entry, &aside) {
        Ok(()) => {
            warn!("the state {name:?} {why}; it is kept aside as {aside:?} in the fd store");
            Ok(aside)
        }
        Err(error) => {
            warn!(%error, "the state {name:?} {why}; it cannot be kept aside");
            Err(error)
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
