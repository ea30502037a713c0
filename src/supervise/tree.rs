//! The processes of a generation: the one that was started, and all that came from it.
//!
//! Each is found by its session, by its ancestors, or, where it has left both, by a variable in the
//! environment that it was born with. A process that clears its environment, leaves the session and
//! loses its parent is found by none of these: systemd ends it with the unit.

use std::collections::BTreeSet;
use std::os::fd::AsFd as _;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::{Instant, sleep};
use tracing::warn;

use crate::control::SUPERVISED;
use crate::settings::END_TIMEOUT;
use crate::sys::stat::{self, Stat};
use crate::sys::{diag, pidfd, stat::stat};

/// The variable by which a process that left its family is known.
pub(crate) const TAG: &str = SUPERVISED;

/// The time between two looks at whether they are gone.
const LOOK: Duration = Duration::from_millis(20);

/// What makes a process one of a generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProcessFamily {
    /// The pid of the first process, which is the session of all that did not leave it. Nobody else
    /// gets the number while one is left.
    pub(crate) leader: u32,
    /// `HANDOVER_RUN_TAG=…`
    pub(crate) tag: String,
}

impl ProcessFamily {
    pub(crate) fn members(&self) -> Vec<Stat> {
        let all: Vec<Stat> = stat::all().filter(|process| !process.dead).collect();
        let own = std::process::id();
        let mut pids: BTreeSet<u32> = all
            .iter()
            .filter(|p| p.pid == self.leader || p.session == self.leader || (p.parent == own && self.is_tagged(p.pid)))
            .map(|p| p.pid)
            .collect();
        stat::add_descendants(&mut pids, &all);
        all.into_iter().filter(|p| p.pid != own && pids.contains(&p.pid)).collect()
    }

    /// Whether a process is one of them, without a look at all others.
    pub(crate) fn has(&self, pid: u32) -> bool {
        // A loop is not possible, but a tree can change under our eyes.
        for process in stat(pid).into_iter().chain(stat::ancestors(pid)).take(64) {
            if process.pid == self.leader || process.session == self.leader {
                return true;
            }
            if process.parent == std::process::id() {
                return self.is_tagged(process.pid);
            }
        }
        false
    }

    pub(crate) fn holds_socket(&self, inode: u64) -> bool {
        self.members().iter().any(|member| diag::holds(member.pid, inode))
    }

    /// Finds a user other than root and that of this process whom one of them runs as.
    pub(crate) fn other_user(&self) -> Option<u32> {
        let own = nix::unistd::geteuid().as_raw();
        let user = |pid: u32| {
            // The owner of the entry in /proc is another one after a change.
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
            ids.split_whitespace().nth(1)?.parse().ok()
        };
        self.members().iter().filter_map(|member| user(member.pid)).find(|user| *user != own && *user != 0)
    }

    fn is_tagged(&self, pid: u32) -> bool {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|b| *b == 0).any(|variable| variable == self.tag.as_bytes())
    }

    /// Signals all of them, and returns how many that were.
    pub(crate) fn signal(&self, signal: Signal) -> usize {
        let members = self.members();
        for member in &members {
            let Ok(fd) = pidfd::open(member.pid) else { continue };
            // The fd is of whoever has the pid now: still the one that was looked at?
            if stat(member.pid).is_some_and(|now| now.started == member.started) {
                let _ = pidfd::send_signal(fd.as_fd(), signal);
            }
        }
        members.len()
    }

    /// Ends the rest after the first one has ended: it is told to, and killed if it does not.
    /// Returns when nobody is left.
    pub(crate) async fn end(&self, generation: u64, grace: Duration) {
        let deadline = Instant::now() + grace;
        let mut left = self.signal(Signal::SIGTERM);
        while left > 0 && Instant::now() < deadline {
            sleep(LOOK).await;
            left = self.members().len();
        }
        if left > 0 {
            warn!(generation, "generation {generation} left {left} processes behind that do not end: killing them");
        }
        // New ones can be born while the others are killed.
        let hopeless = Instant::now() + END_TIMEOUT;
        while left > 0 && Instant::now() < hopeless {
            left = self.signal(Signal::SIGKILL);
            sleep(LOOK).await;
        }
    }
}
