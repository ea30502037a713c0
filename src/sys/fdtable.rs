//! The kernel's table of a process's fds, made as large as needed before it has threads. To make it
//! larger later takes the kernel 10 ms and more as soon as there are two threads, and whoever opens
//! or accepts something in that time waits for it.
//!
//! # References
//! proc_pid_status(5): `FDSize`; fcntl(2): `F_DUPFD`; "RCU grace period" in the kernel's
//! documentation.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, RawFd};

use nix::sys::resource::{Resource, getrlimit};

use crate::sys::socket::duplicate_above;
use crate::sys::status::status;

/// Entries that a table has at least: the soft limit (`LimitNOFILE=`) that systemd gives. 8 bytes
/// each.
const LEAST: u64 = 1024;
/// And at most, if they are asked for ahead of time: who says how many may be wrong.
const MOST: u64 = 1 << 20;

/// Returns how many entries the table of a new process shall have: as many as that of the process
/// which it is to follow.
pub(crate) fn entries_like(pid: u32) -> RawFd {
    let entries = status(pid, "FDSize").and_then(|entries| entries.parse().ok()).unwrap_or(LEAST);
    within_limit(entries.max(LEAST))
}

/// Makes this process's own table large enough for so many fds beside those that are open, at once:
/// it would wait at each doubling. It blocks for as long as the kernel needs.
pub(crate) fn make_room(more: usize) -> io::Result<()> {
    let (end, _) = io::pipe()?;
    let open = u64::try_from(end.as_raw_fd()).unwrap_or(0);
    let entries = open.saturating_add(u64::try_from(more).unwrap_or(MOST)).clamp(LEAST, MOST);
    duplicate_above(end.as_fd(), within_limit(entries) - 1).map(drop)
}

/// Cuts the number to the limit: there are no fds beyond.
fn within_limit(entries: u64) -> RawFd {
    let soft = getrlimit(Resource::RLIMIT_NOFILE).map_or(LEAST, |(soft, _)| soft);
    RawFd::try_from(entries.min(soft)).unwrap_or(RawFd::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_table_has_the_least_and_counts() {
        make_room(0).unwrap();
        let entries = entries_like(std::process::id());
        assert!(entries >= within_limit(LEAST), "{entries}");
        assert_eq!(entries_like(0), within_limit(LEAST), "there is none of that pid");
    }

    #[test]
    fn there_is_room_for_as_many_as_may_be_open() {
        for more in [3_000, usize::MAX] {
            make_room(more).unwrap();
            let entries = entries_like(std::process::id());
            assert!(entries >= within_limit(u64::try_from(more).unwrap().min(MOST)), "{more}: {entries}");
        }
    }
}
