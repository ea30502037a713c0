//! Takes in what the process was started with: which of it is the store's, and what is wrong with
//! it.

use crate::error::{Error, Result};
use crate::sys::socket::same;
use crate::systemd::activation::{Activation, Socket, SocketKind};
use crate::systemd::fdstore::entry::{Polling, Rejected};
use crate::systemd::fdstore::group::{Group, Held, Mode, Presence};
use crate::systemd::fdstore::line::{is_dead, probe_name};
use crate::systemd::fdstore::names::Names;
use crate::systemd::fdstore::table::{Table, slot as slot_of};
use crate::wire::store::{RESERVED, Slot};
use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, BorrowedFd};
use tracing::warn;

/// What came in, by plain name and number.
#[derive(Debug, Default)]
pub(super) struct Slots(BTreeMap<(String, u64), Incoming>);

/// The fds of one slot, of which some may be in the store and others not.
#[derive(Debug)]
struct Incoming {
    polling: Polling,
    fds: Vec<Held>,
}

impl Slots {
    pub(super) fn add(&mut self, name: String, number: u64, polling: Polling, fds: impl IntoIterator<Item = Held>) {
        let incoming = self.0.entry((name, number)).or_insert(Incoming { polling, fds: Vec::new() });
        incoming.fds.extend(fds);
    }
}

impl Table {
    /// Takes what is the store's out of `activation`.
    pub(super) fn claim(&mut self, activation: &mut Activation, names: &Names) -> Result<()> {
        let passed: Vec<_> = activation.names().into_iter().map(str::to_owned).collect();
        let mut slots = Slots::default();
        for name in passed {
            let Some(slot) = Slot::parse(&name) else {
                if name.starts_with(RESERVED) {
                    activation.take(&name)?;
                    self.reject(name, "its name is none that this version of handover gives");
                }
                continue;
            };
            let Some(polling) = names.find(&slot.name) else { continue };
            let fds = activation.take(&name)?;
            if slot.name == probe_name() {
                self.debris.push(name);
                continue;
            }
            if slot.stored {
                self.presence = Presence::There;
            }
            let held = |socket: Socket| Held { kind: Some(socket.kind()), fd: socket.into(), stored: slot.stored };
            slots.add(slot.name, slot.number, polling, fds.into_iter().map(held));
        }
        self.admit(slots);
        // Connections are not duplicated: their peers would not see them close.
        let kept = |kind| !matches!(kind, SocketKind::TcpStream | SocketKind::UnixStream | SocketKind::UnixSeqpacket);
        for socket in activation.passed().iter().filter(|socket| kept(socket.kind())) {
            let copy = socket.as_fd().try_clone_to_owned();
            let copy =
                copy.map_err(|e| Error::os(format!("the socket {:?} cannot be duplicated", socket.name()), e))?;
            self.given.push((socket.name().to_owned(), copy));
        }
        self.foreign = activation.passed().len();
        Ok(())
    }

    /// Keeps, of each name, what was put last.
    pub(super) fn admit(&mut self, slots: Slots) {
        for ((name, number), incoming) in slots.0 {
            self.admit_one(&name, number, incoming);
        }
    }

    fn admit_one(&mut self, name: &str, number: u64, Incoming { polling, fds }: Incoming) {
        // What this process has given another name does not come back under the first one.
        let moved = |held: &Held| self.mode == Mode::Standby && self.has_elsewhere(name, held.fd.as_fd());
        let fds: Vec<_> = fds.into_iter().filter(|held| !moved(held)).collect();
        if fds.is_empty() {
            return;
        }
        let stored = |fds: &[Held]| fds.iter().any(|held| held.stored);
        // What was put in standby yields to what the previous generation, which is main, had
        // acknowledged.
        let ours = |group: &Group| !group.inherited && !stored(&group.fds);
        if self.groups.get(name).is_some_and(ours) {
            self.groups.remove(name);
        }
        match self.groups.get(name) {
            Some(newer) if newer.number > number => {
                if stored(&fds) {
                    self.superseded.push(slot_of(name, number));
                }
                return;
            }
            // Told again by the previous generation: fds have come or gone.
            Some(same) if same.number == number && same.fds.len() == fds.len() => return,
            Some(older) if older.number < number && stored(&older.fds) => {
                self.superseded.push(slot_of(name, older.number));
            }
            _ => {}
        }
        let before = fds.len();
        let alive = |held: &Held| polling == Polling::Off || !is_dead(held.fd.as_fd()).unwrap_or(false);
        let fds: Vec<_> = fds.into_iter().filter(alive).collect();
        if fds.is_empty() && before > 0 {
            self.groups.remove(name);
            self.reject(slot_of(name, number), "its other end is gone");
            return;
        }
        self.groups.insert(name.to_owned(), Group { number, polling, inherited: true, fds });
    }

    fn has_elsewhere(&self, name: &str, fd: BorrowedFd<'_>) -> bool {
        let others = self.groups.iter().filter(|(other, _)| *other != name).flat_map(|(_, group)| &group.fds);
        others.into_iter().any(|held| same(held.fd.as_fd(), fd).unwrap_or(false))
    }

    pub(super) fn reject(&mut self, name: String, why: &str) {
        warn!(name, "fd store: {name:?} is removed: {why}");
        self.rejected.push(Rejected { name: name.clone(), why: why.to_owned() });
        self.debris.push(name);
    }
}
