//! Holds what the store has, as far as this process knows, and makes each change of it.

use crate::error::{Error, Kind, Result};
use crate::sys::socket;
use crate::systemd::fdstore::entry::{Kept, Polling, Rejected, Synced};
use crate::systemd::fdstore::group::{Group, Held, Mode, Presence};
use crate::systemd::fdstore::line::{BATCH, Line, is_dead};
use crate::wire::store::{self, Slot};
use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;
use tracing::{debug, warn};

/// How long a refused fd may take to be closed, where systemd closes it in the background.
const GRACE: Duration = Duration::from_millis(250);

/// Why an entry is not in the store.
struct PushError {
    /// Whether the manager was told of it, and so may have it all the same.
    sent: bool,
    error: Error,
}

impl PushError {
    fn before(error: Error) -> Self {
        Self { sent: false, error }
    }

    fn after(error: Error) -> Self {
        Self { sent: true, error }
    }
}

/// Everything that is known of the store.

#[derive(Debug)]
pub(super) struct Table {
    /// The way to the manager; `None`: there is nobody who could keep an fd.
    pub(super) line: Option<Line>,
    /// The value of `$FDSTORE`.
    pub(super) max: Option<usize>,
    pub(super) presence: Presence,
    pub(super) mode: Mode,
    pub(super) groups: BTreeMap<String, Group>,
    /// What the .socket units keep, which is never to be pushed.
    pub(super) given: Vec<(String, OwnedFd)>,
    /// How many passed fds nobody claimed, which are perhaps in the store.
    pub(super) foreign: usize,
    /// Slots to be removed before anything is put.
    pub(super) debris: Vec<String>,
    /// Slots to be removed as soon as what replaces them is in the store.
    pub(super) superseded: Vec<String>,
    pub(super) rejected: Vec<Rejected>,
    /// Whether it was said that there is no store.
    pub(super) warned: bool,
}

/// What was put without a question, because `$FDSTORE` says that there is room.
#[derive(Debug)]
pub(super) struct Unproven {
    line: Line,
    grace: Duration,
    max: Option<usize>,
    entries: usize,
    spare: bool,
}

impl Unproven {
    /// Says what no error of a single call would say.
    pub(super) fn verify(&self) -> Result<()> {
        let entries = self.entries;
        if !self.spare {
            warn!(
                entries,
                "the fd store is full: nothing in it can be replaced; set FileDescriptorStoreMax= to {} or more",
                entries + 1
            );
        } else if self.line.room(1, self.grace)? == 0 {
            // $FDSTORE is as old as the first process since systemd's last start of the service.
            warn!(
                entries,
                "the fd store has less room than FDSTORE={} says, and may have lost entries: FileDescriptorStoreMax= was \
                 lowered, or others use it too; set it to {} or more",
                self.max.map_or("?".to_owned(), |max| max.to_string()),
                entries + 1
            );
        }
        Ok(())
    }
}

impl Table {
    pub(super) fn put(&mut self, name: &str, fds: Vec<OwnedFd>, polling: Polling) -> Result<Kept> {
        store::check(name)?;
        self.check_open()?;
        let new = self.new_ones(name, fds)?;
        if new.is_empty() {
            return Ok(self.kept(name));
        }
        let known = self.groups.get(name).map(|group| (group.number, group.polling));
        let (number, polling) = known.unwrap_or((0, polling));
        let (stored, result) = match self.push(name, number, &new, polling) {
            Ok(stored) => (stored, Ok(())),
            // Of a new name nothing shall be left; what belongs to an old one cannot be removed
            // alone.
            Err(PushError { sent, error }) => {
                if sent && known.is_none() {
                    self.debris.push(slot(name, number));
                }
                if !sent || known.is_none() {
                    return Err(error);
                }
                (false, Err(error))
            }
        };
        let group =
            self.groups.entry(name.to_owned()).or_insert(Group { number, polling, inherited: false, fds: Vec::new() });
        group.fds.extend(new.into_iter().map(|fd| Held { fd, kind: None, stored }));
        result.map(|()| self.kept(name))
    }

