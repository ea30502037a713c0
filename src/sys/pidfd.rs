//! Processes by pidfd: signals that cannot hit a stranger, and how a process that is not our child
//! ended.
//!
//! # References
//! pidfd_open(2), pidfd_send_signal(2), waitid(2), and `linux/pidfd.h` for `PIDFD_GET_INFO`.

use std::ffi::c_int;
use std::fmt;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::ptr;

use nix::sys::signal::Signal;
use nix::sys::stat::fstat;
use nix::sys::statfs::{FsType, fstatfs};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};

/// The ioctl `_IOWR(0xFF, 11, struct pidfd_info)` in its first version, of 64 bytes.
const PIDFD_GET_INFO: u64 = 0xC040_FF0B;
const PIDFD_INFO_EXIT: u64 = 1 << 3;
/// `PID_FS_MAGIC` of linux/magic.h.
const PIDFS_MAGIC: FsType = FsType(0x5049_4446);

/// The kernel's `struct pidfd_info` in its first version.
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    ids: [u32; 11],
    exit_code: i32,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    Exited(i32),
    Killed(i32),
    /// It was not our child, and the kernel is too old to say (before 6.15).
    Unknown,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exited with status {code}"),
            Self::Killed(number) => match Signal::try_from(*number) {
                Ok(signal) => write!(f, "was killed by {signal}"),
                Err(_) => write!(f, "was killed by signal {number}"),
            },
            Self::Unknown => f.write_str("exited (the service manager's journal has its status)"),
        }
    }
}

/// Opens a pidfd of a process that is known to be alive.
pub fn open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: a system call; what it returns is a new close-on-exec fd.
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, pid, 0_u32);
        let fd = RawFd::try_from(fd).map_err(|_| io::ErrorKind::InvalidData)?;
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    }
}

/// Returns the number that the kernel gave to this process, and gives to no other until the next
/// boot (`pidfd_inode_id` in systemd's words). `None`: the kernel (before 6.9) gives none, or its
/// numbers do not fit here.
pub fn id(pidfd: BorrowedFd<'_>) -> Option<u64> {
    if !cfg!(target_pointer_width = "64") {
        return None;
    }
    // Before, all pidfds were one anonymous inode.
    let numbered = fstatfs(pidfd).ok()?.filesystem_type() == PIDFS_MAGIC;
    numbered.then(|| fstat(pidfd).ok()).flatten().map(|stat| stat.st_ino)
}

/// Returns that number of this process.
pub(crate) fn own_id() -> Option<u64> {
    id(open(std::process::id()).ok()?.as_fd())
}

/// Sends a signal to exactly this process.
pub fn send_signal(pidfd: BorrowedFd<'_>, signal: Signal) -> io::Result<()> {
    // SAFETY: a system call on a borrowed fd; a null siginfo means "as kill(2) would".
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal as c_int,
            ptr::null::<libc::siginfo_t>(),
            0_u32,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Returns how the process ended, or `None` while that cannot be told yet. It reaps the process if
/// that is our own child.
pub(crate) fn ended(pidfd: BorrowedFd<'_>) -> Option<Ended> {
    match waitid(Id::PIDFd(pidfd), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG) {
        Ok(WaitStatus::Exited(_, code)) => return Some(Ended::Exited(code)),
        Ok(WaitStatus::Signaled(_, signal, _)) => return Some(Ended::Killed(signal as c_int)),
        Ok(_) => return None,
        Err(_) => {} // ECHILD: somebody else's child
    }
    let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, ..PidfdInfo::default() };
    // SAFETY: the request names the size of the struct that it fills.
    let result = unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO as _, &raw mut info) };
    if result < 0 || info.mask & PIDFD_INFO_EXIT == 0 {
        return None; // not reaped by its parent yet, or an old kernel
    }
    Some(match info.exit_code {
        status if libc::WIFEXITED(status) => Ended::Exited(libc::WEXITSTATUS(status)),
        status => Ended::Killed(libc::WTERMSIG(status)),
    })
}
