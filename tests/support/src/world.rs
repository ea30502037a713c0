//! One case's service, with its manager, its socket and its clients.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use handover::Program;
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::client::{self, Asked, Load};
use crate::manager::{Datagram, Manager};
use crate::processes::{self, End, open_fds, until, wait_until_executed};
use crate::service::{Config, DIRECTORY, Step, write_config};

/// A file that is open for writing cannot be executed, and each new process has our fds for a
/// moment.
static STARTING: Mutex<()> = Mutex::new(());

pub fn launch(program: Program) -> u32 {
    try_launch(program).unwrap()
}

pub fn try_launch(program: Program) -> handover::Result<u32> {
    let _alone = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    let pid = program.start()?.pid();
    wait_until_executed(pid);
    Ok(pid)
}

pub fn write_executable(path: &Path, bytes: &[u8]) {
    let _alone = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[derive(Debug)]
pub struct World {
    directory: TempDir,
    manager: Option<Manager>,
    listener: TcpListener,
    config: Config,
    store: bool,
}

/// Who answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    pub generation: u64,
    pub pid: u32,
    pub version: String,
}

impl World {
    /// With a service manager.
    #[expect(clippy::new_without_default, reason = "it binds sockets and starts a thread")]
    pub fn new() -> Self {
        let mut world = Self::without_manager();
        world.manager = Some(Manager::listen(&world.path("notify")));
        world
    }

    pub fn without_manager() -> Self {
        let directory = tempfile::tempdir().unwrap();
        symlink(std::env::current_exe().unwrap(), directory.path().join("web")).unwrap();
        let config = Config::default();
        write_config(directory.path(), &config);
        Self { directory, manager: None, listener: TcpListener::bind("127.0.0.1:0").unwrap(), config, store: false }
    }

    /// The manager says that it has an fd store; what is put there it only notes.
    pub fn with_store(mut self) -> Self {
        self.store = true;
        self
    }

    /// The manager has an fd store, and gives what is there to each start.
    pub fn with_kept_store(self) -> Self {
        self.manager().keep_fds();
        self.with_store()
    }

    pub fn configured(mut self, change: impl FnOnce(&mut Config)) -> Self {
        self.configure(change);
        self
    }

    /// For generations that start from now on.
    pub fn configure(&mut self, change: impl FnOnce(&mut Config)) {
        change(&mut self.config);
        write_config(self.directory.path(), &self.config);
    }

    /// The next generation does this before it starts the library, or after.
    pub fn next(&mut self, before: Step, after: Step) {
        self.configure(|c| (c.before, c.after) = (before, after));
    }

