//! All that a supervisor knows, as it goes along in a memfd to a newer version of itself.
//!
//! Each part gives its own record, and takes it there. A field never changes its meaning within one
//! [`FORMAT`]: versions of both sides of an upgrade read it.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd as _, BorrowedFd, RawFd};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::drain::FAR;
use crate::reload::clock::now;
use crate::reload::steps::Past;

/// The format of what is in the memfd.
pub(crate) const FORMAT: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SupervisorRecord {
    pub(crate) format: u32,
    pub(crate) pid: u32,
    pub(crate) run: String,
    pub(crate) mail: RawFd,
    pub(crate) control: Option<RawFd>,
    pub(crate) items: Vec<ItemRecord>,
    pub(crate) good: Option<RawFd>,
    pub(crate) generations: Vec<GenerationRecord>,
    pub(crate) last_number: u64,
    pub(crate) reloads: u64,
    pub(crate) crashes: u64,
    pub(crate) renewals: u64,
    pub(crate) age_ms: u64,
    pub(crate) past: Vec<Past>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ItemRecord {
    pub(crate) name: String,
    pub(crate) fd: RawFd,
    pub(crate) from: Provenance,
}

/// Where an fd came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Provenance {
    /// The service manager.
    Passed,
    /// This process.
    Bound,
    /// A generation, by `FDSTORE=1`; or the service manager, which does not say whether it is one
    /// of those. If `poll`, it is dropped when the other end is gone.
    Stored { poll: bool },
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct GenerationRecord {
    pub(crate) number: u64,
    pub(crate) slot: usize,
    pub(crate) pid: u32,
    pub(crate) image: Option<RawFd>,
    pub(crate) handover_id: Option<String>,
    pub(crate) age_ms: u64,
    pub(crate) main_ms: Option<u64>,
    pub(crate) draining_ms: Option<u64>,
    /// Until what it still has is cut.
    pub(crate) left_ms: Option<u64>,
    pub(crate) good: bool,
    pub(crate) went_back: bool,
    pub(crate) says_stopping: bool,
    pub(crate) dismissed: bool,
    pub(crate) status: Option<String>,
    pub(crate) watchdog_us: Option<u64>,
    pub(crate) watched: bool,
    pub(crate) told: Option<DepartureRecord>,
}

/// How far a generation has been told to go.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct DepartureRecord {
    pub(crate) step: usize,
    pub(crate) next_ms: Option<u64>,
    pub(crate) kill_ms: Option<u64>,
}

/// The fds that go along, by not being closed.
#[derive(Debug, Default)]
pub(crate) struct PassedFds<'a>(BTreeMap<RawFd, BorrowedFd<'a>>);

impl<'a> PassedFds<'a> {
    /// Adds an fd, and returns its number, which a record names it by.
    pub(crate) fn add(&mut self, fd: BorrowedFd<'a>) -> RawFd {
        self.0.insert(fd.as_raw_fd(), fd);
        fd.as_raw_fd()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = BorrowedFd<'a>> {
        self.0.values().copied()
    }
}

/// Tells how long it is until then, in milliseconds.
pub(crate) fn until(at: Instant) -> u64 {
    u64::try_from(at.saturating_duration_since(now()).as_millis()).unwrap_or(u64::MAX)
}

/// Names the instant in so many milliseconds.
pub(crate) fn ahead(ms: u64) -> Instant {
    now() + Duration::from_millis(ms).min(FAR)
}

/// Names the instant so many milliseconds ago.
pub(crate) fn ago(ms: u64) -> Instant {
    now().checked_sub(Duration::from_millis(ms)).unwrap_or_else(now)
}
