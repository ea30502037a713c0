//! Users of a state take turns: first the threads of this process, then the generations.

use crate::error::{Error, Kind, Result};
use crate::state::cell::{Cell, CellForm, CellOutput, LockedCell, Trouble};
use crate::state::naming::{check_name, put_aside};
use crate::state::waiting::Wait;
use crate::systemd::fdstore::{FdStore, Kept};
use crate::systemd::notify::after;
use crate::wire::store::RESERVED;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tracing::debug;

/// Where a state is.
#[derive(Debug, Clone)]
pub(super) struct StatePlace {
    pub(super) store: FdStore,
    pub(super) name: String,
    pub(super) known: Arc<KnownState>,
    pub(super) timeout: Duration,
    /// No rollback can come any more.
    pub(super) settled: Arc<AtomicBool>,
}

/// What the handles of one name share.
#[derive(Debug, Default)]
pub(super) struct KnownState {
    place: Mutex<Occupancy>,
    free: Condvar,
    /// The highest that this process has declared.
    pub(super) version: AtomicU32,
    /// Counts the saves.
    pub(super) begun: AtomicU64,
    /// It was said that a thread of a runtime waits for it.
    pub(super) held_up: AtomicBool,
}

#[derive(Debug, Default)]
struct Occupancy {
    taken: bool,
    held: KnownCell,
}

#[derive(Debug, Default)]
struct KnownCell {
    opened: Option<Opened>,
    /// The newest save that is done, and who keeps what it saved.
    saved: Option<(u64, Kept)>,
}

#[derive(Debug)]
struct Opened {
    cell: Arc<Cell>,
    kept: Kept,
    /// The number of changes of the store when it was looked at.
    changes: u64,
}

/// The right to use the state, in this process.
#[derive(Debug)]
pub(super) struct StateTurn<'a> {
    target: &'a StatePlace,
    held: KnownCell,
    deadline: Instant,
}

impl StatePlace {
    pub(super) fn entry(&self) -> String {
        format!("{RESERVED}state.{}", self.name)
    }

    /// Waits until no other thread has it. A plain mutex was rejected: an update within an update
    /// would wait for ever.
    pub(super) fn enter(&self) -> Result<StateTurn<'_>> {
        check_name(&self.name)?;
        let (deadline, mut place) = (after(self.timeout), self.known.lock());
        let mut wait = Wait::begin(&self.name, &self.known.held_up);
        while place.taken {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let why = format!(
                    "the state {:?} is in use in this process, for longer than {:?}: a change of it that is begun within another one \
                     never ends",
                    self.name, self.timeout
                );
                return Err(Error::new(Kind::Timeout, why));
            }
            let pause = wait.at_most(left);
            place = self.known.free.wait_timeout(place, pause).unwrap_or_else(PoisonError::into_inner).0;
            wait.goes_on();
        }
        place.taken = true;
        Ok(StateTurn { target: self, held: std::mem::take(&mut place.held), deadline })
    }

    /// Replaces the value, unless a save that was begun later is done.
    pub(super) fn publish(
        &self,
        form: &CellForm,
        ticket: u64,
        produce: impl FnOnce(&mut CellOutput<'_>) -> serde_json::Result<()>,
    ) -> Result<Kept> {
        let mut turn = self.enter()?;
        if let Some((newest, kept)) = turn.held.saved
            && ticket < newest
        {
            return Ok(kept);
        }
        let locked = match turn.lock(true) {
            Ok(locked) => locked,
            Err(trouble) => {
                turn.put_aside(trouble)?;
                None
            }
        };
        let kept = match locked {
            Some(mut locked) => {
                self.check_version(&locked, form.version)?;
                locked.write(form, self.keeps_previous(), produce)?;
                turn.kept()
            }
            None => turn.create(form, produce)?,
        };
        turn.held.saved = Some((ticket, kept));
        Ok(kept)
    }

    /// Checks that the value is none of a newer program.
    pub(super) fn check_version(&self, locked: &LockedCell, ours: u32) -> Result<()> {
        let Some(newer) = locked.version().filter(|version| *version > ours) else { return Ok(()) };
        let why = format!(
            "the state {:?} is of version {newer}: a newer program has saved it, and this one knows version {ours}. \
             State::load puts it aside when no other generation uses it",
            self.name
        );
        Err(Error::new(Kind::State, why))
    }

    pub(super) fn keeps_previous(&self) -> bool {
        !self.settled.load(Ordering::Relaxed)
    }
}

