//! The table behind its lock, and what can be known of it without the lock.

use crate::error::Result;
use crate::systemd::fdstore::table::{Mode, Table};
use crate::systemd::fdstore::{FdStore, Kept, copies};
use std::ops::{Deref, DerefMut};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

#[derive(Debug)]
pub(super) struct Shared {
    table: Mutex<Table>,
    changes: AtomicU64,
}

impl Shared {
    pub(super) fn new(table: Table) -> Self {
        Self { table: Mutex::new(table), changes: AtomicU64::new(0) }
    }

    /// `None`: somebody has it, for as long as the manager may take.
    pub(super) fn try_lock(&self) -> Option<Locked<'_>> {
        let table = match self.table.try_lock() {
            Ok(table) => table,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some(Locked { table, changes: &self.changes, changed: false })
    }

    pub(super) fn lock(&self) -> Locked<'_> {
        // A change that panicked left at worst something to be removed.
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        Locked { table, changes: &self.changes, changed: false }
    }
}

pub(super) struct Locked<'a> {
    table: MutexGuard<'a, Table>,
    changes: &'a AtomicU64,
    changed: bool,
}

impl Deref for Locked<'_> {
    type Target = Table;

    fn deref(&self) -> &Table {
        &self.table
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut Table {
        self.changed = true;
        &mut self.table
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        if self.changed {
            self.changes.fetch_add(1, Ordering::Release);
        }
    }
}

impl FdStore {
    /// Another number when anything may have changed. It does not wait for a change under way, which takes as long as the
    /// manager takes: whoever only wants to know whether his entry is still the same is not held up by it.
    pub(crate) fn changes(&self) -> u64 {
        self.table.changes.load(Ordering::Acquire)
    }

    /// Copies of the fds of the name, and who keeps them.
    pub(crate) fn look(&self, name: &str) -> Result<(Vec<OwnedFd>, Kept)> {
        let table = self.lock();
        let Some(group) = table.groups.get(name) else { return Ok((Vec::new(), Kept::HeldOnly)) };
        let fds: Vec<_> = group.fds.iter().map(|held| &held.fd).collect();
        let stored = group.fds.iter().all(|held| held.stored);
        Ok((copies(name, &fds)?, if stored { Kept::Stored } else { Kept::HeldOnly }))
    }

    /// Whether changes stay in this process.
    pub(crate) fn is_standby(&self) -> bool {
        self.lock().mode == Mode::Standby
    }

    /// Puts what was of no use under another name, for somebody to look at.
    pub(crate) fn put_aside(&self, name: &str, aside: &str) -> Result<()> {
        let mut table = self.lock();
        // Removed first: systemd would not take the same open file under a second name.
        table.take(aside)?;
        let fds = table.take(name)?.unwrap_or_default();
        table.put(aside, fds, true).map(drop)
    }
}
