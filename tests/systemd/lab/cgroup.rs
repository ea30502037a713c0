//! A cgroup for each container, where this machine's PID 1 is not systemd.
//!
//! nspawn puts its payload into `payload` below the cgroup that it was started in: two containers
//! that were started from one cgroup would share it, and each PID 1 would see, and stop, the
//! other's services.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Made on creation; removed with all below it on drop, when the container has ended.
#[derive(Debug)]
pub(crate) struct Cgroup {
    dirs: Vec<PathBuf>,
}

impl Cgroup {
    /// `None` where systemd is PID 1: there nspawn asks it for a scope of its own.
    pub(crate) fn create(name: &str) -> io::Result<Option<Self>> {
        if managed() {
            return Ok(None);
        }
        let mut cgroup = Self { dirs: Vec::new() };
        for base in hierarchies() {
            let dir = base.join(name);
            fs::create_dir(&dir)?;
            cgroup.dirs.push(dir);
        }
        Ok(Some(cgroup))
    }

    pub(crate) fn dirs(&self) -> &[PathBuf] {
        &self.dirs
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for dir in &self.dirs {
            remove(dir);
        }
    }
}

/// Why no container can have a cgroup here, if so.
pub(crate) fn check() -> Result<(), String> {
    if !managed() && hierarchies().is_empty() {
        return Err("no cgroup v2 hierarchy is mounted".to_owned());
    }
    sweep();
    Cgroup::create(&format!("handover-probe-{}", std::process::id()))
        .map(drop)
        .map_err(|e| format!("root may not make cgroups here: {e}"))
}

/// What a killed run left: its containers ended with it, the empty directories stayed.
fn sweep() {
    for dir in hierarchies().iter().flat_map(fs::read_dir).flatten().flatten() {
        let name = dir.file_name();
        let owner = name.to_str().and_then(|n| n.strip_prefix("handover-")?.split('-').next()?.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            remove(&dir.path());
        }
    }
}

/// sd_booted(3).
pub(crate) fn managed() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// Mount points of cgroup v2, and of systemd's own v1 hierarchy beside it.
fn hierarchies() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (dir, kind, options) = (fields.next()?, fields.next()?, fields.next()?);
            let ours = kind == "cgroup2" || (kind == "cgroup" && options.split(',').any(|o| o == "name=systemd"));
            (ours && dir.starts_with("/sys/fs/cgroup")).then(|| PathBuf::from(dir))
        })
        .collect()
}

/// Only directories can be removed there, and only once they are empty of processes.
fn remove(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove(&entry.path());
        }
    }
    // What is still in use has been reported where the container did not end.
    let _ = fs::remove_dir(dir);
}
