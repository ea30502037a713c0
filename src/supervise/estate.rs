//! The sockets of the service, held for as long as it runs, and what its generations keep in the fd store.

use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Instant;

use nix::poll::PollFlags;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use crate::error::{Error, Result};
use crate::service::SocketStatus;
use crate::sys::{socket as sys, unix_path};
use crate::systemd::activation::{Activation, Socket, SocketKind};
use crate::systemd::bind;
use crate::systemd::environment::Environment;
use crate::systemd::wanted::Wanted;

/// systemd's limit of one message, and more than any program wants.
pub(crate) const MAX_STORED: usize = 253;

/// An fd under a name, as generations get it.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) name: String,
    pub(crate) fd: OwnedFd,
    pub(crate) kind: SocketKind,
    pub(crate) is_socket: bool,
    pub(crate) is_datagram: bool,
    pub(crate) from: From,
}

/// Where an fd came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum From {
    /// The service manager.
    Passed,
    /// This process.
    Bound,
    /// A generation, by `FDSTORE=1`; or the service manager, which does not say whether it is one of those. Dropped when the other end is
    /// gone, if `poll`.
    Stored { poll: bool },
}

/// All of them: first the sockets in the order in which they were asked for, then what is stored.
#[derive(Debug, Default)]
pub(crate) struct Estate {
    pub(crate) items: Vec<Item>,
}

impl Item {
    pub(crate) fn new(name: String, fd: OwnedFd) -> std::io::Result<Self> {
        let kind = SocketKind::of(fd.as_fd())?;
        Ok(Self::of_kind(name, kind, fd))
    }

    fn of_kind(name: String, kind: SocketKind, fd: OwnedFd) -> Self {
        let is_datagram = matches!(kind, SocketKind::Udp | SocketKind::UnixDatagram);
        let listens =
            matches!(kind, SocketKind::TcpListener | SocketKind::UnixListener | SocketKind::UnixSeqpacketListener);
        Self { name, fd, kind, is_socket: listens || is_datagram, is_datagram, from: From::Passed }
    }

    fn of(socket: Socket, from: From) -> Self {
        let (name, kind) = (socket.name().to_owned(), socket.kind());
        Self { from, ..Self::of_kind(name, kind, socket.into()) }
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

impl Estate {
    /// Takes what was passed, and binds what was not. Without `wanted`: all that was passed.
    pub(crate) fn open(environment: &Environment, wanted: &[Wanted]) -> Result<Self> {
        Wanted::check(wanted)?;
        let mut activation = Activation::from_env(environment)?;
        let mut items: Vec<Item> = Vec::new();
        for Wanted { name, address } in wanted {
            let (sockets, from) = match address {
                Some((form, address)) if !activation.contains(name) => (bind::open(name, *form, address)?, From::Bound),
                _ => (activation.take(name)?, From::Passed),
            };
            for socket in sockets {
                if from == From::Bound {
                    // As systemd passes them: a program with a plain accept(2) must be able to wait in it.
                    sys::set_blocking(socket.as_fd()).map_err(|e| Error::os("a socket cannot be made blocking", e))?;
                }
                items.push(Item::of(socket, from));
            }
        }
        let rest: Vec<String> = activation.names().into_iter().map(str::to_owned).collect();
        let from = if wanted.is_empty() { From::Passed } else { From::Stored { poll: true } };
        for name in rest {
            for socket in activation.take(&name)? {
                let item = Item::of(socket, from);
                // A listener is never one whose other end is gone.
                items.push(Item {
                    from: if item.is_socket { From::Passed } else { From::Stored { poll: true } },
                    ..item
                });
            }
        }
        Ok(Self { items })
    }

    /// Copies for a generation. What is dead of the stored ones is dropped, as systemd does.
    pub(crate) fn for_generation(&mut self) -> Result<Vec<Item>> {
        self.items.retain(|item| {
            let dead = matches!(item.from, From::Stored { poll: true })
                && sys::wait(item.fd.as_fd(), PollFlags::empty(), Instant::now()).unwrap_or(false);
            if dead {
                info!("the other end of the stored {:?} is gone: dropped", item.name);
            }
            !dead
        });
        self.items.iter().map(Item::try_clone).collect()
    }

    /// Copies of what this process has bound, for the fd store of the service manager.
    pub(crate) fn bound(&self) -> Result<Vec<(String, OwnedFd)>> {
        let bound = self.items.iter().filter(|item| item.from == From::Bound);
        bound.map(|item| item.try_clone().map(|copy| (copy.name, copy.fd))).collect()
    }

    /// As systemd does with `FDSTORE=1`: the same open file under the same name is kept once. The number that was kept.
    pub(crate) fn store(&mut self, name: &str, poll: bool, fds: Vec<OwnedFd>) -> usize {
        let mut kept = 0;
        for fd in fds {
            let twin = |item: &Item| item.name == name && sys::same(item.fd.as_fd(), fd.as_fd()).unwrap_or(false);
            let stored = self.items.iter().filter(|item| matches!(item.from, From::Stored { .. })).count();
            if self.items.iter().any(twin) {
                continue;
            }
            if stored >= MAX_STORED {
                warn!("{MAX_STORED} fds are stored already: {name:?} is not");
                continue;
            }
            match Item::new(name.to_owned(), fd) {
                Ok(item) => self.items.push(Item { from: From::Stored { poll }, ..item }),
                Err(error) => warn!(%error, "{name:?} cannot be stored"),
            }
            kept += 1;
        }
        kept
    }

    /// All that are stored under that name.
    pub(crate) fn unstore(&mut self, name: &str) {
        self.items.retain(|item| item.name != name || !matches!(item.from, From::Stored { .. }));
    }

    pub(crate) fn listed(&self) -> Vec<SocketStatus> {
        let sockets = self.items.iter().filter(|item| item.is_socket);
        sockets.map(|item| SocketStatus::of_fd(&item.name, item.kind, item.fd.as_fd())).collect()
    }

    /// The names of what is stored.
    pub(crate) fn stored(&self) -> Vec<&str> {
        let stored = self.items.iter().filter(|item| matches!(item.from, From::Stored { .. }));
        stored.map(|item| item.name.as_str()).collect()
    }

    /// The service stops for good: the paths that this process made go.
    pub(crate) fn remove_paths(&self) {
        for item in self.items.iter().filter(|item| item.from == From::Bound) {
            if let Err(error) = unix_path::remove(item.fd.as_fd()) {
                warn!(%error, "the path of the socket {:?} stays", item.name);
            }
        }
    }
}
