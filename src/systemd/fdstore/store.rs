//! The handle to the store: what an application asks of it, and what the service does.

use crate::error::{Error, Kind, Result};
use crate::systemd::activation::{Activation, Socket};
use crate::systemd::environment::Environment;
use crate::systemd::fdstore::claim::Slots;
use crate::systemd::fdstore::entry::{Entry, Kept, Polling, Rejected, Synced, copies};
use crate::systemd::fdstore::group::{Held, Mode, Presence};
use crate::systemd::fdstore::line::Line;
use crate::systemd::fdstore::names::Names;
use crate::systemd::fdstore::shared::{Locked, Shared};
use crate::systemd::fdstore::table::Table;
use crate::systemd::notify::{BARRIER_TIMEOUT, Notifier};
use crate::wire::store::Slot;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// How long each message to the manager, and each barrier, may take, unless it is set otherwise.
pub const STORE_TIMEOUT: Duration = BARRIER_TIMEOUT;

/// The fd store of this service. Clones are the same one.
///
/// It keeps a copy of each fd, as systemd gives stored fds back only at a start: the next
/// generation gets them [from this process](Self::entries).
///
/// The methods block for as long as the manager needs, usually less than a millisecond, and with
/// [`STORE_TIMEOUT`] as the limit of each message; those whose names end in `_async` do the same on
/// the runtime's threads for blocking calls.
#[derive(Debug, Clone)]
#[doc(alias = "FDSTORE")]
pub struct FdStore {
    pub(super) table: Arc<Shared>,
}

impl FdStore {
    /// Takes what came from the store out of `activation`: those of `names`, and handover's own.
    ///
    /// Entries that are of no use (a peer that is gone, a name that nobody can have given) are
    /// [`rejected`](Self::rejected). Nothing is sent before the first change.
    ///
    /// # Errors
    ///
    /// There is no fd left, see `LimitNOFILE=`.
    pub fn open(
        environment: &Environment,
        notifier: &Notifier,
        activation: &mut Activation,
        names: &Names,
    ) -> Result<Self> {
        let max = environment.get("FDSTORE").and_then(|max| max.to_str()).and_then(|max| max.parse().ok());
        let line = notifier.carries_fds().then(|| Line { notifier: notifier.clone(), timeout: STORE_TIMEOUT });
        let mut table = Table {
            line,
            max,
            presence: Presence::Unknown,
            mode: Mode::Active,
            groups: BTreeMap::new(),
            given: Vec::new(),
            foreign: 0,
            debris: Vec::new(),
            superseded: Vec::new(),
            rejected: Vec::new(),
            warned: false,
        };
        table.claim(activation, names)?;
        Ok(Self { table: Arc::new(Shared::new(table)) })
    }

