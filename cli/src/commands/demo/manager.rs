//! A built-in receiver in systemd's place: it starts one `Type=notify` service with a socket, hears
//! what the service reports, and holds it to systemd's rules. The rules that decide about a reload
//! are in [`unit`](super::unit).
//!
//! Processes are told apart by their tree (this process is a child subreaper) where systemd has
//! control groups. There is no fd store: what is sent to it is closed.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::notify_receiver::NotifyReceiver;
use super::unit::{Exit, State, Unit};
use crate::commands::prove::Family;
use handover::supervise::proc::stat;

/// `WatchdogSec=`
const WATCHDOG: Duration = Duration::from_secs(2);
/// `TimeoutStartSec=`
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// `TimeoutStopSec=`: above the service's drain timeout.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);
/// `RestartSec=`
const RESTART_DELAY: Duration = Duration::from_millis(100);

/// The fd and the pids can only be put in place by the process that becomes the service, and
/// nothing here may be unsafe between fork and exec: a shell does it. The socket comes as stdin,
/// without close-on-exec, and becomes fd 3.
const START: &str = r#"exec 3<&0 </dev/null; export LISTEN_PID=$$ SYSTEMD_EXEC_PID=$$ WATCHDOG_PID=$$; exec "$0" "$@""#;

/// What is started, and where.
#[derive(Debug)]
pub(super) struct Config {
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<OsString>,
    pub(super) directory: PathBuf,
    /// Where the service's stdout and stderr go.
    pub(super) log: File,
}

/// The handle. Dropped without [`end`](Self::end), it kills what it started.
#[derive(Debug)]
pub(super) struct Manager {
    pub(super) address: SocketAddr,
    requests: mpsc::Sender<Request>,
    unit: watch::Receiver<Unit>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
enum Request {
    /// A signal to the main process; answered with its pid and the moment just before.
    Signal(Signal, oneshot::Sender<(u32, Instant)>),
    Stop,
}

impl Manager {
    /// Opens the socket and starts the service.
    pub(super) fn start(config: Config) -> io::Result<Self> {
        nix::sys::prctl::set_child_subreaper(true)?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        // std's backlog of 128 is short for clients that wait while a killed service restarts;
        // systemd's is 4096.
        nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::MAXCONN)?;
        let address = listener.local_addr()?;
        let notify_socket = config.directory.join("notify");
        let receiver = NotifyReceiver::bind(&notify_socket)?;
        let children = signal(SignalKind::child())?;
        let (requests, requested) = mpsc::channel(16);
        let (published, unit) = watch::channel(Unit::new(WATCHDOG, Instant::now()));
        let mut events = Events {
            config,
            listener,
            notify_socket,
            unit: Unit::new(WATCHDOG, Instant::now()),
            published,
            deadline: None,
            restart: true,
        };
        events.spawn()?;
        events.publish();
        let task = tokio::spawn(events.run(receiver, children, requested));
        Ok(Self { address, requests, unit, task })
    }

    pub(super) fn unit(&self) -> Unit {
        self.unit.borrow().clone()
    }

    /// Waits until the unit is as asked; `None` when that takes too long or the manager has ended.
    pub(super) async fn wait_for(&self, limit: Duration, is: impl FnMut(&Unit) -> bool) -> Option<Unit> {
        let mut unit = self.unit.clone();
        let unit = tokio::time::timeout(limit, unit.wait_for(is)).await.ok()?.ok()?;
        Some(unit.clone())
    }

    /// Sends a signal to the main process.
    pub(super) async fn signal(&self, signal: Signal) -> Option<(u32, Instant)> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(Request::Signal(signal, answer)).await.ok()?;
        answered.await.ok()
    }

    /// Stops the service and everything that it started, by force after the stop timeout.
    pub(super) async fn end(&mut self) -> Unit {
        drop(self.requests.send(Request::Stop).await);
        drop((&mut self.task).await);
        self.unit()
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        if !self.task.is_finished() {
            self.task.abort();
            signal_all(Signal::SIGKILL);
        }
    }
}

struct Events {
    config: Config,
    listener: TcpListener,
    notify_socket: PathBuf,
    unit: Unit,
    published: watch::Sender<Unit>,
    /// The end of the current start, stop or restart delay.
    deadline: Option<Instant>,
    restart: bool,
}

impl Events {
    /// The one event loop. As in systemd, notifications are processed before the deaths of
    /// processes.
    async fn run(
        mut self,
        receiver: NotifyReceiver,
        mut children: tokio::signal::unix::Signal,
        mut requests: mpsc::Receiver<Request>,
    ) {
        loop {
            let timer = [self.deadline, self.unit.watchdog_at()].into_iter().flatten().min();
            tokio::select! {
                biased;
                message = receiver.receive() => match message {
                    Ok(message) => self.unit.notified(message.sender, &message.text, Instant::now(), is_ours),
                    Err(e) => self.unit.warnings.push(format!("the notify socket: {e}")),
                },
                _ = children.recv() => self.reap(),
                request = requests.recv() => match request {
                    Some(Request::Signal(name, answer)) => {
                        let now = Instant::now();
                        signal_one(self.unit.main, name);
                        let _ = answer.send((self.unit.main, now));
                    }
                    Some(Request::Stop) | None => self.stop(),
                },
                () = sleep_until(timer) => self.timer(),
            }
            match self.unit.state {
                State::Running | State::Reloading => self.deadline = None,
                State::Stopping if self.deadline.is_none() => self.deadline = Some(Instant::now() + STOP_TIMEOUT),
                _ => {}
            }
            self.publish();
            if self.unit.state == State::Stopped && !self.restart {
                return;
            }
        }
    }

