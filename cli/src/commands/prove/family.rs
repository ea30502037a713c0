//! The processes of the server: its cgroup, or those that come from its main process; and which one
//! of them has the other end of a connection.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::sys::stat::fstat;

use handover::supervise::proc::{self, Diag, Stat, holds, program, stat};
use handover_load::{Address, Stream};

/// Where cgroups are mounted, in the order in which they are tried.
const CGROUPS: [&str; 3] = ["/sys/fs/cgroup", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified"];

#[derive(Debug, Clone)]
pub(crate) enum Family {
    /// A unit's cgroup, and those below it.
    Cgroup(PathBuf),
    Tree(Tree),
    /// Not on this machine, or not known.
    Unknown,
}

/// A process, its descendants, and those that its parent started from the same program: a
/// generation may be a child of the one before, or of the service manager. One whose parent has
/// ended before anybody looked is known by its program and by who takes in orphans: an ancestor.
#[derive(Debug, Clone)]
pub(crate) struct Tree {
    members: BTreeSet<u32>,
    /// Looked at and found to be others, this program and what it starts among them.
    others: BTreeSet<u32>,
    /// Whose children are of the family if they are of its program.
    parents: Vec<u32>,
    program: Option<PathBuf>,
    /// Whose descendants alone are meant.
    root: Option<u32>,
}

impl Family {
    /// `path` is what systemd calls `ControlGroup`.
    pub(crate) fn of_cgroup(path: &str) -> Self {
        let path = path.trim_start_matches('/');
        let found = CGROUPS.iter().map(|root| Path::new(root).join(path)).find(|p| p.join("cgroup.procs").exists());
        found.filter(|_| !path.is_empty()).map_or(Self::Unknown, Self::Cgroup)
    }

    /// The processes of the server that this one is of: those that come from it, or from who
    /// supervises it. A supervisor is known by its holding a socket on which the server `listens`.
    pub(crate) fn around(pid: u32, listens: &[u64]) -> Self {
        let ancestors = |pid| proc::ancestors(pid).map(|one| one.pid);
        let own: BTreeSet<u32> = ancestors(std::process::id()).collect();
        let above = ancestors(pid).take_while(|pid| !own.contains(pid));
        // systemd holds the sockets of all units, and is of no service.
        let supervises = |pid: &u32| listens.iter().any(|inode| holds(*pid, *inode)) && name(*pid) != "systemd";
        Self::of(above.filter(supervises).last().unwrap_or(pid))
    }

    /// What comes from that process, and who is a sibling of the same program.
    pub(crate) fn of(pid: u32) -> Self {
        let own = std::process::id();
        let ancestors: Vec<u32> = proc::ancestors(pid).map(|one| one.pid).collect();
        let mut tree = Tree {
            members: BTreeSet::from([pid]),
            others: BTreeSet::from([own]),
            parents: ancestors.iter().take(1).copied().collect(),
            program: program(pid).ok(),
            root: None,
        };
        // Ancestors first: whoever is not of the family by then is looked at once only.
        tree.look();
        // Who comes later may be an orphan of it; who was there before may be of another service of
        // that program.
        tree.parents = ancestors;
        Self::Tree(tree)
    }

    /// What descends from that process, itself not included.
    pub(crate) fn below(pid: u32) -> Self {
        let (members, others, parents) = (BTreeSet::from([pid]), BTreeSet::new(), Vec::new());
        Self::Tree(Tree { members, others, parents, program: None, root: Some(pid) })
    }

    /// Those that are there, also those that nobody has waited for yet.
    pub(crate) fn members(&mut self) -> BTreeSet<u32> {
        match self {
            Self::Cgroup(path) => {
                let mut pids = BTreeSet::new();
                processes(path, &mut pids);
                pids
            }
            Self::Tree(tree) => {
                tree.look();
                tree.members.iter().copied().filter(|pid| Some(*pid) != tree.root).collect()
            }
            Self::Unknown => BTreeSet::new(),
        }
    }
}

impl Tree {
    fn look(&mut self) {
        let alive: BTreeSet<u32> = proc::pids().collect();
        self.members.retain(|pid| alive.contains(pid));
        self.others.retain(|pid| alive.contains(pid));
        let is_new = |pid: &&u32| !self.members.contains(pid) && !self.others.contains(pid);
        let new: Vec<Stat> = alive.iter().filter(is_new).filter_map(|pid| stat(*pid)).collect();
        let is_sibling = |one: &&Stat| {
            self.parents.contains(&one.parent) && program(one.pid).is_ok_and(|its| Some(its) == self.program)
        };
        let siblings: Vec<u32> = new.iter().filter(is_sibling).map(|one| one.pid).collect();
        self.members.extend(siblings);
        proc::add_descendants(&mut self.members, &new);
        self.others.extend(new.iter().map(|one| one.pid).filter(|pid| !self.members.contains(pid)));
    }
}

fn processes(cgroup: &Path, pids: &mut BTreeSet<u32>) {
    let text = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            processes(&entry.path(), pids);
        }
    }
}

