//! The supervisor goes on as a newer version of itself: exec(2) in place. Its pid, its sockets and
//! the generations are as they were.
//!
//! What it knows goes along in a memfd, the fds by not being closed. First the new version is
//! asked, in a process of its own, whether it can read that: a binary that is broken, or too old,
//! changes nothing. While a reload runs, or a worker has no process, it waits.

use std::convert::Infallible;
use std::ffi::{CString, OsString};
use std::fs::File;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{SigSet, SigmaskHow, pthread_sigmask};
use tokio::process::Command;
use tracing::warn;

use crate::error::{Error, Kind, Result};
use crate::generation::program::c_string;
use crate::supervise::child::ProgramProcess;
use crate::supervise::image::Image;
use crate::supervise::inheritance::{Inheritance, Item};
use crate::supervise::record::{FORMAT, GenerationRecord, PassedFds, SupervisorRecord};
use crate::supervise::signals::OWN_SIGNALS;
use crate::supervise::tree::{ProcessFamily, TAG};
use crate::sys::{memfd, pidfd, socket as sys};
use crate::systemd::environment::Environment;

/// The variable with the number of the memfd; or [`CHECK`].
const VARIABLE: &str = "HANDOVER_RUN_RESUME";
/// A new version is asked whether it can go on where this one is.
const CHECK: &str = "check";
/// How long the new version may take to say that it can go on.
pub const RENEW_TIMEOUT: Duration = Duration::from_secs(5);

/// The supervisor's own program, as it was started.
#[derive(Debug, Clone)]
pub(crate) struct OwnProgram {
    pub(crate) path: PathBuf,
    pub(crate) argv: Vec<OsString>,
}

/// What an older version passed on.
#[derive(Debug)]
pub(crate) struct Resumed {
    pub(crate) record: SupervisorRecord,
    pub(crate) mail: OwnedFd,
    pub(crate) control: Option<OwnedFd>,
    pub(crate) inheritance: Inheritance,
    pub(crate) good: Option<Image>,
    pub(crate) generations: Vec<(GenerationRecord, ProgramProcess)>,
}

impl Resumed {
    /// Takes what was passed on. `None`: this is a first start.
    pub(crate) fn from_env(environment: &Environment) -> Result<Option<Self>> {
        let Some(number) = environment.get(VARIABLE).and_then(|v| v.to_str()).and_then(|v| v.parse().ok()) else {
            return Ok(None);
        };
        let wrong = |what: &str, e| Error::os(format!("{VARIABLE}={number}: {what}"), e);
        let bytes = sys::adopt(number).and_then(memfd::read).map_err(|e| wrong("cannot be read", e))?;
        let mut record: SupervisorRecord =
            serde_json::from_slice(&bytes).map_err(|e| wrong("is not understood", e.into()))?;
        if record.format != FORMAT || record.pid != std::process::id() {
            let why = format!("{VARIABLE}={number} is of format {} for pid {}", record.format, record.pid);
            return Err(Error::new(Kind::Protocol, why));
        }
        let adopt = |fd: RawFd| sys::adopt(fd).map_err(|e| wrong("an fd is missing", e));
        let image = |fd: RawFd| adopt(fd).map(|fd| Image::of(File::from(fd)));
        let mut inheritance = Inheritance::default();
        for item in std::mem::take(&mut record.items) {
            let made = Item::new(item.name, adopt(item.fd)?).map_err(|e| wrong("an fd is of no kind", e))?;
            inheritance.items.push(Item { from: item.from, ..made });
        }
        let mut generations = Vec::new();
        for of in std::mem::take(&mut record.generations) {
            let image = of.image.map(image).transpose()?.flatten();
            // The process is ours, and not waited for: the pid is nobody else's.
            let pidfd = pidfd::open(of.pid).map_err(|e| wrong("a process of the program is gone", e))?;
            let family = ProcessFamily { leader: of.pid, tag: format!("{TAG}={}-{}", record.run, of.number) };
            generations.push((of, ProgramProcess { pid: family.leader, pidfd, family, image }));
        }
        Ok(Some(Self {
            mail: adopt(record.mail)?,
            control: record.control.map(adopt).transpose()?,
            good: record.good.map(image).transpose()?.flatten(),
            inheritance,
            generations,
            record,
        }))
    }
}

#[derive(Debug)]
pub(crate) struct Renewal {
    /// The supervisor's own program, or why it cannot be started anew.
    own: Result<OwnProgram, String>,
    env: Vec<(OsString, OsString)>,
    wanted: bool,
    asking: bool,
    count: u64,
    failures: u64,
    last_failure: Option<String>,
}

