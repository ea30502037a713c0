//! Which systemd versions can be booted here, and why the others cannot.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Scenario, cgroup, user};

/// One systemd to run every scenario under.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// The first part of the case's name.
    pub(crate) label: String,
    pub(crate) version: u32,
    /// Where it comes from, or why it cannot run here.
    pub(crate) backend: Result<Source, String>,
    /// Worth a line before the run.
    pub(crate) note: Option<String>,
}

#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// This machine's own /usr, in a container.
    Host,
    /// A root that `tests/lab/rootfs` made, in a container.
    Root(PathBuf),
    /// The user manager that is already running: no container.
    User,
}

impl Target {
    /// Whether its cases share one manager, and so cannot run side by side.
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self.backend, Ok(Source::User))
    }

    /// Itself; or, in place of this machine's own /usr, a root of the same systemd.
    pub(crate) fn for_scenario(&self, scenario: &Scenario) -> Self {
        match (&self.backend, SUITES.iter().find(|(version, _)| *version == self.version)) {
            (Ok(Source::Host), Some((version, suite))) if scenario.whole_root => from_root(*version, suite),
            _ => self.clone(),
        }
    }

    /// Whether that scenario means anything to this systemd.
    pub(crate) fn suits(&self, scenario: &Scenario) -> bool {
        let elsewhere = scenario.host_tool.is_some() && !matches!(self.backend, Ok(Source::Host));
        self.version >= scenario.min_version && !(self.is_shared() && scenario.system_only) && !elsewhere
    }

    fn new(version: u32, backend: Result<Source, String>) -> Self {
        Self { label: version.to_string(), version, backend, note: None }
    }
}

/// What each of Debian's releases has.
const SUITES: [(u32, &str); 3] = [(252, "bookworm"), (257, "trixie"), (262, "sid")];

/// 252, 257 and 262; and, without root, the user manager's version.
pub(crate) fn targets() -> Vec<Target> {
    let container = containers_work();
    let mut targets: Vec<_> = SUITES
        .into_iter()
        .map(|(version, suite)| match &container {
            Err(reason) => Target::new(version, Err(reason.clone())),
            Ok(()) if host_version() == Some(version) && usr_is_merged() => Target::new(version, Ok(Source::Host)),
            Ok(()) => from_root(version, suite),
        })
        .collect();
    if container.is_err() && user::is_running() {
        let version = host_version().unwrap_or_default();
        targets.push(Target { label: format!("user-{version}"), ..Target::new(version, Ok(Source::User)) });
    }
    targets
}

fn from_root(expected: u32, suite: &str) -> Target {
    let root = cache().join("rootfs").join(suite);
    let stamp = fs::read_to_string(root.join(".handover-lab")).unwrap_or_default();
    let value = |key: &str| stamp.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix('=')).map(str::to_owned);
    let Some(version) = value("systemd").and_then(|v| v.parse().ok()) else {
        let reason = format!("{} is not made yet: run tests/lab/rootfs {suite}", root.display());
        return Target::new(expected, Err(reason));
    };
    // A binary that was linked here needs at least this machine's C library.
    let backend = match (value("glibc"), host_glibc()) {
        (Some(theirs), Some(ours)) if version_key(&theirs) < version_key(&ours) => {
            Err(format!("{suite} has glibc {theirs}, and what is built here needs up to {ours}"))
        }
        _ => Ok(Source::Root(root)),
    };
    let mut target = Target::new(version, backend);
    if version != expected {
        target.note = Some(format!("{suite} has systemd {version}, where {expected} was expected"));
    }
    target
}

/// Whether this machine has the program, which a container of its own /usr has, too.
pub(crate) fn has_tool(name: &str) -> bool {
    super::PATH.split(':').any(|directory| PathBuf::from(directory).join(name).exists())
}

/// Whether the kernel has loop devices, and lets us have some. They are the whole machine's, and
/// freed with the last mount.
pub(crate) fn has_loops() -> bool {
    File::options().read(true).write(true).open(super::LOOP_CONTROL).is_ok()
}

/// The programs that `tests/lab/rootfs apps` made a root of; in a container it is `/apps`, with the
/// case's own `/lab` in it.
pub(crate) fn apps() -> Option<PathBuf> {
    let root = cache().join("rootfs/apps");
    root.join(".handover-lab").exists().then_some(root)
}

/// The same directory as in `tests/lab/rootfs`.
fn cache() -> PathBuf {
    let dir = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    dir("HANDOVER_CACHE")
        .or_else(|| Some(dir("XDG_CACHE_HOME")?.join("handover")))
        .or_else(|| Some(dir("HOME")?.join(".cache/handover")))
        .unwrap_or_else(|| PathBuf::from(".cache/handover"))
}

/// Whether this process may and can boot containers.
fn containers_work() -> Result<(), String> {
    if !nix::unistd::geteuid().is_root() {
        return Err("a container needs root".to_owned());
    }
    for tool in ["systemd-nspawn", "nsenter", "setpriv"] {
        if words(&[tool, "--version"]).is_none() {
            return Err(format!("{tool} is missing: apt-get install -y systemd-container util-linux"));
        }
    }
    if words(&["unshare", "--mount", "--net", "--pid", "--fork", "true"]).is_none() {
        return Err("root may not make namespaces here (a container without CAP_SYS_ADMIN?)".to_owned());
    }
    cgroup::check()
}

fn host_version() -> Option<u32> {
    words(&["systemctl", "--version"])?.get(1)?.parse().ok()
}

fn host_glibc() -> Option<String> {
    words(&["getconf", "GNU_LIBC_VERSION"])?.get(1).cloned()
}

/// `--volatile=yes` shows /usr alone.
fn usr_is_merged() -> bool {
    fs::read_link("/bin").is_ok_and(|to| to.ends_with(Path::new("usr/bin")))
}

fn version_key(version: &str) -> Vec<u32> {
    version.split('.').map(|part| part.parse().unwrap_or(0)).collect()
}

fn words(command: &[&str]) -> Option<Vec<String>> {
    let output = Command::new(command[0]).args(&command[1..]).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success().then(|| text.split_whitespace().map(str::to_owned).collect())
}