/// The inode of the socket at the other end, as long as a process has it.
pub(super) fn peer(diag: &Diag, stream: &Stream) -> io::Result<Option<u64>> {
    let stream = match stream {
        Stream::Unix(stream) => return diag.unix_peer(fstat(stream)?.st_ino),
        Stream::Tcp(stream) => stream,
        Stream::Tls(stream) => stream.get_ref().0,
    };
    // A server that has said its last may be asked for, too: what it holds, it holds.
    Ok(diag.tcp(stream.peer_addr()?, stream.local_addr()?)?.map(|found| found.inode))
}

/// The inodes of the sockets that listen there.
pub(super) fn listeners(address: &Address) -> Vec<u64> {
    let table = |path: &str| fs::read_to_string(path).unwrap_or_default();
    match address {
        Address::Tcp(address) => ["/proc/net/tcp", "/proc/net/tcp6"]
            .iter()
            .flat_map(|path| table(path).lines().filter_map(|line| tcp(line, address.port())).collect::<Vec<_>>())
            .collect(),
        Address::Unix(path) => {
            let text = table("/proc/net/unix");
            text.lines().filter_map(|line| unix(line, &path.to_string_lossy())).collect()
        }
    }
}

/// proc_pid_net(5): `sl local_address rem_address st tx:rx tr:tm retrnsmt uid timeout inode`.
fn tcp(line: &str, port: u16) -> Option<u64> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let (_, own) = fields.get(1)?.rsplit_once(':')?;
    let listens = *fields.get(3)? == "0A" && u16::from_str_radix(own, 16) == Ok(port);
    listens.then(|| fields.get(9)?.parse().ok()).flatten()
}

/// `Num RefCount Protocol Flags Type St Inode Path`, with a flag for those that accept.
fn unix(line: &str, path: &str) -> Option<u64> {
    let mut fields = line.split_ascii_whitespace();
    let (flags, inode) = (fields.nth(3)?, fields.nth(2)?);
    let listens = flags == "00010000" && fields.next() == Some(path);
    listens.then(|| inode.parse().ok()).flatten()
}

/// What a process is called.
pub(super) fn name(pid: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::process::{Command, Stdio};

    #[test]
    fn a_generation_whose_parent_has_ended_before_anybody_looked_is_of_the_family() {
        let script = "exec 3<&0; read go; sh -c 'read end <&3; :' & echo $!";
        let mut old =
            Command::new("sh").args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (mut input, output) = (old.stdin.take().unwrap(), old.stdout.take().unwrap());
        let mut family = Family::of(old.id());
        input.write_all(b"go\n").unwrap();
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).unwrap();
        let new: u32 = line.trim().parse().unwrap();
        old.wait().unwrap();
        assert_ne!(stat(new).map(|new| new.parent), Some(old.id()), "it is an orphan");
        assert!(family.members().contains(&new));
        // whose orphan was there before is another's
        let mut other = Command::new("sh").args(["-c", "read end"]).stdin(Stdio::piped()).spawn().unwrap();
        assert!(!Family::of(other.id()).members().contains(&new));
        drop(input);
        drop(other.stdin.take());
        other.wait().unwrap();
    }

    #[test]
    fn what_listens_is_found() {
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        let _other_end = std::net::TcpStream::connect(address).unwrap();
        let found = listeners(&Address::Tcp(address));
        assert!(matches!(found[..], [inode] if holds(std::process::id(), inode)), "{found:?}");
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let _unix = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let found = listeners(&Address::Unix(path));
        assert!(matches!(found[..], [inode] if holds(std::process::id(), inode)), "{found:?}");
    }
}
