//! What supervises the service: the built-in receiver, or a real systemd.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::time::Duration;

use super::options::SERVICE_COMMAND;
use super::unit::Reloaded;
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

/// Where something may take too long, `None` is the answer that it did. Dropped, a supervisor ends
/// everything at once.
pub(super) trait Supervisor {
    fn name(&self) -> String;

    fn address(&self) -> SocketAddr;

    /// The processes of the service.
    async fn family(&self) -> Result<Family, Failure>;

    /// Waits until the service runs with another main process than this one; returns its pid.
    async fn running(&self, other_than: u32, limit: Duration) -> Result<Option<u32>, Failure>;

    async fn reload(&self, limit: Duration) -> Result<Option<Reloaded>, Failure>;

    /// SIGKILL for the main process; returns when it is dead.
    async fn kill(&self, limit: Duration) -> Result<Option<Kill>, Failure>;

    /// Ends the service and all that belongs to it. What it finds amiss comes back as text.
    async fn end(&self, killed: Option<u32>) -> Vec<String>;

    /// The service's last words, for a run that failed.
    fn log(&self) -> String;

    /// How the service is, or where that is told.
    fn state(&self) -> String;
}

/// How the service is started.
pub(super) fn arguments() -> Vec<OsString> {
    std::iter::once(SERVICE_COMMAND).chain(SERVICE_SETTINGS).map(OsString::from).collect()
}

pub(super) async fn running(supervisor: &impl Supervisor, other_than: u32) -> Result<u32, Failure> {
    let main = supervisor.running(other_than, START_LIMIT).await?;
    main.ok_or_else(|| late("the service was not ready", START_LIMIT, supervisor))
}

pub(super) async fn reload(supervisor: &impl Supervisor) -> Result<Reloaded, Failure> {
    let reloaded = supervisor.reload(RELOAD_LIMIT).await?;
    reloaded.ok_or_else(|| late("a reload had no end", RELOAD_LIMIT, supervisor))
}

pub(super) async fn kill(supervisor: &impl Supervisor) -> Result<Kill, Failure> {
    let kill = supervisor.kill(DEATH_LIMIT).await?;
    kill.ok_or_else(|| late("the killed process was not gone", DEATH_LIMIT, supervisor))
}

fn late(what: &str, limit: Duration, supervisor: &impl Supervisor) -> Failure {
    Failure::failed(format!("{what} within {limit:?}: {}", supervisor.state()))
}
