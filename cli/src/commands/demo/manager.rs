//! A built-in receiver in systemd's place: it starts one `Type=notify` service with a socket, hears
//! what the service reports, and starts it again when it was killed. The rules that decide about a
//! reload are in [`unit`](super::unit).
//!
//! Processes are told apart by their tree (this process is a child subreaper) where systemd has
//! control groups. There is no fd store: what is sent to it is closed.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use handover::supervise::mailbox::{self, ProcessMessage};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::supervisor::{DEATH_LIMIT, RELOAD_LIMIT, Reloaded, START_LIMIT, Supervisor, arguments};
use super::unit::{Exit, State, Unit};
use super::versions::Versions;
use crate::commands::prove::{Family, ms};
use crate::failure::Failure;
use handover::supervise::proc::stat;
use handover_load::Kill;

/// systemd's own limit.
const MAX_DATAGRAM: usize = 4096;
/// `TimeoutStopSec=`: above the service's drain timeout.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);
/// `RestartSec=`
const RESTART_DELAY: Duration = Duration::from_millis(100);

/// The fd and the pids can only be put in place by the process that becomes the service, and
/// nothing here may be unsafe between fork and exec: a shell does it. The socket comes as stdin,
/// without close-on-exec, and becomes fd 3.
const START: &str = r#"exec 3<&0 </dev/null; export LISTEN_PID=$$ SYSTEMD_EXEC_PID=$$; exec "$0" "$@""#;

/// How much of the log is shown.
const LINES: usize = 40;

/// The handle. Dropped without [`end`](Self::end), it kills what it started.
#[derive(Debug)]
pub(super) struct Manager {
    address: SocketAddr,
    log: PathBuf,
    unit: Arc<watch::Sender<Unit>>,
    task: JoinHandle<()>,
}

impl Manager {
    /// Opens the socket and starts the service.
    pub(super) fn start(versions: &Versions) -> Result<Self, Failure> {
        let cannot = |e| format!("the service cannot be started in {}: {e}", versions.directory().display());
        Self::open(versions.directory(), versions.program()).map_err(|e| Failure::cannot_run(cannot(e)))
    }

    fn open(directory: &Path, program: PathBuf) -> io::Result<Self> {
        let log = directory.join("web.log");
        let output = File::options().create(true).append(true).open(&log)?;
        nix::sys::prctl::set_child_subreaper(true)?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        // std's backlog of 128 is short for clients that wait while a killed service restarts;
        // systemd's is 4096.
        nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::MAXCONN)?;
        let address = listener.local_addr()?;
        let mailbox = mailbox::bind(&directory.join("notify"))?;
        mailbox.set_nonblocking(true)?;
        let mailbox = UnixDatagram::from_std(mailbox)?;
        let children = signal(SignalKind::child())?;
        let unit = Arc::new(watch::Sender::new(Unit::new(Instant::now())));
        let directory = directory.to_owned();
        let events = Events { program, directory, output, listener, mailbox, unit: Arc::clone(&unit) };
        events.spawn()?;
        Ok(Self { address, log, unit, task: tokio::spawn(events.run(children)) })
    }

    fn unit(&self) -> Unit {
        self.unit.borrow().clone()
    }

    /// Waits until the unit is as asked; `None` when that takes too long.
    async fn wait_for(&self, limit: Duration, is: impl FnMut(&Unit) -> bool) -> Option<Unit> {
        let mut unit = self.unit.subscribe();
        let unit = tokio::time::timeout(limit, unit.wait_for(is)).await.ok()?.ok()?;
        Some(unit.clone())
    }

    /// Signals the main process, and returns its pid and the moment just before. While the unit is
    /// borrowed nobody is reaped, so the pid is still its own.
    fn signal(&self, signal: Signal) -> (u32, Instant) {
        let (unit, now) = (self.unit.borrow(), Instant::now());
        signal_one(unit.main, signal);
        (unit.main, now)
    }
}

impl Supervisor for Manager {
    fn name(&self) -> String {
        "a built-in receiver in systemd's place".into()
    }

    fn address(&self) -> SocketAddr {
        self.address
    }

    async fn family(&self) -> Result<Family, Failure> {
        Ok(Family::below(std::process::id()))
    }

    async fn running(&self, other_than: u32) -> Result<u32, Failure> {
        let settled = |unit: &Unit| matches!(unit.state, State::Running | State::Stopped) && unit.main != other_than;
        let unit = self.wait_for(START_LIMIT, settled).await.filter(|unit| unit.state == State::Running);
        unit.map(|unit| unit.main).ok_or_else(|| self.late("the service was not ready", START_LIMIT))
    }

