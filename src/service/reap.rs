//! Zombies of processes that this one has adopted, as PID 1 of a container or as a child subreaper.
//!
//! Whose parent ends becomes the child of PID 1, and when it ends too, it stays a zombie until PID
//! 1 waits for it; a container that runs long enough is full of them. An init waits for every
//! child. A service must not: the exit status of a child that it started itself belongs to whoever
//! started it, and `waitpid(-1)` would take that away from tokio's and std's `Child`.
//!
//! The kernel does not tell which children were adopted. So time does: whoever started a child and
//! minds its end is told of it by SIGCHLD or a pidfd and takes the status within milliseconds; what
//! still is a zombie after [`REAP_AFTER`] is waited for here. A child that is started with
//! `std::process` and waited for only long after its end would lose its status;
//! [`Builder::reap`](crate::Builder::reap) turns this off.

use std::collections::HashMap;
use std::time::Duration;

use nix::sys::prctl;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep};
use tracing::{debug, warn};

use crate::sys::stat;

/// How often it is looked for zombies in that time. Not at each SIGCHLD: a service may start a
/// thousand children a second.
const LOOKS: u32 = 20;

/// Whether orphans become ours.
pub(crate) fn adopts() -> bool {
    std::process::id() == 1 || prctl::get_child_subreaper().unwrap_or(false)
}

/// For as long as the service runs.
pub(crate) async fn reap(after: Duration) {
    let mut ended = match signal(SignalKind::child()) {
        Ok(ended) => ended,
        Err(error) => return warn!(%error, "adopted processes that end are not waited for"),
    };
    // With the start time of each: a pid can be another's at the next look.
    let mut seen: HashMap<(i32, u64), Instant> = HashMap::new();
    loop {
        let (now, zombies) = (Instant::now(), zombies());
        seen.retain(|zombie, _| zombies.contains(zombie));
        for zombie in zombies {
            let since = *seen.entry(zombie).or_insert(now);
            if now.duration_since(since) >= after {
                // Only this one, and only if it has ended: never waits.
                let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG;
                let result = waitid(Id::Pid(Pid::from_raw(zombie.0)), flags);
                debug!(pid = zombie.0, ?result, "waited for an adopted process");
                seen.remove(&zombie);
            }
        }
        if seen.is_empty() {
            // It is only hinted at: several that end at once may be one signal.
            ended.recv().await;
        }
        sleep(after / LOOKS).await;
    }
}

/// Children of ours that have ended, with their start times.
fn zombies() -> Vec<(i32, u64)> {
    let own = std::process::id();
    let ended = stat::all().filter(|process| process.dead && process.parent == own);
    ended.map(|process| (process.pid.cast_signed(), process.started)).collect()
}
