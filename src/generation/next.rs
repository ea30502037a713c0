//! Starting the next generation.

use std::ffi::OsString;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use nix::sys::signal::Signal;

use crate::error::{Error, Kind, Result};
use crate::generation::link::Idle;
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
    directory: PathBuf,
    /// Signals that the next one is started with ignored.
    pub(crate) ignored: Vec<Signal>,
    low: Option<Arc<LowFds>>,
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
    /// Captures how this process was started. `known` is the path that an earlier generation, or
    /// the application, has settled on.
    pub(crate) fn capture(environment: &Environment, known: Option<PathBuf>, watchdog: bool) -> Result<Self> {
        let argv: Vec<OsString> = std::env::args_os().collect();
        let directory = std::env::current_dir().map_err(|e| {
            Error::io(Kind::Generation, "the working directory is gone, so no next generation could start there", e)
        })?;
        let program = match known {
            Some(path) => directory.join(path),
            None => own_path(argv.first().map(OsString::as_os_str), environment.get("PATH"), &directory)?,
        };
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
        Ok(Self { program, argv, env, directory, ignored: vec![Signal::SIGHUP], low })
    }

    /// Blocks for about a millisecond.
    pub(crate) fn start(self, estate: Estate, parent: Parent) -> Result<Next> {
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
        let mut program = Program::new(self.program).argv(self.argv).envs(self.env).directory(self.directory);
        for (name, fd) in estate.sockets {
            program = program.socket(name, fd);
        }
        let process = program.link(theirs).parent(parent).ignoring(self.ignored).low(self.low).start()?;
        Ok(Next { process, link })
    }
}