    pub(super) fn replace(&mut self, name: &str, fds: Vec<OwnedFd>) -> Result<Kept> {
        let Some(old) = self.groups.get(name) else { return self.put(name, fds, Polling::On) };
        self.check_open()?;
        if fds.len() > BATCH {
            let why = format!("{name:?}: {} fds cannot be replaced at once, at most {BATCH}", fds.len());
            return Err(Error::new(Kind::Invalid, why));
        }
        if old.inherited && self.mode == Mode::Standby {
            let why = format!(
                "{name:?} in the fd store is still the previous generation's: replace it when this one is main"
            );
            return Err(Error::new(Kind::State, why));
        }
        let (number, polling, had) = (old.number, old.polling, old.fds.len());
        let given = fds.len();
        let new = self.new_ones(name, fds)?;
        if new.is_empty() && given == had {
            return Ok(self.kept(name));
        }
        if new.len() != given {
            let why = format!(
                "{name:?}: some of these are in the fd store under that name already, and systemd keeps each open file \
                 once, under its first name: replace all of them, or put the others only"
            );
            return Err(Error::new(Kind::Invalid, why));
        }
        let Some(next) = number.checked_add(1) else {
            return Err(Error::new(Kind::State, format!("{name:?} was replaced too often")));
        };
        // The new one first: there is never a moment without one of the two, and the higher number
        // wins.
        let stored = match self.push(name, next, &new, polling) {
            Ok(stored) => stored,
            Err(PushError { sent, error }) => {
                if sent {
                    self.debris.push(slot(name, next));
                }
                return Err(error);
            }
        };
        let fds = new.into_iter().map(|fd| Held { fd, kind: None, stored }).collect();
        let old = self.groups.insert(name.to_owned(), Group { number: next, polling, inherited: false, fds });
        if old.is_some_and(|old| old.fds.iter().any(|held| held.stored)) {
            self.superseded.push(slot(name, number));
        }
        if stored {
            self.remove_superseded();
        }
        Ok(self.kept(name))
    }

    /// Takes an entry out; `None`: there is nothing of that name.
    pub(super) fn take(&mut self, name: &str) -> Result<Option<Vec<OwnedFd>>> {
        self.check_open()?;
        let Some(group) = self.groups.get(name) else { return Ok(None) };
        let slot = slot(name, group.number);
        if self.mode == Mode::Standby {
            self.debris.push(slot);
        } else if let Some(line) = self.reachable() {
            line.remove(&slot)?;
            line.barrier()?;
        }
        let group = self.groups.remove(name);
        Ok(group.map(|group| group.fds.into_iter().map(|held| held.fd).collect()))
    }

    /// Puts everything that is held into the store, and takes everything else out of it. What is
    /// new in it is not proven to be there.
    pub(super) fn sync(&mut self) -> Result<(Synced, Option<Unproven>)> {
        self.mode = Mode::Active;
        self.prune();
        let waiting = self.count_waiting();
        let removed = self.debris.len() + self.superseded.len();
        let synced = |kept, pushed, entries| Synced { kept, pushed, removed, entries };
        self.remove_debris()?;
        if self.groups.is_empty() {
            self.remove_superseded();
            return Ok((synced(self.all_kept(), 0, 0), None));
        }
        let entries = self.count_all();
        if waiting > 0 && !self.make_room(waiting)? {
            return Ok((synced(Kept::HeldOnly, 0, entries), None));
        }
        let Some(line) = self.line.clone() else {
            self.warn_once();
            return Ok((synced(Kept::HeldOnly, 0, entries), None));
        };
        // A full store refuses even what it has, and logs it: then only what it does not have.
        let spare = match self.max {
            Some(max) if entries + self.foreign < max => true,
            _ => line.room(1 + waiting, self.grace())? > waiting,
        };
        for (name, group) in &self.groups {
            let fds = group.fds.iter().filter(|held| spare || !held.stored);
            let fds: Vec<_> = fds.map(|held| held.fd.as_fd()).collect();
            line.push(&slot(name, group.number), &fds, group.polling)?;
        }
        line.barrier()?;
        for held in self.groups.values_mut().flat_map(|group| &mut group.fds) {
            held.stored = true;
        }
        self.remove_superseded();
        debug!(entries, pushed = waiting, removed, "fd store: {entries} entries, {waiting} of them new");
        let unproven = Unproven { line, grace: self.grace(), max: self.max, entries, spare };
        Ok((synced(Kept::Stored, waiting, entries), (waiting > 0 || !spare).then_some(unproven)))
    }

