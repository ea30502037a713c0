//! The same demo through a real systemd: a socket and a service made by systemd-run, as root of the
//! system's manager, else of the user's own.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::process::Command;

use super::supervisor::{DEATH_LIMIT, RELOAD_LIMIT, Reloaded, START_LIMIT, Supervisor, arguments};
use crate::commands::prove::{Family, ms};
use crate::failure::Failure;
use crate::systemctl;
use crate::target::{self, ControlGroup, Unit, control_group};
use handover::supervise::proc::stat;
use handover::systemd::notify::monotonic_usec;
use handover_load::Kill;

/// No systemctl call takes longer, but for starts and stops, whose own timeouts are shorter.
const CALL_LIMIT: Duration = Duration::from_secs(60);
/// The first version with `Type=notify-reload`.
const NOTIFY_RELOAD_SINCE: u32 = 253;
const POLL: Duration = Duration::from_millis(5);
const SERVICE: [&str; 7] = [
    "NotifyAccess=main",
    "KillMode=control-group",
    "TimeoutStartSec=10",
    "TimeoutStopSec=15",
    "WatchdogSec=2",
    "Restart=on-failure",
    "RestartSec=100ms",
];

#[derive(Debug)]
pub(super) struct Systemd {
    address: SocketAddr,
    /// The user's own manager, not the system's.
    user: bool,
    version: u32,
    /// Of both units, without their kind.
    unit: String,
    service: String,
    main_since: Mutex<Instant>,
}

impl Systemd {
    pub(super) async fn start(program: &Path) -> Result<Self, Failure> {
        let user = is_user()?;
        let version = version(user).await?;
        // systemd takes no port 0. Another process may take this one in between; then the start
        // fails and says so.
        let address = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        let address = address.map_err(|e| Failure::cannot_run(format!("no free port on 127.0.0.1: {e}")))?;
        let unit = format!("handover-demo-{}", std::process::id());
        let service = format!("{unit}.service");
        let systemd = Self { address, user, version, unit, service, main_since: Mutex::new(Instant::now()) };
        if let Err(failure) = systemd.start_units(program).await {
            drop(systemd.end(None).await);
            return Err(failure);
        }
        Ok(systemd)
    }

    async fn start_units(&self, program: &Path) -> Result<(), Failure> {
        let mut command = Command::new("systemd-run");
        command.stdin(Stdio::null()).kill_on_drop(true).args(self.user.then_some("--user"));
        command.arg("--quiet").arg(format!("--unit={}", self.unit)).arg("--description=handover demo");
        command.arg(format!("--socket-property=ListenStream={}", self.address));
        command.arg("--socket-property=FileDescriptorName=http");
        let reloads: &[&str] = match self.has_notify_reload() {
            true => &["Type=notify-reload"],
            false => &["Type=notify", "ExecReload=/bin/kill -HUP $MAINPID"],
        };
        command.args(SERVICE.iter().chain(reloads).map(|property| format!("--property={property}")));
        command.arg("--").arg(program).args(arguments());
        succeeded("systemd-run", &output(command).await?)?;
        // The socket has been started, and would start the service for the first client.
        self.call(&["start", &self.service]).await
    }

    fn has_notify_reload(&self) -> bool {
        self.version >= NOTIFY_RELOAD_SINCE
    }

    fn log_command(&self) -> String {
        let whose = if self.user { "--user " } else { "" };
        format!("journalctl {whose}-u {}", self.service)
    }

