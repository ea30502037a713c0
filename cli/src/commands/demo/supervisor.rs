//! What supervises the service: the built-in receiver, or a real systemd.

use std::ffi::OsString;
use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::manager::{Config, Manager, own};
use super::options::SERVICE_COMMAND;
use super::systemd::Systemd;
use super::unit::{Reloaded, Unit};
use super::versions::Versions;
use crate::commands::prove::Family;
use crate::failure::Failure;
use handover_load::Kill;

/// The service's settings: short where a wait is shown, else the defaults.
const SERVICE_SETTINGS: [&str; 6] = ["--ready-timeout", "2s", "--drain-timeout", "10s", "--linger", "5s"];
/// The longest that the service may take to be ready after a start or a restart, drainers included.
const START_LIMIT: Duration = Duration::from_secs(30);
/// The longest that a reload may take: far above the service's ready timeout.
const RELOAD_LIMIT: Duration = Duration::from_secs(15);
/// The longest that a killed process may take to be gone.
const DEATH_LIMIT: Duration = Duration::from_secs(10);
/// How much of the log is shown.
const LINES: usize = 40;

#[derive(Debug)]
pub(super) enum Supervisor {
    /// And where the service's log is.
    BuiltIn(Box<Manager>, PathBuf),
    Systemd(Box<Systemd>),
}

impl Supervisor {
    pub(super) async fn start(versions: &Versions, systemd: bool) -> Result<Self, Failure> {
        let words = std::iter::once(SERVICE_COMMAND).chain(SERVICE_SETTINGS);
        let arguments: Vec<OsString> = words.map(OsString::from).collect();
        if systemd {
            return Ok(Self::Systemd(Box::new(Systemd::start(&versions.program(), &arguments).await?)));
        }
        let directory = versions.directory().to_owned();
        let log = directory.join("web.log");
        let manager = File::options().create(true).append(true).open(&log).and_then(|log| {
            Manager::start(Config { program: versions.program(), arguments, directory: directory.clone(), log })
        });
        let cannot = |e| format!("the service cannot be started in {}: {e}", directory.display());
        Ok(Self::BuiltIn(Box::new(manager.map_err(|e| Failure::cannot_run(cannot(e)))?), log))
    }

    pub(super) fn name(&self) -> String {
        match self {
            Self::BuiltIn(..) => "a built-in receiver in systemd's place".into(),
            Self::Systemd(systemd) => systemd.name(),
        }
    }

    pub(super) fn address(&self) -> SocketAddr {
        match self {
            Self::BuiltIn(manager, _) => manager.address,
            Self::Systemd(systemd) => systemd.address,
        }
    }

    /// The processes of the service.
    pub(super) async fn family(&self) -> Result<Family, Failure> {
        match self {
            Self::BuiltIn(..) => Ok(Family::below(std::process::id())),
            Self::Systemd(systemd) => systemd.family().await,
        }
    }

    /// Waits until the service runs with another main process than this one; returns its pid.
    pub(super) async fn running(&self, other_than: u32) -> Result<u32, Failure> {
        let main = match self {
            Self::BuiltIn(manager, _) => manager.running(other_than, START_LIMIT).await,
            Self::Systemd(systemd) => systemd.running(other_than, START_LIMIT).await?,
        };
        main.ok_or_else(|| self.late("the service was not ready", START_LIMIT))
    }

    pub(super) async fn reload(&self) -> Result<Reloaded, Failure> {
        let reloaded = match self {
            Self::BuiltIn(manager, _) => manager.reload(RELOAD_LIMIT).await,
            Self::Systemd(systemd) => systemd.reload(RELOAD_LIMIT).await?,
        };
        reloaded.ok_or_else(|| self.late("a reload had no end", RELOAD_LIMIT))
    }

    /// SIGKILL for the main process; returns when it is dead.
    pub(super) async fn kill(&self) -> Result<Kill, Failure> {
        let kill = match self {
            Self::BuiltIn(manager, _) => manager.kill(DEATH_LIMIT).await,
            Self::Systemd(systemd) => systemd.kill(DEATH_LIMIT).await?,
        };
        kill.ok_or_else(|| self.late("the killed process was not gone", DEATH_LIMIT))
    }

    /// Ends the service and all that belongs to it. What it finds amiss comes back as text.
    pub(super) async fn end(&self, killed: Option<u32>) -> Vec<String> {
        match self {
            Self::BuiltIn(manager, _) => {
                let unit = manager.end().await;
                let warnings = unit.warnings.iter().map(|warning| format!("built-in receiver: {warning}"));
                let was_main = |pid| unit.mains.contains(&pid) && Some(pid) != killed;
                let failed =
                    unit.exits.iter().filter(|exit| was_main(exit.pid)).filter_map(|exit| {
                        Some(format!("generation with pid {}: {}", exit.pid, exit.failure.as_ref()?))
                    });
                warnings.chain(failed).collect()
            }
            Self::Systemd(systemd) => systemd.end().await,
        }
    }

    /// How many processes the service has; None where that cannot be told.
    pub(super) async fn processes(&self) -> Option<usize> {
        match self {
            Self::BuiltIn(..) => Some(own().len()),
            Self::Systemd(systemd) => {
                Some(systemd.family().await.ok()?.members().len()).filter(|processes| *processes > 0)
            }
        }
    }

    /// The service's last words, for a run that failed.
    pub(super) fn log(&self) -> String {
        match self {
            Self::BuiltIn(_, log) => {
                let log = std::fs::read_to_string(log).unwrap_or_default();
                let lines: Vec<_> = log.lines().collect();
                format!("the service's log ended with:\n{}", lines[lines.len().saturating_sub(LINES)..].join("\n"))
            }
            Self::Systemd(systemd) => format!("the service's log: {}", systemd.log_command()),
        }
    }

    fn late(&self, what: &str, limit: Duration) -> Failure {
        let state = match self {
            Self::BuiltIn(manager, _) => {
                let Unit { state, main, exits, status_text, .. } = manager.unit();
                let exit = exits.last().map(|exit| {
                    format!(", last exit: pid {} {}", exit.pid, exit.failure.as_deref().unwrap_or("with 0"))
                });
                format!("{state:?}, main process {main}{}, status {status_text:?}", exit.unwrap_or_default())
            }
            Self::Systemd(systemd) => systemd.log_command(),
        };
        Failure::failed(format!("{what} within {limit:?}: {state}"))
    }
}
