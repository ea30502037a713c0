//! The same demo through a real systemd: transient files for a socket and a service, as root of the
//! system's manager, else of the user's own.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

use super::unit::Reloaded;
use crate::commands::prove::Family;
use crate::failure::Failure;
use crate::systemctl;
use crate::target::{self, ControlGroup, Unit, control_group};
use handover::supervise::proc::stat;
use handover_load::Kill;

/// No systemctl call takes longer, but for starts and stops, whose own timeouts are shorter.
const CALL_LIMIT: Duration = Duration::from_secs(60);
/// The first version with `Type=notify-reload`.
const NOTIFY_RELOAD_SINCE: u32 = 253;
const POLL: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub(super) struct Systemd {
    pub(super) address: SocketAddr,
    /// The user's own manager, not the system's.
    user: bool,
    version: u32,
    units: Units,
    main_since: std::sync::Mutex<Instant>,
}

/// The unit files; dropped, they are removed.
#[derive(Debug)]
struct Units {
    directory: PathBuf,
    name: String,
}

impl Systemd {
    pub(super) async fn start(program: &Path, arguments: &[OsString]) -> Result<Self, Failure> {
        let (user, directory) = choose_manager()?;
        let version = version(user).await?;
        // systemd takes no port 0. Another process may take this one in between; then the start
        // fails and says so.
        let address = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        let address = address.map_err(|e| Failure::cannot_run(format!("no free port on 127.0.0.1: {e}")))?;
        let units = Units { directory, name: format!("handover-demo-{}", std::process::id()) };
        units.write(version, address, program, arguments)?;
        let systemd = Self { address, user, version, units, main_since: std::sync::Mutex::new(Instant::now()) };
        if let Err(failure) = systemd.start_units().await {
            drop(systemd.end().await);
            return Err(failure);
        }
        Ok(systemd)
    }

    async fn start_units(&self) -> Result<(), Failure> {
        self.call(&["daemon-reload"]).await?;
        self.call(&["start", &self.units.file("socket"), &self.units.file("service")]).await?;
        Ok(())
    }

    pub(super) fn name(&self) -> String {
        let whose = if self.user { "the user's" } else { "the system's" };
        format!("systemd {}, {whose} manager, unit {}", self.version, self.units.file("service"))
    }

    pub(super) fn log_command(&self) -> String {
        let whose = if self.user { "--user " } else { "" };
        format!("journalctl {whose}-u {}", self.units.file("service"))
    }

    pub(super) async fn running(&self, other_than: u32, limit: Duration) -> Result<Option<u32>, Failure> {
        let settled = self.until(limit, |unit| is_running(unit) && unit.main != 0 && unit.main != other_than).await?;
        self.became_main();
        Ok(settled.map(|unit| unit.main))
    }

    /// With `notify-reload`, `systemctl reload` returns when the reload has ended. With a bare kill
    /// it may return before the service has even said `RELOADING=1`, so the end is read from the
    /// unit: its main process or its status text is a new one.
    pub(super) async fn reload(&self, limit: Duration) -> Result<Option<Reloaded>, Failure> {
        let before = self.show().await?;
        let clock = monotonic();
        self.call(&["reload", &self.units.file("service")]).await?;
        let told = self.version >= NOTIFY_RELOAD_SINCE;
        let ended = |unit: &Unit| {
            let news = unit.main != before.main || unit.status != before.status;
            is_running(unit) && changed(unit) > clock && (told || news)
        };
        let Some(after) = self.until(limit, ended).await? else { return Ok(None) };
        if after.main != before.main {
            self.became_main();
        }
        Ok(Some(Reloaded {
            main_before: before.main,
            main: after.main,
            ready: Duration::from_micros(changed(&after).saturating_sub(clock)),
            status_text: after.status,
        }))
    }

