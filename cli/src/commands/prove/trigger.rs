//! How the server is told to reload, and which of its processes is the main one.

use std::path::PathBuf;
use std::process::Stdio;
use std::str::FromStr;
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Command;

use crate::commands::timeline::{Brief, briefs};
use crate::failure::Failure;
use crate::safe;
use crate::systemctl;
use crate::target::show;
use handover::supervise::proc::stat;
use handover::supervise::signal_name;

/// For the last entries to come into the journal.
const LATE: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(100);

/// Something that can be asked for a reload.
pub(crate) trait Reloads {
    /// Asks, and waits for the end of the asking.
    async fn ask(&mut self, limit: Duration) -> Asked;
    /// The main process, where there is somebody to say so.
    async fn main(&self) -> Option<u32> {
        None
    }
    /// The process that answered before has a successor.
    fn answered(&mut self, _before: Option<u32>, _now: u32) {}
    /// What the journal says of the reloads that were asked for at those times, or why there is
    /// nothing.
    async fn journal(&self, _asked: &[SystemTime]) -> Result<Vec<Option<Brief>>, String> {
        Ok(Vec::new())
    }
}

/// How asking for a reload ended.
#[derive(Debug)]
pub(crate) enum Asked {
    Done,
    Failed(String),
    /// It failed as it was meant to: nobody new is to answer.
    Refused(String),
}

#[derive(Debug)]
pub(super) struct Trigger {
    pub(super) how: How,
    /// Where the main process is said to be.
    pub(super) main: Option<Main>,
}

#[derive(Debug)]
pub(super) enum How {
    Unit {
        unit: String,
        user: bool,
    },
    Command(String),
    /// To the main process.
    Signal(Signal),
    /// A load without reloads.
    Never,
}

#[derive(Debug)]
pub(super) enum Main {
    Pid(u32),
    File(PathBuf),
}

impl How {
    pub(super) fn signal(name: &str) -> Result<Self, Failure> {
        let named = signal_name(&name.to_ascii_uppercase());
        let signal = named.and_then(|name| Signal::from_str(&format!("SIG{name}")).ok());
        signal.map(Self::Signal).ok_or_else(|| Failure::usage(format!("{name:?} is no signal")))
    }
}

impl Main {
    pub(super) fn read(&self) -> Result<u32, Failure> {
        let file = match self {
            Self::Pid(pid) => return Ok(*pid),
            Self::File(file) => file,
        };
        let text = std::fs::read_to_string(file).map_err(|e| Failure::usage(format!("{}: {e}", file.display())))?;
        let pid = text.trim().parse().ok().filter(|pid| *pid > 1);
        pid.ok_or_else(|| Failure::usage(format!("{}: no pid in it", file.display())))
    }
}

impl Trigger {
    /// As the report says it.
    pub(super) fn describe(&self) -> String {
        match (&self.how, &self.main) {
            (How::Unit { unit, user: true }, _) => format!("systemctl --user reload {unit}"),
            (How::Unit { unit, user: false }, _) => format!("systemctl reload {unit}"),
            (How::Command(command), _) => command.clone(),
            (How::Signal(signal), Some(Main::File(file))) => format!("{signal} to the pid in {}", file.display()),
            (How::Signal(signal), Some(Main::Pid(pid))) => format!("{signal} to pid {pid}, then to its successors"),
            (How::Signal(_), None) | (How::Never, _) => "none".to_owned(),
        }
    }

    /// Where the server's processes are looked for.
    pub(super) fn whose(&self) -> String {
        match (&self.how, &self.main) {
            (How::Unit { unit, .. }, _) => unit.clone(),
            (_, Some(Main::Pid(pid))) => format!("what comes from pid {pid}"),
            (_, Some(Main::File(file))) => format!("what comes from the pid in {}", file.display()),
            _ => "the server".to_owned(),
        }
    }

    fn signal(&self, signal: Signal) -> Result<(), String> {
        let pid = self.main.as_ref().map_or_else(|| Err(Failure::usage("no --pid")), Main::read);
        let pid = pid.map_err(|e| e.to_string())?;
        let to = i32::try_from(pid).map_err(|_| format!("{pid} is no pid"))?;
        // the kernel takes a signal for a zombie, too
        if stat(pid).is_some_and(|one| one.dead) {
            return Err(format!("{signal} to pid {pid}: it has ended, and none has been seen to answer in its place"));
        }
        kill(Pid::from_raw(to), signal).map_err(|e| format!("{signal} to pid {pid}: {e}"))
    }
}

