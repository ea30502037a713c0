//! Starts a program that knows nothing of its supervisor.

use std::collections::HashSet;
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::error::{Error, Kind, Result};
use crate::generation::place::Place;
use crate::generation::program::{OWN_VARIABLES, c_string, explain};
use crate::supervise::image::Image;
use crate::supervise::inheritance::Item;
use crate::supervise::passing::{self, Passing};
use crate::supervise::tree::{ProcessFamily, TAG};
use crate::sys::fdtable;
use crate::sys::pidfd;
use crate::sys::spawn::{LISTEN_FDS_START, Parent, Spawn, SpawnedProcess};

/// Variables that are ours, or of another supervisor around us, and not for the program.
const NOT_PASSED: [&str; 10] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "FDSTORE",
    "HANDOVER_GENERATION",
    "HANDOVER_RUN_RESUME",
    TAG,
    "SERVER_STARTER_PORT",
    "SERVER_STARTER_GENERATION",
    "EINHORN_FDS",
    "NGINX",
];
/// What starts the program of another root: no reload of ours does.
const RESTART: &str = "use `systemctl restart`, over which the sockets are kept";
/// The distance from the targets of the fds to the fd that names the program.
const APART: RawFd = 16;

#[derive(Debug, Clone)]
pub(crate) struct ProgramCommand {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) directory: Option<PathBuf>,
    pub(crate) ways: Vec<Passing>,
    pub(crate) first_fd: RawFd,
}

#[derive(Debug, Clone)]
pub(crate) struct Recipe {
    pub(crate) command: ProgramCommand,
    pub(crate) env: Vec<(OsString, OsString)>,
    /// The path of the socket for its notifications.
    pub(crate) notify: PathBuf,
    pub(crate) watchdog: Option<Duration>,
    /// Whether somebody else ends what is left behind when this process dies.
    pub(crate) managed: bool,
    /// The name of this run of the service, in the tags of its processes.
    pub(crate) run: String,
    /// The mounts that the program lay on when its supervisor started.
    pub(crate) place: Place,
}

/// A process that was started, and will have to be waited for.
#[derive(Debug)]
pub(crate) struct ProgramProcess {
    pub(crate) pid: u32,
    pub(crate) pidfd: OwnedFd,
    pub(crate) family: ProcessFamily,
    /// What it was started from, if that can be started again.
    pub(crate) image: Option<Image>,
}

impl ProgramCommand {
    /// Finds the mounts that the program lies on now.
    pub(crate) fn place(&self, env: &[(OsString, OsString)]) -> Place {
        self.find(env).map_or_else(|_| Place::default(), |path| Place::of(&path))
    }

    /// Looks for the program, at each start, as execvp(3) does.
    fn find(&self, env: &[(OsString, OsString)]) -> Result<PathBuf> {
        if self.program.as_os_str().as_bytes().contains(&b'/') {
            return Ok(self.program.clone());
        }
        let search = env.iter().find(|(name, _)| name == "PATH").map(|(_, value)| value.as_os_str());
        let search = search.unwrap_or(OsStr::new("/usr/local/bin:/usr/bin:/bin"));
        let found = std::env::split_paths(search).map(|dir| dir.join(&self.program)).find(|path| is_program(path));
        found.ok_or_else(|| {
            Error::new(Kind::Generation, format!("{} is in no directory of PATH", self.program.display()))
        })
    }
}