    fn became_main(&self) {
        *self.main_since.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    async fn until(&self, late: &str, limit: Duration, is: impl Fn(&Unit) -> bool) -> Result<Unit, Failure> {
        let begun = Instant::now();
        loop {
            let shown = self.show().await?;
            if is(&shown) {
                return Ok(shown);
            }
            if begun.elapsed() > limit {
                return Err(self.late(late, limit));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn show(&self) -> Result<Unit, Failure> {
        target::show(&self.service, self.user).await
    }

    async fn call(&self, arguments: &[&str]) -> Result<(), Failure> {
        succeeded(&format!("systemctl {}", arguments.join(" ")), &self.run(arguments).await?)
    }

    async fn run(&self, arguments: &[&str]) -> Result<Output, Failure> {
        output(systemctl::command(self.user, arguments)).await
    }
}

impl Supervisor for Systemd {
    fn name(&self) -> String {
        let whose = if self.user { "the user's" } else { "the system's" };
        format!("systemd {}, {whose} manager, unit {}", self.version, self.service)
    }

    fn address(&self) -> SocketAddr {
        self.address
    }

    fn log(&self) -> String {
        format!("the service's log: {}", self.log_command())
    }

    fn state(&self) -> String {
        self.log_command()
    }

    async fn running(&self, other_than: u32) -> Result<u32, Failure> {
        let settled = |unit: &Unit| is_running(unit) && unit.main != 0 && unit.main != other_than;
        let unit = self.until("the service was not ready", START_LIMIT, settled).await?;
        self.became_main();
        Ok(unit.main)
    }

    /// With `notify-reload`, `systemctl reload` returns when the reload has ended. With a bare kill
    /// it may return before the service has even said `RELOADING=1`, so the end is read from the
    /// unit: its main process or its status text is a new one.
    async fn reload(&self) -> Result<Reloaded, Failure> {
        let before = self.show().await?;
        let clock = monotonic_usec();
        self.call(&["reload", &self.service]).await?;
        let told = self.has_notify_reload();
        let ended = |unit: &Unit| {
            let news = unit.main != before.main || unit.status != before.status;
            is_running(unit) && changed(unit) > clock && (told || news)
        };
        let after = self.until("a reload had no end", RELOAD_LIMIT, ended).await?;
        if after.main != before.main {
            self.became_main();
        }
        let ready_ms = ms(Duration::from_micros(changed(&after).saturating_sub(clock)));
        Ok(Reloaded { main_before: before.main, main: after.main, ready_ms, status_text: after.status })
    }

    async fn kill(&self) -> Result<Kill, Failure> {
        let pid = self.show().await?.main;
        let main_since = *self.main_since.lock().unwrap_or_else(PoisonError::into_inner);
        let whom = if self.version >= 252 { "--kill-whom=main" } else { "--kill-who=main" };
        let at = Instant::now();
        self.call(&["kill", "-s", "KILL", whom, &self.service]).await?;
        // Gone, not a zombie: a process looks like one as soon as its first thread has ended, while
        // the others still hold the sockets.
        while stat(pid).is_some() {
            if at.elapsed() > DEATH_LIMIT {
                return Err(self.late("the killed process was not gone", DEATH_LIMIT));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(Kill { pid, main_since, at, dead: Instant::now(), over: None })
    }

    /// Stops both units and takes them away, whatever else fails.
    async fn end(&self, _: Option<u32>) -> Vec<String> {
        let mut problems = Vec::new();
        let (socket, service) = (format!("{}.socket", self.unit), &self.service);
        for call in [&["stop", &socket, service][..], &["is-failed", "--quiet", service]] {
            match (call[0], self.run(call).await) {
                ("is-failed", Ok(output)) if output.status.success() => {
                    problems.push(format!("{service} failed: {}", self.log_command()))
                }
                ("stop", Ok(output)) if !output.status.success() => problems.push(said("systemctl stop", &output)),
                (_, Err(failure)) => problems.push(failure.to_string()),
                _ => {}
            }
        }
        drop(self.run(&["reset-failed", &socket, service]).await);
        problems
    }

    async fn family(&self) -> Result<Family, Failure> {
        let ControlGroup(path) = control_group(&self.service, self.user).await?;
        Ok(Family::of_cgroup(&path))
    }
}

async fn output(mut command: Command) -> Result<Output, Failure> {
    // Not the demo's process group: Ctrl-C must not interrupt the calls that clean up.
    command.process_group(0);
    systemctl::output(command, CALL_LIMIT).await.map_err(|problem| match problem.is_not_run() {
        true => Failure::cannot_run(problem.to_string()),
        false => Failure::failed(problem.to_string()),
    })
}

fn succeeded(what: &str, output: &Output) -> Result<(), Failure> {
    if output.status.success() { Ok(()) } else { Err(Failure::failed(said(what, output))) }
}

fn said(what: &str, output: &Output) -> String {
    format!("{what} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim())
}

/// Whether it is the user's own manager that will do.
fn is_user() -> Result<bool, Failure> {
    // sd_booted(3)
    if !Path::new("/run/systemd/system").is_dir() {
        return Err(Failure::cannot_run(
            "systemd is not PID 1 here (/run/systemd/system is missing); run the demo without --systemd",
        ));
    }
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    match nix::unistd::geteuid().is_root() {
        true => Ok(false),
        false if runtime.is_some_and(|path| path.join("systemd").is_dir()) => Ok(true),
        false => Err(Failure::cannot_run(
            "there is no systemd manager for this user ($XDG_RUNTIME_DIR/systemd is missing); log in with a session of \
             your own, or run as root, or without --systemd",
        )),
    }
}

async fn version(user: bool) -> Result<u32, Failure> {
    let shown = systemctl::ask(user, &["show", "--property=Version", "--value"], CALL_LIMIT).await;
    let text = shown.map_err(|e| Failure::cannot_run(format!("{e}; run the demo without --systemd")))?;
    let digits = text.split(|c: char| !c.is_ascii_digit()).find(|part| !part.is_empty());
    let version = digits.and_then(|digits| digits.parse().ok());
    version.ok_or_else(|| Failure::cannot_run(format!("systemd's version {text:?} has no number")))
}

fn is_running(unit: &Unit) -> bool {
    unit.active == "active" && unit.sub == "running"
}

/// CLOCK_MONOTONIC, in microseconds.
fn changed(unit: &Unit) -> u64 {
    unit.changed.parse().unwrap_or_default()
}
