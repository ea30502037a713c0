//! A program, started with named sockets as systemd would start it.

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use nix::poll::PollFlags;
use nix::sys::signal::Signal;

use crate::error::{Error, Kind, Result};
use crate::sys::fdtable;
use crate::sys::low::LowFds;
use crate::sys::pidfd;
use crate::sys::socket::wait;
use crate::sys::spawn::{LISTEN_FDS_START, Parent, Spawn, SpawnedProcess};
use crate::sys::stat::{self, stat};

/// Variables that name the process that they are meant for, or that only we may set.
pub(crate) const OWN_VARIABLES: [&str; 8] = [
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "LISTEN_PID",
    "LISTEN_PIDFDID",
    "WATCHDOG_PID",
    "SYSTEMD_EXEC_PID",
    "HANDOVER_FD",
    "HANDOVER_PID",
];

/// A program to be started with sockets, right for anything that speaks `LISTEN_FDS`.
///
/// The new process gets the sockets from fd 3 on with `LISTEN_FDS` and `LISTEN_FDNAMES`, and
/// `LISTEN_PID`, `SYSTEMD_EXEC_PID` and (with `WATCHDOG_USEC`) `WATCHDOG_PID` with its own pid, as
/// [sd_listen_fds(3)] and [sd_watchdog_enabled(3)] check them. All signals have their default
/// actions, but SIGHUP is ignored until the program installs a handler: a reload request must not
/// kill what cannot handle it yet.
///
/// Starting costs about a millisecond, whatever memory the starting process has touched: it is a
/// `vfork(2)`-like clone.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let listener = std::net::TcpListener::bind("127.0.0.1:8080")?;
/// let process = handover::Program::new("/usr/bin/web").arg("--verbose").socket("http", listener).start()?;
/// println!("started {}", process.pid());
/// # Ok(())
/// # }
/// ```
///
/// [sd_listen_fds(3)]: https://www.freedesktop.org/software/systemd/man/latest/sd_listen_fds.html
/// [sd_watchdog_enabled(3)]: https://www.freedesktop.org/software/systemd/man/latest/sd_watchdog_enabled.html
#[derive(Debug)]
#[must_use]
pub struct Program {
    path: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    directory: Option<PathBuf>,
    sockets: Vec<(String, OwnedFd)>,
    link: Option<OwnedFd>,
    parent: Parent,
    ignored: Vec<Signal>,
    low: Option<Arc<LowFds>>,
}