impl KnownState {
    fn lock(&self) -> MutexGuard<'_, Occupancy> {
        // No code of others runs under it.
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StateTurn<'_> {
    /// Locks the state, if there is one, so that no other generation changes it meanwhile.
    pub(super) fn lock(&mut self, exclusive: bool) -> Result<Option<LockedCell>, Trouble> {
        let Some(cell) = self.cell()? else { return Ok(None) };
        let StatePlace { name, known, timeout, .. } = self.target;
        cell.lock(Wait::begin(name, &known.held_up), exclusive, (self.deadline, *timeout)).map(Some)
    }

    /// Puts new memory for it into the store.
    pub(super) fn create(
        &mut self,
        form: &CellForm,
        produce: impl FnOnce(&mut CellOutput<'_>) -> serde_json::Result<()>,
    ) -> Result<Kept> {
        let fd = Cell::create(form, produce)?;
        self.target.store.put(&self.target.entry(), &[fd])
    }

    /// Puts damage aside, so that there is no state now; an error stays one.
    pub(super) fn put_aside(&mut self, trouble: Trouble) -> Result<String> {
        match trouble {
            Trouble::Error(error) => Err(error),
            Trouble::Damaged(why) => {
                self.held.opened = None;
                put_aside(&self.target.store, &self.target.entry(), &self.target.name, &why)
            }
        }
    }

    /// Returns who keeps it, as far as that is known without asking.
    pub(super) fn kept(&self) -> Kept {
        self.held.opened.as_ref().map_or(Kept::HeldOnly, |opened| opened.kept)
    }

    /// Returns whether another generation would miss it, if it were put aside.
    pub(super) fn is_shared(&self) -> bool {
        let elsewhere = self.held.opened.as_ref().is_some_and(|opened| opened.cell.is_shared());
        elsewhere && !self.target.store.is_standby()
    }

    fn cell(&mut self) -> Result<Option<Arc<Cell>>, Trouble> {
        let StatePlace { store, name, .. } = self.target;
        // Before the look, so that what changes meanwhile is seen next time.
        let changes = store.changes();
        let before = self.held.opened.take_if(|opened| opened.changes != changes);
        if let Some(opened) = &self.held.opened {
            return Ok(Some(Arc::clone(&opened.cell)));
        }
        let entry = self.target.entry();
        let (fds, kept) = store.look(&entry)?;
        let same = before.filter(|opened| matches!(&fds[..], [fd] if opened.cell.is(fd))).map(|opened| opened.cell);
        let cell = match same {
            Some(cell) => cell,
            None if fds.is_empty() => return Ok(None),
            None => {
                let cell = newest(&fds, name)?;
                // Somebody else has put more than one: a new open file of this one replaces them
                // all, in the same memory.
                if fds.len() > 1 {
                    let only = cell.reopen().map(|file| store.replace(&entry, &[file]));
                    debug!(?only, "the state {name:?} is in the fd store {} times", fds.len());
                }
                Arc::new(cell)
            }
        };
        self.held.opened = Some(Opened { cell: Arc::clone(&cell), kept, changes });
        Ok(Some(cell))
    }
}

impl Drop for StateTurn<'_> {
    fn drop(&mut self) {
        let mut place = self.target.known.lock();
        place.taken = false;
        place.held = std::mem::take(&mut self.held);
        self.target.known.free.notify_one();
    }
}

/// Returns the one of several that was changed most often; an error is that of the first one.
fn newest(fds: &[OwnedFd], name: &str) -> Result<Cell, Trouble> {
    let mut best: Option<(u64, Cell)> = None;
    let mut wrong = None;
    for fd in fds {
        match Cell::open(fd.as_fd(), name).and_then(|cell| Ok((cell.sequence(name)?, cell))) {
            Ok(found) if best.as_ref().is_none_or(|best| best.0 < found.0) => best = Some(found),
            Ok(_) => {}
            Err(error @ Trouble::Error(_)) => return Err(error),
            Err(damaged) => wrong = wrong.or(Some(damaged)),
        }
    }
    match (best, wrong) {
        (Some((_, cell)), _) => Ok(cell),
        (None, Some(damaged)) => Err(damaged),
        (None, None) => Err(Trouble::Damaged("is not there".to_owned())),
    }
}
