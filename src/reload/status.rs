//! What a service is doing just now, for programs.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::Duration;

use serde::Serialize;

use crate::drain::Drain;
use crate::drain::moving::Moved;
use crate::generation::FailedFile;
use crate::reload::steps::Past;
use crate::sys::queue;
use crate::systemd::activation::{Socket, SocketKind};
use crate::systemd::fdstore::{FdStore, Kept};

/// How long older generations may take to say what they hold.
pub const ASK_TIMEOUT: Duration = Duration::from_millis(500);

/// A generation names so many of its open connections; of more it gives the number.
pub const MAX_WORK: usize = 20;

/// What a service is doing just now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Status {
    /// The number of this generation.
    pub generation: u64,
    /// Its pid.
    pub pid: u32,
    /// Where it is in its life, as in [`docs::lifecycle`](crate::docs::lifecycle): `serving`,
    /// `reloading`, `draining`, …
    pub state: &'static str,
    /// For how long this generation is there, in milliseconds.
    pub age_ms: u64,
    /// For how long it is main, in milliseconds; `None`: it is not.
    pub main_ms: Option<u64>,
    /// How many connections are open, and how much other work is counted.
    pub connections: usize,
    /// The same by listener and protocol.
    pub open: Vec<Open>,
    /// Those of its connections that came from the previous generation, or went to the next one.
    pub moves: Moves,
    /// How many reloads this generation has begun.
    pub reloads: u64,
    /// Of the last of them; before it, of the reload that it came with.
    pub handover_id: Option<String>,
    /// The older generations that drain, oldest first.
    pub draining: Vec<Older>,
    /// Its sockets.
    pub sockets: Vec<SocketStatus>,
    /// What outlives it in systemd's fd store.
    pub store: Vec<StoreEntry>,
    /// The signals that reload the service, as kill(1) lists them: `SIGHUP`. Any other one that a
    /// unit has in `ExecReload=` or `ReloadSignal=` does something else, or ends it.
    pub reload_signals: Vec<String>,
    /// Whether a reload may end within this process, and start no other one
    /// ([`Builder::on_reload_in_place`](crate::Builder::on_reload_in_place)).
    pub reloads_in_place: bool,
    /// The settings that hold.
    pub settings: BTreeMap<String, String>,
    /// What is known of a pause, while there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused: Option<Paused>,
    /// The last reloads, the oldest first; those of earlier generations too.
    pub past: Vec<Past>,
    /// The file at the program's path, if the last reload failed with it and it is still there: a
    /// crash would start it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_program: Option<FailedProgram>,
    /// The version of this crate.
    pub version: &'static str,
    /// Of a program that does not know handover, and is run by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub supervisor: Option<Supervising>,
}

/// A pause of the service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Paused {
    /// For how long it is there, in milliseconds.
    pub since_ms: u64,
    /// After how long it ends by itself, in milliseconds.
    pub left_ms: u64,
    /// Whether nothing is in hand any more, in older generations either.
    pub at_rest: bool,
    /// How much this generation has in hand.
    pub in_hand: usize,
    /// What that is, the oldest first, at most [`MAX_WORK`] of it.
    pub work: Vec<String>,
}

/// A file that a reload failed with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct FailedProgram {
    /// Its path.
    pub program: String,
    /// The generation that it was to be.
    pub generation: u64,
    /// What it is; `None`: it cannot be read.
    pub sha256: Option<String>,
    /// When it failed, in milliseconds since 1970.
    pub failed_unix_ms: u64,
}

impl From<&FailedFile> for FailedProgram {
    fn from(file: &FailedFile) -> Self {
        let program = file.path.display().to_string();
        let (generation, failed_unix_ms) = (file.generation, file.failed_unix_ms);
        Self { program, generation, sha256: file.sha256.clone(), failed_unix_ms }
    }
}

