//! Starting a program by a vfork-like clone: the cost does not grow with our memory, and the new
//! process can be a child of our own parent.
//!
//! # References
//! clone(2), vfork(2), sd_listen_fds(3).

use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::ptr;

use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};

use crate::sys::low::LowFds;
use crate::sys::socket::duplicate_above;

pub(crate) use crate::sys::low::LISTEN_FDS_START;

/// The room for the child's few frames: it makes system calls and nothing else.
const STACK: usize = 64 * 1024;

/// The room for the digits of the largest pid, and the NUL.
const PID_ROOM: usize = 11;

/// Whose child the new process becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parent {
    /// Ours.
    Us,
    /// Our own parent's, which is the service manager (`CLONE_PARENT`). It is not possible for PID
    /// 1 of a namespace.
    Manager,
}

/// All that is needed to start a program.
#[derive(Debug)]
pub(crate) struct Spawn<'a> {
    pub(crate) program: CString,
    pub(crate) args: Vec<CString>,
    /// The variables, each as `NAME=value`.
    pub(crate) env: Vec<CString>,
    /// Variables that are set to the new process's own pid.
    pub(crate) pid_variables: &'a [&'static str],
    pub(crate) directory: Option<CString>,
    /// They become 3, 4, 5…; everything else of ours must be close-on-exec.
    pub(crate) fds: Vec<BorrowedFd<'a>>,
    /// Numbers that they can be copied at, so that nothing of what is above needs to be copied for
    /// the new process. Neither the program nor the directory may be named by an fd then.
    pub(crate) low: Option<&'a LowFds>,
    /// The number that the first of them becomes instead of 3.
    pub(crate) first_fd: RawFd,
    /// How many entries its table of fds has from the start, as far as there is memory.
    pub(crate) table: RawFd,
    pub(crate) parent: Parent,
    /// Signals that it ignores until it installs handlers.
    pub(crate) ignored: &'a [Signal],
    /// Whether it leads a session and a process group of its own.
    pub(crate) session: bool,
    /// Sent to it when the *thread* that starts it ends. It is not started if this process has
    /// ended before it could ask for that.
    pub(crate) death_signal: Option<Signal>,
}

/// A process that was started.
#[derive(Debug)]
pub(crate) struct SpawnedProcess {
    pub(crate) pid: u32,
    pub(crate) pidfd: OwnedFd,
}

impl Spawn<'_> {
    /// Starts the program. Blocks until it was executed (about a millisecond) or could not be.
    ///
    /// In the new process all signals have their default actions and none is blocked, except that
    /// some are ignored, SIGHUP first of all: its default action is death, and a reload request
    /// must not kill a generation that has no handler yet. Ignored rather than blocked: a program
    /// installs its handler over both, but only few programs unblock.
    pub(crate) fn start(&self) -> io::Result<SpawnedProcess> {
        if let Some(low) = self.low.filter(|_| self.first_fd == LISTEN_FDS_START)
            && let Some(placed) = low.place(&self.fds)?
        {
            let sources = placed.numbers();
            let last = sources.iter().copied().max().unwrap_or(0).max(libc::STDERR_FILENO);
            if let Some(spawned) = self.start_with(&sources, Some(last + 1))? {
                return Ok(spawned);
            }
            // Linux before 5.9, or a seccomp filter that does not know close_range(2)
        }
        // Sources above all targets, or placing one could overwrite the next.
        let count = RawFd::try_from(self.fds.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let beyond = self.first_fd.checked_add(count).ok_or(io::ErrorKind::InvalidInput)?;
        let above = beyond.max(LISTEN_FDS_START);
        let copies: Vec<OwnedFd> = self.fds.iter().map(|fd| duplicate_above(*fd, above)).collect::<io::Result<_>>()?;
        let sources: Vec<RawFd> = copies.iter().map(|fd| fd.as_raw_fd()).collect();
        self.start_with(&sources, None)?.ok_or(io::ErrorKind::Unsupported.into())
    }

    /// Starts the program with the fds at the numbers `sources`, all beyond what they become. From
    /// `split` on the new process needs none of our fds. It returns `None` if the process could not
    /// have a table of fds of its own in that way.
    fn start_with(&self, sources: &[RawFd], split: Option<RawFd>) -> io::Result<Option<SpawnedProcess>> {
        let mut pids: Vec<Vec<u8>> = Vec::new();
        for name in self.pid_variables {
            let mut line = format!("{name}=").into_bytes();
            line.resize(line.len() + PID_ROOM, 0);
            pids.push(line);
        }
        let pid_slots: Vec<*mut c_char> = pids
            .iter_mut()
            .zip(self.pid_variables)
            .map(|(line, name)| line[name.len() + 1..].as_mut_ptr().cast())
            .collect();
        let args = pointers(self.args.iter().map(|a| a.as_ptr()));
        let env = pointers(self.env.iter().map(|e| e.as_ptr()).chain(pids.iter().map(|p| p.as_ptr().cast())));

        let mut child = ChildSetup {
            program: self.program.as_ptr(),
            args: args.as_ptr(),
            env: env.as_ptr(),
            directory: self.directory.as_ref().map_or(ptr::null(), |d| d.as_ptr()),
            split: split.map_or(0, RawFd::cast_unsigned),
            is_split: split.is_none(),
            fds: sources.as_ptr(),
            first_fd: self.first_fd,
            fd_count: RawFd::try_from(sources.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
            table: self.table,
            pid_slots: pid_slots.as_ptr(),
            pid_slot_count: pid_slots.len(),
            ignored: self.ignored.iter().fold(0, |set, signal| set | bit(*signal as c_int)),
            session: self.session,
            death_signal: self.death_signal.map_or(0, |signal| signal as c_int),
            parent: nix::unistd::getpid().as_raw(),
            errno: 0,
        };

        // The child runs in our memory until it executes: no handler of ours may run there.
        let mut before = SigSet::empty();
        pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&SigSet::all()), Some(&mut before))?;
        let started = child.clone(self.parent);
        let restored = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&before), None);
        let (pid, pidfd) = started?;
        restored?;
        // SAFETY: the child wrote it, and has executed or exited by now; volatile because the
        // compiler saw no write.
        let (errno, is_split) =
            unsafe { (ptr::read_volatile(&raw const child.errno), ptr::read_volatile(&raw const child.is_split)) };
        if errno == 0 {
            return Ok(Some(SpawnedProcess { pid, pidfd }));
        }
        if self.parent == Parent::Us {
            let _ = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid.cast_signed()), None);
        }
        if is_split { Err(io::Error::from_raw_os_error(errno)) } else { Ok(None) }
    }
}

