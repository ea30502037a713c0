//! Starting the next generation.

use std::ffi::OsString;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::sys::signal::Signal;
use tracing::warn;

use crate::error::{Error, Kind, Result};
use crate::generation::link::Idle;
use crate::generation::place::{Place, RESTART};
use crate::generation::program::{Process, Program, own_path};
use crate::sys::low::LowFds;
use crate::sys::memfd;
use crate::sys::spawn::Parent;
use crate::systemd::environment::Environment;
use crate::wire::frame::{Frame, Hello, MAX_FDS};

/// The link, and sockets that the service opens by itself.
const SPARE_FDS: usize = 8;

/// How this process was started; the next one is started in the same way.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    pub(crate) program: PathBuf,
    pub(crate) argv: Vec<OsString>,
    pub(crate) env: Vec<(OsString, OsString)>,
    /// A path as it was given, so that a link on it may lead elsewhere by the next start.
    directory: PathBuf,
    /// Signals that the next one is started with ignored.
    pub(crate) ignored: Vec<Signal>,
    low: Option<Arc<LowFds>>,
    /// The mounts that the program lay on then.
    place: Place,
}

/// What an earlier generation, or the application, has settled on.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) program: Option<PathBuf>,
    pub(crate) directory: Option<PathBuf>,
}

/// What the next generation gets.
#[derive(Debug)]
pub(crate) struct Estate {
    pub(crate) sockets: Vec<(String, OwnedFd)>,
    pub(crate) hello: Hello,
    /// The links to older generations, one for each of `hello.drainers`.
    pub(crate) links: Vec<OwnedFd>,
    pub(crate) state: Option<Vec<u8>>,
}

/// A generation that was started and is not main yet.
#[derive(Debug)]
pub(crate) struct Next {
    pub(crate) process: Process,
    pub(crate) link: Idle,
}

impl Origin {
    /// Captures how this process was started.
    pub(crate) fn capture(environment: &Environment, known: Known, watchdog: bool) -> Result<Self> {
        let argv: Vec<OsString> = std::env::args_os().collect();
        let here = std::env::current_dir();
        let told = environment.get("PWD").map(Path::new);
        let directory = match (known.directory, here) {
            (Some(path), here) => here.unwrap_or_default().join(path),
            (None, Ok(here)) => told.filter(|path| is_same(path, &here)).map_or(here, Path::to_owned),
            (None, Err(e)) => {
                let why = "the working directory is gone, so no next generation could start there";
                return Err(Error::caused(Kind::Generation, why, e));
            }
        };
        let program = match known.program {
            Some(path) => directory.join(path),
            None => own_path(argv.first().map(OsString::as_os_str), environment.get("PATH"), &directory)?,
        };
        // systemd sets no $PWD. But where a release is, there is its program, as a rule.
        let above = || program.ancestors().skip(1).find(|path| is_same(path, &directory));
        let directory = above().map_or(directory.clone(), Path::to_owned);
        let env = environment
            .iter()
            // A watchdog that was meant for an ancestor must not become the next generation's.
            .filter(|(name, _)| watchdog || *name != "WATCHDOG_USEC")
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        // now, as the low numbers are free only before there are connections; without them a start
        // takes longer
        let passed = environment.get("LISTEN_FDS").and_then(|count| count.to_str()?.parse().ok()).unwrap_or(0_usize);
        let low = LowFds::hold(passed.min(MAX_FDS) + SPARE_FDS).map(Arc::new).ok();
        let place = Place::of(&program);
        Ok(Self { program, argv, env, directory, ignored: vec![Signal::SIGHUP], low, place })
    }

    /// Returns where the next one is to work, as it is told.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Blocks for about a millisecond.
    pub(crate) fn start(self, estate: Estate, parent: Parent) -> Result<Next> {
        if parent == Parent::Manager {
            self.place.check(&Place::of(&self.program), &self.program, RESTART)?;
            self.place.warn_of_unseen(&self.program, &self.env);
        }
        let (link, theirs) = Idle::pair()?;
        let state = match &estate.state {
            Some(bytes) => Some(
                memfd::sealed(c"handover-state", bytes)
                    .map_err(|e| Error::os("no memfd for the application's state", e))?,
            ),
            None => None,
        };
        let hello = Hello { state: state.is_some(), ..estate.hello };
        let fds: Vec<_> = estate.links.iter().chain(&state).map(|fd| fd.as_fd()).collect();
        link.send(&Frame::Hello(hello), &fds)?;
        let mut program = Program::new(self.program).argv(self.argv).envs(self.env);
        if let Some(directory) = chosen(self.directory) {
            program = program.directory(directory);
        }
        for (name, fd) in estate.sockets {
            program = program.socket(name, fd);
        }
        let process = program.link(theirs).parent(parent).ignoring(self.ignored).low(self.low).start()?;
        Ok(Next { process, link })
    }
}

/// Returns whether both lead to the same directory; never for a relative path, which may lead
/// elsewhere by then.
fn is_same(path: &Path, directory: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let of = |path: &Path| std::fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
    path.is_absolute() && of(path).is_some_and(|found| Some(found) == of(directory))
}

/// Where a process is to be started; `None`: where this one is. A release that was deleted must not
/// be the end of all reloads.
fn chosen(directory: PathBuf) -> Option<PathBuf> {
    if directory.is_dir() {
        return Some(directory);
    }
    let here = std::env::current_dir().ok();
    let shown = here.as_deref().unwrap_or(Path::new("/")).display();
    warn!("the working directory {} is gone: the next generation starts in {shown}", directory.display());
    if here.is_some() { None } else { Some("/".into()) }
}