    pub(super) async fn kill(&self, limit: Duration) -> Result<Option<Kill>, Failure> {
        let pid = self.show().await?.main;
        let main_since = *self.main_since.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let whom = if self.version >= 252 { "--kill-whom=main" } else { "--kill-who=main" };
        let at = Instant::now();
        self.call(&["kill", "-s", "KILL", whom, &self.units.file("service")]).await?;
        // Gone, not a zombie: a process looks like one as soon as its first thread has ended, while
        // the others still hold the sockets.
        while stat(pid).is_some() {
            if at.elapsed() > limit {
                return Ok(None);
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(Some(Kill { pid, main_since, at, dead: Instant::now(), over: None }))
    }

    /// Stops both units and takes them away, whatever else fails.
    pub(super) async fn end(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let (socket, service) = (self.units.file("socket"), self.units.file("service"));
        for call in [&["stop", &socket, &service][..], &["is-failed", "--quiet", &service]] {
            match (call[0], self.run(call).await) {
                ("is-failed", Ok(output)) if output.status.success() => {
                    problems.push(format!("{service} failed: {}", self.log_command()))
                }
                ("stop", Ok(output)) if !output.status.success() => problems.push(said("systemctl stop", &output)),
                (_, Err(failure)) => problems.push(failure.to_string()),
                _ => {}
            }
        }
        self.units.remove();
        drop(self.run(&["reset-failed", &socket, &service]).await);
        if let Err(failure) = self.call(&["daemon-reload"]).await {
            problems.push(failure.to_string());
        }
        problems
    }

    pub(super) async fn family(&self) -> Result<Family, Failure> {
        let ControlGroup(path) = control_group(&self.units.file("service"), self.user).await?;
        Ok(Family::of_cgroup(&path))
    }

    fn became_main(&self) {
        *self.main_since.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Instant::now();
    }

    async fn until(&self, limit: Duration, is: impl Fn(&Unit) -> bool) -> Result<Option<Unit>, Failure> {
        let begun = Instant::now();
        loop {
            let shown = self.show().await?;
            if is(&shown) {
                return Ok(Some(shown));
            }
            if begun.elapsed() > limit {
                return Ok(None);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn show(&self) -> Result<Unit, Failure> {
        target::show(&self.units.file("service"), self.user).await
    }

    async fn call(&self, arguments: &[&str]) -> Result<Output, Failure> {
        let output = self.run(arguments).await?;
        if output.status.success() {
            return Ok(output);
        }
        Err(Failure::failed(said(&format!("systemctl {}", arguments.join(" ")), &output)))
    }

    async fn run(&self, arguments: &[&str]) -> Result<Output, Failure> {
        systemctl(self.user, arguments).await
    }
}

async fn systemctl(user: bool, arguments: &[&str]) -> Result<Output, Failure> {
    let mut command = systemctl::command(user, arguments);
    // Not the demo's process group: Ctrl-C must not interrupt the calls that clean up.
    command.process_group(0);
    systemctl::output(command, CALL_LIMIT).await.map_err(|problem| match problem.is_not_run() {
        true => Failure::cannot_run(problem.to_string()),
        false => Failure::failed(problem.to_string()),
    })
}

fn said(what: &str, output: &Output) -> String {
    format!("{what} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim())
}

fn choose_manager() -> Result<(bool, PathBuf), Failure> {
    // sd_booted(3)
    if !Path::new("/run/systemd/system").is_dir() {
        return Err(Failure::cannot_run(
            "systemd is not PID 1 here (/run/systemd/system is missing); run the demo without --systemd",
        ));
    }
    if nix::unistd::geteuid().is_root() {
        return Ok((false, PathBuf::from("/run/systemd/system")));
    }
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.join("systemd").is_dir());
    let runtime = runtime.ok_or_else(|| {
        Failure::cannot_run("there is no systemd manager for this user ($XDG_RUNTIME_DIR/systemd is missing); log in with a session of your own, or run as root, or without --systemd")
    })?;
    Ok((true, runtime.join("systemd/user")))
}

async fn version(user: bool) -> Result<u32, Failure> {
    let output = systemctl(user, &["show", "--property=Version", "--value"]).await?;
    if !output.status.success() {
        return Err(Failure::cannot_run(format!(
            "{}; run the demo without --systemd",
            said("systemctl show", &output)
        )));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let digits = text.split(|c: char| !c.is_ascii_digit()).find(|part| !part.is_empty());
    digits
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| Failure::cannot_run(format!("systemd's version {text:?} has no number")))
}

fn monotonic() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}

fn is_running(unit: &Unit) -> bool {
    unit.active == "active" && unit.sub == "running"
}

/// CLOCK_MONOTONIC, in microseconds.
fn changed(unit: &Unit) -> u64 {
    unit.changed.parse().unwrap_or_default()
}

impl Units {
    fn file(&self, kind: &str) -> String {
        format!("{}.{kind}", self.name)
    }

    fn write(&self, version: u32, address: SocketAddr, program: &Path, arguments: &[OsString]) -> Result<(), Failure> {
        let socket =
            format!("[Unit]\nDescription=handover demo\n[Socket]\nListenStream={address}\nFileDescriptorName=http\n");
        let mut start = quoted(&program.to_string_lossy());
        for argument in arguments {
            let _ = write!(start, " {}", quoted(&argument.to_string_lossy()));
        }
        let kind = if version >= NOTIFY_RELOAD_SINCE {
            "Type=notify-reload"
        } else {
            "Type=notify\nExecReload=/bin/kill -HUP $MAINPID"
        };
        let service = format!(
            "[Unit]\nDescription=handover demo\nRequires={socket}\nAfter={socket}\n\
             [Service]\n{kind}\nNotifyAccess=main\nExecStart={start}\n\
             KillMode=control-group\nTimeoutStartSec=10\nTimeoutStopSec=15\nWatchdogSec=2\nRestart=on-failure\nRestartSec=100ms\n",
            socket = self.file("socket"),
        );
        let write = |kind, text| {
            let path = self.directory.join(self.file(kind));
            fs::create_dir_all(&self.directory)
                .and_then(|()| fs::write(&path, text))
                .map_err(|e| Failure::cannot_run(format!("{} cannot be written: {e}", path.display())))
        };
        write("socket", socket)?;
        write("service", service)
    }

    fn remove(&self) {
        for kind in ["socket", "service"] {
            drop(fs::remove_file(self.directory.join(self.file(kind))));
        }
    }
}

impl Drop for Units {
    fn drop(&mut self) {
        self.remove();
    }
}

/// For a command line in a unit file (systemd.service(5)).
fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '%' | '$' => quoted.extend([c, c]),
            _ => quoted.push(c),
        }
    }
    quoted + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_is_taken_literally() {
        assert_eq!(quoted(r#"/a b/$x%"\"#), r#""/a b/$$x%%\"\\""#);
    }
}
