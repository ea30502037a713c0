//! What supervises the service: the built-in receiver, or a real systemd.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::manager::Manager;
use super::systemd::Systemd;
use super::unit::{State, Unit};
use super::versions::Versions;
use crate::failure::Failure;
use handover_load::Kill;

/// The longest that the service may take to be ready after a start or a restart, drainers included.
const START_LIMIT: Duration = Duration::from_secs(30);
/// The longest that a reload may take: far above the service's ready timeout.
const RELOAD_LIMIT: Duration = Duration::from_secs(15);
/// The longest that a killed process may take to be gone.
const DEATH_LIMIT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) enum Supervisor {
    BuiltIn(Box<Manager>),
    Systemd(Box<Systemd>),
}

/// A reload that was reported as ended.
#[derive(Debug)]
pub(super) struct Reloaded {
    pub(super) requested: Instant,
    /// From the request to `READY=1`.
    pub(super) ready: Duration,
    pub(super) main_before: u32,
    pub(super) main: u32,
    /// The service's own words (`STATUS=`).
    pub(super) status_text: String,
}

impl Supervisor {
    pub(super) fn name(&self) -> String {
        match self {
            Self::BuiltIn(_) => "a built-in receiver in systemd's place".into(),
            Self::Systemd(systemd) => systemd.name(),
        }
    }

    pub(super) fn address(&self) -> SocketAddr {
        match self {
            Self::BuiltIn(manager) => manager.address,
            Self::Systemd(systemd) => systemd.address,
        }
    }

    /// Waits until the service runs with another main process than this one; returns its pid.
    pub(super) async fn running(&self, other_than: u32) -> Result<u32, Failure> {
        let main = match self {
            Self::BuiltIn(manager) => {
                let running = |unit: &Unit| unit.state == State::Running && unit.main != other_than;
                let ended =
                    |unit: &Unit| unit.state == State::Stopped && !unit.exits.is_empty() && unit.main != other_than;
                let unit = manager.wait_for(START_LIMIT, |unit| running(unit) || ended(unit)).await;
                unit.filter(running).map(|unit| unit.main)
            }
            Self::Systemd(systemd) => systemd.running(other_than, START_LIMIT).await?,
        };
        main.ok_or_else(|| {
            Failure::failed(format!("the service was not ready within {START_LIMIT:?}: {}", self.state()))
        })
    }

    pub(super) async fn reload(&self) -> Result<Reloaded, Failure> {
        let reloaded = match self {
            Self::BuiltIn(manager) => {
                let before = manager.unit();
                let Some((main_before, requested)) = manager.signal(Signal::SIGHUP).await else {
                    return Err(Failure::failed("the built-in receiver has ended"));
                };
                let ended = |unit: &Unit| {
                    unit.reloads > before.reloads || unit.main != main_before && unit.state != State::Reloading
                };
                manager.wait_for(RELOAD_LIMIT, ended).await.filter(|unit| unit.reloads > before.reloads).map(|unit| {
                    Reloaded {
                        requested,
                        ready: unit.reload_ended.saturating_duration_since(requested),
                        main_before,
                        main: unit.main,
                        status_text: unit.status_text,
                    }
                })
            }
            Self::Systemd(systemd) => systemd.reload(RELOAD_LIMIT).await?,
        };
        reloaded
            .ok_or_else(|| Failure::failed(format!("a reload had no end within {RELOAD_LIMIT:?}: {}", self.state())))
    }

    /// SIGKILL for the main process; returns when it is dead.
    pub(super) async fn kill(&self) -> Result<Kill, Failure> {
        let kill = match self {
            Self::BuiltIn(manager) => {
                let main_since = manager.unit().main_since;
                match manager.signal(Signal::SIGKILL).await {
                    None => None,
                    Some((pid, at)) => {
                        let dead = |unit: &Unit| unit.exits.iter().find(|exit| exit.pid == pid).map(|exit| exit.at);
                        let unit = manager.wait_for(DEATH_LIMIT, |unit| dead(unit).is_some()).await;
                        unit.as_ref().and_then(dead).map(|dead| Kill { pid, main_since, at, dead, over: None })
                    }
                }
            }
            Self::Systemd(systemd) => systemd.kill(DEATH_LIMIT).await?,
        };
        kill.ok_or_else(|| {
            Failure::failed(format!("the killed process was not gone within {DEATH_LIMIT:?}: {}", self.state()))
        })
    }

    /// Ends the service and all that belongs to it. What it finds amiss comes back as text.
    pub(super) async fn end(&mut self, killed: Option<u32>) -> Vec<String> {
        match self {
            Self::BuiltIn(manager) => {
                let unit = manager.end().await;
                let mut problems: Vec<_> =
                    unit.warnings.iter().map(|warning| format!("built-in receiver: {warning}")).collect();
                for exit in &unit.exits {
                    let was_main = unit.mains.contains(&exit.pid);
                    if let Some(failure) = exit.failure.as_ref().filter(|_| was_main && Some(exit.pid) != killed) {
                        problems.push(format!("generation with pid {}: {failure}", exit.pid));
                    }
                }
                problems
            }
            Self::Systemd(systemd) => systemd.end().await,
        }
    }

    /// How many processes the service has; None where that cannot be told.
    pub(super) async fn processes(&self) -> Option<usize> {
        match self {
            Self::BuiltIn(_) => Some(super::processes::descendants(std::process::id()).len()),
            Self::Systemd(systemd) => systemd.processes().await,
        }
    }

    /// The service's last words, for a run that failed.
    pub(super) fn log(&self, versions: &Versions) -> String {
        const LINES: usize = 40;
        match self {
            Self::BuiltIn(_) => {
                let log = std::fs::read_to_string(versions.directory().join(super::LOG)).unwrap_or_default();
                let lines: Vec<_> = log.lines().collect();
                format!("the service's log ended with:\n{}", lines[lines.len().saturating_sub(LINES)..].join("\n"))
            }
            Self::Systemd(systemd) => format!("the service's log: {}", systemd.log_command()),
        }
    }

    fn state(&self) -> String {
        match self {
            Self::BuiltIn(manager) => {
                let unit = manager.unit();
                let last_exit = unit.exits.last().map(|exit| {
                    format!(", last exit: pid {} {}", exit.pid, exit.failure.as_deref().unwrap_or("with 0"))
                });
                format!(
                    "{:?}, main process {}{}, status {:?}",
                    unit.state,
                    unit.main,
                    last_exit.unwrap_or_default(),
                    unit.status_text
                )
            }
            Self::Systemd(systemd) => systemd.log_command(),
        }
    }
}
