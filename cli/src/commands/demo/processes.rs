//! A process tree in place of a control group.

use std::collections::HashSet;

use handover::supervise::proc::{self, Stat};

/// All that descends from this process, itself not included. With a child subreaper at the root nobody escapes.
pub(super) fn descendants(root: u32) -> Vec<Stat> {
    let mut rest: Vec<Stat> = proc::all().collect();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_are_there() {
        assert!(descendants(1).iter().any(|process| process.pid == std::process::id()) || std::process::id() == 1);
    }
}
