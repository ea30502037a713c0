//! How the server is told to reload, and which of its processes is the main one.

use std::path::PathBuf;
use std::process::Stdio;
use std::str::FromStr;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Command;

use super::family::Family;
use super::options::Reload;
use crate::failure::Failure;
use crate::safe;
use crate::signals;
use crate::systemctl;
use crate::target::{ControlGroup, control_group, show, unit_name};
use handover::supervise::proc::stat;

#[derive(Debug)]
pub(super) enum Trigger {
    Unit {
        unit: String,
        user: bool,
    },
    Command(String),
    Signal {
        signal: Signal,
        to: Receiver,
    },
    /// A load without reloads.
    None,
}

#[derive(Debug)]
pub(super) enum Receiver {
    Pid(u32),
    File(PathBuf),
}

/// How asking for a reload ended.
#[derive(Debug, Clone, Default)]
pub(super) struct Asked {
    /// Why it failed, if it did.
    pub(super) failed: Option<String>,
}

impl Trigger {
    pub(super) fn new(options: &Reload, reloads: u32) -> Result<Self, Failure> {
        let signal = options.signal.as_deref().map(parse).transpose()?;
        match (&options.unit, &options.reload, signal) {
            (Some(unit), ..) => Ok(Self::Unit { unit: unit_name(unit), user: options.user }),
            (_, Some(command), _) => Ok(Self::Command(command.clone())),
            (.., Some(signal)) => {
                let to = match (options.pid, &options.pidfile) {
                    (Some(pid), _) => Receiver::Pid(pid),
                    (_, Some(file)) => Receiver::File(file.clone()),
                    _ => return Err(Failure::usage("--signal needs --pid or --pidfile")),
                };
                Ok(Self::Signal { signal, to })
            }
            _ if reloads == 0 => Ok(Self::None),
            _ => Err(Failure::usage("say how to reload: --unit, --reload or --signal; or --reloads 0 for none")),
        }
    }

    /// As the report says it.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Unit { unit, user: true } => format!("systemctl --user reload {unit}"),
            Self::Unit { unit, user: false } => format!("systemctl reload {unit}"),
            Self::Command(command) => command.clone(),
            Self::Signal { signal, to: Receiver::Pid(pid) } => format!("{signal} to pid {pid}, then to its successors"),
            Self::Signal { signal, to: Receiver::File(file) } => format!("{signal} to the pid in {}", file.display()),
            Self::None => "none".to_owned(),
        }
    }

    /// The processes of the server. `holder` has the other end of a connection.
    pub(super) async fn family(&self, options: &Reload, holder: Option<u32>) -> Result<Family, Failure> {
        if let Self::Unit { unit, user } = self {
            let ControlGroup(path) = control_group(unit, *user).await?;
            return Ok(Family::of_cgroup(&path));
        }
        let pid = match (options.pid, &options.pidfile) {
            (Some(pid), _) => Some(pid),
            (_, Some(file)) => Some(read_pid(file)?),
            _ => holder,
        };
        Ok(pid.map_or(Family::Unknown, Family::of))
    }

    /// Asks for a reload, and waits for the end of the asking.
    pub(super) async fn ask(&self, limit: Duration) -> Asked {
        let failed = match self {
            Self::None => None,
            Self::Signal { signal, to } => self.signal(*signal, to).err(),
            Self::Unit { unit, user } => run(systemctl::command(*user, &["reload", "--", unit]), limit).await.err(),
            Self::Command(text) => {
                let mut command = Command::new("/bin/sh");
                command.args(["-c", text]);
                run(command, limit).await.err()
            }
        };
        Asked { failed }
    }

    /// The process that answered has a successor. A main process that lets others answer for it stays.
    pub(super) fn answered(&mut self, before: Option<u32>, now: u32) {
        if let Self::Signal { to: Receiver::Pid(pid), .. } = self
            && before == Some(*pid)
        {
            *pid = now;
        }
    }

    /// The main process, as systemd or the pid file has it.
    pub(super) async fn main(&self) -> Option<u32> {
        match self {
            Self::Unit { unit, user } => show(unit, *user).await.ok().map(|unit| unit.main).filter(|pid| *pid != 0),
            Self::Signal { to: Receiver::Pid(pid), .. } => Some(*pid),
            Self::Signal { to: Receiver::File(file), .. } => read_pid(file).ok(),
            _ => None,
        }
    }

    fn signal(&self, signal: Signal, to: &Receiver) -> Result<(), String> {
        let pid = match to {
            Receiver::Pid(pid) => *pid,
            Receiver::File(file) => read_pid(file).map_err(|e| e.to_string())?,
        };
        let to = i32::try_from(pid).map_err(|_| format!("{pid} is no pid"))?;
        // the kernel takes a signal for a zombie, too
        if stat(pid).is_some_and(|one| one.dead) {
            return Err(format!("{signal} to pid {pid}: it has ended, and none has been seen to answer in its place"));
        }
        kill(Pid::from_raw(to), signal).map_err(|e| format!("{signal} to pid {pid}: {e}"))
    }
}

