//! A control group: it knows all processes of a server, what they cost, and ends them.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// For killed processes to be gone.
const DEADLINE: Duration = Duration::from_secs(10);
/// Between two looks at whether they are.
const LOOK: Duration = Duration::from_millis(5);

pub(crate) struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes one below another, which has no other of that name.
    pub(crate) fn below(parent: &Path, name: &str) -> io::Result<Self> {
        let path = parent.join(name);
        fs::create_dir(&path).map_err(|error| io::Error::other(format!("{}: {error}", path.display())))?;
        Ok(Self { path })
    }

    /// The same command, in this group from its first instruction on.
    pub(crate) fn enter(&self, command: &Command) -> Command {
        let mut entered = Command::new("sh");
        entered.args(["-c", "echo $$ >\"$0\" && exec \"$@\""]).arg(self.path.join("cgroup.procs"));
        entered.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            if let Some(value) = value {
                entered.env(name, value);
            }
        }
        entered
    }

    /// Those that are alive: the kernel leaves out the dead that nobody has waited for.
    pub(crate) fn processes(&self) -> io::Result<BTreeSet<u32>> {
        let text = fs::read_to_string(self.path.join("cgroup.procs"))?;
        Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
    }

    /// Processor time of all that have ever been in it, in µs.
    pub(crate) fn cpu(&self) -> io::Result<u64> {
        let text = fs::read_to_string(self.path.join("cpu.stat"))?;
        let usage = text.lines().find_map(|line| line.strip_prefix("usage_usec ")?.parse().ok());
        usage.ok_or_else(|| io::Error::other("cpu.stat has no usage_usec"))
    }

    /// Memory of all that are alive, in bytes; what several share counts once.
    pub(crate) fn memory(&self) -> io::Result<u64> {
        let of = |pid| {
            let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
            let kib = text.lines().find_map(|line| line.strip_prefix("Pss:")?.trim().strip_suffix(" kB"))?;
            kib.parse::<u64>().ok()
        };
        Ok(self.processes()?.into_iter().filter_map(of).sum::<u64>() * 1024)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::write(self.path.join("cgroup.kill"), "1");
        let began = Instant::now();
        while self.processes().is_ok_and(|alive| !alive.is_empty()) && began.elapsed() < DEADLINE {
            sleep(LOOK);
        }
        // some generations are children of who started the first one
        while waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG))
            .is_ok_and(|status| status != WaitStatus::StillAlive)
        {}
        // it is busy until the last one is not only dead, but gone
        while let Err(error) = fs::remove_dir(&self.path) {
            if began.elapsed() > DEADLINE {
                eprintln!("{}: {error}", self.path.display());
                return;
            }
            sleep(LOOK);
        }
    }
}