/// Returns the bit of a signal; signals go from 1 to 64.
const fn bit(signal: c_int) -> u64 {
    1 << (signal - 1)
}

fn pointers<T>(of: impl Iterator<Item = *const T>) -> Vec<*const T> {
    of.chain([ptr::null()]).collect()
}

/// Pointers into the parent's memory, which the child shares and the parent keeps: it is suspended
/// meanwhile.
struct ChildSetup {
    program: *const c_char,
    args: *const *const c_char,
    env: *const *const c_char,
    directory: *const c_char,
    /// Its table of fds is ours until it has made one of its own, with those below this. 0: it is a
    /// copy from the beginning.
    split: c_uint,
    is_split: bool,
    fds: *const RawFd,
    first_fd: RawFd,
    fd_count: RawFd,
    table: RawFd,
    pid_slots: *const *mut c_char,
    pid_slot_count: usize,
    /// A bit for each signal.
    ignored: u64,
    session: bool,
    /// The signal that it gets when the thread that started it ends; 0 for none.
    death_signal: c_int,
    /// Who starts it.
    parent: libc::pid_t,
    errno: c_int,
}

impl ChildSetup {
    fn clone(&mut self, parent: Parent) -> io::Result<(u32, OwnedFd)> {
        // not cleared: it needs one page or two of it
        let mut stack = Box::<[u128]>::new_uninit_slice(STACK / size_of::<u128>());
        let mut flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
        if parent == Parent::Manager {
            flags |= libc::CLONE_PARENT;
        }
        if self.split != 0 {
            flags |= libc::CLONE_FILES;
        }
        let mut pidfd: RawFd = -1;
        // SAFETY: `run` only makes async-signal-safe calls on pointers that live until clone
        // returns (CLONE_VFORK suspends us until the child has executed or exited); the stack is
        // aligned and grows down from its end.
        let pid = unsafe {
            let top = stack.as_mut_ptr().add(stack.len()).cast::<c_void>();
            libc::clone(
                run,
                top,
                flags,
                (&raw mut *self).cast(),
                &raw mut pidfd,
                ptr::null_mut::<c_void>(),
                ptr::null_mut::<c_void>(),
            )
        };
        if pid < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: CLONE_PIDFD stored a new close-on-exec fd there.
        Ok((pid.cast_unsigned(), unsafe { OwnedFd::from_raw_fd(pidfd) }))
    }
}

/// Runs in the child, in the parent's memory, on its own stack.
extern "C" fn run(child: *mut c_void) -> c_int {
    // SAFETY: the only caller passes its own `ChildSetup`, and waits until we are gone. Only system
    // calls follow.
    unsafe {
        let child = child.cast::<ChildSetup>();
        match split(child).and_then(|()| prepare(&*child)) {
            Ok(()) => {
                libc::execve((*child).program, (*child).args, (*child).env);
                fail(child)
            }
            Err(()) => fail(child),
        }
    }
}