    fn publish(&self) {
        self.published.send_replace(self.unit.clone());
    }

    fn spawn(&mut self) -> io::Result<()> {
        let child = Command::new("/bin/sh")
            .args(["-c", START])
            .arg(&self.config.program)
            .args(&self.config.arguments)
            .current_dir(&self.config.directory)
            .stdin(Stdio::from(OwnedFd::from(self.listener.try_clone()?)))
            .stdout(self.config.log.try_clone()?)
            .stderr(self.config.log.try_clone()?)
            .env("NOTIFY_SOCKET", &self.notify_socket)
            .env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string())
            .env("LISTEN_FDS", "1")
            .env("LISTEN_FDNAMES", "http")
            // Those of a service manager around the demo are not the service's.
            .env_remove("LISTEN_PIDFDID")
            .env_remove("JOURNAL_STREAM")
            .env_remove("INVOCATION_ID")
            // Ctrl-C on a terminal is for the demo, which then stops the service.
            .process_group(0)
            .spawn()?;
        self.unit.started(child.id(), Instant::now());
        self.deadline = Some(Instant::now() + START_TIMEOUT);
        Ok(())
    }

    /// Waits for every child there is: new generations are this process's own children, which no
    /// `Child` stands for.
    fn reap(&mut self) {
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            let (pid, failure, clean) = match status {
                WaitStatus::Exited(pid, 0) => (pid, None, true),
                WaitStatus::Exited(pid, code) => (pid, Some(format!("exit code {code}")), false),
                WaitStatus::Signaled(pid, name, _) => {
                    let clean = matches!(name, Signal::SIGHUP | Signal::SIGINT | Signal::SIGTERM | Signal::SIGPIPE);
                    (pid, Some(format!("killed by {name}")), clean)
                }
                WaitStatus::StillAlive => break,
                _ => continue,
            };
            let pid = u32::try_from(pid.as_raw()).unwrap_or_default();
            self.unit.exits.push(Exit { pid, at: Instant::now(), failure });
            if pid == self.unit.main && !matches!(self.unit.state, State::Ending | State::Stopped) {
                // Restart=on-failure
                self.restart &= !clean && self.unit.state != State::Stopping;
                self.end_the_rest();
            }
        }
        if self.unit.state == State::Ending && own().is_empty() {
            self.unit.state = State::Stopped;
            self.deadline = self.restart.then(|| Instant::now() + RESTART_DELAY);
        }
    }

    /// `KillMode=control-group`: without its main process a service ends as a whole.
    fn end_the_rest(&mut self) {
        self.unit.state = State::Ending;
        self.unit.extended = None;
        self.deadline = Some(Instant::now() + STOP_TIMEOUT);
        signal_all(Signal::SIGTERM);
    }

    fn stop(&mut self) {
        self.restart = false;
        if matches!(self.unit.state, State::Starting | State::Running | State::Reloading) {
            self.unit.state = State::Stopping;
            self.deadline = Some(Instant::now() + STOP_TIMEOUT);
            signal_all(Signal::SIGTERM);
        }
    }

    fn timer(&mut self) {
        let now = Instant::now();
        if self.unit.watchdog_at().is_some_and(|at| at <= now) {
            self.unit
                .warnings
                .push(format!("watchdog: main process {} was silent for {:?}", self.unit.main, self.unit.watchdog));
            self.unit.last_ping = now;
            signal_one(self.unit.main, Signal::SIGABRT);
        }
        if self.deadline.is_none_or(|at| at > now) {
            return;
        }
        self.deadline = self.unit.extended.filter(|at| *at > now);
        if self.deadline.is_some() {
            return;
        }
        match self.unit.state {
            State::Stopped if self.restart => {
                if let Err(e) = self.spawn() {
                    self.unit.warnings.push(format!("cannot start {}: {e}", self.config.program.display()));
                    self.restart = false;
                }
            }
            State::Starting => {
                self.unit
                    .warnings
                    .push(format!("main process {} was not ready within {START_TIMEOUT:?}", self.unit.main));
                self.end_the_rest();
            }
            State::Stopping | State::Ending => {
                self.unit.warnings.push(format!("killed what had not stopped within {STOP_TIMEOUT:?}"));
                self.deadline = Some(now + STOP_TIMEOUT);
                signal_all(Signal::SIGKILL);
            }
            State::Running | State::Reloading | State::Stopped => {}
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// What this process has started and has not waited for yet. It is a child subreaper, so nobody
/// escapes.
pub(super) fn own() -> BTreeSet<u32> {
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
