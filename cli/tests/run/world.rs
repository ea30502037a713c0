//! A `handover run` with a program in Python, a service manager that reads what it is told, and
//! clients.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use handover_testing::manager::Manager;
use handover_testing::processes::until;

pub(crate) const HANDOVER: &str = env!("CARGO_BIN_EXE_handover");
pub(crate) const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/run/program.py");

pub(crate) struct World {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) manager: Manager,
    supervisor: Child,
}

/// What to run beside the defaults.
#[derive(Clone, Copy)]
pub(crate) struct Setup<'a> {
    pub(crate) mode: &'a str,
    /// Of `handover run`; `{dir}` is the directory.
    pub(crate) options: &'a [&'a str],
    /// Instead of the program in Python; `{dir}` is the directory.
    pub(crate) program: &'a [&'a str],
    pub(crate) env: &'a [(&'a str, &'a str)],
    pub(crate) binary: Option<&'a Path>,
}

impl Default for Setup<'_> {
    fn default() -> Self {
        Self { mode: "ok", options: &[], program: &["python3", PROGRAM, "{dir}"], env: &[], binary: None }
    }
}

impl World {
    /// Returns when it serves.
    pub(crate) fn start(setup: Setup<'_>) -> Self {
        let world = Self::launch(setup);
        world.manager.wait("that it is ready", |told| told.has("READY=1"));
        world
    }

    pub(crate) fn launch(setup: Setup<'_>) -> Self {
        Self::launch_with(setup, |_| {})
    }

    /// `prepare`: what must be there before the program is started.
    pub(crate) fn launch_with(setup: Setup<'_>, prepare: impl FnOnce(&Path)) -> Self {
        handover_testing::set_patience(crate::PATIENCE);
        let directory = tempfile::tempdir().unwrap();
        prepare(directory.path());
        let manager = Manager::listen(&directory.path().join("notify"));
        let dir = directory.path().display().to_string();
        std::fs::write(directory.path().join("mode"), setup.mode).unwrap();
        let mut command = match setup.binary {
            Some(path) => Command::new(path),
            None => Command::new(HANDOVER),
        };
        command.args(["run", "--socket", &format!("http=unix:{dir}/http"), "--control", &format!("{dir}/control")]);
        let place = |arg: &&str| arg.replace("{dir}", &dir);
        command.args(setup.options.iter().map(place)).arg("--").args(setup.program.iter().map(place));
        command.env("NOTIFY_SOCKET", directory.path().join("notify")).envs(setup.env.iter().copied());
        for name in ["WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "RUNTIME_DIRECTORY"] {
            if !setup.env.iter().any(|(given, _)| *given == name) {
                command.env_remove(name);
            }
        }
        let log = std::fs::File::create(directory.path().join("log")).unwrap();
        let supervisor = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        Self { directory, manager, supervisor }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.supervisor.id()
    }

    /// What the next generation is like.
    pub(crate) fn mode(&self, mode: &str) {
        std::fs::write(self.path("mode"), mode).unwrap();
    }

    /// What one connection is answered.
    pub(crate) fn ask(&self, line: &str) -> String {
        self.try_ask(line).unwrap_or_else(|error| panic!("{line}: {error}\n{}", self.log()))
    }

    pub(crate) fn try_ask(&self, line: &str) -> std::io::Result<String> {
        let mut stream = UnixStream::connect(self.path("http"))?;
        stream.set_read_timeout(Some(crate::PATIENCE))?;
        stream.write_all(format!("{line}\n").as_bytes())?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer)?;
        Ok(answer.trim_end().to_owned())
    }

    /// The pid and the number of the generation that answers.
    pub(crate) fn who(&self) -> (u32, u64) {
        let answer = self.ask("who");
        let (pid, generation) = answer.split_once(' ').unwrap_or_else(|| panic!("{answer:?}\n{}", self.log()));
        (pid.parse().unwrap(), generation.parse().unwrap())
    }

    pub(crate) fn handover(&self, arguments: &[&str]) -> Output {
        let socket = self.path("control");
        Command::new(HANDOVER).args(arguments).arg("--socket").arg(socket).output().unwrap()
    }

    pub(crate) fn reload(&self) -> Output {
        self.handover(&["reload"])
    }

    /// A reload that works; the number of the new generation.
    pub(crate) fn reloaded(&self) -> u64 {
        let output = self.reload();
        assert!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&output.stderr), self.log());
        self.status()["generation"].as_u64().unwrap()
    }

    /// A reload that does not; what it says.
    pub(crate) fn fails_to_reload(&self) -> String {
        let output = self.reload();
        assert_eq!(output.status.code(), Some(1), "{}\n{}", String::from_utf8_lossy(&output.stdout), self.log());
        String::from_utf8(output.stderr).unwrap()
    }

    pub(crate) fn status(&self) -> Value {
        let output = self.handover(&["status", "--json"]);
        let status =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}\n{}", self.log()));
        handover_testing::schema::holds("status", &status);
        status
    }

    /// What `handover reload --json` says, and its exit code.
    pub(crate) fn report(&self) -> (Value, Option<i32>) {
        let output = self.handover(&["reload", "--json"]);
        let report =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}\n{}", self.log()));
        handover_testing::schema::holds("reload", &report);
        (report, output.status.code())
    }

    pub(crate) fn until_status(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        until(what, || Some(self.status()).filter(|status| wanted(status)))
    }

    pub(crate) fn signal(&self, signal: Signal) {
        signal_to(self.pid(), signal);
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Tells it to stop, and waits for its end.
    pub(crate) fn stop(mut self) -> String {
        self.signal(Signal::SIGTERM);
        let status = self.ends();
        assert!(status.success(), "{status}\n{}", self.log());
        self.log()
    }

    pub(crate) fn ends(&mut self) -> ExitStatus {
        let mut status = None;
        until("the end of the supervisor", || {
            status = self.supervisor.try_wait().unwrap();
            status.map(|_| ())
        });
        status.unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
        // Once told: without a second word it kills what does not end.
        if self.supervisor.try_wait().is_ok_and(|ended| ended.is_none()) {
            self.signal(Signal::SIGQUIT);
            for _ in 0..500 {
                if self.supervisor.try_wait().is_ok_and(|ended| ended.is_some()) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            let _ = self.supervisor.kill();
            let _ = self.supervisor.wait();
        }
    }
}

pub(crate) fn signal_to(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid.cast_signed()), signal).unwrap();
}

pub(crate) fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}
