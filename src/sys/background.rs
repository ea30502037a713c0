//! To be in nobody's way.
//!
//! # References
//! sched(7): `SCHED_IDLE`, for which no privilege is needed; seccomp(2); proc_pid_status(5).

use std::fs;

/// All threads of this process run only when nobody else wants to, from now on. As far as it can be done: nothing depends on it.
///
/// Not in a seccomp filter (`SystemCallFilter=~@resources` is common), which might kill whoever asks.
pub(crate) fn enter() {
    let filtered = fs::read_to_string("/proc/self/status").map_or(true, |status| {
        !status.lines().any(|line| line.strip_prefix("Seccomp:").is_some_and(|mode| mode.trim() == "0"))
    });
    if filtered {
        return;
    }
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    for thread in threads.filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
        let parameter = libc::sched_param { sched_priority: 0 };
        // SAFETY: it reads the parameter, and no memory of ours else.
        unsafe { libc::sched_setscheduler(thread, libc::SCHED_IDLE, &raw const parameter) };
    }
}
