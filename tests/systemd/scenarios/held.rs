//! What a service holds, and PID 1 for it: as much after many events as before.

use std::fmt;

use super::web::DEADLINE;
use crate::lab::{Container, Outcome};

/// Of memory that nobody shares: the allocator's own ups and downs.
const MEMORY_KIB: u64 = 8 * 1024;

/// What the service holds while nothing is asked, and what systemd does.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) processes: usize,
    /// In the fd store.
    entries: usize,
    /// Open in the main process, and in PID 1.
    fds: [usize; 2],
    /// Memory that they share with nobody.
    kib: [u64; 2],
}

impl Held {
    pub(super) fn now(lab: &Container, unit: &str) -> Outcome<Self> {
        let pids = [lab.main_pid(unit)?, 1];
        let fds = |pid| lab.proc_fds(pid).map(|fds| fds.len());
        let kib =
            |pid| -> Outcome<u64> { Ok(lab.proc_status(pid, "RssAnon")?.trim_end_matches("kB").trim_end().parse()?) };
        Ok(Self {
            processes: lab.pids(unit)?.len(),
            entries: lab.show(unit, "NFileDescriptorStore")?.parse()?,
            fds: [fds(pids[0])?, fds(pids[1])?],
            kib: [kib(pids[0])?, kib(pids[1])?],
        })
    }

    /// Once the last drain is over.
    pub(super) fn alone(lab: &Container, unit: &str) -> Outcome<Self> {
        lab.wait_until(DEADLINE, "the main process is alone", || {
            let now = Self::now(lab, unit)?;
            Ok((now.processes == 1).then_some(now))
        })
    }

    /// As much as before, once the last drain is over.
    pub(super) fn settled(lab: &Container, unit: &str, before: &Self) -> Outcome<Self> {
        let mut last = None;
        let settled = lab.wait_until(DEADLINE, "no more held than before", || {
            let now = Self::now(lab, unit)?;
            last = Some(now.to_string());
            let flat = now.processes == before.processes
                && now.entries == before.entries
                && now.fds.iter().zip(&before.fds).all(|(now, before)| now <= before)
                && now.kib.iter().zip(&before.kib).all(|(now, before)| *now <= before + MEMORY_KIB);
            Ok(flat.then_some(now))
        });
        settled.map_err(|e| {
            let why = e.message().unwrap_or_default();
            format!("{why}: processes, entries, fds, KiB were {before}, are {}", last.unwrap_or_default()).into()
        })
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { processes, entries, fds, kib } = self;
        write!(f, "{processes}, {entries}, {} + {}, {} + {}", fds[0], fds[1], kib[0], kib[1])
    }
}
