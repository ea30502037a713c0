//! What a scenario works with: one systemd, commands in it, its journal, its processes, its
//! network.

mod cgroup;
mod command;
mod inspect;
mod machine;
mod nspawn;
mod program;
mod target;
mod user;

use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use nix::sys::stat::{major, minor, stat};
use tempfile::TempDir;

pub(crate) use self::command::Output;
pub(crate) use self::inspect::Entry;
pub(crate) use self::machine::Machine;
use self::nspawn::{Netns, Nspawn};
pub(crate) use self::program::{Former, example, former, handover};
use self::target::Source;
pub(crate) use self::target::{Target, apps, has_loops, has_tool, targets};
use self::user::User;

/// For a command in the container; above it the command is stuck.
pub(crate) const COMMAND_DEADLINE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(10);
const LOOP_CONTROL: &str = "/dev/loop-control";
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub(crate) type Outcome<T = ()> = Result<T, Failed>;

/// A named case, run once per systemd version.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// Older versions lack what it is about: there is no case for them.
    pub(crate) min_version: u32,
    /// Needs a PID 1 of its own: there is no case for a user manager.
    pub(crate) system_only: bool,
    /// Needs the root of programs.
    pub(crate) apps: bool,
    /// Needs a whole root, with a package manager and its database: of this machine's own there is
    /// only /usr.
    pub(crate) whole_root: bool,
    /// Needs loop devices, for images.
    pub(crate) loops: bool,
    /// Needs this program of the machine's own /usr: there is a case for its own systemd only.
    pub(crate) host_tool: Option<&'static str>,
    pub(crate) run: fn(&Container) -> Outcome,
}

impl Scenario {
    pub(crate) const fn new(name: &'static str, run: fn(&Container) -> Outcome) -> Self {
        Self {
            name,
            min_version: 0,
            system_only: false,
            apps: false,
            whole_root: false,
            loops: false,
            host_tool: None,
            run,
        }
    }

    pub(crate) const fn since(self, min_version: u32) -> Self {
        Self { min_version, ..self }
    }

    pub(crate) const fn system_only(self) -> Self {
        Self { system_only: true, ..self }
    }

    /// With the programs in `/apps`, which only a container can have.
    pub(crate) const fn with_apps(self) -> Self {
        Self { system_only: true, apps: true, ..self }
    }

    pub(crate) const fn with_host_tool(self, tool: &'static str) -> Self {
        Self { system_only: true, host_tool: Some(tool), ..self }
    }

    pub(crate) const fn whole_root(self) -> Self {
        Self { system_only: true, whole_root: true, ..self }
    }

    /// With the machine's loop devices, after [`Container::make_loops`].
    pub(crate) const fn with_loops(self) -> Self {
        Self { system_only: true, loops: true, ..self }
    }
}

/// Boots, runs, and on failure adds what the journal, the units and the console have to say.
pub(crate) fn run(target: &Target, scenario: Scenario) -> Outcome {
    let container = Container::start(target)?;
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| (scenario.run)(&container)));
    let reason = match outcome {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(e)) => e.message().unwrap_or("failed without a reason").to_owned(),
        Err(panic) => match panic.downcast::<String>() {
            Ok(text) => format!("panicked: {text}"),
            Err(panic) => format!("panicked: {}", panic.downcast::<&str>().map_or("no text", |text| *text)),
        },
    };
    Err(format!("{reason}\n{}", container.report()).into())
}

/// A booted systemd, fresh for this case; or, without root, the user manager behind the same
/// methods.
///
/// Paths are the container's. Every command has a deadline that kills it. Threads may share it.
#[derive(Debug)]
pub(crate) struct Container {
    // Before the scratch directory that it still uses: fields drop in order.
    backend: Backend,
    version: u32,
    lab: PathBuf,
    units: Mutex<Vec<String>>,
    scratch: TempDir,
    target: Target,
}

#[derive(Debug)]
enum Backend {
    Nspawn(Nspawn),
    User(User),
}

impl Container {
    fn start(target: &Target) -> Outcome<Self> {
        let scratch = tempfile::Builder::new().prefix("handover-lab-").tempdir()?;
        let (backend, lab) = match target.backend.as_ref()? {
            Source::Host => (Backend::Nspawn(Nspawn::boot(None, scratch.path())?), "/lab".into()),
            Source::Root(root) => (Backend::Nspawn(Nspawn::boot(Some(root), scratch.path())?), "/lab".into()),
            Source::User => (Backend::User(User::open(scratch.path())?), scratch.path().join("lab")),
        };
        Ok(Self { backend, version: target.version, lab, units: Mutex::default(), scratch, target: target.clone() })
    }