    pub fn manager(&self) -> &Manager {
        self.manager.as_ref().unwrap()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The service's program, as a service manager would start it.
    pub fn program(&self) -> Program {
        self.program_at(self.path("web"))
    }

    pub fn program_at(&self, path: impl Into<PathBuf>) -> Program {
        let program = self.bare(path).socket("http", OwnedFd::from(self.listener.try_clone().unwrap()));
        let kept = self.manager.as_ref().map(Manager::kept).unwrap_or_default();
        kept.into_iter().fold(program, |program, (name, fd)| program.socket(name, fd))
    }

    /// The same without its socket.
    pub fn bare(&self, path: impl Into<PathBuf>) -> Program {
        let program = Program::new(path).env(DIRECTORY, self.directory.path()).env("RUST_BACKTRACE", "0");
        let program = if self.store { program.env("FDSTORE", "64") } else { program };
        match &self.manager {
            Some(_) => program.env("NOTIFY_SOCKET", self.path("notify")),
            None => program,
        }
    }

    /// Starts the first generation; it serves.
    pub fn start(&self) -> Who {
        self.started(self.program())
    }

    pub fn started(&self, program: Program) -> Who {
        let pid = launch(program);
        if let Some(manager) = &self.manager {
            manager.wait("READY=1", |d| d.pid == pid && d.has("READY=1"));
        }
        let who = self.who();
        assert_eq!((who.generation, who.pid), (1, pid));
        who
    }

    pub fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    pub fn get(&self, path: &str) -> io::Result<String> {
        client::get(self.address(), path)
    }

    pub fn who(&self) -> Who {
        let text = self.get("/who").unwrap();
        let mut words = text.split(' ');
        let mut word = || words.next().unwrap();
        Who { generation: word().parse().unwrap(), pid: word().parse().unwrap(), version: word().to_owned() }
    }

    pub fn wait_for_generation(&self, generation: u64) -> Who {
        until("another generation", || Some(self.who()).filter(|who| who.generation == generation))
    }

    pub fn load(&self) -> Load {
        Load::start(self.address())
    }

    /// Asks for a reload, which has been noted when this returns.
    pub fn ask_for_reload(&self) -> Asked {
        let mut asked = Asked::new(self.address(), "/reload", "close").unwrap();
        assert_eq!(asked.chunk().unwrap().as_deref(), Some("asked\n"));
        asked
    }

    /// Reloads, and says what came of it.
    pub fn reload(&self) -> String {
        self.ask_for_reload().rest().unwrap()
    }

    /// Reloads well.
    pub fn reload_to(&self, generation: u64) -> Who {
        let outcome = self.reload();
        let who = self.wait_for_generation(generation);
        assert_eq!(outcome, format!("HandedOver {{ generation: {generation}, pid: {} }}", who.pid));
        who
    }

    /// A request that is never done.
    pub fn hold(&self) -> (u32, Asked) {
        let mut held = Asked::new(self.address(), "/hold", "keep-alive").unwrap();
        let text = held.chunk().unwrap().unwrap();
        let pid = text.trim().strip_prefix("held ").unwrap().parse().unwrap();
        (pid, held)
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    pub fn wait_for_log(&self, text: &str) {
        until(text, || self.log().contains(text).then_some(()));
    }

    /// The open fds of a main process: with those that it opens only after it is main, when it has
    /// seen to its fd store.
    pub fn settled_fds(&self, main: &Who) -> usize {
        let generation = format!(" generation={} ", main.generation);
        until("the fd store to be seen to", || {
            self.log().lines().any(|line| line.contains(" fd store: ") && line.contains(&generation)).then_some(())
        });
        open_fds(main.pid)
    }

    /// The pids of all generations so far, in order.
    pub fn born(&self) -> Vec<u32> {
        let text = fs::read_to_string(self.path("born")).unwrap_or_default();
        text.lines().map(|line| line.parse().unwrap()).collect()
    }

    pub fn wait_for_birth(&self, number: usize) -> u32 {
        until("another process", || self.born().get(number - 1).copied())
    }

    /// Until one is at [`Step::Wait`].
    pub fn wait_for_a_waiting_one(&self) {
        until("one that waits", || self.path("waits").exists().then_some(()));
    }

    /// What waits goes on.
    pub fn go(&self) {
        fs::write(self.path("go"), "").unwrap();
    }

    /// What `main` returned in that process.
    pub fn result_of(&self, pid: u32) -> String {
        until("main's result", || fs::read_to_string(self.path(&format!("end.{pid}"))).ok().filter(|t| !t.is_empty()))
    }

    pub fn processes(&self) -> Vec<u32> {
        processes::of_service(DIRECTORY, self.directory.path()).into_keys().collect()
    }

    /// Only these are left, and no zombie.
    pub fn wait_for_only(&self, pids: &[u32]) {
        until("the other processes to be gone", || (self.processes() == pids).then_some(()));
    }

    pub fn wait_for_nobody(&self) {
        self.wait_for_only(&[]);
    }

    /// Told by that process, in a READY of its own.
    pub fn wait_for_status(&self, mark: usize, status: &str) -> Datagram {
        self.manager().wait_from(mark, status, |d| d.field("STATUS") == Some(status))
    }

    /// Ends the service in the ordinary way, and checks what must hold at the end of every life.
    pub fn stop(self) {
        let main = self.main();
        processes::signal(main, Signal::SIGTERM);
        assert_eq!(self.end_of(main), End::Exited(0));
        self.wait_for_nobody();
        if let Some(manager) = &self.manager {
            manager.wait("STOPPING=1", |d| d.pid == main && d.has("STOPPING=1"));
            manager.check_states();
        }
    }

    /// In the milliseconds of a handover two answer: the main one is who has said so last.
    fn main(&self) -> u32 {
        let Some(manager) = &self.manager else { return self.who().pid };
        until("somebody who serves, and does not reload", || {
            let who = self.who();
            let told = manager.all().into_iter().rev().find(|d| d.field("STATUS").is_some())?;
            let status = told.field("STATUS")?.strip_prefix(&format!("generation {} serves", who.generation))?;
            let reloads = status.starts_with("; reloading") || status.starts_with("; starting");
            (told.pid == who.pid && !reloads).then_some(who.pid)
        })
    }

    /// The end of any generation: those that are no children of ours become so when their parents
    /// are gone.
    pub fn end_of(&self, pid: u32) -> End {
        processes::end_of(pid)
    }

    /// Puts another program where the service is started from.
    pub fn install(&self, make: impl FnOnce(&Path)) {
        let new = self.path("web.new");
        make(&new);
        fs::rename(new, self.path("web")).unwrap();
    }

    /// A copy of this binary that says so.
    pub fn copy(&self, to: &Path, version: &str) {
        let mut bytes = fs::read(std::env::current_exe().unwrap()).unwrap();
        bytes.extend_from_slice(crate::service::VERSION_MARK);
        bytes.extend_from_slice(version.as_bytes());
        write_executable(to, &bytes);
    }

    /// A script that starts this binary with changes to its environment.
    pub fn script(&self, to: &Path, assignments: &str) {
        let binary = std::env::current_exe().unwrap();
        let text = format!("#!/bin/sh\n{assignments}\nexec {} \"$@\"\n", binary.display());
        write_executable(to, text.as_bytes());
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log\n{}--- the manager was told", self.log());
            for datagram in self.manager.iter().flat_map(Manager::all) {
                eprintln!("{}: {:?}", datagram.pid, datagram.text);
            }
        }
        for (pid, process) in processes::of_service(DIRECTORY, self.directory.path()) {
            if !process.dead {
                let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
            }
        }
    }
}
