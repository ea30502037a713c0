//! Processes as the kernel tells them, and the end of those that are our children.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::{Condvar, LazyLock, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use handover::supervise::proc::{self, Stat};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::patience;

static ENDED: LazyLock<(Mutex<HashMap<u32, End>>, Condvar)> = LazyLock::new(Default::default);

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Exited(i32),
    Killed(Signal),
}

/// Reaps every child at once, as PID 1 does, and those whose own parent is gone too.
pub fn adopt_orphans() {
    nix::sys::prctl::set_child_subreaper(true).unwrap();
    thread::spawn(|| {
        loop {
            let (pid, end) = match waitpid(None::<Pid>, None) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, End::Exited(code)),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, End::Killed(signal)),
                Ok(_) => continue,
                // No child just now.
                Err(_) => {
                    thread::sleep(Duration::from_millis(1));
                    continue;
                }
            };
            ENDED.0.lock().unwrap().insert(pid.as_raw().cast_unsigned(), end);
            ENDED.1.notify_all();
        }
    });
}

/// Waits for the end of a child of ours.
#[track_caller]
pub fn end_of(pid: u32) -> End {
    match end_within(pid, patience()) {
        Some(end) => end,
        None => panic!("process {pid} did not end"),
    }
}

pub fn end_within(pid: u32, time: Duration) -> Option<End> {
    let deadline = Instant::now() + time;
    let mut ended = ENDED.0.lock().unwrap();
    loop {
        if let Some(end) = ended.get(&pid) {
            return Some(*end);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        ended = ENDED.1.wait_timeout(ended, left).unwrap().0;
    }
}

pub fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid.cast_signed()), signal).unwrap();
}

/// A process that has not been reaped yet; `dead`: a zombie.
pub fn look(pid: u32) -> Option<Stat> {
    proc::stat(pid)
}

/// The processes in whose environment that variable names that directory, and the zombies among
/// their children.
pub fn of_service(variable: &str, directory: &Path) -> BTreeMap<u32, Stat> {
    let mark = [variable.as_bytes(), b"=", directory.as_os_str().as_bytes()].concat();
    let mut zombies = BTreeMap::new();
    let mut found = BTreeMap::new();
    for process in proc::all() {
        if process.dead {
            zombies.insert(process.pid, process);
            continue;
        }
        let environ = fs::read(format!("/proc/{}/environ", process.pid)).unwrap_or_default();
        if environ.split(|byte| *byte == 0).any(|variable| variable == mark) {
            found.insert(process.pid, process);
        }
    }
    zombies.retain(|_, zombie| found.contains_key(&zombie.parent));
    found.append(&mut zombies);
    found
}

/// Waits until the process has really become its program: whoever started it goes on a moment
/// before that.
pub fn wait_until_executed(pid: u32) {
    until("the program to be executed", || {
        let over = look(pid).is_none_or(|process| process.dead);
        let executed = fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|arguments| !arguments.is_empty());
        (over || executed).then_some(())
    });
}

pub fn open_fds(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// A field of `/proc/PID/status`.
pub fn status(pid: u32, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
    value.trim().to_owned()
}

/// How many entries its table of fds has.
pub fn fd_table(pid: u32) -> u64 {
    status(pid, "FDSize").parse().unwrap()
}

/// Looks again and again, and fails when there is nothing to see for too long.
#[track_caller]
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Whether the kernel tells a process that is not the parent how another one ended (6.15).
pub fn kernel_tells_exits() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6, 15)
}
