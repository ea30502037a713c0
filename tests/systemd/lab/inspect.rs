//! Looking at units, the journal and processes from outside the service.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use libtest_mimic::Failed;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Map, Value};

use super::{Backend, Container, Outcome, must_succeed};

/// One message of the journal.
#[derive(Debug, Clone)]
pub(crate) struct Entry(Map<String, Value>);

impl Entry {
    /// A field as text; of a repeated field, all values, each on a line.
    pub(crate) fn get(&self, field: &str) -> Option<Cow<'_, str>> {
        text(self.0.get(field)?)
    }

    pub(crate) fn message(&self) -> Cow<'_, str> {
        self.get("MESSAGE").unwrap_or_default()
    }
}

/// journalctl writes what is no UTF-8 as an array of bytes, and a repeated field as an array of
/// values.
fn text(value: &Value) -> Option<Cow<'_, str>> {
    let Value::Array(values) = value else { return value.as_str().map(Cow::from) };
    let bytes: Option<Vec<u8>> = values.iter().map(|v| v.as_u64()?.try_into().ok()).collect();
    Some(match bytes {
        Some(bytes) => String::from_utf8_lossy(&bytes).into_owned().into(),
        None => values.iter().filter_map(text).collect::<Vec<_>>().join("\n").into(),
    })
}

fn entries(lines: &str) -> Outcome<Vec<Entry>> {
    lines.lines().map(|line| Ok(Entry(serde_json::from_str(line)?))).collect()
}

impl Container {
    /// Everything that the unit, and the manager about it, has logged in this case so far.
    pub(crate) fn journal_json(&self, unit: &str) -> Outcome<Vec<Entry>> {
        self.journal_sync()?;
        entries(&self.sh_ok(&format!("journalctl -a -b -o json -u '{unit}'"))?)
    }

    /// And the steps of reloads of which journald cannot say the unit: it looks that up when it
    /// comes to read them, and their process had ended.
    pub(crate) fn journal_and_lost(&self, unit: &str) -> Outcome<Vec<Entry>> {
        let mut all = self.journal_json(unit)?;
        let mut lost = entries(&self.sh_ok("journalctl -a -b -o json _TRANSPORT=journal")?)?;
        lost.retain(|entry| entry.get("_SYSTEMD_UNIT").is_none() && entry.get("HANDOVER_ID").is_some());
        all.append(&mut lost);
        Ok(all)
    }

    /// What was logged before this call can be read after it.
    fn journal_sync(&self) -> Outcome {
        let Backend::User(_) = &self.backend else { return self.sh_ok("journalctl --sync").map(drop) };
        // --sync is for root. A line of our own comes after those that were written before it.
        let mark = format!("handover-lab-{}", self.sh_ok("cat /proc/sys/kernel/random/uuid")?);
        self.sh_ok(&format!("echo mark | systemd-cat -t {mark}"))?;
        self.wait_until(super::COMMAND_DEADLINE, "a line just logged is in the user's journal", || {
            let found = self.sh(&format!("/usr/bin/journalctl -q -o cat -t {mark}"))?.stdout.contains("mark");
            Ok(found.then_some(()))
        })
    }

    /// A property of a unit, as `systemctl show` has it.
    pub(crate) fn show(&self, unit: &str, property: &str) -> Outcome<String> {
        self.systemctl_ok(&["show", "--value", "-p", property, "--", unit])
    }

    /// The unit's main process while the manager may be restarting: who asks just then may never be
    /// answered.
    pub(crate) fn main_pid_if_told(&self, unit: &str) -> Option<u32> {
        let show = ["systemctl", "--no-pager", "show", "--value", "-p", "MainPID", "--", unit];
        let output = self.exec(&show, b"", std::time::Duration::from_secs(2)).ok()?;
        output.stdout.trim().parse().ok().filter(|pid| output.success() && *pid != 0)
    }

    /// The unit's main process; an error while it has none.
    pub(crate) fn main_pid(&self, unit: &str) -> Outcome<u32> {
        match self.show(unit, "MainPID")?.parse() {
            Ok(0) => Err(format!("{unit} has no main process").into()),
            pid => Ok(pid?),
        }
    }

    /// All processes of the unit.
    pub(crate) fn pids(&self, unit: &str) -> Outcome<Vec<u32>> {
        let group = self.show(unit, "ControlGroup")?;
        if group.is_empty() {
            return Ok(Vec::new());
        }
        // In the container: from here the numbers would be this machine's.
        let text = self.sh_ok(&format!("find '/sys/fs/cgroup{group}' -name cgroup.procs -exec cat {{}} +"))?;
        text.lines().map(|pid| Ok(pid.parse()?)).collect()
    }

    /// Sends a signal (`HUP`, `KILL`) to one process.
    pub(crate) fn signal(&self, pid: u32, signal: &str) -> Outcome {
        let output =
            self.exec(&["sh", "-c", "kill -s \"$0\" \"$1\"", signal, &pid.to_string()], b"", super::COMMAND_DEADLINE)?;
        must_succeed(&format!("kill -s {signal} {pid}"), output).map(drop)
    }

