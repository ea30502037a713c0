//! One booted container.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use handover::supervise::mailbox;
use libtest_mimic::Failed;
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::cgroup::{self, Cgroup};

/// From the start of nspawn to the end of the boot; 0.2 s on an idle machine.
const BOOT_DEADLINE: Duration = Duration::from_secs(30);
/// From SIGTERM to nspawn's end; a service that does not stop is killed then.
const POWEROFF_DEADLINE: Duration = Duration::from_secs(3);
/// From SIGKILL to nspawn's end.
const KILL_DEADLINE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(10);

const LAB_TARGET: &str = "[Unit]\nDescription=lab\nRequires=basic.target\nAfter=basic.target\nAllowIsolate=yes\n";
/// Load must not make the journal drop lines.
const JOURNALD: &str = "[Journal]\nStorage=volatile\nRateLimitIntervalSec=0\n";
/// Units that want what the container does not have, or would stir while a scenario runs.
const MASKED: &[&str] = &[
    "systemd-machine-id-commit.service",
    "systemd-tmpfiles-clean.timer",
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "fstrim.timer",
    "man-db.timer",
    // A boot with it takes a second longer, although there is nothing to mount.
    "var-lib-machines.mount",
];

/// Ended, reaped and cleared away on drop.
#[derive(Debug)]
pub(crate) struct Nspawn {
    nspawn: Child,
    /// The container's PID 1, as this process sees it.
    leader: u32,
    netns: Netns,
    console: PathBuf,
    _cgroup: Option<Cgroup>,
}

impl Nspawn {
    /// Boots the host's own /usr, or `root`; `scratch/lab` is its /lab.
    pub(crate) fn boot(root: Option<&Path>, scratch: &Path) -> Result<Self, Failed> {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let name = format!("handover-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        prepare(scratch)?;
        let cgroup = Cgroup::create(&name).map_err(|e| format!("cannot make a cgroup for {name}: {e}"))?;
        let notify_path = scratch.join("notify");
        let notify = UnixDatagram::bind(&notify_path)?;
        let console = scratch.join("console");
        let mut nspawn = command(&name, root, scratch, cgroup.as_ref())
            .env("NOTIFY_SOCKET", &notify_path)
            .stdin(Stdio::null())
            .stdout(File::create(&console)?)
            .stderr(File::options().append(true).open(&console)?)
            .spawn()
            .map_err(|e| format!("cannot start systemd-nspawn: {e}"))?;
        match booted(&mut nspawn, &notify).and_then(|leader| Ok((leader, Netns::of(leader)?))) {
            Ok((leader, netns)) => Ok(Self { nspawn, leader, netns, console, _cgroup: cgroup }),
            Err(e) => {
                end(&mut nspawn, None);
                let said = fs::read_to_string(&console).unwrap_or_default();
                Err(format!("{name} did not boot: {}\n--- systemd-nspawn said\n{said}", text(&e)).into())
            }
        }
    }

    /// A command that will run inside, in every namespace of the container and as its root.
    pub(crate) fn command(&self, argv: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.env_clear().env("PATH", super::PATH).env("LANG", "C.UTF-8");
        command.args(["-t", &self.leader.to_string(), "-a", "--"]).args(argv);
        command
    }

    /// The container's file system, seen from here. Absolute symbolic links in it lead astray.
    pub(crate) fn root(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.leader))
    }

    /// The container's PID 1, as this process sees it.
    pub(crate) fn leader(&self) -> u32 {
        self.leader
    }

    pub(crate) fn netns(&self) -> &Netns {
        &self.netns
    }

    /// What nspawn and the container's console said.
    pub(crate) fn console(&self) -> String {
        fs::read(&self.console).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default()
    }
}

impl Drop for Nspawn {
    fn drop(&mut self) {
        end(&mut self.nspawn, Some(self.leader));
    }
}

/// The network of a container: threads enter it, and so do the threads that they start.
#[derive(Debug, Clone)]
pub(crate) struct Netns(Arc<File>);

impl Netns {
    fn of(pid: u32) -> Result<Self, Failed> {
        Ok(Self(Arc::new(File::open(format!("/proc/{pid}/ns/net"))?)))
    }

    /// Moves the calling thread, for good.
    pub(crate) fn enter(&self) -> io::Result<()> {
        setns(&self.0, CloneFlags::CLONE_NEWNET)?;
        Ok(())
    }
}

fn prepare(scratch: &Path) -> io::Result<()> {
    let units = scratch.join("units");
    for dir in ["lab", "units", "journald"] {
        fs::create_dir(scratch.join(dir))?;
        fs::set_permissions(scratch.join(dir), fs::Permissions::from_mode(0o755))?;
    }
    fs::write(units.join("lab.target"), LAB_TARGET)?;
    for unit in MASKED {
        symlink("/dev/null", units.join(unit))?;
    }
    fs::write(scratch.join("journald/lab.conf"), JOURNALD)?;
    // With an id of its own a container skips the first-boot steps (presets, questions).
    let id = fs::read_to_string("/proc/sys/kernel/random/uuid")?.replace('-', "");
    fs::write(scratch.join("machine-id"), id)
}