    /// The same system after its next boot, with nothing of what was written into this one.
    pub(crate) fn boot_again(&self) -> Outcome<Self> {
        Self::start(&self.target)
    }

    /// systemd's major version.
    pub(crate) fn version(&self) -> u32 {
        self.version
    }

    /// A directory of this case's own, as the container calls it: `/lab`, except on a user manager.
    pub(crate) fn dir(&self) -> &Path {
        &self.lab
    }

    /// The same directory as this process calls it.
    pub(crate) fn host_dir(&self) -> PathBuf {
        self.scratch.path().join("lab")
    }

    /// The port to use for `wanted`: itself, except on a user manager, where ports are shared with
    /// the world.
    pub(crate) fn port(&self, wanted: u16) -> Outcome<u16> {
        match &self.backend {
            Backend::Nspawn(_) => Ok(wanted),
            Backend::User(user) => user.port(wanted),
        }
    }

    /// The manager's pid: 1, except on a user manager.
    pub(crate) fn manager_pid(&self) -> u32 {
        match &self.backend {
            Backend::Nspawn(_) => 1,
            Backend::User(user) => user.manager(),
        }
    }

    /// Runs a shell script and returns how it ended; fails only where it could not run, or not end.
    pub(crate) fn sh(&self, script: &str) -> Outcome<Output> {
        self.sh_within(COMMAND_DEADLINE, script)
    }

    /// [`sh`](Self::sh) with a deadline of its own.
    pub(crate) fn sh_within(&self, deadline: Duration, script: &str) -> Outcome<Output> {
        self.exec(&["sh", "-c", script], b"", deadline)
    }

    /// Runs a shell script with the programs of this machine, in the container's network.
    pub(crate) fn sh_beside(&self, deadline: Duration, script: &str) -> Outcome<Output> {
        self.in_netns(|| command::run(Command::new("sh").args(["-c", script]), b"", deadline))?
    }

    /// Runs a shell script that must succeed; returns its standard output without the last newline.
    pub(crate) fn sh_ok(&self, script: &str) -> Outcome<String> {
        must_succeed(script, self.sh(script)?)
    }

    /// `systemctl`, with the manager of this case.
    pub(crate) fn systemctl(&self, args: &[&str]) -> Outcome<Output> {
        self.exec(&[&["systemctl", "--no-pager"], args].concat(), b"", COMMAND_DEADLINE)
    }

    /// `systemctl` that must succeed; returns its standard output without the last newline.
    pub(crate) fn systemctl_ok(&self, args: &[&str]) -> Outcome<String> {
        must_succeed(&format!("systemctl {}", args.join(" ")), self.systemctl(args)?)
    }

    /// Writes a file, and the directories above it.
    pub(crate) fn write_file(&self, path: &str, content: &str) -> Outcome {
        let script = r#"mkdir -p "$(dirname "$0")" && cat >"$0.new" && mv "$0.new" "$0""#;
        let output = self.exec(&["sh", "-c", script, path], content.as_bytes(), COMMAND_DEADLINE)?;
        must_succeed(&format!("write {path}"), output).map(drop)
    }

    /// Writes a unit; [`daemon_reload`](Self::daemon_reload) when it replaces one that is loaded.
    pub(crate) fn write_unit(&self, name: &str, content: &str) -> Outcome {
        self.units.lock().unwrap_or_else(PoisonError::into_inner).push(name.to_owned());
        match &self.backend {
            Backend::Nspawn(_) => self.write_file(&format!("/etc/systemd/system/{name}"), content),
            Backend::User(user) => Ok(fs::write(user.unit_path(name), content)?),
        }
    }

    pub(crate) fn daemon_reload(&self) -> Outcome {
        self.systemctl_ok(&["daemon-reload"]).map(drop)
    }

    /// Puts a program from this machine into [`dir`](Self::dir), replacing an older one atomically,
    /// as an upgrade does, also while that one runs. Returns its path in the container.
    pub(crate) fn install(&self, program: &Path, name: &str) -> Outcome<String> {
        let new = self.host_dir().join(format!("{name}.new"));
        // Not fs::copy: a thread that forks just then would hold our writing fd, and the program
        // would be "busy".
        let mut copy = Command::new("cp");
        copy.arg("--").arg(program).arg(&new);
        must_succeed(&format!("cp {}", program.display()), command::run(&mut copy, b"", COMMAND_DEADLINE)?)?;
        fs::rename(&new, self.host_dir().join(name))?;
        Ok(self.lab.join(name).display().to_string())
    }