impl Renewal {
    pub(crate) fn new(own: Result<OwnProgram, String>, env: Vec<(OsString, OsString)>, count: u64) -> Self {
        Self { own, env, wanted: false, asking: false, count, failures: 0, last_failure: None }
    }

    pub(crate) fn want(&mut self) {
        self.wanted = true;
    }

    pub(crate) fn is_due(&self) -> bool {
        self.wanted && !self.asking
    }

    /// Asks the new version itself whether it can go on. The answer goes to
    /// [`answered`](Self::answered).
    pub(crate) fn ask(&mut self) -> impl Future<Output = Result<()>> + Send + 'static {
        self.wanted = false;
        self.asking = true;
        let own = self.own.clone();
        async move { ask(&own.map_err(|why| Error::new(Kind::Generation, why))?).await }
    }

    pub(crate) fn answered(&mut self) {
        self.asking = false;
    }

    pub(crate) fn failed(&mut self, error: &Error) {
        self.failures += 1;
        self.last_failure = Some(error.to_string());
    }

    /// How often the supervisor has gone on as a newer version of itself.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// How often that could not be, and why the last time.
    pub(crate) fn failures(&self) -> (u64, Option<String>) {
        (self.failures, self.last_failure.clone())
    }

    /// Executes the new version in place. Returns only if that is not possible; then everything is
    /// as before.
    pub(crate) fn execute(&self, record: &SupervisorRecord, fds: &PassedFds<'_>) -> Result<Infallible> {
        let own = self.own.as_ref().map_err(|why| Error::new(Kind::Generation, why.clone()))?;
        let bytes = serde_json::to_vec(record).map_err(|e| Error::new(Kind::Protocol, e.to_string()))?;
        let memory =
            memfd::sealed(c"handover-run", &bytes).map_err(|e| Error::os("no memfd for what goes along", e))?;
        let argv = own.argv.iter().map(|arg| c_string(arg)).collect::<Result<Vec<CString>>>()?;
        let passed =
            self.env.iter().filter(|(name, _)| !(name == VARIABLE || name.to_string_lossy().starts_with("LISTEN_")));
        let mut env: Vec<OsString> = passed.map(|(name, value)| [name.as_os_str(), value].join("=".as_ref())).collect();
        env.push(format!("{VARIABLE}={}", memory.as_raw_fd()).into());
        let env = env.iter().map(|line| c_string(line)).collect::<Result<Vec<CString>>>()?;
        let path = c_string(own.path.as_os_str())?;
        // Until the new version has handlers of its own: the default action of most of them is
        // death.
        let mut before = SigSet::empty();
        let _ = pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&OWN_SIGNALS.into_iter().collect()), Some(&mut before));
        let open = |on: bool| -> std::io::Result<()> {
            fds.iter().chain([memory.as_fd()]).try_for_each(|fd| sys::set_inherited(fd, on))
        };
        let executed = open(true).and_then(|()| Ok(nix::unistd::execve(&path, &argv, &env)?));
        let _ = open(false);
        let _ = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&before), None);
        executed.map_err(|e| Error::os(format!("{} cannot be executed", own.path.display()), e))
    }
}

async fn ask(own: &OwnProgram) -> Result<()> {
    let mut asking = Command::new(&own.path);
    asking.args(own.argv.iter().skip(1)).env(VARIABLE, CHECK).stdin(Stdio::null()).stderr(Stdio::null());
    let said = tokio::time::timeout(RENEW_TIMEOUT, asking.kill_on_drop(true).output()).await;
    let path = own.path.display();
    let late = || Error::new(Kind::Timeout, format!("{path} did not say within {RENEW_TIMEOUT:?} that it can go on"));
    let output = said.map_err(|_| late())?.map_err(|e| Error::os(format!("{path} cannot be executed"), e))?;
    if output.status.success() && output.stdout.trim_ascii() == FORMAT.to_string().as_bytes() {
        return Ok(());
    }
    warn!("{path} was asked whether it can go on, and said: {}", String::from_utf8_lossy(&output.stdout).trim());
    Err(Error::new(Kind::Generation, format!("{path} cannot go on where this version is ({})", output.status)))
}

/// Says whether this process is a supervisor that goes on as another version of itself.
#[must_use]
pub fn goes_on() -> bool {
    std::env::var_os(VARIABLE).is_some()
}

/// For `main` of a program with a [`Supervisor`](crate::supervise::Supervisor): returns the text to
/// print, and to end with success, when this process was started only to be asked whether it could
/// go on where an older version of it is.
#[must_use]
pub fn asked_to_go_on() -> Option<String> {
    std::env::var_os(VARIABLE).filter(|value| value == CHECK).map(|_| FORMAT.to_string())
}
