//! Which processes there are, from `/proc`: a process tree in place of a control group.

use std::collections::HashSet;
use std::fs;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: u32,
    parent: u32,
    /// Dead and not yet waited for, or at least its first thread is.
    pub(super) zombie: bool,
}

/// All that descends from this process, itself not included. With a child subreaper at the root nobody escapes.
pub(super) fn descendants(root: u32) -> Vec<Process> {
    let mut rest: Vec<Process> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| find(entry.file_name().to_str()?.parse().ok()?))
        .collect();
    let mut family = HashSet::from([root]);
    let mut found = Vec::new();
    loop {
        let (ours, others): (Vec<_>, Vec<_>) = rest.into_iter().partition(|process| family.contains(&process.parent));
        if ours.is_empty() {
            return found;
        }
        family.extend(ours.iter().map(|process| process.pid));
        found.extend(ours);
        rest = others;
    }
}

/// `None` when it is gone.
pub(super) fn find(pid: u32) -> Option<Process> {
    parse(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// proc_pid_stat(5). The name in parentheses may itself hold spaces and parentheses.
fn parse(pid: u32, stat: &str) -> Option<Process> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let zombie = matches!(fields.next()?, "Z" | "X");
    Some(Process { pid, parent: fields.next()?.parse().ok()?, zombie })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_lines() {
        assert_eq!(parse(7, "7 (a) b) Z 3 7 7 0"), Some(Process { pid: 7, parent: 3, zombie: true }));
        assert_eq!(parse(7, "7 (web) S 1 7"), Some(Process { pid: 7, parent: 1, zombie: false }));
        assert_eq!(parse(7, "nonsense"), None);
    }

    #[test]
    fn we_are_there() {
        assert!(!find(std::process::id()).unwrap().zombie);
        assert!(descendants(1).iter().any(|process| process.pid == std::process::id()) || std::process::id() == 1);
    }
}