    /// Asks until there is an answer. An error from `ask` ends it at once; so does the deadline,
    /// naming `what`.
    pub(crate) fn wait_until<T>(
        &self,
        deadline: Duration,
        what: &str,
        mut ask: impl FnMut() -> Outcome<Option<T>>,
    ) -> Outcome<T> {
        let started = Instant::now();
        loop {
            if let Some(answer) = ask()? {
                return Ok(answer);
            }
            if started.elapsed() >= deadline {
                return Err(format!("after {deadline:?} still not: {what}").into());
            }
            thread::sleep(POLL);
        }
    }

    /// Runs `f` on a thread of its own in the container's network, where 127.0.0.1 is the
    /// container's. Threads and runtimes that it starts are in there too. A panic in it is the
    /// caller's.
    pub(crate) fn in_netns<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Outcome<T> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| -> std::io::Result<T> {
                if let Some(netns) = self.netns() {
                    netns.enter()?;
                }
                Ok(f())
            });
            match inside.join() {
                Ok(result) => result.map_err(|e| format!("cannot enter the container's network: {e}").into()),
                Err(panic) => panic::resume_unwind(panic),
            }
        })
    }

    fn netns(&self) -> Option<&Netns> {
        match &self.backend {
            Backend::Nspawn(nspawn) => Some(nspawn.netns()),
            Backend::User(_) => None,
        }
    }

    /// Where this process finds a file of the container. Absolute symbolic links on the way lead
    /// astray.
    pub(crate) fn outside(&self, path: impl AsRef<Path>) -> PathBuf {
        match &self.backend {
            Backend::Nspawn(nspawn) => nspawn.root().join(path.as_ref().strip_prefix("/").unwrap_or(path.as_ref())),
            Backend::User(_) => path.as_ref().to_owned(),
        }
    }

    /// Makes the nodes of loop devices, which a container has not. Not those of this machine: they
    /// come and go with the devices.
    pub(crate) fn make_loops(&self) -> Outcome {
        let control = stat(LOOP_CONTROL)?.st_rdev;
        let (major, minor) = (major(control), minor(control));
        self.sh_ok(&format!(
            "mknod {LOOP_CONTROL} c {major} {minor} && for n in $(seq 0 63); do mknod /dev/loop$n b 7 $n || exit; done"
        ))
        .map(drop)
    }

    fn exec(&self, argv: &[&str], stdin: &[u8], deadline: Duration) -> Outcome<Output> {
        let mut command = self.command(argv);
        command::run(&mut command, stdin, deadline)
    }

    fn command(&self, argv: &[&str]) -> Command {
        match &self.backend {
            Backend::Nspawn(nspawn) => nspawn.command(argv),
            Backend::User(user) => user.command(argv),
        }
    }

    /// For the reader of a failure.
    fn report(&self) -> String {
        let units = self.units.lock().unwrap_or_else(PoisonError::into_inner).join(" ").replace("@.", "@*.");
        let ask = |script: &str| match self.sh_within(Duration::from_secs(10), script) {
            Ok(output) => format!("{}{}", output.stdout, output.stderr),
            Err(e) => e.message().unwrap_or_default().to_owned(),
        };
        let mut report = String::new();
        let mut section = |title: &str, text: &str| {
            report.push_str(&format!("--- {title}\n{}\n", text.trim_end()));
        };
        section("failed units", &ask("systemctl --no-pager --failed --no-legend"));
        if !units.is_empty() {
            section("systemctl status", &ask(&format!("systemctl --no-pager --full --lines=0 status {units}")));
        }
        section("journal, the last 400 lines", &ask("journalctl --no-pager -o short-precise -n 400"));
        if let Backend::Nspawn(nspawn) = &self.backend {
            section("systemd-nspawn and the console", &nspawn.console());
        }
        report
    }
}

fn must_succeed(what: &str, output: Output) -> Outcome<String> {
    if output.success() {
        return Ok(output.stdout.trim_end_matches('\n').to_owned());
    }
    let Output { status, stdout, stderr, took } = output;
    Err(format!("{what}: {status} after {took:?}\n{stdout}{stderr}").into())
}
