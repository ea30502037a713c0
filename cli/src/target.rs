//! Which service a command is about, and where its control interface is.

use std::fs;
use std::os::fd::AsFd as _;
use std::path::PathBuf;

use clap::Args;
use handover::control::{Client, socket_in};
use handover::internal::pidfd;

use crate::believed::{self, Expected, unit_of};
use crate::failure::Failure;
use crate::systemctl;

#[derive(Debug, Args)]
pub(crate) struct Where {
    /// A unit (web, web.service), or a pid such as $MAINPID in ExecReload= [default: in
    /// ExecReload=, the service itself]
    #[arg(value_name = "UNIT|PID")]
    target: Option<String>,
    /// The socket of the control interface, if it is not $RUNTIME_DIRECTORY/handover.sock of the
    /// service
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// A unit of your own `systemctl --user`
    #[arg(long)]
    user: bool,
}

/// What is known of the service.
#[derive(Debug, Default)]
pub(crate) struct Target {
    pub(crate) unit: Option<String>,
    pub(crate) pid: Option<u32>,
    pub(crate) user: bool,
    /// Where its control interface is, if it has one.
    pub(crate) socket: Option<PathBuf>,
    /// Said by the caller: nothing else will do.
    pub(crate) only_socket: bool,
    /// Whose the main process is.
    pub(crate) uid: Option<u32>,
}

/// What the service manager says about a unit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Unit {
    pub(crate) main: u32,
    pub(crate) active: String,
    pub(crate) sub: String,
    pub(crate) status: String,
    /// Changes with every change of the state.
    pub(crate) changed: String,
    /// The words of `ExecStart=`.
    pub(crate) starts: Vec<String>,
    runtime_directory: String,
}

impl Where {
    pub(crate) async fn find(&self) -> Result<Target, Failure> {
        let mut target = Target { user: self.user, ..Target::default() };
        let said = match &self.target {
            Some(said) => Some(said.clone()),
            None if self.socket.is_some() => None,
            None => std::env::var("MAINPID").ok(),
        };
        match said.as_deref().map(str::trim) {
            Some("") => return Err(Failure::usage("an empty name: is $MAINPID set? Say a unit or a pid")),
            Some(said) => match said.parse::<u32>() {
                Ok(0) => return Err(Failure::cannot_run("pid 0: the service has no main process; start it")),
                Ok(pid) => target.pid = Some(pid),
                Err(_) => target.unit = Some(service(said, self.user).await?),
            },
            None if self.socket.is_none() => {
                return Err(Failure::usage("say which service: a unit, a pid, or --socket PATH"));
            }
            None => {}
        }
        if let Some(socket) = &self.socket {
            return Ok(Target { socket: Some(socket.clone()), only_socket: true, ..target });
        }
        if let Some(pid) = target.pid {
            check_identity(pid, |name| std::env::var(name).ok())?;
            let (unit, user) = unit_of(&pid.to_string())
                .map_err(|e| Failure::cannot_run(format!("there is no process {pid} that can be looked at: {e}")))?;
            (target.unit, target.user) = (unit, user || target.user);
            // With `PrivateUsers=` not even the own unit's environment can be read, but it is ours.
            let own = || target.unit.as_deref().filter(|unit| is_within(unit)).and_then(|_| own_socket());
            (target.socket, target.uid) = (socket_of(pid).or_else(own), believed::uid_of(pid).ok());
        }
        if let (None, Some(unit)) = (&target.socket, &target.unit) {
            let shown = show(unit, target.user).await;
            match (shown, target.pid) {
                (Ok(unit), pid) => {
                    let main = pid.or(Some(unit.main).filter(|pid| *pid != 0));
                    target.uid = main.and_then(|pid| believed::uid_of(pid).ok());
                    target.socket = main.and_then(socket_of).or_else(|| unit.socket(target.user));
                }
                // Of a pid its unit is a help, no more.
                (Err(_), Some(_)) => target.unit = None,
                (Err(failure), None) => return Err(failure),
            }
        }
        Ok(target)
    }
}

/// Refuses a pid that was used again: beside `$MAINPID` systemd passes `$MAINPIDFDID` to the
/// command of `ExecReload=` (258), a number that no other process ever has.
fn check_identity(pid: u32, variable: impl Fn(&str) -> Option<String>) -> Result<(), Failure> {
    let number = |name: &str| variable(name)?.trim().parse::<u64>().ok();
    let (Some(main), Some(wanted)) = (number("MAINPID"), number("MAINPIDFDID")) else { return Ok(()) };
    if main != u64::from(pid) {
        return Ok(());
    }
    let pidfd = pidfd::open(pid)
        .map_err(|e| Failure::cannot_run(format!("there is no process {pid} that can be looked at: {e}")))?;
    match pidfd::id(pidfd.as_fd()) {
        Some(found) if found != wanted => Err(Failure::cannot_run(format!(
            "pid {pid} was the main process when the reload was asked for, and is another process by now \
             ($MAINPIDFDID={wanted}, found {found})"
        ))),
        _ => Ok(()),
    }
}