async fn run(mut command: Command, limit: Duration) -> Result<(), String> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let name = command.as_std().get_program().to_string_lossy().into_owned();
    // What a service that it starts in the background writes is nobody's: only the command itself is waited for.
    let mut child = command.spawn().map_err(|e| format!("{name} cannot be run: {e}"))?;
    let stderr = child.stderr.take();
    let said = tokio::spawn(first_words(stderr));
    let status = match tokio::time::timeout(limit, child.wait()).await {
        Ok(status) => status.map_err(|e| format!("{name}: {e}"))?,
        Err(_) => {
            said.abort();
            return Err(format!("the command did not end within {limit:?}"));
        }
    };
    if status.success() {
        said.abort();
        return Ok(());
    }
    let words = tokio::time::timeout(Duration::from_secs(1), said).await.ok().and_then(Result::ok).unwrap_or_default();
    let words = safe::short(&safe::terminal(words.trim()), 300);
    Err(if words.is_empty() { format!("the command failed, {status}") } else { format!("{words} ({status})") })
}

async fn first_words(stderr: Option<tokio::process::ChildStderr>) -> String {
    use tokio::io::AsyncReadExt;
    let Some(stderr) = stderr else { return String::new() };
    let mut words = Vec::new();
    // What came before a failed read still helps.
    let _ = stderr.take(4096).read_to_end(&mut words).await;
    String::from_utf8_lossy(&words).into_owned()
}

fn read_pid(file: &PathBuf) -> Result<u32, Failure> {
    let text = std::fs::read_to_string(file).map_err(|e| Failure::usage(format!("{}: {e}", file.display())))?;
    let pid = text.trim().parse::<u32>().ok().filter(|pid| *pid > 1);
    pid.ok_or_else(|| Failure::usage(format!("{}: no pid in it", file.display())))
}

fn parse(name: &str) -> Result<Signal, Failure> {
    let named = signals::name(&name.to_ascii_uppercase());
    let signal = named.and_then(|name| Signal::from_str(&format!("SIG{name}")).ok());
    signal.ok_or_else(|| Failure::usage(format!("{name:?} is no signal")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals() {
        for name in ["HUP", "hup", "SIGHUP", "1"] {
            assert_eq!(parse(name).unwrap(), Signal::SIGHUP, "{name}");
        }
        assert!(parse("HANGUP").is_err() && parse("99").is_err());
    }

    #[tokio::test]
    async fn a_signal_to_who_has_ended_fails() {
        let mut ended = std::process::Command::new("true").spawn().unwrap();
        let trigger = Trigger::Signal { signal: Signal::SIGHUP, to: Receiver::Pid(ended.id()) };
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        while !stat(ended.id()).is_some_and(|one| one.dead) {
            assert!(tokio::time::Instant::now() < deadline);
            tokio::task::yield_now().await;
        }
        let failed = trigger.ask(Duration::from_secs(1)).await.failed.unwrap();
        assert!(failed.contains("it has ended"), "{failed}");
        ended.wait().unwrap();
        let failed = trigger.ask(Duration::from_secs(1)).await.failed.unwrap();
        assert!(failed.contains("ESRCH"), "{failed}");
    }

    #[test]
    fn a_successor_gets_the_next_signal_but_a_worker_does_not() {
        let mut trigger = Trigger::Signal { signal: Signal::SIGHUP, to: Receiver::Pid(7) };
        trigger.answered(Some(8), 9);
        assert!(trigger.describe().contains("pid 7"));
        trigger.answered(Some(7), 9);
        assert!(trigger.describe().contains("pid 9"));
    }
}