impl Recipe {
    /// Starts the program; this blocks for about a millisecond. `image` is the version to start,
    /// instead of what is at the path now, and `before` the process that it is to follow.
    pub(crate) fn start(
        &self,
        generation: u64,
        items: &[Item],
        image: Option<&Image>,
        before: Option<u32>,
    ) -> Result<ProgramProcess> {
        let path = self.command.find(&self.env)?;
        // Who has nothing that runs is started with whatever there is.
        if self.managed && image.is_none() && before.is_some() {
            self.place.check(&Place::of(&path), &path, RESTART)?;
            self.place.warn_of_unseen(&path, &self.env);
        }
        let told =
            passing::tell(&self.command.ways, self.command.first_fd, items, &self.command.arguments, generation)?;
        let tag = format!("{TAG}={}-{generation}", self.run);
        let count = RawFd::try_from(items.len()).map_err(|_| Error::new(Kind::Invalid, "too many sockets"))?;
        let above = self.command.first_fd.max(LISTEN_FDS_START) + count + APART;
        let kept = image.map(|image| image.fd_above(above)).transpose();
        let kept = kept.map_err(|e| Error::os("the last good version cannot be opened", e))?;
        let now = if image.is_none() { Image::at(&path) } else { image.cloned() };
        let program = kept.as_ref().map_or_else(|| path.clone().into_os_string(), |fd| Image::path_of(fd).into());
        let arguments = [self.command.program.as_os_str()].into_iter().chain(told.arguments.iter().map(|a| &**a));
        let args = arguments.map(c_string).collect::<Result<_>>()?;
        let mut pid_variables = told.pid_variables;
        pid_variables.extend(self.watchdog.map(|_| "WATCHDOG_PID"));
        let spawn = Spawn {
            program: c_string(&program)?,
            args,
            env: self.environment(told.variables, &tag)?,
            pid_variables: &pid_variables,
            directory: self.command.directory.as_deref().map(|d| c_string(d.as_os_str())).transpose()?,
            fds: items.iter().map(|item| item.fd.as_fd()).collect::<Vec<BorrowedFd<'_>>>(),
            low: None,
            first_fd: self.command.first_fd,
            table: fdtable::entries_like(before.unwrap_or_else(std::process::id)),
            parent: Parent::Us,
            // As systemd starts programs (IgnoreSIGPIPE=).
            ignored: &[Signal::SIGPIPE],
            session: true,
            // systemd tells it by itself, and a second SIGTERM means "at once" to many programs.
            death_signal: (!self.managed && on_main_thread()).then_some(Signal::SIGTERM),
        };
        let SpawnedProcess { pid, pidfd } =
            spawn.start().map_err(|e| explain(&path.display().to_string(), self.command.directory.as_deref(), e))?;
        // What runs is what was looked at, and no script: there the kernel runs the interpreter.
        let running = File::open(format!("/proc/{pid}/exe")).ok().and_then(Image::of);
        let image = now.filter(|image| running.is_some_and(|running| running.is(image)));
        Ok(ProgramProcess { pid, pidfd, family: ProcessFamily { leader: pid, tag }, image })
    }

    fn environment(&self, told: Vec<(String, String)>, tag: &str) -> Result<Vec<CString>> {
        let ours: HashSet<&str> = NOT_PASSED.into_iter().chain(OWN_VARIABLES).collect();
        let passed = self.env.iter().filter(|(name, _)| {
            name.to_str().is_none_or(|name| !ours.contains(name) && !name.starts_with("EINHORN_FD_"))
        });
        let mut lines: Vec<OsString> = passed.map(|(name, value)| [&**name, value].join("=".as_ref())).collect();
        lines.extend(told.into_iter().map(|(name, value)| format!("{name}={value}").into()));
        lines.push(tag.into());
        lines.push([OsStr::new("NOTIFY_SOCKET"), self.notify.as_os_str()].join("=".as_ref()));
        lines.extend(self.watchdog.map(|every| format!("WATCHDOG_USEC={}", every.as_micros()).into()));
        lines.iter().map(|line| c_string(line)).collect()
    }
}

impl ProgramProcess {
    pub(crate) fn signal(&self, signal: Signal) {
        // It may have ended, which is told elsewhere.
        let _ = pidfd::send_signal(self.pidfd.as_fd(), signal);
    }
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).is_ok_and(|of| of.is_file() && of.permissions().mode() & 0o111 != 0)
}

/// Whether this is the main thread. The kernel sends a death signal when the thread that started
/// the process ends: only this one ends with the process, and not before an exec.
fn on_main_thread() -> bool {
    nix::unistd::gettid() == nix::unistd::getpid()
}
