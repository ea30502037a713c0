//! The supervisor goes on as a newer version of itself: exec(2) in place. Its pid, its sockets and the generations are as they were.
//!
//! What it knows goes along in a memfd, the fds by not being closed. First the new version is asked, in a process of its own, whether it
//! can read that: a binary that is broken, or too old, changes nothing. While a reload runs, or a worker has no process, it waits.

use std::collections::BTreeMap;
use std::ffi::{CString, OsString};
use std::fs::File;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};
use serde::{Deserialize, Serialize};
use tokio::process::Command;
use tracing::{error, info, warn};

use crate::drain::FAR;
use crate::error::{Error, Kind, Result};
use crate::generation::program::c_string;
use crate::lifecycle::{Machine, State};
use crate::service::clock::{millis, now};
use crate::service::events;
use crate::service::steps::Past;
use crate::supervise::child::Child;
use crate::supervise::driver::Driver;
use crate::supervise::estate::{Estate, From, Item};
use crate::supervise::generation::{Generation, Telling};
use crate::supervise::image::Image;
use crate::supervise::tree::{Family, TAG};
use crate::sys::{memfd, pidfd, socket as sys};
use crate::systemd::environment::Environment;

/// The number of the memfd; or [`CHECK`].
pub(crate) const VARIABLE: &str = "HANDOVER_RUN_RESUME";
/// A new version is asked whether it can go on where this one is.
pub(crate) const CHECK: &str = "check";
/// Of what is in the memfd. Another one is another format.
const FORMAT: u32 = 1;
/// How long the new version may take to say that it can go on.
pub const RENEW_TIMEOUT: Duration = Duration::from_secs(5);

/// Our own program, as it was started.
#[derive(Debug, Clone)]
pub(crate) struct Own {
    pub(crate) path: PathBuf,
    pub(crate) argv: Vec<OsString>,
}

/// All that a supervisor knows.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Known {
    format: u32,
    pid: u32,
    pub(crate) run: String,
    mail: RawFd,
    control: Option<RawFd>,
    items: Vec<KnownItem>,
    good: Option<RawFd>,
    generations: Vec<KnownGeneration>,
    pub(crate) last_number: u64,
    pub(crate) reloads: u64,
    pub(crate) crashes: u64,
    pub(crate) renewals: u64,
    pub(crate) age_ms: u64,
    pub(crate) past: Vec<Past>,
}

#[derive(Debug, Serialize, Deserialize)]
struct KnownItem {
    name: String,
    fd: RawFd,
    from: From,
}

#[derive(Debug, Serialize, Deserialize)]
struct KnownGeneration {
    number: u64,
    slot: usize,
    pid: u32,
    image: Option<RawFd>,
    handover_id: Option<String>,
    age_ms: u64,
    main_ms: Option<u64>,
    draining_ms: Option<u64>,
    /// Until what it still has is cut.
    left_ms: Option<u64>,
    good: bool,
    went_back: bool,
    says_stopping: bool,
    dismissed: bool,
    status: Option<String>,
    watchdog_us: Option<u64>,
    watched: bool,
    told: Option<KnownTelling>,
}

/// How far it has been told to go.
#[derive(Debug, Serialize, Deserialize)]
struct KnownTelling {
    step: usize,
    next_ms: Option<u64>,
    kill_ms: Option<u64>,
}

/// What was passed on.
#[derive(Debug)]
pub(crate) struct Resumed {
    pub(crate) known: Known,
    pub(crate) mail: OwnedFd,
    pub(crate) control: Option<OwnedFd>,
    pub(crate) estate: Estate,
    pub(crate) good: Option<Image>,
    generations: Vec<(KnownGeneration, Child)>,
}

impl Resumed {
    /// `None`: this is a first start.
    pub(crate) fn from_env(environment: &Environment) -> Result<Option<Self>> {
        let Some(number) = environment.get(VARIABLE).and_then(|v| v.to_str()).and_then(|v| v.parse().ok()) else {
            return Ok(None);
        };
        let wrong = |what: &str, e| Error::os(format!("{VARIABLE}={number}: {what}"), e);
        let bytes = sys::adopt(number).and_then(memfd::read).map_err(|e| wrong("cannot be read", e))?;
        let known: Known = serde_json::from_slice(&bytes).map_err(|e| wrong("is not understood", e.into()))?;
        if known.format != FORMAT || known.pid != std::process::id() {
            let why = format!("{VARIABLE}={number} is of format {} for pid {}", known.format, known.pid);
            return Err(Error::new(Kind::Protocol, why));
        }
        let adopt = |fd: RawFd| sys::adopt(fd).map_err(|e| wrong("an fd is missing", e));
        let image = |fd: RawFd| adopt(fd).map(|fd| Image::of(File::from(fd)));
        let mut estate = Estate::default();
        for item in &known.items {
            let made = Item::new(item.name.clone(), adopt(item.fd)?).map_err(|e| wrong("an fd is of no kind", e))?;
            estate.items.push(Item { from: item.from, ..made });
        }
        let mut known = known;
        let mut generations = Vec::new();
        for of in std::mem::take(&mut known.generations) {
            let image = of.image.map(image).transpose()?.flatten();
            // Ours, and not waited for: the pid is nobody else's.
            let pidfd = pidfd::open(of.pid).map_err(|e| wrong("a process of the program is gone", e))?;
            let family = Family { leader: of.pid, tag: format!("{TAG}={}-{}", known.run, of.number) };
            generations.push((of, Child { pid: family.leader, pidfd, family, image }));
        }
        Ok(Some(Self {
            mail: adopt(known.mail)?,
            control: known.control.map(adopt).transpose()?,
            good: known.good.map(image).transpose()?.flatten(),
            estate,
            generations,
            known,
        }))
    }

