//! All states of a service.

use crate::error::Result;
use crate::state::cell::{CellForm, Trouble};
use crate::state::handle::{STATE_LIMIT, State};
use crate::state::naming::check_name;
use crate::state::turn::{KnownState, StatePlace, StateTurn};
use crate::systemd::fdstore::FdStore;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tracing::warn;

/// How long a state may be held by others, other threads or another generation, unless set
/// otherwise: 5 s.
pub const STATE_LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// The states of a service. Clones are the same.
#[derive(Debug, Clone)]
pub struct States {
    pub(super) store: FdStore,
    timeout: Duration,
    /// What is known of each state, by name, so that the handles of one state take turns.
    known: Arc<Mutex<BTreeMap<String, Arc<KnownState>>>>,
    settled: Arc<AtomicBool>,
}

impl States {
    /// Makes the states that are kept in this store.
    #[must_use]
    pub fn new(store: FdStore) -> Self {
        Self { store, timeout: STATE_LOCK_TIMEOUT, known: Arc::default(), settled: Arc::default() }
    }

    /// Sets how long each use of a state waits for others, threads or generations, that hold it. It
    /// holds for handles that are made from now on. The default is [`STATE_LOCK_TIMEOUT`]. It is to
    /// be raised for states whose change takes seconds: more than some 100 MiB.
    #[must_use]
    pub fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Returns the state of that name. The first use tells if the name cannot be used.
    #[must_use]
    pub fn state<T>(&self, name: impl Into<String>) -> State<T> {
        let name = name.into();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = Arc::clone(known.entry(name.clone()).or_default());
        State::new(self.target(name, known))
    }

    /// Returns whether there is no handle of any state.
    pub(crate) fn is_empty(&self) -> bool {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Makes an empty memory, and blocks meanwhile, for each state of which there is a handle and
    /// no value yet, so that the next generation and this one have the same. It is to be called
    /// before the next generation gets the [entries](FdStore::entries) of the store.
    ///
    /// Without it, both may make one. Then that of the previous generation counts.
    ///
    /// # Errors
    ///
    /// It fails as [`FdStore::put`] does. The error is that of the first state; the others have
    /// their memory.
    pub fn prepare(&self) -> Result<()> {
        self.each(|turn, form| match turn.lock(false)? {
            Some(_) => Ok(()),
            None => Ok(turn.create(form, |_| Ok(())).map(drop)?),
        })
    }

    /// Settles the states, and blocks meanwhile, when no rollback will come any more: gives back
    /// the memory that values of an older version have, and keeps no such values from now on. It is
    /// to be called when this generation is the main one, and the previous one only drains; also by
    /// a first generation.
    ///
    /// # Errors
    ///
    /// [`Error::is_timeout`](crate::Error::is_timeout): another generation holds one of them. The
    /// others are settled; the next [`restore`](Self::restore) or `settle` of any generation sees
    /// what is left.
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

    /// Restores the states after a rollback, and blocks meanwhile: each of which there is a handle,
    /// and that the failed generation has raised to a newer version, gets back the value that it
    /// had before. What was changed since then is lost, and a warning says how many changes that
    /// were.
    ///
    /// It is to be called when the failed generation does not run any more. It returns how many
    /// states were set back.
    ///
    /// # Errors
    ///
    /// [`Error::is_timeout`](crate::Error::is_timeout): another generation holds one of them. The
    /// others are set back.
    pub fn restore(&self) -> Result<usize> {
        let mut restored = 0;
        self.each(|turn, CellForm { name, version, .. }| {
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

    /// Calls the function for each state of which there is a handle. Damage is for those who read
    /// it.
    fn each(&self, mut f: impl FnMut(&mut StateTurn<'_>, &CellForm) -> Result<(), Trouble>) -> Result<()> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut failed = Ok(());
        for (name, known) in known.into_iter().filter(|(name, _)| check_name(name).is_ok()) {
            let version = known.version.load(Ordering::Relaxed);
            let form = CellForm { name: name.clone(), version, limit: STATE_LIMIT };
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

    fn target(&self, name: String, known: Arc<KnownState>) -> StatePlace {
        StatePlace { store: self.store.clone(), name, known, timeout: self.timeout, settled: Arc::clone(&self.settled) }
    }
}