/// What a supervisor says beyond that; `generation` and `pid` are those of the newest process of
/// the program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Supervising {
    /// The pid that the service manager knows. It never changes.
    pub pid: u32,
    /// What is started.
    pub program: String,
    /// For how long the supervisor is there, in milliseconds.
    pub age_ms: u64,
    /// The processes that serve, one for each worker.
    pub workers: Vec<u32>,
    /// How often a process of the program ended that nobody had told to.
    pub crashes: u64,
    /// How often the supervisor has gone on as a newer version of itself.
    pub renewals: u64,
    /// How often that could not be; and why, the last time.
    pub renewals_failed: u64,
    /// See there.
    pub renewal_failed: Option<String>,
    /// After a loop of crashes an older version runs than the one at the path.
    pub went_back: bool,
    /// The program's own `STATUS=`.
    pub says: Option<String>,
}

/// Open connections of one listener that speak one protocol.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Open {
    /// The listener's name; empty for other work.
    pub listener: String,
    /// `http1`, `http2`, `upgraded`, `stream`, `datagram`, `unknown` before the first byte, or
    /// `job` for other work.
    pub protocol: &'static str,
    /// How many.
    pub count: usize,
}

/// What has become of connections in the reloads of one generation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Moves {
    /// How many came from the previous generation.
    pub adopted: usize,
    /// How many went to the next one.
    pub moved: usize,
    /// How many did not, by the reason, as in [`docs::migration`](crate::docs::migration).
    pub stayed: BTreeMap<String, usize>,
}

/// An older generation that drains.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Older {
    /// Its number.
    pub generation: u64,
    /// Its pid.
    pub pid: u32,
    /// For how long it drains, in milliseconds.
    pub draining_ms: u64,
    /// How much it still has open; `None`: it did not say so within [`ASK_TIMEOUT`].
    pub connections: Option<usize>,
    /// What that is, the oldest first, at most [`MAX_WORK`] of it.
    pub work: Vec<String>,
    /// How many of its connections have moved to the next generation; `None`: it did not say so, or
    /// nobody took them.
    pub moved: Option<usize>,
    /// How many did not move, by the reason.
    pub stayed: BTreeMap<String, usize>,
}

/// A socket of the service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SocketStatus {
    /// Its name.
    pub name: String,
    /// What it is, in words.
    pub kind: String,
    /// Where it is bound.
    pub address: Option<String>,
    /// How many connections wait to be accepted; of TCP only.
    pub waiting: Option<u32>,
    /// How many may wait; of TCP only.
    pub backlog: Option<u32>,
}

/// What is kept under a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct StoreEntry {
    /// The name.
    pub name: String,
    /// How many fds it has.
    pub fds: usize,
    /// Whether systemd has it, so that it outlives a crash.
    pub stored: bool,
}

impl Open {
    pub(crate) fn all(drain: &Drain) -> Vec<Self> {
        let open = drain.open().into_iter();
        open.map(|(listener, protocol, count)| Self { listener, protocol, count }).collect()
    }
}

impl Moves {
    pub(crate) fn of(drain: &Drain) -> Self {
        let Moved { moved, stayed, .. } = drain.moved().unwrap_or_default();
        let stayed = stayed.into_iter().map(|(reason, count)| (reason.to_owned(), count)).collect();
        Self { adopted: drain.adopted(), moved, stayed }
    }
}

impl StoreEntry {
    pub(crate) fn all(store: &FdStore) -> Vec<Self> {
        let entries = store.list().into_iter();
        entries.map(|entry| Self { name: entry.name, fds: entry.fds, stored: entry.kept == Kept::Stored }).collect()
    }
}

impl SocketStatus {
    pub(crate) fn of(name: &str, socket: &Socket) -> Self {
        Self::of_fd(name, socket.kind(), socket.as_fd())
    }

    pub(crate) fn of_fd(name: &str, kind: SocketKind, fd: BorrowedFd<'_>) -> Self {
        let listens = matches!(kind, SocketKind::TcpListener | SocketKind::UnixListener);
        let queue = queue::tcp_backlog(fd).filter(|_| listens);
        Self {
            name: name.to_owned(),
            kind: kind.to_string(),
            address: queue::bound_to(fd),
            waiting: queue.map(|(waiting, _)| waiting),
            backlog: queue.map(|(_, backlog)| backlog),
        }
    }
}