impl Target {
    /// The service of that unit.
    pub(crate) async fn of_unit(unit: &str, user: bool) -> Result<Self, Failure> {
        Where { target: Some(unit.to_owned()), socket: None, user }.find().await
    }

    /// As the caller would call it.
    pub(crate) fn name(&self) -> String {
        match (&self.unit, self.pid, &self.socket) {
            (Some(unit), ..) => unit.clone(),
            (_, Some(pid), _) => format!("pid {pid}"),
            (.., Some(socket)) => socket.display().to_string(),
            _ => "the service".to_owned(),
        }
    }

    /// Whose what is told must be.
    pub(crate) fn expected(&self) -> Expected {
        Expected { name: self.name(), unit: self.unit.clone(), uid: self.uid }
    }

    /// `None`: there is no control interface.
    pub(crate) async fn connect(&self) -> Result<Option<Client>, Failure> {
        let Some(socket) = &self.socket else { return Ok(None) };
        let error = match Client::connect(socket).await {
            Ok(client) => {
                if !self.only_socket {
                    believed::check_server(&self.expected(), client.server())?;
                }
                return Ok(Some(client));
            }
            Err(error) => error,
        };
        let kind = error.io().map(std::io::Error::kind);
        match kind {
            Some(std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused) if !self.only_socket => Ok(None),
            Some(std::io::ErrorKind::PermissionDenied) => {
                Err(Failure::cannot_run(format!("{error}: be the service's user or root")))
            }
            _ => Err(Failure::cannot_run(error.to_string())),
        }
    }

    /// Fails where nothing but the control interface would do.
    pub(crate) fn needs_control(&self) -> Failure {
        Failure::cannot_run(format!(
            "{}: {}: give the program Service::builder().control() and the unit RuntimeDirectory=, or say --socket PATH",
            self.name(),
            self.no_control()
        ))
    }

    /// Why there is none.
    pub(crate) fn no_control(&self) -> String {
        match &self.socket {
            Some(socket) => format!("no control interface at {}", socket.display()),
            None => "no control interface (RuntimeDirectory= is not set)".to_owned(),
        }
    }
}

impl Unit {
    #[cfg(test)]
    pub(crate) fn sample(main: u32, active: &str, status: &str, changed: &str) -> Self {
        let (active, status, changed) = (active.into(), status.into(), changed.into());
        Self { main, active, status, changed, ..Self::default() }
    }

    /// The library says so in the status text.
    pub(crate) fn uses_handover(&self) -> bool {
        let rest = self.status.strip_prefix("generation ").unwrap_or_default();
        rest.split(' ').next().is_some_and(|number| number.parse::<u64>().is_ok())
    }

    /// In one word where there is one: `stopped`, `failed`; else as systemd has it.
    pub(crate) fn state(&self) -> String {
        match (&*self.active, self.main) {
            ("inactive", 0) => "stopped".to_owned(),
            ("failed", 0) => "failed".to_owned(),
            _ => format!("{} ({})", self.active, self.sub),
        }
    }

    fn socket(&self, user: bool) -> Option<PathBuf> {
        let base = if user { std::env::var("XDG_RUNTIME_DIR").ok()? } else { "/run".to_owned() };
        let first = self.runtime_directory.split_whitespace().next()?;
        // `name:link` in newer versions.
        socket_in(&format!("{base}/{}", first.split(':').next()?))
    }
}

pub(crate) async fn show(unit: &str, user: bool) -> Result<Unit, Failure> {
    let names =
        "LoadState,MainPID,ActiveState,SubState,StatusText,StateChangeTimestampMonotonic,RuntimeDirectory,ExecStart";
    let text = ask(user, &["show", "-p", names, "--", unit]).await?;
    let value = |name: &str| {
        let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        found.unwrap_or_default().to_owned()
    };
    if value("LoadState") == "not-found" {
        return Err(Failure::cannot_run(format!("there is no unit {unit}: see `systemctl list-units --type=service`")));
    }
    Ok(Unit {
        main: value("MainPID").parse().unwrap_or(0),
        active: value("ActiveState"),
        sub: value("SubState"),
        status: value("StatusText"),
        changed: value("StateChangeTimestampMonotonic"),
        starts: words_of(&value("ExecStart")),
        runtime_directory: value("RuntimeDirectory"),
    })
}

/// The words of a command as `systemctl show` has it: `{ path=/a ; argv[]=/a b ; ignore_errors=no …
/// }`.
fn words_of(command: &str) -> Vec<String> {
    let words = command.split_once("argv[]=").and_then(|(_, rest)| rest.split_once(" ; ")).unwrap_or_default().0;
    words.split_whitespace().map(str::to_owned).collect()
}

/// Where the processes of a unit are, below the cgroups' root.
pub(crate) struct ControlGroup(pub(crate) String);

