//! What `/proc` says of a process.

#[cfg(feature = "supervise")]
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt::Display;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

/// One of the kernel's flags of a process: it has not executed a program since its fork.
const PF_FORKNOEXEC: u64 = 0x40;

/// A process as proc_pid_stat(5) shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Its pid.
    pub pid: u32,
    /// Its first thread has ended: a zombie, or just being removed. Other threads may still be
    /// ending.
    pub dead: bool,
    /// The pid of its parent.
    pub parent: u32,
    /// The id of its process group.
    pub group: u32,
    /// The id of its session.
    pub session: u32,
    /// It runs what its parent ran: it has not called execve(2).
    pub forked: bool,
    /// When it began, in clock ticks since the boot. With the pid it names one process for good.
    pub started: u64,
}

/// Reads the entry of that process. It is `None` if there is none of that pid, or /proc does not
/// show it.
pub fn stat(pid: u32) -> Option<Stat> {
    parse(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Lists the pids that /proc shows.
pub fn pids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Reads all processes that /proc shows.
pub fn all() -> impl Iterator<Item = Stat> {
    pids().filter_map(stat)
}

/// Goes from a process to its parent, the parent's parent, and so on. The process itself is not
/// among them.
#[cfg(feature = "supervise")]
pub fn ancestors(pid: u32) -> impl Iterator<Item = Stat> {
    let parent = |of: &Stat| stat(of.parent);
    std::iter::successors(stat(pid).as_ref().and_then(parent), parent)
}

/// Adds those of `all` that descend from the processes in `family`. A child may have a lower pid
/// than its parent, and come before it: `all` may have any order.
#[cfg(feature = "supervise")]
pub fn add_descendants(family: &mut BTreeSet<u32>, all: &[Stat]) {
    loop {
        let before = family.len();
        let children: Vec<u32> = all.iter().filter(|one| family.contains(&one.parent)).map(|one| one.pid).collect();
        family.extend(children);
        if family.len() == before {
            return;
        }
    }
}

/// Returns the path of a process's program (`self` is this one), or of what has replaced that: the
/// kernel marks a file that is no longer there.
///
/// # Errors
/// There is no such process, or it is somebody else's.
pub fn program(pid: impl Display) -> io::Result<PathBuf> {
    let bytes = fs::read_link(format!("/proc/{pid}/exe"))?.into_os_string().into_vec();
    Ok(OsString::from_vec(bytes.strip_suffix(b" (deleted)").map(<[u8]>::to_vec).unwrap_or(bytes)).into())
}

/// Parses "pid (name) state ppid group …"; the name may have blanks and brackets.
fn parse(pid: u32, text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    Some(Stat {
        pid,
        dead: matches!(*fields.first()?, "Z" | "X"),
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        session: fields.get(3)?.parse().ok()?,
        forked: fields.get(6)?.parse::<u64>().ok()? & PF_FORKNOEXEC != 0,
        started: fields.get(19)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stat_of_a_zombie_is_read() {
        let text = "77 (a) b) Z 42 1 1 0 -1 4227148 0 0 0 0 0 0 0 0 20 0 1 0 8675309 0 0 18446744073709551615";
        let zombie = Stat { pid: 77, dead: true, parent: 42, group: 1, session: 1, forked: true, started: 8_675_309 };
        assert_eq!(parse(77, text), Some(zombie));
        assert_eq!(parse(77, &text.replace(") Z", ") S")), Some(Stat { dead: false, ..zombie }));
        assert_eq!(parse(77, ""), None);
        assert_eq!(parse(77, "nonsense"), None);
    }

    #[test]
    fn descendants_are_found_in_any_order() {
        let init = parse(1, "1 (init) S 0 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 1 0 0 0").unwrap();
        let born = |pid, parent| Stat { pid, parent, ..init };
        let mut family = BTreeSet::from([10]);
        add_descendants(&mut family, &[born(3, 5), born(5, 10), born(10, 1), born(11, 1)]);
        assert_eq!(family, BTreeSet::from([3, 5, 10]));
        let above: Vec<u32> = ancestors(std::process::id()).map(|one| one.pid).collect();
        assert_eq!(above.first(), Some(&std::os::unix::process::parent_id()));
    }

    #[test]
    fn this_process_is_alive_and_among_all() {
        let own = stat(std::process::id()).unwrap();
        assert!(!own.dead && all().any(|one| one == own), "{own:?}");
        assert_eq!(program(own.pid).unwrap(), program("self").unwrap());
        assert_eq!(program("self").unwrap(), std::env::current_exe().unwrap());
    }
}
