//! What generations inherit: the sockets of the service, held for as long as it runs, and what they
//! keep in the fd store.

use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Instant;

use nix::poll::PollFlags;
use tracing::{info, warn};

use crate::error::{Error, Result};
use crate::reload::status::{SocketStatus, StoreEntry};
use crate::supervise::record::{ItemRecord, PassedFds, Provenance};
use crate::sys::closer::SentFds;
use crate::sys::{socket as sys, unix_path};
use crate::systemd::activation::{Activation, Socket, SocketKind};
use crate::systemd::bind;
use crate::systemd::environment::Environment;
use crate::systemd::wanted::Wanted;

/// Most fds that are stored: systemd's limit of one message, and more than any program wants.
const MAX_STORED: usize = 253;

#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) name: String,
    pub(crate) fd: OwnedFd,
    pub(crate) kind: SocketKind,
    pub(crate) from: Provenance,
}

/// All that generations inherit: first the sockets in the order in which they were asked for, then
/// what is stored.
#[derive(Debug, Default)]
pub(crate) struct Inheritance {
    pub(crate) items: Vec<Item>,
}

impl Item {
    pub(crate) fn new(name: String, fd: OwnedFd) -> std::io::Result<Self> {
        Ok(Self { kind: SocketKind::of(fd.as_fd())?, name, fd, from: Provenance::Passed })
    }

    pub(crate) fn is_datagram(&self) -> bool {
        matches!(self.kind, SocketKind::Udp | SocketKind::UnixDatagram)
    }

    /// Whether it is for clients, and not a file or a connection.
    pub(crate) fn is_socket(&self) -> bool {
        self.is_datagram() || self.accepts() || self.kind == SocketKind::UnixSeqpacketListener
    }

    /// Whether connections can be made to it.
    pub(crate) fn accepts(&self) -> bool {
        matches!(self.kind, SocketKind::TcpListener | SocketKind::UnixListener)
    }

    fn try_clone(&self) -> Result<Self> {
        let fd = self.fd.try_clone().map_err(|e| Error::os(format!("{:?} cannot be duplicated", self.name), e))?;
        Ok(Self { name: self.name.clone(), fd, ..*self })
    }
}

impl From<Socket> for Item {
    fn from(socket: Socket) -> Self {
        let (name, kind) = (socket.name().to_owned(), socket.kind());
        Self { name, kind, fd: socket.into(), from: Provenance::Passed }
    }
}

impl Inheritance {
    /// Takes what was passed, and binds what was not. Without `wanted`: all that was passed.
    pub(crate) fn open(environment: &Environment, wanted: &[Wanted]) -> Result<Self> {
        Wanted::check(wanted)?;
        let mut activation = Activation::from_env(environment)?;
        let mut items: Vec<Item> = Vec::new();
        for Wanted { name, address } in wanted {
            let (sockets, from) = match address {
                Some((form, address)) if !activation.contains(name) => {
                    (bind::open(name, *form, address)?, Provenance::Bound)
                }
                _ => (activation.take(name)?, Provenance::Passed),
            };
            for socket in sockets {
                if from == Provenance::Bound {
                    // As systemd passes them: a program with a plain accept(2) must be able to wait
                    // in it.
                    sys::set_blocking(socket.as_fd()).map_err(|e| Error::os("a socket cannot be made blocking", e))?;
                }
                items.push(Item { from, ..Item::from(socket) });
            }
        }
        let rest: Vec<String> = activation.names().into_iter().map(str::to_owned).collect();
        for name in rest {
            for socket in activation.take(&name)? {
                let item = Item::from(socket);
                // A listener is never one whose other end is gone.
                let from = if item.is_socket() { Provenance::Passed } else { Provenance::Stored { poll: true } };
                items.push(Item { from, ..item });
            }
        }
        Ok(Self { items })
    }

    /// Makes copies for a generation. What is dead of the stored ones is dropped, as systemd does.
    pub(crate) fn for_generation(&mut self) -> Result<Vec<Item>> {
        self.items.retain(|item| {
            let dead = matches!(item.from, Provenance::Stored { poll: true })
                && sys::wait(item.fd.as_fd(), PollFlags::empty(), Instant::now()).unwrap_or(false);
            if dead {
                info!("the other end of the stored {:?} is gone: dropped", item.name);
            }
            !dead
        });
        self.items.iter().map(Item::try_clone).collect()
    }

    /// Makes copies of what this process has bound, for the fd store of the service manager.
    pub(crate) fn bound(&self) -> Result<Vec<(String, OwnedFd)>> {
        let bound = self.items.iter().filter(|item| item.from == Provenance::Bound);
        bound.map(|item| item.try_clone().map(|copy| (copy.name, copy.fd))).collect()
    }

    /// Stores fds, as systemd does with `FDSTORE=1`: the same open file under the same name is kept
    /// once.
    pub(crate) fn store(&mut self, name: &str, poll: bool, mut fds: SentFds) {
        let mut full = None;
        while let Some(fd) = fds.next() {
            let twin = |item: &Item| item.name == name && sys::same(item.fd.as_fd(), fd.as_fd()).unwrap_or(false);
            let stored = self.items.iter().filter(|item| matches!(item.from, Provenance::Stored { .. })).count();
            if self.items.iter().any(twin) {
                continue;
            }
            if stored >= MAX_STORED {
                full = Some(fd);
                break;
            }
            match Item::new(name.to_owned(), fd) {
                Ok(item) => self.items.push(Item { from: Provenance::Stored { poll }, ..item }),
                Err(error) => warn!(%error, "{name:?} cannot be stored"),
            }
        }
        if let Some(fd) = full {
            warn!("{MAX_STORED} fds are stored already: {name:?} is not");
            fds.refuse(fd);
        }
    }

    /// Forgets what is stored under a name, and returns it.
    pub(crate) fn unstore(&mut self, name: &str) -> Vec<OwnedFd> {
        let named = |item: &mut Item| item.name == name && matches!(item.from, Provenance::Stored { .. });
        self.items.extract_if(.., named).map(|item| item.fd).collect()
    }

    pub(crate) fn listed(&self) -> Vec<SocketStatus> {
        let sockets = self.items.iter().filter(|item| item.is_socket());
        sockets.map(|item| SocketStatus::of_fd(&item.name, item.kind, item.fd.as_fd())).collect()
    }

    pub(crate) fn stored(&self) -> Vec<StoreEntry> {
        let mut entries: Vec<StoreEntry> = Vec::new();
        for item in self.items.iter().filter(|item| matches!(item.from, Provenance::Stored { .. })) {
            match entries.iter_mut().find(|entry| entry.name == item.name) {
                Some(entry) => entry.fds += 1,
                None => entries.push(StoreEntry { name: item.name.clone(), fds: 1, stored: true }),
            }
        }
        entries
    }

    pub(crate) fn record<'a>(&'a self, fds: &mut PassedFds<'a>) -> Vec<ItemRecord> {
        let record =
            |item: &'a Item| ItemRecord { name: item.name.clone(), fd: fds.add(item.fd.as_fd()), from: item.from };
        self.items.iter().map(record).collect()
    }

    /// Removes the paths that this process made, as the service stops for good.
    pub(crate) fn remove_paths(&self) {
        for item in self.items.iter().filter(|item| item.from == Provenance::Bound) {
            if let Err(error) = unix_path::remove(item.fd.as_fd()) {
                warn!(%error, "the path of the socket {:?} stays", item.name);
            }
        }
    }
}