/// Of a unit that runs.
pub(crate) async fn control_group(unit: &str, user: bool) -> Result<ControlGroup, Failure> {
    let shown = show(unit, user).await?;
    if shown.main == 0 {
        return Err(Failure::cannot_run(format!("{unit} has no main process ({}): start it", shown.active)));
    }
    let path = ask(user, &["show", "-p", "ControlGroup", "--value", "--", unit]).await?;
    Ok(ControlGroup(path.trim().to_owned()))
}

async fn ask(user: bool, arguments: &[&str]) -> Result<String, Failure> {
    systemctl::ask(user, arguments, systemctl::TIMEOUT).await.map_err(|e| Failure::cannot_run(e.to_string()))
}

/// Whether this process belongs to the unit, as that of an `ExecReload=` does.
pub(crate) fn is_within(unit: &str) -> bool {
    unit_of("self").is_ok_and(|(own, _)| own.as_deref() == Some(unit))
}

/// The service that is meant: `web` is web.service, and `web.socket` is the one that it starts.
pub(crate) async fn service(said: &str, user: bool) -> Result<String, Failure> {
    if ![".socket", ".path", ".timer"].iter().any(|kind| said.ends_with(kind)) {
        return Ok(unit_name(said));
    }
    let text = ask(user, &["show", "-p", "LoadState,Triggers", "--", said]).await?;
    triggered(said, &text)
}

fn triggered(said: &str, shown: &str) -> Result<String, Failure> {
    let value = |name: &str| shown.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    if value("LoadState=") == "not-found" {
        return Err(Failure::cannot_run(format!("there is no unit {said}: see `systemctl list-units --all`")));
    }
    let service = value("Triggers=").split_whitespace().find(|unit| unit.ends_with(".service"));
    // With Accept=yes there is one for each connection.
    service.map(str::to_owned).ok_or_else(|| {
        Failure::cannot_run(format!("{said} is loaded and starts no one service: name the service that is meant"))
    })
}

pub(crate) fn unit_name(said: &str) -> String {
    if said.ends_with(".service") { said.to_owned() } else { format!("{said}.service") }
}

/// Where that of the unit is whose process this one is.
fn own_socket() -> Option<PathBuf> {
    socket_in(&std::env::var("RUNTIME_DIRECTORY").ok()?)
}

/// From its environment, which its own user and root can read.
fn socket_of(pid: u32) -> Option<PathBuf> {
    let bytes = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let variable = bytes.split(|b| *b == 0).find_map(|v| v.strip_prefix(b"RUNTIME_DIRECTORY="))?;
    socket_in(std::str::from_utf8(variable).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_that_was_used_again_is_refused() {
        let pid = std::process::id();
        let own = pidfd::id(pidfd::open(pid).unwrap().as_fd());
        let checked = |main: String, id: Option<u64>| {
            check_identity(pid, |name| if name == "MAINPID" { Some(main.clone()) } else { id.map(|id| id.to_string()) })
        };
        checked(pid.to_string(), None).unwrap();
        checked(pid.to_string(), own).unwrap();
        checked((pid + 1).to_string(), Some(1)).unwrap();
        // Before Linux 6.9 nobody can tell.
        if let Some(own) = own {
            let refused = checked(pid.to_string(), Some(own + 1)).unwrap_err().to_string();
            assert!(refused.contains("is another process by now"), "{refused}");
        }
    }

    #[test]
    fn a_socket_names_its_service() {
        let of = |shown| triggered("web.socket", shown);
        assert_eq!(of("LoadState=loaded\nTriggers=web-http.service\n").unwrap(), "web-http.service");
        assert!(of("LoadState=not-found\nTriggers=\n").unwrap_err().to_string().contains("no unit web.socket"));
        assert!(of("LoadState=loaded\nTriggers=\n").unwrap_err().to_string().contains("starts no one service"));
    }

    #[test]
    fn a_unit_tells_whether_it_uses_handover_and_where() {
        let unit = |status: &str, directory: &str| Unit {
            main: 1,
            status: status.into(),
            runtime_directory: directory.into(),
            ..Unit::default()
        };
        assert!(unit("generation 1 serves; reload failed: generation 2 exited", "").uses_handover());
        for other in ["", "generation", "generation of reports", "Processing requests..."] {
            assert!(!unit(other, "").uses_handover(), "{other}");
        }
        assert_eq!(unit("", "web more").socket(false), Some("/run/web/handover.sock".into()));
        assert_eq!(unit("", "").socket(false), None);
        let started =
            "{ path=/usr/bin/handover ; argv[]=/usr/bin/handover run -- /opt/web -v ; ignore_errors=no ; pid=7 }";
        assert_eq!(words_of(started), ["/usr/bin/handover", "run", "--", "/opt/web", "-v"]);
        assert!(words_of("").is_empty());
        assert_eq!(unit_name("web"), "web.service");
        assert_eq!(unit_name("web@1.service"), "web@1.service");
    }
}