    /// After the loop of a driver has its signals.
    pub(crate) fn restore(self, driver: &mut Driver) {
        let Known { last_number, reloads, crashes, renewals, age_ms, past, .. } = self.known;
        (driver.last_number, driver.reloads, driver.crashes, driver.past) = (last_number, reloads, crashes, past);
        driver.renewals = renewals + 1;
        driver.began = ago(age_ms);
        driver.good = self.good;
        driver.served = true;
        for (of, child) in self.generations {
            let machine = driver.plan.settings.machine(false, false);
            let left = of.left_ms.map(ahead);
            let state = if of.draining_ms.is_some() { State::Draining } else { State::Serving };
            let mut generation =
                Generation::new(of.number, of.slot, Machine::resumed(machine, state, left), child, ago(of.age_ms));
            generation.handover_id = of.handover_id;
            generation.main_since = of.main_ms.map(ago);
            generation.drains_since = of.draining_ms.map(ago);
            (generation.good, generation.went_back) = (of.good, of.went_back);
            (generation.says_stopping, generation.dismissed) = (of.says_stopping, of.dismissed);
            generation.status = of.status;
            generation.watchdog = of.watchdog_us.map(Duration::from_micros);
            generation.pinged = of.watched.then(now);
            generation.telling =
                of.told.map(|of| Telling { step: of.step, next: of.next_ms.map(ahead), kill: of.kill_ms.map(ahead) });
            if let Some(slot) = driver.slots.get_mut(of.slot).filter(|_| state == State::Serving) {
                slot.main = Some(of.number);
                slot.last_image.clone_from(&generation.child.image);
            }
            let (pidfd, family) = (generation.child.pidfd.try_clone(), generation.child.family.clone());
            driver.generations.insert(of.number, generation);
            match pidfd {
                Ok(pidfd) => driver.watch_end(of.number, pidfd),
                Err(error) => error!(%error, "generation {} ({family:?}) cannot be watched", of.number),
            }
        }
        info!(
            message_id = events::RENEWED,
            new_pid = std::process::id(),
            "handover run goes on as version {}",
            env!("CARGO_PKG_VERSION")
        );
    }
}

fn until(at: Instant) -> u64 {
    u64::try_from(at.saturating_duration_since(now()).as_millis()).unwrap_or(u64::MAX)
}

fn ahead(ms: u64) -> Instant {
    now() + Duration::from_millis(ms).min(FAR)
}

fn ago(ms: u64) -> Instant {
    now().checked_sub(Duration::from_millis(ms)).unwrap_or_else(now)
}

impl Driver {
    /// Called when nothing else is left to do. False: it waits.
    pub(crate) fn may_renew(&self) -> bool {
        self.served
            && !self.stopping
            && self.rolling.is_none()
            && !self.wanted
            && self.slots.iter().all(|s| s.main.is_some())
    }

    /// Returns only if it is not possible; then everything is as before.
    pub(crate) async fn renew(&mut self) {
        if let Err(error) = self.try_renew().await {
            error!(generation = self.newest_main(), "handover run stays as it is: {error}");
            self.not_renewed = (self.not_renewed.0 + 1, Some(error.to_string()));
        }
    }