/// Notes the error for the parent, and exits.
///
/// # Safety
/// It may be called in the child of [`ChildSetup::clone`] only.
unsafe fn fail(child: *mut ChildSetup) -> ! {
    // SAFETY: see above; the parent reads errno after we are gone.
    unsafe {
        ptr::write_volatile(&raw mut (*child).errno, *libc::__errno_location());
        libc::_exit(127)
    }
}

/// Gives the child a table of fds of its own: from here on the fds are not ours.
///
/// # Safety
/// It may be called in the child of [`ChildSetup::clone`] only, before anything else.
unsafe fn split(child: *mut ChildSetup) -> Result<(), ()> {
    // SAFETY: see above; close_range changes no memory, and no table but the one that it makes.
    unsafe {
        if (*child).split != 0 {
            if libc::syscall(libc::SYS_close_range, (*child).split, u32::MAX, libc::CLOSE_RANGE_UNSHARE) < 0 {
                return Err(());
            }
            ptr::write_volatile(&raw mut (*child).is_split, true);
        }
    }
    Ok(())
}

/// Makes the process what the program shall find: signals, session, fds, directory.
///
/// # Safety
/// It may be called in the child of [`ChildSetup::clone`] only.
unsafe fn prepare(child: &ChildSetup) -> Result<(), ()> {
    // SAFETY: system calls on our own copies of the fd table, signal table and mask; pointers as in
    // `ChildSetup`.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        for signal in 1..=libc::SIGRTMAX() {
            if signal == libc::SIGKILL || signal == libc::SIGSTOP {
                continue;
            }
            action.sa_sigaction = if child.ignored & bit(signal) == 0 { libc::SIG_DFL } else { libc::SIG_IGN };
            // EINVAL for the two that the C library keeps for itself.
            libc::sigaction(signal, &raw const action, ptr::null_mut());
        }
        if child.session && libc::setsid() < 0 {
            return Err(());
        }
        if child.death_signal != 0 {
            if libc::prctl(libc::PR_SET_PDEATHSIG, child.death_signal) < 0 {
                return Err(());
            }
            // Who has died already sends no signal any more.
            if libc::getppid() != child.parent {
                *libc::__errno_location() = libc::ECHILD;
                return Err(());
            }
        }
        let mut target = child.first_fd;
        let beyond = child.first_fd + child.fd_count;
        let mut source = child.fds;
        while target < beyond {
            if libc::dup2(*source, target) < 0 {
                return Err(());
            }
            source = source.add(1);
            target += 1;
        }
        // Its table is nobody else's now, which makes this cheap, and the exec keeps its size.
        let open = if child.fd_count > 0 { child.first_fd } else { libc::STDIN_FILENO };
        libc::fcntl(open, libc::F_DUPFD_CLOEXEC, child.table - 1);
        // What some library opened without close-on-exec would be handed on for ever. Closed by the
        // exec, not now: the program itself may be named by an fd of ours. Before Linux 5.11: as it
        // is.
        let from = beyond.max(LISTEN_FDS_START).cast_unsigned();
        libc::syscall(libc::SYS_close_range, from, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
        let pid = libc::getpid().cast_unsigned();
        for i in 0..child.pid_slot_count {
            write_decimal(*child.pid_slots.add(i), pid);
        }
        if !child.directory.is_null() && libc::chdir(child.directory) < 0 {
            return Err(());
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        if libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut()) < 0 {
            return Err(());
        }
    }
    Ok(())
}

/// Writes a number in decimal digits.
///
/// # Safety
/// `to` has room for [`PID_ROOM`] bytes, zeroed.
unsafe fn write_decimal(to: *mut c_char, mut number: u32) {
    let mut digits = [0_u8; PID_ROOM];
    let mut at = PID_ROOM;
    loop {
        at -= 1;
        digits[at] = b"0123456789"[(number % 10) as usize];
        number /= 10;
        if number == 0 {
            break;
        }
    }
    for (i, digit) in digits[at..].iter().enumerate() {
        // SAFETY: at most PID_ROOM - 1 digits.
        unsafe { *to.add(i) = digit.cast_signed() as c_char };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As when this process had died between the clone and the prctl: the parent is another one.
    #[test]
    fn nobody_lives_on_who_is_to_die_with_this_process_and_has_another_parent() {
        let start = |parent, death_signal| {
            Spawn {
                program: c"/bin/true".into(),
                args: vec![c"true".into()],
                env: Vec::new(),
                pid_variables: &[],
                directory: None,
                fds: Vec::new(),
                low: None,
                first_fd: LISTEN_FDS_START,
                table: 64,
                parent,
                ignored: &[],
                session: false,
                death_signal,
            }
            .start()
        };
        let error = start(Parent::Manager, Some(Signal::SIGTERM)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ECHILD));
        let started = start(Parent::Us, Some(Signal::SIGTERM)).unwrap();
        nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(started.pid.cast_signed()), None).unwrap();
    }
}