impl Reloads for Trigger {
    async fn ask(&mut self, limit: Duration) -> Asked {
        let asked = match &self.how {
            How::Never => Ok(()),
            How::Signal(signal) => self.signal(*signal),
            How::Unit { unit, user } => run(systemctl::command(*user, &["reload", "--", unit]), limit).await,
            How::Command(text) => {
                let mut command = Command::new("/bin/sh");
                command.args(["-c", text]);
                run(command, limit).await
            }
        };
        asked.map_or_else(Asked::Failed, |()| Asked::Done)
    }

    fn answered(&mut self, before: Option<u32>, now: u32) {
        // A main process that lets others answer for it stays.
        if let (How::Signal(_), Some(Main::Pid(pid))) = (&self.how, &mut self.main)
            && before == Some(*pid)
        {
            *pid = now;
        }
    }

    async fn main(&self) -> Option<u32> {
        match (&self.how, &self.main) {
            (How::Unit { unit, user }, _) => show(unit, *user).await.ok().map(|unit| unit.main).filter(|pid| *pid != 0),
            (How::Signal(_), Some(main)) => main.read().ok(),
            _ => None,
        }
    }

    async fn journal(&self, asked: &[SystemTime]) -> Result<Vec<Option<Brief>>, String> {
        let (How::Unit { unit, user }, Some(first)) = (&self.how, asked.first()) else { return Ok(Vec::new()) };
        let begun = Instant::now();
        loop {
            let told = briefs(unit, *user, *first).await.map_err(|failure| failure.to_string())?;
            let rows = in_order(&told, asked);
            let complete = rows.iter().all(|row| row.as_ref().is_some_and(|brief| !brief.is_under_way()));
            if complete || begun.elapsed() > LATE {
                return match told.is_empty() {
                    true => Err(format!("it has nothing of {unit} that this user may read")),
                    false => Ok(rows),
                };
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// The first one that began after each was asked for, and before the next one was.
fn in_order(told: &[Brief], asked: &[SystemTime]) -> Vec<Option<Brief>> {
    let nexts = asked.iter().skip(1).copied().map(Some).chain([None]);
    asked.iter().zip(nexts).map(|(at, next)| told.iter().find(|one| one.began_within(*at, next)).cloned()).collect()
}

async fn run(mut command: Command, limit: Duration) -> Result<(), String> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let name = command.as_std().get_program().to_string_lossy().into_owned();
    // What a service that it starts in the background writes is nobody's: only the command itself
    // is waited for.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn to(pid: u32) -> Trigger {
        Trigger { how: How::Signal(Signal::SIGHUP), main: Some(Main::Pid(pid)) }
    }

    #[test]
    fn signals() {
        for name in ["HUP", "hup", "SIGHUP", "1"] {
            assert!(matches!(How::signal(name), Ok(How::Signal(Signal::SIGHUP))), "{name}");
        }
        assert!(How::signal("HANGUP").is_err() && How::signal("99").is_err());
    }

    #[tokio::test]
    async fn a_signal_to_who_has_ended_fails() {
        let mut ended = std::process::Command::new("true").spawn().unwrap();
        let mut trigger = to(ended.id());
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        while !stat(ended.id()).is_some_and(|one| one.dead) {
            assert!(tokio::time::Instant::now() < deadline);
            tokio::task::yield_now().await;
        }
        let Asked::Failed(failed) = trigger.ask(Duration::from_secs(1)).await else { panic!() };
        assert!(failed.contains("it has ended"), "{failed}");
        ended.wait().unwrap();
        let Asked::Failed(failed) = trigger.ask(Duration::from_secs(1)).await else { panic!() };
        assert!(failed.contains("ESRCH"), "{failed}");
    }

    #[test]
    fn a_successor_gets_the_next_signal_but_a_worker_does_not() {
        let mut trigger = to(7);
        trigger.answered(Some(8), 9);
        assert!(trigger.describe().contains("pid 7"));
        trigger.answered(Some(7), 9);
        assert!(trigger.describe().contains("pid 9"));
    }
}