    /// Sets how long each message and each barrier may take. The default is [`STORE_TIMEOUT`].
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        if let Some(line) = &mut self.lock().line {
            line.timeout = timeout;
        }
        self
    }

    /// Adds fds under a name. The store gets copies; when this returns, `fds` may be closed.
    ///
    /// An open file that is there already is not put twice; nor is one that a .socket unit passed
    /// under that name, which keeps it anyway. systemd drops an fd that hangs up, as a connection
    /// does that its peer has reset.
    ///
    /// # Errors
    ///
    /// - [`Error::is_invalid`]: systemd does not accept the name, or one of the fds is there under
    ///   another name.
    /// - [`Error::is_store`]: there is no room. Nothing was put; the message names the number that
    ///   `FileDescriptorStoreMax=` needs.
    /// - [`Error::is_notify`], [`Error::is_timeout`]: the manager does not answer. Fds for a new
    ///   name are not kept. Those for a name that exists are, and may be in the store:
    ///   [`sync`](Self::sync) makes sure.
    /// - [`Error::is_state`]: the next generation has taken over.
    pub fn put<F: AsFd>(&self, name: &str, fds: &[F]) -> Result<Kept> {
        self.lock().put(name, copies(name, fds)?, Polling::On)
    }

    /// Does what [`put`](Self::put) does, with fds that systemd shall keep also when they hang up
    /// (`FDPOLL=0`).
    ///
    /// At the next start [`Names::unpolled`] must name it, else it is rejected when it has hung up.
    /// For a name that exists the option stays as it is.
    ///
    /// # Errors
    ///
    /// They are those of [`put`](Self::put).
    #[doc(alias = "FDPOLL")]
    pub fn put_unpolled<F: AsFd>(&self, name: &str, fds: &[F]) -> Result<Kept> {
        self.lock().put(name, copies(name, fds)?, Polling::Off)
    }

    /// Puts these in the place of what is there under the name, if anything is. At every moment the
    /// store has the old or the new ones; when this returns, it has the new ones, or after an error
    /// the old ones.
    ///
    /// # Errors
    ///
    /// The same as for [`put`](Self::put); and the store needs room for old and new. It is
    /// [`Error::is_invalid`] also when some of the fds, but not all, are there under this name
    /// already, or for more than 128 fds. When the manager did not answer in time, and the process
    /// dies before the next change, the new ones may be what comes back.
    pub fn replace<F: AsFd>(&self, name: &str, fds: &[F]) -> Result<Kept> {
        self.lock().replace(name, copies(name, fds)?)
    }

    /// Takes the fds of the name out of the store. The result is empty if there are none.
    ///
    /// # Errors
    ///
    /// The manager does not answer: then they are kept. Or, with [`Error::is_state`], the next
    /// generation has taken over.
    #[doc(alias = "FDSTOREREMOVE")]
    pub fn take(&self, name: &str) -> Result<Vec<OwnedFd>> {
        Ok(self.lock().take(name)?.unwrap_or_default())
    }

    /// Takes the fds of the name out of the store and closes them. False: there were none.
    ///
    /// # Errors
    ///
    /// They are those of [`take`](Self::take).
    pub fn remove(&self, name: &str) -> Result<bool> {
        Ok(self.lock().take(name)?.is_some())
    }

    /// Copies the fds of the name, which stay in the store. The result is empty if there are none.
    ///
    /// # Errors
    ///
    /// There is no fd left, see `LimitNOFILE=`.
    pub fn get(&self, name: &str) -> Result<Vec<OwnedFd>> {
        let table = self.lock();
        let fds: Vec<_> =
            table.groups.get(name).map(|g| g.fds.iter().map(|held| &held.fd).collect()).unwrap_or_default();
        copies(name, &fds)
    }

    /// Lists what there is, by name.
    #[must_use]
    pub fn list(&self) -> Vec<Entry> {
        let table = self.lock();
        let entries = table.groups.iter();
        entries.map(|(name, group)| Entry { name: name.clone(), fds: group.fds.len(), kept: group.kept() }).collect()
    }

    /// Lists what came in at the start and was of no use.
    #[must_use]
    pub fn rejected(&self) -> Vec<Rejected> {
        self.lock().rejected.clone()
    }

    /// Makes the store have what this process has, and nothing that was rejected or replaced. Also
    /// ends [`standby`](Self::standby) and a [`freeze`](Self::freeze).
    ///
    /// Call it once the service is ready, and after each reload: what `FileDescriptorStoreMax=` has
    /// no room for any more is noticed here.
    ///
    /// # Errors
    ///
    /// They are those of [`put`](Self::put).
    pub fn sync(&self) -> Result<Synced> {
        let (synced, unproven) = self.lock().sync()?;
        // Asking takes a while, in which the store must be there for others.
        if let Some(unproven) = unproven {
            unproven.verify()?;
        }
        Ok(synced)
    }

    /// Keeps changes here alone from now on, until [`sync`](Self::sync): for a process that the
    /// manager does not listen to yet, because it is not the main one. What was inherited cannot be
    /// replaced meanwhile ([`Error::is_state`]): the previous generation still may.
    pub fn standby(&self) {
        self.lock().mode = Mode::Standby;
    }

    /// Refuses changes from now on ([`Error::is_state`]), until [`sync`](Self::sync): for a process
    /// that hands over.
    pub fn freeze(&self) {
        self.lock().freeze();
    }

    /// Copies everything for the next generation, to be passed to it as sockets are, under these
    /// names.
    ///
    /// # Errors
    ///
    /// There is no fd left, see `LimitNOFILE=`.
    pub fn entries(&self) -> Result<Vec<(String, OwnedFd)>> {
        self.estate().map(|(entries, _)| entries)
    }

    /// Takes over from [`entries`](Self::entries) of the previous generation what is newer than
    /// what is here, or was put here in [`standby`](Self::standby).
    ///
    /// # Errors
    ///
    /// With [`Error::is_protocol`]: a name is none of those. The others are taken all the same.
    pub fn adopt(&self, entries: Vec<(String, OwnedFd)>) -> Result<()> {
        let (mut slots, mut odd) = (Slots::default(), Vec::new());
        let mut table = self.lock();
        for (name, fd) in entries {
            match Slot::parse(&name) {
                Some(slot) => {
                    let polling = table.groups.get(&slot.name).map_or(Polling::On, |group| group.polling);
                    slots.add(slot.name, slot.number, polling, [Held { fd, kind: None, stored: slot.stored }]);
                }
                None => odd.push(name),
            }
        }
        table.admit(slots);
        if odd.is_empty() {
            return Ok(());
        }
        Err(Error::new(
            Kind::Protocol,
            format!("the previous generation passed {odd:?}, which are no names of the fd store"),
        ))
    }

    /// Closes what nobody took from `activation`, and removes it from the store: names that an
    /// older version of the service put. The names are for the log. A .socket unit keeps its own.
    ///
    /// # Errors
    ///
    /// The manager does not answer.
    pub fn discard_unclaimed(&self, activation: &mut Activation) -> Result<Vec<String>> {
        self.discard_unclaimed_if(activation, |_| true)
    }

    /// Does what [`discard_unclaimed`](Self::discard_unclaimed) does for the names that are to be
    /// removed; what has another name is closed alone, and stays in the store.
    pub(crate) fn discard_unclaimed_if(
        &self,
        activation: &mut Activation,
        remove: impl Fn(&str) -> bool,
    ) -> Result<Vec<String>> {
        let mut names = activation.close_unclaimed();
        let left = names.iter().filter(|name| !remove(name)).count();
        names.sort_unstable();
        names.dedup();
        let mut table = self.lock();
        table.given.retain(|(name, _)| !names.contains(name));
        table.foreign = left;
        let of_store = |name: &String| !name.is_empty() && !table.has_slot(name) && remove(name);
        let debris: Vec<_> = names.iter().filter(|name| of_store(name)).cloned().collect();
        table.debris.extend(debris);
        if table.mode == Mode::Active {
            table.flush()?;
        }
        Ok(names)
    }

    /// Does what [`put`](Self::put) does, for a tokio runtime.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, the fds are put all the same. This holds for all `_async`
    /// methods.
    ///
    /// # Errors
    ///
    /// They are those of [`put`](Self::put).
    ///
    /// # Panics
    ///
    /// It panics without a tokio runtime. This holds for all `_async` methods.
    pub async fn put_async<F: AsFd>(&self, name: &str, fds: &[F]) -> Result<Kept> {
        let (name, fds) = (name.to_owned(), copies(name, fds)?);
        self.blocking(move |table| table.put(&name, fds, Polling::On)).await
    }

    /// Does what [`replace`](Self::replace) does, for a tokio runtime.
    ///
    /// # Errors
    ///
    /// They are those of [`replace`](Self::replace).
    pub async fn replace_async<F: AsFd>(&self, name: &str, fds: &[F]) -> Result<Kept> {
        let (name, fds) = (name.to_owned(), copies(name, fds)?);
        self.blocking(move |table| table.replace(&name, fds)).await
    }

    /// Does what [`take`](Self::take) does, for a tokio runtime.
    ///
    /// # Errors
    ///
    /// They are those of [`take`](Self::take).
    pub async fn take_async(&self, name: &str) -> Result<Vec<OwnedFd>> {
        let name = name.to_owned();
        self.blocking(move |table| Ok(table.take(&name)?.unwrap_or_default())).await
    }

    /// Does what [`remove`](Self::remove) does, for a tokio runtime.
    ///
    /// # Errors
    ///
    /// They are those of [`take`](Self::take).
    pub async fn remove_async(&self, name: &str) -> Result<bool> {
        let name = name.to_owned();
        self.blocking(move |table| Ok(table.take(&name)?.is_some())).await
    }

    /// Does what [`sync`](Self::sync) does, for a tokio runtime.
    ///
    /// # Errors
    ///
    /// They are those of [`sync`](Self::sync).
    pub async fn sync_async(&self) -> Result<Synced> {
        let store = self.clone();
        joined(tokio::task::spawn_blocking(move || store.sync()).await)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Table) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let store = self.clone();
        joined(tokio::task::spawn_blocking(move || change(&mut store.lock())).await)
    }

    pub(super) fn lock(&self) -> Locked<'_> {
        self.table.lock()
    }
}

