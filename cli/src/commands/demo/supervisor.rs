//! What supervises the service: the built-in receiver, or a real systemd.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;

use super::options::SERVICE_COMMAND;
use crate::commands::prove::Family;
use crate::failure::Failure;
use handover_load::Kill;

/// The service's settings: short where a wait is shown, else the defaults.
const SERVICE_SETTINGS: [&str; 6] = ["--ready-timeout", "2s", "--drain-timeout", "10s", "--linger", "5s"];
/// The longest that the service may take to be ready after a start or a restart, drainers included.
pub(super) const START_LIMIT: Duration = Duration::from_secs(30);
/// The longest that a reload may take: far above the service's ready timeout.
pub(super) const RELOAD_LIMIT: Duration = Duration::from_secs(15);
/// The longest that a killed process may take to be gone.
pub(super) const DEATH_LIMIT: Duration = Duration::from_secs(10);

/// A reload that was reported as ended.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Reloaded {
    pub(super) main_before: u32,
    pub(super) main: u32,
    /// From the request to `READY=1`.
    pub(super) ready_ms: f64,
    /// The service's own words (`STATUS=`).
    pub(super) status_text: String,
}

impl Reloaded {
    pub(super) fn has_switched(&self) -> bool {
        self.main != self.main_before
    }
}

/// Dropped, a supervisor ends everything at once.
pub(super) trait Supervisor {
    fn name(&self) -> String;
    fn address(&self) -> SocketAddr;
    /// The processes of the service.
    async fn family(&self) -> Result<Family, Failure>;
    /// Waits until the service runs with another main process than this one; returns its pid.
    async fn running(&self, other_than: u32) -> Result<u32, Failure>;
    /// SIGHUP for the main process, and the end of the reload that it reports.
    async fn reload(&self) -> Result<Reloaded, Failure>;
    /// SIGKILL for the main process; returns when it is dead.
    async fn kill(&self) -> Result<Kill, Failure>;
    /// Ends the service and all that belongs to it. What it finds amiss comes back as text.
    async fn end(&self, killed: Option<u32>) -> Vec<String>;
    /// The service's last words, for a run that failed.
    fn log(&self) -> String;
    /// How the service is, or where that is told.
    fn state(&self) -> String;

    /// It did not do `what` in time.
    fn late(&self, what: &str, limit: Duration) -> Failure {
        Failure::failed(format!("{what} within {limit:?}: {}", self.state()))
    }
}

/// How the service is started.
pub(super) fn arguments() -> Vec<OsString> {
    std::iter::once(SERVICE_COMMAND).chain(SERVICE_SETTINGS).map(OsString::from).collect()
}