    async fn reload(&self) -> Result<Reloaded, Failure> {
        let reloads = self.unit().reloads;
        let (main_before, requested) = self.signal(Signal::SIGHUP);
        let is_over =
            |unit: &Unit| unit.reloads > reloads || unit.main != main_before && unit.state != State::Reloading;
        let unit = self.wait_for(RELOAD_LIMIT, is_over).await.filter(|unit| unit.reloads > reloads);
        let Unit { main, reload_ended, status_text, .. } =
            unit.ok_or_else(|| self.late("a reload had no end", RELOAD_LIMIT))?;
        let ready_ms = ms(reload_ended.saturating_duration_since(requested));
        Ok(Reloaded { main_before, main, ready_ms, status_text })
    }

    async fn kill(&self) -> Result<Kill, Failure> {
        let main_since = self.unit().main_since;
        let (pid, at) = self.signal(Signal::SIGKILL);
        let dead = |unit: &Unit| unit.exits.iter().find(|exit| exit.pid == pid).map(|exit| exit.at);
        let unit = self.wait_for(DEATH_LIMIT, |unit| dead(unit).is_some()).await;
        let dead = unit.as_ref().and_then(dead);
        let dead = dead.ok_or_else(|| self.late("the killed process was not gone", DEATH_LIMIT))?;
        Ok(Kill { pid, main_since, at, dead, over: None })
    }

    /// Stops the service and everything that it started, by force after the stop timeout.
    async fn end(&self, killed: Option<u32>) -> Vec<String> {
        self.unit.send_modify(Unit::stop);
        let ended = |unit: &Unit| unit.state == State::Stopped;
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            signal_all(signal);
            if self.wait_for(STOP_TIMEOUT, ended).await.is_some() {
                break;
            }
            let problem = format!("not stopped by {signal} within {STOP_TIMEOUT:?}");
            self.unit.send_modify(|unit| unit.warnings.push(problem));
        }
        let unit = self.unit();
        let warnings = unit.warnings.iter().map(|warning| format!("built-in receiver: {warning}"));
        let was_main = |exit: &&Exit| unit.mains.contains(&exit.pid) && Some(exit.pid) != killed;
        let failed = unit.exits.iter().filter(was_main);
        let failed = failed.filter_map(|e| Some(format!("generation with pid {}: {}", e.pid, e.failure.as_ref()?)));
        warnings.chain(failed).collect()
    }

    fn log(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        format!("the service's log ended with:\n{}", lines[lines.len().saturating_sub(LINES)..].join("\n"))
    }

    fn state(&self) -> String {
        let Unit { state, main, exits, status_text, .. } = self.unit();
        let how = |exit: &Exit| exit.failure.clone().unwrap_or_else(|| "with 0".to_owned());
        let exit = exits.last().map(|exit| format!(", last exit: pid {} {}", exit.pid, how(exit)));
        format!("{state:?}, main process {main}{}, status {status_text:?}", exit.unwrap_or_default())
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        self.task.abort();
        signal_all(Signal::SIGKILL);
    }
}

struct Events {
    program: PathBuf,
    directory: PathBuf,
    /// Where the service's stdout and stderr go.
    output: File,
    listener: TcpListener,
    mailbox: UnixDatagram,
    unit: Arc<watch::Sender<Unit>>,
}

impl Events {
    /// The one event loop. As in systemd, notifications are processed before the deaths of
    /// processes.
    async fn run(self, mut children: tokio::signal::unix::Signal) {
        loop {
            tokio::select! {
                biased;
                message = receive(&self.mailbox) => self.unit.send_modify(|unit| match message {
                    Ok((sender, message)) => {
                        unit.notified(sender, &String::from_utf8_lossy(&message.bytes), Instant::now(), is_ours);
                    }
                    Err(e) => unit.warnings.push(format!("the notify socket: {e}")),
                }),
                _ = children.recv() => self.reap().await,
            }
        }
    }

    fn spawn(&self) -> io::Result<()> {
        let child = Command::new("/bin/sh")
            .args(["-c", START])
            .arg(&self.program)
            .args(arguments())
            .current_dir(&self.directory)
            .stdin(Stdio::from(OwnedFd::from(self.listener.try_clone()?)))
            .stdout(self.output.try_clone()?)
            .stderr(self.output.try_clone()?)
            .env("NOTIFY_SOCKET", self.directory.join("notify"))
            .env("LISTEN_FDS", "1")
            .env("LISTEN_FDNAMES", "http")
            // Those of a service manager around the demo are not the service's.
            .env_remove("LISTEN_PIDFDID")
            .env_remove("JOURNAL_STREAM")
            .env_remove("INVOCATION_ID")
            .env_remove("WATCHDOG_USEC")
            .env_remove("WATCHDOG_PID")
            // Ctrl-C on a terminal is for the demo, which then stops the service.
            .process_group(0)
            .spawn()?;
        self.unit.send_modify(|unit| unit.started(child.id(), Instant::now()));
        Ok(())
    }

