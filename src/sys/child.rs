//! Children of ours, for jobs: in a session of their own, and ended with the thread that started
//! them.
//!
//! # References
//! setsid(2), prctl(2) (`PR_SET_PDEATHSIG`), signal-safety(7).

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::ptr;

use nix::sys::signal::Signal;
use tokio::process::Command;

/// The byte that tells a held child to go on, and execute.
pub(crate) const GO: u8 = b'g';

/// What the child does between fork and exec.
#[derive(Debug)]
pub(crate) struct Setup {
    /// Sent to it when the *thread* that started it ends.
    pub(crate) death_signal: Option<Signal>,
    /// It says its pid here (4 bytes, native order), and waits for [`GO`]; then the number of our
    /// end, which it closes.
    pub(crate) hold: Option<(OwnedFd, RawFd)>,
}

/// Sets up the command's process: it will lead a session and a process group of its own, with no
/// signal blocked and each with its default action. What is ignored would stay so over the exec,
/// and a service ignores some while it starts.
pub(crate) fn set_up(command: &mut Command, setup: Setup) {
    let us = std::process::id();
    // SAFETY: between fork and exec only async-signal-safe system calls follow, and nothing
    // allocates.
    unsafe { command.pre_exec(move || child(us, &setup)) };
}

fn child(parent: u32, setup: &Setup) -> io::Result<()> {
    // SAFETY: system calls on the child's own signal table and mask, and on fds that it owns copies
    // of.
    unsafe {
        // While it is held nobody else would end it.
        check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
        if libc::getppid().cast_unsigned() != parent {
            return Err(io::Error::from_raw_os_error(libc::ECHILD)); // it has died already, and could not tell us any more
        }
        check(libc::setsid())?;
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = libc::SIG_DFL;
        // fails for those that cannot be caught: no matter
        for signal in 1..=libc::SIGRTMAX() {
            libc::sigaction(signal, &raw const action, ptr::null_mut());
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        check(libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut()))?;
        if let Some((fd, other)) = &setup.hold {
            libc::close(*other);
            let pid = libc::getpid().to_ne_bytes();
            if libc::write(fd.as_raw_fd(), pid.as_ptr().cast(), pid.len()) != pid.len().cast_signed() {
                return Err(io::Error::last_os_error());
            }
            let mut answer = 0_u8;
            while libc::read(fd.as_raw_fd(), (&raw mut answer).cast(), 1) < 0 {
                if *libc::__errno_location() != libc::EINTR {
                    return Err(io::Error::last_os_error());
                }
            }
            if answer != GO {
                return Err(io::Error::from_raw_os_error(libc::ECANCELED));
            }
        }
        let signal = setup.death_signal.map_or(0, |signal| signal as libc::c_int);
        check(libc::prctl(libc::PR_SET_PDEATHSIG, signal))
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