    pub(super) fn freeze(&mut self) {
        self.mode = Mode::Frozen;
    }

    /// Tells whether that is the slot of something that is held.
    pub(super) fn has_slot(&self, name: &str) -> bool {
        let slot = Slot::parse(name);
        slot.is_some_and(|slot| self.groups.get(&slot.name).is_some_and(|group| group.number == slot.number))
    }

    /// Removes what is of no use.
    pub(super) fn flush(&mut self) -> Result<()> {
        self.remove_debris()
    }

    /// Sends fds to the store, if there is one; tells whether they are in it now.
    fn push(&mut self, name: &str, number: u64, fds: &[OwnedFd], polling: Polling) -> Result<bool, PushError> {
        if self.mode == Mode::Standby {
            return Ok(false);
        }
        self.remove_debris().map_err(PushError::before)?;
        let room = self.make_room(fds.len()).map_err(PushError::before)?;
        let (Some(line), true) = (&self.line, room) else { return Ok(false) };
        let fds: Vec<_> = fds.iter().map(|fd| fd.as_fd()).collect();
        line.push(&slot(name, number), &fds, polling).and_then(|()| line.barrier()).map_err(PushError::after)?;
        Ok(true)
    }

    /// Makes sure that there is room for so many more. False: there is no store.
    fn make_room(&mut self, more: usize) -> Result<bool> {
        let Some(line) = self.reachable().cloned() else {
            self.warn_once();
            return Ok(false);
        };
        self.prune();
        let count = self.count_stored() + self.superseded.len();
        // Its variable is as old as the process, so a "no" is asked about, and a "yes" checked by
        // sync().
        if self.max.is_some_and(|max| count + self.foreign + more <= max) {
            return Ok(true);
        }
        let free = line.room(more, self.grace())?;
        if free >= more {
            self.presence = Presence::There;
            return Ok(true);
        }
        if free == 0 && count == 0 && self.max.is_none() && self.presence == Presence::Unknown {
            self.presence = Presence::Missing;
            self.warn_once();
            return Ok(false);
        }
        let needed = self.max.map_or(count + more, |max| (max + more - free).max(count + more));
        let why = format!(
            "the fd store has room for {free} of {more} more fds, and has {count}: set FileDescriptorStoreMax= to {needed} or \
             more in the [Service] section (one more than that, for replacing), then systemctl daemon-reload"
        );
        Err(Error::new(Kind::Store, why))
    }

    /// How long a refused fd may take to be closed. A store without the variable is that of a
    /// systemd before 254, which closes what it refuses at once.
    fn grace(&self) -> Duration {
        if self.max.is_none() && self.presence == Presence::There { Duration::ZERO } else { GRACE }
    }

    fn warn_once(&mut self) {
        if std::mem::replace(&mut self.warned, true) {
            return;
        }
        if self.line.is_some() {
            warn!(
                "the service has no fd store: a reload keeps its sockets and state, a crash does not; \
                 set FileDescriptorStoreMax= in the [Service] section, for example to 64"
            );
        } else {
            warn!(
                "no service manager that keeps fds: a reload keeps sockets and state, a crash does not; run the \
                 service under systemd with FileDescriptorStoreMax= in its [Service] section"
            );
        }
    }

