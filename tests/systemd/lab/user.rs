//! The user manager that is already running: the scenarios of somebody who has no root.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use libtest_mimic::Failed;

use super::command;

const DEADLINE: Duration = Duration::from_secs(120);

/// Units written for one case, taken away again on drop.
#[derive(Debug)]
pub(crate) struct User {
    units: PathBuf,
    /// In front of PATH: `systemctl` and `journalctl` that mean the user's.
    shims: PathBuf,
    manager: u32,
    written: Mutex<Vec<PathBuf>>,
    ports: Mutex<Vec<(u16, u16)>>,
}

/// Whether `systemctl --user` answers.
pub(crate) fn is_running() -> bool {
    let mut command = Command::new("systemctl");
    command.args(["--user", "is-system-running"]);
    command::run(&mut command, b"", Duration::from_secs(10))
        .is_ok_and(|o| matches!(o.stdout.trim(), "running" | "degraded" | "starting"))
}

impl User {
    pub(crate) fn open(scratch: &Path) -> Result<Self, Failed> {
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").ok_or("XDG_RUNTIME_DIR is not set")?;
        let units = PathBuf::from(runtime).join("systemd/user");
        fs::create_dir_all(&units)?;
        fs::create_dir(scratch.join("lab"))?;
        let shims = scratch.join("shims");
        fs::create_dir(&shims)?;
        shim(&shims.join("systemctl"), "exec /usr/bin/systemctl --user \"$@\"")?;
        shim(
            &shims.join("journalctl"),
            "for a do shift; case $a in -u) a=--user-unit ;; --unit=*) a=--user-unit=${a#*=} ;; esac; set -- \"$@\" \"$a\"; done\n\
             exec /usr/bin/journalctl --user \"$@\"",
        )?;
        let mut user = Self { units, shims, manager: 0, written: Mutex::default(), ports: Mutex::default() };
        // The manager's own cgroup is init.scope below user@UID.service.
        let group = user.ask(&["systemctl", "show", "-P", "ControlGroup"])?;
        let procs = fs::read_to_string(format!("/sys/fs/cgroup{}/init.scope/cgroup.procs", group.trim()))?;
        user.manager = procs.lines().next().ok_or("the user manager has no process")?.trim().parse()?;
        Ok(user)
    }

    pub(crate) fn command(&self, argv: &[&str]) -> Command {
        // env looks the program up in the PATH that it was given.
        let mut command = Command::new("/usr/bin/env");
        command.env_clear().env("LANG", "C.UTF-8");
        command.arg(format!("PATH={}:{}", self.shims.display(), super::PATH)).args(argv);
        for name in ["XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS", "HOME"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command
    }

    pub(crate) fn manager(&self) -> u32 {
        self.manager
    }

    pub(crate) fn unit_path(&self, name: &str) -> PathBuf {
        let path = self.units.join(name);
        self.written.lock().unwrap_or_else(PoisonError::into_inner).push(path.clone());
        path
    }

    /// A free port in place of a fixed one; the same each time it is asked for.
    pub(crate) fn port(&self, wanted: u16) -> Result<u16, Failed> {
        let mut ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, port)) = ports.iter().find(|(w, _)| *w == wanted) {
            return Ok(*port);
        }
        let port = std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        ports.push((wanted, port));
        Ok(port)
    }

    fn ask(&self, argv: &[&str]) -> Result<String, Failed> {
        let mut command = self.command(argv);
        Ok(command::run(&mut command, b"", DEADLINE)?.stdout)
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let written = std::mem::take(&mut *self.written.lock().unwrap_or_else(PoisonError::into_inner));
        let names: Vec<_> = written.iter().filter_map(|p| p.file_name()?.to_str()).collect();
        // Sockets first, or a late connection starts the service again.
        for kind in [".socket", ".service", ""] {
            for name in names.iter().filter(|n| n.ends_with(kind)) {
                let pattern = name.replace("@.", "@*.");
                let _ = self.ask(&["systemctl", "stop", &pattern]);
                let _ = self.ask(&["systemctl", "reset-failed", &pattern]);
            }
        }
        for path in &written {
            let _ = fs::remove_file(path);
        }
        let _ = self.ask(&["systemctl", "daemon-reload"]);
    }
}

fn shim(path: &Path, script: &str) -> Result<(), Failed> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o755).open(path)?;
    writeln!(file, "#!/bin/sh\nset -eu\n{script}")?;
    Ok(())
}