impl FdStore {
    /// Returns another number when anything may have changed. It does not wait for a change under
    /// way, which takes as long as the manager takes: whoever only wants to know whether his entry
    /// is still the same is not held up by it.
    pub(crate) fn changes(&self) -> u64 {
        self.table.changes()
    }

    /// Copies the fds of the name, and says who keeps them.
    pub(crate) fn look(&self, name: &str) -> Result<(Vec<OwnedFd>, Kept)> {
        let table = self.lock();
        let Some(group) = table.groups.get(name) else { return Ok((Vec::new(), Kept::HeldOnly)) };
        let fds: Vec<_> = group.fds.iter().map(|held| &held.fd).collect();
        Ok((copies(name, &fds)?, group.kept()))
    }

    /// Copies the fds of an entry, as sockets of that name. What those are that came in at the
    /// start was looked up then.
    pub(crate) fn sockets(&self, entry: &str, name: &str) -> Result<Vec<Socket>> {
        let table = self.lock();
        let held = table.groups.get(entry).map(|group| group.fds.as_slice()).unwrap_or_default();
        let fds: Vec<_> = held.iter().map(|held| &held.fd).collect();
        let sockets = copies(entry, &fds)?.into_iter().zip(held).map(|(fd, held)| match held.kind {
            Some(kind) => Ok(Socket::of_kind(name.to_owned(), kind, fd)),
            None => Socket::new(name.to_owned(), fd).map_err(|error| {
                Error::caused(Kind::Socket, format!("{entry:?} in the fd store cannot be used"), error)
            }),
        });
        sockets.collect()
    }

