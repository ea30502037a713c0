//! Keeps the table behind its lock, and counts its changes, which can be asked for without the
//! lock.

use crate::systemd::fdstore::table::Table;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

/// The table that all clones of a handle share.
#[derive(Debug)]
pub(super) struct Shared {
    table: Mutex<Table>,
    changes: AtomicU64,
}

impl Shared {
    pub(super) fn new(table: Table) -> Self {
        Self { table: Mutex::new(table), changes: AtomicU64::new(0) }
    }

    /// Locks the table, unless that would block. `None`: somebody has it, for as long as the
    /// manager may take.
    pub(super) fn try_lock(&self) -> Option<Locked<'_>> {
        let table = match self.table.try_lock() {
            Ok(table) => table,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some(Locked { table, changes: &self.changes, changed: false })
    }

    /// Returns another number when anything may have changed.
    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    pub(super) fn lock(&self) -> Locked<'_> {
        // A change that panicked left at worst something to be removed.
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        Locked { table, changes: &self.changes, changed: false }
    }
}

/// The locked table. Whoever borrows it mutably counts as having changed it.
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