    /// Waits for every child there is: new generations are this process's own children, which no
    /// `Child` stands for. Without its main process a service ends as a whole
    /// (`KillMode=control-group`), and is started again if that failed (`Restart=on-failure`).
    async fn reap(&self) {
        self.unit.send_modify(|unit| {
            while let Some(exit) = exit() {
                if unit.ended(exit) {
                    signal_all(Signal::SIGTERM);
                }
            }
            if unit.state == State::Ending && own().is_empty() {
                unit.state = State::Stopped;
            }
        });
        let is_due = || matches!(*self.unit.borrow(), Unit { state: State::Stopped, restart: true, .. });
        if is_due() {
            tokio::time::sleep(RESTART_DELAY).await;
        }
        // It may have been told to stop meanwhile.
        if is_due()
            && let Err(e) = self.spawn()
        {
            let problem = format!("cannot start {}: {e}", self.program.display());
            self.unit.send_modify(|unit| unit.warnings.push(problem));
        }
    }
}

/// The next message of which the sender is known: by the kernel (`SCM_CREDENTIALS`), not from its
/// own mouth. It is to be dropped when it was processed: closing a barrier's fd is what tells its
/// sender that the messages before it were.
///
/// # Cancel safety
///
/// Cancelled, it has read nothing.
async fn receive(mailbox: &UnixDatagram) -> io::Result<(u32, ProcessMessage)> {
    loop {
        match mailbox.async_io(Interest::READABLE, || mailbox::receive(mailbox, MAX_DATAGRAM)).await {
            Ok(message @ ProcessMessage { pid: Some(sender), .. }) => return Ok((sender, message)),
            Ok(_) => {}
            // Too long, and gone.
            Err(e) if e.kind() == io::ErrorKind::InvalidData => {}
            Err(e) => return Err(e),
        }
    }
}

/// The next child that has ended, which is gone then.
fn exit() -> Option<Exit> {
    loop {
        let (pid, failure, clean) = match waitpid(None, Some(WaitPidFlag::WNOHANG)).ok()? {
            WaitStatus::Exited(pid, 0) => (pid, None, true),
            WaitStatus::Exited(pid, code) => (pid, Some(format!("exit code {code}")), false),
            WaitStatus::Signaled(pid, name, _) => {
                let clean = matches!(name, Signal::SIGHUP | Signal::SIGINT | Signal::SIGTERM | Signal::SIGPIPE);
                (pid, Some(format!("killed by {name}")), clean)
            }
            WaitStatus::StillAlive => return None,
            _ => continue,
        };
        let pid = u32::try_from(pid.as_raw()).unwrap_or_default();
        return Some(Exit { pid, at: Instant::now(), failure, clean });
    }
}

/// What this process has started and has not waited for yet. It is a child subreaper, so nobody
/// escapes.
fn own() -> BTreeSet<u32> {
    Family::below(std::process::id()).members()
}

fn is_ours(pid: u32) -> bool {
    own().contains(&pid) && stat(pid).is_some_and(|process| !process.dead)
}

fn signal_all(name: Signal) {
    own().into_iter().for_each(|pid| signal_one(pid, name));
}

/// Only for processes not yet waited for, whose pids are therefore not anyone else's.
fn signal_one(pid: u32, name: Signal) {
    if let Ok(pid) = i32::try_from(pid)
        && pid > 1
    {
        // It may just have ended; then its death is on the way to us.
        let _ = nix::sys::signal::kill(Pid::from_raw(pid), name);
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;

    use nix::sys::socket::MsgFlags;

    use super::*;

    #[tokio::test]
    async fn a_message_comes_with_its_sender_and_its_fd_is_closed_after_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let receiver = mailbox::bind(&path).unwrap();
        receiver.set_nonblocking(true).unwrap();
        let receiver = UnixDatagram::from_std(receiver).unwrap();
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let sender = std::os::unix::net::UnixDatagram::unbound().unwrap();
        sender.connect(&path).unwrap();
        let fds = [writer.as_raw_fd()];
        let control = [nix::sys::socket::ControlMessage::ScmRights(&fds)];
        let text = [io::IoSlice::new(b"BARRIER=1")];
        nix::sys::socket::sendmsg::<()>(sender.as_raw_fd(), &text, &control, MsgFlags::empty(), None).unwrap();
        drop(writer);

        let (pid, message) = receive(&receiver).await.unwrap();
        assert_eq!((pid, message.bytes.as_slice()), (std::process::id(), b"BARRIER=1".as_slice()));
        nix::fcntl::fcntl(&reader, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK)).unwrap();
        assert_eq!(nix::unistd::read(&reader, &mut [0]), Err(nix::Error::EAGAIN), "still open");
        drop(message);
        assert_eq!(nix::unistd::read(&reader, &mut [0]), Ok(0), "hung up");
    }
}