    /// Forgets what the manager has dropped because it hung up.
    pub(super) fn prune(&mut self) {
        for (name, group) in self.groups.iter_mut().filter(|(_, group)| group.polling == Polling::On) {
            let before = group.fds.len();
            group.fds.retain(|held| !is_dead(held.fd.as_fd()).unwrap_or(false));
            if group.fds.len() < before {
                debug!(name, dropped = before - group.fds.len(), "fd store: hung up, dropped");
            }
        }
        self.groups.retain(|_, group| !group.fds.is_empty());
    }

    fn remove_debris(&mut self) -> Result<()> {
        if let Some(line) = self.reachable() {
            for slot in &self.debris {
                line.remove(slot)?;
            }
        }
        self.debris.clear();
        Ok(())
    }

    /// Removes what was replaced. What replaced it is safe, so a failure is no reason to fail: it
    /// is tried again with the next change.
    fn remove_superseded(&mut self) {
        let superseded = std::mem::take(&mut self.superseded);
        let Some(line) = self.reachable() else { return };
        let left = superseded.into_iter().filter(|slot| {
            let removed = line.remove(slot);
            removed.inspect_err(|error| warn!(%error, "fd store: {slot} cannot be removed yet")).is_err()
        });
        self.superseded = left.collect();
    }

    /// Picks those that are not in the store yet. An error: one is there under another name.
    fn new_ones(&self, name: &str, fds: Vec<OwnedFd>) -> Result<Vec<OwnedFd>> {
        let mut new: Vec<OwnedFd> = Vec::with_capacity(fds.len());
        let groups: Vec<_> =
            self.groups.iter().flat_map(|(n, g)| g.fds.iter().map(move |held| (n, &held.fd))).collect();
        let given = self.given.iter().filter(|(n, _)| n == name).map(|(n, fd)| (n, fd));
        let known: Vec<_> = groups.into_iter().chain(given).collect();
        'all: for fd in fds {
            let same = |other: &OwnedFd| {
                socket::same(fd.as_fd(), other.as_fd())
                    .map_err(|e| Error::os(format!("cannot look at an fd for the fd store, {name:?}"), e))
            };
            for other in &new {
                if same(other)? {
                    continue 'all;
                }
            }
            for (theirs, other) in &known {
                if !same(other)? {
                    continue;
                }
                if *theirs == name {
                    continue 'all;
                }
                let why = format!(
                    "an fd for {name:?} is in the fd store as {theirs:?}: systemd keeps each open file once, under its first \
                     name; remove that one first"
                );
                return Err(Error::new(Kind::Invalid, why));
            }
            new.push(fd);
        }
        Ok(new)
    }

    fn check_open(&self) -> Result<()> {
        if self.mode == Mode::Frozen {
            return Err(Error::new(Kind::State, "the fd store belongs to the next generation now"));
        }
        Ok(())
    }

    fn kept(&self, name: &str) -> Kept {
        self.groups.get(name).map_or(Kept::Stored, Group::kept)
    }

    fn all_kept(&self) -> Kept {
        if self.reachable().is_some() { Kept::Stored } else { Kept::HeldOnly }
    }

    /// The way to the store, unless there is none.
    pub(super) fn reachable(&self) -> Option<&Line> {
        self.line.as_ref().filter(|_| self.presence != Presence::Missing)
    }

    fn count_stored(&self) -> usize {
        self.groups.values().flat_map(|group| &group.fds).filter(|held| held.stored).count()
    }

    fn count_waiting(&self) -> usize {
        self.count_all() - self.count_stored()
    }

    fn count_all(&self) -> usize {
        self.groups.values().map(|group| group.fds.len()).sum()
    }
}

pub(super) fn slot(name: &str, number: u64) -> String {
    Slot { name: name.to_owned(), number, stored: true }.to_string()
}