fn command(name: &str, root: Option<&Path>, scratch: &Path, cgroup: Option<&Cgroup>) -> Command {
    // setpriv: a killed test run leaves no container behind. It counts the *thread* that starts it,
    // and a case is one thread.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM", "sh", "-c"]);
    command.arg(r#"while [ "$1" != -- ]; do echo $$ >"$1/cgroup.procs" || exit 125; shift; done; shift; exec "$@""#);
    command.arg("sh").args(cgroup.map(Cgroup::dirs).unwrap_or_default()).arg("--");
    command.args(["systemd-nspawn", "--quiet", "--register=no", "--console=pipe", "--notify-ready=yes"]);
    if cgroup::managed() {
        // For the scope that systemd makes for it.
        command.args(["--property=DeviceAllow=/dev/loop-control rwm", "--property=DeviceAllow=block-loop rwm"]);
    } else {
        command.arg("--keep-unit");
    }
    match root {
        None => command.args(["--volatile=yes", "-D", "/"]),
        Some(root) => command.args(["--volatile=overlay", "-D"]).arg(root),
    };
    let bind = |option: &str, from: &str, to: &str| {
        let mut arg = OsString::from(option);
        arg.push(scratch.join(from));
        arg.push(":");
        arg.push(to);
        arg
    };
    let mut programs = Vec::new();
    if let Some(apps) = super::target::apps() {
        let mut arg = OsString::from("--bind-ro=");
        arg.push(apps);
        arg.push(":/apps");
        programs = vec![arg, bind("--bind=", "lab", "/apps/lab")];
    }
    command
        .args(["--machine", name, "--private-network"])
        .arg(bind("--bind=", "lab", "/lab"))
        .arg(bind("--bind=", "units", "/etc/systemd/system"))
        .arg(bind("--bind-ro=", "journald", "/etc/systemd/journald.conf.d"))
        .arg(bind("--bind-ro=", "machine-id", "/etc/machine-id"))
        .args(programs)
        .args(["-b", "--", "--unit=lab.target"])
        .env_clear()
        .env("PATH", super::PATH)
        // Unified also where this machine's own cgroups are hybrid.
        .env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1")
        // Nothing writes to the root below an overlay, so several containers may share it.
        .env("SYSTEMD_NSPAWN_LOCK", "0");
    command
}

/// nspawn names the leader as it starts, and passes on PID 1's own READY=1 when the boot is
/// complete.
fn booted(nspawn: &mut Child, notify: &UnixDatagram) -> Result<u32, Failed> {
    let started = Instant::now();
    let mut leader = None;
    notify.set_read_timeout(Some(Duration::from_millis(100)))?;
    while started.elapsed() < BOOT_DEADLINE {
        if let Some(status) = nspawn.try_wait()? {
            return Err(format!("systemd-nspawn ended: {status}").into());
        }
        let Ok(letter) = mailbox::receive(notify, 4096) else { continue };
        if let Some(pid) = letter.field("X_NSPAWN_LEADER_PID") {
            leader = Some(pid.parse()?);
        }
        if let Some(leader) = leader.filter(|_| letter.field("READY") == Some("1")) {
            return Ok(leader);
        }
    }
    Err(format!("no READY=1 from its PID 1 within {BOOT_DEADLINE:?}").into())
}

/// Orderly for a moment; then the container's PID 1 is killed, and with it all its processes.
fn end(nspawn: &mut Child, leader: Option<u32>) {
    let signal = |pid: u32, signal| i32::try_from(pid).map(|pid| kill(Pid::from_raw(pid), signal));
    let _ = signal(nspawn.id(), Signal::SIGTERM);
    if ended(nspawn, POWEROFF_DEADLINE) {
        return;
    }
    // Not reaped by nspawn yet, as nspawn is still waiting for it: the pid is surely the leader's.
    match leader {
        Some(leader) => drop(signal(leader, Signal::SIGKILL)),
        None => drop(signal(nspawn.id(), Signal::SIGTERM)),
    }
    if !ended(nspawn, KILL_DEADLINE) {
        let _ = nspawn.kill();
        let _ = nspawn.wait();
    }
}

fn ended(nspawn: &mut Child, deadline: Duration) -> bool {
    let started = Instant::now();
    while started.elapsed() < deadline {
        if !matches!(nspawn.try_wait(), Ok(None)) {
            return true;
        }
        std::thread::sleep(POLL);
    }
    false
}

fn text(e: &Failed) -> &str {
    e.message().unwrap_or("no reason given")
}