impl Program {
    /// Names the program at this path; its first argument is the path, its environment is empty.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let args = vec![path.clone().into_os_string()];
        Self {
            path,
            args,
            env: Vec::new(),
            directory: None,
            sockets: Vec::new(),
            link: None,
            parent: Parent::Us,
            ignored: vec![Signal::SIGHUP],
            low: None,
        }
    }

    /// Adds one more argument.
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Sets all arguments, the name of the program (`argv[0]`) first.
    pub fn argv(mut self, argv: impl IntoIterator<Item = OsString>) -> Self {
        self.args = argv.into_iter().collect();
        self
    }

    /// Adds one more variable. What names a process or its sockets (`LISTEN_PID`, `WATCHDOG_PID`,
    /// …) is set at the start and cannot be given.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Adds more variables, see [`Program::env`].
    pub fn envs(mut self, pairs: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        self.env.extend(pairs);
        self
    }

    /// Sets where it works; by default that is where we do.
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// Passes one more socket (or other fd); a name may come several times.
    pub fn socket(mut self, name: impl Into<String>, fd: impl Into<OwnedFd>) -> Self {
        self.sockets.push((name.into(), fd.into()));
        self
    }

    /// Passes its end of the private link.
    pub(crate) fn link(mut self, fd: OwnedFd) -> Self {
        self.link = Some(fd);
        self
    }

    pub(crate) fn parent(mut self, parent: Parent) -> Self {
        self.parent = parent;
        self
    }

    /// Sets which signals it ignores until it installs handlers, instead of SIGHUP alone.
    pub(crate) fn ignoring(mut self, signals: Vec<Signal>) -> Self {
        self.ignored = signals;
        self
    }

    /// Sets numbers for its sockets and its link, so that the start costs the same with any number
    /// of open fds.
    pub(crate) fn low(mut self, low: Option<Arc<LowFds>>) -> Self {
        self.low = low;
        self
    }

    /// Starts it. Blocks for about a millisecond, until it was executed.
    ///
    /// # Errors
    /// With [`Error::is_generation`]: it is missing, not executable, of another format, its
    /// directory is gone, or the system has no room for one more process. With
    /// [`Error::is_invalid`]: an argument or variable has a NUL byte, or a socket's name has a
    /// colon.
    pub fn start(self) -> Result<Process> {
        let shown = self.path.display().to_string();
        let env = self.environment()?;
        let mut pid_variables = vec!["LISTEN_PID", "SYSTEMD_EXEC_PID"];
        if self.env.iter().any(|(name, _)| name == "WATCHDOG_USEC") {
            pid_variables.push("WATCHDOG_PID");
        }
        if self.link.is_some() {
            pid_variables.push("HANDOVER_PID");
        }
        let fds: Vec<BorrowedFd<'_>> =
            self.sockets.iter().map(|(_, fd)| fd.as_fd()).chain(self.link.as_ref().map(AsFd::as_fd)).collect();
        let spawn = Spawn {
            program: c_string(self.path.as_os_str())?,
            args: self.args.iter().map(|arg| c_string(arg)).collect::<Result<_>>()?,
            env,
            pid_variables: &pid_variables,
            directory: self.directory.as_deref().map(|d| c_string(d.as_os_str())).transpose()?,
            fds,
            // there it may be an fd, which the new process would not have
            low: self.low.as_deref().filter(|_| !["/proc", "/dev/fd"].iter().any(|fds| self.path.starts_with(fds))),
            first_fd: LISTEN_FDS_START,
            table: fdtable::entries_like(std::process::id()),
            parent: self.parent,
            ignored: &self.ignored,
            session: false,
            death_signal: None,
        };
        match spawn.start() {
            Ok(SpawnedProcess { pid, pidfd }) => Ok(Process { pid, pidfd }),
            Err(error) => Err(explain(&shown, self.directory.as_deref(), error)),
        }
    }

    fn environment(&self) -> Result<Vec<CString>> {
        let mut env = Vec::with_capacity(self.env.len() + 4);
        for (name, value) in &self.env {
            if !OWN_VARIABLES.iter().any(|own| name == own) {
                let mut line = name.clone();
                line.push("=");
                line.push(value);
                env.push(c_string(&line)?);
            }
        }
        let names: Vec<&str> = self.sockets.iter().map(|(name, _)| name.as_str()).collect();
        if let Some(bad) = names.iter().find(|name| name.contains(':')) {
            return Err(Error::new(
                Kind::Invalid,
                format!("the socket name {bad:?} has a colon, which LISTEN_FDNAMES separates names with"),
            ));
        }
        env.push(c_string(OsStr::new(&format!("LISTEN_FDS={}", names.len())))?);
        env.push(c_string(OsStr::new(&format!("LISTEN_FDNAMES={}", names.join(":"))))?);
        if self.link.is_some() {
            let fd = LISTEN_FDS_START as usize + names.len();
            env.push(c_string(OsStr::new(&format!("HANDOVER_FD={fd}")))?);
        }
        Ok(env)
    }
}

/// A process that [`Program::start`] started. Dropping it does not end the process.
#[derive(Debug)]
pub struct Process {
    pid: u32,
    pidfd: OwnedFd,
}

impl Process {
    /// Returns its pid.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Returns a pidfd of it, which is readable when the process has ended.
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Returns whether a service manager would refuse it as its main process: it has ended, or is
    /// ending. The pidfd alone tells only when the last of its threads is gone; systemd asks for
    /// the state of the first, which is a zombie before.
    pub(crate) fn has_ended(&self) -> bool {
        wait(self.pidfd.as_fd(), PollFlags::POLLIN, Instant::now()).unwrap_or(false)
            || stat(self.pid).is_some_and(|process| process.dead)
    }

    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        pidfd::send_signal(self.pidfd.as_fd(), signal)
    }

    /// What tells it from any later process with its pid.
    pub(crate) fn pidfd_id(&self) -> Option<u64> {
        pidfd::id(self.pidfd.as_fd())
    }

    pub(crate) fn try_clone_pidfd(&self) -> io::Result<OwnedFd> {
        self.pidfd.try_clone()
    }
}

pub(crate) fn c_string(text: &OsStr) -> Result<CString> {
    CString::new(text.as_bytes().to_vec())
        .map_err(|_| Error::new(Kind::Invalid, format!("{:?} has a NUL byte, which no argument or variable can", text)))
}