    /// Removes what is there under the name from before this process. False: there is nothing, or
    /// this process has put it.
    pub(crate) fn remove_inherited(&self, name: &str) -> Result<bool> {
        let mut table = self.lock();
        let inherited = table.groups.get(name).is_some_and(|group| group.inherited);
        Ok(inherited && table.take(name)?.is_some())
    }

    /// Tells whether there is a manager that keeps fds, as far as that is known.
    pub(crate) fn is_there(&self) -> bool {
        let table = self.lock();
        table.reachable().is_some() && table.max != Some(0)
    }

    /// Tells whether changes stay in this process.
    pub(crate) fn is_standby(&self) -> bool {
        self.lock().mode == Mode::Standby
    }

    /// Puts what was of no use under another name, for somebody to look at.
    pub(crate) fn put_aside(&self, name: &str, aside: &str) -> Result<()> {
        let mut table = self.lock();
        // Removed first: systemd would not take the same open file under a second name.
        table.take(aside)?;
        let fds = table.take(name)?.unwrap_or_default();
        table.put(aside, fds, Polling::On).map(drop)
    }
}

fn joined<T>(changed: std::result::Result<Result<T>, tokio::task::JoinError>) -> Result<T> {
    changed.unwrap_or_else(|e| Err(Error::new(Kind::State, format!("the fd store's change did not run: {e}"))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::systemd::activation::{SocketKind, bind_datagram};

    #[test]
    fn what_a_socket_is_stays_known() {
        let environment = Environment::default();
        let notifier = Notifier::from_env(&environment).unwrap();
        let bound = bind_datagram("log", "127.0.0.1:0").unwrap().pop().unwrap();
        let mut activation = Activation::from_fds(vec![("log".to_owned(), bound.into())]).unwrap();
        let names = Names::new().name("log").name("late");
        let store = FdStore::open(&environment, &notifier, &mut activation, &names).unwrap();
        store.put("late", &store.get("log").unwrap()).unwrap_err();
        store.put("late", &bind_datagram("late", "127.0.0.1:0").unwrap()).unwrap();
        let kinds = |entry: &str| -> Vec<_> { store.lock().groups[entry].fds.iter().map(|held| held.kind).collect() };
        assert_eq!(kinds("log"), [Some(SocketKind::Udp)], "looked up when it came in");
        assert_eq!(kinds("late"), [None], "put here, and so far nobody has asked");
        for entry in ["log", "late"] {
            let sockets = store.sockets(entry, "name").unwrap();
            let shown: Vec<_> = sockets.iter().map(|socket| (socket.name(), socket.kind())).collect();
            assert_eq!(shown, [("name", SocketKind::Udp)], "{entry}");
        }
        assert!(store.sockets("nothing", "name").unwrap().is_empty());
    }
}