    /// Sends it from here, at once: a command in the container takes its time. False: there is no
    /// such process.
    pub(crate) fn signal_now(&self, pid: u32, signal: Signal) -> Outcome<bool> {
        let Some(pid) = self.host_pid(pid)? else { return Ok(false) };
        match kill(Pid::from_raw(i32::try_from(pid)?), signal) {
            Ok(()) => Ok(true),
            Err(Errno::ESRCH) => Ok(false),
            Err(e) => Err(format!("{signal} to {pid}: {e}").into()),
        }
    }

    /// What this machine calls a process of the container.
    fn host_pid(&self, pid: u32) -> Outcome<Option<u32>> {
        let Backend::Nspawn(nspawn) = &self.backend else { return Ok(Some(pid)) };
        let space = fs::read_link(format!("/proc/{}/ns/pid", nspawn.leader()))?;
        let wanted = pid.to_string();
        for entry in fs::read_dir("/proc")?.flatten() {
            let path = entry.path();
            let Ok(status) = fs::read_to_string(path.join("status")) else { continue };
            let Some(numbers) = status.lines().find_map(|line| line.strip_prefix("NSpid:")) else { continue };
            let mut numbers = numbers.split_whitespace();
            let (first, last) = (numbers.next(), numbers.next_back());
            if last.or(first) == Some(&wanted) && fs::read_link(path.join("ns/pid")).is_ok_and(|p| p == space) {
                return Ok(first.and_then(|first| first.parse().ok()));
            }
        }
        Ok(None)
    }

    /// The ports at the other end of the connections of the service at this address. One that its
    /// client has closed is still among them while the service holds it.
    pub(crate) fn clients_of(&self, service: SocketAddr) -> Outcome<BTreeSet<u16>> {
        const ESTABLISHED: &str = "01";
        const CLOSE_WAIT: &str = "08";
        let port = |address: &str| u16::from_str_radix(address.rsplit(':').next()?, 16).ok();
        let table = self.sh_ok("cat /proc/net/tcp")?;
        let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let held = rows.filter_map(|row| match row[..] {
            [_, ours, theirs, ESTABLISHED | CLOSE_WAIT, ..] if port(ours) == Some(service.port()) => port(theirs),
            _ => None,
        });
        Ok(held.collect())
    }

    /// The environment that the process was given.
    pub(crate) fn proc_environ(&self, pid: u32) -> Outcome<BTreeMap<String, String>> {
        let bytes = fs::read(self.proc(pid, "environ")).map_err(|e| gone(pid, "environ", &e))?;
        Ok(String::from_utf8_lossy(&bytes)
            .split_terminator('\0')
            .filter_map(|line| line.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect())
    }

    /// The last line of the program of the process: what stands behind an ELF file is not looked
    /// at, and tells versions apart.
    pub(crate) fn version_of(&self, pid: u32) -> Outcome<String> {
        self.sh_ok(&format!("tail -n 1 /proc/{pid}/exe"))
    }

    /// What each open fd of the process leads to: `socket:[4711]`, `/dev/null`, `/memfd:state
    /// (deleted)`.
    pub(crate) fn proc_fds(&self, pid: u32) -> Outcome<BTreeMap<i32, String>> {
        let mut fds = BTreeMap::new();
        for entry in fs::read_dir(self.proc(pid, "fd")).map_err(|e| gone(pid, "fd", &e))? {
            let entry = entry?;
            let Some(fd) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else { continue };
            // Closed between the two calls: then it is not open.
            if let Ok(to) = fs::read_link(entry.path()) {
                fds.insert(fd, to.display().to_string());
            }
        }
        Ok(fds)
    }

    /// A field of `/proc/PID/status`: `PPid`, `VmRSS`, `SigBlk`, `Threads`.
    pub(crate) fn proc_status(&self, pid: u32, field: &str) -> Outcome<String> {
        let status = fs::read_to_string(self.proc(pid, "status")).map_err(|e| gone(pid, "status", &e))?;
        let value = status.lines().find_map(|l| l.strip_prefix(field)?.strip_prefix(':'));
        Ok(value.ok_or_else(|| format!("/proc/{pid}/status has no field {field}"))?.trim().to_owned())
    }

    /// A file of the process: `cmdline`, `fdinfo/3`.
    pub(crate) fn proc_read(&self, pid: u32, file: &str) -> Outcome<String> {
        let bytes = fs::read(self.proc(pid, file)).map_err(|e| gone(pid, file, &e))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The container's own /proc, where its pids mean its processes.
    fn proc(&self, pid: u32, file: &str) -> PathBuf {
        match &self.backend {
            Backend::Nspawn(_) => self.outside(format!("/proc/{pid}/{file}")),
            Backend::User(_) => PathBuf::from(format!("/proc/{pid}/{file}")),
        }
    }
}

fn gone(pid: u32, file: &str, e: &std::io::Error) -> Failed {
    format!("/proc/{pid}/{file} of the container: {e}").into()
}
