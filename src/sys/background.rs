//! Running in nobody's way.
//!
//! # References
//! sched(7): `SCHED_IDLE`, for which no privilege is needed; seccomp(2); proc_pid_status(5).

use std::fs;

use crate::sys::status::status;

/// Lets all threads of this process run, from now on, only when nobody else wants to. It does what
/// can be done: nothing depends on it.
///
/// It does not ask within a seccomp filter (`SystemCallFilter=~@resources` is common), which might
/// kill whoever asks.
pub(crate) fn enter() {
    if status(std::process::id(), "Seccomp").as_deref() != Some("0") {
        return;
    }
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    for thread in threads.filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
        let parameter = libc::sched_param { sched_priority: 0 };
        // SAFETY: it reads the parameter, and no memory of ours else.
        unsafe { libc::sched_setscheduler(thread, libc::SCHED_IDLE, &raw const parameter) };
    }
}