pub(crate) fn explain(program: &str, directory: Option<&Path>, error: io::Error) -> Error {
    let what = match error.raw_os_error() {
        Some(libc::ENOENT) if directory.is_some_and(|d| !d.is_dir()) => {
            format!(
                "{program} cannot be started: its working directory {} is gone",
                directory.unwrap_or(Path::new("/")).display()
            )
        }
        Some(libc::ENOENT) => format!("{program} cannot be started: it, or the interpreter that it names, is missing"),
        Some(libc::EACCES) => format!("{program} cannot be started: it is not executable for this user"),
        Some(libc::ENOEXEC) => format!("{program} cannot be started: it is not a program for this machine"),
        Some(libc::ETXTBSY) => format!(
            "{program} cannot be started: it is still being written; install new versions by renaming them into place"
        ),
        Some(libc::EAGAIN | libc::ENOMEM) => {
            format!("{program} cannot be started: no room for one more process (TasksMax=, LimitNPROC=, MemoryMax=)")
        }
        _ => format!("{program} cannot be started"),
    };
    Error::caused(Kind::Generation, what, error)
}

/// Finds where our own program is: the path to start the next generation from.
///
/// It is not `/proc/self/exe` itself: that is the file that runs now, and replacing the file is the
/// upgrade. `argv[0]` keeps a symbolic link such as `/opt/web/current/web` as it is; a made-up
/// `argv[0]` is noticed because it is another file.
pub(crate) fn own_path(argv0: Option<&OsStr>, search: Option<&OsStr>, directory: &Path) -> Result<PathBuf> {
    let running = std::fs::metadata("/proc/self/exe").ok();
    let same = |path: &Path| {
        use std::os::unix::fs::MetadataExt as _;
        let found = std::fs::metadata(path).ok();
        running.as_ref().zip(found).is_some_and(|(a, b)| (a.dev(), a.ino()) == (b.dev(), b.ino()))
    };
    if let Some(argv0) = argv0.filter(|a| !a.is_empty()) {
        let candidates: Vec<PathBuf> = if argv0.as_bytes().contains(&b'/') {
            vec![directory.join(argv0)]
        } else {
            search
                .map(|path| std::env::split_paths(path).map(|dir| directory.join(dir).join(argv0)).collect())
                .unwrap_or_default()
        };
        if let Some(found) = candidates.into_iter().find(|path| same(path)) {
            return Ok(found);
        }
    }
    stat::program("self").map_err(|e| {
        Error::caused(Kind::Generation, "/proc/self/exe cannot be read: name the program with Builder::program", e)
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn found(argv0: Option<&str>, search: Option<&str>, directory: &Path) -> PathBuf {
        own_path(argv0.map(OsStr::new), search.map(OsStr::new), directory).unwrap()
    }

    #[test]
    fn the_way_that_we_were_started_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let (here, us) = (directory.path(), std::env::current_exe().unwrap());
        let (link, other) = (here.join("web"), here.join("other"));
        symlink(&us, &link).unwrap();
        std::fs::write(&other, "").unwrap();
        let path = format!("/nowhere:{}", here.display());
        assert_eq!(found(link.to_str(), None, Path::new("/")), link, "as it is, not what it points to");
        assert_eq!(found(Some("./web"), None, here), here.join("./web"));
        assert_eq!(found(Some("web"), Some(&path), Path::new("/")), link);
        // Not ours: another program, a made-up name, no name, and a name that is only found by a
        // search.
        for argv0 in [other.to_str(), Some("web: main"), Some(""), None, Some("./nothing")] {
            assert_eq!(found(argv0, Some(&path), here), us, "{argv0:?}");
        }
        assert_eq!(found(Some("web"), None, here), us, "a bare name is no path");
        assert_eq!(found(Some("web"), Some(""), here), here.join("web"), "an empty PATH is the working directory");
    }

    #[test]
    fn the_environment_names_what_is_passed() {
        let null = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let lines = |program: Program| {
            let env = program.environment().unwrap();
            env.into_iter().map(|line| line.into_string().unwrap()).collect::<Vec<_>>()
        };
        let program = Program::new("web").env("LISTEN_FDS", "9").env("A", "b").socket("x", null()).socket("", null());
        assert_eq!(lines(program), ["A=b", "LISTEN_FDS=2", "LISTEN_FDNAMES=x:"]);
        let program = Program::new("web").env("HANDOVER_FD", "9").socket("x", null()).link(null());
        assert_eq!(lines(program), ["LISTEN_FDS=1", "LISTEN_FDNAMES=x", "HANDOVER_FD=4"]);
    }
}