    async fn try_renew(&mut self) -> Result<()> {
        let own = self.plan.own.clone().map_err(|why| Error::new(Kind::Generation, why))?;
        ask(&own).await?;
        // What came meanwhile comes first; it will be asked for again.
        self.settle();
        if !self.may_renew() {
            self.renewing = true;
            return Ok(());
        }
        let (known, fds) = self.known();
        let bytes = serde_json::to_vec(&known).map_err(|e| Error::new(Kind::Protocol, e.to_string()))?;
        let memory =
            memfd::sealed(c"handover-run", &bytes).map_err(|e| Error::os("no memfd for what goes along", e))?;
        let argv = own.argv.iter().map(|arg| c_string(arg)).collect::<Result<Vec<CString>>>()?;
        let passed = self
            .plan
            .recipe
            .env
            .iter()
            .filter(|(name, _)| !(name == VARIABLE || name.to_string_lossy().starts_with("LISTEN_")));
        let mut env: Vec<OsString> = passed.map(|(name, value)| [name.as_os_str(), value].join("=".as_ref())).collect();
        env.push(format!("{VARIABLE}={}", memory.as_raw_fd()).into());
        let env = env.iter().map(|line| c_string(line)).collect::<Result<Vec<CString>>>()?;
        let path = c_string(own.path.as_os_str())?;
        // Until it has handlers of its own: the default action of most of them is death.
        let mut before = SigSet::empty();
        let blocked =
            [Signal::SIGHUP, Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGUSR1, Signal::SIGUSR2];
        let _ = pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&blocked.into_iter().collect()), Some(&mut before));
        let open = |on: bool| -> std::io::Result<()> {
            fds.iter().copied().chain([memory.as_fd()]).try_for_each(|fd| sys::set_inherited(fd, on))
        };
        let failed = match open(true) {
            Ok(()) => match nix::unistd::execve(&path, &argv, &env) {
                Ok(never) => match never {},
                Err(errno) => errno.into(),
            },
            Err(error) => error,
        };
        let _ = open(false);
        let _ = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&before), None);
        Err(Error::os(format!("{} cannot be executed", own.path.display()), failed))
    }

    fn known(&self) -> (Known, Vec<BorrowedFd<'_>>) {
        let mut fds: BTreeMap<RawFd, BorrowedFd<'_>> = BTreeMap::new();
        let mut items = Vec::new();
        for item in &self.estate.items {
            fds.insert(item.fd.as_raw_fd(), item.fd.as_fd());
            items.push(KnownItem { name: item.name.clone(), fd: item.fd.as_raw_fd(), from: item.from });
        }
        let mail = self.mail.get_ref();
        fds.insert(mail.as_raw_fd(), mail.as_fd());
        if let Some(control) = &self.control {
            fds.insert(control.as_raw_fd(), control.as_fd());
        }
        let images = self.good.iter().chain(self.generations.values().filter_map(|g| g.child.image.as_ref()));
        for image in images {
            fds.insert(image.as_fd().as_raw_fd(), image.as_fd());
        }
        let number = |image: &Option<Image>| image.as_ref().map(|image| image.as_fd().as_raw_fd());
        let generations = self.generations.values().filter(|g| !g.ended).map(|g| KnownGeneration {
            number: g.number,
            slot: g.slot,
            pid: g.child.pid,
            image: number(&g.child.image),
            handover_id: g.handover_id.clone(),
            age_ms: millis(g.began),
            main_ms: g.main_since.map(millis),
            draining_ms: g.drains_since.map(millis).or_else(|| g.dismissed.then(|| millis(g.began))),
            left_ms: g.machine.deadline().map(until),
            good: g.good,
            went_back: g.went_back,
            says_stopping: g.says_stopping,
            dismissed: g.dismissed,
            status: g.status.clone(),
            watchdog_us: g.watchdog.and_then(|every| u64::try_from(every.as_micros()).ok()),
            watched: g.pinged.is_some(),
            told: g.telling.as_ref().map(|telling| KnownTelling {
                step: telling.step,
                next_ms: telling.next.map(until),
                kill_ms: telling.kill.map(until),
            }),
        });
        let known = Known {
            format: FORMAT,
            pid: std::process::id(),
            run: self.plan.recipe.run.clone(),
            mail: mail.as_raw_fd(),
            control: self.control.as_ref().map(|fd| fd.as_raw_fd()),
            items,
            good: number(&self.good),
            generations: generations.collect(),
            last_number: self.last_number,
            reloads: self.reloads,
            crashes: self.crashes,
            renewals: self.renewals,
            age_ms: millis(self.began),
            past: self.past.clone(),
        };
        (known, fds.into_values().collect())
    }
}

/// The new version itself, whether it can.
async fn ask(own: &Own) -> Result<()> {
    let mut asking = Command::new(&own.path);
    asking.args(own.argv.iter().skip(1)).env(VARIABLE, CHECK).stdin(Stdio::null()).stderr(Stdio::null());
    let said = tokio::time::timeout(RENEW_TIMEOUT, asking.kill_on_drop(true).output()).await;
    let path = own.path.display();
    let output = said
        .map_err(|_| {
            Error::new(Kind::Timeout, format!("{path} did not say within {RENEW_TIMEOUT:?} that it can go on"))
        })?
        .map_err(|e| Error::os(format!("{path} cannot be executed"), e))?;
    if output.status.success() && output.stdout.trim_ascii() == FORMAT.to_string().as_bytes() {
        return Ok(());
    }
    warn!("{path} was asked whether it can go on, and said: {}", String::from_utf8_lossy(&output.stdout).trim());
    Err(Error::new(Kind::Generation, format!("{path} cannot go on where this version is ({})", output.status)))
}

/// For `main` of a program with a [`Supervisor`](crate::supervise::Supervisor): the text to print, and to end with success, when this process
/// was started only to be asked whether it could go on where an older version of it is.
#[must_use]
pub fn asked_to_go_on() -> Option<String> {
    std::env::var_os(VARIABLE).filter(|value| value == CHECK).map(|_| FORMAT.to_string())
}
